/* Sessions: what an engine has computed, another goes on from, to the same tokens; while others
 * run; and files that are damaged, foreign or cannot be written. */
#include "engine_case.h"
#include "runtime/sha256.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { HEADER = 72, GROUP = 32, GROUPS = 2 };

static char file[64];

static void setup_file(void) {
    setup_without_text();
    strcpy(file, "/tmp/mcc-session-XXXXXX");
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void teardown_file(void) {
    unlink(file);
    teardown();
}

static int32_t tokens[FAKE_MAX_LEN]; /* of the conversation: a prompt and its answer */
static int64_t n_tokens;

/* An engine that has computed the tokens. */
static mcc_engine *engine_with(int64_t n_prompt, int64_t n, uint64_t salt) {
    static result r;
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_num_seqs = 2});
    fill_prompt(n_prompt, 7);
    generate(engine,
             (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                  .prompt_ids = prompt,
                                  .n_prompt_ids = n_prompt,
                                  .max_tokens = n,
                                  .cache_salt = salt},
             &r);
    memcpy(tokens, prompt, (size_t)n_prompt * sizeof *tokens);
    memcpy(tokens + n_prompt, r.ids, (size_t)n * sizeof *tokens);
    n_tokens = n_prompt + n;
    return engine;
}

static int64_t save(mcc_engine *engine, uint64_t salt) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_session s = {.struct_size = sizeof s,
                     .ids = tokens,
                     .n_ids = n_tokens,
                     .data = "words",
                     .data_bytes = 5,
                     .cache_salt = salt};
    ck_assert_msg(!mcc_session_save(engine, &s, file, &error), "%s", error.text);
    return s.cached;
}

/* Goes on from the tokens, and returns how many of them were not computed. */
static int64_t go_on(mcc_engine *engine, uint64_t salt) {
    static result r;
    generate(engine,
             (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                  .prompt_ids = tokens,
                                  .n_prompt_ids = n_tokens,
                                  .max_tokens = 20,
                                  .cache_salt = salt},
             &r);
    check_greedy(tokens, n_tokens, &r);
    return r.last.cached_tokens;
}

START_TEST(another_engine_goes_on) {
    static const int64_t lengths[][2] = {{1, 1}, {5, 30}, {200, 9}, {400, 150}};
    uint64_t salt = (uint64_t)_i % 2 * 77;
    mcc_engine *a = engine_with(lengths[_i / 2][0], lengths[_i / 2][1], salt);
    int64_t cached = save(a, salt);
    ck_assert_int_le(cached, n_tokens);
    ck_assert_int_gt(cached, n_tokens - 1 - FAKE_PAGE - 1); /* the last token was not computed */
    mcc_engine_destroy(a);
    mcc_engine *b = make_engine((mcc_engine_options){.threads = 2, .max_num_seqs = 3});
    mcc_session s = {.struct_size = sizeof s, .cache_salt = salt};
    ck_assert_int_eq(mcc_session_load(b, file, &s, NULL), MCC_OK);
    ck_assert_int_eq(s.n_ids, n_tokens);
    ck_assert_int_eq(memcmp(s.ids, tokens, (size_t)n_tokens * sizeof *tokens), 0);
    ck_assert_int_eq(s.cached, cached);
    ck_assert_uint_eq(s.data_bytes, 5);
    ck_assert_str_eq(s.data, "words");
    mcc_session_free(&s);
    ck_assert_int_eq(go_on(b, salt + 1), 0); /* another's */
    ck_assert_int_eq(go_on(b, salt), cached);
    mcc_engine_destroy(b);
}
END_TEST

START_TEST(while_others_run) {
    static result r;
    static int32_t other[300];
    mcc_engine *engine = engine_with(300, 100, 0);
    for (int i = 0; i < 300; i++)
        other[i] = 3 + i % 50;
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = other,
                                 .n_prompt_ids = 300,
                                 .max_tokens = 50};
    uint64_t id = submit(engine, params);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
    int64_t cached = save(engine, 0);
    ck_assert_int_gt(cached, 300);
    mcc_session s = {.struct_size = sizeof s};
    ck_assert_int_eq(mcc_session_load(engine, file, &s, NULL), MCC_OK); /* what it has already */
    mcc_session_free(&s);
    uint64_t second = submit(engine, params);
    ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
    mcc_error error = {.struct_size = sizeof error};
    ck_assert_int_eq(mcc_session_load(engine, file, &s, &error), MCC_CAPACITY);
    ck_assert_ptr_nonnull(strstr(error.text, "max_num_seqs (2) requests are at work"));
    memset(&r, 0, sizeof r);
    finish(engine, id, &r);
    check_greedy(other, 300, &r);
    finish(engine, second, &r);
    check_greedy(other, 300, &r);
    ck_assert_int_eq(go_on(engine, 0), cached);
    mcc_engine_destroy(engine);
}
END_TEST

/* --- files ---------------------------------------------------------------------------------------
 */

static uint8_t *bytes;
static size_t n_bytes;

static void read_file(void) {
    FILE *f = fopen(file, "rb");
    ck_assert_ptr_nonnull(f);
    bytes = calloc(1, 1 << 24);
    n_bytes = fread(bytes, 1, 1 << 24, f);
    fclose(f);
    ck_assert_uint_gt(n_bytes, HEADER + GROUPS * GROUP + 32);
}

static void write_file(size_t n) {
    FILE *f = fopen(file, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
}

static mcc_status load(mcc_engine *engine, mcc_error *error) {
    mcc_session s = {.struct_size = sizeof s};
    mcc_status status = mcc_session_load(engine, file, &s, error);
    if (status)
        ck_assert(s.ids == NULL && s.data == NULL);
    mcc_session_free(&s);
    return status;
}

static void fix_checksum(void) {
    rt_sha256_of(bytes, n_bytes - 32, bytes + n_bytes - 32);
}

START_TEST(damage_is_noticed) {
    mcc_engine *a = engine_with(60, 30, 0);
    mcc_error error = {.struct_size = sizeof error};
    save(a, 0);
    mcc_engine_destroy(a);
    read_file();
    mcc_engine *b = make_engine((mcc_engine_options){.threads = 1});
    for (size_t n = 0; n < n_bytes; n += n < HEADER ? 1 : n_bytes / 50) {
        write_file(n);
        ck_assert_int_eq(load(b, &error), MCC_BAD_ARTIFACT);
    }
    for (size_t i = 0; i < n_bytes; i += i < 300 ? 1 : n_bytes / 300) {
        bytes[i] ^= 1 << i % 8;
        write_file(n_bytes);
        ck_assert_int_ne(load(b, &error), MCC_OK);
        /* Were the checksum right, numbers that do not fit would still be noticed. */
        if (i < HEADER + GROUPS * GROUP) {
            fix_checksum();
            write_file(n_bytes);
            ck_assert_msg(load(b, &error) != MCC_OK, "byte %zu is not looked at", i);
            bytes[i] ^= 1 << i % 8;
            fix_checksum();
        } else {
            bytes[i] ^= 1 << i % 8;
        }
    }
    bytes[HEADER + GROUPS * GROUP + 3] = 0x7f; /* a token that the vocabulary does not have */
    fix_checksum();
    write_file(n_bytes);
    ck_assert_int_eq(load(b, &error), MCC_BAD_ARTIFACT);
    ck_assert_int_eq(go_on(b, 0), 0); /* nothing came into the cache */
    mcc_engine_destroy(b);
    free(bytes);
}
END_TEST

START_TEST(what_does_not_fit) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine *a = engine_with(100, 30, 0);
    save(a, 0);
    mcc_session s = {.struct_size = sizeof s, .ids = tokens, .n_ids = FAKE_MAX_LEN + 1};
    ck_assert_int_eq(mcc_session_save(a, &s, file, &error), MCC_INVALID_ARGUMENT);
    static const int32_t wrong[] = {3, FAKE_VOCAB};
    s = (mcc_session){.struct_size = sizeof s, .ids = wrong, .n_ids = 2};
    ck_assert_int_eq(mcc_session_save(a, &s, file, &error), MCC_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(error.text, "ids[1]"));
    ck_assert_int_eq(load(a, &error), MCC_OK); /* the file is as it was */
    mcc_engine_destroy(a);
    mcc_engine *b = make_engine((mcc_engine_options){.threads = 1, .max_model_len = 120});
    ck_assert_int_eq(load(b, &error), MCC_CAPACITY);
    ck_assert_ptr_nonnull(strstr(error.text, "130 tokens, but max_model_len is 120"));
    unlink(file);
    ck_assert_int_eq(load(b, &error), MCC_IO_ERROR);
    ck_assert_int_eq(mkfifo(file, 0600), 0); /* which nobody writes */
    ck_assert_int_eq(load(b, &error), MCC_BAD_ARTIFACT);
    mcc_engine_destroy(b);
}
END_TEST

START_TEST(a_failed_save_leaves_the_old_file) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine *engine = engine_with(100, 30, 0);
    save(engine, 0);
    read_file();
    mcc_session s = {.struct_size = sizeof s, .ids = tokens, .n_ids = n_tokens};
    ck_assert_int_eq(mcc_session_save(engine, &s, "/nowhere/session", &error), MCC_IO_ERROR);
    ck_assert_ptr_nonnull(strstr(error.text, "/nowhere/session"));
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, little;
    getrlimit(RLIMIT_FSIZE, &before);
    little = before;
    little.rlim_cur = 500;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &little), 0);
    mcc_status status = mcc_session_save(engine, &s, file, &error);
    setrlimit(RLIMIT_FSIZE, &before);
    ck_assert_int_eq(status, MCC_IO_ERROR);
    uint8_t *expected = bytes;
    size_t n = n_bytes;
    read_file();
    ck_assert(n == n_bytes && memcmp(bytes, expected, n) == 0);
    free(expected);
    free(bytes);
    ck_assert_int_eq(load(engine, &error), MCC_OK);
    mcc_engine_destroy(engine);
}
END_TEST

static Suite *session_suite(void) {
    Suite *suite = suite_create("session");
    TCase *c = tcase_create("session");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, setup_file, teardown_file);
    tcase_add_loop_test(c, another_engine_goes_on, 0, 8);
    tcase_add_test(c, while_others_run);
    tcase_add_test(c, damage_is_noticed);
    tcase_add_test(c, what_does_not_fit);
    tcase_add_test(c, a_failed_save_leaves_the_old_file);
    suite_add_tcase(suite, c);
    return suite;
}

CHECK_MAIN(session_suite)
