/* Tokens of PTX text. */
#ifndef MCC_RUNTIME_EMULATOR_PTX_LEX_H
#define MCC_RUNTIME_EMULATOR_PTX_LEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum ptx_token_kind {
    PTX_END,
    PTX_NAME,   /* letters, digits, _ $ %, not beginning with a digit */
    PTX_DOT,    /* a dot and a word: .global, .L2::128B, .x; the text is what follows the dot */
    PTX_INT,    /* value */
    PTX_FLOAT,  /* value: the bits of an f64 (0d…, 1.5); or of an f32 with single set (0f…) */
    PTX_STRING, /* without the quotes */
    PTX_PUNCT,  /* one character, in punct */
    PTX_BAD     /* what is no token; the message is in the lexer */
} ptx_token_kind;

typedef struct ptx_token {
    ptx_token_kind kind;
    const char *text; /* into the module's text, not terminated */
    uint32_t length, line;
    char punct;
    bool single;
    uint64_t value;
} ptx_token;

typedef struct ptx_lexer {
    const char *at, *end;
    uint32_t line;
    const char *bad; /* why a token was PTX_BAD */
} ptx_lexer;

void ptx_lex_begin(ptx_lexer *lexer, const char *text, size_t bytes);
ptx_token ptx_lex_next(ptx_lexer *lexer);
/* Whether the token's text is `word`. */
bool ptx_token_is(const ptx_token *token, const char *word);

#endif
