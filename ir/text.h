/* The text form of the IR: what is printed parses back to the same module.
 *
 *   module "tiny" {arch = "llama"}
 *   kv_group {window = 0, layers = 2, heads = 2, head_dim = 16, dtype = f16, page_tokens = 16}
 *   %0 = input {name = "token_ids"} : i32[T]
 *   %1 = weight {name = "embed_tokens.weight"} : q8_0[256, 64]
 *   %2 = gather(%1, %0) : f32[T, 64] @"embed_tokens"
 *   %5, %6 = kernel(%2, %3) {anchor = "rows"} : f32[T, 64], a8[T, 64] @"layers.0.input_norm" {
 *     args(%7 : f32[T, 64], %8 : f32[64])
 *     %9 = rms_norm(%7, %8) {eps = 1e-05} : f32[T, 64]
 *     …
 *     yield(%9, %10)
 *   }
 *   output(%11) {name = "logits"}
 *
 * A packed type carries its layout: q4_1[576, 576]@n16. A dim is an affine sum such as 2T+1.
 * Integral floats print as such, others with the fewest digits that read back exactly. `//` starts a
 * comment. Value ids are kept; weights that no op names are not printed. */
#ifndef MCC_IR_TEXT_H
#define MCC_IR_TEXT_H

#include "ir/ir.h"

#include <stdio.h>

void ir_print_module(const ir_module *module, FILE *out);
/* The same, and every op's line becomes the one where it begins in this text. */
void ir_print_module_lines(ir_module *module, FILE *out);
void ir_print_op(const ir_op *op, FILE *out);
/* Writes "f32[T, 64]" into the arena. */
const char *ir_type_text(ir_arena *arena, const ir_type *type);

/* Parses a module; NULL after reporting every error it could go on from, each located as
 * "file:line:column". The text is untrusted: nesting, counts and sizes are bounded. Weights get no
 * data. */
ir_module *ir_parse_module(const char *text, size_t length, const char *file, ir_diag *diag);

#endif
