#include "runtime/artifact_check.h"

#include "runtime/checker.h"
#include "runtime/cpu.h"
#include "runtime/modelcc.h"
#include "runtime/sha256.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(mcc_footer) <= MCC_ARTIFACT_PAGE, "the footer is one page");

/* Above these, arithmetic on sizes could overflow, or a table would ask for absurd memory. */
#define MAX_COEFFICIENT (INT64_C(1) << 28) /* of T, S, R */
#define MAX_CONSTANT (INT64_C(1) << 48)
#define MAX_SCRATCH (UINT64_C(1) << 30)

const char *rt_section_name(uint32_t kind) {
    static const char *const names[] = {"",         "code",    "manifest", "graph",
                                        "plan",     "fused",   "tables",   "tokenizer",
                                        "template", "weights", "cuda"};
    return kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

const mcc_section *rt_footer_find(const mcc_footer *footer, mcc_section_kind kind) {
    for (uint32_t i = 0; i < footer->n_sections; i++)
        if (footer->sections[i].kind == (uint32_t)kind)
            return &footer->sections[i];
    return NULL;
}

/* --- footer --------------------------------------------------------------------------------------
 */

static bool check_section(const mcc_footer *footer, uint32_t i, const char *path, rt_error *error) {
    const mcc_section *s = &footer->sections[i];
    uint64_t end = footer->file_bytes - MCC_ARTIFACT_PAGE;
    if (s->offset % MCC_ARTIFACT_PAGE != 0)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: section %s starts at byte %" PRIu64 ", not at a multiple of %d", path,
                       rt_section_name(s->kind), s->offset, MCC_ARTIFACT_PAGE);
    if (s->offset > end || s->size > end - s->offset)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: section %s has %" PRIu64 " bytes at byte %" PRIu64
                       ", past the end of the sections at byte %" PRIu64,
                       path, rt_section_name(s->kind), s->size, s->offset, end);
    if (s->kind == MCC_SECTION_CODE && s->offset != 0)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: section code starts at byte %" PRIu64 ", expected 0", path, s->offset);
    for (uint32_t j = 0; j < i; j++) {
        const mcc_section *o = &footer->sections[j];
        if (o->kind == s->kind)
            return rt_fail(error, MCC_BAD_ARTIFACT, "%s: section %s (kind %" PRIu32 ") twice", path,
                           rt_section_name(s->kind), s->kind);
        if (s->size > 0 && o->size > 0 && s->offset < o->offset + o->size &&
            o->offset < s->offset + s->size)
            return rt_fail(error, MCC_BAD_ARTIFACT, "%s: sections %s and %s overlap", path,
                           rt_section_name(o->kind), rt_section_name(s->kind));
    }
    return true;
}

bool rt_footer_check(const mcc_footer *footer, uint64_t file_bytes, const char *path,
                     rt_error *error) {
    if (memcmp(footer->magic, MCC_ARTIFACT_MAGIC, sizeof footer->magic) != 0)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: not a modelcc artifact, or cut short: its last %d bytes are not an "
                       "artifact's footer",
                       path, MCC_ARTIFACT_PAGE);
    if (footer->version != MCC_ARTIFACT_VERSION &&
        (footer->version == 0 || footer->version + 1 != MCC_ARTIFACT_VERSION))
        return rt_fail(error, MCC_VERSION_MISMATCH,
                       "%s: artifact version %" PRIu32
                       ", this runtime opens version %d%s: build it again, or use modelcc of the "
                       "version that built it",
                       path, footer->version, MCC_ARTIFACT_VERSION,
                       MCC_ARTIFACT_VERSION > 1 ? " and the one before" : "");
    uint8_t digest[32];
    rt_sha256_of(footer, offsetof(mcc_footer, sha256), digest);
    if (memcmp(digest, footer->sha256, 32) != 0)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: damaged: the footer at byte %" PRIu64 " does not have its own hash",
                       path, file_bytes - MCC_ARTIFACT_PAGE);
    if (footer->file_bytes != file_bytes || file_bytes % MCC_ARTIFACT_PAGE != 0)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: the file has %" PRIu64 " bytes, its footer says %" PRIu64, path,
                       file_bytes, footer->file_bytes);
    if (footer->n_sections > MCC_ARTIFACT_MAX_SECTIONS)
        return rt_fail(error, MCC_BAD_ARTIFACT, "%s: %" PRIu32 " sections, at most %d", path,
                       footer->n_sections, MCC_ARTIFACT_MAX_SECTIONS);
    for (uint32_t i = 0; i < footer->n_sections; i++)
        if (!check_section(footer, i, path, error))
            return false;
    static const mcc_section_kind needed[] = {MCC_SECTION_CODE, MCC_SECTION_MANIFEST,
                                              MCC_SECTION_TABLES, MCC_SECTION_WEIGHTS};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!rt_footer_find(footer, needed[i]))
            return rt_fail(error, MCC_BAD_ARTIFACT, "%s: no section %s", path,
                           rt_section_name(needed[i]));
    return true;
}

/* --- tables --------------------------------------------------------------------------------------
 */

#define BAD(c, ...) rt_fail((c)->error, MCC_BAD_ARTIFACT, "%s: tables: " __VA_ARGS__)

bool rt_check_span(const rt_checker *c, const mcc_span *s, uint64_t entry_bytes, const char *name,
                   const void **entries, uint32_t *count) {
    if (s->offset % 8 != 0)
        return rt_fail(c->error, MCC_BAD_ARTIFACT,
                       "%s: %s: %s are at byte %" PRIu64 ", not at a multiple of 8", c->path,
                       c->section, name, s->offset);
    if (s->offset > c->size || s->count > (c->size - s->offset) / entry_bytes)
        return rt_fail(c->error, MCC_BAD_ARTIFACT,
                       "%s: %s: %" PRIu32 " %s of %" PRIu64 " bytes at byte %" PRIu64
                       ", but the section has %" PRIu64 " bytes",
                       c->path, c->section, s->count, name, entry_bytes, s->offset, c->size);
    *entries = c->data + s->offset;
    *count = s->count;
    return true;
}

bool rt_check_string(const rt_checker *c, mcc_string s, const char *what, uint32_t i) {
    return s < c->n_strings || rt_fail(c->error, MCC_BAD_ARTIFACT,
                                       "%s: %s: %s %" PRIu32 ": string at %" PRIu32
                                       ", but strings have %" PRIu32 " bytes",
                                       c->path, c->section, what, i, s, c->n_strings);
}

bool rt_check_strings(const rt_checker *c, const char *strings) {
    return (c->n_strings > 0 && strings[0] == 0 && strings[c->n_strings - 1] == 0) ||
           rt_fail(c->error, MCC_BAD_ARTIFACT,
                   "%s: %s: strings do not begin and end with a zero byte", c->path, c->section);
}

bool rt_check_index(const rt_checker *c, uint32_t index, uint32_t count, const char *of,
                    const char *what, uint32_t i) {
    return index < count ||
           rt_fail(c->error, MCC_BAD_ARTIFACT,
                   "%s: %s: %s %" PRIu32 ": %s %" PRIu32 ", but there are %" PRIu32, c->path,
                   c->section, what, i, of, index, count);
}

/* For T, S, R below 2^31 the dim is below 2^53 with coefficients up to 2^20, and below 2^43 with
 * coefficients up to 2^10: times the factor, below 2^63. */
bool rt_tiles_in_range(const mcc_dim *d, int64_t div, int64_t mult) {
    int64_t limit = mult <= 1 << 10 ? 1 << 20 : 1 << 10;
    return d->c >= 0 && d->c <= INT64_C(1) << 40 && d->t >= 0 && d->t <= limit && d->s >= 0 &&
           d->s <= limit && d->r >= 0 && d->r <= limit && div >= 1 && mult >= 0 && mult <= 1 << 20;
}

static bool dim(const rt_checker *c, const mcc_dim *d, const char *what, uint32_t i) {
    if (d->c < 0 || d->c > MAX_CONSTANT || d->t < 0 || d->t > MAX_COEFFICIENT || d->s < 0 ||
        d->s > MAX_COEFFICIENT || d->r < 0 || d->r > MAX_COEFFICIENT)
        return BAD(c,
                   "%s %" PRIu32 ": dim %" PRId64 " + %" PRId64 "*T + %" PRId64 "*S + %" PRId64
                   "*R is out of range",
                   c->path, what, i, d->c, d->t, d->s, d->r);
    return true;
}

static bool check_weights(const rt_checker *c, const rt_tables *t, uint64_t weights_bytes) {
    for (uint32_t i = 0; i < t->n_weights; i++) {
        const mcc_weight_entry *w = &t->weights[i];
        if (!rt_check_string(c, w->name, "weight", i) || !rt_check_string(c, w->type, "weight", i))
            return false;
        if (w->offset % 64 != 0)
            return BAD(c, "weight %s starts at byte %" PRIu64 ", not at a multiple of 64", c->path,
                       t->strings + w->name, w->offset);
        if (w->offset > weights_bytes || w->bytes > weights_bytes - w->offset)
            return BAD(c,
                       "weight %s has %" PRIu64 " bytes at byte %" PRIu64
                       ", but section weights has %" PRIu64,
                       c->path, t->strings + w->name, w->bytes, w->offset, weights_bytes);
    }
    return true;
}

static bool check_kv_groups(const rt_checker *c, const rt_tables *t) {
    enum { MAX_LAYERS = 1 << 16, MAX_HEADS = 1 << 16, MAX_HEAD_DIM = 1 << 16, MAX_PAGE = 1 << 12 };
    if (t->n_kv_groups > 64)
        return BAD(c, "%" PRIu32 " KV groups, at most 64", c->path, t->n_kv_groups);
    for (uint32_t i = 0; i < t->n_kv_groups; i++) {
        const mcc_kv_group_entry *g = &t->kv_groups[i];
        if (g->layers < 1 || g->layers > MAX_LAYERS || g->heads < 1 || g->heads > MAX_HEADS ||
            g->head_dim < 1 || g->head_dim > MAX_HEAD_DIM || g->page_tokens < 1 ||
            g->page_tokens > MAX_PAGE || g->window < 0 || g->window > INT32_MAX ||
            g->dtype > MCC_KV_FP8)
            return BAD(c,
                       "KV group %" PRIu32 ": %d layers, %d heads of %d, pages of %d tokens, "
                       "window %" PRId64 ", element type %" PRIu32 ": out of range",
                       c->path, i, g->layers, g->heads, g->head_dim, g->page_tokens, g->window,
                       g->dtype);
        uint64_t scales = g->dtype >= MCC_KV_INT8 ? 2 : 0;
        uint64_t bytes = UINT64_C(2) * (uint64_t)g->heads * (uint64_t)g->page_tokens *
                         ((uint64_t)g->head_dim * rt_kv_dtype_bytes(g->dtype) + scales);
        if (scales)
            bytes = (bytes + 63) / 64 * 64;
        if (g->layer_bytes != bytes)
            return BAD(c,
                       "KV group %" PRIu32 ": a page of a layer has %" PRIu64
                       " bytes, expected %" PRIu64,
                       c->path, i, g->layer_bytes, bytes);
        if (bytes % 64 != 0)
            return BAD(c,
                       "KV group %" PRIu32 ": a page of a layer has %" PRIu64
                       " bytes, not a multiple of 64",
                       c->path, i, bytes);
    }
    return true;
}

static bool check_args(const rt_checker *c, const rt_tables *t) {
    for (uint32_t i = 0; i < t->n_args; i++) {
        const mcc_arg_entry *a = &t->args[i];
        bool ok = false;
        switch (a->kind) {
        case MCC_ARG_BUFFER:
            ok = rt_check_index(c, a->index, t->n_buffers, "buffer", "argument", i);
            break;
        case MCC_ARG_WEIGHT:
            ok = rt_check_index(c, a->index, t->n_weights, "weight", "argument", i);
            break;
        case MCC_ARG_KV:
            ok = rt_check_index(c, a->index, t->n_kv_groups, "KV group", "argument", i) &&
                 rt_check_index(c, a->layer, (uint32_t)t->kv_groups[a->index].layers, "KV layer",
                                "argument", i);
            break;
        case MCC_ARG_STEP:
            ok = a->index >= MCC_STEP_TOKEN_IDS && a->index <= MCC_STEP_OUTPUT_ROWS;
            if (!ok)
                BAD(c, "argument %" PRIu32 ": unknown step array %" PRIu32, c->path, i, a->index);
            break;
        default:
            BAD(c, "argument %" PRIu32 ": unknown kind %" PRIu32, c->path, i, a->kind);
        }
        if (!ok)
            return false;
    }
    return true;
}

static bool check_launches(const rt_checker *c, const rt_tables *t) {
    for (uint32_t i = 0; i < t->n_launches; i++) {
        const mcc_launch_entry *l = &t->launches[i];
        if (!rt_check_string(c, l->label, "launch", i) ||
            !rt_check_string(c, l->ops, "launch", i) ||
            !rt_check_index(c, l->kernel, t->n_kernels, "kernel", "launch", i))
            return false;
        if (l->first_arg > t->n_args || l->n_args > t->n_args - l->first_arg)
            return BAD(c, "launch %s: arguments %" PRIu32 " to %" PRIu64 ", but there are %" PRIu32,
                       c->path, t->strings + l->label, l->first_arg,
                       (uint64_t)l->first_arg + l->n_args, t->n_args);
        const mcc_dim *d = &l->tiles;
        if (!rt_tiles_in_range(d, l->tiles_div, l->tiles_mult))
            return BAD(c,
                       "launch %s: %" PRId64 " * ceil((%" PRId64 " + %" PRId64 "*T + %" PRId64
                       "*S + %" PRId64 "*R) / %" PRId64 ") tiles are out of range",
                       c->path, t->strings + l->label, l->tiles_mult, d->c, d->t, d->s, d->r,
                       l->tiles_div);
    }
    return true;
}

static bool check_outputs(const rt_checker *c, rt_tables *t) {
    static const char *const names[] = {"logits", "embedding_last", "embedding_mean"};
    for (uint32_t i = 0; i < t->n_outputs; i++) {
        const mcc_output_entry *o = &t->outputs[i];
        if (!rt_check_string(c, o->name, "output", i) ||
            !rt_check_index(c, o->buffer, t->n_buffers, "buffer", "output", i))
            return false;
        /* The whole of it must lie in its buffer, for any R: compare the coefficients. */
        if (o->width < 1 || o->width > MAX_COEFFICIENT / 4 ||
            t->buffers[o->buffer].bytes.r < 4 * o->width)
            return BAD(c,
                       "output %s: rows of %" PRId64 " floats in buffer %" PRIu32
                       ", which has %" PRId64 " bytes a row",
                       c->path, t->strings + o->name, o->width, o->buffer,
                       t->buffers[o->buffer].bytes.r);
        for (int k = 0; k < 3; k++)
            if (strcmp(t->strings + o->name, names[k]) == 0) {
                if (t->rows)
                    return BAD(c, "outputs %s and %s: expected one of them", c->path,
                               t->strings + t->rows->name, names[k]);
                t->rows = o;
                t->pooling = (rt_pooling)k;
            }
        if (t->rows == o && t->pooling == RT_POOL_NONE && o->width != t->header->vocab_size)
            return BAD(c, "logits have %" PRId64 " columns, the vocabulary %" PRId64, c->path,
                       o->width, t->header->vocab_size);
        if (strcmp(t->strings + o->name, "samples") == 0 &&
            o->width != sizeof(mcc_step_sampled) / 4)
            return BAD(c, "samples have %" PRId64 " columns, expected %zu", c->path, o->width,
                       sizeof(mcc_step_sampled) / 4);
    }
    return t->rows || BAD(c, "no output named logits, embedding_last or embedding_mean", c->path);
}

static bool check_header(const rt_checker *c, const mcc_tables *h) {
    if (h->struct_bytes < sizeof *h)
        return BAD(c, "their header has %" PRIu32 " bytes, expected %zu", c->path, h->struct_bytes,
                   sizeof *h);
    if (h->version != MCC_ARTIFACT_VERSION)
        return BAD(c, "version %" PRIu32 ", expected %d", c->path, h->version,
                   MCC_ARTIFACT_VERSION);
    if (h->vocab_size < 1 || h->vocab_size > 1 << 26 || h->hidden_size < 1 ||
        h->hidden_size > 1 << 26 || h->n_layers < 0 || h->n_layers > 1 << 16 ||
        h->max_model_len < 1 || h->max_model_len > INT64_C(1) << 30)
        return BAD(c,
                   "vocabulary %" PRId64 ", hidden size %" PRId64 ", %" PRId64 " layers, %" PRId64
                   " positions: out of range",
                   c->path, h->vocab_size, h->hidden_size, h->n_layers, h->max_model_len);
    if (h->scratch_bytes > MAX_SCRATCH)
        return BAD(c, "%" PRIu64 " bytes of scratch, at most %" PRIu64, c->path, h->scratch_bytes,
                   MAX_SCRATCH);
    if (h->shared_bytes > MAX_SCRATCH)
        return BAD(c, "%" PRIu64 " bytes of shared memory, at most %" PRIu64, c->path,
                   h->shared_bytes, MAX_SCRATCH);
    return true;
}

bool rt_tables_check(const void *data, uint64_t size, uint64_t weights_bytes, const char *path,
                     rt_tables *t, rt_error *error) {
    rt_checker c = {.data = data, .size = size, .path = path, .section = "tables", .error = error};
    memset(t, 0, sizeof *t);
    if (size < sizeof *t->header)
        return BAD(&c, "%" PRIu64 " bytes, expected at least %zu", path, size, sizeof *t->header);
    const mcc_tables *h = t->header = data;
    if (!check_header(&c, h))
        return false;

    const void *entries[9];
    if (!rt_check_span(&c, &h->strings, 1, "strings", &entries[0], &c.n_strings) ||
        !rt_check_span(&c, &h->weights, sizeof *t->weights, "weights", &entries[1],
                       &t->n_weights) ||
        !rt_check_span(&c, &h->kv_groups, sizeof *t->kv_groups, "KV groups", &entries[2],
                       &t->n_kv_groups) ||
        !rt_check_span(&c, &h->buffers, sizeof *t->buffers, "buffers", &entries[3],
                       &t->n_buffers) ||
        !rt_check_span(&c, &h->args, sizeof *t->args, "arguments", &entries[4], &t->n_args) ||
        !rt_check_span(&c, &h->kernels, sizeof *t->kernels, "kernels", &entries[5],
                       &t->n_kernels) ||
        !rt_check_span(&c, &h->launches, sizeof *t->launches, "launches", &entries[6],
                       &t->n_launches) ||
        !rt_check_span(&c, &h->outputs, sizeof *t->outputs, "outputs", &entries[7],
                       &t->n_outputs) ||
        !rt_check_span(&c, &h->targets, sizeof *t->targets, "targets", &entries[8], &t->n_targets))
        return false;
    t->strings = entries[0], t->weights = entries[1], t->kv_groups = entries[2];
    t->buffers = entries[3], t->args = entries[4], t->kernels = entries[5];
    t->launches = entries[6], t->outputs = entries[7], t->targets = entries[8];

    if (!rt_check_strings(&c, t->strings) || !rt_check_string(&c, h->model_name, "model name", 0) ||
        !rt_check_string(&c, h->arch, "architecture", 0) || !dim(&c, &h->arena_bytes, "arena", 0))
        return false;
    for (uint32_t i = 0; i < t->n_buffers; i++) {
        const mcc_dim *d = &t->buffers[i].offset;
        if (!rt_check_string(&c, t->buffers[i].type, "buffer", i) ||
            !dim(&c, d, "offset of buffer", i) ||
            !dim(&c, &t->buffers[i].bytes, "size of buffer", i))
            return false;
        if ((d->c | d->t | d->s | d->r) % 64 != 0)
            return BAD(&c, "buffer %" PRIu32 " does not start at a multiple of 64", path, i);
    }
    for (uint32_t i = 0; i < t->n_kernels; i++)
        if (!rt_check_string(&c, t->kernels[i].name, "kernel", i) ||
            !rt_check_string(&c, t->kernels[i].anchor, "kernel", i))
            return false;
    for (uint32_t i = 0; i < t->n_targets; i++)
        if (!rt_check_string(&c, t->targets[i].name, "target", i))
            return false;
    return check_weights(&c, t, weights_bytes) && check_kv_groups(&c, t) && check_args(&c, t) &&
           check_launches(&c, t) && check_outputs(&c, t);
}

/* --- targets -------------------------------------------------------------------------------------
 */

int rt_target_choose(const rt_tables *tables, uint64_t features, const char *name, const char *path,
                     rt_error *error) {
    char needed[128], found[128], all[256];
    size_t used = 0;
    int fitting = -1;
    all[0] = 0;
    if (name && strcmp(name, "cpu") == 0)
        name = NULL;
    for (uint32_t i = 0; i < tables->n_targets; i++) {
        const mcc_target_entry *t = &tables->targets[i];
        const char *target = rt_string(tables, t->name);
        bool fits = (t->cpu_features & ~features) == 0;
        if (name && strcmp(name, target) == 0) {
            if (fits)
                return (int)i;
            rt_fail(error, MCC_CPU_MISMATCH,
                    "%s: target %s needs a processor with %s; this one lacks %s", path, target,
                    rt_cpu_feature_names(t->cpu_features, needed, sizeof needed),
                    rt_cpu_feature_names(t->cpu_features & ~features, found, sizeof found));
            return -1;
        }
        if (fits)
            fitting = (int)i;
        if (used < sizeof all)
            used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", target);
    }
    if (name) {
        rt_fail(error, MCC_NOT_FOUND, "%s: no code for target %s; it has %s", path, name,
                tables->n_targets ? all : "none for a CPU");
        return -1;
    }
    if (tables->n_targets == 0) {
        rt_fail(error, MCC_CPU_MISMATCH, "%s: has no code for a CPU", path);
    } else if (fitting < 0) {
        const mcc_target_entry *least = &tables->targets[0];
        rt_fail(error, MCC_CPU_MISMATCH,
                "%s: needs a processor with at least %s (target %s); this one has %s", path,
                rt_cpu_feature_names(least->cpu_features, needed, sizeof needed),
                rt_string(tables, least->name),
                features ? rt_cpu_feature_names(features, found, sizeof found) : "none of them");
    }
    return fitting;
}
