/* The schedule of the sample anchor (kernels/sample.cuh): two functions. The first finds the
 * greatest logit, a block for each chunk of a row; the second has a block for each part of a row,
 * of which the last one to arrive chooses. */
#include "codegen/cuda/internal.h"

#include <inttypes.h>

enum {
    CHUNK = 4096, /* logits that a block of the first function takes */
    PART = 8192,  /* and of the second one, about */
    GREATEST_WARPS = 8,
    CHOOSE_WARPS = 16,
    BINS = 1536,
    LISTED = 1024,
    RADIX = 2048
};

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* At most 1024 units. */
static int64_t units_of(int64_t n) {
    return divide_up(n, 256 * divide_up(n, 256 * 1024));
}

/* sample_shared: bins of 12 bytes, units of 4 and, up to a multiple of the threads, of 8, the radix
 * select's sums, the list of logits, and what warps exchange. */
static uint32_t shared_bytes(int64_t n) {
    int64_t places = divide_up(units_of(n), CHOOSE_WARPS * 32) * (CHOOSE_WARPS * 32);
    return (uint32_t)(BINS * 12 + units_of(n) * 4 + places * 8 + RADIX * 8 + LISTED * 4 + 32 * 8 +
                      24);
}

/* row_scratch: chunks of 16 bytes, bins and units of 12. */
static int64_t row_scratch_bytes(int64_t n) {
    int64_t bytes = divide_up(n, CHUNK) * 16 + BINS * 12 + units_of(n) * 12 + 8;
    return divide_up(bytes, 16) * 16;
}

bool cg_cuda_sample(cg_cuda_emitter *em) {
    const cg_sample *s = &em->kernel->sample;
    const ir_dim rows = em->kernel->rows;
    const int64_t chunks = divide_up(s->n, CHUNK), parts = divide_up(s->n, PART);
    const char *constants = ir_arena_printf(
        em->arena,
        "constexpr int N = %" PRId64 ", SHARED_BYTES = %" PRIu32 ", CHUNKS = %" PRId64
        ", PARTS = %" PRId64 ";\nconstexpr int64 ROW_SCRATCH = %" PRId64 ";\n"
        "INLINE const float *logits_of(const args &a) {\n"
        "    return static_cast<const float *>(a.a%d);\n}\n"
        "INLINE float *result_of(const args &a) {\n    return static_cast<float *>(a.a%d);\n}\n",
        s->n, shared_bytes(s->n), chunks, parts, row_scratch_bytes(s->n), s->logits, s->result);
    const char *n_rows = ir_arena_printf(
        em->arena, "step_dim<%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ">(step)", rows.c,
        rows.t, rows.s, rows.r);
    cg_cuda_variant greatest = {.suffix = "_greatest",
                                .threads = GREATEST_WARPS * 32,
                                .row_scratch_bytes = (uint64_t)row_scratch_bytes(s->n),
                                .first_of_two = true,
                                .x = cg_cuda_grid(rows, 1, 1),
                                .y = cg_cuda_grid((ir_dim){.c = chunks}, 1, 1),
                                .constants = constants,
                                .include = "sample.cuh",
                                .call =
                                    ir_arena_printf(em->arena, "sample_greatest<%d, %d>(a, %s);",
                                                    GREATEST_WARPS, CHUNK, n_rows)};
    cg_cuda_variant choose = {
        .suffix = "_choose",
        .threads = CHOOSE_WARPS * 32,
        .min_blocks = 1, /* for three, ptxas would spill */
        .shared_bytes = shared_bytes(s->n),
        .row_scratch_bytes = greatest.row_scratch_bytes,
        .x = cg_cuda_grid(rows, 1, 1),
        .y = cg_cuda_grid((ir_dim){.c = parts}, 1, 1),
        .constants = constants,
        .include = "sample.cuh",
        .call = ir_arena_printf(em->arena, "sample_choose<%d>(a, %s);", CHOOSE_WARPS, n_rows)};
    return cg_cuda_add(em, &greatest) && cg_cuda_add(em, &choose);
}
