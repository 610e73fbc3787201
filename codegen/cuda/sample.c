/* The schedule of the sample anchor (kernels/sample.cuh): two functions. The first finds the
 * greatest logit, a block for each chunk of a row; the second has a block for each row. */
#include "codegen/cuda/internal.h"

#include <inttypes.h>

enum {
    CHUNK = 4096, /* logits that a block of the first function takes */
    GREATEST_WARPS = 8,
    CHOOSE_WARPS = 16,
    CHUNK_BYTES = 16 /* chunk_greatest */
};

/* sample_shared: a histogram of 1376 bins of 12 bytes, a list of 1024 logits with their weights, a
 * sum for each of at most 1024 units, and what warps exchange. */
static uint32_t shared_bytes(int64_t n) {
    int64_t unit = 256 * ((n + 256 * 1024 - 1) / (256 * 1024));
    return (uint32_t)(1376 * 12 + 1024 * 8 + (n + unit - 1) / unit * 8 + 32 * 8 + 16);
}

bool cg_cuda_sample(cg_cuda_emitter *em) {
    const cg_sample *s = &em->kernel->sample;
    const ir_dim rows = em->kernel->rows;
    const int64_t chunks = (s->n + CHUNK - 1) / CHUNK;
    const char *constants = ir_arena_printf(
        em->arena,
        "constexpr int N = %" PRId64 ", SHARED_BYTES = %" PRIu32 ";\n"
        "INLINE const float *logits_of(const args &a) {\n"
        "    return static_cast<const float *>(a.a%d);\n}\n"
        "INLINE float *result_of(const args &a) {\n    return static_cast<float *>(a.a%d);\n}\n",
        s->n, shared_bytes(s->n), s->logits, s->result);
    const char *n_rows = ir_arena_printf(
        em->arena, "step_dim<%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ">(step)", rows.c,
        rows.t, rows.s, rows.r);
    cg_cuda_variant greatest = {.suffix = "_greatest",
                                .threads = GREATEST_WARPS * 32,
                                .row_scratch_bytes = (uint64_t)chunks * CHUNK_BYTES,
                                .first_of_two = true,
                                .x = cg_cuda_grid(rows, 1, 1),
                                .y = cg_cuda_grid((ir_dim){.c = chunks}, 1, 1),
                                .constants = constants,
                                .include = "sample.cuh",
                                .call =
                                    ir_arena_printf(em->arena, "sample_greatest<%d, %d>(a, %s);",
                                                    GREATEST_WARPS, CHUNK, n_rows)};
    cg_cuda_variant choose = {.suffix = "_choose",
                              .threads = CHOOSE_WARPS * 32,
                              .shared_bytes = shared_bytes(s->n),
                              .row_scratch_bytes = greatest.row_scratch_bytes,
                              .x = cg_cuda_grid(rows, 1, 1),
                              .y = {.div = 1},
                              .constants = constants,
                              .include = "sample.cuh",
                              .call = ir_arena_printf(em->arena,
                                                      "sample_choose<%d, %" PRId64 ">(a, %s);",
                                                      CHOOSE_WARPS, chunks, n_rows)};
    return cg_cuda_add(em, &greatest) && cg_cuda_add(em, &choose);
}
