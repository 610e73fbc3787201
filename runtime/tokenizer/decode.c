/* Decoding: what each token stands for was worked out at build time (its piece), so that what is
 * left here is joining pieces and making sure that the result is UTF-8. */
#include <string.h>

#include "runtime/tokenizer/internal.h"

#define REPLACEMENT "\xef\xbf\xbd"

/* Where text goes: all of it is counted, the first `capacity` bytes are stored. */
typedef struct sink {
    char *out;
    int64_t capacity, size;
    uint32_t strip_char, to_strip; /* leading characters still to be dropped */
} sink;

static void put(sink *s, const char *bytes, size_t size) {
    if (s->size < s->capacity) {
        int64_t room = s->capacity - s->size;
        memcpy(s->out + s->size, bytes, (int64_t)size < room ? size : (size_t)room);
    }
    s->size += (int64_t)size;
}

/* Puts whole characters, dropping those that the decoder strips from the beginning. */
static void put_text(sink *s, const char *text, size_t size) {
    while (s->to_strip && size) {
        size_t step;
        if (rt_utf8_decode(text, &step) != s->strip_char) {
            s->to_strip = 0;
            break;
        }
        s->to_strip--;
        text += step;
        size -= step;
    }
    put(s, text, size);
}

/* Bytes that may be anything: valid characters pass, each maximal invalid sequence becomes U+FFFD.
 * Stops at an incomplete end, and returns how many bytes that has. */
static size_t put_bytes(sink *s, const char *bytes, size_t size) {
    size_t at = 0, begin = 0, step;
    uint32_t code;
    while (at < size) {
        rt_utf8_kind kind = rt_utf8_next(bytes + at, size - at, &step, &code);
        if (kind == RT_UTF8_INCOMPLETE)
            break;
        if (kind != RT_UTF8_VALID) {
            put_text(s, bytes + begin, at - begin);
            put_text(s, REPLACEMENT, 3);
            begin = at + step;
        }
        at += step;
    }
    put_text(s, bytes + begin, at - begin);
    return size - at;
}

/* How one token's bytes are put: through put_bytes, with what was left pending in front. */
static void feed(sink *s, rt_detok *d, const char *bytes, size_t size) {
    while (d->pending_size && size) {
        /* Complete the pending character byte by byte: it needs at most three more. */
        d->pending[d->pending_size++] = (uint8_t)*bytes++;
        size--;
        size_t rest = put_bytes(s, (const char *)d->pending, d->pending_size);
        memmove(d->pending, d->pending + d->pending_size - rest, rest);
        d->pending_size = (uint8_t)rest;
    }
    if (size) {
        size_t rest = put_bytes(s, bytes, size);
        memcpy(d->pending, bytes + size - rest, rest);
        d->pending_size = (uint8_t)rest;
    }
}

/* Ends what is pending. Of byte tokens each byte counts as one invalid sequence, as in the
 * `tokenizers` library's ByteFallback; elsewhere all of it is one. */
static void end_pending(sink *s, rt_detok *d) {
    size_t times = d->pending_bytes ? d->pending_size : d->pending_size > 0;
    while (times--)
        put_text(s, REPLACEMENT, 3);
    d->pending_size = 0;
    d->pending_bytes = false;
}

/* The text of the first token under Metaspace: all of its replacement characters are dropped. */
static void put_first(sink *s, rt_detok *d, const char *text, size_t size, uint32_t dropped) {
    char spelled[4];
    size_t length = rt_utf8_encode(dropped, spelled);
    while (size) {
        const char *found = memmem(text, size, spelled, length);
        size_t before = found ? (size_t)(found - text) : size;
        feed(s, d, text, before);
        size_t taken = found ? before + length : before;
        text += taken;
        size -= taken;
    }
}

/* False for ids that give no text whatever stands around them. */
static bool gives_text(const rt_detok *d, int32_t id) {
    uint8_t flags = d->tokenizer->token_flags[id];
    return flags & RT_TOK_PRESENT &&
           !(flags & RT_TOK_SPECIAL && d->flags & RT_TOKENIZER_SKIP_SPECIAL);
}

/* Puts the text that one more id completes. */
static bool step(sink *s, rt_detok *d, int32_t id) {
    const rt_tokenizer *t = d->tokenizer;
    const rt_tok_header *header = t->header;
    if (id < 0 || id >= header->vocab_size)
        return false;
    if (!gives_text(d, id))
        return true;
    size_t size;
    const char *piece = rt_tokenizer_piece(t, id, &size);
    if (!piece)
        return false;
    bool first = d->pushed++ == 0 && !(d->flags & RT_TOKENIZER_CONTINUE);
    if (header->decoder == RT_TOK_DECODE_BYTES) {
        feed(s, d, piece, size);
        return true;
    }
    bool is_byte = t->token_flags[id] & RT_TOK_BYTE;
    if (!is_byte || !d->pending_bytes)
        end_pending(s, d);
    d->pending_bytes = is_byte;
    if (header->decoder == RT_TOK_DECODE_SPACED && d->pushed > 1)
        put_text(s, " ", 1);
    if (first && header->decoder_flags & RT_TOK_DECODE_FIRST && !is_byte) {
        piece = rt_tokenizer_text(t, id, &size);
        if (!piece || size > header->max_text)
            return false;
        put_first(s, d, piece, size, header->decoder_char);
    } else {
        feed(s, d, piece, size);
    }
    if (!is_byte) /* a character does not continue beyond a token of text */
        end_pending(s, d);
    return true;
}

void rt_detok_init(rt_detok *detok, const rt_tokenizer *tokenizer, unsigned flags) {
    *detok = (rt_detok){.tokenizer = tokenizer, .flags = flags};
    if (!(flags & RT_TOKENIZER_CONTINUE))
        detok->to_strip = tokenizer->header->strip_count;
}

static sink sink_for(const rt_detok *d, char *out, int64_t capacity) {
    return (sink){.out = out,
                  .capacity = capacity,
                  .strip_char = d->tokenizer->header->decoder_char,
                  .to_strip = d->to_strip};
}

/* Keeps the state before when the text did not fit. */
static int64_t finish(rt_detok *detok, const rt_detok *before, const sink *s) {
    if (s->size > s->capacity)
        *detok = *before;
    else
        detok->to_strip = s->to_strip;
    return s->size;
}

int64_t rt_detok_push(rt_detok *detok, int32_t id, char *out, int64_t capacity) {
    rt_detok before = *detok;
    sink s = sink_for(detok, out, capacity);
    if (!step(&s, detok, id)) {
        *detok = before;
        return -1;
    }
    return finish(detok, &before, &s);
}

int64_t rt_detok_flush(rt_detok *detok, char *out, int64_t capacity) {
    rt_detok before = *detok;
    sink s = sink_for(detok, out, capacity);
    end_pending(&s, detok);
    return finish(detok, &before, &s);
}

int64_t rt_detok_max(const rt_tokenizer *tokenizer) {
    /* Every byte may become a U+FFFD, of the piece and of what was pending; and one space. */
    const rt_tok_header *header = tokenizer->header;
    int64_t longest = header->max_piece > header->max_text ? header->max_piece : header->max_text;
    return 3 * (longest + 4) + 1;
}

/* True when the ids from `from` on that are byte tokens form valid UTF-8 together; `end` receives
 * where they end. Ids that give no text do not interrupt them. */
static bool byte_run(const rt_detok *d, const int32_t *ids, int64_t count, int64_t from,
                     int64_t *end) {
    const rt_tokenizer *t = d->tokenizer;
    char character[4];
    size_t have = 0;
    bool valid = true;
    int64_t i = from;
    for (; i < count; i++) {
        int32_t id = ids[i];
        if (id < 0 || id >= t->header->vocab_size)
            break;
        if (!gives_text(d, id))
            continue;
        size_t size, used;
        uint32_t code;
        const char *piece = rt_tokenizer_piece(t, id, &size);
        if (!(t->token_flags[id] & RT_TOK_BYTE) || !piece || size != 1)
            break;
        character[have++] = *piece;
        rt_utf8_kind kind = rt_utf8_next(character, have, &used, &code);
        if (kind == RT_UTF8_INVALID)
            valid = false;
        if (kind != RT_UTF8_INCOMPLETE)
            have = 0;
    }
    *end = i > from ? i : from + 1;
    return valid && have == 0;
}

int64_t rt_tokenizer_decode(const rt_tokenizer *tokenizer, const int32_t *ids, int64_t count,
                            unsigned flags, char *out, int64_t capacity, rt_error *error) {
    rt_detok d;
    rt_detok_init(&d, tokenizer, flags);
    sink s = sink_for(&d, out, capacity);
    for (int64_t i = 0; i < count;) {
        int64_t end = i + 1;
        bool bytes = ids[i] >= 0 && ids[i] < tokenizer->header->vocab_size &&
                     tokenizer->token_flags[ids[i]] & RT_TOK_BYTE &&
                     tokenizer->header->decoder == RT_TOK_DECODE_TEXT;
        /* A run of byte tokens that is not UTF-8 as a whole has a U+FFFD for each of its bytes,
         * as in the `tokenizers` library. A stream cannot know, and gives what is valid in it. */
        bool replaced = bytes && !byte_run(&d, ids, count, i, &end);
        for (; i < end; i++) {
            if (replaced && gives_text(&d, ids[i])) {
                put_text(&s, REPLACEMENT, 3);
                d.pushed++;
            } else if (!replaced && !step(&s, &d, ids[i])) {
                rt_fail(error, RT_TOKENIZER_BAD_ARGUMENT,
                        "tokenizer: found token id %d at %lld, expected 0 to %d", (int)ids[i],
                        (long long)i, (int)tokenizer->header->vocab_size - 1);
                return -1;
            }
        }
    }
    end_pending(&s, &d);
    return s.size;
}
