// The rows of x that a matmul's prologue computes, once for a matmul of many rows: the first of two
// functions. A block computes a row, to scratch memory behind the counters.
#pragma once
#include "program.cuh"

constexpr int64 X_SCRATCH = 16384; // MCC_CUDA_COUNTER_BYTES

template <int WARPS, int64 ROW_BYTES> struct prologue_rows {
    static constexpr int SHARED_BYTES = prologue::tmp_floats * 4;

    static __device__ __forceinline__ void run(const args &a, const uint8 *, const uint8 *,
                                               int64 rows) {
        int64 row = blockIdx.x;
        if (row < rows)
            prologue::group<WARPS, true>(a, row, static_cast<uint8 *>(a.scratch) + X_SCRATCH +
                                               row * ROW_BYTES,
                                   reinterpret_cast<float *>(shared_memory));
    }
};
