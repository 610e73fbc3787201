/* Graphs for viewers: Graphviz DOT and JSON. */
#ifndef MCC_IR_EXPORT_H
#define MCC_IR_EXPORT_H

#include "ir/ir.h"

#include <stdio.h>

/* A digraph with a node per op (weights and constants in grey, kernels as clusters) and an edge per
 * use, labelled with its type. */
void ir_export_dot(const ir_module *module, FILE *out);

/* {"name", "arch", "kv_groups": [...], "weights": [{"name", "type", "bytes"}], "ops": [{"op",
 * "name", "operands": [ids], "results": [{"id", "type"}], "attributes": {…}, "body": {"args",
 * "ops"}}]}. Numbers that JSON lacks (infinities, NaN) are strings. */
void ir_export_json(const ir_module *module, FILE *out);

#endif
