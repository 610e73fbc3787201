/* Generating CUDA C for one kernel: internal to codegen/cuda.
 *
 * A function's text is: common.cuh, the generated row programs, the anchor's constants, the
 * anchor's header (kernels/NAME.cuh, real CUDA C), and the __global__ function that calls it:
 *
 *     #include "common.cuh"
 *     struct args { const mcc_step *step; void *a0, *a1; }; // and void *scratch, if any
 *     struct program_0 { … };
 *     constexpr int K = 576;                      // constants
 *     #include "matmul_int8.cuh"                  // include
 *     extern "C" __global__ void __launch_bounds__(128) NAME(const mcc_step *step, void *a0, …) {
 *         const args a = {step, a0, a1};
 *         matmul_int8(a);                         // call
 *     }
 *
 * Everything is inlined, so that the struct of arguments and the constants disappear.
 *
 * Generated programs, in kernel order (program.c):
 *
 *     struct program_0 {
 *         static constexpr int heads, width;   // as in cg_program
 *         static constexpr bool whole_rows;    // has reductions or rotates: needs row()
 *         static constexpr int tmp_floats;     // row()'s shared memory
 *         // All 32 lanes of a warp together, lane = column col0 + lane, col0 a multiple of 32.
 *         // in0, in1: CG_INPUT of part 0 and 1 of this lane. valid: row and column exist.
 *         static __device__ void columns(const args &a, int64 row, int head, int col0, bool valid,
 *                                        float in0, float in1);
 *         // One warp, a whole row and head. input: floats [parts][width] in shared memory, or
 *         // nullptr where the program has no INPUT. tmp: tmp_floats floats in shared memory, this
 *         // warp's own. The row exists.
 *         static __device__ void row(const args &a, int64 row, int head, const float *input,
 *                                    float *tmp);
 *     };
 *
 * columns() is there unless whole_rows; row() always, and group<WARPS>(), which is row() computed
 * by all warps of a block of WARPS warps, tmp theirs together. A matmul with a prologue has
 *
 *     struct prologue {
 *         static constexpr int heads, width, tmp_floats;   // heads 1, width k
 *         // x: where the row goes, in the layout of a row of x_type (f32 or a8), in shared or
 * global
 *         // memory, 16-byte aligned; whoever reads it puts a barrier before.
 *         static __device__ void row(const args &a, int64 row, void *x, float *tmp);
 *         template <int WARPS> static __device__ void group(const args &a, int64 row, void *x,
 *                                                           float *tmp);
 *     }; */
#ifndef MCC_CODEGEN_CUDA_INTERNAL_H
#define MCC_CODEGEN_CUDA_INTERNAL_H

#include "codegen/cuda/cuda.h"

/* What an anchor says of one function. Strings live as long as the emitter's arena. */
typedef struct cg_cuda_variant {
    const char *suffix; /* of the symbol: "" or "_rows16" */
    uint32_t min_rows, threads, min_blocks, shared_bytes;
    uint64_t scratch_bytes, row_scratch_bytes; /* of mcc_cuda_function_entry */
    bool first_of_two;                         /* likewise; the next one added is the second */
    mcc_cuda_grid x, y;
    const char *constants, *include, *call; /* include: "matmul_int8.cuh" */
} cg_cuda_variant;

typedef struct cg_cuda_emitter {
    const cg_kernel *kernel;
    const cg_cuda_target *target; /* NULL: code for any, with a GPU in the middle in mind */
    const cg_cuda_tiling *given;  /* the table's; NULL: the cost model chooses */
    cg_cuda_tiling tiling;        /* what the anchor took, if it has tiles */
    ir_arena *arena;
    ir_diag *diag;
    cg_cuda_function *functions;
    int n_functions;
} cg_cuda_emitter;

/* Reports that the CUDA backend cannot generate the kernel; returns false. */
bool cg_cuda_unsupported(cg_cuda_emitter *em, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Adds a function. min_rows must ascend, from 0. */
bool cg_cuda_add(cg_cuda_emitter *em, const cg_cuda_variant *variant);

/* mult * ceil(dim / div) blocks */
mcc_cuda_grid cg_cuda_grid(ir_dim dim, int64_t div, int64_t mult);

/* --- the anchors: each adds its variants, or reports what is not supported -----------------------
 */

bool cg_cuda_rows(cg_cuda_emitter *em);
bool cg_cuda_matmul(cg_cuda_emitter *em);
bool cg_cuda_attention(cg_cuda_emitter *em);
bool cg_cuda_sample(cg_cuda_emitter *em);

/* --- tiles ---------------------------------------------------------------------------------------
 */

/* Of a block, bytes: what the architecture has, or every one of targets.def. */
int64_t cg_cuda_most_shared(const cg_cuda_emitter *em);
/* Why a tile that is within its form's limits cannot be this kernel's; NULL: it can. In the arena.
 * The kernel is one that the anchor supports. */
const char *cg_cuda_matmul_why_not(cg_cuda_emitter *em, const cg_cuda_tile *tile);
const char *cg_cuda_attention_why_not(cg_cuda_emitter *em, const cg_cuda_tile *tile);
/* Reports the first tile that is not legal, with the table's key. */
bool cg_cuda_check_tiling(cg_cuda_emitter *em, const cg_cuda_tiling *tiling);

/* --- row programs --------------------------------------------------------------------------------
 */

/* The text of struct program_<index>; NULL after reporting what is not supported. */
const char *cg_cuda_program(cg_cuda_emitter *em, int index);
/* Whether a matmul's epilogue is by heads (kernel.h): program_0 is then the only program in the
 * text, its columns are counted in the order in which tiles are computed, and tile_of says which
 * tile of the weight is computed as the i-th one. */
bool cg_cuda_by_heads(const cg_kernel *kernel);
/* The text of "int tile_of(int tile)", the same tile for other epilogues. */
const char *cg_cuda_tile_order(cg_cuda_emitter *em);
/* The text of struct prologue, of a matmul that has one. */
const char *cg_cuda_prologue(cg_cuda_emitter *em);
/* program_<index>::whole_rows and tmp_floats. */
bool cg_cuda_whole_rows(const cg_program *program);
int64_t cg_cuda_tmp_floats(const cg_kernel *kernel, const cg_program *program);

/* --- embedded headers ----------------------------------------------------------------------------
 */

typedef struct cg_cuda_header {
    const char *name; /* "common.cuh" */
    const char *text;
} cg_cuda_header;

/* kernels/ *.cuh, generated at build, ending in a NULL name. */
extern const cg_cuda_header cg_cuda_headers[];

#endif
