/* Compiled images by the hash of all that they were made from. */
#ifndef MCC_CODEGEN_CUDA_CACHE_H
#define MCC_CODEGEN_CUDA_CACHE_H

#include "codegen/cuda/cuda.h"

/* The key: the compiler's version and options, the architecture, the headers, the text. */
void cg_cuda_cache_key(const cg_cuda_function *function, const cg_cuda_target *target,
                       char key[65]);
/* An image that was put there and is whole; false for any other reason, and *out is as before. */
bool cg_cuda_cache_get(const char *directory, const char *key, cg_cuda_image *out);
/* Failing to put it is no error: the next build compiles again. */
void cg_cuda_cache_put(const char *directory, const char *key, const cg_cuda_image *image);

#endif
