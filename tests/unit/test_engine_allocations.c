/* A step that makes a token allocates nothing, whatever the sampling and with text. This program
 * replaces malloc to count. */
#include "check_main.h"
#include "fixture/fake_artifact.h"
#include "fixture/fake_tokenizer.h"

#include "runtime/modelcc.h"

#include <malloc.h>
#include <stdatomic.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTING 0
#elif defined(__has_feature)
#define COUNTING (!__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer))
#else
#define COUNTING 1
#endif

static atomic_long allocations;

#if COUNTING
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, size);
}
#endif

START_TEST(steps_allocate_nothing) {
    if (!COUNTING) {
        puts("skipped: a sanitizer has its own malloc");
        return;
    }
    static const struct {
        float temperature, top_p, min_p, repetition_penalty;
        int32_t top_k;
        uint32_t flags;
    } kinds[] = {
        {.temperature = 0},
        {.temperature = 5},
        {.temperature = 5, .top_p = 0.9f, .top_k = 20, .min_p = 0.01f},
        {.temperature = 5, .repetition_penalty = 1.5f, .flags = MCC_REQUEST_LOGPROBS},
    };
    static fake_artifact a;
    char path[64];
    fake_tables_init(&a.tables);
    ir_arena *arena = ir_arena_create();
    fe_blob blob = fake_tokenizer(arena);
    a.tokenizer = blob.data;
    a.tokenizer_bytes = blob.size;
    fake_artifact_write(&a, path);
    mcc_artifact *model;
    mcc_engine *engine;
    ck_assert_int_eq(mcc_artifact_open(path, NULL, &model, NULL), MCC_OK);
    mcc_engine_options options = {.struct_size = sizeof options, .threads = 2};
    ck_assert_int_eq(mcc_engine_create(model, &options, &engine, NULL), MCC_OK);
    long before = atomic_load(&allocations);
    void *volatile memory = malloc(1);
    free(memory);
    ck_assert_int_gt(atomic_load(&allocations), before); /* the counter counts */

    const char *stop = "~never~";
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        uint64_t id;
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS | kinds[k].flags,
                                     .prompt = "ab",
                                     .temperature = kinds[k].temperature,
                                     .top_p = kinds[k].top_p,
                                     .top_k = kinds[k].top_k,
                                     .min_p = kinds[k].min_p,
                                     .repetition_penalty = kinds[k].repetition_penalty,
                                     .stop = &stop,
                                     .n_stop = 1};
        ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
        before = atomic_load(&allocations);
        mcc_event event = {.struct_size = sizeof event};
        int tokens = 0;
        while (event.kind != MCC_EVENT_FINISHED) {
            mcc_engine_step(engine, NULL, NULL);
            while (mcc_engine_poll(engine, id, &event, NULL) == MCC_OK &&
                   event.kind == MCC_EVENT_TOKEN)
                tokens++;
        }
        long made = atomic_load(&allocations) - before; /* Check allocates too */
        ck_assert_int_gt(tokens, 1000);
        ck_assert_int_eq(made, 0);
    }
    mcc_engine_destroy(engine);
    mcc_artifact_close(model);
    ir_arena_destroy(arena);
    unlink(path);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine allocations");
    TCase *t = tcase_create("engine allocations");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, steps_allocate_nothing);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
