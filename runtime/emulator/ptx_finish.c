/* The end of a function: labels, shared memory, constants. */
#include "runtime/emulator/ptx.h"

#include <string.h>

/* The op of a label seen from a scope: of that scope or of one around it. */
static bool find_label(const ptx_parser *parser, const ptx_token *name, uint32_t scope,
                       uint32_t *op) {
    const ptx_label *labels = parser->labels.items;
    const uint32_t *parents = parser->scope_parents.items;
    for (; scope != UINT32_MAX; scope = parents[scope])
        for (size_t i = 0; i < parser->labels.n; i++)
            if (labels[i].scope == scope && labels[i].length == name->length &&
                memcmp(labels[i].name, name->text, name->length) == 0) {
                *op = labels[i].op;
                return true;
            }
    return false;
}

static const ptx_targets *find_targets(const ptx_parser *parser, const ptx_token *name,
                                       uint32_t scope) {
    const ptx_targets *targets = parser->targets.items;
    const uint32_t *parents = parser->scope_parents.items;
    for (; scope != UINT32_MAX; scope = parents[scope])
        for (size_t i = 0; i < parser->targets.n; i++)
            if (targets[i].scope == scope && targets[i].name.length == name->length &&
                memcmp(targets[i].name.text, name->text, name->length) == 0)
                return &targets[i];
    return NULL;
}

static void resolve(ptx_parser *parser, const ptx_jump *jump) {
    emu_op *op = (emu_op *)parser->ops.items + jump->op;
    if (!jump->table) {
        uint32_t at = 0;
        if (!find_label(parser, &jump->label, jump->scope, &at))
            ptx_report(parser, jump->line, "there is no label \"%.*s\"", (int)jump->label.length,
                       jump->label.text);
        op->imm = at;
        return;
    }
    const ptx_targets *targets = find_targets(parser, &jump->label, jump->scope);
    if (!targets) {
        ptx_report(parser, jump->line, "there is no .branchtargets list \"%.*s\"",
                   (int)jump->label.length, jump->label.text);
        return;
    }
    op->imm = targets->n;
    op->list = ptx_alloc(parser, targets->n * sizeof *op->list);
    for (uint32_t i = 0; i < targets->n; i++) {
        uint32_t at = 0;
        if (!find_label(parser, &targets->labels[i], jump->scope, &at))
            ptx_report(parser, jump->line, "there is no label \"%.*s\"",
                       (int)targets->labels[i].length, targets->labels[i].text);
        op->list[i] = (int32_t)at;
    }
}

/* Module-level shared variables that the kernel uses lie behind its own, and dynamic shared memory
 * behind all of them. */
static void place_shared(ptx_parser *parser) {
    uint64_t bytes = parser->shared_bytes, align = 1;
    for (uint32_t i = 0; i < parser->scope_symbols[0]; i++) {
        ptx_symbol *s = ((ptx_symbol **)parser->symbols.items)[i];
        if (s->kind != PTX_SYMBOL_VARIABLE || s->space != EMU_SPACE_SHARED || !s->used)
            continue;
        if (s->dynamic) {
            align = s->align > align ? s->align : align;
            continue;
        }
        s->offset = (bytes + s->align - 1) & ~(s->align - 1ull);
        bytes = s->offset + s->bytes;
        if (bytes > PTX_MAX_SHARED)
            ptx_fail(parser, parser->token.line, "shared memory of more than %d bytes",
                     PTX_MAX_SHARED);
    }
    bytes = (bytes + align - 1) & ~(align - 1);
    for (uint32_t i = 0; i < parser->scope_symbols[0]; i++) {
        ptx_symbol *s = ((ptx_symbol **)parser->symbols.items)[i];
        if (s->kind == PTX_SYMBOL_VARIABLE && s->space == EMU_SPACE_SHARED && s->dynamic)
            s->offset = bytes;
    }
    parser->function->static_shared = (uint32_t)bytes;
}

static void write_constants(ptx_parser *parser) {
    ptx_function *f = parser->function;
    f->n_constant_words = parser->constant_words;
    f->constants = ptx_alloc(parser, 4 * (size_t)parser->constant_words);
    const ptx_constant *all = parser->constants.items;
    f->fixups = ptx_alloc(parser, (parser->constants.n + 1) * sizeof *f->fixups);
    for (size_t i = 0; i < parser->constants.n; i++) {
        const ptx_symbol *s = all[i].symbol;
        uint64_t value = all[i].value;
        uint32_t at = (uint32_t)~all[i].row;
        if (s && s->space == EMU_SPACE_SHARED) {
            value += s->offset;
        } else if (s) {
            f->fixups[f->n_fixups++] = (emu_fixup){
                .variable = s->variable, .addend = value, .in = at, .narrow = !all[i].wide};
            f->uses_global_variables = true;
        }
        uint32_t *row = f->constants + at;
        for (int lane = 0; lane < 32; lane++)
            if (all[i].wide)
                memcpy(row + 2 * lane, &value, sizeof value);
            else
                row[lane] = (uint32_t)value;
    }
}

void ptx_finish_function(ptx_parser *parser) {
    ptx_function *f = parser->function;
    /* Control that reaches the end of the text returns. */
    emu_op *ret = ptx_push(parser, &parser->ops);
    *ret = (emu_op){.run = ptx_find_handler("ret"), .guard = -1, .flow = EMU_FLOW_RET};
    ret->a = ret->b = ret->c = ret->d = -1;
    ret->kind = EMU_KIND_CONTROL;
    ret->line = parser->token.line;
    emu_uses *uses = ptx_push(parser, &parser->uses);
    uses->first = (uint32_t)parser->use_list.n;
    if (parser->labels.n > 2 * PTX_MAX_BLOCKS || parser->jumps.n > 2 * PTX_MAX_BLOCKS)
        ptx_fail(parser, parser->token.line, "more than %d labels or branches", 2 * PTX_MAX_BLOCKS);
    int errors = parser->n_errors;
    for (size_t i = 0; i < parser->jumps.n; i++)
        resolve(parser, (ptx_jump *)parser->jumps.items + i);
    if (parser->n_errors > errors || errors)
        return;
    place_shared(parser);
    uint32_t n_blocks;
    const ptx_block *blocks = ptx_order_blocks(parser, &n_blocks);
    ptx_find_known(parser, blocks, n_blocks);
    ptx_assign_rows(parser, blocks, n_blocks);
    write_constants(parser);
    f->n_ops = (uint32_t)parser->new_ops.n;
    f->ops = ptx_array_keep(parser, &parser->new_ops);
    f->uses = ptx_array_keep(parser, &parser->new_uses);
    f->use_list = ptx_array_keep(parser, &parser->use_list);
    f->n_predicates = parser->n_predicates;
    f->n_registers = parser->n_registers;
    f->local_bytes = (uint32_t)((parser->local_bytes + 15) & ~15ull);
    ptx_scratch_free(parser);
}
