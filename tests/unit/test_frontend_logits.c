/* The graphs that the frontend builds, run by the reference interpreter, against the logits that
 * transformers computes for the tiny checkpoints of tests/golden/ (reference_io.py has the format).
 */
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check_main.h"
#include "compiler/frontend/frontend.h"
#include "compiler/frontend/json.h"
#include "ir/interp.h"
#include "ir/verify.h"

enum { most_tokens = 512 };
static const double tolerance = 1e-4; /* max|difference| / max|reference|, over a case */

/* Fails the test with the diagnostics when `ok` is false. */
static void expect(bool ok, const char *what, const ir_diag *diag) {
    if (!ok)
        ir_diag_print(diag, stderr);
    ck_assert_msg(ok, "%s", what);
}

typedef struct reference {
    fe_file json_file, logits_file;
    cJSON *json;
    int64_t vocab;
} reference;

static void open_reference(reference *ref, const char *directory, const char *stem) {
    static char path[2][5000];
    ir_diag diag = {0};
    snprintf(path[0], sizeof path[0], "%s/%s.json", directory, stem);
    snprintf(path[1], sizeof path[1], "%s/%s.bin", directory, stem);
    expect(fe_file_map(&ref->json_file, path[0], &diag), path[0], &diag);
    expect(fe_file_map(&ref->logits_file, path[1], &diag), path[1], &diag);
    fe_bytes text = {ref->json_file.data, ref->json_file.size};
    ref->json = fe_json_parse(text, path[0], 0, &diag);
    expect(ref->json != NULL, path[0], &diag);
    expect(fe_json_int(ref->json, "vocab_size", &ref->vocab, path[0], &diag), "vocab_size", &diag);
    ir_diag_clear(&diag);
}

static void close_reference(reference *ref) {
    cJSON_Delete(ref->json);
    fe_file_unmap(&ref->json_file);
    fe_file_unmap(&ref->logits_file);
}

static int read_ints(const cJSON *list, int32_t *out) {
    int count = 0;
    const cJSON *item;
    ck_assert(cJSON_IsArray(list));
    cJSON_ArrayForEach(item, list) {
        ck_assert_int_lt(count, most_tokens);
        out[count++] = item->valueint;
    }
    return count;
}

/* Runs one case as a single prefill and compares its rows. */
static double run_case(const ir_module *module, const reference *ref, const cJSON *test_case) {
    static int32_t ids[most_tokens], rows[most_tokens], positions[most_tokens];
    ir_diag diag = {0};
    int32_t tokens = read_ints(fe_json_member(test_case, "token_ids"), ids);
    int32_t n_rows = read_ints(fe_json_member(test_case, "rows"), rows);
    int64_t offset = fe_json_member(test_case, "offset")->valueint;
    for (int32_t i = 0; i < tokens; i++)
        positions[i] = i;
    ck_assert_uint_le((size_t)(offset + n_rows * ref->vocab) * sizeof(float),
                      ref->logits_file.size);
    const float *want = (const float *)ref->logits_file.data + offset;

    ir_interp *interp = ir_interp_create(module, &diag);
    expect(interp != NULL, "ir_interp_create", &diag);
    ir_interp_step step = {.T = tokens,
                           .S = 1,
                           .R = n_rows,
                           .token_ids = ids,
                           .positions = positions,
                           .seq_offsets = (int32_t[]){0, tokens},
                           .seq_slots = (int32_t[]){0},
                           .output_rows = rows};
    expect(ir_interp_run(interp, &step, &diag), "ir_interp_run", &diag);
    int64_t count = 0;
    const float *got = ir_interp_output(interp, "logits", &count);
    ck_assert_ptr_nonnull(got);
    ck_assert_int_eq(count, n_rows * ref->vocab);
    double largest = 0, difference = 0;
    for (int64_t i = 0; i < count; i++) {
        ck_assert_msg(isfinite(got[i]), "logit %lld is %g", (long long)i, got[i]);
        largest = fmax(largest, fabs((double)want[i]));
        difference = fmax(difference, fabs((double)got[i] - want[i]));
    }
    ir_interp_destroy(interp);
    ir_diag_clear(&diag);
    return difference / largest;
}

/* Opens `model`, builds it, and runs every case of `directory`/`stem`.json. */
static void check_model(const char *model_path, const char *directory, const char *stem) {
    ir_diag diag = {0};
    reference ref;
    open_reference(&ref, directory, stem);
    fe_model *model = fe_open(model_path, &diag);
    expect(model != NULL, model_path, &diag);
    ir_module *module = fe_build(model, FE_LOGITS, &diag);
    expect(module != NULL, model_path, &diag);
    expect(ir_verify(module, &diag), "ir_verify", &diag);
    double worst = 0;
    int cases = 0;
    const cJSON *test_case;
    cJSON_ArrayForEach(test_case, fe_json_member(ref.json, "cases")) {
        double error = run_case(module, &ref, test_case);
        worst = fmax(worst, error);
        ck_assert_msg(error <= tolerance, "%s, case %s: relative difference %g", model_path,
                      fe_json_member(test_case, "name")->valuestring, error);
        cases++;
    }
    ck_assert_int_gt(cases, 0);
    printf("%s: %d cases, largest relative difference %.2g\n", model_path, cases, worst);
    ir_module_destroy(module);
    fe_close(model);
    close_reference(&ref);
    ir_diag_clear(&diag);
}

/* Checkpoints are found, not listed: a new one needs no change here. */
static glob_t directories, files;

static void find_checkpoints(void) {
    if (glob(MCC_TEST_DATA "/golden/tiny-*", 0, NULL, &directories) != 0 ||
        glob(MCC_TEST_DATA "/golden/gguf/*.gguf", 0, NULL, &files) != 0) {
        fprintf(stderr, "no checkpoints in %s/golden\n", MCC_TEST_DATA);
        exit(EXIT_FAILURE);
    }
}

START_TEST(hugging_face_directory) {
    const char *path = directories.gl_pathv[_i];
    check_model(path, path, "reference");
}
END_TEST

/* model.gguf has its reference in model.json and model.bin beside it. */
START_TEST(gguf_file) {
    const char *path = files.gl_pathv[_i];
    const char *name = strrchr(path, '/') + 1;
    char stem[256];
    snprintf(stem, sizeof stem, "%.*s", (int)(strlen(name) - strlen(".gguf")), name);
    check_model(path, MCC_TEST_DATA "/golden/gguf", stem);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("frontend_logits");
    TCase *c = tcase_create("checkpoints");
    find_checkpoints();
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, hugging_face_directory, 0, (int)directories.gl_pathc);
    tcase_add_loop_test(c, gguf_file, 0, (int)files.gl_pathc);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
