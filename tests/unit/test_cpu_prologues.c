/* Matmuls that compute their input themselves. Each case is a chain of row ops in front of a
 * matmul, compiled by strategy full (a rows kernel and a matmul) and by strategy prologues (one
 * kernel): within the interpreter's bounds kernel by kernel, and the same bits from end to end, in
 * any number of rows, on every level of the processor and however a launch is cut into calls.
 *
 * Cases are drawn from MCC_TEST_SEED (default 1); MCC_TEST_FULL=1 runs many more. */
#include "check_main.h"
#include "compiled_graph.h"
#include "graph_text.h"

enum { MOST_TOKENS = 500 };

static const char *const weight_types[] = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k",
                                           "q5_k", "q6_k", "f32",  "f16",  "bf16", "fp8_e4m3"};
enum { N_WEIGHT_TYPES = sizeof weight_types / sizeof *weight_types };

/* Takes the module over. */
static compiled_graph *compile(ir_module *m, const char *fusion, bool exact, const char *label) {
    pass_options options = {.activations_f32 = exact, .fusion = fusion};
    for (int i = 0; !exact && i < m->n_weights; i++) {
        const ir_encoding *e = m->weights[i].type.encoding;
        options.activations_fp8 |= e && e->id == IR_ENC_FP8_E4M3;
    }
    return graph_compile(m, &options, label);
}

/* Prologues with a norm; a gather alone may be one as well. */
static int count_prologues(const compiled_graph *g) {
    int n = 0;
    for (int i = 0; i < g->program->n_kernels; i++) {
        const cg_program *p = g->program->kernels[i]->matmul.prologue;
        int reductions = 0;
        for (int k = 0; p && k < p->n_nodes; k++)
            reductions += p->nodes[k].kind == CG_REDUCE;
        n += reductions > 0;
    }
    return n;
}

/* T tokens of one sequence; every second row is asked for. Returns the first output's rows. */
static float *run(compiled_graph *g, int T, uint64_t seed, bool end_to_end, int64_t piece) {
    static int32_t ids[MOST_TOKENS], positions[MOST_TOKENS], rows[MOST_TOKENS];
    int32_t offsets[2] = {0, T}, slots[1] = {0}, R = 0;
    cpu_seed = seed;
    for (int t = 0; t < T; t++) {
        ids[t] = (int32_t)(cpu_random() % VOCAB);
        positions[t] = t;
        if (t % 2 == (T - 1) % 2)
            rows[R++] = t;
    }
    ir_interp_step step = {.T = T,
                           .S = 1,
                           .R = R,
                           .token_ids = ids,
                           .positions = positions,
                           .seq_offsets = offsets,
                           .seq_slots = slots,
                           .output_rows = rows};
    float *out = malloc((size_t)(R * g->program->outputs[0].width) * sizeof *out);
    g->end_to_end = end_to_end;
    graph_run(g, &step, piece, out);
    return out;
}

static void expect_same(compiled_graph *a, compiled_graph *b, int T) {
    uint64_t seed = cpu_seed;
    int64_t n = (T + 1) / 2 * a->program->outputs[0].width;
    free(run(b, T, seed, false, 0));
    float *x = run(a, T, seed, true, 0);
    for (int64_t piece = 0; piece < 3; piece++) {
        float *y = run(b, T, seed, true, piece);
        ck_assert_msg(memcmp(x, y, (size_t)n * sizeof *x) == 0,
                      "%d tokens in pieces of %lld tiles: a prologue changes the bits\n%s", T,
                      (long long)piece, b->label);
        free(y);
    }
    free(x);
}

/* --- cases -------------------------------------------------------------------------------------
 */

static int add_vector(text *t, const char *name, int i, int64_t k) {
    return add(t, "weight {name = \"%s%d\"} : f32[%lld]", name, i, (long long)k);
}

/* A norm, which no epilogue can take, and up to two more row ops on rows of k columns. */
static int add_chain(text *t, int x, const char *rows, int64_t k) {
    int n = 1 + (int)(cpu_random() % 3), first = x;
    for (int i = 0; i < n; i++) {
        switch (i ? cpu_random() % 5 : 3 * (cpu_random() % 2)) {
        case 0: {
            int w = add_vector(t, "w", i, k), bias = add_vector(t, "b", i, k);
            x = add(t, "layer_norm(%%%d, %%%d, %%%d) {eps = 1e-05} : f32[%s, %lld] @\"n%d\"", x, w,
                    bias, rows, (long long)k, i);
            break;
        }
        case 1:
            x = add(t, "silu(%%%d) : f32[%s, %lld] @\"a%d\"", x, rows, (long long)k, i);
            break;
        case 2:
            x = add(t, "add(%%%d, %%%d) : f32[%s, %lld] @\"r%d\"", x, first, rows, (long long)k, i);
            break;
        default: {
            int w = add_vector(t, "w", i, k);
            x = add(t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[%s, %lld] @\"n%d\"", x, w, rows,
                    (long long)k, i);
        }
        }
    }
    return x;
}

enum { SHAPE_ROWS, SHAPE_GATHERED, SHAPE_LOCKSTEP, SHAPE_RESIDUAL, N_SHAPES };

static int64_t pick(const int64_t *from, int n) {
    return from[cpu_random() % (uint32_t)n];
}

static void add_case(text *t, const char *type, int shape) {
    static const int64_t plain[] = {1, 31, 64, 100, 129, 500}, blocks[] = {32, 96, 160, 576},
                         supers[] = {256, 512}, columns[] = {1, 17, 32, 48, 100};
    const ir_encoding *e = ir_encoding_from_name(type);
    int64_t k = !e ? pick(plain, 6) : e->super_group ? pick(supers, 2) : pick(blocks, 4);
    int64_t n = shape == SHAPE_RESIDUAL ? k : pick(columns, 5);
    if (shape == SHAPE_LOCKSTEP)
        n = e && e->super_group ? 256 : 64;
    int tokens = add_tokens(t), embedded = add_rows(t, tokens, "table", 32);
    /* The input comes from another kernel, or is a row of a table that nothing else needs. */
    int x = shape == SHAPE_RESIDUAL || cpu_random() % 3
                ? add_matmul(t, embedded, "f32", k, 32, "first")
                : add_rows(t, tokens, "x", k);
    const char *rows = "T";
    if (shape == SHAPE_GATHERED) {
        int of = add(t, "input {name = \"output_rows\"} : i32[R]");
        x = add(t, "gather(%%%d, %%%d) : f32[R, %lld] @\"last\"", x, of, (long long)k);
        rows = "R";
    }
    int y = add_chain(t, x, rows, k);
    if (shape == SHAPE_LOCKSTEP) {
        int gate = add_matmul(t, y, type, n, k, "gate"), up = add_matmul(t, y, type, n, k, "up");
        int act = add(t, "silu(%%%d) : f32[T, %lld] @\"act\"", gate, (long long)n);
        y = add(t, "mul(%%%d, %%%d) : f32[T, %lld] @\"product\"", act, up, (long long)n);
        y = add_matmul(t, y, type, 20, n, "down");
        n = 20;
    } else {
        int w = add(t, "weight {name = \"m.weight\"} : %s[%lld, %lld]", type, (long long)n,
                    (long long)k);
        y = add(t, "matmul(%%%d, %%%d) {transpose_b = 1} : f32[%s, %lld] @\"m\"", y, w, rows,
                (long long)n);
    }
    if (shape == SHAPE_RESIDUAL)
        y = add(t, "add(%%%d, %%%d) : f32[T, %lld] @\"sum\"", x, y, (long long)n);
    if (shape == SHAPE_GATHERED) {
        add_output(t, y, "y");
        return;
    }
    int of = add(t, "input {name = \"output_rows\"} : i32[R]");
    add_output(t, add(t, "gather(%%%d, %%%d) : f32[R, %lld] @\"out\"", y, of, (long long)n), "y");
}

static void run_case(const char *type, int shape, int i) {
    static const int counts[] = {1, 2, 7, 16, 33};
    text t;
    graph_seed_case(7000 + shape, i);
    start(&t);
    add_case(&t, type, shape);
    bool exact = cpu_random() % 2;
    uint64_t weights = cpu_seed;
    compiled_graph *apart = compile(parse(&t), "full", exact, t.bytes);
    cpu_seed = weights;
    compiled_graph *together = compile(parse(&t), "prologues", exact, t.bytes);
    ck_assert_int_eq(count_prologues(apart), 0);
    ck_assert_int_eq(count_prologues(together), 1);
    for (int c = 0; c < 5; c++)
        expect_same(apart, together, counts[c]);
    graph_destroy(apart);
    graph_destroy(together);
}

START_TEST(chains_before_matmuls) {
    for (int shape = 0; shape < N_SHAPES; shape++)
        for (int i = 0; i < (test_full() ? 8 : 1); i++)
            if (graph_case_is_mine(i) &&
                (test_full() || ((uint64_t)(_i + shape) + graph_seed()) % N_SHAPES == 0))
                run_case(weight_types[_i], shape, _i * 100 + i);
}
END_TEST

/* More rows than scratch holds: they are computed block by block. */
START_TEST(many_rows) {
    text t;
    graph_seed_case(7100, 0);
    start(&t);
    int x = add_rows(&t, add_tokens(&t), "x", 8192), w = add_vector(&t, "w", 0, 8192);
    x = add(&t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, 8192] @\"norm\"", x, w);
    x = add_matmul(&t, x, "bf16", 16, 8192, "m");
    int of = add(&t, "input {name = \"output_rows\"} : i32[R]");
    add_output(&t, add(&t, "gather(%%%d, %%%d) : f32[R, 16] @\"out\"", x, of), "y");
    uint64_t weights = cpu_seed;
    compiled_graph *apart = compile(parse(&t), "full", true, t.bytes);
    cpu_seed = weights;
    compiled_graph *together = compile(parse(&t), "prologues", true, t.bytes);
    ck_assert_int_eq(count_prologues(together), 1);
    /* 4 MiB of rows of 32 KiB are 128. */
    static const int counts[] = {127, 128, 129, 300};
    for (int c = 0; c < 4; c++)
        expect_same(apart, together, counts[c]);
    graph_destroy(apart);
    graph_destroy(together);
}
END_TEST

/* --- what is no prologue -----------------------------------------------------------------------
 */

static void refused(const cg_kernel *kernel, const char *because) {
    ir_diag diag = {0};
    cg_object object;
    ck_assert(!cg_cpu_compile(&kernel, 1, cg_cpu_target_find("cpu"), NULL, &diag, &object));
    ck_assert_int_ge(diag.count, 1);
    ck_assert_msg(strstr(diag.messages[0].text, because) != NULL, "%s, not %s",
                  diag.messages[0].text, because);
    ir_diag_clear(&diag);
}

START_TEST(malformed_prologues_are_refused) {
    text t;
    graph_seed_case(7200, 0);
    start(&t);
    int x = add_matmul(&t, add_rows(&t, add_tokens(&t), "x", 32), "f32", 64, 32, "first");
    int w = add_vector(&t, "w", 0, 64);
    x = add(&t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, 64] @\"norm\"", x, w);
    add_output(&t, add_matmul(&t, x, "q8_0", 16, 64, "m"), "y");
    compiled_graph *g = compile(parse(&t), "prologues", false, t.bytes);
    const cg_kernel *good = NULL;
    for (int i = 0; i < g->program->n_kernels; i++)
        if (g->program->kernels[i]->matmul.prologue)
            good = g->program->kernels[i];
    ck_assert_ptr_nonnull(good);
    ck_assert_int_eq(good->matmul.x, CG_ARG_OPERAND);
    cg_kernel bad = *good;
    cg_program program = *good->matmul.prologue;
    cg_store store = program.stores[0];
    bad.matmul.prologue = &program;
    program.stores = &store;
    ck_assert_int_eq((int)store.kind, CG_STORE_A8);

    program.n_stores = 0;
    refused(&bad, "64 columns with 0 results");
    program.n_stores = 1;
    program.width = 32;
    refused(&bad, "1 heads of 32 columns");
    program.width = 64;
    program.heads = 2;
    refused(&bad, "2 heads of 64 columns");
    program.heads = 1;
    store.kind = CG_STORE;
    refused(&bad, "not a row of x");
    store.kind = CG_STORE_A8;
    store.access.arg = 0;
    refused(&bad, "not a row of x");
    store.access.arg = CG_ARG_OPERAND;
    store.access.offset = 32;
    refused(&bad, "not a row of x");
    store.access.offset = 0;
    cg_node *nodes = malloc((size_t)program.n_nodes * sizeof *nodes);
    memcpy(nodes, program.nodes, (size_t)program.n_nodes * sizeof *nodes);
    program.nodes = nodes;
    nodes[0] = (cg_node){.kind = CG_INPUT, .operands = {-1, -1, -1}};
    refused(&bad, "reads the anchor's output");
    nodes[0] = good->matmul.prologue->nodes[0];
    nodes[0].access.arg = CG_ARG_OPERAND;
    refused(&bad, "access to argument -1");
    /* An epilogue stores to no operand. */
    nodes[0] = good->matmul.prologue->nodes[0];
    cg_program epilogue = good->programs[0];
    cg_store result = epilogue.stores[0];
    bad.programs = &epilogue;
    epilogue.stores = &result;
    result.access.arg = CG_ARG_OPERAND;
    refused(&bad, "access to argument -1");
    free(nodes);
    graph_destroy(g);
}
END_TEST

static Suite *prologues_suite(void) {
    graph_say_seed();
    graph_say_levels();
    Suite *suite = suite_create("cpu_prologues");
    TCase *tcase = tcase_create("cpu_prologues");
    tcase_set_timeout(tcase, test_full() ? 3600 : 240);
    tcase_add_loop_test(tcase, chains_before_matmuls, 0, N_WEIGHT_TYPES);
    tcase_add_test(tcase, many_rows);
    tcase_add_test(tcase, malformed_prologues_are_refused);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(prologues_suite)
