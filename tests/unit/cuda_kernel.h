/* For tests of the CUDA backend: generates a kernel's functions, compiles them for an architecture
 * and runs them on the emulated GPU. Included by one test file each. */
#ifndef MCC_TESTS_CUDA_KERNEL_H
#define MCC_TESTS_CUDA_KERNEL_H

#include "check_main.h"

#include "codegen/cuda/cuda.h"
#include "emulated_gpu.h"

/* Memory of the device for one argument; written ones are copied back. */
typedef struct cuda_buffer {
    void *bytes;
    size_t size;
} cuda_buffer;

typedef struct cuda_run_options {
    const char *target; /* "cuda:sm_80" */
    uint32_t checks;    /* EMU_CHECK_ bits */
    uint64_t seed;      /* of the schedule */
    emu_counters *counters;
} cuda_run_options;

/* Whether there is a compiler; without, the test says that it leaves the GPU out. */
static inline bool cuda_available(void) {
    char text[1024];
    if (cg_cuda_nvrtc_find(text, sizeof text))
        return true;
    TEST_SKIP_PART("not run on the emulated GPU: %s", text);
    return false;
}

/* Launches one compiled function; scratch memory is not given. */
static inline void cuda_launch(const cg_cuda_function *f, const cuda_run_options *o,
                               const mcc_step *step, size_t step_bytes, int n_args,
                               const cuda_buffer *args) {
    enum { MOST = 64 };
    const emu_allocation *allocations[MOST];
    uint64_t params[MOST];
    char error[1024];
    ck_assert_int_lt(n_args, MOST);
    cg_cuda_image image;
    ir_diag diag = {0};
    bool ok = cg_cuda_compile(f, cg_cuda_target_find(o->target),
                              &(cg_cuda_options){.ptx_only = true}, &diag, &image);
    if (!ok)
        ir_diag_print(&diag, stderr);
    ck_assert(ok);
    ptx_module *module = ptx_module_create(image.ptx, image.ptx_bytes, error, sizeof error);
    ck_assert_msg(module != NULL, "%s", error);
    emu_memory *memory = emu_memory_create(UINT64_C(1) << 32, true);
    ck_assert_ptr_nonnull(memory);
    ck_assert_msg(ptx_module_load(module, memory, error, sizeof error), "%s", error);
    params[0] = emulated_upload(memory, step, step_bytes)->base;
    for (int i = 0; i < n_args; i++) {
        allocations[i] = emulated_upload(memory, args[i].bytes, args[i].size);
        params[i + 1] = allocations[i]->base;
    }
    emu_launch launch = {.function = ptx_module_function(module, f->name),
                         .grid = {emulated_blocks(&f->x, step), emulated_blocks(&f->y, step), 1},
                         .block = {f->threads, 1, 1},
                         .shared_bytes = f->shared_bytes,
                         .params = params,
                         .memory = memory,
                         .checks = o->checks,
                         .schedule_seed = o->seed,
                         .instruction_limit = UINT64_C(1) << 32,
                         .threads = 1,
                         .counters = o->counters};
    ck_assert_ptr_nonnull(launch.function);
    ck_assert_msg(emu_run(&launch, error, sizeof error), "%s", error);
    for (int i = 0; i < n_args; i++)
        memcpy(args[i].bytes, allocations[i]->data, args[i].size);
    ptx_module_destroy(module);
    emu_memory_destroy(memory);
    cg_cuda_image_free(&image);
    ir_diag_clear(&diag);
}

/* Runs the variant of a kernel that a step of so many rows takes. */
static inline void cuda_run(const cg_kernel *kernel, const cuda_run_options *o,
                            const mcc_step *step, size_t step_bytes, const cuda_buffer *args) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    cg_cuda_code code;
    bool ok = cg_cuda_generate(kernel, arena, &diag, &code);
    if (!ok)
        ir_diag_print(&diag, stderr);
    ck_assert(ok);
    int64_t rows = ir_dim_eval(kernel->rows, step->T, step->S, step->R);
    int v = code.n_functions - 1;
    while (v > 0 && code.functions[v].min_rows > rows)
        v--;
    cuda_launch(&code.functions[v], o, step, step_bytes, kernel->n_args, args);
    ir_arena_destroy(arena);
    ir_diag_clear(&diag);
}

#endif
