/* How the emulator's inner loops reach wide registers: plain C that the compiler vectorizes, built
 * once for each processor generation and chosen when the library is loaded. */
#ifndef MCC_RUNTIME_EMULATOR_SIMD_H
#define MCC_RUNTIME_EMULATOR_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define EMU_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EMU_SANITIZED 1
#endif

/* In front of a function: AVX-512, AVX2 and baseline builds of it. Its helpers must be EMU_INLINE.
 * Sanitizers are not ready when the choice is made, so sanitized builds have the baseline only. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(EMU_SANITIZED)
#define EMU_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define EMU_CLONES
#endif

#define EMU_INLINE static inline __attribute__((always_inline))

/* In front of a loop over lanes whose arrays may be the same array, but overlap in no other way. */
#if defined(__clang__)
#define EMU_LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define EMU_LANES _Pragma("GCC ivdep")
#endif

EMU_INLINE float emu_float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

EMU_INLINE uint32_t emu_bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

EMU_INLINE double emu_double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

EMU_INLINE uint64_t emu_bits_of_double(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The value of an f16, exactly; without multiplying subnormal numbers, which is slow. */
EMU_INLINE float emu_f16_to_float(uint32_t h) {
    uint32_t magnitude = h & 0x7fff, sign = (h & 0x8000) << 16;
    uint32_t normal = (magnitude << 13) + (112u << 23);
    uint32_t special = 0x7f800000 | magnitude << 13;
    uint32_t small = emu_bits_of((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t bits = magnitude >= 0x7c00 ? special : magnitude < 0x400 ? small : normal;
    return emu_float_of(bits | sign);
}

EMU_INLINE float emu_bf16_to_float(uint32_t h) {
    return emu_float_of(h << 16);
}

/* e4m3 (OCP 8-bit floating point, "fn"): no infinities, 0x7f is NaN, bias 7. */
EMU_INLINE float emu_e4m3_to_float(uint32_t b) {
    uint32_t magnitude = b & 0x7f, sign = (b & 0x80) << 24;
    uint32_t normal = (magnitude << 20) + (120u << 23);
    uint32_t small = emu_bits_of((float)(int32_t)magnitude * 0x1p-9f);
    uint32_t bits = magnitude == 0x7f ? 0x7fffffff : magnitude < 8 ? small : normal;
    return emu_float_of(bits | sign);
}

/* e5m2: the upper byte of an f16. */
EMU_INLINE float emu_e5m2_to_float(uint32_t b) {
    return emu_f16_to_float((b & 0xff) << 8);
}

#endif
