/* The matmul anchor's schedule. */
#include "codegen/cpu/emit.h"

cg_tiling cg_cpu_matmul_tiling(const cg_kernel *kernel) {
    return (cg_tiling){.dim = kernel->rows, .div = 1, .mult = 1};
}

int64_t cg_cpu_matmul_scratch(const cg_kernel *kernel) {
    (void)kernel;
    return 0;
}

bool cg_cpu_emit_matmul(cg_cpu_emitter *em) {
    return cg_cpu_unsupported(em, "there is no matmul schedule");
}
