/* Counters by kernel, grid and block; and as JSON when the process ends. */
#include "runtime/emulator/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double drv_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static modelcc_emulator_kernel *kernels;
static size_t n_kernels, kernels_room;

static modelcc_emulator_kernel *find(const drv_launch *l, const char *name) {
    for (size_t i = n_kernels; i-- > 0;) {
        modelcc_emulator_kernel *k = &kernels[i];
        if (memcmp(k->grid, l->grid, sizeof k->grid) == 0 &&
            memcmp(k->block, l->block, sizeof k->block) == 0 && strcmp(k->name, name) == 0)
            return k;
    }
    if (n_kernels == kernels_room) {
        size_t room = kernels_room ? 2 * kernels_room : 64;
        modelcc_emulator_kernel *grown = realloc(kernels, room * sizeof *grown);
        if (!grown)
            return NULL;
        kernels = grown;
        kernels_room = room;
    }
    modelcc_emulator_kernel *k = &kernels[n_kernels++];
    const ptx_function_info *info = &l->function->info;
    *k = (modelcc_emulator_kernel){.struct_size = sizeof *k,
                                   .shared_bytes = info->static_shared_bytes + l->shared_bytes,
                                   .registers = info->registers};
    snprintf(k->name, sizeof k->name, "%s", name);
    memcpy(k->grid, l->grid, sizeof k->grid);
    memcpy(k->block, l->block, sizeof k->block);
    return k;
}

/* A kernel that there is no memory to count for is lost: the counts are then too small, and the
 * process about to fail anyway. */
void drv_count(const drv_launch *launch, const emu_counters *counters, double seconds) {
    char name[sizeof kernels->name];
    snprintf(name, sizeof name, "%s", launch->function->info.name);
    modelcc_emulator_kernel *k = find(launch, name);
    if (!k)
        return;
    k->launches++;
    k->seconds += seconds;
    uint64_t *to = (uint64_t *)&k->counters;
    const uint64_t *from = (const uint64_t *)counters;
    for (size_t i = 0; i < sizeof *counters / sizeof *to; i++)
        to[i] += from[i];
}

EXPORT size_t modelcc_emulator_kernels(modelcc_emulator_kernel *out, size_t capacity) {
    bool locked __attribute__((cleanup(drv_leave)));
    if (drv_enter(&locked) != CUDA_SUCCESS)
        return 0;
    for (size_t i = 0; i < n_kernels && i < capacity; i++)
        if (out[i].struct_size == sizeof *out)
            out[i] = kernels[i];
    return n_kernels;
}

EXPORT void modelcc_emulator_reset_counters(void) {
    bool locked __attribute__((cleanup(drv_leave)));
    if (drv_enter(&locked) == CUDA_SUCCESS)
        n_kernels = 0;
}

/* --- JSON ----------------------------------------------------------------------------------------
 */

static const char *const kind_names[16] = {
    "int",   "float",  "half",  "double", "special", "convert", "move",    "load",
    "store", "shared", "async", "tensor", "atomic",  "warp",    "control", "barrier"};

static void write_kernel(FILE *file, const modelcc_emulator_kernel *k) {
    const emu_counters *c = &k->counters;
    fprintf(file, "  {\"name\": \"");
    for (const char *s = k->name; *s; s++)
        if (*s == '"' || *s == '\\')
            fprintf(file, "\\%c", *s);
        else if ((unsigned char)*s >= 0x20)
            fputc(*s, file);
    fprintf(file,
            "\", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], \"shared_bytes\": %u, "
            "\"registers_estimated\": %u, \"launches\": %llu, \"emulation_seconds\": %.6f",
            k->grid[0], k->grid[1], k->grid[2], k->block[0], k->block[1], k->block[2],
            k->shared_bytes, k->registers, (unsigned long long)k->launches, k->seconds);
#define COUNTER(name) fprintf(file, ", \"" #name "\": %llu", (unsigned long long)c->name)
    COUNTER(warp_instructions);
    COUNTER(lane_instructions);
    COUNTER(global_load_requests);
    COUNTER(global_load_bytes);
    COUNTER(global_load_sectors);
    COUNTER(global_store_requests);
    COUNTER(global_store_bytes);
    COUNTER(global_store_sectors);
    COUNTER(dram_read_sectors);
    COUNTER(dram_write_sectors);
    COUNTER(uncoalesced_requests);
    COUNTER(uncoalesced_loads);
    COUNTER(shared_requests);
    COUNTER(shared_wavefronts);
    COUNTER(bank_conflicts);
    COUNTER(mma_ops);
    COUNTER(mma_macs);
    COUNTER(async_copies);
    COUNTER(async_bytes);
    COUNTER(barriers);
    COUNTER(atomics);
    COUNTER(wide_loads);
#undef COUNTER
    fprintf(file, ", \"instructions\": {");
    for (int i = 0; i < 16; i++)
        fprintf(file, "%s\"%s\": %llu", i ? ", " : "", kind_names[i],
                (unsigned long long)c->by_kind[i]);
    fprintf(file, "}}");
}

__attribute__((destructor)) static void write_counters(void) {
    const char *path = getenv("MODELCC_EMULATOR_COUNTERS");
    FILE *file = drv_initialised && path && *path ? fopen(path, "w") : NULL;
    if (file) {
        fprintf(file, "{\"kernels\": [\n");
        for (size_t i = 0; i < n_kernels; i++) {
            write_kernel(file, &kernels[i]);
            fprintf(file, "%s\n", i + 1 < n_kernels ? "," : "");
        }
        fprintf(file, "]}\n");
        fclose(file);
    }
    free(kernels);
    kernels = NULL;
    n_kernels = kernels_room = 0;
}
