/* What the artifact's writer needs of a backend, as plain functions. */
#ifndef MCC_CODEGEN_BACKEND_H
#define MCC_CODEGEN_BACKEND_H

#include "codegen/kernel.h"

typedef struct cg_backend {
    cg_tiling (*tiling)(const cg_kernel *kernel);
    int64_t (*scratch_bytes)(const cg_kernel *kernel);
    int64_t (*shared_bytes)(const cg_kernel *kernel);
    /* Weights with a layout: see codegen/cpu/cpu.h. */
    int64_t (*packed_bytes)(const ir_type *type);
    int64_t (*packed_tiles)(const ir_type *type);
    void (*pack_tiles)(const ir_type *type, int n_parts, const void *const *sources,
                       const int64_t *rows, int64_t tile_begin, int64_t tile_end, void *out);
} cg_backend;

#endif
