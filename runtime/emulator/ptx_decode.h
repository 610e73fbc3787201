/* Helpers with which the families of instructions are decoded. Each takes the modifiers it knows
 * off the statement; one that nobody took is an error, as is a combination without a handler. */
#ifndef MCC_RUNTIME_EMULATOR_PTX_DECODE_H
#define MCC_RUNTIME_EMULATOR_PTX_DECODE_H

#include "runtime/emulator/exec_state.h"
#include "runtime/emulator/ptx.h"

typedef struct ptx_decoder {
    ptx_parser *parser;
    ptx_statement *s;
    emu_op op;
    uint32_t reads[PTX_MAX_ELEMENTS + PTX_MAX_OPERANDS], writes[PTX_MAX_ELEMENTS];
    int n_reads, n_writes;
    int32_t list[PTX_MAX_ELEMENTS * 2];
    int n_list;
    uint32_t plain_list; /* bits of those elements that are numbers and no rows */
    bool carry, select;  /* emu_uses */
    bool failed;         /* reported already */
} ptx_decoder;

typedef void (*ptx_decode_fn)(ptx_decoder *d);
typedef struct ptx_root {
    const char *name;
    ptx_decode_fn decode;
} ptx_root;
/* Each ends with a NULL name. */
extern const ptx_root ptx_int_roots[], ptx_float_roots[], ptx_memory_roots[], ptx_control_roots[],
    ptx_move_roots[], ptx_warp_roots[];

/* Reports "<why>: <the opcode>", once for a statement. */
void ptx_refuse(ptx_decoder *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- modifiers --- */
bool ptx_take(ptx_decoder *d, const char *word);
/* The first of the words (space-separated) that is there, as its number from 0; -1 none. */
int ptx_take_of(ptx_decoder *d, const char *words);
/* The next modifier that is a type, or PTX_NONE. */
ptx_type ptx_take_type(ptx_decoder *d);
/* Modifiers that change nothing here: cache hints and the like that begin with `prefix`. */
void ptx_take_prefixed(ptx_decoder *d, const char *prefix);

/* --- operands: numbers of them in the text, from 0 --- */
bool ptx_count(ptx_decoder *d, int least, int most); /* refuses another number */
/* The row of a source of `type`: a register of its width or a constant. */
int32_t ptx_source(ptx_decoder *d, int i, ptx_type type);
int32_t ptx_source_of(ptx_decoder *d, const ptx_operand *operand, ptx_type type);
/* A source register at least as wide as `type` (ld, st, cvt); *bits: of the register. */
int32_t ptx_wide_source(ptx_decoder *d, const ptx_operand *operand, ptx_type type, int *bits);
int32_t ptx_target(ptx_decoder *d, int i, ptx_type type);
int32_t ptx_target_of(ptx_decoder *d, const ptx_operand *operand, ptx_type type);
int32_t ptx_wide_target(ptx_decoder *d, const ptx_operand *operand, ptx_type type, int *bits);
/* Predicates. `bit`: of op.flip, set where the operand is negated. */
int32_t ptx_predicate(ptx_decoder *d, int i, uint32_t bit);
int32_t ptx_predicate_target(ptx_decoder *d, int i);
/* The q of operand p|q, or -1. */
int32_t ptx_second_target(ptx_decoder *d, int i);
/* A constant, of 32 bits. */
uint32_t ptx_immediate(ptx_decoder *d, int i);
/* [register + offset] or [variable + offset]: op.a, op.imm, op.wide_address. */
void ptx_address(ptx_decoder *d, int i);
void ptx_list_add(ptx_decoder *d, int32_t row);
/* A register that nobody reads, for results that are not wanted. */
int32_t ptx_scratch(ptx_decoder *d, int bits);
const char *ptx_type_text(ptx_type type);

/* The handler of that name, formatted; refuses where there is none. */
void ptx_handler(ptx_decoder *d, emu_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The op branches to that label, or by that table of them. */
void ptx_jump_to(ptx_decoder *d, const ptx_operand *label, bool table);

#endif
