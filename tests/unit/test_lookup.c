/* Drafts by prompt lookup: what is proposed. */
#include "check_main.h"
#include "runtime/lookup.h"

static int32_t draft(const int32_t *ids, int64_t n, int32_t most, int32_t *out, int32_t *match) {
    rt_lookup *l = rt_lookup_open(RT_LOOKUP_MIN, 64);
    ck_assert_ptr_nonnull(l);
    int32_t count = rt_lookup_draft(l, ids, n, RT_LOOKUP_MAX, most, out, match);
    rt_lookup_close(l);
    return count;
}

START_TEST(what_followed_follows_again) {
    const int32_t ids[] = {1, 2, 3, 4, 5, 9, 2, 3, 7, 1, 2, 3};
    int32_t out[8], match;
    ck_assert_int_eq(draft(ids, 12, 4, out, &match), 4); /* 1 2 3 is surer than 2 3 */
    ck_assert_int_eq(match, 3);
    ck_assert_int_eq(out[0], 4);
    ck_assert_int_eq(out[1], 5);
    ck_assert_int_eq(out[3], 2);
    ck_assert_int_eq(draft(ids, 11, 4, out, &match), 4); /* after 1 2, the last time */
    ck_assert_int_eq(match, 2);
    ck_assert_int_eq(out[0], 3);
    ck_assert_int_eq(draft(ids, 6, 4, out, &match), 0); /* 9 was nowhere */
    ck_assert_int_eq(match, 0);
    ck_assert_int_eq(draft(ids, 1, 4, out, &match), 0);
    ck_assert_int_eq(draft(ids, 12, 0, out, &match), 0);
}
END_TEST

/* A draft that reaches the end goes on with its own beginning, also where it lies behind the ids.
 */
START_TEST(loops_go_on) {
    int32_t ids[32] = {8, 4, 5, 6, 4, 5, 6, 4, 5}, match;
    ck_assert_int_eq(draft(ids, 9, 10, ids + 9, &match), 10);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(ids[9 + i], 4 + (i + 2) % 3);
}
END_TEST

/* Behind what was changed, one token of the source is enough; but only near it, and not for long.
 */
START_TEST(a_changed_copy_goes_on) {
    int32_t ids[64] = {0}, n = 30, out[8], match;
    for (int i = 0; i < n; i++)
        ids[i] = 1 + i;
    const struct {
        int32_t token, drafts, match, first;
    } steps[] = {{1, 0, 0, 0},  {2, 4, 2, 3},  {3, 4, 3, 4}, {99, 0, 0, 0},
                 {98, 0, 0, 0}, {5, 4, 1, 6},  {6, 4, 2, 7}, {30, 0, 0, 0},
                 {8, 4, 1, 9},  {29, 0, 0, 0}, {9, 4, 1, 10}};
    rt_lookup *l = rt_lookup_open(RT_LOOKUP_MIN, 64);
    ck_assert_ptr_nonnull(l);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        ids[n++] = steps[i].token;
        int32_t count = rt_lookup_draft(l, ids, n, RT_LOOKUP_MAX, 4, out, &match);
        ck_assert_msg(count == steps[i].drafts && match == steps[i].match &&
                          (count == 0 || out[0] == steps[i].first),
                      "step %zu: %d drafts from %d, match %d", i, count, out[0], match);
    }
    for (int i = 0; i < 17; i++)
        ids[n++] = 100 + i;
    ids[n++] = 11; /* in reach a while ago */
    ck_assert_int_eq(rt_lookup_draft(l, ids, n, RT_LOOKUP_MAX, 4, out, &match), 0);
    rt_lookup_close(l);
}
END_TEST

/* The longest match among all places, and of equals the last: found by looking at every place. */
static int64_t slow_find(const int32_t *ids, int64_t n, int32_t max, int32_t *match) {
    int64_t best = 0;
    *match = RT_LOOKUP_MIN - 1;
    for (int64_t at = n - 1; at >= RT_LOOKUP_MIN && *match < max; at--) {
        int32_t same = 0;
        while (same < max && same < at && ids[at - 1 - same] == ids[n - 1 - same])
            same++;
        if (same > *match) {
            *match = same;
            best = at;
        }
    }
    return best;
}

/* The index grows with the text; now and then drafts are written behind it, as the engine does. */
START_TEST(the_index_finds_what_a_scan_finds) {
    enum { TOKENS = 3000 };
    static int32_t ids[TOKENS + 8];
    uint32_t state = 7;
    int found = 0;
    rt_lookup *l = rt_lookup_open(RT_LOOKUP_MIN, TOKENS);
    for (int64_t n = 0; n < TOKENS; n++) {
        state = state * 1664525u + 1013904223u;
        /* Passages are copied, so that there are long matches; few places have the same n-gram. */
        ids[n] =
            n > 300 && n / 100 % 3 == 0 ? ids[n - 300 + n / 100 % 7] : (int32_t)(state >> 8) % 400;
        if (state >> 28 < 8)
            continue;
        int32_t match, slow_match;
        int64_t at = slow_find(ids, n + 1, RT_LOOKUP_MAX, &slow_match);
        int32_t count = rt_lookup_draft(l, ids, n + 1, RT_LOOKUP_MAX, 4, ids + n + 1, &match);
        if (at == 0) {
            ck_assert(count == 0 || (count == 4 && match == 1)); /* of a copy that was left */
        } else {
            ck_assert_int_eq(count, 4);
            ck_assert_int_eq(match, slow_match);
            ck_assert_int_eq(ids[n + 1], ids[at]);
            found++;
        }
    }
    ck_assert_int_gt(found, 300);
    rt_lookup_close(l);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("lookup");
    TCase *t = tcase_create("lookup");
    tcase_add_test(t, what_followed_follows_again);
    tcase_add_test(t, loops_go_on);
    tcase_add_test(t, a_changed_copy_goes_on);
    tcase_add_test(t, the_index_finds_what_a_scan_finds);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
