/* The intermediate representation: a typed SSA graph in one arena.
 *
 * Contents: dims · encodings and types · attributes · values and ops · graph and module ·
 * building · walking and changing. Printing, parsing, verifying, interpreting and exporting have
 * headers of their own: text.h, verify.h, interp.h, export.h.
 *
 * Everything a module owns lives in its arena and is freed with it; nothing is freed singly.
 * A module is used by one thread at a time. */
#ifndef MCC_IR_IR_H
#define MCC_IR_IR_H

#include "ir/arena.h"
#include "ir/diag.h"

#include <stdbool.h>
#include <stdint.h>

/* --- dims ------------------------------------------------------------------------------------- */

/* A dimension: c + t*T + s*S + r*R, where T is the number of tokens in this step, S of sequences,
 * R of rows asked for. No coefficient is negative or above IR_MAX_DIM (ir_type_check); arithmetic
 * on dims saturates at INT64_MAX. */
typedef struct ir_dim {
    int64_t c, t, s, r;
} ir_dim;

#define IR_MAX_DIM ((int64_t)1 << 40)

ir_dim ir_dim_const(int64_t c);
extern const ir_dim IR_DIM_T, IR_DIM_S, IR_DIM_R;
bool ir_dim_equal(ir_dim a, ir_dim b);
bool ir_dim_is_const(ir_dim d);
ir_dim ir_dim_add(ir_dim a, ir_dim b);
ir_dim ir_dim_scale(ir_dim a, int64_t factor);
int64_t ir_dim_eval(ir_dim d, int64_t T, int64_t S, int64_t R);

/* --- encodings and types ------------------------------------------------------------------------
 */

typedef enum ir_dtype {
#define DTYPE(suffix, name, bits) IR_##suffix,
#include "ir/dtypes.def"
#undef DTYPE
    IR_N_DTYPES
} ir_dtype;

const char *ir_dtype_name(ir_dtype dtype);
int ir_dtype_bits(ir_dtype dtype);
/* Returns false when `name` is no element type. */
bool ir_dtype_from_name(const char *name, ir_dtype *dtype);

typedef enum ir_encoding_id {
#define ENCODING(suffix, ...) IR_ENC_##suffix,
#include "ir/encodings.def"
#undef ENCODING
    IR_N_ENCODINGS
} ir_encoding_id;

typedef enum ir_code_kind { IR_CODE_INT, IR_CODE_E4M3 } ir_code_kind;
typedef enum ir_offset_kind { IR_OFFSET_NONE, IR_OFFSET_ADD, IR_OFFSET_SUBTRACT } ir_offset_kind;

/* See encodings.def for the meaning of each field. */
typedef struct ir_encoding {
    ir_encoding_id id;
    const char *name;
    ir_code_kind code;
    int bits;
    bool is_signed;
    int zero_point;
    int group;
    ir_dtype scale;
    ir_offset_kind offset;
    int super_group; /* 0: one level */
    int block, block_bytes;
} ir_encoding;

const ir_encoding *ir_encoding_get(ir_encoding_id id);
const ir_encoding *ir_encoding_from_name(const char *name); /* NULL when unknown */

/* Bytes of one row of k elements. GGUF encodings: k / block * block_bytes; k must be a multiple of
 * the block. a8: k codes (i8) | k/32 scales (f32) | k/32 scale*sum(codes) (f32) | k/16 sums of
 * codes (i32), i.e. k + k/32*8 + k/16*4 bytes; k must be a multiple of 32. a8_e4m3: k codes | k/32
 * scales (f32), padded to a multiple of 16 bytes. */
int64_t ir_encoding_row_bytes(const ir_encoding *encoding, int64_t k);
/* Whether it is one of activations (a8, a8_e4m3), which quantize makes in each step. */
bool ir_encoding_of_activations(const ir_encoding *encoding);
/* Whether matmul multiplies activations in x by weights in w (NULL: not quantized): their codes are
 * of one kind. */
bool ir_encodings_multiply(const ir_encoding *x, const ir_encoding *w);

/* Decodes one row of k elements to f32: the reference, plain loops, shared with no backend. */
void ir_encoding_decode_row(const ir_encoding *encoding, const void *row, int64_t k, float *out);
/* Encodes one row by round to nearest (absolute maximum, or minimum and maximum where the encoding
 * has an offset). Only q8_0, q4_1, fp8_e4m3, a8 and a8_e4m3; k must be a multiple of 32. False for
 * other encodings, and where x is not finite or its scale does not fit the encoding's. */
bool ir_encoding_encode_row(const ir_encoding *encoding, const float *x, int64_t k, void *row);

float ir_f16_to_f32(uint16_t h);
uint16_t ir_f32_to_f16(float f); /* round to nearest even */
float ir_bf16_to_f32(uint16_t h);
uint16_t ir_f32_to_bf16(float f);
float ir_f8_to_f32(uint8_t v, ir_dtype dtype); /* F8E4M3 or F8E5M2 */
uint8_t ir_f32_to_f8(float f, ir_dtype dtype); /* nearest even, saturating */

enum { IR_MAX_RANK = 6 };

typedef enum ir_type_kind { IR_TENSOR, IR_KV } ir_type_kind;

/* A tensor of dims with element type dtype, or quantized along the last dim when encoding is set
 * (dtype is then IR_F32: what it decodes to). layout is NULL for row-major, else the name of a
 * packed order (see PACK). A value of kind IR_KV has no dims. */
typedef struct ir_type {
    ir_type_kind kind;
    ir_dtype dtype;
    const ir_encoding *encoding;
    const char *layout; /* interned in the module, compare with strcmp */
    int rank;
    ir_dim dims[IR_MAX_RANK];
} ir_type;

ir_type ir_tensor(ir_dtype dtype, int rank, const ir_dim *dims);
ir_type ir_quantized(const ir_encoding *encoding, int rank, const ir_dim *dims);
bool ir_type_equal(const ir_type *a, const ir_type *b);
/* Checks what holds for every type: rank and coefficients in bounds, no empty dimension, at most
 * one symbolic dimension, a quantized last dimension constant and a multiple of the block, a size
 * in bytes that fits 2^50. */
bool ir_type_check(const ir_type *type, const char *where, ir_diag *diag);
/* Number of elements, or bytes in row-major storage, as an affine dim. Valid when at most one
 * dimension is symbolic (which the verifier ensures). */
ir_dim ir_type_elements(const ir_type *type);
ir_dim ir_type_bytes(const ir_type *type);

/* --- attributes ---------------------------------------------------------------------------------
 */

typedef enum ir_attr_kind {
    IR_ATTR_INT,
    IR_ATTR_FLOAT,
    IR_ATTR_STRING,
    IR_ATTR_INTS,
    IR_ATTR_FLOATS
} ir_attr_kind;

typedef struct ir_attr {
    const char *name;
    ir_attr_kind kind;
    int count; /* of ints, floats */
    union {
        int64_t i;
        double f;
        const char *s;
        const int64_t *ints;
        const double *floats;
    };
} ir_attr;

/* --- values and ops ------------------------------------------------------------------------------
 */

typedef enum ir_opcode {
#define OP(suffix, ...) IR_OP_##suffix,
#include "ir/ops.def"
#undef OP
    IR_N_OPS
} ir_opcode;

enum {
    IR_TRAIT_PURE = 1,
    IR_TRAIT_ELEMENTWISE = 2,
    IR_TRAIT_COMMUTATIVE = 4,
    IR_TRAIT_SOURCE = 8,
    IR_TRAIT_VIEW = 16,
    IR_TRAIT_COMPOSITE = 32,
    IR_TRAIT_REGION = 64
};

typedef struct ir_value ir_value;
typedef struct ir_op ir_op;
typedef struct ir_graph ir_graph;
typedef struct ir_module ir_module;

/* One row of ops.def. infer fills op->results' types from its operands and attributes (for a GIVEN
 * type it checks the stated one); it reports to diag and returns false when they do not fit. */
typedef struct ir_op_info {
    const char *name;
    int min_operands, max_operands, results; /* -1: any number */
    unsigned traits;
    bool (*infer)(ir_op *op, ir_diag *diag);
    const char *attributes; /* the schema, as in ops.def */
} ir_op_info;

const ir_op_info *ir_op_info_get(ir_opcode code);
bool ir_opcode_from_name(const char *name, ir_opcode *code);
/* Whether an op's result types are stated by who builds it, rather than inferred. */
bool ir_op_type_is_stated(const ir_op_info *info);

/* One attribute of a schema; name is `length` bytes of the schema string. */
typedef struct ir_attr_schema {
    const char *name;
    int length;
    ir_attr_kind kind;
    bool optional;
} ir_attr_schema;

/* Reads the attribute at `schema` and returns where the next one begins, NULL at the end:
 * for (const char *s = info->attributes; (s = ir_attr_schema_next(s, &a));) … */
const char *ir_attr_schema_next(const char *schema, ir_attr_schema *attr);
/* Finds an attribute in an op's schema by name. */
bool ir_attr_schema_find(const ir_op_info *info, const char *name, ir_attr_schema *attr);

struct ir_value {
    ir_type type;
    ir_op *def;      /* NULL for a region's argument */
    ir_graph *owner; /* the graph whose argument it is, or that holds def */
    int index;       /* among def's results or owner's arguments */
    int id;          /* unique in the module; analyses index arrays with it (< module->n_values) */
};

struct ir_op {
    ir_opcode code;
    const char *name; /* stable name from the model ("layers.3.mlp.down_proj"), or NULL */
    int n_operands, n_results, n_attrs;
    ir_value **operands;
    ir_value **results;
    ir_attr *attrs;
    ir_graph *body;  /* REGION ops, else NULL */
    ir_graph *owner; /* the graph that holds this op */
    ir_op *prev, *next;
    int line; /* in the text it was parsed from or printed to, or 0 */
};

/* A list of ops in an order in which every value is defined before its use. */
struct ir_graph {
    ir_module *module;
    ir_op *parent; /* the op whose body this is, or NULL for the module's graph */
    int n_args;
    ir_value **args;
    ir_op *first, *last;
};

/* --- module --------------------------------------------------------------------------------------
 */

/* A tensor of the model. Rows are contiguous: for a quantized type each has
 * ir_encoding_row_bytes(K) bytes. data belongs to the frontend's mapping or to the arena, outlives
 * the module, and is NULL where the module came from text alone. */
typedef struct ir_weight {
    const char *name;
    ir_type type;
    const void *data;
    int64_t bytes;
} ir_weight;

/* Layers whose keys and values share pages of one geometry (the step block's G). */
typedef struct ir_kv_group {
    int64_t window; /* 0: full attention; else positions behind the window may be freed */
    int64_t layers, heads, head_dim;
    ir_dtype dtype; /* f32, f16, or of quantized pages i8 or f8e4m3 */
    int64_t page_tokens;
} ir_kv_group;

struct ir_module {
    ir_arena *arena;
    const char *name; /* of the model */
    const char *arch; /* "llama", … */
    int n_weights, weights_capacity;
    ir_weight *weights;
    int *weight_table; /* open hash table by name: index + 1 into weights, 0 where free */
    int weight_table_size;
    int n_kv_groups;
    ir_kv_group *kv_groups;
    ir_graph *graph;
    int n_values; /* ids given out */
};

/* A new module with an empty graph, in an arena of its own; NULL when memory is short. */
ir_module *ir_module_create(const char *name, const char *arch);
void ir_module_destroy(ir_module *module);
/* Adds a weight (name copied; data not) and returns its index. The name must be new. */
int ir_module_add_weight(ir_module *module, const char *name, const ir_type *type, const void *data,
                         int64_t bytes);
/* NULL when there is none. */
const ir_weight *ir_module_weight(const ir_module *module, const char *name);
/* Returns the group's index. */
int ir_module_add_kv_group(ir_module *module, const ir_kv_group *group);

/* --- pages of the KV cache -----------------------------------------------------------------------
 *
 * A page of a layer holds K as [head][head_dim][page_tokens], then V as
 * [head][page_tokens][head_dim], in the group's element type. Quantized pages hold codes there and
 * behind them one f16 scale for each head and token, of K as [head][page_tokens], then of V; such a
 * page is a multiple of 64 bytes long.
 *
 * A head of one token is quantized when it is appended, every operation in f32: with L = 127 (i8)
 * or 448 (f8e4m3), scale = f16(min(max|x| / L, 65504)), which may be 0; code = x / scale (x / 1
 * where scale is 0), clamped to [-L, L], to the nearest integer or f8e4m3, ties to even. What
 * is stored is scale * code, which f32 holds exactly; of a head with a NaN it may be anything.
 */

bool ir_kv_dtype_ok(ir_dtype dtype);
bool ir_kv_quantized(ir_dtype dtype);
double ir_kv_most(ir_dtype dtype); /* L */
int64_t ir_kv_page_bytes(const ir_kv_group *group);
/* In bytes from the page's start: an element, and the scale of a head. */
int64_t ir_kv_place(const ir_kv_group *group, bool is_v, int64_t head, int64_t token, int64_t d);
int64_t ir_kv_scale_place(const ir_kv_group *group, bool is_v, int64_t head, int64_t token);
/* Quantizes n numbers, a head of a token, to codes[0], codes[stride] …; returns the scale. */
uint16_t ir_kv_encode(ir_dtype dtype, const float *x, int64_t n, uint8_t *codes, int64_t stride);
float ir_kv_decode(ir_dtype dtype, uint8_t code, uint16_t scale);
/* The kv_cache that a kv value started as, through appends and kernels; NULL inside a region, where
 * it is an argument. */
const ir_op *ir_kv_source(const ir_value *kv);

/* --- building ------------------------------------------------------------------------------------
 */

/* Attribute literals for ir_op_spec. */
#define IR_INT(n, v) ((ir_attr){.name = (n), .kind = IR_ATTR_INT, .i = (v)})
#define IR_FLOAT(n, v) ((ir_attr){.name = (n), .kind = IR_ATTR_FLOAT, .f = (v)})
#define IR_STRING(n, v) ((ir_attr){.name = (n), .kind = IR_ATTR_STRING, .s = (v)})
#define IR_INT_LIST(n, v, k)                                                                       \
    ((ir_attr){.name = (n), .kind = IR_ATTR_INTS, .count = (k), .ints = (v)})
#define IR_FLOAT_LIST(n, v, k)                                                                     \
    ((ir_attr){.name = (n), .kind = IR_ATTR_FLOATS, .count = (k), .floats = (v)})

/* What to build. Everything is copied into the module's arena. Attributes are kept in the schema's
 * order, and optional ones that equal their default are left out, so that equal ops look equal.
 * A type stated for a result that is inferred must agree with the inference. */
typedef struct ir_op_spec {
    ir_opcode code;
    const char *name;
    ir_value *const *operands;
    int n_operands;
    const ir_attr *attrs;
    int n_attrs;
    const ir_type *types; /* GIVEN result types, else NULL */
    int n_types;          /* number of results where the table says any */
    ir_graph *body;
    int line;
} ir_op_spec;

/* Builds an op before `before` (NULL: at the end), infers its result types, and checks the
 * operands' number and the attributes against the table. NULL after reporting to diag. */
ir_op *ir_op_create(ir_graph *graph, ir_op *before, const ir_op_spec *spec, ir_diag *diag);

/* Shorthands that append at the end and return the only result, or NULL after an error; a NULL
 * operand gives NULL without a second message. */
ir_value *ir_build(ir_graph *graph, ir_diag *diag, ir_opcode code, const char *name,
                   const ir_type *type, int n_operands, ir_value *const *operands, int n_attrs,
                   const ir_attr *attrs);
ir_value *ir_unary(ir_graph *graph, ir_diag *diag, ir_opcode code, const char *name, ir_value *a);
ir_value *ir_binary(ir_graph *graph, ir_diag *diag, ir_opcode code, const char *name, ir_value *a,
                    ir_value *b);
ir_value *ir_weight_value(ir_graph *graph, ir_diag *diag, const char *weight_name);
ir_value *ir_constant_splat(ir_graph *graph, ir_diag *diag, double value);
ir_value *ir_reshape(ir_graph *graph, ir_diag *diag, const char *name, ir_value *a, int rank,
                     const ir_dim *dims);

/* Checks an op's number of operands and results and its attributes against the table. */
bool ir_op_check(const ir_op *op, ir_diag *diag);

/* An empty body for a REGION op; arguments are added with ir_graph_add_arg. parent is NULL until
 * the op exists: ir_op_create sets it. A body is closed: it uses its arguments and what its own ops
 * compute, nothing from outside. */
ir_graph *ir_graph_create(ir_module *module, ir_op *parent);
ir_value *ir_graph_add_arg(ir_graph *graph, const ir_type *type);

/* --- walking and changing ------------------------------------------------------------------------
 */

const ir_attr *ir_op_attr(const ir_op *op, const char *name); /* NULL when absent */
int64_t ir_op_int(const ir_op *op, const char *name);         /* 0 when absent */
double ir_op_float(const ir_op *op, const char *name);        /* 0 when absent */
const char *ir_op_string(const ir_op *op, const char *name);  /* "" when absent */
void ir_op_set_attr(ir_op *op, const ir_attr *attr);          /* copied; replaces */

/* A name for messages: the stable name, or the op's text name and first result id. Owned by the
 * module's arena. */
const char *ir_op_label(const ir_op *op);

/* Unlinks an op from its graph (its memory stays in the arena). */
void ir_op_remove(ir_op *op);
/* Moves an op before another one (NULL: to the end of the graph). */
void ir_op_move(ir_op *op, ir_graph *graph, ir_op *before);
/* Replaces every use of `from` in the graph and the bodies inside it. */
void ir_replace_uses(ir_graph *graph, ir_value *from, ir_value *to);
/* Uses of each value by id, bodies included: an array of module->n_values in `arena`. */
int *ir_count_uses(const ir_graph *graph, ir_arena *arena);
/* Copies an op (and its body) before `before`, with operands looked up in map (by value id; NULL
 * entries mean the operand itself); map receives the new results. map has room for `map_size`
 * ids; values made later than that are not recorded. */
ir_op *ir_op_clone(const ir_op *op, ir_graph *graph, ir_op *before, ir_value **map, int map_size);

#endif
