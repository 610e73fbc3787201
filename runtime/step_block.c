#include "runtime/step_block.h"

#include "runtime/modelcc.h"

#include <stdlib.h>
#include <string.h>

/* Reserves an i32 array in the block; returns its offset. */
static uint64_t place(uint64_t *bytes, uint64_t count) {
    uint64_t offset = *bytes;
    *bytes = (offset + 4 * count + 63) / 64 * 64;
    return offset;
}

bool rt_step_block_create(rt_step_block *b, const rt_step_limits *l, rt_error *error) {
    memset(b, 0, sizeof *b);
    b->limits = *l;
    uint64_t T = (uint64_t)l->T, S = (uint64_t)l->S, R = (uint64_t)l->R;
    uint64_t rows = (uint64_t)l->G * S, entries, bytes = (sizeof(mcc_step) + 63) / 64 * 64;
    uint64_t token_ids = place(&bytes, T), positions = place(&bytes, T);
    uint64_t token_seqs = place(&bytes, T), seq_offsets = place(&bytes, S + 1);
    uint64_t context_lens = place(&bytes, S), output_rows = place(&bytes, R);
    uint64_t sampling = place(&bytes, R * (sizeof(mcc_step_sampling) / 4));
    if (__builtin_mul_overflow(rows, (uint64_t)l->P, &entries) || entries > UINT32_MAX / 4)
        return rt_fail(
            error, MCC_CAPACITY,
            "page tables of %d KV groups, %d sequences and %d pages do not fit in a step "
            "block: use fewer sequences or a smaller max_model_len",
            l->G, l->S, l->P);
    uint64_t page_tables = place(&bytes, entries), words = ((uint64_t)l->V + 31) / 32;
    uint64_t token_masks = place(&bytes, (uint64_t)l->M * words);
    if (bytes > UINT32_MAX)
        return rt_fail(error, MCC_CAPACITY,
                       "a step block of %d tokens and %d sequences is too large", l->T, l->S);
    b->step = aligned_alloc(64, bytes);
    b->slots = calloc(S, sizeof *b->slots);
    b->row_used = calloc(rows + 1, sizeof *b->row_used);
    if (!b->step || !b->slots || !b->row_used) {
        rt_step_block_destroy(b);
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a step block");
    }
    b->bytes = bytes;
    char *base = (char *)b->step;
    memset(base, 0, page_tables);
    *b->step = (mcc_step){.magic = MCC_STEP_MAGIC,
                          .version = MCC_STEP_VERSION,
                          .bytes = (uint32_t)bytes,
                          .G = l->G,
                          .P = l->P,
                          .token_ids = (uint32_t)token_ids,
                          .positions = (uint32_t)positions,
                          .token_seqs = (uint32_t)token_seqs,
                          .seq_offsets = (uint32_t)seq_offsets,
                          .context_lens = (uint32_t)context_lens,
                          .page_tables = (uint32_t)page_tables,
                          .output_rows = (uint32_t)output_rows,
                          .world = 1};
    b->token_ids = (int32_t *)(base + token_ids);
    b->positions = (int32_t *)(base + positions);
    b->token_seqs = (int32_t *)(base + token_seqs);
    b->seq_offsets = (int32_t *)(base + seq_offsets);
    b->context_lens = (int32_t *)(base + context_lens);
    b->page_tables = (int32_t *)(base + page_tables);
    b->output_rows = (int32_t *)(base + output_rows);
    b->sampling = (mcc_step_sampling *)(base + sampling);
    b->token_masks = (uint32_t *)(base + token_masks);
    b->mask_words = (int32_t)words;
    b->logits = true;
    memset(b->page_tables, 0xff, entries * sizeof *b->page_tables);
    return true;
}

void rt_step_block_destroy(rt_step_block *b) {
    free(b->step);
    free(b->slots);
    free(b->row_used);
    memset(b, 0, sizeof *b);
}

void rt_step_begin(rt_step_block *b) {
    b->step->T = b->step->S = b->step->R = 0;
    b->step->sampling = b->step->token_masks = 0;
    b->logits = true;
}

void rt_step_add(rt_step_block *b, int32_t slot, const int32_t *ids, int32_t n, int32_t first) {
    int32_t T = b->step->T, s = b->step->S++;
    memcpy(b->token_ids + T, ids, (size_t)n * sizeof *ids);
    for (int32_t i = 0; i < n; i++) {
        b->positions[T + i] = first + i;
        b->token_seqs[T + i] = s;
    }
    b->seq_offsets[s] = T;
    b->seq_offsets[s + 1] = T + n;
    b->context_lens[s] = first + n;
    b->slots[s] = slot;
    b->step->T = T + n;
}

void rt_step_add_row(rt_step_block *b, int32_t token) {
    b->output_rows[b->step->R++] = token;
}

void rt_step_sample_row(rt_step_block *b, const mcc_step_sampling *sampling) {
    b->sampling[b->step->R - 1] = *sampling;
    b->step->sampling = (uint32_t)((char *)b->sampling - (char *)b->step);
}

void rt_step_mask_rows(rt_step_block *b, void (*write_masks)(void *), void *context) {
    b->step->token_masks = (uint32_t)((char *)b->token_masks - (char *)b->step);
    b->write_masks = write_masks;
    b->write_masks_context = context;
}

void rt_step_finish(rt_step_block *b, const rt_kv *kv) {
    int32_t S = b->step->S, P = b->limits.P;
    for (int32_t g = 0; g < b->limits.G; g++) {
        for (int32_t s = 0; s < S; s++) {
            const int32_t *table = rt_kv_table(kv, (uint32_t)g, b->slots[s]);
            int32_t row = g * S + s;
            int32_t *to = b->page_tables + (int64_t)row * P;
            int32_t used = (int32_t)rt_kv_pages(kv, (uint32_t)g, b->context_lens[s]);
            memcpy(to, table, (size_t)used * sizeof *to);
            if (b->row_used[row] > used)
                memset(to + used, 0xff, (size_t)(b->row_used[row] - used) * sizeof *to);
            b->row_used[row] = used;
        }
    }
}
