/* Merges ops that compute the same value: pure ops with the same code, operands, attributes and
 * result types. The first one stays; it takes the other's stable name if it has none.
 *
 *   %1 = exp(%0) : f32[T, 8]              %1 = exp(%0) : f32[T, 8]
 *   %2 = exp(%0) : f32[T, 8]         ->
 *   %3 = add(%1, %2) : f32[T, 8]          %3 = add(%1, %1) : f32[T, 8]
 *
 * Effects are data flow (kv values), so equal operands mean equal results for every pure op. */
#include "passes/pass.h"

#include <string.h>

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

static uint64_t mix_bytes(uint64_t hash, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = mix(hash, bytes[i]);
    return hash;
}

static const void *attr_data(const ir_attr *a, size_t *size) {
    switch (a->kind) {
    case IR_ATTR_INT:
        *size = sizeof a->i;
        return &a->i;
    case IR_ATTR_FLOAT:
        *size = sizeof a->f;
        return &a->f;
    case IR_ATTR_STRING:
        *size = strlen(a->s);
        return a->s;
    case IR_ATTR_INTS:
        *size = (size_t)a->count * sizeof *a->ints;
        return a->ints;
    default:
        *size = (size_t)a->count * sizeof *a->floats;
        return a->floats;
    }
}

static bool is_swappable(const ir_op *op) {
    return (ir_op_info_get(op->code)->traits & IR_TRAIT_COMMUTATIVE) && op->n_operands == 2;
}

static uint64_t hash_op(const ir_op *op) {
    uint64_t hash = mix(0, (uint64_t)op->code);
    if (is_swappable(op)) {
        hash = mix(hash, (uint64_t)op->operands[0]->id + (uint64_t)op->operands[1]->id);
    } else {
        for (int i = 0; i < op->n_operands; i++)
            hash = mix(hash, (uint64_t)op->operands[i]->id);
    }
    for (int i = 0; i < op->n_attrs; i++) {
        size_t size;
        const void *data = attr_data(&op->attrs[i], &size);
        hash = mix_bytes(hash, op->attrs[i].name, strlen(op->attrs[i].name));
        hash = mix_bytes(hash, data, size);
    }
    return hash;
}

static bool same_operands(const ir_op *a, const ir_op *b) {
    if (a->n_operands != b->n_operands)
        return false;
    if (is_swappable(a) && a->operands[0] == b->operands[1] && a->operands[1] == b->operands[0])
        return true;
    for (int i = 0; i < a->n_operands; i++)
        if (a->operands[i] != b->operands[i])
            return false;
    return true;
}

/* Attributes are kept in the schema's order, without those that equal their default. Numbers are
 * compared bit by bit: 0 and -0 differ. */
static bool same_attrs(const ir_op *a, const ir_op *b) {
    if (a->n_attrs != b->n_attrs)
        return false;
    for (int i = 0; i < a->n_attrs; i++) {
        const ir_attr *x = &a->attrs[i], *y = &b->attrs[i];
        size_t size_x, size_y;
        const void *data_x = attr_data(x, &size_x), *data_y = attr_data(y, &size_y);
        if (strcmp(x->name, y->name) || x->kind != y->kind || size_x != size_y ||
            memcmp(data_x, data_y, size_x))
            return false;
    }
    return true;
}

static bool same_op(const ir_op *a, const ir_op *b) {
    if (a->code != b->code || a->n_results != b->n_results || !same_operands(a, b) ||
        !same_attrs(a, b))
        return false;
    for (int i = 0; i < a->n_results; i++)
        if (!ir_type_equal(&a->results[i]->type, &b->results[i]->type))
            return false;
    return true;
}

/* Replacements are looked up by value id while walking forward, so that each op is compared after
 * its operands have been merged. */
static void merge_in(ir_graph *graph, ir_value **replacement, ir_arena *scratch) {
    size_t count = 0, size = 16;
    for (const ir_op *op = graph->first; op; op = op->next)
        count++;
    while (size < count * 2)
        size *= 2;
    ir_op **table = ir_arena_array(scratch, size, sizeof(ir_op *));
    for (ir_op *op = graph->first, *next; op; op = next) {
        next = op->next;
        for (int i = 0; i < op->n_operands; i++)
            if (replacement[op->operands[i]->id])
                op->operands[i] = replacement[op->operands[i]->id];
        if (op->body)
            merge_in(op->body, replacement, scratch);
        if (!(ir_op_info_get(op->code)->traits & IR_TRAIT_PURE) || op->body)
            continue;
        size_t slot = hash_op(op) & (size - 1);
        while (table[slot] && !same_op(table[slot], op))
            slot = (slot + 1) & (size - 1);
        ir_op *first = table[slot];
        if (!first) {
            table[slot] = op;
            continue;
        }
        for (int i = 0; i < op->n_results; i++)
            replacement[op->results[i]->id] = first->results[i];
        if (!first->name)
            first->name = op->name;
        ir_op_remove(op);
    }
}

bool pass_cse(pass_context *context) {
    ir_module *m = context->module;
    ir_arena *scratch = ir_arena_create();
    if (!scratch)
        return ir_error(context->diag, m->name, "out of memory");
    ir_value **replacement = ir_arena_array(scratch, (size_t)m->n_values, sizeof(ir_value *));
    merge_in(m->graph, replacement, scratch);
    ir_arena_destroy(scratch);
    return true;
}
