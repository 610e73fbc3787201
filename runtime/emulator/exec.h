/* Runs kernels of a PTX module: blocks one after another (or several on several threads), each
 * block's warps interleaved, each warp's 32 lanes at once. */
#ifndef MCC_RUNTIME_EMULATOR_EXEC_H
#define MCC_RUNTIME_EMULATOR_EXEC_H

#include "runtime/emulator/memory.h"

#include <stddef.h>
#include <stdint.h>

/* --- modules (ptx_*.c) ---------------------------------------------------------------------------
 */

typedef struct ptx_module ptx_module;
typedef struct ptx_function ptx_function;

/* Parses and decodes PTX text (need not be zero-terminated): hostile input is an error, never a
 * crash. NULL with a message in `error` ("line 12: unknown instruction foo.bar in kernel x"). */
ptx_module *ptx_module_create(const char *text, size_t bytes, char *error, size_t error_bytes);
void ptx_module_destroy(ptx_module *module);

/* An .entry by name, or NULL. */
const ptx_function *ptx_module_function(const ptx_module *module, const char *name);
int ptx_module_target(const ptx_module *module); /* 80 of ".target sm_80" */

/* Gives the module's .global and .const variables memory and their initial values; to be called
 * once before a kernel of it runs. The module's destruction frees them: destroy it before the
 * memory. */
bool ptx_module_load(ptx_module *module, emu_memory *memory, char *error, size_t error_bytes);
/* Where a variable of a loaded module is; false where there is none of that name. */
bool ptx_module_variable(const ptx_module *module, const char *name, uint64_t *address,
                         uint64_t *bytes);

typedef struct ptx_function_info {
    const char *name;
    int n_params;
    uint32_t param_bytes;                        /* of the whole parameter block */
    const uint32_t *param_offsets, *param_sizes; /* in it, bytes */
    uint32_t static_shared_bytes, local_bytes;   /* a block's, a thread's */
    uint32_t max_threads;                        /* .maxntid, or 1024 */
    uint32_t registers; /* 32-bit virtual ones live at most: an estimate, says so */
} ptx_function_info;

void ptx_function_get_info(const ptx_function *function, ptx_function_info *info);

/* --- launches (exec*.c) --------------------------------------------------------------------------
 */

/* What is checked; each is off when its bit is not set. Out-of-bounds and misaligned accesses,
 * unknown instructions and divergent barriers are always errors. */
enum {
    EMU_CHECK_UNINITIALISED = 1, /* reads of bytes that nobody wrote: global, shared, registers */
    EMU_CHECK_SHARED_RACES = 2,  /* two threads, one writing, no barrier between */
    EMU_CHECK_ASYNC = 4,         /* cp.async data read before it was waited for */
    EMU_CHECK_GLOBAL_RACES = 8,  /* between blocks, without release and acquire; within one, without
                                    a barrier */
    EMU_CHECK_ALL = 15
};

/* Counted over a launch. Bytes are requested bytes unless the name says sectors (32 bytes, distinct
 * ones per warp instruction). */
typedef struct emu_counters {
    uint64_t warp_instructions, lane_instructions;
    uint64_t by_kind[16]; /* emu_kind */
    uint64_t global_load_requests, global_load_bytes, global_load_sectors;
    uint64_t global_store_requests, global_store_bytes, global_store_sectors;
    uint64_t dram_read_sectors, dram_write_sectors; /* distinct sectors of the whole launch */
    uint64_t uncoalesced_requests; /* that touch more than twice the sectors their bytes need */
    uint64_t uncoalesced_loads;    /* of these, loads */
    uint64_t shared_requests, shared_wavefronts, bank_conflicts; /* wavefronts beyond the fewest */
    uint64_t mma_ops, mma_macs, async_copies, async_bytes, barriers, atomics;
    uint64_t wide_loads; /* global loads and async copies of 16 bytes a lane */
} emu_counters;

typedef enum emu_kind {
    EMU_KIND_INT,
    EMU_KIND_FLOAT,
    EMU_KIND_HALF,
    EMU_KIND_DOUBLE,
    EMU_KIND_SPECIAL, /* ex2, rcp, … */
    EMU_KIND_CONVERT,
    EMU_KIND_MOVE,
    EMU_KIND_LOAD,
    EMU_KIND_STORE,
    EMU_KIND_SHARED,
    EMU_KIND_ASYNC,
    EMU_KIND_TENSOR,
    EMU_KIND_ATOMIC,
    EMU_KIND_WARP, /* shfl, vote, match */
    EMU_KIND_CONTROL,
    EMU_KIND_BARRIER
} emu_kind;

typedef struct emu_launch {
    const ptx_function *function;
    uint32_t grid[3], block[3];
    uint32_t shared_bytes; /* dynamic */
    const void *params;    /* the parameter block, laid out as the info says */
    emu_memory *memory;
    uint32_t checks;            /* EMU_CHECK_ bits */
    uint64_t schedule_seed;     /* 0: warps and blocks in order; else in a random order */
    uint64_t instruction_limit; /* per warp, for endless loops; 0: none */
    uint64_t approx_seed;       /* 0: approximate functions correctly rounded; else moved within
                                   the error that PTX allows, by an amount that depends on it */
    int mma_sum;                /* emu_mma_sum of tensor.h: how dot products are added up */
    int threads;                /* host threads that share the blocks; 1 or more */
    emu_counters *counters;     /* added to; NULL: not counted */
} emu_launch;

/* Runs a launch to its end. False when a check failed: `error` then has kernel, PTX line (and
 * source line where .loc gives one), block, thread and what was wrong. Memory is left as it was
 * when the error was found. */
bool emu_run(const emu_launch *launch, char *error, size_t error_bytes);

#endif
