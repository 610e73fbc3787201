/* The emulated device's memory: addresses that only it can read, found by bounds. */
#include "check_main.h"
#include "runtime/emulator/memory.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

enum { MIB = 1 << 20 };

static emu_memory *memory;

static void setup(void) {
    memory = emu_memory_create((uint64_t)64 * MIB, true);
    ck_assert_ptr_nonnull(memory);
}
static void teardown(void) {
    emu_memory_destroy(memory);
}

/* --- reading where it is forbidden ---------------------------------------------------------------
 */

static sigjmp_buf back;

static void on_fault(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

static bool is_readable(uint64_t address) {
    struct sigaction ours = {.sa_handler = on_fault}, before;
    sigaction(SIGSEGV, &ours, &before);
    bool readable = false;
    if (sigsetjmp(back, 1) == 0) {
        (void)*(volatile char *)(uintptr_t)address;
        readable = true;
    }
    sigaction(SIGSEGV, &before, NULL);
    return readable;
}

START_TEST(device_memory_is_unreadable) {
    const emu_allocation *a = emu_memory_alloc(memory, 10000, false);
    ck_assert(!a->host);
    memset(a->data, 7, 10000);
    ck_assert(!is_readable(a->base));
    ck_assert(!is_readable(a->base + 9999));
    ck_assert(is_readable((uint64_t)(uintptr_t)a->data));
}
END_TEST

START_TEST(host_memory_has_one_address) {
    const emu_allocation *a = emu_memory_alloc(memory, 10000, true);
    ck_assert(a->host);
    ck_assert_uint_eq(a->base, (uint64_t)(uintptr_t)a->data);
    ck_assert_ptr_null(a->initialised);
    memset(a->data, 7, 10000);
    ck_assert_ptr_eq(emu_memory_find(memory, a->base + 9999, 1), a);
    ck_assert_uint_eq(emu_memory_free_bytes(memory), (uint64_t)64 * MIB);
    uint64_t base = a->base;
    ck_assert(is_readable(base));
    ck_assert(emu_memory_free(memory, base));
    ck_assert(!is_readable(base));
}
END_TEST

/* --- addresses -----------------------------------------------------------------------------------
 */

START_TEST(bounds_are_exact) {
    static const uint64_t sizes[] = {1, 3, 511, 512, 4096, 65536 - 4096 - 512, 65536, 1000000};
    uint64_t last_end = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t n = sizes[i];
        const emu_allocation *a = emu_memory_alloc(memory, n, false);
        ck_assert_uint_eq(a->bytes, n);
        ck_assert_uint_eq(a->serial, i + 1);
        ck_assert_uint_eq(a->base % 512, 0);
        ck_assert_uint_ne(a->base % 1024, 0); /* no more aligned than promised */
        ck_assert(a->base >= last_end + 4096);
        last_end = a->base + n;
        ck_assert_ptr_eq(emu_memory_find(memory, a->base, n), a);
        ck_assert_ptr_eq(emu_memory_find(memory, a->base + n - 1, 1), a);
        ck_assert_ptr_eq(emu_memory_find(memory, a->base + n, 0), a);
        ck_assert_ptr_null(emu_memory_find(memory, a->base, n + 1));
        ck_assert_ptr_null(emu_memory_find(memory, a->base - 1, 1));
        ck_assert_ptr_null(emu_memory_find(memory, a->base - 1, 2));
        ck_assert_ptr_null(emu_memory_find(memory, a->base + n, 1));
        ck_assert_ptr_null(emu_memory_find(memory, a->base + n + 4095, 1));
        ck_assert_ptr_null(emu_memory_find(memory, a->base, UINT64_MAX));
        ck_assert_ptr_null(emu_memory_find(memory, a->base + 1, UINT64_MAX));
        ck_assert_ptr_eq(emu_memory_nearest(memory, a->base), a);
        ck_assert_ptr_eq(emu_memory_nearest(memory, a->base + n + 100), a);
        ck_assert_ptr_eq(emu_memory_nearest(memory, UINT64_MAX), a);
        ck_assert_ptr_ne(emu_memory_nearest(memory, a->base - 1), a);
    }
    static const uint64_t nowhere[] = {0, 1, 4096, UINT64_MAX, UINT64_MAX / 2};
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++)
        ck_assert_ptr_null(emu_memory_find(memory, nowhere[i], 1));
    ck_assert_ptr_null(emu_memory_nearest(memory, 0));
}
END_TEST

START_TEST(freed_memory_is_gone) {
    const emu_allocation *a = emu_memory_alloc(memory, 300, false);
    const emu_allocation *b = emu_memory_alloc(memory, 200000, false);
    uint64_t base = b->base;
    ck_assert(!emu_memory_free(memory, base + 1));
    ck_assert(!emu_memory_free(memory, base + 65536));
    ck_assert(!emu_memory_free(memory, 0));
    ck_assert(emu_memory_free(memory, base));
    ck_assert(!emu_memory_free(memory, base));
    ck_assert_ptr_null(emu_memory_find(memory, base, 1));
    ck_assert_ptr_eq(emu_memory_nearest(memory, base), a);
    /* Its address is not used again soon. */
    const emu_allocation *c = emu_memory_alloc(memory, 200000, false);
    ck_assert_uint_gt(c->base, base + 200000);
    ck_assert_uint_eq(c->serial, 3);
}
END_TEST

START_TEST(capacity_is_kept) {
    ck_assert_uint_eq(emu_memory_capacity(memory), (uint64_t)64 * MIB);
    ck_assert_ptr_null(emu_memory_alloc(memory, 0, false));
    ck_assert_ptr_null(emu_memory_alloc(memory, (uint64_t)64 * MIB + 1, false));
    ck_assert_ptr_null(emu_memory_alloc(memory, UINT64_MAX, false));
    ck_assert_ptr_null(emu_memory_alloc(memory, UINT64_MAX, true));
    ck_assert_ptr_null(emu_memory_alloc(memory, UINT64_MAX - 600, false));
    uint64_t base = emu_memory_alloc(memory, (uint64_t)64 * MIB, false)->base;
    ck_assert_uint_eq(emu_memory_free_bytes(memory), 0);
    ck_assert_ptr_null(emu_memory_alloc(memory, 1, false));
    ck_assert_ptr_nonnull(emu_memory_alloc(memory, 1, true));
    ck_assert(emu_memory_free(memory, base));
    ck_assert_uint_eq(emu_memory_free_bytes(memory), (uint64_t)64 * MIB);
}
END_TEST

/* More than the range holds, in turns: the addresses are used again, and never two at a time. */
START_TEST(addresses_come_round) {
    uint64_t held[7] = {0};
    static const uint64_t sizes[7] = {MIB, 5, 63 * 1024, 8 * MIB, 70000, 2 * MIB, 65536 - 512};
    uint64_t lowest = UINT64_MAX, lows = 0;
    for (int i = 0; i < 70000; i++) {
        int k = i % 7;
        if (held[k])
            ck_assert(emu_memory_free(memory, held[k]));
        const emu_allocation *a = emu_memory_alloc(memory, sizes[k], false);
        if (!a)
            ck_abort_msg("no room for allocation %d", i);
        held[k] = a->base;
        if (a->base < lowest)
            lowest = a->base;
        lows += a->base < lowest + 100 * MIB;
        for (int j = 0; j < 7; j++)
            if (j != k && held[j] && held[j] < a->base + a->bytes + 4096 &&
                a->base < held[j] + sizes[j] + 4096)
                ck_abort_msg("allocation %d overlaps", i);
    }
    ck_assert_uint_gt(lows, 100);
}
END_TEST

/* --- initialised bits ----------------------------------------------------------------------------
 */

START_TEST(marks_are_exact) {
    const emu_allocation *a = emu_memory_alloc(memory, 80, false);
    for (uint64_t first = 0; first < 80; first++)
        for (uint64_t n = 0; first + n <= 80; n++) {
            memset(a->initialised, 0, 10);
            emu_memory_mark(a, a->base + first, n);
            for (uint64_t i = 0; i < 80; i++)
                if ((a->initialised[i / 8] >> i % 8 & 1) != (i >= first && i < first + n))
                    ck_abort_msg("byte %d of a mark of %d at %d", (int)i, (int)n, (int)first);
        }
}
END_TEST

START_TEST(untracked_memory_has_no_bits) {
    emu_memory *other = emu_memory_create(MIB, false);
    const emu_allocation *a = emu_memory_alloc(other, 80, false);
    ck_assert_ptr_null(a->initialised);
    emu_memory_mark(a, a->base, 80);
    emu_memory_destroy(other);
    emu_memory_destroy(NULL);
}
END_TEST

/* --- several threads -----------------------------------------------------------------------------
 */

static const emu_allocation *shared[50];

static void *look_up(void *seed) {
    uint32_t x = *(uint32_t *)seed, wrong = 0;
    for (int i = 0; i < 200000; i++) {
        x = x * 1664525 + 1013904223;
        const emu_allocation *a = shared[x % 50];
        wrong += emu_memory_find(memory, a->base + (x >> 8) % a->bytes, 1) != a;
    }
    *(uint32_t *)seed = wrong;
    return NULL;
}

START_TEST(threads_look_up) {
    for (int i = 0; i < 50; i++)
        shared[i] = emu_memory_alloc(memory, 1 + (uint64_t)i * 9973, i % 5 == 0);
    uint32_t seeds[4] = {1, 2, 3, 4};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, look_up, &seeds[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_uint_eq(seeds[i], 0);
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator memory");
    TCase *t = tcase_create("emulator memory");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, device_memory_is_unreadable);
    tcase_add_test(t, host_memory_has_one_address);
    tcase_add_test(t, bounds_are_exact);
    tcase_add_test(t, freed_memory_is_gone);
    tcase_add_test(t, capacity_is_kept);
    tcase_add_test(t, addresses_come_round);
    tcase_add_test(t, marks_are_exact);
    tcase_add_test(t, untracked_memory_has_no_bits);
    tcase_add_test(t, threads_look_up);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
