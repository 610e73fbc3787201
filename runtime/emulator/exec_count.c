/* Counters of memory instructions: sectors, bank conflicts, the distinct sectors of a launch. */
#include "runtime/emulator/exec_state.h"

#include <stdlib.h>

static emu_dram *dram_of(emu_warp *w, const emu_allocation *allocation) {
    if (w->cached_dram && w->cached_dram->allocation == allocation)
        return w->cached_dram;
    emu_worker *worker = w->worker;
    emu_dram *dram = worker->dram;
    while (dram && dram->allocation != allocation)
        dram = dram->next;
    if (!dram) {
        dram = calloc(1, sizeof *dram);
        if (!dram)
            return NULL;
        dram->allocation = allocation;
        dram->n_chunks = (allocation->bytes >> EMU_CHUNK_SHIFT) + 2;
        dram->chunks[0] = calloc(dram->n_chunks, sizeof *dram->chunks[0]);
        dram->chunks[1] = calloc(dram->n_chunks, sizeof *dram->chunks[1]);
        dram->next = worker->dram;
        worker->dram = dram;
    }
    w->cached_dram = dram;
    return dram;
}

/* Sector `first` … `last` of the allocation (of its base) has been touched. A counter is all that
 * is lost where memory is short. */
static void touch(emu_dram *dram, bool store, uint64_t first, uint64_t last) {
    if (!dram || !dram->chunks[store])
        return;
    for (uint64_t s = first; s <= last; s++) {
        uint64_t chunk = s >> (EMU_CHUNK_SHIFT - 5);
        if (chunk >= dram->n_chunks)
            return;
        uint64_t **words = &dram->chunks[store][chunk];
        if (!*words)
            *words = calloc(EMU_CHUNK_WORDS, sizeof **words);
        if (*words)
            (*words)[s / 64 % EMU_CHUNK_WORDS] |= UINT64_C(1) << s % 64;
    }
}

static int compare_sectors(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void emu_count_global(emu_warp *w, const emu_allocation *allocation, const uint64_t at[32],
                      uint32_t mask, uint32_t bytes, bool store, bool contiguous) {
    emu_counters *c = &w->worker->counters;
    emu_dram *dram = dram_of(w, allocation);
    uint64_t base = allocation->base, total = (uint64_t)__builtin_popcount(mask) * bytes, n = 0;
    if (contiguous) {
        uint64_t first = (at[0] - base) / 32, last = (at[31] + bytes - 1 - base) / 32;
        n = last - first + 1;
        touch(dram, store, first, last);
    } else {
        uint64_t sectors[32 * 2], count = 0, previous = UINT64_MAX;
        bool sorted = true;
        for (int i = 0; i < 32; i++) {
            if (!(mask >> i & 1))
                continue;
            uint64_t first = (at[i] - base) / 32, last = (at[i] + bytes - 1 - base) / 32;
            for (uint64_t s = first; s <= last; s++) {
                if (s == previous)
                    continue;
                sorted &= previous == UINT64_MAX || s > previous;
                sectors[count++] = previous = s;
            }
        }
        if (!sorted)
            qsort(sectors, (size_t)count, sizeof *sectors, compare_sectors);
        for (uint64_t i = 0; i < count; i++) {
            if (i && sectors[i] == sectors[i - 1])
                continue;
            n++;
            touch(dram, store, sectors[i], sectors[i]);
        }
    }
    /* The fewest sectors that many distinct bytes fit in; lanes that share bytes need fewer. */
    uint64_t fewest = (total + 31) / 32;
    if (n > 2 * fewest)
        c->uncoalesced_requests++;
    if (n > 2 * fewest && !store)
        c->uncoalesced_loads++;
    if (store) {
        c->global_store_requests++;
        c->global_store_bytes += total;
        c->global_store_sectors += n;
    } else {
        c->global_load_requests++;
        c->global_load_bytes += total;
        c->global_load_sectors += n;
        c->wide_loads += bytes == 16;
    }
}

/* Wavefronts of the lanes `from` … `to`, which go together: the most different words in a bank. */
static uint32_t wavefronts(const uint32_t at[32], uint32_t mask, uint32_t bytes, int from, int to) {
    uint32_t words[32][32], n[32] = {0}, most = 0;
    uint32_t per_lane = (bytes + 3) / 4;
    for (int i = from; i < to; i++) {
        if (!(mask >> i & 1))
            continue;
        for (uint32_t k = 0; k < per_lane; k++) {
            uint32_t word = at[i] / 4 + k, bank = word % 32, j = 0;
            while (j < n[bank] && words[bank][j] != word)
                j++;
            if (j == n[bank])
                words[bank][n[bank]++] = word;
            most = n[bank] > most ? n[bank] : most;
        }
    }
    return most;
}

void emu_count_shared(emu_warp *w, const uint32_t at[32], uint32_t mask, uint32_t bytes) {
    emu_counters *c = &w->worker->counters;
    c->shared_requests++;
    /* 8 bytes a lane go in two halves of the warp, 16 in four quarters. */
    int together = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
    for (int from = 0; from < 32; from += together) {
        uint32_t lanes = mask >> from & (together == 32 ? EMU_FULL : (1u << together) - 1);
        if (!lanes)
            continue;
        /* The commonest: every lane in a bank of its own. */
        uint32_t slots = 0, shift = bytes <= 4 ? 2 : bytes == 8 ? 3 : 4;
        for (int i = from; i < from + together; i++)
            if (mask >> i & 1)
                slots |= 1u << (at[i] >> shift) % (uint32_t)together;
        uint32_t waves = 1;
        if (__builtin_popcount(slots) != __builtin_popcount(lanes))
            waves = wavefronts(at, mask, bytes, from, from + together);
        c->shared_wavefronts += waves;
        c->bank_conflicts += waves - 1;
    }
}

void emu_count_dram(emu_launch_state *run, emu_counters *counters) {
    for (int i = 0; i < run->n_workers; i++) {
        if (!run->workers[i])
            continue;
        for (emu_dram *dram = run->workers[i]->dram; dram; dram = dram->next) {
            for (int store = 0; store < 2; store++) {
                for (uint64_t chunk = 0; dram->chunks[store] && chunk < dram->n_chunks; chunk++) {
                    uint64_t *words = dram->chunks[store][chunk];
                    if (!words)
                        continue;
                    /* What later workers touched too is counted here, and not again. */
                    for (int j = i + 1; j < run->n_workers; j++) {
                        emu_dram *other = run->workers[j] ? run->workers[j]->dram : NULL;
                        while (other && other->allocation != dram->allocation)
                            other = other->next;
                        uint64_t *theirs =
                            other && other->chunks[store] ? other->chunks[store][chunk] : NULL;
                        for (int k = 0; theirs && k < EMU_CHUNK_WORDS; k++) {
                            words[k] |= theirs[k];
                            theirs[k] = 0;
                        }
                    }
                    uint64_t n = 0;
                    for (int k = 0; k < EMU_CHUNK_WORDS; k++)
                        n += (uint64_t)__builtin_popcountll(words[k]);
                    if (store)
                        counters->dram_write_sectors += n;
                    else
                        counters->dram_read_sectors += n;
                }
            }
        }
    }
}

void emu_dram_destroy(emu_worker *worker) {
    for (emu_dram *dram = worker->dram, *next; dram; dram = next) {
        next = dram->next;
        for (int store = 0; store < 2; store++) {
            for (uint64_t chunk = 0; dram->chunks[store] && chunk < dram->n_chunks; chunk++)
                free(dram->chunks[store][chunk]);
            free(dram->chunks[store]);
        }
        free(dram);
    }
}
