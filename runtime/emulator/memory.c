/* The range is divided into granules of 64 KiB, each of one allocation at most, so that an address
 * finds its allocation by one look into a table. Device memory begins 512 bytes into its first
 * granule: aligned as cuMemAlloc promises and not more, so that kernels that hope for more fail.
 * Addresses are used again only when the range has been used up, so that what dangles is found. */
#include "runtime/emulator/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GRANULE_SHIFT = 16, ALIGNMENT = 512, PAGE = 4096 };
static const uint64_t GRANULE = UINT64_C(1) << GRANULE_SHIFT;

struct emu_memory {
    uint64_t begin, n_granules;
    emu_allocation **table; /* [n_granules], NULL where free */
    uint64_t next;          /* the granule where to look for room first */
    uint64_t high;          /* none from here on has ever been used */
    uint64_t capacity, used;
    uint32_t serial;
    bool track;
};

static void *map(uint64_t bytes, int protection) {
    if (bytes > PTRDIFF_MAX)
        return NULL;
    void *at = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

emu_memory *emu_memory_create(uint64_t capacity, bool track) {
    emu_memory *memory = calloc(1, sizeof *memory);
    if (!memory)
        return NULL;
    memory->capacity = capacity;
    memory->track = track;
    /* Room to use addresses only once for long, and for host memory beside a full device's. */
    uint64_t bytes =
        4 * (capacity < UINT64_C(1) << 42 ? capacity : UINT64_C(1) << 42) + (UINT64_C(16) << 30);
    memory->n_granules = bytes >> GRANULE_SHIFT;
    uint64_t table_bytes = memory->n_granules * sizeof *memory->table;
    void *range = map(memory->n_granules << GRANULE_SHIFT, PROT_NONE);
    memory->begin = (uint64_t)(uintptr_t)range;
    memory->table = map(table_bytes, PROT_READ | PROT_WRITE);
    if (!range || !memory->table) {
        if (range)
            munmap(range, memory->n_granules << GRANULE_SHIFT);
        if (memory->table)
            munmap(memory->table, table_bytes);
        free(memory);
        return NULL;
    }
    return memory;
}

static uint64_t granules_of(const emu_allocation *a) {
    return ((a->base & (GRANULE - 1)) + a->bytes + PAGE + GRANULE - 1) >> GRANULE_SHIFT;
}

static uint64_t bit_bytes(const emu_allocation *a) {
    return (a->bytes + 7) / 8;
}

/* Pinned host memory is mapped at its address, so that one pointer serves host and device. */
static bool map_bytes(emu_allocation *a, bool track) {
    if (a->host) {
        void *at = (void *)(uintptr_t)a->base;
        if (mprotect(at, a->bytes, PROT_READ | PROT_WRITE) != 0)
            return false;
        a->data = at;
    } else {
        a->data = map(a->bytes, PROT_READ | PROT_WRITE);
        if (a->data && track) {
            a->initialised = map(bit_bytes(a), PROT_READ | PROT_WRITE);
            if (!a->initialised)
                munmap(a->data, a->bytes);
        }
        if (!a->data || (track && !a->initialised))
            return false;
    }
    return true;
}

static void unmap_bytes(emu_allocation *a) {
    if (a->host) { /* new pages in their place: unreadable again, and empty */
        mmap(a->data, a->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
             -1, 0);
        return;
    }
    munmap(a->data, a->bytes);
    if (a->initialised)
        munmap(a->initialised, bit_bytes(a));
}

static void release(emu_memory *memory, uint64_t granule) {
    emu_allocation *a = memory->table[granule];
    uint64_t n = granules_of(a);
    for (uint64_t i = 0; i < n; i++)
        memory->table[granule + i] = NULL;
    if (!a->host)
        memory->used -= a->bytes;
    unmap_bytes(a);
    free(a);
}

void emu_memory_destroy(emu_memory *memory) {
    if (!memory)
        return;
    for (uint64_t i = 0; i < memory->high; i++)
        if (memory->table[i])
            release(memory, i);
    munmap((void *)(uintptr_t)memory->begin, memory->n_granules << GRANULE_SHIFT);
    munmap(memory->table, memory->n_granules * sizeof *memory->table);
    free(memory);
}

/* The first of `n` free granules in [from, to), or `to`. */
static uint64_t find_room(const emu_memory *memory, uint64_t from, uint64_t to, uint64_t n) {
    uint64_t first = from;
    for (uint64_t i = from; i < to && i - first < n; i++)
        if (memory->table[i])
            first = i + 1;
    return first <= to && to - first >= n ? first : to;
}

const emu_allocation *emu_memory_alloc(emu_memory *memory, uint64_t bytes, bool host) {
    if (bytes == 0 || bytes > memory->n_granules << GRANULE_SHIFT ||
        (!host && bytes > memory->capacity - memory->used))
        return NULL;
    emu_allocation *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    *a = (emu_allocation){.base = host ? 0 : ALIGNMENT, .bytes = bytes, .host = host};
    uint64_t n = granules_of(a);
    uint64_t first = find_room(memory, memory->next, memory->n_granules, n);
    if (first == memory->n_granules)
        first = find_room(memory, 0, memory->n_granules, n);
    a->base += memory->begin + (first << GRANULE_SHIFT);
    if (first == memory->n_granules || !map_bytes(a, memory->track)) {
        free(a);
        return NULL;
    }
    for (uint64_t i = 0; i < n; i++)
        memory->table[first + i] = a;
    memory->next = first + n;
    if (memory->next > memory->high)
        memory->high = memory->next;
    a->serial = ++memory->serial;
    if (!host)
        memory->used += bytes;
    return a;
}

static uint64_t granule_of(const emu_memory *memory, uint64_t address) {
    return (address - memory->begin) >> GRANULE_SHIFT;
}

bool emu_memory_free(emu_memory *memory, uint64_t base) {
    const emu_allocation *a = emu_memory_find(memory, base, 1);
    if (!a || a->base != base)
        return false;
    release(memory, granule_of(memory, base));
    return true;
}

const emu_allocation *emu_memory_find(const emu_memory *memory, uint64_t address, uint64_t bytes) {
    uint64_t granule = granule_of(memory, address); /* huge where address < begin */
    if (granule >= memory->n_granules)
        return NULL;
    const emu_allocation *a = memory->table[granule];
    if (!a || address < a->base || address - a->base > a->bytes ||
        a->bytes - (address - a->base) < bytes)
        return NULL;
    return a;
}

const emu_allocation *emu_memory_nearest(const emu_memory *memory, uint64_t address) {
    if (address < memory->begin)
        return NULL;
    uint64_t granule = granule_of(memory, address);
    for (uint64_t i = granule < memory->high ? granule + 1 : memory->high; i-- > 0;)
        if (memory->table[i] && memory->table[i]->base <= address)
            return memory->table[i];
    return NULL;
}

uint64_t emu_memory_free_bytes(const emu_memory *memory) {
    return memory->capacity - memory->used;
}

uint64_t emu_memory_capacity(const emu_memory *memory) {
    return memory->capacity;
}

void emu_memory_mark(const emu_allocation *allocation, uint64_t address, uint64_t bytes) {
    if (!allocation->initialised || bytes == 0)
        return;
    uint8_t *bits = allocation->initialised;
    uint64_t first = address - allocation->base, end = first + bytes;
    uint64_t first_byte = (first + 7) / 8, end_byte = end / 8;
    for (; first < end && first % 8; first++)
        bits[first / 8] |= (uint8_t)(1u << first % 8);
    if (first_byte < end_byte)
        memset(bits + first_byte, 0xff, end_byte - first_byte);
    for (first = first < end_byte * 8 ? end_byte * 8 : first; first < end; first++)
        bits[first / 8] |= (uint8_t)(1u << first % 8);
}
