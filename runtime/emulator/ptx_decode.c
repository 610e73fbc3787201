#include "runtime/emulator/ptx_decode.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const ptx_root *const root_tables[] = {ptx_int_roots,     ptx_float_roots, ptx_memory_roots,
                                              ptx_control_roots, ptx_move_roots,  ptx_warp_roots};
static const emu_handler *const handler_tables[] = {
    emu_int_handlers,   emu_bits_handlers,    emu_compare_handlers, emu_move_handlers,
    emu_float_handlers, emu_control_handlers, emu_memory_handlers,  emu_atomic_handlers,
    emu_async_handlers, emu_warp_handlers};

static ptx_decode_fn find_root(const ptx_token *root) {
    for (size_t t = 0; t < sizeof root_tables / sizeof *root_tables; t++)
        for (const ptx_root *r = root_tables[t]; r->name; r++)
            if (ptx_token_is(root, r->name))
                return r->decode;
    return NULL;
}

bool ptx_known_root(const ptx_token *root) {
    return find_root(root) != NULL;
}

/* "ld.global.v4.f32" */
static void opcode_text(const ptx_statement *s, char text[160]) {
    int n =
        snprintf(text, 160, "%.*s", (int)(s->root.length < 60 ? s->root.length : 60), s->root.text);
    for (int i = 0; i < s->n_modifiers && n < 120; i++)
        n += snprintf(text + n, (size_t)(160 - n), ".%.*s",
                      (int)(s->modifiers[i].length < 30 ? s->modifiers[i].length : 30),
                      s->modifiers[i].text);
}

void ptx_report_unknown(ptx_parser *parser) {
    char text[160];
    opcode_text(&parser->statement, text);
    ptx_report(parser, parser->statement.line, "unknown instruction %s", text);
}

void ptx_refuse(ptx_decoder *d, const char *format, ...) {
    if (d->failed)
        return;
    d->failed = true;
    char why[200], text[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    opcode_text(d->s, text);
    ptx_report(d->parser, d->s->line, "%s: %s", text, why);
}

/* --- modifiers ----------------------------------------------------------------------------------
 */

bool ptx_take(ptx_decoder *d, const char *word) {
    for (int i = 0; i < d->s->n_modifiers; i++)
        if (!d->s->taken[i] && ptx_token_is(&d->s->modifiers[i], word)) {
            d->s->taken[i] = true;
            return true;
        }
    return false;
}

int ptx_take_of(ptx_decoder *d, const char *words) {
    for (int n = 0; *words; n++) {
        char word[40];
        size_t length = strcspn(words, " ");
        if (length >= sizeof word)
            return -1;
        memcpy(word, words, length);
        word[length] = 0;
        if (ptx_take(d, word))
            return n;
        words += length;
        words += *words == ' ';
    }
    return -1;
}

ptx_type ptx_take_type(ptx_decoder *d) {
    for (int i = 0; i < d->s->n_modifiers; i++) {
        ptx_type type = d->s->taken[i] ? PTX_NONE : ptx_type_named(&d->s->modifiers[i]);
        if (type != PTX_NONE) {
            d->s->taken[i] = true;
            return type;
        }
    }
    return PTX_NONE;
}

void ptx_take_prefixed(ptx_decoder *d, const char *prefix) {
    size_t n = strlen(prefix);
    for (int i = 0; i < d->s->n_modifiers; i++)
        if (d->s->modifiers[i].length > n && memcmp(d->s->modifiers[i].text, prefix, n) == 0)
            d->s->taken[i] = true;
}

const char *ptx_type_text(ptx_type type) {
    static const char *const names[] = {"none", "pred", "b8",    "b16",    "b32",    "b64",  "b128",
                                        "u8",   "u16",  "u32",   "u64",    "s8",     "s16",  "s32",
                                        "s64",  "f16",  "f16x2", "bf16",   "bf16x2", "tf32", "f32",
                                        "f64",  "e4m3", "e5m2",  "e4m3x2", "e5m2x2", "s4",   "u4"};
    return names[type];
}

/* --- operands -----------------------------------------------------------------------------------
 */

/* Until rows are assigned, a register operand is its number with this bit. */
static int32_t virtual_row(uint32_t reg) {
    return (int32_t)(reg | PTX_VIRTUAL);
}

static void note_read(ptx_decoder *d, uint32_t id) {
    if (d->n_reads < (int)(sizeof d->reads / sizeof *d->reads))
        d->reads[d->n_reads++] = id;
}
static void note_write(ptx_decoder *d, uint32_t id) {
    if (d->n_writes < (int)(sizeof d->writes / sizeof *d->writes))
        d->writes[d->n_writes++] = id;
}

bool ptx_count(ptx_decoder *d, int least, int most) {
    if (d->s->n_operands >= least && d->s->n_operands <= most)
        return true;
    ptx_refuse(d, "has %d operands, expected %d", d->s->n_operands,
               d->s->n_operands < least ? least : most);
    return false;
}

static const ptx_operand none = {.kind = PTX_OPERAND_SINK, .second = -1};

static const ptx_operand *operand_at(ptx_decoder *d, int i) {
    if (i < d->s->n_operands)
        return &d->s->operands[i];
    ptx_refuse(d, "operand %d is missing", i + 1);
    return &none;
}

/* The bits of a constant as `type` has them. */
static uint64_t constant_bits(ptx_decoder *d, const ptx_operand *operand, ptx_type type) {
    int bits = ptx_type_bits(type);
    uint64_t value = operand->value;
    if (operand->is_float) {
        double wide;
        float single;
        uint32_t word = (uint32_t)value;
        if (operand->single) {
            memcpy(&single, &word, sizeof single);
            wide = single;
        } else {
            memcpy(&wide, &value, sizeof wide);
            single = (float)wide;
        }
        if (bits == 32 && (type == PTX_F32 || type == PTX_B32)) {
            if (!operand->single)
                memcpy(&word, &single, sizeof word);
            return word;
        }
        if (bits == 64 && (type == PTX_F64 || type == PTX_B64)) {
            memcpy(&value, &wide, sizeof value);
            return value;
        }
        ptx_refuse(d, "a floating-point constant where .%s is expected", ptx_type_text(type));
        return 0;
    }
    if (type == PTX_F32 || type == PTX_F64)
        ptx_refuse(d, "an integer constant where .%s is expected", ptx_type_text(type));
    return bits >= 64 ? value : value & ((UINT64_C(1) << bits) - 1);
}

/* The row of a variable's address in its own space. */
static int32_t address_row(ptx_decoder *d, const ptx_symbol *symbol, uint64_t addend, bool wide) {
    ((ptx_symbol *)(uintptr_t)symbol)->used = true;
    switch (symbol->space) {
    case EMU_SPACE_LOCAL:
    case EMU_SPACE_PARAM:
        return ptx_constant_row(d->parser, symbol->offset + addend, wide);
    default: /* known when the function ends, or when the module is loaded */
        return ptx_address_row(d->parser, symbol, addend, wide);
    }
}

static int32_t source(ptx_decoder *d, const ptx_operand *operand, ptx_type type, bool wider,
                      int *bits) {
    int want = ptx_type_bits(type);
    *bits = want < 16 ? 16 : want;
    switch (operand->kind) {
    case PTX_OPERAND_REGISTER: {
        int have = ptx_type_bits(operand->type);
        if (operand->negated || operand->second >= 0)
            ptx_refuse(d, "a negated operand or a pair where one register is expected");
        if (operand->type == PTX_PRED || (wider ? have < want : have != want))
            ptx_refuse(d, "%.*s has %d bits, the instruction takes %d", (int)operand->token.length,
                       operand->token.text, have, want);
        *bits = have;
        note_read(d, operand->reg);
        return virtual_row(operand->reg);
    }
    case PTX_OPERAND_CONSTANT:
        return ptx_constant_row(d->parser, constant_bits(d, operand, type), want == 64);
    case PTX_OPERAND_ADDRESS:
        if (want < 32 || ptx_type_float(type))
            ptx_refuse(d, "an address where .%s is expected", ptx_type_text(type));
        return address_row(d, operand->symbol, (uint64_t)operand->offset, want == 64);
    case PTX_OPERAND_LABEL:
        ptx_refuse(d, "\"%.*s\" is not declared", (int)operand->token.length, operand->token.text);
        return -1;
    default:
        ptx_refuse(d, "an operand that is neither a register nor a constant");
        return -1;
    }
}

int32_t ptx_source_of(ptx_decoder *d, const ptx_operand *operand, ptx_type type) {
    int bits;
    return source(d, operand, type, false, &bits);
}
int32_t ptx_source(ptx_decoder *d, int i, ptx_type type) {
    return ptx_source_of(d, operand_at(d, i), type);
}
int32_t ptx_wide_source(ptx_decoder *d, const ptx_operand *operand, ptx_type type, int *bits) {
    return source(d, operand, type, true, bits);
}

int32_t ptx_scratch(ptx_decoder *d, int bits) {
    uint8_t *type = ptx_push(d->parser, &d->parser->register_types);
    *type = bits > 32 ? PTX_B64 : PTX_B32;
    uint32_t id = d->parser->n_registers++;
    note_write(d, id);
    return virtual_row(id);
}

static int32_t target(ptx_decoder *d, const ptx_operand *operand, ptx_type type, bool wider,
                      int *bits) {
    int want = ptx_type_bits(type), have = ptx_type_bits(operand->type);
    *bits = want < 16 ? 16 : want;
    if (operand->kind == PTX_OPERAND_SINK)
        return ptx_scratch(d, want);
    if (operand->kind != PTX_OPERAND_REGISTER || operand->type == PTX_PRED || operand->negated) {
        ptx_refuse(d, "its result goes to no register");
        return -1;
    }
    if (wider ? have < want : have != want)
        ptx_refuse(d, "%.*s has %d bits, the instruction gives %d", (int)operand->token.length,
                   operand->token.text, have, want);
    *bits = have;
    note_write(d, operand->reg);
    return virtual_row(operand->reg);
}
int32_t ptx_target_of(ptx_decoder *d, const ptx_operand *operand, ptx_type type) {
    int bits;
    return target(d, operand, type, false, &bits);
}
int32_t ptx_target(ptx_decoder *d, int i, ptx_type type) {
    d->op.width = (uint8_t)(ptx_type_bits(type) < 16 ? 16 : ptx_type_bits(type));
    return ptx_target_of(d, operand_at(d, i), type);
}
int32_t ptx_wide_target(ptx_decoder *d, const ptx_operand *operand, ptx_type type, int *bits) {
    return target(d, operand, type, true, bits);
}

int32_t ptx_predicate(ptx_decoder *d, int i, uint32_t bit) {
    const ptx_operand *operand = operand_at(d, i);
    if (operand->kind != PTX_OPERAND_REGISTER || operand->type != PTX_PRED) {
        ptx_refuse(d, "operand %d is no predicate", i + 1);
        return 0;
    }
    if (operand->negated)
        d->op.flip |= bit;
    note_read(d, operand->reg | EMU_USE_PREDICATE);
    return (int32_t)operand->reg;
}

int32_t ptx_predicate_target(ptx_decoder *d, int i) {
    const ptx_operand *operand = operand_at(d, i);
    uint32_t reg;
    if (operand->kind == PTX_OPERAND_SINK) {
        reg = d->parser->n_predicates++;
    } else if (operand->kind == PTX_OPERAND_REGISTER && operand->type == PTX_PRED &&
               !operand->negated) {
        reg = operand->reg;
    } else {
        ptx_refuse(d, "its result goes to no predicate");
        return 0;
    }
    note_write(d, reg | EMU_USE_PREDICATE);
    return (int32_t)reg;
}

int32_t ptx_second_target(ptx_decoder *d, int i) {
    const ptx_operand *operand = operand_at(d, i);
    if (operand->second < 0)
        return -1;
    note_write(d, (uint32_t)operand->second | EMU_USE_PREDICATE);
    return (int32_t)operand->second;
}

uint32_t ptx_immediate(ptx_decoder *d, int i) {
    const ptx_operand *operand = operand_at(d, i);
    if (operand->kind != PTX_OPERAND_CONSTANT || operand->is_float) {
        ptx_refuse(d, "operand %d is no integer constant", i + 1);
        return 0;
    }
    return (uint32_t)operand->value;
}

void ptx_address(ptx_decoder *d, int i) {
    const ptx_operand *operand = operand_at(d, i);
    if (operand->kind != PTX_OPERAND_MEMORY) {
        ptx_refuse(d, "operand %d is no address in brackets", i + 1);
        return;
    }
    d->op.wide_address = true;
    d->op.imm = 0;
    if (operand->has_register) {
        int bits = ptx_type_bits(operand->type);
        if (operand->type == PTX_PRED || bits < 32)
            ptx_refuse(d, "an address of %d bits", bits);
        d->op.wide_address = bits == 64;
        d->op.a = virtual_row(operand->reg);
        d->op.imm = (uint64_t)operand->offset;
        note_read(d, operand->reg);
    } else if (operand->symbol) {
        d->op.a = address_row(d, operand->symbol, (uint64_t)operand->offset, true);
    } else {
        d->op.a = ptx_constant_row(d->parser, (uint64_t)operand->offset, true);
    }
}

void ptx_list_add(ptx_decoder *d, int32_t row) {
    if (d->n_list < (int)(sizeof d->list / sizeof *d->list))
        d->list[d->n_list++] = row;
}

emu_run_fn ptx_find_handler(const char *name) {
    for (size_t t = 0; t < sizeof handler_tables / sizeof *handler_tables; t++)
        for (const emu_handler *h = handler_tables[t]; h->name; h++)
            if (strcmp(h->name, name) == 0)
                return h->run;
    return NULL;
}

void ptx_handler(ptx_decoder *d, emu_kind kind, const char *format, ...) {
    char name[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    d->op.kind = (uint8_t)kind;
    d->op.run = ptx_find_handler(name);
    if (!d->op.run)
        ptx_refuse(d, "this combination of type and modifiers is not known");
}

void ptx_jump_to(ptx_decoder *d, const ptx_operand *label, bool table) {
    if (label->kind != PTX_OPERAND_LABEL) {
        ptx_refuse(d, "its operand is no label");
        return;
    }
    ptx_jump *jump = ptx_push(d->parser, &d->parser->jumps);
    *jump = (ptx_jump){.op = (uint32_t)d->parser->ops.n,
                       .scope = d->parser->scopes[d->parser->depth - 1],
                       .line = d->s->line,
                       .label = label->token,
                       .table = table};
}

/* --- all together --------------------------------------------------------------------------------
 */

void ptx_decode(ptx_parser *parser) {
    ptx_statement *s = &parser->statement;
    ptx_decoder d = {.parser = parser, .s = s};
    d.op = (emu_op){.guard = -1, .a = -1, .b = -1, .c = -1, .d = -1, .line = s->line};
    d.op.source = parser->source;
    if (s->guard >= 0) {
        d.op.guard = (int32_t)s->guard;
        d.op.guard_flip = s->guard_negated ? EMU_FULL : 0;
    }
    size_t n_jumps = parser->jumps.n;
    find_root (&s->root)(&d);
    for (int i = 0; i < s->n_modifiers; i++)
        if (!s->taken[i])
            ptx_refuse(&d, "modifier .%.*s is not known", (int)s->modifiers[i].length,
                       s->modifiers[i].text);
    if (!d.failed && !d.op.run)
        ptx_refuse(&d, "this combination of type and modifiers is not known");
    if (d.failed) {
        parser->jumps.n = n_jumps;
        return;
    }
    if (parser->ops.n == PTX_MAX_OPS || parser->n_registers > PTX_MAX_REGISTERS ||
        parser->n_predicates > PTX_MAX_REGISTERS)
        ptx_fail(parser, s->line, "more than %d instructions or registers", PTX_MAX_OPS);
    if (d.n_list) {
        int32_t *list = ptx_alloc(parser, (size_t)d.n_list * sizeof *list);
        memcpy(list, d.list, (size_t)d.n_list * sizeof *list);
        d.op.list = list;
        d.op.n_list = (uint8_t)d.n_list;
        d.op.plain_list = (uint8_t)d.plain_list;
    }
    *(emu_op *)ptx_push(parser, &parser->ops) = d.op;
    emu_uses *uses = ptx_push(parser, &parser->uses);
    *uses = (emu_uses){(uint32_t)parser->use_list.n, (uint16_t)d.n_reads, (uint16_t)d.n_writes,
                       d.carry, d.select};
    for (int i = 0; i < d.n_reads; i++)
        *(uint32_t *)ptx_push(parser, &parser->use_list) = d.reads[i];
    for (int i = 0; i < d.n_writes; i++)
        *(uint32_t *)ptx_push(parser, &parser->use_list) = d.writes[i];
}
