/* Floating-point instructions over a warp's 32 lanes, bit for bit as PTX defines them.
 *
 * Every function computes all 32 lanes; the caller keeps the old value of inactive ones. Registers
 * are words: f32 as its bits; f16, bf16, tf32 and 8-bit types in the low bits, with zeros above on
 * output and anything above on input unless stated. The result may be one of the operands, but must
 * not overlap one in part. NaN results are canonical: f32 0x7fffffff, f16 and bf16 0x7fff, f64
 * 0x7fffffffffffffff, e4m3 and e5m2 0x7f. */
#ifndef MCC_RUNTIME_EMULATOR_LANES_FLOAT_H
#define MCC_RUNTIME_EMULATOR_LANES_FLOAT_H

#include <stdbool.h>
#include <stdint.h>

typedef enum emu_round {
    EMU_RN, /* to nearest, ties to even */
    EMU_RZ, /* toward zero */
    EMU_RM, /* toward minus infinity */
    EMU_RP, /* toward plus infinity */
    EMU_RNA /* to nearest, ties away from zero: cvt.rna.tf32.f32 only */
} emu_round;

/* Modifiers, or-ed. */
enum {
    EMU_FTZ = 1,     /* subnormal f32 (f16: with f16 instructions) operands and results become 0 */
    EMU_SAT = 2,     /* clamp to [0, 1], NaN becomes 0; integers: clamp to the range */
    EMU_RELU = 4,    /* negative results become 0; NaN stays */
    EMU_NAN = 8,     /* min, max: NaN when either operand is */
    EMU_XORSIGN = 16 /* min, max: of absolute values; the sign is the xor of the operands' */
};

/* --- f32 -----------------------------------------------------------------------------------------
 * round: RN, RZ, RM or RP. flags: FTZ, SAT. One rounding. Subtraction is an addition with b's sign
 * turned (emu_f32_sub does it). */
void emu_f32_add(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], emu_round round,
                 unsigned flags);
void emu_f32_sub(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], emu_round round,
                 unsigned flags);
void emu_f32_mul(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], emu_round round,
                 unsigned flags);
void emu_f32_fma(const uint32_t a[32], const uint32_t b[32], const uint32_t c[32], uint32_t d[32],
                 emu_round round, unsigned flags);
/* div.<round>, sqrt.<round>, rcp.<round>: correctly rounded. */
void emu_f32_div(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], emu_round round,
                 unsigned flags);
void emu_f32_sqrt(const uint32_t a[32], uint32_t d[32], emu_round round, unsigned flags);
void emu_f32_rcp(const uint32_t a[32], uint32_t d[32], emu_round round, unsigned flags);
/* flags: FTZ, NAN, XORSIGN. A NaN operand loses to a number (both: NaN); -0 is less than +0. */
void emu_f32_min(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_f32_max(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);

/* --- f16x2 and bf16x2 ----------------------------------------------------------------------------
 * Both halves; for .f16 and .bf16 give operands whose upper halves are zero, and the result's is.
 * Rounded once, to nearest even. flags: f16 FTZ, SAT, RELU (fma); bf16 RELU (fma); min and max: FTZ
 * (f16), NAN, XORSIGN. */
void emu_f16x2_add(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_f16x2_sub(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_f16x2_mul(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_f16x2_fma(const uint32_t a[32], const uint32_t b[32], const uint32_t c[32], uint32_t d[32],
                   unsigned flags);
void emu_f16x2_min(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_f16x2_max(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_bf16x2_add(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_bf16x2_sub(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_bf16x2_mul(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_bf16x2_fma(const uint32_t a[32], const uint32_t b[32], const uint32_t c[32],
                    uint32_t d[32], unsigned flags);
void emu_bf16x2_min(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);
void emu_bf16x2_max(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], unsigned flags);

/* --- approximate functions -----------------------------------------------------------------------
 */

typedef enum emu_approx_fn {
    EMU_EX2,   /* f32, f16x2, bf16x2 */
    EMU_LG2,   /* f32 */
    EMU_RCP,   /* f32 */
    EMU_RSQRT, /* f32 */
    EMU_SQRT,  /* f32 */
    EMU_SIN,   /* f32 */
    EMU_COS,   /* f32 */
    EMU_TANH   /* f32, f16x2, bf16x2 */
} emu_approx_fn;

/* The function correctly rounded to nearest (from a double result, so wrong in about one of 10^7
 * ties), flags: FTZ. With seed != 0 a finite result other than 0 is moved by a pseudo-random amount
 * that depends on seed, function and operand alone and stays within the error that the PTX ISA
 * allows: 2 ulp (rcp and sqrt 1 ulp), sin and cos 2^-20.5 absolute, lg2 2^-22 absolute between 0.5
 * and 2, tanh 2^-11 relative. A kernel must pass with any seed. */
void emu_approx_f32(emu_approx_fn fn, const uint32_t a[32], uint32_t d[32], unsigned flags,
                    uint64_t seed);
/* EX2 and TANH of both halves; for .f16 and .bf16 the caller masks the result's upper half (ex2 of
 * 0 is 1). flags: FTZ. With a seed a result moves by up to 1 ulp. */
void emu_approx_f16x2(emu_approx_fn fn, const uint32_t a[32], uint32_t d[32], unsigned flags,
                      uint64_t seed);
void emu_approx_bf16x2(emu_approx_fn fn, const uint32_t a[32], uint32_t d[32], unsigned flags,
                       uint64_t seed);
/* div.approx and div.full: the correctly rounded quotient, moved up to 2 ulp with a seed. As PTX
 * says, div.approx is 0 for 2^126 < |b| < 2^128 with finite a (`full` false). */
void emu_div_approx_f32(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], bool full,
                        unsigned flags, uint64_t seed);

/* --- conversions ---------------------------------------------------------------------------------
 */

typedef enum emu_number {
    EMU_NUMBER_S8,
    EMU_NUMBER_S16,
    EMU_NUMBER_S32,
    EMU_NUMBER_S64,
    EMU_NUMBER_U8,
    EMU_NUMBER_U16,
    EMU_NUMBER_U32,
    EMU_NUMBER_U64,
    EMU_NUMBER_F16,
    EMU_NUMBER_BF16,
    EMU_NUMBER_TF32, /* as destination only */
    EMU_NUMBER_F32,
    EMU_NUMBER_F64,
    EMU_NUMBER_E4M3, /* packed in pairs in PTX: emu_pack2 and emu_unpack2 */
    EMU_NUMBER_E5M2
} emu_number;

/* cvt.<round>.<to>.<from>. `integral` means the .rni, .rzi, .rmi, .rpi forms where both types are
 * floating point: the value is rounded to an integer in `round`'s direction. To integers that is
 * implied, values out of range saturate, and NaN becomes 0, or 2^(bits - 1) when a 64-bit type is
 * on either side. Integers to integers wrap (or clamp with SAT), and are sign- or zero-extended as
 * their source says. flags: FTZ, SAT, RELU. satfinite: e4m3 and e5m2 (always set there in PTX),
 * f16, bf16, tf32: an overflow gives the largest finite number and not infinity. */
typedef struct emu_convert {
    uint8_t from, to; /* emu_number */
    uint8_t round;    /* emu_round */
    bool integral, satfinite;
    uint8_t flags;
} emu_convert;

/* Types of at most 32 bits on both sides: s8 and s16 results are sign-extended to the word, as are
 * s8 and s16 operands from their low bits. */
void emu_convert32(const emu_convert *op, const uint32_t a[32], uint32_t d[32]);
/* Any types; narrower ones in the low bits of the double words, results extended to 64 bits. */
void emu_convert64(const emu_convert *op, const uint64_t a[32], uint64_t d[32]);

/* cvt.<round>.<to>x2.f32 d, high, low: two f32 to a pair of f16, bf16, e4m3 or e5m2 (op->from is
 * F32). 8-bit pairs fill the low 16 bits. */
void emu_pack2(const emu_convert *op, const uint32_t high[32], const uint32_t low[32],
               uint32_t d[32]);
/* A pair to a pair: f16x2 from e4m3x2 or e5m2x2 (exact), and e4m3x2 or e5m2x2 from f16x2. */
void emu_convert_pair(const emu_convert *op, const uint32_t a[32], uint32_t d[32]);

/* --- one value at a time ------------------------------------------------------------------------
 * For tables, messages and accumulators. Exact, except emu_round_f64. */
float emu_f16_value(uint16_t bits);
float emu_bf16_value(uint16_t bits);
float emu_e4m3_value(uint8_t bits);
float emu_e5m2_value(uint8_t bits);
/* The bits of `x` rounded to a floating-point type of at most 32 bits. */
uint32_t emu_round_f64(double x, emu_number to, emu_round round, bool satfinite);

#endif
