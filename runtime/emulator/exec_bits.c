/* Integer instructions that work on bits: lop3, prmt, fields, shifts of pairs, dot products, and
 * arithmetic with a carry. */
#include "runtime/emulator/exec_state.h"

/* d = EXPR with x, y, z of a, b, c; words. */
#define WORDS3(NAME, EXPR)                                                                         \
    EMU_CLONES static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                \
        const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b), *c = emu_src(w, op->c);     \
        uint32_t *d = emu_dst(w, op->d);                                                           \
        EMU_LANES for (int i = 0; i < 32; i++) {                                                   \
            uint32_t x = a[i], y = b[i], z = c[i], v = (EXPR);                                     \
            d[i] = mask >> i & 1 ? v : d[i];                                                       \
        }                                                                                          \
        return EMU_NEXT;                                                                           \
    }

/* The sum of the minterms that op->sub, the table, names (PTX ISA, lop3): bit 4 x + 2 y + z. */
EMU_CLONES static emu_next lop3(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b), *c = emu_src(w, op->c);
    uint32_t *d = emu_dst(w, op->d);
    uint32_t m[8];
    for (int t = 0; t < 8; t++)
        m[t] = op->sub >> t & 1 ? EMU_FULL : 0;
    EMU_LANES
    for (int i = 0; i < 32; i++) {
        uint32_t x = a[i], y = b[i], z = c[i];
        uint32_t y0 = (~z & m[0]) | (z & m[1]), y1 = (~z & m[2]) | (z & m[3]);
        uint32_t y2 = (~z & m[4]) | (z & m[5]), y3 = (~z & m[6]) | (z & m[7]);
        uint32_t x0 = (~y & y0) | (y & y1), x1 = (~y & y2) | (y & y3);
        uint32_t v = (~x & x0) | (x & x1);
        d[i] = mask >> i & 1 ? v : d[i];
    }
    return EMU_NEXT;
}
WORDS3(lop3_and_or, (x & y) | z)  /* 0xea */
WORDS3(lop3_and_xor, (x & y) ^ z) /* 0x6a */
WORDS3(lop3_xor, x ^ y ^ z)       /* 0x96 */
WORDS3(lop3_or, x | y | z)        /* 0xfe */
WORDS3(lop3_and, x &y &z)         /* 0x80 */

/* prmt without a mode: each selector nibble takes a byte of y:x, or its sign eight times. */
EMU_INLINE uint32_t permute(uint32_t x, uint32_t y, uint32_t z) {
    uint64_t both = (uint64_t)y << 32 | x;
    uint32_t v = 0;
    for (uint32_t k = 0; k < 4; k++) {
        uint32_t s = z >> (4 * k) & 15, byte = (uint32_t)(both >> (8 * (s & 7))) & 0xff;
        v |= (s & 8 ? (byte & 0x80 ? 0xffu : 0) : byte) << (8 * k);
    }
    return v;
}
WORDS3(prmt, permute(x, y, z))

/* The selector that a mode of prmt stands for: f4e, b4e, rc8, ecl, ecr, rc16 as 1 … 6. */
EMU_INLINE uint32_t mode_selector(uint32_t mode, uint32_t z) {
    uint32_t i = z & 3, v = 0;
    for (uint32_t k = 0; k < 4; k++) {
        uint32_t s = 0;
        if (mode == 1)
            s = i + k;
        else if (mode == 2)
            s = (i + 8 - k) & 7;
        else if (mode == 3)
            s = i;
        else if (mode == 4)
            s = k < i ? i : k;
        else if (mode == 5)
            s = k < i ? k : i;
        else
            s = (i & 1) * 2 + (k & 1);
        v |= s << (4 * k);
    }
    return v;
}
static emu_next prmt_mode(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b), *c = emu_src(w, op->c);
    uint32_t v[32];
    for (int i = 0; i < 32; i++)
        v[i] = permute(a[i], b[i], mode_selector(op->sub, c[i]));
    emu_blend(emu_dst(w, op->d), v, mask);
    return EMU_NEXT;
}

WORDS3(shf_l_wrap, (uint32_t)(((uint64_t)y << 32 | x) << (z & 31) >> 32))
WORDS3(shf_l_clamp, z > 31 ? x : (uint32_t)(((uint64_t)y << 32 | x) << (z & 31) >> 32))
WORDS3(shf_r_wrap, (uint32_t)(((uint64_t)y << 32 | x) >> (z & 31)))
WORDS3(shf_r_clamp, z > 31 ? y : (uint32_t)(((uint64_t)y << 32 | x) >> (z & 31)))

/* Fields: position and length from the low bytes of b and c. */
WORDS3(bfe_u32,
       (y & 255) > 31 ? 0 : (x >> (y & 31)) & ((z & 255) > 31 ? EMU_FULL : (1u << (z & 31)) - 1))

static emu_next bfe(emu_warp *w, const emu_op *op, uint32_t mask) {
    bool wide = op->width == 64;
    uint32_t bits = wide ? 64 : 32;
    const uint32_t *b = emu_src(w, op->b), *c = emu_src(w, op->c);
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        uint64_t x = wide ? emu_src64(w, op->a)[i] : emu_src(w, op->a)[i];
        uint32_t at = b[i] & 255, n = c[i] & 255;
        uint32_t top = at + n - 1 < bits - 1 ? at + n - 1 : bits - 1;
        uint64_t sign = op->sign && n ? x >> top & 1 : 0;
        uint64_t v = at < bits ? x >> at : 0;
        uint32_t valid = at >= bits ? 0 : n < bits - at ? n : bits - at;
        uint64_t keep = valid > 63 ? UINT64_MAX : (UINT64_C(1) << valid) - 1;
        v = (v & keep) | (sign ? ~keep : 0);
        if (wide)
            emu_dst64(w, op->d)[i] = v;
        else
            emu_dst(w, op->d)[i] = (uint32_t)v;
    }
    return EMU_NEXT;
}

/* bfi d, a, b, position, length: list = position, length. */
static emu_next bfi(emu_warp *w, const emu_op *op, uint32_t mask) {
    bool wide = op->width == 64;
    uint32_t bits = wide ? 64 : 32;
    const uint32_t *position = emu_src(w, op->list[0]), *length = emu_src(w, op->list[1]);
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        uint64_t x = wide ? emu_src64(w, op->a)[i] : emu_src(w, op->a)[i];
        uint64_t y = wide ? emu_src64(w, op->b)[i] : emu_src(w, op->b)[i];
        uint32_t at = position[i] & 255, n = length[i] & 255;
        uint64_t field = n > 63 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
        uint64_t v = at < bits ? (y & ~(field << at)) | (x & field) << at : y;
        if (wide)
            emu_dst64(w, op->d)[i] = v;
        else
            emu_dst(w, op->d)[i] = (uint32_t)v;
    }
    return EMU_NEXT;
}

/* Counts: of words or double words, to words. */
#define COUNT(NAME, EXPR32, EXPR64)                                                                \
    static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                           \
        uint32_t v[32];                                                                            \
        if (op->width == 64) {                                                                     \
            for (int i = 0; i < 32; i++) {                                                         \
                uint64_t x = emu_src64(w, op->a)[i];                                               \
                v[i] = (uint32_t)(EXPR64);                                                         \
            }                                                                                      \
        } else {                                                                                   \
            for (int i = 0; i < 32; i++) {                                                         \
                uint32_t x = emu_src(w, op->a)[i];                                                 \
                v[i] = (uint32_t)(EXPR32);                                                         \
            }                                                                                      \
        }                                                                                          \
        emu_blend(emu_dst(w, op->d), v, mask);                                                     \
        return EMU_NEXT;                                                                           \
    }
COUNT(popc, __builtin_popcount(x), __builtin_popcountll(x))
COUNT(clz, x ? __builtin_clz(x) : 32, x ? __builtin_clzll(x) : 64)

/* bfind: the highest bit that differs from the sign; all ones where there is none. */
EMU_INLINE uint32_t find_bit(uint64_t x, uint32_t bits, bool sign, bool shift) {
    if (sign && x >> (bits - 1) & 1)
        x = ~x & (bits == 64 ? UINT64_MAX : 0xffffffffu);
    if (!x)
        return UINT32_MAX;
    uint32_t at = 63 - (uint32_t)__builtin_clzll(x);
    return shift ? bits - 1 - at : at;
}
COUNT(bfind, find_bit(x, 32, op->sign, op->sub), find_bit(x, 64, op->sign, op->sub))

EMU_INLINE uint64_t reverse(uint64_t x) {
    x = (x >> 1 & UINT64_C(0x5555555555555555)) | (x & UINT64_C(0x5555555555555555)) << 1;
    x = (x >> 2 & UINT64_C(0x3333333333333333)) | (x & UINT64_C(0x3333333333333333)) << 2;
    x = (x >> 4 & UINT64_C(0x0f0f0f0f0f0f0f0f)) | (x & UINT64_C(0x0f0f0f0f0f0f0f0f)) << 4;
    return __builtin_bswap64(x);
}
COUNT(brev_b32, reverse(x) >> 32, reverse(x))
static emu_next brev_b64(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint64_t v[32];
    for (int i = 0; i < 32; i++)
        v[i] = reverse(emu_src64(w, op->a)[i]);
    emu_blend64(emu_dst64(w, op->d), v, mask);
    return EMU_NEXT;
}

/* dp4a, dp2a: sub bit 0: a is signed, bit 1: b is; dp2a.hi takes b's upper half. */
EMU_INLINE uint32_t byte_of(uint32_t x, uint32_t k, bool sign) {
    uint32_t byte = x >> (8 * k) & 0xff;
    return sign ? (uint32_t)(int32_t)(int8_t)byte : byte;
}
EMU_INLINE uint32_t dot4(uint32_t x, uint32_t y, uint32_t z, bool sx, bool sy) {
    for (uint32_t k = 0; k < 4; k++)
        z += byte_of(x, k, sx) * byte_of(y, k, sy);
    return z;
}
WORDS3(dp4a_uu, dot4(x, y, z, false, false))
WORDS3(dp4a_su, dot4(x, y, z, true, false))
WORDS3(dp4a_us, dot4(x, y, z, false, true))
WORDS3(dp4a_ss, dot4(x, y, z, true, true))
EMU_INLINE uint32_t dot2(uint32_t x, uint32_t y, uint32_t z, uint32_t sub, uint32_t high) {
    for (uint32_t k = 0; k < 2; k++) {
        uint32_t half = x >> (16 * k) & 0xffff;
        half = sub & 1 ? (uint32_t)(int32_t)(int16_t)half : half;
        z += half * byte_of(y, k + 2 * high, sub & 2);
    }
    return z;
}
WORDS3(dp2a, dot2(x, y, z, op->sub, op->round))

/* --- with a carry -------------------------------------------------------------------------------
 * flags: 1 takes the carry (borrow), 2 sets it. sub: 0 add, 1 subtract, 2 mad.lo, 3 mad.hi. */
static emu_next carry32(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b), *c = emu_src(w, op->c);
    uint32_t *d = emu_dst(w, op->d), out = 0, in = op->flags & 1 ? w->carry : 0;
    for (int i = 0; i < 32; i++) {
        uint64_t carry = in >> i & 1, v, x = a[i], y = b[i];
        if (op->sub >= 2) {
            uint64_t product =
                op->sign ? (uint64_t)((int64_t)(int32_t)a[i] * (int32_t)b[i]) : x * y;
            x = op->sub == 2 ? (uint32_t)product : product >> 32 & EMU_FULL;
            y = c[i];
        }
        v = op->sub == 1 ? x - y - carry : x + y + carry;
        out |= (uint32_t)(v >> 32 & 1) << i;
        if (mask >> i & 1)
            d[i] = (uint32_t)v;
    }
    if (op->flags & 2)
        w->carry = (w->carry & ~mask) | (out & mask);
    return EMU_NEXT;
}
__extension__ typedef unsigned __int128 u128;
static emu_next carry64(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint64_t *a = emu_src64(w, op->a), *b = emu_src64(w, op->b), *c = emu_src64(w, op->c);
    uint64_t *d = emu_dst64(w, op->d);
    uint32_t out = 0, in = op->flags & 1 ? w->carry : 0;
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        u128 x = a[i], y = b[i];
        if (op->sub >= 2) {
            u128 product = x * y;
            x = op->sub == 2 ? (uint64_t)product : (uint64_t)(product >> 64);
            y = c[i];
        }
        u128 v = op->sub == 1 ? x - y - (in >> i & 1) : x + y + (in >> i & 1);
        out |= (uint32_t)(v >> 64 & 1) << i;
        d[i] = (uint64_t)v;
    }
    if (op->flags & 2)
        w->carry = (w->carry & ~mask) | (out & mask);
    return EMU_NEXT;
}

const emu_handler emu_bits_handlers[] = {
    {"lop3", lop3},
    {"lop3.and_or", lop3_and_or},
    {"lop3.and_xor", lop3_and_xor},
    {"lop3.xor", lop3_xor},
    {"lop3.or", lop3_or},
    {"lop3.and", lop3_and},
    {"prmt", prmt},
    {"prmt.mode", prmt_mode},
    {"shf.l.wrap", shf_l_wrap},
    {"shf.l.clamp", shf_l_clamp},
    {"shf.r.wrap", shf_r_wrap},
    {"shf.r.clamp", shf_r_clamp},
    {"bfe.u32", bfe_u32},
    {"bfe", bfe},
    {"bfi", bfi},
    {"popc", popc},
    {"clz", clz},
    {"bfind", bfind},
    {"brev.b32", brev_b32},
    {"brev.b64", brev_b64},
    {"dp4a.uu", dp4a_uu},
    {"dp4a.su", dp4a_su},
    {"dp4a.us", dp4a_us},
    {"dp4a.ss", dp4a_ss},
    {"dp2a", dp2a},
    {"carry.b32", carry32},
    {"carry.b64", carry64},
    {NULL, NULL},
};
