/* Schedules of the attention anchor. */
#include "codegen/cuda/internal.h"

bool cg_cuda_attention(cg_cuda_emitter *em) {
    return cg_cuda_unsupported(em, "attention is not supported yet");
}
