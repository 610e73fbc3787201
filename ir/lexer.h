/* The tokens of the text form. Internal to the parser. */
#ifndef MCC_IR_LEXER_H
#define MCC_IR_LEXER_H

#include <stdbool.h>
#include <stddef.h>

typedef enum ir_token_kind {
    IR_TOKEN_END,
    IR_TOKEN_WORD,   /* [A-Za-z_][A-Za-z0-9_]* */
    IR_TOKEN_NUMBER, /* digits, perhaps with fraction and exponent; the sign is a token apart */
    IR_TOKEN_STRING, /* in quotes; text has them, and escapes are not undone */
    IR_TOKEN_VALUE,  /* %digits */
    IR_TOKEN_PUNCT,  /* one of = ( ) [ ] { } , : @ + - */
    IR_TOKEN_BAD     /* anything else, one byte; or a string without an end */
} ir_token_kind;

typedef struct ir_token {
    ir_token_kind kind;
    const char *text;
    size_t length;
    int line, column; /* of its first byte, from 1 */
} ir_token;

typedef struct ir_lexer {
    const char *at, *end;
    const char *line_start;
    int line;
} ir_lexer;

void ir_lexer_init(ir_lexer *lexer, const char *text, size_t length);
ir_token ir_lexer_next(ir_lexer *lexer);

#endif
