/* Checks of an artifact's footer and tables. Both come from a file that nobody has vouched for:
 * what has passed here can be used without further checks of bounds. Pure functions of memory. */
#ifndef MCC_RUNTIME_ARTIFACT_CHECK_H
#define MCC_RUNTIME_ARTIFACT_CHECK_H

#include "runtime/artifact.h"
#include "runtime/error.h"

#include <stdbool.h>

/* Magic, version, size, hash of the footer; every section inside the file, aligned, apart from the
 * others. `path` is for messages. */
bool rt_footer_check(const mcc_footer *footer, uint64_t file_bytes, const char *path,
                     rt_error *error);

/* The section of a kind in a checked footer, or NULL. */
const mcc_section *rt_footer_find(const mcc_footer *footer, mcc_section_kind kind);

/* "weights", "tables", …; never NULL. */
const char *rt_section_name(uint32_t kind);

/* What a model gives: logits, or rows for the embedding of a text: its last token's, or the mean of
 * all. */
typedef enum rt_pooling { RT_POOL_NONE, RT_POOL_LAST, RT_POOL_MEAN } rt_pooling;

/* Checked tables: pointers into the section's bytes, which must stay where they are. */
typedef struct rt_tables {
    const mcc_tables *header;
    const char *strings;
    const mcc_weight_entry *weights;
    const mcc_kv_group_entry *kv_groups;
    const mcc_buffer_entry *buffers;
    const mcc_arg_entry *args;
    const mcc_kernel_entry *kernels;
    const mcc_launch_entry *launches;
    const mcc_output_entry *outputs;
    const mcc_target_entry *targets;
    uint32_t n_weights, n_kv_groups, n_buffers, n_args, n_kernels, n_launches, n_outputs, n_targets;
    const mcc_output_entry *rows; /* of the outputs, that with a row of f32 for each output row */
    rt_pooling pooling;           /* what these rows are */
} rt_tables;

/* `data`: the section, aligned to 8, `size` bytes. Guarantees for what passes: every index, string
 * and span is in bounds; weights lie inside weights_bytes; dims are >= 0 and small enough for
 * rt_dim to be exact for T, S, R below 2^31; there is one output "logits", of the vocabulary's
 * width, "embedding_last" or "embedding_mean". There may be no targets: an artifact for GPUs alone.
 */
bool rt_tables_check(const void *data, uint64_t size, uint64_t weights_bytes, const char *path,
                     rt_tables *tables, rt_error *error);

static inline const char *rt_string(const rt_tables *tables, mcc_string string) {
    return tables->strings + string;
}

/* Of an element of a page. */
static inline uint32_t rt_kv_dtype_bytes(uint32_t dtype) {
    return dtype == MCC_KV_F32 ? 4 : dtype == MCC_KV_F16 ? 2 : 1;
}

static inline int64_t rt_dim(const mcc_dim *dim, int64_t T, int64_t S, int64_t R) {
    return dim->c + dim->t * T + dim->s * S + dim->r * R;
}

/* Tiles of a launch, at most INT64_MAX for T, S, R below 2^31. */
static inline int64_t rt_launch_tiles(const mcc_launch_entry *launch, int64_t T, int64_t S,
                                      int64_t R) {
    int64_t n = rt_dim(&launch->tiles, T, S, R);
    return (n / launch->tiles_div + (n % launch->tiles_div != 0)) * launch->tiles_mult;
}

/* The last of the targets whose features are all in `features`, or the one named `name` when that
 * is neither NULL nor "cpu"; its index, or -1 with an error that says what was found and what is
 * needed. */
int rt_target_choose(const rt_tables *tables, uint64_t features, const char *name, const char *path,
                     rt_error *error);

#endif
