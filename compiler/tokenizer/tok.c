/* Filling in a fe_tok. */
#include <string.h>

#include "compiler/tokenizer/build.h"

void fe_tok_init(fe_tok *tok, ir_arena *arena, ir_diag *diag, const char *where) {
    *tok = (fe_tok){.arena = arena,
                    .diag = diag,
                    .where = where,
                    .errors_before = diag->errors,
                    .id_limit = 1 << 14};
    tok->bos = tok->eos = tok->eot = tok->pad = tok->unk = RT_TOK_NONE;
}

bool fe_tok_good(const fe_tok *tok) {
    return tok->diag->errors == tok->errors_before;
}

fe_bytes fe_tok_bytes(const char *text) {
    return (fe_bytes){(const uint8_t *)text, strlen(text)};
}

bool fe_tok_equal(fe_bytes bytes, const char *text) {
    return bytes.size == strlen(text) && memcmp(bytes.data, text, bytes.size) == 0;
}

static bool same(fe_bytes a, fe_bytes b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* A slot of the index: the upper half of the text's hash, so that most misses need not look at the
 * text, and the id. */
static uint64_t entry_of(uint64_t hash, uint32_t id) {
    return (hash & 0xffffffff00000000u) | id;
}

/* The slot that holds the text, or the empty one where it would go. */
static uint64_t slot_of(const fe_tok *tok, uint64_t hash, const void *text, size_t size) {
    uint64_t slot = rt_tok_slot(hash, tok->index_slots);
    for (;;) {
        uint64_t entry = tok->index[slot];
        uint32_t id = (uint32_t)entry;
        if (id == RT_TOK_NO_VALUE)
            return slot;
        if (entry_of(hash, id) == entry && same(tok->tokens[id].text, (fe_bytes){text, size}))
            return slot;
        slot = slot + 1 < tok->index_slots ? slot + 1 : 0;
    }
}

static void grow_index(fe_tok *tok) {
    uint64_t old_slots = tok->index_slots;
    uint64_t *old = tok->index;
    tok->index_slots = old_slots ? old_slots * 4 : 1 << 10;
    tok->index = ir_arena_array(tok->arena, tok->index_slots, sizeof *tok->index);
    memset(tok->index, 0xff, tok->index_slots * sizeof *tok->index);
    for (uint64_t i = 0; i < old_slots; i++)
        if ((uint32_t)old[i] != RT_TOK_NO_VALUE) {
            fe_bytes text = tok->tokens[(uint32_t)old[i]].text;
            tok->index[slot_of(tok, rt_tok_hash(text.data, text.size), text.data, text.size)] =
                old[i];
        }
}

static void reserve(fe_tok *tok, uint32_t need) {
    if (need <= tok->capacity)
        return;
    uint32_t capacity = need + need / 2 + 256;
    fe_tok_token *tokens = ir_arena_array(tok->arena, capacity, sizeof *tokens);
    if (tok->vocab)
        memcpy(tokens, tok->tokens, tok->vocab * sizeof *tokens);
    tok->tokens = tokens;
    tok->capacity = capacity;
}

void fe_tok_expect(fe_tok *tok, int64_t count) {
    tok->id_limit += 4 * count;
    if (tok->id_limit > RT_TOK_MAX_VOCAB)
        tok->id_limit = RT_TOK_MAX_VOCAB;
}

bool fe_tok_set(fe_tok *tok, int64_t id, fe_bytes text, uint8_t flags) {
    if (id < 0 || id >= tok->id_limit)
        return ir_error(
            tok->diag, tok->where,
            "token \"%s\" has id %lld, expected 0 to %lld for a vocabulary of this size",
            fe_printable(tok->arena, text.data, text.size), (long long)id,
            (long long)tok->id_limit - 1);
    reserve(tok, (uint32_t)id + 1);
    if (id >= tok->vocab)
        tok->vocab = (uint32_t)id + 1;
    fe_tok_token *token = &tok->tokens[id];
    if (token->flags & RT_TOK_PRESENT && !same(token->text, text))
        return ir_error(tok->diag, tok->where, "id %lld is both \"%s\" and \"%s\"", (long long)id,
                        fe_printable(tok->arena, token->text.data, token->text.size),
                        fe_printable(tok->arena, text.data, text.size));
    token->text = text;
    token->flags |= RT_TOK_PRESENT | flags;
    if (2 * (tok->index_used + 1) > tok->index_slots)
        grow_index(tok);
    uint64_t hash = rt_tok_hash(text.data, text.size);
    uint64_t slot = slot_of(tok, hash, text.data, text.size);
    tok->index_used += (uint32_t)tok->index[slot] == RT_TOK_NO_VALUE;
    tok->index[slot] = entry_of(hash, (uint32_t)id);
    return true;
}

int64_t fe_tok_find(const fe_tok *tok, const void *text, size_t size) {
    if (!tok->index_slots)
        return -1;
    uint32_t id = (uint32_t)tok->index[slot_of(tok, rt_tok_hash(text, size), text, size)];
    return id == RT_TOK_NO_VALUE ? -1 : (int64_t)id;
}

int64_t fe_tok_find_text(const fe_tok *tok, const char *text) {
    return fe_tok_find(tok, text, strlen(text));
}

void fe_tok_add_step(fe_tok *tok, fe_tok_step step) {
    if (tok->step_count == RT_TOK_MAX_STEPS) {
        ir_error(tok->diag, tok->where,
                 "the normalizer and the pre-tokenizer have more than %d steps", RT_TOK_MAX_STEPS);
        return;
    }
    tok->steps[tok->step_count++] = step;
}

void fe_tok_add_decode(fe_tok *tok, fe_tok_decode decode) {
    if (tok->decode_count == FE_TOK_MAX_DECODE) {
        ir_error(tok->diag, tok->where, "the decoder has more than %d steps", FE_TOK_MAX_DECODE);
        return;
    }
    tok->decode[tok->decode_count++] = decode;
}

void fe_tok_add_added(fe_tok *tok, fe_tok_added added) {
    if (tok->added_count == tok->added_capacity) {
        uint32_t capacity = tok->added_capacity * 2 + 64;
        fe_tok_added *items = ir_arena_array(tok->arena, capacity, sizeof *items);
        if (tok->added_count)
            memcpy(items, tok->added, tok->added_count * sizeof *items);
        tok->added = items;
        tok->added_capacity = capacity;
    }
    tok->added[tok->added_count++] = added;
}

void fe_tok_add_end(fe_tok *tok, int64_t id) {
    if (id < 0 || id >= tok->vocab || tok->end_count == FE_TOK_MAX_END)
        return;
    uint32_t at = 0; /* ascending */
    while (at < tok->end_count && tok->end[at] < id)
        at++;
    if (at < tok->end_count && tok->end[at] == id)
        return;
    memmove(tok->end + at + 1, tok->end + at, (tok->end_count - at) * sizeof *tok->end);
    tok->end[at] = (int32_t)id;
    tok->end_count++;
}

void fe_tok_known_ends(fe_tok *tok) {
    /* The first that is there is the end of turn. */
    static const char *const turns[] = {
        "<|eot_id|>",      "<|im_end|>", "<|end|>",    "<end_of_turn>", "<turn|>",
        "<|end_of_turn|>", "<|eot|>",    "<EOT>",      "_<EOT>",        "<end_of_utterance>",
        "<|return|>",      "<|call|>",   "<|eom_id|>",
    };
    static const char *const texts[] = {"<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>",
                                        "< EOT >"};
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        int64_t id = fe_tok_find_text(tok, turns[i]);
        if (id >= 0 && tok->eot < 0)
            tok->eot = (int32_t)id;
        fe_tok_add_end(tok, id);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        fe_tok_add_end(tok, fe_tok_find_text(tok, texts[i]));
    fe_tok_add_end(tok, tok->eos);
    fe_tok_add_end(tok, tok->eot);
}

void fe_tok_finish_steps(fe_tok *tok) {
    uint32_t maps = 0;
    for (uint32_t i = 0; i < tok->step_count; i++)
        maps += tok->steps[i].op == RT_TOK_BYTE_MAP;
    if (tok->model != RT_TOK_MODEL_BPE || tok->model_flags & RT_TOK_BYTE_FALLBACK || maps != 1 ||
        tok->step_count == tok->normalizer_steps ||
        tok->steps[tok->step_count - 1].op != RT_TOK_BYTE_MAP)
        return;
    tok->step_count--;
    tok->model_flags |= RT_TOK_BYTE_SYMBOLS;
}
