/* Shared beginnings in the KV cache: what is taken over, in which order it is evicted, copies on
 * write; and random operations, where every page's content is kept track of, so that a sequence
 * that sees another's tokens is found out. */
#include "check_main.h"
#include "runtime/kv.h"
#include "runtime/modelcc.h"

#include <string.h>

enum { PAGE = 16, MAX_LEN = 2000, MAX_STEP = 100, SLOTS = 6 };

static const mcc_kv_group_entry full = {
    .layers = 2, .heads = 1, .head_dim = 8, .page_tokens = PAGE, .layer_bytes = 1024};
static const mcc_kv_group_entry wide = {
    .layers = 1, .heads = 1, .head_dim = 8, .page_tokens = 2 * PAGE, .layer_bytes = 2048};
static const mcc_kv_group_entry windowed = {.window = 100,
                                            .layers = 1,
                                            .heads = 1,
                                            .head_dim = 8,
                                            .page_tokens = PAGE,
                                            .layer_bytes = 1024};

/* --- a cache with contents -----------------------------------------------------------------------
 */

enum { MAX_GROUPS = 2, MAX_PAGES = 1024, WIDEST = 2 * PAGE };

typedef struct cache {
    rt_kv *kv;
    mcc_kv_group_entry groups[MAX_GROUPS];
    uint32_t n_groups;
    /* What is in a page: for each position, a number that stands for the tokens up to it. */
    uint64_t content[MAX_GROUPS][MAX_PAGES][WIDEST];
    int32_t ids[SLOTS][MAX_LEN];
    int64_t n_ids[SLOTS];
    uint64_t salt[SLOTS];
} cache;

static cache c;

static void make(const mcc_kv_group_entry *groups, uint32_t n, uint64_t bytes, int hash_bits) {
    rt_error error = {0};
    memset(&c, 0, sizeof c);
    memcpy(c.groups, groups, n * sizeof *groups);
    c.n_groups = n;
    rt_kv_options o = {.slots = SLOTS,
                       .max_len = MAX_LEN,
                       .max_step = MAX_STEP,
                       .memory_bytes = bytes,
                       .hash_bits = hash_bits};
    c.kv = rt_kv_create(c.groups, n, &o, &error);
    ck_assert_msg(c.kv != NULL, "%s", error.text);
}

static void check(void) {
    rt_error error = {0};
    ck_assert_msg(rt_kv_check(c.kv, &error), "%s", error.text);
}

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

/* Every position that a next step may read holds what it must. */
static void check_contents(int slot) {
    int64_t n = rt_kv_length(c.kv, slot);
    uint64_t h = mix(1, c.salt[slot]);
    for (int64_t p = 0; p < n; p++) {
        h = mix(h, (uint64_t)c.ids[slot][p]);
        for (uint32_t g = 0; g < c.n_groups; g++) {
            const mcc_kv_group_entry *e = &c.groups[g];
            int64_t begin = e->window ? (n - e->window + 1) / 256 * 256 : 0;
            if (p < begin)
                continue;
            int32_t page = rt_kv_table(c.kv, g, slot)[p / e->page_tokens];
            if (page < 0 || c.content[g][page][p % e->page_tokens] != h)
                ck_abort_msg("slot %d sees other tokens at %d", slot, (int)p);
        }
    }
}

/* A step of one sequence: up to `length`. False when there is no room. */
static bool step(int slot, int64_t length) {
    if (!rt_kv_reserve(c.kv, slot, length, NULL))
        return false;
    int n;
    const rt_kv_copy *copies = rt_kv_copies(c.kv, &n);
    for (int i = 0; i < n; i++)
        memcpy(c.content[copies[i].group][copies[i].to], c.content[copies[i].group][copies[i].from],
               sizeof c.content[0][0]);
    rt_kv_copies_made(c.kv);
    uint64_t h = mix(1, c.salt[slot]);
    for (int64_t p = 0; p < length; p++) {
        h = mix(h, (uint64_t)c.ids[slot][p]);
        for (uint32_t g = 0; p >= rt_kv_length(c.kv, slot) && g < c.n_groups; g++) {
            int32_t page = rt_kv_table(c.kv, g, slot)[p / c.groups[g].page_tokens];
            if (page < 0 || page >= MAX_PAGES)
                ck_abort_msg("slot %d has page %d at %d", slot, page, (int)p);
            c.content[g][page][p % c.groups[g].page_tokens] = h;
        }
    }
    rt_kv_commit(c.kv, slot, length, c.ids[slot]);
    return true;
}

/* Tokens `seed`, `seed`, … */
static void fill(int slot, int32_t seed, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        c.ids[slot][i] = seed * 1000 + (int32_t)i;
    c.n_ids[slot] = n;
}

static int64_t attach(int slot) {
    return rt_kv_attach(c.kv, slot, c.ids[slot], c.n_ids[slot], c.salt[slot]);
}

static void run(int slot) {
    for (int64_t at = rt_kv_length(c.kv, slot); at < c.n_ids[slot];) {
        at = at + MAX_STEP < c.n_ids[slot] ? at + MAX_STEP : c.n_ids[slot];
        ck_assert(step(slot, at));
    }
    check_contents(slot);
    check();
}

static void drop(int slot) {
    ck_assert(rt_kv_truncate(c.kv, slot, 0));
    check();
}

/* --- by name -------------------------------------------------------------------------------------
 */

START_TEST(whole_blocks_are_taken_over) {
    make(&full, 1, 0, 0);
    fill(0, 1, 100);
    ck_assert_int_eq(attach(0), 0);
    run(0);
    uint64_t used = rt_kv_bytes_used(c.kv);
    fill(1, 1, 100);
    ck_assert_int_eq(attach(1), 96); /* while its owner is there, too */
    ck_assert_uint_eq(rt_kv_bytes_used(c.kv), used);
    run(1);
    ck_assert_uint_eq(rt_kv_bytes_used(c.kv), used + 2048);
    drop(0);
    drop(1);
    ck_assert_uint_eq(rt_kv_bytes_used(c.kv), 0);
    ck_assert_uint_eq(rt_kv_bytes_cached(c.kv), 6 * 2048);
    c.ids[2][0] = 7;
    fill(2, 1, 100);
    c.ids[2][40] = 7;
    ck_assert_int_eq(attach(2), 32);
    run(2);
    drop(2);
    fill(3, 1, 100);
    c.salt[3] = 1;
    ck_assert_int_eq(attach(3), 0);
    run(3);
    drop(3);
    rt_kv_forget(c.kv);
    check();
    ck_assert_uint_eq(rt_kv_bytes_cached(c.kv), 0);
    fill(0, 1, 100);
    ck_assert_int_eq(attach(0), 0);
    rt_kv_destroy(c.kv);
}
END_TEST

/* Two that computed the same at the same time have it once. */
START_TEST(the_same_is_kept_once) {
    make(&full, 1, 0, 0);
    for (int s = 0; s < 2; s++) {
        fill(s, 3, 80);
        ck_assert_int_eq(attach(s), 0);
    }
    run(0);
    run(1);
    ck_assert_uint_eq(rt_kv_bytes_used(c.kv), 5 * 2048);
    drop(0);
    check_contents(1);
    drop(1);
    ck_assert_uint_eq(rt_kv_bytes_cached(c.kv), 5 * 2048);
    rt_kv_destroy(c.kv);
}
END_TEST

START_TEST(the_oldest_is_evicted_from_its_end) {
    /* As many pages as one sequence of full length has. */
    make(&full, 1, (MAX_LEN + PAGE - 1) / PAGE * 2048, 0);
    for (int s = 0; s < 3; s++) {
        fill(s, s + 1, 320); /* 20 pages */
        ck_assert_int_eq(attach(s), 0);
        run(s);
    }
    for (int s = 0; s < 3; s++)
        drop(s);
    fill(3, 2, 320);
    ck_assert_int_eq(attach(3), 320); /* used again: now the newest */
    drop(3);
    fill(4, 9, (125 - 60 + 5) * PAGE);
    ck_assert_int_eq(attach(4), 0);
    run(4); /* needs five pages more than are free */
    fill(0, 1, 320);
    ck_assert_int_eq(attach(0), 15 * PAGE);
    fill(1, 2, 320);
    ck_assert_int_eq(attach(1), 320);
    fill(2, 3, 320);
    ck_assert_int_eq(attach(2), 320);
    check();
    rt_kv_destroy(c.kv);
}
END_TEST

START_TEST(forks_copy_what_they_write) {
    make(&full, 1, 0, 0);
    fill(0, 5, 40);
    attach(0);
    run(0);
    for (int s = 1; s < 4; s++) {
        fill(s, 5, 40);
        ck_assert(rt_kv_fork(c.kv, 0, s, 39));
        check_contents(s);
    }
    ck_assert(!rt_kv_fork(c.kv, 0, 4, 41)); /* more than there is */
    ck_assert_uint_eq(rt_kv_bytes_used(c.kv), 3 * 2048);
    for (int s = 0; s < 4; s++) {
        for (int i = 0; i < 20; i++)
            c.ids[s][c.n_ids[s]++] = 100 * s + i;
        run(s);
    }
    for (int s = 0; s < 4; s++)
        check_contents(s);
    ck_assert_uint_eq(rt_kv_bytes_used(c.kv), (2 + 4 * 2) * 2048);
    for (int s = 0; s < 4; s++)
        drop(s);
    rt_kv_destroy(c.kv);
}
END_TEST

/* A fork in the middle of a block that its origin has filled since: the block stays as it is. */
START_TEST(forks_leave_known_blocks_alone) {
    make(&full, 1, 0, 0);
    fill(0, 5, 48);
    attach(0);
    run(0);
    ck_assert(rt_kv_fork(c.kv, 0, 1, 40));
    drop(0);
    fill(1, 5, 48);
    c.ids[1][44] = 3;
    run(1);
    fill(2, 5, 48);
    ck_assert_int_eq(attach(2), 48);
    check_contents(2);
    rt_kv_destroy(c.kv);
}
END_TEST

START_TEST(windows_need_only_what_they_see) {
    mcc_kv_group_entry groups[2] = {full, windowed};
    make(groups, 2, 0, 0);
    fill(0, 1, 1500);
    attach(0);
    run(0);
    drop(0);
    fill(1, 1, 1500);
    ck_assert_int_eq(attach(1), 1488);
    ck_assert_int_eq(rt_kv_table(c.kv, 1, 1)[0], -1);
    check_contents(1);
    drop(1);
    fill(1, 1, 700); /* in the middle, too: the window's pages were let go, but not evicted */
    ck_assert_int_eq(attach(1), 688);
    run(1);
    drop(1);
    rt_kv_destroy(c.kv);
    /* Sliding windows alone: the way to a block leads past blocks whose pages are gone. */
    make(&windowed, 1, 60 * 1024, 0);
    fill(0, 1, 1500);
    attach(0);
    run(0);
    drop(0);
    fill(1, 1, 1500);
    ck_assert_int_eq(attach(1), 1488);
    run(1);
    drop(1);
    fill(1, 1, 300);
    ck_assert_int_eq(attach(1), 0); /* evicted */
    rt_kv_destroy(c.kv);
}
END_TEST

START_TEST(promises_are_kept) {
    make(&full, 1, 130 * 2048, 0);
    fill(0, 1, 1600);
    fill(1, 2, 480);
    attach(0);
    ck_assert(rt_kv_promise(c.kv, 0, 1600, 0)); /* 100 of 130 pages */
    attach(1);
    ck_assert(!rt_kv_promise(c.kv, 1, 481, 0));
    ck_assert(!rt_kv_promise(c.kv, 1, 480, 1));
    ck_assert(rt_kv_promise(c.kv, 1, 480, 0));
    run(1);
    run(0);
    drop(0);
    ck_assert(rt_kv_promise(c.kv, 2, 1600, 0)); /* what is cached can be had */
    drop(1);
    drop(2);
    ck_assert(rt_kv_promise(c.kv, 2, MAX_LEN, 1000)); /* alone, nothing is refused */
    rt_kv_destroy(c.kv);
}
END_TEST

/* --- at random -----------------------------------------------------------------------------------
 */

static uint64_t state;

static uint32_t below(uint32_t n) {
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

/* A prompt out of few: common beginnings of all lengths are frequent. */
static void random_prompt(int slot) {
    c.n_ids[slot] = 1 + below(below(4) == 0 ? MAX_LEN : 150);
    c.salt[slot] = below(4) == 0;
    uint32_t way = 0;
    for (int64_t i = 0; i < c.n_ids[slot]; i++) {
        if (i % 23 == 0)
            way = way * 2 + (below(4) == 0);
        c.ids[slot][i] = (int32_t)(way % 1009) * 3 + (int32_t)(i % 5);
    }
}

/* Returns how often a sequence found no room. */
static int random_run(const mcc_kv_group_entry *groups, uint32_t n, uint64_t bytes, int hash_bits,
                      int operations) {
    make(groups, n, bytes, hash_bits);
    bool busy[SLOTS] = {false};
    int64_t taken = 0, forks = 0;
    int refused = 0;
    for (int i = 0; i < operations; i++) {
        int s = (int)below(SLOTS);
        int64_t length = rt_kv_length(c.kv, s);
        if (!busy[s]) {
            int other = (int)below(SLOTS);
            int64_t held = rt_kv_length(c.kv, other);
            if (busy[other] && held > 1 && below(3) == 0) {
                int64_t at = 1 + below((uint32_t)held);
                memcpy(c.ids[s], c.ids[other], sizeof c.ids[s]);
                c.n_ids[s] = at;
                c.salt[s] = c.salt[other];
                busy[s] = rt_kv_fork(c.kv, other, s, at);
                forks += busy[s];
            } else {
                random_prompt(s);
                taken += attach(s);
                busy[s] = true;
            }
        } else if (below(6) == 0) {
            ck_assert(rt_kv_truncate(c.kv, s, 0));
            busy[s] = false;
        } else {
            if (length == c.n_ids[s] && length < MAX_LEN)
                c.ids[s][c.n_ids[s]++] = (int32_t)below(3);
            int64_t to = length + 1 + below(MAX_STEP);
            if (to > c.n_ids[s])
                to = c.n_ids[s];
            if (to > length && !step(s, to)) {
                refused++;
                ck_assert_int_eq(rt_kv_length(c.kv, s), length);
                rt_kv_truncate(c.kv, s, 0);
                busy[s] = false;
            }
        }
        if (below(500) == 0)
            rt_kv_forget(c.kv);
        check_contents(s);
        check();
    }
    ck_assert_int_gt(taken, 100);
    ck_assert_int_gt(forks, 10);
    for (int s = 0; s < SLOTS; s++) {
        check_contents(s);
        drop(s);
    }
    ck_assert_uint_eq(rt_kv_bytes_used(c.kv), 0);
    rt_kv_forget(c.kv);
    check();
    ck_assert_uint_eq(rt_kv_bytes_cached(c.kv), 0);
    rt_kv_destroy(c.kv);
    return refused;
}

START_TEST(random_operations) {
    static const int hash_bits[] = {0, 3, 1};
    const char *seed = getenv("MCC_TEST_SEED");
    state = (seed ? strtoull(seed, NULL, 10) : 1) * 1000 + (uint64_t)_i;
    mcc_kv_group_entry both[2] = {full, windowed}, uneven[2] = {wide, windowed};
    int n = test_full() ? 20000 : 3000, bits = hash_bits[_i % 3];
    uint64_t one = MAX_LEN / PAGE * 2048;
    int refused = random_run(&full, 1, 0, bits, n);
    ck_assert_int_eq(refused, 0);
    refused += random_run(&full, 1, one + one / 10, bits, n);
    refused += random_run(&windowed, 1, 60 * 1024, bits, n);
    refused += random_run(both, 2, one + 60 * 1024 + one / 10, bits, n);
    refused += random_run(uneven, 2, one + 80 * 1024, bits, n);
    ck_assert_int_gt(refused, 0);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("kv prefix");
    TCase *t = tcase_create("kv prefix");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, whole_blocks_are_taken_over);
    tcase_add_test(t, the_same_is_kept_once);
    tcase_add_test(t, the_oldest_is_evicted_from_its_end);
    tcase_add_test(t, forks_copy_what_they_write);
    tcase_add_test(t, forks_leave_known_blocks_alone);
    tcase_add_test(t, windows_need_only_what_they_see);
    tcase_add_test(t, promises_are_kept);
    tcase_add_loop_test(t, random_operations, 0, 3);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
