/* Variables: .global, .const, .shared, .local and parameters of kernels. */
#include "runtime/emulator/ptx.h"

#include <string.h>

typedef struct declaration {
    ptx_token name;
    ptx_type type;
    uint32_t align, vector; /* bytes; elements of .v2, .v4 */
    uint64_t count;         /* elements of the array; 0: [] */
    bool pointer;           /* .ptr */
} declaration;

/* .align 4 .b8 name[24], .u64 .ptr .global .align 1 name, … */
static declaration parse_declaration(ptx_parser *parser) {
    declaration d = {.vector = 1, .count = 1};
    uint64_t align = 0;
    while (parser->token.kind == PTX_DOT) {
        ptx_token word = ptx_next(parser);
        ptx_type type = ptx_type_named(&word);
        if (ptx_token_is(&word, "align")) {
            uint64_t value = ptx_expect_int(parser, "an alignment");
            if (value < 1 || value > 4096 || (value & (value - 1)))
                ptx_fail(parser, word.line, "alignment %llu", (unsigned long long)value);
            if (!d.pointer) /* of a pointer: what it points to */
                align = value;
        } else if (ptx_token_is(&word, "ptr")) {
            d.pointer = true;
        } else if (d.pointer && (ptx_token_is(&word, "global") || ptx_token_is(&word, "shared") ||
                                 ptx_token_is(&word, "local") || ptx_token_is(&word, "const"))) {
            continue;
        } else if (ptx_token_is(&word, "v2") || ptx_token_is(&word, "v4")) {
            d.vector = (uint32_t)(word.text[1] - '0');
        } else if (type != PTX_NONE && d.type == PTX_NONE && ptx_type_bits(type) >= 8) {
            d.type = type;
        } else {
            ptx_fail(parser, word.line, "found \".%.*s\" in a variable's declaration",
                     (int)word.length, word.text);
        }
    }
    if (d.type == PTX_NONE || parser->token.kind != PTX_NAME)
        ptx_fail(parser, parser->token.line, "a variable without a %s",
                 d.type == PTX_NONE ? "type" : "name");
    d.name = ptx_next(parser);
    uint32_t bytes = (uint32_t)ptx_type_bits(d.type) / 8 * d.vector;
    d.align = align ? (uint32_t)align : bytes;
    while (ptx_accept(parser, '[')) {
        if (ptx_accept(parser, ']')) {
            d.count = 0;
            continue;
        }
        uint64_t n = ptx_expect_int(parser, "a number of elements");
        ptx_expect(parser, ']', " behind a number of elements");
        if (n < 1 || n > PTX_MAX_VARIABLE_BYTES || d.count * n > PTX_MAX_VARIABLE_BYTES)
            ptx_fail(parser, d.name.line, "variable %.*s has more than %d bytes",
                     (int)d.name.length, d.name.text, PTX_MAX_VARIABLE_BYTES);
        d.count *= n;
    }
    if (d.count * bytes > PTX_MAX_VARIABLE_BYTES)
        ptx_fail(parser, d.name.line, "variable %.*s has more than %d bytes", (int)d.name.length,
                 d.name.text, PTX_MAX_VARIABLE_BYTES);
    return d;
}

static uint64_t declared_bytes(const declaration *d) {
    return d->count * d->vector * ((uint64_t)ptx_type_bits(d->type) / 8);
}

void ptx_parse_parameter(ptx_parser *parser) {
    if (!ptx_accept_dot(parser, "param"))
        ptx_fail(parser, parser->token.line, "found \"%.*s\", expected .param",
                 (int)parser->token.length, parser->token.text);
    declaration d = parse_declaration(parser);
    if (parser->params.n == PTX_MAX_PARAMS)
        ptx_fail(parser, d.name.line, "more than %d parameters", PTX_MAX_PARAMS);
    uint64_t offset = ((uint64_t)parser->function->param_bytes + d.align - 1) & ~(d.align - 1ull);
    uint64_t end = offset + declared_bytes(&d);
    if (end > PTX_MAX_PARAM_BYTES)
        ptx_fail(parser, d.name.line, "parameters of more than %d bytes", PTX_MAX_PARAM_BYTES);
    uint32_t *param = ptx_push(parser, &parser->params);
    param[0] = (uint32_t)offset;
    param[1] = (uint32_t)(end - offset);
    parser->function->param_bytes = (uint32_t)end;
    ptx_symbol *symbol = ptx_declare(parser, d.name.text, d.name.length);
    symbol->kind = PTX_SYMBOL_VARIABLE;
    symbol->space = EMU_SPACE_PARAM;
    symbol->offset = offset;
    symbol->bytes = end - offset;
}

/* --- initial values ------------------------------------------------------------------------------
 */

typedef struct initializer {
    emu_variable *variable;
    uint32_t index; /* of the variable */
    ptx_type type;
    uint64_t at;
} initializer;

/* name, generic(name), name+4: an address. */
static void parse_pointer(ptx_parser *parser, initializer *to) {
    ptx_token name = ptx_next(parser);
    bool generic = ptx_token_is(&name, "generic") && ptx_accept(parser, '(');
    if (generic)
        name = ptx_next(parser);
    uint32_t id = 0;
    const ptx_symbol *symbol = name.kind == PTX_NAME ? ptx_look_up(parser, &name, &id) : NULL;
    if (!symbol || symbol->kind != PTX_SYMBOL_VARIABLE ||
        (symbol->space != EMU_SPACE_GLOBAL && symbol->space != EMU_SPACE_CONST))
        ptx_fail(parser, name.line,
                 "initial value \"%.*s\", expected a number or a .global or "
                 ".const variable",
                 (int)name.length, name.text);
    emu_fixup *fixup = ptx_push(parser, &parser->variable_fixups);
    fixup->variable = symbol->variable;
    fixup->in = to->index;
    fixup->at = to->at;
    if (generic)
        ptx_expect(parser, ')', " behind generic(");
    if (ptx_accept(parser, '+'))
        fixup->addend = ptx_expect_int(parser, "an offset");
    if (ptx_type_bits(to->type) != 64)
        ptx_fail(parser, name.line, "an address in a variable whose elements have not 64 bits");
}

static void parse_value(ptx_parser *parser, initializer *to) {
    uint32_t bytes = (uint32_t)ptx_type_bits(to->type) / 8, line = parser->token.line;
    if (to->at + bytes > to->variable->bytes)
        ptx_fail(parser, line, "more initial values than variable %s has elements",
                 to->variable->name);
    if (parser->token.kind == PTX_NAME) {
        parse_pointer(parser, to);
        to->at += bytes;
        return;
    }
    bool negative = false;
    while (ptx_accept(parser, '-'))
        negative = !negative;
    ptx_token token = ptx_next(parser);
    uint64_t value = token.value;
    if (token.kind == PTX_FLOAT && to->type == PTX_F32) {
        float single;
        double wide;
        if (token.single) {
            uint32_t bits = (uint32_t)value;
            memcpy(&single, &bits, sizeof single);
        } else {
            memcpy(&wide, &value, sizeof wide);
            single = (float)wide;
        }
        single = negative ? -single : single;
        uint32_t bits;
        memcpy(&bits, &single, sizeof bits);
        value = bits;
    } else if (token.kind == PTX_FLOAT && to->type == PTX_F64 && !token.single) {
        value ^= negative ? UINT64_C(1) << 63 : 0;
    } else if (token.kind == PTX_INT && bytes <= 8) {
        value = negative ? 0 - value : value;
    } else {
        ptx_fail(parser, line, "initial value \"%.*s\" does not fit the type of variable %s",
                 (int)token.length, token.text, to->variable->name);
    }
    memcpy(to->variable->data + to->at, &value, bytes);
    to->at += bytes;
}

static void parse_values(ptx_parser *parser, initializer *to, uint32_t depth) {
    if (!ptx_accept(parser, '{')) {
        parse_value(parser, to);
        return;
    }
    if (depth == 8)
        ptx_fail(parser, parser->token.line, "initial values nested deeper than 8");
    if (ptx_accept(parser, '}'))
        return;
    do {
        parse_values(parser, to, depth + 1);
    } while (ptx_accept(parser, ','));
    ptx_expect(parser, '}', " behind initial values");
}

/* .global and .const: an allocation of its own when the module is loaded. */
static void add_device_variable(ptx_parser *parser, ptx_symbol *symbol, const declaration *d,
                                bool external) {
    if (parser->variables.n == PTX_MAX_VARIABLES)
        ptx_fail(parser, d->name.line, "more than %d variables", PTX_MAX_VARIABLES);
    if (!d->count || external)
        ptx_fail(parser, d->name.line, "variable %.*s is defined in no module that was given",
                 (int)d->name.length, d->name.text);
    symbol->variable = (uint32_t)parser->variables.n;
    emu_variable *variable = ptx_push(parser, &parser->variables);
    char *name = ptx_alloc(parser, d->name.length + 1u);
    memcpy(name, d->name.text, d->name.length);
    variable->name = name;
    variable->bytes = symbol->bytes;
    variable->align = d->align;
    variable->constant = symbol->space == EMU_SPACE_CONST;
    if (!ptx_accept(parser, '='))
        return;
    variable->data = ptx_alloc(parser, (size_t)symbol->bytes);
    initializer to = {variable, symbol->variable, d->type, 0};
    parse_values(parser, &to, 0);
}

static uint64_t place(ptx_parser *parser, const declaration *d, uint64_t *used, uint64_t most,
                      const char *space) {
    uint64_t offset = (*used + d->align - 1) & ~(d->align - 1ull);
    uint64_t bytes = declared_bytes(d);
    if (!bytes || offset + bytes > most)
        ptx_fail(parser, d->name.line, "variable %.*s: %s memory of %llu bytes, at most %llu",
                 (int)d->name.length, d->name.text, space, (unsigned long long)(offset + bytes),
                 (unsigned long long)most);
    *used = offset + bytes;
    return offset;
}

void ptx_parse_variable(ptx_parser *parser, emu_space space, bool external) {
    do {
        declaration d = parse_declaration(parser);
        ptx_symbol *symbol = ptx_declare(parser, d.name.text, d.name.length);
        symbol->kind = PTX_SYMBOL_VARIABLE;
        symbol->space = space;
        symbol->bytes = declared_bytes(&d);
        symbol->align = d.align;
        if (space == EMU_SPACE_GLOBAL || space == EMU_SPACE_CONST) {
            add_device_variable(parser, symbol, &d, external);
        } else if (space == EMU_SPACE_LOCAL) {
            symbol->offset = place(parser, &d, &parser->local_bytes, PTX_MAX_LOCAL, "local");
        } else if (external || !d.count) {
            symbol->dynamic = true;
        } else if (parser->function) {
            symbol->offset = place(parser, &d, &parser->shared_bytes, PTX_MAX_SHARED, "shared");
            symbol->used = true;
        } else if (symbol->bytes > PTX_MAX_SHARED) {
            ptx_fail(parser, d.name.line, "variable %.*s: shared memory of %llu bytes, at most %d",
                     (int)d.name.length, d.name.text, (unsigned long long)symbol->bytes,
                     PTX_MAX_SHARED);
        }
    } while (ptx_accept(parser, ','));
    ptx_expect(parser, ';', " behind a variable");
}
