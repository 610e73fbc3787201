// What both attention kernels share: tiles, pages, masks, exp, and the merge of ranges.
//
// The constants before the include (attention.c): KV_HEADS, GROUP (query heads of one
// key/value head), HEAD_DIM, WINDOW (0: none), SCALE, SOFTCAP (0: none), KV_GROUP, Q_ROW_STRIDE,
// Q_HEAD_STRIDE, kv (the type of an element), QUANTIZED (kv is a code), PAGE_BYTES, TILE (tokens of a tile), SPLITS, and the functions
// queries(a), pool(a), scratch(a).
//
// A tile is TILE tokens of one sequence that follow each other in the step; a block works on one
// tile, one key/value head and, of the absolute ranges of 256 positions that the tile sees, every
// SPLITS-th. A row is a (token, query head of the key/value head): token * GROUP + head.
//
// For each row and range there is a partial result, m, l, o[HEAD_DIM], which is the same bits
// whatever else the tile holds. Ranges are merged in ascending order, from M = -inf, L = 0, O = 0
// (Dao et al. 2022, section 3.1; the result is O/L):
//
//     m' = max(M, m), a = weight(M - m'), b = weight(m - m')    (the kernel's: exp or exp2)
//     L = fma(l, b, L*a), O[d] = fma(o[d], b, O[d]*a), M = m'
//
// With SPLITS > 1 partial results go to global memory, and the last block of a tile and head to
// arrive merges them: so the bits do not depend on SPLITS either.
#pragma once
#include "program.cuh"

constexpr int RANGE = 256, PAGE = 16, RANGE_PAGES = RANGE / PAGE;

INLINE float negative_infinity() {
    return -bits_float(INFINITY_BITS);
}

// --- tiles ----------------------------------------------------------------------------------------

struct attention_tile {
    int first, tokens, seq;       // tokens first … first + tokens - 1
    int low, high;                // positions that any of them sees: [low, high); low may be below 0
    int all_low, all_high;        // that each of them sees: of find_tile<true>
    int first_range, ranges;      // absolute ranges that hold them
    int kv_head, split, splits;   // of `splits` blocks that work on the tile and the head; 0: none
    const int32 *pages;           // the sequence's row of the page table
    int n_pages;                  // of that row
};

INLINE bool is_split(const attention_tile &t) {
    return SPLITS > 1 && t.splits > 1;
}

// The first position that a token sees; below 0 where its window reaches so far.
INLINE int window_start(int position) {
    return WINDOW > 0 ? position - WINDOW + 1 : 0;
}

// The tile of this block: blockIdx.y counts the tiles of sequence after sequence, from the last one
// so that those which see most come first; blockIdx.x has the head and the split. The same in all
// lanes.
//
// ALL: with what each of the tokens sees.
template <bool ALL> INLINE attention_tile find_tile(const mcc_step *step) {
    attention_tile t = {};
    int index = gridDim.y - 1 - blockIdx.y;
    t.kv_head = blockIdx.x / SPLITS;
    t.split = blockIdx.x % SPLITS;
    t.n_pages = step->P;
    if (t.split * RANGE_PAGES >= t.n_pages)
        return t;
    const int32 *offsets = step_array(step, step->seq_offsets);
    int n_seqs = step->S, lane = lane_id();
    int base = 0;
    do { // a step has a sequence
        int seq = base + lane, begin = 0, tiles = 0;
        if (seq < n_seqs) {
            begin = __ldg(offsets + seq);
            tiles = (__ldg(offsets + seq + 1) - begin + TILE - 1) / TILE;
        }
        int upto = tiles; // of this lane's sequence and those before it
        for (int d = 1; d < 32; d *= 2) {
            int other = __shfl_up_sync(ALL_LANES, upto, d);
            upto += lane >= d ? other : 0;
        }
        uint32 after = __ballot_sync(ALL_LANES, index < upto);
        if (after) {
            int owner = __ffs(after) - 1;
            t.seq = base + owner;
            int within = index - __shfl_sync(ALL_LANES, upto - tiles, owner);
            t.first = __shfl_sync(ALL_LANES, begin, owner) + within * TILE;
            int left = __ldg(offsets + t.seq + 1) - t.first;
            t.tokens = left < TILE ? left : TILE;
            break;
        }
        index -= __shfl_sync(ALL_LANES, upto, 31);
    } while ((base += 32) < n_seqs);
    if (t.tokens == 0)
        return t;
    const int32 *positions = step_array(step, step->positions) + t.first;
    static_assert(TILE <= 32, "a token a lane");
    int position = __ldg(positions + min(lane, t.tokens - 1));
    int low = window_start(position), all_low = low, high = position + 1, all_high = high;
    for (int d = 16; d >= 1; d /= 2) {
        high = max(high, __shfl_xor_sync(ALL_LANES, high, d));
        if (WINDOW > 0)
            low = min(low, __shfl_xor_sync(ALL_LANES, low, d));
        if (ALL)
            all_high = min(all_high, __shfl_xor_sync(ALL_LANES, all_high, d));
        if (ALL && WINDOW > 0)
            all_low = max(all_low, __shfl_xor_sync(ALL_LANES, all_low, d));
    }
    t.low = low;
    t.high = high;
    t.all_low = all_low;
    t.all_high = all_high;
    t.first_range = max(low, 0) / RANGE;
    t.ranges = (high + RANGE - 1) / RANGE - t.first_range;
    t.splits = SPLITS == 1 ? 1 : min(t.ranges, SPLITS);
    t.pages = step_array(step, step->page_tables) +
              (static_cast<int64>(KV_GROUP) * step->S + t.seq) * t.n_pages;
    return t;
}

constexpr int64 HEAD_ELEMENTS = static_cast<int64>(HEAD_DIM) * PAGE;

// The tile's head's keys in page `index` of the sequence, [d][token]; the values, [token][d], lie
// KV_HEADS * HEAD_ELEMENTS behind. A page that the step does not have, which an engine never asks
// for, reads page 0 rather than what lies before the pool.
INLINE const kv *page_keys(const args &a, const attention_tile &t, int index) {
    int number = __ldg(t.pages + min(index, t.n_pages - 1));
    return reinterpret_cast<const kv *>(static_cast<const char *>(pool(a)) +
                                        max(number, 0) * PAGE_BYTES) +
           t.kv_head * HEAD_ELEMENTS;
}

// The f16 scales of the head's keys in a quantized page, given its keys; those of its values lie
// KV_HEADS * PAGE behind.
INLINE const uint16 *page_scales(const attention_tile &t, const kv *keys) {
    return reinterpret_cast<const uint16 *>(keys + (2 * KV_HEADS - t.kv_head) * HEAD_ELEMENTS) +
           t.kv_head * PAGE;
}

// What decoding a code leaves out: those of f8e4m3 are decoded to 2^-8 of themselves.
template <class T> constexpr float rest_of(T) {
    return 1.0f;
}
constexpr float rest_of(fp8_code) {
    return 256.0f;
}

INLINE const float *row_query(const args &a, const attention_tile &t, int row) {
    return queries(a) + (t.first + row / GROUP) * Q_ROW_STRIDE +
           (t.kv_head * GROUP + row % GROUP) * Q_HEAD_STRIDE;
}

// --- merging --------------------------------------------------------------------------------------

// A row's M and L, and what O and o are multiplied by when a range is merged.
struct attention_sum {
    float max, sum;
};

struct attention_weights {
    float old, now;
};

INLINE float weight(float x);

INLINE attention_weights merge_sums(attention_sum &s, float max, float sum) {
    float most = max > s.max ? max : s.max;
    attention_weights w = {weight(__fsub_rn(s.max, most)), weight(__fsub_rn(max, most))};
    s.sum = __fmaf_rn(sum, w.now, __fmul_rn(s.sum, w.old));
    s.max = most;
    return w;
}

INLINE float merge(const attention_weights &w, float old, float now) {
    return __fmaf_rn(now, w.now, __fmul_rn(old, w.old));
}

// --- partial results in global memory -----------------------------------------------------------

// Behind the counters, which are zero between launches: for each token of the step, key/value head
// and range of the sequence, o[GROUP][HEAD_DIM], then m and l [GROUP][2].
constexpr int COUNTER_BYTES = 16384, PARTIAL_FLOATS = GROUP * (HEAD_DIM + 2);

INLINE float *partial_result(const args &a, const attention_tile &t, int row, int range) {
    int64 most = (t.n_pages + RANGE_PAGES - 1) / RANGE_PAGES;
    int64 at = ((t.first + row / GROUP) * static_cast<int64>(KV_HEADS) + t.kv_head) * most + range;
    return reinterpret_cast<float *>(static_cast<char *>(scratch(a)) + COUNTER_BYTES) +
           at * PARTIAL_FLOATS;
}

// Called by the whole block when its partial results are stored: true in the block that came last,
// which then sees all of them.
INLINE bool last_to_arrive(const args &a, const attention_tile &t) {
    __shared__ uint32 arrived;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32 *counter = static_cast<uint32 *>(scratch(a)) + t.first * KV_HEADS + t.kv_head;
        arrived = atomicAdd(counter, 1u);
        if (arrived == t.splits - 1u)
            atomicExch(counter, 0u); // for the next launch
    }
    __syncthreads();
    bool last = arrived == t.splits - 1u;
    __threadfence();
    return last;
}

// --- the epilogue ---------------------------------------------------------------------------------

// The program on the tile's results, [row][stride] floats in shared memory; tmp: shared memory that
// nothing else uses now, tmp_floats for each warp.
template <class Program, int WARPS>
INLINE void attention_epilogue(const args &a, const attention_tile &t, const float *results,
                               int stride, float *tmp) {
    int rows = t.tokens * GROUP;
    if constexpr (Program::whole_rows) {
        for (int row = warp_id(); row < rows; row += WARPS)
            Program::row(a, t.first + row / GROUP, t.kv_head * GROUP + row % GROUP,
                           results + row * stride, tmp + warp_id() * Program::tmp_floats);
    } else {
        constexpr int CHUNKS = (HEAD_DIM + 31) / 32;
        int i = warp_id();
        if (GROUP * CHUNKS < WARPS && i >= rows * CHUNKS)
            return;
        do {
            int row = i / CHUNKS, column = i % CHUNKS * 32 + lane_id();
            bool valid = HEAD_DIM % 32 == 0 || column < HEAD_DIM;
            float v = valid ? results[row * stride + column] : 0.0f;
            Program::columns(a, t.first + row / GROUP, t.kv_head * GROUP + row % GROUP,
                               i % CHUNKS * 32, valid, v, 0.0f);
        } while ((i += WARPS) < rows * CHUNKS);
    }
}
