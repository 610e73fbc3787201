// The rows anchor: row programs and nothing else. A block has WARPS warps.
#pragma once

#include "program.cuh"

// Programs one after another for the block's row, each with all heads: each sees what the ones
// before it wrote.
template <class Program, int WARPS> INLINE void whole_row(const args &a, int64 row) {
    float *tmp = reinterpret_cast<float *>(shared_memory);
    if constexpr (Program::heads == 1)
        Program::template group<WARPS, true>(a, row, 0, nullptr, tmp);
    else
        for (int head = warp_id(); head < Program::heads; head += WARPS)
            Program::row(a, row, head, nullptr, tmp + warp_id() * Program::tmp_floats);
}

template <int WARPS, class Program, class... Others>
INLINE void whole_rows(const args &a, int64 row) {
    whole_row<Program, WARPS>(a, row);
    if constexpr (sizeof...(Others) > 0) {
        __syncthreads();
        whole_rows<WARPS, Others...>(a, row);
    }
}

template <int WARPS, class... Programs> INLINE void rows_in_turn(const args &a, int64 n_rows) {
    const int64 row = blockIdx.x;
    if (row < n_rows)
        whole_rows<WARPS, Programs...>(a, row);
}

// Programs that do not see each other: a warp takes one head of one of them. EXACT: there are as many
// warps as heads.
template <int TMP_FLOATS, bool EXACT> INLINE void one_head(const args &, int64, int) {}

template <int TMP_FLOATS, bool EXACT, class Program, class... Others>
INLINE void one_head(const args &a, int64 row, int item) {
    float *tmp = reinterpret_cast<float *>(shared_memory) + warp_id() * TMP_FLOATS;
    if ((EXACT && sizeof...(Others) == 0) || item < Program::heads)
        Program::template group<1, true>(a, row, item, nullptr, tmp);
    else
        one_head<TMP_FLOATS, EXACT, Others...>(a, row, item - Program::heads);
}

template <int WARPS, int TMP_FLOATS, class... Programs>
INLINE void rows_by_head(const args &a, int64 n_rows) {
    const int64 row = blockIdx.x;
    if (row < n_rows)
        one_head<TMP_FLOATS, (Programs::heads + ...) % WARPS == 0, Programs...>(
            a, row, blockIdx.y * WARPS + warp_id());
}

// One program of single columns: a block takes CHUNK of them.
template <int WARPS, int CHUNK, class Program> INLINE void rows_by_column(const args &a,
                                                                          int64 n_rows) {
    const int64 row = blockIdx.x;
    if (row >= n_rows)
        return;
    constexpr int STEP = WARPS * 32, COLUMNS = Program::width < CHUNK ? Program::width : CHUNK;
    constexpr bool EXACT = Program::width % (Program::width < CHUNK ? STEP : CHUNK) == 0;
    constexpr bool WHOLE = Program::width % 32 == 0; // a warp has no lane beyond the last column
#pragma unroll
    for (int i = 0; i < (COLUMNS + STEP - 1) / STEP; i++) {
        const int col0 = blockIdx.y * CHUNK + i * STEP + warp_id() * 32;
        if (EXACT || !WHOLE || col0 < Program::width)
            Program::columns(a, row, 0, col0, WHOLE || col0 + lane_id() < Program::width, 0.0f,
                             0.0f);
    }
}
