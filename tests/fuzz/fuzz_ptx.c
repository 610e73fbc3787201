/* Feeds bytes to the emulator's PTX parser, and runs each kernel that it accepts for a while, with
 * all checks on. */
#include "runtime/emulator/exec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    ERROR = 512,
    BUFFER = 4096,
    MOST_PARAMETERS = 4096,
    MOST_ENTRIES = 8,
    MOST_MEMORY = 1 << 20
};

static emu_memory *memory;
static const emu_allocation *buffer;

/* 64-bit parameters point into a buffer, others are a small number. */
static void run(const ptx_function *function, uint64_t seed) {
    static unsigned char params[MOST_PARAMETERS];
    ptx_function_info info;
    char error[ERROR] = "";
    ptx_function_get_info(function, &info);
    if (info.param_bytes > MOST_PARAMETERS ||
        info.static_shared_bytes + info.local_bytes > MOST_MEMORY)
        return;
    memset(params, 16, info.param_bytes);
    for (int i = 0; i < info.n_params; i++)
        for (uint32_t at = 0; at + 8 <= info.param_sizes[i]; at += 8)
            memcpy(params + info.param_offsets[i] + at, &buffer->base, 8);
    emu_launch launch = {.function = function,
                         .grid = {2, 1, 1},
                         .block = {info.max_threads < 64 ? info.max_threads : 64, 1, 1},
                         .shared_bytes = 1024,
                         .params = params,
                         .memory = memory,
                         .checks = EMU_CHECK_ALL,
                         .schedule_seed = seed % 3,
                         .approx_seed = seed % 2,
                         .instruction_limit = 2000,
                         .threads = 1};
    if (!emu_run(&launch, error, sizeof error) && !*error)
        __builtin_trap(); /* a refusal must say why */
}

/* The names behind ".entry", found without the parser. */
static void run_entries(const ptx_module *module, const char *text, size_t size) {
    static const char word[] = ".entry";
    const char *end = text + size;
    for (int n = 0; n < MOST_ENTRIES; n++) {
        text = memmem(text, (size_t)(end - text), word, sizeof word - 1);
        if (!text)
            return;
        text += sizeof word - 1;
        while (text < end && (*text == ' ' || *text == '\n'))
            text++;
        char name[64];
        size_t length = 0;
        while (text + length < end && length < sizeof name - 1 && text[length] > ' ' &&
               text[length] != '(' && text[length] != '{') {
            name[length] = text[length];
            length++;
        }
        name[length] = 0;
        const ptx_function *function = ptx_module_function(module, name);
        if (function)
            run(function, size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char error[ERROR] = "";
    if (!memory) {
        memory = emu_memory_create(64 << 20, true);
        buffer = memory ? emu_memory_alloc(memory, BUFFER, false) : NULL;
        if (!buffer)
            abort();
    }
    memset(buffer->data, 0, BUFFER);
    emu_memory_mark(buffer, buffer->base, BUFFER);
    ptx_module *module = ptx_module_create((const char *)data, size, error, sizeof error);
    if (!module) {
        if (!*error)
            __builtin_trap();
        return 0;
    }
    if (ptx_module_load(module, memory, error, sizeof error))
        run_entries(module, (const char *)data, size);
    else if (!*error)
        __builtin_trap();
    ptx_module_destroy(module);
    return 0;
}
