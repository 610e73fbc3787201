/* Decoded instructions and the state of a warp that they work on.
 *
 * A register is a row of 32 lanes in its warp's register file: 32 words for types of at most 32
 * bits (narrower values zero-extended), 32 double words for 64-bit types. Predicates are masks, bit
 * = lane. Operands are offsets of rows, in words; a negative one is a row of the function's
 * constants, which all warps share. */
#ifndef MCC_RUNTIME_EMULATOR_OP_H
#define MCC_RUNTIME_EMULATOR_OP_H

#include "runtime/emulator/exec.h"
#include "runtime/emulator/lanes_float.h"
#include "runtime/emulator/tensor.h"

#define EMU_FULL 0xffffffffu

typedef struct emu_op emu_op;
typedef struct emu_warp emu_warp;

/* What a handler tells the warp's loop. */
typedef enum emu_next {
    EMU_NEXT,    /* the next instruction */
    EMU_JUMPED,  /* the warp's pc and active lanes were set */
    EMU_BARRIER, /* the warp waits at a barrier of its block */
    EMU_WAIT,    /* active lanes wait for others of the warp, at this instruction */
    EMU_YIELD,   /* the next instruction, but other warps first */
    EMU_FAULT    /* the block's error is set */
} emu_next;

typedef emu_next (*emu_run_fn)(emu_warp *warp, const emu_op *op, uint32_t mask);

struct emu_op {
    emu_run_fn run;
    int32_t guard;       /* a predicate, or -1 */
    uint32_t guard_flip; /* ~0 for @!p */
    int32_t d, a, b, c;  /* rows or predicates, as the handler wants them; -1 none where optional */
    int32_t *list;       /* rows of vectors and fragments */
    uint64_t imm;        /* address offset, branch target, … */
    const void *extra;   /* what else a handler wants: emu_convert, emu_mma_op, … */
    uint32_t line;       /* of the PTX */
    uint32_t source;     /* index of the source place, 0 none */
    uint32_t flip;       /* predicate operands to negate: bit 0 a, 1 b, 2 c */
    uint8_t kind;        /* emu_kind */
    uint8_t sub, flags, round;
    uint8_t size; /* bytes of an element in memory */
    uint8_t n;    /* elements */
    uint8_t n_list;
    uint8_t plain_list; /* bits of those of the first 8 that are numbers and no rows */
    uint8_t width;      /* bits of a destination register: 16, 32, 64 */
    uint8_t space;      /* emu_space */
    uint8_t flow;       /* emu_flow */
    uint8_t order;      /* emu_order of a memory access */
    bool sign;          /* signed */
    bool wide_address;  /* the address register has 64 bits */
    uint8_t look;       /* under EMU_CHECK_UNINITIALISED: EMU_LOOK_ bits */
    bool in_block;      /* a strong access whose scope is the thread block */
};

typedef enum emu_space {
    EMU_SPACE_GENERIC,
    EMU_SPACE_GLOBAL,
    EMU_SPACE_SHARED,
    EMU_SPACE_LOCAL,
    EMU_SPACE_PARAM,
    EMU_SPACE_CONST
} emu_space;

/* Where control goes behind an op. */
typedef enum emu_flow { EMU_FLOW_NEXT, EMU_FLOW_BRA, EMU_FLOW_BRX, EMU_FLOW_RET } emu_flow;

/* What an op's registers need: that those it reads were written; a note that it writes some. */
enum { EMU_LOOK_READS = 1, EMU_LOOK_WRITES = 2 };

typedef enum emu_order {
    EMU_ORDER_WEAK,
    EMU_ORDER_RELAXED, /* and volatile */
    EMU_ORDER_ACQUIRE,
    EMU_ORDER_RELEASE,
    EMU_ORDER_ACQ_REL
} emu_order;

/* Generic addresses of what is not global memory: windows where no process has memory. */
#define EMU_SHARED_WINDOW UINT64_C(0x00e0000000000000)
#define EMU_LOCAL_WINDOW UINT64_C(0x00e1000000000000)
#define EMU_PARAM_WINDOW UINT64_C(0x00e2000000000000)
#define EMU_WINDOW_BYTES (UINT64_C(1) << 32)

/* What registers an instruction reads and writes: virtual ones, for liveness and the check of
 * uninitialised reads. Ids of predicates have EMU_USE_PREDICATE set. */
#define EMU_USE_PREDICATE 0x80000000u
typedef struct emu_uses {
    uint32_t first; /* in the function's list: reads, then writes */
    uint16_t n_reads, n_writes;
    /* Hands values on unlooked at (mov): an uninitialised one is no error yet. select: takes the
     * first or the second read by the third, a predicate. */
    bool carry, select;
} emu_uses;

typedef struct emu_source {
    uint32_t file, line;
} emu_source;

typedef struct emu_variable { /* .global or .const */
    const char *name;
    uint64_t bytes;
    uint32_t align;
    uint8_t *data; /* initial bytes; NULL: zeros */
    uint64_t address;
    bool constant;
    bool external;
} emu_variable;

/* A pointer in a variable's initial value or in a function's constants. */
typedef struct emu_fixup {
    uint32_t variable; /* whose address */
    uint64_t addend;
    uint32_t in; /* the variable whose bytes get it, or the row of constants, a 64-bit one */
    uint64_t at; /* byte offset in the variable */
    bool narrow; /* a row of words */
} emu_fixup;

struct ptx_function {
    const char *name;
    ptx_module *module;
    emu_op *ops;
    emu_uses *uses;
    const uint32_t *use_list;
    uint32_t n_ops;
    uint32_t n_words;      /* of a warp's register file */
    uint32_t n_predicates; /* and of virtual registers, below */
    uint32_t n_registers;
    uint32_t *constants; /* rows */
    uint32_t n_constant_words;
    emu_fixup *fixups; /* into constants */
    uint32_t n_fixups;
    uint32_t n_params, param_bytes;
    uint32_t *param_offsets, *param_sizes;
    uint32_t static_shared, local_bytes, max_threads, live_registers;
    uint32_t required[3]; /* .reqntid; 0 none */
    bool uses_global_variables;
    struct ptx_function *next;
};

struct ptx_module {
    int target;
    ptx_function *functions;
    emu_variable *variables;
    uint32_t n_variables;
    emu_fixup *fixups; /* into variables */
    uint32_t n_fixups;
    emu_source *sources; /* [0] is none */
    uint32_t n_sources;
    const char **files; /* by number, NULL where unknown */
    uint32_t n_files;
    emu_memory *memory; /* where the variables are, once loaded */
    struct ptx_chunk *chunks;
};

#endif
