/* The shadow of shared memory against its definition: what happens before what, kept event by event
 * and thread by thread, for random programs; and the cases that matter by name. */
#include "check_main.h"
#include "runtime/emulator/shadow.h"

#define HOLDS(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

enum { ALL = EMU_SHADOW_RACES | EMU_SHADOW_UNINITIALISED | EMU_SHADOW_ASYNC };

/* --- by definition ------------------------------------------------------------------------------
 */

enum { THREADS = 128, BYTES = 96, EVENTS = 4096 };

/* One byte touched. Events of a thread are numbered in its own order. */
typedef struct event {
    uint16_t thread;
    uint8_t access, byte;
    uint32_t number;
} event;

typedef struct model {
    uint32_t threads, done[THREADS];  /* events of each */
    uint32_t known[THREADS][THREADS]; /* events of the second that the first knows of */
    uint32_t published[16][THREADS];
    event events[EVENTS];
    uint32_t n_events;
    bool written[BYTES];
    int pending[BYTES]; /* thread + 1 */
} model;

static bool writes(emu_access a) {
    return a != EMU_ACCESS_READ && a != EMU_ACCESS_STRONG_READ;
}
static bool strong(emu_access a) {
    return a == EMU_ACCESS_ATOMIC || a == EMU_ACCESS_STRONG_READ || a == EMU_ACCESS_STRONG_WRITE;
}

/* What is wrong with a thread's access of a byte: 0 nothing, else 1 + kind. */
static int model_try(const model *m, uint32_t thread, emu_access access, uint32_t byte) {
    if (m->pending[byte])
        return 1 + EMU_SHADOW_USE_OF_PENDING;
    if ((!writes(access) || access == EMU_ACCESS_ATOMIC) && !m->written[byte])
        return 1 + EMU_SHADOW_READ_UNINITIALISED;
    for (uint32_t i = 0; i < m->n_events; i++) {
        const event *e = &m->events[i];
        if (e->byte != byte || e->thread == thread)
            continue;
        if (!writes(access) && !writes((emu_access)e->access))
            continue;
        if (strong(access) && strong((emu_access)e->access))
            continue;
        if (e->number > m->known[thread][e->thread])
            return 1 + EMU_SHADOW_RACE;
    }
    return 0;
}

static void model_do(model *m, uint32_t thread, emu_access access, uint32_t byte) {
    HOLDS(m->n_events < EVENTS, "the model is full");
    m->events[m->n_events++] =
        (event){(uint16_t)thread, (uint8_t)access, (uint8_t)byte, ++m->done[thread]};
    m->known[thread][thread] = m->done[thread];
    if (writes(access))
        m->written[byte] = true;
    if (access == EMU_ACCESS_ASYNC)
        m->pending[byte] = (int)thread + 1;
}

static void model_meet(model *m, const bool members[THREADS]) {
    uint32_t all[THREADS] = {0};
    for (uint32_t t = 0; t < m->threads; t++)
        for (uint32_t u = 0; members[t] && u < m->threads; u++)
            all[u] = m->known[t][u] > all[u] ? m->known[t][u] : all[u];
    for (uint32_t t = 0; t < m->threads; t++)
        if (members[t])
            memcpy(m->known[t], all, sizeof all);
}

static void model_arrive(model *m, uint32_t id, uint32_t warp) {
    for (uint32_t t = 32 * warp; t < 32 * warp + 32 && t < m->threads; t++)
        for (uint32_t u = 0; u < m->threads; u++)
            if (m->known[t][u] > m->published[id][u])
                m->published[id][u] = m->known[t][u];
}

static void model_release(model *m, uint32_t id, uint32_t warps) {
    for (uint32_t t = 0; t < m->threads; t++)
        for (uint32_t u = 0; warps >> t / 32 & 1 && u < m->threads; u++)
            if (m->published[id][u] > m->known[t][u])
                m->known[t][u] = m->published[id][u];
    memset(m->published[id], 0, sizeof m->published[id]);
}

static uint64_t state;
static uint32_t pick(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

/* One warp instruction: who, and where. */
typedef struct instruction {
    emu_access access;
    uint32_t warp, active, size, at[32];
} instruction;

static uint32_t lanes_of(const model *m, uint32_t warp) {
    uint32_t n = m->threads - 32 * warp;
    return n >= 32 ? UINT32_MAX : (1u << n) - 1;
}

static instruction make_instruction(const model *m, uint32_t least, bool any_strong) {
    static const uint32_t masks[] = {UINT32_MAX, UINT32_MAX, 1, 2, 0x80000001, 0xffff, 0x00ff00f0};
    instruction in = {.warp = pick((m->threads + 31) / 32)};
    static const emu_access common[] = {EMU_ACCESS_READ, EMU_ACCESS_READ, EMU_ACCESS_WRITE,
                                        EMU_ACCESS_ASYNC};
    static const emu_access rare[] = {EMU_ACCESS_ATOMIC, EMU_ACCESS_STRONG_READ,
                                      EMU_ACCESS_STRONG_WRITE};
    in.access = any_strong && pick(2) ? rare[pick(3)] : common[pick(4)];
    in.size = least << pick(least == 4 ? 3 : least == 2 ? 4 : 5);
    if (in.access == EMU_ACCESS_ASYNC && in.size < 4)
        in.size = 4;
    in.active = masks[pick(7)] & lanes_of(m, in.warp);
    if (!in.active)
        in.active = 1;
    uint32_t align = in.size < 4 ? in.size : 4;
    uint32_t slots = (BYTES - in.size) / align + 1, first = pick(slots), how = pick(4);
    for (uint32_t i = 0; i < 32; i++)
        in.at[i] = align * (how == 0   ? first
                            : how == 1 ? (first + i * (in.size / align)) % slots
                            : how == 2 ? (first + i / 8) % slots
                                       : pick(slots));
    return in;
}

/* The instruction's finding by definition; it is done where there is none. */
static int model_run(model *m, const instruction *in, uint32_t *thread, uint32_t *byte) {
    static model copy;
    copy = *m;
    for (uint32_t lane = 0; lane < 32; lane++)
        for (uint32_t k = 0; in->active >> lane & 1 && k < in->size; k++) {
            *thread = 32 * in->warp + lane;
            *byte = in->at[lane] + k;
            int wrong = model_try(m, *thread, in->access, *byte);
            if (wrong) {
                *m = copy;
                return wrong;
            }
            model_do(m, *thread, in->access, *byte);
        }
    return 0;
}

static void random_sync(model *m, emu_shadow *s, uint32_t arrived[16]) {
    uint32_t n_warps = (m->threads + 31) / 32, warp = pick(n_warps);
    bool members[THREADS] = {0};
    switch (pick(6)) {
    case 0: { /* all or some lanes of a warp */
        uint32_t mask = pick(2) ? UINT32_MAX : pick(2) ? 0xffff : 3u << pick(31);
        mask &= lanes_of(m, warp);
        for (uint32_t i = 0; i < 32; i++)
            if (mask >> i & 1)
                members[32 * warp + i] = true;
        if (!mask)
            return;
        model_meet(m, members);
        emu_shadow_warp_sync(s, warp, mask);
        return;
    }
    case 1: /* the whole block */
        for (uint32_t t = 0; t < m->threads; t++)
            members[t] = true;
        model_meet(m, members);
        emu_shadow_barrier(s, (uint32_t)((UINT64_C(1) << n_warps) - 1));
        return;
    case 2: { /* some warps meet */
        uint32_t warps = 1 + pick((1u << n_warps) - 1);
        for (uint32_t t = 0; t < m->threads; t++)
            members[t] = warps >> t / 32 & 1;
        model_meet(m, members);
        for (uint32_t i = 0; i < n_warps; i++)
            if (warps >> i & 1)
                emu_shadow_arrive(s, 1, i);
        emu_shadow_release(s, 1, warps);
        return;
    }
    default: { /* one arrives; later others wait for those that did */
        uint32_t id = 2 + pick(2);
        model_arrive(m, id, warp);
        emu_shadow_arrive(s, id, warp);
        if (arrived[id] && pick(2)) {
            model_release(m, id, 1u << warp);
            emu_shadow_release(s, id, 1u << warp);
            arrived[id] = 0;
        } else {
            arrived[id] |= 1u << warp;
        }
        return;
    }
    }
}

/* Copies that are pending are waited for by those who began them. */
static void finish_copies(model *m, emu_shadow *s) {
    for (uint32_t byte = 0; byte < BYTES; byte++) {
        if (!m->pending[byte])
            continue;
        uint32_t thread = (uint32_t)m->pending[byte] - 1, at[32] = {0};
        at[thread % 32] = byte / 4 * 4;
        for (uint32_t k = 0; k < 4; k++) {
            HOLDS(m->pending[byte / 4 * 4 + k] == (int)thread + 1, "a copy that is no word");
            m->pending[byte / 4 * 4 + k] = 0;
            model_do(m, thread, EMU_ACCESS_WRITE, byte / 4 * 4 + k);
        }
        emu_shadow_async_done(s, thread / 32, 1u << thread % 32, at, 4);
    }
}

static int random_program(emu_shadow *s, int steps, uint32_t least, bool any_strong) {
    static model m;
    memset(&m, 0, sizeof m);
    static const uint32_t sizes[] = {32, 64, 96, 128, 40, 100};
    m.threads = sizes[pick(6)];
    uint32_t arrived[16] = {0}, thread, byte;
    emu_shadow_report report;
    HOLDS(emu_shadow_begin(s, BYTES, m.threads), "no memory");
    instruction fill = {.access = EMU_ACCESS_WRITE, .active = (1u << BYTES / 16) - 1, .size = 16};
    for (uint32_t i = 0; i < BYTES / 16; i++)
        fill.at[i] = 16 * i;
    if (pick(4)) { /* else it stays uninitialised */
        HOLDS(!model_run(&m, &fill, &thread, &byte), "the first write");
        HOLDS(emu_shadow_access(s, fill.access, 0, fill.active, fill.at, 16, &report), "first");
    }
    for (int step = 0; step < steps && m.n_events < EVENTS - 32 * 16 - BYTES; step++) {
        if (pick(3) == 0) {
            random_sync(&m, s, arrived);
            continue;
        }
        if (pick(8) == 0)
            finish_copies(&m, s);
        instruction in = make_instruction(&m, least, any_strong);
        int wrong = model_run(&m, &in, &thread, &byte);
        if (wrong && pick(24)) /* mostly go on with what is allowed */
            continue;
        bool good = emu_shadow_access(s, in.access, in.warp, in.active, in.at, in.size, &report);
        HOLDS(good == !wrong, "step %d: access %d of %u bytes by warp %u: found %d, expected %d",
              step, in.access, in.size, in.warp, good ? 0 : 1 + (int)report.kind, wrong);
        if (wrong) {
            HOLDS(wrong == 1 + (int)report.kind, "kind %d, expected %d", report.kind, wrong - 1);
            HOLDS(thread == report.thread && byte == report.address,
                  "thread %u, byte %u; expected thread %u, byte %u", report.thread, report.address,
                  thread, byte);
            return 1 + (int)report.kind;
        }
    }
    return 0;
}

static void run_programs(int n, uint32_t least, bool any_strong) {
    emu_shadow *s = emu_shadow_create(ALL);
    HOLDS(s, "no memory");
    int found[4] = {0};
    for (int i = 0; i < n; i++) {
        state = (uint64_t)i * 977 + 5;
        found[random_program(s, 120, least, any_strong)]++;
    }
    emu_shadow_destroy(s);
    for (int kind = 0; kind < 4; kind++)
        HOLDS(found[kind] > n / 200, "finding %d came about %d times in %d", kind, found[kind], n);
}

START_TEST(words_as_defined) {
    run_programs(test_full() ? 40000 : 3000, 4, false);
}
END_TEST

START_TEST(bytes_as_defined) {
    run_programs(test_full() ? 20000 : 1500, 1, false);
}
END_TEST

START_TEST(strong_accesses_as_defined) {
    run_programs(test_full() ? 20000 : 1500, 2, true);
}
END_TEST

/* --- by name ------------------------------------------------------------------------------------
 */

static uint32_t place[32];
static const uint32_t *side_by_side(uint32_t first, uint32_t size) {
    for (uint32_t i = 0; i < 32; i++)
        place[i] = first + i * size;
    return place;
}
static emu_shadow_report found;
static bool access_all(emu_shadow *s, emu_access access, uint32_t warp, uint32_t first,
                       uint32_t size) {
    return emu_shadow_access(s, access, warp, UINT32_MAX, side_by_side(first, size), size, &found);
}
static bool access_lane(emu_shadow *s, emu_access access, uint32_t thread, uint32_t byte,
                        uint32_t size) {
    place[thread % 32] = byte;
    return emu_shadow_access(s, access, thread / 32, 1u << thread % 32, place, size, &found);
}

static emu_shadow *begin(uint32_t checks, uint32_t bytes, uint32_t threads) {
    emu_shadow *s = emu_shadow_create(checks);
    HOLDS(s && emu_shadow_begin(s, bytes, threads), "no memory");
    return s;
}

START_TEST(message_names_both) {
    emu_shadow *s = begin(ALL, 1024, 64);
    char text[256];
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 0, 0, 4));
    ck_assert(!access_lane(s, EMU_ACCESS_READ, 33, 4, 4));
    ck_assert_int_eq(found.kind, EMU_SHADOW_RACE);
    ck_assert_int_eq(found.access, EMU_ACCESS_READ);
    ck_assert_int_eq(found.other_access, EMU_ACCESS_WRITE);
    emu_shadow_message(&found, text, sizeof text);
    ck_assert_str_eq(text, "shared memory race: thread 33 reads byte 4, which thread 1 wrote, with "
                           "no barrier between");
    ck_assert(!access_lane(s, EMU_ACCESS_READ, 3, 512, 2));
    emu_shadow_message(&found, text, sizeof text);
    ck_assert_str_eq(text, "read of uninitialised shared memory: thread 3 reads byte 512, which "
                           "nobody wrote");
    ck_assert(access_all(s, EMU_ACCESS_ASYNC, 1, 512, 4));
    ck_assert(!access_lane(s, EMU_ACCESS_READ, 34, 520, 4));
    emu_shadow_message(&found, text, sizeof text);
    ck_assert_str_eq(text,
                     "use of shared memory before an async copy is done: thread 34 reads byte "
                     "520, to which thread 34 has a copy in flight");
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(barrier_orders) {
    emu_shadow *s = begin(ALL, 1024, 64);
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 0, 0, 4));
    emu_shadow_barrier(s, 3);
    ck_assert(access_all(s, EMU_ACCESS_READ, 1, 0, 4));
    ck_assert(access_all(s, EMU_ACCESS_READ, 0, 0, 4));
    ck_assert(!access_all(s, EMU_ACCESS_WRITE, 0, 0, 4)); /* others read it */
    ck_assert_int_eq(found.other_access, EMU_ACCESS_READ);
    ck_assert_uint_eq(found.other_warp, 1);
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(shuffles_do_not_order_but_syncwarp_does) {
    emu_shadow *s = begin(ALL, 1024, 32);
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 0, 0, 4));
    ck_assert(access_all(s, EMU_ACCESS_READ, 0, 0, 4)); /* each its own */
    ck_assert(!access_lane(s, EMU_ACCESS_READ, 0, 4, 4));
    emu_shadow_warp_sync(s, 0, 3);
    ck_assert(access_lane(s, EMU_ACCESS_READ, 0, 4, 4));
    ck_assert(!access_lane(s, EMU_ACCESS_READ, 0, 8, 4));
    emu_shadow_warp_sync(s, 0, UINT32_MAX);
    ck_assert(access_lane(s, EMU_ACCESS_READ, 0, 8, 4));
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(lanes_that_write_one_word_at_once_race) {
    emu_shadow *s = begin(ALL, 64, 32);
    uint32_t at[32] = {0};
    ck_assert(!emu_shadow_access(s, EMU_ACCESS_WRITE, 0, 3, at, 4, &found));
    ck_assert_uint_eq(found.thread, 1);
    ck_assert_uint_eq(found.other, 0);
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(neighbouring_bytes_do_not_race) {
    emu_shadow *s = begin(ALL, 64, 64);
    ck_assert(access_lane(s, EMU_ACCESS_WRITE, 0, 0, 4));
    emu_shadow_barrier(s, 3);
    ck_assert(access_lane(s, EMU_ACCESS_WRITE, 0, 0, 1));
    ck_assert(access_lane(s, EMU_ACCESS_WRITE, 32, 1, 1));
    ck_assert(access_lane(s, EMU_ACCESS_WRITE, 33, 2, 2));
    ck_assert(!access_lane(s, EMU_ACCESS_READ, 32, 0, 4));
    ck_assert_uint_eq(found.address, 0);
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(async_copies_are_seen_by_others_after_wait_and_barrier) {
    emu_shadow *s = begin(ALL, 4096, 64);
    ck_assert(access_all(s, EMU_ACCESS_ASYNC, 0, 0, 16));
    ck_assert(!access_all(s, EMU_ACCESS_ASYNC, 0, 0, 16)); /* twice to one place */
    ck_assert_int_eq(found.kind, EMU_SHADOW_USE_OF_PENDING);
    emu_shadow_barrier(s, 3);
    ck_assert(!access_all(s, EMU_ACCESS_READ, 1, 0, 16)); /* a barrier is no wait */
    ck_assert_int_eq(found.kind, EMU_SHADOW_USE_OF_PENDING);
    emu_shadow_async_done(s, 0, UINT32_MAX, side_by_side(0, 16), 16);
    ck_assert(access_all(s, EMU_ACCESS_READ, 0, 0, 16));
    ck_assert(!access_all(s, EMU_ACCESS_READ, 1, 0, 16)); /* a wait is no barrier */
    ck_assert_int_eq(found.kind, EMU_SHADOW_RACE);
    ck_assert_int_eq(found.other_access, EMU_ACCESS_ASYNC);
    emu_shadow_barrier(s, 3);
    ck_assert(access_all(s, EMU_ACCESS_READ, 1, 0, 16));
    ck_assert(!access_all(s, EMU_ACCESS_ASYNC, 0, 0, 16)); /* others still read */
    ck_assert_int_eq(found.kind, EMU_SHADOW_RACE);
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(each_check_alone) {
    emu_shadow *s = begin(EMU_SHADOW_RACES, 1024, 64);
    ck_assert(access_all(s, EMU_ACCESS_READ, 0, 0, 4));
    ck_assert(access_all(s, EMU_ACCESS_READ, 1, 0, 4));
    ck_assert(!access_all(s, EMU_ACCESS_WRITE, 1, 0, 4));
    ck_assert(access_all(s, EMU_ACCESS_ASYNC, 1, 512, 4));
    ck_assert(access_all(s, EMU_ACCESS_READ, 1, 512, 4));
    emu_shadow_destroy(s);
    s = begin(EMU_SHADOW_UNINITIALISED, 1024, 64);
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 0, 0, 4));
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 1, 0, 4));
    ck_assert(access_all(s, EMU_ACCESS_READ, 1, 0, 4));
    ck_assert(!access_all(s, EMU_ACCESS_READ, 1, 512, 4));
    ck_assert(!access_all(s, EMU_ACCESS_ATOMIC, 1, 512, 4));
    ck_assert(access_all(s, EMU_ACCESS_STRONG_WRITE, 1, 512, 4));
    ck_assert(access_all(s, EMU_ACCESS_READ, 0, 512, 4));
    emu_shadow_destroy(s);
    s = begin(EMU_SHADOW_ASYNC, 1024, 64);
    ck_assert(access_all(s, EMU_ACCESS_READ, 0, 0, 4));
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 1, 0, 4));
    ck_assert(access_all(s, EMU_ACCESS_ASYNC, 1, 0, 4));
    ck_assert(!access_all(s, EMU_ACCESS_READ, 1, 0, 4));
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(a_block_forgets_the_one_before) {
    emu_shadow *s = begin(ALL, 256, 64);
    ck_assert(access_lane(s, EMU_ACCESS_WRITE, 0, 0, 4));
    ck_assert(access_lane(s, EMU_ACCESS_ATOMIC, 0, 0, 4));
    ck_assert(emu_shadow_begin(s, 512, 64));
    ck_assert(!access_lane(s, EMU_ACCESS_READ, 33, 0, 4));
    ck_assert_int_eq(found.kind, EMU_SHADOW_READ_UNINITIALISED);
    ck_assert(access_lane(s, EMU_ACCESS_WRITE, 33, 0, 4));
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(more_synchronisations_than_times) {
    emu_shadow *s = begin(ALL, 256, 64);
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 0, 0, 4));
    for (int i = 0; i < 3 << 20; i++) {
        emu_shadow_barrier(s, 3);
        if (i % 65536)
            continue;
        ck_assert(access_all(s, EMU_ACCESS_READ, (uint32_t)i & 1, 0, 4));
    }
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 1, 0, 4));
    ck_assert(!access_all(s, EMU_ACCESS_READ, 0, 0, 4));
    for (int i = 0; i < 3 << 20; i++) /* without a barrier: no race is invented */
        emu_shadow_warp_sync(s, 0, UINT32_MAX);
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 0, 128, 4));
    ck_assert(access_all(s, EMU_ACCESS_READ, 0, 128, 4));
    emu_shadow_destroy(s);
}
END_TEST

START_TEST(warps_that_are_gone_hold_nobody_up) {
    emu_shadow *s = begin(ALL, 256, 96);
    for (int i = 0; i < 3; i++) { /* warp 2 has exited */
        ck_assert(access_all(s, EMU_ACCESS_WRITE, 0, 0, 4));
        emu_shadow_barrier(s, 3);
        ck_assert(access_all(s, EMU_ACCESS_READ, 1, 0, 4));
        emu_shadow_barrier(s, 3);
    }
    ck_assert(access_all(s, EMU_ACCESS_WRITE, 0, 0, 4));
    ck_assert(!access_all(s, EMU_ACCESS_READ, 2, 0, 4)); /* or so it seemed */
    emu_shadow_destroy(s);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator_shadow");
    TCase *c = tcase_create("defined");
    tcase_add_test(c, words_as_defined);
    tcase_add_test(c, bytes_as_defined);
    tcase_add_test(c, strong_accesses_as_defined);
    tcase_set_timeout(c, 600);
    suite_add_tcase(s, c);
    c = tcase_create("cases");
    tcase_add_test(c, message_names_both);
    tcase_add_test(c, barrier_orders);
    tcase_add_test(c, shuffles_do_not_order_but_syncwarp_does);
    tcase_add_test(c, lanes_that_write_one_word_at_once_race);
    tcase_add_test(c, neighbouring_bytes_do_not_race);
    tcase_add_test(c, async_copies_are_seen_by_others_after_wait_and_barrier);
    tcase_add_test(c, each_check_alone);
    tcase_add_test(c, a_block_forgets_the_one_before);
    tcase_add_test(c, more_synchronisations_than_times);
    tcase_add_test(c, warps_that_are_gone_hold_nobody_up);
    tcase_set_timeout(c, 120);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
