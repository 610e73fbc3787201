/* The shape rules of ops.def, one function each: ir_infer_<rule>. Each fills op->results' types
 * from operands and attributes, or checks a stated type, and reports to diag what does not fit.
 * They may assume what ir_op_check checks: the number of operands and results, and attributes of
 * the right kinds. */
#ifndef MCC_IR_SHAPE_H
#define MCC_IR_SHAPE_H

#include "ir/ir.h"

#define OP(suffix, name, min, max, results, traits, rule, attributes)                              \
    bool ir_infer_##rule(ir_op *op, ir_diag *diag);
#include "ir/ops.def"
#undef OP

#endif
