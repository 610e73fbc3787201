/* Inside the matmul schedule: one block of rows times one tile of 16 outputs. Internal to
 * codegen/cpu; matmul.c loops over tiles and rows, matmul_int8.c and matmul_f32.c multiply. */
#ifndef MCC_CODEGEN_CPU_MATMUL_H
#define MCC_CODEGEN_CPU_MATMUL_H

#include "codegen/cpu/emit.h"
#include "codegen/packed.h"

enum { CG_CPU_MAX_BLOCK_ROWS = 8 };

/* The product of `rows` consecutive rows of x, which begin at `x`, and the packed tile at `w`, or
 * at `panel` if it has been unpacked. sums[r] becomes <16 x float>. */
typedef struct cg_cpu_product {
    LLVMValueRef x, w;
    LLVMValueRef panel; /* NULL: not unpacked */
    int rows;
    int64_t k, x_row_bytes;
    const ir_type *x_type, *w_type;
    LLVMValueRef sums[CG_CPU_MAX_BLOCK_ROWS];
} cg_cpu_product;

/* a8 activations, quantized weights: exact int32 dot products inside a group, f32 FMA across. */
void cg_cpu_product_int8(cg_cpu_emitter *em, cg_cpu_product *p);
/* f32, f16 or bf16 activations by quantized weights, a8_e4m3 by fp8: f32 FMA in ascending k. */
void cg_cpu_product_f32(cg_cpu_emitter *em, cg_cpu_product *p);
/* The same with weights that are not quantized, of n products with the same rows of x: of few rows
 * several tiles at a time, whose sums do not wait for one another. */
void cg_cpu_products_plain(cg_cpu_emitter *em, cg_cpu_product *p, int n);

/* Rows of x that the kernel computes itself (prologue.c). ------------------------------------- */

/* How many rows are kept in scratch at once. */
int64_t cg_cpu_prologue_rows(const cg_kernel *kernel);
/* Scratch of a kernel with a prologue whose epilogue and tiles need program_bytes. */
int64_t cg_cpu_prologue_scratch(const cg_kernel *kernel, int64_t program_bytes);
/* Where in scratch the epilogue has its bytes. */
LLVMValueRef cg_cpu_prologue_programs(cg_cpu_emitter *em);
/* Reports what of the kernel's prologue cannot be generated. */
bool cg_cpu_check_prologue(cg_cpu_emitter *em);
/* Lets em->operand hold rows begin … end-1, at most cg_cpu_prologue_rows of them; begin is a
 * multiple of that number. */
void cg_cpu_emit_prologue(cg_cpu_emitter *em, int64_t program_bytes, LLVMValueRef begin,
                          LLVMValueRef end);

/* Asks for the weights that a stream comes to later, when it has come to `bytes` of them at w:
 * processors' own prefetching lags behind, above all on servers with a slow L3. What lies behind
 * the weight's end is asked for too, without harm. */
void cg_cpu_prefetch_weights(cg_cpu_emitter *em, LLVMValueRef w, int64_t bytes);

/* What both read of a quantized tile. --------------------------------------------------------- */

/* The loops over runs and blocks of a quantized tile. Between begin and end the builder stands in
 * the innermost block; `block` points at the block's code lines. */
typedef struct cg_cpu_blocks {
    cg_cpu_loop runs, blocks;
    cg_packed packed;
    const ir_encoding *encoding;
    LLVMValueRef block, index; /* index: of the block in the row, i64 */
    LLVMValueRef d, dmin;      /* two levels: <16 x float>; dmin NULL without offsets */
    bool unpacked;             /* `block` is one of a panel's */
} cg_cpu_blocks;

cg_cpu_blocks cg_cpu_begin_blocks(cg_cpu_emitter *em, const cg_cpu_product *p);
void cg_cpu_end_blocks(cg_cpu_emitter *em, cg_cpu_blocks *b);
/* Scale and offset (NULL when there is none; to be added) of group g of the block, <16 x float>. */
void cg_cpu_group_scale(cg_cpu_emitter *em, const cg_cpu_blocks *b, int g, LLVMValueRef *scale,
                        LLVMValueRef *offset);
/* Codes of k-step s (k = 4s … 4s+3) of `lanes` rows from row `first`: <4*lanes x i8>, unsigned.
 * Lines are loaded once: `lines` (8 entries, zeroed before the first call of a block) keeps them.
 */
LLVMValueRef cg_cpu_codes(cg_cpu_emitter *em, const cg_cpu_blocks *b, int s, int first, int lanes,
                          LLVMValueRef *lines);
/* Codes of 8 bits as |code - 128|; *signs: code - 128. For 8 rows. */
LLVMValueRef cg_cpu_magnitudes(cg_cpu_emitter *em, const cg_cpu_blocks *b, int s, int first,
                               LLVMValueRef codes, LLVMValueRef *signs);
/* What to subtract from a code: 128 for 8 bits (as stored), else the encoding's zero point. */
int cg_cpu_stored_zero(const ir_encoding *e);

/* Unpacked tiles ------------------------------------------------------------------------------
 *
 * A panel is a tile with a byte a code and f32 scales, unpacked once for many rows. */

/* Bytes of a quantized tile's panel, a multiple of 64. */
int64_t cg_cpu_panel_bytes(const ir_type *w_type, int64_t k);
/* Unpacks the tile p->w to p->panel. */
void cg_cpu_unpack_panel(cg_cpu_emitter *em, const cg_cpu_product *p);

#endif
