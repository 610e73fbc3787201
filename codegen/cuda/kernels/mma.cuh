// Tensor-core and asynchronous-copy instructions, as functions. Fragment layouts: PTX ISA, "Matrix
// Fragments for mma.m16n8k*"; with g = lane / 4, t = lane % 4: A rows g and g+8, B column g, C rows
// g and g+8, columns 2t and 2t+1.
#pragma once
#include "common.cuh"

// --- mma ------------------------------------------------------------------------------------------

// d = a * b + c: a 16x32 of s8 (or u8), b 32x8 of s8, exact in s32.
template <bool SIGNED_A>
INLINE void mma_k32(int32 (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1, int32 c) {
    if (SIGNED_A)
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%10,%10,%10,%10};"
            : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c));
    else
        asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%10,%10,%10,%10};"
            : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c));
}

// The same over 16 k: a 16x16 of s8, b 16x8.
INLINE void mma_k16(int32 (&d)[4], uint32 a0, uint32 a1, uint32 b, int32 c) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%7,%7,%7,%7};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a0), "r"(a1), "r"(b), "r"(c));
}

// d += a * b over 32 k of e4m3 (from sm_89 on): a 16x32, b 32x8, d of f32.
INLINE void mma_e4m3(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// --- shared memory --------------------------------------------------------------------------------

INLINE uint32 shared_address(const void *p) {
    return static_cast<uint32>(__cvta_generic_to_shared(p));
}

// Four 8x8 matrices of 16-bit elements; lane 8j+i gives the address of row i of matrix j.
INLINE void ldmatrix4(uint32 (&d)[4], uint32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(address)
                 : "memory");
}

// The same, each matrix transposed.
INLINE void ldmatrix4_transposed(uint32 (&d)[4], uint32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(address)
                 : "memory");
}

// --- cp.async -------------------------------------------------------------------------------------

// 16 bytes, past the L1 cache; both addresses are multiples of 16.
INLINE void copy16(uint32 to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to),
                 "l"(__cvta_generic_to_global(from))
                 : "memory");
}

// The same where `there`; else zeros, and nothing is read.
INLINE void copy16(uint32 to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
                 : "memory");
}

INLINE void copy4(uint32 to, const void *from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(there ? 4 : 0)
                 : "memory");
}

INLINE void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most `left` of this thread's groups are in flight.
template <int left> INLINE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}
