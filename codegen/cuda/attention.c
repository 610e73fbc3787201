/* Schedules of the attention anchor. A block works on a tile, a few tokens of one sequence, and a
 * key/value head (kernels/attention.cuh). Pages of f16 and quantized ones go to tensor cores where
 * the size of a head is a multiple of 16; all else is computed as the CPU does.
 *
 * Steps of few tokens, which would leave most of a GPU idle, split what a tile sees among several
 * blocks; others do not, and their tiles are larger. Bits are the same in all. */
#include "codegen/cuda/internal.h"

#include <inttypes.h>

enum {
    MOST_SHARED = 99 * 1024, /* of a block: what every architecture of targets.def has */
    MOST_SPLIT_ROWS = 64,    /* steps of so many tokens are never split: scratch memory grows */
    BLOCKS = 128,            /* that keep a GPU busy: as many as a large one has processors */
    MORE_ROWS = 4,           /* from here on fewer splits */
    RANGE = CG_ATTENTION_RANGE,
    COUNTERS = MCC_CUDA_COUNTER_BYTES / 4 /* of blocks that have arrived: a token and head each */
};

typedef struct schedule {
    cg_cuda_emitter *em;
    const cg_attention *a;
    const ir_kv_group *kv;
    int64_t group; /* query heads of a key/value head */
} schedule;

static const cg_arg *kv_arg(const cg_kernel *kernel) {
    return &kernel->args[kernel->attention.kv];
}

static bool check(cg_cuda_emitter *em) {
    const cg_kernel *kernel = em->kernel;
    const cg_attention *a = &kernel->attention;
    if (a->kv < 0 || a->kv >= kernel->n_args || kv_arg(kernel)->kind != CG_ARG_KV)
        return cg_cuda_unsupported(em, "attention over argument %d, which is no KV cache", a->kv);
    const ir_kv_group *kv = &kv_arg(kernel)->kv;
    if (kv->heads < 1 || kv->head_dim < 1 || a->heads < 1 || a->heads % kv->heads)
        return cg_cuda_unsupported(
            em, "attention of %" PRId64 " heads over %" PRId64 " key/value heads of %" PRId64,
            a->heads, kv->heads, kv->head_dim);
    if (kernel->rows.c || kernel->rows.t != 1 || kernel->rows.s || kernel->rows.r)
        return cg_cuda_unsupported(em, "attention of other rows than the step's tokens");
    if (a->window < 0)
        return cg_cuda_unsupported(em, "an attention window of %" PRId64, a->window);
    if (a->q.arg < 0 || a->q.arg >= kernel->n_args || kernel->args[a->q.arg].type.dtype != IR_F32 ||
        kernel->args[a->q.arg].type.encoding || a->q.row_map != CG_ROW_SELF ||
        a->q.column_stride != 1)
        return cg_cuda_unsupported(em, "attention whose queries are not rows of f32");
    if (kernel->n_programs != 1 || kernel->programs[0].heads != a->heads ||
        kernel->programs[0].width != kv->head_dim)
        return cg_cuda_unsupported(
            em, "attention without one epilogue over its %" PRId64 " heads of %" PRId64, a->heads,
            kv->head_dim);
    return true;
}

/* What the kernels' headers want to know. */
static const char *constants(const schedule *s, const cg_cuda_variant *v, int64_t tile,
                             int64_t splits) {
    const cg_attention *a = s->a;
    /* A position less a window is an int; one that no context fills is none. */
    int64_t window = a->window > INT32_MAX / 2 ? 0 : a->window;
    return ir_arena_printf(
        s->em->arena,
        "constexpr int KV_HEADS = %" PRId64 ", GROUP = %" PRId64 ", HEAD_DIM = %" PRId64 ";\n"
        "constexpr int WINDOW = %" PRId64 ", KV_GROUP = %d;\n"
        "constexpr float SCALE = %af, SOFTCAP = %af;\n"
        "constexpr int64 Q_ROW_STRIDE = %" PRId64 ", Q_HEAD_STRIDE = %" PRId64
        ", Q_OFFSET = %" PRId64 ";\n"
        "constexpr int TILE = %" PRId64 ", SPLITS = %" PRId64 ", THREADS = %" PRIu32
        ", SHARED_BYTES = %" PRIu32 ";\n"
        "typedef %s kv;\n"
        "constexpr bool QUANTIZED = %s;\n"
        "constexpr int64 PAGE_BYTES = %" PRId64 ";\n"
        "INLINE const float *queries(const args &a) {\n"
        "    return static_cast<const float *>(a.a%d) + Q_OFFSET;\n}\n"
        "INLINE const void *pool(const args &a) {\n    return a.a%d;\n}\n"
        "INLINE void *scratch(const args &a) {\n    return %s;\n}\n",
        s->kv->heads, s->group, s->kv->head_dim, window, kv_arg(s->em->kernel)->kv_group,
        (double)(float)a->scale, (double)(float)a->softcap, a->q.row_stride, a->q.head_stride,
        a->q.offset, tile, splits, v->threads, v->shared_bytes,
        s->kv->dtype == IR_F32   ? "float"
        : s->kv->dtype == IR_F16 ? "uint16"
        : s->kv->dtype == IR_I8  ? "int8_code"
                                 : "fp8_code",
        ir_kv_quantized(s->kv->dtype) ? "true" : "false", ir_kv_page_bytes(s->kv), a->q.arg, a->kv,
        splits > 1 ? "a.scratch" : "nullptr");
}

/* Splits for one token, fewer for some, none where tokens and heads suffice. Tiles of `form`, whose
 * second value is for splits, and for none. */
static void choose(const schedule *s, cg_cuda_form_id form, int split, int whole_tile) {
    int64_t heads = s->kv->heads, whole = (BLOCKS + heads - 1) / heads, splits = 4;
    cg_cuda_tiling *to = &s->em->tiling;
    whole = whole < MOST_SPLIT_ROWS ? whole : MOST_SPLIT_ROWS;
    if (whole == 1 || whole * heads > COUNTERS) {
        to->tiles[to->n++] = (cg_cuda_tile){0, form, {1, whole_tile}};
        return;
    }
    while (splits < 32 && splits * heads < 96)
        splits *= 2;
    to->tiles[to->n++] = (cg_cuda_tile){0, form, {(int)splits, split}};
    if (whole > MORE_ROWS && splits > 4)
        to->tiles[to->n++] = (cg_cuda_tile){MORE_ROWS, form, {(int)splits / 4, split}};
    to->tiles[to->n++] = (cg_cuda_tile){(uint32_t)whole, form, {1, whole_tile}};
}

/* Blocks: x the head and split, y the tile; there are at most T tiles, and at most floor(T / tile)
 * + S. Blocks without one leave at once. */
static bool add(const schedule *s, const cg_cuda_variant *kind, const cg_cuda_tile *which,
                int64_t tile) {
    cg_cuda_variant v = *kind;
    int64_t splits = which->values[0];
    v.suffix =
        which->min_rows ? ir_arena_printf(s->em->arena, "_rows%" PRIu32, which->min_rows) : "";
    v.min_rows = which->min_rows;
    v.constants = ir_arena_printf(s->em->arena, "%s%s", v.constants ? v.constants : "",
                                  constants(s, &v, tile, splits));
    v.x = cg_cuda_grid(s->em->kernel->rows, INT32_MAX, s->kv->heads * splits);
    v.y = cg_cuda_grid(s->em->kernel->rows, 1, 1);
    if (which->min_rows > 0)
        v.y = (mcc_cuda_grid){.dim = {.t = 1, .s = tile}, .div = tile, .mult = 1};
    if (splits > 1)
        v.scratch_bytes = (uint64_t)(s->kv->heads * s->group * (s->kv->head_dim + 2) * 4);
    return cg_cuda_add(s->em, &v);
}

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* --- the CPU's order of arithmetic ---------------------------------------------------------------
 */

enum { THREADS_F32 = 256 };

/* sizeof(attention_f32_shared), or what the epilogue needs in place of the scores. */
static int64_t shared_f32(const schedule *s, int64_t tile) {
    int64_t rows = tile * s->group, query = rows * s->kv->head_dim * 4, scores = rows * RANGE * 4;
    const cg_program *program = &s->em->kernel->programs[0];
    int64_t tmp = cg_cuda_tmp_floats(s->em->kernel, program) * (THREADS_F32 / 32) * 4;
    int64_t bytes = query + scores + rows * 16;
    bytes = round_up(bytes, 8) + RANGE / 16 * 8;
    return query + tmp > bytes ? query + tmp : bytes;
}

static bool add_f32(const schedule *s, const cg_cuda_tile *which) {
    int64_t tile = which->values[1];
    cg_cuda_variant v = {.threads = THREADS_F32,
                         .min_blocks = 1,
                         .shared_bytes = (uint32_t)shared_f32(s, tile),
                         .include = "attention_f32.cuh",
                         .call = "attention_f32(a);"};
    return add(s, &v, which, tile);
}

static void choose_f32(const schedule *s) {
    int64_t tile = s->group < 16 ? 16 / s->group : 1;
    while (tile > 1 && shared_f32(s, tile) > MOST_SHARED)
        tile--;
    choose(s, CG_FORM_ATTENTION_F32, (int)tile, (int)tile);
}

/* --- tensor cores --------------------------------------------------------------------------------
 */

enum { THREADS_F16 = 128, STAGES_F16 = 3 };

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t stage_f16(const schedule *s) {
    int64_t dim = s->kv->head_dim, tokens = RANGE;
    while (tokens * dim * 2 > 16384)
        tokens /= 2;
    return most(RANGE * (dim % 32 ? 16 : 32) * 2, tokens * dim * 2);
}

/* At least sizeof(attention_f16_shared), and what the epilogue needs in place of q. */
static int64_t shared_f16(const schedule *s, int64_t m_tiles) {
    int64_t dim = s->kv->head_dim, rows = 16 * m_tiles, stage = stage_f16(s);
    const cg_program *program = &s->em->kernel->programs[0];
    int64_t tmp = cg_cuda_tmp_floats(s->em->kernel, program) * (THREADS_F16 / 32) * 4;
    int64_t rest =
        rows * dim * 4 + rows * RANGE * 2 + rows * (8 * THREADS_F16 / 32 + 12) + 2 * RANGE / 16 * 8;
    return STAGES_F16 * stage + most(rest, tmp);
}

static bool add_f16(const schedule *s, const cg_cuda_tile *which) {
    int64_t m_tiles = which->values[1];
    cg_cuda_variant v = {.threads = THREADS_F16,
                         .min_blocks = 1,
                         .shared_bytes = (uint32_t)shared_f16(s, m_tiles),
                         .constants = ir_arena_printf(
                             s->em->arena, "constexpr int M_TILES = %" PRId64 ";\n", m_tiles),
                         .include = "attention_f16.cuh",
                         .call = "attention_f16(a);"};
    return add(s, &v, which, 16 * m_tiles / s->group);
}

static void choose_f16(const schedule *s) {
    int64_t least = (s->group + 15) / 16, m_tiles = least;
    while (m_tiles < 2 && shared_f16(s, m_tiles + 1) <= MOST_SHARED)
        m_tiles++;
    choose(s, CG_FORM_ATTENTION_F16, (int)least, (int)m_tiles);
}

/* --- tiles ---------------------------------------------------------------------------------------
 */

static schedule schedule_of(cg_cuda_emitter *em) {
    schedule s = {.em = em, .a = &em->kernel->attention, .kv = &kv_arg(em->kernel)->kv};
    s.group = s.a->heads / s.kv->heads;
    return s;
}

static bool on_tensor_cores(const schedule *s) {
    return s->kv->dtype != IR_F32 && s->kv->head_dim % 16 == 0 && s->kv->head_dim <= 256 &&
           s->group <= 64 && s->a->scale > 0;
}

const char *cg_cuda_attention_why_not(cg_cuda_emitter *em, const cg_cuda_tile *t) {
    schedule s = schedule_of(em);
    bool tensor_cores = on_tensor_cores(&s);
    int64_t splits = t->values[0], tile = t->values[1], most = cg_cuda_most_shared(em);
    if (t->form != (tensor_cores ? CG_FORM_ATTENTION_F16 : CG_FORM_ATTENTION_F32))
        return ir_arena_printf(em->arena, "not a form of this kernel: expected %s",
                               tensor_cores ? "attention_f16" : "attention_f32");
    if (splits & (splits - 1))
        return "splits must be a power of two";
    if (tensor_cores && 16 * tile < s.group)
        return ir_arena_printf(em->arena,
                               "m_tiles is %" PRId64 ", too few for %" PRId64
                               " query heads of a key/value head",
                               tile, s.group);
    /* Results, 8 columns of padding each, lie where slices did (attention_f16.cuh). */
    int64_t stage = tensor_cores ? stage_f16(&s) : 0;
    if (tensor_cores && 16 * tile * (s.kv->head_dim + 8) * 4 > STAGES_F16 * stage)
        return ir_arena_printf(em->arena, "m_tiles is %" PRId64 ": results do not fit", tile);
    int64_t bytes = tensor_cores ? shared_f16(&s, tile) : shared_f32(&s, tile);
    if (bytes > most)
        return ir_arena_printf(em->arena,
                               "attention needs %" PRId64 " bytes of shared memory, at most "
                               "%" PRId64 " can be had",
                               bytes, most);
    return NULL;
}

/* A step whose blocks share what they see has scratch memory and counters for so many rows. */
uint32_t cg_cuda_split_rows(const cg_kernel *kernel) {
    if (kernel->anchor != CG_ANCHOR_ATTENTION)
        return 0;
    int64_t rows = COUNTERS / kv_arg(kernel)->kv.heads + 1;
    return (uint32_t)(rows < MOST_SPLIT_ROWS ? rows : MOST_SPLIT_ROWS);
}

static bool check_splits(const schedule *s, const cg_cuda_tiling *tiling) {
    uint32_t most = cg_cuda_split_rows(s->em->kernel);
    for (int i = 0; i < tiling->n; i++)
        if (tiling->tiles[i].values[0] > 1 &&
            (i + 1 == tiling->n || tiling->tiles[i + 1].min_rows > most))
            return ir_error(s->em->diag, tiling->key,
                            "tile %d has splits, which are for fewer than %" PRIu32
                            " rows: expected another tile from there on at the latest",
                            i + 1, most);
    return true;
}

bool cg_cuda_attention(cg_cuda_emitter *em) {
    if (!check(em))
        return false;
    schedule s = schedule_of(em);
    bool tensor_cores = on_tensor_cores(&s), ok = true;
    if (em->given) {
        em->tiling = *em->given;
        ok = cg_cuda_check_tiling(em, em->given) && check_splits(&s, em->given);
    } else if (tensor_cores) {
        choose_f16(&s);
    } else {
        choose_f32(&s);
    }
    for (int i = 0; ok && i < em->tiling.n; i++) {
        const cg_cuda_tile *t = &em->tiling.tiles[i];
        const char *why = cg_cuda_attention_why_not(em, t);
        ok = why            ? cg_cuda_unsupported(em, "%s", why)
             : tensor_cores ? add_f16(&s, t)
                            : add_f32(&s, t);
    }
    return ok;
}
