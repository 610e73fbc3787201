#include "runtime/emulator/exec_access.h"

#include <stdio.h>

/* op->a + op->imm of lanes in `mask`, their least and greatest, and the or of all of them. */
EMU_CLONES static uint64_t find_addresses(const emu_warp *w, const emu_op *op, uint32_t mask,
                                          uint64_t at[32], uint64_t *low, uint64_t *high) {
    uint64_t least = UINT64_MAX, most = 0, bits = 0, offset = op->imm;
    if (op->wide_address) {
        const uint64_t *a = emu_src64(w, op->a);
        EMU_LANES
        for (int i = 0; i < 32; i++)
            at[i] = a[i] + offset;
    } else {
        const uint32_t *a = emu_src(w, op->a);
        EMU_LANES
        for (int i = 0; i < 32; i++)
            at[i] = a[i] + offset;
    }
    if (mask != EMU_FULL) {
        uint64_t first = at[__builtin_ctz(mask)];
        EMU_LANES
        for (int i = 0; i < 32; i++)
            at[i] = mask >> i & 1 ? at[i] : first;
    }
    EMU_LANES
    for (int i = 0; i < 32; i++) {
        least = at[i] < least ? at[i] : least;
        most = at[i] > most ? at[i] : most;
        bits |= at[i];
    }
    *low = least;
    *high = most;
    return bits;
}

EMU_CLONES static bool is_contiguous(const uint64_t at[32], uint64_t bytes) {
    uint64_t differs = 0;
    EMU_LANES
    for (int i = 0; i < 32; i++)
        differs |= at[i] - at[0] - (uint64_t)i * bytes;
    return !differs;
}

static emu_space space_of(uint64_t address) {
    if (address - EMU_SHARED_WINDOW < EMU_WINDOW_BYTES)
        return EMU_SPACE_SHARED;
    if (address - EMU_LOCAL_WINDOW < EMU_WINDOW_BYTES)
        return EMU_SPACE_LOCAL;
    if (address - EMU_PARAM_WINDOW < EMU_WINDOW_BYTES)
        return EMU_SPACE_PARAM;
    return EMU_SPACE_GLOBAL;
}

static uint64_t window_of(emu_space space) {
    return space == EMU_SPACE_SHARED  ? EMU_SHARED_WINDOW
           : space == EMU_SPACE_LOCAL ? EMU_LOCAL_WINDOW
           : space == EMU_SPACE_PARAM ? EMU_PARAM_WINDOW
                                      : 0;
}

uint32_t emu_generic_lanes(emu_warp *w, const emu_op *op, uint32_t mask, emu_space *space) {
    uint64_t at[32], low, high;
    find_addresses(w, op, mask, at, &low, &high);
    *space = space_of(low);
    if (*space == space_of(high) &&
        (*space != EMU_SPACE_GLOBAL || high < EMU_SHARED_WINDOW || low >= EMU_SHARED_WINDOW))
        return mask;
    uint32_t same = 0;
    *space = space_of(at[__builtin_ctz(mask)]);
    for (int i = 0; i < 32; i++)
        same |= space_of(at[i]) == *space ? 1u << i : 0;
    return same & mask;
}

/* "address 0x… (8 bytes), 4 bytes past the end of allocation 7 (4096 bytes)" */
static emu_next fault_global(emu_warp *w, const emu_op *op, int lane, uint64_t address,
                             uint32_t bytes, const char *what) {
    char near[128] = "no memory is near";
    const emu_memory *memory = w->worker->launch->memory;
    const emu_allocation *a = memory ? emu_memory_nearest(memory, address) : NULL;
    if (a && address >= a->base + a->bytes)
        snprintf(near, sizeof near, "%llu bytes past the end of allocation %u (%llu bytes)",
                 (unsigned long long)(address - a->base - a->bytes), a->serial,
                 (unsigned long long)a->bytes);
    else if (a)
        snprintf(near, sizeof near, "%llu bytes into allocation %u (%llu bytes)",
                 (unsigned long long)(address - a->base), a->serial, (unsigned long long)a->bytes);
    return emu_fault(w, op, lane, "%s of %u bytes at global address 0x%llx: %s", what, bytes,
                     (unsigned long long)address, near);
}

static emu_next fault_misaligned(emu_warp *w, const emu_op *op, uint32_t mask,
                                 const emu_access_at *access, uint32_t bytes) {
    int lane = 0;
    while (!(mask >> lane & 1) || access->at[lane] % bytes == 0)
        lane++;
    if (access->space == EMU_SPACE_GLOBAL)
        return fault_global(w, op, lane, access->at[lane], bytes, "misaligned access");
    return emu_fault(w, op, lane, "misaligned access of %u bytes at address 0x%llx", bytes,
                     (unsigned long long)access->at[lane]);
}

/* --- initialised bytes of global memory ---------------------------------------------------------
 */

static void mark(uint8_t *bits, uint64_t first, uint64_t n) {
    while (n) {
        if (first % 64 == 0 && n >= 64) { /* the bits begin at a double word */
            uint64_t *word = (uint64_t *)(void *)bits + first / 64;
            if (__atomic_load_n(word, __ATOMIC_RELAXED) != UINT64_MAX)
                __atomic_store_n(word, UINT64_MAX, __ATOMIC_RELAXED);
            first += 64;
            n -= 64;
            continue;
        }
        uint64_t in = first % 8, now = 8 - in < n ? 8 - in : n;
        uint8_t want = (uint8_t)(((1u << now) - 1) << in), *byte = bits + first / 8;
        if ((__atomic_load_n(byte, __ATOMIC_RELAXED) & want) != want)
            __atomic_fetch_or(byte, want, __ATOMIC_RELAXED);
        first += now;
        n -= now;
    }
}
static bool is_marked(const uint8_t *bits, uint64_t first, uint64_t n) {
    while (n) {
        if (first % 64 == 0 && n >= 64) {
            const uint64_t *words = (const uint64_t *)(const void *)bits + first / 64;
            if (__atomic_load_n(words, __ATOMIC_RELAXED) != UINT64_MAX)
                return false;
            first += 64;
            n -= 64;
            continue;
        }
        uint64_t in = first % 8, now = 8 - in < n ? 8 - in : n;
        uint8_t want = (uint8_t)(((1u << now) - 1) << in);
        if ((__atomic_load_n(bits + first / 8, __ATOMIC_RELAXED) & want) != want)
            return false;
        first += now;
        n -= now;
    }
    return true;
}

/* Lanes whose bytes lie at the same place or side by side. */
typedef struct run {
    uint64_t first, bytes;
} run;

static int find_runs(const emu_access_at *access, uint32_t mask, uint32_t bytes, run runs[32]) {
    int n = 0;
    if (access->contiguous) {
        runs[0] = (run){access->at[0], 32ull * bytes};
        return 1;
    }
    if (access->low == access->high) {
        runs[0] = (run){access->low, bytes};
        return 1;
    }
    uint64_t last = 0;
    for (uint32_t left = mask; left; left &= left - 1) {
        uint64_t at = access->at[__builtin_ctz(left)];
        if (n && at == last)
            continue;
        if (n && at == last + bytes && !access->scattered)
            runs[n - 1].bytes += bytes;
        else
            runs[n++] = (run){at, bytes};
        last = at;
    }
    return n;
}

static int lane_at(const emu_access_at *access, uint32_t mask, uint64_t address, uint32_t bytes) {
    for (uint32_t left = mask; left; left &= left - 1)
        if (address - access->at[__builtin_ctz(left)] < bytes)
            return __builtin_ctz(left);
    return __builtin_ctz(mask);
}

static emu_next check_initialised(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t bytes,
                                  emu_access kind, const emu_access_at *access, const run *runs,
                                  int n_runs) {
    bool reads =
        kind == EMU_ACCESS_READ || kind == EMU_ACCESS_STRONG_READ || kind == EMU_ACCESS_ATOMIC;
    for (int i = 0; i < n_runs; i++) {
        const emu_allocation *a = access->allocation;
        if (access->scattered)
            a = emu_memory_find(w->worker->launch->memory, runs[i].first, runs[i].bytes);
        if (!a || !a->initialised)
            continue;
        uint64_t first = runs[i].first - a->base;
        if (!reads) {
            mark(a->initialised, first, runs[i].bytes);
        } else if (!is_marked(a->initialised, first, runs[i].bytes)) {
            while (is_marked(a->initialised, first, bytes))
                first += bytes;
            return fault_global(w, op, lane_at(access, mask, a->base + first, bytes),
                                a->base + first, bytes, "read of uninitialised memory");
        }
    }
    return EMU_NEXT;
}

/* --- races between blocks -----------------------------------------------------------------------
 */

static emu_next fault_race(emu_warp *w, const emu_op *op, const emu_allocation *a, int lane,
                           const emu_race *race) {
    static const char *const deeds[] = {"reads", "writes", "atomically updates", "reads (strong)",
                                        "writes (strong)"};
    static const char *const did[] = {"read", "wrote", "updated atomically"};
    char other[64] = "several others";
    const emu_launch *launch = w->worker->launch;
    if (race->other_block != UINT64_MAX)
        snprintf(other, sizeof other, "block (%u,%u,%u)",
                 (uint32_t)(race->other_block % launch->grid[0]),
                 (uint32_t)(race->other_block / launch->grid[0] % launch->grid[1]),
                 (uint32_t)(race->other_block / launch->grid[0] / launch->grid[1]));
    return emu_fault(w, op, lane,
                     "race between blocks: this thread %s byte %llu of allocation %u (%llu bytes), "
                     "which %s %s, with no release and acquire between",
                     deeds[race->access], (unsigned long long)race->offset, a->serial,
                     (unsigned long long)a->bytes, other, did[race->other_access]);
}

/* A strong access among the threads of a block is a plain one to other blocks. */
static emu_access seen_by_blocks(const emu_op *op, emu_access kind) {
    if (!op->in_block)
        return kind;
    return kind == EMU_ACCESS_STRONG_READ || kind == EMU_ACCESS_READ ? EMU_ACCESS_READ
                                                                     : EMU_ACCESS_WRITE;
}

static emu_next check_blocks(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t bytes,
                             emu_access kind, const emu_access_at *access, const run *runs,
                             int n_runs) {
    emu_worker *worker = w->worker;
    kind = seen_by_blocks(op, kind);
    bool releases = kind == EMU_ACCESS_ATOMIC || kind == EMU_ACCESS_STRONG_WRITE;
    if (releases && (op->order == EMU_ORDER_RELEASE || op->order == EMU_ORDER_ACQ_REL))
        emu_races_publish(&worker->race_block, w->index);
    for (int i = 0; i < n_runs; i++) {
        const emu_allocation *a = access->allocation;
        if (access->scattered)
            a = emu_memory_find(worker->launch->memory, runs[i].first, runs[i].bytes);
        emu_race race;
        if (!emu_races_access(worker->races, &worker->race_block, a, kind, runs[i].first - a->base,
                              runs[i].bytes, op->size, &race))
            return fault_race(w, op, a, lane_at(access, mask, a->base + race.offset, bytes), &race);
    }
    for (uint32_t left = releases ? mask : 0; left; left &= left - 1)
        emu_races_release(worker->races, &worker->race_block, w->index,
                          access->at[__builtin_ctz(left)]);
    return EMU_NEXT;
}

/* --- races within a block ------------------------------------------------------------------------
 */

static emu_next check_within(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t bytes,
                             emu_access kind, const uint64_t at[32]) {
    static const char *const deeds[] = {"reads", "writes", "atomically updates", "reads (strong)",
                                        "writes (strong)"};
    static const char *const did[] = {"read",          "wrote",          "updated atomically",
                                      "read (strong)", "wrote (strong)", "copied to"};
    emu_shadow_report report;
    uint64_t address;
    if (emu_races_within_access(w->worker->within, kind, w->index, mask, at, bytes, &address,
                                &report))
        return EMU_NEXT;
    const emu_allocation *a = emu_memory_find(w->worker->launch->memory, address, 1);
    char other[64];
    if (report.other != UINT32_MAX)
        snprintf(other, sizeof other, "thread %u", report.other);
    else
        snprintf(other, sizeof other, "warp %u", report.other_warp);
    return emu_fault(w, op, (int)(report.thread % 32),
                     "race within a block: this thread %s byte %llu of allocation %u (%llu bytes), "
                     "which %s %s, with no %s between",
                     deeds[report.access], (unsigned long long)(address - a->base), a->serial,
                     (unsigned long long)a->bytes, other, did[report.other_access],
                     report.other_warp == w->index ? "barrier or __syncwarp" : "barrier");
}

/* Lanes of an async copy read any number of bytes: powers of two of them together. */
static bool check_copy_within(emu_warp *w, const emu_op *op, uint32_t mask, const uint8_t bytes[32],
                              const uint64_t at[32]) {
    for (uint32_t size = 16; size; size /= 2) {
        uint32_t lanes = 0;
        uint64_t from[32] = {0};
        for (uint32_t left = mask; left; left &= left - 1) {
            int i = __builtin_ctz(left);
            from[i] = at[i] + (bytes[i] & ~(2 * size - 1));
            lanes |= bytes[i] & size ? 1u << i : 0;
        }
        if (lanes && check_within(w, op, lanes, size, EMU_ACCESS_READ, from) != EMU_NEXT)
            return false;
    }
    return true;
}

void emu_access_acquire(emu_warp *w, const emu_op *op, uint32_t mask, const emu_access_at *access) {
    emu_worker *worker = w->worker;
    w->heard = true;
    if (worker->within && (op->order == EMU_ORDER_ACQUIRE || op->order == EMU_ORDER_ACQ_REL))
        emu_shadow_forget(emu_races_within_order(worker->within));
    if (!worker->races || access->space != EMU_SPACE_GLOBAL || op->in_block)
        return;
    for (uint32_t left = mask; left; left &= left - 1)
        emu_races_acquire(worker->races, &worker->race_block, access->at[__builtin_ctz(left)]);
    if (op->order == EMU_ORDER_ACQUIRE || op->order == EMU_ORDER_ACQ_REL)
        emu_races_listen(&worker->race_block);
}

/* --- spaces --------------------------------------------------------------------------------------
 */

static bool in_allocation(const emu_allocation *a, uint64_t low, uint64_t high, uint64_t bytes) {
    return low >= a->base && high - a->base <= a->bytes && a->bytes - (high - a->base) >= bytes;
}

static emu_next resolve_global(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t bytes,
                               emu_access kind, emu_access_at *access) {
    const emu_memory *memory = w->worker->launch->memory;
    const emu_allocation *a = w->cached;
    if (!in_allocation(a, access->low, access->high, bytes)) {
        a = NULL;
        if (memory && access->high <= UINT64_MAX - bytes)
            a = emu_memory_find(memory, access->low, access->high - access->low + bytes);
        if (a)
            w->cached = a;
    }
    if (a) {
        access->allocation = a;
        access->base = a->data;
        access->origin = a->base;
    } else { /* lanes in several allocations, or one in none */
        access->scattered = true;
        for (int i = 0; i < 32; i++) {
            if (!(mask >> i & 1))
                continue;
            a = memory ? emu_memory_find(memory, access->at[i], bytes) : NULL;
            if (!a)
                return fault_global(w, op, i, access->at[i], bytes, "out of bounds access");
            access->host[i] = a->data + (access->at[i] - a->base);
            if (w->counting)
                emu_count_global(w, a, access->at, 1u << i, bytes, kind == EMU_ACCESS_WRITE, false);
        }
    }
    bool constant = op->space == EMU_SPACE_CONST, racing = w->worker->races && !constant;
    if (racing || w->checks & EMU_CHECK_UNINITIALISED) {
        run runs[32];
        int n = find_runs(access, mask, bytes, runs);
        if (w->checks & EMU_CHECK_UNINITIALISED &&
            check_initialised(w, op, mask, bytes, kind, access, runs, n) != EMU_NEXT)
            return EMU_FAULT;
        if (racing && check_blocks(w, op, mask, bytes, kind, access, runs, n) != EMU_NEXT)
            return EMU_FAULT;
    }
    if (w->worker->within && !constant &&
        check_within(w, op, mask, bytes, kind, access->at) != EMU_NEXT)
        return EMU_FAULT;
    if (w->counting && !access->scattered)
        emu_count_global(w, access->allocation, access->at, mask, bytes,
                         kind == EMU_ACCESS_WRITE || kind == EMU_ACCESS_STRONG_WRITE,
                         access->contiguous);
    return EMU_NEXT;
}

static emu_next resolve_shared(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t bytes,
                               emu_access kind, emu_access_at *access) {
    emu_block *block = w->block;
    if (access->high > block->shared_bytes || block->shared_bytes - access->high < bytes) {
        int lane = 0;
        while (!(mask >> lane & 1) || (access->at[lane] <= block->shared_bytes &&
                                       block->shared_bytes - access->at[lane] >= bytes))
            lane++;
        return emu_fault(w, op, lane,
                         "out of bounds access of %u bytes at shared address 0x%llx: the block has "
                         "%u bytes of shared memory",
                         bytes, (unsigned long long)access->at[lane], block->shared_bytes);
    }
    access->base = block->shared;
    if (!w->worker->shadow && !w->counting)
        return EMU_NEXT;
    uint32_t at[32];
    for (int i = 0; i < 32; i++)
        at[i] = (uint32_t)access->at[i];
    emu_shadow_report report;
    if (w->worker->shadow &&
        !emu_shadow_access(w->worker->shadow, kind, w->index, mask, at, bytes, &report)) {
        char text[256];
        emu_shadow_message(&report, text, sizeof text);
        return emu_fault(w, op, report.thread / 32 == w->index ? (int)(report.thread % 32) : -1,
                         "%s", text);
    }
    if (w->counting)
        emu_count_shared(w, at, mask, bytes);
    return EMU_NEXT;
}

/* Local memory is each lane's own; parameters are the same for all. */
static emu_next resolve_private(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t bytes,
                                emu_access kind, emu_access_at *access) {
    bool local = access->space == EMU_SPACE_LOCAL;
    uint64_t size = local ? w->function->local_bytes : w->function->param_bytes;
    if (!local && kind != EMU_ACCESS_READ)
        return emu_fault(w, op, __builtin_ctz(mask), "writes to a parameter");
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        if (access->at[i] > size || size - access->at[i] < bytes)
            return emu_fault(w, op, i,
                             "out of bounds access of %u bytes at %s address 0x%llx, of %llu",
                             bytes, local ? "local" : "parameter",
                             (unsigned long long)access->at[i], (unsigned long long)size);
        access->host[i] = local ? w->local + (uint64_t)i * size + access->at[i]
                                : (uint8_t *)(uintptr_t)w->worker->run->params + access->at[i];
    }
    access->scattered = true;
    return EMU_NEXT;
}

emu_next emu_access_resolve(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t bytes,
                            emu_access kind, emu_access_at *access) {
    access->scattered = false;
    access->allocation = NULL;
    access->base = NULL;
    access->origin = 0;
    uint64_t bits = find_addresses(w, op, mask, access->at, &access->low, &access->high);
    access->space = (emu_space)op->space;
    if (access->space == EMU_SPACE_GENERIC) {
        access->space = space_of(access->at[__builtin_ctz(mask)]);
        uint64_t window = window_of(access->space);
        if (window) {
            for (int i = 0; i < 32; i++)
                access->at[i] -= window;
            access->low -= window;
            access->high -= window;
        }
    } else if (access->space == EMU_SPACE_CONST) {
        access->space = EMU_SPACE_GLOBAL;
    }
    access->contiguous = mask == EMU_FULL && access->high - access->low == 31ull * bytes &&
                         is_contiguous(access->at, bytes);
    if (bits & (bytes - 1))
        return fault_misaligned(w, op, mask, access, bytes);
    if (access->space == EMU_SPACE_GLOBAL)
        return resolve_global(w, op, mask, bytes, kind, access);
    if (access->space == EMU_SPACE_SHARED)
        return resolve_shared(w, op, mask, bytes, kind, access);
    return resolve_private(w, op, mask, bytes, kind, access);
}

static bool check_copy(emu_warp *w, const emu_op *op, const emu_allocation *a,
                       const emu_access_at *access, uint32_t lanes, uint64_t first, uint64_t n,
                       uint32_t bytes) {
    if (w->checks & EMU_CHECK_UNINITIALISED && a->initialised &&
        !is_marked(a->initialised, first - a->base, n)) {
        while (is_marked(a->initialised, first - a->base, 1))
            first++;
        fault_global(w, op, lane_at(access, lanes, first, bytes), first, bytes,
                     "read of uninitialised memory");
        return false;
    }
    emu_race race;
    if (!w->worker->races ||
        emu_races_access(w->worker->races, &w->worker->race_block, a, EMU_ACCESS_READ,
                         first - a->base, n, bytes % 4 ? 1 : 4, &race))
        return true;
    fault_race(w, op, a, lane_at(access, lanes, a->base + race.offset, bytes), &race);
    return false;
}

bool emu_access_copy(emu_warp *w, const emu_op *op, uint32_t mask, const uint8_t bytes[32],
                     emu_access_at *access, const uint8_t *source[32]) {
    const emu_memory *memory = w->worker->launch->memory;
    const uint64_t *at = access->at;
    for (uint32_t left = mask; left;) {
        int i = __builtin_ctz(left), end = i + 1;
        uint64_t n = bytes[i];
        while (end < 32 && left >> end & 1 && bytes[end] == bytes[i] && at[end] == at[i] + n) {
            n += bytes[i];
            end++;
        }
        const emu_allocation *a = w->cached;
        if (!in_allocation(a, at[i], at[i], n))
            a = memory && at[i] <= UINT64_MAX - n ? emu_memory_find(memory, at[i], n) : NULL;
        if (!a) { /* perhaps not all of them are out of bounds */
            n = bytes[i];
            end = i + 1;
            a = memory ? emu_memory_find(memory, at[i], n) : NULL;
        }
        if (!a) {
            fault_global(w, op, i, at[i], bytes[i], "out of bounds access");
            return false;
        }
        w->cached = a;
        if ((w->worker->races || w->checks & EMU_CHECK_UNINITIALISED) &&
            !check_copy(w, op, a, access, left, at[i], n, bytes[i]))
            return false;
        for (int k = i; k < end; k++)
            source[k] = a->data + (at[k] - a->base);
        left = end < 32 ? left >> end << end : 0;
    }
    return !w->worker->within || check_copy_within(w, op, mask, bytes, at);
}
