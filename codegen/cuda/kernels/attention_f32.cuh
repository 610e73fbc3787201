// Attention on CUDA cores: the order of arithmetic, and so the bits, of codegen/cpu/attention.c.
// Pages of f32, or others with head sizes that tensor cores do not take.
//
//     s[p] = cap((q . k[p]) * scale)    FMAs over d ascending; quantized: k[p] are codes, and scale
//                                       is times k's scale
//     m = max s
//     e[p] = exp(s[p] - m)
//     l = sum of e[p]                   16 interleaved partials, then halved
//     o[d] = sum of e[p]*v[p][d]        FMAs over positions ascending; quantized: codes, and e is
//                                       times v's scale
//
// Constants beside those of attention.cuh: THREADS, SHARED_BYTES.
//
// Positions that a row does not see are never multiplied: they may hold anything.
#pragma once
#include "attention.cuh"

constexpr int ROWS = TILE * GROUP, WARPS = THREADS / 32;
constexpr int ELEMENTS = ROWS * HEAD_DIM, OWNED = (ELEMENTS + THREADS - 1) / THREADS;

struct attention_f32_shared {
    float query[ELEMENTS];       // [row][d]; at the end the results
    float scores[ROWS * RANGE];  // [row][position of the range]: s, then e (times v's scale)
    float max[ROWS], sum[ROWS];  // m, l
    int begin[ROWS], end[ROWS];  // positions that the row sees
    const kv *keys[RANGE_PAGES]; // of the tile's head, in each page of the range
};

static_assert(sizeof(attention_f32_shared) <= SHARED_BYTES, "attention.c");

INLINE float weight(float x) {
    return exp_nonpositive(x);
}

INLINE float softcapped(float score) {
    if (SOFTCAP == 0)
        return score;
    return __fmul_rn(scalar_tanh(__fdiv_rn(score, SOFTCAP)), SOFTCAP);
}

INLINE float kv_number(float v) {
    return v;
}
INLINE float kv_number(uint16 v) {
    return f16_to_f32(v);
}

INLINE float kv_number(int8_code v) {
    return __int2float_rn(v.bits);
}
// Times 2^-8: as f16 it has the same bits but for the exponent's bias.
INLINE float kv_number(fp8_code v) {
    return f16_to_f32(static_cast<uint16>((v.bits & 0x80) << 8 | (v.bits & 0x7f) << 7));
}

// A scale times a factor, and what kv_number leaves out.
INLINE float kv_scale(const uint16 *scale, float factor) {
    return __fmul_rn(f16_to_f32(*scale), factor * rest_of(kv{}));
}

INLINE attention_f32_shared &attention_shared() {
    return *reinterpret_cast<attention_f32_shared *>(shared_memory);
}

// Whether the row sees anything of the range.
INLINE bool row_sees(int row, int start) {
    const attention_f32_shared &s = attention_shared();
    return ROWS == GROUP || // of one token, which sees all ranges of the tile
           ((WINDOW == 0 || s.begin[row] < start + RANGE) && s.end[row] > start);
}

// A thread computes the scores of some positions, all rows together that fit the registers.
INLINE void range_scores(const attention_tile &t, int start) {
    constexpr int TOGETHER = ROWS < 8 ? ROWS : 8;
    attention_f32_shared &s = attention_shared();
    for (int at = threadIdx.x; at < RANGE; at += THREADS) {
        int position = start + at;
        if ((WINDOW > 0 && position < t.low) || position >= t.high)
            continue;
        const kv *keys = s.keys[at / PAGE] + at % PAGE;
        float scale = SCALE;
        if constexpr (QUANTIZED)
            scale = kv_scale(page_scales(t, s.keys[at / PAGE]) + at % PAGE, SCALE);
        for (int first = 0; first < ROWS; first += TOGETHER) {
            float sums[TOGETHER] = {};
#pragma unroll 4
            for (int d = 0; d < HEAD_DIM; d++) {
                float k = kv_number(keys[d * PAGE]);
#pragma unroll
                for (int i = 0; i < TOGETHER; i++)
                    if (first + i < ROWS)
                        sums[i] = __fmaf_rn(s.query[(first + i) * HEAD_DIM + d], k, sums[i]);
            }
#pragma unroll
            for (int i = 0; i < TOGETHER; i++)
                if (first + i < ROWS)
                    s.scores[(first + i) * RANGE + at] = __fmul_rn(sums[i], scale);
        }
    }
}

// A warp does a row.
INLINE void range_softmax(const attention_tile &t, int start) {
    attention_f32_shared &s = attention_shared();
    int lane = lane_id();
    for (int row = warp_id(); row < ROWS; row += WARPS) {
        float *scores = s.scores + row * RANGE;
        if (!row_sees(row, start))
            continue;
        int begin = s.begin[row] - start, end = s.end[row] - start;
        auto seen = [&](int p) { return (WINDOW == 0 || p >= begin) && p < end; };
        float most = negative_infinity();
        for (int p = lane; p < RANGE; p += 32)
            if (seen(p)) {
                float score = softcapped(scores[p]);
                scores[p] = score; // this lane's alone, until the sum
                most = score > most ? score : most;
            }
        for (int d = 16; d >= 1; d /= 2) {
            float other = __shfl_xor_sync(ALL_LANES, most, d);
            most = other > most ? other : most;
        }
        for (int p = lane; p < RANGE; p += 32)
            scores[p] =
                seen(p) ? exp_nonpositive(__fsub_rn(scores[p], most)) : 0.0f;
        __syncwarp();
        float sum = 0;
        for (int page = 0; page < RANGE_PAGES; page++)
            sum = __fadd_rn(sum, scores[page * PAGE + lane % PAGE]);
        sum = sum16(sum);
        if (lane == 0) {
            s.max[row] = most;
            s.sum[row] = sum;
        }
        if constexpr (QUANTIZED) {
            __syncwarp(); // e has been added up
            for (int p = lane; p < RANGE; p += 32)
                if (seen(p)) {
                    const uint16 *scales = page_scales(t, s.keys[p / PAGE]) + KV_HEADS * PAGE;
                    scores[p] = __fmul_rn(scores[p], kv_scale(scales + p % PAGE, 1.0f));
                }
        }
    }
}

// o of one row, which sees something of the range, and column.
INLINE float range_value(int row, int column, int start) {
    const attention_f32_shared &s = attention_shared();
    int begin = WINDOW == 0 ? 0 : max(s.begin[row] - start, 0);
    int end = min(s.end[row] - start, RANGE), page = begin / PAGE;
    const float *weights = s.scores + row * RANGE;
    float o = 0;
    do {
        const kv *values = s.keys[page] + KV_HEADS * HEAD_ELEMENTS + column;
        int from = WINDOW == 0 ? 0 : max(begin - page * PAGE, 0), to = min(end - page * PAGE, PAGE);
        if (from == 0 && to == PAGE) {
#pragma unroll
            for (int i = 0; i < PAGE; i++)
                o = __fmaf_rn(weights[page * PAGE + i], kv_number(values[i * HEAD_DIM]), o);
        } else {
            int i = from;
            do
                o = __fmaf_rn(weights[page * PAGE + i], kv_number(values[i * HEAD_DIM]), o);
            while (++i < to);
        }
    } while (++page * PAGE < end);
    return o;
}

// The thread's elements of the rows: element threadIdx.x + i * THREADS of [row][d].
struct attention_owned {
    attention_sum sums[OWNED]; // of the element's row
    float out[OWNED];          // O
};

INLINE void store_partial(const args &a, const attention_tile &t, int element, int range,
                          float o) {
    const attention_f32_shared &s = attention_shared();
    int row = element / HEAD_DIM, head = row % GROUP, column = element % HEAD_DIM;
    float *to = partial_result(a, t, row, range);
    to[head * HEAD_DIM + column] = o;
    if (column == 0) {
        to[GROUP * HEAD_DIM + 2 * head] = s.max[row];
        to[GROUP * HEAD_DIM + 2 * head + 1] = s.sum[row];
    }
}

INLINE void merge_partials(const args &a, const attention_tile &t, attention_owned &owned) {
    for (int range = 0; range < t.ranges; range++)
#pragma unroll
        for (int i = 0; i < OWNED; i++) {
            int element = threadIdx.x + i * THREADS, row = element / HEAD_DIM;
            if (element >= t.tokens * GROUP * HEAD_DIM ||
                !row_sees(row, (t.first_range + range) * RANGE))
                continue;
            const float *from = partial_result(a, t, row, range);
            const float *pair = from + GROUP * HEAD_DIM + row % GROUP * 2;
            attention_weights w = merge_sums(owned.sums[i], __ldcg(pair), __ldcg(pair + 1));
            float o = __ldcg(from + row % GROUP * HEAD_DIM + element % HEAD_DIM);
            owned.out[i] = merge(w, owned.out[i], o);
        }
}

INLINE void attention_ranges(const args &a, const attention_tile &t, attention_owned &owned) {
    attention_f32_shared &s = attention_shared();
    int range = t.split;
    do {
        int start = (t.first_range + range) * RANGE;
        __syncthreads(); // the range before has been used
        if (threadIdx.x < RANGE_PAGES) {
            int page = start / PAGE + threadIdx.x;
            if (page * PAGE < t.high && (WINDOW == 0 || (page + 1) * PAGE > t.low))
                s.keys[threadIdx.x] = page_keys(a, t, page);
        }
        __syncthreads();
        range_scores(t, start);
        __syncthreads();
        range_softmax(t, start);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWNED; i++) {
            int element = threadIdx.x + i * THREADS, row = element / HEAD_DIM;
            if (element >= t.tokens * GROUP * HEAD_DIM || !row_sees(row, start))
                continue;
            float o = range_value(row, element % HEAD_DIM, start);
            if (is_split(t)) {
                store_partial(a, t, element, range, o);
                continue;
            }
            attention_weights w = merge_sums(owned.sums[i], s.max[row], s.sum[row]);
            owned.out[i] = merge(w, owned.out[i], o);
        }
        range += SPLITS;
    } while (range < t.ranges);
}

// O/L, and the epilogue on it.
INLINE void attention_finish(const args &a, const attention_tile &t, const attention_owned &owned) {
    attention_f32_shared &s = attention_shared();
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        int element = threadIdx.x + i * THREADS;
        if (element < t.tokens * GROUP * HEAD_DIM)
            s.query[element] = __fdiv_rn(owned.out[i], owned.sums[i].sum);
    }
    if (HEAD_DIM % 32 || program_0::whole_rows) // else each lane reads what it wrote
        __syncthreads();
    attention_epilogue<program_0, WARPS>(a, t, s.query, HEAD_DIM, s.scores);
}

INLINE void attention_f32(const args &a) {
    attention_f32_shared &s = attention_shared();
    attention_tile t = find_tile<false>(a.step);
    if (t.split >= t.splits)
        return;
    const int32 *positions = step_array(a.step, a.step->positions) + t.first;
    static_assert(ROWS <= THREADS, "a row a thread");
    if (int row = threadIdx.x; row < ROWS) {
        int position = row / GROUP < t.tokens ? positions[row / GROUP] : -1;
        s.begin[row] = window_start(position);
        s.end[row] = position + 1;
    }
    for (int first = 0; first < ELEMENTS; first += THREADS) {
        int i = first + threadIdx.x, row = i / HEAD_DIM;
        if (first + THREADS <= ELEMENTS || i < ELEMENTS)
            s.query[i] = row / GROUP < t.tokens ? row_query(a, t, row)[i % HEAD_DIM] : 0.0f;
    }
    attention_owned owned;
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        owned.sums[i] = {negative_infinity(), 0.0f};
        owned.out[i] = 0;
    }
    attention_ranges(a, t, owned);
    if (is_split(t)) {
        if (!last_to_arrive(a, t))
            return;
        merge_partials(a, t, owned);
    }
    attention_finish(a, t, owned);
}
