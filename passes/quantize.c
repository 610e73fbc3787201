/* Quantizes weights as asked, by round to nearest, and activations beside quantized weights.
 *
 *   with int8:
 *   %w = weight {…} : bf16[576, 576]             %w = weight {…} : q8_0[576, 576]
 *   %y = matmul(%x, %w) {transpose_b = 1}   ->   %q = quantize(%x) : a8[T, 576]
 *                                                %y = matmul(%q, %w) {transpose_b = 1}
 *
 * Weights in fp8 are multiplied by activations in f32, or in fp8 (a8_e4m3) or the 16-bit type that
 * is asked for.
 *
 * Only weights that nothing but matmul (transpose_b) and gather reads are changed. int4 keeps the
 * embedding and the projection to logits at int8, where four bits cost too much. A weight that is
 * quantized already stays as it is: requantizing would add the errors of both. Consumers of one
 * value share its quantize op. */
#include "passes/pass.h"

#include <math.h>
#include <string.h>

const char *const pass_quantize_names[] = {[PASS_QUANTIZE_KEEP] = "keep",
                                           [PASS_QUANTIZE_F16] = "f16",
                                           [PASS_QUANTIZE_BF16] = "bf16",
                                           [PASS_QUANTIZE_INT8] = "int8",
                                           [PASS_QUANTIZE_INT4] = "int4",
                                           [PASS_QUANTIZE_FP8] = "fp8",
                                           NULL};

/* --- weights -----------------------------------------------------------------------------------
 */

/* What reads a weight, over all its WEIGHT ops. */
typedef struct weight_uses {
    bool multiplied; /* by matmul with transpose_b */
    bool logits;     /* … one of whose results has a row per row asked for */
    bool gathered;
    bool otherwise;
} weight_uses;

static int find_weight(const ir_module *module, const char *name) {
    const ir_weight *weight = ir_module_weight(module, name);
    return weight ? (int)(weight - module->weights) : -1;
}

/* Adds the uses in a graph and the bodies inside it; uses[i] is weight i's. */
static void note_uses(const ir_module *module, const ir_graph *graph, weight_uses *uses) {
    for (const ir_op *op = graph->first; op; op = op->next) {
        for (int i = 0; i < op->n_operands; i++) {
            const ir_op *def = op->operands[i]->def;
            int w = def && def->code == IR_OP_WEIGHT
                        ? find_weight(module, ir_op_string(def, "name"))
                        : -1;
            if (w < 0)
                continue;
            if (graph != module->graph) {
                uses[w].otherwise = true; /* kernels are formed after this pass */
            } else if (op->code == IR_OP_MATMUL && i == 1 && ir_op_int(op, "transpose_b")) {
                const ir_type *result = &op->results[0]->type;
                uses[w].multiplied = true;
                for (int d = 0; d < result->rank; d++)
                    uses[w].logits |= result->dims[d].r != 0;
            } else if (op->code == IR_OP_GATHER && i == 0) {
                uses[w].gathered = true;
            } else {
                uses[w].otherwise = true;
            }
        }
        if (op->body)
            note_uses(module, op->body, uses);
    }
}

/* The type the weight shall have; its own where it stays as it is. */
static ir_type wanted_type(pass_quantize quantize, const ir_type *type, const weight_uses *uses) {
    ir_type wanted = *type;
    switch (quantize) {
    case PASS_QUANTIZE_KEEP:
        break;
    case PASS_QUANTIZE_F16:
        wanted.dtype = IR_F16;
        break;
    case PASS_QUANTIZE_BF16:
        wanted.dtype = IR_BF16;
        break;
    case PASS_QUANTIZE_FP8:
        wanted = ir_quantized(ir_encoding_get(IR_ENC_FP8_E4M3), type->rank, type->dims);
        break;
    case PASS_QUANTIZE_INT8:
    case PASS_QUANTIZE_INT4:
        wanted = ir_quantized(
            ir_encoding_get(quantize == PASS_QUANTIZE_INT4 && !uses->gathered && !uses->logits
                                ? IR_ENC_Q4_1
                                : IR_ENC_Q8_0),
            type->rank, type->dims);
        break;
    }
    return wanted;
}

static float load(const ir_type *type, const uint8_t *data, int64_t i) {
    uint16_t h;
    float f;
    if (type->dtype == IR_F32) {
        memcpy(&f, data + 4 * i, 4);
        return f;
    }
    memcpy(&h, data + 2 * i, 2);
    return type->dtype == IR_F16 ? ir_f16_to_f32(h) : ir_bf16_to_f32(h);
}

/* Writes one row of k numbers as `to`; false when one does not fit. */
static bool store_row(const ir_type *to, const float *x, int64_t k, uint8_t *out) {
    if (to->encoding)
        return ir_encoding_encode_row(to->encoding, x, k, out);
    for (int64_t i = 0; i < k; i++) {
        uint16_t h = to->dtype == IR_F16 ? ir_f32_to_f16(x[i]) : ir_f32_to_bf16(x[i]);
        float back = to->dtype == IR_F16 ? ir_f16_to_f32(h) : ir_bf16_to_f32(h);
        if (!isfinite(back))
            return false;
        memcpy(out + 2 * i, &h, 2);
    }
    return true;
}

/* The weight's data as `to`, in the module's arena; NULL when some row does not fit (its number
 * goes to *bad_row). */
static uint8_t *convert(ir_arena *arena, const ir_weight *weight, const ir_type *to,
                        int64_t *bad_row) {
    int64_t k = to->dims[to->rank - 1].c, rows = ir_type_elements(to).c / k;
    int64_t bytes = ir_type_bytes(to).c, row_bytes = bytes / rows;
    uint8_t *out = ir_arena_alloc(arena, (size_t)bytes);
    ir_arena *scratch = ir_arena_create();
    float *x = scratch ? ir_arena_array(scratch, (size_t)k, sizeof *x) : NULL;
    bool ok = x != NULL;
    for (*bad_row = 0; ok && *bad_row < rows; *bad_row += ok) {
        for (int64_t i = 0; i < k; i++)
            x[i] = load(&weight->type, weight->data, *bad_row * k + i);
        ok = store_row(to, x, k, out + *bad_row * row_bytes);
    }
    ir_arena_destroy(scratch);
    return ok ? out : NULL;
}

/* Gathered rows have a new element type: their readers get the old one from a cast, and casts that
 * read that one read the rows directly. */
static bool retype_gather(pass_context *context, ir_op *gather) {
    ir_graph *graph = gather->owner;
    ir_value *rows = gather->results[0];
    ir_type before = rows->type;
    if (!ir_op_info_get(gather->code)->infer(gather, context->diag))
        return false;
    if (ir_type_equal(&before, &rows->type))
        return true;
    const char *name =
        gather->name ? ir_arena_printf(context->module->arena, "%s.cast", gather->name) : NULL;
    ir_op *back = ir_op_create(graph, gather->next,
                               &(ir_op_spec){.code = IR_OP_CAST,
                                             .name = name,
                                             .operands = &rows,
                                             .n_operands = 1,
                                             .types = &before,
                                             .n_types = 1},
                               context->diag);
    if (!back)
        return false;
    ir_replace_uses(graph, rows, back->results[0]);
    back->operands[0] = rows;
    bool used = false;
    for (ir_op *op = back->next, *next; op; op = next) {
        next = op->next;
        bool reads = false;
        for (int i = 0; i < op->n_operands; i++)
            reads |= op->operands[i] == back->results[0];
        if (reads && op->code == IR_OP_CAST) {
            op->operands[0] = rows;
            if (ir_type_equal(&op->results[0]->type, &rows->type)) {
                ir_replace_uses(graph, op->results[0], rows);
                ir_op_remove(op);
            }
        } else {
            used |= reads;
        }
    }
    if (!used)
        ir_op_remove(back);
    return true;
}

/* Every WEIGHT op of this name, and what gathers from it, follow the weight's new type. */
static bool retype(pass_context *context, const ir_weight *weight) {
    ir_graph *graph = context->module->graph;
    for (ir_op *op = graph->first; op; op = op->next)
        if (op->code == IR_OP_WEIGHT && strcmp(ir_op_string(op, "name"), weight->name) == 0)
            op->results[0]->type = weight->type;
    for (ir_op *op = graph->first; op; op = op->next) {
        const ir_op *table = op->code == IR_OP_GATHER ? op->operands[0]->def : NULL;
        if (table && table->code == IR_OP_WEIGHT &&
            strcmp(ir_op_string(table, "name"), weight->name) == 0 && !retype_gather(context, op))
            return false;
    }
    return true;
}

static const char *element_name(const ir_type *type) {
    return type->encoding ? type->encoding->name : ir_dtype_name(type->dtype);
}

/* Why the weight cannot become `wanted`, or NULL. */
static const char *obstacle(const ir_type *type, const ir_type *wanted, const weight_uses *uses) {
    if (type->encoding)
        return "it is quantized already";
    if (type->dtype != IR_F32 && type->dtype != IR_F16 && type->dtype != IR_BF16)
        return "only f32, f16 and bf16 are quantized";
    if (uses->otherwise)
        return "something other than gather and matmul with transpose_b reads it";
    if (wanted->encoding && wanted->dims[wanted->rank - 1].c % wanted->encoding->block)
        return "the length of its rows is no multiple of 32";
    return NULL;
}

/* *stayed counts the weights that were to be quantized but are not. */
static bool quantize_weight(pass_context *context, ir_weight *weight, const weight_uses *uses,
                            int *stayed) {
    ir_diag *diag = context->diag;
    const ir_type *type = &weight->type;
    if ((!uses->multiplied && !uses->gathered) || type->rank < 2)
        return true; /* norms, biases, tables: no matrix */
    ir_type wanted = wanted_type(context->options->quantize, type, uses);
    if (ir_type_equal(&wanted, type))
        return true;
    const char *why = obstacle(type, &wanted, uses);
    if (why) {
        ir_note(diag, weight->name, "stays %s: %s", element_name(type), why);
        ++*stayed;
        return true;
    }
    const uint8_t *data = NULL; /* a module from text alone has types only */
    if (weight->data) {
        int64_t row;
        data = convert(context->module->arena, weight, &wanted, &row);
        if (!data) {
            ir_note(diag, weight->name, "stays %s: row %lld does not fit %s", element_name(type),
                    (long long)row, element_name(&wanted));
            ++*stayed;
            return true;
        }
    }
    int64_t bytes = ir_type_bytes(&wanted).c;
    ir_note(diag, weight->name, "quantized from %s to %s, %lld to %lld bytes", element_name(type),
            element_name(&wanted), (long long)ir_type_bytes(type).c, (long long)bytes);
    weight->type = wanted;
    weight->data = data;
    weight->bytes = bytes;
    return retype(context, weight);
}

/* --- activations -------------------------------------------------------------------------------
 */

const char *pass_activations_name(const pass_options *options) {
    if (options->activations_fp8)
        return "fp8";
    if (options->activations_half != IR_F32)
        return ir_dtype_name(options->activations_half);
    return options->activations_f32 ? "f32" : "int8";
}

bool pass_activations_from_name(const char *name, pass_options *options) {
    bool fp8 = !strcmp(name, "fp8"), f32 = !strcmp(name, "f32");
    ir_dtype half = !strcmp(name, "f16") ? IR_F16 : !strcmp(name, "bf16") ? IR_BF16 : IR_F32;
    if (!fp8 && !f32 && half == IR_F32 && strcmp(name, "int8") != 0)
        return false;
    options->activations_fp8 = fp8;
    options->activations_f32 = f32;
    options->activations_half = half;
    return true;
}

/* The form of x that `matmul` reads, quantized or (encoding NULL) in the 16-bit type that is asked
 * for: made on first use, then shared. Made ops are found by x's id in `made`, which has room for n
 * ids. */
static ir_value *narrowed(pass_context *context, ir_op *matmul, ir_value *x, ir_value **made, int n,
                          const ir_encoding *encoding) {
    if (x->id < n && made[x->id])
        return made[x->id];
    const char *base = x->def && x->def->name ? x->def->name : matmul->name;
    ir_type type = encoding
                       ? ir_quantized(encoding, x->type.rank, x->type.dims)
                       : ir_tensor(context->options->activations_half, x->type.rank, x->type.dims);
    const char *suffix = !encoding                   ? ir_dtype_name(type.dtype)
                         : encoding->id == IR_ENC_A8 ? "quantize"
                                                     : encoding->name;
    const char *name = base ? ir_arena_printf(context->module->arena, "%s.%s", base, suffix) : NULL;
    ir_op *op = ir_op_create(matmul->owner, matmul,
                             &(ir_op_spec){.code = encoding ? IR_OP_QUANTIZE : IR_OP_CAST,
                                           .name = name,
                                           .operands = &x,
                                           .n_operands = 1,
                                           .types = &type,
                                           .n_types = 1,
                                           .line = matmul->line},
                             context->diag);
    if (!op)
        return NULL;
    if (x->id < n)
        made[x->id] = op->results[0];
    return op->results[0];
}

/* Whether a matmul by this weight reads activations in `encoding`; or else (NULL) the 16-bit type
 * that is asked for, whose products with the weight's codes are exact. */
static bool matmul_reads(const ir_type *w, const ir_encoding *encoding, ir_dtype half) {
    const ir_encoding *e = w->encoding;
    if (encoding)
        return ir_encodings_multiply(encoding, e);
    return e ? e->code == IR_CODE_E4M3 : w->dtype == half;
}

static void say_narrowed(const pass_context *context, const ir_encoding *encoding, int matmuls,
                         int ops) {
    if (!encoding)
        ir_note(context->diag, NULL, "inputs of %d matmuls are cast to %s by %d ops", matmuls,
                ir_dtype_name(context->options->activations_half), ops);
    else
        ir_note(context->diag, NULL,
                "inputs of %d matmuls are quantized to %s by %d ops; --activations f32 keeps them "
                "exact",
                matmuls, encoding->id == IR_ENC_A8 ? "int8" : "fp8", ops);
}

/* Inputs of matmuls by weights of the encoding's kind of codes are quantized; or (NULL) those of
 * matmuls by weights of fp8, or of the 16-bit type that is asked for, are cast to that type. */
static bool narrow_activations(pass_context *context, const ir_encoding *encoding, int *matmuls) {
    ir_module *module = context->module;
    int n = module->n_values, ops = 0;
    ir_dtype half = context->options ? context->options->activations_half : IR_F32;
    ir_arena *scratch = ir_arena_create();
    if (!scratch)
        return ir_error(context->diag, NULL, "out of memory");
    ir_value **made = ir_arena_array(scratch, (size_t)n + 1, sizeof *made);
    bool ok = true;
    *matmuls = 0;
    for (ir_op *op = module->graph->first; ok && op; op = op->next) {
        if (op->code != IR_OP_MATMUL || !ir_op_int(op, "transpose_b"))
            continue;
        if (!matmul_reads(&op->operands[1]->type, encoding, half))
            continue;
        ir_value *x = op->operands[0];
        if (x->type.encoding || x->type.layout || x->type.dtype != IR_F32)
            continue;
        ops += x->id < n && !made[x->id];
        ir_value *q = narrowed(context, op, x, made, n, encoding);
        ok = q != NULL;
        if (ok)
            op->operands[0] = q;
        ++*matmuls;
    }
    if (ok && *matmuls)
        say_narrowed(context, encoding, *matmuls, ops);
    ir_arena_destroy(scratch);
    return ok;
}

bool pass_quantize_ops(pass_context *context) {
    ir_module *module = context->module;
    const pass_options *options = context->options;
    if (options && options->quantize != PASS_QUANTIZE_KEEP) {
        ir_arena *scratch = ir_arena_create();
        if (!scratch)
            return ir_error(context->diag, NULL, "out of memory");
        weight_uses *uses = ir_arena_array(scratch, (size_t)module->n_weights + 1, sizeof *uses);
        note_uses(module, module->graph, uses);
        bool ok = true;
        int stayed = 0;
        for (int i = 0; ok && i < module->n_weights; i++)
            ok = quantize_weight(context, &module->weights[i], &uses[i], &stayed);
        ir_arena_destroy(scratch);
        if (ok && stayed) /* what was asked for is not done: not a matter of --verbose */
            ir_warning(context->diag, NULL,
                       "%d weights stay as they are, although --quantize asks for another type; "
                       "--verbose says which, and why",
                       stayed);
        if (!ok)
            return false;
    }
    int matmuls;
    if (options && options->activations_fp8) {
        if (!narrow_activations(context, ir_encoding_get(IR_ENC_A8_E4M3), &matmuls))
            return false;
        if (!matmuls)
            return ir_error(context->diag, NULL,
                            "--activations fp8: no matmul's weights are in fp8, which it goes "
                            "beside: --quantize fp8 makes such weights of f32, f16 and bf16");
    }
    if (options && options->activations_half != IR_F32 &&
        !narrow_activations(context, NULL, &matmuls))
        return false;
    return (options && options->activations_f32) ||
           narrow_activations(context, ir_encoding_get(IR_ENC_A8), &matmuls);
}
