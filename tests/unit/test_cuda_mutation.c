/* Mutation: would the emulator's checks and the comparison of results notice, were a kernel wrong?
 * Every kernel's PTX is broken in one place at a time - each barrier, wait, fence, predicate,
 * comparison and clamp dropped or altered - and run with all checks; a mutant is killed by a
 * checker, by its results, by the memory traffic or the instructions that it adds, or by running on
 * without end. Of
 * each kernel at least 95 % of the mutants must die (less where `demand` says so), and each
 * survivor have its reason in tests/mutation/survivors.txt. And the other way round: unchanged
 * kernels raise no alarm, whatever the schedule of warps and blocks.
 *
 * A sample of kernels by default; all with MCC_TEST_FULL=1, in parts by MCC_TEST_SHARD. Of a
 * kernel's functions, which have hundreds of mutants each, both take a sample: MCC_MUTATION_SAMPLE
 * is its size for a function, or `all` (hours). MCC_MUTATION_SHOW=1 lists explained survivors and
 * the checkers' messages, MCC_MUTATION_DUMP=DIR keeps the PTX, MCC_MUTATION_LINE is the line of PTX
 * of the only mutants. */
#include "cuda_mutants.h"

#include <fnmatch.h>
#include <limits.h>

static const char *const quantized[] = {"q4_0", "q4_1", "q5_0", "q5_1",
                                        "q8_0", "q4_k", "q5_k", "q6_k"};
static const char *const floats[] = {"f32", "f16", "bf16"};
static const char *const targets[] = {"cuda:sm_80", "cuda:sm_90a", "cuda:sm_100a", "cuda:sm_120"};

enum {
    N_QUANTIZED = sizeof quantized / sizeof *quantized,
    N_FLOATS = sizeof floats / sizeof *floats,
    N_TARGETS = sizeof targets / sizeof *targets,
    MOST_STEPS = 20,
    MOST_BLOCKS = 4,                 /* of a matmul along its rows, but for the first inputs */
    SAMPLE = TEST_SANITIZED ? 1 : 4, /* mutants of a function */
    FULL_SAMPLE = 12,
    SPARSE = TEST_SANITIZED ? 2 : 1, /* how many times fewer kernels a sample has */
    SCHEDULES = 3                    /* that a mutant without a barrier or the like is run with */
};

/* --- survivors with a reason ---------------------------------------------------------------------
 */

/* A line of survivors.txt: KERNEL | KIND | FILE | SOURCE LINE | REASON; KERNEL is a pattern of the
 * shell's kind, KIND may have a way behind it ("clamp 0"), SOURCE LINE is a part of the line that
 * the mutated instruction comes from, or nothing where the compiler names no line. */
typedef struct reason {
    char *kernel, *kind, *file, *source;
    bool used;
} reason;

static reason reasons[256];
static int n_reasons;

static char *field(char **p) {
    char *at = *p, *end = strstr(at, " | ");
    if (!end)
        return NULL;
    *end = 0;
    *p = end + 3;
    return at;
}

static void read_reasons(void) {
    FILE *f = fopen(MCC_TEST_DATA "/mutation/survivors.txt", "r");
    char line[1024];
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f)) {
        char *p = line;
        if (line[0] == '#' || line[0] == '\n')
            continue;
        ck_assert_int_lt(n_reasons, (int)(sizeof reasons / sizeof *reasons));
        reason *r = &reasons[n_reasons++];
        r->kernel = field(&p);
        r->kind = field(&p);
        r->file = field(&p);
        r->source = field(&p);
        ck_assert_msg(r->source && strlen(p) > 10, "survivors.txt: not five fields: %s", line);
        r->kernel = strdup(r->kernel);
        r->kind = strdup(r->kind);
        r->file = strdup(r->file);
        r->source = strdup(r->source);
    }
    fclose(f);
}

static bool has_reason(const char *kernel, const mutation *m, const char *file,
                       const char *source) {
    bool found = false;
    char way[32];
    snprintf(way, sizeof way, "%s %d", mutation_kind_names[m->kind], m->way);
    for (int i = 0; i < n_reasons; i++)
        if (fnmatch(reasons[i].kernel, kernel, 0) == 0 &&
            (strcmp(reasons[i].kind, mutation_kind_names[m->kind]) == 0 ||
             strcmp(reasons[i].kind, way) == 0) &&
            strcmp(reasons[i].file, file) == 0 &&
            (*reasons[i].source ? strstr(source, reasons[i].source) != NULL : !*source))
            found = reasons[i].used = true;
    return found;
}

/* --- sources -------------------------------------------------------------------------------------
 */

/* Line `number` of a text, without its indentation; "" where there is none. */
static void text_line(const char *text, int number, char *line, size_t capacity) {
    *line = 0;
    for (int i = 1; i < number && text; i++) {
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    if (!text || number < 1)
        return;
    text += strspn(text, " ");
    snprintf(line, capacity, "%.*s", (int)strcspn(text, "\n"), text);
}

static char *whole_file(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/../codegen/cuda/kernels/%s", MCC_TEST_DATA, name);
    FILE *f = fopen(path, "r");
    if (!f)
        return NULL;
    char *text = calloc(1, 1 << 18);
    size_t n = fread(text, 1, (1 << 18) - 1, f);
    text[n] = 0;
    fclose(f);
    return text;
}

/* The name of the mutation's file, and its line. */
static const char *source_of(const mutations *all, const mutation *m, const char *generated,
                             char *line, size_t capacity) {
    const char *name = m->file < 64 && all->files[m->file] ? all->files[m->file] : "";
    const char *slash = strrchr(name, '/');
    name = slash ? slash + 1 : name;
    char *text = whole_file(name);
    text_line(text ? text : generated, m->line, line, capacity);
    bool header = text != NULL;
    free(text);
    return header ? name : "generated";
}

/* --- mutants of a function -----------------------------------------------------------------------
 */

typedef struct score {
    int mutants, by_checker, by_result, by_traffic, by_work, by_limit, survivors, unexplained;
} score;

/* What is asked of a kernel: percent of its mutants noticed, when all are tried, and whether
 * survivors of all kinds need a reason, or only those without a barrier, wait, commit or fence. */
typedef struct demand {
    int percent;
    bool all_kinds;
} demand;

typedef enum outcome { SURVIVES, BY_CHECKER, BY_RESULT, BY_TRAFFIC, BY_WORK, BY_LIMIT } outcome;

/* Whether chance, the order in which warps run, can show what a mutant has lost. */
static bool needs_luck(mutation_kind kind) {
    return kind == MUTATE_BARRIER || kind == MUTATE_WAIT || kind == MUTATE_COMMIT ||
           kind == MUTATE_FENCE;
}

/* Inputs in the order in which they are tried: those first that have noticed most mutants for what
 * a run of them costs. */
typedef struct input_order {
    mutant_input *inputs[MOST_STEPS];
    double noticed[MOST_STEPS]; /* mutants, and one, for each instruction */
    int n;
} input_order;

static void input_noticed(input_order *order, int i) {
    double noticed =
        order->noticed[i] + 1 / (double)(order->inputs[i]->counters.warp_instructions + 1);
    mutant_input *in = order->inputs[i];
    for (; i > 0 && order->noticed[i - 1] < noticed; i--) {
        order->inputs[i] = order->inputs[i - 1];
        order->noticed[i] = order->noticed[i - 1];
    }
    order->inputs[i] = in;
    order->noticed[i] = noticed;
}

static void input_order_begin(input_order *order, mutant_input *const *inputs, int n) {
    order->n = n;
    for (int i = 0; i < n; i++) {
        order->inputs[i] = inputs[i];
        order->noticed[i] = 0;
        input_noticed(order, i);
    }
}

static outcome judge(const cg_cuda_function *f, const char *ptx, mutation_kind kind,
                     mutant_graph *g, input_order *order, uint64_t seed, char *error,
                     size_t capacity) {
    ptx_module *module = ptx_module_create(ptx, strlen(ptx), error, capacity);
    if (!module)
        return BY_CHECKER;
    outcome o = SURVIVES;
    ck_assert(ptx_module_load(module, g->memory, error, capacity));
    for (int k = 0; k < (needs_luck(kind) ? SCHEDULES : 1) && o == SURVIVES; k++)
        for (int i = 0; i < order->n && o == SURVIVES; i++) {
            const mutant_input *in = order->inputs[i];
            uint64_t schedule = k ? seed * 977 + (uint64_t)(k * MOST_STEPS + i) : 0;
            emu_counters counters = {0};
            if (!mutant_run(f, module, order->inputs[i], in->limit, schedule, k ? NULL : &counters,
                            error, capacity))
                o = strstr(error, "an endless loop?") ? BY_LIMIT : BY_CHECKER;
            else if (!mutant_same_result(in))
                o = BY_RESULT;
            else if (!k && mutant_more_traffic(in, &counters))
                o = BY_TRAFFIC;
            else if (!k && mutant_more_work(in, &counters))
                o = BY_WORK;
            if (o != SURVIVES)
                input_noticed(order, i);
        }
    ptx_module_destroy(module);
    return o;
}

static score kernel_score; /* of all functions of a kernel so far */

static void report_survivor(const cg_cuda_function *f, const char *target, const mutations *all,
                            const mutation *m, const char *ptx, const demand *wanted, score *s) {
    char line[256];
    const char *file = source_of(all, m, f->source, line, sizeof line);
    bool known = has_reason(f->name, m, file, line);
    s->survivors++;
    s->unexplained += !known && (wanted->all_kinds || needs_luck(m->kind));
    if (!known || getenv("MCC_MUTATION_SHOW"))
        printf("%s survivor: %s | %s %d | %s | %s | %s, line %d: %.*s => %s\n",
               known ? "explained" : "unexplained", f->name, mutation_kind_names[m->kind], m->way,
               file, line, target, m->ptx_line, (int)(m->end - m->begin), ptx + m->begin, m->text);
    fflush(stdout);
}

/* No false alarm, and the same results, however warps and blocks take turns. */
static void run_schedules(const cg_cuda_function *f, ptx_module *module,
                          mutant_input *const *inputs, int n_inputs) {
    char error[1024];
    for (int k = 0; k < (test_full() ? 100 : 3); k++) {
        mutant_input *in = inputs[k % n_inputs];
        uint64_t seed = graph_seed() * 1000 + (uint64_t)k + 1;
        if (!mutant_run(f, module, in, 0, seed, NULL, error, sizeof error))
            ck_abort_msg("false alarm, schedule %llu: %s", (unsigned long long)seed, error);
        ck_assert_msg(mutant_same_result(in), "%s: other results with schedule %llu", f->name,
                      (unsigned long long)seed);
    }
}

/* How many mutants of a function are tried; INT_MAX for all. */
static int sample_size(void) {
    const char *size = getenv("MCC_MUTATION_SAMPLE");
    if (size)
        return strcmp(size, "all") == 0 ? INT_MAX : atoi(size);
    return test_full() ? FULL_SAMPLE : SAMPLE;
}

static bool only_schedules; /* unchanged kernels on many schedules; else mutants */

static void mutate_function(mutant_graph *g, const cg_cuda_function *f, const char *target,
                            bool second, mutant_input *const *inputs, int n_inputs,
                            const demand *wanted) {
    const cg_cuda_options options = {.ptx_only = true};
    cg_cuda_image image;
    char error[1024];
    score s = {0};
    mutations all;
    if (!cg_cuda_compile(f, cg_cuda_target_find(target), &options, &g->diag, &image)) {
        ir_diag_print(&g->diag, stderr);
        ck_abort_msg("%s does not compile", f->name);
    }
    ptx_module *module = ptx_module_create(image.ptx, strlen(image.ptx), error, sizeof error);
    ck_assert_msg(module && ptx_module_load(module, g->memory, error, sizeof error), "%s", error);
    for (int i = 0; i < n_inputs; i++) {
        mutant_scratch_begin(inputs[i], second);
        mutant_run_clean(f, module, inputs[i]);
    }
    if (only_schedules) {
        run_schedules(f, module, inputs, n_inputs);
        for (int i = 0; f->first_of_two && i < n_inputs; i++)
            ck_assert(mutant_run(f, module, inputs[i], 0, 0, NULL, error, sizeof error));
        ptx_module_destroy(module);
        cg_cuda_image_free(&image);
        return;
    }
    mutations_find(image.ptx, &all);
    if (getenv("MCC_MUTATION_DUMP")) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s.ptx", getenv("MCC_MUTATION_DUMP"), f->name);
        FILE *dump = fopen(path, "w");
        fputs(image.ptx, dump);
        fclose(dump);
    }
    ck_assert_int_gt(all.n, 0);
    const char *line = getenv("MCC_MUTATION_LINE");
    int sample = sample_size();
    input_order order;
    input_order_begin(&order, inputs, n_inputs);
    for (int i = 0; i < all.n; i++) {
        if (line ? all.items[i].ptx_line != atoi(line)
                 : (int)(cpu_random() % (unsigned)all.n) >= sample)
            continue;
        char *text = mutation_apply(image.ptx, &all.items[i]);
        outcome o = judge(f, text, all.items[i].kind, g, &order, graph_seed() + (uint64_t)i, error,
                          sizeof error);
        if (getenv("MCC_MUTATION_SHOW") && o == BY_CHECKER)
            printf("%s: %s\n", mutation_kind_names[all.items[i].kind], error);
        s.mutants++;
        s.by_checker += o == BY_CHECKER;
        s.by_result += o == BY_RESULT;
        s.by_traffic += o == BY_TRAFFIC;
        s.by_work += o == BY_WORK;
        s.by_limit += o == BY_LIMIT;
        if (o == SURVIVES)
            report_survivor(f, target, &all, &all.items[i], image.ptx, wanted, &s);
        free(text);
    }
    printf("%s %s: %d mutants of %d, killed %d by checks, %d by results, %d by traffic, %d by "
           "more work, %d by the limit; %d survive: %.1f %%\n",
           f->name, target, s.mutants, all.n, s.by_checker, s.by_result, s.by_traffic, s.by_work,
           s.by_limit, s.survivors,
           s.mutants ? 100.0 * (s.mutants - s.survivors) / s.mutants : 100.0);
    fflush(stdout);
    kernel_score.mutants += s.mutants;
    kernel_score.survivors += s.survivors;
    kernel_score.unexplained += s.unexplained;
    for (int i = 0; f->first_of_two && i < n_inputs; i++) /* for the second one */
        ck_assert(mutant_run(f, module, inputs[i], 0, 0, NULL, error, sizeof error));
    ptx_module_destroy(module);
    mutations_free(&all);
    cg_cuda_image_free(&image);
}

static void judge_kernel(const cg_kernel *kernel, const demand *wanted) {
    const score *s = &kernel_score;
    ck_assert_msg(!s->unexplained, "%s: %d survivors have no reason in survivors.txt", kernel->name,
                  s->unexplained);
    if (sample_size() == INT_MAX)
        ck_assert_msg((s->mutants - s->survivors) * 100 >= s->mutants * wanted->percent,
                      "%s: only %d of %d mutants are noticed", kernel->name,
                      s->mutants - s->survivors, s->mutants);
    kernel_score = (score){0};
}

/* All functions of a graph's kernels of one anchor. */
static void mutate_graph(const text *t, const pass_options *options, const ir_target *passes,
                         cg_anchor anchor, const char *target, const mutant_step *steps,
                         int n_steps, const demand *wanted) {
    mutant_graph *g = mutant_graph_create(parse(t), options, passes);
    bool seen[64] = {false};
    for (int i = 0; i < g->program->n_launches; i++) {
        const cg_launch *l = &g->program->launches[i];
        const cg_kernel *kernel = g->program->kernels[l->kernel];
        cg_cuda_code code;
        ck_assert_int_lt(l->kernel, 64);
        if (kernel->anchor != anchor || seen[l->kernel])
            continue;
        seen[l->kernel] = true;
        ck_assert(cg_cuda_generate(kernel, g->arena, &g->diag, &code));
        uint64_t row_scratch = 0, range_scratch = 0;
        for (int k = 0; k < code.n_functions; k++) {
            const cg_cuda_function *f = &code.functions[k];
            range_scratch = f->scratch_bytes > range_scratch ? f->scratch_bytes : range_scratch;
            row_scratch = f->row_scratch_bytes > row_scratch ? f->row_scratch_bytes : row_scratch;
        }
        mutant_input *inputs[MOST_STEPS];
        for (int k = 0; k < n_steps; k++)
            inputs[k] = mutant_input_create(g, l, &steps[k], row_scratch, range_scratch);
        for (int k = 0; k < code.n_functions; k++) {
            mutant_input *some[MOST_STEPS]; /* not those of many small blocks, which show no more */
            int n = 0;
            for (int s = 0; s < n_steps; s++)
                if (s < 3 || mutant_blocks(&code.functions[k].x, inputs[s]) <= MOST_BLOCKS ||
                    anchor != CG_ANCHOR_MATMUL || kernel->matmul.prologue)
                    some[n++] = inputs[s];
            mutate_function(g, &code.functions[k], target,
                            k > 0 && code.functions[k - 1].first_of_two, some, n, wanted);
        }
        judge_kernel(kernel, wanted);
        for (int k = 0; k < n_steps; k++)
            mutant_input_destroy(inputs[k]);
    }
    mutant_graph_destroy(g);
}

#define NEEDS_NVRTC()                                                                              \
    do {                                                                                           \
        char nvrtc[1024];                                                                          \
        if (!cg_cuda_nvrtc_find(nvrtc, sizeof nvrtc))                                              \
            TEST_SKIP("no kernels to mutate: %s", nvrtc);                                          \
        read_reasons();                                                                            \
    } while (0)

/* Prologues, matmuls of f32, attention, sampling and what stores quantized pages have many
 * predicates that save work or whose inputs are rare, unrolled many times: not all survivors are
 * explained, and the percentages are what is reached. */
static const demand full_demand = {95, true}, f32_demand = {93, false},
                    prologue_demand = {93, false}, half_demand = {95, false},
                    attention_demand = {80, false}, sample_demand = {93, false},
                    codes_demand = {80, false};

/* --- matmuls -------------------------------------------------------------------------------------
 */

typedef enum around { RESIDUAL, LOCKSTEP, PROLOGUE, N_AROUND } around;

static void write_matmul(text *t, const char *type, around kind, int n, int k) {
    start(t);
    int tokens = add_tokens(t), x = add_rows(t, tokens, "x", k), y;
    if (kind == PROLOGUE) {
        int w = add(t, "weight {name = \"norm\"} : f32[%d]", k);
        x = add(t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, %d] @\"normed\"", x, w, k);
    }
    if (kind == RESIDUAL) {
        int residual = add_rows(t, tokens, "residual", n);
        y = add_matmul(t, x, type, n, k, "m");
        y = add(t, "add(%%%d, %%%d) : f32[T, %d] @\"sum\"", residual, y, n);
    } else {
        int gate = add_matmul(t, x, type, n, k, "gate"), up = add_matmul(t, x, type, n, k, "up");
        int act = add(t, "silu(%%%d) : f32[T, %d] @\"act\"", gate, n);
        y = add(t, "mul(%%%d, %%%d) : f32[T, %d] @\"product\"", act, up, n);
    }
    add_output(t, y, "y");
}

static const mutant_step matmul_steps[] = {
    {1, {{0, 9}}, .spare = 15},
    {1, {{0, 1}}, .spare = 1},
    {1, {{0, 6}}, .odd = true},
    {1, {{0, 8}}, .loud = true, .spare = 8},
    {1, {{0, 10}}, .spare = 0},
    {1, {{0, 11}}, .spare = 0},
    {1, {{0, 12}}, .spare = 0},
    {1, {{0, 13}}, .spare = 0},
    {1, {{0, 15}}, .spare = 0},
    {1, {{0, 25}}, .spare = 0},
    {1, {{0, 41}}, .spare = 0},
    {1, {{0, 57}}, .spare = 0},
    {1, {{0, 64}}, .spare = 64},
    /* fp8, whose kernels are smaller, so that what the others miss would weigh more */
    {1, {{0, 17}}, .spare = 0},
    {1, {{0, 19}}, .spare = 0},
    {1, {{0, 21}}, .spare = 0},
    {1, {{0, 29}}, .spare = 0}};
enum { FP8_STEPS = sizeof matmul_steps / sizeof *matmul_steps, MATMUL_STEPS = FP8_STEPS - 4 };

typedef enum activations { INT8, F32, HALF } activations;

static void mutate_matmul(const char *type, around kind, activations x, const char *target) {
    const ir_encoding *e = ir_encoding_from_name(type);
    bool f32 = x == F32;
    /* Of n a ragged last tile, alone in its block; of k so many stages that the last one lies
     * where results go, and a ragged one where blocks of k allow it. */
    int n = kind == RESIDUAL ? 132 : 72, k = e && e->super_group ? 512 : e ? 416 : 148;
    if (kind == RESIDUAL)
        k = e && e->super_group ? 1280 : e ? 800 : 149;
    /* The prologue's sum lies where copies of weights go. */
    if (kind == PROLOGUE && f32 && e && e->super_group)
        k = 768;
    if (x == HALF && !e) /* one range of k, or two unequal ones, with a ragged last stage */
        k = kind == RESIDUAL ? 952 : 184;
    text t;
    write_matmul(&t, type, kind, n, k);
    pass_options options = {.fusion = kind == PROLOGUE ? "prologues" : "full",
                            .activations_f32 = x != INT8};
    if (x == HALF)
        ck_assert(ir_dtype_from_name(e ? kind == RESIDUAL ? "f16" : "bf16" : type,
                                     &options.activations_half));
    /* the CPU's passes leave norms and quantization out of the matmul */
    mutate_graph(&t, &options, kind == PROLOGUE ? cg_cuda_pass_target() : cg_cpu_pass_target(),
                 CG_ANCHOR_MATMUL, target, matmul_steps, x == HALF && e ? FP8_STEPS : MATMUL_STEPS,
                 kind == PROLOGUE  ? &prologue_demand
                 : x == HALF && !e ? &half_demand
                 : f32             ? &f32_demand
                                   : &full_demand);
}

START_TEST(int8_activations) {
    NEEDS_NVRTC();
    for (int kind = 0; kind < N_AROUND; kind++) {
        int number = _i * N_AROUND + kind;
        graph_seed_case(9000, number);
        if (test_full() ? graph_case_is_mine(number)
                        : (uint64_t)number % (12 * SPARSE) == graph_seed() % (12 * SPARSE))
            mutate_matmul(quantized[_i], (around)kind, INT8, targets[number % N_TARGETS]);
    }
}
END_TEST

START_TEST(f32_activations) {
    NEEDS_NVRTC();
    const char *type = _i < N_QUANTIZED ? quantized[_i] : floats[_i - N_QUANTIZED];
    for (int kind = 0; kind < N_AROUND; kind++) {
        int number = _i * N_AROUND + kind;
        graph_seed_case(9100, number);
        if (test_full() ? graph_case_is_mine(number)
                        : (uint64_t)number % (16 * SPARSE) == graph_seed() % (16 * SPARSE))
            mutate_matmul(type, (around)kind, F32, targets[(number + 1) % N_TARGETS]);
    }
}
END_TEST

enum { N_HALF = 6 };

/* 16-bit and fp8 weights by 16-bit activations, on tensor cores. */
START_TEST(half_activations) {
    NEEDS_NVRTC();
    graph_seed_case(9400, _i);
    if (test_full() ? graph_case_is_mine(_i) : (uint64_t)_i % N_HALF == graph_seed() % N_HALF)
        mutate_matmul(_i >= 4  ? "fp8_e4m3"
                      : _i % 2 ? "bf16"
                               : "f16",
                      (_i >= 4 ? _i % 2 : _i / 2) ? LOCKSTEP : RESIDUAL, HALF,
                      targets[(_i + _i / 2) % N_TARGETS]);
}
END_TEST

/* --- attention -----------------------------------------------------------------------------------
 */

typedef struct heads {
    int kv, per_kv, dim, window;
    double softcap;
    pass_kv pages;
} heads;

static const heads attentions[] = {
    {1, 3, 64, 0, 0, PASS_KV_F16},  {2, 2, 32, 40, 20, PASS_KV_F16},
    {1, 4, 80, 0, 0, PASS_KV_F16},  {2, 1, 128, 300, 0, PASS_KV_F16},
    {1, 9, 32, 0, 0, PASS_KV_F16},  {1, 2, 40, 0, 0, PASS_KV_F16},
    {1, 3, 64, 0, 0, PASS_KV_F32},  {2, 2, 32, 40, 20, PASS_KV_F32},
    {1, 3, 64, 0, 0, PASS_KV_INT8}, {2, 2, 32, 40, 20, PASS_KV_FP8},
    {1, 2, 40, 0, 0, PASS_KV_INT8},
};
enum { N_ATTENTIONS = sizeof attentions / sizeof *attentions };

/* The last ones have bounds at all places that an unrolled loop tells apart. */
static const mutant_step attention_steps[] = {
    {2, {{0, 3}, {299, 1}}, .spare = 2},
    {3, {{250, 9}, {0, 1}, {15, 2}}, .spare = 0},
    {4, {{767, 1}, {47, 1}, {520, 1}, {255, 1}}, .spare = 4},
    {1, {{0, 37}}, .spare = 0},
    {2, {{9, 8}, {300, 3}}, .odd = true},
    {2, {{3, 5}, {600, 17}}, .loud = true},
    {2, {{292, 6}, {552, 6}}, .spare = 0},
    {1, {{0, 32}}, .spiky = true, .spread = true},
    {1, {{256, 32}}, .spread = true},
    {3, {{315, 1}, {55, 1}, {40, 1}}, .spare = 0},
    {4, {{257, 2}, {288, 2}, {320, 2}, {352, 2}}, .spread = true},
    {4, {{384, 2}, {416, 2}, {448, 2}, {480, 2}}, .spread = true},
    {MUTANT_MAX_SEQS, {{0, 0}}, .spare = 4, .pages = 17, .spread = true},
    {4, {{0, 25}, {27, 25}, {52, 25}, {98, 36}}, .spare = 0},
    {4, {{141, 5}, {160, 5}, {205, 5}, {236, 5}}, .spare = 0},
    {32, {{0, 0}}, .spare = 1, .pages = 2},
    /* more ranges than splits; the last one's bounds, with windows too; a table without room */
    {4,
     {{8450, 2}, {8500, 2}, {8518, 2}, {8560, 2}},
     .pages = 536,
     .spread = true,
     .lacking = true},
    {4, {{8593, 2}, {8611, 2}, {8661, 2}, {8672, 2}}, .pages = 543, .spread = true},
    {4, {{8474, 2}, {8492, 2}, {8575, 2}, {8523, 2}}, .pages = 535, .spread = true},
};
enum { ATTENTION_STEPS = sizeof attention_steps / sizeof *attention_steps };

static void write_attention(text *t, const heads *h) {
    int n = h->kv * h->per_kv;
    start(t);
    int tokens = add_tokens(t), x[3];
    static const char *const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) {
        int count = i ? h->kv : n;
        x[i] = add_rows(t, tokens, names[i], (int64_t)count * h->dim);
        x[i] = add(t, "reshape(%%%d) : f32[T, %d, %d]", x[i], count, h->dim);
    }
    int y = add(t,
                "attention(%%%d, %%%d, %%%d) {scale = 0.125, window = %d, softcap = %g} : f32[T, "
                "%d, %d] @\"attention\"",
                x[0], x[1], x[2], h->window, h->softcap, n, h->dim);
    y = add(t, "reshape(%%%d) : f32[T, %d]", y, n * h->dim);
    int c = add(t, "constant {values = [0.5]} : f32[]");
    y = add(t, "mul(%%%d, %%%d) : f32[T, %d] @\"halved\"", y, c, n * h->dim);
    add_output(t, y, "y");
}

START_TEST(attention) {
    NEEDS_NVRTC();
    const heads *h = &attentions[_i];
    graph_seed_case(9200, _i);
    if (!(test_full() ? graph_case_is_mine(_i)
                      : (uint64_t)_i == graph_seed() % (N_ATTENTIONS * SPARSE)))
        return;
    text t;
    write_attention(&t, h);
    pass_options options = {.kv = h->pages};
    mutate_graph(&t, &options, cg_cuda_pass_target(), CG_ANCHOR_ATTENTION, targets[_i % N_TARGETS],
                 attention_steps, ATTENTION_STEPS, &attention_demand);
}
END_TEST

/* --- rows ----------------------------------------------------------------------------------------
 */

enum { N_ROWS = 6 };

static const mutant_step rows_steps[] = {{2, {{750, 5}, {14, 4}}, .spare = 3},
                                         {1, {{0, 1}}, .spare = 0},
                                         {2, {{0, 9}, {30, 8}}, .odd = true}};

/* A layer's rows kernels: a gathered embedding, norms, quantization, rope, the cache. */
static void write_rows(text *t, int number) {
    enum { WIDTH = 96, DIM = 32 };
    start(t);
    int tokens = add_tokens(t);
    int positions = add(t, "input {name = \"positions\"} : i32[T]");
    const char *type = number % 2 ? "q4_1" : "q8_0";
    int w = add(t, "weight {name = \"embedding\"} : %s[%d, %d]", type, VOCAB, WIDTH);
    int x = add(t, "gather(%%%d, %%%d) : f32[T, %d] @\"embed\"", w, tokens, WIDTH);
    int norm = add(t, "weight {name = \"norm\"} : f32[%d]", WIDTH);
    x = add(t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, %d] @\"normed\"", x, norm, WIDTH);
    int table =
        add(t,
            "rope_table(%%%d) {theta = 10000, dims = %d, width = %d, style = \"%s\", scale "
            "= 1} : f32[T, 2, %d] @\"rope\"",
            positions, number == 2 ? DIM / 2 : DIM, DIM, number == 1 ? "interleaved" : "half", DIM);
    int parts[3];
    static const char *const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) {
        int heads = i ? 1 : 2;
        parts[i] = add_matmul(t, x, "q4_1", heads * DIM, WIDTH, names[i]);
        parts[i] = add(t, "reshape(%%%d) : f32[T, %d, %d]", parts[i], heads, DIM);
        if (i < 2)
            parts[i] = add(t,
                           "rope(%%%d, %%%d) {dims = %d, style = \"%s\"} : f32[T, %d, %d] "
                           "@\"rope_%s\"",
                           parts[i], table, number == 2 ? DIM / 2 : DIM,
                           number == 1 ? "interleaved" : "half", heads, DIM, names[i]);
    }
    int y = add(t,
                "attention(%%%d, %%%d, %%%d) {scale = 0.125, window = 0, softcap = 0} : f32[T, "
                "2, %d] @\"attention\"",
                parts[0], parts[1], parts[2], DIM);
    y = add(t, "reshape(%%%d) : f32[T, %d]", y, 2 * DIM);
    int gate = add_matmul(t, y, "q4_1", WIDTH, 2 * DIM, "o");
    y = add(t, "add(%%%d, %%%d) : f32[T, %d] @\"residual\"", x, gate, WIDTH);
    y = add(t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, %d] @\"last\"", y, norm, WIDTH);
    y = add_matmul(t, y, "f16", 40, WIDTH, "head");
    y = add(t, "softmax(%%%d) {axis = 1} : f32[T, 40] @\"softmax\"", y);
    add_output(t, y, "y");
}

START_TEST(rows) {
    NEEDS_NVRTC();
    static const char *const fusions[] = {"full", "none", "full", "pointwise", "full", "full"};
    static const pass_kv pages[] = {PASS_KV_F16, PASS_KV_F16,  PASS_KV_F32,
                                    PASS_KV_F16, PASS_KV_INT8, PASS_KV_FP8};
    graph_seed_case(9300, _i);
    if (!(test_full() ? graph_case_is_mine(_i) : (uint64_t)_i == graph_seed() % N_ROWS))
        return;
    text t;
    write_rows(&t, _i);
    pass_options options = {.fusion = fusions[_i], .kv = pages[_i]};
    mutate_graph(&t, &options, cg_cpu_pass_target(), CG_ANCHOR_ROWS, targets[_i % N_TARGETS],
                 rows_steps, 3, _i < 4 ? &full_demand : &codes_demand);
}
END_TEST

/* --- sampling ------------------------------------------------------------------------------------
 */

static const mutant_step sample_steps[] = {
    {.n_seqs = 1, .seqs = {{0, 8}}, .spare = 2},
    {.n_seqs = 1, .seqs = {{0, 5}}, .odd = true},
    {.n_seqs = 1, .seqs = {{0, 64}}, .logits = true},
    {.n_seqs = 1, .seqs = {{0, 64}}, .logits = true, .maskless = true}};

/* The second function has thousands of mutants, on rows that are long: one target a run. */
START_TEST(sampling) {
    enum { LOGITS = 8300 }; /* two parts; the last unit is ragged */
    NEEDS_NVRTC();
    graph_seed_case(9400, 0);
    if (!(test_full() ? graph_case_is_mine(0) : graph_seed() % 2 == 0))
        return;
    text t;
    start(&t);
    int rows = add(&t, "input {name = \"output_rows\"} : i32[R]");
    int w = add(&t, "weight {name = \"table\"} : f32[2, %d]", LOGITS);
    add_output(&t, add(&t, "gather(%%%d, %%%d) : f32[R, %d] @\"rows\"", w, rows, LOGITS), "logits");
    pass_options options = {.sampling = true};
    mutate_graph(&t, &options, cg_cuda_pass_target(), CG_ANCHOR_SAMPLE,
                 targets[graph_seed() % N_TARGETS], sample_steps, 4, &sample_demand);
}
END_TEST

static void unchanged(void) {
    only_schedules = true;
}

static Suite *cuda_mutation_suite(void) {
    graph_say_seed();
    Suite *suite = suite_create("cuda_mutation");
    TCase *int8 = tcase_create("int8"), *f32 = tcase_create("f32");
    TCase *half = tcase_create("half");
    TCase *heads = tcase_create("attention"), *others = tcase_create("rows");
    TCase *choices = tcase_create("sampling"), *clean = tcase_create("schedules");
    TCase *cases[] = {int8, f32, half, heads, others, choices, clean};
    tcase_add_unchecked_fixture(clean, unchanged, NULL);
    for (int i = 0; i < 7; i++) {
        tcase_set_timeout(cases[i], test_full() ? 3600 : 300);
        suite_add_tcase(suite, cases[i]);
    }
    tcase_add_loop_test(int8, int8_activations, 0, N_QUANTIZED);
    tcase_add_loop_test(f32, f32_activations, 0, N_QUANTIZED + N_FLOATS);
    tcase_add_loop_test(half, half_activations, 0, N_HALF);
    tcase_add_loop_test(heads, attention, 0, N_ATTENTIONS);
    tcase_add_loop_test(others, rows, 0, N_ROWS);
    tcase_add_test(choices, sampling);
    tcase_add_loop_test(clean, int8_activations, 0, N_QUANTIZED);
    tcase_add_loop_test(clean, f32_activations, 0, N_QUANTIZED + N_FLOATS);
    tcase_add_loop_test(clean, half_activations, 0, N_HALF);
    tcase_add_loop_test(clean, attention, 0, N_ATTENTIONS);
    tcase_add_loop_test(clean, rows, 0, N_ROWS);
    tcase_add_test(clean, sampling);
    return suite;
}

CHECK_MAIN(cuda_mutation_suite)
