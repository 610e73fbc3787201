/* Feeds bytes to the safetensors reader and then touches every tensor it found. */
#include "compiler/frontend/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    fe_safetensors st;
    static volatile uint64_t sink;
    if (fe_safetensors_parse(&st, (fe_bytes){data, size}, "fuzz.safetensors", arena, &diag)) {
        for (int64_t i = 0; i < st.count; i++)
            if (st.tensors[i].size)
                sink += data[st.tensors[i].offset] +
                        data[st.tensors[i].offset + st.tensors[i].size - 1];
    } else if (diag.errors == 0) {
        __builtin_trap(); /* a refusal must say why */
    }
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
    return 0;
}
