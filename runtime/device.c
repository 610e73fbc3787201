#include "runtime/device.h"

#include "runtime/cpu.h"
#include "runtime/device_cpu.h"
#include "runtime/device_cuda.h"
#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ORDINAL = 1024 };

/* --- names ---------------------------------------------------------------------------------------
 */

static bool parse(const char *name, rt_device_name *to) {
    *to = (rt_device_name){RT_DEVICE_CUDA, 0};
    if (strcmp(name, "cuda") == 0)
        return true;
    if (strncmp(name, "cuda:", 5) == 0 && name[5] >= '0' && name[5] <= '9') {
        char *end;
        unsigned long n = strtoul(name + 5, &end, 10);
        to->ordinal = n < MAX_ORDINAL ? (int)n : MAX_ORDINAL;
        return !*end;
    }
    to->kind = strcmp(name, "emulator") == 0 ? RT_DEVICE_EMULATOR : RT_DEVICE_CPU;
    return to->kind == RT_DEVICE_EMULATOR || strcmp(name, "cpu") == 0;
}

/* Why the CPU's code was not loaded, and where the artifact runs instead. */
static bool no_cpu_code(const mcc_artifact *a, rt_error *error) {
    rt_error why = {0};
    char archs[96];
    rt_target_choose(&a->tables, rt_cpu_features(), NULL, a->path, &why);
    return rt_fail(error, MCC_CPU_MISMATCH,
                   "%.300s; it has code for GPUs of %s: use the device \"cuda\" or \"emulator\"",
                   why.text, rt_cuda_architectures(&a->cuda, 0, archs, sizeof archs));
}

bool rt_device_choose(const char *name, const mcc_artifact *a, rt_device_name *chosen,
                      rt_error *error) {
    if (!name)
        name = a->kernels || !a->cuda.header ? "cpu" : "cuda";
    if (!parse(name, chosen))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "device is \"%.40s\", expected cpu, cuda, cuda:N or emulator", name);
    if (chosen->kind == RT_DEVICE_CPU)
        return a->kernels || no_cpu_code(a, error);
    return a->cuda.header ||
           rt_fail(error, MCC_UNSUPPORTED,
                   "%s: has no code for GPUs: build it with --target cuda:sm_80 or the like",
                   a->path);
}

/* --- making --------------------------------------------------------------------------------------
 */

bool rt_device_arena_bytes(const mcc_artifact *a, const rt_step_limits *l, uint64_t *bytes,
                           rt_error *error) {
    const rt_tables *t = &a->tables;
    *bytes = (uint64_t)rt_dim(&t->header->arena_bytes, l->T, l->S, l->R);
    for (uint32_t i = 0; i < t->n_buffers; i++) {
        const mcc_buffer_entry *b = &t->buffers[i];
        uint64_t end = (uint64_t)rt_dim(&b->offset, l->T, l->S, l->R) +
                       (uint64_t)rt_dim(&b->bytes, l->T, l->S, l->R);
        if (end > *bytes)
            return rt_fail(error, MCC_BAD_ARTIFACT,
                           "%s: buffer %" PRIu32 " ends at byte %" PRIu64 " of an arena of %" PRIu64
                           " (T %d, S %d, R %d)",
                           a->path, i, end, *bytes, l->T, l->S, l->R);
    }
    return true;
}

rt_device *rt_device_create(const rt_device_name *name, const rt_device_options *options,
                            rt_error *error) {
    if (name->kind == RT_DEVICE_CPU)
        return rt_device_cpu_create(options, error);
    return rt_device_cuda_create(name->kind == RT_DEVICE_EMULATOR, name->ordinal, options, error);
}

void rt_device_destroy(rt_device *device) {
    if (device)
        device->ops->destroy(device);
}
