/* PTX text to a module: directives, functions, statements. */
#include "runtime/emulator/ptx.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_error(ptx_parser *parser, uint32_t line, const char *format, va_list arguments) {
    size_t used = strnlen(parser->error, parser->error_bytes);
    if (used + 2 >= parser->error_bytes)
        return;
    char *at = parser->error + used;
    size_t left = parser->error_bytes - used;
    int n = snprintf(at, left, "%sline %u: ", parser->n_errors ? "; " : "", line);
    if (n > 0 && (size_t)n < left)
        n += vsnprintf(at + n, left - (size_t)n, format, arguments);
    if (parser->function && n > 0 && (size_t)n < left)
        snprintf(at + n, left - (size_t)n, " in kernel %s", parser->function->name);
    parser->n_errors++;
}

void ptx_fail(ptx_parser *parser, uint32_t line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_error(parser, line, format, arguments);
    va_end(arguments);
    longjmp(*parser->fail, 1);
}

void ptx_report(ptx_parser *parser, uint32_t line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_error(parser, line, format, arguments);
    va_end(arguments);
    if (parser->n_errors >= PTX_MAX_REPORTED)
        ptx_fail(parser, line, "and no further look was taken");
}

/* --- tokens -------------------------------------------------------------------------------------
 */

ptx_token ptx_next(ptx_parser *parser) {
    ptx_token token = parser->token;
    parser->token = ptx_lex_next(&parser->lexer);
    if (parser->token.kind == PTX_BAD)
        ptx_fail(parser, parser->token.line, "%s at \"%.*s\"", parser->lexer.bad,
                 (int)(parser->token.length < 40 ? parser->token.length : 40), parser->token.text);
    return token;
}

bool ptx_accept(ptx_parser *parser, char punct) {
    if (parser->token.kind != PTX_PUNCT || parser->token.punct != punct)
        return false;
    ptx_next(parser);
    return true;
}

static _Noreturn void unexpected(ptx_parser *parser, const char *expected, const char *where) {
    const ptx_token *t = &parser->token;
    if (t->kind == PTX_END)
        ptx_fail(parser, t->line, "the text ends where %s is expected%s", expected, where);
    ptx_fail(parser, t->line, "found \"%s%.*s\", expected %s%s", t->kind == PTX_DOT ? "." : "",
             (int)(t->length < 60 ? t->length : 60), t->text, expected, where);
}

void ptx_expect(ptx_parser *parser, char punct, const char *where) {
    if (ptx_accept(parser, punct))
        return;
    char expected[4] = {'"', punct, '"', 0};
    unexpected(parser, expected, where);
}

bool ptx_accept_dot(ptx_parser *parser, const char *word) {
    if (parser->token.kind != PTX_DOT || !ptx_token_is(&parser->token, word))
        return false;
    ptx_next(parser);
    return true;
}

uint64_t ptx_expect_int(ptx_parser *parser, const char *what) {
    if (parser->token.kind != PTX_INT)
        unexpected(parser, what, "");
    return ptx_next(parser).value;
}

int64_t ptx_signed_int(ptx_parser *parser, const char *what) {
    bool negative = false;
    while (parser->token.kind == PTX_PUNCT &&
           (parser->token.punct == '-' || parser->token.punct == '+'))
        negative ^= ptx_next(parser).punct == '-';
    uint64_t value = ptx_expect_int(parser, what);
    return (int64_t)(negative ? 0 - value : value);
}

/* To behind the next semicolon outside of braces. */
static void skip_statement(ptx_parser *parser) {
    while (!ptx_accept(parser, ';')) {
        if (parser->token.kind == PTX_END)
            unexpected(parser, "\";\"", "");
        ptx_next(parser);
    }
}

/* To behind the brace that closes the next block. */
static void skip_block(ptx_parser *parser) {
    uint32_t depth = 0, line = parser->token.line;
    do {
        if (parser->token.kind == PTX_END)
            ptx_fail(parser, line, "a block that is not closed");
        if (parser->token.kind == PTX_PUNCT)
            depth += parser->token.punct == '{', depth -= parser->token.punct == '}';
        ptx_next(parser);
    } while (depth);
}

/* --- directives ---------------------------------------------------------------------------------
 */

static const char *keep_text(ptx_parser *parser, const char *text, uint32_t length) {
    char *copy = ptx_alloc(parser, length + 1u);
    memcpy(copy, text, length);
    return copy;
}

/* .file 1 "a.cu", with an optional time and size behind. */
static void parse_file(ptx_parser *parser) {
    uint64_t number = ptx_expect_int(parser, "a file's number");
    if (parser->token.kind != PTX_STRING)
        unexpected(parser, "a file's name", " behind .file");
    ptx_token name = ptx_next(parser);
    while (ptx_accept(parser, ','))
        ptx_expect_int(parser, "a number");
    if (number > 65535)
        return;
    while (parser->files.n <= number)
        ptx_push(parser, &parser->files);
    ((const char **)parser->files.items)[number] = keep_text(parser, name.text, name.length);
}

/* .loc file line column[, function_name label[+n], inlined_at file line column] */
static void parse_loc(ptx_parser *parser) {
    emu_source source = {(uint32_t)ptx_expect_int(parser, "a file's number"), 0};
    source.line = (uint32_t)ptx_expect_int(parser, "a line");
    ptx_expect_int(parser, "a column");
    while (ptx_accept(parser, ',')) {
        ptx_token word = ptx_next(parser);
        if (ptx_token_is(&word, "function_name")) {
            ptx_next(parser);
            if (ptx_accept(parser, '+'))
                ptx_expect_int(parser, "an offset");
        } else if (ptx_token_is(&word, "inlined_at")) {
            ptx_expect_int(parser, "a file's number");
            ptx_expect_int(parser, "a line");
            ptx_expect_int(parser, "a column");
        } else {
            ptx_fail(parser, word.line, "found \"%.*s\" in .loc", (int)word.length, word.text);
        }
    }
    if (!source.line)
        return; /* line 0: no place of its own; the last one serves */
    emu_source *last = (emu_source *)parser->sources.items + parser->sources.n - 1;
    if (parser->sources.n < 2 || last->file != source.file || last->line != source.line)
        *(emu_source *)ptx_push(parser, &parser->sources) = source;
    parser->source = (uint32_t)parser->sources.n - 1;
}

/* .reg .type a, %b<9>; */
static void parse_registers(ptx_parser *parser) {
    if (parser->token.kind != PTX_DOT)
        unexpected(parser, "a type", " behind .reg");
    ptx_token word = ptx_next(parser);
    ptx_type type = ptx_type_named(&word);
    int bits = ptx_type_bits(type);
    if (type == PTX_NONE || bits < 1 || bits > 64)
        ptx_fail(parser, word.line, "registers of type .%.*s are not known", (int)word.length,
                 word.text);
    do {
        if (parser->token.kind != PTX_NAME)
            unexpected(parser, "a register's name", "");
        ptx_token name = ptx_next(parser);
        uint64_t count = 1;
        bool range = ptx_accept(parser, '<');
        if (range) {
            count = ptx_expect_int(parser, "a number of registers");
            ptx_expect(parser, '>', " behind the number of registers");
        }
        if (count > PTX_MAX_REGISTERS - parser->declared_registers)
            ptx_fail(parser, name.line, "more than %d registers", PTX_MAX_REGISTERS);
        parser->declared_registers += (uint32_t)count;
        ptx_symbol *symbol = ptx_declare(parser, name.text, name.length);
        symbol->kind = PTX_SYMBOL_REGISTER;
        symbol->type = type;
        symbol->range = range;
        symbol->count = (uint32_t)count;
        symbol->ids = ptx_alloc(parser, (size_t)count * sizeof *symbol->ids);
        memset(symbol->ids, 0xff, (size_t)count * sizeof *symbol->ids);
    } while (ptx_accept(parser, ','));
    ptx_expect(parser, ';', " behind registers");
}

/* name: .branchtargets a, b; — the name and the colon are read. */
static void parse_targets(ptx_parser *parser, ptx_token name) {
    ptx_array_begin(parser, &parser->target_labels, sizeof(ptx_token));
    do {
        if (parser->token.kind != PTX_NAME)
            unexpected(parser, "a label", " in .branchtargets");
        *(ptx_token *)ptx_push(parser, &parser->target_labels) = ptx_next(parser);
    } while (ptx_accept(parser, ','));
    ptx_expect(parser, ';', " behind .branchtargets");
    ptx_targets *targets = ptx_push(parser, &parser->targets);
    *targets = (ptx_targets){name, parser->scopes[parser->depth - 1],
                             ptx_array_keep(parser, &parser->target_labels),
                             (uint32_t)parser->target_labels.n};
}

static void parse_label(ptx_parser *parser, ptx_token name) {
    if (ptx_accept_dot(parser, "branchtargets")) {
        parse_targets(parser, name);
        return;
    }
    if (ptx_accept_dot(parser, "callprototype") || ptx_accept_dot(parser, "calltargets")) {
        skip_statement(parser);
        return;
    }
    uint32_t scope = parser->scopes[parser->depth - 1];
    ptx_label *label = ptx_push(parser, &parser->labels);
    *label = (ptx_label){name.text, name.length, scope, (uint32_t)parser->ops.n, name.line};
}

static void parse_body_directive(ptx_parser *parser) {
    if (ptx_accept_dot(parser, "reg"))
        parse_registers(parser);
    else if (ptx_accept_dot(parser, "loc"))
        parse_loc(parser);
    else if (ptx_accept_dot(parser, "local"))
        ptx_parse_variable(parser, EMU_SPACE_LOCAL, false);
    else if (ptx_accept_dot(parser, "shared"))
        ptx_parse_variable(parser, EMU_SPACE_SHARED, false);
    else if (ptx_accept_dot(parser, "global"))
        ptx_parse_variable(parser, EMU_SPACE_GLOBAL, false);
    else if (ptx_accept_dot(parser, "const"))
        ptx_parse_variable(parser, EMU_SPACE_CONST, false);
    else if (ptx_accept_dot(parser, "param")) /* of calls, which are refused where they are made */
        ptx_parse_variable(parser, EMU_SPACE_PARAM, true);
    else if (ptx_accept_dot(parser, "pragma"))
        skip_statement(parser);
    else if (ptx_accept_dot(parser, "file"))
        parse_file(parser);
    else
        ptx_fail(parser, parser->token.line, "unknown directive .%.*s", (int)parser->token.length,
                 parser->token.text);
}

static void parse_body(ptx_parser *parser) {
    ptx_expect(parser, '{', " before a kernel's body");
    uint32_t depth = 1;
    while (depth) {
        const ptx_token *t = &parser->token;
        if (t->kind == PTX_PUNCT && t->punct == '{') {
            ptx_scope_open(parser, t->line);
            ptx_next(parser);
            depth++;
        } else if (t->kind == PTX_PUNCT && t->punct == '}') {
            if (--depth)
                ptx_scope_close(parser);
            ptx_next(parser);
        } else if (t->kind == PTX_DOT) {
            parse_body_directive(parser);
        } else if (t->kind == PTX_NAME) {
            ptx_token name = ptx_next(parser);
            if (ptx_accept(parser, ':')) {
                parse_label(parser, name);
            } else {
                parser->statement.root = name;
                parser->statement.guard = -1;
                ptx_parse_instruction(parser);
            }
        } else if (t->kind == PTX_PUNCT && t->punct == '@') {
            parser->statement.root.kind = PTX_END;
            ptx_parse_instruction(parser);
        } else if (t->kind == PTX_PUNCT && t->punct == ';') {
            ptx_next(parser);
        } else {
            unexpected(parser, "an instruction", "");
        }
    }
}

static void parse_thread_counts(ptx_parser *parser, uint32_t counts[3]) {
    counts[0] = counts[1] = counts[2] = 1;
    int n = 0;
    do {
        uint64_t value = ptx_expect_int(parser, "a number of threads");
        if (n == 3 || value < 1 || value > 1024)
            ptx_fail(parser, parser->token.line, "a block's size beyond 1024 threads");
        counts[n++] = (uint32_t)value;
    } while (ptx_accept(parser, ','));
    if ((uint64_t)counts[0] * counts[1] * counts[2] > 1024)
        ptx_fail(parser, parser->token.line, "a block's size beyond 1024 threads");
}

static void parse_tuning(ptx_parser *parser) {
    ptx_function *function = parser->function;
    while (parser->token.kind == PTX_DOT) {
        uint32_t counts[3];
        if (ptx_accept_dot(parser, "maxntid")) {
            parse_thread_counts(parser, counts);
            function->max_threads = counts[0] * counts[1] * counts[2];
        } else if (ptx_accept_dot(parser, "reqntid")) {
            parse_thread_counts(parser, function->required);
            function->max_threads =
                function->required[0] * function->required[1] * function->required[2];
        } else if (ptx_accept_dot(parser, "minnctapersm") ||
                   ptx_accept_dot(parser, "maxnctapersm") || ptx_accept_dot(parser, "maxnreg")) {
            ptx_expect_int(parser, "a number");
        } else if (ptx_accept_dot(parser, "pragma")) {
            skip_statement(parser);
        } else {
            ptx_fail(parser, parser->token.line, "unknown directive .%.*s of kernel %s",
                     (int)parser->token.length, parser->token.text, function->name);
        }
    }
}

static void begin_function(ptx_parser *parser, ptx_token name) {
    ptx_function *function = ptx_alloc(parser, sizeof *function);
    function->name = keep_text(parser, name.text, name.length);
    function->module = parser->module;
    function->max_threads = 1024;
    for (const ptx_function *f = parser->module->functions; f; f = f->next)
        if (strcmp(f->name, function->name) == 0)
            ptx_fail(parser, name.line, "a second kernel %s", function->name);
    parser->function = function;
    ptx_array_begin(parser, &parser->ops, sizeof(emu_op));
    ptx_array_begin(parser, &parser->uses, sizeof(emu_uses));
    ptx_array_begin(parser, &parser->use_list, sizeof(uint32_t));
    ptx_push(parser, &parser->use_list); /* never empty: places in it may be computed at once */
    ptx_array_begin(parser, &parser->labels, sizeof(ptx_label));
    ptx_array_begin(parser, &parser->jumps, sizeof(ptx_jump));
    ptx_array_begin(parser, &parser->targets, sizeof(ptx_targets));
    ptx_array_begin(parser, &parser->constants, sizeof(ptx_constant));
    ptx_array_begin(parser, &parser->register_types, sizeof(uint8_t));
    ptx_array_begin(parser, &parser->params, 2 * sizeof(uint32_t));
    ptx_array_begin(parser, &parser->scope_parents, sizeof(uint32_t));
    memset(parser->constant_buckets, 0, sizeof parser->constant_buckets);
    parser->n_predicates = parser->n_registers = parser->declared_registers = 0;
    /* A row of zeros that no constant gets comes first, so that -1, an operand that is not there,
     * reads as 0. */
    parser->constant_words = 32;
    parser->local_bytes = parser->shared_bytes = 0;
    parser->source = 0;
    for (size_t i = 0; i < parser->symbols.n; i++)
        ((ptx_symbol **)parser->symbols.items)[i]->used = false;
}

static void parse_entry(ptx_parser *parser) {
    if (parser->token.kind != PTX_NAME)
        unexpected(parser, "a kernel's name", "");
    ptx_token name = ptx_next(parser);
    begin_function(parser, name);
    ptx_function *function = parser->function;
    ptx_scope_open(parser, name.line);
    if (ptx_accept(parser, '(') && !ptx_accept(parser, ')')) {
        do {
            ptx_parse_parameter(parser);
        } while (ptx_accept(parser, ','));
        ptx_expect(parser, ')', " behind parameters");
    }
    parse_tuning(parser);
    if (ptx_accept(parser, ';')) { /* a declaration */
        ptx_scope_close(parser);
        parser->function = NULL;
        return;
    }
    parse_body(parser);
    function->n_params = (uint32_t)parser->params.n;
    function->param_offsets = ptx_alloc(parser, (parser->params.n + 1) * sizeof(uint32_t));
    function->param_sizes = ptx_alloc(parser, (parser->params.n + 1) * sizeof(uint32_t));
    for (uint32_t i = 0; i < function->n_params; i++) {
        const uint32_t *param = (const uint32_t *)parser->params.items + 2 * (size_t)i;
        function->param_offsets[i] = param[0];
        function->param_sizes[i] = param[1];
    }
    ptx_finish_function(parser);
    ptx_scope_close(parser);
    function->next = parser->module->functions;
    parser->module->functions = function;
    parser->function = NULL;
}

/* A .func: not run, since calls are refused where they are made. */
static void skip_function(ptx_parser *parser) {
    while (!ptx_accept(parser, ';')) {
        if (parser->token.kind == PTX_PUNCT && parser->token.punct == '{') {
            skip_block(parser);
            return;
        }
        if (parser->token.kind == PTX_END)
            unexpected(parser, "a function's body", "");
        ptx_next(parser);
    }
}

static void parse_target(ptx_parser *parser) {
    bool found = false;
    do {
        if (parser->token.kind != PTX_NAME)
            unexpected(parser, "an architecture", " behind .target");
        ptx_token name = ptx_next(parser);
        if (name.length > 3 && memcmp(name.text, "sm_", 3) == 0) {
            int value = 0;
            for (uint32_t i = 3; i < name.length && i < 7; i++)
                if (name.text[i] >= '0' && name.text[i] <= '9')
                    value = 10 * value + name.text[i] - '0';
            parser->module->target = value;
            found = value > 0;
        }
    } while (ptx_accept(parser, ','));
    if (!found)
        ptx_fail(parser, parser->token.line, ".target names no architecture sm_…");
}

static void parse_module(ptx_parser *parser) {
    bool external = false;
    while (parser->token.kind != PTX_END) {
        uint32_t line = parser->token.line;
        if (ptx_accept_dot(parser, "version")) {
            ptx_next(parser); /* 9.0, a number */
        } else if (ptx_accept_dot(parser, "target")) {
            parse_target(parser);
        } else if (ptx_accept_dot(parser, "address_size")) {
            if (ptx_expect_int(parser, "an address size") != 64)
                ptx_fail(parser, line, "addresses that have not 64 bits");
        } else if (ptx_accept_dot(parser, "visible") || ptx_accept_dot(parser, "weak") ||
                   ptx_accept_dot(parser, "common")) {
            continue;
        } else if (ptx_accept_dot(parser, "extern")) {
            external = true;
            continue;
        } else if (ptx_accept_dot(parser, "entry")) {
            parse_entry(parser);
        } else if (ptx_accept_dot(parser, "func")) {
            skip_function(parser);
        } else if (ptx_accept_dot(parser, "global")) {
            ptx_parse_variable(parser, EMU_SPACE_GLOBAL, external);
        } else if (ptx_accept_dot(parser, "const")) {
            ptx_parse_variable(parser, EMU_SPACE_CONST, external);
        } else if (ptx_accept_dot(parser, "shared")) {
            ptx_parse_variable(parser, EMU_SPACE_SHARED, external);
        } else if (ptx_accept_dot(parser, "file")) {
            parse_file(parser);
        } else if (ptx_accept_dot(parser, "section")) {
            while (parser->token.kind == PTX_DOT || parser->token.kind == PTX_NAME)
                ptx_next(parser);
            skip_block(parser);
        } else if (ptx_accept_dot(parser, "pragma")) {
            skip_statement(parser);
        } else if (ptx_accept(parser, ';')) {
            continue;
        } else {
            unexpected(parser, "a directive", "");
        }
        external = false;
    }
    if (!parser->module->target)
        ptx_fail(parser, parser->token.line, "the module names no .target");
}

static void finish_module(ptx_parser *parser) {
    ptx_module *module = parser->module;
    module->variables = ptx_array_keep(parser, &parser->variables);
    module->n_variables = (uint32_t)parser->variables.n;
    module->fixups = ptx_array_keep(parser, &parser->variable_fixups);
    module->n_fixups = (uint32_t)parser->variable_fixups.n;
    module->sources = ptx_array_keep(parser, &parser->sources);
    module->n_sources = (uint32_t)parser->sources.n;
    module->files = ptx_array_keep(parser, &parser->files);
    module->n_files = (uint32_t)parser->files.n;
}

/* Everything that may give up: back here through ptx_fail. */
static void parse_text(ptx_parser *parser, const char *text, size_t bytes) {
    jmp_buf fail;
    parser->fail = &fail;
    if (setjmp(fail))
        return;
    ptx_array_begin(parser, &parser->symbols, sizeof(ptx_symbol *));
    ptx_array_begin(parser, &parser->sources, sizeof(emu_source));
    ptx_array_begin(parser, &parser->files, sizeof(const char *));
    ptx_array_begin(parser, &parser->variables, sizeof(emu_variable));
    ptx_array_begin(parser, &parser->variable_fixups, sizeof(emu_fixup));
    ptx_push(parser, &parser->sources);
    ptx_lex_begin(&parser->lexer, text, bytes);
    ptx_next(parser);
    parse_module(parser);
    finish_module(parser);
}

ptx_module *ptx_module_create(const char *text, size_t bytes, char *error, size_t error_bytes) {
    char nowhere[2];
    if (!error_bytes) {
        error = nowhere;
        error_bytes = sizeof nowhere;
    }
    error[0] = 0;
    if (bytes > PTX_MAX_BYTES) {
        snprintf(error, error_bytes, "a module of more than %d bytes", PTX_MAX_BYTES);
        return NULL;
    }
    ptx_module *module = calloc(1, sizeof *module);
    ptx_parser *parser = calloc(1, sizeof *parser);
    bool good = module && parser;
    if (good) {
        *parser = (ptx_parser){.module = module, .error = error, .error_bytes = error_bytes};
        parse_text(parser, text, bytes);
        good = parser->n_errors == 0;
        for (ptx_array *a = parser->arrays; a; a = a->next)
            free(a->items);
        ptx_scratch_free(parser);
    } else {
        snprintf(error, error_bytes, "out of memory");
    }
    free(parser);
    if (good)
        return module;
    ptx_module_destroy(module);
    return NULL;
}

const ptx_function *ptx_module_function(const ptx_module *module, const char *name) {
    const ptx_function *f = module->functions;
    while (f && strcmp(f->name, name) != 0)
        f = f->next;
    return f;
}

int ptx_module_target(const ptx_module *module) {
    return module->target;
}

void ptx_function_get_info(const ptx_function *function, ptx_function_info *info) {
    *info = (ptx_function_info){.name = function->name,
                                .n_params = (int)function->n_params,
                                .param_bytes = function->param_bytes,
                                .param_offsets = function->param_offsets,
                                .param_sizes = function->param_sizes,
                                .static_shared_bytes = function->static_shared,
                                .local_bytes = function->local_bytes,
                                .max_threads = function->max_threads,
                                .registers = function->live_registers};
}
