/* What every unit test shares: the main function, which runs one suite and exits 0 if all of it
 * passed; how a test says that it leaves something out; and where temporary files go.
 *
 * tests/summary.py counts what is left out by these lines, so that nothing of it passes for a pass:
 *   skipped: REASON           the whole test, for something that this machine or build lacks
 *   skipped in part: REASON   a part of it; the rest counts
 *   unsampled: WHAT           the whole test, which this run's sample has not; a full run has it */
#ifndef MCC_TESTS_CHECK_MAIN_H
#define MCC_TESTS_CHECK_MAIN_H

#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the test, with the reason (a format and its arguments). */
#define TEST_SKIP(...)                                                                             \
    do {                                                                                           \
        fprintf(stderr, "skipped: " __VA_ARGS__);                                                  \
        fputc('\n', stderr);                                                                       \
        return;                                                                                    \
    } while (0)

#define TEST_SKIP_PART(...)                                                                        \
    do {                                                                                           \
        fprintf(stderr, "skipped in part: " __VA_ARGS__);                                          \
        fputc('\n', stderr);                                                                       \
    } while (0)

#define TEST_UNSAMPLED(...)                                                                        \
    do {                                                                                           \
        fprintf(stderr, "unsampled: " __VA_ARGS__);                                                \
        fputc('\n', stderr);                                                                       \
        return;                                                                                    \
    } while (0)

/* Whether all cases run instead of a sample: MCC_TEST_FULL=1. */
static inline bool test_full(void) {
    const char *text = getenv("MCC_TEST_FULL");
    return text && strcmp(text, "1") == 0;
}

/* Whether a sanitizer is built in. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_SANITIZED 1
#elif defined(__has_feature)
#define TEST_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define TEST_SANITIZED 0
#endif

/* As tcase_add_loop_test, for cases that the emulator runs. A sanitizer makes it ten times slower,
 * and looks at the emulator's code, not at the kernels: there one case in `n` runs, and at least
 * one, by MCC_TEST_SEED. */
static inline void test_add_emulated(TCase *tcase, const TTest *test, int begin, int end, int n) {
    const char *seed = getenv("MCC_TEST_SEED");
    n = n < end - begin ? n : end - begin;
    int turn = seed ? (int)(strtoull(seed, NULL, 10) % (unsigned long long)n) : 0;
    for (int i = begin; i < end; i++)
        if (!TEST_SANITIZED || (i + turn) % n == 0)
            tcase_add_loop_test(tcase, test, i, i + 1);
}

/* A part of the cases, for runs side by side: MCC_TEST_SHARD=K/N leaves this process those whose
 * number is K modulo N. */
static inline bool test_case_is_mine(int i) {
    const char *text = getenv("MCC_TEST_SHARD");
    int part, parts, end = 0;
    if (!text || !*text)
        return true;
    ck_assert_msg(sscanf(text, "%d/%d%n", &part, &parts, &end) == 2 && !text[end] && parts > 0 &&
                      part >= 0 && part < parts,
                  "MCC_TEST_SHARD is %s, expected K/N with 0 <= K < N", text);
    return i % parts == part;
}

/* Writes a template for mkstemp or mkdtemp into `path`: NAME-XXXXXX where temporary files go. A
 * full run removes that folder when it ends, however it ends. */
static inline void test_temporary(char *path, size_t capacity, const char *name) {
    const char *folder = getenv("TMPDIR");
    int n = snprintf(path, capacity, "%s/%s-XXXXXX", folder && *folder ? folder : "/tmp", name);
    ck_assert_msg(n >= 0 && (size_t)n < capacity, "TMPDIR is too long: %s", folder);
}

/* Defines main() for a test program whose suite is made by `suite_fn` (Suite *(*)(void)). */
#define CHECK_MAIN(suite_fn)                                                                       \
    int main(void) {                                                                               \
        SRunner *runner = srunner_create(suite_fn());                                              \
        srunner_run_all(runner, CK_ENV);                                                           \
        int failed = srunner_ntests_failed(runner);                                                \
        srunner_free(runner);                                                                      \
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;                                          \
    }

#endif
