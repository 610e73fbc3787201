#include "runtime/emulator/ptx_lex.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_WORD = 4096 };

void ptx_lex_begin(ptx_lexer *lexer, const char *text, size_t bytes) {
    const char *zero = bytes ? memchr(text, 0, bytes) : NULL;
    *lexer = (ptx_lexer){text, zero ? zero : text + bytes, 1, NULL};
}

bool ptx_token_is(const ptx_token *token, const char *word) {
    return token->length == strlen(word) && memcmp(token->text, word, token->length) == 0;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '$';
}

static int hex_value(char c) {
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Skips blanks and comments; false at an unclosed comment. */
static bool skip_blanks(ptx_lexer *lexer) {
    while (lexer->at < lexer->end) {
        char c = *lexer->at;
        if (c == '\n') {
            lexer->line++;
            lexer->at++;
        } else if (c == ' ' || c == '\t' || c == '\r') {
            lexer->at++;
        } else if (c == '/' && lexer->end - lexer->at > 1 && lexer->at[1] == '/') {
            while (lexer->at < lexer->end && *lexer->at != '\n')
                lexer->at++;
        } else if (c == '/' && lexer->end - lexer->at > 1 && lexer->at[1] == '*') {
            lexer->at += 2;
            while (lexer->end - lexer->at > 1 && (lexer->at[0] != '*' || lexer->at[1] != '/'))
                lexer->line += *lexer->at++ == '\n';
            if (lexer->end - lexer->at < 2)
                return false;
            lexer->at += 2;
        } else {
            return true;
        }
    }
    return true;
}

static ptx_token bad(ptx_lexer *lexer, ptx_token token, const char *why) {
    lexer->bad = why;
    token.kind = PTX_BAD;
    token.length = (uint32_t)(lexer->at - token.text);
    return token;
}

/* 0f3F800000, 0d3FF0000000000000: the bits themselves. */
static ptx_token lex_bits(ptx_lexer *lexer, ptx_token token) {
    token.single = lexer->at[1] == 'f' || lexer->at[1] == 'F';
    int digits = 0;
    lexer->at += 2;
    for (int h; lexer->at < lexer->end && (h = hex_value(*lexer->at)) >= 0; lexer->at++, digits++)
        token.value = token.value << 4 | (uint64_t)h;
    if (digits != (token.single ? 8 : 16))
        return bad(lexer, token, "a floating-point constant with too few or too many digits");
    token.kind = PTX_FLOAT;
    return token;
}

static ptx_token lex_number(ptx_lexer *lexer, ptx_token token) {
    const char *p = lexer->at;
    size_t left = (size_t)(lexer->end - p);
    char second = left > 1 ? p[1] : 0;
    if (p[0] == '0' && (second == 'f' || second == 'F' || second == 'd' || second == 'D'))
        return lex_bits(lexer, token);
    unsigned base = 10;
    if (p[0] == '0' && (second == 'x' || second == 'X'))
        base = 16;
    else if (p[0] == '0' && (second == 'b' || second == 'B'))
        base = 2;
    else if (p[0] == '0' && is_digit(second))
        base = 8;
    if (base == 10) { /* perhaps 1.5 or 1e9 */
        const char *q = p;
        while (q < lexer->end && is_digit(*q))
            q++;
        if (q < lexer->end && (*q == '.' || *q == 'e' || *q == 'E')) {
            char text[64];
            size_t n = 0;
            while (n < left && n < sizeof text - 1 &&
                   (is_digit(p[n]) || p[n] == '.' || p[n] == 'e' || p[n] == 'E' ||
                    ((p[n] == '-' || p[n] == '+') && n && (p[n - 1] | 32) == 'e')))
                n++;
            memcpy(text, p, n);
            text[n] = 0;
            char *stop;
            double x = strtod(text, &stop);
            lexer->at += n;
            if (stop != text + n)
                return bad(lexer, token, "a number that cannot be read");
            memcpy(&token.value, &x, sizeof x);
            token.kind = PTX_FLOAT;
            return token;
        }
    }
    if (base == 16 || base == 2)
        lexer->at += 2;
    int digits = 0;
    while (lexer->at < lexer->end) {
        int h = hex_value(*lexer->at);
        if (h < 0 || (unsigned)h >= base)
            break;
        if (token.value > (UINT64_MAX - (unsigned)h) / base)
            return bad(lexer, token, "a number of more than 64 bits");
        token.value = token.value * base + (unsigned)h;
        lexer->at++;
        digits++;
    }
    if (lexer->at < lexer->end && (*lexer->at == 'U' || *lexer->at == 'u'))
        lexer->at++;
    if (!digits || (lexer->at < lexer->end && is_word(*lexer->at)))
        return bad(lexer, token, "a number that cannot be read");
    token.kind = PTX_INT;
    return token;
}

ptx_token ptx_lex_next(ptx_lexer *lexer) {
    ptx_token token = {.kind = PTX_END};
    bool closed = skip_blanks(lexer);
    token.text = lexer->at;
    token.line = lexer->line;
    if (!closed)
        return bad(lexer, token, "an unclosed comment");
    if (lexer->at == lexer->end)
        return token;
    char c = *lexer->at;
    if (is_digit(c)) {
        token = lex_number(lexer, token);
        if (token.kind == PTX_BAD)
            return token;
    } else if (c == '"') {
        lexer->at++;
        while (lexer->at < lexer->end && *lexer->at != '"' && *lexer->at != '\n')
            lexer->at++;
        if (lexer->at == lexer->end || *lexer->at != '"')
            return bad(lexer, token, "an unclosed string");
        token.kind = PTX_STRING;
        token.text++;
        token.length = (uint32_t)(lexer->at - token.text);
        lexer->at++;
        return token;
    } else if (is_word(c) || c == '%') {
        lexer->at++;
        while (lexer->at < lexer->end && is_word(*lexer->at))
            lexer->at++;
        token.kind = PTX_NAME;
    } else if (c == '.' && lexer->end - lexer->at > 1 && is_word(lexer->at[1])) {
        token.text = ++lexer->at;
        while (lexer->at < lexer->end &&
               (is_word(*lexer->at) ||
                (*lexer->at == ':' && lexer->end - lexer->at > 1 &&
                 (lexer->at[1] == ':' || lexer->at[-1] == ':') && lexer->at > token.text)))
            lexer->at++;
        token.kind = PTX_DOT;
    } else if (strchr("{}[]()<>,;:=+-!@|*/&^~?", c)) {
        lexer->at++;
        token.kind = PTX_PUNCT;
        token.punct = c;
    } else {
        lexer->at++;
        return bad(lexer, token, "an unknown character");
    }
    token.length = (uint32_t)(lexer->at - token.text);
    if (token.length > MAX_WORD)
        return bad(lexer, token, "a word of more than 4096 characters");
    return token;
}
