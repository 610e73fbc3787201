#include "ir/diag.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void add(ir_diag *diag, ir_severity severity, const char *where, const char *format,
                va_list args) {
    if (severity >= IR_ERROR)
        diag->errors++;
    if (diag->count == diag->capacity) {
        int capacity = diag->capacity ? diag->capacity * 2 : 16;
        ir_message *grown = realloc(diag->messages, (size_t)capacity * sizeof *grown);
        if (!grown)
            return; /* the error count still says that something failed */
        diag->messages = grown;
        diag->capacity = capacity;
    }
    ir_message *m = &diag->messages[diag->count];
    *m = (ir_message){.severity = severity, .where = where ? strdup(where) : NULL};
    if (vasprintf(&m->text, format, args) < 0)
        m->text = NULL;
    diag->count++;
}

#define ADD(severity)                                                                              \
    va_list args;                                                                                  \
    va_start(args, format);                                                                        \
    add(diag, severity, where, format, args);                                                      \
    va_end(args)

bool ir_error(ir_diag *diag, const char *where, const char *format, ...) {
    ADD(IR_ERROR);
    return false;
}

bool ir_internal_error(ir_diag *diag, const char *where, const char *format, ...) {
    ADD(IR_INTERNAL_ERROR);
    return false;
}

void ir_warning(ir_diag *diag, const char *where, const char *format, ...) {
    ADD(IR_WARNING);
}

void ir_note(ir_diag *diag, const char *where, const char *format, ...) {
    ADD(IR_NOTE);
}

void ir_diag_print(const ir_diag *diag, FILE *out) {
    static const char *const names[] = {"note", "warning", "error", "internal error"};
    int kept = 0;
    for (int i = 0; i < diag->count; i++) {
        const ir_message *m = &diag->messages[i];
        fprintf(out, "%s: %s%s%s\n", names[m->severity], m->where ? m->where : "",
                m->where ? ": " : "", m->text ? m->text : "out of memory");
        kept += m->severity >= IR_ERROR;
    }
    if (kept < diag->errors)
        fprintf(out, "error: out of memory for %d more messages\n", diag->errors - kept);
}

void ir_diag_clear(ir_diag *diag) {
    for (int i = 0; i < diag->count; i++) {
        free(diag->messages[i].where);
        free(diag->messages[i].text);
    }
    free(diag->messages);
    *diag = (ir_diag){0};
}
