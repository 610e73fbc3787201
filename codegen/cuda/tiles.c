#include "codegen/cuda/tiles.h"

#include "codegen/cuda/internal.h"

#include <inttypes.h>
#include <string.h>

#define COMMA ,
const cg_cuda_form cg_cuda_forms[CG_N_FORMS] = {
#define FORM(id, name, values, least, most) [CG_FORM_##id] = {name, values, least, most},
#include "codegen/cuda/tile_forms.def"
#undef FORM
};
#undef COMMA

static const char *type_name(const ir_type *type) {
    return type->encoding ? type->encoding->name : ir_dtype_name(type->dtype);
}

static const char *matmul_key(const cg_kernel *k, const char *arch, ir_arena *arena) {
    const cg_matmul *m = &k->matmul;
    return ir_arena_printf(arena, "%s %s %s %s%" PRId64 "x%" PRId64 "%s", arch,
                           type_name(&m->x_type), type_name(&k->args[m->w].type),
                           m->parts == 2 ? "2x" : "", m->n / m->parts, m->k,
                           m->prologue ? " prologue" : "");
}

static const char *attention_key(const cg_kernel *k, const char *arch, ir_arena *arena) {
    const cg_attention *a = &k->attention;
    const ir_kv_group *kv = &k->args[a->kv].kv;
    const char *window =
        a->window ? ir_arena_printf(arena, " window %" PRId64, (int64_t)a->window) : "";
    return ir_arena_printf(arena, "%s attention %s %" PRId64 "/%" PRId64 "x%" PRId64 "%s", arch,
                           ir_dtype_name(kv->dtype), (int64_t)a->heads, (int64_t)kv->heads,
                           (int64_t)kv->head_dim, window);
}

const char *cg_cuda_tile_key(const cg_kernel *kernel, const cg_cuda_target *target,
                             ir_arena *arena) {
    const char *arch = target ? target->arch_name : "any";
    if (kernel->anchor == CG_ANCHOR_MATMUL)
        return matmul_key(kernel, arch, arena);
    return kernel->anchor == CG_ANCHOR_ATTENTION ? attention_key(kernel, arch, arena) : NULL;
}

const cg_cuda_tiling *cg_cuda_tiles_find(const cg_cuda_tiles *tiles, const char *key) {
    for (int i = 0; tiles && key && i < tiles->n; i++)
        if (strcmp(tiles->all[i].key, key) == 0)
            return &tiles->all[i];
    return NULL;
}

/* --- what is legal -------------------------------------------------------------------------------
 */

/* What every tile must be: within its form's limits. NULL, or why it is not legal. */
static const char *out_of_range(const cg_cuda_tile *t, ir_arena *arena) {
    const cg_cuda_form *form = &cg_cuda_forms[t->form];
    for (int i = 0; i < CG_TILE_VALUES && form->values[i]; i++)
        if (t->values[i] < form->least[i] || t->values[i] > form->most[i])
            return ir_arena_printf(arena, "%s is %d, expected %d to %d", form->values[i],
                                   t->values[i], form->least[i], form->most[i]);
    return NULL;
}

/* Whether a tile can be used at all. */
static const char *why_not(cg_cuda_emitter *em, const cg_cuda_tile *t) {
    const char *why = out_of_range(t, em->arena);
    if (why)
        return why;
    return em->kernel->anchor == CG_ANCHOR_MATMUL ? cg_cuda_matmul_why_not(em, t)
                                                  : cg_cuda_attention_why_not(em, t);
}

static bool illegal(cg_cuda_emitter *em, const cg_cuda_tiling *tiling, int i, const char *why) {
    const cg_cuda_tile *t = &tiling->tiles[i];
    return ir_error(em->diag, tiling->key, "tile %d (%s from %" PRIu32 " rows on): %s", i + 1,
                    cg_cuda_forms[t->form].name, t->min_rows, why);
}

bool cg_cuda_check_tiling(cg_cuda_emitter *em, const cg_cuda_tiling *tiling) {
    if (tiling->n < 1)
        return ir_error(em->diag, tiling->key, "no tiles");
    for (int i = 0; i < tiling->n; i++) {
        uint32_t rows = tiling->tiles[i].min_rows;
        if (i == 0 ? rows != 0 : rows <= tiling->tiles[i - 1].min_rows)
            return illegal(em, tiling, i,
                           i ? "rows do not ascend" : "the first must be for 0 rows and more");
        const char *why = why_not(em, &tiling->tiles[i]);
        if (why)
            return illegal(em, tiling, i, why);
    }
    return true;
}

/* --- candidates ----------------------------------------------------------------------------------
 */

/* Values that are tried, 0 behind the last; the form's other values are the first one's. */
static const struct {
    cg_cuda_form_id form;
    int values[CG_TILE_VALUES][5];
} tried[] = {
    {CG_FORM_A8_DECODE, {{1, 4, 8}, {4, 8, 16}, {1, 2}}},
    {CG_FORM_A8_PREFILL, {{4}, {1, 2}, {1, 2}, {4, 8}, {4}, {2, 3, 4}}},
    {CG_FORM_F32, {{1, 4, 8}, {1, 2, 4}, {3, 4}}},
    {CG_FORM_F32_PROLOGUE, {{1, 4, 8}, {1, 2, 4}, {3}}},
    {CG_FORM_HALF_DECODE, {{1, 2, 4}, {3, 4, 6}}},
    {CG_FORM_HALF_PREFILL, {{4}, {1, 2}, {4, 8}, {2, 3, 4}}},
    {CG_FORM_ATTENTION_F16, {{1, 2, 4, 8, 16}, {1, 2}}},
    {CG_FORM_ATTENTION_F32, {{1, 2, 4, 8, 16}, {1, 4, 8}}},
};

static int combinations(const int values[CG_TILE_VALUES][5]) {
    int n = 1;
    for (int i = 0; i < CG_TILE_VALUES && values[i][0]; i++) {
        int count = 0;
        while (count < 5 && values[i][count])
            count++;
        n *= count;
    }
    return n;
}

static cg_cuda_tile combination(cg_cuda_form_id form, const int values[CG_TILE_VALUES][5],
                                int number) {
    cg_cuda_tile t = {.form = form};
    for (int i = 0; i < CG_TILE_VALUES && values[i][0]; i++) {
        int count = 0;
        while (count < 5 && values[i][count])
            count++;
        t.values[i] = values[i][number % count];
        number /= count;
    }
    return t;
}

int cg_cuda_tile_candidates(const cg_kernel *kernel, const cg_cuda_target *target, ir_arena *arena,
                            cg_cuda_tile *out, int capacity) {
    cg_cuda_emitter em = {.kernel = kernel, .target = target, .arena = arena};
    int n = 0;
    if (!cg_cuda_tile_key(kernel, target, arena))
        return 0;
    for (size_t f = 0; f < sizeof tried / sizeof *tried; f++)
        for (int i = 0; i < combinations(tried[f].values) && n < capacity; i++) {
            cg_cuda_tile t = combination(tried[f].form, tried[f].values, i);
            if (!why_not(&em, &t))
                out[n++] = t;
        }
    return n;
}
