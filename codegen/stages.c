#include "codegen/stages.h"

int cg_node_operands(const cg_node *node) {
    static const int counts[CG_N_SCALAR_OPS] = {
#define SCALAR(suffix, name, operands) [CG_##suffix] = operands,
#include "codegen/scalar.def"
#undef SCALAR
    };
    switch (node->kind) {
    case CG_SCALAR:
        return counts[node->op];
    case CG_REDUCE:
    case CG_ROTATE:
        return 1;
    default:
        return 0;
    }
}

bool cg_store_is_kv(const cg_store *store) {
    return store->kind == CG_STORE_KV || store->kind == CG_STORE_K || store->kind == CG_STORE_V ||
           store->kind == CG_STORE_KV_SCALE;
}

int cg_store_values(const cg_store *store, int values[2]) {
    values[0] = store->value;
    values[1] = store->value2;
    return store->kind == CG_STORE_KV || store->kind == CG_STORE_KV_SCALE ? 2 : 1;
}

int cg_store_stage(const cg_stages *stages, const cg_store *store) {
    int values[2], stage = 0, n = cg_store_values(store, values);
    for (int i = 0; i < n; i++)
        if (stages->stage[values[i]] > stage)
            stage = stages->stage[values[i]];
    return stage;
}

static bool is_number(const cg_stages *s, const cg_node *node) {
    switch (node->kind) {
    case CG_CONST:
    case CG_REDUCE:
        return true;
    case CG_LOAD:
        return node->access.column_stride == 0;
    case CG_SCALAR:
        for (int i = 0; i < cg_node_operands(node); i++)
            if (!s->number[node->operands[i]])
                return false;
        return true;
    default:
        return false;
    }
}

static int stage_of(const cg_stages *s, const cg_node *node) {
    int stage = 0;
    for (int i = 0; i < cg_node_operands(node); i++)
        if (s->stage[node->operands[i]] > stage)
            stage = s->stage[node->operands[i]];
    bool later = node->kind == CG_REDUCE || (node->kind == CG_ROTATE && node->rotate_half);
    return stage + later;
}

static void need(cg_stages *s, int stage, int node) {
    if (!s->number[node])
        s->needed[(int64_t)stage * s->program->n_nodes + node] = true;
}

static void keep(cg_stages *s, int node) {
    if (s->number[node])
        return;
    s->kept[node] = true;
    need(s, s->stage[node], node);
}

/* What one stage needs: what it stores and reduces, then operands of what it computes; what comes
 * from an earlier stage is loaded again or becomes something that stage keeps. */
static void mark_stage(cg_stages *s, int stage) {
    const cg_program *program = s->program;
    int n = program->n_nodes;
    for (int i = 0; i < program->n_stores; i++) {
        int values[2], count = cg_store_values(&program->stores[i], values);
        for (int v = 0; cg_store_stage(s, &program->stores[i]) == stage && v < count; v++)
            need(s, stage, values[v]);
    }
    for (int i = n - 1; i >= 0; i--) {
        const cg_node *node = &program->nodes[i];
        if (node->kind == CG_REDUCE && s->stage[i] == stage + 1)
            need(s, stage, node->operands[0]);
        if (!s->needed[(int64_t)stage * n + i])
            continue;
        if (s->stage[i] < stage) {
            if (!s->again[i])
                keep(s, i);
        } else if (node->kind == CG_ROTATE && node->rotate_half) {
            keep(s, node->operands[0]);
        } else if (node->kind == CG_SCALAR || node->kind == CG_ROTATE) {
            for (int k = 0; k < cg_node_operands(node); k++)
                need(s, stage, node->operands[k]);
        }
    }
}

cg_stages cg_stages_of(const cg_program *program, const cg_arg *args, ir_arena *arena) {
    size_t n = (size_t)program->n_nodes;
    cg_stages s = {.program = program, .n_stages = 1};
    s.stage = ir_arena_array(arena, n + 1, sizeof *s.stage);
    s.number = ir_arena_array(arena, n + 1, sizeof *s.number);
    s.again = ir_arena_array(arena, n + 1, sizeof *s.again);
    s.kept = ir_arena_array(arena, n + 1, sizeof *s.kept);
    for (int i = 0; i < program->n_nodes; i++) {
        const cg_node *node = &program->nodes[i];
        s.number[i] = is_number(&s, node);
        s.stage[i] = stage_of(&s, node);
        s.again[i] = node->kind == CG_INPUT ||
                     (node->kind == CG_LOAD && args && !args[node->access.arg].written &&
                      !args[node->access.arg].type.encoding);
        if (s.stage[i] + 1 > s.n_stages)
            s.n_stages = s.stage[i] + 1;
    }
    s.needed = ir_arena_array(arena, (size_t)s.n_stages * (n + 1), sizeof *s.needed);
    for (int stage = s.n_stages - 1; stage >= 0; stage--)
        mark_stage(&s, stage);
    return s;
}
