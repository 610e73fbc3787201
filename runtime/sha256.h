/* SHA-256 (FIPS 180-4), with the processor's SHA instructions where there are any. */
#ifndef MCC_RUNTIME_SHA256_H
#define MCC_RUNTIME_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rt_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64]; /* the first bytes % 64 of it are waiting */
    bool accelerated;
} rt_sha256;

/* init, any number of updates, final. Different structs may be used by different threads. */
void rt_sha256_init(rt_sha256 *hash);
void rt_sha256_update(rt_sha256 *hash, const void *data, size_t size);
void rt_sha256_final(rt_sha256 *hash, uint8_t digest[32]);

/* The three in one. */
void rt_sha256_of(const void *data, size_t size, uint8_t digest[32]);

/* Writes the digest as 64 lower case hexadecimal digits and a zero. */
void rt_sha256_hex(const uint8_t digest[32], char text[65]);

/* Makes `hash` use plain C, whatever the processor has: for tests. */
void rt_sha256_init_portable(rt_sha256 *hash);

#endif
