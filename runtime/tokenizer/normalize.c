/* The normalizer: what is done to text before it is split. Each step reads one buffer and writes
 * the other; most texts pass most steps unchanged, and are then not copied. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "runtime/tokenizer/internal.h"

#define TOO_MUCH "the normalizer gives invalid or too much text"

bool rt_tok_buffer_reserve(rt_tok_buffer *buffer, size_t extra) {
    if (extra <= buffer->capacity - buffer->size)
        return true;
    if (extra > SIZE_MAX / 4 - buffer->size)
        return false;
    size_t capacity = (buffer->size + extra) + (buffer->size + extra) / 2 + 64;
    char *data = realloc(buffer->data, capacity);
    if (!data)
        return false;
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

bool rt_tok_buffer_add(rt_tok_buffer *buffer, const void *data, size_t size) {
    if (!rt_tok_buffer_reserve(buffer, size))
        return false;
    if (size)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return true;
}

static bool add_char(rt_tok_buffer *out, uint32_t code) {
    char bytes[4];
    return rt_tok_buffer_add(out, bytes, rt_utf8_encode(code, bytes));
}

/* True when no character of the text is at or above `limit`, a code point below 0x800. */
static bool all_below(const char *text, size_t size, uint32_t limit) {
    size_t at = 0;
    while (at < size) {
        uint64_t eight;
        if (size - at >= 8) {
            memcpy(&eight, text + at, 8);
            if (!(eight & 0x8080808080808080u)) {
                at += 8;
                continue;
            }
        }
        size_t step;
        if (rt_utf8_decode(text + at, &step) >= limit)
            return false;
        at += step;
    }
    return true;
}

/* Characters that decompose, compose or combine since some version of Unicode after 9, which is
 * what the `tokenizers` library's normalizer knows: for it, and so here, they do nothing of the
 * kind. */
static const uint32_t inert[][2] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},
    {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},
    {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x10785}, {0x10787, 0x107b0},
    {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e},
    {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x16ff0, 0x16ff1}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};

static bool is_inert(uint32_t code) {
    size_t low = 0, high = sizeof inert / sizeof *inert;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (code > inert[middle][1])
            low = middle + 1;
        else if (code < inert[middle][0])
            high = middle;
        else
            return true;
    }
    return false;
}

typedef struct mark {
    utf8proc_int32_t code;
    uint32_t class, index;
} mark;

static int compare_marks(const void *left, const void *right) {
    const mark *a = left, *b = right;
    if (a->class != b->class)
        return a->class < b->class ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Canonical ordering: sorts each run of combining marks by class, stably. Not utf8proc's own, which
 * takes quadratic time on long runs. */
static bool order_marks(utf8proc_int32_t *codes, size_t count) {
    for (size_t i = 0; i < count;) {
        if (utf8proc_get_property(codes[i])->combining_class == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        bool sorted = true;
        utf8proc_propval_t last = utf8proc_get_property(codes[i])->combining_class;
        for (; end < count; end++) {
            utf8proc_propval_t class = utf8proc_get_property(codes[end])->combining_class;
            if (class == 0)
                break;
            sorted &= last <= class;
            last = class;
        }
        if (!sorted) {
            mark *marks = malloc((end - i) * sizeof *marks);
            if (!marks)
                return false;
            for (size_t k = i; k < end; k++)
                marks[k - i] =
                    (mark){codes[k], (uint32_t)utf8proc_get_property(codes[k])->combining_class,
                           (uint32_t)(k - i)};
            qsort(marks, end - i, sizeof *marks, compare_marks);
            for (size_t k = i; k < end; k++)
                codes[k] = marks[k - i].code;
            free(marks);
        }
        i = end;
    }
    return true;
}

/* Ends the decomposition that lies in `work`: orders its marks, composes it, appends it to `out`.
 */
static bool end_form(rt_tok_buffer *work, int options, rt_tok_buffer *out) {
    utf8proc_int32_t *codes = (utf8proc_int32_t *)work->data;
    utf8proc_ssize_t count = (utf8proc_ssize_t)(work->size / 4);
    if (!order_marks(codes, (size_t)count))
        return false;
    if (options & UTF8PROC_COMPOSE && count)
        count = utf8proc_normalize_utf32(codes, count, options);
    for (utf8proc_ssize_t i = 0; i < count; i++)
        if (!add_char(out, (uint32_t)codes[i]))
            return false;
    work->size = 0;
    return true;
}

static bool unicode_form(rt_tok_job *job, uint32_t op, const char *text, size_t size,
                         rt_tok_buffer *out) {
    bool compose = op == RT_TOK_NFC || op == RT_TOK_NFKC;
    int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                  (op == RT_TOK_NFKC || op == RT_TOK_NFKD ? UTF8PROC_COMPAT : 0);
    rt_tok_buffer *work = &job->work;
    work->size = 0;
    int boundary = 0;
    for (size_t at = 0, step; at < size; at += step) {
        utf8proc_int32_t code = (utf8proc_int32_t)rt_utf8_decode(text + at, &step);
        if (is_inert((uint32_t)code)) {
            if (!end_form(work, options, out) || !add_char(out, (uint32_t)code))
                return false;
            continue;
        }
        utf8proc_int32_t some[32];
        utf8proc_ssize_t n = utf8proc_decompose_char(code, some, 32, options, &boundary);
        if (n < 0 || n > 32) { /* the longest decomposition has 18 characters */
            some[0] = code;
            n = 1;
        }
        if (!rt_tok_buffer_add(work, some, (size_t)n * 4))
            return false;
    }
    return end_form(work, options, out);
}

bool rt_tok_replace(rt_tok_job *job, const rt_tok_step *step, const char *text, size_t size,
                    rt_tok_buffer *out) {
    const char *from = job->tokenizer->strings + step->a_offset;
    const char *to = job->tokenizer->strings + step->b_offset;
    size_t from_size = step->a_size, to_size = step->b_size;
    const char *end = text + size;
    while (text < end) {
        const char *found = from_size ? memmem(text, (size_t)(end - text), from, from_size) : NULL;
        if (!found)
            break;
        if (!rt_tok_buffer_add(out, text, (size_t)(found - text)) ||
            !rt_tok_buffer_add(out, to, to_size))
            return rt_tok_no_memory(job);
        if (out->size > job->text_limit)
            return rt_tok_damaged(job, TOO_MUCH);
        text = found + from_size;
    }
    return rt_tok_buffer_add(out, text, (size_t)(end - text)) || rt_tok_no_memory(job);
}

static bool replace_regex(rt_tok_job *job, uint32_t index, const char *text, size_t size,
                          rt_tok_buffer *out) {
    const rt_tok_step *step = &job->tokenizer->steps[index];
    const char *to = job->tokenizer->strings + step->b_offset;
    size_t copied = 0, at = 0, last = SIZE_MAX, begin, end;
    int found;
    const char *subject = rt_tok_subject(job, index, text, size);
    if (!subject)
        return false;
    while ((found = rt_tok_match(job, index, subject, size, at, last, &begin, &end)) == 1) {
        if (!rt_tok_buffer_add(out, text + copied, begin - copied) ||
            !rt_tok_buffer_add(out, to, step->b_size))
            return rt_tok_no_memory(job);
        if (out->size > job->text_limit)
            return rt_tok_damaged(job, TOO_MUCH);
        copied = at = last = end;
    }
    return found == 0 &&
           (rt_tok_buffer_add(out, text + copied, size - copied) || rt_tok_no_memory(job));
}

/* Keeps or rewrites single characters. */
static bool map_chars(uint32_t op, const char *text, size_t size, rt_tok_buffer *out) {
    for (size_t at = 0, step; at < size; at += step) {
        uint32_t code = rt_utf8_decode(text + at, &step);
        bool good = true;
        if (op == RT_TOK_LOWERCASE) {
            /* The one character whose lower case is two, whatever the language. */
            if (code == 0x130)
                good = rt_tok_buffer_add(out, "i\xcc\x87", 3);
            else
                good =
                    add_char(out, code < 0x80 ? (code >= 'A' && code <= 'Z' ? code + 32 : code)
                                              : (uint32_t)utf8proc_tolower((utf8proc_int32_t)code));
        } else if (op == RT_TOK_STRIP_ACCENTS) {
            utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
            if (category < UTF8PROC_CATEGORY_MN || category > UTF8PROC_CATEGORY_ME)
                good = rt_tok_buffer_add(out, text + at, step);
        } else { /* RT_TOK_NMT: control characters go, odd spaces become plain ones */
            bool dropped = (code >= 1 && code <= 8) || code == 0xb ||
                           (code >= 0xe && code <= 0x1f) || code == 0x7f || code == 0x8f ||
                           code == 0x9f;
            bool space = code == 9 || code == 0xa || code == 0xc || code == 0xd || code == 0x1680 ||
                         (code >= 0x200b && code <= 0x200f) || code == 0x2028 || code == 0x2029 ||
                         code == 0x2581 || code == 0xfeff || code == 0xfffd;
            if (!dropped)
                good = add_char(out, space ? ' ' : code);
        }
        if (!good)
            return false;
    }
    return true;
}

bool rt_tok_byte_map(const char *text, size_t size, rt_tok_buffer *out) {
    for (size_t i = 0; i < size; i++)
        if (!add_char(out, rt_byte_to_char((unsigned char)text[i])))
            return false;
    return true;
}

/* SentencePiece's double array (darts-clone): what the shortest key that `text` begins with maps
 * to. The unit layout: https://github.com/s-yata/darts-clone */
static const char *charsmap_find(const rt_tokenizer *t, const char *text, size_t size,
                                 size_t *length) {
    uint32_t node = 0, units = t->charsmap_units;
    if (units == 0)
        return NULL;
    uint32_t unit = t->charsmap[0];
    node ^= unit >> 10 << ((unit & 1u << 9) >> 6);
    for (size_t i = 0; i < size && text[i]; i++) {
        uint8_t byte = (uint8_t)text[i];
        node ^= byte;
        if (node >= units)
            return NULL;
        unit = t->charsmap[node];
        if ((unit & (1u << 31 | 0xff)) != byte)
            return NULL;
        node ^= unit >> 10 << ((unit & 1u << 9) >> 6);
        if (unit >> 8 & 1) {
            if (node >= units)
                return NULL;
            uint32_t at = t->charsmap[node] & 0x7fffffff;
            if (at >= t->charsmap_strings_size)
                return NULL;
            const char *found = t->charsmap_strings + at;
            *length = strnlen(found, t->charsmap_strings_size - at);
            return found;
        }
    }
    return NULL;
}

/* Maps one grapheme cluster or character; false when the map has nothing for it. */
static bool charsmap_apply(const rt_tokenizer *t, const char *text, size_t size, rt_tok_buffer *out,
                           bool *good) {
    size_t length;
    const char *found = charsmap_find(t, text, size, &length);
    if (!found)
        return false;
    *good = *good && rt_tok_buffer_add(out, found, length);
    return true;
}

/* Grapheme clusters shorter than 6 bytes are looked up whole, else character by character, as
 * Hugging Face's spm_precompiled does. */
static bool charsmap(const rt_tokenizer *t, const char *text, size_t size, rt_tok_buffer *out) {
    bool good = true;
    for (size_t at = 0; at < size && good;) {
        size_t step;
        utf8proc_int32_t state = 0;
        uint32_t last = rt_utf8_decode(text + at, &step);
        size_t end = at + step;
        while (end < size) {
            uint32_t next = rt_utf8_decode(text + end, &step);
            if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)next,
                                                 &state))
                break;
            last = next;
            end += step;
        }
        if (end - at < 6 && charsmap_apply(t, text + at, end - at, out, &good)) {
            at = end;
            continue;
        }
        for (; at < end && good; at += step) {
            step = rt_utf8_size(text + at);
            if (!charsmap_apply(t, text + at, step, out, &good))
                good = rt_tok_buffer_add(out, text + at, step);
        }
    }
    return good;
}

/* Moves the bounds of the text inwards over white space. */
static void strip(const char **text, size_t *size, uint32_t flags, bool *stripped) {
    size_t step;
    while (flags & RT_TOK_STRIP_LEFT && *size && rt_char_is_space(rt_utf8_decode(*text, &step))) {
        *text += step;
        *size -= step;
        *stripped = true;
    }
    while (flags & RT_TOK_STRIP_RIGHT && *size) {
        size_t back = 1;
        while (back < *size && ((*text)[*size - back] & 0xc0) == 0x80)
            back++;
        if (!rt_char_is_space(rt_utf8_decode(*text + *size - back, &step)))
            break;
        *size -= back;
    }
}

/* True when the step leaves this text as it is. */
static bool unchanged(const rt_tokenizer *t, const rt_tok_step *step, const char *text,
                      size_t size) {
    switch (step->op) {
    case RT_TOK_NFC: /* the first character that composes or decomposes is U+0300, or after it */
        return all_below(text, size, 0x300);
    case RT_TOK_NFD:
        return all_below(text, size, 0xc0);
    case RT_TOK_NFKC:
    case RT_TOK_NFKD:
        return all_below(text, size, 0xa0);
    case RT_TOK_STRIP_ACCENTS:
        return all_below(text, size, 0x300);
    case RT_TOK_REPLACE:
        return !step->a_size || !memmem(text, size, t->strings + step->a_offset, step->a_size);
    default:
        return false;
    }
}

bool rt_tok_normalize(rt_tok_job *job, const char *text, size_t size, const char **result,
                      size_t *result_size, bool *stripped) {
    const rt_tokenizer *t = job->tokenizer;
    int turn = 0;
    for (uint32_t i = 0; i < t->header->normalizer_steps && size; i++) {
        const rt_tok_step *step = &t->steps[i];
        const char *a = t->strings + step->a_offset;
        if (step->op == RT_TOK_STRIP) {
            strip(&text, &size, step->flags, stripped);
            continue;
        }
        if (unchanged(t, step, text, size))
            continue;
        rt_tok_buffer *out = &job->normal[turn];
        out->size = 0;
        bool good = true;
        switch (step->op) {
        case RT_TOK_PREPEND:
            good = rt_tok_buffer_add(out, a, step->a_size) && rt_tok_buffer_add(out, text, size);
            break;
        case RT_TOK_REPLACE:
            if (!rt_tok_replace(job, step, text, size, out))
                return false;
            break;
        case RT_TOK_REPLACE_REGEX:
            if (!replace_regex(job, i, text, size, out))
                return false;
            break;
        case RT_TOK_CHARSMAP:
            good = charsmap(t, text, size, out);
            break;
        case RT_TOK_BYTE_MAP:
            good = rt_tok_byte_map(text, size, out);
            break;
        case RT_TOK_LOWERCASE:
        case RT_TOK_STRIP_ACCENTS:
        case RT_TOK_NMT:
            good = map_chars(step->op, text, size, out);
            break;
        default:
            good = unicode_form(job, step->op, text, size, out);
        }
        if (!good)
            return rt_tok_no_memory(job);
        /* A damaged blob's strings need not be UTF-8, and everything after relies on it. */
        if (out->size > job->text_limit || !rt_utf8_valid(out->data, out->size))
            return rt_tok_damaged(job, TOO_MUCH);
        text = out->data;
        size = out->size;
        turn = !turn;
    }
    *result = text;
    *result_size = size;
    return true;
}
