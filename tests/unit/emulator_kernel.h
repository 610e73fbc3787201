/* Kernels for tests of the GPU emulator: PTX text, or CUDA C through NVRTC where it is found, a
 * device's memory, buffers, and launches. */
#ifndef MCC_TESTS_EMULATOR_KERNEL_H
#define MCC_TESTS_EMULATOR_KERNEL_H

#include "emulated_gpu.h"

#include <dlfcn.h>
#include <stdarg.h>

/* Check's own assertions talk to the parent process each time, also when they hold. */
#define HOLDS(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

typedef struct gpu {
    emu_memory *memory;
    ptx_module *module;
    uint32_t checks, shared;
    uint64_t seed, limit;
    int threads;
    emu_counters *counters;
    char error[1024]; /* of the last launch */
} gpu;

/* A device with a module's code. All checks are on. */
static inline gpu gpu_open(const char *ptx) {
    gpu g = {.checks = EMU_CHECK_ALL, .threads = 1, .limit = 50000000};
    g.memory = emu_memory_create((uint64_t)1 << 30, true);
    HOLDS(g.memory, "no memory");
    g.module = ptx_module_create(ptx, strlen(ptx), g.error, sizeof g.error);
    HOLDS(g.module, "%s\n%s", g.error, ptx);
    HOLDS(ptx_module_load(g.module, g.memory, g.error, sizeof g.error), "%s", g.error);
    return g;
}

static inline void gpu_close(gpu *g) {
    ptx_module_destroy(g->module);
    emu_memory_destroy(g->memory);
}

/* A buffer with a copy of `from`; uninitialised where that is NULL. */
static inline const emu_allocation *gpu_buffer(gpu *g, const void *from, size_t bytes) {
    return emulated_upload(g->memory, from, bytes);
}

typedef struct gpu_size {
    uint32_t x, y, z;
} gpu_size;

/* Parameters: 64-bit ones, as many as the kernel has; narrower ones are cut from them. False with
 * g->error set when the emulator found fault. */
static inline bool gpu_run_sized(gpu *g, const char *kernel, gpu_size grid, gpu_size block, ...) {
    emu_launch launch = {.function = ptx_module_function(g->module, kernel),
                         .grid = {grid.x, grid.y ? grid.y : 1, grid.z ? grid.z : 1},
                         .block = {block.x, block.y ? block.y : 1, block.z ? block.z : 1},
                         .shared_bytes = g->shared,
                         .memory = g->memory,
                         .checks = g->checks,
                         .schedule_seed = g->seed,
                         .instruction_limit = g->limit,
                         .threads = g->threads,
                         .counters = g->counters};
    HOLDS(launch.function, "no kernel %s", kernel);
    ptx_function_info info;
    ptx_function_get_info(launch.function, &info);
    uint8_t params[4096] = {0};
    HOLDS(info.param_bytes <= sizeof params, "too many parameters");
    va_list arguments;
    va_start(arguments, block);
    for (int i = 0; i < info.n_params; i++) {
        uint64_t value = va_arg(arguments, uint64_t);
        HOLDS(info.param_sizes[i] <= 8, "a parameter of %u bytes", info.param_sizes[i]);
        memcpy(params + info.param_offsets[i], &value, info.param_sizes[i]);
    }
    va_end(arguments);
    launch.params = params;
    return emu_run(&launch, g->error, sizeof g->error);
}

#define GPU_RUN(g, kernel, grid, block, ...)                                                       \
    gpu_run_sized(g, kernel, (gpu_size){.x = (grid)}, (gpu_size){.x = (block)}, __VA_ARGS__)

/* The launch must do without fault. */
#define GPU_MUST(g, kernel, grid, block, ...)                                                      \
    HOLDS(GPU_RUN(g, kernel, grid, block, __VA_ARGS__), "%s", (g)->error)

/* The launch must fail with each of the texts up to NULL in its message. */
static inline void gpu_error_has(const gpu *g, ...) {
    va_list texts;
    va_start(texts, g);
    for (const char *text; (text = va_arg(texts, const char *));)
        HOLDS(strstr(g->error, text), "\"%s\" is not in: %s", text, g->error);
    va_end(texts);
}

static inline uint32_t gpu_u32(const emu_allocation *a, size_t index) {
    uint32_t v;
    memcpy(&v, a->data + 4 * index, 4);
    return v;
}
static inline float gpu_f32(const emu_allocation *a, size_t index) {
    float v;
    memcpy(&v, a->data + 4 * index, 4);
    return v;
}

/* A module of kernel bodies in PTX. */
#define PTX_HEADER ".version 8.0\n.target sm_90\n.address_size 64\n"

/* --- NVRTC --------------------------------------------------------------------------------------
 */

static inline void *nvrtc_library(void) {
    static void *library;
    static bool tried;
    static const char *const names[] = {"/usr/local/cuda/lib64/libnvrtc.so", "libnvrtc.so.13",
                                        "libnvrtc.so.12", "libnvrtc.so"};
    const char *wanted = getenv("MODELCC_NVRTC");
    if (!tried && wanted && *wanted)
        library = dlopen(wanted, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; !tried && !library && i < sizeof names / sizeof *names; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    tried = true;
    return library;
}

static inline void *nvrtc_symbol(const char *name) {
    void *symbol = dlsym(nvrtc_library(), name);
    HOLDS(symbol, "NVRTC has no %s", name);
    return symbol;
}

/* PTX of CUDA C for "compute_80"; to be freed. Without contraction of products and sums. */
static inline char *nvrtc_ptx(const char *source, const char *arch) {
    int (*create)(void **, const char *, const char *, int, const char *const *,
                  const char *const *);
    int (*compile)(void *, int, const char *const *);
    int (*size)(void *, size_t *), (*get)(void *, char *), (*destroy)(void **);
    void *symbols[] = {nvrtc_symbol("nvrtcCreateProgram"), nvrtc_symbol("nvrtcCompileProgram"),
                       nvrtc_symbol("nvrtcGetPTXSize"), nvrtc_symbol("nvrtcGetPTX"),
                       nvrtc_symbol("nvrtcDestroyProgram")};
    memcpy(&create, &symbols[0], sizeof create);
    memcpy(&compile, &symbols[1], sizeof compile);
    memcpy(&size, &symbols[2], sizeof size);
    memcpy(&get, &symbols[3], sizeof get);
    memcpy(&destroy, &symbols[4], sizeof destroy);
    void *program;
    char option[64];
    snprintf(option, sizeof option, "--gpu-architecture=%s", arch);
    const char *options[] = {option,      "--std=c++17",     "--fmad=false",
                             "-lineinfo", "-default-device", "-I/usr/local/cuda/include"};
    HOLDS(create(&program, source, "test.cu", 0, NULL, NULL) == 0, "nvrtcCreateProgram");
    int result = compile(program, 6, options);
    size_t bytes;
    if (result != 0) {
        void *log_size = nvrtc_symbol("nvrtcGetProgramLogSize"),
             *log = nvrtc_symbol("nvrtcGetProgramLog");
        memcpy(&size, &log_size, sizeof size);
        memcpy(&get, &log, sizeof get);
    }
    HOLDS(size(program, &bytes) == 0, "no size");
    char *text = malloc(bytes);
    HOLDS(text && get(program, text) == 0, "no text");
    HOLDS(result == 0, "%s: %s", arch, text);
    destroy(&program);
    return text;
}

/* The generations of compilers and targets that kernels are tried on. */
static const char *const nvrtc_archs[] = {"compute_80", "compute_90a", "compute_100a",
                                          "compute_120"};
enum { NVRTC_ARCHS = sizeof nvrtc_archs / sizeof *nvrtc_archs };

#define SKIP_WITHOUT_NVRTC()                                                                       \
    do {                                                                                           \
        if (!nvrtc_library())                                                                      \
            TEST_SKIP("NVRTC was not found");                                                      \
    } while (0)

#endif
