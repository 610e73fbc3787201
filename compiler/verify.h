/* Verifying an artifact's GPU code without a GPU: every launch of some steps runs on the emulated
 * GPU, with all its checks, on the inputs that the reference interpreter computed from the graph
 * inside the artifact, and its results are compared with the interpreter's; then the same steps run
 * in one piece, through the engine.
 *
 * It looks into the artifact through the runtime's own loader, not only through modelcc.h: what it
 * needs (GPU code, tables) is nobody else's business. */
#ifndef MCC_COMPILER_VERIFY_H
#define MCC_COMPILER_VERIFY_H

#include "codegen/artifact/program.h"
#include "codegen/error_bound.h"
#include "runtime/cuda_module.h"
#include "runtime/emulator/emulator.h"
#include "runtime/loader.h"

#include <stdatomic.h>

/* --- the model inside: verify_model.c ------------------------------------------------------------
 */

typedef struct verify_model {
    mcc_artifact *artifact;
    ir_arena *arena;
    ir_module *module; /* the fused graph, with weights */
    cg_program_list *program;
    /* What --against brought; NULL without. */
    struct fe_model *source;
    ir_module *source_module;
    int64_t weights_compared; /* with the source's, byte for byte */
} verify_model;

/* Opens an artifact and makes a graph of what it carries. Weights come from the artifact, restored
 * from their packing, or, where `against` names the model it was built from, from there: then the
 * graph must be the one that the model gives, and the artifact's weights must be the model's. False
 * after reporting; to be closed in either case. */
bool verify_model_open(verify_model *model, const char *path, const char *against, ir_diag *diag);
/* The same without weights: for looking at kernels, not for the interpreter. */
bool verify_model_open_graph(verify_model *model, const char *path, ir_diag *diag);
void verify_model_close(verify_model *model);

/* --- steps: verify_step.c ------------------------------------------------------------------------
 */

enum { VERIFY_SLOTS = 3, VERIFY_MAX_STEPS = 8 };

/* One step. */
typedef struct verify_step {
    const char *name; /* "prefill", "decode", … */
    ir_interp_step interp;
    mcc_step *block; /* the step block */
    float *logits;   /* the interpreter's, or rows for embeddings: [R][width]; once it has run */
    float *chained;  /* those of the architecture at hand, kernel by kernel */
} verify_step;

typedef struct verify_steps {
    int n;
    verify_step steps[VERIFY_MAX_STEPS];
    int32_t max_T, max_S, max_R;
    int32_t slots; /* sequences that have pages */
    int32_t pages; /* entries of a page table */
} verify_steps;

/* Prefill of one sequence of `tokens` tokens, decoding, a step of several sequences that does both,
 * and decoding of all of them. Ids are drawn from `seed`. In `arena`. */
void verify_steps_make(verify_steps *steps, const verify_model *model, int64_t tokens,
                       uint64_t seed, ir_arena *arena);

/* One step of `sequences` sequences of `tokens` tokens each, behind `held` positions that are said
 * to be there; the rows of all tokens are asked for, or of the last ones. In `arena`. */
void verify_steps_make_one(verify_steps *steps, const verify_model *model, int32_t sequences,
                           int32_t tokens, int32_t held, bool all_rows, ir_arena *arena);

/* --- the emulated GPU: verify_gpu.c --------------------------------------------------------------
 */

/* libcuda_emulator.so and what it exports beside the driver API. */
typedef struct verify_emulator {
    rt_cuda_driver driver;
    bool (*get_options)(modelcc_emulator_options *options);
    bool (*set_options)(const modelcc_emulator_options *options);
    const modelcc_emulator_gpu *(*gpu_row)(int i);
    size_t (*kernels)(modelcc_emulator_kernel *kernels, size_t capacity);
    void (*reset_counters)(void);
    modelcc_emulator_options options;
} verify_emulator;

bool verify_emulator_open(verify_emulator *emulator, ir_diag *diag);
void verify_emulator_close(verify_emulator *emulator);
bool verify_emulator_set(verify_emulator *emulator, ir_diag *diag); /* emulator->options */
/* A GPU that can run code for an architecture ("sm_90a": its own; else the first), or NULL. */
const modelcc_emulator_gpu *verify_emulator_find(const verify_emulator *emulator, uint32_t arch);
const modelcc_emulator_gpu *verify_emulator_named(const verify_emulator *emulator,
                                                  const char *name);

/* The artifact's GPU code on one emulated device. */
typedef struct verify_gpu {
    verify_emulator *emulator;
    const verify_model *model;
    const verify_steps *steps;
    const modelcc_emulator_gpu *row;
    int ordinal;
    CUdevice device;
    CUcontext context;
    CUstream stream;
    rt_cuda_code code; /* of its architecture; functions are counted in it */
    rt_cuda_modules modules;
    CUdeviceptr weights, arena, block, scratch, pools[8];
    uint64_t pool_bytes[8], arena_bytes;
    uint8_t *pool_copies[8]; /* what pools hold, for when the device has failed */
} verify_gpu;

/* Device `ordinal` of the emulator, which is a `row`. False after reporting. */
bool verify_gpu_open(verify_gpu *gpu, verify_emulator *emulator, const verify_model *model,
                     const verify_steps *steps, const modelcc_emulator_gpu *row, int ordinal,
                     ir_diag *diag);
void verify_gpu_close(verify_gpu *gpu);

/* A failed kernel takes the device with it: makes another one, whose caches hold what they held. */
bool verify_gpu_reopen(verify_gpu *gpu, ir_diag *diag);

/* Sends the step block, and forgets the activations of the step before. */
bool verify_gpu_begin(verify_gpu *gpu, const verify_step *step, ir_diag *diag);

/* The function of a kernel that the runtime takes for a step; of two that are one variant, the
 * second. */
uint32_t verify_gpu_choose(const verify_gpu *gpu, uint32_t kernel, const ir_interp_step *step);

/* Runs a variant of a launch's kernel to its end; false with the emulator's words in `error`. */
bool verify_gpu_launch(verify_gpu *gpu, uint32_t launch, uint32_t function, const verify_step *step,
                       char *error, size_t error_bytes);

/* Between the host and where an argument of a launch lies. */
bool verify_gpu_read(verify_gpu *gpu, const mcc_arg_entry *arg, const verify_step *step, void *to,
                     uint64_t bytes, ir_diag *diag);
bool verify_gpu_write(verify_gpu *gpu, const mcc_arg_entry *arg, const verify_step *step,
                      const void *from, uint64_t bytes, ir_diag *diag);
/* Bytes of a layer's pages in the pool of `arg`, a KV argument. */
uint64_t verify_gpu_layer_bytes(const verify_gpu *gpu, uint32_t group);
/* Notes what the pools hold. */
bool verify_gpu_keep_pools(verify_gpu *gpu, ir_diag *diag);

/* --- comparing: verify_compare.c -----------------------------------------------------------------
 */

/* What a kernel got right and wrong, over launches. */
typedef struct verify_count {
    int64_t values, wrong;
    int64_t close;      /* as near as most are that no quantization took to another code */
    double worst_error; /* largest |difference| */
    double worst_ratio; /* largest |difference| / bound; below 1 is right */
    char first[256];    /* the first wrong one, in words */
} verify_count;

/* Bounds, and those with assume_codes. */
typedef struct verify_bounds {
    bounds *sure, *likely;
} verify_bounds;

/* A result of `op` as the device left it, against the interpreter's. */
void verify_compare(verify_count *count, const verify_bounds *b, const ir_op *op, int result,
                    const uint8_t *got);
/* The bytes that the interpreter's value has there. */
void verify_encode(const bounds *b, const ir_op *op, int result, uint8_t *to);
/* What a kernel appended to a layer's pages; the interpreter's values are put in its place. */
void verify_compare_kv(verify_count *count, const verify_bounds *b, const ir_op *op, int result,
                       const verify_step *step, uint8_t *layer);

/* --- all of it: verify.c -------------------------------------------------------------------------
 */

/* The verdict on one distinct kernel on one architecture. */
typedef struct verify_kernel {
    int launches, variants; /* run */
    verify_count count;
    int failures;       /* launches that the emulator stopped, or that left other bits */
    char failure[1024]; /* the first */
} verify_kernel;

/* … and on a whole step, run by the engine: its logits must be, bit for bit, those of the same
 * kernels run one by one on each other's results, with other pages; and about the interpreter's. */
typedef struct verify_whole {
    bool ran;
    int64_t other_bits;     /* logits that differ from those of the kernels run one by one */
    double relative;        /* root mean square of the difference, of the reference's */
    double limit;           /* for `relative` */
    int rows, other_tokens; /* rows whose most probable token is another one, beyond doubt */
    char failure[1024];
} verify_whole;

typedef struct verify_arch {
    uint32_t arch;
    bool specific;
    const modelcc_emulator_gpu *gpu;
    verify_kernel *kernels; /* [n_kernels] */
    verify_whole whole[VERIFY_MAX_STEPS];
} verify_arch;

enum { VERIFY_MAX_ARCHS = 8 };

typedef struct verify_options {
    const char *path, *against;
    const char *arch; /* "sm_80" or NULL: all there is code for */
    int64_t tokens;
    int seeds; /* orders of warps and blocks that each launch runs in */
    uint64_t seed;
    int threads;
    bool all_variants; /* every variant of every launch, not only of a kernel's first */
    /* Called as work goes on: "decode: sm_80: 12 of 243 launches". */
    void (*progress)(void *user, const char *text);
    void *user;
    const atomic_int *cancelled;
} verify_options;

typedef struct verify_report {
    ir_arena *arena;
    verify_model model;
    verify_steps steps;
    int n_archs;
    verify_arch archs[VERIFY_MAX_ARCHS];
    uint32_t checks;
} verify_report;

/* False after reporting what kept it from coming to a verdict. The report is to be freed. */
bool verify_run(const verify_options *options, verify_report *report, ir_diag *diag);
void verify_report_free(verify_report *report);

/* Nine of ten values are as close as `close` says. */
bool verify_count_is_close(const verify_count *count);
/* No failure, no value beyond its bound, and most of them close: where a kernel quantizes what it
 * computed, its bound allows for other codes everywhere, which is far more than there can be. */
bool verify_kernel_is_right(const verify_kernel *kernel);
bool verify_whole_is_right(const verify_whole *whole);
/* All kernels and steps of all architectures. */
bool verify_is_right(const verify_report *report);

#endif
