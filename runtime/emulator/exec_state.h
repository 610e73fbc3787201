/* A launch while it runs: its worker threads, the block of each, the block's warps. */
#ifndef MCC_RUNTIME_EMULATOR_EXEC_STATE_H
#define MCC_RUNTIME_EMULATOR_EXEC_STATE_H

#include "runtime/emulator/op.h"
#include "runtime/emulator/races.h"
#include "runtime/emulator/races_within.h"
#include "runtime/emulator/shadow.h"
#include "runtime/emulator/simd.h"

#include <pthread.h>

typedef struct emu_block emu_block;
typedef struct emu_worker emu_worker;
typedef struct emu_launch_state emu_launch_state;

/* Lanes of a warp that stand somewhere else than those that run. */
typedef struct emu_group {
    uint32_t pc, mask;
    bool blocked; /* at a .sync instruction that names lanes which are not there yet */
} emu_group;

typedef enum emu_warp_state { EMU_WARP_READY, EMU_WARP_AT_BARRIER, EMU_WARP_DONE } emu_warp_state;

/* cp.async of one warp instruction, not yet performed. */
typedef struct emu_copy {
    uint32_t mask; /* lanes whose copy is still to be done */
    uint32_t size;
    uint32_t shared[32]; /* address */
    uint32_t group[32];  /* the commit group of each lane's copy */
    uint8_t bytes[32];   /* read from the source; the rest of `size` is zeros */
    const uint8_t *source[32];
} emu_copy;

struct emu_warp {
    uint32_t *regs;
    const uint32_t *constants;
    uint32_t *preds;
    uint32_t pc, active;
    uint32_t wait_pc; /* the least pc of groups that could run, UINT32_MAX none */
    uint32_t live;    /* lanes that have not exited */
    uint32_t carry;   /* CC.CF of each lane */
    uint32_t index;
    emu_block *block;
    emu_worker *worker;
    const ptx_function *function;
    const emu_allocation *cached; /* never NULL: an empty one at first */
    struct emu_dram *cached_dram;
    uint8_t *local; /* a lane's bytes are together */
    uint32_t checks;
    bool counting;
    emu_warp_state state;
    uint32_t barrier, barrier_pc; /* where it waits */
    uint32_t barrier_mask;
    uint32_t back_edges; /* taken since the warp last was whole: bounds starvation */
    uint32_t turn;       /* counts the turns of groups that starve each other */
    uint64_t executed;
    bool heard; /* has done an atomic or strong operation since its last fence */
    int n_groups;
    emu_group groups[32];
    uint32_t *valid; /* lanes that wrote each virtual register, then each predicate */
    uint32_t tid[3][32];
    uint32_t committed[32]; /* groups of async copies that each lane has committed */
    emu_copy *copies;
    uint32_t n_copies, copies_room;
};

typedef struct emu_barrier {
    uint32_t expected;          /* threads; 0: all that live */
    uint32_t arrived;           /* threads */
    uint32_t waiting;           /* warps: bits */
    uint32_t pc;                /* of the first to arrive */
    uint32_t n_threads, n_true; /* bar.red: lanes, and of them those whose predicate held */
    bool in_use;
} emu_barrier;

struct emu_block {
    emu_worker *worker;
    const ptx_function *function;
    uint64_t index;
    uint32_t id[3];
    uint32_t n_threads, n_warps;
    uint8_t *shared;
    uint32_t shared_bytes;
    emu_warp warps[32];
    emu_barrier barriers[16];
};

/* Which sectors of an allocation a worker has touched, in chunks of 1 MiB of the allocation. */
typedef struct emu_dram {
    const emu_allocation *allocation;
    uint64_t n_chunks;
    uint64_t **chunks[2]; /* read, written: 32768 bits each, or NULL */
    struct emu_dram *next;
} emu_dram;

enum { EMU_CHUNK_SHIFT = 20, EMU_CHUNK_WORDS = (1 << (EMU_CHUNK_SHIFT - 5)) / 64 };

struct emu_worker {
    emu_launch_state *run;
    const emu_launch *launch;
    emu_block block;
    emu_counters counters;
    emu_dram *dram;
    emu_shadow *shadow;
    emu_races *races; /* the launch's, or NULL */
    emu_race_block race_block;
    emu_races_within *within; /* or NULL */
    uint64_t random;
    void *memory; /* of register files, shared and local memory */
    size_t memory_bytes;
    bool failed;
    char error[512];
    pthread_t thread;
};

struct emu_launch_state {
    const emu_launch *launch;
    const uint8_t *params;
    uint64_t n_blocks, next; /* next: atomic */
    uint32_t stop;           /* atomic: a worker failed */
    uint64_t multiply, add;  /* the blocks' order: (i * multiply + add) % n_blocks */
    emu_races *races;
    emu_worker **workers;
    int n_workers;
};

/* --- operands -----------------------------------------------------------------------------------
 */

EMU_INLINE const uint32_t *emu_src(const emu_warp *w, int32_t row) {
    return row >= 0 ? w->regs + row : w->constants + ~row;
}
EMU_INLINE const uint64_t *emu_src64(const emu_warp *w, int32_t row) {
    return (const uint64_t *)(const void *)emu_src(w, row);
}
EMU_INLINE uint32_t *emu_dst(emu_warp *w, int32_t row) {
    return w->regs + row;
}
EMU_INLINE uint64_t *emu_dst64(emu_warp *w, int32_t row) {
    return (uint64_t *)(void *)(w->regs + row);
}
EMU_INLINE void emu_set_pred(emu_warp *w, int32_t p, uint32_t value, uint32_t mask) {
    w->preds[p] = (w->preds[p] & ~mask) | (value & mask);
}
/* The predicate operand, or all lanes where there is none; flip: the op's bit of it. */
EMU_INLINE uint32_t emu_pred(const emu_warp *w, int32_t p, uint32_t flip) {
    return w->preds[p] ^ (flip ? EMU_FULL : 0);
}

/* Results of lanes in `mask` only. */
EMU_INLINE void emu_blend(uint32_t *d, const uint32_t *value, uint32_t mask) {
    EMU_LANES
    for (int i = 0; i < 32; i++)
        d[i] = mask >> i & 1 ? value[i] : d[i];
}
EMU_INLINE void emu_blend64(uint64_t *d, const uint64_t *value, uint32_t mask) {
    EMU_LANES
    for (int i = 0; i < 32; i++)
        d[i] = mask >> i & 1 ? value[i] : d[i];
}

/* --- between the parts --------------------------------------------------------------------------
 */

/* Sets the block's error: "kernel k, line 12 (a.cu:3), block (0,0,0), thread (5,0,0): …". `lane`
 * is in the warp, -1 when none is to blame. Returns EMU_FAULT. */
emu_next emu_fault(emu_warp *w, const emu_op *op, int lane, const char *format, ...)
    __attribute__((format(printf, 4, 5), cold));

/* exec_warp.c: runs a warp until it waits at a barrier, ends, fails, or has run `budget`
 * instructions. False on failure. */
bool emu_warp_run(emu_warp *w, uint64_t budget);
/* The pc of lanes in `mask` of the active ones becomes `target`, that of the others `rest`. */
emu_next emu_split(emu_warp *w, uint32_t mask, uint32_t target, uint32_t rest);
/* The active lanes of `mask` exit. */
emu_next emu_exit(emu_warp *w, uint32_t mask);
/* Lanes of .sync instructions with member mask `members`: EMU_NEXT when all that live are here. */
emu_next emu_meet(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t members);

/* exec_block.c */
bool emu_block_run(emu_block *block);
/* A whole warp arrives; `wait` false: bar.arrive. */
emu_next emu_barrier_arrive(emu_warp *w, const emu_op *op, uint32_t id, uint32_t expected,
                            uint32_t mask, uint32_t n_true, bool wait);

/* exec_async.c */
void emu_async_wait(emu_warp *w, uint32_t mask, uint32_t pending); /* UINT32_MAX: wait_all */

/* exec_count.c: counters of one warp instruction's addresses */
void emu_count_global(emu_warp *w, const emu_allocation *allocation, const uint64_t at[32],
                      uint32_t mask, uint32_t bytes, bool store, bool contiguous);
void emu_count_shared(emu_warp *w, const uint32_t at[32], uint32_t mask, uint32_t bytes);
void emu_count_dram(emu_launch_state *run, emu_counters *counters);
void emu_dram_destroy(emu_worker *worker);

static inline uint32_t emu_random(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = *state >> 33 ^ *state >> 20;
    return (uint32_t)x;
}

/* --- handlers by name ---------------------------------------------------------------------------
 */

typedef struct emu_handler {
    const char *name; /* "add.b32" */
    emu_run_fn run;
} emu_handler;

/* Each ends with a NULL name. */
extern const emu_handler emu_int_handlers[], emu_bits_handlers[], emu_compare_handlers[],
    emu_move_handlers[], emu_float_handlers[], emu_control_handlers[], emu_memory_handlers[],
    emu_atomic_handlers[], emu_async_handlers[], emu_warp_handlers[], emu_tensor_handlers[];

#endif
