// Tensor cores on f16 with f32 sums, and what feeds them. Fragments as in mma.cuh.
#pragma once
#include "mma.cuh"

// c += a * b: a 16x16, b 16x8 of f16, c 16x8 of f32.
INLINE void mma_f16(float (&c)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// As ldmatrix4_transposed of mma.cuh, two matrices: a lane gets elements of column lane / 4, rows 2t
// and 2t+1, of each.
INLINE void ldmatrix2_transposed(uint32 (&d)[2], uint32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(d[0]), "=r"(d[1])
                 : "r"(address)
                 : "memory");
}

// 16 bytes, of which only `bytes` are read; the rest become 0.
INLINE void copy16_of(uint32 to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes)
                 : "memory");
}

INLINE void store_shared(uint32 to, uint32 v) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}

// low in the lower half
INLINE uint32 pack_f16(float low, float high) {
    uint32 packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Rows of `chunks` chunks of 16 bytes in shared memory, moved about within a row so that the same
// chunk of 8 rows that follow each other lies in different banks: where to find `chunk` of `row`.
template <int chunks> INLINE int swizzled(int row, int chunk) {
    constexpr int step = chunks % 8 == 0 ? 0 : chunks % 4 == 0 ? 1 : 2;
    constexpr int mask = chunks % 8 == 0 ? 7 : chunks % 4 == 0 ? 3 : chunks % 2 == 0 ? 1 : 0;
    return row * chunks + (chunk ^ (row >> step & mask));
}

// In bytes, of chunk even + odd, where even is an even number and odd 0 or 1, from that of chunk
// odd: one operation where `chunks` is a power of two.
template <int chunks> INLINE int swizzled_on(int bytes, int row, int odd, int even) {
    constexpr bool power = (chunks & (chunks - 1)) == 0;
    return power ? bytes ^ even * 16 : swizzled<chunks>(row, even + odd) * 16;
}
