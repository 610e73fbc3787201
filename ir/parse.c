/* Parsing the text form (see text.h) by recursive descent. The text is untrusted: the depth of
 * nesting, ids, and the counts that later work is quadratic in are bounded here, everything else is
 * bounded by the length of the text. */
#include "ir/lexer.h"
#include "ir/text.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_ERRORS = 50,
    MAX_DEPTH = 16, /* bodies inside bodies */
    MAX_ID = (1 << 22) - 1,
    MAX_ATTRS = 32,
    MAX_RESULTS = 4096,
    MAX_KV_GROUPS = 256
};

struct parser {
    ir_lexer lexer;
    ir_token token; /* the one to look at next */
    const char *file;
    ir_diag *diag;
    int errors;
    ir_module *module;
    ir_arena *scratch;
    ir_value **values; /* by id; &poison where the definition did not parse */
    int n_values;
    int max_id;
};

/* Stands for a value whose definition has been reported, so that its uses are not. */
static ir_value poison;

/* --- tokens and errors -------------------------------------------------------------------------
 */

static void next(struct parser *p) {
    p->token = ir_lexer_next(&p->lexer);
}

static const char *location(struct parser *p, const ir_token *at) {
    return ir_arena_printf(p->scratch, "%s:%d:%d", p->file, at->line, at->column);
}

/* Reports at a token; returns false. */
__attribute__((format(printf, 3, 4))) static bool fail(struct parser *p, const ir_token *at,
                                                       const char *format, ...) {
    p->errors++;
    va_list args;
    va_start(args, format);
    const char *text = ir_arena_vprintf(p->scratch, format, args);
    va_end(args);
    return ir_error(p->diag, location(p, at), "%s", text);
}

/* "found X" for messages, cut short. */
static const char *found(struct parser *p) {
    if (p->token.kind == IR_TOKEN_END)
        return "the end of the text";
    int length = p->token.length > 40 ? 40 : (int)p->token.length;
    if (p->token.kind == IR_TOKEN_BAD)
        return p->token.text[0] == '"'
                   ? "a string without an end"
                   : ir_arena_printf(p->scratch, "byte 0x%02x", (unsigned char)p->token.text[0]);
    return ir_arena_printf(p->scratch, "`%.*s`", length, p->token.text);
}

static bool is_punct(const struct parser *p, char c) {
    return p->token.kind == IR_TOKEN_PUNCT && p->token.text[0] == c;
}

static bool is_word(const struct parser *p, const char *word) {
    return p->token.kind == IR_TOKEN_WORD && p->token.length == strlen(word) &&
           !memcmp(p->token.text, word, p->token.length);
}

static bool accept(struct parser *p, char c) {
    if (!is_punct(p, c))
        return false;
    next(p);
    return true;
}

static bool expect(struct parser *p, char c, const char *where) {
    return accept(p, c) || fail(p, &p->token, "found %s, expected `%c` %s", found(p), c, where);
}

static char *word_text(struct parser *p) {
    return ir_arena_strndup(p->scratch, p->token.text, p->token.length);
}

/* Skips the rest of a statement that did not parse: to a later line or a closing brace, over the
 * braces that were opened on the way. */
static void resync(struct parser *p, int line) {
    int depth = 0;
    while (p->token.kind != IR_TOKEN_END) {
        if (depth == 0 && (p->token.line > line || is_punct(p, '}')))
            return;
        if (is_punct(p, '{'))
            depth++;
        if (is_punct(p, '}'))
            depth--;
        next(p);
    }
}

/* A list that doubles; items are pointers or small structs. */
struct list {
    char *items;
    int count, capacity;
};

static void *push(struct parser *p, struct list *list, size_t size) {
    if (list->count == list->capacity) {
        int capacity = list->capacity ? list->capacity * 2 : 8;
        char *grown = ir_arena_array(p->scratch, (size_t)capacity, size);
        if (list->count)
            memcpy(grown, list->items, (size_t)list->count * size);
        list->items = grown;
        list->capacity = capacity;
    }
    return list->items + (size_t)list->count++ * size;
}

/* --- literals ----------------------------------------------------------------------------------
 */

static bool token_int(struct parser *p, const ir_token *token, bool negative, int64_t *out) {
    char digits[32];
    if (token->length >= sizeof digits - 1 || memchr(token->text, '.', token->length) ||
        memchr(token->text, 'e', token->length) || memchr(token->text, 'E', token->length))
        return fail(p, token, "expected an integer that fits 64 bits");
    digits[0] = negative ? '-' : '+';
    memcpy(digits + 1, token->text, token->length);
    digits[token->length + 1] = 0;
    errno = 0;
    *out = strtoll(digits, NULL, 10);
    return !errno || fail(p, token, "expected an integer that fits 64 bits");
}

static bool parse_int(struct parser *p, int64_t *out) {
    bool negative = accept(p, '-');
    if (p->token.kind != IR_TOKEN_NUMBER)
        return fail(p, &p->token, "found %s, expected an integer", found(p));
    if (!token_int(p, &p->token, negative, out))
        return false;
    next(p);
    return true;
}

static bool parse_float(struct parser *p, double *out) {
    bool negative = accept(p, '-');
    if (is_word(p, "inf"))
        *out = INFINITY;
    else if (is_word(p, "nan"))
        *out = NAN;
    else if (p->token.kind == IR_TOKEN_NUMBER && p->token.length <= 400)
        *out = strtod(word_text(p), NULL);
    else
        return fail(p, &p->token, "found %s, expected a number", found(p));
    if (p->token.kind == IR_TOKEN_NUMBER && isinf(*out))
        return fail(p, &p->token, "number out of range");
    if (negative)
        *out = -*out;
    next(p);
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* One escape at s[0] == '\\'; returns its length, or 0 when it is none. */
static size_t unescape(const char *s, size_t rest, char *out) {
    if (rest < 2)
        return 0;
    switch (s[1]) {
    case '"':
    case '\\':
        *out = s[1];
        return 2;
    case 'n':
        *out = '\n';
        return 2;
    case 't':
        *out = '\t';
        return 2;
    case 'x': {
        int high = rest >= 4 ? hex_digit(s[2]) : -1, low = rest >= 4 ? hex_digit(s[3]) : -1;
        if (high < 0 || low < 0 || (high == 0 && low == 0))
            return 0; /* a zero byte would end the string */
        *out = (char)(high * 16 + low);
        return 4;
    }
    default:
        return 0;
    }
}

static bool parse_string(struct parser *p, const char **out) {
    if (p->token.kind != IR_TOKEN_STRING)
        return fail(p, &p->token, "found %s, expected a string", found(p));
    const char *s = p->token.text + 1;
    size_t length = p->token.length - 2, n = 0;
    char *text = ir_arena_alloc(p->scratch, length + 1);
    for (size_t i = 0; i < length;) {
        if (s[i] == 0)
            return fail(p, &p->token, "a string with a zero byte");
        if (s[i] != '\\') {
            text[n++] = s[i++];
            continue;
        }
        size_t used = unescape(s + i, length - i, &text[n]);
        if (!used)
            return fail(p, &p->token,
                        "unknown escape in a string; there are \\\" \\\\ \\n \\t and "
                        "\\x01 to \\xff");
        n++;
        i += used;
    }
    text[n] = 0;
    *out = text;
    next(p);
    return true;
}

/* --- types -------------------------------------------------------------------------------------
 */

/* term: 12, T, 3T */
static bool parse_dim_term(struct parser *p, ir_dim *sum) {
    int64_t factor = 1;
    bool number = p->token.kind == IR_TOKEN_NUMBER;
    ir_token start = p->token;
    if (number) {
        if (!token_int(p, &p->token, false, &factor))
            return false;
        next(p);
    }
    ir_dim unit = ir_dim_const(1);
    bool symbol = p->token.kind == IR_TOKEN_WORD && p->token.length == 1 &&
                  (!number || p->token.text == start.text + start.length);
    if (symbol && p->token.text[0] == 'T')
        unit = IR_DIM_T;
    else if (symbol && p->token.text[0] == 'S')
        unit = IR_DIM_S;
    else if (symbol && p->token.text[0] == 'R')
        unit = IR_DIM_R;
    else if (!number)
        return fail(p, &p->token, "found %s, expected a dimension such as 64, T or 2T+1", found(p));
    else
        symbol = false;
    if (symbol)
        next(p);
    if (factor > IR_MAX_DIM)
        return fail(p, &start, "dimension out of range");
    *sum = ir_dim_add(*sum, ir_dim_scale(unit, factor));
    return true;
}

static bool parse_type(struct parser *p, ir_type *type) {
    ir_token start = p->token;
    if (p->token.kind != IR_TOKEN_WORD)
        return fail(p, &p->token, "found %s, expected a type such as f32[T, 64]", found(p));
    const char *name = word_text(p);
    *type = (ir_type){.kind = IR_TENSOR};
    next(p);
    if (!strcmp(name, "kv")) {
        type->kind = IR_KV;
        return true;
    }
    type->encoding = ir_encoding_from_name(name);
    if (type->encoding)
        type->dtype = IR_F32;
    else if (!ir_dtype_from_name(name, &type->dtype))
        return fail(p, &start, "unknown element type or encoding `%.40s`", name);
    if (!expect(p, '[', "and dimensions after the element type"))
        return false;
    while (!is_punct(p, ']')) {
        if (type->rank && !expect(p, ',', "or `]` between dimensions"))
            return false;
        if (type->rank == IR_MAX_RANK)
            return fail(p, &p->token, "a type with more than %d dimensions", IR_MAX_RANK);
        ir_dim dim = {0};
        do
            if (!parse_dim_term(p, &dim))
                return false;
        while (accept(p, '+'));
        type->dims[type->rank++] = dim;
    }
    ir_token bracket = p->token;
    next(p);
    /* A layout follows its bracket at once; an op's name is a string. */
    if (is_punct(p, '@') && p->token.text == bracket.text + 1 && p->lexer.at < p->lexer.end &&
        *p->lexer.at != '"') {
        next(p);
        if (p->token.kind != IR_TOKEN_WORD)
            return fail(p, &p->token, "found %s, expected a layout's name", found(p));
        type->layout = word_text(p);
        next(p);
    }
    return ir_type_check(type, location(p, &start), p->diag) || (p->errors++, false);
}

/* --- attributes --------------------------------------------------------------------------------
 */

static bool parse_attr_value(struct parser *p, ir_attr *attr) {
    switch (attr->kind) {
    case IR_ATTR_INT:
        return parse_int(p, &attr->i);
    case IR_ATTR_FLOAT:
        return parse_float(p, &attr->f);
    case IR_ATTR_STRING:
        return parse_string(p, &attr->s);
    default:
        break;
    }
    if (!expect(p, '[', "to begin a list"))
        return false;
    struct list items = {0};
    while (!accept(p, ']')) {
        if (items.count && !expect(p, ',', "or `]` between numbers"))
            return false;
        if (attr->kind == IR_ATTR_INTS ? !parse_int(p, push(p, &items, sizeof(int64_t)))
                                       : !parse_float(p, push(p, &items, sizeof(double))))
            return false;
    }
    attr->count = items.count;
    if (attr->kind == IR_ATTR_INTS)
        attr->ints = (const int64_t *)(void *)items.items;
    else
        attr->floats = (const double *)(void *)items.items;
    return true;
}

/* name = */
static bool parse_attr_name(struct parser *p, const char **name) {
    *name = "";
    if (p->token.kind != IR_TOKEN_WORD)
        return fail(p, &p->token, "found %s, expected an attribute's name", found(p));
    *name = word_text(p);
    next(p);
    return expect(p, '=', "after an attribute's name");
}

static bool parse_attrs(struct parser *p, const ir_op_info *info, struct list *attrs) {
    if (!accept(p, '{'))
        return true;
    while (!accept(p, '}')) {
        if (attrs->count && !expect(p, ',', "or `}` between attributes"))
            return false;
        if (attrs->count == MAX_ATTRS)
            return fail(p, &p->token, "more than %d attributes", MAX_ATTRS);
        ir_token at = p->token;
        ir_attr_schema schema;
        ir_attr *attr = push(p, attrs, sizeof *attr);
        if (!parse_attr_name(p, &attr->name))
            return false;
        if (!ir_attr_schema_find(info, attr->name, &schema))
            return fail(p, &at, "%s has no attribute `%.40s`%s%s", info->name, attr->name,
                        info->attributes[0] ? "; it has " : "", info->attributes);
        attr->kind = schema.kind;
        if (!parse_attr_value(p, attr))
            return false;
    }
    return true;
}

/* --- ops ---------------------------------------------------------------------------------------
 */

/* Reads %id, which must be a value's id. */
static bool parse_id(struct parser *p, int *id) {
    if (p->token.kind != IR_TOKEN_VALUE)
        return fail(p, &p->token, "found %s, expected a value such as %%1", found(p));
    int64_t n = 0;
    for (size_t i = 1; i < p->token.length && n <= MAX_ID; i++)
        n = n * 10 + (p->token.text[i] - '0');
    if (n > MAX_ID)
        return fail(p, &p->token, "value id above %d", MAX_ID);
    *id = (int)n;
    next(p);
    return true;
}

static ir_value **slot(struct parser *p, int id) {
    if (id >= p->n_values) {
        int n = p->n_values ? p->n_values : 256;
        while (n <= id)
            n *= 2;
        ir_value **grown = ir_arena_array(p->scratch, (size_t)n, sizeof(ir_value *));
        if (p->n_values)
            memcpy(grown, p->values, (size_t)p->n_values * sizeof(ir_value *));
        p->values = grown;
        p->n_values = n;
    }
    return &p->values[id];
}

static bool define(struct parser *p, const ir_token *at, int id, ir_value *value) {
    ir_value **where = slot(p, id);
    if (*where && *where != &poison && value != &poison)
        return fail(p, at, "value %%%d is defined twice", id);
    if (value != &poison)
        value->id = id;
    if (value != &poison || !*where)
        *where = value;
    if (id > p->max_id)
        p->max_id = id;
    return true;
}

/* An operand: *value is &poison when its definition was already reported. */
static bool parse_operand(struct parser *p, ir_graph *graph, ir_value **value) {
    ir_token at = p->token;
    int id;
    if (!parse_id(p, &id))
        return false;
    *value = id < p->n_values ? p->values[id] : NULL;
    if (!*value)
        return fail(p, &at, "value %%%d is used before it is defined", id);
    if (*value != &poison && (*value)->owner != graph)
        return fail(p, &at, "value %%%d is not defined in this body", id);
    return true;
}

/* The weight that a weight op names gets an entry in the module's table, once. */
static bool enter_weight(struct parser *p, const ir_token *at, const ir_op *op) {
    const char *name = ir_op_string(op, "name");
    const ir_type *type = &op->results[0]->type;
    const ir_weight *known = ir_module_weight(p->module, name);
    if (!known) {
        ir_module_add_weight(p->module, name, type, NULL, ir_type_bytes(type).c);
        return true;
    }
    return ir_type_equal(&known->type, type) ||
           fail(p, at, "weight \"%.100s\" has type %s here, but %s before", name,
                ir_type_text(p->scratch, type), ir_type_text(p->scratch, &known->type));
}

struct statement {
    ir_token start;
    struct list ids; /* int: of the results */
    struct list operands;
    struct list attrs;
    struct list types;
    ir_op_spec spec;
    bool poisoned;
};

static bool parse_body(struct parser *p, ir_graph *body, int depth);

/* The part of a statement after its results: op(operands) {attrs} : types @"name" { body } */
static bool parse_op_text(struct parser *p, ir_graph *graph, int depth, struct statement *st) {
    if (p->token.kind != IR_TOKEN_WORD)
        return fail(p, &p->token, "found %s, expected an op", found(p));
    if (!ir_opcode_from_name(word_text(p), &st->spec.code))
        return fail(p, &p->token, "unknown op %s", found(p));
    const ir_op_info *info = ir_op_info_get(st->spec.code);
    next(p);
    if (accept(p, '(')) {
        while (!accept(p, ')')) {
            if (st->operands.count && !expect(p, ',', "or `)` between operands"))
                return false;
            ir_value **operand = push(p, &st->operands, sizeof *operand);
            if (!parse_operand(p, graph, operand))
                return false;
            st->poisoned |= *operand == &poison;
        }
    }
    if (!parse_attrs(p, info, &st->attrs))
        return false;
    if (accept(p, ':')) {
        do {
            if (st->types.count == MAX_RESULTS)
                return fail(p, &p->token, "more than %d types", MAX_RESULTS);
            if (!parse_type(p, push(p, &st->types, sizeof(ir_type))))
                return false;
        } while (accept(p, ','));
    }
    if (accept(p, '@') && !parse_string(p, &st->spec.name))
        return false;
    if (!is_punct(p, '{'))
        return true;
    if (!(info->traits & IR_TRAIT_REGION))
        return fail(p, &p->token, "%s cannot have a body", info->name);
    if (depth == MAX_DEPTH)
        return fail(p, &p->token, "more than %d bodies inside each other", MAX_DEPTH);
    next(p);
    st->spec.body = ir_graph_create(p->module, NULL);
    int before = p->errors;
    if (!parse_body(p, st->spec.body, depth + 1))
        return false;
    st->poisoned |= p->errors != before;
    return true;
}

/* Builds the op that a statement describes and gives its results the ids of the text. */
static bool build(struct parser *p, ir_graph *graph, struct statement *st) {
    ir_op_spec *spec = &st->spec;
    const int *ids = (const int *)(void *)st->ids.items;
    const ir_op_info *info = ir_op_info_get(spec->code);
    int results = info->results >= 0 ? info->results : st->types.count;
    if (st->ids.count != results)
        return fail(p, &st->start, "%s has %d result%s, but %d %s named", info->name, results,
                    results == 1 ? "" : "s", st->ids.count, st->ids.count == 1 ? "is" : "are");
    if (st->types.count != results)
        return fail(p, &st->start, "%s has %d result%s, but %d %s stated", info->name, results,
                    results == 1 ? "" : "s", st->types.count,
                    st->types.count == 1 ? "type is" : "types are");
    spec->operands = (ir_value *const *)(void *)st->operands.items;
    spec->n_operands = st->operands.count;
    spec->attrs = (const ir_attr *)(void *)st->attrs.items;
    spec->n_attrs = st->attrs.count;
    spec->types = (const ir_type *)(void *)st->types.items;
    spec->n_types = st->types.count;
    spec->line = st->start.line;
    /* Messages name an op by its first result's id: let it be the text's. */
    if (results)
        p->module->n_values = ids[0];
    ir_diag messages = {0};
    ir_op *op = ir_op_create(graph, NULL, spec, &messages);
    for (int i = 0; i < messages.count; i++)
        fail(p, &st->start, "%s: %s", messages.messages[i].where ? messages.messages[i].where : "",
             messages.messages[i].text ? messages.messages[i].text : "out of memory");
    ir_diag_clear(&messages);
    if (!op)
        return false;
    bool ok = op->code != IR_OP_WEIGHT || enter_weight(p, &st->start, op);
    for (int i = 0; i < results; i++)
        ok = define(p, &st->start, ids[i], op->results[i]) && ok;
    return ok;
}

static bool parse_results(struct parser *p, struct statement *st) {
    if (p->token.kind != IR_TOKEN_VALUE)
        return true;
    do {
        if (st->ids.count == MAX_RESULTS)
            return fail(p, &p->token, "more than %d results", MAX_RESULTS);
        ir_token at = p->token;
        int id;
        if (!parse_id(p, &id))
            return false;
        if (id < p->n_values && p->values[id] && p->values[id] != &poison)
            return fail(p, &at, "value %%%d is defined twice", id);
        *(int *)push(p, &st->ids, sizeof(int)) = id;
    } while (accept(p, ','));
    return expect(p, '=', "after the results");
}

static void parse_op(struct parser *p, ir_graph *graph, int depth) {
    struct statement st = {.start = p->token};
    bool ok = parse_results(p, &st) && parse_op_text(p, graph, depth, &st);
    if (!ok)
        resync(p, p->token.line > st.start.line ? p->token.line - 1 : st.start.line);
    if (ok && !st.poisoned && build(p, graph, &st))
        return;
    for (int i = 0; i < st.ids.count; i++)
        define(p, &st.start, ((int *)(void *)st.ids.items)[i], &poison);
}

/* args(%1 : f32[T, 64], …) */
static bool parse_args(struct parser *p, ir_graph *body) {
    next(p);
    if (!expect(p, '(', "after args"))
        return false;
    while (!accept(p, ')')) {
        ir_token at = p->token;
        int id;
        ir_type type;
        if (body->n_args && !expect(p, ',', "or `)` between arguments"))
            return false;
        if (!parse_id(p, &id) || !expect(p, ':', "and a type after an argument") ||
            !parse_type(p, &type) || !define(p, &at, id, ir_graph_add_arg(body, &type)))
            return false;
    }
    return true;
}

static bool parse_body(struct parser *p, ir_graph *body, int depth) {
    if (is_word(p, "args")) {
        int line = p->token.line;
        if (!parse_args(p, body))
            resync(p, line);
    }
    while (!is_punct(p, '}') && p->token.kind != IR_TOKEN_END && p->errors < MAX_ERRORS)
        parse_op(p, body, depth);
    return expect(p, '}', "at the end of a body");
}

/* --- modules -----------------------------------------------------------------------------------
 */

static bool parse_kv_group(struct parser *p) {
    ir_token start = p->token;
    ir_kv_group group = {0};
    struct {
        const char *name;
        int64_t *value;
        int64_t min;
        bool seen;
    } fields[] = {{"window", &group.window, 0, false},
                  {"layers", &group.layers, 1, false},
                  {"heads", &group.heads, 1, false},
                  {"head_dim", &group.head_dim, 1, false},
                  {"page_tokens", &group.page_tokens, 1, false},
                  {"dtype", NULL, 0, false}};
    const int n_fields = sizeof fields / sizeof *fields;
    next(p);
    if (!expect(p, '{', "after kv_group"))
        return false;
    for (int n = 0; !accept(p, '}'); n++) {
        const char *name;
        int f = 0;
        if (n && !expect(p, ',', "or `}` between fields"))
            return false;
        ir_token at = p->token;
        if (!parse_attr_name(p, &name))
            return false;
        while (f < n_fields && strcmp(fields[f].name, name))
            f++;
        if (f == n_fields || fields[f].seen)
            return fail(p, &at, "kv_group: field `%.40s` is unknown or given twice", name);
        fields[f].seen = true;
        at = p->token;
        if (!fields[f].value) {
            if (p->token.kind != IR_TOKEN_WORD || !ir_dtype_from_name(word_text(p), &group.dtype) ||
                !ir_kv_dtype_ok(group.dtype))
                return fail(p, &at, "kv_group: dtype is %s, expected f32, f16, i8 or f8e4m3",
                            found(p));
            next(p);
        } else if (!parse_int(p, fields[f].value)) {
            return false;
        } else if (*fields[f].value < fields[f].min || *fields[f].value > INT32_MAX) {
            return fail(p, &at, "kv_group: %s is %lld, out of range", name,
                        (long long)*fields[f].value);
        }
    }
    for (int f = 0; f < n_fields; f++)
        if (!fields[f].seen)
            return fail(p, &start, "kv_group lacks its field `%s`", fields[f].name);
    if (p->module->n_kv_groups == MAX_KV_GROUPS)
        return fail(p, &start, "more than %d kv groups", MAX_KV_GROUPS);
    ir_module_add_kv_group(p->module, &group);
    return true;
}

/* module "name" {arch = "llama"} */
static bool parse_header(struct parser *p) {
    const char *name, *key, *arch = "";
    if (!is_word(p, "module"))
        return fail(p, &p->token, "found %s, expected `module \"name\" {arch = \"…\"}`", found(p));
    next(p);
    if (!parse_string(p, &name))
        return false;
    if (accept(p, '{')) {
        ir_token at = p->token;
        if (!parse_attr_name(p, &key))
            return false;
        if (strcmp(key, "arch"))
            return fail(p, &at, "a module has no attribute `%.40s`; it has arch", key);
        if (!parse_string(p, &arch) || !expect(p, '}', "after arch"))
            return false;
    }
    p->module->name = ir_arena_strdup(p->module->arena, name);
    p->module->arch = ir_arena_strdup(p->module->arena, arch);
    return true;
}

ir_module *ir_parse_module(const char *text, size_t length, const char *file, ir_diag *diag) {
    struct parser p = {.file = file ? file : "<text>", .diag = diag, .max_id = -1};
    p.module = ir_module_create("", "");
    p.scratch = ir_arena_create();
    if (!p.module || !p.scratch) {
        ir_error(diag, file, "out of memory");
        ir_arena_destroy(p.scratch);
        ir_module_destroy(p.module);
        return NULL;
    }
    ir_lexer_init(&p.lexer, text, length);
    next(&p);
    if (parse_header(&p)) {
        while (p.token.kind != IR_TOKEN_END && p.errors < MAX_ERRORS) {
            int line = p.token.line;
            if (is_punct(&p, '}')) {
                fail(&p, &p.token, "`}` without `{`");
                next(&p);
            } else if (!is_word(&p, "kv_group")) {
                parse_op(&p, p.module->graph, 0);
            } else if (!parse_kv_group(&p)) {
                resync(&p, line);
            }
        }
    }
    p.module->n_values = p.max_id + 1;
    bool ok = p.errors == 0;
    ir_module *module = p.module;
    ir_arena_destroy(p.scratch);
    if (!ok) {
        ir_module_destroy(module);
        return NULL;
    }
    return module;
}
