/* The tables section: the program as the runtime reads it in place. */
#include "codegen/artifact/program.h"

#include "ir/text.h"

#include <stdlib.h>
#include <string.h>

/* Bytes that grow; a failed allocation stays failed until the end. */
typedef struct bytes {
    char *data;
    size_t size, capacity;
    bool failed;
} bytes;

static size_t append(bytes *b, const void *data, size_t size) {
    size_t at = b->size;
    if (b->size + size > b->capacity) {
        size_t capacity = 2 * (b->size + size) + 4096;
        char *grown = realloc(b->data, capacity);
        if (!grown) {
            b->failed = true;
            return 0;
        }
        b->data = grown;
        b->capacity = capacity;
    }
    if (data)
        memcpy(b->data + at, data, size);
    else
        memset(b->data + at, 0, size);
    b->size += size;
    return at;
}

typedef struct tables {
    bytes body, strings;
    ir_arena *scratch;
} tables;

static mcc_string string(tables *t, const char *text) {
    if (!text || !*text)
        return 0;
    return (mcc_string)append(&t->strings, text, strlen(text) + 1);
}

static mcc_dim dim(ir_dim d) {
    return (mcc_dim){.c = d.c, .t = d.t, .s = d.s, .r = d.r};
}

/* Appends an array at a multiple of 8. */
static mcc_span span(tables *t, const void *data, size_t count, size_t size) {
    append(&t->body, NULL, (8 - t->body.size % 8) % 8);
    size_t at = append(&t->body, data, count * size);
    return (mcc_span){.offset = at, .count = (uint32_t)count};
}

static mcc_span weights(tables *t, const cg_program_list *p) {
    mcc_weight_entry *list = ir_arena_array(t->scratch, (size_t)p->n_weights + 1, sizeof *list);
    for (int i = 0; i < p->n_weights; i++) {
        const cg_weight *w = &p->weights[i];
        list[i] = (mcc_weight_entry){.name = string(t, w->name),
                                     .type = string(t, ir_type_text(t->scratch, &w->type)),
                                     .offset = w->offset,
                                     .bytes = w->bytes};
        memcpy(list[i].sha256, w->sha256, sizeof list[i].sha256);
    }
    return span(t, list, (size_t)p->n_weights, sizeof *list);
}

static uint32_t kv_dtype(ir_dtype dtype) {
    switch (dtype) {
    case IR_F32:
        return MCC_KV_F32;
    case IR_I8:
        return MCC_KV_INT8;
    case IR_F8E4M3:
        return MCC_KV_FP8;
    default:
        return MCC_KV_F16;
    }
}

static mcc_span kv_groups(tables *t, const ir_module *m) {
    mcc_kv_group_entry *list = ir_arena_array(t->scratch, (size_t)m->n_kv_groups + 1, sizeof *list);
    for (int i = 0; i < m->n_kv_groups; i++) {
        const ir_kv_group *g = &m->kv_groups[i];
        list[i] = (mcc_kv_group_entry){
            .window = g->window,
            .layers = (int32_t)g->layers,
            .heads = (int32_t)g->heads,
            .head_dim = (int32_t)g->head_dim,
            .page_tokens = (int32_t)g->page_tokens,
            .dtype = kv_dtype(g->dtype),
            .layer_bytes = (uint64_t)ir_kv_page_bytes(g),
        };
    }
    return span(t, list, (size_t)m->n_kv_groups, sizeof *list);
}

static mcc_span buffers(tables *t, const cg_program_list *p) {
    mcc_buffer_entry *list = ir_arena_array(t->scratch, (size_t)p->n_buffers + 1, sizeof *list);
    for (int i = 0; i < p->n_buffers; i++)
        list[i] =
            (mcc_buffer_entry){.offset = dim(p->buffers[i].offset),
                               .bytes = dim(p->buffers[i].bytes),
                               .type = string(t, ir_type_text(t->scratch, &p->buffers[i].type))};
    return span(t, list, (size_t)p->n_buffers, sizeof *list);
}

static mcc_span kernels(tables *t, const cg_program_list *p) {
    static const char *const anchors[] = {"rows", "matmul", "attention", "sample"};
    mcc_kernel_entry *list = ir_arena_array(t->scratch, (size_t)p->n_kernels + 1, sizeof *list);
    for (int i = 0; i < p->n_kernels; i++)
        list[i] = (mcc_kernel_entry){.name = string(t, p->kernels[i]->name),
                                     .anchor = string(t, anchors[p->kernels[i]->anchor])};
    return span(t, list, (size_t)p->n_kernels, sizeof *list);
}

/* The source ops of a kernel: the named ops of its body, without views. */
static const char *covered_ops(const ir_op *kernel, ir_arena *scratch) {
    const char *text = "";
    for (const ir_op *op = kernel->body->first; op; op = op->next)
        if (op->name && !(ir_op_info_get(op->code)->traits & (IR_TRAIT_VIEW | IR_TRAIT_SOURCE)))
            text = ir_arena_printf(scratch, "%s%s%s", text, *text ? " " : "", op->name);
    return text;
}

static mcc_span launches(tables *t, const cg_program_list *p) {
    mcc_launch_entry *list = ir_arena_array(t->scratch, (size_t)p->n_launches + 1, sizeof *list);
    for (int i = 0; i < p->n_launches; i++) {
        const cg_launch *l = &p->launches[i];
        list[i] = (mcc_launch_entry){.kernel = (uint32_t)l->kernel,
                                     .first_arg = (uint32_t)l->first_arg,
                                     .n_args = (uint32_t)l->n_args,
                                     .label = string(t, ir_op_label(l->op)),
                                     .ops = string(t, covered_ops(l->op, t->scratch)),
                                     .tiles = dim(l->tiling.dim),
                                     .tiles_div = l->tiling.div,
                                     .tiles_mult = l->tiling.mult};
    }
    return span(t, list, (size_t)p->n_launches, sizeof *list);
}

static mcc_span outputs(tables *t, const cg_program_list *p) {
    mcc_output_entry *list = ir_arena_array(t->scratch, (size_t)p->n_outputs + 1, sizeof *list);
    for (int i = 0; i < p->n_outputs; i++)
        list[i] = (mcc_output_entry){.name = string(t, p->outputs[i].name),
                                     .buffer = (uint32_t)p->outputs[i].buffer,
                                     .width = p->outputs[i].width};
    return span(t, list, (size_t)p->n_outputs, sizeof *list);
}

static mcc_span targets(tables *t, const cg_target_fact *facts, int n) {
    mcc_target_entry *list = ir_arena_array(t->scratch, (size_t)n + 1, sizeof *list);
    for (int i = 0; i < n; i++)
        list[i] = (mcc_target_entry){.name = string(t, facts[i].name),
                                     .cpu_features = facts[i].cpu_features};
    return span(t, list, (size_t)n, sizeof *list);
}

void *cg_tables_create(const cg_program_list *p, const cg_model_facts *facts,
                       const cg_target_fact *target_facts, int n_targets, size_t *size) {
    tables t = {.scratch = ir_arena_create()};
    mcc_tables head = {.struct_bytes = sizeof head,
                       .version = MCC_ARTIFACT_VERSION,
                       .vocab_size = facts->vocab_size,
                       .hidden_size = facts->hidden_size,
                       .n_layers = facts->n_layers,
                       .max_model_len = facts->max_model_len,
                       .scratch_bytes = (uint64_t)p->scratch_bytes,
                       .shared_bytes = (uint64_t)p->shared_bytes,
                       .arena_bytes = dim(p->arena_bytes)};
    append(&t.strings, "", 1);
    append(&t.body, NULL, sizeof head);
    head.model_name = string(&t, p->module->name);
    head.arch = string(&t, p->module->arch);
    head.weights = weights(&t, p);
    head.kv_groups = kv_groups(&t, p->module);
    head.buffers = buffers(&t, p);
    head.args = span(&t, p->args, (size_t)p->n_args, sizeof *p->args);
    head.kernels = kernels(&t, p);
    head.launches = launches(&t, p);
    head.outputs = outputs(&t, p);
    head.targets = targets(&t, target_facts, n_targets);
    head.strings = span(&t, t.strings.data, t.strings.size, 1);
    bool failed = t.body.failed || t.strings.failed;
    if (!failed)
        memcpy(t.body.data, &head, sizeof head);
    ir_arena_destroy(t.scratch);
    free(t.strings.data);
    *size = t.body.size;
    if (failed) {
        free(t.body.data);
        return NULL;
    }
    return t.body.data;
}
