/* UTF-8 and the few character classes that tokenizers ask for. */
#ifndef MCC_RUNTIME_TOKENIZER_UTF8_H
#define MCC_RUNTIME_TOKENIZER_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What rt_utf8_next found. */
typedef enum rt_utf8_kind {
    RT_UTF8_VALID,
    RT_UTF8_INVALID,   /* `size` bytes are a maximal subpart that can never become valid */
    RT_UTF8_INCOMPLETE /* the text ends inside of what could become a character */
} rt_utf8_kind;

/* Looks at the sequence at `text` (`left` > 0 bytes follow). Stores its size and, when valid, its
 * code point. Maximal subparts are those of the Unicode standard, section 3.9, as in Python's
 * decode(errors="replace"). */
rt_utf8_kind rt_utf8_next(const char *text, size_t left, size_t *size, uint32_t *code);

/* The same for text known to be valid. */
static inline size_t rt_utf8_size(const char *text) {
    unsigned char first = (unsigned char)*text;
    return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static inline uint32_t rt_utf8_decode(const char *text, size_t *size) {
    const unsigned char *p = (const unsigned char *)text;
    *size = rt_utf8_size(text);
    switch (*size) {
    case 1:
        return p[0];
    case 2:
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    case 3:
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    default:
        return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    }
}

/* Writes 1 to 4 bytes, returns how many. */
size_t rt_utf8_encode(uint32_t code, char out[4]);

/* True when all of the text is valid. */
bool rt_utf8_valid(const char *text, size_t size);

/* Unicode's White_Space. */
bool rt_char_is_space(uint32_t code);
/* Letters, marks, decimal numbers, connectors, joiners: what \w is for added tokens. */
bool rt_char_is_word(uint32_t code);
/* Nd, Nl, No. */
bool rt_char_is_numeric(uint32_t code);
/* ASCII punctuation and symbols, and P* beyond. */
bool rt_char_is_punctuation(uint32_t code);

/* GPT-2's alphabet: a printable character for each byte. Returns the character of a byte; the byte
 * of a character, or -1. https://github.com/openai/gpt-2/blob/master/src/encoder.py */
uint32_t rt_byte_to_char(unsigned char byte);
int rt_char_to_byte(uint32_t code);

#endif
