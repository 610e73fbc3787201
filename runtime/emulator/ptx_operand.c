/* One instruction's text: guard, opcode, operands. */
#include "runtime/emulator/ptx.h"

#include <string.h>

static const struct {
    const char *name;
    ptx_type type;
    int bits;
} types[] = {
    {"pred", PTX_PRED, 1},      {"b8", PTX_B8, 8},      {"b16", PTX_B16, 16},
    {"b32", PTX_B32, 32},       {"b64", PTX_B64, 64},   {"b128", PTX_B128, 128},
    {"u8", PTX_U8, 8},          {"u16", PTX_U16, 16},   {"u32", PTX_U32, 32},
    {"u64", PTX_U64, 64},       {"s8", PTX_S8, 8},      {"s16", PTX_S16, 16},
    {"s32", PTX_S32, 32},       {"s64", PTX_S64, 64},   {"f16", PTX_F16, 16},
    {"f16x2", PTX_F16X2, 32},   {"bf16", PTX_BF16, 16}, {"bf16x2", PTX_BF16X2, 32},
    {"tf32", PTX_TF32, 32},     {"f32", PTX_F32, 32},   {"f64", PTX_F64, 64},
    {"e4m3", PTX_E4M3, 8},      {"e5m2", PTX_E5M2, 8},  {"e4m3x2", PTX_E4M3X2, 16},
    {"e5m2x2", PTX_E5M2X2, 16}, {"s4", PTX_S4, 4},      {"u4", PTX_U4, 4},
};

int ptx_type_bits(ptx_type type) {
    return type == PTX_NONE ? 0 : types[type - 1].bits;
}

bool ptx_type_signed(ptx_type type) {
    return type == PTX_S8 || type == PTX_S16 || type == PTX_S32 || type == PTX_S64;
}

bool ptx_type_float(ptx_type type) {
    return type >= PTX_F16 && type <= PTX_E5M2X2;
}

ptx_type ptx_type_named(const ptx_token *token) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (ptx_token_is(token, types[i].name))
            return types[i].type;
    return PTX_NONE;
}

static void set_register(ptx_operand *operand, const ptx_symbol *symbol, uint32_t id) {
    operand->kind = PTX_OPERAND_REGISTER;
    operand->type = symbol->type;
    operand->reg = id;
}

static void parse_constant(ptx_parser *parser, ptx_operand *operand) {
    bool negative = false;
    while (parser->token.kind == PTX_PUNCT &&
           (parser->token.punct == '-' || parser->token.punct == '+'))
        negative ^= ptx_next(parser).punct == '-';
    ptx_token token = ptx_next(parser);
    if (token.kind != PTX_INT && token.kind != PTX_FLOAT)
        ptx_fail(parser, token.line, "found \"%.*s\", expected a number", (int)token.length,
                 token.text);
    operand->kind = PTX_OPERAND_CONSTANT;
    operand->is_float = token.kind == PTX_FLOAT;
    operand->single = token.single;
    operand->value = token.value;
    if (negative && !operand->is_float)
        operand->value = 0 - token.value;
    else if (negative)
        operand->value ^= token.single ? UINT64_C(1) << 31 : UINT64_C(1) << 63;
}

/* + or - and a number, of addresses; 0 where none stands. */
static int64_t parse_offset(ptx_parser *parser) {
    if (parser->token.kind != PTX_PUNCT ||
        (parser->token.punct != '+' && parser->token.punct != '-'))
        return 0;
    return ptx_signed_int(parser, "an offset");
}

/* [reg], [reg+4], [variable+4], [4]; the bracket is read. */
static void parse_address(ptx_parser *parser, ptx_operand *operand) {
    operand->kind = PTX_OPERAND_MEMORY;
    if (parser->token.kind == PTX_NAME) {
        ptx_token name = ptx_next(parser);
        uint32_t id = 0;
        const ptx_symbol *symbol = ptx_look_up(parser, &name, &id);
        if (!symbol)
            ptx_fail(parser, name.line, "the address of \"%.*s\", which is not declared",
                     (int)name.length, name.text);
        if (symbol->kind == PTX_SYMBOL_REGISTER) {
            set_register(operand, symbol, id);
            operand->kind = PTX_OPERAND_MEMORY;
            operand->has_register = true;
        } else {
            operand->symbol = symbol;
        }
        operand->offset = parse_offset(parser);
    } else {
        operand->offset = ptx_signed_int(parser, "an address");
    }
    ptx_expect(parser, ']', " behind an address");
}

/* %tid.x and the like: names with % that are not declared. */
static bool is_special(const ptx_token *name) {
    return name->length > 1 && name->text[0] == '%';
}

static void parse_name(ptx_parser *parser, ptx_operand *operand, bool in_vector) {
    ptx_token name = ptx_next(parser);
    uint32_t id = 0;
    if (ptx_token_is(&name, "_")) {
        operand->kind = PTX_OPERAND_SINK;
        operand->second = -1;
        if (ptx_accept(parser, '|')) { /* _|%p1 */
            ptx_token second = ptx_next(parser);
            const ptx_symbol *symbol = ptx_look_up(parser, &second, &id);
            if (!symbol || symbol->type != PTX_PRED)
                ptx_fail(parser, second.line, "a pair that ends in no predicate");
            operand->second = id;
        }
        return;
    }
    const ptx_symbol *symbol = ptx_look_up(parser, &name, &id);
    operand->token = name;
    if (!symbol) {
        if (is_special(&name)) {
            operand->kind = PTX_OPERAND_SPECIAL;
            if (parser->token.kind == PTX_DOT)
                operand->member = ptx_next(parser);
        } else if (ptx_token_is(&name, "WARP_SZ")) {
            operand->kind = PTX_OPERAND_CONSTANT;
            operand->value = 32;
        } else if (in_vector) {
            ptx_fail(parser, name.line, "\"%.*s\" is not declared", (int)name.length, name.text);
        } else {
            operand->kind = PTX_OPERAND_LABEL;
        }
        return;
    }
    if (symbol->kind == PTX_SYMBOL_VARIABLE) {
        operand->kind = PTX_OPERAND_ADDRESS;
        operand->symbol = symbol;
        operand->offset = parse_offset(parser);
        return;
    }
    set_register(operand, symbol, id);
    if (!in_vector && ptx_accept(parser, '|')) {
        ptx_token second = ptx_next(parser);
        if (ptx_token_is(&second, "_"))
            return;
        symbol = ptx_look_up(parser, &second, &id);
        if (!symbol || symbol->kind != PTX_SYMBOL_REGISTER || symbol->type != PTX_PRED)
            ptx_fail(parser, second.line, "a pair that ends in no predicate");
        operand->second = id;
    }
}

static void parse_vector(ptx_parser *parser, ptx_operand *operand) {
    ptx_statement *s = &parser->statement;
    operand->kind = PTX_OPERAND_VECTOR;
    operand->first = s->n_elements;
    do {
        if (s->n_elements == PTX_MAX_ELEMENTS)
            ptx_fail(parser, parser->token.line, "vectors of more than %d elements",
                     PTX_MAX_ELEMENTS);
        ptx_operand *element = &s->elements[s->n_elements++];
        *element = (ptx_operand){.second = -1};
        if (parser->token.kind == PTX_NAME)
            parse_name(parser, element, true);
        else
            parse_constant(parser, element);
    } while (ptx_accept(parser, ','));
    operand->count = s->n_elements - operand->first;
    ptx_expect(parser, '}', " behind a vector");
}

static void parse_operand(ptx_parser *parser, ptx_operand *operand) {
    *operand = (ptx_operand){.second = -1};
    if (ptx_accept(parser, '!'))
        operand->negated = true;
    if (ptx_accept(parser, '{'))
        parse_vector(parser, operand);
    else if (ptx_accept(parser, '['))
        parse_address(parser, operand);
    else if (parser->token.kind == PTX_NAME)
        parse_name(parser, operand, false);
    else
        parse_constant(parser, operand);
}

static void parse_guard(ptx_parser *parser) {
    ptx_statement *s = &parser->statement;
    ptx_expect(parser, '@', "");
    s->guard_negated = ptx_accept(parser, '!');
    ptx_token name = ptx_next(parser);
    uint32_t id = 0;
    const ptx_symbol *symbol = name.kind == PTX_NAME ? ptx_look_up(parser, &name, &id) : NULL;
    if (!symbol || symbol->kind != PTX_SYMBOL_REGISTER || symbol->type != PTX_PRED)
        ptx_fail(parser, name.line, "the guard \"%.*s\" is no predicate", (int)name.length,
                 name.text);
    s->guard = id;
    if (parser->token.kind != PTX_NAME)
        ptx_fail(parser, parser->token.line,
                 "found \"%.*s\", expected an instruction behind its "
                 "guard",
                 (int)parser->token.length, parser->token.text);
    s->root = ptx_next(parser);
}

void ptx_parse_instruction(ptx_parser *parser) {
    ptx_statement *s = &parser->statement;
    s->guard = -1;
    s->guard_negated = false;
    if (s->root.kind == PTX_END)
        parse_guard(parser);
    s->line = s->root.line;
    s->n_modifiers = 0;
    while (parser->token.kind == PTX_DOT) {
        if (s->n_modifiers == PTX_MAX_MODIFIERS)
            ptx_fail(parser, s->line, "an instruction with more than %d modifiers",
                     PTX_MAX_MODIFIERS);
        s->taken[s->n_modifiers] = false;
        s->modifiers[s->n_modifiers++] = ptx_next(parser);
    }
    s->n_operands = 0;
    s->n_elements = 0;
    if (!ptx_known_root(&s->root)) { /* its operands may look like nothing known */
        ptx_report_unknown(parser);
        while (!ptx_accept(parser, ';')) {
            if (parser->token.kind == PTX_END)
                ptx_fail(parser, s->line, "the text ends within an instruction");
            ptx_next(parser);
        }
        return;
    }
    if (!ptx_accept(parser, ';')) {
        do {
            if (s->n_operands == PTX_MAX_OPERANDS)
                ptx_fail(parser, s->line, "an instruction with more than %d operands",
                         PTX_MAX_OPERANDS);
            parse_operand(parser, &s->operands[s->n_operands++]);
        } while (ptx_accept(parser, ','));
        ptx_expect(parser, ';', " behind an instruction");
    }
    ptx_decode(parser);
}
