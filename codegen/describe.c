/* A kernel's description as text: for comparing, naming and reading. */
#include "codegen/kernel.h"

#include "ir/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const scalar_names[] = {
#define SCALAR(suffix, name, operands) name,
#include "codegen/scalar.def"
#undef SCALAR
};

static void write_access(FILE *f, const cg_access *a) {
    static const char *const rows[] = {"none", "self", "gathered"};
    if (a->arg == CG_ARG_OPERAND)
        fprintf(f, "operand");
    else
        fprintf(f, "arg%d", a->arg);
    fprintf(f, " row=%s index=%d strides=%" PRId64 ",%" PRId64 ",%" PRId64 " offset=%" PRId64,
            rows[a->row_map], a->row_map == CG_ROW_GATHERED ? a->index_arg : -1, a->row_stride,
            a->head_stride, a->column_stride, a->offset);
}

static void write_node(FILE *f, int index, const cg_node *n) {
    fprintf(f, "  n%d%s = ", index, n->per_row ? "*" : "");
    switch (n->kind) {
    case CG_CONST:
        fprintf(f, "const %a", n->value);
        break;
    case CG_INPUT:
        fprintf(f, "input part%d", n->part);
        break;
    case CG_LOAD:
        fprintf(f, "load ");
        write_access(f, &n->access);
        break;
    case CG_SCALAR:
        fprintf(f, "%s", scalar_names[n->op]);
        for (int i = 0; i < 3 && n->operands[i] >= 0; i++)
            fprintf(f, " n%d", n->operands[i]);
        break;
    case CG_REDUCE:
        fprintf(f, "reduce_%s n%d", n->reduce == CG_REDUCE_SUM ? "sum" : "max", n->operands[0]);
        break;
    case CG_ROTATE:
        fprintf(f, "rotate_%s n%d dims=%" PRId64, n->rotate_half ? "half" : "interleaved",
                n->operands[0], n->rotate_dims);
        break;
    }
    fputc('\n', f);
}

static void write_program(FILE *f, const char *what, const cg_program *p) {
    static const char *const stores[] = {"store",   "store_a8", "store_kv",
                                         "store_k", "store_v",  "store_kv_scale"};
    fprintf(f, "%s heads=%" PRId64 " width=%" PRId64, what, p->heads, p->width);
    if (p->input_column)
        fprintf(f, " input_column=%" PRId64, p->input_column);
    fputc('\n', f);
    for (int i = 0; i < p->n_nodes; i++)
        write_node(f, i, &p->nodes[i]);
    for (int i = 0; i < p->n_stores; i++) {
        const cg_store *s = &p->stores[i];
        fprintf(f, "  %s n%d n%d ", stores[s->kind], s->value, s->value2);
        write_access(f, &s->access);
        fputc('\n', f);
    }
}

const char *cg_kernel_describe(const cg_kernel *k, ir_arena *arena) {
    static const char *const anchors[] = {"rows", "matmul", "attention", "sample"};
    static const char *const kinds[] = {"buffer", "weight", "kv", "step"};
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return "";
    fprintf(f, "kernel %s rows=%s\n", anchors[k->anchor], k->rows.t ? "T" : k->rows.r ? "R" : "S");
    for (int i = 0; i < k->n_args; i++) {
        const cg_arg *a = &k->args[i];
        fprintf(f, "arg%d %s%s", i, kinds[a->kind], a->written ? " written" : "");
        if (a->kind == CG_ARG_KV)
            fprintf(f, " group%d %s heads=%" PRId64 " head_dim=%" PRId64 " page=%" PRId64 "\n",
                    a->kv_group, ir_dtype_name(a->kv.dtype), a->kv.heads, a->kv.head_dim,
                    a->kv.page_tokens);
        else
            fprintf(f, " %s\n", ir_type_text(arena, &a->type));
    }
    if (k->anchor == CG_ANCHOR_MATMUL) {
        const cg_matmul *m = &k->matmul;
        if (m->prologue)
            fprintf(f, "matmul x=%s", ir_type_text(arena, &m->x_type));
        else
            fprintf(f, "matmul x=arg%d", m->x);
        fprintf(f, " w=arg%d n=%" PRId64 " k=%" PRId64 " parts=%d\n", m->w, m->n, m->k, m->parts);
        if (m->prologue)
            write_program(f, "prologue", m->prologue);
    }
    if (k->anchor == CG_ANCHOR_ATTENTION) {
        const cg_attention *a = &k->attention;
        fprintf(f, "attention kv=arg%d heads=%" PRId64 " scale=%a softcap=%a window=%" PRId64 " q=",
                a->kv, a->heads, a->scale, a->softcap, a->window);
        write_access(f, &a->q);
        fputc('\n', f);
    }
    if (k->anchor == CG_ANCHOR_SAMPLE)
        fprintf(f, "sample logits=arg%d result=arg%d n=%" PRId64 "\n", k->sample.logits,
                k->sample.result, k->sample.n);
    for (int i = 0; i < k->n_programs; i++)
        write_program(f, "program", &k->programs[i]);
    fclose(f);
    const char *copy = ir_arena_strdup(arena, text ? text : "");
    free(text);
    return copy;
}

/* FNV-1a, 32 bits: eight hex digits tell a model's few dozen kernels apart. */
static uint32_t hash_text(const char *text) {
    uint32_t h = 2166136261u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

/* Appends the ops of the body from `op` up to `end` (excluded) that compute, at most *left. */
static const char *append_ops(const char *name, const ir_op *op, const ir_op *end, int *left,
                              ir_arena *arena) {
    ir_opcode last = IR_N_OPS;
    for (; op != end; op = op->next) {
        bool silent = (ir_op_info_get(op->code)->traits & (IR_TRAIT_VIEW | IR_TRAIT_SOURCE)) ||
                      op->code == IR_OP_YIELD || op->code == IR_OP_MATMUL ||
                      op->code == IR_OP_PAGED_ATTENTION || op->code == IR_OP_SAMPLE;
        if (silent || op->code == last)
            continue;
        if ((*left)-- > 0)
            name = ir_arena_printf(arena, "%s_%s", name, ir_op_info_get(op->code)->name);
        last = op->code;
    }
    return name;
}

const char *cg_kernel_make_name(const cg_kernel *k, const ir_op *op, ir_arena *arena) {
    int left = 6;
    const char *name = "";
    const ir_op *body = op->body->first;
    if (k->anchor == CG_ANCHOR_MATMUL) {
        const ir_type *w = &k->args[k->matmul.w].type;
        if (k->matmul.prologue) {
            const ir_op *matmul = body;
            while (matmul->code != IR_OP_MATMUL)
                matmul = matmul->next;
            name = append_ops(name, body, matmul, &left, arena);
            body = matmul;
        }
        name = ir_arena_printf(arena, "%s_matmul_%s", name,
                               w->encoding ? w->encoding->name : ir_dtype_name(w->dtype));
    } else if (k->anchor == CG_ANCHOR_ATTENTION) {
        name = "_attention";
    } else if (k->anchor == CG_ANCHOR_SAMPLE) {
        name = "_sample";
    }
    name = append_ops(name, body, NULL, &left, arena);
    return ir_arena_printf(arena, "%s_%08x", *name ? name + 1 : "rows",
                           hash_text(cg_kernel_describe(k, arena)));
}
