/* For tests of whole models: the checkpoints with reference logits, compiled and run through the
 * public header, and how logits are compared. Included by one test file each. */
#ifndef MCC_TESTS_MODEL_CASE_H
#define MCC_TESTS_MODEL_CASE_H

#include "check_main.h"
#include "compiler/build.h"
#include "reference.h"
#include "runtime/modelcc.h"

#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EVAL_SEQS = 4, MAX_CASES = REFERENCE_MAX_CASES };

/* A model under test: what to compile and where its reference is. */
typedef struct subject {
    char input[2048], stem[2048];
} subject;

static subject subjects[64];
static int n_subjects;
static char directory[200];

static inline void find_subjects(void) {
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

static inline void make_directory(void) {
    test_temporary(directory, sizeof directory, "models");
    ck_assert_ptr_nonnull(mkdtemp(directory));
}

static inline void remove_directory(void) {
    rmdir(directory);
}

/* Whether the sample has this model: about one in three of them. */
static inline bool is_sampled(int index, const char *test) {
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

static inline void add_targets(build_options *o, bool all_targets) {
    int n;
    if (!all_targets) {
        o->targets[o->n_targets++] = cg_cpu_target_find("cpu");
        return;
    }
    const cg_cpu_target *all = cg_cpu_targets(&n);
    for (int i = 0; i < n; i++)
        o->targets[o->n_targets++] = &all[i];
}

/* Compiles for this processor, or for every level, and for a GPU, "cuda:sm_80", or NULL; the caller
 * unlinks the artifact. */
static inline void compile_with(const subject *s, const pass_options *passes, bool all_targets,
                                const char *gpu, char *path, size_t capacity) {
    snprintf(path, capacity, "%s/model.so", directory);
    build_options o = {.input = s->input,
                       .output = path,
                       .passes = *passes,
                       .jobs = 2,
                       .opt_level = 2,
                       .quiet = true,
                       .no_tokenizer = true};
    add_targets(&o, all_targets);
    if (gpu)
        o.cuda_targets[o.n_cuda_targets++] = cg_cuda_target_find(gpu);
    ir_diag diag = {0};
    bool ok = build_run(&o, NULL, &diag);
    if (!ok)
        ir_diag_print(&diag, stderr);
    ck_assert_msg(ok, "%s does not compile", s->input);
    ir_diag_clear(&diag);
}

static inline void compile(const subject *s, const pass_options *passes, bool all_targets,
                           char *path, size_t capacity) {
    compile_with(s, passes, all_targets, NULL, path, capacity);
}

typedef struct opened {
    mcc_artifact *artifact;
    mcc_engine *engine;
} opened;

static inline void make_engine(const char *device, int threads, int batched, opened *o) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine_options eo = {.struct_size = sizeof eo,
                             .threads = threads,
                             .max_num_batched_tokens = batched,
                             .max_eval_seqs = EVAL_SEQS,
                             .device = device};
    ck_assert_msg(!mcc_engine_create(o->artifact, &eo, &o->engine, &error), "%s", error.text);
}

/* False when this processor cannot run the target. */
static inline bool open_model(const char *path, const char *target, int threads, int batched,
                              opened *o) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_artifact_options ao = {.struct_size = sizeof ao, .target = target};
    mcc_status status = mcc_artifact_open(path, &ao, &o->artifact, &error);
    if (status == MCC_CPU_MISMATCH)
        return false;
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    make_engine(NULL, threads, batched, o);
    return true;
}

static inline void close_model(opened *o) {
    mcc_engine_destroy(o->engine);
    mcc_artifact_close(o->artifact);
}

/* --- running
 * ----------------------------------------------------------------------------------------- */

/* Tokens `from` … of several cases, each in the sequence of its index, in one step; every token's
 * row is asked for. out[i] receives rows of case i, [n_tokens][vocab]. */
static inline void run_step(mcc_engine *engine, const reference *ref, const int *cases, int n_cases,
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
static inline float *run_case(mcc_engine *engine, const reference *ref, int index, int chunk) {
    const reference_case *c = &ref->cases[index];
    float *out = malloc((size_t)(c->n_tokens * ref->vocab) * sizeof *out);
    for (int32_t at = 0; at < c->n_tokens; at += chunk) {
        int32_t n = c->n_tokens - at < chunk ? c->n_tokens - at : chunk;
        run_step(engine, ref, &index, 1, &at, &n, &out);
    }
    return out;
}

static inline double error_of(const reference *ref, int index, const float *got) {
    const reference_case *c = &ref->cases[index];
    double difference = 0, scale = 0;
    for (int32_t r = 0; r < c->n_rows; r++)
        reference_compare(got + c->rows[r] * ref->vocab, c->logits + r * ref->vocab, ref->vocab,
                          &difference, &scale);
    return difference / scale;
}

static inline void expect_same_bits(const reference *ref, int index, const float *a, const float *b,
                                    const char *what) {
    const reference_case *c = &ref->cases[index];
    ck_assert_msg(memcmp(a, b, (size_t)(c->n_tokens * ref->vocab) * sizeof(float)) == 0,
                  "%s: case %s: %s changes the bits", ref->stem, c->name, what);
}

/* Decode steps of one sequence mixed with chunks of the others' prompts. */
static inline void run_mixed(mcc_engine *engine, const reference *ref, int first, float **out) {
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

/* Kinds of pages take turns over models and seeds. */
static inline pass_kv pages_of(int index) {
    static const pass_kv kinds[] = {PASS_KV_F16, PASS_KV_INT8, PASS_KV_FP8};
    const char *seed = getenv("MCC_TEST_SEED");
    return kinds[((unsigned)index + (seed ? strtoul(seed, NULL, 10) : 0)) % 3];
}

static inline pass_options exact_options(const char *fusion) {
    return (pass_options){.activations_f32 = true, .kv = PASS_KV_F32, .fusion = fusion};
}

#endif
