/* Drafts by prompt lookup: what is proposed, and how the length follows what was right. */
#include "check_main.h"
#include "runtime/lookup.h"

START_TEST(what_followed_follows_again) {
    const int32_t ids[] = {1, 2, 3, 4, 5, 9, 2, 3, 7, 1, 2, 3};
    int32_t draft[8];
    rt_lookup l = {0};
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 12, 4, draft), 4); /* 1 2 3 is surer than 2 3 */
    ck_assert_int_eq(draft[0], 4);
    ck_assert_int_eq(draft[1], 5);
    ck_assert_int_eq(draft[3], 2);
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 11, 4, draft), 4); /* after 1 2, the last time */
    ck_assert_int_eq(draft[0], 3);
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 6, 4, draft), 0); /* 9 was nowhere */
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 1, 4, draft), 0);
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 12, 0, draft), 0);
}
END_TEST

/* A draft that reaches the end goes on with its own beginning, also where it lies behind the ids.
 */
START_TEST(loops_go_on) {
    int32_t ids[32] = {8, 4, 5, 6, 4, 5, 6, 4, 5};
    rt_lookup l = {0};
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 9, 10, ids + 9), 10);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(ids[9 + i], 4 + (i + 2) % 3);
}
END_TEST

START_TEST(the_length_follows_what_was_right) {
    const int32_t ids[] = {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3};
    int32_t draft[64];
    rt_lookup l = {0};
    rt_lookup_learn(&l, 8, 1);
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 15, 64, draft), 2);
    rt_lookup_learn(&l, 2, 2);
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 15, 64, draft), 4);
    rt_lookup_learn(&l, 0, 0); /* nothing was drafted: nothing is learned */
    ck_assert_int_eq(rt_lookup_draft(&l, ids, 15, 64, draft), 4);
    /* Where nothing is ever right, few tokens are drafted in vain, and fewer and fewer. */
    int64_t drafted = 0, late = 0;
    for (int i = 0; i < 1000; i++) {
        int32_t n = rt_lookup_draft(&l, ids, 15, 64, draft);
        rt_lookup_learn(&l, n, 0);
        drafted += n;
        late += i >= 500 ? n : 0;
    }
    ck_assert_int_lt(drafted, 50);
    ck_assert_int_lt(late, 10);
    ck_assert_int_gt(late, 0); /* but it tries again */
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("lookup");
    TCase *t = tcase_create("lookup");
    tcase_add_test(t, what_followed_follows_again);
    tcase_add_test(t, loops_go_on);
    tcase_add_test(t, the_length_follows_what_was_right);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
