/* From a fe_tok to a blob. */
#include <stdlib.h>
#include <string.h>

#include "compiler/tokenizer/build.h"
#include "runtime/tokenizer/internal.h"

/* Bytes that grow, in the arena: doubling, so that what is left behind is no more than the result.
 */
typedef struct writer {
    ir_arena *arena;
    uint8_t *data;
    size_t size, capacity;
} writer;

static void put(writer *w, const void *data, size_t size) {
    if (size > w->capacity - w->size) {
        size_t capacity = (w->size + size) * 2 + 4096;
        uint8_t *grown = ir_arena_alloc(w->arena, capacity);
        if (w->size)
            memcpy(grown, w->data, w->size);
        w->data = grown;
        w->capacity = capacity;
    }
    if (size)
        memcpy(w->data + w->size, data, size);
    w->size += size;
}

/* A blob in the making. */
typedef struct build {
    fe_tok *tok;
    rt_tok_header header;
    fe_bytes sections[RT_TOK_SECTIONS];
} build;

static void set_section(build *b, int index, const void *data, size_t size) {
    b->sections[index] = (fe_bytes){data, size};
}

/* -- what tokens decode to ------------------------------------------------------------------- */

static fe_bytes replace_all(ir_arena *arena, fe_bytes text, fe_bytes from, fe_bytes to) {
    const uint8_t *at = text.data, *end = text.data + text.size, *found;
    size_t count = 0;
    if (from.size == 0 || text.size < from.size)
        return text;
    for (; (found = memmem(at, (size_t)(end - at), from.data, from.size)); at = found + from.size)
        count++;
    if (!count)
        return text;
    /* Exactly what it takes: most tokens of a vocabulary come here. */
    size_t size = text.size - count * from.size + count * to.size;
    uint8_t *out = ir_arena_alloc(arena, size + 1), *put_at = out;
    for (at = text.data; count; count--, at = found + from.size) {
        found = memmem(at, (size_t)(end - at), from.data, from.size);
        memcpy(put_at, at, (size_t)(found - at));
        put_at += found - at;
        if (to.size)
            memcpy(put_at, to.data, to.size);
        put_at += to.size;
    }
    memcpy(put_at, at, (size_t)(end - at));
    return (fe_bytes){out, size};
}

static fe_bytes strip(fe_bytes text, const fe_tok_decode *op) {
    for (uint32_t i = 0; i < op->start && text.size >= op->a.size && text.size &&
                         memcmp(text.data, op->a.data, op->a.size) == 0;
         i++) {
        text.data += op->a.size;
        text.size -= op->a.size;
    }
    for (uint32_t i = 0; i < op->stop && text.size >= op->a.size && text.size &&
                         memcmp(text.data + text.size - op->a.size, op->a.data, op->a.size) == 0;
         i++)
        text.size -= op->a.size;
    return text;
}

/* The bytes that a text in GPT-2's alphabet spells, or the text when it has other characters. */
static fe_bytes spell_bytes(ir_arena *arena, fe_bytes text) {
    uint8_t *bytes = ir_arena_alloc(arena, text.size + 1);
    size_t count = 0;
    for (size_t at = 0, step; at < text.size; at += step) {
        uint32_t code;
        if (rt_utf8_next((const char *)text.data + at, text.size - at, &step, &code) !=
            RT_UTF8_VALID)
            return text;
        int byte = rt_char_to_byte(code);
        if (byte < 0)
            return text;
        bytes[count++] = (uint8_t)byte;
    }
    return (fe_bytes){bytes, count};
}

/* The byte of "<0x0A>", or -1. */
static int byte_token(fe_bytes text) {
    if (text.size != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>')
        return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        uint8_t c = text.data[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static fe_bytes decode_token(build *b, fe_tok_token *token) {
    fe_tok *tok = b->tok;
    fe_bytes piece = token->decoded.data ? token->decoded : token->text;
    for (uint32_t i = 0; i < tok->decode_count; i++) {
        const fe_tok_decode *op = &tok->decode[i];
        switch (op->op) {
        case FE_TOK_DECODE_REPLACE:
            piece = replace_all(tok->arena, piece, op->a, op->b);
            break;
        case FE_TOK_DECODE_METASPACE:
            piece = replace_all(tok->arena, piece, op->a, fe_tok_bytes(" "));
            break;
        case FE_TOK_DECODE_STRIP:
            piece = strip(piece, op);
            break;
        case FE_TOK_DECODE_BYTE_LEVEL:
            return spell_bytes(tok->arena, piece);
        case FE_TOK_DECODE_BYTE_FALLBACK: {
            int byte = byte_token(piece);
            if (byte >= 0) {
                uint8_t *one = ir_arena_alloc(tok->arena, 1);
                *one = (uint8_t)byte;
                token->flags |= RT_TOK_BYTE;
                return (fe_bytes){one, 1};
            }
            break;
        }
        case FE_TOK_DECODE_FUSE: /* what follows is for the whole text */
            return piece;
        }
    }
    return piece;
}

/* What the decoder does that cannot be done token by token. */
static void plan_decoder(build *b) {
    fe_tok *tok = b->tok;
    rt_tok_header *h = &b->header;
    h->decoder = tok->has_decoder ? RT_TOK_DECODE_TEXT : RT_TOK_DECODE_SPACED;
    bool whole = false, per_token = false, metaspace = false;
    for (uint32_t i = 0; i < tok->decode_count; i++) {
        const fe_tok_decode *op = &tok->decode[i];
        const char *problem = NULL;
        uint32_t code = 0;
        size_t size = 0;
        bool one_char =
            op->a.size &&
            rt_utf8_next((const char *)op->a.data, op->a.size, &size, &code) == RT_UTF8_VALID &&
            size == op->a.size;
        if (op->op == FE_TOK_DECODE_BYTE_LEVEL) {
            h->decoder = RT_TOK_DECODE_BYTES;
            problem = whole ? "ByteLevel after Fuse" : NULL;
            whole = true;
        } else if (op->op == FE_TOK_DECODE_FUSE) {
            whole = true;
        } else if (op->op == FE_TOK_DECODE_STRIP && whole) {
            if (op->stop || !one_char || h->strip_count)
                problem = "Strip at the end of the text, or twice";
            h->strip_count = op->start;
            h->decoder_char = code;
        } else if (whole) {
            problem = "a step after Fuse or ByteLevel that is not Strip";
        } else if (op->op == FE_TOK_DECODE_METASPACE) {
            metaspace = true;
            if (op->first) {
                h->decoder_flags |= RT_TOK_DECODE_FIRST;
                h->decoder_char = code;
            }
            problem = one_char ? NULL : "Metaspace with a replacement that is not one character";
        } else if (op->op != FE_TOK_DECODE_BYTE_FALLBACK) {
            per_token = true;
        }
        if (problem)
            ir_error(tok->diag, tok->where, "the decoder has %s, which is not supported", problem);
    }
    if (metaspace && (per_token || h->strip_count || h->decoder == RT_TOK_DECODE_BYTES))
        ir_error(tok->diag, tok->where,
                 "the decoder has Metaspace together with Replace, Strip or ByteLevel, which is "
                 "not supported");
}

/* -- sections -------------------------------------------------------------------------------- */

/* Strings: tokens first, so that one array of offsets suffices; the steps' behind them. */
static void write_texts(build *b) {
    fe_tok *tok = b->tok;
    size_t entries = (size_t)tok->vocab + 1;
    uint32_t *text_offsets = ir_arena_array(tok->arena, entries, 4);
    uint32_t *piece_offsets = ir_arena_array(tok->arena, entries, 4);
    uint8_t *flags = ir_arena_alloc(tok->arena, (size_t)tok->vocab + 1);
    writer strings = {.arena = tok->arena}, pieces = {.arena = tok->arena};
    for (uint32_t i = 0; i < tok->vocab; i++) {
        fe_tok_token *token = &tok->tokens[i];
        text_offsets[i] = (uint32_t)strings.size;
        piece_offsets[i] = (uint32_t)pieces.size;
        if (!(token->flags & RT_TOK_PRESENT))
            continue;
        token->flags &= (uint8_t)~RT_TOK_BYTE;
        fe_bytes piece = decode_token(b, token);
        flags[i] = token->flags;
        put(&strings, token->text.data, token->text.size);
        put(&pieces, piece.data, piece.size);
        if (token->text.size > b->header.max_text)
            b->header.max_text = (uint32_t)token->text.size;
        if (piece.size > b->header.max_piece)
            b->header.max_piece = (uint32_t)piece.size;
    }
    text_offsets[tok->vocab] = (uint32_t)strings.size;
    piece_offsets[tok->vocab] = (uint32_t)pieces.size;

    rt_tok_step *steps = ir_arena_array(tok->arena, tok->step_count + 1, sizeof *steps);
    for (uint32_t i = 0; i < tok->step_count; i++) {
        const fe_tok_step *from = &tok->steps[i];
        steps[i] = (rt_tok_step){.op = from->op, .flags = from->flags};
        steps[i].a_offset = (uint32_t)strings.size;
        steps[i].a_size = (uint32_t)from->a.size;
        put(&strings, from->a.data, from->a.size);
        steps[i].b_offset = (uint32_t)strings.size;
        steps[i].b_size = (uint32_t)from->b.size;
        put(&strings, from->b.data, from->b.size);
        if (from->op == RT_TOK_SPLIT_CLASS)
            steps[i].b_offset = from->class;
    }
    if (strings.size > UINT32_MAX || pieces.size > UINT32_MAX)
        ir_error(tok->diag, tok->where, "the vocabulary's texts have more than 4 GiB");
    set_section(b, RT_TOK_STRINGS, strings.data, strings.size);
    set_section(b, RT_TOK_TEXT_OFFSETS, text_offsets, entries * 4);
    set_section(b, RT_TOK_PIECE_OFFSETS, piece_offsets, entries * 4);
    set_section(b, RT_TOK_PIECES, pieces.data, pieces.size);
    set_section(b, RT_TOK_TOKEN_FLAGS, flags, tok->vocab);
    set_section(b, RT_TOK_STEPS, steps, tok->step_count * sizeof *steps);
}

static void note_probe(build *b, uint64_t probes) {
    if (probes > b->header.max_probe)
        b->header.max_probe = (uint32_t)probes;
}

static void write_vocab_hash(build *b) {
    fe_tok *tok = b->tok;
    uint64_t slots = 2 * tok->index_used + 1;
    uint32_t *table = ir_arena_array(tok->arena, slots, sizeof *table);
    memset(table, 0xff, slots * sizeof *table);
    for (uint32_t id = 0; id < tok->vocab; id++) {
        fe_bytes text = tok->tokens[id].text;
        /* Of tokens with the same text only the one that is found by it. */
        if (!(tok->tokens[id].flags & RT_TOK_PRESENT) ||
            fe_tok_find(tok, text.data, text.size) != (int64_t)id)
            continue;
        uint64_t slot = rt_tok_slot(rt_tok_hash(text.data, text.size), slots), probes = 0;
        while (table[slot] != RT_TOK_NO_VALUE) {
            slot = slot + 1 < slots ? slot + 1 : 0;
            probes++;
        }
        table[slot] = id;
        note_probe(b, probes);
    }
    set_section(b, RT_TOK_VOCAB_HASH, table, slots * sizeof *table);
}

static void write_merges(build *b) {
    fe_tok *tok = b->tok;
    uint64_t slots = tok->merge_count ? 2 * (uint64_t)tok->merge_count + 1 : 0;
    rt_tok_merge *table = ir_arena_array(tok->arena, slots + 1, sizeof *table);
    memset(table, 0xff, slots * sizeof *table);
    for (uint32_t i = 0; i < tok->merge_count; i++) {
        rt_tok_merge merge = tok->merges[i];
        uint64_t slot = rt_tok_slot(rt_tok_pair_hash(merge.left, merge.right), slots), probes = 0;
        /* Of two merges of one pair the later counts. */
        while (table[slot].left != RT_TOK_NO_VALUE &&
               (table[slot].left != merge.left || table[slot].right != merge.right)) {
            slot = slot + 1 < slots ? slot + 1 : 0;
            probes++;
        }
        table[slot] = merge;
        note_probe(b, probes);
    }
    set_section(b, RT_TOK_MERGES, table, slots * sizeof *table);
}

static int64_t find_in_model(const fe_tok *tok, const char *text, size_t size) {
    int64_t id = fe_tok_find(tok, text, size);
    return id >= 0 && tok->tokens[id].flags & RT_TOK_IN_MODEL ? id : -1;
}

static void write_byte_ids(build *b) {
    static const char digits[] = "0123456789ABCDEF";
    int32_t *ids = ir_arena_array(b->tok->arena, 256, sizeof *ids);
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        size_t size;
        if (b->tok->model_flags & RT_TOK_BYTE_SYMBOLS) {
            size = rt_utf8_encode(rt_byte_to_char((unsigned char)byte), text);
        } else {
            memcpy(text, "<0x..>", 6);
            text[3] = digits[byte >> 4];
            text[4] = digits[byte & 15];
            size = 6;
        }
        ids[byte] = (int32_t)find_in_model(b->tok, text, size);
    }
    set_section(b, RT_TOK_BYTE_IDS, ids, 256 * sizeof *ids);
}

static void write_unigram(build *b) {
    fe_tok *tok = b->tok;
    if (tok->model != RT_TOK_MODEL_UNIGRAM)
        return;
    double *scores = ir_arena_array(tok->arena, (size_t)tok->vocab + 1, sizeof *scores);
    fe_tok_string *strings = ir_arena_array(tok->arena, (size_t)tok->vocab + 1, sizeof *strings);
    uint32_t count = 0;
    for (uint32_t id = 0; id < tok->vocab; id++) {
        scores[id] = tok->tokens[id].score;
        if (tok->tokens[id].flags & RT_TOK_IN_MODEL && tok->tokens[id].text.size)
            strings[count++] = (fe_tok_string){tok->tokens[id].text, id};
    }
    set_section(b, RT_TOK_SCORES, scores, tok->vocab * sizeof *scores);
    b->sections[RT_TOK_VOCAB_TRIE] = fe_tok_trie(tok->arena, strings, count);
}

static void write_added(build *b) {
    fe_tok *tok = b->tok;
    rt_tok_added *added = ir_arena_array(tok->arena, tok->added_count + 1, sizeof *added);
    fe_tok_string *raw = ir_arena_array(tok->arena, tok->added_count + 1, sizeof *raw);
    fe_tok_string *normal = ir_arena_array(tok->arena, tok->added_count + 1, sizeof *normal);
    uint32_t raw_count = 0, normal_count = 0;
    for (uint32_t i = 0; i < tok->added_count; i++) {
        const fe_tok_added *from = &tok->added[i];
        added[i] = (rt_tok_added){from->id, from->flags};
        fe_bytes text = from->content;
        if (from->normalized && tok->tokens[from->id].decoded.data)
            text = tok->tokens[from->id].decoded;
        if (text.size == 0)
            continue;
        if (from->normalized)
            normal[normal_count++] = (fe_tok_string){text, i};
        else
            raw[raw_count++] = (fe_tok_string){text, i};
    }
    set_section(b, RT_TOK_ADDED, added, tok->added_count * sizeof *added);
    b->sections[RT_TOK_RAW_TRIE] = fe_tok_trie(tok->arena, raw, raw_count);
    b->sections[RT_TOK_NORMAL_TRIE] = fe_tok_trie(tok->arena, normal, normal_count);
}

static void write_ids(build *b) {
    fe_tok *tok = b->tok;
    uint32_t count = tok->prefix_count + tok->suffix_count + tok->end_count;
    int32_t *ids = ir_arena_array(tok->arena, count + 1, sizeof *ids);
    memcpy(ids, tok->prefix, tok->prefix_count * sizeof *ids);
    memcpy(ids + tok->prefix_count, tok->suffix, tok->suffix_count * sizeof *ids);
    memcpy(ids + tok->prefix_count + tok->suffix_count, tok->end, tok->end_count * sizeof *ids);
    set_section(b, RT_TOK_IDS, ids, count * sizeof *ids);
}

static void layout(build *b, fe_blob *out) {
    rt_tok_header *h = &b->header;
    size_t size = sizeof *h;
    for (int i = 0; i < RT_TOK_SECTIONS; i++) {
        h->sections[i] = (rt_tok_section){size, b->sections[i].size};
        size = (size + b->sections[i].size + 7) & ~(size_t)7;
    }
    h->size = size;
    uint8_t *data = ir_arena_alloc(b->tok->arena, size);
    memcpy(data, h, sizeof *h);
    for (int i = 0; i < RT_TOK_SECTIONS; i++)
        if (b->sections[i].size)
            memcpy(data + h->sections[i].offset, b->sections[i].data, b->sections[i].size);
    *out = (fe_blob){data, size};
}

static void write_all(fe_tok *tok, fe_blob *out) {
    build b = {.tok = tok};
    rt_tok_header *h = &b.header;
    memcpy(h->magic, RT_TOK_MAGIC, sizeof h->magic);
    h->version = RT_TOK_VERSION;
    h->header_size = sizeof *h;
    h->model = tok->model;
    h->model_flags = tok->model_flags;
    h->vocab_size = (int32_t)tok->vocab;
    h->bos = tok->bos;
    h->eos = tok->eos;
    h->eot = tok->eot;
    h->pad = tok->pad;
    h->unk = tok->unk;
    h->unk_score = tok->unk_score;
    h->normalizer_steps = tok->normalizer_steps;
    h->prefix_count = tok->prefix_count;
    h->suffix_count = tok->suffix_count;
    h->end_count = tok->end_count;
    plan_decoder(&b);
    write_texts(&b);
    write_vocab_hash(&b);
    write_merges(&b);
    write_byte_ids(&b);
    write_unigram(&b);
    write_added(&b);
    write_ids(&b);
    b.sections[RT_TOK_CHARSMAP_DATA] = tok->charsmap;
    layout(&b, out);
}

static rt_tokenizer *open_built(fe_tok *tok, const fe_blob *blob) {
    rt_error error = {0};
    rt_tokenizer *opened = rt_tokenizer_open(blob->data, blob->size, &error);
    if (!opened)
        ir_error(tok->diag, tok->where, "%s", error.text);
    return opened;
}

/* Normalized forms of the added tokens that are sought in normalized text. Made by the runtime's
 * own normalizer, from a blob that has everything but them. Returns whether any differs. */
static bool normalize_added(fe_tok *tok, const rt_tokenizer *opened) {
    bool any = false;
    for (uint32_t i = 0; i < tok->added_count; i++) {
        fe_tok_added *added = &tok->added[i];
        if (!added->normalized)
            continue;
        rt_error error = {0};
        rt_tok_job job;
        rt_tok_job_init(&job, opened, added->content.size, &error);
        const char *text;
        size_t size;
        bool stripped;
        if (!rt_utf8_valid((const char *)added->content.data, added->content.size)) {
            ir_error(tok->diag, tok->where, "added token %u is not valid UTF-8", added->id);
        } else if (!rt_tok_normalize(&job, (const char *)added->content.data, added->content.size,
                                     &text, &size, &stripped)) {
            ir_error(tok->diag, tok->where, "added token %u: %s", added->id, error.text);
        } else if (size != added->content.size || memcmp(text, added->content.data, size) != 0) {
            char *copy = ir_arena_alloc(tok->arena, size + 1);
            if (size)
                memcpy(copy, text, size);
            tok->tokens[added->id].decoded = (fe_bytes){(const uint8_t *)copy, size};
            any = true;
        }
        rt_tok_job_free(&job);
    }
    return any;
}

bool fe_tok_build(fe_tok *tok, fe_blob *out) {
    *out = (fe_blob){0};
    if (!fe_tok_good(tok))
        return false;
    write_all(tok, out);
    rt_tokenizer *opened = fe_tok_good(tok) ? open_built(tok, out) : NULL;
    bool again = opened && tok->normalizer_steps && normalize_added(tok, opened);
    rt_tokenizer_close(opened);
    if (again && fe_tok_good(tok)) {
        write_all(tok, out);
        rt_tokenizer_close(open_built(tok, out));
    }
    if (!fe_tok_good(tok))
        *out = (fe_blob){0};
    return fe_tok_good(tok);
}
