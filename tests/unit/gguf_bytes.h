/* Writes GGUF files into memory for tests. */
#ifndef MCC_TESTS_GGUF_BYTES_H
#define MCC_TESTS_GGUF_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct gguf_bytes {
    uint8_t *data;
    size_t size, capacity;
} gguf_bytes;

static inline void put(gguf_bytes *b, const void *data, size_t size) {
    if (b->size + size > b->capacity) {
        b->capacity = 2 * (b->size + size) + 64;
        b->data = realloc(b->data, b->capacity);
    }
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
}

static inline void put_int(gguf_bytes *b, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)(value >> (8 * i));
        put(b, &byte, 1);
    }
}

static inline void put_string(gguf_bytes *b, const char *text) {
    put_int(b, strlen(text), 8);
    put(b, text, strlen(text));
}

static inline void put_header(gguf_bytes *b, uint32_t version, uint64_t tensors, uint64_t values) {
    put(b, "GGUF", 4);
    put_int(b, version, 4);
    put_int(b, tensors, 8);
    put_int(b, values, 8);
}

static inline void put_key(gguf_bytes *b, const char *key, uint32_t type) {
    put_string(b, key);
    put_int(b, type, 4);
}

static inline void put_u32(gguf_bytes *b, const char *key, uint32_t value) {
    put_key(b, key, 4);
    put_int(b, value, 4);
}

static inline void put_f32(gguf_bytes *b, const char *key, float value) {
    put_key(b, key, 6);
    put(b, &value, 4);
}

static inline void put_text(gguf_bytes *b, const char *key, const char *value) {
    put_key(b, key, 8);
    put_string(b, value);
}

/* An array's head; its items follow. */
static inline void put_array(gguf_bytes *b, const char *key, uint32_t item_type, uint64_t count) {
    put_key(b, key, 9);
    put_int(b, item_type, 4);
    put_int(b, count, 8);
}

/* A tensor's description; dims end at the first 0. */
static inline void put_tensor(gguf_bytes *b, const char *name, uint64_t d0, uint64_t d1,
                              uint32_t type, uint64_t offset) {
    put_string(b, name);
    put_int(b, d1 ? 2 : 1, 4);
    put_int(b, d0, 8);
    if (d1)
        put_int(b, d1, 8);
    put_int(b, type, 4);
    put_int(b, offset, 8);
}

static inline void put_padding(gguf_bytes *b, size_t alignment) {
    while (b->size % alignment)
        put_int(b, 0, 1);
}

#endif
