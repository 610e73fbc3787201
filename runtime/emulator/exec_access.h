/* From a memory instruction's operands to bytes on the host, checked: exec_access.c. */
#ifndef MCC_RUNTIME_EMULATOR_EXEC_ACCESS_H
#define MCC_RUNTIME_EMULATOR_EXEC_ACCESS_H

#include "runtime/emulator/exec_state.h"

typedef struct emu_access_at {
    uint64_t at[32]; /* addresses in their space; of inactive lanes: the first active one's */
    uint64_t low, high;
    emu_space space; /* never generic */
    uint8_t *base;   /* where space address `origin` is, when all lanes are in one allocation */
    uint64_t origin;
    uint8_t *host[32];                /* else each lane's */
    bool scattered;                   /* host[] is to be used */
    bool contiguous;                  /* all 32 lanes active, lane i at at[0] + i * bytes */
    const emu_allocation *allocation; /* of global memory where not scattered */
} emu_access_at;

/* Resolves the access of `bytes` a lane at op->a + op->imm by lanes of `mask`, which are all in one
 * space (emu_generic_lanes finds such). EMU_FAULT when one is out of bounds, misaligned, of no
 * memory, or breaks a check; else counted and noted. */
emu_next emu_access_resolve(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t bytes,
                            emu_access kind, emu_access_at *access);

/* Those lanes of `mask` whose generic addresses are in the space of the first one; and that space.
 */
uint32_t emu_generic_lanes(emu_warp *w, const emu_op *op, uint32_t mask, emu_space *space);

EMU_INLINE uint8_t *emu_access_host(const emu_access_at *access, int lane) {
    return access->scattered ? access->host[lane]
                             : access->base + (access->at[lane] - access->origin);
}

/* Behind an atomic or strong access of global memory by lanes of `mask`: what it read may be what
 * another block released. */
void emu_access_acquire(emu_warp *w, const emu_op *op, uint32_t mask, const emu_access_at *access);

/* Of async copies: where on the host the bytes[lane] (not 0) bytes of global memory at access->at
 * are that each lane of `mask` reads. Only `at` is looked at. False after a fault. */
bool emu_access_copy(emu_warp *w, const emu_op *op, uint32_t mask, const uint8_t bytes[32],
                     emu_access_at *access, const uint8_t *source[32]);

#endif
