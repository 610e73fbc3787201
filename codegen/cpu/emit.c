/* Helpers over the LLVM C API: constants, arithmetic, memory, control flow. */
#include "codegen/cpu/emit.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

enum { MAX_LANES = 64 };

bool cg_cpu_unsupported(cg_cpu_emitter *em, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ir_error(em->diag, em->kernel->name, "the CPU backend cannot generate this kernel: %s",
                    text);
}

/* --- constants and types -----------------------------------------------------------------------
 */

LLVMTypeRef cg_cpu_vector(LLVMTypeRef element, int lanes) {
    return LLVMVectorType(element, (unsigned)lanes);
}

LLVMValueRef cg_cpu_i32(cg_cpu_emitter *em, int64_t v) {
    return LLVMConstInt(em->i32, (unsigned long long)v & 0xffffffff, false);
}

LLVMValueRef cg_cpu_i64(cg_cpu_emitter *em, int64_t v) {
    return LLVMConstInt(em->i64, (unsigned long long)v, true);
}

LLVMValueRef cg_cpu_f32(cg_cpu_emitter *em, double v) {
    return LLVMConstReal(em->f32, (double)(float)v);
}

static LLVMValueRef const_splat(LLVMValueRef scalar, int lanes) {
    LLVMValueRef values[MAX_LANES];
    assert(lanes <= MAX_LANES);
    for (int i = 0; i < lanes; i++)
        values[i] = scalar;
    return LLVMConstVector(values, (unsigned)lanes);
}

LLVMValueRef cg_cpu_f32v(cg_cpu_emitter *em, double v) {
    return const_splat(cg_cpu_f32(em, v), CG_CPU_LANES);
}

LLVMValueRef cg_cpu_i32v(cg_cpu_emitter *em, int64_t v) {
    return const_splat(cg_cpu_i32(em, v), CG_CPU_LANES);
}

LLVMValueRef cg_cpu_ints(LLVMTypeRef element, int lanes, const int64_t *values) {
    LLVMValueRef constants[MAX_LANES];
    assert(lanes <= MAX_LANES);
    for (int i = 0; i < lanes; i++)
        constants[i] = LLVMConstInt(element, (unsigned long long)values[i], true);
    return LLVMConstVector(constants, (unsigned)lanes);
}

LLVMValueRef cg_cpu_iota(cg_cpu_emitter *em, int lanes) {
    int64_t values[MAX_LANES];
    assert(lanes <= MAX_LANES);
    for (int i = 0; i < lanes; i++)
        values[i] = i;
    return cg_cpu_ints(em->i32, lanes, values);
}

LLVMValueRef cg_cpu_dim(cg_cpu_emitter *em, ir_dim dim) {
    LLVMValueRef v = cg_cpu_i64(em, dim.c);
    v = cg_cpu_add(em, v, cg_cpu_mul_const(em, em->T, dim.t));
    v = cg_cpu_add(em, v, cg_cpu_mul_const(em, em->S, dim.s));
    return cg_cpu_add(em, v, cg_cpu_mul_const(em, em->R, dim.r));
}

/* --- arithmetic --------------------------------------------------------------------------------
 */

LLVMValueRef cg_cpu_add(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildNSWAdd(em->builder, a, b, "");
}

LLVMValueRef cg_cpu_sub(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildNSWSub(em->builder, a, b, "");
}

LLVMValueRef cg_cpu_mul(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildNSWMul(em->builder, a, b, "");
}

LLVMValueRef cg_cpu_add_const(cg_cpu_emitter *em, LLVMValueRef a, int64_t b) {
    return b == 0 ? a : cg_cpu_add(em, a, cg_cpu_i64(em, b));
}

LLVMValueRef cg_cpu_mul_const(cg_cpu_emitter *em, LLVMValueRef a, int64_t b) {
    return b == 0 ? cg_cpu_i64(em, 0) : b == 1 ? a : cg_cpu_mul(em, a, cg_cpu_i64(em, b));
}

LLVMValueRef cg_cpu_less(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildICmp(em->builder, LLVMIntSLT, a, b, "");
}

LLVMValueRef cg_cpu_min(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildSelect(em->builder, cg_cpu_less(em, a, b), a, b, "");
}

LLVMValueRef cg_cpu_max(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildSelect(em->builder, cg_cpu_less(em, a, b), b, a, "");
}

LLVMValueRef cg_cpu_intrinsic(cg_cpu_emitter *em, const char *name, int n_types, LLVMTypeRef *types,
                              int n_args, LLVMValueRef *args) {
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    assert(id);
    LLVMValueRef callee = LLVMGetIntrinsicDeclaration(em->module, id, types, (size_t)n_types);
    LLVMTypeRef type = LLVMIntrinsicGetType(em->context, id, types, (size_t)n_types);
    return LLVMBuildCall2(em->builder, type, callee, args, (unsigned)n_args, "");
}

LLVMValueRef cg_cpu_fma(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c) {
    LLVMTypeRef type = LLVMTypeOf(a);
    return cg_cpu_intrinsic(em, "llvm.fma", 1, &type, 3, (LLVMValueRef[]){a, b, c});
}

LLVMValueRef cg_cpu_splat(cg_cpu_emitter *em, LLVMValueRef scalar, int lanes) {
    LLVMTypeRef type = cg_cpu_vector(LLVMTypeOf(scalar), lanes);
    LLVMValueRef zero = cg_cpu_i32(em, 0), poison = LLVMGetPoison(type);
    LLVMValueRef one = LLVMBuildInsertElement(em->builder, poison, scalar, zero, "");
    return LLVMBuildShuffleVector(em->builder, one, poison, const_splat(zero, lanes), "");
}

LLVMValueRef cg_cpu_lane(cg_cpu_emitter *em, LLVMValueRef vector, int lane) {
    return LLVMBuildExtractElement(em->builder, vector, cg_cpu_i32(em, lane), "");
}

LLVMValueRef cg_cpu_shuffle(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b, int lanes,
                            const int *indices) {
    LLVMValueRef constants[MAX_LANES];
    assert(lanes <= MAX_LANES);
    for (int i = 0; i < lanes; i++)
        constants[i] = indices[i] < 0 ? LLVMGetPoison(em->i32) : cg_cpu_i32(em, indices[i]);
    return LLVMBuildShuffleVector(em->builder, a, b, LLVMConstVector(constants, (unsigned)lanes),
                                  "");
}

/* `element`, or a vector of it with as many lanes as v has. */
static LLVMTypeRef like(LLVMValueRef v, LLVMTypeRef element) {
    LLVMTypeRef type = LLVMTypeOf(v);
    return LLVMGetTypeKind(type) == LLVMVectorTypeKind
               ? LLVMVectorType(element, LLVMGetVectorSize(type))
               : element;
}

LLVMValueRef cg_cpu_f16_to_f32(cg_cpu_emitter *em, LLVMValueRef v) {
    return LLVMBuildFPExt(em->builder, v, like(v, em->f32), "");
}

/* As f16 a code has the same bits but for the exponent's bias. */
LLVMValueRef cg_cpu_e4m3_to_f32(cg_cpu_emitter *em, LLVMValueRef codes) {
    LLVMBuilderRef b = em->builder;
#define I16(n) cg_cpu_splat(em, LLVMConstInt(em->i16, n, 0), CG_CPU_LANES)
    LLVMValueRef v = LLVMBuildShl(b, codes, I16(8), "");
    v = LLVMBuildAnd(b, LLVMBuildAShr(b, v, I16(1), ""), I16(0xbf80), "");
#undef I16
    return cg_cpu_f16_to_f32(em, LLVMBuildBitCast(b, v, cg_cpu_vector(em->f16, CG_CPU_LANES), ""));
}

/* Of normal numbers the upper bits; below 2^-6 the steps are 2^-9, which are those of f32 at 2^14.
 */
LLVMValueRef cg_cpu_f32_to_e4m3(cg_cpu_emitter *em, LLVMValueRef v) {
    LLVMBuilderRef b = em->builder;
    v = cg_cpu_fmax(em, v, cg_cpu_f32v(em, -448));
    v = cg_cpu_fmin(em, v, cg_cpu_f32v(em, 448));
    LLVMValueRef bits = LLVMBuildBitCast(b, v, em->i32x16, "");
    LLVMValueRef sign = LLVMBuildLShr(b, bits, cg_cpu_i32v(em, 24), "");
    sign = LLVMBuildAnd(b, sign, cg_cpu_i32v(em, 0x80), "");
    bits = LLVMBuildAnd(b, bits, cg_cpu_i32v(em, 0x7fffffff), "");
    LLVMValueRef small = LLVMBuildICmp(b, LLVMIntULT, bits, cg_cpu_i32v(em, 0x3c800000), "");
    LLVMValueRef odd = LLVMBuildLShr(b, bits, cg_cpu_i32v(em, 20), "");
    odd = LLVMBuildAnd(b, odd, cg_cpu_i32v(em, 1), "");
    LLVMValueRef normal = LLVMBuildAdd(b, bits, cg_cpu_i32v(em, 0x7ffff), "");
    normal = LLVMBuildLShr(b, LLVMBuildAdd(b, normal, odd, ""), cg_cpu_i32v(em, 20), "");
    normal = LLVMBuildSub(b, normal, cg_cpu_i32v(em, (127 - 7) << 3), "");
    LLVMValueRef steps = LLVMBuildBitCast(b, bits, em->f32x16, "");
    steps = LLVMBuildFAdd(b, steps, cg_cpu_f32v(em, 0x1p14), "");
    steps = LLVMBuildBitCast(b, steps, em->i32x16, "");
    steps = LLVMBuildSub(b, steps, cg_cpu_i32v(em, 0x46800000), "");
    bits = LLVMBuildSelect(b, small, steps, normal, "");
    bits = LLVMBuildOr(b, bits, sign, "");
    return LLVMBuildTrunc(b, bits, cg_cpu_vector(em->i8, CG_CPU_LANES), "");
}

LLVMValueRef cg_cpu_f32_to_f16(cg_cpu_emitter *em, LLVMValueRef v) {
    return LLVMBuildFPTrunc(em->builder, v, like(v, em->f16), "");
}

/* The upper half of the bits, to nearest even; a NaN stays one (as ir_f32_to_bf16). */
static LLVMValueRef f32_to_bf16(cg_cpu_emitter *em, LLVMValueRef v) {
    LLVMBuilderRef b = em->builder;
    bool vector = LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind;
#define I32(n) (vector ? cg_cpu_i32v(em, n) : cg_cpu_i32(em, n))
    LLVMValueRef bits = LLVMBuildBitCast(b, v, like(v, em->i32), "");
    LLVMValueRef high = LLVMBuildLShr(b, bits, I32(16), "");
    LLVMValueRef odd = LLVMBuildAnd(b, high, I32(1), "");
    LLVMValueRef rounded = LLVMBuildAdd(b, LLVMBuildAdd(b, bits, I32(0x7fff), ""), odd, "");
    rounded = LLVMBuildLShr(b, rounded, I32(16), "");
    LLVMValueRef nan = LLVMBuildFCmp(b, LLVMRealUNO, v, v, "");
    rounded = LLVMBuildSelect(b, nan, LLVMBuildOr(b, high, I32(0x40), ""), rounded, "");
#undef I32
    return LLVMBuildTrunc(b, rounded, like(v, em->i16), "");
}

LLVMValueRef cg_cpu_narrow(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef v) {
    return dtype == IR_F16 ? cg_cpu_f32_to_f16(em, v) : dtype == IR_BF16 ? f32_to_bf16(em, v) : v;
}

LLVMValueRef cg_cpu_fmax(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    LLVMValueRef greater = LLVMBuildFCmp(em->builder, LLVMRealOGT, a, b, "");
    return LLVMBuildSelect(em->builder, greater, a, b, "");
}

LLVMValueRef cg_cpu_fmin(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b) {
    LLVMValueRef less = LLVMBuildFCmp(em->builder, LLVMRealOLT, a, b, "");
    return LLVMBuildSelect(em->builder, less, a, b, "");
}

/* The halving tree: lanes i and i+width for width 8, 4, 2, 1. */
static LLVMValueRef halve(cg_cpu_emitter *em, LLVMValueRef v, bool sum) {
    for (int width = 8; width >= 1; width /= 2) {
        int low[8], high[8];
        for (int i = 0; i < width; i++) {
            low[i] = i;
            high[i] = i + width;
        }
        LLVMValueRef a = cg_cpu_shuffle(em, v, v, width, low);
        LLVMValueRef b = cg_cpu_shuffle(em, v, v, width, high);
        v = sum ? LLVMBuildFAdd(em->builder, a, b, "") : cg_cpu_fmax(em, a, b);
    }
    return cg_cpu_lane(em, v, 0);
}

LLVMValueRef cg_cpu_sum16(cg_cpu_emitter *em, LLVMValueRef v) {
    return halve(em, v, true);
}

LLVMValueRef cg_cpu_max16(cg_cpu_emitter *em, LLVMValueRef v) {
    return halve(em, v, false);
}

/* --- memory ------------------------------------------------------------------------------------
 */

static LLVMValueRef alloca_in_entry(cg_cpu_emitter *em, LLVMTypeRef type) {
    LLVMBasicBlockRef here = LLVMGetInsertBlock(em->builder);
    LLVMValueRef first = LLVMGetFirstInstruction(em->entry);
    if (first)
        LLVMPositionBuilderBefore(em->builder, first);
    else
        LLVMPositionBuilderAtEnd(em->builder, em->entry);
    LLVMValueRef local = LLVMBuildAlloca(em->builder, type, "");
    LLVMSetAlignment(local, 64);
    LLVMPositionBuilderAtEnd(em->builder, here);
    return local;
}

LLVMValueRef cg_cpu_local(cg_cpu_emitter *em, LLVMTypeRef type) {
    return alloca_in_entry(em, type);
}

LLVMValueRef cg_cpu_local_bytes(cg_cpu_emitter *em, int64_t bytes) {
    return alloca_in_entry(em, LLVMArrayType2(em->i8, (uint64_t)bytes));
}

LLVMValueRef cg_cpu_offset(cg_cpu_emitter *em, LLVMValueRef ptr, LLVMValueRef bytes) {
    return LLVMBuildInBoundsGEP2(em->builder, em->i8, ptr, &bytes, 1, "");
}

LLVMValueRef cg_cpu_offset_const(cg_cpu_emitter *em, LLVMValueRef ptr, int64_t bytes) {
    return bytes == 0 ? ptr : cg_cpu_offset(em, ptr, cg_cpu_i64(em, bytes));
}

LLVMValueRef cg_cpu_load(cg_cpu_emitter *em, LLVMTypeRef type, LLVMValueRef ptr, int align) {
    LLVMValueRef v = LLVMBuildLoad2(em->builder, type, ptr, "");
    LLVMSetAlignment(v, (unsigned)align);
    return v;
}

void cg_cpu_store(cg_cpu_emitter *em, LLVMValueRef value, LLVMValueRef ptr, int align) {
    LLVMSetAlignment(LLVMBuildStore(em->builder, value, ptr), (unsigned)align);
}

void cg_cpu_prefetch(cg_cpu_emitter *em, LLVMValueRef ptr, int level) {
    LLVMTypeRef type = em->ptr; /* for reading, where to, data */
    LLVMValueRef args[] = {ptr, cg_cpu_i32(em, 0), cg_cpu_i32(em, 4 - level), cg_cpu_i32(em, 1)};
    cg_cpu_intrinsic(em, "llvm.prefetch", 1, &type, 4, args);
}

LLVMValueRef cg_cpu_load_index(cg_cpu_emitter *em, LLVMValueRef array, LLVMValueRef index) {
    LLVMValueRef at = cg_cpu_offset(em, array, cg_cpu_mul_const(em, index, 4));
    return LLVMBuildSExt(em->builder, cg_cpu_load(em, em->i32, at, 4), em->i64, "");
}

LLVMValueRef cg_cpu_load_masked(cg_cpu_emitter *em, LLVMTypeRef vector, LLVMValueRef ptr, int align,
                                LLVMValueRef mask) {
    if (!mask)
        return cg_cpu_load(em, vector, ptr, align);
    return cg_cpu_intrinsic(
        em, "llvm.masked.load", 2, (LLVMTypeRef[]){vector, em->ptr}, 4,
        (LLVMValueRef[]){ptr, cg_cpu_i32(em, align), mask, LLVMConstNull(vector)});
}

void cg_cpu_store_masked(cg_cpu_emitter *em, LLVMValueRef vector, LLVMValueRef ptr, int align,
                         LLVMValueRef mask) {
    if (!mask) {
        cg_cpu_store(em, vector, ptr, align);
        return;
    }
    cg_cpu_intrinsic(em, "llvm.masked.store", 2, (LLVMTypeRef[]){LLVMTypeOf(vector), em->ptr}, 4,
                     (LLVMValueRef[]){vector, ptr, cg_cpu_i32(em, align), mask});
}

LLVMValueRef cg_cpu_mask(cg_cpu_emitter *em, LLVMValueRef count) {
    /* 16-bit lanes after clamping would be fewer; 32-bit ones compare in one instruction. */
    LLVMValueRef clamped =
        cg_cpu_max(em, cg_cpu_min(em, count, cg_cpu_i64(em, CG_CPU_LANES)), cg_cpu_i64(em, 0));
    LLVMValueRef n = LLVMBuildTrunc(em->builder, clamped, em->i32, "");
    return LLVMBuildICmp(em->builder, LLVMIntSLT, cg_cpu_iota(em, CG_CPU_LANES),
                         cg_cpu_splat(em, n, CG_CPU_LANES), "");
}

LLVMValueRef cg_cpu_mask_const(cg_cpu_emitter *em, int64_t count) {
    int64_t bits[CG_CPU_LANES];
    for (int i = 0; i < CG_CPU_LANES; i++)
        bits[i] = i < count;
    return cg_cpu_ints(em->i1, CG_CPU_LANES, bits);
}

bool cg_cpu_can_load(ir_dtype dtype) {
    switch (dtype) {
    case IR_F32:
    case IR_F16:
    case IR_BF16:
    case IR_I32:
    case IR_I8:
    case IR_U8:
    case IR_BOOL:
        return true;
    default:
        return false;
    }
}

/* What an element looks like in memory. */
static LLVMTypeRef stored_type(cg_cpu_emitter *em, ir_dtype dtype) {
    switch (dtype) {
    case IR_F32:
        return em->f32;
    case IR_F16:
        return em->f16;
    case IR_BF16:
        return em->i16;
    case IR_I32:
        return em->i32;
    default:
        return em->i8;
    }
}

static LLVMValueRef widen(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef v) {
    switch (dtype) {
    case IR_F32:
        return v;
    case IR_F16:
        return cg_cpu_f16_to_f32(em, v);
    case IR_BF16: {
        LLVMTypeRef bits = like(v, em->i32);
        LLVMValueRef shift = like(v, em->i32) == em->i32 ? cg_cpu_i32(em, 16) : cg_cpu_i32v(em, 16);
        v = LLVMBuildShl(em->builder, LLVMBuildZExt(em->builder, v, bits, ""), shift, "");
        return LLVMBuildBitCast(em->builder, v, like(v, em->f32), "");
    }
    case IR_I32:
    case IR_I8:
        return LLVMBuildSIToFP(em->builder, v, like(v, em->f32), "");
    default:
        return LLVMBuildUIToFP(em->builder, v, like(v, em->f32), "");
    }
}

LLVMValueRef cg_cpu_load_f32x16(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef ptr,
                                LLVMValueRef mask) {
    LLVMTypeRef type = cg_cpu_vector(stored_type(em, dtype), CG_CPU_LANES);
    return widen(em, dtype, cg_cpu_load_masked(em, type, ptr, ir_dtype_bits(dtype) / 8, mask));
}

void cg_cpu_store_f32x16(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef value, LLVMValueRef ptr,
                         LLVMValueRef mask) {
    value = cg_cpu_narrow(em, dtype, value);
    cg_cpu_store_masked(em, value, ptr, ir_dtype_bits(dtype) / 8, mask);
}

LLVMValueRef cg_cpu_load_e4m3(cg_cpu_emitter *em, LLVMValueRef ptr, LLVMValueRef scale,
                              LLVMValueRef mask) {
    LLVMValueRef codes = cg_cpu_load_masked(em, cg_cpu_vector(em->i8, CG_CPU_LANES), ptr, 1, mask);
    codes = LLVMBuildZExt(em->builder, codes, cg_cpu_vector(em->i16, CG_CPU_LANES), "");
    scale = LLVMBuildFMul(em->builder, scale, cg_cpu_f32(em, 256), "");
    return LLVMBuildFMul(em->builder, cg_cpu_splat(em, scale, CG_CPU_LANES),
                         cg_cpu_e4m3_to_f32(em, codes), "");
}

LLVMValueRef cg_cpu_load_f32(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef ptr) {
    return widen(em, dtype, cg_cpu_load(em, stored_type(em, dtype), ptr, ir_dtype_bits(dtype) / 8));
}

/* --- control flow ------------------------------------------------------------------------------
 */

static LLVMBasicBlockRef new_block(cg_cpu_emitter *em) {
    return LLVMAppendBasicBlockInContext(em->context, em->function, "");
}

cg_cpu_loop cg_cpu_for(cg_cpu_emitter *em, LLVMValueRef begin, LLVMValueRef end, int64_t step) {
    LLVMBasicBlockRef before = LLVMGetInsertBlock(em->builder), body;
    cg_cpu_loop loop = {.step = step};
    loop.head = new_block(em);
    body = new_block(em);
    loop.exit = new_block(em);
    LLVMBuildBr(em->builder, loop.head);
    LLVMPositionBuilderAtEnd(em->builder, loop.head);
    loop.index = LLVMBuildPhi(em->builder, em->i64, "");
    LLVMAddIncoming(loop.index, &begin, &before, 1);
    LLVMBuildCondBr(em->builder, cg_cpu_less(em, loop.index, end), body, loop.exit);
    LLVMPositionBuilderAtEnd(em->builder, body);
    return loop;
}

void cg_cpu_end_for(cg_cpu_emitter *em, cg_cpu_loop *loop) {
    LLVMValueRef next = cg_cpu_add_const(em, loop->index, loop->step);
    LLVMBasicBlockRef last = LLVMGetInsertBlock(em->builder);
    LLVMAddIncoming(loop->index, &next, &last, 1);
    LLVMBuildBr(em->builder, loop->head);
    LLVMPositionBuilderAtEnd(em->builder, loop->exit);
}

cg_cpu_if cg_cpu_begin_if(cg_cpu_emitter *em, LLVMValueRef condition) {
    LLVMBasicBlockRef then = new_block(em);
    cg_cpu_if block = {.otherwise = new_block(em), .exit = new_block(em)};
    LLVMBuildCondBr(em->builder, condition, then, block.otherwise);
    LLVMPositionBuilderAtEnd(em->builder, then);
    return block;
}

void cg_cpu_else(cg_cpu_emitter *em, cg_cpu_if *block) {
    LLVMBuildBr(em->builder, block->exit);
    LLVMPositionBuilderAtEnd(em->builder, block->otherwise);
    block->has_else = true;
}

void cg_cpu_end_if(cg_cpu_emitter *em, cg_cpu_if *block) {
    LLVMBuildBr(em->builder, block->exit);
    if (!block->has_else) {
        LLVMPositionBuilderAtEnd(em->builder, block->otherwise);
        LLVMBuildBr(em->builder, block->exit);
    }
    LLVMPositionBuilderAtEnd(em->builder, block->exit);
}
