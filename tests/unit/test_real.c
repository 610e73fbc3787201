/* Real models from their GGUF files against transformers on the dequantized weights: token ids of
 * prompts and chat templates, and 64 greedy tokens of each, with float activations and a float
 * cache. A step at which the reference's own two best logits are closer than 1e-3 may differ: it is
 * shown, and the prompt's comparison ends there. On the emulated GPU, with all its checks, some of
 * the prompts and tokens, and only in a full run.
 *
 * MCC_TEST_MODELS names the folder of the models (tests/models.sh); without a file, its test is
 * skipped, visibly. */
#include "check_main.h"
#include "compiler/build.h"
#include "reference.h"
#include "runtime/modelcc.h"

#include <unistd.h>

static const double close_call = 1e-3;
enum { MAX_NEW = 64 };

typedef struct subject {
    const char *golden, *file, *gpu;       /* that is emulated */
    int emulated_prompts, emulated_tokens; /* of each prompt */
} subject;

static const subject subjects[] = {
    {"smollm2", "SmolLM2-135M-Instruct.gguf", "cuda:sm_80", 4, 12},
    {"gemma3", "gemma3-270m.gguf", "cuda:sm_80", 2, 6},
};

/* Compiles the model for the CPU, or for a GPU by its name, and opens it. */
static mcc_artifact *open_subject(const char *input, const pass_options *passes, const char *gpu) {
    char path[1024];
    test_temporary(path, sizeof path, "real");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    build_options o = {.input = input,
                       .output = path,
                       .passes = *passes,
                       .targets = {cg_cpu_target_find("cpu")},
                       .n_targets = gpu ? 0 : 1,
                       .cuda_targets = {gpu ? cg_cuda_target_find(gpu) : NULL},
                       .n_cuda_targets = gpu ? 1 : 0,
                       .jobs = 2,
                       .opt_level = 2,
                       .quiet = true};
    ir_diag diag = {0};
    bool ok = build_run(&o, NULL, &diag);
    if (!ok)
        ir_diag_print(&diag, stderr);
    ck_assert(ok);
    ir_diag_clear(&diag);
    mcc_artifact *artifact;
    mcc_error error = {.struct_size = sizeof error};
    ck_assert_msg(!mcc_artifact_open(path, NULL, &artifact, &error), "%s", error.text);
    unlink(path);
    return artifact;
}

static cJSON *read_golden(const char *name) {
    char path[2048];
    long size;
    snprintf(path, sizeof path, MCC_TEST_DATA "/golden/%s.json", name);
    char *text = reference_read(path, &size);
    cJSON *json = cJSON_Parse(text);
    ck_assert_ptr_nonnull(json);
    free(text);
    return json;
}

/* Generates from the prompt as text or as messages; checks its ids, then the greedy tokens. Returns
 * how many tokens were equal. */
static int check_prompt(mcc_engine *engine, const cJSON *prompt, int index, int max_new) {
    static int32_t want[REFERENCE_MAX_TOKENS + 512], got[REFERENCE_MAX_TOKENS + 512];
    mcc_error error = {.struct_size = sizeof error};
    mcc_request_params params = {
        .struct_size = sizeof params, .flags = MCC_REQUEST_IGNORE_EOS, .max_tokens = max_new};
    const cJSON *messages = cJSON_GetObjectItem(prompt, "messages");
    char *text = cJSON_IsArray(messages) ? cJSON_PrintUnformatted(messages) : NULL;
    params.messages = text;
    if (!text)
        params.prompt = cJSON_GetObjectItem(prompt, "text")->valuestring;
    uint64_t id;
    ck_assert_msg(!mcc_request_submit(engine, &params, &id, &error), "%s", error.text);
    int64_t n;
    ck_assert(!mcc_request_prompt_ids(engine, id, got, 1024, &n, &error));
    const cJSON *ids = cJSON_GetObjectItem(prompt, "prompt_token_ids"), *item;
    int k = 0;
    cJSON_ArrayForEach(item, ids) {
        want[k++] = item->valueint;
    }
    ck_assert_msg(k == n && memcmp(want, got, (size_t)n * sizeof *got) == 0,
                  "prompt %d: its token ids differ from the reference's", index);
    const cJSON *tokens = cJSON_GetObjectItem(prompt, "token_ids");
    const cJSON *gaps = cJSON_GetObjectItem(prompt, "gaps");
    mcc_event event = {.struct_size = sizeof event};
    int made = 0, equal = -1;
    while (event.kind != MCC_EVENT_FINISHED) {
        ck_assert_msg(!mcc_engine_step(engine, NULL, &error), "%s", error.text);
        while (!mcc_engine_poll(engine, id, &event, &error) && event.kind == MCC_EVENT_TOKEN) {
            int expected = cJSON_GetArrayItem(tokens, made)->valueint;
            double gap = cJSON_GetArrayItem(gaps, made)->valuedouble;
            if (event.token_id != expected && equal < 0) {
                ck_assert_msg(gap < close_call,
                              "prompt %d, token %d: %d, the reference has %d (its gap is %g)",
                              index, made, event.token_id, expected, gap);
                fprintf(stderr, "prompt %d, token %d: %d instead of %d, a close call (gap %g)\n",
                        index, made, event.token_id, expected, gap);
                equal = made;
            }
            made++;
        }
    }
    free(text);
    ck_assert_int_eq(made, max_new);
    return equal < 0 ? made : equal;
}

static void check_subject(const subject *s, const char *gpu, int max_prompts, int max_new) {
    pass_options passes = {.activations_f32 = true, .kv = PASS_KV_F32};
    const char *models = getenv("MCC_TEST_MODELS");
    char input[2048];
    snprintf(input, sizeof input, "%s/%s", models ? models : ".", s->file);
    if (access(input, R_OK))
        TEST_SKIP("no %s (tests/models.sh fetches it; a full run does)", s->file);
    mcc_artifact *artifact = open_subject(input, &passes, gpu);
    cJSON *golden = read_golden(s->golden);
    mcc_engine *engine;
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine_options options = {
        .struct_size = sizeof options, .max_model_len = 1024, .device = gpu ? "emulator" : NULL};
    ck_assert_msg(!mcc_engine_create(artifact, &options, &engine, &error), "%s", error.text);
    const cJSON *prompt;
    int index = 0, equal = 0;
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(golden, "prompts")) {
        if (index < max_prompts)
            equal += check_prompt(engine, prompt, index++, max_new);
    }
    fprintf(stderr, "%s: %d prompts, %d of %d tokens equal\n", s->golden, index, equal,
            index * max_new);
    mcc_engine_destroy(engine);
    mcc_artifact_close(artifact);
    cJSON_Delete(golden);
}

START_TEST(greedy_tokens_equal_the_reference) {
    check_subject(&subjects[_i], NULL, INT32_MAX, MAX_NEW);
}
END_TEST

START_TEST(greedy_tokens_on_the_emulated_gpu) {
    char text[512];
    const subject *s = &subjects[_i];
    if (!test_full())
        TEST_UNSAMPLED("%s on the emulated GPU", s->golden);
    if (!cg_cuda_nvrtc_find(text, sizeof text))
        TEST_SKIP("NVRTC is not here: %s", text);
    setenv("MODELCC_EMULATOR", MCC_CUDA_EMULATOR, 1);
    check_subject(s, s->gpu, s->emulated_prompts, s->emulated_tokens);
}
END_TEST

static Suite *real_suite(void) {
    Suite *suite = suite_create("real");
    TCase *tcase = tcase_create("real");
    tcase_set_timeout(tcase, 600);
    tcase_add_loop_test(tcase, greedy_tokens_equal_the_reference, 0,
                        sizeof subjects / sizeof *subjects);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("emulated");
    tcase_set_timeout(tcase, 3000);
    tcase_add_loop_test(tcase, greedy_tokens_on_the_emulated_gpu, 0,
                        sizeof subjects / sizeof *subjects);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(real_suite)
