/* Names of registers and variables, their scopes, and rows of constants. */
#include "runtime/emulator/ptx.h"

#include <string.h>

static uint32_t hash_name(const char *name, uint32_t length) {
    uint32_t h = 2166136261u;
    for (uint32_t i = 0; i < length; i++)
        h = (h ^ (uint8_t)name[i]) * 16777619u;
    return (h ^ h >> 15) % 1024;
}

static ptx_symbol *symbol_at(ptx_parser *parser, uint32_t index) {
    return ((ptx_symbol **)parser->symbols.items)[index];
}

ptx_symbol *ptx_declare(ptx_parser *parser, const char *name, uint32_t length) {
    ptx_symbol *symbol = ptx_alloc(parser, sizeof *symbol);
    *(ptx_symbol **)ptx_push(parser, &parser->symbols) = symbol;
    symbol->name = name;
    symbol->length = length;
    uint32_t *bucket = &parser->buckets[hash_name(name, length)];
    symbol->next = *bucket;
    *bucket = (uint32_t)parser->symbols.n;
    return symbol;
}

/* The index + 1 of the latest symbol of that very name that is or is not a range, or 0. */
static uint32_t find(ptx_parser *parser, const char *name, uint32_t length, bool range) {
    uint32_t at = parser->buckets[hash_name(name, length)];
    while (at) {
        const ptx_symbol *s = symbol_at(parser, at - 1);
        if (s->length == length && s->range == range && memcmp(s->name, name, length) == 0)
            return at;
        at = s->next;
    }
    return 0;
}

static uint32_t register_id(ptx_parser *parser, ptx_symbol *symbol, uint32_t number) {
    if (symbol->ids[number] < 0) {
        if (symbol->type == PTX_PRED) {
            symbol->ids[number] = (int32_t)parser->n_predicates++;
        } else {
            symbol->ids[number] = (int32_t)parser->n_registers++;
            *(uint8_t *)ptx_push(parser, &parser->register_types) = (uint8_t)symbol->type;
        }
    }
    return (uint32_t)symbol->ids[number];
}

ptx_symbol *ptx_look_up(ptx_parser *parser, const ptx_token *name, uint32_t *id) {
    uint32_t best = find(parser, name->text, name->length, false), number = 0;
    /* %r12 of %r<20>, where that was declared later than a plain %r12. */
    uint32_t digits = 0;
    uint64_t value = 0, power = 1;
    while (digits < name->length && digits < 9) {
        char c = name->text[name->length - 1 - digits];
        if (c < '0' || c > '9')
            break;
        value += power * (uint64_t)(c - '0');
        power *= 10;
        digits++;
        bool zero_led = c == '0' && digits > 1;
        if (zero_led)
            continue;
        uint32_t at = find(parser, name->text, name->length - digits, true);
        if (at > best && value < symbol_at(parser, at - 1)->count) {
            best = at;
            number = (uint32_t)value;
        }
    }
    if (!best)
        return NULL;
    ptx_symbol *symbol = symbol_at(parser, best - 1);
    if (symbol->kind == PTX_SYMBOL_REGISTER)
        *id = register_id(parser, symbol, number);
    return symbol;
}

void ptx_scope_open(ptx_parser *parser, uint32_t line) {
    if (parser->depth + 1 >= PTX_MAX_SCOPES)
        ptx_fail(parser, line, "more than %d nested scopes", PTX_MAX_SCOPES - 1);
    uint32_t *parent = ptx_push(parser, &parser->scope_parents);
    *parent = parser->depth ? parser->scopes[parser->depth - 1] : UINT32_MAX;
    parser->scopes[parser->depth] = (uint32_t)parser->scope_parents.n - 1;
    parser->scope_symbols[parser->depth++] = (uint32_t)parser->symbols.n;
}

void ptx_scope_close(ptx_parser *parser) {
    uint32_t keep = parser->scope_symbols[--parser->depth];
    while (parser->symbols.n > keep) {
        const ptx_symbol *s = symbol_at(parser, (uint32_t)parser->symbols.n - 1);
        parser->buckets[hash_name(s->name, s->length)] = s->next;
        parser->symbols.n--;
    }
}

static int32_t constant_row(ptx_parser *parser, uint64_t value, const ptx_symbol *symbol,
                            bool wide) {
    uint64_t key = (value + (uintptr_t)symbol) * UINT64_C(0x9e3779b97f4a7c15) + wide;
    uint32_t *bucket = &parser->constant_buckets[key >> 54];
    ptx_constant *all = parser->constants.items;
    for (uint32_t at = *bucket; at; at = all[at - 1].next)
        if (all[at - 1].value == value && all[at - 1].symbol == symbol && all[at - 1].wide == wide)
            return all[at - 1].row;
    uint32_t words = wide ? 64 : 32;
    if (parser->constant_words + words > 32u * PTX_MAX_ROWS)
        ptx_fail(parser, parser->statement.line, "more than %d constants", PTX_MAX_ROWS);
    ptx_constant *constant = ptx_push(parser, &parser->constants);
    *constant = (ptx_constant){value, wide, ~(int32_t)parser->constant_words, symbol, *bucket};
    parser->constant_words += words;
    *bucket = (uint32_t)parser->constants.n;
    return constant->row;
}

int32_t ptx_constant_row(ptx_parser *parser, uint64_t value, bool wide) {
    return constant_row(parser, wide ? value : (uint32_t)value, NULL, wide);
}

int32_t ptx_address_row(ptx_parser *parser, const ptx_symbol *symbol, uint64_t addend, bool wide) {
    return constant_row(parser, addend, symbol, wide);
}
