/* The page allocator: tables against a plain model of who owns what, over random sequences of
 * operations, and the corner cases by name. */
#include "check_main.h"
#include "runtime/kv.h"
#include "runtime/modelcc.h"

#include <string.h>

static mcc_kv_group_entry group(int32_t layers, int64_t window, int32_t page_tokens) {
    return (mcc_kv_group_entry){.window = window,
                                .layers = layers,
                                .heads = 1,
                                .head_dim = 8,
                                .page_tokens = page_tokens,
                                .layer_bytes = 2u * 8 * (uint64_t)page_tokens * 4};
}

static rt_kv *make(const mcc_kv_group_entry *groups, uint32_t n, int slots, int64_t max_len,
                   int64_t max_step, uint64_t bytes) {
    rt_kv_options o = {
        .slots = slots, .max_len = max_len, .max_step = max_step, .memory_bytes = bytes};
    rt_error error = {0};
    rt_kv *kv = rt_kv_create(groups, n, &o, &error);
    ck_assert_msg(kv != NULL, "%s", error.text);
    return kv;
}

START_TEST(pages_follow_length) {
    mcc_kv_group_entry g = group(3, 0, 16);
    rt_kv *kv = make(&g, 1, 1, 100, 50, 0);
    ck_assert_int_eq(rt_kv_table_entries(kv), 7);
    ck_assert(rt_kv_reserve(kv, 0, 17, NULL));
    const int32_t *table = rt_kv_table(kv, 0, 0);
    ck_assert_int_eq(table[0], 0);
    ck_assert_int_eq(table[1], 1);
    ck_assert_int_eq(table[2], -1);
    ck_assert_int_eq(rt_kv_length(kv, 0), 0);
    rt_kv_commit(kv, 0, 17, NULL);
    ck_assert_int_eq(rt_kv_length(kv, 0), 17);
    ck_assert_uint_eq(rt_kv_bytes_used(kv), 2 * 3 * g.layer_bytes);
    ck_assert(rt_kv_truncate(kv, 0, 16));
    ck_assert_int_eq(table[1], -1);
    ck_assert(rt_kv_truncate(kv, 0, 0));
    ck_assert_uint_eq(rt_kv_bytes_used(kv), 0);
    rt_error error = {0};
    ck_assert(!rt_kv_reserve(kv, 0, 101, &error));
    ck_assert_int_eq(error.code, MCC_CAPACITY);
    rt_kv_destroy(kv);
}
END_TEST

START_TEST(layers_lie_apart) {
    mcc_kv_group_entry g = group(3, 0, 16);
    rt_kv *kv = make(&g, 1, 2, 64, 64, 0);
    ck_assert_uint_eq(rt_kv_layer_offset(kv, 0, 0), 0);
    uint64_t stride = rt_kv_layer_offset(kv, 0, 1);
    ck_assert_uint_eq(stride, 8 * g.layer_bytes); /* two sequences of four pages */
    ck_assert_uint_eq(rt_kv_bytes_reserved(kv), 3 * stride);
    ck_assert_uint_eq(rt_kv_pool_bytes(kv, 0), rt_kv_layer_offset(kv, 0, 2) + stride);
    rt_kv_destroy(kv);
}
END_TEST

START_TEST(full_pool_changes_nothing) {
    mcc_kv_group_entry g = group(1, 0, 16);
    /* Memory for six pages, two sequences of up to four. */
    rt_kv *kv = make(&g, 1, 2, 64, 64, 6 * g.layer_bytes);
    ck_assert(rt_kv_reserve(kv, 0, 64, NULL));
    ck_assert(rt_kv_reserve(kv, 1, 20, NULL));
    uint64_t used = rt_kv_bytes_used(kv);
    rt_error error = {0};
    ck_assert(!rt_kv_reserve(kv, 1, 64, &error));
    ck_assert_int_eq(error.code, MCC_CAPACITY);
    ck_assert_uint_eq(rt_kv_bytes_used(kv), used);
    ck_assert_int_eq(rt_kv_table(kv, 0, 1)[2], -1);
    ck_assert(rt_kv_truncate(kv, 0, 0));
    ck_assert(rt_kv_reserve(kv, 1, 64, NULL));
    rt_kv_destroy(kv);
}
END_TEST

START_TEST(too_little_memory_names_the_longest) {
    mcc_kv_group_entry g = group(1, 0, 16);
    rt_kv_options o = {
        .slots = 1, .max_len = 64, .max_step = 16, .memory_bytes = 3 * g.layer_bytes};
    rt_error error = {0};
    ck_assert_ptr_null(rt_kv_create(&g, 1, &o, &error));
    ck_assert_int_eq(error.code, MCC_CAPACITY);
    ck_assert_ptr_nonnull(strstr(error.text, "at most 48"));
    o.max_len = 48;
    rt_kv *kv = rt_kv_create(&g, 1, &o, &error);
    ck_assert_ptr_nonnull(kv);
    rt_kv_destroy(kv);
}
END_TEST

START_TEST(windows_free_pages_behind) {
    mcc_kv_group_entry groups[2] = {group(1, 0, 16), group(1, 100, 16)};
    int64_t max_len = 20000, step = 64;
    rt_kv *kv = make(groups, 2, 1, max_len, step, 0);
    uint64_t most = 0;
    for (int64_t at = 0; at + step <= max_len; at += step) {
        /* What a step at this position may read is there. */
        ck_assert(rt_kv_reserve(kv, 0, at + step, NULL));
        int64_t begin = at - 99 > 0 ? (at - 99) / 256 * 256 : 0;
        for (int64_t p = begin; p < at + step; p++)
            ck_assert_int_ge(rt_kv_table(kv, 1, 0)[p / 16], 0);
        rt_kv_commit(kv, 0, at + step, NULL);
        uint64_t windowed =
            rt_kv_bytes_used(kv) - (uint64_t)(at + step) / 16 * groups[0].layer_bytes;
        most = windowed > most ? windowed : most;
    }
    ck_assert_uint_le(most, (100 + 512 + 64 + 16 + 16) / 16 * groups[1].layer_bytes);
    int64_t length = rt_kv_length(kv, 0);
    ck_assert(rt_kv_truncate(kv, 0, length - 200)); /* within the margin */
    ck_assert(!rt_kv_truncate(kv, 0, 5000));        /* long gone */
    ck_assert_int_eq(rt_kv_length(kv, 0), length - 200);
    ck_assert(rt_kv_reserve(kv, 0, length, NULL));
    ck_assert(rt_kv_truncate(kv, 0, 0));
    ck_assert_uint_eq(rt_kv_bytes_used(kv), 0);
    ck_assert(rt_kv_reserve(kv, 0, 300, NULL));
    ck_assert_int_ge(rt_kv_table(kv, 1, 0)[0], 0);
    rt_kv_destroy(kv);
}
END_TEST

static uint64_t next_random(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return *state >> 33;
}

/* No page belongs to two places; all entries that must be there are; used bytes add up. */
static void check_ownership(const rt_kv *kv, const mcc_kv_group_entry *groups, int slots) {
    uint64_t used = 0;
    for (uint32_t g = 0; g < 2; g++) {
        static uint8_t owned[1 << 16];
        memset(owned, 0, sizeof owned);
        for (int s = 0; s < slots; s++) {
            const int32_t *table = rt_kv_table(kv, g, s);
            for (int32_t i = 0; i < rt_kv_table_entries(kv); i++) {
                if (table[i] < 0)
                    continue;
                ck_assert_int_eq(owned[table[i]]++, 0);
                used += groups[g].layer_bytes * (uint64_t)groups[g].layers;
            }
        }
    }
    ck_assert_uint_eq(used, rt_kv_bytes_used(kv));
}

START_TEST(random_operations) {
    mcc_kv_group_entry groups[2] = {group(2, 0, 16), group(3, 64, 32)};
    enum { SLOTS = 4, MAX_LEN = 3000, STEP = 100 };
    rt_kv *kv = make(groups, 2, SLOTS, MAX_LEN, STEP, 0);
    uint64_t random = 20240607;
    for (int i = 0; i < 4000; i++) {
        int slot = (int)(next_random(&random) % SLOTS);
        int64_t length = rt_kv_length(kv, slot);
        if (next_random(&random) % 16 == 0) {
            int64_t to = (int64_t)(next_random(&random) % (uint64_t)(length + 1));
            if (rt_kv_truncate(kv, slot, to))
                ck_assert_int_eq(rt_kv_length(kv, slot), to);
            else
                ck_assert_int_eq(rt_kv_length(kv, slot), length);
        } else {
            int64_t to = length + 1 + (int64_t)(next_random(&random) % STEP);
            if (to > MAX_LEN)
                to = 0;
            if (to == 0) {
                ck_assert(rt_kv_truncate(kv, slot, 0));
                continue;
            }
            ck_assert(rt_kv_reserve(kv, slot, to, NULL));
            for (int64_t p = length; p < to; p++)
                for (uint32_t g = 0; g < 2; g++)
                    ck_assert_int_ge(rt_kv_table(kv, g, slot)[p / groups[g].page_tokens], 0);
            rt_kv_commit(kv, slot, to, NULL);
        }
        if (i % 50 == 0)
            check_ownership(kv, groups, SLOTS);
    }
    rt_kv_destroy(kv);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("kv");
    TCase *t = tcase_create("kv");
    tcase_add_test(t, pages_follow_length);
    tcase_add_test(t, layers_lie_apart);
    tcase_add_test(t, full_pool_changes_nothing);
    tcase_add_test(t, too_little_memory_names_the_longest);
    tcase_add_test(t, windows_free_pages_behind);
    tcase_add_test(t, random_operations);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
