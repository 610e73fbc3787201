#include "compiler/frontend/hf_fp8.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "compiler/frontend/list.h"

enum { GROUP = 32, BLOCK_BYTES = 36 }; /* of fp8_e4m3 in ir/encodings.def */

/* --- quantization_config -----------------------------------------------------------------------
 */

typedef struct reader {
    fe_hf_fp8 *fp8;
    const char *file;
    ir_arena *arena;
    ir_diag *diag;
} reader;

/* A text that must be this one where it is there. */
static bool expect_text(reader *r, const cJSON *object, const char *key, const char *expected) {
    const char *value = expected;
    int errors = r->diag->errors;
    if (fe_json_string(object, key, &value, r->file, r->diag) && strcmp(value, expected) != 0)
        ir_error(r->diag, r->file,
                 "quantization_config: %s is \"%s\", expected \"%s\"; use the original checkpoint "
                 "with --quantize",
                 key, fe_printable_text(r->arena, value), expected);
    return r->diag->errors == errors;
}

/* [rows, k] of a block that has one scale; several lists must agree. */
static bool read_block(reader *r, const cJSON *list, const char *key) {
    int64_t rows = 0, cols = 0;
    if (!list)
        return true;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != 2 ||
        !fe_json_to_int(list->child, &rows) || !fe_json_to_int(list->child->next, &cols) ||
        rows < 1 || cols < 1)
        return ir_error(r->diag, r->file, "quantization_config: %s is no list of two sizes", key);
    if (r->fp8->block_rows && (r->fp8->block_rows != rows || r->fp8->block_cols != cols))
        return ir_error(r->diag, r->file,
                        "quantization_config: groups of weights have different %s, [%" PRId64
                        ", %" PRId64 "] and [%" PRId64 ", %" PRId64 "]",
                        key, r->fp8->block_rows, r->fp8->block_cols, rows, cols);
    r->fp8->block_rows = rows;
    r->fp8->block_cols = cols;
    return true;
}

/* One of compressed-tensors' config_groups. */
static bool read_group(reader *r, const cJSON *group) {
    const cJSON *weights = fe_json_member(group, "weights");
    if (!cJSON_IsObject(weights))
        return ir_error(r->diag, r->file,
                        "quantization_config: group %s says nothing of \"weights\"",
                        fe_printable_text(r->arena, group->string));
    int64_t bits = 8, size = 0;
    bool symmetric = true;
    const char *strategy = "tensor";
    int errors = r->diag->errors;
    fe_json_int(weights, "num_bits", &bits, r->file, r->diag);
    fe_json_int(weights, "group_size", &size, r->file, r->diag);
    fe_json_bool(weights, "symmetric", &symmetric, r->file, r->diag);
    fe_json_string(weights, "strategy", &strategy, r->file, r->diag);
    expect_text(r, weights, "type", "float");
    expect_text(r, group, "format", "float-quantized");
    if (bits != 8 || !symmetric)
        ir_error(r->diag, r->file,
                 "quantization_config: %ssymmetric weights of %" PRId64
                 " bits, expected symmetric ones of 8",
                 symmetric ? "" : "a", bits);
    if (strcmp(strategy, "block") == 0)
        read_block(r, fe_json_member(weights, "block_structure"), "block_structure");
    else if (strcmp(strategy, "group") == 0 && size > 0) {
        cJSON *pair = cJSON_CreateIntArray((int[]){1, size > INT32_MAX ? INT32_MAX : (int)size}, 2);
        if (!pair)
            return ir_error(r->diag, r->file, "out of memory");
        read_block(r, pair, "group_size");
        cJSON_Delete(pair);
    } else if (strcmp(strategy, "tensor") != 0 && strcmp(strategy, "channel") != 0)
        ir_error(r->diag, r->file,
                 "quantization_config: strategy \"%s\" is not supported (supported: tensor, "
                 "channel, group, block)",
                 fe_printable_text(r->arena, strategy));
    return r->diag->errors == errors;
}

static bool read_compressed_tensors(reader *r, const cJSON *config) {
    bool ok = expect_text(r, config, "format", "float-quantized");
    ok &= expect_text(r, fe_json_member(config, "sparsity_config"), "format", "dense");
    const cJSON *transform = fe_json_member(config, "transform_config");
    if (transform && transform->child)
        ok = ir_error(r->diag, r->file, "quantization_config: transform_config is not supported");
    const cJSON *groups = fe_json_member(config, "config_groups"), *group;
    if (!cJSON_IsObject(groups))
        return ir_error(r->diag, r->file, "quantization_config: has no \"config_groups\" object");
    cJSON_ArrayForEach(group, groups) {
        ok &= cJSON_IsObject(group)
                  ? read_group(r, group)
                  : ir_error(r->diag, r->file, "quantization_config: group %s is no object",
                             fe_printable_text(r->arena, group->string));
    }
    return ok;
}

bool fe_hf_fp8_config(const cJSON *root, fe_hf_fp8 *fp8, const char *file, ir_arena *arena,
                      ir_diag *diag) {
    reader r = {fp8, file, arena, diag};
    *fp8 = (fe_hf_fp8){0};
    const cJSON *config = fe_json_member(root, "quantization_config");
    if (!config)
        return true;
    const char *method = "unnamed";
    fe_json_string(config, "quant_method", &method, file, diag);
    if (strcmp(method, "compressed-tensors") == 0)
        fp8->there = read_compressed_tensors(&r, config);
    else if (strcmp(method, "fp8") == 0)
        fp8->there =
            expect_text(&r, config, "fmt", "e4m3") &&
            read_block(&r, fe_json_member(config, "weight_block_size"), "weight_block_size");
    else
        ir_error(diag, file,
                 "checkpoints quantized by method \"%s\" are not supported; use the original "
                 "checkpoint with --quantize, or a GGUF file",
                 fe_printable_text(r.arena, method));
    return fp8->there;
}

/* --- tensors -----------------------------------------------------------------------------------
 */

static bool ends(const char *text, const char *suffix) {
    size_t length = strlen(text), n = strlen(suffix);
    return length >= n && strcmp(text + length - n, suffix) == 0;
}

/* The scales of x.weight; NULL after an error. */
static const fe_tensor *find_scales(const fe_model *m, const fe_tensor *w, ir_diag *diag) {
    static const char *const suffixes[] = {"_scale_inv", "_scale"};
    for (int i = 0; i < 2; i++) {
        const char *name = ir_arena_printf(m->arena, "%s%s", w->name, suffixes[i]);
        const fe_tensor *scales = fe_model_tensor(m, name);
        if (scales)
            return scales;
    }
    ir_error(diag, w->name, "is in F8_E4M3, but neither %s_scale_inv nor %s_scale is in %s",
             w->file_name, w->file_name, m->path);
    return NULL;
}

/* How many rows and k of the weight a scale is for. */
typedef struct block {
    int64_t rows, cols, per_row; /* per_row: scales in a row of them */
} block;

static int64_t quotient_up(int64_t n, int64_t by) {
    return n / by + (n % by != 0);
}

static bool find_block(const fe_hf_fp8 *fp8, const fe_tensor *w, const fe_tensor *s, block *b,
                       ir_diag *diag) {
    int64_t count = s->rows * s->cols;
    if (fp8->block_rows && s->rank == 2 && s->rows == quotient_up(w->rows, fp8->block_rows) &&
        s->cols == quotient_up(w->cols, fp8->block_cols)) {
        *b = (block){fp8->block_rows, fp8->block_cols, s->cols};
        if (b->cols % GROUP && s->cols > 1)
            return ir_error(diag, w->name,
                            "has a scale for %" PRId64 " k, expected a multiple of %d", b->cols,
                            GROUP);
    } else if (count == 1) {
        *b = (block){w->rows, w->cols, 1};
    } else if (count == w->rows && (s->rank == 1 || s->cols == 1)) {
        *b = (block){1, w->cols, 1};
    } else {
        return ir_error(diag, w->name,
                        "has [%" PRId64 ", %" PRId64 "] codes and scales of shape [%" PRId64
                        ", %" PRId64 "] (%s in %s), expected one, one a row, or as "
                        "quantization_config says",
                        w->rows, w->cols, s->rows, s->cols, s->file_name, s->file);
    }
    return true;
}

static float element(const fe_tensor *t, int64_t i) {
    uint16_t half;
    float f;
    if (t->format == FE_F32) {
        memcpy(&f, t->data + 4 * i, 4);
        return f;
    }
    memcpy(&half, t->data + 2 * i, 2);
    return t->format == FE_F16 ? ir_f16_to_f32(half) : ir_bf16_to_f32(half);
}

/* One row of blocks; false after an error. */
static bool convert_row(const fe_tensor *w, const fe_tensor *s, const block *b, int64_t row,
                        uint8_t *out, ir_diag *diag) {
    const uint8_t *codes = w->data + row * w->cols;
    for (int64_t k = 0; k < w->cols; k += GROUP, codes += GROUP, out += BLOCK_BYTES) {
        float scale = element(s, row / b->rows * b->per_row + k / b->cols);
        if (!(fabsf(scale) < 0x1p112f)) /* times the largest code, and then some, it is a number */
            return ir_error(diag, w->name, "row %" PRId64 " has scale %g", row, (double)scale);
        for (int i = 0; i < GROUP; i++)
            if ((codes[i] & 0x7f) == 0x7f)
                return ir_error(diag, w->name, "row %" PRId64 " has a NaN at %" PRId64, row, k + i);
        memcpy(out, &scale, 4);
        memcpy(out + 4, codes, GROUP);
    }
    return true;
}

static bool convert(fe_model *m, const fe_hf_fp8 *fp8, fe_tensor *w, ir_diag *diag) {
    const fe_tensor *s = find_scales(m, w, diag);
    block b = {0};
    if (!s)
        return false;
    if (s->format == FE_FORMAT_COUNT || !fe_formats[s->format].plain)
        return ir_error(diag, w->name, "has scales in %s (%s), expected F32, F16 or BF16",
                        s->foreign ? s->foreign : fe_formats[s->format].name, s->file_name);
    if (w->rank != 2 || w->rows < 1 || w->cols < 1 || w->cols % GROUP)
        return ir_error(diag, w->name,
                        "has %" PRId64 " rows of %" PRId64
                        " codes in F8_E4M3, expected a matrix whose rows are multiples of %d",
                        w->rows, w->cols, GROUP);
    if (!find_block(fp8, w, s, &b, diag))
        return false;
    int64_t row_bytes = w->cols / GROUP * BLOCK_BYTES;
    uint8_t *data = ir_arena_alloc(m->arena, (size_t)(w->rows * row_bytes));
    for (int64_t row = 0; row < w->rows; row++)
        if (!convert_row(w, s, &b, row, data + row * row_bytes, diag))
            return false;
    w->data = data;
    w->bytes = (uint64_t)(w->rows * row_bytes);
    w->format = FE_FP8_E4M3;
    w->foreign = NULL;
    return true;
}

/* Of activations and of pages of the cache, which are computed as they come here. */
static bool is_other_scale(const char *name) {
    static const char *const suffixes[] = {".input_scale", ".activation_scale", ".output_scale",
                                           ".k_scale",     ".v_scale",          ".q_scale"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (ends(name, suffixes[i]))
            return true;
    return false;
}

bool fe_hf_fp8_tensors(fe_model *m, const fe_hf_fp8 *fp8, ir_diag *diag) {
    bool ok = true;
    if (!fp8->there)
        return true;
    fe_model_sort_tensors(m);
    bool *gone = ir_arena_array(m->arena, (size_t)m->tensor_count + 1, sizeof *gone);
    fe_list others = {0};
    for (int64_t i = 0; i < m->tensor_count; i++) {
        fe_tensor *t = &m->tensors[i];
        if (t->foreign && strcmp(t->foreign, "F8_E4M3") == 0 && convert(m, fp8, t, diag))
            gone[find_scales(m, t, diag) - m->tensors] = true;
        else if (is_other_scale(t->name))
            gone[i] = true, fe_list_add(&others, m->arena, t->file_name);
        ok &= !t->foreign || strcmp(t->foreign, "F8_E4M3") != 0;
    }
    if (others.count)
        ir_note(diag, m->path, "%lld scales of activations are not used: %s", others.count,
                others.text);
    int64_t kept = 0;
    for (int64_t i = 0; i < m->tensor_count; i++)
        if (!gone[i])
            m->tensors[kept++] = m->tensors[i];
    m->tensor_count = ok ? kept : m->tensor_count;
    return ok;
}
