/* Row programs as CUDA C: struct program_N of internal.h.
 *
 * columns() computes one column a lane. group<WARPS>() computes a whole row with one or all warps
 * of a block, stage by stage (codegen/stages.h); arrays that stages pass on lie in shared memory,
 * and barriers stand between stages; ALONE: nobody reads there what was before. row() is
 * group<1>. */
#include "codegen/cuda/program.h"

#include "codegen/stages.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

bool cg_cuda_whole_rows(const cg_program *program) {
    for (int i = 0; i < program->n_nodes; i++)
        if (program->nodes[i].kind == CG_REDUCE || program->nodes[i].kind == CG_ROTATE)
            return true;
    return false;
}

bool cg_cuda_number_of_written(const cg_kernel *kernel, const cg_program *program) {
    for (int i = 0; i < program->n_nodes; i++)
        if (program->nodes[i].kind == CG_LOAD && program->nodes[i].access.column_stride == 0 &&
            kernel->args[program->nodes[i].access.arg].written)
            return true;
    return false;
}

/* --- arrays in shared memory ---------------------------------------------------------------------
 */

/* Which array (of `width` floats) a node's columns lie in, -1 for none. Two nodes share one where
 * the last stage that reads the first is over when the second is computed. */
typedef struct arrays {
    int *of; /* by node */
    int count;
} arrays;

/* The last stage that reads the array of node x; a reduction is read before its stage begins. 0:
 * none. */
static int last_read(const cg_stages *s, int x) {
    const cg_program *p = s->program;
    int last = 0;
    for (int i = 0; i < p->n_nodes; i++) {
        const cg_node *node = &p->nodes[i];
        bool reads = node->kind == CG_REDUCE || (node->kind == CG_ROTATE && node->rotate_half);
        if (reads && node->operands[0] == x && s->stage[i] > last)
            last = s->stage[i];
    }
    for (int stage = s->stage[x] + 1; s->kept[x] && stage < s->n_stages; stage++)
        if (s->needed[(int64_t)stage * p->n_nodes + x] && stage > last)
            last = stage;
    return last;
}

static arrays arrays_of(const cg_stages *s, ir_arena *arena) {
    const cg_program *p = s->program;
    arrays a = {.of = ir_arena_array(arena, (size_t)p->n_nodes + 1, sizeof *a.of)};
    int *busy =
        ir_arena_array(arena, (size_t)p->n_nodes + 1, sizeof *busy); /* last stage, by array */
    for (int i = 0; i < p->n_nodes; i++)
        a.of[i] = -1;
    for (int stage = 0; stage < s->n_stages; stage++)
        for (int i = 0; i < p->n_nodes; i++) {
            int last = s->number[i] || s->stage[i] != stage ? 0 : last_read(s, i);
            if (last == 0)
                continue;
            int k = 0;
            while (k < a.count && busy[k] >= stage)
                k++;
            if (k == a.count)
                a.count++;
            busy[k] = last;
            a.of[i] = k;
        }
    return a;
}

/* Each reduction has a float behind the arrays. */
static int reductions_before(const cg_program *program, int index) {
    int n = 0;
    for (int i = 0; i < index; i++)
        n += program->nodes[i].kind == CG_REDUCE;
    return n;
}

int64_t cg_cuda_tmp_floats(const cg_kernel *kernel, const cg_program *program) {
    ir_arena *scratch = ir_arena_create();
    cg_stages s = cg_stages_of(program, kernel->args, scratch);
    int64_t floats = arrays_of(&s, scratch).count * program->width +
                     reductions_before(program, program->n_nodes);
    ir_arena_destroy(scratch);
    return (floats + 31) / 32 * 32;
}

/* --- checks --------------------------------------------------------------------------------------
 */

static bool check_node(cg_cuda_emitter *em, const cg_program *program, int index) {
    const cg_node *node = &program->nodes[index];
    if (node->kind == CG_SCALAR && (unsigned)node->op >= CG_N_SCALAR_OPS)
        return cg_cuda_unsupported(em, "unknown scalar operation %d", (int)node->op);
    for (int i = 0; i < cg_node_operands(node); i++)
        if (node->operands[i] < 0 || node->operands[i] >= index)
            return cg_cuda_unsupported(em, "node %d uses node %d, which does not come before it",
                                       index, node->operands[i]);
    int parts = program == em->kernel->matmul.prologue      ? 0
                : em->kernel->anchor == CG_ANCHOR_MATMUL    ? em->kernel->matmul.parts
                : em->kernel->anchor == CG_ANCHOR_ATTENTION ? 1
                                                            : 0;
    switch (node->kind) {
    case CG_INPUT:
        return (node->part >= 0 && node->part < parts) ||
               cg_cuda_unsupported(em, "input of part %d, the anchor has %d", node->part, parts);
    case CG_LOAD:
        return cg_cuda_check_load(em, &node->access);
    case CG_ROTATE:
        return (node->rotate_dims >= 2 && node->rotate_dims % 2 == 0 &&
                node->rotate_dims <= program->width) ||
               cg_cuda_unsupported(em, "a rotation of %" PRId64 " of %" PRId64 " columns",
                                   node->rotate_dims, program->width);
    default:
        return true;
    }
}

static bool check_program(cg_cuda_emitter *em, const cg_program *program) {
    bool ok = true;
    if (program->width < 1 || program->heads < 1 || program->width > INT32_MAX / 64)
        return cg_cuda_unsupported(em, "a program of %" PRId64 " heads of %" PRId64 " columns",
                                   program->heads, program->width);
    for (int i = 0; i < program->n_nodes; i++)
        if (!check_node(em, program, i))
            return false; /* what follows may rest on it */
    for (int i = 0; i < program->n_stores; i++) {
        int values[2], count = cg_store_values(&program->stores[i], values);
        for (int v = 0; v < count; v++)
            if (values[v] < 0 || values[v] >= program->n_nodes)
                return cg_cuda_unsupported(em, "a store of node %d of %d", values[v],
                                           program->n_nodes);
        ok &= cg_cuda_check_store(em, program, &program->stores[i]);
    }
    return ok;
}

/* --- text ----------------------------------------------------------------------------------------
 */

typedef struct writer {
    cg_cuda_emitter *em;
    const cg_program *program;
    const cg_stages *stages;
    const arrays *arrays;
    FILE *out;
    bool whole; /* writing group(), not columns() */
} writer;

/* A constant as the f32 that it is. */
static const char *constant(writer *w, double value) {
    float f = (float)value;
    if (isnan(f))
        return "bits_float(NAN_BITS)";
    if (isinf(f))
        return f > 0 ? "bits_float(INFINITY_BITS)" : "-bits_float(INFINITY_BITS)";
    return ir_arena_printf(w->em->arena, "%af", (double)f);
}

static const char *scalar(writer *w, const cg_node *node) {
    static const char *const names[] = {
#define SCALAR(suffix, name, operands) name,
#include "codegen/scalar.def"
#undef SCALAR
    };
    const char *text = ir_arena_printf(w->em->arena, "scalar_%s(", names[node->op]);
    for (int i = 0; i < cg_node_operands(node); i++)
        text = ir_arena_printf(w->em->arena, "%s%sv%d", text, i ? ", " : "", node->operands[i]);
    return ir_arena_printf(w->em->arena, "%s)", text);
}

/* Gathered rows are found once for a row. */
static const char *row_of(writer *w, int index) {
    const cg_access *access = &w->program->nodes[index].access;
    return access->row_map == CG_ROW_GATHERED ? ir_arena_printf(w->em->arena, "row%d", index)
                                              : cg_cuda_row_text(w->em, access);
}

static const char *rotation(writer *w, const cg_node *node) {
    int x = node->operands[0];
    if (node->rotate_half && !w->whole)
        return ir_arena_printf(w->em->arena, "rotate_turned<%" PRId64 ">(v%d, col)",
                               node->rotate_dims, x);
    if (!node->rotate_half)
        return ir_arena_printf(w->em->arena, "rotate_interleaved<%" PRId64 ">(v%d, col)",
                               node->rotate_dims, x);
    if (w->stages->number[x])
        return ir_arena_printf(w->em->arena, "rotate_half<%" PRId64 ">(v%d, col)",
                               node->rotate_dims, x);
    /* lanes beyond the last column must not read beyond the array */
    return ir_arena_printf(w->em->arena, "valid ? rotate_half<%" PRId64 ">(t%d, col) : 0.0f",
                           node->rotate_dims, w->arrays->of[x]);
}

/* The value of a node that is one a column. */
static const char *column_value(writer *w, int index) {
    const cg_node *node = &w->program->nodes[index];
    switch (node->kind) {
    case CG_INPUT:
        if (!w->whole)
            return node->part ? "in1" : "in0";
        return ir_arena_printf(w->em->arena, "valid ? input[%" PRId64 " + col] : 0.0f",
                               node->part * w->program->width);
    case CG_LOAD:
        return ir_arena_printf(w->em->arena, "valid ? %s : 0.0f",
                               cg_cuda_load_text(w->em, &node->access, row_of(w, index)));
    case CG_SCALAR:
        return scalar(w, node);
    default: /* CG_ROTATE */
        return rotation(w, node);
    }
}

static const char *number_value(writer *w, int index) {
    const cg_node *node = &w->program->nodes[index];
    const char *load;
    switch (node->kind) {
    case CG_CONST:
        return constant(w, node->value);
    case CG_LOAD:
        load = cg_cuda_load_text(w->em, &node->access, row_of(w, index));
        return w->whole ? load : ir_arena_printf(w->em->arena, "valid ? %s : 0.0f", load);
    case CG_REDUCE: {
        int x = node->operands[0];
        const char *op = node->reduce == CG_REDUCE_SUM ? "sum" : "max";
        if (w->stages->number[x])
            return ir_arena_printf(w->em->arena, "row_%s<%" PRId64 ">(v%d)", op, w->program->width,
                                   x);
        return ir_arena_printf(w->em->arena, "group_%s<%" PRId64 ", WARPS>(t%d, tmp + %" PRId64 ")",
                               op, w->program->width, w->arrays->of[x],
                               w->arrays->count * w->program->width +
                                   reductions_before(w->program, index));
    }
    default:
        return scalar(w, node);
    }
}

/* What is found once: gathered rows, slots in pages. */
static void write_places(writer *w) {
    const char *guard = w->whole ? "" : "valid ? ", *no_row = w->whole ? "" : " : 0";
    for (int i = 0; i < w->program->n_nodes; i++) {
        const cg_node *node = &w->program->nodes[i];
        if (node->kind == CG_LOAD && node->access.row_map == CG_ROW_GATHERED)
            fprintf(w->out, "        const int64 row%d = %s%s%s;\n", i, guard,
                    cg_cuda_row_text(w->em, &node->access), no_row);
    }
    for (int i = 0; i < w->program->n_stores; i++)
        if (cg_store_is_kv(&w->program->stores[i]))
            fprintf(w->out, "        const kv_slot kv%d = %s%s%s;\n", i, guard,
                    cg_cuda_slot_text(w->em, &w->program->stores[i]),
                    w->whole ? "" : " : kv_slot{nullptr, 0}");
}

/* Numbers that are known before the columns of `stage`, and what they are stored to. */
static void write_numbers(writer *w, int stage) {
    const cg_stages *s = w->stages;
    for (int i = 0; i < w->program->n_nodes; i++)
        if (s->number[i] && s->stage[i] == stage)
            fprintf(w->out, "        const float v%d = %s;\n", i, number_value(w, i));
    for (int i = 0; i < w->program->n_stores; i++) {
        const cg_store *store = &w->program->stores[i];
        if (store->kind == CG_STORE && store->access.column_stride == 0 &&
            s->number[store->value] && s->stage[store->value] == stage)
            fprintf(w->out, "        if (%s)\n            %s;\n",
                    w->whole ? "group_lane<WARPS>() == 0" : "valid && col == 0",
                    cg_cuda_store_text(w->em, store, i));
        if (store->kind == CG_STORE_KV_SCALE && cg_store_stage(s, store) == stage)
            fprintf(w->out, "        if (kv%d.page && group_lane<WARPS>() == 0)\n            %s;\n",
                    i, cg_cuda_store_text(w->em, store, i));
    }
}

static bool stores_columns(const writer *w, const cg_store *store, int stage) {
    return cg_store_stage(w->stages, store) == stage && store->kind != CG_STORE_KV_SCALE &&
           (store->kind != CG_STORE || store->access.column_stride != 0);
}

static void write_store(writer *w, int index, const char *indent) {
    const cg_store *store = &w->program->stores[index];
    const char *text = cg_cuda_store_text(w->em, store, index);
    if (cg_store_is_kv(store))
        fprintf(w->out, "%sif (valid && kv%d.page)\n%s    %s;\n", indent, index, indent, text);
    else
        fprintf(w->out, "%sif (valid)\n%s    %s;\n", indent, indent, text);
}

/* The columns of one stage, for one column. */
static void write_columns(writer *w, int stage, const char *indent) {
    const cg_stages *s = w->stages;
    int n = w->program->n_nodes;
    for (int i = 0; i < n; i++) {
        if (!s->needed[(int64_t)stage * n + i])
            continue;
        bool from_array = s->stage[i] < stage && !s->again[i];
        if (from_array)
            fprintf(w->out, "%sconst float v%d = valid ? t%d[col] : 0.0f;\n", indent, i,
                    w->arrays->of[i]);
        else
            fprintf(w->out, "%sconst float v%d = %s;\n", indent, i, column_value(w, i));
        if (s->stage[i] == stage && w->arrays->of[i] >= 0)
            fprintf(w->out, "%sif (valid)\n%s    t%d[col] = v%d;\n", indent, indent,
                    w->arrays->of[i], i);
    }
    for (int i = 0; i < w->program->n_stores; i++)
        if (stores_columns(w, &w->program->stores[i], stage))
            write_store(w, i, indent);
}

static bool stage_has_columns(const writer *w, int stage) {
    int n = w->program->n_nodes;
    for (int i = 0; i < n; i++)
        if (w->stages->needed[(int64_t)stage * n + i])
            return true;
    for (int i = 0; i < w->program->n_stores; i++)
        if (stores_columns(w, &w->program->stores[i], stage))
            return true;
    return false;
}

static void write_group(writer *w) {
    int64_t width = w->program->width;
    FILE *f = w->out;
    bool prologue = w->program == w->em->kernel->matmul.prologue;
    w->whole = true;
    fprintf(f,
            "    template <int WARPS, bool ALONE = false>\n"
            "    static __device__ __forceinline__ void group(const args &a, int64 row, %s) {\n",
            prologue ? "void *x, float *tmp" : "int head, const float *input,\n        float *tmp");
    if (prologue)
        fputs("        [[maybe_unused]] const int head = 0;\n", f);
    for (int i = 0; i < w->arrays->count; i++)
        fprintf(f, "        float *const t%d = tmp + %" PRId64 ";\n", i, i * width);
    write_places(w);
    if (w->arrays->count) /* what lay there before may still be read */
        fputs("        if (!ALONE)\n            group_sync<WARPS>();\n", f);
    for (int stage = 0; stage < w->stages->n_stages; stage++) {
        write_numbers(w, stage);
        if (stage == 0 && cg_cuda_number_of_written(w->em->kernel, w->program))
            fputs("        group_sync<WARPS>();\n", f);
        if (!stage_has_columns(w, stage))
            continue;
        int64_t whole = (width + 31) / 32 * 32; /* warps see the bound together */
        fprintf(f,
                "#pragma unroll 4\n"
                "        for (int i = 0; i < %" PRId64 "; i += 32 * WARPS) {\n"
                "            const int col = i + group_lane<WARPS>();\n"
                "            if (%" PRId64 " %% (32 * WARPS) != 0 && i + 32 * WARPS > %" PRId64
                " && col >= %" PRId64 ")\n"
                "                break;\n",
                whole, whole, whole, whole);
        if (width % 32)
            fprintf(f,
                    "            const bool valid = i + 32 * WARPS <= %" PRId64 " || col < %" PRId64
                    ";\n",
                    width, width);
        else
            fputs("            constexpr bool valid = true;\n", f);
        write_columns(w, stage, "            ");
        fputs("        }\n", f);
        if (w->arrays->count && stage + 1 < w->stages->n_stages)
            fputs("        group_sync<WARPS>();\n", f);
    }
    fprintf(f,
            "    }\n\n"
            "    static __device__ __forceinline__ void row(const args &a, int64 row, %s) {\n"
            "        group<1>(a, row, %s);\n    }\n",
            prologue ? "void *x, float *tmp" : "int head, const float *input,\n        float *tmp",
            prologue ? "x, tmp" : "head, input, tmp");
}

static void write_columns_function(writer *w) {
    w->whole = false;
    fputs("\n    static __device__ __forceinline__ void columns(const args &a, int64 row, int "
          "head,\n"
          "                                                   int col0, bool valid, float in0,\n"
          "                                                   float in1) {\n"
          "        const int col = col0 + lane_id();\n",
          w->out);
    write_places(w);
    write_numbers(w, 0);
    write_columns(w, 0, "        ");
    fputs("    }\n", w->out);
}

/* --- epilogues by heads --------------------------------------------------------------------------
 */

/* The dims of the rotations in halves of a program, 0 without, -1 where they differ. */
static int64_t turned_dims(const cg_program *program) {
    int64_t dims = 0;
    for (int i = 0; i < program->n_nodes; i++) {
        const cg_node *node = &program->nodes[i];
        if (node->kind == CG_ROTATE && node->rotate_half)
            dims = dims == 0 || dims == node->rotate_dims ? node->rotate_dims : -1;
    }
    return dims;
}

bool cg_cuda_by_heads(const cg_kernel *kernel) {
    return kernel->anchor == CG_ANCHOR_MATMUL &&
           (kernel->n_programs > 1 || kernel->programs[0].heads > 1);
}

static bool check_heads(cg_cuda_emitter *em) {
    int64_t columns = 0;
    for (int i = 0; i < em->kernel->n_programs; i++) {
        const cg_program *p = &em->kernel->programs[i];
        int64_t dims = turned_dims(p);
        columns += p->heads * p->width;
        if (dims < 0 || dims % 32 || p->width % 32 || p->input_column % 32)
            return cg_cuda_unsupported(em,
                                       "an epilogue of heads of %" PRId64 " columns from %" PRId64
                                       ", of which %" PRId64 " are turned",
                                       p->width, p->input_column, dims);
        for (int k = 0; k < p->n_nodes; k++)
            if (p->nodes[k].kind == CG_REDUCE)
                return cg_cuda_unsupported(em, "a reduction in a matmul's epilogue by heads");
    }
    return (columns == em->kernel->matmul.n && em->kernel->matmul.parts == 1) ||
           cg_cuda_unsupported(em, "an epilogue of %" PRId64 " of %" PRId64 " columns", columns,
                               em->kernel->matmul.n);
}

const char *cg_cuda_tile_order(cg_cuda_emitter *em) {
    const char *text = "INLINE int tile_of(int tile) {\n";
    for (int i = 0; cg_cuda_by_heads(em->kernel) && i < em->kernel->n_programs; i++) {
        const cg_program *p = &em->kernel->programs[i];
        int64_t dims = turned_dims(p), first = p->input_column / 16, tiles = p->width / 16;
        if (dims > 0)
            text = ir_arena_printf(
                em->arena,
                "%s    if (tile >= %" PRId64 " && tile < %" PRId64
                ")\n        return tile - (tile - %" PRId64 ") %% %" PRId64
                " + turned_tile<%" PRId64 ">((tile - %" PRId64 ") %% %" PRId64 ");\n",
                text, first, first + p->heads * tiles, first, tiles, dims, first, tiles);
    }
    return ir_arena_printf(em->arena, "%s    return tile;\n}\n", text);
}

/* columns() of one program of several: `at` counts its columns as they are computed. */
static void write_heads_function(writer *w) {
    int64_t width = w->program->width, dims = turned_dims(w->program);
    w->whole = false;
    fprintf(w->out,
            "    static __device__ __forceinline__ void columns(const args &a, int64 row, int at,\n"
            "                                                   bool valid, float in0) {\n"
            "        const int head = at / %" PRId64 ", v = at %% %" PRId64 " + lane_id();\n"
            "        const int col = turned_tile<%" PRId64 ">(v / 16) * 16 + v %% 16;\n",
            width, width, dims);
    write_places(w);
    write_numbers(w, 0);
    write_columns(w, 0, "        ");
    fputs("    }\n", w->out);
}

static const char *write_program(cg_cuda_emitter *em, const cg_program *program, const char *name,
                                 bool heads) {
    if (!check_program(em, program))
        return NULL;
    cg_stages stages = cg_stages_of(program, em->kernel->args, em->arena);
    arrays a = arrays_of(&stages, em->arena);
    bool prologue = program == em->kernel->matmul.prologue;
    bool whole = prologue || cg_cuda_whole_rows(program);
    char *bytes = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&bytes, &size);
    if (!f) {
        cg_cuda_unsupported(em, "out of memory while generating code");
        return NULL;
    }
    if (heads) /* all in one stage: a rotation's partner is in the same warp */
        for (int i = 0; i < program->n_nodes; i++) {
            stages.stage[i] = 0;
            stages.kept[i] = false;
            stages.needed[i] = !stages.number[i];
            a.of[i] = -1;
        }
    writer w = {.em = em, .program = program, .stages = &stages, .arrays = &a, .out = f};
    fprintf(f, "struct %s {\n", name);
    if (heads)
        write_heads_function(&w);
    else {
        fprintf(f,
                "    static constexpr int heads = %" PRId64 ", width = %" PRId64
                ";\n    static constexpr bool whole_rows = %s;\n"
                "    static constexpr int tmp_floats = %" PRId64 ";\n\n",
                program->heads, program->width, whole ? "true" : "false",
                cg_cuda_tmp_floats(em->kernel, program));
        write_group(&w);
        if (!whole)
            write_columns_function(&w);
    }
    fputs("};\n", f);
    bool ok = fclose(f) == 0;
    const char *text = ok ? ir_arena_strndup(em->arena, bytes, size) : NULL;
    free(bytes);
    if (!ok)
        cg_cuda_unsupported(em, "out of memory while generating code");
    return text;
}

/* The programs as heads_N, and program_0, whose columns() finds the one that a column belongs to.
 */
static const char *write_heads(cg_cuda_emitter *em) {
    const cg_kernel *k = em->kernel;
    const char *text = "", *cases = "";
    if (!check_heads(em))
        return NULL;
    for (int i = 0; i < k->n_programs; i++) {
        const cg_program *p = &k->programs[i];
        const char *program = write_program(em, p, ir_arena_printf(em->arena, "heads_%d", i), true);
        if (!program)
            return NULL;
        text = ir_arena_printf(em->arena, "%s%s\n", text, program);
        cases = ir_arena_printf(
            em->arena,
            "%s        if (col0 >= %" PRId64 " && col0 < %" PRId64
            ")\n            heads_%d::columns(a, row, col0 - %" PRId64 ", valid, in0);\n",
            cases, p->input_column, p->input_column + p->heads * p->width, i, p->input_column);
    }
    return ir_arena_printf(
        em->arena,
        "%sstruct program_0 {\n"
        "    static constexpr int heads = 1, width = %" PRId64 ";\n"
        "    static constexpr bool whole_rows = false;\n\n"
        "    static __device__ __forceinline__ void columns(const args &a, int64 row, int head,\n"
        "                                                   int col0, bool valid, float in0,\n"
        "                                                   float in1) {\n%s    }\n};\n",
        text, k->matmul.n, cases);
}

const char *cg_cuda_program(cg_cuda_emitter *em, int index) {
    if (cg_cuda_by_heads(em->kernel))
        return index == 0 ? write_heads(em) : "";
    return write_program(em, &em->kernel->programs[index],
                         ir_arena_printf(em->arena, "program_%d", index), false);
}

const char *cg_cuda_prologue(cg_cuda_emitter *em) {
    return write_program(em, em->kernel->matmul.prologue, "prologue", false);
}
