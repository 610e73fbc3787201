/* Races within a block through global memory: two threads of one block access the same byte, one of
 * them writes it, and no barrier lies between, nor a __syncwarp where both are in one warp.
 *
 * What shadow.h says of shared memory holds of the pages that the block touches. Atomic and strong
 * operations can order a block's threads, too: what a block did before a fence or an acquire behind
 * such an operation is taken to be known to all of its threads from there on, so that races can be
 * missed, and none is invented. */
#ifndef MCC_RUNTIME_EMULATOR_RACES_WITHIN_H
#define MCC_RUNTIME_EMULATOR_RACES_WITHIN_H

#include "runtime/emulator/shadow.h"

/* Of one host thread; reused from block to block. */
typedef struct emu_races_within emu_races_within;

/* NULL when memory is exhausted. */
emu_races_within *emu_races_within_create(void);
void emu_races_within_destroy(emu_races_within *races);

/* Begins a block. False when memory is exhausted. */
bool emu_races_within_begin(emu_races_within *races, uint32_t threads);

/* The order of the block's threads: to be told of barriers and meetings of lanes. */
emu_shadow *emu_races_within_order(emu_races_within *races);

/* As emu_shadow_access, at global addresses; `bytes` a lane may be more than 16, a multiple of 16.
 * False with the address of the first offending byte and a report, whose `address` says nothing.
 * Where memory is exhausted nothing is checked. */
bool emu_races_within_access(emu_races_within *races, emu_access access, uint32_t warp,
                             uint32_t active, const uint64_t at[32], uint32_t bytes,
                             uint64_t *address, emu_shadow_report *report);

#endif
