/* Printing the text form: see text.h. Value ids are printed as they are, so that a dump after each
 * pass differs from the one before only where the pass changed something. */
#include "ir/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct printer {
    FILE *out;
    ir_arena *scratch;
    int line;       /* that is being printed, from 1 */
    bool set_lines; /* of the ops */
};

static void print_string(const char *text, FILE *out) {
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else if (*p == '\n')
            fputs("\\n", out);
        else if (*p == '\t')
            fputs("\\t", out);
        else if (*p < 0x20 || *p == 0x7f)
            fprintf(out, "\\x%02x", *p);
        else
            fputc(*p, out);
    }
    fputc('"', out);
}

/* Integers as such, other numbers with the fewest digits that read back as the same double. */
static void print_float(double x, FILE *out) {
    if (isnan(x)) {
        fputs("nan", out);
        return;
    }
    if (isinf(x)) {
        fputs(x < 0 ? "-inf" : "inf", out);
        return;
    }
    char digits[40];
    if (fabs(x) < 1e15 && x == trunc(x)) {
        fprintf(out, "%.0f", x);
        return;
    }
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, x);
        if (strtod(digits, NULL) == x)
            break;
    }
    fputs(digits, out);
}

static void print_attr(const ir_attr *attr, FILE *out) {
    fprintf(out, "%s = ", attr->name);
    switch (attr->kind) {
    case IR_ATTR_INT:
        fprintf(out, "%lld", (long long)attr->i);
        break;
    case IR_ATTR_FLOAT:
        print_float(attr->f, out);
        break;
    case IR_ATTR_STRING:
        print_string(attr->s, out);
        break;
    case IR_ATTR_INTS:
        fputc('[', out);
        for (int i = 0; i < attr->count; i++)
            fprintf(out, "%s%lld", i ? ", " : "", (long long)attr->ints[i]);
        fputc(']', out);
        break;
    case IR_ATTR_FLOATS:
        fputc('[', out);
        for (int i = 0; i < attr->count; i++) {
            fputs(i ? ", " : "", out);
            print_float(attr->floats[i], out);
        }
        fputc(']', out);
        break;
    }
}

static void print_value(const ir_value *value, FILE *out) {
    if (value)
        fprintf(out, "%%%d", value->id);
    else
        fputs("<missing>", out);
}

static void indent(int depth, FILE *out) {
    for (int i = 0; i < depth; i++)
        fputs("  ", out);
}

static void end_line(struct printer *p) {
    fputc('\n', p->out);
    p->line++;
}

static void print_op(struct printer *p, const ir_op *op, int depth);

static void print_ops(struct printer *p, const ir_graph *graph, int depth) {
    for (ir_op *op = graph->first; op; op = op->next) {
        if (p->set_lines)
            op->line = p->line;
        print_op(p, op, depth);
    }
}

static void print_body(struct printer *p, const ir_graph *body, int depth) {
    FILE *out = p->out;
    fputs(" {", out);
    end_line(p);
    if (body->n_args) {
        indent(depth + 1, out);
        fputs("args(", out);
        for (int i = 0; i < body->n_args; i++) {
            fputs(i ? ", " : "", out);
            print_value(body->args[i], out);
            fprintf(out, " : %s", ir_type_text(p->scratch, &body->args[i]->type));
        }
        fputc(')', out);
        end_line(p);
    }
    print_ops(p, body, depth + 1);
    indent(depth, out);
    fputc('}', out);
}

static void print_op(struct printer *p, const ir_op *op, int depth) {
    FILE *out = p->out;
    indent(depth, out);
    for (int i = 0; i < op->n_results; i++) {
        fputs(i ? ", " : "", out);
        print_value(op->results[i], out);
    }
    fprintf(out, "%s%s", op->n_results ? " = " : "", ir_op_info_get(op->code)->name);
    if (op->n_operands) {
        fputc('(', out);
        for (int i = 0; i < op->n_operands; i++) {
            fputs(i ? ", " : "", out);
            print_value(op->operands[i], out);
        }
        fputc(')', out);
    }
    if (op->n_attrs) {
        fputs(" {", out);
        for (int i = 0; i < op->n_attrs; i++) {
            fputs(i ? ", " : "", out);
            print_attr(&op->attrs[i], out);
        }
        fputc('}', out);
    }
    for (int i = 0; i < op->n_results; i++)
        fprintf(out, "%s%s", i ? ", " : " : ", ir_type_text(p->scratch, &op->results[i]->type));
    if (op->name) {
        fputs(" @", out);
        print_string(op->name, out);
    }
    if (op->body)
        print_body(p, op->body, depth);
    end_line(p);
}

void ir_print_op(const ir_op *op, FILE *out) {
    struct printer p = {.scratch = ir_arena_create(), .out = out};
    if (!p.scratch)
        return;
    print_op(&p, op, 0);
    ir_arena_destroy(p.scratch);
}

static void print_module(const ir_module *module, FILE *out, bool set_lines) {
    struct printer p = {
        .scratch = ir_arena_create(), .out = out, .line = 1, .set_lines = set_lines};
    if (!p.scratch)
        return;
    fputs("module ", out);
    print_string(module->name, out);
    fputs(" {arch = ", out);
    print_string(module->arch, out);
    fputc('}', out);
    end_line(&p);
    for (int i = 0; i < module->n_kv_groups; i++) {
        const ir_kv_group *g = &module->kv_groups[i];
        fprintf(out,
                "kv_group {window = %lld, layers = %lld, heads = %lld, head_dim = %lld, "
                "dtype = %s, page_tokens = %lld}",
                (long long)g->window, (long long)g->layers, (long long)g->heads,
                (long long)g->head_dim, ir_dtype_name(g->dtype), (long long)g->page_tokens);
        end_line(&p);
    }
    print_ops(&p, module->graph, 0);
    ir_arena_destroy(p.scratch);
}

void ir_print_module(const ir_module *module, FILE *out) {
    print_module(module, out, false);
}

void ir_print_module_lines(ir_module *module, FILE *out) {
    print_module(module, out, true);
}
