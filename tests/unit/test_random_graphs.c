/* Random small decoders - widths, heads, kinds of norm, rope, attention and feed-forward, encodings
 * - computed four ways:
 *
 *   the interpreter on the graph as a frontend states it
 *   the interpreter on the graph after the whole pipeline, in ragged steps over a paged cache
 *   each compiled kernel on the interpreter's inputs        within the bounds of error_bound.h
 *   the compiled graph from end to end
 *
 * The four agree to 1e-4 of the largest logit, as whole models must (with float activations and
 * cache, so that nothing is quantized twice). Drawn from MCC_TEST_SEED; MCC_TEST_FULL=1 runs more,
 * in parts by MCC_TEST_SHARD.
 */
#include "check_main.h"
#include "graph_text.h"

static const double bound = 1e-4;
enum { MAX_TOKENS = 200, N_SEQS = 3 };

#define PICK(array) ((array)[cpu_random() % (sizeof(array) / sizeof *(array))])

static bool chance(int percent) {
    return (int)(cpu_random() % 100) < percent;
}

/* --- a random decoder --------------------------------------------------------------------------
 */

typedef struct decoder {
    text t;
    int tokens, table; /* values */
    int64_t hidden, kv, per_kv, dim, ffn, vocab;
    int rope_dims, window, softcap;
    bool layer_norm, bias, qk_norm, post_norm, gated, gelu, interleaved, blocks;
} decoder;

static const char *random_type(const decoder *d, int64_t k) {
    static const char *const any[] = {"f32", "f32", "f16", "bf16"};
    static const char *const blocks[] = {"f32", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16"};
    static const char *const supers[] = {"q4_k", "q5_k", "q6_k", "q4_1"};
    return d->blocks && k % 256 == 0  ? PICK(supers)
           : d->blocks && k % 32 == 0 ? PICK(blocks)
                                      : PICK(any);
}

static int vector(decoder *d, const char *name, int64_t n) {
    return add(&d->t, "weight {name = \"%s\"} : f32[%lld]", name, (long long)n);
}

/* "prefix.layer.name", in one of a few places that take turns. */
static const char *named(int layer, const char *name) {
    static char names[8][48];
    static int turn;
    char *at = names[turn++ % 8];
    snprintf(at, sizeof names[0], "layers.%d.%s", layer, name);
    return at;
}

static int norm(decoder *d, int x, const char *dims, int64_t n, const char *name) {
    char weight[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    int w = vector(d, weight, n);
    if (!d->layer_norm)
        return add(&d->t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[%s] @\"%s\"", x, w, dims, name);
    snprintf(weight, sizeof weight, "%s.bias", name);
    int b = vector(d, weight, n);
    return add(&d->t, "layer_norm(%%%d, %%%d, %%%d) {eps = 1e-05} : f32[%s] @\"%s\"", x, w, b, dims,
               name);
}

static const char *shape(int64_t a, int64_t b) {
    static char texts[4][48];
    static int turn;
    char *at = texts[turn++ % 4];
    snprintf(at, sizeof texts[0], b ? "T, %lld, %lld" : "T, %lld", (long long)a, (long long)b);
    return at;
}

static int linear(decoder *d, int x, int64_t n, int64_t k, const char *type, const char *name) {
    int y = add_matmul(&d->t, x, type, n, k, name);
    if (!d->bias)
        return y;
    char bias[64];
    snprintf(bias, sizeof bias, "%s.bias", name);
    int b = vector(d, bias, n);
    return add(&d->t, "add(%%%d, %%%d) : f32[T, %lld] @\"%s\"", y, b, (long long)n, bias);
}

static int heads(decoder *d, int x, int64_t n, int layer, const char *name, bool turned) {
    char full[64];
    x = add(&d->t, "reshape(%%%d) : f32[T, %lld, %lld]", x, (long long)n, (long long)d->dim);
    if (turned && d->qk_norm) {
        snprintf(full, sizeof full, "%s_norm", named(layer, name));
        x = norm(d, x, shape(n, d->dim), d->dim, full);
    }
    if (turned && d->rope_dims) {
        snprintf(full, sizeof full, "%s_rope", named(layer, name));
        x = add(&d->t, "rope(%%%d, %%%d) {dims = %d, style = \"%s\"} : f32[T, %lld, %lld] @\"%s\"",
                x, d->table, d->rope_dims, d->interleaved ? "interleaved" : "half", (long long)n,
                (long long)d->dim, full);
    }
    return x;
}

static int residual(decoder *d, int x, int y, int layer, const char *name) {
    if (d->post_norm) {
        char full[64];
        snprintf(full, sizeof full, "%s_norm", named(layer, name));
        y = norm(d, y, shape(d->hidden, 0), d->hidden, full);
    }
    return add(&d->t, "add(%%%d, %%%d) : f32[T, %lld] @\"%s\"", x, y, (long long)d->hidden,
               named(layer, name));
}

static int attention(decoder *d, int x, int layer) {
    int64_t n = d->kv * d->per_kv, width = n * d->dim, narrow = d->kv * d->dim;
    const char *type = random_type(d, d->hidden),
               *other = chance(70) ? type : random_type(d, d->hidden);
    int q = linear(d, x, width, d->hidden, type, named(layer, "q"));
    int k = linear(d, x, narrow, d->hidden, other, named(layer, "k"));
    int v = linear(d, x, narrow, d->hidden, type, named(layer, "v"));
    q = heads(d, q, n, layer, "q", true);
    k = heads(d, k, d->kv, layer, "k", true);
    v = heads(d, v, d->kv, layer, "v", false);
    int y = add(&d->t,
                "attention(%%%d, %%%d, %%%d) {scale = %.9g, window = %d, softcap = %d} : f32[T, "
                "%lld, %lld] @\"%s\"",
                q, k, v, 1 / sqrt((double)d->dim), layer % 2 ? 0 : d->window, d->softcap,
                (long long)n, (long long)d->dim, named(layer, "attention"));
    y = add(&d->t, "reshape(%%%d) : f32[T, %lld]", y, (long long)width);
    return linear(d, y, d->hidden, width, random_type(d, width), named(layer, "o"));
}

static int feed_forward(decoder *d, int x, int layer) {
    const char *type = random_type(d, d->hidden),
               *act = d->gelu ? (chance(50) ? "gelu" : "gelu_tanh") : "silu";
    int up = linear(d, x, d->ffn, d->hidden, type, named(layer, "up")), y = up;
    if (d->gated)
        y = linear(d, x, d->ffn, d->hidden, type, named(layer, "gate"));
    y = add(&d->t, "%s(%%%d) : f32[T, %lld] @\"%s\"", act, y, (long long)d->ffn,
            named(layer, "act"));
    if (d->gated)
        y = add(&d->t, "mul(%%%d, %%%d) : f32[T, %lld] @\"%s\"", y, up, (long long)d->ffn,
                named(layer, "product"));
    return linear(d, y, d->hidden, d->ffn, random_type(d, d->ffn), named(layer, "down"));
}

static void random_widths(decoder *d) {
    static const int64_t odd[] = {24, 33, 50, 72, 100}, even[] = {32, 64, 96, 160, 256};
    static const int64_t dims[] = {8, 16, 24, 32, 64}, wide[] = {16, 32, 64};
    static const int windows[] = {0, 0, 5, 17};
    d->blocks = chance(60);
    d->hidden = d->blocks ? PICK(even) : PICK(odd);
    d->ffn = d->blocks ? PICK(even) : PICK(odd);
    d->dim = d->blocks ? PICK(wide) : PICK(dims);
    d->kv = 1 + cpu_random() % 3;
    d->per_kv = 1 + cpu_random() % 4;
    /* What o_proj reads must be whole blocks too; random_type sees to it. */
    d->vocab = VOCAB + cpu_random() % 30;
    d->window = PICK(windows);
    d->softcap = chance(25) ? 30 : 0;
    d->rope_dims = chance(20) ? 0 : chance(50) ? (int)d->dim : (int)d->dim / 2;
    d->layer_norm = chance(25);
    d->bias = chance(30);
    d->qk_norm = chance(30);
    d->post_norm = chance(25);
    d->gated = chance(70);
    d->gelu = chance(50);
    d->interleaved = chance(40);
}

static void make_decoder(decoder *d) {
    *d = (decoder){0};
    start(&d->t);
    random_widths(d);
    d->tokens = add_tokens(&d->t);
    if (d->rope_dims) {
        int positions = add(&d->t, "input {name = \"positions\"} : i32[T]");
        d->table = add(&d->t,
                       "rope_table(%%%d) {theta = 10000, dims = %d, width = %lld, style = \"%s\", "
                       "scale = 1} : f32[T, 2, %lld] @\"rope\"",
                       positions, d->rope_dims, (long long)d->dim,
                       d->interleaved ? "interleaved" : "half", (long long)d->dim);
    }
    const char *type = random_type(d, d->hidden);
    bool narrow = type[0] != 'q' && strcmp(type, "f32") != 0;
    int table = add(&d->t, "weight {name = \"embed\"} : %s[%lld, %lld]", type, (long long)d->vocab,
                    (long long)d->hidden);
    int x = add(&d->t, "gather(%%%d, %%%d) : %s[T, %lld] @\"embed\"", table, d->tokens,
                narrow ? type : "f32", (long long)d->hidden);
    if (narrow)
        x = add(&d->t, "cast(%%%d) : f32[T, %lld]", x, (long long)d->hidden);
    if (chance(40)) {
        int c = add(&d->t, "constant {values = [7.5]} : f32[]");
        x = add(&d->t, "mul(%%%d, %%%d) : f32[T, %lld] @\"scaled\"", x, c, (long long)d->hidden);
    }
    int layers = 1 + (int)(cpu_random() % 3);
    for (int i = 0; i < layers; i++) {
        int y = norm(d, x, shape(d->hidden, 0), d->hidden, named(i, "norm"));
        x = residual(d, x, attention(d, y, i), i, "mixed");
        y = norm(d, x, shape(d->hidden, 0), d->hidden, named(i, "ffn_norm"));
        x = residual(d, x, feed_forward(d, y, i), i, "out");
    }
    int rows = add(&d->t, "input {name = \"output_rows\"} : i32[R]");
    x = add(&d->t, "gather(%%%d, %%%d) : f32[R, %lld] @\"rows\"", x, rows, (long long)d->hidden);
    char dims[32];
    snprintf(dims, sizeof dims, "R, %lld", (long long)d->hidden);
    x = norm(d, x, dims, d->hidden, "norm");
    int head = chance(50)
                   ? table
                   : add(&d->t, "weight {name = \"head\"} : %s[%lld, %lld]",
                         random_type(d, d->hidden), (long long)d->vocab, (long long)d->hidden);
    x = add(&d->t, "matmul(%%%d, %%%d) {transpose_b = 1} : f32[R, %lld] @\"head\"", x, head,
            (long long)d->vocab);
    if (chance(30))
        x = add(&d->t, "softcap(%%%d) {cap = 30} : f32[R, %lld] @\"capped\"", x,
                (long long)d->vocab);
    add_output(&d->t, x, "logits");
}

/* --- steps -------------------------------------------------------------------------------------
 */

/* Whole sequences, and where their tokens' logits go. */
typedef struct batch {
    int32_t ids[MAX_TOKENS], positions[MAX_TOKENS], rows[MAX_TOKENS];
    int32_t offsets[N_SEQS + 1], slots[N_SEQS];
} batch;

static void make_batch(batch *b, int64_t vocab) {
    *b = (batch){0};
    for (int s = 0; s < N_SEQS; s++) {
        int n = 1 + (int)(cpu_random() % 50), at = b->offsets[s];
        b->slots[s] = s;
        for (int i = 0; i < n; i++) {
            b->ids[at + i] = (int32_t)(cpu_random() % (uint32_t)vocab);
            b->positions[at + i] = i;
            b->rows[at + i] = at + i;
        }
        b->offsets[s + 1] = at + n;
    }
}

/* What a way of computing a step fills: R rows of logits. */
typedef void run_step(void *user, const ir_interp_step *step, float *logits);

/* The batch in random ragged steps; logits is [tokens][vocab]. */
static void run_ragged(const batch *b, int64_t vocab, run_step *run, void *user, float *logits) {
    int done[N_SEQS] = {0};
    float *rows = malloc((size_t)(MAX_TOKENS * vocab) * sizeof *rows);
    for (bool more = true; more;) {
        int32_t ids[MAX_TOKENS], positions[MAX_TOKENS], output_rows[MAX_TOKENS], to[MAX_TOKENS];
        int32_t offsets[N_SEQS + 1] = {0}, slots[N_SEQS], T = 0, S = 0;
        more = false;
        for (int s = 0; s < N_SEQS; s++) {
            int n = b->offsets[s + 1] - b->offsets[s], take = 1 + (int)(cpu_random() % 20);
            take = take > n - done[s] ? n - done[s] : take;
            if (!take || (T && chance(20))) {
                more |= done[s] < n;
                continue;
            }
            for (int i = 0; i < take; i++, T++) {
                int from = b->offsets[s] + done[s] + i;
                ids[T] = b->ids[from];
                positions[T] = done[s] + i;
                output_rows[T] = T;
                to[T] = from;
            }
            slots[S] = s;
            offsets[++S] = T;
            done[s] += take;
            more |= done[s] < n;
        }
        if (!T)
            continue;
        ir_interp_step step = {.T = T,
                               .S = S,
                               .R = T,
                               .token_ids = ids,
                               .positions = positions,
                               .seq_offsets = offsets,
                               .seq_slots = slots,
                               .output_rows = output_rows};
        run(user, &step, rows);
        for (int t = 0; t < T; t++)
            memcpy(logits + to[t] * vocab, rows + t * vocab, (size_t)vocab * sizeof *rows);
    }
    free(rows);
}

static void run_checked(void *user, const ir_interp_step *step, float *logits) {
    compiled_graph *g = user;
    int64_t n;
    g->end_to_end = false;
    graph_run(g, step, (int64_t)(cpu_random() % 4), NULL);
    const float *out = ir_interp_output(g->interp, "logits", &n);
    memcpy(logits, out, (size_t)n * sizeof *out);
}

static void run_compiled(void *user, const ir_interp_step *step, float *logits) {
    compiled_graph *g = user;
    g->end_to_end = true;
    graph_run(g, step, (int64_t)(cpu_random() % 4), logits);
}

static float *run_as_stated(const ir_module *m, const batch *b) {
    ir_diag diag = {0};
    ir_interp *in = ir_interp_create(m, &diag);
    ir_interp_step step = {.T = b->offsets[N_SEQS],
                           .S = N_SEQS,
                           .R = b->offsets[N_SEQS],
                           .token_ids = b->ids,
                           .positions = b->positions,
                           .seq_offsets = b->offsets,
                           .seq_slots = b->slots,
                           .output_rows = b->rows};
    int64_t n;
    if (!in || !ir_interp_run(in, &step, &diag)) {
        ir_diag_print(&diag, stderr);
        ck_abort_msg("the interpreter fails on the graph as stated");
    }
    const float *out = ir_interp_output(in, "logits", &n);
    float *copy = malloc((size_t)n * sizeof *copy);
    memcpy(copy, out, (size_t)n * sizeof *copy);
    ir_interp_destroy(in);
    ir_diag_clear(&diag);
    return copy;
}

/* --- tests -------------------------------------------------------------------------------------
 */

static void expect_close(const decoder *d, const float *want, const float *got, int64_t n,
                         const char *what) {
    double difference = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i]))
            ck_abort_msg("%s: a logit is %g\n%s", what, (double)got[i], d->t.bytes);
        difference = fmax(difference, fabs((double)got[i] - (double)want[i]));
        scale = fmax(scale, fabs((double)want[i]));
    }
    ck_assert_msg(difference <= bound * scale, "%s: off by %g of the largest logit\n%s", what,
                  difference / scale, d->t.bytes);
}

static const char *random_fusion(void) {
    static const char *const fusions[] = {"full", "full", "none", "pointwise", "prologues"};
    return PICK(fusions);
}

static void run_graph(int i) {
    graph_seed_case(6000, i);
    decoder *d = malloc(sizeof *d);
    batch *b = malloc(sizeof *b);
    make_decoder(d);
    uint64_t weights = cpu_seed;
    ir_module *stated = parse(&d->t);
    make_batch(b, d->vocab);
    uint64_t steps = cpu_seed;
    int64_t n = b->offsets[N_SEQS] * d->vocab;
    float *want = run_as_stated(stated, b), *got = malloc((size_t)n * sizeof *got);
    ir_module_destroy(stated);

    pass_options exact = {.activations_f32 = true, .kv = PASS_KV_F32, .fusion = random_fusion()};
    /* The same weights: they are drawn right after the text. */
    cpu_seed = weights;
    compiled_graph *g = graph_compile(parse(&d->t), &exact, d->t.bytes);
    cpu_seed = steps;
    run_ragged(b, d->vocab, run_checked, g, got);
    expect_close(d, want, got, n, "the pipeline");
    run_ragged(b, d->vocab, run_compiled, g, got);
    expect_close(d, want, got, n, "compiled code");
    graph_destroy(g);

    /* The defaults, where int8 activations and f16 pages make other numbers: kernel by kernel. */
    pass_options defaults = {.fusion = random_fusion()};
    cpu_seed = weights;
    g = graph_compile(parse(&d->t), &defaults, d->t.bytes);
    run_ragged(b, d->vocab, run_checked, g, got);
    graph_destroy(g);
    free(want);
    free(got);
    free(d);
    free(b);
}

START_TEST(random_graphs) {
    int per_test = test_full() ? 60 : 1;
    for (int i = 0; i < per_test; i++)
        if (graph_case_is_mine(i))
            run_graph(_i * 1000 + i);
}
END_TEST

static Suite *random_graphs_suite(void) {
    graph_say_seed();
    graph_say_levels();
    Suite *suite = suite_create("random_graphs");
    TCase *tcase = tcase_create("random_graphs");
    tcase_set_timeout(tcase, test_full() ? 3600 : 240);
    tcase_add_loop_test(tcase, random_graphs, 0, 5);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(random_graphs_suite)
