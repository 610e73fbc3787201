/* Tensor-core instructions over a warp's 32 lanes: mma.sync, ldmatrix, stmatrix, movmatrix.
 *
 * A fragment register is a row of 32 words, one a lane. Operands are arrays of pointers to such
 * rows, in the order of the PTX instruction's braces, so that rows may lie anywhere in a register
 * file. All lanes take part: the instructions are .sync.aligned, and a caller with inactive lanes
 * has found an error. `d` may alias `a`, `b` or `c`.
 *
 * Layouts (PTX ISA, "Matrix Fragments for mma.m16n8k*"), with g = lane / 4, t = lane % 4 and
 * P = elements a word: A is 16 x k, register r holds row g + 8 (r % 2), columns
 * 4 P (r / 2) + P t + 0 … P - 1. B is k x 8, register r holds rows 4 P r + P t + 0 … P - 1 of
 * column g. C and D are 16 x 8: four registers (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1),
 * or, packed in halves, two. */
#ifndef MCC_RUNTIME_EMULATOR_TENSOR_H
#define MCC_RUNTIME_EMULATOR_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

typedef enum emu_mma_type {
    EMU_MMA_F16,
    EMU_MMA_BF16,
    EMU_MMA_TF32, /* f32 words; the low 13 bits are ignored */
    EMU_MMA_E4M3,
    EMU_MMA_E5M2,
    EMU_MMA_S8,
    EMU_MMA_U8,
    EMU_MMA_S4,
    EMU_MMA_U4,
    EMU_MMA_F32, /* as accumulator only */
    EMU_MMA_S32  /* as accumulator only */
} emu_mma_type;

/* How a floating-point dot product is added up.
 *
 * EXACT: products are exact, the sum c + p0 + p1 + … is taken in double in that order, and rounded
 * once to the accumulator's type, to nearest even. Nearest, because the result is then within half
 * an ulp of the mathematical one and carries no bias of its own: what remains is the kernel's
 * error.
 *
 * TRUNCATE_24 and _25: as measured on Ampere/Ada and on Hopper (arXiv 2511.10909): every term is
 * aligned to the largest exponent among them, cut to 24 or 25 fraction bits, summed, and the sum
 * cut to f32 (rounded to nearest for f16 accumulators); 24: in steps of 8 terms a k (16 bytes), the
 * sum of one step is the c of the next; 25: in steps of 16 terms (32 bytes). A kernel whose error
 * bound holds only with EXACT relies on what devices do not give. */
typedef enum emu_mma_sum { EMU_MMA_EXACT, EMU_MMA_TRUNCATE_24, EMU_MMA_TRUNCATE_25 } emu_mma_sum;

/* mma.sync.aligned.m16n8k<k>.row.col.<d>.<a>.<b>.<c> with d and c of type `acc`. */
typedef struct emu_mma_op {
    uint8_t k;
    uint8_t a, b, acc; /* emu_mma_type */
    bool satfinite;    /* integers: the exact sum is clamped to s32 instead of wrapped */
} emu_mma_op;

/* For decoding: whether emu_mma knows the operation, and its numbers of registers. Known: f16 and
 * bf16 with k 8, 16; tf32 with k 4, 8; e4m3/e5m2 in any pairing with k 16, 32; s8/u8 in any pairing
 * with k 16, 32; s4/u4 with k 32, 64. acc: f32; f16 for f16 and fp8; s32 for integers. */
bool emu_mma_registers(const emu_mma_op *op, int *n_a, int *n_b, int *n_cd);

/* d = a b + c for an `op` that emu_mma_registers accepts. NaN results are 0x7fffffff (f16:
 * 0x7fff). */
void emu_mma(const emu_mma_op *op, emu_mma_sum sum, const uint32_t *const a[],
             const uint32_t *const b[], const uint32_t *const c[], uint32_t *const d[]);

/* ldmatrix.sync.aligned.m8n8.x<count>{.trans}.shared.b16, count 1, 2 or 4: rows[8 j + i] is where
 * row i of matrix j (16 bytes) lies on the host, which the caller made from lane 8 j + i's address
 * and checked; the other pointers are not looked at. Writes d[0 … count - 1]. */
void emu_ldmatrix(int count, bool trans, const uint8_t *const rows[32], uint32_t *const d[]);

/* stmatrix, the same backwards. */
void emu_stmatrix(int count, bool trans, const uint32_t *const s[], uint8_t *const rows[32]);

/* movmatrix.sync.aligned.m8n8.trans.b16. `d` may be `a`. */
void emu_movmatrix(const uint32_t a[32], uint32_t d[32]);

#endif
