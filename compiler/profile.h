/* What a step's kernels do, kernel by kernel: counted on the emulated GPU, with the time that a GPU
 * would take predicted from its data sheet; or measured on a device. */
#ifndef MCC_COMPILER_PROFILE_H
#define MCC_COMPILER_PROFILE_H

#include "compiler/verify.h"

/* --- prediction: profile_predict.c ---------------------------------------------------------------
 *
 * T = launch + waves * max(DRAM, L2, shared memory, tensor cores, f32, issue, bytes in flight):
 * what the slowest of these would take alone, if blocks filled the device evenly, times the part of
 * the last wave that lies idle. Not calibrated: within 20 to 30 % of a kernel's time where it is
 * good, so it ranks kernels and names what bounds them, and is no measurement. */

typedef struct profile_input {
    const emu_counters *counters; /* of one launch */
    uint64_t blocks;
    uint32_t threads;  /* of a block */
    uint32_t resident; /* blocks that fit a multiprocessor */
    bool int8;         /* tensor cores multiply int8, else f16 */
    bool graph;        /* launched as a node of a graph */
} profile_input;

typedef struct profile_prediction {
    double seconds;
    const char *bound; /* what decides: "DRAM", "L2", "shared memory", "tensor cores", "f32",
                          "issue", "bytes in flight", "launch" */
    double dram, l2, shared, tensor, f32, issue, flight, launch; /* seconds, each alone */
    double waves;
} profile_prediction;

profile_prediction profile_predict(const modelcc_emulator_gpu *gpu, const profile_input *input);

/* --- counting: profile.c -------------------------------------------------------------------------
 */

/* One kernel of the step, all its launches together. */
typedef struct profile_kernel {
    int kernel;        /* index */
    uint32_t function; /* the variant that the step takes; of two, the second */
    int n_functions;   /* that a launch of it is; 0 where there is nothing to do */
    int launches;
    int64_t blocks; /* of a launch, of both functions */
    uint32_t threads, shared_bytes, registers, spill_bytes, resident;
    bool registers_known; /* by ptxas, for this architecture; else estimated */
    emu_counters one;     /* of a launch: the first */
    profile_prediction predicted;
    double seconds; /* measured, of all launches of a step; 0: not */
} profile_kernel;

typedef struct profile_options {
    const char *path;
    const char *device; /* "emulator", "cpu", "cuda", … */
    const char *gpu;    /* a name of gpus.def, or NULL: the first that there is code for */
    bool prefill;
    int32_t batch, context;
    int32_t drafts; /* of each sequence, that a decode step checks */
    int threads, repeat;
    const atomic_int *cancelled;
} profile_options;

typedef struct profile_report {
    ir_arena *arena;
    verify_model model;
    const modelcc_emulator_gpu *gpu; /* NULL where measured */
    rt_cuda_code code;               /* its functions, which profile_kernel counts in */
    int32_t tokens, sequences;       /* of the step */
    int n_kernels;
    profile_kernel *kernels;
    double step_seconds;      /* predicted, or measured: the median */
    double step_least;        /* measured: the least */
    uint64_t dram_bytes;      /* of all launches */
    uint64_t weight_kv_bytes; /* that the step has to read: weights of matmuls, the cache */
    int launches;
} profile_report;

/* On the emulated GPU. False after reporting. The report is to be freed in either case. */
bool profile_count(const profile_options *options, profile_report *report, ir_diag *diag);
/* On a device, through the engine. */
bool profile_measure(const profile_options *options, profile_report *report, ir_diag *diag);
void profile_report_free(profile_report *report);

#endif
