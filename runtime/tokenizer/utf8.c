#include "runtime/tokenizer/utf8.h"

#include <string.h>
#include <utf8proc.h>

rt_utf8_kind rt_utf8_next(const char *text, size_t left, size_t *size, uint32_t *code) {
    const unsigned char *p = (const unsigned char *)text;
    unsigned first = p[0];
    *size = 1;
    if (first < 0x80) {
        *code = first;
        return RT_UTF8_VALID;
    }
    if (first < 0xc2 || first > 0xf4)
        return RT_UTF8_INVALID;
    size_t need = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t value = first & (0xffu >> (need + 1));
    /* The second byte is restricted: no overlong forms, no surrogates, nothing past U+10FFFF. */
    unsigned low = 0x80, high = 0xbf;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < need; i++) {
        if (i >= left)
            return RT_UTF8_INCOMPLETE;
        if (p[i] < low || p[i] > high)
            return RT_UTF8_INVALID;
        value = value << 6 | (p[i] & 0x3fu);
        low = 0x80, high = 0xbf;
        *size = i + 1;
    }
    *code = value;
    return RT_UTF8_VALID;
}

size_t rt_utf8_encode(uint32_t code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (code >> 18 & 7));
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

bool rt_utf8_valid(const char *text, size_t size) {
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
        uint32_t code;
        if (rt_utf8_next(text + at, size - at, &step, &code) != RT_UTF8_VALID)
            return false;
        at += step;
    }
    return true;
}

bool rt_char_is_space(uint32_t code) {
    if (code < 0x80)
        return code == ' ' || (code >= 9 && code <= 13);
    return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
           code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool rt_char_is_word(uint32_t code) {
    if (code < 0x80)
        return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') ||
               (code >= 'A' && code <= 'Z') || code == '_';
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* joiners, and the symbols that are Alphabetic: circled and squared letters */
        return code == 0x200c || code == 0x200d || (code >= 0x24b6 && code <= 0x24e9) ||
               (code >= 0x1f130 && code <= 0x1f149) || (code >= 0x1f150 && code <= 0x1f169) ||
               (code >= 0x1f170 && code <= 0x1f189);
    }
}

bool rt_char_is_numeric(uint32_t code) {
    if (code < 0x80)
        return code >= '0' && code <= '9';
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
           category == UTF8PROC_CATEGORY_NO;
}

bool rt_char_is_punctuation(uint32_t code) {
    if (code < 0x80)
        return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') ||
               (code >= '[' && code <= '`') || (code >= '{' && code <= '~');
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/* The bytes that print as themselves: ! to ~, and Latin-1 but for the soft hyphen. */
static bool is_printable(uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
           (byte >= 0xae && byte <= 0xff);
}

/* The others, in order, are 256, 257, …: 0x00-0x20, 0x7f-0xa0, 0xad. */
uint32_t rt_byte_to_char(unsigned char byte) {
    if (is_printable(byte))
        return byte;
    if (byte <= 0x20)
        return 256u + byte;
    if (byte == 0xad)
        return 256u + 33 + 34;
    return 256u + 33 + (byte - 0x7fu);
}

int rt_char_to_byte(uint32_t code) {
    if (code < 256)
        return is_printable(code) ? (int)code : -1;
    uint32_t index = code - 256;
    if (index <= 0x20)
        return (int)index;
    if (index < 33 + 34)
        return (int)(index - 33 + 0x7f);
    return index == 33 + 34 ? 0xad : -1;
}
