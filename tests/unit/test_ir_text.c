/* The text form: what is printed parses back to the same module, for random modules made from the
 * op table; and what does not parse is reported where it is. */
#include "check_main.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- random modules ----------------------------------------------------------------------------
 */

static uint64_t random_state;

/* xorshift64* (Vigna 2016). */
static int pick(int n) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (int)((random_state * 2685821657736338717ull >> 33) % (uint64_t)n);
}

#define PICK(array) ((array)[pick((int)(sizeof(array) / sizeof *(array)))])

enum { POOL = 400, MAX_LIST = 6 };

struct pool {
    ir_value *values[POOL];
    int count;
};

static void add_to_pool(struct pool *pool, ir_value *value) {
    if (pool->count < POOL)
        pool->values[pool->count++] = value;
    else
        pool->values[pick(POOL)] = value;
}

static int64_t random_int(const char *name) {
    static const int64_t few[] = {0, 0, 1, 1, 2}, dims[] = {2, 4, 8}, any[] = {-1, 0, 7, INT64_MIN};
    if (!strcmp(name, "dims") || !strcmp(name, "width"))
        return PICK(dims);
    return pick(20) ? PICK(few) : PICK(any);
}

static double random_float(void) {
    static const double floats[] = {0,      1,       -0.0, 0.1,     1e-5,  1e300,
                                    5e-324, 1.0 / 3, -2.5, 10000.0, 0.125, -INFINITY};
    return PICK(floats);
}

static const char *random_string(const char *attribute) {
    static const char *const strings[] = {
        "token_ids", "positions", "output_rows", "logits", "hidden",   "half", "interleaved",
        "n16",       "rows",      "w.0",         "\"q\\",  "\n\t\x01", "Übung"};
    static const char *const weights[] = {"w.0", "w.1", "w.2", "w.3", "w.4"};
    static const char *const styles[] = {"half", "interleaved"};
    if (!strcmp(attribute, "style") && pick(10))
        return PICK(styles);
    return pick(2) ? PICK(strings) : PICK(weights);
}

static void random_attrs(ir_module *m, const ir_op_info *info, ir_attr *attrs, int *n) {
    ir_attr_schema schema;
    *n = 0;
    for (const char *s = info->attributes; (s = ir_attr_schema_next(s, &schema));) {
        if (schema.optional && pick(2))
            continue;
        ir_attr *a = &attrs[(*n)++];
        *a = (ir_attr){.name = ir_arena_strndup(m->arena, schema.name, (size_t)schema.length),
                       .kind = schema.kind};
        int count = 1 + pick(MAX_LIST);
        int64_t *ints = ir_arena_array(m->arena, MAX_LIST, sizeof *ints);
        double *floats = ir_arena_array(m->arena, MAX_LIST, sizeof *floats);
        for (int i = 0; i < MAX_LIST; i++) {
            ints[i] = i; /* a permutation, mostly the useful kind of list */
            floats[i] = random_float();
        }
        if (schema.kind == IR_ATTR_INTS && count >= 2) {
            int j = pick(count);
            ints[0] = j, ints[j] = 0;
        }
        if (schema.kind == IR_ATTR_INT)
            a->i = random_int(a->name);
        else if (schema.kind == IR_ATTR_FLOAT)
            a->f = random_float();
        else if (schema.kind == IR_ATTR_STRING)
            a->s = random_string(a->name);
        else if (schema.kind == IR_ATTR_INTS)
            *a = IR_INT_LIST(a->name, ints, count);
        else
            *a = IR_FLOAT_LIST(a->name, floats, pick(2) ? 1 : count);
    }
}

static ir_dim random_dim(void) {
    static const int64_t sizes[] = {1, 2, 2, 4, 4, 8, 32, 64, 256};
    if (pick(6))
        return ir_dim_const(PICK(sizes));
    ir_dim d = pick(3) ? IR_DIM_T : pick(2) ? IR_DIM_R : IR_DIM_S;
    return pick(4) ? d : ir_dim_add(ir_dim_scale(d, 1 + pick(3)), ir_dim_const(pick(3)));
}

/* A stated type: one at hand, its shape with another element type, or anything. */
static ir_type random_type(const struct pool *pool) {
    static const int quantized_in = 4;
    ir_type type = {.kind = IR_TENSOR};
    if (pool->count && pick(4)) {
        type = pool->values[pick(pool->count)]->type;
    } else {
        type.rank = pick(4);
        for (int i = 0; i < type.rank; i++)
            type.dims[i] = random_dim();
    }
    if (type.kind == IR_TENSOR && pick(3)) {
        type.layout = NULL;
        type.encoding = pick(quantized_in) ? NULL : ir_encoding_get(pick(IR_N_ENCODINGS));
        type.dtype = type.encoding || pick(2) ? IR_F32 : (ir_dtype)pick(IR_N_DTYPES);
    }
    return type;
}

static ir_op *random_op(ir_graph *graph, struct pool *pool, int depth, ir_opcode code);

static ir_graph *random_body(ir_module *m, ir_value **operands, int n, int depth) {
    ir_graph *body = ir_graph_create(m, NULL);
    struct pool pool = {0};
    for (int i = 0; i < n; i++)
        add_to_pool(&pool, ir_graph_add_arg(body, &operands[i]->type));
    for (int i = 0; i < 30; i++)
        random_op(body, &pool, depth + 1, (ir_opcode)pick(IR_N_OPS));
    return body;
}

/* Tries to build one op of random operands, attributes and types; NULL when they do not fit. */
static ir_op *random_op(ir_graph *graph, struct pool *pool, int depth, ir_opcode code) {
    static const char *const names[] = {NULL, NULL, "layers.0.q_proj", "a \"name\"", ""};
    const ir_op_info *info = ir_op_info_get(code);
    ir_value *operands[MAX_LIST];
    ir_attr attrs[8];
    ir_type types[2] = {random_type(pool), random_type(pool)};
    int n_attrs, max = info->max_operands < 0 ? 4 : info->max_operands;
    int n = info->min_operands + pick(max - info->min_operands + 1);
    if ((n && !pool->count) || (depth && (code == IR_OP_YIELD || code == IR_OP_OUTPUT)) ||
        depth > 2)
        return NULL;
    for (int i = 0; i < n; i++) {
        /* Half of the time an operand like the one before it. */
        operands[i] = pool->values[pick(pool->count)];
        if (i && pick(2))
            for (int tries = 0; tries < 50; tries++) {
                if (ir_type_equal(&operands[i]->type, &operands[i - 1]->type))
                    break;
                operands[i] = pool->values[pick(pool->count)];
            }
    }
    if (n && pick(2)) {
        types[0].kind = IR_TENSOR;
        types[0].rank = operands[0]->type.rank;
        memcpy(types[0].dims, operands[0]->type.dims, sizeof types[0].dims);
    }
    random_attrs(graph->module, info, attrs, &n_attrs);
    ir_op_spec spec = {.code = code,
                       .name = PICK(names),
                       .operands = operands,
                       .n_operands = n,
                       .attrs = attrs,
                       .n_attrs = n_attrs,
                       .types = ir_op_type_is_stated(info) ? types : NULL,
                       .n_types = ir_op_type_is_stated(info) ? 1 : 0};
    if (code == IR_OP_WEIGHT) {
        const ir_weight *w = ir_module_weight(
            graph->module, ir_op_string(&(ir_op){.attrs = attrs, .n_attrs = n_attrs}, "name"));
        if (w)
            types[0] = w->type;
    }
    if (code == IR_OP_INPUT)
        types[0] = ir_tensor(IR_I32, 1, pick(2) ? &IR_DIM_T : &IR_DIM_R);
    if (info->traits & IR_TRAIT_REGION) {
        spec.body = random_body(graph->module, operands, n, depth);
        struct pool inner = {0};
        for (ir_op *op = spec.body->first; op; op = op->next)
            for (int i = 0; i < op->n_results; i++)
                add_to_pool(&inner, op->results[i]);
        spec.n_types = 1 + pick(2);
        ir_value *yielded[2];
        for (int i = 0; i < spec.n_types; i++) {
            if (!inner.count)
                return NULL;
            yielded[i] = inner.values[pick(inner.count)];
            types[i] = yielded[i]->type;
        }
        ir_diag ignored = {0};
        ir_op_create(
            spec.body, NULL,
            &(ir_op_spec){.code = IR_OP_YIELD, .operands = yielded, .n_operands = spec.n_types},
            &ignored);
    }
    ir_diag diag = {0};
    ir_op *op = ir_op_create(graph, NULL, &spec, &diag);
    if (!op)
        ck_assert_int_gt(diag.errors, 0);
    ir_diag_clear(&diag);
    for (int i = 0; op && i < op->n_results; i++)
        add_to_pool(pool, op->results[i]);
    return op;
}

/* Any op; more often one that has not been built yet, since a few are seldom possible. */
static ir_opcode random_code(const int *built) {
    int code = pick(IR_N_OPS);
    for (int i = pick(2) ? IR_N_OPS : 0; i > 0 && built[code]; i--)
        code = (code + 1) % IR_N_OPS;
    return (ir_opcode)code;
}

/* A module whose ops were chosen at random and which verifies; counts its ops by code. */
static ir_module *random_module(uint64_t seed, int *built) {
    static const int64_t shapes[][2] = {{2, 4}, {1, 8}, {4, 4}};
    random_state = seed * 2654435769u + 88172645463325252ull;
    ir_module *m = ir_module_create("random", "llama");
    struct pool pool = {0};
    ir_diag diag = {0};
    for (int i = 0; i < 2; i++)
        ir_module_add_kv_group(m, &(ir_kv_group){.window = i ? 4 : 0,
                                                 .layers = 2,
                                                 .heads = shapes[i][0],
                                                 .head_dim = shapes[i][1],
                                                 .dtype = i ? IR_F16 : IR_F32,
                                                 .page_tokens = 16});
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "w.%d", i);
        ir_dim dims[] = {ir_dim_const(i < 3 ? 4 : 8), ir_dim_const(i == 4 ? 32 : 8)};
        ir_type type = i == 4 ? ir_quantized(ir_encoding_get(IR_ENC_Q4_1), 2, dims)
                              : ir_tensor(IR_F32, i ? 2 : 1, i ? dims : dims + 1);
        ir_module_add_weight(m, name, &type, NULL, ir_type_bytes(&type).c);
        add_to_pool(&pool, ir_weight_value(m->graph, &diag, name));
    }
    ir_value *ids = ir_build(m->graph, &diag, IR_OP_INPUT, NULL,
                             &(ir_type){.dtype = IR_I32, .rank = 1, .dims = {IR_DIM_T}}, 0, NULL, 1,
                             &IR_STRING("name", "token_ids"));
    add_to_pool(&pool, ids);
    ir_value *x = ir_build(m->graph, &diag, IR_OP_GATHER, NULL, NULL, 2,
                           (ir_value *[]){pool.values[2], ids}, 0, NULL);
    add_to_pool(&pool, x);
    for (int i = 0; i < 3; i++) {
        ir_value *heads = ir_reshape(
            m->graph, &diag, NULL, x, 3,
            (ir_dim[]){IR_DIM_T, ir_dim_const(8 / shapes[i][1]), ir_dim_const(shapes[i][1])});
        add_to_pool(&pool, heads);
        if (i == 2)
            break;
        add_to_pool(&pool, ir_build(m->graph, &diag, IR_OP_KV_CACHE, NULL, NULL, 0, NULL, 2,
                                    (ir_attr[]){IR_INT("group", i), IR_INT("layer", 1)}));
        ir_value *kv = ir_build(m->graph, &diag, IR_OP_KV_CACHE, NULL, NULL, 0, NULL, 2,
                                (ir_attr[]){IR_INT("group", i), IR_INT("layer", 0)});
        add_to_pool(&pool, ir_build(m->graph, &diag, IR_OP_KV_APPEND, NULL, NULL, 3,
                                    (ir_value *[]){kv, heads, heads}, 0, NULL));
    }
    add_to_pool(&pool, ir_build(m->graph, &diag, IR_OP_GATHER, NULL, NULL, 2,
                                (ir_value *[]){pool.values[4], ids}, 0, NULL));
    ir_value *rows = ir_build(m->graph, &diag, IR_OP_INPUT, NULL,
                              &(ir_type){.dtype = IR_I32, .rank = 1, .dims = {IR_DIM_R}}, 0, NULL,
                              1, &IR_STRING("name", "output_rows"));
    add_to_pool(&pool, ir_build(m->graph, &diag, IR_OP_GATHER, NULL, NULL, 2,
                                (ir_value *[]){x, rows}, 0, NULL));
    ck_assert_int_eq(diag.errors, 0);
    for (int i = 0; i < 600; i++) {
        int count = pool.count;
        ir_op *op = random_op(m->graph, &pool, 0, random_code(built));
        if (!op)
            continue;
        if (ir_verify(m, &diag)) {
            built[op->code]++;
        } else {
            /* What one op cannot know: kv appended twice, the geometry of groups, a yield. */
            ir_op_remove(op);
            pool.count = count;
            for (int j = 0; j < count; j++)
                if (pool.values[j]->def == op)
                    pool.values[j] = pool.values[0];
        }
        ir_diag_clear(&diag);
    }
    return m;
}

/* --- printing and parsing ----------------------------------------------------------------------
 */

static char *print(const ir_module *m, size_t *length) {
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    ir_print_module(m, out);
    fclose(out);
    return text;
}

/* The line that the printer sets is where the parser found the op, in bodies too. */
static void check_lines(const ir_graph *parsed, const ir_graph *printed) {
    const ir_op *op = printed->first;
    for (const ir_op *p = parsed->first; p; p = p->next, op = op->next) {
        ck_assert_int_eq(p->line, op->line);
        if (p->body)
            check_lines(p->body, op->body);
    }
}

static void check_round_trip(const char *text, size_t length, ir_module *original) {
    ir_diag diag = {0};
    ir_module *again = ir_parse_module(text, length, "printed.ir", &diag);
    if (!again) {
        fwrite(text, 1, length, stderr);
        ir_diag_print(&diag, stderr);
    }
    ck_assert_ptr_nonnull(again);
    bool verified = ir_verify(again, &diag);
    if (!verified)
        ir_diag_print(&diag, stderr);
    ck_assert(verified);
    size_t printed_length;
    char *printed = print(again, &printed_length);
    ck_assert_str_eq(text, printed);
    free(printed);
    FILE *out = open_memstream(&printed, &printed_length);
    ir_print_module_lines(original, out);
    fclose(out);
    ck_assert_str_eq(text, printed);
    free(printed);
    check_lines(again->graph, original->graph);
    ir_module_destroy(again);
}

enum { SEEDS = 35 };

START_TEST(random_modules_round_trip) {
    static int built[IR_N_OPS];
    int regions = 0;
    for (int seed = 1; seed <= SEEDS; seed++) {
        ir_module *m = random_module((uint64_t)seed, built);
        size_t length;
        char *text = print(m, &length);
        check_round_trip(text, length, m);
        regions += strstr(text, "args(") != NULL;
        free(text);
        ir_module_destroy(m);
    }
    /* The generator reaches the whole table; yields stand in kernels. */
    int missing = 0;
    for (int i = 0; i < IR_N_OPS; i++)
        if (!built[i] && i != IR_OP_YIELD) {
            fprintf(stderr, "no random %s was ever built\n", ir_op_info_get((ir_opcode)i)->name);
            missing++;
        }
    ck_assert_int_eq(missing, 0);
    ck_assert_int_gt(regions, 0);
}
END_TEST

START_TEST(comments_spaces_and_escapes) {
    static const char text[] = "// a comment\nmodule \"a\\\"b\\\\\\x41\\n\" {arch=\"x\"}\r\n\n"
                               "%7=constant{values=[-0,1e3,inf,-inf,nan,0.1]}:f32[2,3]@\"n\"//end\n"
                               "%3 = neg ( %7 )\n : f32 [ 2 , 3 ]";
    ir_diag diag = {0};
    ir_module *m = ir_parse_module(text, strlen(text), "test.ir", &diag);
    ck_assert_ptr_nonnull(m);
    ck_assert_str_eq(m->name, "a\"b\\A\n");
    size_t length;
    char *printed = print(m, &length);
    ck_assert_str_eq(printed,
                     "module \"a\\\"b\\\\A\\n\" {arch = \"x\"}\n"
                     "%7 = constant {values = [-0, 1000, inf, -inf, nan, 0.1]} : f32[2, 3] "
                     "@\"n\"\n"
                     "%3 = neg(%7) : f32[2, 3]\n");
    free(printed);
    ck_assert_int_eq(m->n_values, 8);
    ck_assert_int_eq(m->graph->last->line, 5);
    ir_module_destroy(m);
}
END_TEST

START_TEST(dims_print_as_sums) {
    ir_module *m = ir_module_create("m", "");
    ir_dim all = {.c = 1, .t = 2, .s = 1, .r = 3};
    ir_type type = ir_tensor(IR_BF16, 1, &all);
    ck_assert_str_eq(ir_type_text(m->arena, &type), "bf16[2T+S+3R+1]");
    type = (ir_type){.kind = IR_KV};
    ck_assert_str_eq(ir_type_text(m->arena, &type), "kv");
    ir_module_destroy(m);
}
END_TEST

static const struct {
    const char *text;
    const char *where; /* of the first message */
    const char *message;
} errors[] = {
    {"", "f.ir:1:1", "found the end of the text, expected `module"},
    {"module \"m\" {kind = \"x\"}", "f.ir:1:13", "no attribute `kind`"},
    {"module \"m", "f.ir:1:8", "a string without an end"},
    {"module \"m\\q\"", "f.ir:1:8", "unknown escape"},
    {"module \"m\\x00\"", "f.ir:1:8", "unknown escape"},
    {"module \"m\"\n%0 = frob : f32[]", "f.ir:2:6", "unknown op `frob`"},
    {"module \"m\"\n%0 = neg(%1) : f32[]", "f.ir:2:10", "used before it is defined"},
    {"module \"m\"\n  $", "f.ir:2:3", "found byte 0x24, expected an op"},
    {"module \"m\"\n}", "f.ir:2:1", "`}` without `{`"},
    {"module \"m\"\n%9999999 = neg(%1) : f32[]", "f.ir:2:1", "value id above"},
    {"module \"m\"\n%99999999999999999999 = neg(%1) : f32[]", "f.ir:2:1", "value id above"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[T", "f.ir:2:37", "expected `,` or `]`"},
    {"module \"m\"\n%0 = constant {values = [1]} : f33[T]", "f.ir:2:32", "unknown element type"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[-1]", "f.ir:2:36", "expected a dimension"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[0]", "f.ir:2:32", "dimension 0 is empty"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[9999999999999]", "f.ir:2:36",
     "out of range"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[99999999999999999999]", "f.ir:2:36",
     "fits 64 bits"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[1000000, 1000000, 1000000]", "f.ir:2:32",
     "more than 2^50 bytes"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[1,1,1,1,1,1,1]", "f.ir:2:48",
     "more than 6 dimensions"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[T, T]", "f.ir:2:32", "at most one may"},
    {"module \"m\"\n%0 = constant {values = [1e999]} : f32[]", "f.ir:2:26", "out of range"},
    {"module \"m\"\n%0 = constant {values = [one]} : f32[]", "f.ir:2:26", "expected a number"},
    {"module \"m\"\n%0 = constant {value = [1]} : f32[]", "f.ir:2:16", "no attribute `value`"},
    {"module \"m\"\n%0 = constant {values = [1]}", "f.ir:2:1", "0 types are stated"},
    {"module \"m\"\nconstant {values = [1]} : f32[]", "f.ir:2:1", "but 0 are named"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[]\n%0 = constant {values = [1]} : f32[]",
     "f.ir:3:1", "defined twice"},
    {"module \"m\"\n%0 = kv_cache {group = 0.5, layer = 0} : kv", "f.ir:2:24",
     "expected an integer"},
    {"module \"m\"\n%0 = weight {name = \"w\"} : f32[4]\n%1 = weight {name = \"w\"} : f16[4]",
     "f.ir:3:1", "but f32[4] before"},
    {"module \"m\"\n%0 = constant {values = [1]} : f32[] {", "f.ir:2:38", "cannot have a body"},
    {"module \"m\"\n%0 = kernel {anchor = \"rows\"} : f32[] {\n%1 = constant {values = [1]} : "
     "f32[]\nyield(%1)",
     "f.ir:4:10", "expected `}` at the end of a body"},
    {"module \"m\"\nkv_group {window = 0}", "f.ir:2:1", "lacks its field `layers`"},
    {"module \"m\"\nkv_group {heads = 0}", "f.ir:2:19", "out of range"},
    {"module \"m\"\nkv_group {dtype = bf16}", "f.ir:2:19", "expected f32, f16, i8 or f8e4m3"},
    {"module \"m\"\nkv_group {heads = 1, heads = 1}", "f.ir:2:22", "given twice"},
};

START_TEST(parse_error_is_located) {
    ir_diag diag = {0};
    const char *text = errors[_i].text;
    ck_assert_ptr_null(ir_parse_module(text, strlen(text), "f.ir", &diag));
    ck_assert_int_gt(diag.count, 0);
    ck_assert_str_eq(diag.messages[0].where, errors[_i].where);
    ck_assert_msg(strstr(diag.messages[0].text, errors[_i].message),
                  "expected \"%s\", found \"%s\"", errors[_i].message, diag.messages[0].text);
    ir_diag_clear(&diag);
}
END_TEST

START_TEST(every_error_is_reported_once) {
    static const char text[] = "module \"m\" {arch = \"\"}\n"
                               "%0 = frob() : f32[]\n"
                               "%1 = neg(%0) : f32[]\n" /* silent: %0 was reported */
                               "%2 = constant {values = [1]} : f32[2\n"
                               "%3 = constant {values = [1]} : f32[2]\n"
                               "%4 = kernel(%3) {anchor = \"rows\"} : f32[2] {\n"
                               "  args(%5 : f32[2])\n"
                               "  %6 = add(%5) : f32[2]\n"
                               "  yield(%6)\n"
                               "}\n"
                               "%7 = exp(%4) : f32[2]\n" /* silent as well */
                               "%8 = exp(%3) : f32[3]\n";
    ir_diag diag = {0};
    ck_assert_ptr_null(ir_parse_module(text, strlen(text), "f.ir", &diag));
    static const char *const wheres[] = {"f.ir:2:6", "f.ir:5:1", "f.ir:8:3", "f.ir:12:1"};
    ck_assert_int_eq(diag.count, 4);
    for (int i = 0; i < 4; i++)
        ck_assert_str_eq(diag.messages[i].where, wheres[i]);
    ir_diag_clear(&diag);
}
END_TEST

START_TEST(nesting_and_errors_are_bounded) {
    enum { DEPTH = 5000, LINES = 5000 };
    size_t capacity = (size_t)DEPTH * 64 + LINES * 16;
    char *text = malloc(capacity);
    size_t n = (size_t)snprintf(text, capacity, "module \"m\"\n");
    for (int i = 0; i < DEPTH; i++)
        n += (size_t)snprintf(text + n, capacity - n, "%%%d = kernel {anchor = \"\"} : f32[] {\n",
                              i);
    ir_diag diag = {0};
    ck_assert_ptr_null(ir_parse_module(text, n, "f.ir", &diag));
    ck_assert_ptr_nonnull(strstr(diag.messages[0].text, "bodies inside each other"));
    ir_diag_clear(&diag);
    n = (size_t)snprintf(text, capacity, "module \"m\"\n");
    for (int i = 0; i < LINES; i++)
        n += (size_t)snprintf(text + n, capacity - n, "%%%d = nop\n", i);
    ck_assert_ptr_null(ir_parse_module(text, n, "f.ir", &diag));
    ck_assert_int_eq(diag.count, 50);
    ir_diag_clear(&diag);
    free(text);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("ir_text");
    TCase *c = tcase_create("text");
    tcase_set_timeout(c, 240);
    tcase_add_test(c, random_modules_round_trip);
    tcase_add_test(c, comments_spaces_and_escapes);
    tcase_add_test(c, dims_print_as_sums);
    tcase_add_loop_test(c, parse_error_is_located, 0, (int)(sizeof errors / sizeof *errors));
    tcase_add_test(c, every_error_is_reported_once);
    tcase_add_test(c, nesting_and_errors_are_bounded);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
