/* What every anchor's schedule asks of the emitter and says to it. */
#include "codegen/cuda/internal.h"

#include <stdarg.h>

bool cg_cuda_unsupported(cg_cuda_emitter *em, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = ir_arena_vprintf(em->arena, format, args);
    va_end(args);
    return ir_error(em->diag, em->kernel->name, "cuda: %s", text);
}

mcc_cuda_grid cg_cuda_grid(ir_dim dim, int64_t div, int64_t mult) {
    return (mcc_cuda_grid){
        .dim = {.c = dim.c, .t = dim.t, .s = dim.s, .r = dim.r}, .div = div, .mult = mult};
}

int64_t cg_cuda_most_shared(const cg_cuda_emitter *em) {
    return em->target ? em->target->block_shared : 99 * 1024;
}
