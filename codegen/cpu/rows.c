/* The rows schedule: a tile is one row, with all programs and heads of it in turn. */
#include "codegen/cpu/emit.h"

cg_tiling cg_cpu_rows_tiling(const cg_kernel *kernel) {
    return (cg_tiling){.dim = kernel->rows, .div = 1, .mult = 1};
}

int64_t cg_cpu_rows_scratch(const cg_kernel *kernel) {
    int64_t most = 0;
    for (int i = 0; i < kernel->n_programs; i++) {
        int64_t bytes = cg_cpu_program_scratch(&kernel->programs[i], kernel->programs[i].width);
        most = bytes > most ? bytes : most;
    }
    return most;
}

bool cg_cpu_emit_rows(cg_cpu_emitter *em) {
    const cg_kernel *kernel = em->kernel;
    bool ok = true;
    for (int i = 0; i < kernel->n_programs; i++)
        ok &= cg_cpu_check_program(em, &kernel->programs[i], kernel->programs[i].width);
    if (!ok)
        return false;
    cg_cpu_loop rows = cg_cpu_for(em, em->tile_begin, em->tile_end, 1);
    for (int i = 0; i < kernel->n_programs; i++) {
        const cg_program *program = &kernel->programs[i];
        cg_cpu_chunk chunk = {.row = rows.index,
                              .head = cg_cpu_i64(em, 0),
                              .first_col = cg_cpu_i64(em, 0),
                              .n_cols = program->width,
                              .scratch = em->scratch};
        if (program->heads == 1) {
            cg_cpu_emit_program(em, program, &chunk);
            continue;
        }
        cg_cpu_loop heads = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, program->heads), 1);
        chunk.head = heads.index;
        cg_cpu_emit_program(em, program, &chunk);
        cg_cpu_end_for(em, &heads);
    }
    cg_cpu_end_for(em, &rows);
    return true;
}
