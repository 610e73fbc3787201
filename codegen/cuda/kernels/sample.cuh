// The sample anchor: chooses a token for each row of logits, as runtime/sampler.h defines it, in two
// functions. Constants: N logits a row, CHUNKS and PARTS blocks a row in the first and the second
// function, ROW_SCRATCH bytes of scratch memory a row; logits_of(a), result_of(a).
//
// All sums are of integers, so their order does not matter. The first function finds the greatest
// logit. In the second one each block weighs a part of the row, and the one that is done last
// chooses. Limits (top-k, top-p) are found exactly: a histogram over the distance from the greatest
// logit, in units of temperature / 64, says in which bin the limit lies; which logit of that bin it
// is, a radix select finds, 11 bits at a time.
#pragma once

#include "common.cuh"

constexpr int COUNTERS = 16384; // MCC_CUDA_COUNTER_BYTES

// runtime/step.h
struct step_sampling {
    float temperature, top_p, min_p;
    int32 top_k;
    uint64 seed;
    int32 position;
    uint32 sum;
};
static_assert(sizeof(step_sampling) == 32, "as in runtime/step.h");

INLINE step_sampling sampling_of(const args &a, int64 row) {
    return reinterpret_cast<const step_sampling *>(step_array(a.step, a.step->sampling))[row];
}

// Whether a token is drawn; else it is the one of the greatest logit.
INLINE bool draws(const step_sampling &p) {
    return p.temperature != 0.0f && p.top_k != 1;
}
INLINE bool has_limits(const step_sampling &p) {
    return p.top_k > 0 || p.top_p < 1.0f;
}

constexpr int BINS = 1536; // distances below 24, of which those below 21.5 have a weight
constexpr int UNIT = 256 * ((N + 256 * 1024 - 1) / (256 * 1024)), UNITS = (N + UNIT - 1) / UNIT;
constexpr int VECTOR = N % 4 == 0 ? 4 : 1; // logits that a lane loads at once

// Of a chunk: the greatest allowed logit's order (0: none is allowed) and, of those that have it, the
// first token as ~id, so that the greatest number is the choice; and the greatest order of all.
struct chunk_greatest {
    uint64 allowed;
    uint32 all, unused;
};

// What blocks tell each other about a row.
struct row_scratch {
    chunk_greatest chunks[CHUNKS];
    uint64 weights[BINS]; // sums, and counts, of the tokens of a bin; with limits
    uint64 units[UNITS];  // sums of the weights of UNIT tokens
    uint32 counts[BINS];
    float greatest[UNITS]; // logits of units
    uint32 arrived;        // blocks that have weighed their part
};
static_assert(sizeof(row_scratch) <= ROW_SCRATCH, "as codegen/cuda/sample.c says");

INLINE row_scratch *scratch_of(const args &a, int64 row) {
    return reinterpret_cast<row_scratch *>(static_cast<char *>(a.scratch) + COUNTERS +
                                           row * ROW_SCRATCH);
}

// A row of logits; tokens whose bit in the mask is clear count as -infinity.
struct sample_row {
    const float *logits;
    const uint32 *mask; // nullptr: all tokens are allowed

    __device__ __forceinline__ sample_row(const args &a, int64 row) {
        logits = logits_of(a) + row * N;
        mask = a.step->token_masks == 0
                   ? nullptr
                   : reinterpret_cast<const uint32 *>(step_array(a.step, a.step->token_masks)) +
                         row * ((N + 31) / 32);
    }
    // Logits from id, a multiple of VECTOR, on.
    __device__ __forceinline__ void load(float (&x)[VECTOR], int id) const {
        if constexpr (VECTOR == 4)
            *reinterpret_cast<float4 *>(x) = *reinterpret_cast<const float4 *>(logits + id);
        else
            x[0] = logits[id];
    }
    // Bit i: whether token id + i is allowed, of as many as a multiple of 32 leaves.
    __device__ __forceinline__ uint32 allowed(int id) const {
        return mask ? mask[id >> 5] >> (id & 31) : ~0u;
    }
};

// --- logits as integers of the same order ---------------------------------------------------------

// 0 for what is never chosen: -infinity and NaN. -0 counts as 0.
INLINE uint32 order_of(float logit) {
    const uint32 bits = float_bits(__fadd_rn(logit, 0.0f));
    const uint32 negative = static_cast<int32>(bits) >> 31;
    return logit > bits_float(0xff800000u) ? bits ^ (negative | 0x80000000u) : 0;
}

INLINE float logit_of(uint32 order) {
    const uint32 negative = ~(static_cast<int32>(order) >> 31);
    return bits_float(order == 0 ? 0xff800000u : order ^ (negative | 0x80000000u));
}

// --- the greatest logit: the first function -------------------------------------------------------

INLINE uint64 max64(uint64 a, uint64 b) {
    return a > b ? a : b;
}

template <int WARPS, int CHUNK> INLINE void sample_greatest(const args &a, int64 n_rows) {
    __shared__ chunk_greatest of_warp[WARPS];
    constexpr int ROUNDS = CHUNK / (WARPS * 32 * VECTOR);
    const int64 row = blockIdx.x;
    if (row >= n_rows || a.step->sampling == 0)
        return;
    const sample_row r(a, row);
    row_scratch *scratch = scratch_of(a, row);
    const step_sampling p = sampling_of(a, row);
    const int thread = blockIdx.y * WARPS * 32 + threadIdx.x;
    for (int i = thread; draws(p) && has_limits(p) && i < BINS; i += CHUNKS * WARPS * 32)
        scratch->weights[i] = scratch->counts[i] = 0;
    if (thread == 0)
        scratch->arrived = 0;
    uint64 allowed = 0;
    uint32 all = 0;
#pragma unroll
    for (int j = 0; j < ROUNDS; j++) {
        const int id = blockIdx.y * CHUNK + (j * WARPS * 32 + threadIdx.x) * VECTOR;
        const int at = min(id, N - VECTOR); // the last ones again change nothing
        float x[VECTOR];
        r.load(x, at);
        const uint32 mask = r.allowed(at);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) {
            const uint32 order = order_of(x[k]), chosen = order & (0u - (mask >> k & 1));
            all = max(all, order);
            allowed = max64(allowed, static_cast<uint64>(chosen) << 32 |
                                         ~static_cast<uint32>(at + k));
        }
    }
    for (int width = 16; width >= 1; width /= 2) {
        allowed = max64(allowed, __shfl_xor_sync(ALL_LANES, allowed, width));
        all = max(all, __shfl_xor_sync(ALL_LANES, all, width));
    }
    if (lane_id() == 0)
        of_warp[warp_id()] = {allowed, all, 0};
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int w = 1; w < WARPS; w++) {
        allowed = max64(allowed, of_warp[w].allowed);
        all = max(all, of_warp[w].all);
    }
    scratch->chunks[blockIdx.y] = {allowed, all, 0};
}

// --- weights ------------------------------------------------------------------------------------

// rt_weight of runtime/sampler.c.
INLINE uint32 weight_of(float x) {
    const float c = fmaxf(x, -21.5f); // also for NaN; there the result rounds to 0
    const float sum = __fadd_rn(__fmul_rn(c, 1.44269504f), 12582912.0f);
    const float n = __fsub_rn(sum, 12582912.0f);
    float r = __fsub_rn(c, __fmul_rn(n, 0.693359375f));
    r = __fsub_rn(r, __fmul_rn(n, -2.12194440e-4f));
    constexpr float inverse_factorials[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                            1.0f / 6,    0.5f,       1.0f,       1.0f};
    float p = inverse_factorials[0];
#pragma unroll
    for (int i = 1; i < 8; i++)
        p = __fadd_rn(__fmul_rn(p, r), inverse_factorials[i]);
    const uint32 exponent = float_bits(sum) - 0x4b400000u + 127 + 30;
    const float y = __fadd_rn(__fmul_rn(p, bits_float(exponent << 23)), 8388608.0f);
    return __float2int_rz(__fsub_rn(y, 8388608.0f));
}

// --- the choice: the second function ---------------------------------------------------------------

constexpr int LISTED = 1024; // logits of a bin that are kept; a bin of more is read from the row
constexpr int RADIX_BITS = 11;

template <int THREADS> struct sample_shared {
    uint64 weights[BINS];
    uint64 units[(UNITS + THREADS - 1) / THREADS * THREADS];
    uint64 radix[1 << RADIX_BITS];
    uint64 partial[32];
    uint64 before;
    int32 found;
    uint32 listed;
    uint32 counts[BINS];
    float unit_greatest[UNITS];
    float logits[LISTED];
};

// A block of WARPS warps that works on a row. Its functions are called by all threads, and give each
// the same result, where nothing else is said.
template <int WARPS> struct sampler {
    static constexpr int THREADS = WARPS * 32;
    using shared = sample_shared<THREADS>;
    static_assert(sizeof(shared) <= SHARED_BYTES, "as codegen/cuda/sample.c says");
    const sample_row row;
    const step_sampling p;
    row_scratch *const scratch;
    shared &s;
    float greatest; // of the allowed logits
    float inverse;  // of the temperature

    static __device__ __forceinline__ float none() {
        return bits_float(0xff800000u);
    }

    // AGAIN: another sum, or the like, follows.
    template <bool AGAIN = true> __device__ __forceinline__ uint64 sum(uint64 x) {
        for (int width = 16; width >= 1; width /= 2)
            x += __shfl_xor_sync(ALL_LANES, x, width);
        if (lane_id() == 0)
            s.partial[warp_id()] = x;
        __syncthreads();
        x = 0;
        for (int w = 0; w < WARPS; w++)
            x += s.partial[w];
        if constexpr (AGAIN)
            __syncthreads();
        return x;
    }

    // The running sum over the warp's lanes.
    static __device__ __forceinline__ uint64 running_sum(uint64 x) {
#pragma unroll 1
        for (int width = 1; width < 32; width *= 2) {
            const uint64 other = __shfl_up_sync(ALL_LANES, x, width);
            x += lane_id() >= width ? other : 0;
        }
        return x;
    }

    // The first place at which the running sum of value(0), value(1), … exceeds `target`, -1 if that
    // of all PLACES never does; `before` becomes the sum of the values before that place. Calls have
    // barriers between them.
    template <int PLACES, class F>
    __device__ __forceinline__ int find(F value, uint64 target, uint64 &before) {
        constexpr int EACH = PLACES / THREADS;
        static_assert(PLACES % THREADS == 0, "each thread has as many");
        const int begin = threadIdx.x * EACH;
        uint64 own = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++)
            own += value(begin + i);
        uint64 start = running_sum(own);
        if (lane_id() == 31)
            s.partial[warp_id()] = start;
        if (threadIdx.x == 0) {
            s.found = -1;
            s.before = 0;
        }
        __syncthreads();
        start -= own;
        for (int w = 0; w < warp_id(); w++)
            start += s.partial[w];
        if (start <= target && target < start + own) {
            int at = begin;
            for (int i = 1; i < EACH && start + value(at) <= target; i++)
                start += value(at++);
            s.found = at;
            s.before = start;
        }
        __syncthreads();
        before = s.before;
        return s.found;
    }

    // --- units ---

    // In units of the temperature, below the greatest.
    __device__ __forceinline__ float scaled(float logit) const {
        return __fmul_rn(__fsub_rn(logit, greatest), inverse);
    }
    static __device__ __forceinline__ int bin_of(float x) { // -infinity: above all, NaN: 0
        return __float2int_rz(__fmul_rn(x, -64.0f));
    }

    // Of a unit's `round`-th 256 tokens the j-th of this lane's.
    static __device__ __forceinline__ int token_of(int unit, int round, int j) {
        return unit * UNIT + round * 256 + (j / VECTOR * 32 + lane_id()) * VECTOR + j % VECTOR;
    }

    // The logits of these; -infinity for what is not allowed or beyond the last.
    __device__ __forceinline__ void load(float (&x)[8], int unit, int round) const {
#pragma unroll
        for (int j = 0; j < 8; j += VECTOR) {
            const int id = token_of(unit, round, j);
            float some[VECTOR] = {};
            uint32 mask = 0;
            if (id < N) {
                row.load(some, id);
                mask = row.allowed(id);
            }
#pragma unroll
            for (int k = 0; k < VECTOR; k++)
                x[j + k] = mask >> k & 1 ? some[k] : none();
        }
    }

    // By a warp: the sum of the weights of a unit's tokens that are at least `least`, in all lanes.
    // LIMITED: only of tokens at or above `threshold`.
    template <bool LIMITED>
    __device__ __forceinline__ uint64 weigh_unit(int unit, float threshold, uint32 least) const {
        uint64 own = 0;
#pragma unroll 1
        for (int round = 0; round < UNIT / 256; round++) {
            float x[8];
            load(x, unit, round);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const uint32 w = weight_of(scaled(x[j]));
                own += (!LIMITED || x[j] >= threshold) && w >= least ? w : 0;
            }
        }
        for (int width = 16; width >= 1; width /= 2)
            own += __shfl_xor_sync(ALL_LANES, own, width);
        return own;
    }

    // By a warp: counts a unit's tokens in the histogram; returns the greatest of its logits.
    __device__ __forceinline__ float look_at_unit(int unit) {
        float most = none();
#pragma unroll 1
        for (int round = 0; round < UNIT / 256; round++) {
            float x[8];
            load(x, unit, round);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                most = fmaxf(most, x[j]);
                const float below = scaled(x[j]);
                const uint32 w = weight_of(below);
                if (w > 0) {
                    atomicAdd(&s.counts[bin_of(below)], 1u);
                    atomicAdd(&s.weights[bin_of(below)], static_cast<uint64>(w));
                }
            }
        }
        for (int width = 16; width >= 1; width /= 2)
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, width));
        return most;
    }

    __device__ __forceinline__ uint32 least_weight() const {
        return __float2uint_ru(__fmul_rn(p.min_p, 1073741824.0f));
    }

    // This block's part of the row, to scratch memory: without limits the sums of its units; else
    // their greatest logits and the histogram.
    __device__ __forceinline__ void weigh_part() {
        constexpr int PART = (UNITS + PARTS - 1) / PARTS;
        const int first = blockIdx.y * PART, end = min(UNITS, first + PART);
        if (!has_limits(p)) {
            for (int unit = first + warp_id(); unit < end; unit += WARPS) {
                const uint64 own = weigh_unit<false>(unit, none(), least_weight());
                if (lane_id() == 0)
                    scratch->units[unit] = own;
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < BINS; i += THREADS)
            s.weights[i + threadIdx.x] = s.counts[i + threadIdx.x] = 0;
        __syncthreads();
        for (int unit = first + warp_id(); unit < end; unit += WARPS) {
            const float most = look_at_unit(unit);
            if (lane_id() == 0)
                scratch->greatest[unit] = most;
        }
        __syncthreads();
#pragma unroll 1
        for (int first = 0; first < BINS; first += THREADS) {
            const int i = first + threadIdx.x;
            if (s.counts[i] > 0) {
                atomicAdd(&scratch->counts[i], s.counts[i]);
                atomicAdd(&scratch->weights[i], s.weights[i]);
            }
        }
    }

    // Called when the part is in scratch memory: true in the block that comes last, which then sees
    // all parts.
    __device__ __forceinline__ bool last_to_arrive() {
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0)
            s.found = atomicAdd(&scratch->arrived, 1u) == PARTS - 1;
        __syncthreads();
        const bool last = s.found;
        __threadfence();
        return last;
    }

    // --- limits ---

    // Lists the logits of a bin, and maybe of tokens without weight; s.listed, which is 0 before,
    // becomes their number. A barrier follows.
    __device__ __forceinline__ void list(int bin) {
#pragma unroll 1
        for (int unit = warp_id(); unit < UNITS; unit += WARPS) {
            if (bin_of(scaled(s.unit_greatest[unit])) > bin)
                continue;
#pragma unroll 1
            for (int round = 0; round < UNIT / 256; round++) {
                float x[8];
                uint32 hits = 0;
                load(x, unit, round);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    hits |= static_cast<uint32>(bin_of(scaled(x[j])) == bin) << j;
#pragma unroll 1
                for (; hits; hits &= hits - 1) {
                    const uint32 at = atomicAdd(&s.listed, 1u);
                    if (at < LISTED)
                        s.logits[at] = row.logits[token_of(unit, round, __ffs(hits) - 1)];
                }
            }
        }
    }

    // Calls f(logit, weight) for the tokens of a listed bin, each from one thread.
    template <class F> __device__ __forceinline__ void in_bin(int bin, F f) {
        const bool listed = s.listed <= LISTED;
        const int n = listed ? s.listed : N;
#pragma unroll 1
        for (int i = threadIdx.x; i < n; i += THREADS) {
            const float x = listed                  ? s.logits[i]
                            : row.allowed(i) & 1 ? row.logits[i]
                                                    : none();
            const float below = scaled(x);
            const uint32 w = weight_of(below);
            if (w > 0 && bin_of(below) == bin)
                f(x, w);
        }
    }

    // The greatest logit for which the tokens at or above it number more than `target`, or by weight
    // add up to more; -infinity when all together do not. `kept` becomes the sum of the weights of
    // these tokens.
    __device__ __forceinline__ float select(bool by_weight, uint64 target, uint64 &kept) {
        uint64 before;
        const int bin = find<BINS>(
            [&](int i) { return by_weight ? s.weights[i] : s.counts[i]; }, target, before);
        if (threadIdx.x == 0)
            s.listed = 0;
        __syncthreads();
        if (bin < 0)
            return none();
        list(bin);
        uint32 order = 0; // its upper bits, as far as they are known
#pragma unroll 1
        for (int shift = 32 - RADIX_BITS; shift > -RADIX_BITS; shift -= RADIX_BITS) {
            const int low = max(shift, 0), known = shift + RADIX_BITS;
            constexpr uint32 DIGITS = 1 << RADIX_BITS, MOST = DIGITS - 1;
#pragma unroll
            for (int i = 0; i < DIGITS; i += THREADS)
                s.radix[i + threadIdx.x] = 0;
            __syncthreads();
            in_bin(bin, [&](float x, uint32 w) {
                const uint64 other = order_of(x);
                if (other >> known == static_cast<uint64>(order) >> known)
                    atomicAdd(&s.radix[MOST - (other >> low & MOST)],
                              static_cast<uint64>(by_weight ? w : 1));
            });
            __syncthreads();
            uint64 greater;
            const int digit =
                find<DIGITS>([&](int i) { return s.radix[i]; }, target - before, greater);
            before += greater;
            order |= (MOST - digit) << low;
        }
        kept = 0;
        in_bin(bin, [&](float x, uint32 w) { kept += order_of(x) < order ? 0 : w; });
        for (int b = threadIdx.x; b < bin; b += THREADS)
            kept += s.weights[b];
        kept = sum(kept);
        return logit_of(order);
    }

    // The least logit that top-k and top-p keep.
    __device__ __forceinline__ float threshold_of() {
        float threshold = none();
        uint64 kept = 0;
#pragma unroll
        for (int first = 0; first < BINS; first += THREADS) {
            const int i = first + threadIdx.x;
            s.counts[i] = __ldcg(&scratch->counts[i]);
            s.weights[i] = __ldcg(&scratch->weights[i]);
            kept += s.weights[i];
        }
        for (int i = threadIdx.x; i < UNITS; i += THREADS)
            s.unit_greatest[i] = __ldcg(&scratch->greatest[i]);
        kept = sum(kept);
#pragma unroll 1
        for (int limit = 0; limit < 2; limit++) { // by number, then by weight
            const uint64 fraction =
                __double2ull_rz(static_cast<double>(p.top_p) * 18446744073709551616.0);
            if (limit ? p.top_p < 1.0f : p.top_k > 0)
                threshold =
                    select(limit, limit ? __umul64hi(kept, fraction) : p.top_k - 1, kept);
        }
        return threshold;
    }

    // --- the draw ---

    // The token of a unit at which the running sum of weights exceeds `at`; by a warp.
    __device__ __forceinline__ int find_in_unit(int unit, uint64 at, float threshold,
                                                uint32 least) const {
        for (int first = unit * UNIT;; first += 32) {
            const int id = first + lane_id();
            const float x = id < N && row.allowed(id) & 1 ? row.logits[id] : none();
            uint64 w = weight_of(scaled(x));
            w = running_sum(x >= threshold && w >= least ? w : 0);
            const uint32 hit = __ballot_sync(ALL_LANES, w > at);
            if (hit)
                return first + __ffs(hit) - 1;
            at -= __shfl_sync(ALL_LANES, w, 31);
        }
    }

    // 64 bits of the random stream (Salmon et al. 2011, Philox-4x32-10).
    __device__ __forceinline__ uint64 random() const {
        uint32 c0 = static_cast<uint32>(p.position), c1 = static_cast<uint32>(p.position >> 31);
        uint32 c2 = 0, c3 = 0, k0 = static_cast<uint32>(p.seed);
        uint32 k1 = static_cast<uint32>(p.seed >> 32);
#pragma unroll
        for (int round = 0; round < 10; round++) {
            const uint32 h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
            const uint32 h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
            c0 = h1 ^ c1 ^ k0;
            c1 = l1;
            c2 = h0 ^ c3 ^ k1;
            c3 = l0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        return static_cast<uint64>(c1) << 32 | c0;
    }

    // By the block that came last. The result is the first thread's.
    __device__ __forceinline__ int draw() {
        float threshold = none();
        uint64 total = 0, before;
        if (has_limits(p)) {
            threshold = threshold_of();
            for (int unit = warp_id(); unit < UNITS; unit += WARPS) {
                const uint64 own = s.unit_greatest[unit] >= threshold
                                       ? weigh_unit<true>(unit, threshold, least_weight())
                                       : 0;
                if (lane_id() == 0) {
                    s.units[unit] = own;
                    total += own;
                }
            }
        } else {
            for (int i = threadIdx.x; i < UNITS; i += THREADS) {
                s.units[i] = __ldcg(&scratch->units[i]);
                total += s.units[i];
            }
        }
        constexpr int PLACES = sizeof s.units / sizeof *s.units;
        if (static_cast<int>(PLACES - THREADS + threadIdx.x) >= UNITS)
            s.units[PLACES - THREADS + threadIdx.x] = 0;
        total = sum(total);
        const uint64 at = __umul64hi(total, random());
        const int unit = find<PLACES>([&](int i) { return s.units[i]; }, at, before);
        return warp_id() == 0 ? find_in_unit(unit, at - before, threshold, least_weight()) : 0;
    }

    // The sum of all weights for temperature 1, masked tokens too.
    __device__ __forceinline__ uint64 sum_of_all(float greatest_of_all) {
        uint64 own = 0;
        for (int id = threadIdx.x; id < N; id += THREADS)
            own += weight_of(__fsub_rn(row.logits[id], greatest_of_all));
        return sum<false>(own);
    }
};

template <int WARPS> INLINE void sample_choose(const args &a, int64 n_rows) {
    const int64 row = blockIdx.x;
    if (row >= n_rows || a.step->sampling == 0)
        return;
    const step_sampling p = sampling_of(a, row);
    if (!draws(p) && blockIdx.y != 0)
        return;
    sampler<WARPS> s = {sample_row(a, row), p, scratch_of(a, row),
                        *reinterpret_cast<typename sampler<WARPS>::shared *>(shared_memory), 0.0f, 0.0f};
    uint64 allowed = 0;
    uint32 all = 0;
    for (int i = lane_id(); i < CHUNKS; i += 32) { // each warp for itself
        allowed = max64(allowed, s.scratch->chunks[i].allowed);
        all = max(all, s.scratch->chunks[i].all);
    }
    for (int width = 16; width >= 1; width /= 2) {
        allowed = max64(allowed, __shfl_xor_sync(ALL_LANES, allowed, width));
        all = max(all, __shfl_xor_sync(ALL_LANES, all, width));
    }
    const float greatest_of_all = logit_of(all);
    s.greatest = logit_of(static_cast<uint32>(allowed >> 32));
    s.inverse = __fdiv_rn(1.0f, p.temperature > 0x1p-100f ? p.temperature : 0x1p-100f);
    int id = allowed >> 32 == 0 ? -1 : static_cast<int>(~static_cast<uint32>(allowed));
    if (id >= 0 && draws(p) && s.greatest < bits_float(0x7f800000u)) {
        s.weigh_part();
        if (!s.last_to_arrive())
            return;
        id = s.draw();
    } else if (blockIdx.y != 0) {
        return;
    }
    const uint64 sum = p.sum ? s.sum_of_all(greatest_of_all) : 0;
    if (threadIdx.x == 0)
        reinterpret_cast<float4 *>(result_of(a))[row] =
            make_float4(static_cast<float>(id), id < 0 ? 0.0f : s.row.logits[id], greatest_of_all,
                        __ull2float_rn(sum));
}
