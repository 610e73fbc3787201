/* Emitting LLVM IR for one kernel: internal to codegen/cpu.
 *
 * Contents: the emitter · constants and types · arithmetic · memory · control flow · row programs ·
 * scalar operations · the anchors' schedules.
 *
 * Numerics are a contract (codegen/kernel.h): everything is written on <16 x float>, which LLVM
 * splits for AVX2, without fast-math flags, so that both levels of x86 compute the same bits. Fused
 * multiply-adds are asked for by name (cg_cpu_fma) and never appear by themselves. */
#ifndef MCC_CODEGEN_CPU_EMIT_H
#define MCC_CODEGEN_CPU_EMIT_H

#include "codegen/cpu/cpu.h"

#include <llvm-c/Core.h>
#include <llvm-c/DebugInfo.h>

/* Lanes of every vector that takes part in a reduction. */
enum { CG_CPU_LANES = 16 };

/* --- the emitter --------------------------------------------------------------------------------
 */

/* The function being built. Its signature is mcc_cpu_kernel's (runtime/step.h). The builder stands
 * where the next instruction goes; compile.c has already loaded the fields below in the entry. */
typedef struct cg_cpu_emitter {
    LLVMContextRef context;
    LLVMModuleRef module;
    LLVMBuilderRef builder;
    const cg_cpu_target *target;
    const cg_kernel *kernel;
    ir_diag *diag;

    LLVMTypeRef void_type, ptr, i1, i8, i16, i32, i64, f16, f32, f64;
    LLVMTypeRef f32x16, i32x16, i1x16;

    LLVMValueRef function;
    LLVMBasicBlockRef entry; /* holds the allocas (cg_cpu_local) */

    LLVMValueRef T, S, R;                      /* i64 */
    LLVMValueRef step;                         /* the step block */
    LLVMValueRef *args;                        /* pointers, in the kernel's order */
    LLVMValueRef tile_begin, tile_end;         /* i64 */
    LLVMValueRef scratch;                      /* this thread's, 64-byte aligned */
    LLVMValueRef operand, operand_row;         /* what CG_ARG_OPERAND names: rows of the matmul's x
                                                  from operand_row on; NULL without a prologue */
    LLVMValueRef positions, token_seqs;        /* i32 arrays of the step block; */
    LLVMValueRef context_lens, page_tables, P; /* NULL unless the kernel has a KV argument */
    LLVMValueRef shared;                       /* likewise; see mcc_cpu_call */
} cg_cpu_emitter;

/* Reports that the CPU backend cannot generate the kernel; returns false. */
bool cg_cpu_unsupported(cg_cpu_emitter *em, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* --- constants and types -------------------------------------------------------------------------
 */

LLVMTypeRef cg_cpu_vector(LLVMTypeRef element, int lanes);
LLVMValueRef cg_cpu_i32(cg_cpu_emitter *em, int64_t v);
LLVMValueRef cg_cpu_i64(cg_cpu_emitter *em, int64_t v);
LLVMValueRef cg_cpu_f32(cg_cpu_emitter *em, double v);   /* rounded to f32 */
LLVMValueRef cg_cpu_f32v(cg_cpu_emitter *em, double v);  /* in all 16 lanes */
LLVMValueRef cg_cpu_i32v(cg_cpu_emitter *em, int64_t v); /* in all 16 lanes */
/* A constant vector of `lanes` integers of an element type. */
LLVMValueRef cg_cpu_ints(LLVMTypeRef element, int lanes, const int64_t *values);
/* <lanes x i32> 0, 1, 2 … */
LLVMValueRef cg_cpu_iota(cg_cpu_emitter *em, int lanes);
/* c + t*T + s*S + r*R as i64 */
LLVMValueRef cg_cpu_dim(cg_cpu_emitter *em, ir_dim dim);

/* --- arithmetic ----------------------------------------------------------------------------------
 */

/* i64; constants fold. */
LLVMValueRef cg_cpu_add(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef cg_cpu_sub(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef cg_cpu_mul(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef cg_cpu_add_const(cg_cpu_emitter *em, LLVMValueRef a, int64_t b);
LLVMValueRef cg_cpu_mul_const(cg_cpu_emitter *em, LLVMValueRef a, int64_t b);
LLVMValueRef cg_cpu_min(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b); /* signed */
LLVMValueRef cg_cpu_max(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b);

/* Calls an intrinsic by name; `types` are its overloaded types (none for target intrinsics such as
 * llvm.x86.avx512.vpdpbusd.512). */
LLVMValueRef cg_cpu_intrinsic(cg_cpu_emitter *em, const char *name, int n_types, LLVMTypeRef *types,
                              int n_args, LLVMValueRef *args);
/* a*b + c rounded once; f32 or vectors of it. */
LLVMValueRef cg_cpu_fma(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c);
/* A scalar in all lanes. */
LLVMValueRef cg_cpu_splat(cg_cpu_emitter *em, LLVMValueRef scalar, int lanes);
/* The scalar in lane `lane`. */
LLVMValueRef cg_cpu_lane(cg_cpu_emitter *em, LLVMValueRef vector, int lane);
LLVMValueRef cg_cpu_shuffle(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b, int lanes,
                            const int *indices); /* -1: any value */
/* f16 bits (half, <n x half>) from and to f32, to nearest even. */
LLVMValueRef cg_cpu_f16_to_f32(cg_cpu_emitter *em, LLVMValueRef v);
LLVMValueRef cg_cpu_f32_to_f16(cg_cpu_emitter *em, LLVMValueRef v);
/* What 16 codes of f8e4m3, in the low bytes of <16 x i16>, stand for, times 2^-8. */
LLVMValueRef cg_cpu_e4m3_to_f32(cg_cpu_emitter *em, LLVMValueRef codes);
/* The nearest codes of <16 x float>, ties to even, at most 448 in magnitude: <16 x i8>. A NaN gives
 * -448. */
LLVMValueRef cg_cpu_f32_to_e4m3(cg_cpu_emitter *em, LLVMValueRef v);
/* 16 numbers of one group of a8_e4m3: `scale` (f32) times the codes at ptr; mask as of
 * cg_cpu_load_masked. */
LLVMValueRef cg_cpu_load_e4m3(cg_cpu_emitter *em, LLVMValueRef ptr, LLVMValueRef scale,
                              LLVMValueRef mask);
/* f32 to what memory holds of f32, f16 or bf16 (i16 bits), to nearest even. */
LLVMValueRef cg_cpu_narrow(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef v);
/* a > b ? a : b (a NaN gives b), the meaning of x86's maxps; likewise min. */
LLVMValueRef cg_cpu_fmax(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef cg_cpu_fmin(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b);
/* <16 x float> to one number: v[i] += v[i+8], then +4, +2, +1. */
LLVMValueRef cg_cpu_sum16(cg_cpu_emitter *em, LLVMValueRef v);
LLVMValueRef cg_cpu_max16(cg_cpu_emitter *em, LLVMValueRef v);

/* --- memory --------------------------------------------------------------------------------------
 */

/* Room in the function's frame for one value, 64-byte aligned, allocated once per call.
 * Loop-carried values live in locals; LLVM turns them into registers. */
LLVMValueRef cg_cpu_local(cg_cpu_emitter *em, LLVMTypeRef type);
LLVMValueRef cg_cpu_local_bytes(cg_cpu_emitter *em, int64_t bytes);
/* ptr + bytes (i64) */
LLVMValueRef cg_cpu_offset(cg_cpu_emitter *em, LLVMValueRef ptr, LLVMValueRef bytes);
LLVMValueRef cg_cpu_offset_const(cg_cpu_emitter *em, LLVMValueRef ptr, int64_t bytes);
LLVMValueRef cg_cpu_load(cg_cpu_emitter *em, LLVMTypeRef type, LLVMValueRef ptr, int align);
void cg_cpu_store(cg_cpu_emitter *em, LLVMValueRef value, LLVMValueRef ptr, int align);
/* Asks for the cache line at ptr, which need not exist, into the cache of `level` (1, 2 or 3) and
 * those behind it. */
void cg_cpu_prefetch(cg_cpu_emitter *em, LLVMValueRef ptr, int level);
/* i32 array[index] as i64 */
LLVMValueRef cg_cpu_load_index(cg_cpu_emitter *em, LLVMValueRef array, LLVMValueRef index);
/* Lanes whose mask bit is clear are not touched: they read as 0. mask NULL: all lanes. */
LLVMValueRef cg_cpu_load_masked(cg_cpu_emitter *em, LLVMTypeRef vector, LLVMValueRef ptr, int align,
                                LLVMValueRef mask);
void cg_cpu_store_masked(cg_cpu_emitter *em, LLVMValueRef vector, LLVMValueRef ptr, int align,
                         LLVMValueRef mask);
/* <16 x i1>: lanes below count (i64, may be 0 or negative or above 16). */
LLVMValueRef cg_cpu_mask(cg_cpu_emitter *em, LLVMValueRef count);
LLVMValueRef cg_cpu_mask_const(cg_cpu_emitter *em, int64_t count);
/* 16 consecutive elements of an element type as <16 x float>; false types are reported by
 * cg_cpu_can_load. */
bool cg_cpu_can_load(ir_dtype dtype);
LLVMValueRef cg_cpu_load_f32x16(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef ptr,
                                LLVMValueRef mask);
void cg_cpu_store_f32x16(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef value, LLVMValueRef ptr,
                         LLVMValueRef mask); /* dtype f32, f16 or bf16 */
/* One element as f32. */
LLVMValueRef cg_cpu_load_f32(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef ptr);

/* --- control flow --------------------------------------------------------------------------------
 */

/* for (index = begin; index < end; index += step) with i64 index:
 *     cg_cpu_loop loop = cg_cpu_for(em, begin, end, 1);
 *     … loop.index …
 *     cg_cpu_end_for(em, &loop); */
typedef struct cg_cpu_loop {
    LLVMValueRef index;
    LLVMBasicBlockRef head, exit;
    int64_t step;
} cg_cpu_loop;
cg_cpu_loop cg_cpu_for(cg_cpu_emitter *em, LLVMValueRef begin, LLVMValueRef end, int64_t step);
void cg_cpu_end_for(cg_cpu_emitter *em, cg_cpu_loop *loop);

/* if (condition) { … } [else { … }] */
typedef struct cg_cpu_if {
    LLVMBasicBlockRef otherwise, exit;
    bool has_else;
} cg_cpu_if;
cg_cpu_if cg_cpu_begin_if(cg_cpu_emitter *em, LLVMValueRef condition);
void cg_cpu_else(cg_cpu_emitter *em, cg_cpu_if *block);
void cg_cpu_end_if(cg_cpu_emitter *em, cg_cpu_if *block);

/* i1: a < b, signed i64. */
LLVMValueRef cg_cpu_less(cg_cpu_emitter *em, LLVMValueRef a, LLVMValueRef b);

/* --- row programs --------------------------------------------------------------------------------
 */

/* Groups of 32 columns that wait to be quantized, all to a8 or all to a8_e4m3, of one row or of
 * several: program.h. They must be flushed in the basic block that they were added in. */
enum { CG_CPU_A8_GROUPS = 4 };
typedef struct cg_cpu_a8_site {
    const ir_encoding *encoding;
    LLVMValueRef codes, scale;     /* addresses */
    LLVMValueRef scaled_sum, sums; /* … of a8 */
} cg_cpu_a8_site;
typedef struct cg_cpu_a8_queue {
    int n;
    cg_cpu_a8_site at[CG_CPU_A8_GROUPS];
    LLVMValueRef low[CG_CPU_A8_GROUPS], high[CG_CPU_A8_GROUPS]; /* <16 x float> */
} cg_cpu_a8_queue;
void cg_cpu_a8_flush(cg_cpu_emitter *em, cg_cpu_a8_queue *queue);

/* A piece of a row that a program is emitted for. */
typedef struct cg_cpu_chunk {
    LLVMValueRef row;       /* i64 */
    LLVMValueRef head;      /* i64 */
    LLVMValueRef first_col; /* i64, column of the program that the chunk begins with; a multiple of
                               16, and of 32 where the program stores a8 */
    int64_t n_cols;         /* the chunk's width. The whole row (first_col 0, n_cols = width) for
                               programs with REDUCE or ROTATE in halves */
    LLVMValueRef valid;     /* i64: columns of the chunk from here on do not exist: they are neither
                               loaded nor stored; NULL: all n_cols exist */
    LLVMValueRef inputs[2]; /* INPUT of each part: pointer to f32[n_cols rounded up to 16], 64-byte
                               aligned; NULL for rows kernels. Where n_cols <= CG_CPU_UNROLL the
                               program is straight-line code, and a cg_cpu_local stays in
                               registers */
    LLVMValueRef scratch;   /* cg_cpu_program_scratch(program, n_cols) bytes, 64-byte aligned;
                               NULL when that is 0 */
    cg_cpu_a8_queue *a8;    /* where straight-line code leaves the a8 that it stores, for the caller
                               to flush; NULL: it is stored */
} cg_cpu_chunk;

/* Chunks up to this many columns become straight-line code. */
enum { CG_CPU_UNROLL = 128 };

/* Emits the program's nodes and stores over the chunk. */
void cg_cpu_emit_program(cg_cpu_emitter *em, const cg_program *program, const cg_cpu_chunk *chunk);
/* Scratch bytes (a multiple of 64) for a chunk of n_cols columns. */
int64_t cg_cpu_program_scratch(const cg_program *program, int64_t n_cols);
/* Reports what of a program cannot be generated with chunks of n_cols columns (REDUCE over a piece
 * of a row, an element type, …). */
bool cg_cpu_check_program(cg_cpu_emitter *em, const cg_program *program, int64_t n_cols);

/* Page of the KV argument's layer in which this row's position lies, and the slot in it; NULL page
 * pointers never occur: *valid (i1) is false where the step has no page. */
void cg_cpu_row_page(cg_cpu_emitter *em, int kv_arg, LLVMValueRef row, LLVMValueRef *page,
                     LLVMValueRef *slot, LLVMValueRef *valid);
/* Entry of the page table as i64: page number of logical page `index` of sequence `seq`. */
LLVMValueRef cg_cpu_page_number(cg_cpu_emitter *em, int kv_group, LLVMValueRef seq,
                                LLVMValueRef index);

/* --- scalar operations ---------------------------------------------------------------------------
 */

/* One operation on f32 or <16 x float> operands (all of one type). */
LLVMValueRef cg_cpu_scalar(cg_cpu_emitter *em, cg_scalar_op op, LLVMValueRef *operands);
/* exp(x) within 1 ulp or so; exact for 0 (1), -inf (0), overflow (inf), underflow gradual. */
LLVMValueRef cg_cpu_exp(cg_cpu_emitter *em, LLVMValueRef x);
/* The same for x <= 0, for softmax: exp(x) below e^-87 is 0; a NaN stays one. */
LLVMValueRef cg_cpu_exp_nonpositive(cg_cpu_emitter *em, LLVMValueRef x);
LLVMValueRef cg_cpu_tanh(cg_cpu_emitter *em, LLVMValueRef x);

/* --- the anchors' schedules ----------------------------------------------------------------------
 */

/* Each emits the loop over tiles tile_begin … tile_end-1 and leaves the builder where the function
 * returns. False after reporting what is not supported. */
bool cg_cpu_emit_rows(cg_cpu_emitter *em);
bool cg_cpu_emit_attention(cg_cpu_emitter *em);
bool cg_cpu_emit_matmul(cg_cpu_emitter *em);

/* Their parts of cg_cpu_tiling and cg_cpu_scratch_bytes. */
cg_tiling cg_cpu_matmul_tiling(const cg_kernel *kernel);
int64_t cg_cpu_matmul_scratch(const cg_kernel *kernel);
cg_tiling cg_cpu_attention_tiling(const cg_kernel *kernel);
int64_t cg_cpu_attention_scratch(const cg_kernel *kernel);
int64_t cg_cpu_attention_shared(const cg_kernel *kernel);
cg_tiling cg_cpu_rows_tiling(const cg_kernel *kernel);
int64_t cg_cpu_rows_scratch(const cg_kernel *kernel);

#endif
