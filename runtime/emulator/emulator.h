/* What libcuda_emulator.so exports beside the CUDA driver API: settings, counters, and its own
 * words about errors. Looked up with dlsym; `modelcc verify` and `modelcc profile` are made of it.
 *
 * A process that uses the emulator as a plain libcuda sets the same by its environment, read by
 * cuInit:
 *   MODELCC_EMULATOR_GPU       the devices, names of gpus.def, commas between: "a100" (as without)
 *   MODELCC_EMULATOR_CHECKS    "all" (as without), "none", or some of uninitialised, shared-races,
 *                              async, global-races, commas between
 *   MODELCC_EMULATOR_SEED      a number that warps and blocks take turns by; 0: in order
 *   MODELCC_EMULATOR_APPROX    a number that moves the results of approximate functions within what
 *                              PTX allows; 0: correctly rounded (as without)
 *   MODELCC_EMULATOR_MMA       how tensor cores add floating-point products: "device" (as without),
 *                              like the devices' of that architecture; "exact", rounded once
 *   MODELCC_EMULATOR_THREADS   host threads of a kernel; as without: the processors there are
 *   MODELCC_EMULATOR_LIMIT     instructions a warp may run, in millions; 0: any number. Else 10000
 *   MODELCC_EMULATOR_FAIL      n: the n-th kernel faults and with it its context; 0: none
 *   MODELCC_EMULATOR_COUNTERS  a file that gets the counters, as JSON, when the process ends
 * A value that is none of these makes cuInit fail and say so.
 *
 * The same program with the same settings does the same, but for the number of threads where a
 * kernel's result depends on the order of its blocks. */
#ifndef MCC_RUNTIME_EMULATOR_EMULATOR_H
#define MCC_RUNTIME_EMULATOR_EMULATOR_H

#include "runtime/emulator/exec.h"

/* Why the last call of this thread that failed did: "kernel k, line 12 (a.cu:3), block (0,0,0),
 * thread (5,0,0): …", zero-terminated within `bytes`. Returns its length, 0 where there is nothing
 * to say beyond the error code. */
size_t modelcc_emulator_last_error(char *text, size_t bytes);

typedef struct modelcc_emulator_options {
    uint32_t struct_size;
    uint32_t checks;   /* EMU_CHECK_ bits */
    uint64_t seed;     /* of the order of warps and blocks */
    uint64_t approx;   /* of approximate functions */
    uint64_t limit;    /* instructions a warp; 0: any number */
    int32_t threads;   /* 1 or more */
    int32_t count;     /* whether kernels are counted */
    int32_t exact_mma; /* tensor cores: EMU_MMA_EXACT, or as the device's */
    char gpu[128];     /* names, commas between */
    uint64_t fail;     /* the kernel that faults, counted from 1 and from now on; 0: none */
} modelcc_emulator_options;

/* Reads and changes the settings; calls cuInit first. False where a device is unknown or a context
 * alive would have to change (gpu; the check of uninitialised memory): last_error then says so. */
bool modelcc_emulator_get_options(modelcc_emulator_options *options);
bool modelcc_emulator_set_options(const modelcc_emulator_options *options);

/* What launches of one kernel with one grid and block have done. */
typedef struct modelcc_emulator_kernel {
    uint32_t struct_size;
    char name[128]; /* longer ones are cut */
    uint32_t grid[3], block[3];
    uint32_t shared_bytes; /* a block's, static and dynamic */
    uint32_t registers;    /* an estimate: of virtual ones live at most */
    uint64_t launches;
    double seconds; /* of emulation */
    emu_counters counters;
} modelcc_emulator_kernel;

/* Copies at most `capacity` of the kernels counted so far, in order of their first launch; returns
 * how many there are. Each kernels[i].struct_size must be set. */
size_t modelcc_emulator_kernels(modelcc_emulator_kernel *kernels, size_t capacity);
void modelcc_emulator_reset_counters(void);

/* A device of gpus.def: what programs ask for and what data sheets say. */
typedef struct modelcc_emulator_gpu {
    const char *name, *title;
    int major, minor, sms;
    uint64_t memory_bytes;
    int shared_per_sm, shared_per_block; /* bytes; the most that a kernel can opt in to */
    int threads_per_sm, blocks_per_sm;
    int l2_bytes, clock_mhz, memory_mhz, bus_bits;
    double dram_gbs, f32_tflops, f16_tflops, int8_tops; /* peak; tensor cores' dense */
    bool integrated;
} modelcc_emulator_gpu;

/* The i-th row, or NULL. */
const modelcc_emulator_gpu *modelcc_emulator_gpu_row(int i);

#endif
