/* The attention schedule. */
#include "codegen/cpu/emit.h"

cg_tiling cg_cpu_attention_tiling(const cg_kernel *kernel) {
    return (cg_tiling){.dim = kernel->rows, .div = 8, .mult = 1};
}

int64_t cg_cpu_attention_scratch(const cg_kernel *kernel) {
    (void)kernel;
    return 0;
}

bool cg_cpu_emit_attention(cg_cpu_emitter *em) {
    return cg_cpu_unsupported(em, "no attention schedule");
}
