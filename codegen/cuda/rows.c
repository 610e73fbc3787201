/* The rows schedule: a warp computes one row and head of a program after another. */
#include "codegen/cuda/internal.h"

bool cg_cuda_rows(cg_cuda_emitter *em) {
    return cg_cuda_unsupported(em, "row programs are not supported yet");
}
