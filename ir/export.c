#include "ir/export.h"
#include "ir/text.h"

#include <math.h>
#include <string.h>

/* Bytes of the UTF-8 sequence at p, which ends in a zero byte; 0 when it is none (RFC 3629). */
static int utf8_length(const unsigned char *p) {
    int n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : 4;
    if ((*p >= 0x80 && *p < 0xc2) || *p > 0xf4)
        return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (*p == 0xe0 && p[1] < 0xa0) || (*p == 0xf0 && p[1] < 0x90);
    bool surrogate = *p == 0xed && p[1] >= 0xa0;
    bool beyond = *p == 0xf4 && p[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : n;
}

/* A JSON string; a byte that is not UTF-8 becomes U+FFFD. DOT's quoted strings take the same
 * escapes but for \u, which names do not need. */
static void quote(const char *text, FILE *out) {
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int n = utf8_length(p);
        if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else if (*p < 0x20)
            fprintf(out, "\\u%04x", *p);
        else if (n == 0)
            fputs("\xef\xbf\xbd", out);
        else
            fwrite(p, 1, (size_t)n, out);
        p += n ? n : 1;
    }
    fputc('"', out);
}

/* --- DOT ---------------------------------------------------------------------------------------
 */

enum { NODE_NAME = 32 };

/* A value's node is its op's, named after the op's first result; a body's argument has one of its
 * own, named after the argument. */
static void value_node(const ir_value *value, char name[NODE_NAME]) {
    snprintf(name, NODE_NAME, "v%d", value->def ? value->def->results[0]->id : value->id);
}

static void dot_edge(const ir_value *from, const char *to, ir_arena *scratch, FILE *out) {
    char name[NODE_NAME];
    value_node(from, name);
    fprintf(out, "  %s -> %s [label=\"%s\"];\n", name, to, ir_type_text(scratch, &from->type));
}

static void dot_op(const ir_op *op, int *sinks, ir_arena *scratch, FILE *out);

/* A kernel: a cluster around its body, into which the operands' edges lead; its own node stands for
 * the yield. */
static void dot_kernel(const ir_op *op, const char *node, const char *label, int *sinks,
                       ir_arena *scratch, FILE *out) {
    fprintf(out, "  subgraph cluster_%s {\n  label=", node);
    quote(label, out);
    fputs(";\n", out);
    for (int i = 0; i < op->body->n_args; i++)
        fprintf(out, "  v%d [label=\"%%%d\", shape=ellipse];\n", op->body->args[i]->id,
                op->body->args[i]->id);
    fprintf(out, "  %s [label=\"results\", shape=ellipse];\n", node);
    for (const ir_op *inner = op->body->first; inner; inner = inner->next) {
        if (inner->code != IR_OP_YIELD) {
            dot_op(inner, sinks, scratch, out);
            continue;
        }
        for (int i = 0; i < inner->n_operands; i++)
            dot_edge(inner->operands[i], node, scratch, out);
    }
    fputs("  }\n", out);
    for (int i = 0; i < op->n_operands && i < op->body->n_args; i++) {
        char to[NODE_NAME];
        value_node(op->body->args[i], to);
        dot_edge(op->operands[i], to, scratch, out);
    }
}

static void dot_op(const ir_op *op, int *sinks, ir_arena *scratch, FILE *out) {
    const ir_op_info *info = ir_op_info_get(op->code);
    const char *name = op->name ? op->name : ir_op_string(op, "name");
    const char *label = ir_arena_printf(scratch, "%s%s%s", info->name, name[0] ? " " : "", name);
    char node[NODE_NAME];
    if (op->n_results)
        value_node(op->results[0], node);
    else
        snprintf(node, sizeof node, "s%d", (*sinks)++);
    if (op->body) {
        dot_kernel(op, node, label, sinks, scratch, out);
        return;
    }
    fprintf(out, "  %s [label=", node);
    quote(label, out);
    fprintf(out, ", shape=box%s];\n",
            info->traits & IR_TRAIT_SOURCE ? ", style=filled, fillcolor=gray90" : "");
    for (int i = 0; i < op->n_operands; i++)
        dot_edge(op->operands[i], node, scratch, out);
}

void ir_export_dot(const ir_module *module, FILE *out) {
    ir_arena *scratch = ir_arena_create();
    int sinks = 0;
    if (!scratch)
        return;
    fputs("digraph ", out);
    quote(module->name, out);
    fputs(" {\n  node [fontname=\"sans-serif\"];\n", out);
    for (const ir_op *op = module->graph->first; op; op = op->next)
        dot_op(op, &sinks, scratch, out);
    fputs("}\n", out);
    ir_arena_destroy(scratch);
}

/* --- JSON --------------------------------------------------------------------------------------
 */

static void json_double(double x, FILE *out) {
    if (isfinite(x))
        fprintf(out, "%.17g", x);
    else
        fputs(isnan(x) ? "\"nan\"" : x < 0 ? "\"-inf\"" : "\"inf\"", out);
}

static void json_attr(const ir_attr *attr, FILE *out) {
    quote(attr->name, out);
    fputs(": ", out);
    switch (attr->kind) {
    case IR_ATTR_INT:
        fprintf(out, "%lld", (long long)attr->i);
        break;
    case IR_ATTR_FLOAT:
        json_double(attr->f, out);
        break;
    case IR_ATTR_STRING:
        quote(attr->s, out);
        break;
    case IR_ATTR_INTS:
    case IR_ATTR_FLOATS:
        fputc('[', out);
        for (int i = 0; i < attr->count; i++) {
            fputs(i ? ", " : "", out);
            if (attr->kind == IR_ATTR_INTS)
                fprintf(out, "%lld", (long long)attr->ints[i]);
            else
                json_double(attr->floats[i], out);
        }
        fputc(']', out);
        break;
    }
}

static void json_values(ir_value *const *values, int count, ir_arena *scratch, FILE *out) {
    fputc('[', out);
    for (int i = 0; i < count; i++) {
        fprintf(out, "%s{\"id\": %d, \"type\": ", i ? ", " : "", values[i]->id);
        quote(ir_type_text(scratch, &values[i]->type), out);
        fputc('}', out);
    }
    fputc(']', out);
}

static void json_ops(const ir_graph *graph, ir_arena *scratch, FILE *out) {
    fputc('[', out);
    for (const ir_op *op = graph->first; op; op = op->next) {
        fputs(op == graph->first ? "\n{\"op\": " : ",\n{\"op\": ", out);
        quote(ir_op_info_get(op->code)->name, out);
        if (op->name) {
            fputs(", \"name\": ", out);
            quote(op->name, out);
        }
        fputs(", \"operands\": [", out);
        for (int i = 0; i < op->n_operands; i++)
            fprintf(out, "%s%d", i ? ", " : "", op->operands[i]->id);
        fputs("], \"results\": ", out);
        json_values(op->results, op->n_results, scratch, out);
        fputs(", \"attributes\": {", out);
        for (int i = 0; i < op->n_attrs; i++) {
            fputs(i ? ", " : "", out);
            json_attr(&op->attrs[i], out);
        }
        fputc('}', out);
        if (op->body) {
            fputs(", \"body\": {\"args\": ", out);
            json_values(op->body->args, op->body->n_args, scratch, out);
            fputs(", \"ops\": ", out);
            json_ops(op->body, scratch, out);
            fputc('}', out);
        }
        fputc('}', out);
    }
    fputc(']', out);
}

void ir_export_json(const ir_module *module, FILE *out) {
    ir_arena *scratch = ir_arena_create();
    if (!scratch)
        return;
    fputs("{\"name\": ", out);
    quote(module->name, out);
    fputs(", \"arch\": ", out);
    quote(module->arch, out);
    fputs(", \"kv_groups\": [", out);
    for (int i = 0; i < module->n_kv_groups; i++) {
        const ir_kv_group *g = &module->kv_groups[i];
        fprintf(out,
                "%s{\"window\": %lld, \"layers\": %lld, \"heads\": %lld, \"head_dim\": %lld, "
                "\"dtype\": \"%s\", \"page_tokens\": %lld}",
                i ? ", " : "", (long long)g->window, (long long)g->layers, (long long)g->heads,
                (long long)g->head_dim, ir_dtype_name(g->dtype), (long long)g->page_tokens);
    }
    fputs("], \"weights\": [", out);
    for (int i = 0; i < module->n_weights; i++) {
        const ir_weight *w = &module->weights[i];
        fputs(i ? ",\n{\"name\": " : "\n{\"name\": ", out);
        quote(w->name, out);
        fprintf(out, ", \"type\": \"%s\", \"bytes\": %lld}", ir_type_text(scratch, &w->type),
                (long long)w->bytes);
    }
    fputs("], \"ops\": ", out);
    json_ops(module->graph, scratch, out);
    fputs("}\n", out);
    ir_arena_destroy(scratch);
}
