/* Tables of tiles: what tells kernels apart, the file and its merging, what is refused, and that
 * every legal tile of a matmul gives the same bits (those of attention: test_cuda_attention).
 *
 * A tile a kernel by default, drawn by MCC_TEST_SEED; all with MCC_TEST_FULL=1, in parts by
 * MCC_TEST_SHARD. */
#include "cuda_graph.h"
#include "graph_text.h"

#include "compiler/tiles.h"

/* --- files ---------------------------------------------------------------------------------------
 */

static const char file_a[] =
    "{\"modelcc_tiles\": 1,\n"
    " \"tiles\": [\n"
    "  {\"key\": \"sm_80 a8 q4_1 64x64\",\n"
    "   \"variants\": [{\"rows\":0,\"form\":\"a8_decode\",\"tokens\":1,\"warps\":8,\"unroll\":2},\n"
    "                {\"rows\":9,\"form\":\"a8_decode\",\"tokens\":8,\"warps\":4,\"unroll\":2}],\n"
    "   \"measured\": {\"device\":\"GPU\",\"date\":\"2026-01-02\",\"microseconds\":12.5}},\n"
    "  {\"key\": \"sm_80 f32 f32 64x64\",\n"
    "   \"variants\": [{\"rows\":0,\"form\":\"f32\",\"tokens\":1,\"warps\":4,\"stages\":3}]}\n"
    " ]}\n";

static bool parse_table(const char *text, ir_arena *arena, ir_diag *diag, tile_table *table) {
    return tile_table_parse(text, strlen(text), "tiles.json", arena, diag, table);
}

/* What is read is written again, byte for byte. */
START_TEST(round_trip) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    tile_table table;
    ck_assert(parse_table(file_a, arena, &diag, &table));
    ck_assert_int_eq(table.n, 2);
    ck_assert_int_eq(table.entries[0].tiling.n, 2);
    ck_assert_int_eq(table.entries[0].tiling.tiles[1].values[1], 4);
    ck_assert_int_eq(table.entries[0].origin, TILE_MEASURED);
    char *text = tile_table_print(&table);
    ck_assert_str_eq(text, file_a);
    free(text);
    cg_cuda_tiles tiles = tile_table_tiles(&table, arena);
    ck_assert_ptr_nonnull(cg_cuda_tiles_find(&tiles, "sm_80 f32 f32 64x64"));
    ck_assert_ptr_null(cg_cuda_tiles_find(&tiles, "sm_80 f32 f32 64x65"));
    ck_assert_ptr_null(cg_cuda_tiles_find(&tiles, NULL));
    ir_arena_destroy(arena);
}
END_TEST

START_TEST(bad_files) {
#define ENTRY(variant)                                                                             \
    "{\"modelcc_tiles\": 1, \"tiles\": [{\"key\": \"k\", \"variants\": [" variant "]}]}"
#define F32 "\"form\": \"f32\", \"tokens\": 1, \"warps\": 4, \"stages\": 3"
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[", "not JSON"},
        {"{}", "not a file of tiles"},
        {"{\"modelcc_tiles\": 2, \"tiles\": []}", "not a file of tiles"},
        {"{\"modelcc_tiles\": 1, \"tiles\": [{}]}", "without a \"key\""},
        {"{\"modelcc_tiles\": 1, \"tiles\": [{\"key\": \"k\", \"variants\": []}]}",
         "1 to 16 variants"},
        {ENTRY("{\"rows\": 0, \"form\": \"f64\"}"), "\"form\" that is known"},
        {ENTRY("{\"form\": \"f32\"}"), "\"rows\" is not a number"},
        {ENTRY("{\"rows\": -1, " F32 "}"), "\"rows\" is not a number"},
        {ENTRY("{\"rows\": 0.5, " F32 "}"), "\"rows\" is not a number"},
        {ENTRY("{\"rows\": 0, " F32 ", \"unroll\": 1}"), "k: f32 has no \"unroll\""},
        {ENTRY("{\"rows\": 0, " F32 ", \"warps\": 1}"), "k: \"warps\" stands twice"},
        {ENTRY("{\"rows\": 0, \"form\": \"f32\", \"tokens\": 1}"), "k: f32 lacks \"warps\""},
        {ENTRY("{\"rows\": 0, \"form\": \"f32\", \"tokens\": \"1\"}"), "\"tokens\" is not a whole"},
        {"{\"modelcc_tiles\": 1, \"tiles\": [{\"key\": \"k\", \"variants\": [{\"rows\": 0, " F32
         "}], \"measured\": {\"device\": \"GPU\"}}]}",
         "k: \"measured\" lacks"},
        {"{\"modelcc_tiles\": 1, \"tiles\": [{\"key\": \"k\", \"variants\": [{\"rows\": 0, " F32
         "}]}, {\"key\": \"k\", \"variants\": [{\"rows\": 0, " F32 "}]}]}",
         "k stands twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ir_arena *arena = ir_arena_create();
        ir_diag diag = {0};
        tile_table table;
        ck_assert_msg(!parse_table(cases[i].text, arena, &diag, &table), "%s", cases[i].text);
        ck_assert_str_eq(diag.messages[0].where, "tiles.json");
        ck_assert_msg(strstr(diag.messages[0].text, cases[i].message) != NULL, "%s: %s",
                      cases[i].text, diag.messages[0].text);
        ir_diag_clear(&diag);
        ir_arena_destroy(arena);
    }
}
END_TEST

/* Of two entries with one key the better one stays, whichever comes first. */
START_TEST(merging) {
    static const tile_entry worst_first[] = {
        {.tiling = {"k", 1, {{0, CG_FORM_F32, {8, 4, 3}}}}},
        {.tiling = {"k", 1, {{0, CG_FORM_F32, {1, 4, 3}}}}}, /* the text that is first by bytes */
        {.tiling = {"k", 1, {{0, CG_FORM_F32, {2, 4, 3}}}},
         .origin = TILE_PREDICTED,
         .device = "GPU",
         .date = "2026-03-01",
         .microseconds = 1},
        {.tiling = {"k", 1, {{0, CG_FORM_F32, {3, 4, 3}}}},
         .origin = TILE_MEASURED,
         .device = "GPU",
         .date = "2026-01-01",
         .microseconds = 2},
        {.tiling = {"k", 1, {{0, CG_FORM_F32, {4, 4, 3}}}},
         .origin = TILE_MEASURED,
         .device = "GPU",
         .date = "2026-02-01",
         .microseconds = 9},
        {.tiling = {"k", 1, {{0, CG_FORM_F32, {5, 4, 3}}}},
         .origin = TILE_MEASURED,
         .device = "GPU",
         .date = "2026-02-01",
         .microseconds = 8},
    };
    enum { N = sizeof worst_first / sizeof *worst_first };
    ir_arena *arena = ir_arena_create();
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++) {
            tile_table table = {0};
            tile_entry other = {.tiling = {"j", 1, {{0, CG_FORM_F32, {1, 1, 2}}}}};
            tile_table_add(&table, &worst_first[a], arena);
            tile_table_add(&table, &other, arena);
            tile_table_add(&table, &worst_first[b], arena);
            ck_assert_int_eq(table.n, 2);
            ck_assert_str_eq(table.entries[0].tiling.key, "j");
            ck_assert_int_eq(table.entries[1].tiling.tiles[0].values[0],
                             worst_first[a > b ? a : b].tiling.tiles[0].values[0]);
        }
    ir_arena_destroy(arena);
}
END_TEST

/* --- kernels -------------------------------------------------------------------------------------
 */

typedef struct subject {
    const char *type, *key; /* of the matmul "m" (of lockstep matmuls both) on sm_90a */
    const char *half;       /* activations in this type; "" f32; NULL int8 */
    int n, k;
    bool lockstep, prologue;
} subject;

static const subject subjects[] = {
    {"q4_1", "sm_90a a8 q4_1 100x576", NULL, 100, 576, false, false},
    {"q6_k", "sm_90a a8 q6_k 2x80x256 prologue", NULL, 80, 256, true, true},
    {"q8_0", "sm_90a a8 q8_0 96x608 prologue", NULL, 96, 608, false, true},
    {"q5_1", "sm_90a f32 q5_1 96x288 prologue", "", 96, 288, false, true},
    {"bf16", "sm_90a f32 bf16 2x40x133", "", 40, 133, true, false},
    {"f16", "sm_90a f16 f16 104x1160", "f16", 104, 1160, false, false},
    {"fp8_e4m3", "sm_90a bf16 fp8_e4m3 2x72x288", "bf16", 72, 288, true, false},
    /* so large that tiles pay which not every processor has the shared memory for; not run */
    {"fp8_e4m3", "sm_90a bf16 fp8_e4m3 576x576", "bf16", 576, 576, false, false},
};
enum { N_TABLES = sizeof subjects / sizeof *subjects, N_SUBJECTS = N_TABLES - 1 };

static compiled_graph *make_graph(const subject *s, int i) {
    text t;
    graph_seed_case(7700, i);
    start(&t);
    int tokens = add_tokens(&t), x = add_rows(&t, tokens, "x", s->k), y;
    if (s->prologue) {
        int w = add(&t, "weight {name = \"norm\"} : f32[%d]", s->k);
        x = add(&t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, %d] @\"normed\"", x, w, s->k);
    }
    if (s->lockstep) {
        int gate = add_matmul(&t, x, s->type, s->n, s->k, "gate");
        int up = add_matmul(&t, x, s->type, s->n, s->k, "up");
        int act = add(&t, "silu(%%%d) : f32[T, %d] @\"act\"", gate, s->n);
        y = add(&t, "mul(%%%d, %%%d) : f32[T, %d] @\"product\"", act, up, s->n);
    } else {
        y = add_matmul(&t, x, s->type, s->n, s->k, "m");
    }
    add_output(&t, y, "y");
    pass_options options = {.fusion = s->prologue ? "prologues" : "full",
                            .activations_f32 = s->half != NULL};
    if (s->half && *s->half)
        ck_assert(ir_dtype_from_name(s->half, &options.activations_half));
    return graph_compile(parse(&t), &options, s->key);
}

static const cg_kernel *matmul_of(const compiled_graph *g, int *index) {
    for (int i = 0; i < g->program->n_kernels; i++)
        if (g->program->kernels[i]->anchor == CG_ANCHOR_MATMUL) {
            *index = i;
            return g->program->kernels[i];
        }
    ck_abort_msg("no matmul");
}

static const cg_cuda_target *sm_90a(void) {
    return cg_cuda_target_find("cuda:sm_90a");
}

/* The key; the cost model's tiles are legal on every architecture and give the same functions again
 * when they are given; the table is asked. */
START_TEST(tables) {
    compiled_graph *g = make_graph(&subjects[_i], _i);
    int index, n;
    const cg_kernel *kernel = matmul_of(g, &index);
    ck_assert_str_eq(cg_cuda_tile_key(kernel, sm_90a(), g->arena), subjects[_i].key);
    const cg_cuda_target *all = cg_cuda_targets(&n);
    for (int t = 0; t < n; t++) {
        cg_cuda_code chosen, given;
        ck_assert(cg_cuda_generate_for(kernel, &all[t], NULL, g->arena, &g->diag, &chosen));
        ck_assert(!chosen.given);
        cg_cuda_tiles table = {&chosen.tiling, 1};
        ck_assert(cg_cuda_generate_for(kernel, &all[t], &table, g->arena, &g->diag, &given));
        ck_assert(given.given);
        ck_assert_int_eq(given.n_functions, chosen.n_functions);
        for (int f = 0; f < given.n_functions; f++)
            ck_assert_str_eq(given.functions[f].source, chosen.functions[f].source);
        /* One function less where the table has one tile less. */
        cg_cuda_tiling one = chosen.tiling;
        one.n = 1;
        table.all = &one;
        ck_assert(cg_cuda_generate_for(kernel, &all[t], &table, g->arena, &g->diag, &given));
        ck_assert_int_lt(given.n_functions, chosen.n_functions);
    }
    graph_destroy(g);
}
END_TEST

/* Errors name the key, the tile and the limit. */
START_TEST(illegal_tiles) {
    static const struct {
        int subject;
        cg_cuda_tiling tiling;
        const char *message;
    } cases[] = {
        {0, {NULL, 0, {{0}}}, "no tiles"},
        {0, {NULL, 1, {{1, CG_FORM_A8_DECODE, {1, 8, 2}}}}, "must be for 0 rows"},
        {0,
         {NULL, 2, {{0, CG_FORM_A8_DECODE, {1, 8, 2}}, {0, CG_FORM_A8_DECODE, {8, 8, 2}}}},
         "tile 2 (a8_decode from 0 rows on): rows do not ascend"},
        {0, {NULL, 1, {{0, CG_FORM_A8_DECODE, {9, 8, 2}}}}, "tokens is 9, expected 1 to 8"},
        {0, {NULL, 1, {{0, CG_FORM_A8_DECODE, {1, 6, 2}}}}, "powers of two"},
        {0, {NULL, 1, {{0, CG_FORM_F32, {1, 4, 3}}}}, "not a form of this kernel"},
        {0, {NULL, 1, {{0, CG_FORM_A8_PREFILL, {1, 1, 1, 4, 4, 3}}}}, "multiple of 2"},
        {1, {NULL, 1, {{0, CG_FORM_A8_PREFILL, {2, 1, 1, 4, 4, 3}}}}, "multiple of 4"},
        {0, {NULL, 1, {{0, CG_FORM_A8_PREFILL, {4, 1, 2, 16, 4, 3}}}}, "16 at most"},
        {0, {NULL, 1, {{0, CG_FORM_A8_PREFILL, {8, 1, 4, 4, 8, 6}}}}, "bytes of shared memory"},
        {4, {NULL, 1, {{0, CG_FORM_F32_PROLOGUE, {1, 4, 3}}}}, "has no prologue"},
        {5, {NULL, 1, {{0, CG_FORM_HALF_DECODE, {8, 4}}}}, "units must be"},
        {5, {NULL, 1, {{0, CG_FORM_HALF_PREFILL, {4, 1, 3, 3}}}}, "tiles_n even"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const subject *s = &subjects[cases[i].subject];
        compiled_graph *g = make_graph(s, cases[i].subject);
        int index;
        const cg_kernel *kernel = matmul_of(g, &index);
        cg_cuda_tiling tiling = cases[i].tiling;
        cg_cuda_tiles table = {&tiling, 1};
        cg_cuda_code code;
        ir_diag diag = {0};
        tiling.key = s->key;
        ck_assert_msg(!cg_cuda_generate_for(kernel, sm_90a(), &table, g->arena, &diag, &code),
                      "case %zu is legal", i);
        ck_assert_str_eq(diag.messages[0].where, s->key);
        ck_assert_msg(strstr(diag.messages[0].text, cases[i].message) != NULL, "case %zu: %s", i,
                      diag.messages[0].text);
        ir_diag_clear(&diag);
        graph_destroy(g);
    }
}
END_TEST

/* Beside the tiles that are chosen, others: all variants of a kernel must agree bit for bit, in one
 * step of few and one of more rows, with all checks on. */
START_TEST(same_bits) {
    enum { MOST = 64 };
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    compiled_graph *g = make_graph(&subjects[_i], _i);
    int index;
    const cg_kernel *kernel = matmul_of(g, &index);
    cg_cuda_tile all[MOST];
    int n = cg_cuda_tile_candidates(kernel, sm_90a(), g->arena, all, MOST);
    ck_assert_int_gt(n, 3);
    ck_assert_int_lt(n, MOST);
    int first = (int)(graph_seed() * 7919 % (uint64_t)n), step = test_full() ? 1 : n;
    for (int i = 0; i < n; i += step) {
        if (test_full() && !test_case_is_mine(_i + i))
            continue;
        cg_cuda_tiling tiling = {
            cg_cuda_tile_key(kernel, sm_90a(), g->arena), 1, {all[(first + i) % n]}};
        cg_cuda_tiles table = {&tiling, 1};
        cuda_graph *c = cuda_graph_create(g, "cuda:sm_90a");
        if (subjects[_i].half && *subjects[_i].half)
            c->other_bits = cuda_any_bits;
        c->schedule_seed = graph_seed() + (uint64_t)i;
        cuda_add_tiles(c, index, &table);
        static const int counts[] = {3, 37};
        for (int k = 0; k < 2; k++) {
            int32_t ids[64], positions[64], rows[64], offsets[2] = {0, counts[k]}, slots[1] = {0};
            for (int t = 0; t < counts[k]; t++) {
                ids[t] = (int32_t)(cpu_random() % VOCAB);
                positions[t] = rows[t] = t;
            }
            ir_interp_step interp = {.T = counts[k],
                                     .S = 1,
                                     .R = counts[k],
                                     .token_ids = ids,
                                     .positions = positions,
                                     .seq_offsets = offsets,
                                     .seq_slots = slots,
                                     .output_rows = rows};
            cuda_graph_run(c, &interp);
        }
        cuda_graph_destroy(c);
    }
    graph_destroy(g);
}
END_TEST

static Suite *cuda_tiles_suite(void) {
    graph_say_seed();
    Suite *suite = suite_create("cuda_tiles");
    TCase *tcase = tcase_create("tiles");
    tcase_set_timeout(tcase, test_full() ? 3600 : 300);
    tcase_add_test(tcase, round_trip);
    tcase_add_test(tcase, bad_files);
    tcase_add_test(tcase, merging);
    tcase_add_loop_test(tcase, tables, 0, N_TABLES);
    tcase_add_test(tcase, illegal_tiles);
    test_add_emulated(tcase, same_bits, 0, N_SUBJECTS, N_SUBJECTS);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(cuda_tiles_suite)
