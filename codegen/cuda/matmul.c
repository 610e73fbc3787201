/* Schedules of the matmul anchor. */
#include "codegen/cuda/internal.h"

bool cg_cuda_matmul(cg_cuda_emitter *em) {
    return cg_cuda_unsupported(em, "matmul is not supported yet");
}
