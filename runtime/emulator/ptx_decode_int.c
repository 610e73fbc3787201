/* Integer instructions, logic, comparisons, selections; the floating-point forms of add, mul, …
 * are handed to ptx_decode_float.c. */
#include "runtime/emulator/compare.h"
#include "runtime/emulator/ptx_decode.h"
#include "runtime/emulator/ptx_decode_float.h"

static const char *width_of(ptx_type type) {
    int bits = ptx_type_bits(type);
    return bits == 16 ? "b16" : bits == 32 ? "b32" : bits == 64 ? "b64" : "none";
}

static bool is_int(ptx_decoder *d, ptx_type type) {
    if (type >= PTX_B16 && type <= PTX_S64 && type != PTX_B128 && type != PTX_U8 && type != PTX_S8)
        return true;
    ptx_refuse(d, "type .%s", ptx_type_text(type));
    return false;
}

static void operands2(ptx_decoder *d, ptx_type to, ptx_type from) {
    if (!ptx_count(d, 3, 3))
        return;
    d->op.d = ptx_target(d, 0, to);
    d->op.a = ptx_source(d, 1, from);
    d->op.b = ptx_source(d, 2, from);
}
static void operands3(ptx_decoder *d, ptx_type to, ptx_type from) {
    if (!ptx_count(d, 4, 4))
        return;
    d->op.d = ptx_target(d, 0, to);
    d->op.a = ptx_source(d, 1, from);
    d->op.b = ptx_source(d, 2, from);
    d->op.c = ptx_source(d, 3, to);
}

/* add, addc, sub, subc with .cc; flags: carry32. */
static void decode_carry(ptx_decoder *d, ptx_type type, uint8_t sub, bool takes) {
    bool sets = ptx_take(d, "cc");
    operands2(d, type, type);
    d->op.sub = sub;
    d->op.flags = (uint8_t)((takes ? 1 : 0) | (sets ? 2 : 0));
    ptx_handler(d, EMU_KIND_INT, "carry.%s", width_of(type));
}

static void decode_add_sub(ptx_decoder *d, const char *root, uint8_t sub) {
    ptx_type type = ptx_take_type(d);
    if (ptx_type_float(type)) {
        ptx_decode_float2(d, root, type);
        return;
    }
    if (!is_int(d, type))
        return;
    for (int i = 0; i < d->s->n_modifiers; i++)
        if (ptx_token_is(&d->s->modifiers[i], "cc")) {
            decode_carry(d, type, sub, false);
            return;
        }
    bool sat = ptx_take(d, "sat");
    operands2(d, type, type);
    if (sat)
        ptx_handler(d, EMU_KIND_INT, "%s.sat.%s", root, ptx_type_text(type));
    else
        ptx_handler(d, EMU_KIND_INT, "%s.%s", root, width_of(type));
}
static void decode_add(ptx_decoder *d) {
    decode_add_sub(d, "add", 0);
}
static void decode_sub(ptx_decoder *d) {
    decode_add_sub(d, "sub", 1);
}
static void decode_addc(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    if (is_int(d, type))
        decode_carry(d, type, 0, true);
}
static void decode_subc(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    if (is_int(d, type))
        decode_carry(d, type, 1, true);
}

/* Of twice the width. */
static ptx_type wider(ptx_type type) {
    return type == PTX_S16   ? PTX_S32
           : type == PTX_U16 ? PTX_U32
           : type == PTX_S32 ? PTX_S64
           : type == PTX_U32 ? PTX_U64
                             : PTX_NONE;
}

static void decode_mul(ptx_decoder *d) {
    int part = ptx_take_of(d, "lo hi wide");
    ptx_type type = ptx_take_type(d);
    if (ptx_type_float(type)) {
        ptx_decode_float2(d, "mul", type);
        return;
    }
    if (!is_int(d, type) || part < 0) {
        ptx_refuse(d, "without .lo, .hi or .wide");
        return;
    }
    if (part == 0)
        operands2(d, type, type);
    else
        operands2(d, part == 2 ? wider(type) : type, type);
    if (part == 0)
        ptx_handler(d, EMU_KIND_INT, "mul.lo.%s", width_of(type));
    else
        ptx_handler(d, EMU_KIND_INT, "mul.%s.%s", part == 1 ? "hi" : "wide", ptx_type_text(type));
}

static void decode_mad_with(ptx_decoder *d, bool takes) {
    int part = ptx_take_of(d, "lo hi wide");
    bool sets = ptx_take(d, "cc");
    ptx_type type = ptx_take_type(d);
    if (ptx_type_float(type)) { /* mad.f32 is fma */
        ptx_decode_fma(d, type);
        return;
    }
    if (!is_int(d, type) || part < 0) {
        ptx_refuse(d, "without .lo, .hi or .wide");
        return;
    }
    bool sat = ptx_take(d, "sat");
    operands3(d, part == 2 ? wider(type) : type, type);
    d->op.sign = ptx_type_signed(type);
    if ((takes || sets) && part < 2 && !(d->op.sign && ptx_type_bits(type) == 64)) {
        d->op.sub = (uint8_t)(2 + part);
        d->op.flags = (uint8_t)((takes ? 1 : 0) | (sets ? 2 : 0));
        ptx_handler(d, EMU_KIND_INT, "carry.%s", width_of(type));
    } else if (takes || sets) {
        ptx_refuse(d, "this type with a carry");
    } else if (part == 0) {
        ptx_handler(d, EMU_KIND_INT, "mad.lo.%s", width_of(type));
    } else {
        ptx_handler(d, EMU_KIND_INT, "mad.%s%s.%s", part == 1 ? "hi" : "wide", sat ? ".sat" : "",
                    ptx_type_text(type));
    }
}
static void decode_mad(ptx_decoder *d) {
    decode_mad_with(d, false);
}
static void decode_madc(ptx_decoder *d) {
    decode_mad_with(d, true);
}

static void decode_mul24(ptx_decoder *d) {
    bool low = ptx_take(d, "lo");
    ptx_type type = ptx_take_type(d);
    operands2(d, type, type);
    ptx_handler(d, EMU_KIND_INT, "mul24.%s.%s", low ? "lo" : "hi", ptx_type_text(type));
}

static void decode_sad(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    operands3(d, type, type);
    ptx_handler(d, EMU_KIND_INT, "sad.%s", ptx_type_text(type));
}

static void decode_div(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    if (ptx_type_float(type)) {
        ptx_decode_div(d, type);
        return;
    }
    operands2(d, type, type);
    ptx_handler(d, EMU_KIND_INT, "div.%s", ptx_type_text(type));
}
static void decode_rem(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    operands2(d, type, type);
    ptx_handler(d, EMU_KIND_INT, "rem.%s", ptx_type_text(type));
}

static void decode_min_max(ptx_decoder *d, const char *root) {
    ptx_type type = ptx_take_type(d);
    if (ptx_type_float(type)) {
        ptx_decode_float2(d, root, type);
        return;
    }
    operands2(d, type, type);
    ptx_handler(d, EMU_KIND_INT, "%s.%s", root, ptx_type_text(type));
}
static void decode_min(ptx_decoder *d) {
    decode_min_max(d, "min");
}
static void decode_max(ptx_decoder *d) {
    decode_min_max(d, "max");
}

static void decode_unary(ptx_decoder *d, const char *name) {
    ptx_type type = ptx_take_type(d);
    if (ptx_type_float(type)) {
        ptx_decode_sign(d, name, type);
        return;
    }
    if (!is_int(d, type) || !ptx_count(d, 2, 2))
        return;
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    bool by_type = name[0] == 'a'; /* abs */
    ptx_handler(d, EMU_KIND_INT, "%s.%s", name, by_type ? ptx_type_text(type) : width_of(type));
}
static void decode_neg(ptx_decoder *d) {
    decode_unary(d, "neg");
}
static void decode_abs(ptx_decoder *d) {
    decode_unary(d, "abs");
}
static void decode_cnot(ptx_decoder *d) {
    decode_unary(d, "cnot");
}

static void decode_logic(ptx_decoder *d, const char *name) {
    ptx_type type = ptx_take_type(d);
    bool binary = name[0] != 'n'; /* not */
    if (!ptx_count(d, binary ? 3 : 2, binary ? 3 : 2))
        return;
    if (type == PTX_PRED) {
        d->op.d = ptx_predicate_target(d, 0);
        d->op.a = ptx_predicate(d, 1, 1);
        d->op.b = binary ? ptx_predicate(d, 2, 2) : -1;
        ptx_handler(d, EMU_KIND_INT, "%s.pred", name);
        return;
    }
    if (!is_int(d, type))
        return;
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    d->op.b = binary ? ptx_source(d, 2, type) : -1;
    ptx_handler(d, EMU_KIND_INT, "%s.%s", name, width_of(type));
}
static void decode_and(ptx_decoder *d) {
    decode_logic(d, "and");
}
static void decode_or(ptx_decoder *d) {
    decode_logic(d, "or");
}
static void decode_xor(ptx_decoder *d) {
    decode_logic(d, "xor");
}
static void decode_not(ptx_decoder *d) {
    decode_logic(d, "not");
}

static void decode_shift(ptx_decoder *d, const char *name, bool by_type) {
    ptx_type type = ptx_take_type(d);
    if (!is_int(d, type) || !ptx_count(d, 3, 3))
        return;
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    d->op.b = ptx_source(d, 2, PTX_U32);
    bool sign = by_type && ptx_type_signed(type);
    if (by_type)
        ptx_handler(d, EMU_KIND_INT, "%s.%c%d", name, sign ? 's' : 'u', ptx_type_bits(type));
    else
        ptx_handler(d, EMU_KIND_INT, "%s.%s", name, width_of(type));
}
static void decode_shl(ptx_decoder *d) {
    decode_shift(d, "shl", false);
}
static void decode_shr(ptx_decoder *d) {
    decode_shift(d, "shr", true);
}

static void decode_shf(ptx_decoder *d) {
    int left = ptx_take_of(d, "l r"), wrap = ptx_take_of(d, "wrap clamp");
    ptx_type type = ptx_take_type(d);
    operands3(d, type, PTX_B32);
    if (type != PTX_B32 || left < 0 || wrap < 0)
        ptx_refuse(d, "shf is .l or .r, .wrap or .clamp, of .b32");
    ptx_handler(d, EMU_KIND_INT, "shf.%s.%s", left == 0 ? "l" : "r", wrap == 0 ? "wrap" : "clamp");
}

static void decode_lop3(ptx_decoder *d) {
    if (ptx_take_type(d) != PTX_B32 || !ptx_count(d, 5, 5)) {
        ptx_refuse(d, "lop3 is .b32 with a table");
        return;
    }
    d->op.d = ptx_target(d, 0, PTX_B32);
    d->op.a = ptx_source(d, 1, PTX_B32);
    d->op.b = ptx_source(d, 2, PTX_B32);
    d->op.c = ptx_source(d, 3, PTX_B32);
    uint32_t table = ptx_immediate(d, 4);
    if (table > 255)
        ptx_refuse(d, "a table of more than 8 bits");
    d->op.sub = (uint8_t)table;
    const char *name = table == 0xea   ? "lop3.and_or"
                       : table == 0x6a ? "lop3.and_xor"
                       : table == 0x96 ? "lop3.xor"
                       : table == 0xfe ? "lop3.or"
                       : table == 0x80 ? "lop3.and"
                                       : "lop3";
    ptx_handler(d, EMU_KIND_INT, "%s", name);
}

static void decode_prmt(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    int mode = ptx_take_of(d, "f4e b4e rc8 ecl ecr rc16");
    operands3(d, type, PTX_B32);
    if (type != PTX_B32)
        ptx_refuse(d, "prmt is .b32");
    d->op.sub = (uint8_t)(mode + 1);
    ptx_handler(d, EMU_KIND_INT, mode < 0 ? "prmt" : "prmt.mode");
}

static bool is_word(ptx_decoder *d, ptx_type type) {
    int bits = ptx_type_bits(type);
    if ((bits == 32 || bits == 64) && !ptx_type_float(type))
        return true;
    ptx_refuse(d, "type .%s", ptx_type_text(type));
    return false;
}

static void decode_bfe(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    if (!is_word(d, type) || !ptx_count(d, 4, 4))
        return;
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    d->op.b = ptx_source(d, 2, PTX_U32);
    d->op.c = ptx_source(d, 3, PTX_U32);
    d->op.sign = ptx_type_signed(type);
    ptx_handler(d, EMU_KIND_INT, type == PTX_U32 ? "bfe.u32" : "bfe");
}
static void decode_bfi(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    if (!is_word(d, type) || !ptx_count(d, 5, 5))
        return;
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    d->op.b = ptx_source(d, 2, type);
    ptx_list_add(d, ptx_source(d, 3, PTX_U32));
    ptx_list_add(d, ptx_source(d, 4, PTX_U32));
    ptx_handler(d, EMU_KIND_INT, "bfi");
}

/* popc, clz, bfind: words from values of op.width bits. */
static void decode_count(ptx_decoder *d, const char *name) {
    bool shift = ptx_take(d, "shiftamt");
    ptx_type type = ptx_take_type(d);
    if (!is_word(d, type) || !ptx_count(d, 2, 2))
        return;
    d->op.d = ptx_target(d, 0, PTX_U32);
    d->op.a = ptx_source(d, 1, type);
    d->op.width = (uint8_t)ptx_type_bits(type);
    d->op.sign = ptx_type_signed(type);
    d->op.sub = shift;
    if (shift && name[0] != 'b')
        ptx_refuse(d, "modifier .shiftamt");
    ptx_handler(d, EMU_KIND_INT, "%s", name);
}
static void decode_popc(ptx_decoder *d) {
    decode_count(d, "popc");
}
static void decode_clz(ptx_decoder *d) {
    decode_count(d, "clz");
}
static void decode_bfind(ptx_decoder *d) {
    decode_count(d, "bfind");
}
static void decode_brev(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    if (!is_word(d, type) || !ptx_count(d, 2, 2))
        return;
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    ptx_handler(d, EMU_KIND_INT, "brev.%s", width_of(type));
}

static void decode_dp(ptx_decoder *d, bool four) {
    int high = four ? 0 : ptx_take_of(d, "lo hi");
    ptx_type a = ptx_take_type(d), b = ptx_take_type(d);
    bool good = (a == PTX_S32 || a == PTX_U32) && (b == PTX_S32 || b == PTX_U32) && high >= 0;
    if (!good) {
        ptx_refuse(d, "types of a dot product");
        return;
    }
    operands3(d, a == PTX_S32 || b == PTX_S32 ? PTX_S32 : PTX_U32, PTX_B32);
    d->op.sub = (uint8_t)((a == PTX_S32) + 2 * (b == PTX_S32));
    d->op.round = (uint8_t)high;
    if (four)
        ptx_handler(d, EMU_KIND_INT, "dp4a.%c%c", a == PTX_S32 ? 's' : 'u',
                    b == PTX_S32 ? 's' : 'u');
    else
        ptx_handler(d, EMU_KIND_INT, "dp2a");
}
static void decode_dp4a(ptx_decoder *d) {
    decode_dp(d, true);
}
static void decode_dp2a(ptx_decoder *d) {
    decode_dp(d, false);
}

/* --- comparisons --------------------------------------------------------------------------------
 */

/* The comparison and type of setp and set; the operands of that type at a and b. */
static ptx_type decode_compared(ptx_decoder *d, ptx_type type, int how, int first) {
    static const struct {
        ptx_type type;
        emu_compared compared;
    } rows[] = {{PTX_S16, EMU_COMPARED_S16},    {PTX_U16, EMU_COMPARED_U16},
                {PTX_B16, EMU_COMPARED_U16},    {PTX_S32, EMU_COMPARED_S32},
                {PTX_U32, EMU_COMPARED_U32},    {PTX_B32, EMU_COMPARED_U32},
                {PTX_S64, EMU_COMPARED_S64},    {PTX_U64, EMU_COMPARED_U64},
                {PTX_B64, EMU_COMPARED_U64},    {PTX_F32, EMU_COMPARED_F32},
                {PTX_F64, EMU_COMPARED_F64},    {PTX_F16, EMU_COMPARED_F16},
                {PTX_F16X2, EMU_COMPARED_F16},  {PTX_BF16, EMU_COMPARED_BF16},
                {PTX_BF16X2, EMU_COMPARED_BF16}};
    size_t i = 0;
    while (i < sizeof rows / sizeof *rows && rows[i].type != type)
        i++;
    if (i == sizeof rows / sizeof *rows || how < 0) {
        ptx_refuse(d, how < 0 ? "without a comparison" : "comparison of this type");
        return PTX_NONE;
    }
    d->op.size = (uint8_t)rows[i].compared;
    d->op.sub = (uint8_t)how;
    if (ptx_take(d, "ftz"))
        d->op.flags |= EMU_FTZ;
    bool is_float = ptx_type_float(type);
    bool bits = type == PTX_B16 || type == PTX_B32 || type == PTX_B64;
    if ((!is_float && how > EMU_GE) || (bits && how > EMU_NE))
        ptx_refuse(d, "this comparison of .%s", ptx_type_text(type));
    d->op.a = ptx_source(d, first, type);
    d->op.b = ptx_source(d, first + 1, type);
    return type;
}

static const char compares[] = "eq ne lt le gt ge equ neu ltu leu gtu geu num nan";

/* lo, ls, hi, hs are the unsigned lt, le, gt, ge. */
static int take_compare(ptx_decoder *d) {
    int how = ptx_take_of(d, compares);
    if (how >= 0)
        return how;
    int low = ptx_take_of(d, "lo ls hi hs");
    return low < 0 ? -1 : EMU_LT + low;
}

static void decode_setp(ptx_decoder *d) {
    int how = take_compare(d);
    int with = ptx_take_of(d, "and or xor");
    ptx_type type = ptx_take_type(d);
    if (!ptx_count(d, with < 0 ? 3 : 4, with < 0 ? 3 : 4) ||
        decode_compared(d, type, how, 1) == PTX_NONE)
        return;
    bool pair = type == PTX_F16X2 || type == PTX_BF16X2;
    d->op.d = ptx_predicate_target(d, 0);
    int32_t second = ptx_second_target(d, 0);
    d->op.n = 1;
    if (second >= 0) {
        d->op.n = 2;
        ptx_list_add(d, second);
    } else if (pair) {
        ptx_refuse(d, "of pairs, with one result");
    }
    d->op.width = pair ? 2 : 1;
    d->op.round = (uint8_t)(with + 1);
    if (with >= 0)
        d->op.c = ptx_predicate(d, 3, 4);
    emu_kind kind = type == PTX_F64        ? EMU_KIND_DOUBLE
                    : type == PTX_F32      ? EMU_KIND_FLOAT
                    : ptx_type_float(type) ? EMU_KIND_HALF
                                           : EMU_KIND_INT;
    ptx_handler(d, kind, "setp");
}

static void decode_set(ptx_decoder *d) {
    int how = take_compare(d);
    int with = ptx_take_of(d, "and or xor");
    ptx_type to = ptx_take_type(d), type = ptx_take_type(d);
    if (!ptx_count(d, with < 0 ? 3 : 4, with < 0 ? 3 : 4) ||
        decode_compared(d, type, how, 1) == PTX_NONE)
        return;
    bool pair = type == PTX_F16X2 || type == PTX_BF16X2;
    if (ptx_type_bits(to) > 32 || to == PTX_NONE || to == PTX_PRED ||
        (pair && ptx_type_bits(to) != 32) || (pair && to == PTX_F32)) {
        ptx_refuse(d, "a result of .%s", ptx_type_text(to));
        return;
    }
    d->op.d = ptx_target(d, 0, to);
    d->op.width = pair ? 2 : 1;
    d->op.round = (uint8_t)(with + 1);
    if (with >= 0)
        d->op.c = ptx_predicate(d, 3, 4);
    switch (to) { /* what "true" is */
    case PTX_F32:
        d->op.imm = 0x3f800000;
        break;
    case PTX_F16:
    case PTX_F16X2:
        d->op.imm = 0x3c00;
        break;
    case PTX_BF16:
    case PTX_BF16X2:
        d->op.imm = 0x3f80;
        break;
    default:
        d->op.imm = pair || ptx_type_bits(to) == 16 ? 0xffff : EMU_FULL;
    }
    ptx_handler(d, ptx_type_float(type) ? EMU_KIND_FLOAT : EMU_KIND_INT, "set");
}

static void decode_selp(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    int bits = ptx_type_bits(type);
    if (bits < 16 || bits > 64 || !ptx_count(d, 4, 4)) {
        ptx_refuse(d, "type .%s", ptx_type_text(type));
        return;
    }
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    d->op.b = ptx_source(d, 2, type);
    d->op.c = ptx_predicate(d, 3, 4);
    /* Only the operand that is taken needs a value: three reads, a constant's that of the
     * predicate. */
    uint32_t p = (uint32_t)d->op.c | EMU_USE_PREDICATE;
    d->reads[0] = d->op.a < 0 ? p : (uint32_t)d->op.a & ~PTX_VIRTUAL;
    d->reads[1] = d->op.b < 0 ? p : (uint32_t)d->op.b & ~PTX_VIRTUAL;
    d->reads[2] = p;
    d->n_reads = 3;
    d->select = d->carry = true;
    ptx_handler(d, EMU_KIND_MOVE, bits == 64 ? "selp.b64" : "selp.b32");
}

static void decode_slct(ptx_decoder *d) {
    d->op.flags = ptx_take(d, "ftz") ? EMU_FTZ : 0;
    ptx_type type = ptx_take_type(d), by = ptx_take_type(d);
    if (!ptx_count(d, 4, 4) || (by != PTX_S32 && by != PTX_F32)) {
        ptx_refuse(d, "slct is decided by .s32 or .f32");
        return;
    }
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    d->op.b = ptx_source(d, 2, type);
    d->op.c = ptx_source(d, 3, by);
    d->op.sub = by == PTX_F32;
    ptx_handler(d, EMU_KIND_MOVE, "slct");
}

static void decode_testp(ptx_decoder *d) {
    int what = ptx_take_of(d, "finite infinite number notanumber normal subnormal");
    ptx_type type = ptx_take_type(d);
    if (what < 0 || (type != PTX_F32 && type != PTX_F64) || !ptx_count(d, 2, 2)) {
        ptx_refuse(d, "testp of this type or property");
        return;
    }
    d->op.d = ptx_predicate_target(d, 0);
    d->op.a = ptx_source(d, 1, type);
    d->op.width = (uint8_t)ptx_type_bits(type);
    d->op.sub = (uint8_t)what;
    ptx_handler(d, EMU_KIND_FLOAT, "testp");
}

const ptx_root ptx_int_roots[] = {
    {"add", decode_add},   {"sub", decode_sub},     {"addc", decode_addc}, {"subc", decode_subc},
    {"mul", decode_mul},   {"mad", decode_mad},     {"madc", decode_madc}, {"mul24", decode_mul24},
    {"sad", decode_sad},   {"div", decode_div},     {"rem", decode_rem},   {"min", decode_min},
    {"max", decode_max},   {"neg", decode_neg},     {"abs", decode_abs},   {"cnot", decode_cnot},
    {"and", decode_and},   {"or", decode_or},       {"xor", decode_xor},   {"not", decode_not},
    {"shl", decode_shl},   {"shr", decode_shr},     {"shf", decode_shf},   {"lop3", decode_lop3},
    {"prmt", decode_prmt}, {"bfe", decode_bfe},     {"bfi", decode_bfi},   {"popc", decode_popc},
    {"clz", decode_clz},   {"bfind", decode_bfind}, {"brev", decode_brev}, {"dp4a", decode_dp4a},
    {"dp2a", decode_dp2a}, {"setp", decode_setp},   {"set", decode_set},   {"selp", decode_selp},
    {"slct", decode_slct}, {"testp", decode_testp}, {NULL, NULL},
};
