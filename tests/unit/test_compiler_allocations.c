/* Memory that runs out while a model is read, built into a graph and taken through the passes: each
 * allocation may fail, and then there is an error, or the arena's handler has been called, or the
 * result is as sound as without. Never a crash. What an interrupted reader held is not given back:
 * the process ends there. */
#include "check_main.h"
#include "failing_malloc.h"

#include "codegen/cpu/cpu.h"
#include "compiler/frontend/frontend.h"
#include "compiler/tokenizer/tokenizer.h"
#include "ir/verify.h"
#include "passes/pass.h"

#include <setjmp.h>
#include <stdio.h>

static jmp_buf out_of_memory;

static void jump_out(void) {
    atomic_store(&fail_in, 0);
    longjmp(out_of_memory, 1);
}

static bool compile_tokenizer(const fe_tokenizer_source *s, ir_arena *arena, ir_diag *diag) {
    fe_blob blob;
    switch (s->kind) {
    case FE_TOKENIZER_JSON:
        return fe_tokenizer_from_json(arena, diag, s->where, (const char *)s->json.data,
                                      s->json.size, (const char *)s->config.data, s->config.size,
                                      &blob);
    case FE_TOKENIZER_GGUF:
        return fe_tokenizer_from_gguf(arena, diag, s->where, &s->gguf, &blob);
    case FE_TOKENIZER_NONE:
        break;
    }
    return true;
}

/* The work of `modelcc build` up to the kernels; false after an error. */
static bool read_model(const char *path, ir_diag *diag) {
    fe_model *model = fe_open(path, diag);
    ir_module *module = model ? fe_build(model, FE_LOGITS, diag) : NULL;
    pass_options options = {0};
    pass_context context = {
        .module = module, .diag = diag, .options = &options, .target = cg_cpu_pass_target()};
    bool ok = module && ir_verify(module, diag) && pass_run_pipeline(&context, NULL, NULL) &&
              ir_verify(module, diag);
    ir_arena *arena = ok ? ir_arena_create() : NULL;
    if (ok && !arena)
        ok = ir_error(diag, NULL, "out of memory");
    ok = ok && compile_tokenizer(&model->tokenizer, arena, diag);
    ir_arena_destroy(arena);
    ir_module_destroy(module);
    fe_close(model);
    return ok;
}

/* Fails allocation n of the work on a model. */
static void fail_one(const char *path, long n) {
    static ir_diag diag; /* its value is needed after a jump */
    diag = (ir_diag){0};
    if (setjmp(out_of_memory))
        return;
    atomic_store(&fail_in, n);
    bool ok = read_model(path, &diag);
    atomic_store(&fail_in, 0);
    ck_assert_msg(ok == (diag.errors == 0), "%s, allocation %ld: %s with %d errors", path, n,
                  ok ? "success" : "failure", diag.errors);
    ir_diag_clear(&diag);
}

static const char *const models[] = {
    MCC_TEST_DATA "/golden/gguf/llama-q4_0.gguf",
    MCC_TEST_DATA "/golden/gguf/gemma3-mixed.gguf",
    MCC_TEST_DATA "/golden/tiny-llama3", /* two files and their index */
    MCC_TEST_DATA "/golden/tiny-gemma3",
};

START_TEST(every_allocation_may_fail) {
    if (!COUNTING)
        TEST_SKIP("failing allocations: a sanitizer has its own malloc");
    const char *path = models[_i];
    ir_arena_on_oom(jump_out);
    ir_diag diag = {0};
    ck_assert(read_model(path, &diag)); /* what is allocated only once is there now */
    ir_diag_clear(&diag);
    long before = atomic_load(&allocations);
    ck_assert(read_model(path, &diag));
    ir_diag_clear(&diag);
    long total = atomic_load(&allocations) - before;
    ck_assert_int_gt(total, 60); /* without assertions: graphs are verified less often */
    const char *seed = getenv("MCC_TEST_SEED");
    unsigned random = seed ? (unsigned)strtoul(seed, NULL, 10) : 1;
    long sample = test_full() ? 3000 : 150;
    printf("%s: %ld allocations, seed %u\n", path, total, random);
    for (long i = 0; i < sample; i++) {
        random = random * 1664525u + 1013904223u;
        /* The first ones open files; of the others a sample. */
        fail_one(path, i < 60 ? i + 1 : 1 + (long)(random >> 8) % total);
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("compiler allocations");
    TCase *t = tcase_create("compiler allocations");
    tcase_set_timeout(t, 300);
    tcase_add_loop_test(t, every_allocation_may_fail, 0, sizeof models / sizeof *models);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
