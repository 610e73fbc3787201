/* Feeds bytes to the GGUF reader and then touches everything it says is there. */
#include "compiler/frontend/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t touch(const fe_gguf *gguf, ir_arena *arena, ir_diag *diag) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < gguf->value_count; i++) {
        const char *key = gguf->values[i].key;
        int64_t integer = 0, count = 0;
        double number = 0;
        bool flag = false;
        fe_bytes text = {0}, *strings;
        int32_t *ints;
        float *floats;
        sum += fe_gguf_int(gguf, key, &integer, diag) + fe_gguf_bool(gguf, key, &flag, diag);
        sum += fe_gguf_float(gguf, key, &number, diag);
        if (fe_gguf_string(gguf, key, &text, diag) && text.size)
            sum += text.data[text.size - 1];
        if (fe_gguf_strings(gguf, key, &strings, &count, arena, diag))
            for (int64_t j = 0; j < count; j++)
                sum += strings[j].size ? strings[j].data[strings[j].size - 1] : 0;
        if (fe_gguf_ints(gguf, key, &ints, &count, arena, diag) && count)
            sum += (uint64_t)ints[count - 1];
        sum += fe_gguf_floats(gguf, key, &floats, &count, arena, diag);
    }
    for (int64_t i = 0; i < gguf->tensor_count; i++)
        sum += gguf->bytes.data[gguf->tensors[i].offset] +
               gguf->bytes.data[gguf->tensors[i].offset + gguf->tensors[i].size - 1];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    fe_gguf gguf;
    static volatile uint64_t sink;
    if (fe_gguf_parse(&gguf, (fe_bytes){data, size}, "fuzz.gguf", arena, &diag))
        sink += touch(&gguf, arena, &diag);
    else if (diag.errors == 0)
        __builtin_trap(); /* a refusal must say why */
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
    return 0;
}
