/* Diagnostics: where functions below main report what is wrong. They return false or NULL, and the
 * sink keeps the messages in order; the driver prints them. */
#ifndef MCC_IR_DIAG_H
#define MCC_IR_DIAG_H

#include <stdbool.h>
#include <stdio.h>

typedef enum ir_severity { IR_NOTE, IR_WARNING, IR_ERROR, IR_INTERNAL_ERROR } ir_severity;

/* `where` is a file with line or offset, an op's stable name, or a tensor's name; may be NULL. */
typedef struct ir_message {
    ir_severity severity;
    char *where;
    char *text;
} ir_message;

/* A sink; zero-initialise it ({0}), then ir_diag_clear it. Not thread-safe. */
typedef struct ir_diag {
    ir_message *messages;
    int count, capacity;
    int errors;
} ir_diag;

/* Each appends a message. Text is lower case, without a final full stop: what was found, what was
 * expected, what to do. ir_error and ir_internal_error return false so that callers can write
 * `return ir_error(diag, …);`. */
bool ir_error(ir_diag *diag, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool ir_internal_error(ir_diag *diag, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void ir_warning(ir_diag *diag, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void ir_note(ir_diag *diag, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints every message as "severity: where: text". */
void ir_diag_print(const ir_diag *diag, FILE *out);
void ir_diag_clear(ir_diag *diag);

#endif
