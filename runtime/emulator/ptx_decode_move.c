/* mov, cvta, isspacep. */
#include "runtime/emulator/ptx_decode.h"
#include "runtime/emulator/special.h"

#include <string.h>

static const struct {
    const char *name;
    emu_special special;
    bool member; /* has .x, .y, .z */
    int bits;
} specials[] = {
    {"%tid", EMU_TID, true, 32},
    {"%ntid", EMU_NTID, true, 32},
    {"%ctaid", EMU_CTAID, true, 32},
    {"%nctaid", EMU_NCTAID, true, 32},
    {"%laneid", EMU_LANEID, false, 32},
    {"%warpid", EMU_WARPID, false, 32},
    {"%nwarpid", EMU_NWARPID, false, 32},
    {"%smid", EMU_SMID, false, 32},
    {"%nsmid", EMU_NSMID, false, 32},
    {"%gridid", EMU_GRIDID, false, 64},
    {"%lanemask_eq", EMU_LANEMASK_EQ, false, 32},
    {"%lanemask_lt", EMU_LANEMASK_LT, false, 32},
    {"%lanemask_le", EMU_LANEMASK_LE, false, 32},
    {"%lanemask_gt", EMU_LANEMASK_GT, false, 32},
    {"%lanemask_ge", EMU_LANEMASK_GE, false, 32},
    {"%clock", EMU_CLOCK, false, 32},
    {"%clock_hi", EMU_CLOCK_HI, false, 32},
    {"%clock64", EMU_CLOCK, false, 64},
    {"%globaltimer", EMU_CLOCK, false, 64},
    {"%globaltimer_lo", EMU_CLOCK, false, 32},
    {"%dynamic_smem_size", EMU_DYNAMIC_SHARED, false, 32},
    {"%total_smem_size", EMU_TOTAL_SHARED, false, 32},
    {"%clusterid", EMU_CTAID, true, 32}, /* without clusters each block is one */
    {"%nclusterid", EMU_NCTAID, true, 32},
    {"%cluster_ctaid", EMU_ZERO, true, 32},
    {"%cluster_nctaid", EMU_ONE, true, 32},
    {"%cluster_ctarank", EMU_ZERO, false, 32},
    {"%cluster_nctarank", EMU_ONE, false, 32},
};

static void decode_special(ptx_decoder *d, ptx_type type) {
    const ptx_operand *operand = &d->s->operands[1];
    size_t n = sizeof specials / sizeof *specials, i = 0;
    while (i < n && !ptx_token_is(&operand->token, specials[i].name))
        i++;
    const char *where = NULL;
    if (i < n && specials[i].member)
        where = operand->member.length == 1 ? strchr("xyz", operand->member.text[0]) : NULL;
    if (i == n || (specials[i].member && !where) ||
        (!specials[i].member && operand->member.length)) {
        ptx_refuse(d, "\"%.*s\" is neither declared nor a special register",
                   (int)operand->token.length, operand->token.text);
        return;
    }
    if (ptx_type_bits(type) > specials[i].bits && specials[i].special != EMU_CLOCK)
        ptx_refuse(d, "%s has %d bits", specials[i].name, specials[i].bits);
    d->op.n = (uint8_t)(where ? operand->member.text[0] - 'x' : 0);
    d->op.sub = (uint8_t)specials[i].special;
    d->op.d = ptx_target(d, 0, type);
    ptx_handler(d, EMU_KIND_MOVE, "special");
}

/* The type of a vector's elements: bits / n. */
static ptx_type element_type(int bits, uint32_t n) {
    int each = n ? bits / (int)n : 0;
    return each == 32 ? PTX_B32 : each == 16 ? PTX_B16 : PTX_NONE;
}

/* mov.b32 {a, b}, c and mov.b32 c, {a, b}. */
static void decode_vector(ptx_decoder *d, ptx_type type, bool unpack) {
    const ptx_operand *vector = &d->s->operands[unpack ? 0 : 1];
    int bits = ptx_type_bits(type);
    ptx_type element = element_type(bits, vector->count);
    /* 8-bit pieces are in 16-bit registers. */
    int piece = vector->count ? bits / (int)vector->count : 0;
    if (piece == 8)
        element = PTX_B16;
    if (element == PTX_NONE || bits > 64 || (uint32_t)piece * vector->count != (uint32_t)bits ||
        ptx_type_float(type)) {
        ptx_refuse(d, "a vector of %u elements in .%s", vector->count, ptx_type_text(type));
        return;
    }
    d->carry = true;
    for (uint32_t i = 0; i < vector->count; i++) {
        const ptx_operand *e = &d->s->elements[vector->first + i];
        ptx_list_add(d, unpack ? ptx_target_of(d, e, element) : ptx_source_of(d, e, element));
    }
    if (unpack)
        d->op.a = ptx_source(d, 1, type);
    else
        d->op.d = ptx_target(d, 0, type);
    d->op.width = (uint8_t)bits;
    d->op.size = (uint8_t)piece;
    d->op.n = (uint8_t)vector->count;
    bool halves = bits == 32 && piece == 16;
    ptx_handler(d, EMU_KIND_MOVE, "%s%s", unpack ? "unpack" : "pack", halves ? ".2x16" : "");
}

static void decode_mov(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    if (!ptx_count(d, 2, 2))
        return;
    const ptx_operand *to = &d->s->operands[0], *from = &d->s->operands[1];
    if (type == PTX_PRED) {
        d->op.d = ptx_predicate_target(d, 0);
        d->carry = true;
        if (from->kind == PTX_OPERAND_CONSTANT) {
            d->op.imm = ptx_immediate(d, 1) != 0;
            ptx_handler(d, EMU_KIND_MOVE, "set.pred");
        } else {
            d->op.a = ptx_predicate(d, 1, 1);
            ptx_handler(d, EMU_KIND_MOVE, "mov.pred");
        }
        return;
    }
    int bits = ptx_type_bits(type);
    if (bits < 16 || bits > 64) {
        ptx_refuse(d, "type .%s", ptx_type_text(type));
    } else if (from->kind == PTX_OPERAND_SPECIAL) {
        decode_special(d, type);
    } else if (to->kind == PTX_OPERAND_VECTOR || from->kind == PTX_OPERAND_VECTOR) {
        decode_vector(d, type, to->kind == PTX_OPERAND_VECTOR);
    } else {
        d->op.d = ptx_target(d, 0, type);
        d->op.a = ptx_source(d, 1, type);
        d->carry = true;
        ptx_handler(d, EMU_KIND_MOVE, bits == 64 ? "mov.b64" : "mov.b32");
    }
}

static int take_space(ptx_decoder *d) {
    static const emu_space spaces[] = {EMU_SPACE_GLOBAL, EMU_SPACE_SHARED, EMU_SPACE_SHARED,
                                       EMU_SPACE_LOCAL,  EMU_SPACE_PARAM,  EMU_SPACE_PARAM,
                                       EMU_SPACE_CONST};
    int n = ptx_take_of(d, "global shared shared::cta local param param::entry const");
    return n < 0 ? -1 : (int)spaces[n];
}

static uint64_t window_of(int space) {
    return space == EMU_SPACE_SHARED  ? EMU_SHARED_WINDOW
           : space == EMU_SPACE_LOCAL ? EMU_LOCAL_WINDOW
           : space == EMU_SPACE_PARAM ? EMU_PARAM_WINDOW
                                      : 0;
}

static void decode_cvta(ptx_decoder *d) {
    bool to = ptx_take(d, "to");
    int space = take_space(d);
    ptx_type type = ptx_take_type(d);
    if (space < 0 || type != PTX_U64 || !ptx_count(d, 2, 2)) {
        ptx_refuse(d, "cvta takes a state space and .u64");
        return;
    }
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    d->op.imm = to ? 0 - window_of(space) : window_of(space);
    ptx_handler(d, EMU_KIND_MOVE, d->op.imm ? "cvta" : "mov.b64");
}

static void decode_isspacep(ptx_decoder *d) {
    int space = take_space(d);
    if (space < 0 || space == EMU_SPACE_CONST || !ptx_count(d, 2, 2)) {
        ptx_refuse(d, "isspacep of this state space");
        return;
    }
    d->op.d = ptx_predicate_target(d, 0);
    d->op.a = ptx_source(d, 1, PTX_U64);
    d->op.space = (uint8_t)space;
    ptx_handler(d, EMU_KIND_MOVE, "isspacep");
}

const ptx_root ptx_move_roots[] = {
    {"mov", decode_mov}, {"cvta", decode_cvta}, {"isspacep", decode_isspacep}, {NULL, NULL}};
