/* Inside the lowering of a KERNEL op's body: what lower.c (anchors, stores, the kernel) and
 * lower_nodes.c (values to nodes) share. */
#ifndef MCC_CODEGEN_LOWER_H
#define MCC_CODEGEN_LOWER_H

#include "codegen/kernel.h"

enum { CG_LOWER_MAX_NODES = 512, CG_LOWER_MAX_STORES = 16, CG_LOWER_MAX_PROGRAMS = 16 };

/* The rows a program runs over, cut into heads × width columns. */
typedef struct cg_lower_domain {
    ir_dim rows;
    int64_t heads, width;
} cg_lower_domain;

/* A program under construction. */
typedef struct cg_lower_program {
    cg_lower_domain domain;
    bool prologue;        /* of a matmul: it computes the anchor's input and has the row whole */
    int64_t input_column; /* of a matmul's epilogue by heads */
    int n_nodes, n_stores;
    cg_node nodes[CG_LOWER_MAX_NODES];
    cg_store stores[CG_LOWER_MAX_STORES];
    /* node of a value, by position in memo_values */
    int n_memo;
    const ir_value *memo_values[CG_LOWER_MAX_NODES];
    int memo_nodes[CG_LOWER_MAX_NODES];
} cg_lower_program;

typedef struct cg_lowering {
    const ir_op *kernel;
    ir_arena *arena;
    ir_diag *diag;
    cg_kernel *out;
    const ir_op *anchor; /* matmul or paged_attention, or NULL */
    bool by_heads;       /* a matmul's epilogue has several programs, each of some columns */
    cg_lower_program *prologue;
    cg_lower_program *programs[CG_LOWER_MAX_PROGRAMS];
    int n_programs;
    bool failed;
} cg_lowering;

/* Reports that no schedule covers `op`; returns -1. */
int cg_lower_fail(cg_lowering *l, const ir_op *op, const char *reason);

/* --- shapes as rows and columns ------------------------------------------------------------------
 */

static inline bool cg_lower_has_rows(const ir_type *type) {
    return type->rank > 0 && !ir_dim_is_const(type->dims[0]);
}

/* Product of the constant dims from `first` on. */
static inline int64_t cg_lower_inner_size(const ir_type *type, int first) {
    int64_t n = 1;
    for (int i = first; i < type->rank; i++)
        n *= type->dims[i].c;
    return n;
}

static inline int64_t cg_lower_row_size(const ir_type *type) {
    return cg_lower_inner_size(type, cg_lower_has_rows(type) ? 1 : 0);
}

static inline int64_t cg_lower_last_dim(const ir_type *type) {
    return type->rank ? type->dims[type->rank - 1].c : 1;
}

/* --- values --------------------------------------------------------------------------------------
 */

/* Follows views from a value to a kernel argument; *offset becomes the first column, in elements of
 * the argument's row. False when something on the way computes. */
bool cg_lower_as_argument(const cg_lowering *l, const ir_value *value, int *arg, int64_t *offset);

/* Whether a value is a view of the anchor's result; *column becomes its first column there. */
bool cg_lower_as_columns(const cg_lowering *l, const ir_value *value, int64_t *column);

/* The node of a value in a program, made on first use; -1 after reporting why there is none. */
int cg_lower_value(cg_lowering *l, cg_lower_program *b, const ir_value *value);

/* The scale that a head (the program's row), node x, is stored with in pages of dtype, and x
 * divided by it, as ir.h defines; -1 after reporting. */
int cg_lower_kv_scale(cg_lowering *l, cg_lower_program *b, ir_dtype dtype, int x);
int cg_lower_kv_scaled(cg_lowering *l, cg_lower_program *b, int x, int scale);

#endif
