/* Building, walking and changing graphs. */
#include "ir/ir.h"
#include "ir/text.h"

#include <string.h>

/* --- modules -----------------------------------------------------------------------------------
 */

ir_module *ir_module_create(const char *name, const char *arch) {
    ir_arena *arena = ir_arena_create();
    if (!arena)
        return NULL;
    ir_module *module = ir_arena_alloc(arena, sizeof *module);
    module->arena = arena;
    module->name = ir_arena_strdup(arena, name ? name : "");
    module->arch = ir_arena_strdup(arena, arch ? arch : "");
    module->graph = ir_graph_create(module, NULL);
    return module;
}

void ir_module_destroy(ir_module *module) {
    if (module)
        ir_arena_destroy(module->arena);
}

/* FNV-1a. */
static uint32_t hash_name(const char *name) {
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

static void enter_weight(ir_module *module, int index) {
    unsigned mask = (unsigned)module->weight_table_size - 1;
    unsigned slot = hash_name(module->weights[index].name) & mask;
    while (module->weight_table[slot])
        slot = (slot + 1) & mask;
    module->weight_table[slot] = index + 1;
}

int ir_module_add_weight(ir_module *module, const char *name, const ir_type *type, const void *data,
                         int64_t bytes) {
    ir_arena *arena = module->arena;
    if (module->n_weights == module->weights_capacity) {
        int capacity = module->weights_capacity ? module->weights_capacity * 2 : 64;
        ir_weight *grown = ir_arena_array(arena, (size_t)capacity, sizeof *grown);
        if (module->n_weights)
            memcpy(grown, module->weights, (size_t)module->n_weights * sizeof *grown);
        module->weights = grown;
        module->weights_capacity = capacity;
        module->weight_table_size = capacity * 2;
        module->weight_table = ir_arena_array(arena, (size_t)capacity * 2, sizeof(int));
        for (int i = 0; i < module->n_weights; i++)
            enter_weight(module, i);
    }
    ir_weight *weight = &module->weights[module->n_weights];
    *weight = (ir_weight){ir_arena_strdup(arena, name), *type, data, bytes};
    if (type->layout)
        weight->type.layout = ir_arena_strdup(arena, type->layout);
    enter_weight(module, module->n_weights);
    return module->n_weights++;
}

const ir_weight *ir_module_weight(const ir_module *module, const char *name) {
    if (!module->weight_table_size)
        return NULL;
    unsigned mask = (unsigned)module->weight_table_size - 1;
    for (unsigned slot = hash_name(name) & mask; module->weight_table[slot];
         slot = (slot + 1) & mask) {
        const ir_weight *weight = &module->weights[module->weight_table[slot] - 1];
        if (!strcmp(weight->name, name))
            return weight;
    }
    return NULL;
}

int ir_module_add_kv_group(ir_module *module, const ir_kv_group *group) {
    size_t n = (size_t)module->n_kv_groups;
    ir_kv_group *grown = ir_arena_array(module->arena, n + 1, sizeof *grown);
    if (n)
        memcpy(grown, module->kv_groups, n * sizeof *grown);
    grown[n] = *group;
    module->kv_groups = grown;
    return module->n_kv_groups++;
}

/* --- attributes --------------------------------------------------------------------------------
 */

static ir_attr copy_attr(ir_arena *arena, const ir_attr *attr) {
    ir_attr copy = *attr;
    size_t n = (size_t)(attr->count > 0 ? attr->count : 0);
    copy.name = ir_arena_strdup(arena, attr->name);
    if (attr->kind == IR_ATTR_STRING) {
        copy.s = ir_arena_strdup(arena, attr->s ? attr->s : "");
    } else if (attr->kind == IR_ATTR_INTS) {
        int64_t *ints = ir_arena_array(arena, n, sizeof *ints);
        if (n)
            memcpy(ints, attr->ints, n * sizeof *ints);
        copy.ints = ints;
    } else if (attr->kind == IR_ATTR_FLOATS) {
        double *floats = ir_arena_array(arena, n, sizeof *floats);
        if (n)
            memcpy(floats, attr->floats, n * sizeof *floats);
        copy.floats = floats;
    }
    return copy;
}

static bool is_default(const ir_attr *attr) {
    switch (attr->kind) {
    case IR_ATTR_INT:
        return attr->i == 0;
    case IR_ATTR_FLOAT:
        return attr->f == 0;
    case IR_ATTR_STRING:
        return !attr->s || !attr->s[0];
    default:
        return attr->count == 0;
    }
}

/* Puts attributes in the schema's order and drops optional ones that say nothing. Unknown ones stay
 * at the end, for ir_op_check to report. */
static void normalize_attrs(ir_op *op) {
    const ir_op_info *info = ir_op_info_get(op->code);
    int kept = 0;
    ir_attr_schema schema;
    for (int i = 0; i < op->n_attrs; i++) {
        const ir_attr *a = &op->attrs[i];
        if (ir_attr_schema_find(info, a->name, &schema) && schema.optional &&
            schema.kind == a->kind && is_default(a))
            continue;
        op->attrs[kept++] = *a;
    }
    op->n_attrs = kept;
    int done = 0;
    for (const char *s = info->attributes; (s = ir_attr_schema_next(s, &schema));) {
        for (int i = done; i < op->n_attrs; i++) {
            if (strlen(op->attrs[i].name) != (size_t)schema.length ||
                memcmp(op->attrs[i].name, schema.name, (size_t)schema.length))
                continue;
            ir_attr found = op->attrs[i];
            memmove(&op->attrs[done + 1], &op->attrs[done], (size_t)(i - done) * sizeof found);
            op->attrs[done++] = found;
            break;
        }
    }
}

const ir_attr *ir_op_attr(const ir_op *op, const char *name) {
    for (int i = 0; i < op->n_attrs; i++)
        if (!strcmp(op->attrs[i].name, name))
            return &op->attrs[i];
    return NULL;
}

int64_t ir_op_int(const ir_op *op, const char *name) {
    const ir_attr *a = ir_op_attr(op, name);
    return a && a->kind == IR_ATTR_INT ? a->i : 0;
}

double ir_op_float(const ir_op *op, const char *name) {
    const ir_attr *a = ir_op_attr(op, name);
    return a && a->kind == IR_ATTR_FLOAT ? a->f : 0;
}

const char *ir_op_string(const ir_op *op, const char *name) {
    const ir_attr *a = ir_op_attr(op, name);
    return a && a->kind == IR_ATTR_STRING ? a->s : "";
}

void ir_op_set_attr(ir_op *op, const ir_attr *attr) {
    ir_arena *arena = op->owner->module->arena;
    ir_attr *attrs = ir_arena_array(arena, (size_t)op->n_attrs + 1, sizeof *attrs);
    int n = 0;
    for (int i = 0; i < op->n_attrs; i++)
        if (strcmp(op->attrs[i].name, attr->name))
            attrs[n++] = op->attrs[i];
    attrs[n++] = copy_attr(arena, attr);
    op->attrs = attrs;
    op->n_attrs = n;
    normalize_attrs(op);
}

/* --- building ----------------------------------------------------------------------------------
 */

ir_graph *ir_graph_create(ir_module *module, ir_op *parent) {
    ir_graph *graph = ir_arena_alloc(module->arena, sizeof *graph);
    graph->module = module;
    graph->parent = parent;
    return graph;
}

static ir_value *new_value(ir_graph *graph, ir_op *def, int index, const ir_type *type) {
    ir_value *value = ir_arena_alloc(graph->module->arena, sizeof *value);
    value->def = def;
    value->owner = graph;
    value->index = index;
    value->id = graph->module->n_values++;
    if (type)
        value->type = *type;
    if (value->type.layout)
        value->type.layout = ir_arena_strdup(graph->module->arena, value->type.layout);
    return value;
}

ir_value *ir_graph_add_arg(ir_graph *graph, const ir_type *type) {
    ir_arena *arena = graph->module->arena;
    int n = graph->n_args;
    /* Room is doubled whenever the number of arguments is a power of two. */
    if ((n & (n - 1)) == 0) {
        ir_value **grown = ir_arena_array(arena, n ? (size_t)n * 2 : 1, sizeof *grown);
        if (n)
            memcpy(grown, graph->args, (size_t)n * sizeof *grown);
        graph->args = grown;
    }
    graph->args[n] = new_value(graph, NULL, n, type);
    graph->n_args++;
    return graph->args[n];
}

static void link_op(ir_op *op, ir_graph *graph, ir_op *before) {
    op->owner = graph;
    op->next = before;
    op->prev = before ? before->prev : graph->last;
    if (op->prev)
        op->prev->next = op;
    else
        graph->first = op;
    if (before)
        before->prev = op;
    else
        graph->last = op;
    for (int i = 0; i < op->n_results; i++)
        op->results[i]->owner = graph;
}

/* An op with copies of everything but the body, not yet linked into the graph. */
static ir_op *new_op(ir_graph *graph, const ir_op_spec *spec, int n_results) {
    ir_arena *arena = graph->module->arena;
    ir_op *op = ir_arena_alloc(arena, sizeof *op);
    op->code = spec->code;
    op->name = spec->name ? ir_arena_strdup(arena, spec->name) : NULL;
    op->owner = graph;
    op->line = spec->line;
    op->n_operands = spec->n_operands;
    op->operands = ir_arena_array(arena, (size_t)spec->n_operands, sizeof *op->operands);
    for (int i = 0; i < spec->n_operands; i++)
        op->operands[i] = spec->operands[i];
    op->n_attrs = spec->n_attrs;
    op->attrs = ir_arena_array(arena, (size_t)spec->n_attrs, sizeof *op->attrs);
    for (int i = 0; i < spec->n_attrs; i++)
        op->attrs[i] = copy_attr(arena, &spec->attrs[i]);
    normalize_attrs(op);
    op->n_results = n_results;
    op->results = ir_arena_array(arena, (size_t)n_results, sizeof *op->results);
    for (int i = 0; i < n_results; i++)
        op->results[i] = new_value(graph, op, i, i < spec->n_types ? &spec->types[i] : NULL);
    return op;
}

ir_op *ir_op_create(ir_graph *graph, ir_op *before, const ir_op_spec *spec, ir_diag *diag) {
    ir_arena *arena = graph->module->arena;
    if ((unsigned)spec->code >= IR_N_OPS) {
        ir_internal_error(diag, spec->name, "unknown opcode %d", (int)spec->code);
        return NULL;
    }
    const ir_op_info *info = ir_op_info_get(spec->code);
    ir_op *op = new_op(graph, spec, info->results >= 0 ? info->results : spec->n_types);
    op->body = spec->body;
    if (op->body)
        op->body->parent = op;
    const char *label = ir_op_label(op);
    if (!ir_op_check(op, diag))
        return NULL;
    if (spec->n_types && spec->n_types != op->n_results) {
        ir_error(diag, label, "%d types are stated for %d results", spec->n_types, op->n_results);
        return NULL;
    }
    if (!spec->n_types && op->n_results && ir_op_type_is_stated(info)) {
        ir_error(diag, label, "the result type of %s must be stated", info->name);
        return NULL;
    }
    for (int i = 0; i < spec->n_types; i++)
        if (!ir_type_check(&spec->types[i], label, diag))
            return NULL;
    if (!info->infer(op, diag))
        return NULL;
    for (int i = 0; i < op->n_results; i++) {
        const ir_type *type = &op->results[i]->type;
        if (!ir_type_check(type, label, diag))
            return NULL;
        if (spec->n_types && !ir_type_equal(type, &spec->types[i])) {
            ir_error(diag, label, "result %d is stated as %s, but its operands make it %s", i,
                     ir_type_text(arena, &spec->types[i]), ir_type_text(arena, type));
            return NULL;
        }
    }
    link_op(op, graph, before);
    return op;
}

ir_value *ir_build(ir_graph *graph, ir_diag *diag, ir_opcode code, const char *name,
                   const ir_type *type, int n_operands, ir_value *const *operands, int n_attrs,
                   const ir_attr *attrs) {
    for (int i = 0; i < n_operands; i++)
        if (!operands[i])
            return NULL;
    ir_op *op = ir_op_create(graph, NULL,
                             &(ir_op_spec){.code = code,
                                           .name = name,
                                           .operands = operands,
                                           .n_operands = n_operands,
                                           .attrs = attrs,
                                           .n_attrs = n_attrs,
                                           .types = type,
                                           .n_types = type ? 1 : 0},
                             diag);
    return op && op->n_results == 1 ? op->results[0] : NULL;
}

ir_value *ir_unary(ir_graph *graph, ir_diag *diag, ir_opcode code, const char *name, ir_value *a) {
    return ir_build(graph, diag, code, name, NULL, 1, &a, 0, NULL);
}

ir_value *ir_binary(ir_graph *graph, ir_diag *diag, ir_opcode code, const char *name, ir_value *a,
                    ir_value *b) {
    return ir_build(graph, diag, code, name, NULL, 2, (ir_value *[]){a, b}, 0, NULL);
}

ir_value *ir_weight_value(ir_graph *graph, ir_diag *diag, const char *weight_name) {
    const ir_weight *weight = ir_module_weight(graph->module, weight_name);
    if (!weight) {
        ir_error(diag, weight_name, "the model has no weight of this name");
        return NULL;
    }
    return ir_build(graph, diag, IR_OP_WEIGHT, NULL, &weight->type, 0, NULL, 1,
                    &IR_STRING("name", weight_name));
}

ir_value *ir_constant_splat(ir_graph *graph, ir_diag *diag, double value) {
    ir_type type = ir_tensor(IR_F32, 0, NULL);
    return ir_build(graph, diag, IR_OP_CONSTANT, NULL, &type, 0, NULL, 1,
                    &IR_FLOAT_LIST("values", &value, 1));
}

ir_value *ir_reshape(ir_graph *graph, ir_diag *diag, const char *name, ir_value *a, int rank,
                     const ir_dim *dims) {
    if (!a)
        return NULL;
    ir_type type = ir_tensor(a->type.dtype, rank, dims);
    type.encoding = a->type.encoding;
    return ir_build(graph, diag, IR_OP_RESHAPE, name, &type, 1, &a, 0, NULL);
}

/* --- walking and changing ----------------------------------------------------------------------
 */

const char *ir_op_label(const ir_op *op) {
    if (op->name && op->name[0])
        return op->name;
    const char *text = ir_op_info_get(op->code)->name;
    ir_arena *arena = op->owner->module->arena;
    if (op->n_results > 0)
        return ir_arena_printf(arena, "%s %%%d", text, op->results[0]->id);
    const ir_attr *name = ir_op_attr(op, "name");
    if (name && name->kind == IR_ATTR_STRING)
        return ir_arena_printf(arena, "%s %s", text, name->s);
    return ir_arena_strdup(arena, text);
}

void ir_op_remove(ir_op *op) {
    ir_graph *graph = op->owner;
    if (op->prev)
        op->prev->next = op->next;
    else if (graph->first == op)
        graph->first = op->next;
    if (op->next)
        op->next->prev = op->prev;
    else if (graph->last == op)
        graph->last = op->prev;
    op->prev = op->next = NULL;
}

void ir_op_move(ir_op *op, ir_graph *graph, ir_op *before) {
    if (op == before)
        return;
    ir_op_remove(op);
    link_op(op, graph, before);
}

void ir_replace_uses(ir_graph *graph, ir_value *from, ir_value *to) {
    for (ir_op *op = graph->first; op; op = op->next) {
        for (int i = 0; i < op->n_operands; i++)
            if (op->operands[i] == from)
                op->operands[i] = to;
        if (op->body)
            ir_replace_uses(op->body, from, to);
    }
}

static void count_uses(const ir_graph *graph, int *uses) {
    for (const ir_op *op = graph->first; op; op = op->next) {
        for (int i = 0; i < op->n_operands; i++)
            uses[op->operands[i]->id]++;
        if (op->body)
            count_uses(op->body, uses);
    }
}

int *ir_count_uses(const ir_graph *graph, ir_arena *arena) {
    int *uses = ir_arena_array(arena, (size_t)graph->module->n_values, sizeof *uses);
    count_uses(graph, uses);
    return uses;
}

/* --- cloning -----------------------------------------------------------------------------------
 */

/* Old values to new ones, in two tables: the caller's, which begins at id 0, and the range of ids
 * that occur inside the body that is being copied. */
struct clone_map {
    ir_value **outer;
    int outer_size;
    ir_value **inner;
    int inner_first, inner_size;
};

static ir_value *mapped(const struct clone_map *map, ir_value *value) {
    int inner = value->id - map->inner_first;
    if (inner >= 0 && inner < map->inner_size && map->inner[inner])
        return map->inner[inner];
    if (value->id < map->outer_size && map->outer[value->id])
        return map->outer[value->id];
    return value;
}

static void record(struct clone_map *map, const ir_value *from, ir_value *to) {
    int inner = from->id - map->inner_first;
    if (inner >= 0 && inner < map->inner_size)
        map->inner[inner] = to;
    if (from->id < map->outer_size)
        map->outer[from->id] = to;
}

static void widen(const ir_value *value, int *first, int *last) {
    if (value->id < *first)
        *first = value->id;
    if (value->id > *last)
        *last = value->id;
}

static void body_id_range(const ir_graph *body, int *first, int *last) {
    for (int i = 0; i < body->n_args; i++)
        widen(body->args[i], first, last);
    for (const ir_op *op = body->first; op; op = op->next) {
        for (int i = 0; i < op->n_results; i++)
            widen(op->results[i], first, last);
        if (op->body)
            body_id_range(op->body, first, last);
    }
}

static ir_op *clone_op(const ir_op *op, ir_graph *graph, ir_op *before, struct clone_map *map) {
    ir_op *copy = new_op(graph,
                         &(ir_op_spec){.code = op->code,
                                       .name = op->name,
                                       .operands = op->operands,
                                       .n_operands = op->n_operands,
                                       .attrs = op->attrs,
                                       .n_attrs = op->n_attrs,
                                       .line = op->line},
                         op->n_results);
    for (int i = 0; i < op->n_operands; i++)
        copy->operands[i] = mapped(map, op->operands[i]);
    for (int i = 0; i < op->n_results; i++) {
        ir_type *type = &copy->results[i]->type;
        *type = op->results[i]->type;
        if (type->layout)
            type->layout = ir_arena_strdup(graph->module->arena, type->layout);
        record(map, op->results[i], copy->results[i]);
    }
    if (op->body) {
        copy->body = ir_graph_create(graph->module, copy);
        for (int i = 0; i < op->body->n_args; i++) {
            const ir_value *arg = op->body->args[i];
            record(map, arg, ir_graph_add_arg(copy->body, &arg->type));
        }
        for (const ir_op *inner = op->body->first; inner; inner = inner->next)
            clone_op(inner, copy->body, NULL, map);
    }
    link_op(copy, graph, before);
    return copy;
}

ir_op *ir_op_clone(const ir_op *op, ir_graph *graph, ir_op *before, ir_value **map, int map_size) {
    struct clone_map both = {.outer = map, .outer_size = map ? map_size : 0};
    ir_arena *scratch = NULL;
    if (op->body) {
        int first = INT32_MAX, last = -1;
        body_id_range(op->body, &first, &last);
        if (last >= first) {
            scratch = ir_arena_create();
            both.inner_first = first;
            both.inner_size = last - first + 1;
            both.inner = ir_arena_array(scratch ? scratch : graph->module->arena,
                                        (size_t)both.inner_size, sizeof *both.inner);
        }
    }
    ir_op *copy = clone_op(op, graph, before, &both);
    ir_arena_destroy(scratch);
    return copy;
}
