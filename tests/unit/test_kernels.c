/* Every kernel of the CPU backend against the reference interpreter, over random shapes, ragged
 * edges included. Each case is a small module in text, with random weights, that goes through the
 * whole pipeline and is compiled for every level of the processor; results must lie within the
 * bounds of error_bound.h, and all levels must give the same bits.
 *
 * Cases are drawn from MCC_TEST_SEED (default 1); MCC_TEST_FULL=1 runs many more, in
 * parts by MCC_TEST_SHARD. */
#include "check_main.h"
#include "compiled_graph.h"
#include "graph_text.h"

/* --- running a case ----------------------------------------------------------------------------
 */

/* Rows of one group tiny, of others large: what quantization must bear. */
static void vary_rows(ir_module *m) {
    for (int i = 0; i < m->n_weights; i++) {
        ir_weight *w = &m->weights[i];
        if (w->type.encoding || w->type.dtype != IR_F32 || w->type.rank != 2 ||
            w->type.dims[0].c != VOCAB)
            continue;
        float *x = (float *)(uintptr_t)w->data;
        int64_t k = w->type.dims[1].c;
        for (int64_t at = 0; at < VOCAB * k; at += 32) {
            uint32_t choice = cpu_random() % 24;
            float by = choice == 0 ? 0 : choice == 1 ? 0x1p-110f : choice == 2 ? 1000 : 1;
            for (int64_t c = at; c < at + 32 && c < VOCAB * k; c++)
                x[c] *= by;
        }
    }
}

/* One sequence of T tokens with random ids, from position 0, all rows asked for. */
static void run_tokens(compiled_graph *g, int T, int64_t piece) {
    int32_t ids[512], positions[512], rows[512], offsets[2] = {0, T}, slots[1] = {0};
    for (int t = 0; t < T; t++) {
        ids[t] = (int32_t)(cpu_random() % VOCAB);
        positions[t] = t;
        rows[t] = t;
    }
    ir_interp_step step = {.T = T,
                           .S = 1,
                           .R = T,
                           .token_ids = ids,
                           .positions = positions,
                           .seq_offsets = offsets,
                           .seq_slots = slots,
                           .output_rows = rows};
    graph_run(g, &step, piece, NULL);
}

static const int token_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16};
enum { N_COUNTS = sizeof token_counts / sizeof *token_counts };

static double worst[8]; /* by group of cases: largest error / bound */

static void run_case(const text *t, const pass_options *options, int group) {
    ir_module *m = parse(t);
    vary_rows(m);
    compiled_graph *g = graph_compile(m, options, t->bytes);
    for (int i = 0; i < N_COUNTS; i++)
        run_tokens(g, token_counts[i], (int64_t)(cpu_random() % 4));
    /* So many that matmuls unpack their weights, with AVX2 or on both levels. */
    run_tokens(g, cpu_random() % 3 ? 33 : 71, (int64_t)(cpu_random() % 4));
    worst[group] = fmax(worst[group], g->worst);
    graph_destroy(g);
}

static int pick(const int *from, int n) {
    return from[cpu_random() % (uint32_t)n];
}
#define PICK(array) pick(array, sizeof(array) / sizeof *(array))

/* --- matmuls -----------------------------------------------------------------------------------
 */

static const char *const weight_types[] = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k",
                                           "q5_k", "q6_k", "f32",  "f16",  "bf16", "fp8_e4m3"};
enum { N_WEIGHT_TYPES = sizeof weight_types / sizeof *weight_types };

static int64_t random_k(const char *type, bool small) {
    static const int plain[] = {1, 7, 31, 32, 33, 64, 100, 129, 257, 500, 768};
    static const int blocks[] = {32, 64, 96, 160, 256, 288, 576, 768};
    static const int supers[] = {256, 512, 768};
    const ir_encoding *e = ir_encoding_from_name(type);
    int64_t k = !e ? PICK(plain) : e->super_group ? PICK(supers) : PICK(blocks);
    return small && k > 256 ? 256 : k;
}

enum {
    EPILOGUE_NONE,
    EPILOGUE_BIAS,
    EPILOGUE_RESIDUAL,
    EPILOGUE_SOFTCAP,
    EPILOGUE_SILU_MUL,
    EPILOGUE_GELU_MUL, /* and a second matmul, so that a8 is stored where activations are int8 */
    EPILOGUE_MERGED,   /* three matmuls of one input, each used apart */
    N_EPILOGUES
};

static void add_matmul_case(text *t, const char *type, int epilogue) {
    static const int columns[] = {1, 15, 16, 17, 32, 48, 100, 128};
    static const int even_tiles[] = {16, 32, 64, 96};
    const ir_encoding *e = ir_encoding_from_name(type);
    int64_t k = random_k(type, false), n = PICK(columns);
    int tokens = add_tokens(t), x = add_rows(t, tokens, "x", k), y;
    switch (epilogue) {
    case EPILOGUE_SILU_MUL:
    case EPILOGUE_GELU_MUL: {
        /* Halves that are whole tiles and halves that are not; a second matmul reads blocks. */
        bool second = epilogue == EPILOGUE_GELU_MUL;
        if (second)
            n = e && e->super_group ? 256 : PICK(even_tiles);
        if (second && e && n % 32)
            n = 32;
        int gate = add_matmul(t, x, type, n, k, "gate"), up = add_matmul(t, x, type, n, k, "up");
        int act = add(t, "%s(%%%d) : f32[T, %lld] @\"act\"", second ? "gelu_tanh" : "silu", gate,
                      (long long)n);
        y = add(t, "mul(%%%d, %%%d) : f32[T, %lld] @\"product\"", act, up, (long long)n);
        if (second) {
            int64_t to = PICK(columns);
            y = add_matmul(t, y, type, to, n, "down");
        }
        break;
    }
    case EPILOGUE_MERGED: {
        for (int i = 0; i < 3; i++) {
            char name[16];
            snprintf(name, sizeof name, "p%d", i);
            n = PICK(columns);
            y = add_matmul(t, x, type, n, k, name);
            if (i == 1) {
                int bias = add(t, "weight {name = \"bias\"} : f32[%lld]", (long long)n);
                y = add(t, "add(%%%d, %%%d) : f32[T, %lld] @\"biased\"", y, bias, (long long)n);
            }
            snprintf(name, sizeof name, "y%d", i);
            y = add(t, "neg(%%%d) : f32[T, %lld] @\"%s\"", y, (long long)n, name);
            add_output(t, y, name);
        }
        return;
    }
    default:
        y = add_matmul(t, x, type, n, k, "m");
    }
    if (epilogue == EPILOGUE_BIAS) {
        int bias = add(t, "weight {name = \"bias\"} : f32[%lld]", (long long)n);
        y = add(t, "add(%%%d, %%%d) : f32[T, %lld] @\"biased\"", y, bias, (long long)n);
    } else if (epilogue == EPILOGUE_RESIDUAL) {
        int residual = add_rows(t, tokens, "residual", n);
        y = add(t, "add(%%%d, %%%d) : f32[T, %lld] @\"sum\"", residual, y, (long long)n);
    } else if (epilogue == EPILOGUE_SOFTCAP) {
        y = add(t, "softcap(%%%d) {cap = 5} : f32[T, %lld] @\"capped\"", y, (long long)n);
    }
    add_output(t, y, "y");
}

static void run_matmul_case(int type, int epilogue, int i) {
    static const char *const fusions[] = {"full", "full", "none", "pointwise"};
    text t;
    graph_seed_case(type * N_EPILOGUES + epilogue, i);
    start(&t);
    add_matmul_case(&t, weight_types[type], epilogue);
    pass_options options = {.activations_f32 = cpu_random() % 2,
                            .fusion = fusions[cpu_random() % 4]};
    options.activations_fp8 =
        !options.activations_f32 && strcmp(weight_types[type], "fp8_e4m3") == 0;
    run_case(&t, &options, 0);
}

START_TEST(matmuls) {
    /* By default each encoding meets two epilogues; all meet over the encodings. */
    for (int epilogue = 0; epilogue < N_EPILOGUES; epilogue++) {
        int turn = (epilogue + _i + (int)(graph_seed() % N_EPILOGUES)) % N_EPILOGUES;
        for (int i = 0; i < (test_full() ? 12 : turn < 3); i++)
            if (graph_case_is_mine(epilogue + i))
                run_matmul_case(_i, epilogue, i);
    }
}
END_TEST

/* --- row kernels -------------------------------------------------------------------------------
 */

static const char *const fusions[] = {"full", "none", "pointwise"};

/* A chain of one to five random row ops, with residuals, and perhaps a matmul that wants a8. */
static void add_chain(text *t) {
    static const int widths[] = {1, 15, 16, 17, 33, 64, 100, 128, 160, 576};
    bool quantized = cpu_random() % 2;
    int64_t d = quantized ? 32 * (1 + cpu_random() % 12) : (uint32_t)PICK(widths);
    int tokens = add_tokens(t), x = add_rows(t, tokens, "x", d), first = x;
    int n = 1 + (int)(cpu_random() % 5);
    for (int i = 0; i < n; i++) {
        switch (cpu_random() % 8) {
        case 0:
        case 1: {
            int w = add(t, "weight {name = \"w%d\"} : f32[%lld]", i, (long long)d);
            x = add(t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, %lld] @\"n%d\"", x, w,
                    (long long)d, i);
            break;
        }
        case 2: {
            int w = add(t, "weight {name = \"w%d\"} : f32[%lld]", i, (long long)d);
            int bias = add(t, "weight {name = \"b%d\"} : f32[%lld]", i, (long long)d);
            x = add(t, "layer_norm(%%%d, %%%d, %%%d) {eps = 1e-05} : f32[T, %lld] @\"n%d\"", x, w,
                    bias, (long long)d, i);
            break;
        }
        case 3:
            x = add(t, "softmax(%%%d) {axis = 1} : f32[T, %lld] @\"s%d\"", x, (long long)d, i);
            break;
        case 4:
            x = add(t, "add(%%%d, %%%d) : f32[T, %lld] @\"r%d\"", x, first, (long long)d, i);
            break;
        case 5:
            x = add(t, "silu(%%%d) : f32[T, %lld] @\"a%d\"", x, (long long)d, i);
            break;
        case 6:
            x = add(t, "gelu(%%%d) : f32[T, %lld] @\"a%d\"", x, (long long)d, i);
            break;
        default: {
            int c = add(t, "constant {values = [0.7]} : f32[]");
            x = add(t, "mul(%%%d, %%%d) : f32[T, %lld] @\"c%d\"", x, c, (long long)d, i);
        }
        }
    }
    add_output(t, x, "chain");
    if (quantized)
        add_output(t, add_matmul(t, x, "q8_0", 16, d, "m"), "y");
}

START_TEST(chains) {
    for (int i = 0; i < (test_full() ? 150 : 6); i++) {
        if (!graph_case_is_mine(i))
            continue;
        text t;
        graph_seed_case(1000 + _i, i);
        start(&t);
        add_chain(&t);
        pass_options options = {.fusion = fusions[cpu_random() % 3]};
        run_case(&t, &options, 1);
    }
}
END_TEST

/* Rows of a table in every encoding, plain and shared with the matmul that packs it. */
START_TEST(gathers) {
    for (int i = 0; i < (test_full() ? 10 : 1); i++) {
        if (!graph_case_is_mine(i))
            continue;
        text t;
        const char *type = weight_types[_i];
        graph_seed_case(2000 + _i, i);
        start(&t);
        int64_t k = random_k(type, true);
        int rows = VOCAB + (int)(cpu_random() % 20); /* the last tile is ragged */
        int tokens = add_tokens(&t);
        int w = add(&t, "weight {name = \"table\"} : %s[%d, %lld]", type, rows, (long long)k);
        int x = add(&t, "gather(%%%d, %%%d) : %s[T, %lld] @\"embed\"", w, tokens,
                    ir_encoding_from_name(type) ? "f32" : type, (long long)k);
        if (strcmp(type, "f16") == 0 || strcmp(type, "bf16") == 0)
            x = add(&t, "cast(%%%d) : f32[T, %lld] @\"widened\"", x, (long long)k);
        int c = add(&t, "constant {values = [3]} : f32[]");
        add_output(&t, add(&t, "mul(%%%d, %%%d) : f32[T, %lld] @\"y\"", x, c, (long long)k), "x");
        if (cpu_random() % 2)
            add_output(
                &t,
                add(&t, "matmul(%%%d, %%%d) {transpose_b = 1} : f32[T, %d] @\"head\"", x, w, rows),
                "scores");
        pass_options options = {.fusion = fusions[i ? cpu_random() % 3 : (uint32_t)_i % 2]};
        run_case(&t, &options, 2);
    }
}
END_TEST

/* --- rotary embedding, the cache, attention ----------------------------------------------------
 */

typedef struct heads {
    int kv, per_kv, dim, window, rope_dims;
    bool interleaved, capped;
} heads;

static heads random_heads(bool large) {
    static const int dims[] = {16, 32, 48, 64, 80, 128, 256};
    heads h = {.kv = 1 + (int)(cpu_random() % 3), .per_kv = 1 + (int)(cpu_random() % 8)};
    h.dim = PICK(dims);
    if (!large && h.dim > 64)
        h.dim = 64;
    while (h.kv * h.per_kv * h.dim > 1024)
        h.kv > 1 ? h.kv-- : h.per_kv--;
    static const int windows[] = {0, 0, 1, 30, 256, 300};
    h.window = PICK(windows);
    h.capped = cpu_random() % 3 == 0;
    h.interleaved = cpu_random() % 2;
    /* None, all or a part of the head is turned. */
    h.rope_dims = cpu_random() % 4 == 0 ? 0 : cpu_random() % 2 ? h.dim : h.dim / 2;
    return h;
}

static int add_rope(text *t, const heads *h, int x, int n, int table, const char *name) {
    return add(t, "rope(%%%d, %%%d) {dims = %d, style = \"%s\"} : f32[T, %d, %d] @\"%s\"", x, table,
               h->rope_dims, h->interleaved ? "interleaved" : "half", n, h->dim, name);
}

static int add_heads(text *t, const heads *h, int tokens, const char *name, int n, int table) {
    char of[16];
    snprintf(of, sizeof of, "%s.rows", name);
    int x = add_rows(t, tokens, of, (int64_t)n * h->dim);
    x = add(t, "reshape(%%%d) : f32[T, %d, %d]", x, n, h->dim);
    return table < 0 ? x : add_rope(t, h, x, n, table, name);
}

static void add_attention(text *t, const heads *h) {
    static const double scales[] = {0.05, 0.125, 0.3};
    int n = h->kv * h->per_kv, tokens = add_tokens(t), table = -1;
    if (h->rope_dims) {
        int positions = add(t, "input {name = \"positions\"} : i32[T]");
        table =
            add(t,
                "rope_table(%%%d) {theta = 10000, dims = %d, width = %d, style = \"%s\", scale "
                "= 1} : f32[T, 2, %d] @\"rope\"",
                positions, h->rope_dims, h->dim, h->interleaved ? "interleaved" : "half", h->dim);
    }
    int q = add_heads(t, h, tokens, "q", n, table), k = add_heads(t, h, tokens, "k", h->kv, table);
    int v = add_heads(t, h, tokens, "v", h->kv, -1);
    int y = add(t,
                "attention(%%%d, %%%d, %%%d) {scale = %g, window = %d, softcap = %g} : f32[T, %d, "
                "%d] @\"attention\"",
                q, k, v, scales[cpu_random() % 3], h->window, h->capped ? 20.0 : 0.0, n, h->dim);
    y = add(t, "reshape(%%%d) : f32[T, %d]", y, n * h->dim);
    int c = add(t, "constant {values = [0.5]} : f32[]");
    y = add(t, "mul(%%%d, %%%d) : f32[T, %d] @\"halved\"", y, c, n * h->dim);
    add_output(t, y, "y");
}

/* Several sequences in ragged steps until each has its length. */
static void run_sequences(compiled_graph *g, const int *lengths, int n) {
    int done[GRAPH_MAX_SEQS] = {0};
    for (bool more = true; more;) {
        int32_t ids[512], positions[512], rows[512], offsets[GRAPH_MAX_SEQS + 1] = {0};
        int32_t slots[GRAPH_MAX_SEQS], T = 0, S = 0;
        more = false;
        for (int s = 0; s < n; s++) {
            int left = lengths[s] - done[s], take = left;
            if (!left)
                continue;
            /* A long prompt first, then a few tokens at a time. */
            if (done[s] || cpu_random() % 2)
                take = 1 + (int)(cpu_random() % (done[s] > 40 ? 5 : 100));
            take = take > left ? left : take;
            if (T + take > 500)
                take = 500 - T;
            slots[S] = s;
            for (int i = 0; i < take; i++, T++) {
                ids[T] = (int32_t)(cpu_random() % VOCAB);
                positions[T] = done[s] + i;
            }
            offsets[++S] = T;
            done[s] += take;
            more |= done[s] < lengths[s];
        }
        if (!T)
            return;
        rows[0] = T - 1;
        ir_interp_step step = {.T = T,
                               .S = S,
                               .R = 1,
                               .token_ids = ids,
                               .positions = positions,
                               .seq_offsets = offsets,
                               .seq_slots = slots,
                               .output_rows = rows};
        graph_run(g, &step, (int64_t)(cpu_random() % 3), NULL);
    }
}

START_TEST(attentions) {
    for (int i = 0; i < (test_full() ? 40 : 3); i++) {
        if (!graph_case_is_mine(i))
            continue;
        text t;
        graph_seed_case(3000 + _i, i);
        start(&t);
        heads h = random_heads(i % 4 == 0);
        add_attention(&t, &h);
        pass_options options = {.kv = (pass_kv)(cpu_random() % 4),
                                .fusion = fusions[cpu_random() % 3]};
        compiled_graph *g = graph_compile(parse(&t), &options, t.bytes);
        /* One context crosses the range of 256 positions, one stays short. */
        int lengths[3] = {257 + (int)(cpu_random() % 40), 1 + (int)(cpu_random() % 30),
                          1 + (int)(cpu_random() % 60)};
        run_sequences(g, lengths, 1 + (int)(cpu_random() % 3));
        worst[3] = fmax(worst[3], g->worst);
        graph_destroy(g);
    }
}
END_TEST

/* --- the check itself, and packing -------------------------------------------------------------
 */

/* One code wrong by half its range in each row of a tile is noticed; not in every row and for every
 * token, since scales and activations next to zero hide it within the bound. */
START_TEST(a_wrong_code_is_noticed) {
    text t;
    graph_seed_case(4000, 0);
    start(&t);
    int x = add_rows(&t, add_tokens(&t), "x", 64);
    add_output(&t, add_matmul(&t, x, "q4_1", 32, 64, "m"), "y");
    pass_options options = {.activations_f32 = true};
    compiled_graph *g = graph_compile(parse(&t), &options, "wrong code");
    for (int i = 0; i < g->program->n_weights; i++)
        for (int row = 0; g->program->weights[i].type.encoding && row < 16; row++)
            g->weights[g->program->weights[i].offset + (uint64_t)row * 4] ^= 8;
    g->only_count = true;
    run_tokens(g, 8, 0);
    ck_assert_int_ge(g->mismatches, 8 * 16 / 4 * g->code.n_targets); /* tokens, rows */
    graph_destroy(g);
}
END_TEST

static void random_rows(const ir_type *type, uint8_t *data, int64_t bytes) {
    if (type->encoding) {
        graph_random_blocks(type->encoding, data, bytes);
        return;
    }
    for (int64_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)cpu_random();
    /* Any bits but infinities and NaNs, which have many forms. */
    for (int64_t i = 0; type->dtype == IR_F32 && i < bytes; i += 4)
        data[i + 3] &= 0xbf;
    for (int64_t i = 0; type->dtype != IR_F32 && i < bytes; i += 2)
        data[i + 1] &= 0xbf;
}

/* Every encoding, both layouts, one to three parts, ragged last tiles, tiles one by one: unpacking
 * gives what decoding the file's row gives, and restoring gives the file's bytes. */
START_TEST(packing_round_trips) {
    const char *name = weight_types[_i];
    const ir_encoding *e = ir_encoding_from_name(name);
    ir_dtype dtype = IR_F32;
    ck_assert(e || ir_dtype_from_name(name, &dtype));
    for (int i = 0; i < 60; i++) {
        graph_seed_case(5000 + _i, i);
        int n_parts = 1 + (int)(cpu_random() % 3);
        bool halves = n_parts == 2 && cpu_random() % 2;
        int64_t k = random_k(name, false), rows[3], n = 0;
        const void *sources[3];
        int64_t row_bytes = e ? ir_encoding_row_bytes(e, k) : k * (ir_dtype_bits(dtype) / 8);
        for (int p = 0; p < n_parts; p++) {
            rows[p] = p && halves ? rows[0] : 1 + cpu_random() % 50;
            n += rows[p];
        }
        ir_dim dims[] = {ir_dim_const(n), ir_dim_const(k)};
        ir_type type = e ? ir_quantized(e, 2, dims) : ir_tensor(dtype, 2, dims);
        type.layout = halves ? "n16x2" : "n16";
        for (int p = 0; p < n_parts; p++) {
            uint8_t *data = malloc((size_t)(rows[p] * row_bytes));
            random_rows(&type, data, rows[p] * row_bytes);
            sources[p] = data;
        }
        int64_t bytes = cg_cpu_packed_bytes(&type), tiles = cg_cpu_packed_tiles(&type);
        ck_assert_int_eq(bytes % tiles, 0);
        uint8_t *packed = malloc((size_t)bytes), *again = malloc((size_t)bytes);
        cg_cpu_pack_tiles(&type, n_parts, sources, rows, 0, tiles, packed);
        for (int64_t tile = 0; tile < tiles; tile++)
            cg_cpu_pack_tiles(&type, n_parts, sources, rows, tile, tile + 1,
                              again + tile * (bytes / tiles));
        ck_assert(memcmp(packed, again, (size_t)bytes) == 0);
        float *want = malloc((size_t)k * 4), *got = malloc((size_t)k * 4);
        uint8_t *restored = malloc((size_t)row_bytes);
        for (int64_t r = 0, part = 0, first = 0; r < n; r++) {
            if (r - first == rows[part])
                first += rows[part++];
            bound_decode(&type, (const uint8_t *)sources[part] + (r - first) * row_bytes, k, want,
                         NULL);
            cg_cpu_unpack_row(&type, packed, r, got);
            cg_cpu_restore_row(&type, packed, r, restored);
            if (memcmp(restored, (const uint8_t *)sources[part] + (r - first) * row_bytes,
                       (size_t)row_bytes) != 0)
                ck_abort_msg("%s: row %lld is restored with other bytes", name, (long long)r);
            for (int64_t c = 0; c < k; c++)
                if (want[c] != got[c])
                    ck_abort_msg("%s[%lld, %lld], row %lld, column %lld: %g, not %g", name,
                                 (long long)n, (long long)k, (long long)r, (long long)c,
                                 (double)got[c], (double)want[c]);
        }
        for (int p = 0; p < n_parts; p++)
            free((void *)(uintptr_t)sources[p]);
        free(packed);
        free(again);
        free(want);
        free(got);
        free(restored);
    }
}
END_TEST

static void say_worst(void) {
    static const char *const names[] = {"matmuls", "chains", "gathers", "attentions"};
    for (int i = 0; i < 4; i++)
        if (worst[i] > 0)
            printf("%s: largest error is %.2f of its bound\n", names[i], worst[i]);
    fflush(stdout);
}

static Suite *kernels_suite(void) {
    graph_say_seed();
    graph_say_levels();
    Suite *suite = suite_create("kernels");
    TCase *tcase = tcase_create("kernels");
    tcase_set_timeout(tcase, test_full() ? 3600 : 120);
    tcase_add_checked_fixture(tcase, NULL, say_worst);
    tcase_add_loop_test(tcase, packing_round_trips, 0, N_WEIGHT_TYPES);
    tcase_add_loop_test(tcase, matmuls, 0, N_WEIGHT_TYPES);
    tcase_add_loop_test(tcase, gathers, 0, N_WEIGHT_TYPES);
    tcase_add_loop_test(tcase, chains, 0, 2);
    tcase_add_loop_test(tcase, attentions, 0, 3);
    tcase_add_test(tcase, a_wrong_code_is_noticed);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(kernels_suite)
