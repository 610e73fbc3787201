#include "ir/lexer.h"

#include <limits.h>

void ir_lexer_init(ir_lexer *lexer, const char *text, size_t length) {
    *lexer = (ir_lexer){.at = text, .end = text + length, .line_start = text, .line = 1};
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static void skip_space(ir_lexer *lx) {
    while (lx->at < lx->end) {
        char c = *lx->at;
        if (c == '\n') {
            lx->at++;
            lx->line_start = lx->at;
            if (lx->line < INT_MAX)
                lx->line++;
        } else if (c == ' ' || c == '\t' || c == '\r') {
            lx->at++;
        } else if (c == '/' && lx->end - lx->at > 1 && lx->at[1] == '/') {
            while (lx->at < lx->end && *lx->at != '\n')
                lx->at++;
        } else {
            return;
        }
    }
}

/* The byte `i` after the current one, or 0 at the end. */
static char peek(const ir_lexer *lx, size_t i) {
    return (size_t)(lx->end - lx->at) > i ? lx->at[i] : 0;
}

static size_t digits(const ir_lexer *lx, size_t n) {
    while (is_digit(peek(lx, n)))
        n++;
    return n;
}

static size_t number_length(const ir_lexer *lx) {
    size_t n = digits(lx, 0);
    if (peek(lx, n) == '.')
        n = digits(lx, n + 1);
    if (peek(lx, n) == 'e' || peek(lx, n) == 'E') {
        size_t sign = peek(lx, n + 1) == '+' || peek(lx, n + 1) == '-';
        if (is_digit(peek(lx, n + 1 + sign)))
            n = digits(lx, n + 1 + sign);
    }
    return n;
}

/* The length with both quotes, or 0 when the string has no end on its line. */
static size_t string_length(const ir_lexer *lx) {
    size_t rest = (size_t)(lx->end - lx->at);
    for (size_t n = 1; n < rest && lx->at[n] != '\n'; n++) {
        if (lx->at[n] == '"')
            return n + 1;
        if (lx->at[n] == '\\' && n + 1 < rest && lx->at[n + 1] != '\n')
            n++;
    }
    return 0;
}

ir_token ir_lexer_next(ir_lexer *lx) {
    skip_space(lx);
    ptrdiff_t column = lx->at - lx->line_start + 1;
    ir_token token = {.kind = IR_TOKEN_END,
                      .text = lx->at,
                      .line = lx->line,
                      .column = column < INT_MAX ? (int)column : INT_MAX};
    if (lx->at >= lx->end)
        return token;
    char c = *lx->at;
    size_t n = 1;
    if (is_digit(c)) {
        token.kind = IR_TOKEN_NUMBER;
        n = number_length(lx);
    } else if (is_word(c)) {
        token.kind = IR_TOKEN_WORD;
        while (is_word(peek(lx, n)))
            n++;
    } else if (c == '%') {
        n = digits(lx, 1);
        token.kind = n > 1 ? IR_TOKEN_VALUE : IR_TOKEN_BAD;
    } else if (c == '"') {
        n = string_length(lx);
        token.kind = n ? IR_TOKEN_STRING : IR_TOKEN_BAD;
        n = n ? n : 1;
    } else {
        token.kind = IR_TOKEN_BAD;
        for (const char *p = "=()[]{},:@+-"; *p; p++)
            if (*p == c)
                token.kind = IR_TOKEN_PUNCT;
    }
    token.length = n;
    lx->at += n;
    return token;
}
