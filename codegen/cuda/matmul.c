/* Schedules of the matmul anchor: a function that streams the weights for few rows, and tiles
 * through shared memory for many (kernels/matmul_*.cuh). Every variant adds up in the one order of
 * kernel.h. */
#include "codegen/cuda/cost.h"
#include "codegen/cuda/internal.h"
#include "codegen/packed.h"

#include <inttypes.h>

enum {
    MOST_SHARED = 99 * 1024, /* of a block, on every architecture of targets.def */
    DECODE_WARPS = 8
};

static int64_t part_columns(const cg_kernel *k) {
    return k->matmul.n / k->matmul.parts;
}

/* What the text says of the weight: struct weight of kernels/weight_tiles.cuh. */
static const char *weight_text(cg_cuda_emitter *em) {
    const cg_matmul *m = &em->kernel->matmul;
    const ir_type *type = &em->kernel->args[m->w].type;
    const ir_encoding *e = type->encoding;
    if (!e)
        return ir_arena_printf(em->arena,
                               "#define PLAIN_WEIGHTS\n"
                               "struct weight {\n"
                               "    using element = %s;\n"
                               "    static constexpr int64 n = %" PRId64 ", k = %" PRId64 ";\n"
                               "    static constexpr int parts = %d;\n"
                               "};\n",
                               type->dtype == IR_F32 ? "float" : ir_dtype_name(type->dtype), m->n,
                               m->k, m->parts);
    cg_packed p = cg_packed_of(e);
    int zero = e->bits == 8 && e->is_signed ? 128 : e->zero_point;
    return ir_arena_printf(
        em->arena,
        "struct weight { // %s\n"
        "    static constexpr int bits = %d, zero = %d, groups = %d;\n"
        "    static constexpr int code_bytes = %d, offsets_at = %d, block_bytes = %d;\n"
        "    static constexpr int super_bytes = %d;\n"
        "    static constexpr bool signed_scales = %s;\n"
        "    static constexpr int64 n = %" PRId64 ", k = %" PRId64 ";\n"
        "    static constexpr int parts = %d;\n"
        "};\n",
        e->name, e->bits, zero, p.groups, p.code_bytes, p.offsets_at, p.block_bytes, p.super_bytes,
        e->scale == IR_I8 ? "true" : "false", m->n, m->k, m->parts);
}

/* Constants of a function whose blocks compute their rows of x themselves, if the kernel does. */
static const char *with_prologue(cg_cuda_emitter *em) {
    return ir_arena_printf(em->arena, "%s%s",
                           em->kernel->matmul.prologue ? "#define PROLOGUE\n" : "",
                           weight_text(em));
}

/* Of shared memory, that the prologue wants for itself while nothing else is in it. */
static int64_t prologue_bytes(const cg_kernel *k) {
    return k->matmul.prologue ? 4 * cg_cuda_tmp_floats(k, k->matmul.prologue) : 0;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

static bool too_large(cg_cuda_emitter *em, int64_t bytes) {
    return cg_cuda_unsupported(em,
                               "the rows that a block multiplies need %" PRId64
                               " bytes of shared memory, at most %d can be had",
                               bytes, MOST_SHARED);
}

/* Runs a schedule, and holds its shared memory against what the launch asks for. x: its text. */
static const char *call_text(cg_cuda_emitter *em, const char *schedule, int64_t shared_bytes,
                             const char *x) {
    ir_dim d = em->kernel->rows;
    return ir_arena_printf(
        em->arena,
        "using schedule = %s;\n"
        "    static_assert(schedule::SHARED_BYTES == %" PRId64 ", \"as matmul.c computes it\");\n"
        "    schedule::run(a, %s, static_cast<const uint8 *>(a.a%d),\n"
        "                  step_dim<%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ">(step));",
        schedule, shared_bytes, x, em->kernel->matmul.w, d.c, d.t, d.s, d.r);
}

/* x of a function that reads it where the argument is, or has a prologue of its own. */
static const char *x_text(cg_cuda_emitter *em) {
    int x = em->kernel->matmul.x;
    return x < 0 ? "nullptr" : ir_arena_printf(em->arena, "static_cast<const uint8 *>(a.a%d)", x);
}

/* For functions of many rows: x is an argument, or what the first of two functions leaves in
 * scratch memory. */
static const char *many_x_text(cg_cuda_emitter *em) {
    if (em->kernel->matmul.prologue)
        return ir_arena_printf(em->arena, "static_cast<const uint8 *>(a.scratch) + %d",
                               MCC_CUDA_COUNTER_BYTES);
    return x_text(em);
}

static uint64_t many_scratch(const cg_kernel *k) {
    const cg_matmul *m = &k->matmul;
    if (!m->prologue)
        return 0;
    return (uint64_t)(m->x_type.encoding ? ir_encoding_row_bytes(m->x_type.encoding, m->k)
                                         : 4 * m->k);
}

/* The first of two functions, where the kernel has a prologue. */
static bool add_prologue(cg_cuda_emitter *em, const char *suffix, uint32_t min_rows) {
    enum { WARPS = 4 };
    const cg_kernel *k = em->kernel;
    int64_t shared = prologue_bytes(k);
    if (!k->matmul.prologue)
        return true;
    cg_cuda_variant v = {.suffix = ir_arena_printf(em->arena, "%s_x", suffix),
                         .min_rows = min_rows,
                         .threads = WARPS * 32,
                         .shared_bytes = (uint32_t)shared,
                         .row_scratch_bytes = many_scratch(k),
                         .first_of_two = true,
                         .x = cg_cuda_grid(k->rows, 1, 1),
                         .y = cg_cuda_grid((ir_dim){.c = 1}, 1, 1),
                         .include = "matmul_prologue.cuh",
                         .call =
                             call_text(em,
                                       ir_arena_printf(em->arena, "prologue_rows<%d, %" PRIu64 ">",
                                                       WARPS, many_scratch(k)),
                                       shared, "nullptr")};
    return (shared <= MOST_SHARED || too_large(em, shared)) && cg_cuda_add(em, &v);
}

/* --- a8 activations ------------------------------------------------------------------------------
 */

static int decode_unroll(const cg_kernel *k) {
    return k->matmul.parts == 2 ? 1 : 2;
}

/* Bytes of shared memory of a8_decode, as the header computes them. */
static int64_t decode_shared(const cg_kernel *k, const cg_packed *p, int round, int tokens) {
    int64_t parts = k->matmul.parts, dot_row = tokens == 1 ? 32 : 36;
    int64_t group = parts * tokens * dot_row * 4 + parts * 128 + (p->offsets_at ? parts * 128 : 16);
    int64_t results = 2 * round * p->groups * group;
    if (!k->matmul.prologue)
        return results;
    int64_t row = round_up(k->matmul.k + k->matmul.k / 2, 128) + 16;
    return larger(results, prologue_bytes(k)) + tokens * row;
}

static bool add_decode(cg_cuda_emitter *em, const cg_packed *p, uint32_t min_rows, int tokens) {
    const cg_kernel *k = em->kernel;
    int unroll = decode_unroll(k);
    int64_t shared = decode_shared(k, p, DECODE_WARPS * unroll, tokens);
    if (shared > MOST_SHARED)
        return too_large(em, shared);
    cg_cuda_variant v = {.suffix = ir_arena_printf(em->arena, "_decode%d_%u", tokens, min_rows),
                         .min_rows = min_rows,
                         .threads = DECODE_WARPS * 32,
                         /* Found by compiling: with other bounds some spill. */
                         .min_blocks = p->groups == 2 ? 2 : 3,
                         .shared_bytes = (uint32_t)shared,
                         .x = cg_cuda_grid(k->rows, tokens, 1),
                         .y = cg_cuda_grid((ir_dim){.c = (part_columns(k) + 31) / 32}, 1, 1),
                         .constants = with_prologue(em),
                         .include = "matmul_a8_decode.cuh",
                         .call = call_text(em,
                                           ir_arena_printf(em->arena, "a8_decode<%d, %d, %d>",
                                                           DECODE_WARPS, unroll, tokens),
                                           shared, x_text(em))};
    return cg_cuda_add(em, &v);
}

/* The shape of a8_prefill. */
typedef struct prefill {
    int warps_m, warps_n, tiles_m, tiles_n, stage_blocks, stages;
} prefill;

/* Bytes of shared memory, as the header computes them. */
static int64_t prefill_shared(const cg_kernel *k, const cg_packed *p, const prefill *s) {
    int64_t tiles = s->warps_m * s->tiles_m, tokens = s->warps_n * s->tiles_n * 8;
    int64_t tile = round_up(p->super_bytes + s->stage_blocks * p->block_bytes, 64);
    int64_t w = round_up(tiles * tile, 128);
    int64_t numbers = s->stage_blocks * (tokens + 8) * 4 * (p->offsets_at ? 2 : 1);
    int64_t stage = round_up(w + tokens * s->stage_blocks * 32 + numbers, 128);
    int64_t out = k->matmul.parts * tokens * (tiles * 16 / k->matmul.parts + 4) * 4;
    return stage * s->stages > out ? stage * s->stages : out;
}

static bool add_prefill(cg_cuda_emitter *em, const cg_packed *p, uint32_t min_rows,
                        const prefill *s) {
    const cg_kernel *k = em->kernel;
    int tokens = s->warps_n * s->tiles_n * 8;
    int64_t columns = s->warps_m * s->tiles_m * 16 / k->matmul.parts,
            shared = prefill_shared(k, p, s);
    const char *suffix = ir_arena_printf(em->arena, "_prefill%dx%d_%u",
                                         s->warps_m * s->tiles_m * 16, tokens, min_rows);
    if (!add_prologue(em, suffix, min_rows))
        return false;
    cg_cuda_variant v = {
        .suffix = suffix,
        .row_scratch_bytes = many_scratch(k),
        .min_rows = min_rows,
        .threads = (uint32_t)(s->warps_m * s->warps_n * 32),
        .min_blocks = 2,
        .shared_bytes = (uint32_t)shared,
        .x = cg_cuda_grid(k->rows, tokens, 1),
        .y = cg_cuda_grid((ir_dim){.c = (part_columns(k) + columns - 1) / columns}, 1, 1),
        .constants = weight_text(em),
        .include = "matmul_a8_prefill.cuh",
        .call = call_text(em,
                          ir_arena_printf(em->arena, "a8_prefill<%d, %d, %d, %d, %d, %d>",
                                          s->warps_m, s->warps_n, s->tiles_m, s->tiles_n,
                                          s->stage_blocks, s->stages),
                          shared, many_x_text(em))};
    return cg_cuda_add(em, &v);
}

/* What may compute an a8 matmul: a8_decode for up to `tokens` rows a block, or a8_prefill. */
typedef struct candidate {
    int tokens; /* 0: prefill */
    prefill shape;
} candidate;

/* Instructions as counted on the emulator: of a pair of tiles of a block of k; of an mma with what
 * it shares with others; cycles of latency as tables of instruction latencies add up to. */
static double predict(const cg_kernel *k, const cg_packed *p, const candidate *c, int64_t rows) {
    int64_t blocks_k = k->matmul.k / CG_BLOCK_K, columns = part_columns(k);
    double w_bytes = (double)cg_packed_tile_bytes(&k->args[k->matmul.w].type, k->matmul.k);
    double x_bytes = 1.5 * (double)k->matmul.k;
    int parts = k->matmul.parts;
    cg_cuda_cost cost = {.launches = 1};
    cost.dram_bytes = (double)((columns + 15) / 16 * parts) * w_bytes + (double)rows * x_bytes;
    if (c->tokens) {
        int round = DECODE_WARPS * decode_unroll(k);
        int64_t tokens = rows < c->tokens ? rows : c->tokens;
        cost.blocks = (rows + c->tokens - 1) / c->tokens * ((columns + 31) / 32);
        cost.warps = DECODE_WARPS;
        cost.registers = 72;
        cost.shared_bytes = decode_shared(k, p, round, c->tokens);
        cost.instructions = (double)(blocks_k * parts * p->groups) * (85 + 16 * (double)tokens);
        cost.latency = (double)((blocks_k + round - 1) / round) * 1000;
        cost.block_bytes = 2 * parts * w_bytes + (double)tokens * x_bytes;
        if (k->matmul.prologue) { /* 60 instructions for 32 columns, one row after another */
            cost.instructions += (double)(tokens * blocks_k) * 60;
            cost.latency += (double)tokens * 3000;
        }
        return cg_cuda_cycles(&cost);
    }
    const prefill *s = &c->shape;
    int64_t tokens = s->warps_n * s->tiles_n * 8, tiles = s->warps_m * s->tiles_m;
    cost.launches += k->matmul.prologue != NULL;
    cost.blocks =
        (rows + tokens - 1) / tokens * ((columns * parts + tiles * 16 - 1) / (tiles * 16));
    cost.warps = s->warps_m * s->warps_n;
    cost.registers = 40 + 2 * s->tiles_m * s->tiles_n * 4 + 8 * s->tiles_m;
    cost.shared_bytes = prefill_shared(k, p, s);
    double mmas = (double)(blocks_k * s->tiles_m * s->tiles_n * p->groups); /* of a warp */
    double each = 24 + 52.0 / s->tiles_n + 13.0 / s->tiles_m;
    cost.instructions = mmas * each * cost.warps;
    cost.latency = larger((int64_t)(2 * mmas * each), blocks_k * 200) + 2000.0;
    cost.block_bytes = (double)tiles * w_bytes + (double)tokens * x_bytes;
    return cg_cuda_cycles(&cost);
}

static bool add_candidate(cg_cuda_emitter *em, const cg_packed *p, const candidate *c,
                          uint32_t min_rows) {
    return c->tokens ? add_decode(em, p, min_rows, c->tokens)
                     : add_prefill(em, p, min_rows, &c->shape);
}

/* For each number of rows, by doublings, what is predicted to be fastest. */
static bool add_a8(cg_cuda_emitter *em) {
    const cg_kernel *k = em->kernel;
    cg_packed p = cg_packed_of(k->args[k->matmul.w].type.encoding);
    candidate all[] = {{.tokens = 1},
                       {.tokens = 8},
                       {.shape = {4, 1, 1, 4, 4, 3}},
                       {.shape = {4, 1, 2, 4, 4, 3}},
                       {.shape = {4, 1, 2, 8, 4, 3}}};
    enum { N = sizeof all / sizeof *all, MOST_ROWS = 4096 };
    while (all[1].tokens > 2 &&
           decode_shared(k, &p, DECODE_WARPS * decode_unroll(k), all[1].tokens) > MOST_SHARED)
        all[1].tokens /= 2;
    int last = -1;
    for (int64_t rows = 1, from = 0; rows <= MOST_ROWS; from = rows + 1, rows *= 2) {
        int best = 0;
        for (int i = 1; i < N; i++)
            if (predict(k, &p, &all[i], rows) < predict(k, &p, &all[best], rows))
                best = i;
        if (best != last && !add_candidate(em, &p, &all[best], (uint32_t)from))
            return false;
        last = best;
    }
    return true;
}

/* --- f32 activations -----------------------------------------------------------------------------
 */

enum { F32_STAGES = 3 };

static int f32_warps(const cg_kernel *k) {
    return 4 / k->matmul.parts;
}

/* Bytes of shared memory of f32_matmul, as the header computes them. */
static int64_t f32_shared(const cg_kernel *k, int tokens, bool prologue) {
    const ir_type *w = &k->args[k->matmul.w].type;
    int64_t stage_k = w->encoding ? 2 * CG_BLOCK_K : 1024 / ir_dtype_bits(w->dtype), tile = 2048;
    if (w->encoding) {
        cg_packed p = cg_packed_of(w->encoding);
        tile = p.super_bytes + 2 * p.block_bytes;
    }
    int64_t tiles = F32_STAGES * f32_warps(k) * 2 * k->matmul.parts * (round_up(tile, 128) + 64);
    if (prologue)
        return larger(tiles, prologue_bytes(k)) + tokens * round_up(k->matmul.k, 4) * 4;
    return tiles + F32_STAGES * tokens * stage_k * 4;
}

/* prologue: blocks compute their rows of x themselves. */
static bool add_f32(cg_cuda_emitter *em, uint32_t min_rows, int tokens, bool prologue) {
    const cg_kernel *k = em->kernel;
    int64_t shared = f32_shared(k, tokens, prologue), units = (part_columns(k) + 31) / 32;
    int warps = f32_warps(k);
    bool two = k->matmul.prologue && !prologue;
    const char *suffix =
        ir_arena_printf(em->arena, "%s%d", min_rows > 2 ? "_many" : "_rows", tokens);
    if (shared > MOST_SHARED)
        return too_large(em, shared);
    if (two && !add_prologue(em, suffix, min_rows))
        return false;
    cg_cuda_variant v = {.suffix = suffix,
                         .min_rows = min_rows,
                         .threads = (uint32_t)warps * 32,
                         .min_blocks = 2,
                         .shared_bytes = (uint32_t)shared,
                         .row_scratch_bytes = two ? many_scratch(k) : 0,
                         .x = cg_cuda_grid(k->rows, tokens, 1),
                         .y = cg_cuda_grid((ir_dim){.c = (units + warps - 1) / warps}, 1, 1),
                         .constants = prologue ? with_prologue(em) : weight_text(em),
                         .include = "matmul_f32.cuh",
                         .call = call_text(em,
                                           ir_arena_printf(em->arena, "f32_matmul<%d, %d, %d>",
                                                           warps, tokens, F32_STAGES),
                                           shared, prologue ? "nullptr" : many_x_text(em))};
    return cg_cuda_add(em, &v);
}

static bool add_f32_variants(cg_cuda_emitter *em) {
    bool prologue = em->kernel->matmul.prologue;
    int tokens = 8;
    while (tokens > 1 && f32_shared(em->kernel, tokens, prologue) > MOST_SHARED)
        tokens /= 2;
    return add_f32(em, 0, 1, prologue) && (tokens == 1 || add_f32(em, 2, tokens, prologue)) &&
           (!prologue ||
            add_f32(em, (uint32_t)tokens + 1 > 3 ? (uint32_t)tokens + 1 : 3, 8, false));
}

/* --- 16-bit activations --------------------------------------------------------------------------
 */

/* How K is cut, the same for all numbers of rows: ranges of `range`, so many that there is work for
 * a large GPU, but none too short. */
static int half_splits(const cg_kernel *k, int *range) {
    int64_t units = (part_columns(k) + 31) / 32 * k->matmul.parts;
    int splits = 1;
    while (splits < 8 && units * splits < 512 && k->matmul.k / (2 * splits) >= 256)
        splits *= 2;
    *range = (int)round_up((k->matmul.k + splits - 1) / splits, 64);
    return splits;
}

static bool add_half(cg_cuda_emitter *em, const char *suffix, uint32_t min_rows, uint32_t threads,
                     int tokens, int64_t columns, int64_t shared, const char *schedule) {
    const cg_kernel *k = em->kernel;
    if (shared > MOST_SHARED)
        return too_large(em, shared);
    cg_cuda_variant v = {
        .suffix = suffix,
        .min_rows = min_rows,
        .threads = threads,
        .min_blocks = 2,
        .shared_bytes = (uint32_t)shared,
        .x = cg_cuda_grid(k->rows, tokens, 1),
        .y = cg_cuda_grid((ir_dim){.c = (part_columns(k) + columns - 1) / columns}, 1, 1),
        .constants = weight_text(em),
        .include = min_rows ? "matmul_half_prefill.cuh" : "matmul_half_decode.cuh",
        .call = call_text(em, schedule, shared, x_text(em))};
    return cg_cuda_add(em, &v);
}

static bool add_half_decode(cg_cuda_emitter *em) {
    const cg_kernel *k = em->kernel;
    int range, splits = half_splits(k, &range), units = splits < 4 ? 4 / splits : 1;
    int parts = k->matmul.parts, stages = parts == 2 ? 3 : 4, warps = units * splits;
    int64_t sums = parts * 8 * 36 * 4, stage = 2 * parts * 32 * 32;
    int64_t shared = warps * larger(stages * stage, sums);
    return add_half(
        em, "_decode8", 0, (uint32_t)warps * 32, 8, units * 32, shared,
        ir_arena_printf(em->arena, "half_decode<%d, %d, %d, %d>", units, splits, range, stages));
}

static bool add_half_prefill(cg_cuda_emitter *em, uint32_t min_rows, int tiles_m, int tiles_n) {
    enum { WARPS = 4, STAGES = 3, STAGE_K = 64 };
    const cg_kernel *k = em->kernel;
    int range, splits = half_splits(k, &range), tokens = tiles_n * 8, parts = k->matmul.parts;
    int64_t tiles = WARPS * tiles_m, columns = tiles * 16 / parts;
    int64_t stages = STAGES * (tiles * STAGE_K * 32 + tokens * STAGE_K * 2);
    int64_t shared = larger(stages, parts * tokens * (columns + 4) * 4);
    return add_half(em, ir_arena_printf(em->arena, "_prefill%d", tokens), min_rows, WARPS * 32,
                    tokens, columns, shared,
                    ir_arena_printf(em->arena, "half_prefill<%d, 1, %d, %d, %d, %d, %d>", WARPS,
                                    tiles_m, tiles_n, splits, range, STAGES));
}

/* --- checks --------------------------------------------------------------------------------------
 */

static bool check(cg_cuda_emitter *em) {
    const cg_kernel *k = em->kernel;
    const cg_matmul *m = &k->matmul;
    const ir_type *x = &m->x_type, *w = &k->args[m->w].type;
    if (!w->layout)
        return cg_cuda_unsupported(em, "the weight of a matmul is not packed");
    if (!cg_cuda_by_heads(k) && cg_cuda_whole_rows(&k->programs[0]))
        return cg_cuda_unsupported(em, "an epilogue over whole rows");
    if (x->encoding && (x->encoding->id != IR_ENC_A8 || !w->encoding))
        return cg_cuda_unsupported(em, "activations in %s do not go with weights in %s",
                                   x->encoding->name,
                                   w->encoding ? w->encoding->name : ir_dtype_name(w->dtype));
    if (!x->encoding && x->dtype != IR_F32) {
        if ((x->dtype != IR_F16 && x->dtype != IR_BF16) || w->encoding || w->dtype != x->dtype)
            return cg_cuda_unsupported(em, "activations in %s beside weights in %s",
                                       ir_dtype_name(x->dtype),
                                       w->encoding ? w->encoding->name : ir_dtype_name(w->dtype));
        if (m->prologue)
            return cg_cuda_unsupported(em, "a prologue that makes %s", ir_dtype_name(x->dtype));
        if (m->k % 8)
            return cg_cuda_unsupported(em,
                                       "rows of %" PRId64 " in %s, which are no multiple of 16 "
                                       "bytes: keep activations in f32",
                                       m->k, ir_dtype_name(x->dtype));
    }
    if (!w->encoding && w->dtype != IR_F32 && w->dtype != IR_F16 && w->dtype != IR_BF16)
        return cg_cuda_unsupported(em, "weights in %s", ir_dtype_name(w->dtype));
    if (w->encoding && m->k % w->encoding->block)
        return cg_cuda_unsupported(
            em, "a row of %" PRId64 " weights is no multiple of %s's block of %d", m->k,
            w->encoding->name, w->encoding->block);
    return true;
}

bool cg_cuda_matmul(cg_cuda_emitter *em) {
    if (!check(em))
        return false;
    if (em->kernel->matmul.x_type.encoding)
        return add_a8(em);
    if (em->kernel->matmul.x_type.dtype != IR_F32)
        return add_half_decode(em) && add_half_prefill(em, 17, 1, 4) &&
               add_half_prefill(em, 33, 2, 8);
    return add_f32_variants(em);
}
