/* Branches, barriers, and instructions of whole warps. */
#include "runtime/emulator/ptx_decode.h"

static void decode_bra(ptx_decoder *d) {
    ptx_take(d, "uni");
    if (!ptx_count(d, 1, 1))
        return;
    ptx_jump_to(d, &d->s->operands[0], false);
    d->op.flow = EMU_FLOW_BRA;
    ptx_handler(d, EMU_KIND_CONTROL, "bra");
}

static void decode_brx(ptx_decoder *d) {
    ptx_take(d, "uni");
    if (!ptx_take(d, "idx") || !ptx_count(d, 2, 2))
        return;
    d->op.a = ptx_source(d, 0, PTX_U32);
    ptx_jump_to(d, &d->s->operands[1], true);
    d->op.flow = EMU_FLOW_BRX;
    ptx_handler(d, EMU_KIND_CONTROL, "brx");
}

static void decode_plain(ptx_decoder *d, emu_kind kind, const char *handler) {
    if (ptx_count(d, 0, 0))
        ptx_handler(d, kind, "%s", handler);
}
static void decode_ret(ptx_decoder *d) {
    ptx_take(d, "uni");
    d->op.flow = EMU_FLOW_RET;
    decode_plain(d, EMU_KIND_CONTROL, "ret");
}
static void decode_trap(ptx_decoder *d) {
    decode_plain(d, EMU_KIND_CONTROL, "trap");
}
static void decode_nanosleep(ptx_decoder *d) {
    if (ptx_take_type(d) == PTX_U32 && ptx_count(d, 1, 1))
        ptx_source(d, 0, PTX_U32);
    ptx_handler(d, EMU_KIND_CONTROL, "pause");
}
static void decode_griddepcontrol(ptx_decoder *d) {
    if (ptx_take_of(d, "wait launch_dependents") < 0)
        ptx_refuse(d, "is .wait or .launch_dependents");
    decode_plain(d, EMU_KIND_CONTROL, "nothing");
}

/* bar.warp.sync members; bar{.cta}.sync a{, b}; .arrive a, b; .red.and|or|popc d, a{, b}, p. */
static void decode_bar(ptx_decoder *d) {
    if (ptx_take(d, "warp")) {
        if (!ptx_take(d, "sync") || !ptx_count(d, 1, 1))
            ptx_refuse(d, "is bar.warp.sync");
        else
            d->op.b = ptx_source(d, 0, PTX_B32);
        ptx_handler(d, EMU_KIND_WARP, "warp.sync");
        return;
    }
    ptx_take(d, "cta");
    ptx_take(d, "aligned");
    int what = ptx_take_of(d, "sync arrive red");
    int n = d->s->n_operands;
    d->op.sub = (uint8_t)what;
    int first = 0;
    if (what == 2) {
        int how = ptx_take_of(d, "and or popc");
        ptx_type type = ptx_take_type(d);
        if (how < 0 || type != (how == 2 ? PTX_U32 : PTX_PRED) || n < 3 || n > 4) {
            ptx_refuse(d, "this reduction");
            return;
        }
        d->op.sub = (uint8_t)(2 + how);
        d->op.d = how == 2 ? ptx_target(d, 0, PTX_U32) : ptx_predicate_target(d, 0);
        d->op.c = ptx_predicate(d, n - 1, 4);
        first = 1;
        n--;
    }
    if (what < 0 || n - first < 1 || n - first > 2 || (what == 1 && n - first != 2)) {
        ptx_refuse(d, "has %d operands", d->s->n_operands);
        return;
    }
    d->op.a = ptx_source(d, first, PTX_U32);
    if (n - first == 2)
        d->op.b = ptx_source(d, first + 1, PTX_U32);
    ptx_handler(d, EMU_KIND_BARRIER, "bar");
}

/* --- warps ---------------------------------------------------------------------------------------
 */

static void decode_shfl(ptx_decoder *d) {
    bool sync = ptx_take(d, "sync");
    int how = ptx_take_of(d, "up down bfly idx");
    if (ptx_take_type(d) != PTX_B32 || !sync || how < 0 || !ptx_count(d, 5, 5)) {
        ptx_refuse(d, "is shfl.sync of .b32, .up, .down, .bfly or .idx");
        return;
    }
    d->op.sub = (uint8_t)how;
    d->op.d = ptx_target(d, 0, PTX_B32);
    d->op.b = ptx_second_target(d, 0);
    d->op.a = ptx_source(d, 1, PTX_B32);
    ptx_list_add(d, ptx_source(d, 2, PTX_B32));
    d->op.c = ptx_source(d, 3, PTX_B32);
    ptx_list_add(d, ptx_source(d, 4, PTX_B32));
    ptx_handler(d, EMU_KIND_WARP, "shfl");
}

static void decode_vote(ptx_decoder *d) {
    bool sync = ptx_take(d, "sync");
    int how = ptx_take_of(d, "all any uni ballot");
    ptx_type type = ptx_take_type(d);
    if (!sync || how < 0 || type != (how == 3 ? PTX_B32 : PTX_PRED) || !ptx_count(d, 3, 3)) {
        ptx_refuse(d, "is vote.sync, .all, .any or .uni of .pred, or .ballot of .b32");
        return;
    }
    d->op.sub = (uint8_t)how;
    d->op.d = how == 3 ? ptx_target(d, 0, PTX_B32) : ptx_predicate_target(d, 0);
    d->op.a = ptx_predicate(d, 1, 1);
    d->op.b = ptx_source(d, 2, PTX_B32);
    ptx_handler(d, EMU_KIND_WARP, "vote");
}

static void decode_match(ptx_decoder *d) {
    int how = ptx_take_of(d, "any all");
    bool sync = ptx_take(d, "sync");
    ptx_type type = ptx_take_type(d);
    if (!sync || how < 0 || (type != PTX_B32 && type != PTX_B64) || !ptx_count(d, 3, 3)) {
        ptx_refuse(d, "is match.any.sync or match.all.sync of .b32 or .b64");
        return;
    }
    d->op.sub = (uint8_t)how;
    d->op.d = ptx_target(d, 0, PTX_B32);
    d->op.c = ptx_second_target(d, 0);
    d->op.a = ptx_source(d, 1, type);
    d->op.b = ptx_source(d, 2, PTX_B32);
    d->op.width = (uint8_t)ptx_type_bits(type);
    ptx_handler(d, EMU_KIND_WARP, "match");
}

static void decode_redux(ptx_decoder *d) {
    bool sync = ptx_take(d, "sync");
    int how = ptx_take_of(d, "add min max and or xor");
    ptx_type type = ptx_take_type(d);
    bool good = how < 3 ? type == PTX_S32 || type == PTX_U32 : type == PTX_B32;
    if (!sync || how < 0 || !good || !ptx_count(d, 3, 3)) {
        ptx_refuse(d, "is redux.sync of .s32, .u32 or .b32");
        return;
    }
    d->op.sub = (uint8_t)how;
    d->op.sign = type == PTX_S32;
    d->op.d = ptx_target(d, 0, type);
    d->op.a = ptx_source(d, 1, type);
    d->op.b = ptx_source(d, 2, PTX_B32);
    ptx_handler(d, EMU_KIND_WARP, "redux");
}

static void decode_activemask(ptx_decoder *d) {
    if (ptx_take_type(d) == PTX_B32 && ptx_count(d, 1, 1))
        d->op.d = ptx_target(d, 0, PTX_B32);
    ptx_handler(d, EMU_KIND_WARP, "activemask");
}

static void decode_elect(ptx_decoder *d) {
    if (!ptx_take(d, "sync") || !ptx_count(d, 2, 2)) {
        ptx_refuse(d, "is elect.sync");
        return;
    }
    d->op.d = ptx_target(d, 0, PTX_B32);
    d->op.c = ptx_second_target(d, 0);
    d->op.b = ptx_source(d, 1, PTX_B32);
    if (d->op.c < 0)
        ptx_refuse(d, "without a predicate");
    ptx_handler(d, EMU_KIND_WARP, "elect");
}

/* --- tensor cores --------------------------------------------------------------------------------
 */

static int mma_type(ptx_type type) {
    switch (type) {
    case PTX_F16:
        return EMU_MMA_F16;
    case PTX_BF16:
        return EMU_MMA_BF16;
    case PTX_TF32:
        return EMU_MMA_TF32;
    case PTX_E4M3:
        return EMU_MMA_E4M3;
    case PTX_E5M2:
        return EMU_MMA_E5M2;
    case PTX_S8:
        return EMU_MMA_S8;
    case PTX_U8:
        return EMU_MMA_U8;
    case PTX_S4:
        return EMU_MMA_S4;
    case PTX_U4:
        return EMU_MMA_U4;
    case PTX_F32:
        return EMU_MMA_F32;
    case PTX_S32:
        return EMU_MMA_S32;
    default:
        return -1;
    }
}

static void list_fragment(ptx_decoder *d, int i, int n, ptx_type type, bool target) {
    const ptx_operand *operand = &d->s->operands[i];
    if (operand->kind != PTX_OPERAND_VECTOR ? n != 1 : operand->count != (uint32_t)n) {
        ptx_refuse(d, "operand %d has not %d registers", i + 1, n);
        return;
    }
    for (int k = 0; k < n; k++) {
        const ptx_operand *e = operand->kind == PTX_OPERAND_VECTOR
                                   ? &d->s->elements[operand->first + (uint32_t)k]
                                   : operand;
        ptx_list_add(d, target ? ptx_target_of(d, e, type) : ptx_source_of(d, e, type));
    }
}

/* mma.sync.aligned.m16n8k16.row.col{.satfinite}{.kind::f8f6f4}.d.a.b.c d, a, b, c */
static void decode_mma(ptx_decoder *d) {
    static const uint8_t ks[] = {4, 8, 16, 32, 64};
    bool good = ptx_take(d, "sync");
    good &= ptx_take(d, "aligned");
    int k = ptx_take_of(d, "m16n8k4 m16n8k8 m16n8k16 m16n8k32 m16n8k64");
    good &= ptx_take(d, "row");
    good &= ptx_take(d, "col");
    ptx_take(d, "kind::f8f6f4"); /* of e4m3 and e5m2 the same */
    emu_mma_op m = {.satfinite = ptx_take(d, "satfinite")};
    ptx_type types[4];
    for (int i = 0; i < 4; i++)
        types[i] = ptx_take_type(d);
    int n_a, n_b, n_cd, a = mma_type(types[1]), b = mma_type(types[2]), c = mma_type(types[3]);
    good = good && k >= 0 && types[0] == types[3] && a >= 0 && b >= 0 && c >= 0;
    if (good) {
        m.k = ks[k];
        m.a = (uint8_t)a;
        m.b = (uint8_t)b;
        m.acc = (uint8_t)c;
        good = emu_mma_registers(&m, &n_a, &n_b, &n_cd);
    }
    if (!good || !ptx_count(d, 4, 4)) {
        ptx_refuse(d, "this shape or these types are not known");
        return;
    }
    ptx_type acc = c == EMU_MMA_F32 ? PTX_F32 : PTX_B32;
    emu_mma_op *kept = ptx_alloc(d->parser, sizeof *kept);
    *kept = m;
    d->op.extra = kept;
    list_fragment(d, 0, n_cd, acc, true);
    list_fragment(d, 1, n_a, PTX_B32, false);
    list_fragment(d, 2, n_b, PTX_B32, false);
    list_fragment(d, 3, n_cd, acc, false);
    ptx_handler(d, EMU_KIND_TENSOR, "mma");
}

static void decode_matrix(ptx_decoder *d, bool store) {
    bool good = ptx_take(d, "sync");
    good &= ptx_take(d, "aligned");
    good &= ptx_take(d, "m8n8");
    int n = ptx_take_of(d, "x1 x2 x4");
    bool trans = ptx_take(d, "trans");
    bool shared = ptx_take(d, "shared") || ptx_take(d, "shared::cta");
    if (!good || n < 0 || ptx_take_type(d) != PTX_B16 || !ptx_count(d, 2, 2)) {
        ptx_refuse(d, "is .sync.aligned.m8n8, .x1, .x2 or .x4, of .b16");
        return;
    }
    d->op.n = (uint8_t)(1 << n);
    d->op.sub = trans;
    list_fragment(d, store ? 1 : 0, d->op.n, PTX_B32, !store);
    ptx_address(d, store ? 0 : 1);
    d->op.space = shared ? EMU_SPACE_SHARED : EMU_SPACE_GENERIC;
    ptx_handler(d, EMU_KIND_SHARED, store ? "stmatrix" : "ldmatrix");
}
static void decode_ldmatrix(ptx_decoder *d) {
    decode_matrix(d, false);
}
static void decode_stmatrix(ptx_decoder *d) {
    decode_matrix(d, true);
}
static void decode_movmatrix(ptx_decoder *d) {
    bool good = ptx_take(d, "sync");
    good &= ptx_take(d, "aligned");
    good &= ptx_take(d, "m8n8");
    good &= ptx_take(d, "trans");
    if (!good || ptx_take_type(d) != PTX_B16 || !ptx_count(d, 2, 2)) {
        ptx_refuse(d, "is .sync.aligned.m8n8.trans.b16");
        return;
    }
    d->op.d = ptx_target(d, 0, PTX_B32);
    d->op.a = ptx_source(d, 1, PTX_B32);
    ptx_handler(d, EMU_KIND_TENSOR, "movmatrix");
}

const ptx_root ptx_control_roots[] = {
    {"bra", decode_bra},
    {"brx", decode_brx},
    {"ret", decode_ret},
    {"exit", decode_ret},
    {"trap", decode_trap},
    {"bar", decode_bar},
    {"barrier", decode_bar},
    {"nanosleep", decode_nanosleep},
    {"griddepcontrol", decode_griddepcontrol},
    {NULL, NULL},
};
const ptx_root ptx_warp_roots[] = {
    {"shfl", decode_shfl},
    {"vote", decode_vote},
    {"match", decode_match},
    {"redux", decode_redux},
    {"activemask", decode_activemask},
    {"elect", decode_elect},
    {"mma", decode_mma},
    {"ldmatrix", decode_ldmatrix},
    {"stmatrix", decode_stmatrix},
    {"movmatrix", decode_movmatrix},
    {NULL, NULL},
};
