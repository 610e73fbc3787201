/* Opening a blob: its header and the bounds of its sections are checked here, once; what the
 * sections hold is checked where it is used. */
#include <stdlib.h>
#include <string.h>

#include "runtime/tokenizer/internal.h"

/* Limits on the work that a blob nobody vouches for can ask for. */
enum { MAX_PATTERN = 1 << 16, MAX_PROBE = 1 << 12 };

static bool damaged(rt_error *error, const char *what) {
    return rt_fail(error, RT_TOKENIZER_DAMAGED,
                   "tokenizer: %s: the tables are damaged; compile the model again", what);
}

static const void *section(const rt_tok_header *header, int index) {
    return (const char *)header + header->sections[index].offset;
}

/* True when the section holds exactly `count` items of `size` bytes. */
static bool holds(const rt_tok_header *header, int index, uint64_t count, uint64_t size) {
    return header->sections[index].size / size == count && header->sections[index].size % size == 0;
}

static bool check_header(const rt_tok_header *header, size_t size, rt_error *error) {
    if (size < sizeof *header)
        return rt_fail(error, RT_TOKENIZER_DAMAGED,
                       "tokenizer: found %zu bytes, expected at least %zu", size, sizeof *header);
    if (memcmp(header->magic, RT_TOK_MAGIC, sizeof header->magic) != 0)
        return rt_fail(error, RT_TOKENIZER_DAMAGED,
                       "tokenizer: these are not a compiled tokenizer's tables");
    if (header->version != RT_TOK_VERSION || header->header_size != sizeof *header)
        return rt_fail(error, RT_TOKENIZER_OTHER_VERSION,
                       "tokenizer: tables of version %u, this runtime reads version %u; compile "
                       "the model again",
                       header->version, (unsigned)RT_TOK_VERSION);
    if (header->size > size)
        return rt_fail(error, RT_TOKENIZER_DAMAGED,
                       "tokenizer: tables of %llu bytes, only %zu are there",
                       (unsigned long long)header->size, size);
    for (int i = 0; i < RT_TOK_SECTIONS; i++) {
        rt_tok_section s = header->sections[i];
        if (s.offset % 8 != 0 || s.offset > header->size || s.size > header->size - s.offset)
            return damaged(error, "a section lies outside of the file");
    }
    if (header->vocab_size < 0 || header->vocab_size > RT_TOK_MAX_VOCAB)
        return damaged(error, "the vocabulary's size is out of range");
    if (header->model >= RT_TOK_MODELS || header->decoder >= RT_TOK_DECODERS)
        return damaged(error, "an unknown model or decoder");
    if (header->max_probe > MAX_PROBE)
        return damaged(error, "a hash table is too crowded");
    if (header->max_piece > (1u << 28) || header->max_text > (1u << 28))
        return damaged(error, "a token's size is out of range");
    return true;
}

static bool open_trie(const rt_tok_header *header, int index, rt_tok_trie *trie, rt_error *error) {
    uint64_t size = header->sections[index].size;
    const char *data = section(header, index);
    if (size == 0)
        return true;
    uint32_t count;
    if (size < 8)
        return damaged(error, "a trie is too short");
    memcpy(&count, data, 4);
    if (count == 0 || size != 4 + 4 * ((uint64_t)count + 1) + 5 * (uint64_t)count)
        return damaged(error, "a trie's size is wrong");
    trie->count = count;
    trie->first_child = (const uint32_t *)(data + 4);
    trie->value = trie->first_child + count + 1;
    trie->label = (const uint8_t *)(trie->value + count);
    for (int byte = 0; byte < 256; byte++)
        if (rt_tok_trie_child(trie, 0, (uint8_t)byte))
            trie->first_bytes[byte / 64] |= (uint64_t)1 << byte % 64;
    return true;
}

static bool open_sections(rt_tokenizer *t, rt_error *error) {
    const rt_tok_header *header = t->header;
    uint64_t vocab = (uint64_t)header->vocab_size;
    if (!holds(header, RT_TOK_TEXT_OFFSETS, vocab + 1, 4) ||
        !holds(header, RT_TOK_PIECE_OFFSETS, vocab + 1, 4) ||
        !holds(header, RT_TOK_TOKEN_FLAGS, vocab, 1))
        return damaged(error, "the vocabulary's tables have the wrong size");
    t->strings = section(header, RT_TOK_STRINGS);
    t->strings_size = header->sections[RT_TOK_STRINGS].size;
    t->text_offsets = section(header, RT_TOK_TEXT_OFFSETS);
    t->piece_offsets = section(header, RT_TOK_PIECE_OFFSETS);
    t->pieces = section(header, RT_TOK_PIECES);
    t->pieces_size = header->sections[RT_TOK_PIECES].size;
    t->token_flags = section(header, RT_TOK_TOKEN_FLAGS);

    t->vocab_hash = section(header, RT_TOK_VOCAB_HASH);
    t->vocab_slots = header->sections[RT_TOK_VOCAB_HASH].size / 4;
    t->merges = section(header, RT_TOK_MERGES);
    t->merge_slots = header->sections[RT_TOK_MERGES].size / sizeof(rt_tok_merge);
    if (t->vocab_slots > UINT32_MAX || t->merge_slots > UINT32_MAX)
        return damaged(error, "a hash table is too large");
    if (!holds(header, RT_TOK_BYTE_IDS, 256, 4))
        return damaged(error, "the table of bytes has the wrong size");
    t->byte_ids = section(header, RT_TOK_BYTE_IDS);
    if (header->model == RT_TOK_MODEL_UNIGRAM) {
        if (!holds(header, RT_TOK_SCORES, vocab, 8))
            return damaged(error, "the scores have the wrong size");
        t->scores = section(header, RT_TOK_SCORES);
    }
    t->added = section(header, RT_TOK_ADDED);
    uint64_t added = header->sections[RT_TOK_ADDED].size / sizeof(rt_tok_added);
    t->added_count = added > UINT32_MAX ? 0 : (uint32_t)added;
    if (!open_trie(header, RT_TOK_VOCAB_TRIE, &t->vocab_trie, error) ||
        !open_trie(header, RT_TOK_RAW_TRIE, &t->raw_trie, error) ||
        !open_trie(header, RT_TOK_NORMAL_TRIE, &t->normal_trie, error))
        return false;

    uint64_t ids = header->sections[RT_TOK_IDS].size / 4;
    if ((uint64_t)header->prefix_count + header->suffix_count + header->end_count != ids)
        return damaged(error, "the list of ids has the wrong size");
    t->ids = section(header, RT_TOK_IDS);

    uint64_t map = header->sections[RT_TOK_CHARSMAP_DATA].size;
    if (map >= 4) {
        const char *data = section(header, RT_TOK_CHARSMAP_DATA);
        uint32_t bytes;
        memcpy(&bytes, data, 4);
        if (bytes % 4 != 0 || bytes > map - 4)
            return damaged(error, "the character map's size is wrong");
        t->charsmap = (const uint32_t *)(data + 4);
        t->charsmap_units = bytes / 4;
        t->charsmap_strings = data + 4 + bytes;
        t->charsmap_strings_size = map - 4 - bytes;
    }
    return true;
}

static bool compile(rt_tokenizer *t, uint32_t index, pcre2_compile_context *context,
                    rt_error *error) {
    const rt_tok_step *step = &t->steps[index];
    int code;
    PCRE2_SIZE offset;
    pcre2_code *regex = pcre2_compile(
        (PCRE2_SPTR)t->strings + step->a_offset, step->a_size,
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, context);
    if (!regex) {
        PCRE2_UCHAR text[200];
        if (pcre2_get_error_message(code, text, sizeof text) < 0)
            text[0] = 0;
        return rt_fail(error, RT_TOKENIZER_DAMAGED,
                       "tokenizer: regular expression %u: %s, at byte %zu of \"%.*s\"", index,
                       (const char *)text, (size_t)offset, (int)step->a_size,
                       t->strings + step->a_offset);
    }
    t->regex[index] = regex;
    /* Without a JIT, or where it refuses, the interpreter matches the same. */
    pcre2_jit_compile(regex, PCRE2_JIT_COMPLETE);
    return true;
}

static bool open_steps(rt_tokenizer *t, rt_error *error) {
    const rt_tok_header *header = t->header;
    uint64_t count = header->sections[RT_TOK_STEPS].size / sizeof(rt_tok_step);
    if (count > RT_TOK_MAX_STEPS || header->normalizer_steps > count)
        return damaged(error, "too many steps");
    t->steps = section(header, RT_TOK_STEPS);
    t->step_count = (uint32_t)count;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return rt_fail(error, RT_TOKENIZER_OUT_OF_MEMORY, "tokenizer: out of memory");
    pcre2_set_max_pattern_length(context, MAX_PATTERN);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    bool good = true;
    for (uint32_t i = 0; good && i < count; i++) {
        const rt_tok_step *s = &t->steps[i];
        bool anywhere = s->op == RT_TOK_BYTE_MAP || s->op == RT_TOK_REPLACE;
        bool normalizes = s->op < RT_TOK_SPLIT_STRING;
        if (s->op >= RT_TOK_OPS || (!anywhere && normalizes != (i < header->normalizer_steps)))
            good = damaged(error, "an unknown step");
        else if (s->a_offset > t->strings_size || s->a_size > t->strings_size - s->a_offset)
            good = damaged(error, "a step's text lies outside of the file");
        else if (s->op != RT_TOK_SPLIT_CLASS &&
                 (s->b_offset > t->strings_size || s->b_size > t->strings_size - s->b_offset))
            good = damaged(error, "a step's text lies outside of the file");
        else if (s->op == RT_TOK_SPLIT_REGEX || s->op == RT_TOK_REPLACE_REGEX)
            good = compile(t, i, context, error);
    }
    pcre2_compile_context_free(context);
    return good;
}

rt_tokenizer *rt_tokenizer_open(const void *blob, size_t size, rt_error *error) {
    const rt_tok_header *header = blob;
    if (!blob || (uintptr_t)blob % 8 != 0) {
        rt_fail(error, RT_TOKENIZER_BAD_ARGUMENT, "tokenizer: the tables must be aligned to 8");
        return NULL;
    }
    if (!check_header(header, size, error))
        return NULL;
    rt_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) {
        rt_fail(error, RT_TOKENIZER_OUT_OF_MEMORY, "tokenizer: out of memory");
        return NULL;
    }
    tokenizer->header = header;
    if (!open_sections(tokenizer, error) || !open_steps(tokenizer, error)) {
        rt_tokenizer_close(tokenizer);
        return NULL;
    }
    return tokenizer;
}

void rt_tokenizer_close(rt_tokenizer *tokenizer) {
    if (!tokenizer)
        return;
    for (int i = 0; i < RT_TOK_MAX_STEPS; i++)
        pcre2_code_free(tokenizer->regex[i]);
    free(tokenizer);
}

int32_t rt_tokenizer_vocab_size(const rt_tokenizer *tokenizer) {
    return tokenizer->header->vocab_size;
}

static const char *slice(const rt_tokenizer *t, int32_t id, const uint32_t *offsets,
                         const char *base, uint64_t base_size, size_t *size) {
    *size = 0;
    if (id < 0 || id >= t->header->vocab_size || !(t->token_flags[id] & RT_TOK_PRESENT))
        return NULL;
    uint32_t begin = offsets[id], end = offsets[id + 1];
    if (begin > end || end > base_size)
        return NULL;
    *size = end - begin;
    return base + begin;
}

const char *rt_tokenizer_text(const rt_tokenizer *t, int32_t id, size_t *size) {
    return slice(t, id, t->text_offsets, t->strings, t->strings_size, size);
}

const char *rt_tokenizer_piece(const rt_tokenizer *t, int32_t id, size_t *size) {
    const char *piece = slice(t, id, t->piece_offsets, t->pieces, t->pieces_size, size);
    if (piece && *size > t->header->max_piece) {
        *size = 0;
        return NULL;
    }
    return piece;
}

bool rt_tokenizer_joins_by_spaces(const rt_tokenizer *t) {
    return t->header->decoder == RT_TOK_DECODE_SPACED;
}

int32_t rt_tokenizer_find(const rt_tokenizer *t, const char *text, size_t size) {
    uint64_t slots = t->vocab_slots;
    if (slots == 0 || size > t->header->max_text)
        return -1;
    uint64_t slot = rt_tok_slot(rt_tok_hash(text, size), slots);
    for (uint32_t probe = 0; probe <= t->header->max_probe && probe < slots; probe++) {
        uint32_t id = t->vocab_hash[slot];
        size_t length;
        if (id == RT_TOK_NO_VALUE)
            return -1;
        const char *found = id < RT_TOK_MAX_VOCAB ? rt_tokenizer_text(t, (int32_t)id, &length) : 0;
        if (found && length == size && memcmp(found, text, size) == 0)
            return (int32_t)id;
        slot = slot + 1 < slots ? slot + 1 : 0;
    }
    return -1;
}

int32_t rt_tok_find(const rt_tokenizer *t, const char *text, size_t size) {
    int32_t id = rt_tokenizer_find(t, text, size);
    return id >= 0 && t->token_flags[id] & RT_TOK_IN_MODEL ? id : -1;
}

bool rt_tokenizer_is_special(const rt_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->header->vocab_size &&
           (tokenizer->token_flags[id] & RT_TOK_SPECIAL);
}

/* A role's id, or -1 where the header names none or one out of range. */
static int32_t role(const rt_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->header->vocab_size ? id : -1;
}

int32_t rt_tokenizer_bos(const rt_tokenizer *tokenizer) {
    return role(tokenizer, tokenizer->header->bos);
}

int32_t rt_tokenizer_eos(const rt_tokenizer *tokenizer) {
    return role(tokenizer, tokenizer->header->eos);
}

int32_t rt_tokenizer_eot(const rt_tokenizer *tokenizer) {
    return role(tokenizer, tokenizer->header->eot);
}

int32_t rt_tokenizer_pad(const rt_tokenizer *tokenizer) {
    return role(tokenizer, tokenizer->header->pad);
}

int32_t rt_tokenizer_unk(const rt_tokenizer *tokenizer) {
    return role(tokenizer, tokenizer->header->unk);
}

const int32_t *rt_tokenizer_end_ids(const rt_tokenizer *tokenizer, int64_t *count) {
    const rt_tok_header *header = tokenizer->header;
    *count = header->end_count;
    return tokenizer->ids + header->prefix_count + header->suffix_count;
}
