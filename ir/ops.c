/* The table of ops as data, and the checks that derive from it alone. */
#include "ir/ir.h"
#include "ir/shape.h"

#include <string.h>

enum {
    PURE = IR_TRAIT_PURE,
    ELEMENTWISE = IR_TRAIT_ELEMENTWISE,
    COMMUTATIVE = IR_TRAIT_COMMUTATIVE,
    SOURCE = IR_TRAIT_SOURCE,
    VIEW = IR_TRAIT_VIEW,
    COMPOSITE = IR_TRAIT_COMPOSITE,
    REGION = IR_TRAIT_REGION
};

static const ir_op_info infos[IR_N_OPS] = {
#define OP(suffix, name, min, max, results, traits, rule, attributes)                              \
    [IR_OP_##suffix] = {name, min, max, results, traits, ir_infer_##rule, attributes},
#include "ir/ops.def"
#undef OP
};

const ir_op_info *ir_op_info_get(ir_opcode code) {
    return &infos[code];
}

bool ir_opcode_from_name(const char *name, ir_opcode *code) {
    for (int i = 0; i < IR_N_OPS; i++)
        if (!strcmp(infos[i].name, name)) {
            *code = (ir_opcode)i;
            return true;
        }
    return false;
}

bool ir_op_type_is_stated(const ir_op_info *info) {
    return info->infer == ir_infer_given || info->infer == ir_infer_cast ||
           info->infer == ir_infer_reshape || info->infer == ir_infer_broadcast ||
           info->infer == ir_infer_quantize || info->infer == ir_infer_kernel;
}

/* --- attribute schemas -------------------------------------------------------------------------
 */

const char *ir_attr_schema_next(const char *schema, ir_attr_schema *attr) {
    schema += strspn(schema, " ");
    size_t length = strcspn(schema, ":");
    if (!schema[length])
        return NULL;
    *attr = (ir_attr_schema){.name = schema, .length = (int)length};
    switch (schema[length + 1]) {
    case 'i':
        attr->kind = IR_ATTR_INT;
        break;
    case 'f':
        attr->kind = IR_ATTR_FLOAT;
        break;
    case 's':
        attr->kind = IR_ATTR_STRING;
        break;
    case 'I':
        attr->kind = IR_ATTR_INTS;
        break;
    default:
        attr->kind = IR_ATTR_FLOATS;
        break;
    }
    attr->optional = schema[length + 2] == '?';
    return schema + length + 2 + attr->optional;
}

bool ir_attr_schema_find(const ir_op_info *info, const char *name, ir_attr_schema *attr) {
    size_t length = strlen(name);
    for (const char *s = info->attributes; (s = ir_attr_schema_next(s, attr));)
        if ((size_t)attr->length == length && !memcmp(attr->name, name, length))
            return true;
    return false;
}

static const char *kind_name(ir_attr_kind kind) {
    static const char *const names[] = {"an integer", "a number", "a string", "a list of integers",
                                        "a list of numbers"};
    return names[kind];
}

/* --- checks ------------------------------------------------------------------------------------
 */

static bool check_attrs(const ir_op *op, const ir_op_info *info, ir_diag *diag) {
    bool ok = true;
    for (int i = 0; i < op->n_attrs; i++) {
        const ir_attr *a = &op->attrs[i];
        ir_attr_schema schema;
        if (!ir_attr_schema_find(info, a->name, &schema))
            ok = ir_error(diag, ir_op_label(op), "%s has no attribute \"%s\"%s%s", info->name,
                          a->name, info->attributes[0] ? "; it has " : "", info->attributes);
        else if (schema.kind != a->kind)
            ok = ir_error(diag, ir_op_label(op), "attribute \"%s\" is %s, expected %s", a->name,
                          kind_name(a->kind), kind_name(schema.kind));
        for (int j = 0; j < i; j++)
            if (!strcmp(op->attrs[j].name, a->name)) {
                ok = ir_error(diag, ir_op_label(op), "attribute \"%s\" is given twice", a->name);
                break;
            }
    }
    ir_attr_schema want;
    for (const char *s = info->attributes; (s = ir_attr_schema_next(s, &want));) {
        bool found = want.optional;
        for (int i = 0; i < op->n_attrs && !found; i++)
            found = strlen(op->attrs[i].name) == (size_t)want.length &&
                    !memcmp(op->attrs[i].name, want.name, (size_t)want.length);
        if (!found)
            ok = ir_error(diag, ir_op_label(op), "%s lacks its attribute \"%.*s\" (%s)", info->name,
                          want.length, want.name, kind_name(want.kind));
    }
    return ok;
}

bool ir_op_check(const ir_op *op, ir_diag *diag) {
    if ((unsigned)op->code >= IR_N_OPS)
        return ir_error(diag, op->name, "unknown opcode %d", (int)op->code);
    const ir_op_info *info = &infos[op->code];
    bool ok = true;
    if (op->n_operands < info->min_operands ||
        (info->max_operands >= 0 && op->n_operands > info->max_operands)) {
        if (info->max_operands < 0)
            ok = ir_error(diag, ir_op_label(op), "%s has %d operands, expected at least %d",
                          info->name, op->n_operands, info->min_operands);
        else if (info->min_operands == info->max_operands)
            ok = ir_error(diag, ir_op_label(op), "%s has %d operands, expected %d", info->name,
                          op->n_operands, info->min_operands);
        else
            ok = ir_error(diag, ir_op_label(op), "%s has %d operands, expected %d to %d",
                          info->name, op->n_operands, info->min_operands, info->max_operands);
    }
    for (int i = 0; i < op->n_operands; i++)
        if (!op->operands[i])
            ok = ir_error(diag, ir_op_label(op), "operand %d of %s is missing", i, info->name);
    if (info->results >= 0 && op->n_results != info->results)
        ok = ir_error(diag, ir_op_label(op), "%s has %d results, expected %d", info->name,
                      op->n_results, info->results);
    if (!(info->traits & REGION) != !op->body)
        ok = ir_error(diag, ir_op_label(op), "%s %s a body", info->name,
                      op->body ? "cannot have" : "needs");
    return check_attrs(op, info, diag) && ok;
}
