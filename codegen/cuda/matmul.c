/* Schedules of the matmul anchor: a function that streams the weights for few rows, and tiles
 * through shared memory for many (kernels/matmul_*.cuh). Every variant adds up in the one order of
 * kernel.h. Tiles (tile_forms.def) are the table's, or the cost model's choice. */
#include "codegen/cuda/cost.h"
#include "codegen/cuda/internal.h"
#include "codegen/packed.h"

#include <inttypes.h>

/* Of the tiles that are chosen here. */
enum {
    MOST_SHARED = 99 * 1024, /* of a block: what every architecture of targets.def has */
    DECODE_WARPS = 8
};

static int64_t part_columns(const cg_kernel *k) {
    return k->matmul.n / k->matmul.parts;
}

/* fp8 by activations of 16 bits. */
static bool is_half_by_fp8(const cg_kernel *k) {
    const ir_type *x = &k->matmul.x_type;
    return k->args[k->matmul.w].type.encoding && !x->encoding && x->dtype != IR_F32;
}

/* Whether tensor cores multiply by a quantized weight, group by group. */
static bool by_groups(const cg_kernel *k) {
    return k->matmul.x_type.encoding || is_half_by_fp8(k);
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
    const char *x = is_half_by_fp8(em->kernel)
                        ? ir_arena_printf(em->arena, "#define HALF_X\nusing x_element = %s;\n",
                                          ir_dtype_name(m->x_type.dtype))
                        : "";
    return ir_arena_printf(
        em->arena,
        "%s%sstruct weight { // %s\n"
        "    static constexpr int bits = %d, zero = %d, groups = %d;\n"
        "    static constexpr int code_bytes = %d, offsets_at = %d, block_bytes = %d;\n"
        "    static constexpr int super_bytes = %d;\n"
        "    static constexpr bool signed_scales = %s;\n"
        "    static constexpr int64 n = %" PRId64 ", k = %" PRId64 ";\n"
        "    static constexpr int parts = %d;\n"
        "};\n",
        e->code == IR_CODE_E4M3 ? "#define FP8_WEIGHTS\n" : "", x, e->name, e->bits, zero, p.groups,
        p.code_bytes, p.offsets_at, p.block_bytes, p.super_bytes,
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

/* NULL, or that there is not so much. */
static const char *too_much_shared(cg_cuda_emitter *em, int64_t bytes) {
    if (bytes <= cg_cuda_most_shared(em))
        return NULL;
    return ir_arena_printf(em->arena,
                           "what a block works on needs %" PRId64
                           " bytes of shared memory, at most %" PRId64 " can be had",
                           bytes, cg_cuda_most_shared(em));
}

/* Adds a tile to those that the kernel gets. */
static void take(cg_cuda_emitter *em, uint32_t min_rows, cg_cuda_tile tile) {
    tile.min_rows = min_rows;
    em->tiling.tiles[em->tiling.n++] = tile;
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
    const char *why = too_much_shared(em, shared);
    return why ? cg_cuda_unsupported(em, "%s", why) : cg_cuda_add(em, &v);
}

/* --- activations in a8, or of 8 or 16 bits beside fp8 weights ------------------------------------
 */

static cg_packed packed_of(const cg_kernel *k) {
    return cg_packed_of(k->args[k->matmul.w].type.encoding);
}

/* The shape of a8_decode. */
typedef struct decode {
    int tokens, warps, unroll;
} decode;

static decode decode_of(const cg_cuda_tile *t) {
    return (decode){t->values[0], t->values[1], t->values[2]};
}

static int decode_unroll(const cg_kernel *k) {
    return k->matmul.parts == 2 ? 1 : 2;
}

/* Bytes of shared memory of a8_decode, as the header computes them. */
static int64_t decode_shared(const cg_kernel *k, const decode *d) {
    cg_packed p = packed_of(k);
    int64_t parts = k->matmul.parts, dot_row = d->tokens == 1 ? 32 : 36;
    int64_t group =
        parts * d->tokens * dot_row * 4 + parts * 128 + (p.offsets_at ? parts * 128 : 16);
    int64_t results = 2 * d->warps * d->unroll * p.groups * group;
    if (!k->matmul.prologue)
        return results;
    int64_t row = round_up(ir_encoding_row_bytes(k->matmul.x_type.encoding, k->matmul.k), 128) + 16;
    return larger(results, prologue_bytes(k)) + d->tokens * row;
}

static const char *decode_why_not(cg_cuda_emitter *em, const decode *d) {
    if (d->tokens & (d->tokens - 1) || d->warps & (d->warps - 1))
        return "tokens and warps must be powers of two";
    return too_much_shared(em, decode_shared(em->kernel, d));
}

static bool add_decode(cg_cuda_emitter *em, const cg_cuda_tile *tile) {
    const cg_kernel *k = em->kernel;
    decode d = decode_of(tile);
    int64_t shared = decode_shared(k, &d);
    /* Registers that a thread may have. Found by compiling: with other bounds some spill. */
    int blocks = (packed_of(k).groups == 2 ? 2 : 3) * DECODE_WARPS / d.warps;
    bool usual = d.warps == DECODE_WARPS && d.unroll == decode_unroll(k);
    const char *shape = usual ? "" : ir_arena_printf(em->arena, "x%dx%d", d.warps, d.unroll);
    cg_cuda_variant v = {
        .suffix = ir_arena_printf(em->arena, "_decode%d%s_%u", d.tokens, shape, tile->min_rows),
        .min_rows = tile->min_rows,
        .threads = (uint32_t)d.warps * 32,
        .min_blocks = blocks > 1 ? (uint32_t)blocks : 1,
        .shared_bytes = (uint32_t)shared,
        .x = cg_cuda_grid(k->rows, d.tokens, 1),
        .y = cg_cuda_grid((ir_dim){.c = (part_columns(k) + 31) / 32}, 1, 1),
        .constants = with_prologue(em),
        .include = "matmul_a8_decode.cuh",
        .call = call_text(
            em, ir_arena_printf(em->arena, "a8_decode<%d, %d, %d>", d.warps, d.unroll, d.tokens),
            shared, x_text(em))};
    return cg_cuda_add(em, &v);
}

/* The shape of a8_prefill. */
typedef struct prefill {
    int warps_m, warps_n, tiles_m, tiles_n, stage_blocks, stages;
} prefill;

static prefill prefill_of(const cg_cuda_tile *t) {
    return (prefill){t->values[0], t->values[1], t->values[2],
                     t->values[3], t->values[4], t->values[5]};
}

static int64_t prefill_stage(const cg_kernel *k, const prefill *s) {
    cg_packed p = packed_of(k);
    int64_t tiles = s->warps_m * s->tiles_m, tokens = s->warps_n * s->tiles_n * 8;
    int64_t tile = round_up(p.super_bytes + s->stage_blocks * p.block_bytes, 64);
    int64_t w = round_up(tiles * tile, 128);
    if (is_half_by_fp8(k))
        return round_up(w + tokens * s->stage_blocks * 64, 128);
    int64_t numbers = s->stage_blocks * (tokens + 8) * 4 * (p.offsets_at ? 2 : 1);
    return round_up(w + tokens * s->stage_blocks * 32 + numbers, 128);
}

/* Bytes of shared memory, as the header computes them. */
static int64_t prefill_shared(const cg_kernel *k, const prefill *s) {
    int64_t tiles = s->warps_m * s->tiles_m, tokens = s->warps_n * s->tiles_n * 8;
    int64_t out = k->matmul.parts * tokens * (tiles * 16 / k->matmul.parts + 4) * 4;
    return larger(prefill_stage(k, s) * s->stages, out);
}

/* As the header asserts. */
static const char *prefill_why_not(cg_cuda_emitter *em, const prefill *s) {
    int warps = s->warps_m * s->warps_n, parts = em->kernel->matmul.parts;
    int tokens = s->warps_n * s->tiles_n * 8;
    int pieces = (is_half_by_fp8(em->kernel) ? 4 : 2) * s->stage_blocks;
    if (warps > 8 || warps & (warps - 1))
        return "warps_m times warps_n must be 1, 2, 4 or 8";
    if (s->warps_m * s->tiles_m * 16 % (32 * parts))
        return ir_arena_printf(em->arena, "warps_m times tiles_m must be a multiple of %d",
                               2 * parts);
    if (s->tiles_n % 2 || 8 % s->stage_blocks)
        return "tiles_n must be even, and stage_blocks divide 8";
    if (s->tiles_m * s->tiles_n > 16)
        return "tiles_m times tiles_n must be 16 at most: sums are in registers";
    if (warps * 32 % (8 * pieces) || tokens % (warps * 32 / pieces))
        return ir_arena_printf(em->arena,
                               "%d threads do not copy %d rows of %d pieces in whole steps",
                               warps * 32, tokens, pieces);
    if (tokens * (s->warps_m * s->tiles_m * 16 / parts / 32) % warps)
        return "rows of the result are not shared by the warps evenly";
    return too_much_shared(em, prefill_shared(em->kernel, s));
}

static bool add_prefill(cg_cuda_emitter *em, const cg_cuda_tile *tile) {
    const cg_kernel *k = em->kernel;
    prefill s = prefill_of(tile);
    int tokens = s.warps_n * s.tiles_n * 8;
    int64_t columns = s.warps_m * s.tiles_m * 16 / k->matmul.parts, shared = prefill_shared(k, &s);
    bool usual = s.warps_m == 4 && s.warps_n == 1 && s.stage_blocks == 4 && s.stages == 3;
    const char *shape = usual ? ""
                              : ir_arena_printf(em->arena, "w%dx%ds%dx%d", s.warps_m, s.warps_n,
                                                s.stage_blocks, s.stages);
    const char *suffix = ir_arena_printf(em->arena, "_prefill%dx%d%s_%u",
                                         s.warps_m * s.tiles_m * 16, tokens, shape, tile->min_rows);
    if (!add_prologue(em, suffix, tile->min_rows))
        return false;
    cg_cuda_variant v = {
        .suffix = suffix,
        .row_scratch_bytes = many_scratch(k),
        .min_rows = tile->min_rows,
        .threads = (uint32_t)(s.warps_m * s.warps_n * 32),
        .min_blocks = 2,
        .shared_bytes = (uint32_t)shared,
        .x = cg_cuda_grid(k->rows, tokens, 1),
        .y = cg_cuda_grid((ir_dim){.c = (part_columns(k) + columns - 1) / columns}, 1, 1),
        .constants = weight_text(em),
        .include = "matmul_a8_prefill.cuh",
        .call =
            call_text(em,
                      ir_arena_printf(em->arena, "a8_prefill<%d, %d, %d, %d, %d, %d>", s.warps_m,
                                      s.warps_n, s.tiles_m, s.tiles_n, s.stage_blocks, s.stages),
                      shared, many_x_text(em))};
    return cg_cuda_add(em, &v);
}

/* Instructions as counted on the emulator: of a pair of tiles of a block of k; of an mma with what
 * it shares with others; cycles of latency as tables of instruction latencies add up to. */
static double predict(const cg_cuda_emitter *em, const cg_cuda_tile *tile, int64_t rows) {
    const cg_kernel *k = em->kernel;
    cg_packed p = packed_of(k);
    int64_t blocks_k = k->matmul.k / CG_BLOCK_K, columns = part_columns(k);
    double w_bytes = (double)cg_packed_tile_bytes(&k->args[k->matmul.w].type, k->matmul.k);
    const ir_encoding *x = k->matmul.x_type.encoding;
    double x_bytes = (double)(x ? ir_encoding_row_bytes(x, k->matmul.k) : 2 * k->matmul.k);
    int parts = k->matmul.parts;
    cg_cuda_cost cost = {.launches = 1};
    cost.dram_bytes = (double)((columns + 15) / 16 * parts) * w_bytes + (double)rows * x_bytes;
    if (tile->form == CG_FORM_A8_DECODE) {
        decode d = decode_of(tile);
        int round = d.warps * d.unroll;
        int64_t tokens = rows < d.tokens ? rows : d.tokens;
        cost.blocks = (rows + d.tokens - 1) / d.tokens * ((columns + 31) / 32);
        cost.warps = d.warps;
        cost.registers = 72;
        cost.shared_bytes = decode_shared(k, &d);
        cost.instructions = (double)(blocks_k * parts * p.groups) * (85 + 16 * (double)tokens);
        cost.latency = (double)((blocks_k + round - 1) / round) * 1000;
        cost.block_bytes = 2 * parts * w_bytes + (double)tokens * x_bytes;
        cost.flight_bytes = (double)(round * 2 * parts * p.block_bytes);
        if (k->matmul.prologue) { /* 60 instructions for 32 columns, one row after another */
            cost.instructions += (double)(tokens * blocks_k) * 60;
            cost.latency += (double)tokens * 3000;
        }
        return cg_cuda_cycles(&cost, em->target);
    }
    prefill s = prefill_of(tile);
    int64_t tokens = s.warps_n * s.tiles_n * 8, tiles = s.warps_m * s.tiles_m;
    cost.launches += k->matmul.prologue != NULL;
    cost.blocks =
        (rows + tokens - 1) / tokens * ((columns * parts + tiles * 16 - 1) / (tiles * 16));
    cost.warps = s.warps_m * s.warps_n;
    cost.registers = 40 + 2 * s.tiles_m * s.tiles_n * 4 + 8 * s.tiles_m;
    cost.shared_bytes = prefill_shared(k, &s);
    double mmas = (double)(blocks_k * s.tiles_m * s.tiles_n * p.groups); /* of a warp */
    double each = 24 + 52.0 / s.tiles_n + 13.0 / s.tiles_m;
    cost.instructions = mmas * each * cost.warps;
    cost.latency = larger((int64_t)(2 * mmas * each), blocks_k * 200) + 2000.0;
    cost.block_bytes = (double)tiles * w_bytes + (double)tokens * x_bytes;
    cost.flight_bytes = (double)(prefill_stage(k, &s) * (s.stages - 1));
    return cg_cuda_cycles(&cost, em->target);
}

/* For each number of rows, by doublings, what is predicted to be fastest. */
static void choose_a8(cg_cuda_emitter *em) {
    const cg_kernel *k = em->kernel;
    int unroll = decode_unroll(k);
    cg_cuda_tile all[] = {{.form = CG_FORM_A8_DECODE, .values = {1, DECODE_WARPS, unroll}},
                          {.form = CG_FORM_A8_DECODE, .values = {8, DECODE_WARPS, unroll}},
                          {.form = CG_FORM_A8_PREFILL, .values = {4, 1, 1, 4, 4, 3}},
                          {.form = CG_FORM_A8_PREFILL, .values = {4, 1, 2, 4, 4, 3}},
                          {.form = CG_FORM_A8_PREFILL, .values = {4, 1, 2, 8, 4, 3}}};
    enum { N = sizeof all / sizeof *all, MOST_ROWS = 4096 };
    decode many = decode_of(&all[1]);
    while (many.tokens > 2 && decode_shared(k, &many) > MOST_SHARED)
        many.tokens = all[1].values[0] /= 2;
    int last = -1;
    for (int64_t rows = 1, from = 0; rows <= MOST_ROWS; from = rows + 1, rows *= 2) {
        int best = 0;
        for (int i = 1; i < N; i++)
            if (predict(em, &all[i], rows) < predict(em, &all[best], rows) &&
                !cg_cuda_matmul_why_not(em, &all[i])) /* the processor has the shared memory */
                best = i;
        /* Each is one more to compile and load, so that it must gain something. */
        if (last >= 0 && predict(em, &all[last], rows) < 1.1 * predict(em, &all[best], rows))
            best = last;
        if (best != last)
            take(em, (uint32_t)from, all[best]);
        last = best;
    }
}

/* --- f32 activations -----------------------------------------------------------------------------
 */

typedef struct f32 {
    int tokens, warps, stages;
} f32;

static f32 f32_of(const cg_cuda_tile *t) {
    return (f32){t->values[0], t->values[1], t->values[2]};
}

/* Bytes of shared memory of f32_matmul, as the header computes them. */
static int64_t f32_shared(const cg_kernel *k, const f32 *s, bool prologue) {
    const ir_type *w = &k->args[k->matmul.w].type;
    int64_t stage_k = w->encoding ? 2 * CG_BLOCK_K : 1024 / ir_dtype_bits(w->dtype), tile = 2048;
    if (w->encoding) {
        cg_packed p = cg_packed_of(w->encoding);
        tile = p.super_bytes + 2 * p.block_bytes;
    }
    int64_t tiles = s->stages * s->warps * 2 * k->matmul.parts * (round_up(tile, 128) + 64);
    if (prologue)
        return larger(tiles, prologue_bytes(k)) + s->tokens * round_up(k->matmul.k, 4) * 4;
    return tiles + s->stages * s->tokens * stage_k * 4;
}

static const char *f32_why_not(cg_cuda_emitter *em, const f32 *s, bool prologue) {
    if (prologue && !em->kernel->matmul.prologue)
        return "the kernel has no prologue: expected form f32";
    return too_much_shared(em, f32_shared(em->kernel, s, prologue));
}

static bool add_f32(cg_cuda_emitter *em, const cg_cuda_tile *tile) {
    const cg_kernel *k = em->kernel;
    bool prologue = tile->form == CG_FORM_F32_PROLOGUE, two = k->matmul.prologue && !prologue;
    f32 s = f32_of(tile);
    int64_t shared = f32_shared(k, &s, prologue), units = (part_columns(k) + 31) / 32;
    const char *suffix = ir_arena_printf(em->arena, "_%s%dx%dx%d_%u", two ? "many" : "rows",
                                         s.tokens, s.warps, s.stages, tile->min_rows);
    if (two && !add_prologue(em, suffix, tile->min_rows))
        return false;
    cg_cuda_variant v = {.suffix = suffix,
                         .min_rows = tile->min_rows,
                         .threads = (uint32_t)s.warps * 32,
                         .min_blocks = 2,
                         .shared_bytes = (uint32_t)shared,
                         .row_scratch_bytes = two ? many_scratch(k) : 0,
                         .x = cg_cuda_grid(k->rows, s.tokens, 1),
                         .y = cg_cuda_grid((ir_dim){.c = (units + s.warps - 1) / s.warps}, 1, 1),
                         .constants = prologue ? with_prologue(em) : weight_text(em),
                         .include = "matmul_f32.cuh",
                         .call = call_text(em,
                                           ir_arena_printf(em->arena, "f32_matmul<%d, %d, %d>",
                                                           s.warps, s.tokens, s.stages),
                                           shared, prologue ? "nullptr" : many_x_text(em))};
    return cg_cuda_add(em, &v);
}

static void choose_f32(cg_cuda_emitter *em) {
    bool prologue = em->kernel->matmul.prologue;
    int warps = 4 / em->kernel->matmul.parts;
    f32 s = {8, warps, 3};
    while (s.tokens > 1 && f32_shared(em->kernel, &s, prologue) > MOST_SHARED)
        s.tokens /= 2;
    cg_cuda_tile t = {.form = prologue ? CG_FORM_F32_PROLOGUE : CG_FORM_F32,
                      .values = {1, warps, 3}};
    take(em, 0, t);
    t.values[0] = s.tokens;
    if (s.tokens > 1)
        take(em, 2, t);
    t = (cg_cuda_tile){.form = CG_FORM_F32, .values = {8, warps, 3}};
    if (prologue)
        take(em, s.tokens + 1 > 3 ? (uint32_t)s.tokens + 1 : 3, t);
}

/* --- 16-bit activations --------------------------------------------------------------------------
 */

/* How K is cut, the same for all numbers of rows and no matter of tiles: ranges of `range`, so many
 * that there is work for a large GPU, but none too short. */
static int half_splits(const cg_kernel *k, int *range) {
    int64_t units = (part_columns(k) + 31) / 32 * k->matmul.parts;
    int splits = 1;
    while (splits < 8 && units * splits < 512 && k->matmul.k / (2 * splits) >= 256)
        splits *= 2;
    *range = (int)round_up((k->matmul.k + splits - 1) / splits, 64);
    return splits;
}

static bool add_half(cg_cuda_emitter *em, const cg_cuda_tile *tile, const char *suffix,
                     uint32_t threads, int tokens, int64_t columns, int64_t shared,
                     const char *schedule) {
    const cg_kernel *k = em->kernel;
    cg_cuda_variant v = {
        .suffix = suffix,
        .min_rows = tile->min_rows,
        .threads = threads,
        .min_blocks = 2,
        .shared_bytes = (uint32_t)shared,
        .x = cg_cuda_grid(k->rows, tokens, 1),
        .y = cg_cuda_grid((ir_dim){.c = (part_columns(k) + columns - 1) / columns}, 1, 1),
        .constants = weight_text(em),
        .include = tile->form == CG_FORM_HALF_DECODE ? "matmul_half_decode.cuh"
                                                     : "matmul_half_prefill.cuh",
        .call = call_text(em, schedule, shared, x_text(em))};
    return cg_cuda_add(em, &v);
}

static int64_t half_decode_shared(const cg_kernel *k, int units, int stages) {
    int range, splits = half_splits(k, &range), parts = k->matmul.parts;
    int64_t sums = parts * 8 * 36 * 4, stage = 2 * parts * 32 * 32;
    return units * splits * larger(stages * stage, sums);
}

static const char *half_decode_why_not(cg_cuda_emitter *em, const cg_cuda_tile *t) {
    int range, splits = half_splits(em->kernel, &range);
    if (t->values[0] * splits > 8)
        return ir_arena_printf(em->arena,
                               "units must be %d at most: K is in %d ranges, a warp each",
                               8 / splits, splits);
    return too_much_shared(em, half_decode_shared(em->kernel, t->values[0], t->values[1]));
}

static bool add_half_decode(cg_cuda_emitter *em, const cg_cuda_tile *tile) {
    const cg_kernel *k = em->kernel;
    int range, splits = half_splits(k, &range), units = tile->values[0], stages = tile->values[1];
    return add_half(
        em, tile, ir_arena_printf(em->arena, "_decode8x%dx%d_%u", units, stages, tile->min_rows),
        (uint32_t)(units * splits) * 32, 8, units * 32, half_decode_shared(k, units, stages),
        ir_arena_printf(em->arena, "half_decode<%d, %d, %d, %d>", units, splits, range, stages));
}

typedef struct half_prefill {
    int warps, tiles_m, tiles_n, stages;
} half_prefill;

static half_prefill half_prefill_of(const cg_cuda_tile *t) {
    return (half_prefill){t->values[0], t->values[1], t->values[2], t->values[3]};
}

static int64_t half_prefill_shared(const cg_kernel *k, const half_prefill *s) {
    enum { STAGE_K = 64 };
    int64_t tiles = s->warps * s->tiles_m, tokens = s->tiles_n * 8, parts = k->matmul.parts;
    int64_t stages = s->stages * (tiles * STAGE_K * 32 + tokens * STAGE_K * 2);
    return larger(stages, parts * tokens * (tiles * 16 / parts + 4) * 4);
}

static const char *half_prefill_why_not(cg_cuda_emitter *em, const half_prefill *s) {
    int parts = em->kernel->matmul.parts;
    if (s->warps & (s->warps - 1) || s->tiles_n % 2)
        return "warps_m must be a power of two, and tiles_n even";
    if (s->warps * s->tiles_m * 16 % (32 * parts))
        return ir_arena_printf(em->arena, "warps_m times tiles_m must be a multiple of %d",
                               2 * parts);
    if (s->tiles_m * s->tiles_n > 16)
        return "tiles_m times tiles_n must be 16 at most: sums are in registers";
    if (s->tiles_n * 8 % (s->warps * 4))
        return "8 tiles_n must be a multiple of 4 warps_m: rows of x are copied in whole steps";
    return too_much_shared(em, half_prefill_shared(em->kernel, s));
}

static bool add_half_prefill(cg_cuda_emitter *em, const cg_cuda_tile *tile) {
    const cg_kernel *k = em->kernel;
    half_prefill s = half_prefill_of(tile);
    int range, splits = half_splits(k, &range), tokens = s.tiles_n * 8;
    int64_t columns = s.warps * s.tiles_m * 16 / k->matmul.parts;
    return add_half(em, tile,
                    ir_arena_printf(em->arena, "_prefill%dx%dw%ds%d_%u", s.warps * s.tiles_m * 16,
                                    tokens, s.warps, s.stages, tile->min_rows),
                    (uint32_t)s.warps * 32, tokens, columns, half_prefill_shared(k, &s),
                    ir_arena_printf(em->arena, "half_prefill<%d, 1, %d, %d, %d, %d, %d>", s.warps,
                                    s.tiles_m, s.tiles_n, splits, range, s.stages));
}

static void choose_half(cg_cuda_emitter *em) {
    int range, splits = half_splits(em->kernel, &range),
               stages = em->kernel->matmul.parts == 2 ? 3 : 4;
    take(em, 0,
         (cg_cuda_tile){.form = CG_FORM_HALF_DECODE,
                        .values = {splits < 4 ? 4 / splits : 1, stages}});
    take(em, 17, (cg_cuda_tile){.form = CG_FORM_HALF_PREFILL, .values = {4, 1, 4, 3}});
    take(em, 33, (cg_cuda_tile){.form = CG_FORM_HALF_PREFILL, .values = {4, 2, 8, 3}});
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
    if (x->encoding && !ir_encodings_multiply(x->encoding, w->encoding))
        return cg_cuda_unsupported(em, "activations in %s do not go with weights in %s",
                                   x->encoding->name,
                                   w->encoding ? w->encoding->name : ir_dtype_name(w->dtype));
    if (!x->encoding && x->dtype != IR_F32) {
        bool exact = w->encoding ? w->encoding->code == IR_CODE_E4M3 : w->dtype == x->dtype;
        if ((x->dtype != IR_F16 && x->dtype != IR_BF16) || !exact)
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

/* Which forms serve which activations. */
static bool form_fits(const cg_kernel *k, cg_cuda_form_id form) {
    if (by_groups(k))
        return form == CG_FORM_A8_DECODE || form == CG_FORM_A8_PREFILL;
    if (k->matmul.x_type.dtype == IR_F32)
        return form == CG_FORM_F32 || form == CG_FORM_F32_PROLOGUE;
    return form == CG_FORM_HALF_DECODE || form == CG_FORM_HALF_PREFILL;
}

const char *cg_cuda_matmul_why_not(cg_cuda_emitter *em, const cg_cuda_tile *tile) {
    decode d = decode_of(tile);
    prefill p = prefill_of(tile);
    f32 f = f32_of(tile);
    half_prefill h = half_prefill_of(tile);
    if (!form_fits(em->kernel, tile->form))
        return "not a form of this kernel: a8_decode and a8_prefill are for int8 and fp8 "
               "activations and fp8 weights by 16-bit ones, f32 and f32_prologue for f32, "
               "half_decode and half_prefill for f16 and bf16";
    switch (tile->form) {
    case CG_FORM_A8_DECODE:
        return decode_why_not(em, &d);
    case CG_FORM_A8_PREFILL:
        return prefill_why_not(em, &p);
    case CG_FORM_HALF_DECODE:
        return half_decode_why_not(em, tile);
    case CG_FORM_HALF_PREFILL:
        return half_prefill_why_not(em, &h);
    default:
        return f32_why_not(em, &f, tile->form == CG_FORM_F32_PROLOGUE);
    }
}

static bool add_tile(cg_cuda_emitter *em, const cg_cuda_tile *tile) {
    switch (tile->form) {
    case CG_FORM_A8_DECODE:
        return add_decode(em, tile);
    case CG_FORM_A8_PREFILL:
        return add_prefill(em, tile);
    case CG_FORM_HALF_DECODE:
        return add_half_decode(em, tile);
    case CG_FORM_HALF_PREFILL:
        return add_half_prefill(em, tile);
    default:
        return add_f32(em, tile);
    }
}

bool cg_cuda_matmul(cg_cuda_emitter *em) {
    if (!check(em))
        return false;
    if (em->given)
        em->tiling = *em->given;
    else if (by_groups(em->kernel))
        choose_a8(em);
    else if (em->kernel->matmul.x_type.dtype == IR_F32)
        choose_f32(em);
    else
        choose_half(em);
    if (em->given && !cg_cuda_check_tiling(em, em->given))
        return false;
    bool ok = true;
    for (int i = 0; ok && i < em->tiling.n; i++) {
        const char *why = cg_cuda_matmul_why_not(em, &em->tiling.tiles[i]);
        ok = why ? cg_cuda_unsupported(em, "%s", why) : add_tile(em, &em->tiling.tiles[i]);
    }
    return ok;
}
