/* Turns attention over a whole sequence into attention over a paged cache.
 *
 *   %a = attention(%q, %k, %v)         %c = kv_cache {group = 0, layer = 3}
 *     {scale = 0.125}             ->   %d = kv_append(%c, %k, %v)
 *                                      %a = paged_attention(%q, %d) {scale = 0.125}
 *
 * Layers whose keys have the same window, heads and head size share a group, in order of first
 * appearance; the layer counts within its group. */
#include "passes/pass.h"

#include "ir/text.h"

#include <string.h>

enum { DEFAULT_PAGE_TOKENS = 16 };

static const struct {
    const char *name;
    ir_dtype dtype;
} kinds[] = {[PASS_KV_F16] = {"f16", IR_F16},
             [PASS_KV_F32] = {"f32", IR_F32},
             [PASS_KV_INT8] = {"int8", IR_I8},
             [PASS_KV_FP8] = {"fp8_e4m3", IR_F8E4M3}};

const char *pass_kv_name(pass_kv kv) {
    return kinds[kv].name;
}

bool pass_kv_from_name(const char *name, pass_kv *kv) {
    name = !strcmp(name, "auto") ? "f16" : !strcmp(name, "fp8") ? "fp8_e4m3" : name;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(name, kinds[i].name)) {
            *kv = (pass_kv)i;
            return true;
        }
    return false;
}

/* The group of this geometry: found, or made with no layers yet. */
static int group_for(ir_module *module, const ir_kv_group *wanted) {
    for (int i = 0; i < module->n_kv_groups; i++) {
        const ir_kv_group *g = &module->kv_groups[i];
        if (g->window == wanted->window && g->heads == wanted->heads &&
            g->head_dim == wanted->head_dim && g->dtype == wanted->dtype &&
            g->page_tokens == wanted->page_tokens)
            return i;
    }
    return ir_module_add_kv_group(module, wanted);
}

static const char *derived_name(const ir_op *op, const char *suffix) {
    return op->name ? ir_arena_printf(op->owner->module->arena, "%s.%s", op->name, suffix) : NULL;
}

static bool page(pass_context *context, ir_op *attention) {
    ir_module *module = context->module;
    const ir_type *q = &attention->operands[0]->type, *k = &attention->operands[1]->type;
    if (!ir_dim_equal(q->dims[0], IR_DIM_T))
        return ir_error(context->diag, ir_op_label(attention),
                        "attention over %s, expected [T, …]: the step's tokens, in order",
                        ir_type_text(module->arena, q));
    int64_t page_tokens = context->target ? context->target->page_tokens : 0;
    pass_kv kv = context->options ? context->options->kv : PASS_KV_F16;
    int group = group_for(
        module, &(ir_kv_group){.window = ir_op_int(attention, "window"),
                               .heads = k->dims[1].c,
                               .head_dim = k->dims[2].c,
                               .dtype = kinds[kv].dtype,
                               .page_tokens = page_tokens > 0 ? page_tokens : DEFAULT_PAGE_TOKENS});
    ir_attr place[] = {IR_INT("group", group), IR_INT("layer", module->kv_groups[group].layers++)};
    ir_op *cache = ir_op_create(attention->owner, attention,
                                &(ir_op_spec){.code = IR_OP_KV_CACHE,
                                              .name = derived_name(attention, "cache"),
                                              .attrs = place,
                                              .n_attrs = 2,
                                              .line = attention->line},
                                context->diag);
    if (!cache)
        return false;
    ir_value *appended[] = {cache->results[0], attention->operands[1], attention->operands[2]};
    ir_op *append = ir_op_create(attention->owner, attention,
                                 &(ir_op_spec){.code = IR_OP_KV_APPEND,
                                               .name = derived_name(attention, "append"),
                                               .operands = appended,
                                               .n_operands = 3,
                                               .line = attention->line},
                                 context->diag);
    if (!append)
        return false;
    ir_value *operands[] = {attention->operands[0], append->results[0]};
    ir_op *paged = ir_op_create(attention->owner, attention,
                                &(ir_op_spec){.code = IR_OP_PAGED_ATTENTION,
                                              .name = attention->name,
                                              .operands = operands,
                                              .n_operands = 2,
                                              .attrs = attention->attrs,
                                              .n_attrs = attention->n_attrs,
                                              .line = attention->line},
                                context->diag);
    if (!paged)
        return false;
    ir_replace_uses(attention->owner, attention->results[0], paged->results[0]);
    ir_op_remove(attention);
    return true;
}

bool pass_paged_kv(pass_context *context) {
    bool ok = true, any = false;
    for (ir_op *op = context->module->graph->first, *next; op; op = next) {
        next = op->next;
        if (op->code != IR_OP_ATTENTION)
            continue;
        any = true;
        ok = page(context, op) && ok; /* all layers that cannot be paged are listed */
    }
    for (int i = 0; any && ok && i < context->module->n_kv_groups; i++) {
        const ir_kv_group *g = &context->module->kv_groups[i];
        long long bytes = g->layers * ir_kv_page_bytes(g) / g->page_tokens;
        char window[48] = "full attention";
        if (g->window)
            snprintf(window, sizeof window, "window %lld", (long long)g->window);
        ir_note(context->diag, NULL,
                "kv group %d: %s, %lld layers of %lld heads of %lld, %s, %lld bytes a token", i,
                window, (long long)g->layers, (long long)g->heads, (long long)g->head_dim,
                ir_dtype_name(g->dtype), bytes);
    }
    return ok;
}
