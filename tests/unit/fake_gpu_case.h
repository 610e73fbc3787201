/* A made-up model with code for a made-up GPU, for tests of engines there: opened before each test
 * and closed after it, and what must not be left over in the driver. Included by one test file
 * each. */
#ifndef MCC_TESTS_FAKE_GPU_CASE_H
#define MCC_TESTS_FAKE_GPU_CASE_H

#include "check_main.h"
#include "fixture/fake_cuda.h"
#include "fixture/fake_cuda_code.h"

#include "runtime/modelcc.h"

static char path[64];
static fake_artifact artifact;
static fake_cuda_code code;
static mcc_artifact *model;
static fake_cuda_state *driver;

static void open_model(void) {
    fake_artifact_write(&artifact, path);
    mcc_error error = {.struct_size = sizeof error};
    mcc_status status = mcc_artifact_open(path, NULL, &model, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
}

static void close_model(void) {
    mcc_artifact_close(model);
    model = NULL;
    unlink(path);
}

static void setup(void) {
    driver = fake_cuda_load();
    ck_assert_ptr_nonnull(driver);
    memset(&artifact, 0, sizeof artifact);
    fake_tables_init(&artifact.tables);
    fake_cuda_code_init(&code);
    artifact.cuda = &code;
    artifact.cuda_bytes = sizeof code;
    open_model();
}

static void teardown(void) {
    close_model();
}

/* Nothing is left over in the driver, and it was used as drivers want to be. */
static void check_clean(void) {
    ck_assert_msg(driver->bad_calls == 0, "%s", driver->bad_call);
    ck_assert_int_eq(driver->contexts, 0);
    ck_assert_int_eq(driver->pushed, 0);
    ck_assert_int_eq(driver->allocations, 0);
    ck_assert_int_eq(driver->pinned, 0);
    ck_assert_int_eq(driver->modules, 0);
    ck_assert_int_eq(driver->streams, 0);
    ck_assert_int_eq(driver->events, 0);
    ck_assert_int_eq(driver->graphs, 0);
    ck_assert_int_eq(driver->execs, 0);
    ck_assert_uint_eq(driver->used, 0);
}

#endif
