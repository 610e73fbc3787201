/* Quantization to a8 and a8_e4m3, of several groups of 32 columns at a time: what is one number a
 * group is a lane of <4 x float>, so that groups do not wait for one another. Which groups share
 * the work changes no bit. ops.def says what is computed. */
#include "codegen/cpu/program.h"

enum { MOST_LEVELS = 127, CANDIDATES = 4, GROUPS = CG_CPU_A8_GROUPS };

/* --- one number a group --------------------------------------------------------------------------
 */

typedef LLVMValueRef combination(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b);

static LLVMValueRef add_floats(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildFAdd(em->builder, a, b, "");
}

static LLVMValueRef add_ints(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildAdd(em->builder, a, b, "");
}

static LLVMValueRef larger(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    LLVMTypeRef type = LLVMTypeOf(a);
    return cg_cpu_intrinsic(em, "llvm.umax", 1, &type, 2, (LLVMValueRef[]){a, b});
}

/* Lanes [first, first + n) of each block of 2n lanes, of a then of b. */
static LLVMValueRef half_blocks(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b, int n,
                                int first) {
    int lanes[CG_CPU_LANES];
    for (int i = 0; i < CG_CPU_LANES; i++)
        lanes[i] = i / n * 2 * n + first + i % n; /* from 16 on: lanes of b */
    return cg_cpu_shuffle(em, a, b, CG_CPU_LANES, lanes);
}

static LLVMValueRef combine_halves(cg_cpu_emitter *em, combination *with, LLVMValueRef a,
                                   LLVMValueRef b, int n) {
    return with(em, half_blocks(em, a, b, n, 0), half_blocks(em, a, b, n, n));
}

/* Each vector's lanes combined as cg_cpu_sum16 does; vector i gives lane i of the result. */
static LLVMValueRef combine_lanes(cg_cpu_emitter *em, combination *with, LLVMValueRef *v) {
    LLVMValueRef low = combine_halves(em, with, v[0], v[1], 8);
    LLVMValueRef high = combine_halves(em, with, v[2], v[3], 8);
    LLVMValueRef all = combine_halves(em, with, low, high, 4); /* 4 lanes of each */
    for (int n = 2; n; n /= 2) {
        int lanes[CG_CPU_LANES];
        for (int i = 0; i < CG_CPU_LANES; i++)
            lanes[i] = i ^ n;
        all = with(em, all, cg_cpu_shuffle(em, all, all, CG_CPU_LANES, lanes));
    }
    return cg_cpu_shuffle(em, all, all, GROUPS, (int[]){0, 4, 8, 12});
}

/* Group g's number in all 16 lanes. */
static LLVMValueRef splat_of(cg_cpu_emitter *em, LLVMValueRef numbers, int g) {
    int lanes[CG_CPU_LANES];
    for (int i = 0; i < CG_CPU_LANES; i++)
        lanes[i] = g;
    return cg_cpu_shuffle(em, numbers, numbers, CG_CPU_LANES, lanes);
}

static LLVMValueRef same(cg_cpu_emitter *em, double v) {
    return cg_cpu_splat(em, cg_cpu_f32(em, v), GROUPS);
}

/* --- rounding ------------------------------------------------------------------------------------
 */

static LLVMValueRef magnitude_bits(cg_cpu_emitter *em, LLVMValueRef v) {
    v = LLVMBuildBitCast(em->builder, v, em->i32x16, "");
    return LLVMBuildAnd(em->builder, v, cg_cpu_i32v(em, 0x7fffffff), "");
}

static LLVMValueRef round_even(cg_cpu_emitter *em, LLVMValueRef v) {
    return cg_cpu_intrinsic(em, "llvm.rint", 1, (LLVMTypeRef[]){em->f32x16}, 1, &v);
}

/* (x*inverse - round(x*inverse))^2 */
static LLVMValueRef rounding_error(cg_cpu_emitter *em, LLVMValueRef x, LLVMValueRef inverse) {
    LLVMValueRef y = LLVMBuildFMul(em->builder, x, inverse, "");
    LLVMValueRef d = LLVMBuildFSub(em->builder, y, round_even(em, y), "");
    return LLVMBuildFMul(em->builder, d, d, "");
}

/* round-half-to-even(x * inverse) clamped to [-127, 127]; a NaN gives -127. */
static LLVMValueRef quantize(cg_cpu_emitter *em, LLVMValueRef x, LLVMValueRef inverse) {
    x = round_even(em, LLVMBuildFMul(em->builder, x, inverse, ""));
    x = cg_cpu_fmax(em, x, cg_cpu_f32v(em, -MOST_LEVELS));
    x = cg_cpu_fmin(em, x, cg_cpu_f32v(em, MOST_LEVELS));
    return LLVMBuildFPToSI(em->builder, x, em->i32x16, "");
}

/* Each group's largest magnitude. */
static LLVMValueRef largest(cg_cpu_emitter *em, const cg_cpu_a8_queue *q) {
    LLVMValueRef v[GROUPS];
    for (int g = 0; g < GROUPS; g++) { /* magnitudes compare as integers as they do as floats */
        int from = g < q->n ? g : 0;
        v[g] = larger(em, magnitude_bits(em, q->low[from]), magnitude_bits(em, q->high[from]));
    }
    LLVMValueRef max = combine_lanes(em, larger, v);
    return LLVMBuildBitCast(em->builder, max, cg_cpu_vector(em->f32, GROUPS), "");
}

/* Of ops.def's numbers of levels the one that fits each group best, and its inverse of the scale.
 */
static LLVMValueRef best_levels(cg_cpu_emitter *em, const cg_cpu_a8_queue *q,
                                LLVMValueRef *inverse) {
    LLVMBuilderRef b = em->builder;
    LLVMValueRef levels = NULL, best = NULL, least = NULL;
    for (int i = 0; i < CANDIDATES; i++) {
        float ratio = (float)(MOST_LEVELS - i) / MOST_LEVELS,
              back = MOST_LEVELS / (float)(MOST_LEVELS - i);
        LLVMValueRef by = LLVMBuildFMul(b, *inverse, same(em, ratio), ""), v[GROUPS];
        for (int g = 0; g < q->n; g++) {
            LLVMValueRef splat = splat_of(em, by, g);
            v[g] = LLVMBuildFAdd(b, rounding_error(em, q->low[g], splat),
                                 rounding_error(em, q->high[g], splat), "");
        }
        for (int g = q->n; g < GROUPS; g++)
            v[g] = v[0];
        LLVMValueRef error = combine_lanes(em, add_floats, v);
        error = LLVMBuildFMul(b, error, same(em, back * back), "");
        if (i == 0) {
            least = error;
            best = by;
            levels = same(em, MOST_LEVELS);
            continue;
        }
        LLVMValueRef less = LLVMBuildFCmp(b, LLVMRealOLT, error, least, "");
        least = LLVMBuildSelect(b, less, error, least, "");
        levels = LLVMBuildSelect(b, less, same(em, MOST_LEVELS - i), levels, "");
        best = LLVMBuildSelect(b, less, by, best, "");
    }
    *inverse = best;
    return levels;
}

static void store_lane(cg_cpu_emitter *em, LLVMValueRef numbers, int g, LLVMValueRef at,
                       int64_t offset) {
    LLVMValueRef v = LLVMBuildExtractElement(em->builder, numbers, cg_cpu_i32(em, g), "");
    cg_cpu_store(em, v, cg_cpu_offset_const(em, at, offset), 4);
}

/* most / max; 0 of tiny ones. */
static LLVMValueRef inverse_scale(cg_cpu_emitter *em, double most, LLVMValueRef max) {
    LLVMBuilderRef b = em->builder;
    LLVMValueRef inverse = LLVMBuildFDiv(b, same(em, most), max, "");
    LLVMValueRef tiny = LLVMBuildFCmp(b, LLVMRealOLT, max, same(em, 0x1p-100), "");
    return LLVMBuildSelect(b, tiny, same(em, 0), inverse, "");
}

static void flush_e4m3(cg_cpu_emitter *em, const cg_cpu_a8_queue *q) {
    LLVMValueRef max = largest(em, q), inverse = inverse_scale(em, 448, max);
    LLVMValueRef scale = LLVMBuildFDiv(em->builder, max, same(em, 448), "");
    for (int g = 0; g < q->n; g++) {
        LLVMValueRef by = splat_of(em, inverse, g);
        for (int half = 0; half < 2; half++) {
            LLVMValueRef v = LLVMBuildFMul(em->builder, half ? q->high[g] : q->low[g], by, "");
            cg_cpu_store(em, cg_cpu_f32_to_e4m3(em, v),
                         cg_cpu_offset_const(em, q->at[g].codes, 16 * half), 16);
        }
        store_lane(em, scale, g, q->at[g].scale, 0);
    }
}

static void flush_a8(cg_cpu_emitter *em, const cg_cpu_a8_queue *q) {
    LLVMBuilderRef b = em->builder;
    LLVMValueRef max = largest(em, q), inverse = inverse_scale(em, MOST_LEVELS, max);
    LLVMValueRef levels = best_levels(em, q, &inverse);
    LLVMValueRef scale = LLVMBuildFDiv(b, max, levels, ""), sums[2];
    LLVMValueRef codes[2][GROUPS];
    for (int g = 0; g < GROUPS; g++)
        for (int half = 0; half < 2; half++) {
            codes[half][g] = codes[half][0];
            if (g >= q->n)
                continue;
            codes[half][g] = quantize(em, half ? q->high[g] : q->low[g], splat_of(em, inverse, g));
            LLVMValueRef bytes =
                LLVMBuildTrunc(b, codes[half][g], cg_cpu_vector(em->i8, CG_CPU_LANES), "");
            cg_cpu_store(em, bytes, cg_cpu_offset_const(em, q->at[g].codes, 16 * half), 16);
        }
    for (int half = 0; half < 2; half++)
        sums[half] = combine_lanes(em, add_ints, codes[half]);
    LLVMValueRef sum = LLVMBuildSIToFP(b, LLVMBuildAdd(b, sums[0], sums[1], ""),
                                       cg_cpu_vector(em->f32, GROUPS), "");
    LLVMValueRef scaled = LLVMBuildFMul(b, scale, sum, "");
    for (int g = 0; g < q->n; g++) {
        store_lane(em, scale, g, q->at[g].scale, 0);
        store_lane(em, scaled, g, q->at[g].scaled_sum, 0);
        store_lane(em, sums[0], g, q->at[g].sums, 0);
        store_lane(em, sums[1], g, q->at[g].sums, 4);
    }
}

void cg_cpu_a8_flush(cg_cpu_emitter *em, cg_cpu_a8_queue *q) {
    if (q->n && q->at[0].encoding->code == IR_CODE_E4M3)
        flush_e4m3(em, q);
    else if (q->n)
        flush_a8(em, q);
    q->n = 0;
}

void cg_cpu_a8_add(cg_cpu_emitter *em, cg_cpu_a8_queue *q, const cg_access *access,
                   const cg_cpu_site *site, LLVMValueRef low, LLVMValueRef high) {
    cg_cpu_a8_site at = cg_cpu_a8_address(em, access, site);
    if (q->n && q->at[0].encoding != at.encoding)
        cg_cpu_a8_flush(em, q);
    q->at[q->n] = at;
    q->low[q->n] = low;
    q->high[q->n] = high;
    if (++q->n == GROUPS)
        cg_cpu_a8_flush(em, q);
}
