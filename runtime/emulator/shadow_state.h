/* What shadow.c (order) and shadow_access.c (accesses) share.
 *
 * A stamp is a time in the upper 20 bits and who in the lower 12. Times of different warps are
 * times of different clocks: warp u's time t is known to warp w when seen[w][u] >= t. Each clock
 * moves at its warp's synchronisations; barriers bring clocks forward to the same time, so that
 * warps that run the same code stamp the same times between two barriers.
 *
 * Of each unit the last plain write is kept, and sets of those reads, atomic accesses and strong
 * reads that nothing later made needless. */
#ifndef MCC_RUNTIME_EMULATOR_SHADOW_STATE_H
#define MCC_RUNTIME_EMULATOR_SHADOW_STATE_H

#include "runtime/emulator/shadow.h"
#include "runtime/emulator/simd.h"

enum {
    SHADOW_TIME_SHIFT = 12,
    SHADOW_LAST_TIME = 0xffffe, /* the one behind it marks pending copies */
    SHADOW_WARPS = 32
};

/* The last write: time, thread << 2, kind. 0: nobody wrote. */
enum { SHADOW_WRITTEN = 1, SHADOW_COPIED = 3, SHADOW_INITIAL = 1 };
#define SHADOW_PENDING 0xfffff000u /* stamps from here on: an async copy in flight */

/* A set of accesses: its key is time and who, with a mask. */
enum {
    SHADOW_LANES = 1,  /* | warp << 2: lanes of the mask, at that time */
    SHADOW_TEAM = 2,   /* warps of the mask, in the phase of theirs that began at that time */
    SHADOW_LISTED = 3, /* mask is a list's index; the time is the last one in it */
    SHADOW_BY_LANE =
        1 << 11, /* with LISTED: times of lanes of warp (key >> 2 & 31), not of warps */
};

typedef struct shadow_list {
    uint32_t time[32]; /* 0: none */
} shadow_list;

typedef struct shadow_set {
    uint32_t *key, *mask;
    bool used; /* since the block began; else all keys are 0 */
} shadow_set;

typedef struct shadow_warp {
    uint32_t time;
    uint32_t phase;  /* the time at which what it did not publish yet begins */
    bool fresh;      /* a phase begins with the next access */
    uint32_t last;   /* time of its last access */
    uint32_t whole;  /* up to when all its lanes know each other's accesses */
    uint32_t others; /* up to when it knows all other warps' */
    uint32_t floor;  /* the smaller of both: what every lane knows of everybody */
    uint32_t seen[SHADOW_WARPS];
    bool partial;          /* some lanes met since `whole`: */
    uint32_t (*lanes)[32]; /* [i][j]: up to when lane i knows lane j's accesses; or NULL */
} shadow_warp;

struct emu_shadow {
    uint32_t checks;
    uint32_t bytes, n_threads, n_warps;
    uint32_t shift; /* a unit has 1 << shift bytes */
    uint32_t units, room;
    uint32_t *writes;
    shadow_set reads, atomics, strong_reads;
    bool strong; /* atomics or strong_reads are in use */
    shadow_list *lists;
    uint32_t *free_lists;
    uint32_t n_lists, n_free;
    shadow_warp warps[SHADOW_WARPS];
    uint32_t published[17]
                      [SHADOW_WARPS]; /* at barriers by those that arrived; [16] for barrier() */
    uint32_t (*lane_times)[32][32];   /* of all warps, or NULL */
};

/* Lane j's accesses up to `time` are known to lane i of the same warp. */
EMU_INLINE bool shadow_lane_knows(const shadow_warp *w, int i, int j, uint32_t time) {
    return i == j || time <= w->whole || (w->partial && time <= w->lanes[i][j]);
}

#endif
