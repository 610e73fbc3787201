/* Whole models, compiled and run through the public header, against the logits that transformers
 * computes: prefill, token by token, and mixed ragged batches; and the same bits whatever the
 * chunks of the prompt, the threads, the batch, the level of the processor and the fusion.
 *
 * Bound: max|difference| / max|reference| <= 1e-4 with float activations and a float cache.
 *
 * Every model's logits are always checked; of the other tests' models a sample, by MCC_TEST_SEED,
 * unless MCC_TEST_FULL is 1. */
#include "check_main.h"
#include "compiler/build.h"
#include "reference.h"
#include "runtime/modelcc.h"

#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

static const double bound = 1e-4;
enum { EVAL_SEQS = 4, MAX_CASES = REFERENCE_MAX_CASES };

/* A model under test: what to compile and where its reference is. */
typedef struct subject {
    char input[2048], stem[2048];
} subject;

static subject subjects[64];
static int n_subjects;
static char directory[200];

static void find_subjects(void) {
    glob_t found;
    if (glob(MCC_TEST_DATA "/golden/tiny-*", 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++) {
            subject *s = &subjects[n_subjects++];
            snprintf(s->input, sizeof s->input, "%s", found.gl_pathv[i]);
            snprintf(s->stem, sizeof s->stem, "%s/reference", found.gl_pathv[i]);
        }
    globfree(&found);
    if (glob(MCC_TEST_DATA "/golden/gguf/*.gguf", 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++) {
            subject *s = &subjects[n_subjects++];
            int n = (int)strlen(found.gl_pathv[i]) - 5;
            snprintf(s->input, sizeof s->input, "%s", found.gl_pathv[i]);
            snprintf(s->stem, sizeof s->stem, "%.*s", n, found.gl_pathv[i]);
        }
    globfree(&found);
}

static void make_directory(void) {
    test_temporary(directory, sizeof directory, "models");
    ck_assert_ptr_nonnull(mkdtemp(directory));
}

static void remove_directory(void) {
    rmdir(directory);
}

/* Whether the sample has this model: about one in three of them. */
static bool is_sampled(int index, const char *test) {
    const char *seed = getenv("MCC_TEST_SEED");
    if (test_full())
        return true;
    uint32_t h = 2166136261u;
    for (const char *p = test; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    for (const char *p = seed ? seed : "0"; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    h = (h ^ (uint32_t)index) * 16777619u;
    return (h >> 16) % 3 == 0;
}

/* --- compiling
 * ------------------------------------------------------------------------------------- */

static void add_targets(build_options *o, bool all_targets) {
    int n;
    if (!all_targets) {
        o->targets[o->n_targets++] = cg_cpu_target_find("cpu");
        return;
    }
    const cg_cpu_target *all = cg_cpu_targets(&n);
    for (int i = 0; i < n; i++)
        o->targets[o->n_targets++] = &all[i];
}

/* Compiles for this processor, or for every level; the caller unlinks the artifact. */
static void compile(const subject *s, const pass_options *passes, bool all_targets, char *path,
                    size_t capacity) {
    snprintf(path, capacity, "%s/model.so", directory);
    build_options o = {.input = s->input,
                       .output = path,
                       .passes = *passes,
                       .jobs = 2,
                       .opt_level = 2,
                       .quiet = true,
                       .no_tokenizer = true};
    add_targets(&o, all_targets);
    ir_diag diag = {0};
    bool ok = build_run(&o, NULL, &diag);
    if (!ok)
        ir_diag_print(&diag, stderr);
    ck_assert_msg(ok, "%s does not compile", s->input);
    ir_diag_clear(&diag);
}

typedef struct opened {
    mcc_artifact *artifact;
    mcc_engine *engine;
} opened;

/* False when this processor cannot run the target. */
static bool open_model(const char *path, const char *target, int threads, int batched, opened *o) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_artifact_options ao = {.struct_size = sizeof ao, .target = target};
    mcc_status status = mcc_artifact_open(path, &ao, &o->artifact, &error);
    if (status == MCC_CPU_MISMATCH)
        return false;
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    mcc_engine_options eo = {.struct_size = sizeof eo,
                             .threads = threads,
                             .max_num_batched_tokens = batched,
                             .max_eval_seqs = EVAL_SEQS};
    ck_assert_msg(!mcc_engine_create(o->artifact, &eo, &o->engine, &error), "%s", error.text);
    return true;
}

static void close_model(opened *o) {
    mcc_engine_destroy(o->engine);
    mcc_artifact_close(o->artifact);
}

/* --- running
 * ----------------------------------------------------------------------------------------- */

/* Tokens `from` … of several cases, each in the sequence of its index, in one step; every token's
 * row is asked for. out[i] receives rows of case i, [n_tokens][vocab]. */
static void run_step(mcc_engine *engine, const reference *ref, const int *cases, int n_cases,
                     const int32_t *from, const int32_t *count, float *const *out) {
    static int32_t tokens[2048], positions[2048], sequences[2048], rows[2048];
    int32_t t = 0;
    for (int i = 0; i < n_cases; i++)
        for (int32_t k = 0; k < count[i]; k++, t++) {
            tokens[t] = ref->cases[cases[i]].tokens[from[i] + k];
            positions[t] = from[i] + k;
            sequences[t] = i;
            rows[t] = t;
        }
    mcc_error error = {.struct_size = sizeof error};
    mcc_eval_step step = {.struct_size = sizeof step,
                          .n_tokens = t,
                          .n_rows = t,
                          .token_ids = tokens,
                          .positions = positions,
                          .sequences = sequences,
                          .output_rows = rows};
    ck_assert_msg(!mcc_engine_eval(engine, &step, &error), "%s", error.text);
    const float *logits = step.logits;
    for (int i = 0; i < n_cases; i++) {
        memcpy(out[i] + (int64_t)from[i] * ref->vocab, logits,
               (size_t)(count[i] * ref->vocab) * sizeof(float));
        logits += (int64_t)count[i] * ref->vocab;
    }
}

/* Runs one case alone in chunks of `chunk` tokens. */
static float *run_case(mcc_engine *engine, const reference *ref, int index, int chunk) {
    const reference_case *c = &ref->cases[index];
    float *out = malloc((size_t)(c->n_tokens * ref->vocab) * sizeof *out);
    for (int32_t at = 0; at < c->n_tokens; at += chunk) {
        int32_t n = c->n_tokens - at < chunk ? c->n_tokens - at : chunk;
        run_step(engine, ref, &index, 1, &at, &n, &out);
    }
    return out;
}

static double error_of(const reference *ref, int index, const float *got) {
    const reference_case *c = &ref->cases[index];
    double difference = 0, scale = 0;
    for (int32_t r = 0; r < c->n_rows; r++)
        reference_compare(got + c->rows[r] * ref->vocab, c->logits + r * ref->vocab, ref->vocab,
                          &difference, &scale);
    return difference / scale;
}

static void expect_same_bits(const reference *ref, int index, const float *a, const float *b,
                             const char *what) {
    const reference_case *c = &ref->cases[index];
    ck_assert_msg(memcmp(a, b, (size_t)(c->n_tokens * ref->vocab) * sizeof(float)) == 0,
                  "%s: case %s: %s changes the bits", ref->stem, c->name, what);
}

/* Decode steps of one sequence mixed with chunks of the others' prompts. */
static void run_mixed(mcc_engine *engine, const reference *ref, int first, float **out) {
    int cases[EVAL_SEQS], n = 0;
    int32_t at[EVAL_SEQS] = {0};
    for (int i = 0; i < EVAL_SEQS && first + i < ref->n_cases; i++)
        cases[n++] = first + i;
    for (bool left = true; left;) {
        /* Sequence i takes up to 1, 4, 7, 10 tokens; one that has ended takes none and is left out
         * of the step, so that the sequences of a step vary. */
        int32_t from[EVAL_SEQS], count[EVAL_SEQS], most = 0;
        left = false;
        for (int i = 0; i < n; i++) {
            int32_t rest = ref->cases[cases[i]].n_tokens - at[i], chunk = 1 + 3 * i;
            from[i] = at[i];
            count[i] = rest < chunk ? rest : chunk;
            at[i] += count[i];
            most += count[i];
        }
        left = most > 0;
        if (left)
            run_step(engine, ref, cases, n, from, count, out);
    }
}

static pass_options exact_options(const char *fusion) {
    return (pass_options){.activations_f32 = true, .kv_f32 = true, .fusion = fusion};
}

/* --- tests
 * ---------------------------------------------------------------------------------------------- */

START_TEST(logits_equal_the_reference) {
    const subject *s = &subjects[_i];
    reference *ref = reference_open(s->stem);
    pass_options passes = exact_options("full");
    char path[256];
    compile(s, &passes, false, path, sizeof path);
    opened o;
    ck_assert(open_model(path, NULL, 2, 512, &o));
    unlink(path);
    for (int i = 0; i < ref->n_cases; i++) {
        float *whole = run_case(o.engine, ref, i, 512);
        double e = error_of(ref, i, whole);
        ck_assert_msg(e <= bound, "%s: case %s: prefill: error %g", s->input, ref->cases[i].name,
                      e);
        float *single = run_case(o.engine, ref, i, 1);
        expect_same_bits(ref, i, whole, single, "token by token");
        float *chunked = run_case(o.engine, ref, i, 13);
        expect_same_bits(ref, i, whole, chunked, "prefill in chunks of 13");
        free(single);
        free(chunked);
        free(whole);
    }
    close_model(&o);
    reference_close(ref);
}
END_TEST

START_TEST(mixed_batches_change_nothing) {
    if (!is_sampled(_i, "mixed"))
        TEST_UNSAMPLED("mixed batches of %s", subjects[_i].input);
    const subject *s = &subjects[_i];
    reference *ref = reference_open(s->stem);
    pass_options passes = {0}; /* the defaults: int8 beside quantized weights, f16 pages */
    char path[256];
    compile(s, &passes, true, path, sizeof path);
    opened o;
    ck_assert(open_model(path, NULL, 1, 512, &o));
    float *alone[MAX_CASES], *mixed[MAX_CASES];
    for (int i = 0; i < ref->n_cases; i++) {
        alone[i] = run_case(o.engine, ref, i, 512);
        mixed[i] = calloc((size_t)(ref->cases[i].n_tokens * ref->vocab), sizeof(float));
    }
    for (int i = 0; i < ref->n_cases; i += EVAL_SEQS) {
        run_mixed(o.engine, ref, i, mixed + i);
        for (int k = i; k < i + EVAL_SEQS && k < ref->n_cases; k++)
            expect_same_bits(ref, k, alone[k], mixed[k], "a mixed batch");
    }
    close_model(&o);
    /* Each level of the processor, on two threads. */
    int n;
    const cg_cpu_target *targets = cg_cpu_targets(&n);
    for (int t = 0; t < n; t++) {
        if (!open_model(path, targets[t].name, 2, 64, &o)) {
            TEST_SKIP_PART("this processor cannot run %s", targets[t].name);
            continue;
        }
        for (int i = 0; i < ref->n_cases; i++) {
            float *again = run_case(o.engine, ref, i, 64);
            expect_same_bits(ref, i, alone[i], again, targets[t].name);
            free(again);
        }
        close_model(&o);
    }
    unlink(path);
    for (int i = 0; i < ref->n_cases; i++) {
        free(alone[i]);
        free(mixed[i]);
    }
    reference_close(ref);
}
END_TEST

/* What a strategy fuses decides where numbers are kept, never which they are. */
static void compare_fusions(const subject *s, bool exact) {
    static const char *const strategies[] = {"none", "pointwise", "full", "prologues"};
    reference *ref = reference_open(s->stem);
    float *first[MAX_CASES];
    for (int f = 0; f < 4; f++) {
        pass_options passes = {.fusion = strategies[f]};
        if (exact)
            passes = exact_options(strategies[f]);
        char path[256];
        compile(s, &passes, false, path, sizeof path);
        opened o;
        ck_assert(open_model(path, NULL, 2, 512, &o));
        unlink(path);
        for (int i = 0; i < ref->n_cases; i++) {
            float *got = run_case(o.engine, ref, i, 512);
            double e = exact ? error_of(ref, i, got) : 0;
            ck_assert_msg(e <= bound, "%s: fusion %s: case %s: error %g", s->input, strategies[f],
                          ref->cases[i].name, e);
            if (f) {
                expect_same_bits(ref, i, first[i], got, strategies[f]);
                free(got);
            } else {
                first[i] = got;
            }
        }
        close_model(&o);
    }
    for (int i = 0; i < ref->n_cases; i++)
        free(first[i]);
    reference_close(ref);
}

START_TEST(fusion_changes_nothing) {
    if (!is_sampled(_i, "fusion"))
        TEST_UNSAMPLED("fusion of %s", subjects[_i].input);
    compare_fusions(&subjects[_i], true);
    compare_fusions(&subjects[_i], false);
}
END_TEST

static Suite *models_suite(void) {
    find_subjects();
    Suite *suite = suite_create("models");
    TCase *tcase = tcase_create("models");
    tcase_set_timeout(tcase, 300);
    tcase_add_checked_fixture(tcase, make_directory, remove_directory);
    tcase_add_loop_test(tcase, logits_equal_the_reference, 0, n_subjects);
    tcase_add_loop_test(tcase, mixed_batches_change_nothing, 0, n_subjects);
    tcase_add_loop_test(tcase, fusion_changes_nothing, 0, n_subjects);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(models_suite)
