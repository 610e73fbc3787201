/* The interpreter's sample: the definition in runtime/sampler.h, with all tokens sorted. */
#include "ir/interp_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef unsigned __int128 wide;

typedef struct token {
    float logit;
    int32_t id;
    uint64_t weight;
} token;

/* floor(2^30 e^x + 1/2), for x <= 0, but for the roundings that the definition has. */
static uint64_t weight(float x) {
    static const float inverse_factorials[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                               1.0f / 6,    0.5f,       1.0f,       1.0f};
    if (!(x > -21.5f))
        return 0;
    float n = x * 1.44269504f + 0x1.8p23f;
    n = n - 0x1.8p23f;
    float r = x - n * 0.693359375f, e = inverse_factorials[0];
    r = r - n * -2.12194440e-4f;
    for (int i = 1; i < 8; i++) {
        e = e * r;
        e = e + inverse_factorials[i];
    }
    float y = ldexpf(e, (int)n + 30) + 0x1p23f;
    return (uint64_t)(y - 0x1p23f);
}

/* 64 bits at a position of a stream: Philox-4x32-10 (Salmon et al. 2011, section 4.2). */
static uint64_t random_bits(uint64_t seed, int32_t position) {
    uint64_t key[2] = {seed & UINT32_MAX, seed >> 32};
    uint64_t x[4] = {(uint32_t)position, 0, 0, 0};
    for (int round = 0; round < 10; round++) {
        uint64_t a = x[0] * 0xD2511F53u, b = x[2] * 0xCD9E8D57u;
        uint64_t y[4] = {b >> 32 ^ x[1] ^ key[0], b & UINT32_MAX, a >> 32 ^ x[3] ^ key[1],
                         a & UINT32_MAX};
        memcpy(x, y, sizeof x);
        key[0] = (key[0] + 0x9E3779B9u) & UINT32_MAX;
        key[1] = (key[1] + 0xBB67AE85u) & UINT32_MAX;
    }
    return x[1] << 32 | x[0];
}

static int falling(const void *a, const void *b) {
    const token *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit ? 1 : -1) : x->id - y->id;
}

static int rising_id(const void *a, const void *b) {
    return ((const token *)a)->id - ((const token *)b)->id;
}

/* Chooses among `n` > 0 tokens, sorted by falling logit, of which the first is finite. */
static int32_t choose(const ir_interp_sampling *s, token *tokens, int64_t n) {
    uint64_t sum = 0, kept = 0;
    float inverse = 1 / fmaxf(s->temperature, 0x1p-100f);
    int64_t end = n, i;
    for (i = 0; i < n; i++)
        tokens[i].weight = weight((tokens[i].logit - tokens[0].logit) * inverse);
    if (s->top_k > 0 && s->top_k < n)
        for (end = s->top_k; end < n && tokens[end].logit == tokens[end - 1].logit;)
            end++;
    for (i = 0; i < end; i++)
        sum += tokens[i].weight;
    if (s->top_p < 1) {
        uint64_t most = (uint64_t)((wide)(uint64_t)ldexp((double)s->top_p, 64) * sum >> 64);
        for (i = 0; i < end && (kept <= most || tokens[i].logit == tokens[i - 1].logit); i++)
            kept += tokens[i].weight;
        end = i;
    }
    qsort(tokens, (size_t)end, sizeof *tokens, rising_id);
    kept = 0;
    for (i = 0; i < end; i++) {
        if ((double)tokens[i].weight < ldexp((double)s->min_p, 30))
            tokens[i].weight = 0;
        kept += tokens[i].weight;
    }
    uint64_t at = (uint64_t)((wide)kept * random_bits(s->seed, s->position) >> 64);
    for (i = 0; at >= tokens[i].weight; i++)
        at -= tokens[i].weight;
    return tokens[i].id;
}

static void sample_row(const ir_interp_sampling *s, const float *logits, int64_t n,
                       const uint32_t *mask, token *tokens, float *out) {
    int64_t count = 0;
    float greatest = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        greatest = logits[i] > greatest ? logits[i] : greatest;
        if (logits[i] > -INFINITY && (!mask || (mask[i / 32] >> i % 32 & 1)))
            tokens[count++] = (token){.logit = logits[i], .id = (int32_t)i};
    }
    qsort(tokens, (size_t)count, sizeof *tokens, falling);
    int32_t id = -1;
    if (count > 0 && (s->temperature == 0 || s->top_k == 1 || tokens[0].logit == INFINITY))
        id = tokens[0].id;
    else if (count > 0)
        id = choose(s, tokens, count);
    uint64_t sum = 0;
    for (int64_t i = 0; s->sum && i < n; i++)
        sum += weight(logits[i] - greatest);
    out[0] = (float)id;
    out[1] = id < 0 ? 0 : logits[id];
    out[2] = greatest;
    out[3] = (float)sum;
}

bool interp_sample(ir_interp *in, const ir_op *op) {
    interp_shape shape;
    float *out = interp_result(in, op, 0, NULL);
    const float *logits = out ? interp_operand(in, op, 0, &shape) : NULL;
    if (!logits)
        return false;
    int64_t rows = shape.dims[0], n = shape.dims[1];
    memset(out, 0, (size_t)rows * 4 * sizeof *out);
    if (!in->step.sampling)
        return true;
    token *tokens = malloc((size_t)n * sizeof *tokens);
    if (!tokens)
        return ir_error(in->diag, ir_op_label(op), "out of memory");
    for (int64_t r = 0; r < rows; r++)
        sample_row(&in->step.sampling[r], logits + r * n, n,
                   in->step.token_masks ? in->step.token_masks + r * ((n + 31) / 32) : NULL, tokens,
                   out + r * 4);
    free(tokens);
    return true;
}
