#include "compiler/verify.h"

#include <string.h>

/* --- ids -----------------------------------------------------------------------------------------
 */

static uint64_t next(uint64_t *state) { /* splitmix64, by Steele, Lea and Flood */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* --- steps ---------------------------------------------------------------------------------------
 */

typedef struct maker {
    verify_steps *out;
    const verify_model *model;
    ir_arena *arena;
    uint64_t random;
    int32_t *held; /* [slots] positions of each sequence so far */
} maker;

/* Every kind of choice, row by row: greedy, from all tokens, within one limit, within all. */
static ir_interp_sampling *make_sampling(maker *m, int32_t rows, bool greedy) {
    ir_interp_sampling *all = ir_arena_array(m->arena, (size_t)rows, sizeof *all);
    for (int32_t r = 0; r < rows; r++) {
        int kind = greedy ? 0 : (int)(next(&m->random) % 6);
        all[r] = (ir_interp_sampling){.temperature = kind > 0 ? 0.8f : 0,
                                      .top_p = kind == 2 || kind == 5 ? 0.9f : 1,
                                      .min_p = kind == 3 || kind == 5 ? 0.01f : 0,
                                      .top_k = kind == 4 || kind == 5 ? 40 : 0,
                                      .position = r,
                                      .seed = next(&m->random),
                                      .sum = !greedy && r % 2 == 0};
    }
    return all;
}

typedef enum row_choice {
    ROWS_LAST,  /* of each sequence */
    ROWS_ALL,   /* as for drafts */
    ROWS_MIXED, /* the last, of longer sequences the first too, of short ones all */
} row_choice;

/* A step of counts[slot] tokens each. */
static void add_step(maker *m, const char *name, const int32_t *counts, row_choice wanted) {
    verify_step *step = &m->out->steps[m->out->n++];
    int32_t T = 0, S = 0, R = 0, slots_all = m->out->slots;
    for (int slot = 0; slot < slots_all; slot++)
        T += counts[slot];
    int32_t *ids = ir_arena_array(m->arena, (size_t)T, sizeof *ids),
            *positions = ir_arena_array(m->arena, (size_t)T, sizeof *positions),
            *rows = ir_arena_array(m->arena, (size_t)T, sizeof *rows),
            *offsets = ir_arena_array(m->arena, (size_t)slots_all + 1, sizeof *offsets),
            *slots = ir_arena_array(m->arena, (size_t)slots_all, sizeof *slots);
    int64_t vocab = m->model->artifact->tables.header->vocab_size;
    T = 0;
    for (int32_t slot = 0; slot < slots_all; slot++) {
        if (counts[slot] == 0)
            continue;
        slots[S++] = slot;
        for (int32_t i = 0; i < counts[slot]; i++, T++) {
            ids[T] = (int32_t)(next(&m->random) % (uint64_t)vocab);
            positions[T] = m->held[slot]++;
            bool mixed = counts[slot] <= 4 || i == 0;
            if (i == counts[slot] - 1 || wanted == ROWS_ALL || (wanted == ROWS_MIXED && mixed))
                rows[R++] = T;
        }
        offsets[S] = T;
    }
    *step = (verify_step){.name = name,
                          .interp = {.T = T,
                                     .S = S,
                                     .R = R,
                                     .token_ids = ids,
                                     .positions = positions,
                                     .seq_offsets = offsets,
                                     .seq_slots = slots,
                                     .output_rows = rows,
                                     .sampling = make_sampling(m, R, wanted != ROWS_MIXED)}};
    m->out->max_T = T > m->out->max_T ? T : m->out->max_T;
    m->out->max_S = S > m->out->max_S ? S : m->out->max_S;
    m->out->max_R = R > m->out->max_R ? R : m->out->max_R;
}

/* --- step blocks ---------------------------------------------------------------------------------
 */

/* An array of the block; its place goes to *offset. */
static int32_t *place(mcc_step *block, uint32_t *at, uint32_t *offset, size_t n) {
    *offset = *at;
    *at += (uint32_t)(n * sizeof(int32_t) + 15) / 16 * 16;
    return (int32_t *)(void *)((char *)block + *offset);
}

/* Places are the same in all steps, as in the engine's blocks: parameters of launches point to
 * them. Slot s has the pages s, s + VERIFY_SLOTS, … of each group, last first, so that nothing
 * depends on their order. */
static void make_block(maker *m, verify_step *step) {
    const ir_interp_step *s = &step->interp;
    const verify_steps *all = m->out;
    size_t T = (size_t)all->max_T, S = (size_t)all->max_S, P = (size_t)all->pages;
    size_t G = m->model->artifact->tables.n_kv_groups;
    size_t bytes = sizeof(mcc_step) + (4 * T + 3 * S + G * S * P) * sizeof(int32_t) +
                   T * sizeof(mcc_step_sampling) + 256;
    mcc_step *b = ir_arena_alloc(m->arena, bytes);
    *b = (mcc_step){.magic = MCC_STEP_MAGIC, .version = MCC_STEP_VERSION, .world = 1};
    b->T = s->T, b->S = s->S, b->R = s->R, b->G = (int32_t)G, b->P = all->pages;
    uint32_t at = sizeof *b;
    memcpy(place(b, &at, &b->token_ids, T), s->token_ids, (size_t)s->T * 4);
    memcpy(place(b, &at, &b->positions, T), s->positions, (size_t)s->T * 4);
    int32_t *seqs = place(b, &at, &b->token_seqs, T);
    memcpy(place(b, &at, &b->seq_offsets, S + 1), s->seq_offsets, (size_t)(s->S + 1) * 4);
    int32_t *lens = place(b, &at, &b->context_lens, S);
    memcpy(place(b, &at, &b->output_rows, T), s->output_rows, (size_t)s->R * 4);
    mcc_step_sampling *sampling = (mcc_step_sampling *)(void *)place(
        b, &at, &b->sampling, T * (sizeof(mcc_step_sampling) / sizeof(int32_t)));
    for (int32_t r = 0; r < s->R; r++)
        sampling[r] = (mcc_step_sampling){.temperature = s->sampling[r].temperature,
                                          .top_p = s->sampling[r].top_p,
                                          .min_p = s->sampling[r].min_p,
                                          .top_k = s->sampling[r].top_k,
                                          .seed = s->sampling[r].seed,
                                          .position = s->sampling[r].position,
                                          .sum = s->sampling[r].sum};
    int32_t *tables = place(b, &at, &b->page_tables, G * S * P);
    b->bytes = at;
    for (int32_t q = 0; q < s->S; q++) {
        for (int32_t t = s->seq_offsets[q]; t < s->seq_offsets[q + 1]; t++) {
            seqs[t] = q;
            lens[q] = s->positions[t] + 1;
        }
        for (size_t g = 0; g < G; g++)
            for (int32_t p = 0; p < all->pages; p++)
                tables[(g * (size_t)s->S + (size_t)q) * P + (size_t)p] =
                    (all->pages - 1 - p) * all->slots + s->seq_slots[q];
    }
    step->block = b;
}

static void make_blocks(maker *m) {
    const rt_tables *t = &m->model->artifact->tables;
    for (uint32_t g = 0; g < t->n_kv_groups; g++)
        for (int slot = 0; slot < m->out->slots; slot++) {
            int32_t pages = m->held[slot] / t->kv_groups[g].page_tokens + 1;
            m->out->pages = pages > m->out->pages ? pages : m->out->pages;
        }
    for (int i = 0; i < m->out->n; i++)
        make_block(m, &m->out->steps[i]);
}

static maker begin(verify_steps *steps, const verify_model *model, int32_t slots, uint64_t seed,
                   ir_arena *arena) {
    *steps = (verify_steps){.slots = slots};
    return (maker){.out = steps,
                   .model = model,
                   .arena = arena,
                   .random = seed,
                   .held = ir_arena_array(arena, (size_t)slots, sizeof(int32_t))};
}

void verify_steps_make(verify_steps *steps, const verify_model *model, int64_t tokens,
                       uint64_t seed, ir_arena *arena) {
    maker m = begin(steps, model, VERIFY_SLOTS, seed, arena);
    int32_t n = (int32_t)tokens;
    size_t width = (size_t)model->artifact->tables.rows->width;
    add_step(&m, "prefill", (int32_t[VERIFY_SLOTS]){n}, ROWS_MIXED);
    add_step(&m, "decode", (int32_t[VERIFY_SLOTS]){1}, ROWS_MIXED);
    add_step(&m, "mixed", (int32_t[VERIFY_SLOTS]){1, n / 2 + 1, 2}, ROWS_MIXED);
    add_step(&m, "batch", (int32_t[VERIFY_SLOTS]){1, 1, 1}, ROWS_MIXED);
    for (int i = 0; i < steps->n; i++) {
        verify_step *s = &steps->steps[i];
        s->logits = ir_arena_array(arena, (size_t)s->interp.R * width, sizeof(float));
        s->chained = ir_arena_array(arena, (size_t)s->interp.R * width, sizeof(float));
    }
    make_blocks(&m);
}

void verify_steps_make_one(verify_steps *steps, const verify_model *model, int32_t sequences,
                           int32_t tokens, int32_t held, bool all_rows, ir_arena *arena) {
    maker m = begin(steps, model, sequences, 1, arena);
    int32_t *counts = ir_arena_array(arena, (size_t)sequences, sizeof *counts);
    for (int32_t i = 0; i < sequences; i++) {
        counts[i] = tokens;
        m.held[i] = held;
    }
    add_step(&m, "step", counts, all_rows ? ROWS_ALL : ROWS_LAST);
    make_blocks(&m);
}
