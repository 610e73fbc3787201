/* Tensor-core instructions: fragments are gathered into small matrices, multiplied by one loop that
 * the compiler vectorizes over the 8 columns, and given back.
 *
 * A register row of A or B, in lane order, is 8 matrix rows of 16 bytes: lane 4 g + t holds bytes
 * 4 t … 4 t + 3 of row g. That holds for every element width, so gathering is a copy.
 *
 * This file is compiled with contraction allowed: every product of two operands is exact in its
 * working type (double for floating point, float for integers of up to 8 bits), so that fused and
 * separate multiply-adds give the same bits. */
#include "runtime/emulator/tensor.h"

#include "runtime/emulator/lanes_float.h"
#include "runtime/emulator/simd.h"

#include <math.h>

enum { ROWS = 16, COLUMNS = 8, MAX_K = 64, MAX_ROW_BYTES = 32 };

/* Operands as bytes: rows of k elements. `b` holds columns. */
typedef struct raw_operands {
    uint8_t a[ROWS][MAX_ROW_BYTES];
    uint8_t b[COLUMNS][MAX_ROW_BYTES];
} raw_operands;

static int type_bits(int type) {
    switch (type) {
    case EMU_MMA_F16:
    case EMU_MMA_BF16:
        return 16;
    case EMU_MMA_TF32:
        return 32;
    case EMU_MMA_E4M3:
    case EMU_MMA_E5M2:
    case EMU_MMA_S8:
    case EMU_MMA_U8:
        return 8;
    case EMU_MMA_S4:
    case EMU_MMA_U4:
        return 4;
    default:
        return 0;
    }
}

static bool is_fp8(int type) {
    return type == EMU_MMA_E4M3 || type == EMU_MMA_E5M2;
}
static bool is_int8(int type) {
    return type == EMU_MMA_S8 || type == EMU_MMA_U8;
}
static bool is_int4(int type) {
    return type == EMU_MMA_S4 || type == EMU_MMA_U4;
}

bool emu_mma_registers(const emu_mma_op *op, int *n_a, int *n_b, int *n_cd) {
    bool known = false;
    int a = op->a, b = op->b, k = op->k, acc = op->acc;
    if (a == EMU_MMA_F16 && b == a)
        known = (k == 8 || k == 16) && (acc == EMU_MMA_F32 || acc == EMU_MMA_F16);
    else if (a == EMU_MMA_BF16 && b == a)
        known = (k == 8 || k == 16) && acc == EMU_MMA_F32;
    else if (a == EMU_MMA_TF32 && b == a)
        known = (k == 4 || k == 8) && acc == EMU_MMA_F32;
    else if (is_fp8(a) && is_fp8(b))
        known = (k == 16 || k == 32) && (acc == EMU_MMA_F32 || acc == EMU_MMA_F16);
    else if (is_int8(a) && is_int8(b))
        known = (k == 16 || k == 32) && acc == EMU_MMA_S32;
    else if (is_int4(a) && is_int4(b))
        known = (k == 32 || k == 64) && acc == EMU_MMA_S32;
    if (!known || (op->satfinite && acc != EMU_MMA_S32))
        return false;
    int row_words = k * type_bits(a) / 32;
    *n_a = row_words / 2;
    *n_b = row_words / 4;
    *n_cd = acc == EMU_MMA_F16 ? 2 : 4;
    return true;
}

static void gather(int row_bytes, const uint32_t *const a[], const uint32_t *const b[],
                   raw_operands *raw) {
    for (int step = 0; step < row_bytes / 16; step++) {
        for (int g = 0; g < 8; g++) {
            memcpy(raw->a[g] + 16 * step, a[2 * step] + 4 * g, 16);
            memcpy(raw->a[g + 8] + 16 * step, a[2 * step + 1] + 4 * g, 16);
            memcpy(raw->b[g] + 16 * step, b[step] + 4 * g, 16);
        }
    }
}

/* One row of k elements as f32, which holds all of these types exactly. */
EMU_INLINE void row_to_float(int type, int k, const uint8_t row[MAX_ROW_BYTES], float out[MAX_K]) {
    uint16_t halves[MAX_ROW_BYTES / 2];
    uint32_t words[MAX_ROW_BYTES / 4];
    switch (type) {
    case EMU_MMA_F16:
        memcpy(halves, row, sizeof halves);
        for (int i = 0; i < k; i++)
            out[i] = emu_f16_to_float(halves[i]);
        break;
    case EMU_MMA_BF16:
        memcpy(halves, row, sizeof halves);
        for (int i = 0; i < k; i++)
            out[i] = emu_bf16_to_float(halves[i]);
        break;
    case EMU_MMA_TF32:
        memcpy(words, row, sizeof words);
        for (int i = 0; i < k; i++) {
            uint32_t kept = words[i] & 0xffffe000;
            bool nan = (words[i] & 0x7fffffff) > 0x7f800000; /* also when all kept bits are 0 */
            out[i] = emu_float_of(nan ? 0x7fffffff : kept);
        }
        break;
    case EMU_MMA_E4M3:
        for (int i = 0; i < k; i++)
            out[i] = emu_e4m3_to_float(row[i]);
        break;
    case EMU_MMA_E5M2:
        for (int i = 0; i < k; i++)
            out[i] = emu_e5m2_to_float(row[i]);
        break;
    case EMU_MMA_S8:
        for (int i = 0; i < k; i++)
            out[i] = (float)(int8_t)row[i];
        break;
    case EMU_MMA_U8:
        for (int i = 0; i < k; i++)
            out[i] = (float)row[i];
        break;
    case EMU_MMA_S4:
        for (int i = 0; i < k; i++)
            out[i] = (float)((int)((row[i / 2] >> i % 2 * 4 & 15) ^ 8) - 8);
        break;
    default: /* U4 */
        for (int i = 0; i < k; i++)
            out[i] = (float)(row[i / 2] >> i % 2 * 4 & 15);
        break;
    }
}

/* All of A, and B transposed to rows of its k dimension. */
typedef struct tiles {
    float a[ROWS][MAX_K];
    float b[MAX_K][COLUMNS];
} tiles;

EMU_INLINE void convert_tiles(int a_type, int b_type, int k, const raw_operands *raw, tiles *t) {
    float column[COLUMNS][MAX_K];
    for (int m = 0; m < ROWS; m++)
        row_to_float(a_type, k, raw->a[m], t->a[m]);
    for (int n = 0; n < COLUMNS; n++)
        row_to_float(b_type, k, raw->b[n], column[n]);
    for (int i = 0; i < k; i++) {
        for (int n = 0; n < COLUMNS; n++)
            t->b[i][n] = column[n][i];
    }
}

typedef double row_f64 __attribute__((vector_size(COLUMNS * sizeof(double))));
typedef float row_f32 __attribute__((vector_size(COLUMNS * sizeof(float))));

/* d += a b, each element's terms in order of k. Four rows at a time hide the latency of additions
 * and fit the registers of every build. */
EMU_INLINE void multiply_f64(int k, const tiles *t, double d[ROWS][COLUMNS]) {
    double b[MAX_K][COLUMNS];
    for (int i = 0; i < k; i++) {
        for (int n = 0; n < COLUMNS; n++)
            b[i][n] = t->b[i][n];
    }
    for (int m = 0; m < ROWS; m += 4) {
        row_f64 sum[4], row;
        memcpy(sum, d[m], sizeof sum);
        for (int i = 0; i < k; i++) {
            memcpy(&row, b[i], sizeof row);
            sum[0] += row * (double)t->a[m][i];
            sum[1] += row * (double)t->a[m + 1][i];
            sum[2] += row * (double)t->a[m + 2][i];
            sum[3] += row * (double)t->a[m + 3][i];
        }
        memcpy(d[m], sum, sizeof sum);
    }
}

EMU_INLINE void multiply_f32(int k, const tiles *t, float d[ROWS][COLUMNS]) {
    for (int m = 0; m < ROWS; m += 8) {
        row_f32 sum[8] = {{0}}, row;
        for (int i = 0; i < k; i++) {
            memcpy(&row, t->b[i], sizeof row);
            for (int j = 0; j < 8; j++)
                sum[j] += row * t->a[m + j][i];
        }
        memcpy(d[m], sum, sizeof sum);
    }
}

/* --- accumulators: lane 4 g + t holds columns 2 t and 2 t + 1 of row g, or of row g + 8 ---------
 */

EMU_INLINE void accumulators_to_f64(int acc, const uint32_t *const c[], double d[ROWS][COLUMNS]) {
    for (int half = 0; half < 2; half++) {
        double *out = d[8 * half]; /* 64 elements: lane by lane, two a lane */
        if (acc == EMU_MMA_F16) {
            for (int lane = 0; lane < 32; lane++) {
                out[2 * lane] = emu_f16_to_float(c[half][lane] & 0xffff);
                out[2 * lane + 1] = emu_f16_to_float(c[half][lane] >> 16);
            }
        } else {
            for (int lane = 0; lane < 32; lane++) {
                out[2 * lane] = emu_float_of(c[2 * half][lane]);
                out[2 * lane + 1] = emu_float_of(c[2 * half + 1][lane]);
            }
        }
    }
}

EMU_INLINE uint32_t bits_of_sum(double x) {
    float rounded = (float)x;
    return rounded != rounded ? 0x7fffffff : emu_bits_of(rounded);
}

EMU_INLINE void f64_to_accumulators(int acc, double d[ROWS][COLUMNS], uint32_t *const out[]) {
    for (int half = 0; half < 2; half++) {
        const double *in = d[8 * half];
        if (acc == EMU_MMA_F16) {
            for (int lane = 0; lane < 32; lane++) {
                uint32_t low = emu_round_f64(in[2 * lane], EMU_NUMBER_F16, EMU_RN, false);
                uint32_t high = emu_round_f64(in[2 * lane + 1], EMU_NUMBER_F16, EMU_RN, false);
                out[half][lane] = low | high << 16;
            }
        } else {
            for (int lane = 0; lane < 32; lane++) {
                out[2 * half][lane] = bits_of_sum(in[2 * lane]);
                out[2 * half + 1][lane] = bits_of_sum(in[2 * lane + 1]);
            }
        }
    }
}

/* --- the three ways to add ----------------------------------------------------------------------
 */

/* Written out for the types that matter, so that the conversion is not chosen in its loop. */
EMU_CLONES static void mma_exact(const emu_mma_op *op, const raw_operands *raw,
                                 const uint32_t *const c[], uint32_t *const d[]) {
    tiles t;
    double sums[ROWS][COLUMNS];
    if (op->a == EMU_MMA_F16 && op->k == 16)
        convert_tiles(EMU_MMA_F16, EMU_MMA_F16, 16, raw, &t);
    else if (op->a == EMU_MMA_BF16 && op->k == 16)
        convert_tiles(EMU_MMA_BF16, EMU_MMA_BF16, 16, raw, &t);
    else
        convert_tiles(op->a, op->b, op->k, raw, &t);
    accumulators_to_f64(op->acc, c, sums);
    multiply_f64(op->k, &t, sums);
    f64_to_accumulators(op->acc, sums, d);
}

EMU_CLONES static void mma_integer(const emu_mma_op *op, const raw_operands *raw,
                                   const uint32_t *const c[], uint32_t *const d[]) {
    tiles t;
    float sums[ROWS][COLUMNS]; /* exact: at most 64 terms below 2^16 */
    if (op->a == EMU_MMA_S8 && op->b == EMU_MMA_S8 && op->k == 32)
        convert_tiles(EMU_MMA_S8, EMU_MMA_S8, 32, raw, &t);
    else
        convert_tiles(op->a, op->b, op->k, raw, &t);
    multiply_f32(op->k, &t, sums);
    for (int half = 0; half < 2; half++) {
        const float *in = sums[8 * half];
        for (int odd = 0; odd < 2; odd++) {
            const uint32_t *from = c[2 * half + odd];
            uint32_t *to = d[2 * half + odd];
            if (op->satfinite) {
                for (int lane = 0; lane < 32; lane++) {
                    int64_t x = (int64_t)(int32_t)from[lane] + (int64_t)in[2 * lane + odd];
                    x = x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x;
                    to[lane] = (uint32_t)(int32_t)x;
                }
            } else {
                EMU_LANES for (int lane = 0; lane < 32; lane++) to[lane] =
                    from[lane] + (uint32_t)(int32_t)in[2 * lane + odd];
            }
        }
    }
}

/* The exponent that hardware gives a finite operand: subnormal numbers have the smallest one. */
static int least_exponent(int type) {
    return type == EMU_MMA_F16    ? -14
           : type == EMU_MMA_E4M3 ? -6
           : type == EMU_MMA_E5M2 ? -14
                                  : -126;
}
static int operand_exponent(int type, double x) {
    int least = least_exponent(type), e = x == 0 ? least : ilogb(x);
    return e < least ? least : e;
}

/* c + a0 b0 + … of n terms in fixed point: multiples of 2^(e - bits), where e is the largest
 * exponent among the terms, cut toward zero. The sum is exact: n + 1 numbers below 2^(bits + 2). */
static double truncated_sum(const emu_mma_op *op, int bits, int n, const float *a,
                            const float (*b)[COLUMNS], int column, double c) {
    double plain = c;
    int largest = c == 0 ? INT32_MIN : operand_exponent(op->acc, c);
    for (int i = 0; i < n; i++) {
        double p = (double)a[i] * b[i][column];
        plain += p;
        if (p != 0 && isfinite(p)) {
            int e = operand_exponent(op->a, a[i]) + operand_exponent(op->b, b[i][column]);
            largest = e > largest ? e : largest;
        }
    }
    if (!isfinite(plain) || largest == INT32_MIN)
        return plain;
    int64_t sum = (int64_t)ldexp(c, bits - largest);
    for (int i = 0; i < n; i++)
        sum += (int64_t)ldexp((double)a[i] * b[i][column], bits - largest);
    double result = ldexp((double)sum, largest - bits);
    if (op->acc == EMU_MMA_F32)
        return emu_float_of(emu_round_f64(result, EMU_NUMBER_F32, EMU_RZ, false));
    return emu_f16_value((uint16_t)emu_round_f64(result, EMU_NUMBER_F16, EMU_RN, false));
}

/* The same for a row of sums at once, where all operands are finite and accumulators f32. */

enum { NO_EXPONENT = -(1 << 20) }; /* of zero: less than any two together */

typedef int32_t row_i32 __attribute__((vector_size(COLUMNS * sizeof(int32_t))));

typedef struct wide_tiles {
    double a[ROWS][MAX_K];
    double b[MAX_K][COLUMNS];
    int32_t a_exponents[ROWS][MAX_K], b_exponents[MAX_K][COLUMNS];
} wide_tiles;

EMU_INLINE int32_t exponent_of(float x, int least) {
    int32_t e = (int32_t)(emu_bits_of(x) >> 23 & 255) - 127;
    return x == 0 ? NO_EXPONENT : e < least ? least : e;
}

/* False where something is not finite. */
EMU_INLINE bool widen_tiles(const emu_mma_op *op, const tiles *t, wide_tiles *w) {
    int a_least = least_exponent(op->a), b_least = least_exponent(op->b);
    uint32_t odd = 0;
    for (int m = 0; m < ROWS; m++)
        for (int i = 0; i < op->k; i++) {
            w->a[m][i] = t->a[m][i];
            w->a_exponents[m][i] = exponent_of(t->a[m][i], a_least);
            odd |= w->a_exponents[m][i] == 128;
        }
    for (int i = 0; i < op->k; i++)
        for (int n = 0; n < COLUMNS; n++) {
            w->b[i][n] = t->b[i][n];
            w->b_exponents[i][n] = exponent_of(t->b[i][n], b_least);
            odd |= w->b_exponents[i][n] == 128;
        }
    return !odd;
}

/* 2^e, for exponents of normal numbers. */
EMU_INLINE double power_of_two(int32_t e) {
    return emu_double_of((uint64_t)(uint32_t)(e + 1023) << 52);
}

/* One step of n terms from i on, of GROUP rows from m on: side by side their latencies hide. */
enum { GROUP = 4, SUMS = GROUP * COLUMNS };

EMU_INLINE void add_terms(int m, int i, int n, const wide_tiles *w, const double scale[SUMS],
                          double total[SUMS]) {
    row_f64 scales[GROUP], totals[GROUP], row;
    memcpy(scales, scale, sizeof scales);
    memcpy(totals, total, sizeof totals);
    for (int k = i; k < i + n; k++) {
        memcpy(&row, w->b[k], sizeof row);
        for (int j = 0; j < GROUP; j++) {
            row_f64 term = row * w->a[m + j][k] * scales[j];
            for (int c = 0; c < COLUMNS; c++)
                term[c] = trunc(term[c]);
            totals[j] += term;
        }
    }
    memcpy(total, totals, sizeof totals);
}

EMU_INLINE void find_largest(int m, int i, int n, const wide_tiles *w, int32_t largest[SUMS]) {
    row_i32 most[GROUP], e;
    memcpy(most, largest, sizeof most);
    for (int k = i; k < i + n; k++) {
        memcpy(&e, w->b_exponents[k], sizeof e);
        for (int j = 0; j < GROUP; j++) {
            row_i32 both = e + w->a_exponents[m + j][k], more = both > most[j];
            most[j] = (more & both) | (~more & most[j]);
        }
    }
    memcpy(largest, most, sizeof most);
}

EMU_INLINE void truncated_rows(int bits, int m, int i, int n, const wide_tiles *w,
                               double sums[SUMS]) {
    int32_t largest[SUMS];
    double scale[SUMS], total[SUMS];
    uint64_t odd = 0;
    for (int k = 0; k < SUMS; k++) {
        int32_t e = (int32_t)(emu_bits_of_double(sums[k]) >> 52 & 0x7ff) - 1023;
        bool zero = !(emu_bits_of_double(sums[k]) << 1);
        largest[k] = zero ? 2 * NO_EXPONENT : e < -126 ? -126 : e;
    }
    find_largest(m, i, n, w, largest);
    for (int k = 0; k < SUMS; k++) {
        odd |= largest[k] < -1000;
        largest[k] = largest[k] < -1000 ? 0 : largest[k];
        scale[k] = power_of_two(bits - largest[k]);
        total[k] = trunc(sums[k] * scale[k]) + 0.0; /* no sum of integers is -0 */
    }
    if (odd) { /* all terms are zero: their sum has a sign */
        for (int k = 0; k < SUMS; k++) {
            double plain = sums[k];
            for (int at = i; at < i + n; at++)
                plain += w->a[m + k / COLUMNS][at] * w->b[at][k % COLUMNS];
            sums[k] = plain;
        }
    }
    add_terms(m, i, n, w, scale, total);
    /* Cut to the 24 bits of f32. */
    for (int k = 0; k < SUMS; k++) {
        total[k] *= power_of_two(largest[k] - bits);
        uint64_t cut = emu_bits_of_double(total[k]) & ~UINT64_C(0x1fffffff);
        uint64_t exponent = cut >> 52 & 0x7ff;
        odd |= exponent - (1023 - 126) > 253 && exponent;
        scale[k] = emu_double_of(cut);
    }
    for (int k = 0; k < SUMS; k++) {
        bool is_zero = odd && sums[k] == 0 && total[k] == 0;
        if (odd) /* subnormal, or too large */
            scale[k] = emu_float_of(emu_round_f64(total[k], EMU_NUMBER_F32, EMU_RZ, false));
        sums[k] = is_zero ? sums[k] : scale[k];
    }
}

EMU_INLINE void truncated_tile(const emu_mma_op *op, int bits, int step, const wide_tiles *w,
                               double sums[ROWS][COLUMNS]) {
    for (int m = 0; m < ROWS; m += GROUP)
        for (int i = 0; i < op->k; i += step)
            truncated_rows(bits, m, i, op->k - i < step ? op->k - i : step, w, sums[m]);
}

/* False, with nothing changed, where something is not finite. */
EMU_CLONES static bool truncated_at_once(const emu_mma_op *op, int bits, int step, const tiles *t,
                                         double sums[ROWS][COLUMNS]) {
    wide_tiles w;
    bool finite = widen_tiles(op, t, &w);
    for (int m = 0; m < ROWS; m++)
        for (int n = 0; n < COLUMNS; n++)
            finite &= (emu_bits_of_double(sums[m][n]) >> 52 & 0x7ff) != 0x7ff;
    if (!finite)
        return false;
    if (bits == 24)
        truncated_tile(op, 24, step, &w, sums);
    else
        truncated_tile(op, 25, step, &w, sums);
    return true;
}

static void mma_truncated(const emu_mma_op *op, int bits, const raw_operands *raw,
                          const uint32_t *const c[], uint32_t *const d[]) {
    tiles t;
    double sums[ROWS][COLUMNS];
    int step = (bits == 24 ? 16 : 32) * 8 / type_bits(op->a);
    convert_tiles(op->a, op->b, op->k, raw, &t);
    accumulators_to_f64(op->acc, c, sums);
    if (op->acc == EMU_MMA_F32 && truncated_at_once(op, bits, step, &t, sums)) {
        f64_to_accumulators(op->acc, sums, d);
        return;
    }
    for (int m = 0; m < ROWS; m++) {
        for (int n = 0; n < COLUMNS; n++) {
            double sum = sums[m][n];
            for (int i = 0; i < op->k; i += step) {
                int terms = op->k - i < step ? op->k - i : step;
                sum = truncated_sum(op, bits, terms, t.a[m] + i, t.b + i, n, sum);
            }
            sums[m][n] = sum;
        }
    }
    f64_to_accumulators(op->acc, sums, d);
}

void emu_mma(const emu_mma_op *op, emu_mma_sum sum, const uint32_t *const a[],
             const uint32_t *const b[], const uint32_t *const c[], uint32_t *const d[]) {
    raw_operands raw;
    gather(op->k * type_bits(op->a) / 8, a, b, &raw);
    if (op->acc == EMU_MMA_S32)
        mma_integer(op, &raw, c, d);
    else if (sum == EMU_MMA_EXACT)
        mma_exact(op, &raw, c, d);
    else
        mma_truncated(op, sum == EMU_MMA_TRUNCATE_24 ? 24 : 25, &raw, c, d);
}

/* --- 8 x 8 matrices of 16-bit elements ----------------------------------------------------------
 */

/* The fragment of the transpose: lane 4 g + t holds elements (2 t, g) and (2 t + 1, g). */
static void transpose_b16(const uint16_t from[8][8], uint32_t to[32]) {
    for (int g = 0; g < 8; g++) {
        for (int t = 0; t < 4; t++)
            to[4 * g + t] = (uint32_t)from[2 * t][g] | (uint32_t)from[2 * t + 1][g] << 16;
    }
}

void emu_ldmatrix(int count, bool trans, const uint8_t *const rows[32], uint32_t *const d[]) {
    for (int j = 0; j < count; j++) {
        uint16_t matrix[8][8];
        for (int i = 0; i < 8; i++)
            memcpy(trans ? (void *)matrix[i] : (void *)(d[j] + 4 * i), rows[8 * j + i], 16);
        if (trans)
            transpose_b16((const uint16_t(*)[8])matrix, d[j]);
    }
}

void emu_stmatrix(int count, bool trans, const uint32_t *const s[], uint8_t *const rows[32]) {
    for (int j = 0; j < count; j++) {
        uint32_t words[32];
        if (trans) {
            uint16_t matrix[8][8];
            memcpy(matrix, s[j], sizeof matrix);
            transpose_b16((const uint16_t(*)[8])matrix, words);
        } else {
            memcpy(words, s[j], sizeof words);
        }
        for (int i = 0; i < 8; i++)
            memcpy(rows[8 * j + i], words + 4 * i, 16);
    }
}

void emu_movmatrix(const uint32_t a[32], uint32_t d[32]) {
    uint16_t matrix[8][8];
    memcpy(matrix, a, sizeof matrix);
    transpose_b16((const uint16_t(*)[8])matrix, d);
}
