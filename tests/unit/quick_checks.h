/* Checks for loops over millions of values: Check's own assertions talk to the parent process each
 * time, also when they hold. */
#ifndef MCC_TESTS_QUICK_CHECKS_H
#define MCC_TESTS_QUICK_CHECKS_H

#include "check_main.h"

#define SAME(a, b)                                                                                 \
    do {                                                                                           \
        uint64_t same_a = (a), same_b = (b);                                                       \
        if (same_a != same_b)                                                                      \
            ck_abort_msg("%s is %#llx, expected %#llx", #a, (unsigned long long)same_a,            \
                         (unsigned long long)same_b);                                              \
    } while (0)
#define HOLDS(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)
#define IS_TRUE(condition) HOLDS(condition, "not so: %s", #condition)

#endif
