#include "runtime/sha256.h"

#include <string.h>

/* FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64
 * primes. */
static const uint32_t k256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotr(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

static void blocks_portable(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    for (; n_blocks > 0; n_blocks--, data += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
                   (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
            uint32_t s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int i = 0; i < 64; i++) {
            uint32_t t1 = h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & f) ^ (~e & g)) +
                          k256[i] + w[i];
            uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1;
            d = c, c = b, b = a, a = t1 + t2;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

static bool has_sha_instructions(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/* sha256rnds2 keeps the state as two registers, ABEF and CDGH (highest lane first), and does two
 * rounds; sha256msg1 and sha256msg2 make four words of the message schedule (Intel SDM, vol. 2). */
__attribute__((target("sha,sse4.1,ssse3"))) static void
blocks_sha_instructions(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i abcd = _mm_loadu_si128((const __m128i *)&state[0]); /* lanes d c b a */
    __m128i efgh = _mm_loadu_si128((const __m128i *)&state[4]);
    __m128i badc = _mm_shuffle_epi32(abcd, 0xb1);     /* lanes c d a b */
    __m128i hgfe = _mm_shuffle_epi32(efgh, 0x1b);     /* lanes e f g h */
    __m128i abef = _mm_alignr_epi8(badc, hgfe, 8);    /* lanes a b e f */
    __m128i cdgh = _mm_blend_epi16(hgfe, badc, 0xf0); /* lanes c d g h */

    for (; n_blocks > 0; n_blocks--, data += 64) {
        __m128i abef_before = abef, cdgh_before = cdgh, w[4];
        for (int i = 0; i < 16; i++) {
            if (i < 4) {
                w[i] =
                    _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), big_endian);
            } else {
                __m128i *w0 = &w[i & 3], w3 = w[(i + 3) & 3];
                __m128i minus7 = _mm_alignr_epi8(w3, w[(i + 2) & 3], 4);
                __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(*w0, w[(i + 1) & 3]), minus7);
                *w0 = _mm_sha256msg2_epu32(sum, w3);
            }
            __m128i wk = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)&k256[4 * i]));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }

    __m128i feba = _mm_shuffle_epi32(abef, 0x1b); /* lanes f e b a */
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1); /* lanes d c h g */
    _mm_storeu_si128((__m128i *)&state[0], _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)&state[4], _mm_alignr_epi8(dchg, feba, 8));
}
#else
static bool has_sha_instructions(void) {
    return false;
}

static void blocks_sha_instructions(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    blocks_portable(state, data, n_blocks);
}
#endif

static void blocks(rt_sha256 *hash, const uint8_t *data, size_t n_blocks) {
    if (hash->accelerated)
        blocks_sha_instructions(hash->state, data, n_blocks);
    else
        blocks_portable(hash->state, data, n_blocks);
}

void rt_sha256_init_portable(rt_sha256 *hash) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, start, sizeof start);
    hash->bytes = 0;
    hash->accelerated = false;
}

void rt_sha256_init(rt_sha256 *hash) {
    rt_sha256_init_portable(hash);
    hash->accelerated = has_sha_instructions();
}

void rt_sha256_update(rt_sha256 *hash, const void *data, size_t size) {
    const uint8_t *p = data;
    size_t waiting = hash->bytes % 64;
    hash->bytes += size;
    if (waiting > 0) {
        size_t n = size < 64 - waiting ? size : 64 - waiting;
        memcpy(hash->block + waiting, p, n);
        if (waiting + n < 64)
            return;
        blocks(hash, hash->block, 1);
        p += n, size -= n;
    }
    blocks(hash, p, size / 64);
    if (size % 64 > 0)
        memcpy(hash->block, p + size / 64 * 64, size % 64);
}

void rt_sha256_final(rt_sha256 *hash, uint8_t digest[32]) {
    /* A one bit, zeros, and the length in bits, big-endian, at the end of a block. */
    uint8_t padding[72] = {0x80};
    size_t waiting = hash->bytes % 64;
    size_t n = (waiting < 56 ? 56 : 120) - waiting;
    uint64_t bits = hash->bytes * 8;
    for (int i = 0; i < 8; i++)
        padding[n + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    rt_sha256_update(hash, padding, n + 8);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - i % 4 * 8));
}

void rt_sha256_of(const void *data, size_t size, uint8_t digest[32]) {
    rt_sha256 hash;
    rt_sha256_init(&hash);
    rt_sha256_update(&hash, data, size);
    rt_sha256_final(&hash, digest);
}

void rt_sha256_hex(const uint8_t digest[32], char text[65]) {
    for (int i = 0; i < 32; i++) {
        text[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    text[64] = 0;
}
