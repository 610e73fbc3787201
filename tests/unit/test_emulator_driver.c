/* The emulated driver: what calls accept and refuse, and how errors stay. Streams, events and
 * graphs are in test_emulator_streams.c. */
#include "check_main.h"
#include "fixture/driver_case.h"

#include <dlfcn.h>
#include <pthread.h>

/* --- the library ---------------------------------------------------------------------------------
 */

START_TEST(library_exports_the_api) {
    void *library = dlopen(MCC_CUDA_EMULATOR, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    static const char *const names[] = {
#define NAME(name, params) #name,
        CUDA_API_FUNCTIONS(NAME)
#undef NAME
            "modelcc_emulator_last_error",
        "modelcc_emulator_set_options",
        "modelcc_emulator_get_options",
        "modelcc_emulator_kernels",
        "modelcc_emulator_reset_counters",
        "modelcc_emulator_gpu_row",
        "cuModuleGetGlobal_v2",
        "cuCtxCreate_v2",
        "cuCtxDestroy_v2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_msg(dlsym(library, names[i]) != NULL, "no %s", names[i]);
    ck_assert_ptr_null(dlsym(library, "emu_run"));
}
END_TEST

/* --- devices -------------------------------------------------------------------------------------
 */

START_TEST(nothing_before_init) {
    int n;
    CUdevice device;
    CUcontext c;
    ck_assert_int_eq(cuDeviceGetCount(&n), CUDA_ERROR_NOT_INITIALIZED);
    ck_assert_int_eq(cuDeviceGet(&device, 0), CUDA_ERROR_NOT_INITIALIZED);
    ck_assert_int_eq(cuDevicePrimaryCtxRetain(&c, 0), CUDA_ERROR_NOT_INITIALIZED);
    ck_assert_int_eq(cuInit(1), CUDA_ERROR_INVALID_VALUE);
    OK(cuInit(0));
    OK(cuInit(0));
    OK(cuDriverGetVersion(&n));
    ck_assert_int_ge(n, 12000);
}
END_TEST

static int attribute(CUdevice_attribute a, CUdevice device) {
    int value;
    OK(cuDeviceGetAttribute(&value, a, device));
    return value;
}

START_TEST(devices_of_the_environment) {
    setenv("MODELCC_EMULATOR_GPU", "rtx5090,h100", 1);
    OK(cuInit(0));
    int n;
    CUdevice device;
    char name[64];
    OK(cuDeviceGetCount(&n));
    ck_assert_int_eq(n, 2);
    OK(cuDeviceGet(&device, 1));
    ck_assert_int_eq(cuDeviceGet(&device, 2), CUDA_ERROR_INVALID_DEVICE);
    ck_assert_int_eq(cuDeviceGet(&device, -1), CUDA_ERROR_INVALID_DEVICE);
    OK(cuDeviceGetName(name, sizeof name, 1));
    ck_assert_str_eq(name, "NVIDIA H100 80GB HBM3 (emulated)");
    ck_assert_int_eq(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0), 12);
    ck_assert_int_eq(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 1), 9);
    ck_assert_int_eq(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 1), 0);
    ck_assert_int_eq(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1), 132);
    ck_assert_int_eq(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 1),
                     227 * 1024);
    ck_assert_int_eq(attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0), 32);
    ck_assert_int_eq(cuDeviceGetAttribute(&n, (CUdevice_attribute)9999, 0),
                     CUDA_ERROR_INVALID_VALUE);
    size_t bytes;
    OK(cuDeviceTotalMem_v2(&bytes, 0));
    ck_assert_uint_eq(bytes, (size_t)32 << 30);
}
END_TEST

static const struct {
    const char *name, *value, *says;
} bad_settings[] = {
    {"MODELCC_EMULATOR_GPU", "a100,vaxgpu", "no GPU \"vaxgpu\" to emulate: known are a100,"},
    {"MODELCC_EMULATOR_CHECKS", "races", "has \"races\": known are all,"},
    {"MODELCC_EMULATOR_SEED", "x", "MODELCC_EMULATOR_SEED=x is no number"},
    {"MODELCC_EMULATOR_FAIL", "now", "MODELCC_EMULATOR_FAIL=now is no number"},
    {"MODELCC_EMULATOR_THREADS", "300", "is no number from 0 to 256"},
    {"MODELCC_EMULATOR_LIMIT", "-1", "is no number"},
    {"MODELCC_EMULATOR_MMA", "fast", "neither device nor exact"},
};

START_TEST(bad_environment) {
    setenv(bad_settings[_i].name, bad_settings[_i].value, 1);
    ck_assert_int_eq(cuInit(0), CUDA_ERROR_INVALID_VALUE);
    says(bad_settings[_i].says);
    unsetenv(bad_settings[_i].name);
    OK(cuInit(0));
}
END_TEST

START_TEST(options_of_programs) {
    modelcc_emulator_options o = {.struct_size = sizeof o};
    ck_assert(modelcc_emulator_get_options(&o));
    ck_assert_str_eq(o.gpu, "a100");
    ck_assert_uint_eq(o.checks, EMU_CHECK_ALL);
    ck_assert_int_ge(o.threads, 1);
    CUcontext c;
    OK(cuDevicePrimaryCtxRetain(&c, 0));
    o.seed = 3;
    ck_assert(modelcc_emulator_set_options(&o));
    strcpy(o.gpu, "l4");
    ck_assert(!modelcc_emulator_set_options(&o));
    says("while there is a context");
    OK(cuDevicePrimaryCtxRelease_v2(0));
    ck_assert(modelcc_emulator_set_options(&o));
    ck_assert_int_eq(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0), 58);
    strcpy(o.gpu, "none");
    ck_assert(!modelcc_emulator_set_options(&o));
    o.struct_size--;
    ck_assert(!modelcc_emulator_set_options(&o));
    ck_assert_str_eq(modelcc_emulator_gpu_row(0)->name, "a100");
    ck_assert_str_eq(modelcc_emulator_gpu_row(2)->name, "orin");
    ck_assert_ptr_null(modelcc_emulator_gpu_row(1000));
    ck_assert_ptr_null(modelcc_emulator_gpu_row(-1));
}
END_TEST

/* --- contexts ------------------------------------------------------------------------------------
 */

START_TEST(contexts_are_counted) {
    OK(cuInit(0));
    CUcontext a, b, other;
    unsigned flags;
    int active;
    ck_assert_int_eq(cuDevicePrimaryCtxRelease_v2(0), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuDevicePrimaryCtxRetain(&a, 0));
    OK(cuDevicePrimaryCtxRetain(&b, 0));
    ck_assert_ptr_eq(a, b);
    CUdeviceptr p;
    ck_assert_int_eq(cuMemAlloc_v2(&p, 4), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuCtxPushCurrent_v2(a));
    OK(cuMemAlloc_v2(&p, 4));
    OK(cuCtxCreate_v2(&other, 0, 0));
    OK(cuCtxGetCurrent(&b));
    ck_assert_ptr_eq(b, other);
    ck_assert_int_eq(cuMemFree_v2(p), CUDA_ERROR_INVALID_VALUE); /* another context's */
    OK(cuCtxDestroy_v2(other));
    OK(cuCtxGetCurrent(&b));
    ck_assert_ptr_eq(a, b);
    OK(cuDevicePrimaryCtxRelease_v2(0));
    OK(cuMemAlloc_v2(&p, 4));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    OK(cuDevicePrimaryCtxGetState(0, &flags, &active));
    ck_assert_int_eq(active, 0);
    ck_assert_int_eq(cuMemAlloc_v2(&p, 4), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    OK(cuCtxPopCurrent_v2(&b));
    ck_assert_ptr_eq(a, b);
    ck_assert_int_eq(cuCtxPopCurrent_v2(&b), CUDA_ERROR_INVALID_CONTEXT);
    ck_assert_int_eq(cuCtxPushCurrent_v2(a), CUDA_ERROR_INVALID_CONTEXT);
}
END_TEST

/* --- memory --------------------------------------------------------------------------------------
 */

START_TEST(memory_calls) {
    driver_begin();
    CUdeviceptr a, base;
    size_t bytes, unused, all;
    void *pinned;
    int heap;
    ck_assert_int_eq(cuMemAlloc_v2(&a, 0), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemAlloc_v2(NULL, 4), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemAlloc_v2(&a, (size_t)81 << 30), CUDA_ERROR_OUT_OF_MEMORY);
    says("of 85899345920 are free");
    OK(cuMemAlloc_v2(&a, 1000));
    OK(cuMemGetInfo_v2(&unused, &all));
    ck_assert_uint_eq(all - unused, 1000 + 4); /* and the module's variable */
    OK(cuMemGetAddressRange_v2(&base, &bytes, a + 999));
    ck_assert(base == a && bytes == 1000);
    ck_assert_int_eq(cuMemGetAddressRange_v2(&base, &bytes, a + 1000), CUDA_ERROR_NOT_FOUND);
    unsigned type;
    OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, a + 5));
    ck_assert_uint_eq(type, CU_MEMORYTYPE_DEVICE);
    ck_assert_int_eq(
        cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (uintptr_t)&heap),
        CUDA_ERROR_INVALID_VALUE);
    OK(cuMemHostAlloc(&pinned, 100, CU_MEMHOSTALLOC_PORTABLE));
    memset(pinned, 1, 100);
    OK(cuMemHostGetDevicePointer_v2(&base, pinned, 0));
    ck_assert_int_eq(cuMemHostGetDevicePointer_v2(&base, &heap, 0), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemFree_v2((CUdeviceptr)(uintptr_t)pinned), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemFreeHost((void *)(uintptr_t)a), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemFree_v2(a + 4), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFreeHost(pinned));
    OK(cuMemFree_v2(a));
    OK(cuMemFree_v2(0));
    ck_assert_int_eq(cuMemFree_v2(a), CUDA_ERROR_INVALID_VALUE);
    says("is not the start of an allocation");
    OK(cuMemGetInfo_v2(&unused, &all));
    ck_assert_uint_eq(all - unused, 4);
    driver_end();
}
END_TEST

START_TEST(copies_are_checked) {
    driver_begin();
    CUdeviceptr a, b;
    char bytes[64] = "sixty-four bytes", back[64] = "";
    OK(cuMemAlloc_v2(&a, 64));
    OK(cuMemAlloc_v2(&b, 64));
    OK(cuMemcpyHtoD_v2(a, bytes, 64));
    OK(cuMemcpyDtoD_v2(b, a, 64));
    OK(cuMemcpyDtoH_v2(back, b, 64));
    ck_assert_mem_eq(bytes, back, 64);
    memset(back, 0, 64);
    OK(cuMemcpy((uintptr_t)back, b, 64));
    ck_assert_mem_eq(bytes, back, 64);
    ck_assert_int_eq(cuMemcpyHtoD_v2(a, bytes, 65), CUDA_ERROR_INVALID_VALUE);
    says("the destination of a copy, 65 bytes");
    says("ends 1 bytes past allocation");
    ck_assert_int_eq(cuMemcpyDtoH_v2(back, a + 60, 5), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemcpyDtoD_v2(a, b + 100, 5), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemcpyHtoD_v2((uintptr_t)bytes, bytes, 4), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemcpyHtoD_v2(0, bytes, 4), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemcpyHtoD_v2(0, bytes, 0));
    OK(cuMemsetD32_v2(a, 0x01020304, 16));
    OK(cuMemsetD16_v2(a, 0x0506, 1));
    OK(cuMemsetD8_v2(a + 2, 9, 1));
    ck_assert_int_eq(cuMemsetD32_v2(a + 2, 1, 1), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemsetD32_v2(a, 1, 17), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuMemsetD32_v2(a, 1, SIZE_MAX / 2), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemcpyDtoH_v2(back, a, 64));
    ck_assert_mem_eq(back, "\x06\x05\x09\x01\x04\x03\x02\x01", 8);
    driver_end();
}
END_TEST

/* --- modules and functions -----------------------------------------------------------------------
 */

START_TEST(images_of_all_kinds) {
    driver_begin();
    static const unsigned char fatbin[16] = {0x50, 0xed, 0x55, 0xba};
    CUmodule m;
    char log[200] = "x";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    ck_assert_int_eq(cuModuleLoadData(&m, "\177ELF........"), CUDA_ERROR_NO_BINARY_FOR_GPU);
    says("the emulator runs PTX, not cubins");
    ck_assert_int_eq(cuModuleLoadData(&m, fatbin), CUDA_ERROR_NO_BINARY_FOR_GPU);
    ck_assert_int_eq(cuModuleLoadData(&m, "what is this"), CUDA_ERROR_INVALID_IMAGE);
    ck_assert_int_eq(cuModuleLoadDataEx(&m,
                                        ".version 7.0\n.target sm_80\n.address_size 64\n"
                                        ".entry k() {\n  frobnicate.b32;\n}\n",
                                        2, options, values),
                     CUDA_ERROR_INVALID_PTX);
    ck_assert_msg(strstr(log, "line 5") && strstr(log, "frobnicate"), "%s", log);
    ck_assert_uint_eq((uintptr_t)values[1], strlen(log));
    says("frobnicate");
    char text[sizeof driver_ptx + 1];
    strcpy(text, driver_ptx);
    memcpy(strstr(text, "sm_80"), "sm_90", 5);
    ck_assert_int_eq(cuModuleLoadData(&m, text), CUDA_ERROR_NO_BINARY_FOR_GPU);
    says("the PTX is for sm_90, and NVIDIA A100-SXM4-80GB is sm_80");
    memcpy(strstr(text, "sm_90\n"), "sm_75\n", 6);
    OK(cuModuleLoadData(&m, text));
    OK(cuModuleUnload(m));
    ck_assert_int_eq(cuModuleUnload(m), CUDA_ERROR_INVALID_HANDLE);
    driver_end();
}
END_TEST

START_TEST(code_of_one_architecture) {
    setenv("MODELCC_EMULATOR_GPU", "b200", 1);
    driver_begin();
    CUmodule m;
    static const char ptx[] = ".version 8.6\n.target sm_90a\n.address_size 64\n.entry k() { ret; }";
    ck_assert_int_eq(cuModuleLoadData(&m, ptx), CUDA_ERROR_NO_BINARY_FOR_GPU);
    says("sm_90a");
    driver_end();
}
END_TEST

START_TEST(functions_and_attributes) {
    driver_begin();
    CUfunction f = driver_function("big"), g;
    CUmodule m;
    int value;
    OK(cuFuncGetModule(&m, f));
    ck_assert_ptr_eq(m, driver_module);
    OK(cuModuleGetFunction(&g, m, "big"));
    ck_assert_ptr_eq(f, g);
    ck_assert_int_eq(cuModuleGetFunction(&g, m, "none"), CUDA_ERROR_NOT_FOUND);
    OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, f));
    ck_assert_int_eq(value, 40000);
    OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, f));
    ck_assert_int_eq(value, 1024);
    OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, driver_function("few")));
    ck_assert_int_eq(value, 64);
    OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, f));
    ck_assert_int_eq(value, 48 * 1024 - 40000);
    ck_assert_int_eq(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                        163 * 1024 - 40000 + 1),
                     CUDA_ERROR_INVALID_VALUE);
    says("at most 126912 are left");
    OK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 163 * 1024 - 40000));
    ck_assert_int_eq(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_NUM_REGS, 3),
                     CUDA_ERROR_INVALID_VALUE);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, f, 128, 0));
    ck_assert_int_eq(value, 4); /* 164 KiB / (40000 + 1024) */
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, driver_function("addk"), 1024, 0));
    ck_assert_int_eq(value, 2);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, driver_function("addk"), 32, 0));
    ck_assert_int_eq(value, 32);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, driver_function("few"), 128, 0));
    ck_assert_int_eq(value, 0);
    CUdeviceptr at;
    size_t bytes;
    OK(cuModuleGetGlobal_v2(&at, &bytes, m, "answer"));
    ck_assert_uint_eq(bytes, 4);
    ck_assert_int_eq(cuModuleGetGlobal_v2(&at, &bytes, m, "question"), CUDA_ERROR_NOT_FOUND);
    driver_end();
}
END_TEST

/* --- launches ------------------------------------------------------------------------------------
 */

START_TEST(launches_are_checked) {
    driver_begin();
    CUdeviceptr a;
    OK(cuMemAlloc_v2(&a, 64));
    void *params[] = {&a};
    CUfunction few = driver_function("few"), big = driver_function("big");
    static const struct {
        unsigned grid[3], block[3], shared;
        const char *says;
    } bad[] = {
        {{0, 1, 1}, {1, 1, 1}, 0, "few: a grid of 0 in dimension 0"},
        {{1, 65536, 1}, {1, 1, 1}, 0, "a grid of 65536 in dimension 1, of 1 … 65535"},
        {{1, 1, 1}, {1, 1, 65}, 0, "a block of 65 in dimension 2"},
        {{1, 1, 1}, {65, 1, 1}, 0, "65 threads a block, and it has at most 64"},
        {{1, 1, 1}, {8, 8, 2}, 0, "128 threads a block"},
        {{1, 1, 1}, {1, 1, 1}, 49153, "49153 bytes of dynamic shared memory, and it may have"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const unsigned *g = bad[i].grid, *b = bad[i].block;
        ck_assert_int_eq(cuLaunchKernel(few, g[0], g[1], g[2], b[0], b[1], b[2], bad[i].shared,
                                        NULL, params, NULL),
                         CUDA_ERROR_INVALID_VALUE);
        says(bad[i].says);
    }
    ck_assert_int_eq(cuLaunchKernel(few, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL),
                     CUDA_ERROR_INVALID_VALUE);
    says("without its 1 parameters");
    ck_assert_int_eq(
        cuLaunchKernel((CUfunction)(void *)&a, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL),
        CUDA_ERROR_INVALID_HANDLE);
    ck_assert_int_eq(cuLaunchKernel(few, 1, 1, 1, 1, 1, 1, 0, (CUstream)(void *)&a, params, NULL),
                     CUDA_ERROR_INVALID_HANDLE);
    /* None of that stays. */
    OK(cuLaunchKernel(big, 1, 1, 1, 1, 1, 1, 9152, NULL, params, NULL));
    uint32_t value;
    OK(cuMemcpyDtoH_v2(&value, a, 4));
    ck_assert_uint_eq(value, 7);
    driver_end();
}
END_TEST

START_TEST(parameters_in_one_block) {
    driver_begin();
    CUdeviceptr a;
    OK(cuMemAlloc_v2(&a, 40));
    OK(cuMemsetD32_v2(a, 5, 10));
    struct {
        CUdeviceptr to, from;
        uint32_t n, k;
    } block = {a, a, 10, 3};
    size_t bytes = sizeof block;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &block, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                     CU_LAUNCH_PARAM_END};
    CUlaunchAttribute attributes[] = {{.id = CU_LAUNCH_ATTRIBUTE_PRIORITY},
                                      {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE}};
    CUlaunchConfig config = {.gridDimX = 1,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = 32,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .attrs = attributes,
                             .numAttrs = 2};
    OK(cuLaunchKernelEx(&config, driver_function("addk"), NULL, extra));
    attributes[1].value.cooperative = 1;
    ck_assert_int_eq(cuLaunchKernelEx(&config, driver_function("addk"), NULL, extra),
                     CUDA_ERROR_NOT_SUPPORTED);
    bytes = 20;
    ck_assert_int_eq(
        cuLaunchKernel(driver_function("addk"), 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra),
        CUDA_ERROR_INVALID_VALUE);
    uint32_t values[10];
    OK(cuMemcpyDtoH_v2(values, a, 40));
    for (int i = 0; i < 10; i++)
        ck_assert_uint_eq(values[i], 8);
    driver_end();
}
END_TEST

/* --- errors that stay ----------------------------------------------------------------------------
 */

static const struct {
    const char *kernel;
    uint64_t distance;
    unsigned threads;
    CUresult code;
    const char *says;
} failures[] = {
    {"stray", 1000, 32, CUDA_ERROR_ILLEGAL_ADDRESS,
     "kernel stray, PTX line 30, block (0,0,0), thread (5,0,0): out of bounds access of 4 bytes"},
    {"stray", 1000, 32, CUDA_ERROR_ILLEGAL_ADDRESS, "936 bytes past the end of allocation"},
    {"stray", 2, 32, CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned access of 4 bytes"},
    {"spin", 0, 32, CUDA_ERROR_LAUNCH_TIMEOUT, "1000000 instructions"},
    {"race", 0, 64, CUDA_ERROR_LAUNCH_FAILED, "shared memory race"},
    {"addk", 0, 32, CUDA_ERROR_LAUNCH_FAILED, "read of uninitialised memory"},
};

START_TEST(failed_kernels_poison_the_context) {
    setenv("MODELCC_EMULATOR_LIMIT", "1", 1);
    driver_begin();
    CUdeviceptr a;
    uint64_t distance = failures[_i].distance;
    uint32_t n = 16, k = 1, value;
    OK(cuMemAlloc_v2(&a, 64));
    bool is_addk = strcmp(failures[_i].kernel, "addk") == 0;
    void *params[] = {&a, is_addk ? (void *)&a : (void *)&distance, &n, &k};
    OK(cuLaunchKernel(driver_function(failures[_i].kernel), 1, 1, 1, failures[_i].threads, 1, 1, 0,
                      NULL, params, NULL));
    ck_assert_int_eq(cuCtxSynchronize(), failures[_i].code);
    says(failures[_i].says);
    /* Everything says so from now on … */
    ck_assert_int_eq(cuMemcpyDtoH_v2(&value, a, 4), failures[_i].code);
    says(failures[_i].says);
    ck_assert_int_eq(cuMemAlloc_v2(&a, 4), failures[_i].code);
    ck_assert_int_eq(cuStreamSynchronize(NULL), failures[_i].code);
    ck_assert_int_eq(cuModuleUnload(driver_module), failures[_i].code);
    /* … until the context has gone. */
    driver_end();
    driver_begin();
    OK(cuMemAlloc_v2(&a, 64));
    void *one[] = {&a};
    OK(cuLaunchKernel(driver_function("get"), 1, 1, 1, 1, 1, 1, 0, NULL, one, NULL));
    OK(cuMemcpyDtoH_v2(&value, a, 4));
    ck_assert_uint_eq(value, 42);
    driver_end();
}
END_TEST

START_TEST(checks_can_be_off) {
    setenv("MODELCC_EMULATOR_CHECKS", _i ? "none" : "async", 1);
    driver_begin();
    CUdeviceptr a;
    OK(cuMemAlloc_v2(&a, 64));
    void *params[] = {&a};
    OK(cuLaunchKernel(driver_function("race"), 1, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    OK(cuCtxSynchronize());
    driver_end();
}
END_TEST

START_TEST(errors_have_names) {
    const char *text;
    OK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    ck_assert_str_eq(text, "CUDA_ERROR_ILLEGAL_ADDRESS");
    OK(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text));
    ck_assert_str_eq(text, "not enough memory");
    ck_assert_int_eq(cuGetErrorName((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE);
    ck_assert_ptr_null(text);
}
END_TEST

/* Errors are told to the thread that made the call. */
static void *fail_elsewhere(void *unused) {
    (void)unused;
    CUdevice device;
    char text[64];
    ck_assert_uint_eq(modelcc_emulator_last_error(text, sizeof text), 0);
    ck_assert_int_eq(cuDeviceGet(&device, 99), CUDA_ERROR_INVALID_DEVICE);
    return NULL;
}

START_TEST(words_are_per_thread) {
    driver_begin();
    pthread_t thread;
    CUfunction f;
    ck_assert_int_eq(cuModuleGetFunction(&f, driver_module, "none"), CUDA_ERROR_NOT_FOUND);
    ck_assert_int_eq(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    says("the module has no kernel none");
    char text[8];
    ck_assert_uint_gt(modelcc_emulator_last_error(text, sizeof text), sizeof text);
    ck_assert_str_eq(text, "the mod");
    driver_end();
}
END_TEST

/* --- counters ------------------------------------------------------------------------------------
 */

START_TEST(counters_by_kernel) {
    modelcc_emulator_options o = {.struct_size = sizeof o};
    ck_assert(modelcc_emulator_get_options(&o));
    o.count = 1;
    ck_assert(modelcc_emulator_set_options(&o));
    driver_begin();
    CUdeviceptr a;
    uint32_t n = 100, k = 1;
    OK(cuMemAlloc_v2(&a, 400));
    OK(cuMemsetD8_v2(a, 0, 400));
    void *params[] = {&a, &a, &n, &k};
    for (int i = 0; i < 3; i++)
        OK(cuLaunchKernel(driver_function("addk"), 4, 1, 1, 32, 1, 1, 0, NULL, params, NULL));
    OK(cuLaunchKernel(driver_function("addk"), 1, 1, 1, 128, 1, 1, 16, NULL, params, NULL));
    OK(cuCtxSynchronize());
    modelcc_emulator_kernel kernels[3] = {{.struct_size = sizeof *kernels},
                                          {.struct_size = sizeof *kernels}};
    ck_assert_uint_eq(modelcc_emulator_kernels(kernels, 2), 2);
    ck_assert_str_eq(kernels[0].name, "addk");
    ck_assert_uint_eq(kernels[0].launches, 3);
    ck_assert_uint_eq(kernels[0].grid[0], 4);
    ck_assert_uint_eq(kernels[0].counters.global_load_bytes, 3 * 400);
    ck_assert_uint_eq(kernels[0].counters.global_store_bytes, 3 * 400);
    ck_assert_uint_eq(kernels[0].counters.dram_read_sectors, 3 * 13);
    ck_assert_uint_eq(kernels[1].launches, 1);
    ck_assert_uint_eq(kernels[1].block[0], 128);
    ck_assert_uint_eq(kernels[1].shared_bytes, 16);
    modelcc_emulator_reset_counters();
    ck_assert_uint_eq(modelcc_emulator_kernels(kernels, 2), 0);
    driver_end();
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator driver");
    TCase *t = tcase_create("emulator driver");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, library_exports_the_api);
    tcase_add_test(t, nothing_before_init);
    tcase_add_test(t, devices_of_the_environment);
    tcase_add_loop_test(t, bad_environment, 0, sizeof bad_settings / sizeof *bad_settings);
    tcase_add_test(t, options_of_programs);
    tcase_add_test(t, contexts_are_counted);
    tcase_add_test(t, memory_calls);
    tcase_add_test(t, copies_are_checked);
    tcase_add_test(t, images_of_all_kinds);
    tcase_add_test(t, code_of_one_architecture);
    tcase_add_test(t, functions_and_attributes);
    tcase_add_test(t, launches_are_checked);
    tcase_add_test(t, parameters_in_one_block);
    tcase_add_loop_test(t, failed_kernels_poison_the_context, 0,
                        sizeof failures / sizeof *failures);
    tcase_add_loop_test(t, checks_can_be_off, 0, 2);
    tcase_add_test(t, errors_have_names);
    tcase_add_test(t, words_are_per_thread);
    tcase_add_test(t, counters_by_kernel);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
