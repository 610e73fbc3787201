/* Fuzzes the parser of the IR's text form. What parses and verifies must print to a text that
 * parses to the same module, and export without trouble. */
#include "ir/export.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *print(const ir_module *module, size_t *length) {
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    if (!out)
        abort();
    ir_print_module(module, out);
    fclose(out);
    return text;
}

static void export(const ir_module *module) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        abort();
    ir_export_dot(module, out);
    ir_export_json(module, out);
    fclose(out);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ir_diag diag = {0};
    ir_module *module = ir_parse_module((const char *)data, size, "fuzz.ir", &diag);
    if (module && ir_verify(module, &diag)) {
        size_t length, length_again;
        char *text = print(module, &length);
        ir_module *again = ir_parse_module(text, length, "printed.ir", &diag);
        if (!again || !ir_verify(again, &diag))
            abort();
        char *text_again = print(again, &length_again);
        if (length != length_again || memcmp(text, text_again, length))
            abort();
        export(module);
        free(text);
        free(text_again);
        ir_module_destroy(again);
    }
    ir_module_destroy(module);
    ir_diag_clear(&diag);
    return 0;
}
