/* Memory of the PTX parser: what lives as long as the module, and growing arrays. */
#include "runtime/emulator/ptx.h"

#include <stdlib.h>
#include <string.h>

struct ptx_chunk {
    struct ptx_chunk *next;
    size_t room;
    _Alignas(64) uint8_t bytes[];
};

enum { CHUNK = 64 << 10 };

static void *allocate(ptx_parser *parser, struct ptx_chunk **chunks, size_t bytes) {
    bytes = (bytes + 63) & ~(size_t)63;
    struct ptx_chunk *chunk = *chunks;
    if (!chunk || chunk->room < bytes) {
        size_t room = bytes > CHUNK ? bytes : CHUNK;
        chunk = aligned_alloc(64, sizeof *chunk + room);
        if (!chunk)
            ptx_fail(parser, parser->token.line, "out of memory");
        chunk->next = *chunks;
        chunk->room = room;
        *chunks = chunk;
    }
    chunk->room -= bytes;
    return memset(chunk->bytes + chunk->room, 0, bytes);
}

static void free_chunks(struct ptx_chunk *chunk) {
    for (struct ptx_chunk *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
}

void *ptx_alloc(ptx_parser *parser, size_t bytes) {
    return allocate(parser, &parser->module->chunks, bytes);
}

void *ptx_scratch_memory(ptx_parser *parser, size_t bytes) {
    return allocate(parser, &parser->scratch, bytes);
}

void ptx_scratch_free(ptx_parser *parser) {
    free_chunks(parser->scratch);
    parser->scratch = NULL;
}

void ptx_module_destroy(ptx_module *module) {
    if (!module)
        return;
    if (module->memory)
        for (uint32_t i = 0; i < module->n_variables; i++)
            if (module->variables[i].address)
                emu_memory_free(module->memory, module->variables[i].address);
    free_chunks(module->chunks);
    free(module);
}

void ptx_array_begin(ptx_parser *parser, ptx_array *array, size_t size) {
    array->n = 0;
    if (array->size)
        return; /* begun before: its memory serves again */
    array->size = size;
    array->next = parser->arrays;
    parser->arrays = array;
}

void *ptx_push(ptx_parser *parser, ptx_array *array) {
    if (array->n == array->room) {
        size_t room = array->room ? 2 * array->room : 16;
        void *items = realloc(array->items, room * array->size);
        if (!items)
            ptx_fail(parser, parser->token.line, "out of memory");
        array->items = items;
        array->room = room;
    }
    return memset((uint8_t *)array->items + array->n++ * array->size, 0, array->size);
}

void *ptx_array_keep(ptx_parser *parser, const ptx_array *array) {
    if (!array->n)
        return NULL;
    return memcpy(ptx_alloc(parser, array->n * array->size), array->items, array->n * array->size);
}
