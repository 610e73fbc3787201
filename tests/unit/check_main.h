/* The main function every unit test shares: run one suite, exit 0 if all of it passed. */
#ifndef MCC_TESTS_CHECK_MAIN_H
#define MCC_TESTS_CHECK_MAIN_H

#include <check.h>
#include <stdlib.h>

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
