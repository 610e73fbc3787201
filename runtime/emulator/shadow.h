/* The shadow of one block's shared memory: finds races between the block's threads, reads of bytes
 * that nobody wrote, and uses of bytes that an async copy has not delivered yet.
 *
 * Order is happens-before: a thread's own order, bar.warp.sync among its lanes, and barriers among
 * warps. It is kept as times: the block's clock moves with each synchronisation, every access is
 * stamped with it, and a warp knows up to which time it has seen each other warp. Two accesses of
 * one byte by different threads, one of them a write, race unless one's time is known to the
 * other's thread, whatever order the interpreter ran them in. Shuffles, votes and other .sync
 * instructions order execution but not memory (PTX ISA, "Memory Consistency Model"): a kernel that
 * hands data from lane to lane through shared memory needs bar.warp.sync.
 *
 * Bytes are tracked in units of 4, and of 2 or 1 from the first narrower access on. One shadow
 * serves one host thread; it is reused from block to block. Addresses are offsets in the block's
 * shared memory, which the caller has checked against bounds and alignment. After 2^20
 * synchronisations without a barrier of the whole block races can be missed; none is invented. */
#ifndef MCC_RUNTIME_EMULATOR_SHADOW_H
#define MCC_RUNTIME_EMULATOR_SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct emu_shadow emu_shadow;

enum {
    EMU_SHADOW_RACES = 1,
    EMU_SHADOW_UNINITIALISED = 2,
    EMU_SHADOW_ASYNC = 4, /* any use of bytes on which an async copy is in flight */
    EMU_SHADOW_BARRIERS = 16
};

typedef enum emu_shadow_kind {
    EMU_SHADOW_RACE,
    EMU_SHADOW_READ_UNINITIALISED,
    EMU_SHADOW_USE_OF_PENDING
} emu_shadow_kind;

typedef enum emu_access {
    EMU_ACCESS_READ,
    EMU_ACCESS_WRITE,
    EMU_ACCESS_ATOMIC,       /* atom, red: reads and writes; atomics do not race with each other */
    EMU_ACCESS_STRONG_READ,  /* ld.volatile, .relaxed, .acquire: no race with atomics and strong */
    EMU_ACCESS_STRONG_WRITE, /* st.volatile, .relaxed, .release */
    EMU_ACCESS_ASYNC         /* the write of a cp.async */
} emu_access;

/* What was found. Threads are 32 * warp + lane: the block's linear thread number. */
typedef struct emu_shadow_report {
    emu_shadow_kind kind;
    emu_access access, other_access; /* of a race; other_access is READ, WRITE, ATOMIC or ASYNC */
    uint32_t address;                /* first offending byte */
    uint32_t thread, other;          /* other: UINT32_MAX when several lanes of `other_warp` */
    uint32_t other_warp;
} emu_shadow_report;

/* checks: EMU_SHADOW_ bits. NULL when memory is exhausted. */
emu_shadow *emu_shadow_create(uint32_t checks);
void emu_shadow_destroy(emu_shadow *shadow);

/* Begins a block: everything uninitialised. False when memory is exhausted. threads: 1 … 1024. */
bool emu_shadow_begin(emu_shadow *shadow, uint32_t bytes, uint32_t threads);

/* `bytes` more at the end, a multiple of 16, as if somebody had written them before the block
 * began. False when memory is exhausted, and nothing has changed. */
bool emu_shadow_extend(emu_shadow *shadow, uint32_t bytes);

/* One instruction of a warp: lanes in `active` touch `size` bytes each (1, 2, 4, 8 or 16; aligned
 * to the smaller of size and 4) at address[lane]. False with `report` filled at the first finding;
 * the access is then recorded in part, and the block must be given up. ldmatrix: a read of size 16
 * by the lanes that give addresses. ASYNC begins a copy: `size` bytes from there stay pending until
 * emu_shadow_async_done. */
bool emu_shadow_access(emu_shadow *shadow, emu_access access, uint32_t warp, uint32_t active,
                       const uint32_t address[32], uint32_t size, emu_shadow_report *report);

/* The same copies have been waited for by the threads that issued them (cp.async.wait_group,
 * wait_all): the bytes now count as written by them, at this moment. */
void emu_shadow_async_done(emu_shadow *shadow, uint32_t warp, uint32_t active,
                           const uint32_t address[32], uint32_t size);

/* bar.warp.sync (__syncwarp): the lanes of `mask` have met. */
void emu_shadow_warp_sync(emu_shadow *shadow, uint32_t warp, uint32_t mask);

/* A barrier of the block. For bar.sync and barrier.sync: arrive when a warp reaches it, release
 * with the mask of waiting warps (bit = warp) when it completes. bar.arrive only arrives. id: 0
 * … 15. */
void emu_shadow_arrive(emu_shadow *shadow, uint32_t id, uint32_t warp);
void emu_shadow_release(emu_shadow *shadow, uint32_t id, uint32_t warps);
/* Both at once, for a barrier at which all of `warps` wait. */
void emu_shadow_barrier(emu_shadow *shadow, uint32_t warps);

/* Every thread knows all accesses so far, as after a barrier of the whole block. */
void emu_shadow_forget(emu_shadow *shadow);

/* "shared memory race: thread 33 reads byte 132, which thread 0 wrote, with no barrier between". */
void emu_shadow_message(const emu_shadow_report *report, char *text, size_t bytes);

#endif
