/* Floating-point instructions and conversions. */
#include "runtime/emulator/ptx_decode_float.h"

static bool is_half(ptx_type type) {
    return type == PTX_F16 || type == PTX_F16X2 || type == PTX_BF16 || type == PTX_BF16X2;
}
static bool is_f16(ptx_type type) {
    return type == PTX_F16 || type == PTX_F16X2;
}
static emu_kind kind_of(ptx_type type) {
    return is_half(type) ? EMU_KIND_HALF : type == PTX_F64 ? EMU_KIND_DOUBLE : EMU_KIND_FLOAT;
}
/* What handlers of the type are called. */
static const char *handler_type(ptx_type type) {
    return is_f16(type) ? "f16" : is_half(type) ? "bf16" : ptx_type_text(type);
}

/* The rounding, or the default; refuses one other than to nearest where only that is known. */
static void take_round(ptx_decoder *d, ptx_type type, bool required) {
    int round = ptx_take_of(d, "rn rz rm rp");
    if (required && round < 0)
        ptx_refuse(d, "without a rounding mode");
    if (round > 0 && type != PTX_F32)
        ptx_refuse(d, "rounding other than to nearest of .%s", ptx_type_text(type));
    d->op.round = (uint8_t)(round < 0 ? EMU_RN : round);
}

static void take_flag(ptx_decoder *d, const char *word, uint8_t flag) {
    if (ptx_take(d, word))
        d->op.flags |= flag;
}

/* .ftz and .sat where the type has them. */
static void take_ftz_sat(ptx_decoder *d, ptx_type type) {
    if (type == PTX_F32 || is_f16(type)) {
        take_flag(d, "ftz", EMU_FTZ);
        take_flag(d, "sat", EMU_SAT);
    }
}

static bool known_type(ptx_decoder *d, ptx_type type) {
    if (is_half(type) || type == PTX_F32 || type == PTX_F64)
        return true;
    ptx_refuse(d, "type .%s", ptx_type_text(type));
    return false;
}

static void operands(ptx_decoder *d, ptx_type type, int n) {
    if (!ptx_count(d, n + 1, n + 1))
        return;
    d->op.n = (uint8_t)n;
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    if (n > 1)
        d->op.b = ptx_source(d, 2, type);
    if (n > 2)
        d->op.c = ptx_source(d, 3, type);
}

void ptx_decode_float2(ptx_decoder *d, const char *root, ptx_type type) {
    if (!known_type(d, type))
        return;
    bool extreme = root[1] == 'i' || root[1] == 'a'; /* min, max */
    if (extreme && type != PTX_F64) {
        if (type == PTX_F32 || is_f16(type))
            take_flag(d, "ftz", EMU_FTZ);
        take_flag(d, "NaN", EMU_NAN);
        if (ptx_take(d, "xorsign")) {
            d->op.flags |= EMU_XORSIGN;
            if (!ptx_take(d, "abs"))
                ptx_refuse(d, ".xorsign without .abs");
        }
    } else if (!extreme) {
        take_round(d, type, false);
        take_ftz_sat(d, type);
    }
    operands(d, type, 2);
    ptx_handler(d, kind_of(type), "%s.%s", root, handler_type(type));
}

void ptx_decode_fma(ptx_decoder *d, ptx_type type) {
    if (!known_type(d, type))
        return;
    take_round(d, type, true);
    take_ftz_sat(d, type);
    if (is_half(type))
        take_flag(d, "relu", EMU_RELU);
    operands(d, type, 3);
    ptx_handler(d, kind_of(type), "fma.%s", handler_type(type));
}
static void decode_fma(ptx_decoder *d) {
    ptx_decode_fma(d, ptx_take_type(d));
}

void ptx_decode_div(ptx_decoder *d, ptx_type type) {
    int how = ptx_take_of(d, "approx full");
    if (type != PTX_F32 && (type != PTX_F64 || how >= 0)) {
        ptx_refuse(d, "division of this type");
        return;
    }
    if (how < 0)
        take_round(d, type, true);
    if (type == PTX_F32)
        take_flag(d, "ftz", EMU_FTZ);
    operands(d, type, 2);
    ptx_handler(d, how < 0 ? kind_of(type) : EMU_KIND_SPECIAL, "div%s.%s",
                how < 0    ? ""
                : how == 0 ? ".approx"
                           : ".full",
                ptx_type_text(type));
}

void ptx_decode_sign(ptx_decoder *d, const char *root, ptx_type type) {
    if (!known_type(d, type))
        return;
    if (type == PTX_F32 || is_f16(type))
        take_flag(d, "ftz", EMU_FTZ);
    operands(d, type, 1);
    d->op.sub = is_half(type);
    d->op.imm = type == PTX_F32                           ? 0x80000000
                : type == PTX_F16X2 || type == PTX_BF16X2 ? 0x80008000
                                                          : 0x8000;
    ptx_handler(d, kind_of(type), type == PTX_F64 ? "%s.f64" : "%s.float", root);
}

static void decode_copysign(ptx_decoder *d) {
    ptx_type type = ptx_take_type(d);
    operands(d, type, 2);
    ptx_handler(d, kind_of(type), "copysign.%s", ptx_type_text(type));
}

/* rcp, sqrt: approximate, or rounded; rsqrt: approximate. */
static void decode_root(ptx_decoder *d, const char *root, emu_approx_fn fn) {
    bool approx = ptx_take(d, "approx");
    ptx_type type = ptx_take_type(d);
    if (type != PTX_F32 && type != PTX_F64) {
        ptx_refuse(d, "type .%s", ptx_type_text(type));
        return;
    }
    if (!approx)
        take_round(d, type, true);
    take_flag(d, "ftz", EMU_FTZ);
    if (!approx && type == PTX_F64 && d->op.flags)
        ptx_refuse(d, "modifier .ftz");
    operands(d, type, 1);
    d->op.sub = (uint8_t)fn;
    if (approx && type == PTX_F32)
        ptx_handler(d, EMU_KIND_SPECIAL, "approx.f32");
    else
        ptx_handler(d, approx ? EMU_KIND_SPECIAL : kind_of(type), "%s.%s", root,
                    ptx_type_text(type));
}
static void decode_rcp(ptx_decoder *d) {
    decode_root(d, "rcp", EMU_RCP);
}
static void decode_sqrt(ptx_decoder *d) {
    decode_root(d, "sqrt", EMU_SQRT);
}
static void decode_rsqrt(ptx_decoder *d) {
    decode_root(d, "rsqrt", EMU_RSQRT);
}

static void decode_approx(ptx_decoder *d, emu_approx_fn fn, bool halves) {
    bool approx = ptx_take(d, "approx");
    ptx_type type = ptx_take_type(d);
    if (!approx || (type != PTX_F32 && !(halves && is_half(type)))) {
        ptx_refuse(d, "type .%s, or not .approx", ptx_type_text(type));
        return;
    }
    take_flag(d, "ftz", EMU_FTZ);
    operands(d, type, 1);
    d->op.sub = (uint8_t)fn;
    ptx_handler(d, EMU_KIND_SPECIAL, "approx.%s", ptx_type_text(type));
}
static void decode_ex2(ptx_decoder *d) {
    decode_approx(d, EMU_EX2, true);
}
static void decode_lg2(ptx_decoder *d) {
    decode_approx(d, EMU_LG2, false);
}
static void decode_sin(ptx_decoder *d) {
    decode_approx(d, EMU_SIN, false);
}
static void decode_cos(ptx_decoder *d) {
    decode_approx(d, EMU_COS, false);
}
static void decode_tanh(ptx_decoder *d) {
    decode_approx(d, EMU_TANH, true);
}

/* --- cvt ----------------------------------------------------------------------------------------
 */

/* The number type, of pairs that of each element; -1 unknown. */
static int number_of(ptx_type type) {
    switch (type) {
    case PTX_S8:
        return EMU_NUMBER_S8;
    case PTX_S16:
        return EMU_NUMBER_S16;
    case PTX_S32:
        return EMU_NUMBER_S32;
    case PTX_S64:
        return EMU_NUMBER_S64;
    case PTX_U8:
        return EMU_NUMBER_U8;
    case PTX_U16:
        return EMU_NUMBER_U16;
    case PTX_U32:
        return EMU_NUMBER_U32;
    case PTX_U64:
        return EMU_NUMBER_U64;
    case PTX_F16:
    case PTX_F16X2:
        return EMU_NUMBER_F16;
    case PTX_BF16:
    case PTX_BF16X2:
        return EMU_NUMBER_BF16;
    case PTX_TF32:
        return EMU_NUMBER_TF32;
    case PTX_F32:
        return EMU_NUMBER_F32;
    case PTX_F64:
        return EMU_NUMBER_F64;
    case PTX_E4M3X2:
        return EMU_NUMBER_E4M3;
    case PTX_E5M2X2:
        return EMU_NUMBER_E5M2;
    default:
        return -1;
    }
}
static bool is_pair(ptx_type type) {
    return type == PTX_F16X2 || type == PTX_BF16X2 || type == PTX_E4M3X2 || type == PTX_E5M2X2;
}
static bool is_eight(ptx_type type) {
    return type == PTX_E4M3X2 || type == PTX_E5M2X2;
}

/* Between integers, without clamping: the handler that only grows or shrinks, or NULL. */
static const char *resize_of(ptx_type to, ptx_type from, int to_bits, int from_bits) {
    if (ptx_type_bits(to) != to_bits)
        return NULL;
    bool sign = ptx_type_signed(from);
    int bits = ptx_type_bits(from);
    if (to_bits == 64 && bits == 32 && from_bits == 32)
        return sign ? "cvt.s64.s32" : "cvt.u64.u32";
    if (to_bits == 32 && bits == 64)
        return "cvt.u32.u64";
    if (to_bits == 16 && bits == 64)
        return "cvt.u16.u64";
    if (from_bits > 32 || to_bits > 32)
        return NULL;
    if (to_bits == 32 && bits == 32)
        return "mov.b32";
    if (bits >= 16 && to_bits == 16)
        return "cvt.u16.u32";
    if (bits == 16)
        return sign ? "cvt.s32.s16" : "cvt.u16.u32";
    if (bits == 8)
        return !sign ? "cvt.u32.u8" : to_bits == 32 ? "cvt.s32.s8" : "cvt.s16.s8";
    return NULL;
}

static void decode_cvt(ptx_decoder *d) {
    int integral = ptx_take_of(d, "rni rzi rmi rpi"), round = ptx_take_of(d, "rn rz rm rp rna");
    emu_convert c = {.round = EMU_RN};
    c.flags = (uint8_t)((ptx_take(d, "ftz") ? EMU_FTZ : 0) | (ptx_take(d, "sat") ? EMU_SAT : 0) |
                        (ptx_take(d, "relu") ? EMU_RELU : 0));
    c.satfinite = ptx_take(d, "satfinite");
    ptx_type to = ptx_take_type(d), from = ptx_take_type(d);
    int n_to = number_of(to), n_from = number_of(from);
    if (n_to < 0 || n_from < 0 || (integral >= 0 && round >= 0) || from == PTX_TF32) {
        ptx_refuse(d, "conversion of .%s to .%s", ptx_type_text(from), ptx_type_text(to));
        return;
    }
    c.to = (uint8_t)n_to;
    c.from = (uint8_t)n_from;
    c.integral = integral >= 0;
    c.round = (uint8_t)(integral >= 0 ? integral : round >= 0 ? round : EMU_RN);
    bool to_float = ptx_type_float(to), from_float = ptx_type_float(from);
    bool pack = is_pair(to) && from == PTX_F32, pair = is_pair(to) && is_pair(from);
    /* What PTX asks for, so that no rounding is guessed. */
    bool narrows = to_float && from_float && ptx_type_bits(to) < ptx_type_bits(from);
    if ((narrows || pack || (to_float && !from_float)) && round < 0 && !is_pair(from))
        ptx_refuse(d, "without a rounding mode");
    if (from_float && !to_float && integral < 0)
        ptx_refuse(d, "without an integer rounding mode");
    if ((is_pair(to) && !pack && !pair) || (is_pair(from) && !pair) ||
        (is_eight(to) && !c.satfinite) || (pair && is_eight(to) == is_eight(from)) ||
        (pair && (to == PTX_BF16X2 || from == PTX_BF16X2)) || (to == PTX_TF32 && from != PTX_F32) ||
        (round == EMU_RNA && to != PTX_TF32))
        ptx_refuse(d, "conversion of .%s to .%s", ptx_type_text(from), ptx_type_text(to));
    if (d->failed || !ptx_count(d, pack ? 3 : 2, pack ? 3 : 2))
        return;
    emu_convert *kept = ptx_alloc(d->parser, sizeof *kept);
    *kept = c;
    d->op.extra = kept;
    if (pack || pair) {
        d->op.d = ptx_target(d, 0, is_eight(to) ? PTX_B16 : PTX_B32);
        d->op.a = ptx_source(d, 1, pack ? PTX_F32 : is_eight(from) ? PTX_B16 : PTX_B32);
        if (pack)
            d->op.b = ptx_source(d, 2, PTX_F32);
        ptx_handler(d, EMU_KIND_CONVERT, pack ? "cvt.pack2" : "cvt.pair");
        return;
    }
    int to_bits, from_bits;
    d->op.d = ptx_wide_target(d, &d->s->operands[0], to, &to_bits);
    d->op.a = ptx_wide_source(d, &d->s->operands[1], from, &from_bits);
    d->op.width = (uint8_t)to_bits;
    d->op.size = (uint8_t)from_bits;
    bool ints = !to_float && !from_float && !c.flags;
    const char *resize = ints ? resize_of(to, from, to_bits, from_bits) : NULL;
    bool wide = to_bits == 64 || from_bits == 64;
    ptx_handler(d, EMU_KIND_CONVERT, "%s", resize ? resize : wide ? "cvt64" : "cvt32");
}

const ptx_root ptx_float_roots[] = {
    {"fma", decode_fma},   {"copysign", decode_copysign}, {"rcp", decode_rcp},
    {"sqrt", decode_sqrt}, {"rsqrt", decode_rsqrt},       {"ex2", decode_ex2},
    {"lg2", decode_lg2},   {"sin", decode_sin},           {"cos", decode_cos},
    {"tanh", decode_tanh}, {"cvt", decode_cvt},           {NULL, NULL},
};
