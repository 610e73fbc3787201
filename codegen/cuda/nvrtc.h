/* NVRTC, the CUDA compiler as a library, loaded when it is first used. */
#ifndef MCC_CODEGEN_CUDA_NVRTC_H
#define MCC_CODEGEN_CUDA_NVRTC_H

#include "codegen/cuda/cuda.h"

/* Options that every compilation has, for the cache's key. */
const char *cg_nvrtc_options(void);

/* Compiles a function's text with the embedded headers. Errors carry the compiler's first messages.
 */
bool cg_nvrtc_compile(const cg_cuda_function *function, const cg_cuda_target *target, bool ptx_only,
                      ir_diag *diag, cg_cuda_image *out);

#endif
