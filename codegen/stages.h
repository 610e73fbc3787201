/* The order in which a backend computes a row program over whole rows.
 *
 * A reduction needs all columns before the first use of its result, and a rotation in halves needs
 * columns that other lanes compute. So the nodes are split into stages, each one loop over the
 * columns: a node's stage is the highest of its operands', or one more where an operand is a
 * reduction or where it is a rotation in halves. What a later stage needs of an earlier one is kept
 * in an array, except for inputs and loads that give the same again. */
#ifndef MCC_CODEGEN_STAGES_H
#define MCC_CODEGEN_STAGES_H

#include "codegen/kernel.h"

typedef struct cg_stages {
    const cg_program *program;
    int n_stages;
    int *stage;   /* by node: where it is computed; of a REDUCE: the first stage that has it */
    bool *number; /* by node: one f32 for the row and head, not one a column */
    bool *again;  /* by node: may be loaded again in a later stage */
    bool *kept;   /* by node: a later stage, a rotation in halves reads it from an array */
    bool *needed; /* [stage][node]: that stage uses it, computed there, kept or loaded again */
} cg_stages;

/* In `arena`. The program has been checked: operands come first. args NULL: no load may be
 * repeated.
 */
cg_stages cg_stages_of(const cg_program *program, const cg_arg *args, ir_arena *arena);

int cg_node_operands(const cg_node *node);
bool cg_store_is_kv(const cg_store *store); /* to a page */
/* The nodes a store reads; returns how many (KV and KV_SCALE: two). */
int cg_store_values(const cg_store *store, int values[2]);
/* The stage in which a store can happen. */
int cg_store_stage(const cg_stages *stages, const cg_store *store);

#endif
