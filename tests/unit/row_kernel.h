/* For tests of row programs: builds their kernels, and runs them on every processor level and in
 * two ways of splitting tiles, which must give the same bits; with MCC_ROWS_ON_CUDA on the emulated
 * GPU as well. Included by one test file each. */
#ifndef MCC_TESTS_ROW_KERNEL_H
#define MCC_TESTS_ROW_KERNEL_H

#include "check_main.h"
#include "cpu_kernel.h"
#ifdef MCC_ROWS_ON_CUDA
#include "cuda_kernel.h"
#endif

#include <math.h>

/* How many cases run under sanitizers: one in so many. */
#ifdef MCC_ROWS_ON_CUDA
enum { SANITIZED_ROWS = 5 };
#else
enum { SANITIZED_ROWS = 1 };
#endif

/* --- building kernels --------------------------------------------------------------------------
 */

enum { MAX_NODES = 40, MAX_STORES = 6, MAX_ARGS = 8, MAX_PROGRAMS = 3 };

typedef struct builder {
    cg_kernel kernel;
    cg_arg args[MAX_ARGS];
    cg_program programs[MAX_PROGRAMS];
    cg_node nodes[MAX_PROGRAMS][MAX_NODES];
    cg_store stores[MAX_PROGRAMS][MAX_STORES];
} builder;

static inline builder *builder_new(const char *name) {
    builder *b = calloc(1, sizeof *b);
    b->kernel = (cg_kernel){.name = name,
                            .anchor = CG_ANCHOR_ROWS,
                            .rows = IR_DIM_T,
                            .args = b->args,
                            .programs = b->programs,
                            .line = 7};
    return b;
}

static inline cg_program *add_program(builder *b, int64_t heads, int64_t width) {
    int i = b->kernel.n_programs++;
    b->programs[i] =
        (cg_program){.heads = heads, .width = width, .nodes = b->nodes[i], .stores = b->stores[i]};
    return &b->programs[i];
}

static inline int add_arg(builder *b, ir_type type, bool written) {
    int i = b->kernel.n_args++;
    b->args[i] = (cg_arg){.kind = CG_ARG_BUFFER, .type = type, .written = written};
    return i;
}

static inline ir_type matrix(ir_dtype dtype, int64_t width) {
    return ir_tensor(dtype, 2, (ir_dim[]){IR_DIM_T, ir_dim_const(width)});
}

static inline int add_node(cg_program *p, cg_node node) {
    p->nodes[p->n_nodes] = node;
    return p->n_nodes++;
}

static inline int constant(cg_program *p, double value) {
    return add_node(p, (cg_node){.kind = CG_CONST, .per_row = true, .value = value});
}

static inline int load(cg_program *p, cg_access access) {
    return add_node(p, (cg_node){.kind = CG_LOAD, .access = access});
}

static inline int scalar(cg_program *p, cg_scalar_op op, int a, int b, int c) {
    return add_node(p, (cg_node){.kind = CG_SCALAR, .op = op, .operands = {a, b, c}});
}

static inline int reduce(cg_program *p, cg_reduce_op op, int a) {
    return add_node(p,
                    (cg_node){.kind = CG_REDUCE, .per_row = true, .reduce = op, .operands = {a}});
}

static inline int rotate(cg_program *p, int a, int64_t dims, bool half) {
    return add_node(
        p, (cg_node){.kind = CG_ROTATE, .operands = {a}, .rotate_dims = dims, .rotate_half = half});
}

static inline void store(cg_program *p, cg_store_kind kind, int value, int value2,
                         cg_access access) {
    p->stores[p->n_stores++] =
        (cg_store){.kind = kind, .value = value, .value2 = value2, .access = access};
}

/* Rows of `width` elements. */
static inline cg_access rows_of(int arg, int64_t width) {
    return (cg_access){.arg = arg, .row_map = CG_ROW_SELF, .row_stride = width, .column_stride = 1};
}

static inline cg_access vector_of(int arg) {
    return (cg_access){.arg = arg, .row_map = CG_ROW_NONE, .column_stride = 1};
}

/* --- running -----------------------------------------------------------------------------------
 */

#ifdef MCC_ROWS_ON_CUDA
/* Equal bits, or both not a number: processors differ in which they make. */
static inline bool same_element(ir_dtype dtype, const void *a, const void *b, size_t i) {
    if (dtype == IR_F32) {
        float x, y;
        memcpy(&x, (const char *)a + i * 4, 4);
        memcpy(&y, (const char *)b + i * 4, 4);
        return memcmp(&x, &y, 4) == 0 || (isnan(x) && isnan(y));
    }
    return memcmp((const char *)a + i, (const char *)b + i, 1) == 0;
}

/* Every architecture once in a while, by MCC_TEST_SEED; the oldest always. */
static inline const char *cuda_target_of_run(int run) {
    static unsigned long long calls;
    const char *seed = getenv("MCC_TEST_SEED");
    int n;
    const cg_cuda_target *all = cg_cuda_targets(&n);
    if (calls == 0)
        calls = seed ? strtoull(seed, NULL, 10) : 0;
    return run == 0 ? "cuda:sm_80" : all[1 + calls++ % (unsigned long long)(n - 1)].name;
}

/* Runs the kernel on the emulated GPU from the outputs' initial values; the outputs must be what
 * they are now, after the CPU's runs. */
static inline void run_on_cuda(const builder *b, void *const *args, int64_t T, const mcc_step *step,
                               int n_outputs, const int *outputs, const size_t *bytes,
                               void *const *initial) {
    const cg_kernel *kernel = &b->kernel;
    mcc_step plain = {.T = (int32_t)T, .S = 1, .R = (int32_t)T};
    if (!cuda_available())
        return;
    for (int run = 0; run < 2; run++) {
        cuda_buffer buffers[MAX_ARGS];
        for (int i = 0; i < kernel->n_args; i++) {
            const ir_type *type = &kernel->args[i].type;
            buffers[i].bytes = args[i];
            if (kernel->args[i].kind != CG_ARG_KV)
                buffers[i].size = type->layout ? (size_t)cg_cpu_packed_bytes(type)
                                               : (size_t)ir_dim_eval(ir_type_bytes(type), T, 1, T);
        }
        for (int i = 0; i < n_outputs; i++) {
            buffers[outputs[i]] = (cuda_buffer){malloc(bytes[i]), bytes[i]};
            memcpy(buffers[outputs[i]].bytes, initial[i], bytes[i]);
        }
        cuda_run_options o = {
            .target = cuda_target_of_run(run), .checks = EMU_CHECK_ALL, .seed = (uint64_t)run};
        cuda_run(kernel, &o, step ? step : &plain, step ? step->bytes : sizeof plain, buffers);
        for (int i = 0; i < n_outputs; i++) {
            const cg_arg *arg = &kernel->args[outputs[i]];
            ir_dtype dtype = arg->kind == CG_ARG_KV || arg->type.encoding ? IR_U8 : arg->type.dtype;
            const void *got = buffers[outputs[i]].bytes, *want = args[outputs[i]];
            for (size_t k = 0; k < bytes[i] / (dtype == IR_F32 ? 4 : 1); k++)
                if (!same_element(dtype, got, want, k))
                    ck_abort_msg("%s: output %d differs from the CPU's at %zu", o.target, i, k);
            free(buffers[outputs[i]].bytes);
        }
    }
}
#endif

/* Runs kernel 0 of the builder on every target and in two ways of splitting tiles; `outputs` (args
 * by index, `bytes` each) must come out the same every time. The values stay those of the last. */
static inline void run_everywhere(const builder *b, void *const *args, int64_t T,
                                  const mcc_step *step, int n_outputs, const int *outputs,
                                  const size_t *bytes) {
    const cg_kernel *kernel = &b->kernel;
    cpu_code code = cpu_load(&kernel, 1);
    mcc_cpu_call call = {.step = step, .args = args, .T = T, .S = 1, .R = T};
    void *first[MAX_ARGS] = {0}, *initial[MAX_ARGS] = {0};
    for (int i = 0; i < n_outputs; i++) {
        initial[i] = malloc(bytes[i]);
        memcpy(initial[i], args[outputs[i]], bytes[i]);
    }
    for (int run = 0; run < 2 * code.n_targets; run++) {
        for (int i = 0; i < n_outputs; i++)
            memcpy(args[outputs[i]], initial[i], bytes[i]);
        cpu_run(code.functions[run / 2][0], kernel, &call, run % 2);
        for (int i = 0; i < n_outputs; i++) {
            if (!first[i]) {
                first[i] = malloc(bytes[i]);
                memcpy(first[i], args[outputs[i]], bytes[i]);
            }
            ck_assert_msg(memcmp(first[i], args[outputs[i]], bytes[i]) == 0,
                          "run %d differs in output %d", run, i);
        }
    }
#ifdef MCC_ROWS_ON_CUDA
    run_on_cuda(b, args, T, step, n_outputs, outputs, bytes, initial);
#endif
    for (int i = 0; i < n_outputs; i++) {
        free(first[i]);
        free(initial[i]);
    }
    cpu_unload(&code);
}

static inline void *buffer(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    memset(p, 0x5a, (bytes + 63) / 64 * 64 + 64);
    return p;
}

/* kernel.h's order of summation. */
static inline float reference_sum(const float *x, int64_t n) {
    float p[16] = {0};
    for (int64_t i = 0; i < n; i++)
        p[i % 16] += x[i];
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            p[i] += p[i + width];
    return p[0];
}

#endif
