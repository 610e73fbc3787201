/* A fused kernel as plain data: what every backend generates code from.
 *
 * A kernel is an anchor (matmul, attention, sample, or rows: none) with row programs around it. The
 * anchor has one schedule per backend; a row program is a small DAG of scalar operations over the
 * columns of one row, with reductions over that row. Backends know anchors and scalar operations,
 * never the ops they came from; codegen/lower.c and lower_nodes.c make this description from a
 * KERNEL op's body and are the only files in codegen that know op names.
 *
 * Numerics, the same in every backend of one class and for any vector width: elementwise arithmetic
 * in f32, each operation rounded once (no contraction except FMA nodes); a reduction over a row
 * adds 16 interleaved partial sums (column c into partial c mod 16, ascending, columns beyond the
 * row count as the identity) and then halves them: p[i] += p[i+8], then +4, +2, +1. */
#ifndef MCC_CODEGEN_KERNEL_H
#define MCC_CODEGEN_KERNEL_H

#include "ir/ir.h"

/* --- arguments -----------------------------------------------------------------------------------
 */

typedef enum cg_arg_kind { CG_ARG_BUFFER, CG_ARG_WEIGHT, CG_ARG_KV, CG_ARG_STEP } cg_arg_kind;

/* An argument: a pointer at run time (see mcc_cpu_call). */
typedef struct cg_arg {
    cg_arg_kind kind;
    const ir_value *value; /* of the module's graph: where the pointer comes from; ignored by
                              backends and when kernels are compared */
    ir_type type;          /* for KV unused */
    bool written;
    int kv_group;   /* KV: index into the module's groups */
    ir_kv_group kv; /* KV: a copy of that group */
} cg_arg;

/* --- row programs --------------------------------------------------------------------------------
 */

typedef enum cg_node_kind {
    CG_CONST,  /* value */
    CG_INPUT,  /* this column of the anchor's output; `part` of a lockstep matmul */
    CG_LOAD,   /* an element of an argument, converted to f32; of a quantized or packed argument (a
                  gathered table) the backend decodes the element that row and column name */
    CG_SCALAR, /* scalar op of other nodes */
    CG_REDUCE, /* over all columns of the row: one number */
    CG_ROTATE  /* rope's partner of operand 0: for pairs (a, b) of columns, column a gets -x[b] and
                  column b gets x[a]; columns from dims on get 0 */
} cg_node_kind;

typedef enum cg_scalar_op {
#define SCALAR(suffix, name, operands) CG_##suffix,
#include "codegen/scalar.def"
#undef SCALAR
    CG_N_SCALAR_OPS
} cg_scalar_op;

typedef enum cg_reduce_op { CG_REDUCE_SUM, CG_REDUCE_MAX } cg_reduce_op;

typedef enum cg_row_map {
    CG_ROW_NONE,    /* the same for every row (a weight vector) */
    CG_ROW_SELF,    /* the program's row */
    CG_ROW_GATHERED /* row indices[row], an i32 argument; out-of-range indices read row 0 */
} cg_row_map;

/* In place of an argument: the operand of the anchor that the kernel computes itself (a matmul's
 * prologue). Only the prologue's store names it. */
enum { CG_ARG_OPERAND = -1 };

/* Element (row, head, column) of an argument is at row*row_stride + head*head_stride + offset +
 * column*column_stride elements (column_stride 0: one number per row and head). */
typedef struct cg_access {
    int arg;
    cg_row_map row_map;
    int index_arg; /* GATHERED: the argument that holds the indices */
    int64_t row_stride, head_stride, offset, column_stride;
} cg_access;

typedef struct cg_node {
    cg_node_kind kind;
    bool per_row; /* one number per row and head (constants, reductions, what follows from them) */
    int operands[3]; /* earlier nodes of the program */
    double value;
    int part;
    cg_access access;
    cg_scalar_op op;
    cg_reduce_op reduce;
    int64_t rotate_dims; /* a multiple of 2 */
    bool rotate_half;    /* pairs (i, i + dims/2); else (2i, 2i+1) */
} cg_node;

typedef enum cg_store_kind {
    CG_STORE,    /* node `value` to access, in the argument's element type (f32, f16 or bf16) */
    CG_STORE_A8, /* quantized to the argument's encoding, a8 or a8_e4m3: per group of 32 columns;
                    access.row_stride and offset count elements (the whole row has row_stride of
                    them, and this program's columns start at offset + head*head_stride, a multiple
                    of 32) */
    CG_STORE_KV, /* nodes `value` (K) and `value2` (V) of head `head` to the page of this row's
                    position; access.arg is the KV argument */
    CG_STORE_K,  /* the same of `value` alone, as K or as V */
    CG_STORE_V,
    CG_STORE_KV_SCALE /* numbers `value` (of K) and `value2` (of V), f16 that they are: the scales
                         of head `head` in the page, where pages are quantized; STORE_KV then gets
                         columns divided by them and stores codes (ir.h) */
} cg_store_kind;

typedef struct cg_store {
    cg_store_kind kind;
    int value, value2;
    cg_access access;
} cg_store;

/* For each row and each head: compute the nodes over `width` columns and store. */
typedef struct cg_program {
    int64_t heads;        /* 1 for plain rows */
    int64_t width;        /* columns; for a matmul's epilogue N / parts, for attention's head_dim */
    int64_t input_column; /* of a matmul's epilogue by heads; else 0 */
    int n_nodes, n_stores;
    cg_node *nodes; /* in an order in which operands come first */
    cg_store *stores;
} cg_program;

/* --- kernels -------------------------------------------------------------------------------------
 */

typedef enum cg_anchor {
    CG_ANCHOR_ROWS,
    CG_ANCHOR_MATMUL,
    CG_ANCHOR_ATTENTION,
    CG_ANCHOR_SAMPLE
} cg_anchor;

/* out[row][n] = sum over k of x[row][k] * w[n][k], then the epilogue (one program; its INPUT is
 * out). x is f32, f16, bf16, a8 or a8_e4m3, row-major with k columns. w is packed (layout "n16" or,
 * with parts = 2, "n16x2": tiles of the two halves alternate, so that out[row][j] (part 0) and
 * out[row][j + n/2] (part 1) are computed together). Order of summation, whatever the number of
 * rows and threads: quantized w and a8 x: per group of k the exact integer dot product, then in
 * ascending group order f32 FMA; otherwise ascending k, f32 FMA; 16-bit w and x of one type: exact
 * products added in f32 in an order of the backend's, which may add to what it adds 16 k at a time
 * (tensor cores); fp8 w and x in a8_e4m3 or of 16 bits: ascending k, or per group of k such a sum,
 * then in ascending group order f32 FMA.
 *
 * An epilogue by heads: several programs, each of its own columns of out. INPUT of program p is
 * column p.input_column + head * p.width + column; the programs' columns do not overlap. They may
 * ROTATE (the pairs of columns are of one head), and append to a cache by STORE_K and STORE_V, but
 * not REDUCE. parts is 1. Only for targets with matmul_heads.
 *
 * A prologue computes x where it is no argument: rms_norm, quantize, … of the rows that the kernel
 * is about to multiply. It is a program like a rows kernel's, with one head and width = k, all
 * columns of a row at hand (so REDUCE is over the whole row), no INPUT and exactly one store, to
 * CG_ARG_OPERAND: STORE (x_type f32) or STORE_A8 (x_type quantized) with row_map SELF, row_stride
 * k, offset 0. What it stores is a row of x in the layout that an argument of x_type has; where the
 * rows are kept (registers, shared memory, scratch) and how many at once is the backend's choice,
 * and so is how often a row is computed: the result is the same each time, since the prologue reads
 * arguments that no store of this kernel writes, and stores nothing that another kernel reads. */
typedef struct cg_matmul {
    int x, w;       /* arguments; x = CG_ARG_OPERAND with a prologue */
    ir_type x_type; /* f32[rows, k], …, a8[rows, k], argument or not */
    int64_t n, k;
    int parts;            /* 1 or 2 */
    cg_program *prologue; /* NULL: x is an argument */
} cg_matmul;

/* Paged causal attention of H query heads over G key/value heads, an epilogue over each head's
 * output (INPUT; heads = H, width = head_dim). Row t of q holds heads at q_access. The result is
 * the merge, in ascending order, of partial softmaxes over absolute position ranges of
 * CG_ATTENTION_RANGE (Dao et al. 2022, section 3.1). */
enum { CG_ATTENTION_RANGE = 256 };

typedef struct cg_attention {
    cg_access q;
    int kv; /* argument */
    int64_t heads;
    double scale, softcap; /* softcap 0: none */
    int64_t window;        /* 0: full */
} cg_attention;

/* Chooses a token for each row of logits, as the step's sampling parameters say: op sample of
 * ir/ops.def. No program. Without sampling parameters in the step block it does nothing. */
typedef struct cg_sample {
    int logits, result; /* arguments: f32[R, n], f32[R, 4] */
    int64_t n;
} cg_sample;

typedef struct cg_kernel {
    const char *name; /* a readable symbol, unique per distinct kernel: matmul_q4_1_add_8f3a */
    cg_anchor anchor;
    ir_dim rows; /* T or R: how many rows a launch computes */
    int n_args;
    cg_arg *args;
    int n_programs; /* rows: run one after another for each row; attention: one epilogue; matmul:
                       one, or several by heads (its prologue is not among them); sample: none */
    cg_program *programs;
    cg_matmul matmul;
    cg_attention attention;
    cg_sample sample;
    int line; /* of the kernel op in the fused graph's text, for debug lines */
} cg_kernel;

/* How a launch of a kernel is split: tiles_mult * ceil(dim / tiles_div) tiles, the meaning of a
 * tile being the backend's. */
typedef struct cg_tiling {
    ir_dim dim;
    int64_t div, mult;
} cg_tiling;

/* Makes the description of one KERNEL op in `arena`; NULL after reporting every construct of its
 * body that no schedule covers. Implemented in lower.c. */
cg_kernel *cg_kernel_lower(const ir_op *op, ir_arena *arena, ir_diag *diag);

/* The description as text, without arguments' values, name and line: kernels are the same code
 * exactly when their texts are equal. In `arena`. Implemented in describe.c. */
const char *cg_kernel_describe(const cg_kernel *kernel, ir_arena *arena);

/* A readable symbol, the same for kernels of equal text: the anchor, the weight's encoding, the ops
 * of the body that compute, and a hash of the text. */
const char *cg_kernel_make_name(const cg_kernel *kernel, const ir_op *op, ir_arena *arena);

#endif
