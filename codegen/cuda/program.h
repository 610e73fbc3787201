/* What the two files that write row programs share: program.c orders the nodes, access.c reads and
 * writes memory. Texts are in the emitter's arena; they use the names row, head, col and vN (node
 * N) of the generated functions. */
#ifndef MCC_CODEGEN_CUDA_PROGRAM_H
#define MCC_CODEGEN_CUDA_PROGRAM_H

#include "codegen/cuda/internal.h"

/* Whether the element type and layout of a load or store can be generated. */
bool cg_cuda_check_load(cg_cuda_emitter *em, const cg_access *access);
bool cg_cuda_check_store(cg_cuda_emitter *em, const cg_program *program, const cg_store *store);

/* The row of the argument that is accessed: "row", "0", or a gather. */
const char *cg_cuda_row_text(cg_cuda_emitter *em, const cg_access *access);
/* The element of this column (or, with column_stride 0, the number of this row and head), where the
 * row is `row`. */
const char *cg_cuda_load_text(cg_cuda_emitter *em, const cg_access *access, const char *row);
/* Stores the values of this column; of STORE_KV to the slot kv<index>. */
const char *cg_cuda_store_text(cg_cuda_emitter *em, const cg_store *store, int index);
/* The kv_slot of this row. */
const char *cg_cuda_slot_text(cg_cuda_emitter *em, const cg_store *store);

/* Whether a number comes from what the kernel writes: it must be read before any lane stores. */
bool cg_cuda_number_of_written(const cg_kernel *kernel, const cg_program *program);

#endif
