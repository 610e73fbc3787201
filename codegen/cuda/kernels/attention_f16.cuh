// Attention on tensor cores, over pages of f16 or quantized ones; the size of a head is a multiple of
// 16.
//
// Rows are packed into tiles of 16 (m16n8k16). Per row and range of 256 positions:
//
//     s[p] = q . k[p]                  q as the sum of two f16: two products, d ascending by 16;
//                                      quantized: k[p] are codes, and the sum is times k's scale;
//                                      with a soft cap, cap(s[p] * scale)
//     m = max s, times unit            unit = scale * log2(e), or log2(e)
//     e[p] = exp2(s[p] * unit - m)     rounded to f16 for the product with v
//     l = sum of e[p]                  in an order that only p decides
//     o[d] = sum of e[p]*v[p][d]       p ascending by 16; quantized: v is rounded to f16
//
// The order is the same whatever the tile's other rows are, and adding what they see and this row
// does not is adding 0. So all values of a tile's positions must be finite; what lies at positions
// that none of its rows sees may be anything.
//
// A block has four warps. For q.k each takes 64 positions of the range, for e.v a quarter of the
// columns; e goes from one to the other through shared memory. Keys and values come in slices
// through a ring of STAGES buffers: K_SLICES slices of 256 positions and SLICE_DIM columns, then
// V_SLICES of SLICE_TOKENS positions and all columns. Pages that the tile does not see are neither
// loaded nor multiplied.
//
// Constants beside those of attention.cuh: M_TILES, of 16 rows each; THREADS, SHARED_BYTES.
#pragma once
#include "attention.cuh"
#include "attention_chunk.cuh"

constexpr int WARPS = 4, STAGES = 3, ROWS = 16 * M_TILES;
static_assert(THREADS == WARPS * 32 && TILE * GROUP <= ROWS && HEAD_DIM % 16 == 0, "attention.c");

constexpr int SLICE_DIM = HEAD_DIM % 32 ? 16 : 32, K_SLICES = HEAD_DIM / SLICE_DIM;
constexpr int slice_tokens(int tokens) {
    return tokens * HEAD_DIM * 2 <= 16384 ? tokens : slice_tokens(tokens / 2);
}
constexpr int SLICE_TOKENS = slice_tokens(RANGE), V_SLICES = RANGE / SLICE_TOKENS;
constexpr int SLICES = K_SLICES + V_SLICES;
constexpr int K_BYTES = RANGE * SLICE_DIM * 2, V_BYTES = SLICE_TOKENS * HEAD_DIM * 2;
constexpr int STAGE_BYTES = K_BYTES > V_BYTES ? K_BYTES : V_BYTES;
constexpr int CHUNKS = HEAD_DIM / 8; // of 16 bytes in a row of q or v
// n8 tiles of the columns, and how many a warp takes
constexpr int N_TILES = HEAD_DIM / 8, WARP_TILES = (N_TILES + WARPS - 1) / WARPS;
constexpr bool ALL_TILES = N_TILES == WARPS * WARP_TILES;
// of them loaded together
constexpr int VALUE_TILES = ALL_TILES && WARP_TILES % 2 == 0 ? 2 : 1;
constexpr int WARP_PAGES = RANGE_PAGES / WARPS;
constexpr int SLICE_PAGES = SLICE_TOKENS / PAGE;
// No token sees all positions of a warp.
constexpr bool NEVER_ALL = WINDOW > 0 && WINDOW < WARP_PAGES * PAGE;
constexpr uint32 WARP_MASK = (1u << WARP_PAGES) - 1, SLICE_MASK = (1u << SLICE_PAGES) - 1;
constexpr int RESULT_STRIDE = HEAD_DIM + 8; // 4 rows of 32 bytes lie in different banks

struct attention_f16_shared {
    uint8 stages[STAGES][STAGE_BYTES]; // at the end the results, [row][d] f32
    uint16 query[2][ROWS * HEAD_DIM];  // high and low part, swizzled
    uint16 weights[ROWS * RANGE];      // e, swizzled
    float max[WARPS][ROWS], sum[WARPS][ROWS];
    float unit[ROWS];          // of scores in base 2, what q was multiplied by taken back
    int begin[ROWS], end[ROWS]; // positions that the row sees
    // of this turn's range and the next: the tile's head's keys in each page, null where the tile
    // sees nothing of it
    const kv *pages[2][RANGE_PAGES];
};

static_assert(sizeof(attention_f16_shared) <= SHARED_BYTES, "attention.c");
static_assert(ROWS * RESULT_STRIDE * 4 <= STAGES * STAGE_BYTES, "results in place of slices");

INLINE attention_f16_shared &attention_shared() {
    return *reinterpret_cast<attention_f16_shared *>(shared_memory);
}

constexpr float LOG2_E = 1.4426950408889634f;

// 2^x, within 2 units of the last place; 0 below -126
INLINE float weight(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// --- queries --------------------------------------------------------------------------------------

// x as a sum of two f16, 22 bits of it
INLINE void split_f16(float x, float y, uint32 &high, uint32 &low) {
    high = pack_f16(x, y);
    low = pack_f16(__fsub_rn(x, f16_to_f32(static_cast<uint16>(high))),
                   __fsub_rn(y, f16_to_f32(static_cast<uint16>(high >> 16))));
}

// The power of two that brings a row's largest magnitude, given as bits, to 2^13 … 2^14, so that
// the f16 parts neither overflow nor lose bits. Infinities and NaNs stay what they are.
INLINE uint32 query_exponent(uint32 most) {
    uint32 exponent = most >> 23;
    return min(267 - exponent, 253u); // neither it nor what takes it back overflows
}

INLINE void load_queries(const args &a, const attention_tile &t) {
    constexpr int LANES = CHUNKS > 16 ? 32 : CHUNKS > 8 ? 16 : CHUNKS > 4 ? 8 : CHUNKS > 2 ? 4 : 2;
    attention_f16_shared &s = attention_shared();
    int chunk = threadIdx.x % LANES;
    for (int first = 0; first < ROWS; first += THREADS / LANES) {
        int row = first + threadIdx.x / LANES;
        bool in_row = CHUNKS == LANES || chunk < CHUNKS;
        bool valid = row < t.tokens * GROUP && in_row;
        float x[8] = {};
        if (valid) {
            const float *q = row_query(a, t, row) + chunk * 8;
            if constexpr (Q_ROW_STRIDE % 4 == 0 && Q_HEAD_STRIDE % 4 == 0 && Q_OFFSET % 4 == 0) {
                *reinterpret_cast<float4 *>(x) = *reinterpret_cast<const float4 *>(q);
                *reinterpret_cast<float4 *>(x + 4) = *reinterpret_cast<const float4 *>(q + 4);
            } else {
#pragma unroll
                for (int i = 0; i < 8; i++)
                    x[i] = q[i];
            }
        }
        uint32 most = 0;
#pragma unroll
        for (int i = 0; i < 8; i++)
            most = max(most, float_bits(x[i]) & 0x7fffffffu);
        for (int d = LANES / 2; d >= 1; d /= 2)
            most = max(most, __shfl_xor_sync(ALL_LANES, most, d));
        uint32 exponent = query_exponent(most);
        float factor = bits_float(exponent << 23);
        uint4 high, low;
        split_f16(__fmul_rn(x[0], factor), __fmul_rn(x[1], factor), high.x, low.x);
        split_f16(__fmul_rn(x[2], factor), __fmul_rn(x[3], factor), high.y, low.y);
        split_f16(__fmul_rn(x[4], factor), __fmul_rn(x[5], factor), high.z, low.z);
        split_f16(__fmul_rn(x[6], factor), __fmul_rn(x[7], factor), high.w, low.w);
        if (ROWS % (THREADS / LANES) != 0 && row >= ROWS)
            continue;
        if (in_row) {
            int at = swizzled<CHUNKS>(row, chunk);
            reinterpret_cast<uint4 *>(s.query[0])[at] = high;
            reinterpret_cast<uint4 *>(s.query[1])[at] = low;
        }
        if (chunk == 0)
            s.unit[row] = __fmul_rn(SOFTCAP == 0 ? SCALE * LOG2_E : SCALE,
                                    bits_float((254 - exponent) << 23));
    }
}

// --- slices ---------------------------------------------------------------------------------------

// A turn is one of the block's ranges.
INLINE int first_position(const attention_tile &t, int turn) {
    return (t.first_range + t.split + turn * SPLITS) * RANGE;
}

INLINE void find_pages(const args &a, const attention_tile &t, int turn) {
    int position = first_position(t, turn) + threadIdx.x * PAGE;
    if (threadIdx.x < RANGE_PAGES)
        attention_shared().pages[turn & 1][threadIdx.x] =
            position < t.high && (WINDOW == 0 || position + PAGE > t.low)
                ? page_keys(a, t, position / PAGE)
                : nullptr;
}

// The pages of a range that the tile sees, as bits.
INLINE uint32 pages_seen(const attention_tile &t, int start) {
    int begin = WINDOW == 0 ? 0 : max(t.low - start, 0) / PAGE;
    int end = min(t.high - start + PAGE - 1, RANGE) / PAGE;
    return (1u << end) - (1u << begin);
}

// Slice `slice` of keys: [page][d][token], where the halves of a [token] row change places every
// four d, so that 8 d that follow each other lie in different banks.
INLINE int key_chunk(int d, int half) {
    return d * 2 + (half ^ (d >> 2 & 1));
}

INLINE void load_keys(const attention_tile &t, const kv *const *pages, int start, int slice,
                      uint32 to) {
    constexpr int PER_PAGE = SLICE_DIM * 2, STEP = THREADS / PER_PAGE; // chunks, pages
    int inner = threadIdx.x % PER_PAGE, first = threadIdx.x / PER_PAGE;
    int left = t.high - start - first * PAGE - inner % 2 * 8; // others may not have been written
    int from = slice * (SLICE_DIM * PAGE) + inner * 8;
    to += first * (PER_PAGE * 16) + key_chunk(inner / 2, inner % 2) * 16;
    pages += first;
#pragma unroll
    for (int i = 0; i < RANGE_PAGES / STEP; i++) {
        const kv *keys = pages[i * STEP];
        int tokens = min(max(left - i * (STEP * PAGE), 0), 8);
        if (keys)
            load_chunk(to + i * (THREADS * 16), keys + from, tokens);
    }
}

// All chunks of a slice of values, a thread those whose numbers are its own modulo THREADS.
INLINE void load_values(const attention_tile &t, const kv *const *pages, int start, int slice,
                        uint32 to) {
    constexpr int ALL = SLICE_TOKENS * CHUNKS, STEP = THREADS / CHUNKS; // tokens
    // the thread's tokens of different swizzles
    constexpr int KEYS = STEP < 8 ? 8 / STEP : 1;
    int token = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    uint32 above = start + slice * SLICE_TOKENS + token - t.low, seen = t.high - t.low;
    uint32 places[KEYS];
#pragma unroll
    for (int i = 0; i < KEYS; i++)
        places[i] = to + swizzled<CHUNKS>(i * STEP + token, chunk) * 16 - i * (THREADS * 16);
    pages += slice * SLICE_PAGES + token / PAGE;
    int from = (KV_HEADS * PAGE + token % PAGE) * HEAD_DIM + chunk * 8;
#pragma unroll
    for (int i = 0; i < ALL / THREADS; i++) {
        const kv *keys = pages[i * STEP / PAGE];
        if (keys)
            load_values_chunk(places[i % KEYS] + i * (THREADS * 16),
                              keys + from + i * STEP % PAGE * HEAD_DIM,
                              value_scale(t, keys, (token + i * STEP) % PAGE),
                              above + i * STEP < seen); // others may hold anything
    }
}

// The same where THREADS is no multiple of a row's chunks.
INLINE void load_odd_values(const attention_tile &t, const kv *const *pages, int start, int slice,
                            uint32 to) {
    constexpr int ALL = SLICE_TOKENS * CHUNKS;
    uint32 above = start + slice * SLICE_TOKENS - t.low, seen = t.high - t.low;
    pages += slice * SLICE_PAGES;
    for (int at = threadIdx.x; at < ALL; at += THREADS) {
        int token = at / CHUNKS, chunk = at % CHUNKS;
        const kv *keys = pages[token / PAGE];
        if (keys)
            load_values_chunk(to + swizzled<CHUNKS>(token, chunk) * 16,
                              keys + (KV_HEADS * PAGE + token % PAGE) * HEAD_DIM + chunk * 8,
                              value_scale(t, keys, token % PAGE), above + token < seen);
    }
}

// Slice `slice` of a range; KEYS, VALUES: it may be one of these.
template <bool KEYS, bool VALUES>
INLINE void load_slice(const attention_tile &t, const kv *const *pages, int start, int slice,
                       uint32 to) {
    if (!VALUES || (KEYS && slice < K_SLICES))
        load_keys(t, pages, start, slice, to);
    else if constexpr (THREADS % CHUNKS == 0)
        load_values(t, pages, start, slice - K_SLICES, to);
    else
        load_odd_values(t, pages, start, slice - K_SLICES, to);
}

// Asks for the first slices, a group of copies each.
INLINE void load_first_slices(const attention_tile &t) {
    static_assert(STAGES - 1 <= SLICES, "they are in the first range");
    const attention_f16_shared &s = attention_shared();
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        load_slice<true, true>(t, s.pages[0], first_position(t, 0), i, shared_address(s.stages[i]));
        copy_commit();
    }
}

// Whether of n slices from `first` on, counted on into the next range, some hold keys, or values.
constexpr bool some_hold(bool keys, int first, int n) {
    for (int i = first; i < first + n; i++)
        if ((i % SLICES < K_SLICES) == keys)
            return true;
    return false;
}

// A turn's slice `slice` of keys or of values has come, in all threads: its address. The one before
// it may be overwritten: asks for the slice STAGES - 1 further on, of the next turn if there is one
// (more); in any case a group of copies. taken: slices of all turns so far.
template <bool KEYS>
INLINE uint32 next_slice(const attention_tile &t, int turn, bool more, int slice, int &taken) {
    constexpr int FIRST = (KEYS ? 0 : K_SLICES) + STAGES - 1, N = KEYS ? K_SLICES : V_SLICES;
    const attention_f16_shared &s = attention_shared();
    copy_wait<STAGES - 2>();
    __syncthreads();
    bool next_turn = FIRST >= SLICES || (FIRST + N > SLICES && FIRST + slice >= SLICES);
    if (!next_turn || more)
        load_slice<some_hold(true, FIRST, N), some_hold(false, FIRST, N)>(
            t, s.pages[(turn + next_turn) & 1], first_position(t, turn + next_turn),
            FIRST + slice - (next_turn ? SLICES : 0),
            shared_address(s.stages[(taken + STAGES - 1) % STAGES]));
    copy_commit();
    return shared_address(s.stages[taken++ % STAGES]);
}

// --- where a lane's matrix rows lie ---------------------------------------------------------------

// In bytes. Rows 8j … 8j + 7 of ldmatrix are those of lanes 8j …: a lane's row in a 16x16 part is
// lane % 16, its half of 8 columns lane / 16.
struct attention_lane {
    int query, weights; // first columns of the first tile
    int keys;           // first d of the warp's first page
    int values[WARP_TILES / VALUE_TILES]; // first token, of each column tile or pair of them
};

INLINE attention_lane find_lane() {
    int row = lane_id() & 15, half = lane_id() >> 4;
    attention_lane l;
    l.query = swizzled<CHUNKS>(row, half) * 16;
    l.weights = swizzled<RANGE / 8>(row, half) * 16;
    l.keys = warp_id() * (WARP_PAGES * SLICE_DIM * PAGE * 2) + key_chunk(row, half) * 16;
#pragma unroll
    for (int n = 0; n < WARP_TILES / VALUE_TILES; n++)
        l.values[n] = swizzled<CHUNKS>(row, warp_id() * WARP_TILES + n * VALUE_TILES +
                                                (VALUE_TILES == 2 ? half : 0)) *
                      16;
    return l;
}

// --- scores ---------------------------------------------------------------------------------------

typedef float attention_scores[M_TILES][WARP_PAGES * 2][4]; // of the warp's positions

// seen: the warp's pages; ALL: they all are, and nothing branches.
template <bool ALL>
INLINE void add_scores(const attention_lane &l, uint32 seen, int slice, uint32 keys,
                       attention_scores &scores) {
    const attention_f16_shared &s = attention_shared();
#pragma unroll
    for (int k = 0; k < SLICE_DIM / 16; k++) {
        uint32 b[WARP_PAGES][4]; // d 0 … 7 and 8 … 15 of a page's first 8 tokens, then of the others
#pragma unroll
        for (int p = 0; p < WARP_PAGES; p++)
            if (ALL || seen >> p & 1)
                ldmatrix4_transposed(b[p], keys + l.keys + (p * SLICE_DIM + k * 16) * (PAGE * 2));
        int at = swizzled_on<CHUNKS>(l.query, lane_id() & 15, lane_id() >> 4,
                                     (slice * SLICE_DIM + k * 16) / 8);
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            uint32 high[4], low[4];
            ldmatrix4(high, shared_address(s.query[0]) + at + m * (16 * HEAD_DIM * 2));
            ldmatrix4(low, shared_address(s.query[1]) + at + m * (16 * HEAD_DIM * 2));
#pragma unroll
            for (int p = 0; p < WARP_PAGES; p++)
                if (ALL || seen >> p & 1) {
                    mma_f16(scores[m][2 * p], high, b[p][0], b[p][1]);
                    mma_f16(scores[m][2 * p + 1], high, b[p][2], b[p][3]);
                    mma_f16(scores[m][2 * p], low, b[p][0], b[p][1]);
                    mma_f16(scores[m][2 * p + 1], low, b[p][2], b[p][3]);
                }
        }
    }
}

// --- softmax --------------------------------------------------------------------------------------

// cap * tanh(score / cap), within 2^-20 of cap: 1 - 2t / (1 + t) with t = exp(-2|x|)
INLINE float capped(float score) {
    if (SOFTCAP == 0)
        return score;
    float t = weight(__fmul_rn(magnitude(score), -2.0f * LOG2_E / SOFTCAP));
    float r, d = __fadd_rn(1.0f, t); // 1 … 2
    asm("rcp.approx.f32 %0, %1;" : "=f"(r) : "f"(d));
    float q = __fmaf_rn(__fmul_rn(-2.0f, t), r, 1.0f);
    return copy_sign(__fmul_rn(SOFTCAP, q), score);
}

INLINE float most_of_four(float x) { // lanes that share a row
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

INLINE float sum_of_four(float x) {
    x = __fadd_rn(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return __fadd_rn(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// Multiplies the warp's scores by the scales of keys that the tile sees.
INLINE void scale_scores(const attention_tile &t, const kv *const *pages, int start,
                         attention_scores &scores) {
    int first = start + warp_id() * (WARP_PAGES * PAGE) + lane_id() % 4 * 2;
    pages += warp_id() * WARP_PAGES;
#pragma unroll
    for (int n = 0; n < WARP_PAGES * 2; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int position = first + n * 8 + i;
            float scale = 0;
            if (position >= t.low && position < t.high)
                scale = key_scale(t, pages[n / 2], position % PAGE);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                scores[m][n][i] = __fmul_rn(scores[m][n][i], scale);
                scores[m][n][i + 2] = __fmul_rn(scores[m][n][i + 2], scale);
            }
        }
}

// Caps and masks the warp's scores, and leaves its part of the rows' maxima in shared memory.
INLINE void mask_scores(const attention_tile &t, int start, attention_scores &scores) {
    attention_f16_shared &s = attention_shared();
    int lane = lane_id(), warp_start = start + warp_id() * (WARP_PAGES * PAGE);
    bool all = !NEVER_ALL && (WINDOW == 0 || warp_start >= t.all_low) &&
               warp_start + WARP_PAGES * PAGE <= t.all_high;
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = m * 16 + h * 8 + lane / 4;
            if constexpr (SOFTCAP != 0) {
                float scale = s.unit[row];
#pragma unroll
                for (int n = 0; n < WARP_PAGES * 2; n++)
#pragma unroll
                    for (int i = 2 * h; i < 2 * h + 2; i++)
                        scores[m][n][i] = capped(__fmul_rn(scores[m][n][i], scale));
            }
            if (!all) {
                int first = warp_start + lane % 4 * 2;
                int begin = s.begin[row] - first;
                uint32 count = s.end[row] - s.begin[row];
#pragma unroll
                for (int n = 0; n < WARP_PAGES * 2; n++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        if (static_cast<uint32>(n * 8 + i - begin) >= count)
                            scores[m][n][2 * h + i] = negative_infinity();
            }
            float most = negative_infinity();
#pragma unroll
            for (int n = 0; n < WARP_PAGES * 2; n++)
                most = fmaxf(most, fmaxf(scores[m][n][2 * h], scores[m][n][2 * h + 1]));
            most = most_of_four(most);
            if (lane % 4 == 0)
                s.max[warp_id()][row] = most;
        }
}

// The row's unit, and its m: in base 2. Where it sees nothing, m is -infinity and its e are NaNs,
// which no other row reads and which are not merged.
INLINE float row_unit(int row) {
    return SOFTCAP == 0 ? attention_shared().unit[row] : LOG2_E;
}

INLINE float range_max(int row, float unit) {
    const attention_f16_shared &s = attention_shared();
    float most = s.max[0][row];
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        most = fmaxf(most, s.max[w][row]);
    return __fmul_rn(most, unit);
}

INLINE float range_sum(int row) {
    const attention_f16_shared &s = attention_shared();
    float sum = s.sum[0][row];
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        sum = __fadd_rn(sum, s.sum[w][row]);
    return sum;
}

// e of the warp's positions into shared memory, and its part of the rows' sums.
INLINE void store_weights(uint32 seen, attention_scores &scores) {
    attention_f16_shared &s = attention_shared();
    int lane = lane_id(), g = lane / 4;
    // row g and chunk 0 of the warp's; others are 16 n away, or that exclusive or
    int at = g * (RANGE * 2) + warp_id() * (WARP_PAGES * PAGE * 2) + g * 16 + lane % 4 * 4;
    uint32 weights = shared_address(s.weights);
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = m * 16 + h * 8 + g;
            float unit = row_unit(row), most = range_max(row, unit), sum = 0;
#pragma unroll
            for (int n = 0; n < WARP_PAGES * 2; n++) {
                float e0 = weight(__fmaf_rn(scores[m][n][2 * h], unit, -most));
                float e1 = weight(__fmaf_rn(scores[m][n][2 * h + 1], unit, -most));
                sum = __fadd_rn(sum, __fadd_rn(e0, e1));
                if (seen >> (n / 2) & 1)
                    store_shared(weights + (at ^ n * 16) + (m * 16 + h * 8) * (RANGE * 2),
                                 pack_f16(e0, e1));
            }
            sum = sum_of_four(sum);
            if (lane % 4 == 0)
                s.sum[warp_id()][row] = sum;
        }
}

// --- values ---------------------------------------------------------------------------------------

typedef float attention_columns[M_TILES][WARP_TILES][4]; // of the warp's columns: o or O

// Whether the n-th of the warp's tiles of columns is one.
INLINE bool has_tile(int n) {
    return ALL_TILES || warp_id() * WARP_TILES + n < N_TILES;
}

// seen: the slice's pages; ALL: they all are.
template <bool ALL>
INLINE void add_values(const attention_lane &l, uint32 seen, int slice, uint32 values,
                       attention_columns &o) {
    uint32 weights = shared_address(attention_shared().weights);
#pragma unroll
    for (int k = 0; k < SLICE_PAGES; k++) {
        if (!ALL && !(seen >> k & 1))
            continue;
        uint32 e[M_TILES][4];
        int at = l.weights ^ (slice * SLICE_PAGES + k) * (PAGE * 2);
#pragma unroll
        for (int m = 0; m < M_TILES; m++)
            ldmatrix4(e[m], weights + at + m * (16 * RANGE * 2));
#pragma unroll
        for (int n = 0; n < WARP_TILES; n += VALUE_TILES) {
            uint32 from = values + l.values[n / VALUE_TILES] + k * (PAGE * HEAD_DIM * 2);
            if constexpr (VALUE_TILES == 2) {
                uint32 b[4];
                ldmatrix4_transposed(b, from);
#pragma unroll
                for (int m = 0; m < M_TILES; m++) {
                    mma_f16(o[m][n], e[m], b[0], b[1]);
                    mma_f16(o[m][n + 1], e[m], b[2], b[3]);
                }
            } else if (has_tile(n)) {
                uint32 b[2];
                ldmatrix2_transposed(b, from);
#pragma unroll
                for (int m = 0; m < M_TILES; m++)
                    mma_f16(o[m][n], e[m], b[0], b[1]);
            }
        }
    }
}

// --- ranges ---------------------------------------------------------------------------------------

// O, and M and L of rows g and g + 8 of each m16 tile.
struct attention_state {
    attention_columns out;
    attention_sum sums[M_TILES][2];
};

INLINE bool row_sees(int row, int start) {
    const attention_f16_shared &s = attention_shared();
    if (TILE == 1) // what there is of it is what the token sees
        return row < GROUP;
    return (WINDOW == 0 || s.begin[row] < start + RANGE) && s.end[row] > start;
}

INLINE void merge_range(int start, const attention_columns &o, attention_state &state) {
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = m * 16 + h * 8 + lane_id() / 4;
            if (!row_sees(row, start))
                continue;
            attention_weights w =
                merge_sums(state.sums[m][h], range_max(row, row_unit(row)), range_sum(row));
#pragma unroll
            for (int n = 0; n < WARP_TILES; n++)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++)
                    state.out[m][n][i] = merge(w, state.out[m][n][i], o[m][n][i]);
        }
}

INLINE void store_partial(const args &a, const attention_tile &t, int range, int start,
                          const attention_columns &o) {
    int lane = lane_id();
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = m * 16 + h * 8 + lane / 4, head = row % GROUP;
            if (!row_sees(row, start))
                continue;
            float *to = partial_result(a, t, row, range);
#pragma unroll
            for (int n = 0; n < WARP_TILES; n++) {
                int column = (warp_id() * WARP_TILES + n) * 8 + lane % 4 * 2;
                if (has_tile(n))
                    *reinterpret_cast<float2 *>(to + head * HEAD_DIM + column) =
                        make_float2(o[m][n][2 * h], o[m][n][2 * h + 1]);
            }
            if (warp_id() == 0 && lane % 4 == 0) {
                float2 *pair = reinterpret_cast<float2 *>(to + GROUP * HEAD_DIM) + head;
                *pair = make_float2(range_max(row, row_unit(row)), range_sum(row));
            }
        }
}

INLINE void merge_partials(const args &a, const attention_tile &t, attention_state &state) {
    int lane = lane_id(), range = 0;
    do
#pragma unroll
        for (int m = 0; m < M_TILES; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int row = m * 16 + h * 8 + lane / 4, head = row % GROUP;
                if (!row_sees(row, (t.first_range + range) * RANGE))
                    continue;
                const float *from = partial_result(a, t, row, range);
                float2 pair =
                    __ldcg(reinterpret_cast<const float2 *>(from + GROUP * HEAD_DIM) + head);
                attention_weights w = merge_sums(state.sums[m][h], pair.x, pair.y);
#pragma unroll
                for (int n = 0; n < WARP_TILES; n++) {
                    int column = (warp_id() * WARP_TILES + n) * 8 + lane % 4 * 2;
                    if (!has_tile(n))
                        continue;
                    float2 o = __ldcg(
                        reinterpret_cast<const float2 *>(from + head * HEAD_DIM + column));
                    float *out = &state.out[m][n][2 * h];
                    out[0] = merge(w, out[0], o.x);
                    out[1] = merge(w, out[1], o.y);
                }
            }
    while (++range < t.ranges);
}

INLINE void attention_ranges(const args &a, const attention_tile &t, attention_state &state) {
    const attention_lane l = find_lane();
    int range = t.split, turn = 0, taken = 0;
    bool more;
    do {
        more = range + SPLITS < t.ranges;
        int start = (t.first_range + range) * RANGE;
        uint32 seen = pages_seen(t, start), seen_here = seen >> (warp_id() * WARP_PAGES);
        attention_scores scores = {};
        if (more)
            find_pages(a, t, turn + 1); // for slices that are loaded from the next barrier on
#pragma unroll 1
        for (int slice = 0; slice < K_SLICES; slice++) {
            uint32 keys = next_slice<true>(t, turn, more, slice, taken);
            if ((seen_here & WARP_MASK) == WARP_MASK)
                add_scores<true>(l, seen_here, slice, keys, scores);
            else
                add_scores<false>(l, seen_here, slice, keys, scores);
        }
        if constexpr (QUANTIZED)
            scale_scores(t, attention_shared().pages[turn & 1], start, scores);
        mask_scores(t, start, scores);
        __syncthreads();
        store_weights(seen_here, scores);
        attention_columns o = {};
#pragma unroll 1
        for (int slice = 0; slice < V_SLICES; slice++) {
            uint32 values = next_slice<false>(t, turn, more, slice, taken);
            uint32 seen_now = seen >> slice * SLICE_PAGES;
            if ((seen_now & SLICE_MASK) == SLICE_MASK)
                add_values<true>(l, seen_now, slice, values, o);
            else
                add_values<false>(l, seen_now, slice, values, o);
        }
        if (is_split(t))
            store_partial(a, t, range, start, o);
        else
            merge_range(start, o, state);
        range += SPLITS;
        turn++;
    } while (more);
}

INLINE void attention_finish(const args &a, const attention_tile &t,
                             const attention_state &state) {
    attention_f16_shared &s = attention_shared();
    float *results = reinterpret_cast<float *>(s.stages);
    int lane = lane_id();
    // Results lie where slices did: the last one too, where the tile is not split, which has a barrier
    // behind its slices. None is still asked for.
    if (SPLITS == 1 || (SLICES - 1) % STAGES * STAGE_BYTES < TILE * GROUP * RESULT_STRIDE * 4)
        __syncthreads();
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = m * 16 + h * 8 + lane / 4;
            if (row >= t.tokens * GROUP)
                continue;
            float inverse = __frcp_rn(state.sums[m][h].sum);
#pragma unroll
            for (int n = 0; n < WARP_TILES; n++) {
                int column = (warp_id() * WARP_TILES + n) * 8 + lane % 4 * 2;
                if (!has_tile(n))
                    continue;
                *reinterpret_cast<float2 *>(results + row * RESULT_STRIDE + column) =
                    make_float2(__fmul_rn(state.out[m][n][2 * h], inverse),
                                __fmul_rn(state.out[m][n][2 * h + 1], inverse));
            }
        }
    __syncthreads();
    attention_epilogue<program_0, WARPS>(a, t, results, RESULT_STRIDE,
                                    reinterpret_cast<float *>(s.query));
}

INLINE void attention_f16(const args &a) {
    attention_f16_shared &s = attention_shared();
    attention_tile t = find_tile<!NEVER_ALL>(a.step);
    if (t.split >= t.splits)
        return;
    find_pages(a, t, 0);
    __syncthreads();
    load_first_slices(t);
    const int32 *positions = step_array(a.step, a.step->positions) + t.first;
    static_assert(ROWS <= THREADS, "a row a thread");
    if (int row = threadIdx.x; row < ROWS) {
        int position = row < t.tokens * GROUP ? positions[row / GROUP] : -1;
        s.begin[row] = window_start(position);
        s.end[row] = position + 1;
    }
    load_queries(a, t);
    attention_state state = {};
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
        state.sums[m][0].max = state.sums[m][1].max = negative_infinity();
    attention_ranges(a, t, state);
    if (is_split(t)) {
        if (!last_to_arrive(a, t))
            return;
        merge_partials(a, t, state);
    }
    attention_finish(a, t, state);
}
