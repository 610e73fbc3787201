/* What all tests on the emulated GPU need: its memory filled, and the blocks of a grid. */
#ifndef MCC_TESTS_EMULATED_GPU_H
#define MCC_TESTS_EMULATED_GPU_H

#include "check_main.h"
#include "runtime/artifact.h"
#include "runtime/emulator/exec.h"
#include "runtime/step.h"

#include <string.h>

/* Memory with a copy of `bytes`; uninitialised where that is NULL. */
static inline const emu_allocation *emulated_upload(emu_memory *memory, const void *bytes,
                                                    uint64_t n) {
    const emu_allocation *a = emu_memory_alloc(memory, n ? n : 1, false);
    if (!a)
        ck_abort_msg("no device memory for %llu bytes", (unsigned long long)n);
    if (bytes) {
        memcpy(a->data, bytes, n);
        emu_memory_mark(a, a->base, n);
    }
    return a;
}

/* Of a step, in one direction. */
static inline uint32_t emulated_blocks(const mcc_cuda_grid *g, const mcc_step *step) {
    int64_t n = g->dim.c + g->dim.t * step->T + g->dim.s * step->S + g->dim.r * step->R;
    return g->mult ? (uint32_t)((n + g->div - 1) / g->div * g->mult) : 1;
}

#endif
