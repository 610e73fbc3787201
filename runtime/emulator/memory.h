/* The emulated device's global memory: allocations in one reserved range of addresses.
 *
 * Device addresses are numbers in a range of the process's address space that is reserved and never
 * readable, so that host code that follows a device pointer faults at once. The bytes are mapped a
 * second time elsewhere: `data` of an allocation. Allocations are 512-byte aligned, with an
 * unmapped gap of at least one page behind each, so that an overrun never lands in a neighbour. */
#ifndef MCC_RUNTIME_EMULATOR_MEMORY_H
#define MCC_RUNTIME_EMULATOR_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct emu_allocation {
    uint64_t base, bytes; /* device address and size as asked for */
    uint8_t *data;        /* host view of the bytes */
    uint8_t *initialised; /* NULL when not tracked; else a bit for each byte: it has been written */
    uint32_t serial;      /* in order of allocation, for messages: "allocation 7 of 4096 bytes" */
    bool host;            /* pinned host memory, which kernels may read and write too */
} emu_allocation;

typedef struct emu_memory emu_memory;

/* capacity: what cuMemGetInfo reports as total, in bytes. track: keep `initialised` bits. NULL when
 * the range cannot be reserved. */
emu_memory *emu_memory_create(uint64_t capacity, bool track);
void emu_memory_destroy(emu_memory *memory);

/* NULL when the device's capacity or the host's memory is exhausted. */
const emu_allocation *emu_memory_alloc(emu_memory *memory, uint64_t bytes, bool host);
/* False when `base` is not the start of an allocation. */
bool emu_memory_free(emu_memory *memory, uint64_t base);

/* The allocation that holds all of [address, address + bytes), or NULL. Safe to call from several
 * threads while none allocates or frees. */
const emu_allocation *emu_memory_find(const emu_memory *memory, uint64_t address, uint64_t bytes);

/* For messages: the allocation that begins at or before `address`, or NULL; "4 bytes past the end
 * of allocation 7 (4096 bytes)" is made from it. */
const emu_allocation *emu_memory_nearest(const emu_memory *memory, uint64_t address);

uint64_t emu_memory_free_bytes(const emu_memory *memory);
uint64_t emu_memory_capacity(const emu_memory *memory);

/* Marks bytes as written (copies and memsets by the driver). */
void emu_memory_mark(const emu_allocation *allocation, uint64_t address, uint64_t bytes);

#endif
