/* What the files that emit row programs share: program.c orders the nodes into stages, access.c
 * reads and writes memory, quantize.c makes a8 and a8_e4m3. */
#ifndef MCC_CODEGEN_CPU_PROGRAM_H
#define MCC_CODEGEN_CPU_PROGRAM_H

#include "codegen/cpu/emit.h"

/* Where an access happens: 16 columns from `column` (i64, of the program, a multiple of 16) of one
 * row and head. mask (NULL: all) has the columns that exist. */
typedef struct cg_cpu_site {
    LLVMValueRef row, head, column;
    LLVMValueRef mask;
} cg_cpu_site;

/* Whether the element type and layout of a load or store can be generated. */
bool cg_cpu_check_load(cg_cpu_emitter *em, const cg_access *access);
bool cg_cpu_check_store(cg_cpu_emitter *em, const cg_program *program, const cg_store *store,
                        int64_t n_cols);

/* 16 columns as <16 x float>; columns that do not exist are any value. */
LLVMValueRef cg_cpu_access_load(cg_cpu_emitter *em, const cg_access *access,
                                const cg_cpu_site *site);
/* The one number of this row and head (column_stride 0) as f32. */
LLVMValueRef cg_cpu_access_load_number(cg_cpu_emitter *em, const cg_access *access,
                                       const cg_cpu_site *site);
void cg_cpu_access_store(cg_cpu_emitter *em, const cg_access *access, const cg_cpu_site *site,
                         LLVMValueRef value);
void cg_cpu_access_store_number(cg_cpu_emitter *em, const cg_access *access,
                                const cg_cpu_site *site, LLVMValueRef value);
/* Addresses in a row of a8 or a8_e4m3 (ir_encoding_row_bytes) for the group of 32 columns at
 * site->column. */
cg_cpu_a8_site cg_cpu_a8_address(cg_cpu_emitter *em, const cg_access *access,
                                 const cg_cpu_site *site);
/* A group of 32 columns, given as two vectors, will be quantized and stored: now, together
 * with those that wait, when as many wait as share the work, else at the next flush. */
void cg_cpu_a8_add(cg_cpu_emitter *em, cg_cpu_a8_queue *queue, const cg_access *access,
                   const cg_cpu_site *site, LLVMValueRef low, LLVMValueRef high);
/* Keys and values of 16 columns of the head into a page (cg_cpu_row_page). */
void cg_cpu_access_store_kv(cg_cpu_emitter *em, int kv_arg, LLVMValueRef page, LLVMValueRef slot,
                            const cg_cpu_site *site, int64_t columns, LLVMValueRef key,
                            LLVMValueRef value);
/* Their scales, where pages are quantized; the columns have then been divided by them. */
void cg_cpu_access_store_kv_scale(cg_cpu_emitter *em, int kv_arg, LLVMValueRef page,
                                  LLVMValueRef slot, LLVMValueRef head, LLVMValueRef key,
                                  LLVMValueRef value);

#endif
