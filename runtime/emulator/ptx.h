/* What the parser and the decoder share. */
#ifndef MCC_RUNTIME_EMULATOR_PTX_H
#define MCC_RUNTIME_EMULATOR_PTX_H

#include "runtime/emulator/op.h"
#include "runtime/emulator/ptx_lex.h"

#include <setjmp.h>

/* Bounds on what is accepted; real modules stay far below. */
enum {
    PTX_MAX_BYTES = 256 << 20,
    PTX_MAX_SCOPES = 64,
    PTX_MAX_OPERANDS = 16,
    PTX_MAX_ELEMENTS = 64, /* of all vectors of one instruction */
    PTX_MAX_MODIFIERS = 24,
    PTX_MAX_REGISTERS = 1 << 20,
    PTX_MAX_ROWS = 1 << 16,
    PTX_MAX_OPS = 1 << 20,
    PTX_MAX_BLOCKS = 8192, /* bounds the recursion over the flow graph */
    PTX_MAX_VARIABLES = 4096,
    PTX_MAX_PARAMS = 1024,
    PTX_MAX_PARAM_BYTES = 32764,
    PTX_MAX_VARIABLE_BYTES = 256 << 20,
    PTX_MAX_LOCAL = 512 << 10,
    PTX_MAX_SHARED = 1 << 20,
    PTX_MAX_REPORTED = 12
};

/* Marks operands of an op that are numbers of registers, until ptx_finish_function gives them rows.
 */
#define PTX_VIRTUAL 0x40000000u

typedef enum ptx_type {
    PTX_NONE,
    PTX_PRED,
    PTX_B8,
    PTX_B16,
    PTX_B32,
    PTX_B64,
    PTX_B128,
    PTX_U8,
    PTX_U16,
    PTX_U32,
    PTX_U64,
    PTX_S8,
    PTX_S16,
    PTX_S32,
    PTX_S64,
    PTX_F16,
    PTX_F16X2,
    PTX_BF16,
    PTX_BF16X2,
    PTX_TF32,
    PTX_F32,
    PTX_F64,
    PTX_E4M3,
    PTX_E5M2,
    PTX_E4M3X2,
    PTX_E5M2X2,
    PTX_S4,
    PTX_U4
} ptx_type;

/* Bits of a register of the type: 1, 8, 16, 32, 64, 128. */
int ptx_type_bits(ptx_type type);
bool ptx_type_signed(ptx_type type);
bool ptx_type_float(ptx_type type);
/* By its name without the dot, or PTX_NONE. */
ptx_type ptx_type_named(const ptx_token *token);

typedef enum ptx_operand_kind {
    PTX_OPERAND_REGISTER,
    PTX_OPERAND_SINK, /* _ */
    PTX_OPERAND_CONSTANT,
    PTX_OPERAND_ADDRESS, /* of a variable, perhaps plus an offset: reg, symbol and offset */
    PTX_OPERAND_MEMORY,  /* the same in brackets */
    PTX_OPERAND_SPECIAL, /* %tid.x */
    PTX_OPERAND_LABEL,
    PTX_OPERAND_VECTOR /* of REGISTER, SINK or CONSTANT */
} ptx_operand_kind;

struct ptx_symbol;

typedef struct ptx_operand {
    ptx_operand_kind kind;
    bool negated;   /* ! in front */
    ptx_type type;  /* of a register */
    uint32_t reg;   /* virtual register or predicate */
    int64_t second; /* of a pair p|q: q's virtual register, or predicate; -1 none */
    bool second_sink;
    ptx_token token;  /* CONSTANT, SPECIAL, LABEL: the word */
    ptx_token member; /* SPECIAL: x */
    uint64_t value;   /* CONSTANT */
    bool is_float, single;
    const struct ptx_symbol *symbol; /* ADDRESS, MEMORY: the variable; NULL: a register or none */
    bool has_register;
    int64_t offset;
    uint32_t first, count; /* VECTOR: in the statement's elements */
} ptx_operand;

/* One instruction as it stands in the text. */
typedef struct ptx_statement {
    ptx_token root;
    ptx_token modifiers[PTX_MAX_MODIFIERS];
    bool taken[PTX_MAX_MODIFIERS];
    int n_modifiers;
    ptx_operand operands[PTX_MAX_OPERANDS];
    int n_operands;
    ptx_operand elements[PTX_MAX_ELEMENTS];
    uint32_t n_elements;
    int64_t guard; /* predicate or -1 */
    bool guard_negated;
    uint32_t line;
} ptx_statement;

typedef struct ptx_symbol {
    const char *name;
    uint32_t length;
    enum { PTX_SYMBOL_REGISTER, PTX_SYMBOL_VARIABLE } kind;
    ptx_type type;
    bool range; /* %r<count> */
    uint32_t count;
    int32_t *ids; /* of the range's members, -1 not used so far; of a single register one */
    emu_space space;
    uint64_t offset; /* in its space: shared, local, param */
    uint64_t bytes;
    uint32_t align;
    uint32_t variable; /* global and const: index */
    bool dynamic;      /* extern .shared */
    bool used;         /* module-level shared variables get an offset where they are used */
    uint32_t next;     /* of the same hash, + 1 */
} ptx_symbol;

typedef struct ptx_label {
    const char *name;
    uint32_t length;
    uint32_t scope; /* labels are local to their scope */
    uint32_t op, line;
} ptx_label;

/* A branch before labels are known: in op.imm of op `op`, or in a list of brx.idx. */
typedef struct ptx_jump {
    uint32_t op;
    uint32_t scope, line;
    ptx_token label;
    bool table; /* the name of a .branchtargets list */
} ptx_jump;

typedef struct ptx_constant {
    uint64_t value;
    bool wide;
    int32_t row;              /* ~ its offset in words */
    const ptx_symbol *symbol; /* whose address is added, or NULL */
    uint32_t next;            /* of the same hash, + 1 */
} ptx_constant;

typedef struct ptx_targets { /* name: .branchtargets a, b; */
    ptx_token name;
    uint32_t scope;
    ptx_token *labels;
    uint32_t n;
} ptx_targets;

/* A growing array of `size`-byte items. All of a parser's arrays are freed at its end. */
typedef struct ptx_array {
    void *items;
    size_t n, room, size;
    struct ptx_array *next;
} ptx_array;

typedef struct ptx_parser {
    ptx_lexer lexer;
    ptx_token token; /* the one looked at */
    ptx_module *module;
    jmp_buf *fail;
    char *error;
    size_t error_bytes;
    int n_errors;
    ptx_array *arrays;
    ptx_array symbols; /* ptx_symbol *: pointers stay valid */
    uint32_t buckets[1024];
    ptx_array sources, files, variables, variable_fixups;

    /* the function at hand */
    ptx_function *function;
    ptx_array ops, uses, use_list;           /* emu_op, emu_uses, uint32_t */
    ptx_array labels, jumps, targets;        /* ptx_label, ptx_jump, ptx_targets */
    ptx_array target_labels;                 /* ptx_token */
    ptx_array constants;                     /* ptx_constant */
    ptx_array new_ops, new_uses, successors; /* emu_op, emu_uses, uint32_t: ptx_order.c */
    struct ptx_chunk *scratch;
    ptx_array register_types; /* uint8_t ptx_type of each virtual register */
    ptx_array params;         /* uint32_t offset, size */
    uint32_t constant_buckets[1024];
    uint32_t n_predicates, n_registers, declared_registers, constant_words;
    uint64_t local_bytes, shared_bytes;
    ptx_array scope_parents; /* uint32_t, by serial number of a scope */
    uint32_t depth, scopes[PTX_MAX_SCOPES], scope_symbols[PTX_MAX_SCOPES];
    uint32_t source;
    ptx_statement statement;
} ptx_parser;

/* --- ptx_memory.c --- */
void *ptx_alloc(ptx_parser *parser, size_t bytes);          /* zeroed, freed with the module */
void *ptx_scratch_memory(ptx_parser *parser, size_t bytes); /* zeroed, until ptx_scratch_free */
void ptx_scratch_free(ptx_parser *parser);
void *ptx_push(ptx_parser *parser, ptx_array *array); /* a zeroed item at the end */
void ptx_array_begin(ptx_parser *parser, ptx_array *array, size_t size); /* empty */
/* A copy that lives as long as the module. */
void *ptx_array_keep(ptx_parser *parser, const ptx_array *array);

/* --- errors: ptx_parse.c --- */
/* Gives up. */
_Noreturn void ptx_fail(ptx_parser *parser, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Adds to the list and goes on; gives up when the list is long. */
void ptx_report(ptx_parser *parser, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- symbols: ptx_symbols.c --- */
ptx_symbol *ptx_declare(ptx_parser *parser, const char *name, uint32_t length);
/* The innermost symbol of that name; of a register `id` is its virtual register. */
ptx_symbol *ptx_look_up(ptx_parser *parser, const ptx_token *name, uint32_t *id);
void ptx_scope_open(ptx_parser *parser, uint32_t line);
void ptx_scope_close(ptx_parser *parser);
/* The row of constants that holds `value`, of words or of double words. */
int32_t ptx_constant_row(ptx_parser *parser, uint64_t value, bool wide);
/* The same of a variable's address. */
int32_t ptx_address_row(ptx_parser *parser, const ptx_symbol *symbol, uint64_t addend, bool wide);

/* --- statements: ptx_parse.c, ptx_operand.c, ptx_variable.c --- */
ptx_token ptx_next(ptx_parser *parser); /* returns the one looked at, moves on */
bool ptx_accept(ptx_parser *parser, char punct);
void ptx_expect(ptx_parser *parser, char punct, const char *where);
bool ptx_accept_dot(ptx_parser *parser, const char *word);
uint64_t ptx_expect_int(ptx_parser *parser, const char *what);
int64_t ptx_signed_int(ptx_parser *parser, const char *what);
void ptx_parse_instruction(ptx_parser *parser);
/* A variable of `space` up to its semicolon; `external` is .extern. */
void ptx_parse_variable(ptx_parser *parser, emu_space space, bool external);
/* .param … name[n]: of an entry's parameter list. */
void ptx_parse_parameter(ptx_parser *parser);

/* --- decoding: ptx_decode*.c --- */
bool ptx_known_root(const ptx_token *root);
void ptx_report_unknown(ptx_parser *parser);
/* Appends the decoded op of parser->statement, or reports why there is none. */
void ptx_decode(ptx_parser *parser);

/* The handler of that name, or NULL. */
emu_run_fn ptx_find_handler(const char *name);

/* --- the end of a function ---
 * ptx_finish.c: finds labels, and does what follows. */
void ptx_finish_function(ptx_parser *parser);

/* Basic blocks, in the order in which they lie: ops from `first` on. */
typedef struct ptx_block {
    uint32_t first, n;
    const uint32_t *successors; /* numbers of blocks */
    uint32_t n_successors;
} ptx_block;

/* ptx_order.c: puts parser->ops and uses in an order for reconvergence at the least pc: a block
 * comes after all its predecessors but for back edges, loops are contiguous. Branch targets
 * (op.imm, lists of brx) become op numbers in that order. The blocks, in a new array; their number.
 */
ptx_block *ptx_order_blocks(ptx_parser *parser, uint32_t *n_blocks);

/* ptx_known.c: sets `look` of the ops. */
void ptx_find_known(ptx_parser *parser, const ptx_block *blocks, uint32_t n_blocks);

/* ptx_rows.c: gives virtual registers rows of the register file; two that are never live together
 * may share one. Sets the function's n_words and live_registers. */
void ptx_assign_rows(ptx_parser *parser, const ptx_block *blocks, uint32_t n_blocks);

#endif
