/* The artifact, model.so, as it lies in the file: written by codegen/artifact, read by runtime/.
 *
 *   [ELF shared object: code and one exported descriptor]
 *   [sections, each starting at a multiple of 4096: manifest, graph, plan, tables, tokenizer,
 *    template, weights]
 *   [footer, 4096 bytes, the last page of the file]
 *
 * dlopen maps the ELF part only. Everything else is read with pread or mapped in place, so that an
 * artifact can be inspected and checked without running any of it. All numbers are little-endian;
 * every offset and count below is untrusted until the loader has checked it. */
#ifndef MCC_RUNTIME_ARTIFACT_H
#define MCC_RUNTIME_ARTIFACT_H

#include "runtime/step.h"

#include <stdint.h>

#define MCC_ARTIFACT_MAGIC "MODELCC\n"
/* The runtime opens artifacts of this version and of the one before. */
enum { MCC_ARTIFACT_VERSION = 1, MCC_ARTIFACT_PAGE = 4096, MCC_ARTIFACT_MAX_SECTIONS = 16 };

typedef enum mcc_section_kind {
    MCC_SECTION_CODE = 1, /* the ELF part, from offset 0 */
    MCC_SECTION_MANIFEST, /* JSON: inputs, options, versions, hashes, licence, provenance */
    MCC_SECTION_GRAPH,    /* the raised graph, before paging and fusion, as text */
    MCC_SECTION_PLAN,     /* the fusion plan, as text */
    MCC_SECTION_FUSED,    /* the fused graph the kernels were made from, as text */
    MCC_SECTION_TABLES,   /* mcc_tables */
    MCC_SECTION_TOKENIZER,
    MCC_SECTION_TEMPLATE, /* the chat template's text */
    MCC_SECTION_WEIGHTS,
    MCC_SECTION_CUDA /* mcc_cuda: the kernels compiled for GPUs */
} mcc_section_kind;

typedef struct mcc_section {
    uint32_t kind;
    uint32_t reserved;
    uint64_t offset, size;
    uint8_t sha256[32]; /* of the section; of WEIGHTS: of the weights' hashes in table order */
} mcc_section;

typedef struct mcc_footer {
    char magic[8];
    uint32_t version;
    uint32_t n_sections;
    uint64_t file_bytes;
    mcc_section sections[MCC_ARTIFACT_MAX_SECTIONS];
    uint8_t sha256[32]; /* of the footer up to this field */
} mcc_footer;

/* --- tables: section TABLES ----------------------------------------------------------------------
 */

/* An array inside the section: `count` entries at byte `offset`, a multiple of 8, from the
 * section's start, where mcc_tables lies. */
typedef struct mcc_span {
    uint64_t offset;
    uint32_t count;
    uint32_t reserved;
} mcc_span;

/* Strings are byte offsets into `strings`, zero-terminated; 0 is the empty string (so the first and
 * the last byte of `strings` are zero). */
typedef uint32_t mcc_string;

/* c + t*T + s*S + r*R, all four >= 0 */
typedef struct mcc_dim {
    int64_t c, t, s, r;
} mcc_dim;

typedef struct mcc_weight_entry {
    mcc_string name;
    mcc_string type;        /* "q4_1[576, 576]@n16" */
    uint64_t offset, bytes; /* in section WEIGHTS; offset is a multiple of 64 */
    uint8_t sha256[32];
} mcc_weight_entry;

/* Element types of pages; step.h says how a page is laid out. */
enum { MCC_KV_F32, MCC_KV_F16, MCC_KV_INT8, MCC_KV_FP8 /* e4m3 */ };

typedef struct mcc_kv_group_entry {
    int64_t window; /* 0: full attention */
    int32_t layers, heads, head_dim, page_tokens;
    uint32_t dtype; /* MCC_KV_ */
    uint32_t reserved;
    /* Of one page of one layer: 2 * heads * page_tokens * head_dim * size. With int8 and fp8
     * there are 2 * heads * page_tokens * 2 more, for scales, and it is rounded up to a multiple
     * of 64. */
    uint64_t layer_bytes;
} mcc_kv_group_entry;

/* A buffer of the activation arena: at byte `offset`, of `bytes`, both affine in T, S, R and
 * multiples of 64. */
typedef struct mcc_buffer_entry {
    mcc_dim offset, bytes;
    mcc_string type;
    uint32_t reserved;
} mcc_buffer_entry;

typedef enum mcc_arg_kind {
    MCC_ARG_BUFFER = 1, /* index into buffers */
    MCC_ARG_WEIGHT,     /* index into weights */
    MCC_ARG_KV,         /* index: group; layer: within the group */
    MCC_ARG_STEP        /* index: mcc_step_array */
} mcc_arg_kind;

typedef enum mcc_step_array {
    MCC_STEP_TOKEN_IDS = 1,
    MCC_STEP_POSITIONS,
    MCC_STEP_OUTPUT_ROWS
} mcc_step_array;

typedef struct mcc_arg_entry {
    uint32_t kind, index, layer, reserved;
} mcc_arg_entry;

/* One compiled function; its address is at the same index in the descriptor's target. */
typedef struct mcc_kernel_entry {
    mcc_string name;   /* the symbol, without the target's suffix */
    mcc_string anchor; /* rows, matmul, attention, sample */
    uint32_t reserved[2];
} mcc_kernel_entry;

/* One kernel call of a step; launches run in order, with a barrier between two. Number of tiles:
 * tiles_mult * ceil(dim / tiles_div), where dim is affine in T, S, R. A launch without tiles is
 * skipped. */
typedef struct mcc_launch_entry {
    uint32_t kernel;
    uint32_t first_arg, n_args; /* into args */
    mcc_string label;           /* stable name of the fused op */
    mcc_string ops;             /* the source ops it covers, separated by spaces */
    uint32_t reserved;
    mcc_dim tiles;
    int64_t tiles_div, tiles_mult;
} mcc_launch_entry;

/* A processor the code was compiled for, so that a reader can choose, or refuse, before dlopen. */
typedef struct mcc_target_entry {
    mcc_string name; /* "cpu:x86-64-v4" */
    uint32_t reserved;
    uint64_t cpu_features; /* MCC_CPU_ bits */
} mcc_target_entry;

typedef struct mcc_output_entry {
    /* "logits"; "samples": mcc_step_sampled, of the step's sampling parameters, where a device
     * computes them (CPU code has no tiles for their launch: the host samples there) */
    mcc_string name;
    uint32_t buffer;
    int64_t width; /* f32 per row; rows are the step's R */
} mcc_output_entry;

typedef struct mcc_tables {
    uint32_t struct_bytes; /* of this struct when written */
    uint32_t version;      /* MCC_ARTIFACT_VERSION */
    mcc_string model_name, arch;
    int64_t vocab_size, hidden_size, n_layers;
    int64_t max_model_len;  /* positions the model was trained for */
    uint64_t scratch_bytes; /* a thread's */
    mcc_dim arena_bytes;
    mcc_span strings; /* bytes */
    mcc_span weights, kv_groups, buffers, args, kernels, launches, outputs;
    mcc_span targets;      /* in the order of the descriptor's */
    uint64_t shared_bytes; /* see mcc_cpu_call */
    uint64_t reserved[5];
} mcc_tables;

/* --- GPU code: section CUDA ----------------------------------------------------------------------
 *
 * The kernels of the tables once more, for GPUs. A kernel is one or several __global__ functions,
 * its variants by number of rows; all compute the same bits. A function takes, as its parameters,
 * the device address of the step block, then of each argument of the launch, in order, and then,
 * if it has any, of scratch memory, all 8 bytes each: what mcc_cpu_call has, with `step`
 * arrays read from the block (their argument is the address of the array inside the device's copy).
 * T, S, R are read from the step block, so parameters never change between steps. Weights and KV
 * pages have the same layout as on the CPU.
 */

/* Tiles of a launch, as in mcc_launch_entry: mult * ceil(dim / div). */
typedef struct mcc_cuda_grid {
    mcc_dim dim;
    int64_t div, mult;
} mcc_cuda_grid;

typedef struct mcc_cuda_function_entry {
    mcc_string name; /* the symbol; strings are in this section */
    uint32_t kernel; /* index into the tables' kernels */
    /* The variant of a kernel for a step is the last one, in the order of this table and of those
     * that have images for the device's architecture, whose min_rows is not above the step's number
     * of rows (grid_x.dim evaluated). The first variant's is 0. */
    uint32_t min_rows;
    uint32_t threads;      /* of a block; blocks are one-dimensional */
    uint32_t shared_bytes; /* dynamic */
    uint32_t n_params;     /* 1 + the launch's arguments, + 1 with scratch */
    mcc_cuda_grid x, y;    /* blocks; y.mult 0: one */
    /* Scratch memory, which all launches share: MCC_CUDA_COUNTER_BYTES that are zero before a
     * launch and that the function leaves zero, then so many bytes for each of the step's rows (the
     * most that this variant is taken for) and each range of MCC_CUDA_RANGE positions that a
     * sequence can have. 0: none. */
    uint64_t scratch_bytes;
    uint64_t
        row_scratch_bytes; /* the same for each row alone; a function has one of them or none */
    /* 1: the next function of this table, which has the same kernel and min_rows, is launched after
     * it: the two are one variant, and what one leaves in scratch memory the other finds. */
    uint32_t first_of_two;
    uint32_t reserved;
} mcc_cuda_function_entry;

enum { MCC_CUDA_COUNTER_BYTES = 16384, MCC_CUDA_RANGE = 256 };

enum { MCC_CUDA_CUBIN = 1, MCC_CUDA_PTX = 2 };

/* Code of one function for one architecture. */
typedef struct mcc_cuda_image_entry {
    uint32_t function;
    uint32_t form;          /* MCC_CUDA_CUBIN or MCC_CUDA_PTX */
    uint32_t arch;          /* 80, 86, 90, 100, 120 */
    uint32_t arch_specific; /* 1: sm_90a: runs on that architecture only */
    uint64_t offset, bytes; /* in this section; PTX is zero-terminated, the zero counted */
    uint32_t registers, spill_bytes, static_shared_bytes, occupancy_blocks; /* per SM */
    uint8_t sha256[32];
} mcc_cuda_image_entry;

typedef struct mcc_cuda {
    uint32_t struct_bytes, version; /* of this struct when written; MCC_ARTIFACT_VERSION */
    mcc_span strings, functions, images;
    uint64_t reserved[4];
} mcc_cuda;

/* --- descriptor: the one symbol the ELF part exports
 * ----------------------------------------------- */

#define MCC_DESCRIPTOR_SYMBOL "modelcc_descriptor"

/* CPU features a target needs, as bits. */
enum {
    MCC_CPU_X86_64_V3 = 1, /* AVX2, FMA, F16C, BMI2 */
    MCC_CPU_X86_64_V4 = 2, /* AVX-512 F, BW, CD, DQ, VL */
    MCC_CPU_AVX512_VNNI = 4
};

typedef struct mcc_target_code {
    const char *name;      /* "cpu:x86-64-v4" */
    uint64_t cpu_features; /* MCC_CPU_ bits; the loader takes the last target that fits */
    uint32_t n_kernels;
    uint32_t reserved;
    mcc_cpu_kernel *const *kernels;
} mcc_target_code;

typedef struct mcc_descriptor {
    uint32_t version; /* MCC_ARTIFACT_VERSION */
    uint32_t n_targets;
    const mcc_target_code *targets; /* from the least to the most demanding */
} mcc_descriptor;

#endif
