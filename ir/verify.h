/* The verifier: whether a module is well-formed. Runs after every pass in debug builds and tests.
 */
#ifndef MCC_IR_VERIFY_H
#define MCC_IR_VERIFY_H

#include "ir/ir.h"

/* Checks that every value is defined before its use and in scope, ids are unique, links are
 * consistent, operands, attributes and result types agree with the op table, regions end in one
 * yield of the kernel's result types, weights and kv groups exist, and each kv value is appended to
 * at most once and then read by nothing else. Reports every violation, located by ir_op_label. */
bool ir_verify(const ir_module *module, ir_diag *diag);

#endif
