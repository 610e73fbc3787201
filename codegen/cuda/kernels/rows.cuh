// The rows anchor: row programs and nothing else. A block has WARPS warps.
#pragma once

#include "program.cuh"

// Programs one after another for the block's row, each with all heads: each sees what the ones
// before it wrote.
template <class Program, int WARPS> INLINE void whole_row(const args &a, int64 row) {
    float *tmp = reinterpret_cast<float *>(shared_memory);
    if constexpr (Program::heads == 1)
        Program::template group<WARPS>(a, row, 0, nullptr, tmp);
    else
        for (int head = warp_id(); head < Program::heads; head += WARPS)
            Program::row(a, row, head, nullptr, tmp + warp_id() * Program::tmp_floats);
    __syncthreads();
}

template <int WARPS, class... Programs> INLINE void rows_in_turn(const args &a, int64 n_rows) {
    const int64 row = blockIdx.x;
    if (row < n_rows)
        (whole_row<Programs, WARPS>(a, row), ...);
}

// Programs that do not see each other: a warp takes one head of one of them.
template <int TMP_FLOATS> INLINE void one_head(const args &, int64, int) {}

template <int TMP_FLOATS, class Program, class... Others>
INLINE void one_head(const args &a, int64 row, int item) {
    float *tmp = reinterpret_cast<float *>(shared_memory) + warp_id() * TMP_FLOATS;
    if (item < Program::heads)
        Program::row(a, row, item, nullptr, tmp);
    else
        one_head<TMP_FLOATS, Others...>(a, row, item - Program::heads);
}

template <int WARPS, int TMP_FLOATS, class... Programs>
INLINE void rows_by_head(const args &a, int64 n_rows) {
    const int64 row = blockIdx.x;
    if (row < n_rows)
        one_head<TMP_FLOATS, Programs...>(a, row, blockIdx.y * WARPS + warp_id());
}

// One program of single columns: a block takes CHUNK of them.
template <int WARPS, int CHUNK, class Program> INLINE void rows_by_column(const args &a,
                                                                          int64 n_rows) {
    const int64 row = blockIdx.x;
    if (row >= n_rows)
        return;
    const int begin = blockIdx.y * CHUNK;
#pragma unroll
    for (int col0 = begin + warp_id() * 32; col0 < begin + CHUNK; col0 += WARPS * 32)
        if (col0 < Program::width)
            Program::columns(a, row, 0, col0, col0 + lane_id() < Program::width, 0.0f, 0.0f);
}
