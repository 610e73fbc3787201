/* What is in an artifact: the queries of modelcc.h. They read checked tables, never the code. */
#include "runtime/cpu.h"
#include "runtime/loader.h"

#include <inttypes.h>
#include <string.h>

static mcc_status not_set(mcc_error *error, const char *function) {
    return rt_refuse(error, MCC_INVALID_ARGUMENT,
                     "%s: the artifact, the result and its struct_size must be set", function);
}

static mcc_status past_end(mcc_error *error, const char *what, int32_t index, uint32_t count) {
    return rt_refuse(error, MCC_NOT_FOUND, "no %s %" PRId32 ": there are %" PRIu32, what, index,
                     count);
}

static bool in_range(int32_t index, uint32_t count) {
    return index >= 0 && (uint32_t)index < count;
}

mcc_status mcc_artifact_get_info(const mcc_artifact *a, mcc_artifact_info *info, mcc_error *error) {
    if (!a || !info)
        return not_set(error, __func__);
    const rt_tables *t = &a->tables;
    const mcc_section *code = rt_footer_find(&a->footer, MCC_SECTION_CODE);
    mcc_artifact_info local = {
        .version = a->footer.version,
        .model_name = rt_string(t, t->header->model_name),
        .arch = rt_string(t, t->header->arch),
        .target = a->target >= 0 ? rt_string(t, t->targets[a->target].name) : NULL,
        .vocab_size = t->header->vocab_size,
        .hidden_size = t->header->hidden_size,
        .n_layers = t->header->n_layers,
        .max_model_len = t->header->max_model_len,
        .file_bytes = a->footer.file_bytes,
        .code_bytes = code->size,
        .weight_bytes = rt_footer_find(&a->footer, MCC_SECTION_WEIGHTS)->size,
        .scratch_bytes = t->header->scratch_bytes,
        .n_weights = (int32_t)t->n_weights,
        .n_kernels = (int32_t)t->n_kernels,
        .n_launches = (int32_t)t->n_launches,
        .n_targets = (int32_t)t->n_targets,
        .n_kv_groups = (int32_t)t->n_kv_groups,
        .has_tokenizer = a->parts[MCC_SECTION_TOKENIZER].bytes > 0,
        .has_chat_template = a->parts[MCC_SECTION_TEMPLATE].bytes > 0,
        .n_cuda_images = (int32_t)a->cuda.n_images,
    };
    if (t->pooling) {
        local.embedding_size = t->rows->width;
        local.pooling = t->pooling == RT_POOL_MEAN ? "mean" : "last";
    }
    const mcc_section *cuda = rt_footer_find(&a->footer, MCC_SECTION_CUDA);
    if (cuda)
        local.cuda_bytes = cuda->size;
    for (uint32_t i = 0; i < t->n_kv_groups; i++) {
        const mcc_kv_group_entry *g = &t->kv_groups[i];
        local.kv_bytes_per_token += g->layer_bytes / (uint64_t)g->page_tokens * (uint64_t)g->layers;
    }
    return rt_give_struct(&local, sizeof local, info) ? MCC_OK : not_set(error, __func__);
}

mcc_status mcc_artifact_get_part(const mcc_artifact *a, int32_t part, const char **text,
                                 uint64_t *bytes, mcc_error *error) {
    if (!a || !text || !bytes)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: artifact, text and bytes must be set",
                         __func__);
    switch (part) {
    case MCC_PART_MANIFEST:
    case MCC_PART_GRAPH:
    case MCC_PART_PLAN:
    case MCC_PART_FUSED:
    case MCC_PART_CHAT_TEMPLATE:
        break;
    default:
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: unknown part %" PRId32, __func__, part);
    }
    if (a->parts[part].bytes == 0)
        return rt_refuse(error, MCC_UNSUPPORTED, "%s: carries no %s", a->path,
                         rt_section_name((uint32_t)part));
    *text = a->parts[part].data;
    *bytes = a->parts[part].bytes;
    return MCC_OK;
}

mcc_status mcc_artifact_get_weight(const mcc_artifact *a, int32_t index, mcc_weight_info *info,
                                   mcc_error *error) {
    if (!a || !info)
        return not_set(error, __func__);
    const rt_tables *t = &a->tables;
    if (!in_range(index, t->n_weights))
        return past_end(error, "weight", index, t->n_weights);
    const mcc_weight_entry *w = &t->weights[index];
    mcc_weight_info local = {
        .name = rt_string(t, w->name),
        .type = rt_string(t, w->type),
        .file_offset = rt_footer_find(&a->footer, MCC_SECTION_WEIGHTS)->offset + w->offset,
        .bytes = w->bytes,
        .sha256 = w->sha256,
    };
    return rt_give_struct(&local, sizeof local, info) ? MCC_OK : not_set(error, __func__);
}

mcc_status mcc_artifact_get_kernel(const mcc_artifact *a, int32_t index, mcc_kernel_info *info,
                                   mcc_error *error) {
    if (!a || !info)
        return not_set(error, __func__);
    const rt_tables *t = &a->tables;
    if (!in_range(index, t->n_kernels))
        return past_end(error, "kernel", index, t->n_kernels);
    mcc_kernel_info local = {.name = rt_string(t, t->kernels[index].name),
                             .anchor = rt_string(t, t->kernels[index].anchor)};
    for (uint32_t i = 0; i < t->n_launches; i++)
        local.n_launches += t->launches[i].kernel == (uint32_t)index;
    return rt_give_struct(&local, sizeof local, info) ? MCC_OK : not_set(error, __func__);
}

mcc_status mcc_artifact_get_launch(const mcc_artifact *a, int32_t index, mcc_launch_info *info,
                                   mcc_error *error) {
    if (!a || !info)
        return not_set(error, __func__);
    const rt_tables *t = &a->tables;
    if (!in_range(index, t->n_launches))
        return past_end(error, "launch", index, t->n_launches);
    const mcc_launch_entry *l = &t->launches[index];
    mcc_launch_info local = {
        .kernel = (int32_t)l->kernel,
        .label = rt_string(t, l->label),
        .ops = rt_string(t, l->ops),
        .tiles = {l->tiles.c, l->tiles.t, l->tiles.s, l->tiles.r},
        .tiles_div = l->tiles_div,
        .tiles_mult = l->tiles_mult,
    };
    for (uint32_t i = l->first_arg; i < l->first_arg + l->n_args; i++)
        if (t->args[i].kind == MCC_ARG_WEIGHT)
            local.weight_bytes += t->weights[t->args[i].index].bytes;
    return rt_give_struct(&local, sizeof local, info) ? MCC_OK : not_set(error, __func__);
}

mcc_status mcc_artifact_get_kv_group(const mcc_artifact *a, int32_t index, mcc_kv_group_info *info,
                                     mcc_error *error) {
    if (!a || !info)
        return not_set(error, __func__);
    const rt_tables *t = &a->tables;
    if (!in_range(index, t->n_kv_groups))
        return past_end(error, "KV group", index, t->n_kv_groups);
    static const char *const dtypes[] = {"f32", "f16", "int8", "fp8_e4m3"};
    const mcc_kv_group_entry *g = &t->kv_groups[index];
    mcc_kv_group_info local = {
        .layers = g->layers,
        .heads = g->heads,
        .head_dim = g->head_dim,
        .page_tokens = g->page_tokens,
        .dtype_bytes = (int32_t)rt_kv_dtype_bytes(g->dtype),
        .window = g->window,
        .page_bytes = g->layer_bytes * (uint64_t)g->layers,
        .dtype = dtypes[g->dtype],
    };
    return rt_give_struct(&local, sizeof local, info) ? MCC_OK : not_set(error, __func__);
}

mcc_status mcc_artifact_get_target(const mcc_artifact *a, int32_t index, mcc_target_info *info,
                                   mcc_error *error) {
    if (!a || !info)
        return not_set(error, __func__);
    const rt_tables *t = &a->tables;
    if (!in_range(index, t->n_targets))
        return past_end(error, "target", index, t->n_targets);
    const mcc_target_entry *target = &t->targets[index];
    mcc_target_info local = {
        .fits = (target->cpu_features & ~rt_cpu_features()) == 0,
        .name = rt_string(t, target->name),
        .cpu_features = target->cpu_features,
    };
    return rt_give_struct(&local, sizeof local, info) ? MCC_OK : not_set(error, __func__);
}

/* Threads that a multiprocessor holds (CUDA C++ programming guide, technical specifications per
 * compute capability). */
static int threads_of(uint32_t arch) {
    bool small =
        arch == 86 || arch == 87 || arch == 88 || arch == 89 || (arch >= 120 && arch < 130);
    return small ? 1536 : arch == 75 ? 1024 : 2048;
}

mcc_status mcc_artifact_get_cuda_image(const mcc_artifact *a, int32_t index,
                                       mcc_cuda_image_info *info, mcc_error *error) {
    if (!a || !info)
        return not_set(error, __func__);
    const rt_cuda_code *code = &a->cuda;
    if (!in_range(index, code->n_images))
        return past_end(error, "CUDA image", index, code->n_images);
    const mcc_cuda_image_entry *m = &code->images[index];
    const mcc_cuda_function_entry *f = &code->functions[m->function];
    mcc_cuda_image_info local = {
        .kernel = (int32_t)f->kernel,
        .function = code->strings + f->name,
        .form = m->form == MCC_CUDA_PTX ? "ptx" : "cubin",
        .arch = (int32_t)m->arch,
        .arch_specific = (int32_t)m->arch_specific,
        .min_rows = f->min_rows,
        .threads = f->threads,
        .registers = m->registers,
        .spill_bytes = m->spill_bytes,
        .shared_bytes = m->static_shared_bytes + f->shared_bytes,
        .occupancy_blocks = m->occupancy_blocks,
        .occupancy =
            (double)m->occupancy_blocks * ((f->threads + 31) / 32 * 32) / threads_of(m->arch),
        .file_offset = rt_footer_find(&a->footer, MCC_SECTION_CUDA)->offset + m->offset,
        .bytes = m->bytes,
        .sha256 = m->sha256,
    };
    return rt_give_struct(&local, sizeof local, info) ? MCC_OK : not_set(error, __func__);
}

mcc_status mcc_artifact_arena_bytes(const mcc_artifact *a, int64_t T, int64_t S, int64_t R,
                                    uint64_t *bytes, mcc_error *error) {
    if (!a || !bytes || T < 0 || T > INT32_MAX || S < 0 || S > INT32_MAX || R < 0 || R > INT32_MAX)
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: needs an artifact, a result, and T, S, R from 0 to 2^31 - 1",
                         __func__);
    *bytes = (uint64_t)rt_dim(&a->tables.header->arena_bytes, T, S, R);
    return MCC_OK;
}
