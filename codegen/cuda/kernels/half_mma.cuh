// Tensor cores on f16 or bf16, by type: c += a * b, a 16x16, b 16x8, c 16x8 of f32. Fragments as in
// mma.cuh.
#pragma once
#include "mma_f16.cuh"

template <class T> struct half_mma;
template <> struct half_mma<f16> {
    static __device__ __forceinline__ void run(float (&c)[4], const uint32 (&a)[4], uint32 b0,
                                               uint32 b1) {
        mma_f16(c, a, b0, b1);
    }
};
template <> struct half_mma<bf16> {
    static __device__ __forceinline__ void run(float (&c)[4], const uint32 (&a)[4], uint32 b0,
                                               uint32 b1) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};
