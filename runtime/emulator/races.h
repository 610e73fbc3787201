/* Races between blocks through global memory; races within one: races_within.h.
 *
 * Two accesses of one byte by different blocks of a launch, one of them a write, race unless both
 * are atomic or strong, or one happens before the other: the first block executes a fence of the
 * device's scope behind its access, then an atomic or strong write; the other block reads what that
 * wrote, or something later, by an atomic or strong read, executes a fence, then its access.
 * Nothing is assumed of when stores become visible, so that a fence that is missing is found
 * whatever order the blocks ran in. (PTX ISA, "Memory Consistency Model": release and acquire
 * patterns.)
 *
 * Within a block what ran before is taken to happen before, except that a warp's releases cover
 * what the block did up to its own last fence, or that of a warp it met at a barrier.
 *
 * Bytes are tracked in units of 4, and single ones in chunks where something narrower is accessed.
 * Of a unit that several blocks read, or updated atomically, it is kept only that they were
 * several: a write to it is a race when its block has synchronised with no other. Strong reads are
 * not kept. No race is invented. */
#ifndef MCC_RUNTIME_EMULATOR_RACES_H
#define MCC_RUNTIME_EMULATOR_RACES_H

#include "runtime/emulator/memory.h"
#include "runtime/emulator/shadow.h"

/* Of a launch; may be used by several host threads, each with a block of its own. */
typedef struct emu_races emu_races;

typedef struct emu_race_log emu_race_log;
struct emu_race_notes;     /* of an allocation */
typedef struct emu_heard { /* the first n entries of a log */
    emu_race_log *log;
    uint32_t n;
} emu_heard;

/* A block while it runs. All zeros at first; emu_races_block_end frees what it has. */
typedef struct emu_race_block {
    uint32_t stamp;         /* block + 1 in the upper 22 bits */
    uint32_t time;          /* moves with fences behind accesses */
    bool touched;           /* since it moved */
    uint32_t published[32]; /* by warp: its releases cover accesses before that time */
    emu_heard *heard;       /* reads of logs: those before the last fence … */
    uint32_t n_heard, n_fenced, heard_room; /* … come first, n_fenced of them */
    uint32_t known_block, known_time;       /* the last answer: accesses of it before that time */
    struct emu_race_notes *recent[8];       /* of allocations accessed lately */
} emu_race_block;

typedef struct emu_race {
    emu_access access, other_access;
    uint64_t offset;      /* of the byte in the allocation */
    uint64_t other_block; /* linear; UINT64_MAX: several */
} emu_race;

enum { EMU_RACES_MOST_BLOCKS = (1 << 22) - 2 };

/* NULL when memory is exhausted. */
emu_races *emu_races_create(void);
void emu_races_destroy(emu_races *races);

void emu_races_block_begin(emu_race_block *block, uint64_t index);
void emu_races_block_end(emu_race_block *block);

/* Bytes [offset, offset + bytes) of an allocation are accessed; a multiple of `size`, the bytes of
 * one element. False with `race` filled. Where memory is exhausted nothing is checked. */
bool emu_races_access(emu_races *races, emu_race_block *block, const emu_allocation *allocation,
                      emu_access access, uint64_t offset, uint64_t bytes, uint32_t size,
                      emu_race *race);

/* A fence of the device's scope by lanes of a warp; publish is what makes its later writes
 * releases, and what release operations do by themselves; listen is what makes its earlier reads
 * acquires. */
void emu_races_publish(emu_race_block *block, uint32_t warp);
void emu_races_listen(emu_race_block *block);
/* The warps of the mask have met at a barrier. */
void emu_races_barrier(emu_race_block *block, uint32_t warps);

/* An atomic or strong write at a device address is about to happen. */
void emu_races_release(emu_races *races, emu_race_block *block, uint32_t warp, uint64_t address);
/* An atomic or strong read at a device address has happened. */
void emu_races_acquire(emu_races *races, emu_race_block *block, uint64_t address);

#endif
