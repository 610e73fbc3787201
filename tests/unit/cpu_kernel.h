/* For tests of the CPU backend: compiles kernels to a shared object, loads it, and runs the code of
 * every processor level that this machine has. Included by one test file each. */
#ifndef MCC_TESTS_CPU_KERNEL_H
#define MCC_TESTS_CPU_KERNEL_H

#include "codegen/cpu/cpu.h"
#include "runtime/artifact.h"

#include "check_main.h"

#include <dlfcn.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { CPU_MAX_TARGETS = 4 };

/* A loaded object: kernel k of target t is code.functions[t][k]. */
typedef struct cpu_code {
    int n_targets; /* those this machine can run; at least one */
    const cg_cpu_target *targets[CPU_MAX_TARGETS];
    mcc_cpu_kernel *const *functions[CPU_MAX_TARGETS];
    void *handle;
} cpu_code;

static inline void cpu_write_file(const char *path, const cg_object *object) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(object->bytes, 1, object->size, file), object->size);
    ck_assert_int_eq(fclose(file), 0);
}

static inline void cpu_link(char *const *argv) {
    pid_t pid;
    int status = 0;
    ck_assert_int_eq(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}

/* Compiles kernels for all targets that run here, links and loads them. */
static inline cpu_code cpu_load(const cg_kernel *const *kernels, int n_kernels) {
    cpu_code code = {0};
    ir_diag diag = {0};
    int count;
    const cg_cpu_target *all = cg_cpu_targets(&count), *best = cg_cpu_target_find("cpu");
    ck_assert_ptr_nonnull(best);
    ck_assert_int_le(count, CPU_MAX_TARGETS);
    for (int i = 0; i < count; i++)
        if ((all[i].cpu_features & ~best->cpu_features) == 0)
            code.targets[code.n_targets++] = &all[i];

    char folder[200], files[CPU_MAX_TARGETS + 1][256], so[256];
    char *argv[CPU_MAX_TARGETS + 8] = {"ld.lld-19", "-shared", "-z", "defs", "-o", so};
    test_temporary(folder, sizeof folder, "kernels");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(so, sizeof so, "%s/kernels.so", folder);
    for (int i = 0; i <= code.n_targets; i++) {
        cg_object object;
        bool ok = i < code.n_targets
                      ? cg_cpu_compile(kernels, n_kernels, code.targets[i], NULL, &diag, &object)
                      : cg_cpu_compile_descriptor(kernels, n_kernels, code.targets, code.n_targets,
                                                  &diag, &object);
        if (!ok)
            ir_diag_print(&diag, stderr);
        ck_assert(ok);
        snprintf(files[i], sizeof files[i], "%s/%d.o", folder, i);
        cpu_write_file(files[i], &object);
        free(object.bytes);
        argv[6 + i] = files[i];
    }
    cpu_link(argv);
    code.handle = dlopen(so, RTLD_NOW | RTLD_LOCAL);
    if (!code.handle)
        fprintf(stderr, "%s\n", dlerror());
    ck_assert_ptr_nonnull(code.handle);
    const mcc_descriptor *descriptor = dlsym(code.handle, MCC_DESCRIPTOR_SYMBOL);
    ck_assert_ptr_nonnull(descriptor);
    ck_assert_uint_eq(descriptor->version, MCC_ARTIFACT_VERSION);
    ck_assert_int_eq((int)descriptor->n_targets, code.n_targets);
    for (int i = 0; i < code.n_targets; i++) {
        const mcc_target_code *target = &descriptor->targets[i];
        ck_assert_str_eq(target->name, code.targets[i]->name);
        ck_assert_uint_eq(target->cpu_features, code.targets[i]->cpu_features);
        ck_assert_int_eq((int)target->n_kernels, n_kernels);
        code.functions[i] = target->kernels;
    }
    for (int i = 0; i <= code.n_targets; i++)
        unlink(files[i]);
    unlink(so);
    rmdir(folder);
    ir_diag_clear(&diag);
    return code;
}

static inline void cpu_unload(cpu_code *code) {
    dlclose(code->handle);
}

/* What tiles share, followed by `guard` bytes of 0xee, as is all but the counters. */
static inline unsigned char *cpu_shared(const cg_kernel *kernel, const mcc_cpu_call *call,
                                        size_t guard, size_t *bytes) {
    int64_t positions = call->step ? (int64_t)call->step->P * 16 : 0; /* rows kernels need none */
    int64_t ranges = (positions + MCC_CPU_RANGE - 1) / MCC_CPU_RANGE;
    *bytes = MCC_CPU_COUNTER_BYTES + (size_t)(ranges * cg_cpu_shared_bytes(kernel));
    unsigned char *shared = aligned_alloc(64, *bytes + guard);
    ck_assert_ptr_nonnull(shared);
    memset(shared, 0xee, *bytes + guard);
    memset(shared, 0, MCC_CPU_COUNTER_BYTES);
    return shared;
}

/* Runs all tiles of a kernel, in pieces of `piece` tiles (0: all at once), in reverse order of
 * pieces, and checks that scratch and shared memory are not overrun. */
static inline void cpu_run(mcc_cpu_kernel *function, const cg_kernel *kernel,
                           const mcc_cpu_call *call, int64_t piece) {
    enum { GUARD = 256 };
    cg_tiling tiling = cg_cpu_tiling(kernel);
    int64_t dim = ir_dim_eval(tiling.dim, call->T, call->S, call->R);
    int64_t tiles = (dim + tiling.div - 1) / tiling.div * tiling.mult;
    int64_t bytes = cg_cpu_scratch_bytes(kernel);
    unsigned char *scratch = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64 + GUARD);
    ck_assert_ptr_nonnull(scratch);
    memset(scratch, 0xee, (size_t)bytes + GUARD);
    memset(scratch, 0, bytes < 8 ? (size_t)bytes : 8);
    size_t shared_bytes;
    unsigned char *shared = cpu_shared(kernel, call, GUARD, &shared_bytes);
    mcc_cpu_call with_shared = *call;
    with_shared.shared = shared;
    if (piece <= 0)
        piece = tiles;
    for (int64_t end = tiles; end > 0; end -= piece)
        function(&with_shared, end > piece ? end - piece : 0, end, scratch);
    for (int i = 0; i < GUARD; i++)
        if (scratch[bytes + i] != 0xee || shared[shared_bytes + (size_t)i] != 0xee)
            ck_abort_msg("the scratch or the shared memory was overrun");
    for (int i = 0; i < MCC_CPU_COUNTER_BYTES; i++)
        if (shared[i] != 0)
            ck_abort_msg("counter %d is not zero after a launch", i / 4);
    free(scratch);
    free(shared);
}

/* Same numbers everywhere: a small generator, and floats in [-scale, scale). */
static uint64_t cpu_seed = 1;

static inline uint32_t cpu_random(void) {
    cpu_seed = cpu_seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(cpu_seed >> 33);
}

static inline float cpu_random_float(float scale) {
    return ((float)cpu_random() / 1073741824.0f - 1.0f) * scale;
}

#endif
