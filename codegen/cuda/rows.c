/* The rows schedules: a block computes a row (kernels/rows.cuh). */
#include "codegen/cuda/program.h"

#include <inttypes.h>

enum {
    MOST_WARPS = 16,
    MOST_SHARED = 99 * 1024, /* of a block, on every architecture of targets.def */
    CHUNK = 512              /* columns a block of rows_by_column takes */
};

static bool touches(const cg_program *p, int arg, bool stores_only) {
    for (int i = 0; i < p->n_stores; i++)
        if (p->stores[i].access.arg == arg)
            return true;
    for (int i = 0; i < p->n_nodes && !stores_only; i++)
        if (p->nodes[i].kind == CG_LOAD &&
            (p->nodes[i].access.arg == arg || (p->nodes[i].access.row_map == CG_ROW_GATHERED &&
                                               p->nodes[i].access.index_arg == arg)))
            return true;
    return false;
}

/* Whether the order of the programs can show: one writes what another reads or writes. KV pages are
 * written in slots of their own by K and V of one program only. */
static bool depend(const cg_kernel *k) {
    for (int i = 0; i < k->n_programs; i++)
        for (int j = 0; j < k->n_programs; j++)
            for (int arg = 0; i != j && arg < k->n_args; arg++)
                if (touches(&k->programs[i], arg, true) && touches(&k->programs[j], arg, false))
                    return true;
    return false;
}

static const char *program_list(cg_cuda_emitter *em) {
    const char *text = "";
    for (int i = 0; i < em->kernel->n_programs; i++)
        text = ir_arena_printf(em->arena, "%s, program_%d", text, i);
    return text;
}

static const char *rows_text(cg_cuda_emitter *em) {
    ir_dim d = em->kernel->rows;
    return ir_arena_printf(em->arena,
                           "step_dim<%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ">(step)",
                           d.c, d.t, d.s, d.r);
}

static bool add(cg_cuda_emitter *em, int64_t warps, int64_t shared_floats, mcc_cuda_grid y,
                const char *call) {
    if (shared_floats * 4 > MOST_SHARED)
        return cg_cuda_unsupported(em,
                                   "rows need %" PRId64 " bytes of shared memory, at most %d can "
                                   "be had",
                                   shared_floats * 4, MOST_SHARED);
    cg_cuda_variant v = {.suffix = "",
                         .threads = (uint32_t)warps * 32,
                         .shared_bytes = (uint32_t)shared_floats * 4,
                         .x = cg_cuda_grid(em->kernel->rows, 1, 1),
                         .y = y,
                         .include = "rows.cuh",
                         .call = call};
    return cg_cuda_add(em, &v);
}

static mcc_cuda_grid blocks(int64_t n) {
    return cg_cuda_grid((ir_dim){.c = n}, 1, 1);
}

static bool by_column(cg_cuda_emitter *em) {
    int64_t width = em->kernel->programs[0].width;
    return add(em, 4, 0, blocks((width + CHUNK - 1) / CHUNK),
               ir_arena_printf(em->arena, "rows_by_column<4, %d, program_0>(a, %s);", CHUNK,
                               rows_text(em)));
}

static bool by_head(cg_cuda_emitter *em, int64_t heads) {
    int64_t warps = heads < 4 ? heads : 4, floats = 0;
    for (int i = 0; i < em->kernel->n_programs; i++) {
        int64_t n = cg_cuda_tmp_floats(em->kernel, &em->kernel->programs[i]);
        floats = n > floats ? n : floats;
    }
    while (warps > 1 && warps * floats * 4 > MOST_SHARED)
        warps--;
    return add(em, warps, warps * floats, blocks((heads + warps - 1) / warps),
               ir_arena_printf(em->arena, "rows_by_head<%" PRId64 ", %" PRId64 "%s>(a, %s);", warps,
                               floats, program_list(em), rows_text(em)));
}

static bool in_turn(cg_cuda_emitter *em) {
    const cg_kernel *k = em->kernel;
    int64_t warps = 1, floats = 0;
    for (int i = 0; i < k->n_programs; i++) {
        const cg_program *p = &k->programs[i];
        int64_t n = p->heads > 1 ? p->heads : (p->width + 127) / 128;
        warps = n > warps ? n : warps;
    }
    warps = warps < MOST_WARPS ? warps : MOST_WARPS;
    for (int i = 0; i < k->n_programs; i++) {
        int64_t n = cg_cuda_tmp_floats(k, &k->programs[i]);
        while (k->programs[i].heads > 1 && warps > 1 && n * warps * 4 > MOST_SHARED)
            warps--;
    }
    for (int i = 0; i < k->n_programs; i++) {
        int64_t n = cg_cuda_tmp_floats(k, &k->programs[i]) * (k->programs[i].heads > 1 ? warps : 1);
        floats = n > floats ? n : floats;
    }
    return add(em, warps, floats, (mcc_cuda_grid){.div = 1},
               ir_arena_printf(em->arena, "rows_in_turn<%" PRId64 "%s>(a, %s);", warps,
                               program_list(em), rows_text(em)));
}

bool cg_cuda_rows(cg_cuda_emitter *em) {
    const cg_kernel *k = em->kernel;
    int64_t heads = 0;
    bool several = false;
    for (int i = 0; i < k->n_programs; i++) {
        heads += k->programs[i].heads;
        several |= k->programs[i].heads > 1;
    }
    if (k->n_programs == 1 && !several && !cg_cuda_whole_rows(&k->programs[0]) &&
        !cg_cuda_number_of_written(k, &k->programs[0]))
        return by_column(em);
    return several && !depend(k) ? by_head(em, heads) : in_turn(em);
}
