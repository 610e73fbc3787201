/* The fusion plan: which ops form a kernel. Made by a strategy or read from text; nothing is fused
 * outside of it.
 *
 *   modelcc-plan 1
 *   graph 3f2a91c04d7b8e55
 *   strategy full
 *   merge layers.0.self_attn.qkv_proj = layers.0.self_attn.q_proj layers.0.self_attn.k_proj …
 *   kernel layers.0.self_attn.qkv_proj matmul = layers.0.self_attn.qkv_proj
 *   kernel layers.0.mlp.gate_up_proj matmul = layers.0.mlp.gate_up_proj layers.0.mlp.silu …
 *
 * Ops go by their stable names (name-ops gives one to each). `merge` replaces matmuls of one input
 * by a matmul of their weights stacked, whose name is new; the old names are then slices of it,
 * which like every view belong to whatever uses them and need no mention. `kernel` names a kernel,
 * its anchor and its ops in any order; an op that no line mentions is a kernel of its own. What a
 * matmul's input depends on in its kernel is the kernel's prologue, what depends on the matmul its
 * epilogue. `#` starts a comment. The graph's hash is of its text before the merges: a plan fits
 * one graph. */
#ifndef MCC_PASSES_PLAN_H
#define MCC_PASSES_PLAN_H

#include "passes/pass.h"

typedef struct plan_entry {
    const char *name;
    const char *anchor; /* kernels: rows, matmul, attention, sample; merges: NULL */
    int n_ops, capacity;
    const char **ops;
    int line; /* in the file, or 0 */
} plan_entry;

typedef struct plan_entries {
    int count, capacity;
    plan_entry *entries;
} plan_entries;

struct plan {
    ir_arena *arena;
    const char *strategy;
    char graph_hash[17];
    const char *file; /* for messages; NULL when a strategy made it */
    plan_entries merges, kernels;
};

/* An empty plan in `arena`. */
plan *plan_create(ir_arena *arena, const char *strategy);
plan_entry *plan_add(plan *p, plan_entries *list, const char *name, const char *anchor);
void plan_add_op(plan *p, plan_entry *entry, const char *op);

/* The hash that ties a plan to a graph: 16 hex digits of FNV-1a over the graph's text. */
void plan_hash_graph(const ir_module *module, char out[17]);

void plan_print(const plan *p, FILE *out);
/* NULL after reporting every bad line as file:line. */
plan *plan_parse(const char *text, const char *file, ir_arena *arena, ir_diag *diag);

/* A strategy looks at the graph (after name-ops) and fills the plan; one file each. Merges are
 * applied between the two calls, so that kernels see the merged graph. */
typedef struct fusion_strategy {
    const char *name;
    void (*merges)(const pass_context *context, plan *p);  /* may be NULL */
    void (*kernels)(const pass_context *context, plan *p); /* may be NULL: an op a kernel */
    const char *summary;
} fusion_strategy;

const fusion_strategy *fusion_strategy_find(const char *name); /* NULL when unknown */

extern const fusion_strategy fusion_none, fusion_pointwise, fusion_full, fusion_prologues;

/* --- what strategies and fuse share (fusion_graph.c)
 * ----------------------------------------------- */

/* Whether an op belongs to a kernel: everything but sources, views, weight ops and outputs. */
bool fusion_is_compute(const ir_op *op);
/* Whether an op moves no data and is drawn into the kernels that use it. */
bool fusion_is_view(const ir_op *op);
/* An append to pages that are quantized, a head at a time. */
bool fusion_quantizes_kv(const ir_op *op);
/* The op that computes a value, through views; NULL for sources. */
ir_op *fusion_producer(const ir_value *value);

/* Kernels under construction over a graph. Ops are numbered in graph order; region[i] is the kernel
 * of op i, or -1. */
typedef struct fusion_graph {
    ir_arena *arena;
    int n_ops;
    ir_op **ops;
    int *region;      /* by op */
    int *op_of_value; /* by value id: its op's number, or -1 */
    int n_regions;
    unsigned char *seen; /* scratch of fusion_can_join */
} fusion_graph;

fusion_graph *fusion_graph_create(const ir_graph *graph, ir_arena *arena);
int fusion_op_index(const fusion_graph *g, const ir_op *op);
/* Whether op `index`, which comes after the region's ops in the graph, may join the region without
 * making kernels depend on each other in a circle: no operand of the op that comes from outside the
 * region may depend on the region. */
bool fusion_can_join(fusion_graph *g, int index, int region);

/* Whether a value is needed by an op that computes, or an output, outside of the region, through
 * views or not; `except` (or NULL) does not count. */
bool fusion_is_used_outside(const fusion_graph *g, const ir_value *value, int region,
                            const ir_op *except);

#endif
