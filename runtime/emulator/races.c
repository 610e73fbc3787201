#include "runtime/emulator/races.h"

#include "runtime/emulator/simd.h"

#include <pthread.h>
#include <stdlib.h>

/* A stamp of an access: block + 1, and the block's time in the lower bits. */
enum { TIME_BITS = 10, LAST_TIME = (1 << TIME_BITS) - 1 };
#define SEVERAL UINT32_MAX /* blocks */

enum { CHUNK_BYTES = 1 << 16, LOG_SLOTS = 1024 };

/* The accesses noted of CHUNK_BYTES of an allocation; rows that nothing was noted in are NULL.
 *
 * Host threads read and write rows without locks, so that the blocks that all read the same do not
 * wait for each other. What gets lost is a note of one of two accesses within nanoseconds; what is
 * read is a note that was made. */
enum { WRITES, READS, ATOMICS, ROWS };
typedef struct notes {
    uint32_t shift; /* a unit has 1 << shift bytes: 4 or 1 */
    uint32_t *rows[ROWS];
    struct notes *coarse; /* those before units became bytes, which somebody may still use */
} notes;
typedef notes *chunk;

/* In front of functions that do so. */
#ifdef EMU_SANITIZED
#define UNORDERED __attribute__((no_sanitize("thread")))
#else
#define UNORDERED
#endif

typedef struct emu_race_notes {
    const emu_allocation *allocation;
    uint64_t n_chunks;
    struct emu_race_notes *next;
    chunk chunks[];
} tracked;

/* The writes at one address that released something, in their order. */
typedef struct entry {
    uint32_t block, time; /* the block's accesses before that time */
} entry;
typedef struct inherited { /* what the block of an entry had heard itself */
    uint32_t entry;
    emu_heard heard;
} inherited;
struct emu_race_log {
    uint64_t address;
    entry *entries;
    uint32_t n_entries, entries_room;
    inherited *inherited;
    uint32_t n_inherited, inherited_room;
    emu_race_log *next;
};

struct emu_races {
    pthread_mutex_t mutex; /* of the list of tracked and of the logs */
    tracked *tracked;      /* read without it */
    emu_race_log *logs[LOG_SLOTS];
    uint32_t n_logs; /* read without it */
};

emu_races *emu_races_create(void) {
    emu_races *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    pthread_mutex_init(&r->mutex, NULL);
    return r;
}

static void free_notes(notes *n) {
    for (notes *coarse; n; n = coarse) {
        coarse = n->coarse;
        for (int k = 0; k < ROWS; k++)
            free(n->rows[k]);
        free(n);
    }
}

void emu_races_destroy(emu_races *r) {
    if (!r)
        return;
    for (tracked *t = r->tracked, *next; t; t = next) {
        next = t->next;
        for (uint64_t i = 0; i < t->n_chunks; i++)
            free_notes(t->chunks[i]);
        free(t);
    }
    for (int i = 0; i < LOG_SLOTS; i++)
        for (emu_race_log *log = r->logs[i], *next; log; log = next) {
            next = log->next;
            free(log->entries);
            free(log->inherited);
            free(log);
        }
    pthread_mutex_destroy(&r->mutex);
    free(r);
}

void emu_races_block_begin(emu_race_block *b, uint64_t index) {
    b->stamp = ((uint32_t)index + 1) << TIME_BITS;
    b->time = 0;
    b->touched = false;
    memset(b->published, 0, sizeof b->published);
    b->n_heard = b->n_fenced = 0;
    b->known_block = b->known_time = 0;
}

void emu_races_block_end(emu_race_block *b) {
    free(b->heard);
    b->heard = NULL;
    b->heard_room = 0;
}

/* --- order --------------------------------------------------------------------------------------
 */

void emu_races_publish(emu_race_block *b, uint32_t warp) {
    b->time += b->touched;
    b->touched = false;
    b->published[warp] = b->time;
}

void emu_races_listen(emu_race_block *b) {
    uint32_t n = b->n_fenced;
    for (uint32_t i = b->n_fenced; i < b->n_heard; i++) {
        uint32_t k = 0;
        while (k < n && b->heard[k].log != b->heard[i].log)
            k++;
        b->heard[k] = b->heard[i];
        n += k == n;
    }
    b->n_heard = b->n_fenced = n;
    b->known_block = 0;
}

void emu_races_barrier(emu_race_block *b, uint32_t warps) {
    uint32_t latest = 0;
    for (uint32_t left = warps; left; left &= left - 1) {
        uint32_t time = b->published[__builtin_ctz(left)];
        latest = time > latest ? time : latest;
    }
    for (uint32_t left = warps; left; left &= left - 1)
        b->published[__builtin_ctz(left)] = latest;
}

static emu_race_log **find_log(emu_races *r, uint64_t address) {
    uint64_t hash = address * UINT64_C(0x9e3779b97f4a7c15) >> 54;
    emu_race_log **at = &r->logs[hash % LOG_SLOTS];
    while (*at && (*at)->address != address)
        at = &(*at)->next;
    return at;
}

static bool grow(void *array, uint32_t *room, uint32_t n, size_t size) {
    if (n < *room)
        return true;
    uint32_t more = *room ? 2 * *room : 8;
    void *at, *grown;
    memcpy(&at, array, sizeof at);
    grown = realloc(at, more * size);
    if (!grown)
        return false;
    memcpy(array, &grown, sizeof grown);
    *room = more;
    return true;
}

/* What a block has heard goes on to whoever hears this entry. False when memory is exhausted. */
static bool inherit(emu_race_log *log, const emu_race_block *b) {
    for (uint32_t i = 0; i < b->n_fenced; i++) {
        bool has = b->heard[i].log == log;
        for (uint32_t k = 0; k < log->n_inherited && !has; k++)
            has = log->inherited[k].heard.log == b->heard[i].log &&
                  log->inherited[k].heard.n >= b->heard[i].n;
        if (has)
            continue;
        if (!grow(&log->inherited, &log->inherited_room, log->n_inherited, sizeof *log->inherited))
            return false;
        log->inherited[log->n_inherited++] = (inherited){log->n_entries, b->heard[i]};
    }
    return true;
}

/* What cannot be noted for want of memory would show as races that are none: an entry of block 0
 * claims everything instead. */
static void add_entry(emu_race_log *log, const emu_race_block *b, uint32_t time) {
    bool good = inherit(log, b);
    if (grow(&log->entries, &log->entries_room, log->n_entries, sizeof *log->entries))
        log->entries[log->n_entries++] =
            good ? (entry){b->stamp >> TIME_BITS, time} : (entry){0, 0};
    else if (log->n_entries)
        log->entries[log->n_entries - 1] = (entry){0, 0};
}

void emu_races_release(emu_races *r, emu_race_block *b, uint32_t warp, uint64_t address) {
    if (!b->published[warp])
        return;
    pthread_mutex_lock(&r->mutex);
    emu_race_log **at = find_log(r, address);
    if (!*at && (*at = calloc(1, sizeof **at))) {
        (*at)->address = address;
        __atomic_fetch_add(&r->n_logs, 1, __ATOMIC_RELEASE);
    }
    if (*at)
        add_entry(*at, b, b->published[warp]);
    pthread_mutex_unlock(&r->mutex);
}

void emu_races_acquire(emu_races *r, emu_race_block *b, uint64_t address) {
    if (!__atomic_load_n(&r->n_logs, __ATOMIC_ACQUIRE))
        return;
    pthread_mutex_lock(&r->mutex);
    emu_race_log *log = *find_log(r, address);
    uint32_t n = log ? log->n_entries : 0;
    pthread_mutex_unlock(&r->mutex);
    if (!n)
        return;
    for (uint32_t i = b->n_fenced; i < b->n_heard; i++)
        if (b->heard[i].log == log) {
            b->heard[i].n = n;
            return;
        }
    for (uint32_t i = 0; i < b->n_fenced; i++)
        if (b->heard[i].log == log && b->heard[i].n == n)
            return;
    if (grow(&b->heard, &b->heard_room, b->n_heard, sizeof *b->heard))
        b->heard[b->n_heard++] = (emu_heard){log, n};
}

/* Whether the first n entries of a log cover accesses of a block at a time. */
static bool covers(const emu_race_log *log, uint32_t n, uint32_t block, uint32_t time, int depth) {
    for (uint32_t i = n; i-- > 0;) {
        const entry *e = &log->entries[i];
        if ((e->block == block && e->time > time) || !e->block)
            return true;
    }
    if (depth == 16)
        return true;
    for (uint32_t i = 0; i < log->n_inherited && log->inherited[i].entry < n; i++) {
        const emu_heard *heard = &log->inherited[i].heard;
        if (covers(heard->log, heard->n, block, time, depth + 1))
            return true;
    }
    return false;
}

/* Whether an access is known to the block by what it heard before its last fence. */
static bool is_known(emu_races *r, emu_race_block *b, uint32_t stamp) {
    uint32_t block = stamp >> TIME_BITS, time = stamp & LAST_TIME;
    if (!stamp || block == b->stamp >> TIME_BITS)
        return true;
    if (stamp == SEVERAL)
        return b->n_fenced;
    if (block == b->known_block && time < b->known_time)
        return true;
    bool known = false;
    pthread_mutex_lock(&r->mutex);
    for (uint32_t i = b->n_fenced; i-- > 0 && !known;)
        known = covers(b->heard[i].log, b->heard[i].n, block, time, 0);
    pthread_mutex_unlock(&r->mutex);
    if (known) {
        b->known_block = block;
        b->known_time = time + 1;
    }
    return known;
}

/* --- what is noted ------------------------------------------------------------------------------
 */

static tracked *track(emu_races *r, const emu_allocation *allocation) {
    tracked *t = __atomic_load_n(&r->tracked, __ATOMIC_ACQUIRE);
    while (t && t->allocation != allocation)
        t = t->next;
    if (t)
        return t;
    pthread_mutex_lock(&r->mutex);
    for (t = r->tracked; t && t->allocation != allocation; t = t->next)
        ;
    if (!t) {
        uint64_t n = (allocation->bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
        t = calloc(1, sizeof *t + n * sizeof t->chunks[0]);
        if (t) {
            t->allocation = allocation;
            t->n_chunks = n;
            t->next = r->tracked;
            __atomic_store_n(&r->tracked, t, __ATOMIC_RELEASE);
        }
    }
    pthread_mutex_unlock(&r->mutex);
    return t;
}

/* A row of words as one of bytes; NULL, as if nothing had been noted, when memory is exhausted. */
UNORDERED static uint32_t *refine(const notes *coarse, int row) {
    const uint32_t *words = coarse->rows[row];
    uint32_t *bytes = words ? malloc(CHUNK_BYTES * sizeof *bytes) : NULL;
    for (uint32_t i = 0; bytes && i < CHUNK_BYTES; i++)
        bytes[i] = words[i / 4];
    return bytes;
}

/* The notes of a chunk in units of at most `size` bytes. NULL when memory is exhausted. */
static notes *notes_of(emu_races *r, chunk *c, uint32_t size) {
    notes *old = __atomic_load_n(c, __ATOMIC_ACQUIRE), *made;
    if (old && (size >= 4 || !old->shift))
        return old;
    pthread_mutex_lock(&r->mutex);
    old = *c;
    made = old;
    if (!old || (size < 4 && old->shift))
        made = calloc(1, sizeof *made);
    if (made && made != old) {
        made->shift = size < 4 ? 0 : 2;
        made->coarse = old;
        for (int k = 0; k < ROWS && old; k++)
            made->rows[k] = refine(old, k);
        __atomic_store_n(c, made, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&r->mutex);
    return made;
}

static uint32_t *row_of(emu_races *r, notes *n, int row) {
    uint32_t *found = __atomic_load_n(&n->rows[row], __ATOMIC_ACQUIRE);
    if (found)
        return found;
    pthread_mutex_lock(&r->mutex);
    found = n->rows[row];
    if (!found) {
        found = calloc((size_t)CHUNK_BYTES >> n->shift, sizeof *found);
        __atomic_store_n(&n->rows[row], found, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&r->mutex);
    return found;
}

/* Whether units were touched by other blocks. */
UNORDERED EMU_CLONES static bool is_foreign(const uint32_t *row, uint32_t n, uint32_t stamp) {
    uint32_t foreign = 0;
    for (uint32_t i = 0; i < n; i++)
        foreign |= row[i] ? (row[i] ^ stamp) >> TIME_BITS : 0;
    return foreign;
}

/* Adds the block to those that touched the units. */
UNORDERED EMU_CLONES static void join(uint32_t *row, uint32_t n, uint32_t stamp) {
    for (uint32_t i = 0; i < n; i++)
        row[i] = !row[i] || !((row[i] ^ stamp) >> TIME_BITS) ? stamp : SEVERAL;
}

UNORDERED EMU_CLONES static void fill(uint32_t *row, uint32_t n, uint32_t stamp) {
    for (uint32_t i = 0; i < n; i++)
        row[i] = stamp;
}

UNORDERED static bool check_row(emu_races *r, emu_race_block *b, const notes *noted, int row,
                                uint32_t first, uint32_t n, emu_race *race) {
    const uint32_t *units = __atomic_load_n(&noted->rows[row], __ATOMIC_ACQUIRE);
    if (!units || !is_foreign(units + first, n, b->stamp))
        return true;
    for (uint32_t i = first; i < first + n; i++) {
        uint32_t stamp = units[i];
        if (is_known(r, b, stamp))
            continue;
        race->offset = (uint64_t)i << noted->shift;
        race->other_access = row == WRITES  ? EMU_ACCESS_WRITE
                             : row == READS ? EMU_ACCESS_READ
                                            : EMU_ACCESS_ATOMIC;
        race->other_block = stamp == SEVERAL ? UINT64_MAX : (uint64_t)(stamp >> TIME_BITS) - 1;
        return false;
    }
    return true;
}

/* Notes first what it then looks for in the other rows, so that of two accesses at once one sees
 * the other. */
static bool check_chunk(emu_races *r, emu_race_block *b, chunk *c, emu_access access,
                        uint32_t offset, uint32_t bytes, uint32_t size, emu_race *race) {
    notes *noted = notes_of(r, c, size);
    if (!noted)
        return true;
    uint32_t first = offset >> noted->shift, n = bytes >> noted->shift;
    bool atomic = access == EMU_ACCESS_ATOMIC || access == EMU_ACCESS_STRONG_WRITE;
    bool strong = atomic || access == EMU_ACCESS_STRONG_READ, write = access == EMU_ACCESS_WRITE;
    uint32_t stamp = b->stamp | (b->time < LAST_TIME ? b->time : LAST_TIME);
    if (write && !check_row(r, b, noted, WRITES, first, n, race))
        return false;
    uint32_t *row = access == EMU_ACCESS_STRONG_READ ? NULL
                                                     : row_of(r, noted,
                                                              write    ? WRITES
                                                              : atomic ? ATOMICS
                                                                       : READS);
    if (row && write)
        fill(row + first, n, stamp);
    else if (row)
        join(row + first, n, stamp);
    return (write || check_row(r, b, noted, WRITES, first, n, race)) &&
           ((!write && !atomic) || check_row(r, b, noted, READS, first, n, race)) &&
           (strong || check_row(r, b, noted, ATOMICS, first, n, race));
}

bool emu_races_access(emu_races *r, emu_race_block *b, const emu_allocation *allocation,
                      emu_access access, uint64_t offset, uint64_t bytes, uint32_t size,
                      emu_race *race) {
    tracked **recent = &b->recent[allocation->serial % 8], *t = *recent;
    if (!t || t->allocation != allocation)
        t = *recent = track(r, allocation);
    if (!t)
        return true;
    b->touched = true;
    while (bytes) {
        uint32_t in = (uint32_t)(offset % CHUNK_BYTES);
        uint32_t now = CHUNK_BYTES - in < bytes ? CHUNK_BYTES - in : (uint32_t)bytes;
        if (!check_chunk(r, b, &t->chunks[offset / CHUNK_BYTES], access, in, now, size, race)) {
            race->access = access;
            race->offset += offset - in;
            return false;
        }
        offset += now;
        bytes -= now;
    }
    return true;
}
