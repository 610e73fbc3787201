#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"
#include "compiler/frontend/frontend.h"
#include "compiler/verify.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

#include <cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- the graph -----------------------------------------------------------------------------------
 */

static bool open_artifact(verify_model *m, const char *path, ir_diag *diag) {
    mcc_error error = {.struct_size = sizeof error};
    /* Not for inspection alone: weights are wanted too. */
    if (mcc_artifact_open(path, NULL, &m->artifact, &error) != MCC_OK)
        return ir_error(diag, NULL, "%s", error.text);
    if (!m->artifact->cuda.header)
        return ir_error(diag, path,
                        "it has no code for GPUs: build it with --target cuda:sm_80 or the like");
    return true;
}

static bool parse_graph(verify_model *m, ir_diag *diag) {
    const rt_part *text = &m->artifact->parts[MCC_SECTION_FUSED];
    m->module = ir_parse_module(text->data, (size_t)text->bytes, "the fused graph", diag);
    return m->module && ir_verify(m->module, diag);
}

/* Memory for every weight, which the program's sources then point to; or one byte for all, for a
 * program whose weights nobody reads. */
static void give_memory(ir_module *module, bool weights) {
    static const char nothing;
    for (int i = 0; i < module->n_weights; i++) {
        ir_weight *w = &module->weights[i];
        w->bytes = ir_type_bytes(&w->type).c;
        w->data = weights ? ir_arena_alloc(module->arena, (size_t)w->bytes) : &nothing;
    }
}

static bool make_program(verify_model *m, ir_diag *diag) {
    m->program = cg_program_create(m->module, &cg_cpu_backend, m->arena, diag);
    return m->program != NULL;
}

/* The graph must be of these very tables, or nothing below is a comparison of like with like. */
static bool check_tables(const verify_model *m, ir_diag *diag) {
    const rt_tables *t = &m->artifact->tables;
    const cg_program_list *p = m->program;
    bool same = (uint32_t)p->n_kernels == t->n_kernels &&
                (uint32_t)p->n_launches == t->n_launches && (uint32_t)p->n_args == t->n_args &&
                (uint32_t)p->n_weights == t->n_weights && (uint32_t)p->n_buffers == t->n_buffers &&
                (uint32_t)m->module->n_kv_groups == t->n_kv_groups;
    for (int i = 0; same && i < p->n_kernels; i++)
        same = strcmp(p->kernels[i]->name, rt_string(t, t->kernels[i].name)) == 0;
    for (int i = 0; same && i < p->n_launches; i++)
        same = (uint32_t)p->launches[i].kernel == t->launches[i].kernel &&
               (uint32_t)p->launches[i].first_arg == t->launches[i].first_arg;
    for (int i = 0; same && i < p->n_args; i++)
        same = memcmp(&p->args[i], &t->args[i], sizeof p->args[i]) == 0;
    for (int i = 0; same && i < p->n_weights; i++)
        same = p->weights[i].offset == t->weights[i].offset &&
               p->weights[i].bytes == t->weights[i].bytes;
    for (int i = 0; same && i < p->n_buffers; i++)
        same = memcmp(&p->buffers[i].offset, &t->buffers[i].offset, sizeof(mcc_dim)) == 0;
    return same || ir_error(diag, m->artifact->path,
                            "its graph does not give the kernels in its tables: it was built by "
                            "another version of modelcc; build it again, or verify it with that "
                            "version");
}

/* --- weights from the artifact -------------------------------------------------------------------
 */

/* What the writer did, backwards: rows one by one out of their tiles; what is not packed lies part
 * by part, each with its share of the rows. */
static void restore(const verify_model *m, const cg_weight *w) {
    const uint8_t *stored =
        (const uint8_t *)m->artifact->parts[MCC_SECTION_WEIGHTS].data + w->offset;
    int64_t all = 0, n = 0;
    for (int part = 0; part < w->n_parts; part++)
        all += w->rows[part];
    for (int part = 0; part < w->n_parts; part++) {
        uint8_t *to = (uint8_t *)(uintptr_t)w->sources[part];
        if (!w->type.layout) {
            size_t bytes = (size_t)((int64_t)w->bytes / all * w->rows[part]);
            memcpy(to, stored, bytes);
            stored += bytes;
            continue;
        }
        int64_t k = w->type.dims[1].c;
        int64_t row_bytes = w->type.encoding ? ir_encoding_row_bytes(w->type.encoding, k)
                                             : k * (ir_dtype_bits(w->type.dtype) / 8);
        for (int64_t r = 0; r < w->rows[part]; r++, n++)
            cg_cpu_restore_row(&w->type, stored, n, to + r * row_bytes);
    }
}

/* --- weights from the model ----------------------------------------------------------------------
 */

/* The options that the artifact was built with, of its manifest. */
static fe_task read_options(const cJSON *manifest, pass_options *o) {
    const cJSON *options = cJSON_GetObjectItem(manifest, "options");
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItem(options, "quantize"));
    for (int i = 0; value && pass_quantize_names[i]; i++)
        if (strcmp(value, pass_quantize_names[i]) == 0)
            o->quantize = (pass_quantize)i;
    value = cJSON_GetStringValue(cJSON_GetObjectItem(options, "activations"));
    if (value)
        pass_activations_from_name(value, o);
    value = cJSON_GetStringValue(cJSON_GetObjectItem(options, "kv_cache_dtype"));
    if (value)
        pass_kv_from_name(value, &o->kv);
    value = cJSON_GetStringValue(cJSON_GetObjectItem(options, "sampling"));
    o->sampling = value && strcmp(value, "device") == 0;
    value = cJSON_GetStringValue(cJSON_GetObjectItem(options, "task"));
    return !value                             ? FE_LOGITS
           : strcmp(value, "embed_last") == 0 ? FE_EMBEDDING_LAST
           : strcmp(value, "embed_mean") == 0 ? FE_EMBEDDING_MEAN
                                              : FE_LOGITS;
}

static char *print_graph(const ir_module *module) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (f) {
        ir_print_module(module, f);
        fclose(f);
    }
    return text;
}

/* Takes the model through the pipeline as build did: the graph must be the artifact's. */
static bool rebuild(verify_model *m, const char *against, ir_diag *diag) {
    const rt_part *manifest = &m->artifact->parts[MCC_SECTION_MANIFEST];
    const rt_part *plan = &m->artifact->parts[MCC_SECTION_PLAN];
    pass_options options = {.plan_file = "the artifact's plan"};
    cJSON *json = cJSON_ParseWithLength(manifest->data, (size_t)manifest->bytes);
    fe_task task = read_options(json, &options);
    cJSON_Delete(json);
    options.plan_text = ir_arena_strndup(m->arena, plan->data, (size_t)plan->bytes);
    m->source = fe_open(against, diag);
    m->source_module = m->source ? fe_build(m->source, task, diag) : NULL;
    pass_context context = {.module = m->source_module,
                            .diag = diag,
                            .options = &options,
                            .target = m->artifact->tables.n_targets ? cg_cpu_pass_target()
                                                                    : cg_cuda_pass_target()};
    if (!m->source_module)
        return false;
    if (!pass_run_pipeline(&context, NULL, NULL))
        return ir_error(diag, against,
                        "it is not the model that the artifact was built from, or "
                        "this is another version of modelcc");
    char *ours = print_graph(m->module), *theirs = print_graph(m->source_module);
    bool same = ours && theirs && strcmp(ours, theirs) == 0;
    free(ours);
    free(theirs);
    return same || ir_error(diag, against,
                            "it gives another graph than the artifact has: another model, or "
                            "another version of modelcc");
}

/* The artifact's weights must be the model's, byte for byte, and the model's are then used. */
static bool take_source_weights(verify_model *m, const char *against, ir_diag *diag) {
    for (int i = 0; i < m->module->n_weights; i++) {
        ir_weight *w = &m->module->weights[i];
        const ir_weight *s = ir_module_weight(m->source_module, w->name);
        if (!s || !s->data || !ir_type_equal(&s->type, &w->type))
            return ir_error(diag, against, "it has no weight %s of this type", w->name);
        if (memcmp(s->data, w->data, (size_t)w->bytes) != 0)
            return ir_error(diag, m->artifact->path,
                            "weight %s is not that of %s, or was not packed as it should be",
                            w->name, against);
        w->data = s->data;
        m->weights_compared++;
    }
    return true;
}

static bool open_graph(verify_model *m, const char *path, bool weights, ir_diag *diag) {
    *m = (verify_model){.arena = ir_arena_create()};
    if (!open_artifact(m, path, diag) || !parse_graph(m, diag))
        return false;
    give_memory(m->module, weights);
    return make_program(m, diag) && check_tables(m, diag);
}

bool verify_model_open_graph(verify_model *m, const char *path, ir_diag *diag) {
    return open_graph(m, path, false, diag);
}

bool verify_model_open(verify_model *m, const char *path, const char *against, ir_diag *diag) {
    if (!open_graph(m, path, true, diag))
        return false;
    for (int i = 0; i < m->program->n_weights; i++)
        restore(m, &m->program->weights[i]);
    return !against || (rebuild(m, against, diag) && take_source_weights(m, against, diag));
}

void verify_model_close(verify_model *m) {
    ir_module_destroy(m->module);
    ir_module_destroy(m->source_module);
    fe_close(m->source);
    mcc_artifact_close(m->artifact);
    if (m->arena)
        ir_arena_destroy(m->arena);
    *m = (verify_model){0};
}
