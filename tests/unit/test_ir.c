/* Graphs: building with shape inference, changing, and what the verifier catches. */
#include "check_main.h"
#include "ir/export.h"
#include "ir/shape.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

/* A module with a bit of everything; the tests below break it in one place each. */
static const char *const base =
    "module \"base\" {arch = \"llama\"}\n"
    "kv_group {window = 8, layers = 2, heads = 2, head_dim = 4, dtype = f16, page_tokens = 16}\n"
    "%0 = input {name = \"token_ids\"} : i32[T]\n"
    "%1 = input {name = \"output_rows\"} : i32[R]\n"
    "%2 = weight {name = \"embed\"} : q8_0[256, 32]\n"
    "%3 = weight {name = \"norm\"} : f32[32]\n"
    "%4 = gather(%2, %0) : f32[T, 32] @\"embed_tokens\"\n"
    "%5 = kernel(%4, %3) {anchor = \"rows\"} : f32[T, 32] @\"norm\" {\n"
    "  args(%6 : f32[T, 32], %7 : f32[32])\n"
    "  %8 = rms_norm(%6, %7) {eps = 1e-05} : f32[T, 32]\n"
    "  %9 = silu(%8) : f32[T, 32]\n"
    "  yield(%9)\n"
    "}\n"
    "%10 = weight {name = \"wk\"} : f32[8, 32]\n"
    "%11 = matmul(%5, %10) {transpose_b = 1} : f32[T, 8] @\"k_proj\"\n"
    "%12 = reshape(%11) : f32[T, 2, 4]\n"
    "%13 = kv_cache {group = 0, layer = 0} : kv\n"
    "%14 = kv_append(%13, %12, %12) : kv\n"
    "%15 = paged_attention(%12, %14) {scale = 0.5, window = 8} : f32[T, 2, 4] @\"attn\"\n"
    "%16 = kv_cache {group = 0, layer = 1} : kv\n"
    "%17 = kv_append(%16, %15, %15) : kv\n"
    "%18 = paged_attention(%15, %17) {scale = 0.5, window = 4} : f32[T, 2, 4]\n"
    "%19 = reshape(%18) : f32[T, 8]\n"
    "%20 = gather(%19, %1) : f32[R, 8]\n"
    "output(%20) {name = \"hidden\"}\n";

static ir_module *parse(const char *text, ir_diag *diag) {
    ir_module *module = ir_parse_module(text, strlen(text), "test.ir", diag);
    if (!module)
        ir_diag_print(diag, stderr);
    ck_assert_ptr_nonnull(module);
    return module;
}

static ir_op *nth(ir_module *module, ir_opcode code, int n) {
    for (ir_op *op = module->graph->first; op; op = op->next)
        if (op->code == code && n-- == 0)
            return op;
    ck_abort_msg("no such op");
    return NULL;
}

static bool mentions(const ir_diag *diag, const char *text) {
    for (int i = 0; i < diag->count; i++)
        if (strstr(diag->messages[i].text, text))
            return true;
    return false;
}

/* --- building ----------------------------------------------------------------------------------
 */

START_TEST(dims_are_affine_and_saturate) {
    ir_dim d = ir_dim_add(ir_dim_scale(IR_DIM_T, 2), ir_dim_const(3));
    ck_assert_int_eq(ir_dim_eval(d, 10, 1, 1), 23);
    ck_assert(!ir_dim_is_const(d));
    ck_assert_int_eq(ir_dim_scale(ir_dim_const(INT64_MAX / 2), 3).c, INT64_MAX);
    ir_type type = ir_tensor(IR_F16, 3, (ir_dim[]){IR_DIM_T, ir_dim_const(3), ir_dim_const(5)});
    ck_assert_int_eq(ir_type_elements(&type).t, 15);
    ck_assert_int_eq(ir_type_bytes(&type).t, 30);
    ir_type rows = ir_quantized(ir_encoding_get(IR_ENC_Q4_1), 2,
                                (ir_dim[]){ir_dim_const(7), ir_dim_const(64)});
    ck_assert_int_eq(ir_type_bytes(&rows).c, 7 * 40);
}
END_TEST

START_TEST(builders_infer_types) {
    ir_diag diag = {0};
    ir_module *m = ir_module_create("m", "llama");
    ir_type weight = ir_tensor(IR_F32, 2, (ir_dim[]){ir_dim_const(8), ir_dim_const(4)});
    ir_module_add_weight(m, "w", &weight, NULL, 128);
    ir_value *w = ir_weight_value(m->graph, &diag, "w");
    ir_value *two = ir_constant_splat(m->graph, &diag, 2.0);
    ir_value *product = ir_binary(m->graph, &diag, IR_OP_MUL, "product", w, two);
    ck_assert_ptr_nonnull(product);
    ck_assert(ir_type_equal(&product->type, &weight));
    ir_value *flat = ir_reshape(m->graph, &diag, NULL, product, 1, (ir_dim[]){ir_dim_const(32)});
    ck_assert_ptr_nonnull(flat);
    ck_assert_ptr_null(ir_reshape(m->graph, &diag, NULL, product, 1, (ir_dim[]){ir_dim_const(31)}));
    ck_assert(mentions(&diag, "changes the number of elements"));
    ck_assert_int_eq(diag.errors, 1);
    /* A NULL operand passes through in silence. */
    ck_assert_ptr_null(ir_unary(m->graph, &diag, IR_OP_NEG, NULL, NULL));
    ck_assert_int_eq(diag.errors, 1);
    ck_assert_ptr_null(ir_weight_value(m->graph, &diag, "nothing"));
    ck_assert(mentions(&diag, "no weight of this name"));
    ir_diag_clear(&diag);
    ck_assert(ir_verify(m, &diag));
    ir_diag_clear(&diag);
    ir_module_destroy(m);
}
END_TEST

START_TEST(attributes_are_normalized) {
    ir_diag diag = {0};
    ir_module *m = parse(base, &diag);
    ir_op *attention = nth(m, IR_OP_PAGED_ATTENTION, 0);
    ck_assert_int_eq(attention->n_attrs, 2);
    ir_op_set_attr(attention, &IR_FLOAT("softcap", 0));
    ck_assert_int_eq(attention->n_attrs, 2);
    ir_op_set_attr(attention, &IR_FLOAT("softcap", 30));
    ir_op_set_attr(attention, &IR_INT("window", 7));
    ck_assert_int_eq(attention->n_attrs, 3);
    ck_assert_str_eq(attention->attrs[0].name, "scale");
    ck_assert_str_eq(attention->attrs[1].name, "window");
    ck_assert_str_eq(attention->attrs[2].name, "softcap");
    ck_assert_int_eq(ir_op_int(attention, "window"), 7);
    ck_assert_ptr_null(ir_op_attr(attention, "nothing"));
    ir_op_set_attr(attention, &IR_INT("window", 0));
    ck_assert_ptr_null(ir_op_attr(attention, "window"));
    ir_module_destroy(m);
}
END_TEST

START_TEST(weights_are_found_by_name) {
    ir_module *m = ir_module_create("m", "llama");
    ir_type type = ir_tensor(IR_F32, 1, (ir_dim[]){ir_dim_const(4)});
    for (int i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof name, "layers.%d.weight", i);
        ck_assert_int_eq(ir_module_add_weight(m, name, &type, NULL, i), i);
    }
    for (int i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof name, "layers.%d.weight", i);
        const ir_weight *w = ir_module_weight(m, name);
        ck_assert_ptr_nonnull(w);
        ck_assert_int_eq(w->bytes, i);
    }
    ck_assert_ptr_null(ir_module_weight(m, "layers.1000.weight"));
    ir_module_destroy(m);
}
END_TEST

START_TEST(clone_maps_operands_and_bodies) {
    ir_diag diag = {0};
    ir_module *m = parse(base, &diag);
    ir_op *kernel = nth(m, IR_OP_KERNEL, 0);
    int map_size = m->n_values;
    ir_value **map = ir_arena_array(m->arena, (size_t)map_size, sizeof *map);
    ir_op *table = ir_op_clone(nth(m, IR_OP_GATHER, 0), m->graph, kernel, map, map_size);
    ir_op *copy = ir_op_clone(kernel, m->graph, kernel->next, map, map_size);
    ck_assert_ptr_eq(copy->operands[0], table->results[0]);
    ck_assert_ptr_eq(copy->operands[1], kernel->operands[1]);
    ck_assert_ptr_eq(copy->body->parent, copy);
    ck_assert_ptr_eq(copy->body->first->operands[0], copy->body->args[0]);
    ck_assert_ptr_ne(copy->body->args[0], kernel->body->args[0]);
    ck_assert_ptr_eq(map[kernel->results[0]->id], copy->results[0]);
    ck_assert(ir_verify(m, &diag));
    /* Without a map, bodies are still copied with their own values. */
    ir_op *again = ir_op_clone(copy, m->graph, copy->next, NULL, 0);
    ck_assert_ptr_eq(again->operands[0], table->results[0]);
    ck_assert_ptr_eq(again->body->first->operands[0], again->body->args[0]);
    ck_assert(ir_verify(m, &diag));
    ir_module_destroy(m);
}
END_TEST

START_TEST(uses_are_counted_and_replaced) {
    ir_diag diag = {0};
    ir_module *m = parse(base, &diag);
    ir_value *heads = nth(m, IR_OP_RESHAPE, 0)->results[0];
    int *uses = ir_count_uses(m->graph, m->arena);
    ck_assert_int_eq(uses[heads->id], 3);
    ck_assert_int_eq(uses[nth(m, IR_OP_KERNEL, 0)->body->first->results[0]->id], 1);
    ir_op *neg =
        ir_op_create(m->graph, nth(m, IR_OP_KV_CACHE, 0),
                     &(ir_op_spec){.code = IR_OP_NEG, .operands = &heads, .n_operands = 1}, &diag);
    ir_replace_uses(m->graph, heads, neg->results[0]);
    neg->operands[0] = heads;
    uses = ir_count_uses(m->graph, m->arena);
    ck_assert_int_eq(uses[heads->id], 1);
    ck_assert_int_eq(uses[neg->results[0]->id], 3);
    ck_assert(ir_verify(m, &diag));
    ir_op_remove(neg);
    ir_replace_uses(m->graph, neg->results[0], heads);
    ck_assert(ir_verify(m, &diag));
    ir_module_destroy(m);
}
END_TEST

START_TEST(exports_are_well_formed) {
    ir_diag diag = {0};
    ir_module *m = parse(base, &diag);
    m->graph->last->name = "\xc3\x9c \xff\xe0\x80\x80 \"\\\n";
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ir_export_json(m, out);
    fclose(out);
    cJSON *json = cJSON_Parse(text);
    ck_assert_ptr_nonnull(json);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "weights")), m->n_weights);
    int ops = 0;
    for (ir_op *op = m->graph->first; op; op = op->next)
        ops++;
    cJSON *list = cJSON_GetObjectItem(json, "ops");
    ck_assert_int_eq(cJSON_GetArraySize(list), ops);
    cJSON *name = cJSON_GetObjectItem(cJSON_GetArrayItem(list, ops - 1), "name");
    ck_assert_str_eq(cJSON_GetStringValue(name),
                     "\xc3\x9c \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \"\\\n");
    cJSON_Delete(json);
    free(text);
    out = open_memstream(&text, &length);
    ir_export_dot(m, out);
    fclose(out);
    int depth = 0;
    for (const char *p = text; *p; p++)
        depth += (*p == '{') - (*p == '}');
    ck_assert_int_eq(depth, 0);
    ck_assert_ptr_nonnull(strstr(text, "v4 -> v6"));
    ck_assert_ptr_nonnull(strstr(text, "subgraph cluster_v5"));
    free(text);
    ir_module_destroy(m);
}
END_TEST

/* --- shape errors ------------------------------------------------------------------------------
 */

/* Ops over these values, and what is said of them. */
static const char *const shape_prelude = "module \"m\" {arch = \"\"}\n"
                                         "%0 = input {name = \"token_ids\"} : i32[T]\n"
                                         "%1 = weight {name = \"f\"} : f32[4, 8]\n"
                                         "%2 = weight {name = \"h\"} : f16[4, 8]\n"
                                         "%3 = weight {name = \"q\"} : q4_1[4, 32]\n"
                                         "%4 = weight {name = \"v\"} : f32[8]\n"
                                         "%5 = weight {name = \"e\"} : f32[9, 32]\n"
                                         "%6 = gather(%5, %0) : f32[T, 32]\n"
                                         "%7 = reshape(%6) : f32[T, 4, 8]\n"
                                         "%8 = kv_cache {group = 0, layer = 0} : kv\n"
                                         "%9 = quantize(%6) : a8[T, 32]\n"
                                         "%10 = reshape(%6) : f32[T, 2, 16]\n"
                                         "%11 = pack(%3) {layout = \"n16\"} : q4_1[4, 32]@n16\n"
                                         "%12 = reshape(%6) : f32[T, 8, 4]\n"
                                         "%13 = weight {name = \"a\"} : a8[4, 32]\n"
                                         "%14 = weight {name = \"p\"} : fp8_e4m3[4, 32]\n"
                                         "%15 = quantize(%6) : a8_e4m3[T, 32]\n";

static const struct {
    const char *text, *message;
} shape_errors[] = {
    {"%20 = input {name = \"tokens\"} : i32[T]", "the step has no input \"tokens\""},
    {"%20 = input {name = \"token_ids\"} : i32[S]", "expected i32[T]"},
    {"%20 = weight {name = \"w\"} : f32[T, 4]", "constant dimensions"},
    {"%20 = weight {name = \"w\"} : kv", "expected a tensor"},
    {"%20 = weight {name = \"\"} : f32[4]", "needs a name"},
    {"%20 = constant {values = [1, 2]} : f32[3]", "has 2 values, expected 1 or 3"},
    {"%20 = constant {values = [1]} : q4_1[32]", "not quantized"},
    {"%20 = kv_cache {group = -1, layer = 0} : kv", "cannot be negative"},
    {"output(%1) {name = \"logits\"}", "expected f32[R"},
    {"output(%0) {name = \"x\"}", "expected an f32 tensor"},
    {"output(%1) {name = \"\"}", "needs a name"},
    {"%20 = neg(%3) : q4_1[4, 32]", "not quantized"},
    {"%20 = neg(%8) : kv", "operand 0 of neg is kv"},
    {"%20 = exp(%0) : i32[T]", "expected a floating-point tensor"},
    {"%20 = softcap(%1) {cap = 0} : f32[4, 8]", "expected above 0"},
    {"%20 = add(%1, %2) : f32[4, 8]", "element types f32 and f16"},
    {"%20 = add(%1, %6) : f32[4, 8]", "do not broadcast"},
    {"%20 = add(%1, %4) : f32[8, 4]", "is stated as f32[8, 4], but its operands make it f32[4, 8]"},
    {"%20 = cast(%3) : f32[4, 32]", "see dequantize"},
    {"%20 = cast(%1) : f16[4, 9]", "the operand's shape"},
    {"%20 = lt(%1, %3) : bool[4, 8]", "not quantized"},
    {"%20 = where(%1, %1, %1) : f32[4, 8]", "expected a bool tensor"},
    {"%20 = reshape(%1) : f32[33]", "changes the number of elements"},
    {"%20 = reshape(%1) : f16[32]", "the operand's element type"},
    {"%20 = reshape(%3) : q4_1[2, 64]", "the same last dimension"},
    {"%20 = transpose(%1) {perm = [0]} : f32[4, 8]", "perm has 1 entries"},
    {"%20 = transpose(%1) {perm = [1, 1]} : f32[8, 8]", "no permutation"},
    {"%20 = transpose(%1) {perm = [1, 64]} : f32[8, 8]", "no permutation"},
    {"%20 = broadcast(%1) : f32[8]", "does not broadcast to"},
    {"%20 = broadcast(%1) : f32[5, 8]", "does not broadcast to"},
    {"%20 = slice(%1) {axis = 2, start = 0, size = 1} : f32[4, 1]", "axis 2 is out of range"},
    {"%20 = slice(%1) {axis = 1, start = 8, size = 1} : f32[4, 1]", "exceeds axis 1"},
    {"%20 = slice(%1) {axis = 1, start = 9223372036854775807, size = 1} : f32[4, 1]", "exceeds"},
    {"%20 = slice(%1) {axis = 1, start = -1, size = 1} : f32[4, 1]", "exceeds axis 1"},
    {"%20 = slice(%6) {axis = 0, start = 0, size = 1} : f32[1, 32]", "not constant"},
    {"%20 = slice(%3) {axis = 1, start = 0, size = 32} : q4_1[4, 32]", "it is quantized"},
    {"%20 = concat(%1, %4) {axis = 0} : f32[5, 8]", "does not fit"},
    {"%20 = concat(%1, %2) {axis = 0} : f32[8, 8]", "element types"},
    {"%20 = concat(%3, %3) {axis = 0} : f32[8, 32]", "see weight_concat"},
    {"%20 = gather(%1, %1) : f32[4, 8, 8]", "expected i32 indices"},
    {"%20 = gather(%8, %0) : f32[T, 32]", "a table of rows"},
    {"%20 = reduce_sum(%1) {axis = -1} : f32[4, 1]", "axis -1 is out of range"},
    {"%20 = reduce_sum(%0) {axis = 0} : i32[1]", "expected a floating-point tensor"},
    {"%20 = softmax(%1) {axis = 5} : f32[4, 8]", "axis 5 is out of range"},
    {"%20 = rms_norm(%1, %1) {eps = 0.1} : f32[4, 8]", "expected f32[8]"},
    {"%20 = rms_norm(%1, %4) {eps = nan} : f32[4, 8]", "eps is nan"},
    {"%20 = matmul(%1, %1) : f32[4, 8]", "differ in K"},
    {"%20 = matmul(%6, %3) : f32[T, 4]", "expected transpose_b"},
    {"%20 = matmul(%9, %5) {transpose_b = 1} : f32[T, 9]", "a8 beside a weight of integer codes"},
    {"%20 = matmul(%9, %14) {transpose_b = 1} : f32[T, 4]", "a8_e4m3 beside one in fp8_e4m3"},
    {"%20 = matmul(%15, %3) {transpose_b = 1} : f32[T, 4]", "a8_e4m3 beside one in fp8_e4m3"},
    {"%20 = matmul(%6, %13) {transpose_b = 1} : f32[T, 4]", "a weight's encoding"},
    {"%20 = matmul(%4, %1) : f32[8]", "expected a floating-point matrix"},
    {"%20 = matmul(%6, %7) {transpose_b = 1} : f32[T, 4]", "because of transpose_b"},
    {"%20 = matmul(%7, %7) : f32[T, 4, 8]", "differ in K"},
    {"%20 = weight_concat(%1, %2) : f32[8, 8]", "differ in width or encoding"},
    {"%20 = weight_concat(%3, %11) : q4_1[8, 32]", "row-major order"},
    {"%20 = pack(%11) {layout = \"n16\"} : q4_1[4, 32]@n16", "row-major order"},
    {"%20 = pack(%3) {layout = \"a b\"} : q4_1[4, 32]@ab", "no name of letters"},
    {"%20 = rope_table(%0) {theta = 1e4, dims = 3, width = 4, style = \"half\", scale = 1} : "
     "f32[T, 2, 4]",
     "expected an even number"},
    {"%20 = rope_table(%0) {theta = 0, dims = 4, width = 4, style = \"half\", scale = 1} : "
     "f32[T, 2, 4]",
     "theta is 0"},
    {"%20 = rope_table(%0) {theta = 1e4, dims = 4, width = 4, style = \"neox\", scale = 1} : "
     "f32[T, 2, 4]",
     "expected half or interleaved"},
    {"%20 = rope_table(%0, %4) {theta = 1e4, dims = 4, width = 4, style = \"half\", scale = 1} : "
     "f32[T, 2, 4]",
     "expected f32[2]"},
    {"%20 = rope(%7, %7) {dims = 4, style = \"half\"} : f32[T, 4, 8]", "expected f32[T, 2, 8]"},
    {"%20 = attention(%7, %7, %12) {scale = 1} : f32[T, 4, 8]", "the keys' shape"},
    {"%20 = attention(%7, %10, %10) {scale = 1} : f32[T, 4, 8]", "T and D of the queries"},
    {"%20 = attention(%7, %7, %7) {scale = inf} : f32[T, 4, 8]", "scale is inf"},
    {"%20 = attention(%7, %7, %7) {scale = 1, window = -1} : f32[T, 4, 8]", "window is -1"},
    {"%20 = kv_append(%7, %7, %7) : kv", "expected kv"},
    {"%20 = kv_append(%8, %6, %6) : kv", "[T, G, D]"},
    {"%20 = paged_attention(%7, %7) {scale = 1} : f32[T, 4, 8]", "expected kv"},
    {"%20 = quantize(%2) : q8_0[4, 8]", "expected a multiple of 32"},
    {"%20 = quantize(%3) : q8_0[4, 32]", "expected an f32 tensor"},
    {"%20 = quantize(%6) : f16[T, 32]", "a quantized tensor of the operand's shape"},
    {"%20 = dequantize(%1) : f32[4, 8]", "expected a quantized tensor"},
    {"%20 = kernel(%1) {anchor = \"rows\"} : f32[4, 8] {\n yield(%1)\n}",
     "not defined in this body"},
    {"%20 = kernel(%1) {anchor = \"rows\"} : f32[4, 8] {\nargs(%21 : f32[8])\nyield(%21)\n}",
     "expected f32[8]"},
    {"%20 = kernel(%1) {anchor = \"rows\"} : f32[4, 8] {\nargs(%21 : f32[4, 8])\n}",
     "does not end in a yield"},
    {"%20 = kernel(%1) {anchor = \"rows\"} : f32[8] {\nargs(%21 : f32[4, 8])\nyield(%21)\n}",
     "but the body yields"},
    {"kernel(%1) {anchor = \"rows\"} {\nargs(%21 : f32[4, 8])\nyield\n}",
     "a kernel needs a result"},
    {"%20 = kernel(%1) {anchor = \"rows\"} : f32[4, 8]", "needs a body"},
    {"%20 = add(%1) : f32[4, 8]", "add has 1 operands, expected 2"},
    {"%20 = rms_norm(%1, %4) : f32[4, 8]", "lacks its attribute \"eps\""},
    {"%20 = neg(%1) {eps = 1} : f32[4, 8]", "has no attribute `eps`"},
    {"%20 = rms_norm(%1, %4) {eps = 1, eps = 2} : f32[4, 8]", "given twice"},
};

START_TEST(shape_error_is_reported) {
    char text[4096];
    snprintf(text, sizeof text, "%s%s\n", shape_prelude, shape_errors[_i].text);
    ir_diag diag = {0};
    ir_module *m = ir_parse_module(text, strlen(text), "test.ir", &diag);
    ck_assert_msg(!m, "accepted: %s", shape_errors[_i].text);
    ck_assert_msg(mentions(&diag, shape_errors[_i].message), "%s: found \"%s\"",
                  shape_errors[_i].text, diag.messages[0].text);
    ck_assert_int_eq(strncmp(diag.messages[0].where, "test.ir:", 8), 0);
    ir_diag_clear(&diag);
}
END_TEST

/* --- what the verifier catches -----------------------------------------------------------------
 */

static void use_before_definition(ir_module *m) {
    ir_op_move(nth(m, IR_OP_GATHER, 0), m->graph, NULL);
}
static void operand_from_nowhere(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->operands[0] = ir_arena_alloc(m->arena, sizeof(ir_value));
}
static void operand_missing(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->operands[1] = NULL;
}
static void operand_count(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->n_operands = 1;
}
static void operand_from_outside_of_body(ir_module *m) {
    ir_op *kernel = nth(m, IR_OP_KERNEL, 0);
    kernel->body->first->operands[0] = kernel->operands[0];
}
static void operand_from_inside_of_body(ir_module *m) {
    nth(m, IR_OP_MATMUL, 0)->operands[0] = nth(m, IR_OP_KERNEL, 0)->body->first->results[0];
}
static void result_type(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->results[0]->type.dtype = IR_F16;
}
static void empty_dimension(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->results[0]->type.dims[1] = ir_dim_const(0);
}
static void two_symbolic_dimensions(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->results[0]->type.dims[1] = IR_DIM_T;
}
static void id_used_twice(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->results[0]->id = 0;
}
static void id_out_of_range(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->results[0]->id = m->n_values;
}
static void definition_link(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->results[0]->def = nth(m, IR_OP_GATHER, 1);
}
static void neighbour_link(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->next->prev = NULL;
}
static void owner_link(ir_module *m) {
    nth(m, IR_OP_GATHER, 0)->owner = nth(m, IR_OP_KERNEL, 0)->body;
}
static void last_link(ir_module *m) {
    m->graph->last = m->graph->last->prev;
}
static void cycle(ir_module *m) {
    m->graph->last->next = m->graph->first;
}
static void body_link(ir_module *m) {
    nth(m, IR_OP_KERNEL, 0)->body->parent = NULL;
}
static void yield_missing(ir_module *m) {
    ir_op_remove(nth(m, IR_OP_KERNEL, 0)->body->last);
}
static void yield_early(ir_module *m) {
    ir_graph *body = nth(m, IR_OP_KERNEL, 0)->body;
    ir_op_clone(body->last, body, body->last, NULL, 0);
}
static void yield_outside(ir_module *m) {
    ir_diag diag = {0};
    ir_op_create(m->graph, NULL, &(ir_op_spec){.code = IR_OP_YIELD}, &diag);
}
static void output_in_body(ir_module *m) {
    ir_graph *body = nth(m, IR_OP_KERNEL, 0)->body;
    ir_diag diag = {0};
    ir_op_create(body, body->last,
                 &(ir_op_spec){.code = IR_OP_OUTPUT,
                               .operands = body->args,
                               .n_operands = 1,
                               .attrs = &IR_STRING("name", "x"),
                               .n_attrs = 1},
                 &diag);
}
static void output_twice(ir_module *m) {
    ir_op_clone(m->graph->last, m->graph, NULL, NULL, 0);
}
static void weight_missing(ir_module *m) {
    ir_op_set_attr(nth(m, IR_OP_WEIGHT, 0), &IR_STRING("name", "nothing"));
}
static void weight_type(ir_module *m) {
    m->weights[1].type.dims[0] = ir_dim_const(33);
}
static void attribute_missing(ir_module *m) {
    nth(m, IR_OP_PAGED_ATTENTION, 0)->n_attrs = 0;
}
static void attribute_kind(ir_module *m) {
    nth(m, IR_OP_PAGED_ATTENTION, 0)->attrs[0].kind = IR_ATTR_INT;
}
static void attribute_unknown(ir_module *m) {
    nth(m, IR_OP_PAGED_ATTENTION, 0)->attrs[0].name = "size";
}
static void kv_group_missing(ir_module *m) {
    ir_op_set_attr(nth(m, IR_OP_KV_CACHE, 0), &IR_INT("group", 1));
}
static void kv_layer_missing(ir_module *m) {
    ir_op_set_attr(nth(m, IR_OP_KV_CACHE, 0), &IR_INT("layer", 2));
}
static void kv_group_malformed(ir_module *m) {
    m->kv_groups[0].page_tokens = 0;
}
static void kv_appended_twice(ir_module *m) {
    nth(m, IR_OP_KV_APPEND, 1)->operands[0] = nth(m, IR_OP_KV_CACHE, 0)->results[0];
}
static void kv_layer_appended_twice(ir_module *m) {
    ir_op_set_attr(nth(m, IR_OP_KV_CACHE, 1), &IR_INT("layer", 0));
}
static void kv_read_and_appended(ir_module *m) {
    nth(m, IR_OP_PAGED_ATTENTION, 0)->operands[1] = nth(m, IR_OP_KV_CACHE, 0)->results[0];
}
static void kv_layer_read_and_appended(ir_module *m) {
    nth(m, IR_OP_PAGED_ATTENTION, 1)->operands[1] = nth(m, IR_OP_KV_CACHE, 1)->results[0];
    ir_op_remove(nth(m, IR_OP_KV_APPEND, 1));
    kv_layer_appended_twice(m);
}
static void kv_heads(ir_module *m) {
    m->kv_groups[0].heads = 1;
}
static void kv_window(ir_module *m) {
    ir_op_set_attr(nth(m, IR_OP_PAGED_ATTENTION, 1), &IR_INT("window", 9));
}
static void kv_no_window(ir_module *m) {
    ir_op_set_attr(nth(m, IR_OP_PAGED_ATTENTION, 1), &IR_INT("window", 0));
}

static const struct {
    void (*break_it)(ir_module *);
    const char *message;
} violations[] = {
    {use_before_definition, "used before its definition"},
    {operand_from_nowhere, "used before its definition"},
    {operand_missing, "operand 1 of gather is missing"},
    {operand_count, "gather has 1 operands"},
    {operand_from_outside_of_body, "defined outside of this body"},
    {operand_from_inside_of_body, "defined outside of this body"},
    {result_type, "operands make it"},
    {empty_dimension, "dimension 1 is empty"},
    {two_symbolic_dimensions, "at most one may"},
    {id_used_twice, "is used twice"},
    {id_out_of_range, "out of range"},
    {definition_link, "does not point back"},
    {neighbour_link, "neighbours do not point back"},
    {owner_link, "belongs to another graph"},
    {last_link, "neighbours do not point back"},
    {cycle, "neighbours do not point back"},
    {body_link, "body does not point back"},
    {yield_missing, "does not end in a yield"},
    {yield_early, "yield ends a body"},
    {yield_outside, "yield ends a body"},
    {output_in_body, "output cannot stand in a body"},
    {output_twice, "is given twice"},
    {weight_missing, "no weight \"nothing\""},
    {weight_type, "has type f32[32], expected f32[33]"},
    {attribute_missing, "lacks its attribute \"scale\""},
    {attribute_kind, "is an integer, expected a number"},
    {attribute_unknown, "has no attribute \"size\""},
    {kv_group_missing, "no kv group 1"},
    {kv_layer_missing, "has 2 layers, found layer 2"},
    {kv_group_malformed, "kv group 0 is malformed"},
    {kv_appended_twice, "appended to more than once"},
    {kv_layer_appended_twice, "through two kv_cache ops"},
    {kv_read_and_appended, "kv value %13 is read here and also appended to"},
    {kv_layer_read_and_appended, "appended to through another kv_cache op"},
    {kv_heads, "of 1 heads of 4"},
    {kv_window, "reaches behind the window"},
    {kv_no_window, "reaches behind the window"},
};

START_TEST(violation_is_caught) {
    ir_diag diag = {0};
    ir_module *m = parse(base, &diag);
    if (!ir_verify(m, &diag))
        ck_abort_msg("base: %s: %s", diag.messages[0].where, diag.messages[0].text);
    violations[_i].break_it(m);
    ck_assert_msg(!ir_verify(m, &diag), "not caught: %s", violations[_i].message);
    ck_assert_msg(mentions(&diag, violations[_i].message), "expected \"%s\", found \"%s\"",
                  violations[_i].message, diag.messages[0].text);
    ck_assert_ptr_nonnull(diag.messages[0].where);
    ir_diag_clear(&diag);
    ir_module_destroy(m);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("ir");
    TCase *c = tcase_create("building");
    tcase_add_test(c, dims_are_affine_and_saturate);
    tcase_add_test(c, builders_infer_types);
    tcase_add_test(c, attributes_are_normalized);
    tcase_add_test(c, weights_are_found_by_name);
    tcase_add_test(c, clone_maps_operands_and_bodies);
    tcase_add_test(c, uses_are_counted_and_replaced);
    tcase_add_test(c, exports_are_well_formed);
    suite_add_tcase(s, c);
    c = tcase_create("shapes");
    tcase_add_loop_test(c, shape_error_is_reported, 0,
                        (int)(sizeof shape_errors / sizeof *shape_errors));
    suite_add_tcase(s, c);
    c = tcase_create("verifier");
    tcase_add_loop_test(c, violation_is_caught, 0, (int)(sizeof violations / sizeof *violations));
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
