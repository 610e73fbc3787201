/* From kernels to an object file: modules, functions, debug lines, LLVM's passes and its writer.
 *
 * The output depends on nothing but the arguments: no directories, no times, no host features. */
#include "codegen/cpu/emit.h"
#include "runtime/artifact.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char triple[] = "x86_64-unknown-linux-gnu";

static void initialize_llvm(void) {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    /* The emitters place instructions where the registers last: AVX2's 16 are all taken in the
     * matmul's inner loop. These two passes would change that order, for models of processors that
     * gain nothing from it, and spill. */
    static const char *const options[] = {"modelcc", "-enable-misched=false",
                                          "-x86-machine-combiner=false"};
    LLVMParseCommandLineOptions(3, options, NULL);
}

static void initialize_llvm_once(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialize_llvm);
}

/* --- modules -----------------------------------------------------------------------------------
 */

/* Everything that lives for one object. */
typedef struct unit {
    LLVMContextRef context;
    LLVMModuleRef module;
    LLVMBuilderRef builder;
    LLVMDIBuilderRef debug;
    LLVMMetadataRef file, subroutine;
    LLVMTargetMachineRef machine;
} unit;

static LLVMTargetMachineRef create_machine(const cg_cpu_target *target, int level, ir_diag *diag) {
    LLVMTargetRef llvm_target;
    char *message = NULL;
    if (LLVMGetTargetFromTriple(triple, &llvm_target, &message)) {
        ir_internal_error(diag, target->name, "LLVM does not know the triple %s: %s", triple,
                          message);
        LLVMDisposeMessage(message);
        return NULL;
    }
    LLVMTargetMachineRef machine =
        LLVMCreateTargetMachine(llvm_target, triple, target->llvm_cpu, target->features,
                                (LLVMCodeGenOptLevel)level, LLVMRelocPIC, LLVMCodeModelDefault);
    if (!machine)
        ir_internal_error(diag, target->name, "LLVM cannot generate code for processor %s",
                          target->llvm_cpu);
    return machine;
}

static void flag(unit *u, const char *name, LLVMModuleFlagBehavior behavior, unsigned value) {
    LLVMValueRef v = LLVMConstInt(LLVMInt32TypeInContext(u->context), value, false);
    LLVMAddModuleFlag(u->module, behavior, name, strlen(name), LLVMValueAsMetadata(v));
}

static bool unit_open(unit *u, const cg_cpu_target *target, int level, ir_diag *diag) {
    *u = (unit){0};
    initialize_llvm_once();
    u->machine = create_machine(target, level, diag);
    if (!u->machine)
        return false;
    u->context = LLVMContextCreate();
    u->module = LLVMModuleCreateWithNameInContext("kernels", u->context);
    u->builder = LLVMCreateBuilderInContext(u->context);
    LLVMSetTarget(u->module, triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(u->machine);
    LLVMSetModuleDataLayout(u->module, layout);
    LLVMDisposeTargetData(layout);
    flag(u, "PIC Level", LLVMModuleFlagBehaviorWarning, 2);
    return true;
}

static void unit_close(unit *u) {
    if (u->debug)
        LLVMDisposeDIBuilder(u->debug);
    if (u->builder)
        LLVMDisposeBuilder(u->builder);
    if (u->module)
        LLVMDisposeModule(u->module);
    if (u->context)
        LLVMContextDispose(u->context);
    if (u->machine)
        LLVMDisposeTargetMachine(u->machine);
}

static void open_debug_info(unit *u, const char *file) {
    u->debug = LLVMCreateDIBuilder(u->module);
    LLVMSetSourceFileName(u->module, file, strlen(file));
    u->file = LLVMDIBuilderCreateFile(u->debug, file, strlen(file), "", 0);
    LLVMDIBuilderCreateCompileUnit(u->debug, LLVMDWARFSourceLanguageC, u->file, "modelcc", 7, true,
                                   "", 0, 0, "", 0, LLVMDWARFEmissionFull, 0, false, false, "", 0,
                                   "", 0);
    u->subroutine = LLVMDIBuilderCreateSubroutineType(u->debug, u->file, NULL, 0, LLVMDIFlagZero);
    flag(u, "Debug Info Version", LLVMModuleFlagBehaviorWarning, LLVMDebugMetadataVersion());
    flag(u, "Dwarf Version", LLVMModuleFlagBehaviorWarning, 4);
}

static bool verify(unit *u, ir_diag *diag) {
    char *message = NULL;
    bool broken = LLVMVerifyModule(u->module, LLVMReturnStatusAction, &message);
    if (broken)
        ir_internal_error(diag, "cpu", "invalid LLVM IR was generated: %s", message);
    LLVMDisposeMessage(message);
    return !broken;
}

static bool optimize(unit *u, int level, ir_diag *diag) {
    static const char *const pipelines[] = {"default<O0>", "default<O1>", "default<O2>",
                                            "default<O3>"};
    LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
    /* The code is vectors already; these passes would only look for what is not there. */
    LLVMPassBuilderOptionsSetLoopVectorization(options, false);
    LLVMPassBuilderOptionsSetSLPVectorization(options, false);
    LLVMErrorRef error = LLVMRunPasses(u->module, pipelines[level], u->machine, options);
    LLVMDisposePassBuilderOptions(options);
    if (!error)
        return true;
    char *message = LLVMGetErrorMessage(error);
    ir_internal_error(diag, "cpu", "LLVM's passes failed: %s", message);
    LLVMDisposeErrorMessage(message);
    return false;
}

static bool write_text(unit *u, const cg_cpu_options *options, ir_diag *diag) {
    if (options->emit_llvm) {
        char *text = LLVMPrintModuleToString(u->module);
        fputs(text, options->emit_llvm);
        LLVMDisposeMessage(text);
    }
    if (!options->emit_asm)
        return true;
    /* The writer changes the module it writes, so the assembly is made from a copy. */
    LLVMModuleRef copy = LLVMCloneModule(u->module);
    LLVMMemoryBufferRef buffer = NULL;
    char *message = NULL;
    bool failed =
        LLVMTargetMachineEmitToMemoryBuffer(u->machine, copy, LLVMAssemblyFile, &message, &buffer);
    if (failed) {
        ir_internal_error(diag, "cpu", "LLVM cannot write assembly: %s", message);
        LLVMDisposeMessage(message);
    } else {
        fwrite(LLVMGetBufferStart(buffer), 1, LLVMGetBufferSize(buffer), options->emit_asm);
        LLVMDisposeMemoryBuffer(buffer);
    }
    LLVMDisposeModule(copy);
    return !failed;
}

static bool write_object(unit *u, ir_diag *diag, cg_object *out) {
    LLVMMemoryBufferRef buffer = NULL;
    char *message = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(u->machine, u->module, LLVMObjectFile, &message,
                                            &buffer)) {
        ir_internal_error(diag, "cpu", "LLVM cannot write the object file: %s", message);
        LLVMDisposeMessage(message);
        return false;
    }
    out->size = LLVMGetBufferSize(buffer);
    out->bytes = malloc(out->size);
    if (out->bytes)
        memcpy(out->bytes, LLVMGetBufferStart(buffer), out->size);
    LLVMDisposeMemoryBuffer(buffer);
    return out->bytes ||
           ir_error(diag, "cpu", "out of memory for an object file of %zu bytes", out->size);
}

/* --- functions ---------------------------------------------------------------------------------
 */

static void fill_types(cg_cpu_emitter *em) {
    LLVMContextRef c = em->context;
    em->void_type = LLVMVoidTypeInContext(c);
    em->ptr = LLVMPointerTypeInContext(c, 0);
    em->i1 = LLVMInt1TypeInContext(c);
    em->i8 = LLVMInt8TypeInContext(c);
    em->i16 = LLVMInt16TypeInContext(c);
    em->i32 = LLVMInt32TypeInContext(c);
    em->i64 = LLVMInt64TypeInContext(c);
    em->f16 = LLVMHalfTypeInContext(c);
    em->f32 = LLVMFloatTypeInContext(c);
    em->f64 = LLVMDoubleTypeInContext(c);
    em->f32x16 = LLVMVectorType(em->f32, CG_CPU_LANES);
    em->i32x16 = LLVMVectorType(em->i32, CG_CPU_LANES);
    em->i1x16 = LLVMVectorType(em->i1, CG_CPU_LANES);
}

static void add_attribute(cg_cpu_emitter *em, LLVMAttributeIndex at, const char *name,
                          uint64_t value) {
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    LLVMAddAttributeAtIndex(em->function, at, LLVMCreateEnumAttribute(em->context, kind, value));
}

static void add_text_attribute(cg_cpu_emitter *em, const char *name, const char *value) {
    LLVMAddAttributeAtIndex(em->function, LLVMAttributeFunctionIndex,
                            LLVMCreateStringAttribute(em->context, name, (unsigned)strlen(name),
                                                      value, (unsigned)strlen(value)));
}

static LLVMTypeRef kernel_type(LLVMContextRef context) {
    LLVMTypeRef ptr = LLVMPointerTypeInContext(context, 0);
    LLVMTypeRef i64 = LLVMInt64TypeInContext(context);
    LLVMTypeRef parameters[] = {ptr, i64, i64, ptr};
    return LLVMFunctionType(LLVMVoidTypeInContext(context), parameters, 4, false);
}

static void create_function(cg_cpu_emitter *em, unit *u, const char *symbol) {
    em->function = LLVMAddFunction(em->module, symbol, kernel_type(em->context));
    LLVMSetVisibility(em->function, LLVMHiddenVisibility);
    add_attribute(em, LLVMAttributeFunctionIndex, "nounwind", 0);
    add_attribute(em, LLVMAttributeFunctionIndex, "uwtable", 2);
    add_text_attribute(em, "target-cpu", em->target->llvm_cpu);
    add_text_attribute(em, "target-features", em->target->features);
    add_text_attribute(em, "frame-pointer", "none");
    /* No call of memset or memcpy may appear: artifacts link against nothing. */
    add_text_attribute(em, "no-builtins", "");
    if (em->target->avx512) {
        add_text_attribute(em, "prefer-vector-width", "512");
        add_text_attribute(em, "min-legal-vector-width", "512");
    }
    static const char *const call_attributes[] = {"noalias", "readonly", "nocapture", "noundef"};
    for (int i = 0; i < 4; i++)
        add_attribute(em, 1, call_attributes[i], 0);
    add_attribute(em, 4, "noalias", 0);
    add_attribute(em, 4, "noundef", 0);
    add_attribute(em, 4, "align", 64);

    unsigned line = em->kernel->line > 0 ? (unsigned)em->kernel->line : 0;
    LLVMMetadataRef subprogram = LLVMDIBuilderCreateFunction(
        u->debug, u->file, em->kernel->name, strlen(em->kernel->name), symbol, strlen(symbol),
        u->file, line, u->subroutine, false, true, line, LLVMDIFlagZero, true);
    LLVMSetSubprogram(em->function, subprogram);
    LLVMSetCurrentDebugLocation2(
        em->builder, LLVMDIBuilderCreateDebugLocation(em->context, line, 0, subprogram, NULL));
}

static LLVMValueRef step_array(cg_cpu_emitter *em, size_t field) {
    LLVMValueRef at = cg_cpu_offset_const(em, em->step, (int64_t)field);
    LLVMValueRef offset = LLVMBuildZExt(em->builder, cg_cpu_load(em, em->i32, at, 4), em->i64, "");
    return cg_cpu_offset(em, em->step, offset);
}

/* Loads the call's fields in the entry block, and opens the body. */
static void emit_entry(cg_cpu_emitter *em) {
    em->entry = LLVMAppendBasicBlockInContext(em->context, em->function, "");
    LLVMBasicBlockRef body = LLVMAppendBasicBlockInContext(em->context, em->function, "");
    LLVMPositionBuilderAtEnd(em->builder, em->entry);
    LLVMValueRef call = LLVMGetParam(em->function, 0);
    em->tile_begin = LLVMGetParam(em->function, 1);
    em->tile_end = LLVMGetParam(em->function, 2);
    em->scratch = LLVMGetParam(em->function, 3);
    const size_t fields[] = {offsetof(mcc_cpu_call, step), offsetof(mcc_cpu_call, args),
                             offsetof(mcc_cpu_call, T), offsetof(mcc_cpu_call, S),
                             offsetof(mcc_cpu_call, R)};
    LLVMValueRef values[5];
    for (int i = 0; i < 5; i++)
        values[i] = cg_cpu_load(em, i < 2 ? em->ptr : em->i64,
                                cg_cpu_offset_const(em, call, (int64_t)fields[i]), 8);
    em->step = values[0];
    em->T = values[2];
    em->S = values[3];
    em->R = values[4];
    bool has_kv = false;
    for (int i = 0; i < em->kernel->n_args; i++) {
        LLVMValueRef at = cg_cpu_offset_const(em, values[1], (int64_t)i * (int64_t)sizeof(void *));
        em->args[i] = cg_cpu_load(em, em->ptr, at, 8);
        has_kv |= em->kernel->args[i].kind == CG_ARG_KV;
    }
    if (has_kv) {
        em->positions = step_array(em, offsetof(mcc_step, positions));
        em->token_seqs = step_array(em, offsetof(mcc_step, token_seqs));
        em->context_lens = step_array(em, offsetof(mcc_step, context_lens));
        em->page_tables = step_array(em, offsetof(mcc_step, page_tables));
        em->shared = cg_cpu_load(
            em, em->ptr, cg_cpu_offset_const(em, call, (int64_t)offsetof(mcc_cpu_call, shared)), 8);
        LLVMValueRef at = cg_cpu_offset_const(em, em->step, (int64_t)offsetof(mcc_step, P));
        em->P = LLVMBuildSExt(em->builder, cg_cpu_load(em, em->i32, at, 4), em->i64, "");
    }
    LLVMBuildBr(em->builder, body);
    LLVMPositionBuilderAtEnd(em->builder, body);
}

/* Pages have the geometry that this backend lays out: cg_cpu_pass_target's. */
static bool check_args(cg_cpu_emitter *em) {
    for (int i = 0; i < em->kernel->n_args; i++) {
        const cg_arg *arg = &em->kernel->args[i];
        if (arg->kind != CG_ARG_KV)
            continue;
        if (arg->kv.page_tokens != CG_CPU_LANES)
            return cg_cpu_unsupported(em, "argument %d has KV pages of %lld tokens, expected %d", i,
                                      (long long)arg->kv.page_tokens, CG_CPU_LANES);
        if (!ir_kv_dtype_ok(arg->kv.dtype))
            return cg_cpu_unsupported(em,
                                      "argument %d has KV pages of %s, expected f32, f16, i8 or "
                                      "f8e4m3",
                                      i, ir_dtype_name(arg->kv.dtype));
    }
    return true;
}

static bool emit_kernel(unit *u, const cg_kernel *kernel, const cg_cpu_target *target,
                        ir_diag *diag) {
    cg_cpu_emitter em = {.context = u->context,
                         .module = u->module,
                         .builder = u->builder,
                         .target = target,
                         .kernel = kernel,
                         .diag = diag};
    size_t length = strlen(kernel->name) + strlen(target->suffix) + 2;
    char *symbol = malloc(length);
    em.args = calloc((size_t)kernel->n_args + 1, sizeof(LLVMValueRef));
    bool ok = symbol && em.args;
    if (!ok) {
        ir_error(diag, kernel->name, "out of memory while generating code");
    } else if ((ok = check_args(&em))) {
        snprintf(symbol, length, "%s.%s", kernel->name, target->suffix);
        fill_types(&em);
        create_function(&em, u, symbol);
        emit_entry(&em);
        ok = kernel->anchor == CG_ANCHOR_MATMUL      ? cg_cpu_emit_matmul(&em)
             : kernel->anchor == CG_ANCHOR_ATTENTION ? cg_cpu_emit_attention(&em)
             : kernel->anchor == CG_ANCHOR_SAMPLE    ? true /* see cg_cpu_tiling */
                                                     : cg_cpu_emit_rows(&em);
        LLVMBuildRetVoid(em.builder);
    }
    free(em.args);
    free(symbol);
    return ok;
}

/* --- entry points ------------------------------------------------------------------------------
 */

bool cg_cpu_compile(const cg_kernel *const *kernels, int n_kernels, const cg_cpu_target *target,
                    const cg_cpu_options *options, ir_diag *diag, cg_object *out) {
    static const cg_cpu_options defaults = {.opt_level = 2};
    *out = (cg_object){0};
    if (!options)
        options = &defaults;
    int level = options->opt_level < 0 ? 0 : options->opt_level > 3 ? 3 : options->opt_level;
    unit u;
    bool ok = unit_open(&u, target, level, diag);
    if (ok) {
        open_debug_info(&u, options->graph_file ? options->graph_file : "model.ir");
        /* All kernels are tried, so that every unsupported one is reported. */
        for (int i = 0; i < n_kernels; i++)
            ok &= emit_kernel(&u, kernels[i], target, diag);
        LLVMDIBuilderFinalize(u.debug);
    }
    ok = ok && verify(&u, diag) && optimize(&u, level, diag) && write_text(&u, options, diag) &&
         write_object(&u, diag, out);
    unit_close(&u);
    return ok;
}

/* A constant of its own, private to the object. */
static LLVMValueRef private_global(unit *u, LLVMValueRef value, const char *name) {
    LLVMValueRef global = LLVMAddGlobal(u->module, LLVMTypeOf(value), name);
    LLVMSetInitializer(global, value);
    LLVMSetGlobalConstant(global, true);
    LLVMSetLinkage(global, LLVMPrivateLinkage);
    return global;
}

/* mcc_target_code of one target. */
static LLVMValueRef target_code(unit *u, const cg_kernel *const *kernels, int n_kernels,
                                const cg_cpu_target *target, LLVMValueRef *symbols, char *name,
                                size_t name_size) {
    LLVMContextRef c = u->context;
    LLVMTypeRef ptr = LLVMPointerTypeInContext(c, 0);
    for (int i = 0; i < n_kernels; i++) {
        snprintf(name, name_size, "%s.%s", kernels[i]->name, target->suffix);
        LLVMValueRef function = LLVMGetNamedFunction(u->module, name);
        if (!function)
            function = LLVMAddFunction(u->module, name, kernel_type(c));
        LLVMSetVisibility(function, LLVMHiddenVisibility);
        symbols[i] = function;
    }
    LLVMValueRef table = LLVMConstArray2(ptr, symbols, (uint64_t)n_kernels);
    LLVMValueRef text = LLVMConstStringInContext2(c, target->name, strlen(target->name), false);
    LLVMValueRef fields[] = {
        private_global(u, text, "name"),
        LLVMConstInt(LLVMInt64TypeInContext(c), target->cpu_features, false),
        LLVMConstInt(LLVMInt32TypeInContext(c), (unsigned)n_kernels, false),
        LLVMConstInt(LLVMInt32TypeInContext(c), 0, false),
        private_global(u, table, "kernels"),
    };
    return LLVMConstStructInContext(c, fields, 5, false);
}

bool cg_cpu_compile_descriptor(const cg_kernel *const *kernels, int n_kernels,
                               const cg_cpu_target *const *targets, int n_targets, ir_diag *diag,
                               cg_object *out) {
    *out = (cg_object){0};
    size_t longest = 0;
    for (int i = 0; i < n_kernels; i++)
        longest = strlen(kernels[i]->name) > longest ? strlen(kernels[i]->name) : longest;
    size_t name_size = longest + 64;
    char *name = malloc(name_size);
    LLVMValueRef *symbols = calloc((size_t)n_kernels + 1, sizeof *symbols);
    LLVMValueRef *codes = calloc((size_t)n_targets + 1, sizeof *codes);
    unit u = {0};
    bool ok = name && symbols && codes;
    if (!ok)
        ir_error(diag, "cpu", "out of memory while writing the descriptor");
    ok = ok && unit_open(&u, n_targets ? targets[0] : cg_cpu_targets(&(int){0}), 0, diag);
    if (ok) {
        for (int i = 0; i < n_targets; i++)
            codes[i] = target_code(&u, kernels, n_kernels, targets[i], symbols, name, name_size);
        LLVMTypeRef i32 = LLVMInt32TypeInContext(u.context);
        LLVMValueRef list = LLVMConstNull(LLVMPointerTypeInContext(u.context, 0));
        if (n_targets)
            list = private_global(
                &u, LLVMConstArray2(LLVMTypeOf(codes[0]), codes, (uint64_t)n_targets), "targets");
        LLVMValueRef fields[] = {
            LLVMConstInt(i32, MCC_ARTIFACT_VERSION, false),
            LLVMConstInt(i32, (unsigned)n_targets, false),
            list,
        };
        LLVMValueRef descriptor = LLVMConstStructInContext(u.context, fields, 3, false);
        LLVMValueRef global =
            LLVMAddGlobal(u.module, LLVMTypeOf(descriptor), MCC_DESCRIPTOR_SYMBOL);
        LLVMSetInitializer(global, descriptor);
        LLVMSetGlobalConstant(global, true);
        ok = verify(&u, diag) && write_object(&u, diag, out);
    }
    unit_close(&u);
    free(codes);
    free(symbols);
    free(name);
    return ok;
}

cg_tiling cg_cpu_tiling(const cg_kernel *kernel) {
    switch (kernel->anchor) {
    case CG_ANCHOR_MATMUL:
        return cg_cpu_matmul_tiling(kernel);
    case CG_ANCHOR_ATTENTION:
        return cg_cpu_attention_tiling(kernel);
    case CG_ANCHOR_SAMPLE: /* none: logits are in the host's memory, and the runtime samples */
        return (cg_tiling){.div = 1, .mult = 1};
    default:
        return cg_cpu_rows_tiling(kernel);
    }
}

int64_t cg_cpu_shared_bytes(const cg_kernel *kernel) {
    return kernel->anchor == CG_ANCHOR_ATTENTION ? cg_cpu_attention_shared(kernel) : 0;
}

int64_t cg_cpu_scratch_bytes(const cg_kernel *kernel) {
    switch (kernel->anchor) {
    case CG_ANCHOR_MATMUL:
        return cg_cpu_matmul_scratch(kernel);
    case CG_ANCHOR_ATTENTION:
        return cg_cpu_attention_scratch(kernel);
    case CG_ANCHOR_SAMPLE:
        return 0;
    default:
        return cg_cpu_rows_scratch(kernel);
    }
}
