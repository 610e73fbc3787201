/* Loads, stores, atomics, async copies, and hints about memory. */
#include "runtime/emulator/atomic.h"
#include "runtime/emulator/ptx_decode.h"

static emu_space take_space(ptx_decoder *d) {
    static const emu_space spaces[] = {EMU_SPACE_GLOBAL, EMU_SPACE_SHARED, EMU_SPACE_SHARED,
                                       EMU_SPACE_LOCAL,  EMU_SPACE_PARAM,  EMU_SPACE_PARAM,
                                       EMU_SPACE_CONST};
    int n = ptx_take_of(d, "global shared shared::cta local param param::entry const");
    return n < 0 ? EMU_SPACE_GENERIC : spaces[n];
}

static emu_order take_order(ptx_decoder *d) {
    int n = ptx_take_of(d, "weak relaxed volatile acquire release acq_rel");
    d->op.in_block = ptx_take_of(d, "cta cluster gpu sys") == 0;
    return n <= 0   ? EMU_ORDER_WEAK
           : n <= 2 ? EMU_ORDER_RELAXED
                    : (emu_order)(n - 3 + EMU_ORDER_ACQUIRE);
}

/* Cache hints, which change nothing here. True when a policy operand comes last. */
static bool take_hints(ptx_decoder *d) {
    ptx_take_of(d, "ca cg cs lu cv wb wt");
    bool policy = ptx_take(d, "L2::cache_hint");
    ptx_take_prefixed(d, "L1::");
    ptx_take_prefixed(d, "L2::");
    return policy;
}

static int take_vector(ptx_decoder *d) {
    int n = ptx_take_of(d, "v2 v4 v8");
    return n < 0 ? 1 : 2 << n;
}

/* Whether a variable named as address is one of that state space. */
static void check_space(ptx_decoder *d, int i, emu_space space) {
    const ptx_operand *operand = &d->s->operands[i];
    if (i >= d->s->n_operands || operand->kind != PTX_OPERAND_MEMORY || !operand->symbol)
        return;
    emu_space its = operand->symbol->space;
    if (its == EMU_SPACE_PARAM && operand->symbol->dynamic)
        ptx_refuse(d, "parameters of calls: functions are not called here, only inlined");
    bool generic =
        space == EMU_SPACE_GENERIC && (its == EMU_SPACE_GLOBAL || its == EMU_SPACE_CONST);
    if (its != space && !generic)
        ptx_refuse(d, "the address of a variable of another state space");
}

/* The registers of operand i, a vector of n or one. */
static void list_registers(ptx_decoder *d, int i, int n, ptx_type type, bool source) {
    const ptx_operand *operand = &d->s->operands[i];
    bool vector = operand->kind == PTX_OPERAND_VECTOR;
    if (vector ? operand->count != (uint32_t)n : n != 1) {
        ptx_refuse(d, "operand %d is no vector of %d", i + 1, n);
        return;
    }
    int width = 0;
    for (int k = 0; k < n; k++) {
        const ptx_operand *e = vector ? &d->s->elements[operand->first + (uint32_t)k] : operand;
        int bits;
        ptx_list_add(d, source ? ptx_wide_source(d, e, type, &bits)
                               : ptx_wide_target(d, e, type, &bits));
        bool free_width = e->kind == PTX_OPERAND_SINK || e->kind == PTX_OPERAND_CONSTANT;
        if (width && bits != width && !free_width)
            ptx_refuse(d, "a vector of registers of different sizes");
        if (!width || !free_width)
            width = bits;
    }
    /* Sinks and constants must have rows like those of the others. */
    for (int k = 0; k < n && vector; k++) {
        const ptx_operand *e = &d->s->elements[operand->first + (uint32_t)k];
        if (width == 64 && ptx_type_bits(type) < 64 &&
            (e->kind == PTX_OPERAND_SINK || e->kind == PTX_OPERAND_CONSTANT))
            ptx_refuse(d, "a vector of 64-bit registers with an element that is none");
    }
    d->op.width = (uint8_t)width;
}

static bool memory_type(ptx_decoder *d, ptx_type type, int n) {
    int bits = ptx_type_bits(type);
    if (bits < 8 || bits > 64 || bits * n > 256) {
        ptx_refuse(d, "%d elements of .%s", n, ptx_type_text(type));
        return false;
    }
    d->op.size = (uint8_t)(bits / 8);
    d->op.n = (uint8_t)n;
    d->op.sign = ptx_type_signed(type);
    return true;
}

/* ld.param at a place that is known: of the launch's parameters. */
static bool decode_parameter(ptx_decoder *d) {
    const ptx_operand *operand = &d->s->operands[1];
    if (!operand->symbol || operand->symbol->space != EMU_SPACE_PARAM || operand->symbol->dynamic)
        return false;
    uint64_t at = operand->symbol->offset + (uint64_t)operand->offset;
    uint64_t bytes = (uint64_t)d->op.size * d->op.n, all = d->parser->function->param_bytes;
    if (at > all || all - at < bytes || at % bytes)
        ptx_refuse(d, "out of the kernel's parameters, or misaligned");
    d->op.imm = at;
    d->op.a = -1;
    ptx_handler(d, EMU_KIND_LOAD, "ld.param");
    return true;
}

static void decode_ld(ptx_decoder *d) {
    emu_order order = take_order(d);
    emu_space space = take_space(d);
    ptx_take(d, "nc");
    ptx_take(d, "unified");
    bool policy = take_hints(d);
    int n = take_vector(d);
    ptx_type type = ptx_take_type(d);
    if (!ptx_count(d, policy ? 3 : 2, policy ? 3 : 2) || !memory_type(d, type, n))
        return;
    list_registers(d, 0, n, type, false);
    check_space(d, 1, space);
    if (space == EMU_SPACE_PARAM && decode_parameter(d))
        return;
    ptx_address(d, 1);
    if (policy)
        ptx_source(d, 2, PTX_B64);
    d->op.space = (uint8_t)space;
    d->op.order = (uint8_t)order;
    ptx_handler(d, space == EMU_SPACE_SHARED ? EMU_KIND_SHARED : EMU_KIND_LOAD, "ld%s",
                space == EMU_SPACE_GENERIC ? ".generic" : "");
}

static void decode_st(ptx_decoder *d) {
    emu_order order = take_order(d);
    emu_space space = take_space(d);
    bool policy = take_hints(d);
    int n = take_vector(d);
    ptx_type type = ptx_take_type(d);
    if (!ptx_count(d, policy ? 3 : 2, policy ? 3 : 2) || !memory_type(d, type, n))
        return;
    check_space(d, 0, space);
    if (space == EMU_SPACE_CONST || space == EMU_SPACE_PARAM)
        ptx_refuse(d, "a store to this state space");
    list_registers(d, 1, n, type, true);
    ptx_address(d, 0);
    if (policy)
        ptx_source(d, 2, PTX_B64);
    d->op.space = (uint8_t)space;
    d->op.order = (uint8_t)order;
    ptx_handler(d, space == EMU_SPACE_SHARED ? EMU_KIND_SHARED : EMU_KIND_STORE, "st%s",
                space == EMU_SPACE_GENERIC ? ".generic" : "");
}

/* --- atom, red ----------------------------------------------------------------------------------
 */

static int atomic_type(ptx_type type) {
    switch (type) {
    case PTX_S32:
    case PTX_S64:
        return EMU_ATOMIC_SIGNED;
    case PTX_F32:
        return EMU_ATOMIC_F32;
    case PTX_F64:
        return EMU_ATOMIC_F64;
    case PTX_F16:
    case PTX_F16X2:
        return EMU_ATOMIC_F16X2;
    case PTX_BF16:
    case PTX_BF16X2:
        return EMU_ATOMIC_BF16X2;
    case PTX_B16:
    case PTX_B32:
    case PTX_B64:
    case PTX_U32:
    case PTX_U64:
        return EMU_ATOMIC_UNSIGNED;
    default:
        return -1;
    }
}

static void decode_atomic(ptx_decoder *d, bool result) {
    emu_order order = take_order(d);
    emu_space space = take_space(d);
    int what = ptx_take_of(d, "add min max and or xor exch cas inc dec");
    bool noftz = ptx_take(d, "noftz");
    bool policy = take_hints(d);
    int n = take_vector(d);
    ptx_type type = ptx_take_type(d);
    int kind = atomic_type(type);
    bool is_float = ptx_type_float(type), bits = type == PTX_B32 || type == PTX_B64;
    bool half = kind == EMU_ATOMIC_F16X2 || kind == EMU_ATOMIC_BF16X2;
    /* What PTX defines: floats only add, bits are and, or, xor, exch, cas. */
    bool known = what >= 0 && kind >= 0 && (!is_float || what == EMU_ATOMIC_ADD) &&
                 (!bits || (what >= EMU_ATOMIC_AND && what <= EMU_ATOMIC_CAS)) &&
                 (type != PTX_B16 || what == EMU_ATOMIC_CAS) && (!half || noftz) &&
                 (what < EMU_ATOMIC_INC || type == PTX_U32) &&
                 (type != PTX_S64 || what == EMU_ATOMIC_MIN || what == EMU_ATOMIC_MAX) &&
                 (n == 1 || is_float);
    if (!known || space == EMU_SPACE_CONST || space == EMU_SPACE_PARAM ||
        space == EMU_SPACE_LOCAL) {
        ptx_refuse(d, "this combination of operation, type and state space");
        return;
    }
    int first = result ? 1 : 0, operands = first + (what == EMU_ATOMIC_CAS ? 3 : 2) + policy;
    if (!ptx_count(d, operands, operands) || !memory_type(d, type, n))
        return;
    if (d->op.size * n > 16)
        ptx_refuse(d, "%d elements of .%s", n, ptx_type_text(type));
    d->op.sub = (uint8_t)what;
    d->op.flags = (uint8_t)kind;
    check_space(d, first, space);
    ptx_address(d, first);
    list_registers(d, first + 1, n, type, true);
    if (what == EMU_ATOMIC_CAS)
        d->op.c = ptx_source(d, first + 2, type);
    if (policy)
        ptx_source(d, operands - 1, PTX_B64);
    uint8_t width = (uint8_t)ptx_type_bits(type);
    if (result && d->s->operands[0].kind != PTX_OPERAND_SINK)
        list_registers(d, 0, n, type, false);
    else
        for (int k = 0; k < n; k++)
            ptx_list_add(d, -1);
    if (d->op.width != width)
        ptx_refuse(d, "registers wider than its type");
    d->op.space = (uint8_t)space;
    d->op.order = (uint8_t)(order == EMU_ORDER_WEAK ? EMU_ORDER_RELAXED : order);
    ptx_handler(d, EMU_KIND_ATOMIC, space == EMU_SPACE_GENERIC ? "atom.generic" : "atom");
}
static void decode_atom(ptx_decoder *d) {
    decode_atomic(d, true);
}
static void decode_red(ptx_decoder *d) {
    decode_atomic(d, false);
}

/* --- cp.async -----------------------------------------------------------------------------------
 */

/* cp.async.cg.shared.global [to], [from], 16{, bytes or predicate}{, policy} */
static void decode_copy(ptx_decoder *d) {
    bool all = ptx_take(d, "ca"), cg = ptx_take(d, "cg");
    if (!ptx_take(d, "shared") && !ptx_take(d, "shared::cta"))
        ptx_refuse(d, "to another space than shared memory");
    if (!ptx_take(d, "global"))
        ptx_refuse(d, "from another space than global memory");
    bool policy = ptx_take(d, "L2::cache_hint");
    ptx_take_prefixed(d, "L2::");
    int n = d->s->n_operands - policy;
    if (d->failed || (n != 3 && n != 4)) {
        ptx_refuse(d, "has %d operands", d->s->n_operands);
        return;
    }
    check_space(d, 0, EMU_SPACE_SHARED);
    check_space(d, 1, EMU_SPACE_GLOBAL);
    uint32_t size = ptx_immediate(d, 2);
    bool good = size == 16 || (all && (size == 4 || size == 8));
    if (!good || all == cg) {
        ptx_refuse(d, "copies of %u bytes", size);
        return;
    }
    ptx_address(d, 0);
    int32_t to = d->op.a, offset = (int32_t)d->op.imm;
    bool wide = d->op.wide_address;
    if ((uint64_t)(int64_t)offset != d->op.imm)
        ptx_refuse(d, "an offset of more than 32 bits");
    ptx_address(d, 1);
    if (!d->op.wide_address)
        ptx_refuse(d, "a global address of 32 bits");
    int32_t bytes = -1;
    if (n == 4) {
        const ptx_operand *operand = &d->s->operands[3];
        if (operand->kind == PTX_OPERAND_REGISTER && operand->type == PTX_PRED)
            d->op.c = ptx_predicate(d, 3, 4);
        else
            bytes = ptx_source(d, 3, PTX_U32);
    }
    if (policy)
        ptx_source(d, d->s->n_operands - 1, PTX_B64);
    d->op.size = (uint8_t)size;
    d->op.n = 1;
    d->op.space = EMU_SPACE_SHARED;
    ptx_list_add(d, to);
    ptx_list_add(d, wide);
    ptx_list_add(d, bytes);
    ptx_list_add(d, offset);
    d->plain_list = 0x0a; /* the second and the fourth are no rows */
    ptx_handler(d, EMU_KIND_ASYNC, "cp.async");
}

static void decode_cp(ptx_decoder *d) {
    if (!ptx_take(d, "async")) {
        ptx_refuse(d, "cp is cp.async");
    } else if (ptx_take(d, "commit_group")) {
        if (ptx_count(d, 0, 0))
            ptx_handler(d, EMU_KIND_ASYNC, "cp.async.commit");
    } else if (ptx_take(d, "wait_group")) {
        if (ptx_count(d, 1, 1))
            d->op.imm = ptx_immediate(d, 0);
        if (d->op.imm >= UINT32_MAX)
            ptx_refuse(d, "a number of groups below 0");
        ptx_handler(d, EMU_KIND_ASYNC, "cp.async.wait");
    } else if (ptx_take(d, "wait_all")) {
        d->op.imm = UINT32_MAX;
        if (ptx_count(d, 0, 0))
            ptx_handler(d, EMU_KIND_ASYNC, "cp.async.wait");
    } else {
        decode_copy(d);
    }
}

/* --- fences and hints ---------------------------------------------------------------------------
 */

static void decode_membar(ptx_decoder *d) {
    int level = ptx_take_of(d, "cta gl sys");
    if (level < 0)
        ptx_refuse(d, "without a level");
    if (ptx_count(d, 0, 0))
        ptx_handler(d, EMU_KIND_CONTROL, level ? "membar" : "fence.block");
}
static void decode_fence(ptx_decoder *d) {
    ptx_take_of(d, "sc acq_rel acquire release");
    int scope = ptx_take_of(d, "cta cluster gpu sys");
    if (scope < 0)
        ptx_refuse(d, "without a scope");
    if (ptx_count(d, 0, 0))
        ptx_handler(d, EMU_KIND_CONTROL, scope ? "membar" : "fence.block");
}

static void decode_prefetch(ptx_decoder *d) {
    ptx_take(d, "global");
    ptx_take_of(d, "L1 L2");
    ptx_take_prefixed(d, "L2::");
    if (ptx_count(d, 1, 1))
        ptx_address(d, 0);
    ptx_handler(d, EMU_KIND_CONTROL, "nothing");
}

/* A cache policy is only ever handed to hints: any number will do. */
static void decode_createpolicy(ptx_decoder *d) {
    bool fractional = ptx_take(d, "fractional");
    ptx_take_prefixed(d, "L2::");
    if (!fractional || ptx_take_type(d) != PTX_B64 || !ptx_count(d, 1, 2)) {
        ptx_refuse(d, "this cache policy");
        return;
    }
    d->op.d = ptx_target(d, 0, PTX_B64);
    d->op.a = ptx_constant_row(d->parser, 0, true);
    ptx_handler(d, EMU_KIND_MOVE, "mov.b64");
}

const ptx_root ptx_memory_roots[] = {
    {"ld", decode_ld},
    {"ldu", decode_ld},
    {"st", decode_st},
    {"atom", decode_atom},
    {"red", decode_red},
    {"cp", decode_cp},
    {"membar", decode_membar},
    {"fence", decode_fence},
    {"prefetch", decode_prefetch},
    {"prefetchu", decode_prefetch},
    {"createpolicy", decode_createpolicy},
    {NULL, NULL},
};
