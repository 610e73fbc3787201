#include "compiler/inspect.h"

#include "runtime/sha256.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- what both show ------------------------------------------------------------------------------
 */

/* "q4_1[576, 576]@n16" -> "q4_1@n16" */
static void encoding_name(const char *type, char out[48]) {
    size_t head = strcspn(type, "[");
    const char *layout = strrchr(type, '@');
    snprintf(out, 48, "%.*s%s", (int)(head < 24 ? head : 24), type, layout ? layout : "");
}

int inspect_encodings(const mcc_artifact *a, inspect_encoding list[INSPECT_MAX_ENCODINGS]) {
    mcc_weight_info w = {.struct_size = sizeof w};
    int n = 0;
    for (int32_t i = 0; !mcc_artifact_get_weight(a, i, &w, NULL); i++) {
        char name[48];
        encoding_name(w.type, name);
        int at = 0;
        while (at < n && strcmp(list[at].name, name) != 0)
            at++;
        if (at == n && n == INSPECT_MAX_ENCODINGS)
            at = INSPECT_MAX_ENCODINGS - 1;
        if (at == n) {
            n++;
            list[at] = (inspect_encoding){0};
            snprintf(list[at].name, sizeof list[at].name, "%s",
                     n < INSPECT_MAX_ENCODINGS ? name : "others");
        }
        list[at].tensors++;
        list[at].bytes += w.bytes;
    }
    return n;
}

inspect_arena inspect_arena_of(const mcc_artifact *a) {
    inspect_arena m = {0};
    if (mcc_artifact_arena_bytes(a, 0, 0, 0, &m.fixed, NULL) ||
        mcc_artifact_arena_bytes(a, 1, 0, 0, &m.token, NULL) ||
        mcc_artifact_arena_bytes(a, 0, 1, 0, &m.sequence, NULL) ||
        mcc_artifact_arena_bytes(a, 0, 0, 1, &m.row, NULL))
        return m;
    m.token -= m.fixed;
    m.sequence -= m.fixed;
    m.row -= m.fixed;
    return m;
}

void inspect_weights_hash(const mcc_artifact *a, char hex[65]) {
    mcc_weight_info w = {.struct_size = sizeof w};
    uint8_t digest[32];
    rt_sha256 hash;
    rt_sha256_init(&hash);
    for (int32_t i = 0; !mcc_artifact_get_weight(a, i, &w, NULL); i++)
        rt_sha256_update(&hash, w.sha256, 32);
    rt_sha256_final(&hash, digest);
    rt_sha256_hex(digest, hex);
}

cJSON *inspect_manifest(const mcc_artifact *a) {
    const char *text;
    uint64_t bytes;
    if (mcc_artifact_get_part(a, MCC_PART_MANIFEST, &text, &bytes, NULL))
        return NULL;
    return cJSON_ParseWithLength(text, bytes);
}

/* --- the table -----------------------------------------------------------------------------------
 */

static const char *member_text(const cJSON *object, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

static void print_row(const char *name) {
    printf("%-10s ", name);
}

static void print_model(const mcc_artifact_info *info, const cJSON *manifest) {
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(manifest, "model");
    print_row("model");
    output_clean(info->model_name, stdout);
    printf(" (");
    output_clean(info->arch, stdout);
    printf("), %" PRId64 " layers, hidden size %" PRId64 ", vocabulary %" PRId64 ", up to %" PRId64
           " tokens\n",
           info->n_layers, info->hidden_size, info->vocab_size, info->max_model_len);
    if (info->embedding_size > 0) {
        print_row("embeddings");
        printf("of %" PRId64 " numbers, pooling: %s\n", info->embedding_size, info->pooling);
    }
    if (*member_text(model, "license")) {
        print_row("licence");
        output_clean(member_text(model, "license"), stdout);
        putchar('\n');
    }
    const cJSON *input;
    cJSON_ArrayForEach(input, cJSON_GetObjectItemCaseSensitive(manifest, "inputs")) {
        print_row("input");
        output_clean(member_text(input, "file"), stdout);
        printf("  sha256 ");
        output_clean(member_text(input, "sha256"), stdout);
        putchar('\n');
    }
}

static void print_options(const cJSON *manifest) {
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(manifest, "options"), *item;
    print_row("built by");
    printf("modelcc ");
    output_clean(member_text(manifest, "modelcc"), stdout);
    printf(", LLVM ");
    output_clean(member_text(manifest, "llvm"), stdout);
    cJSON_ArrayForEach(item, options) {
        if (!cJSON_IsString(item))
            continue;
        printf(", ");
        output_clean(item->string, stdout);
        putchar(' ');
        output_clean(item->valuestring, stdout);
    }
    putchar('\n');
    print_row("passes");
    const char *comma = "";
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(manifest, "passes")) {
        printf("%s", comma);
        output_clean(cJSON_GetStringValue(item), stdout);
        comma = ", ";
    }
    putchar('\n');
}

/* "cuda:sm_90a" */
static void cuda_target(const mcc_cuda_image_info *m, char out[24]) {
    snprintf(out, 24, "cuda:sm_%" PRId32 "%s", m->arch, m->arch_specific ? "a" : "");
}

/* Whether no image before `index` is for the same architecture. */
static bool first_of_target(const mcc_artifact *a, int32_t index, const mcc_cuda_image_info *m) {
    mcc_cuda_image_info before = {.struct_size = sizeof before};
    for (int32_t i = 0; i < index && !mcc_artifact_get_cuda_image(a, i, &before, NULL); i++)
        if (before.arch == m->arch && before.arch_specific == m->arch_specific)
            return false;
    return true;
}

static void print_targets(const mcc_artifact *a, const mcc_artifact_info *info) {
    mcc_target_info t = {.struct_size = sizeof t};
    mcc_cuda_image_info m = {.struct_size = sizeof m};
    print_row("targets");
    const char *comma = info->n_targets ? ", " : "";
    for (int32_t i = 0; !mcc_artifact_get_target(a, i, &t, NULL); i++)
        printf("%s%s%s", i ? ", " : "", t.name,
               !t.fits                                             ? " (does not run here)"
               : info->target && strcmp(info->target, t.name) == 0 ? " (chosen here)"
                                                                   : "");
    for (int32_t i = 0; !mcc_artifact_get_cuda_image(a, i, &m, NULL); i++) {
        char target[24];
        cuda_target(&m, target);
        if (first_of_target(a, i, &m)) {
            printf("%s%s", comma, target);
            comma = ", ";
        }
    }
    putchar('\n');
}

static void print_sizes(const mcc_artifact *a, const char *path, const mcc_artifact_info *info) {
    char file[24], code[24], weights[24], hash[65];
    uint64_t texts = 0;
    for (int part = MCC_PART_MANIFEST; part <= MCC_PART_CHAT_TEMPLATE; part++) {
        const char *text;
        uint64_t bytes;
        if (!mcc_artifact_get_part(a, part, &text, &bytes, NULL))
            texts += bytes;
    }
    print_row("file");
    output_clean(path, stdout);
    printf("  %s: code %s, weights %s", output_bytes(info->file_bytes, file),
           output_bytes(info->code_bytes, code), output_bytes(info->weight_bytes, weights));
    if (info->cuda_bytes)
        printf(", CUDA code %s", output_bytes(info->cuda_bytes, code));
    printf(", texts %s, %s tokenizer, %s chat template\n", output_bytes(texts, file),
           info->has_tokenizer ? "a" : "no", info->has_chat_template ? "a" : "no");
    inspect_weights_hash(a, hash);
    print_row("weights");
    printf("%" PRId32 ", sha256 of their hashes %s\n", info->n_weights, hash);
    inspect_encoding encodings[INSPECT_MAX_ENCODINGS];
    int n = inspect_encodings(a, encodings);
    for (int i = 0; i < n; i++) {
        printf("  %-16s %5d  %10s\n", encodings[i].name, encodings[i].tensors,
               output_bytes(encodings[i].bytes, weights));
    }
}

static void print_memory(const mcc_artifact *a, const mcc_artifact_info *info) {
    inspect_arena m = inspect_arena_of(a);
    char token[24], row[24], fixed[24], scratch[24];
    print_row("memory");
    printf("activations ");
    if (m.fixed)
        printf("%s + ", output_bytes(m.fixed, fixed));
    printf("%s a token + %s an output row; scratch %s a thread\n", output_bytes(m.token, token),
           output_bytes(m.row, row), output_bytes(info->scratch_bytes, scratch));
    mcc_kv_group_info g = {.struct_size = sizeof g};
    for (int32_t i = 0; !mcc_artifact_get_kv_group(a, i, &g, NULL); i++) {
        printf("  KV group %" PRId32 ": %" PRId32 " layers of %" PRId32 " heads of %" PRId32
               ", %s, %s a token",
               i, g.layers, g.heads, g.head_dim, g.dtype,
               output_bytes(g.page_bytes / (uint64_t)g.page_tokens, token));
        if (g.window)
            printf(", window of %" PRId64 " tokens\n", g.window);
        else
            puts(", full attention");
    }
}

/* The source ops of a kernel's first launch. */
static void print_ops(const mcc_launch_info *l) {
    enum { MOST = 160 };
    size_t length = strlen(l->ops);
    printf("      %.*s%s\n", MOST, l->ops, length > MOST ? " …" : "");
}

/* A kernel's GPU functions: a line for each and each architecture. */
static void print_cuda_images(const mcc_artifact *a, int32_t kernel) {
    mcc_cuda_image_info m = {.struct_size = sizeof m};
    for (int32_t i = 0; !mcc_artifact_get_cuda_image(a, i, &m, NULL); i++) {
        char target[24];
        if (m.kernel != kernel)
            continue;
        cuda_target(&m, target);
        printf("      %-13s %-5s", target, m.form);
        if (m.registers)
            printf("  %3" PRIu32 " registers, %" PRIu32 " B spilled, %6" PRIu32
                   " B shared, occupancy %3.0f %%",
                   m.registers, m.spill_bytes, m.shared_bytes, 100 * m.occupancy);
        if (m.min_rows)
            printf("  from %" PRIu32 " rows", m.min_rows);
        printf("  %s\n", m.function);
    }
}

static void print_kernels(const mcc_artifact *a, const mcc_artifact_info *info) {
    mcc_kernel_info k = {.struct_size = sizeof k};
    mcc_launch_info l = {.struct_size = sizeof l};
    print_row("kernels");
    printf("%" PRId32 ", %" PRId32 " launches a step; the ops of each one's first launch:\n",
           info->n_kernels, info->n_launches);
    for (int32_t i = 0; !mcc_artifact_get_kernel(a, i, &k, NULL); i++) {
        printf("  %-9s %4" PRId32 " x  %s\n", k.anchor, k.n_launches, k.name);
        int32_t at = 0;
        while (!mcc_artifact_get_launch(a, at, &l, NULL) && l.kernel != i)
            at++;
        if (at < info->n_launches)
            print_ops(&l);
        print_cuda_images(a, i);
    }
}

static void print_weights(const mcc_artifact *a) {
    mcc_weight_info w = {.struct_size = sizeof w};
    puts("each weight: bytes, offset in the file, sha256, type, name");
    for (int32_t i = 0; !mcc_artifact_get_weight(a, i, &w, NULL); i++) {
        char hex[65];
        rt_sha256_hex(w.sha256, hex);
        printf("  %12" PRIu64 " %12" PRIu64 "  %.16s  %-28s %s\n", w.bytes, w.file_offset, hex,
               w.type, w.name);
    }
}

static void print_launches(const mcc_artifact *a) {
    mcc_kernel_info k = {.struct_size = sizeof k};
    mcc_launch_info l = {.struct_size = sizeof l};
    puts("each launch: weight bytes, kernel, op");
    for (int32_t i = 0; !mcc_artifact_get_launch(a, i, &l, NULL); i++) {
        bool known = !mcc_artifact_get_kernel(a, l.kernel, &k, NULL);
        printf("  %4" PRId32 " %12" PRIu64 "  %s  %s\n", i, l.weight_bytes, known ? k.name : "?",
               l.label);
    }
}

void inspect_print(const mcc_artifact *a, const char *path, const inspect_options *o) {
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_artifact_get_info(a, &info, NULL);
    cJSON *manifest = inspect_manifest(a);
    print_model(&info, manifest);
    print_options(manifest);
    print_targets(a, &info);
    print_sizes(a, path, &info);
    print_memory(a, &info);
    print_kernels(a, &info);
    if (o->weights)
        print_weights(a);
    if (o->launches)
        print_launches(a);
    if (o->check)
        printf("checked    all %" PRId32 " weights have the hashes they should have\n",
               info.n_weights);
    cJSON_Delete(manifest);
}

/* --- JSON ----------------------------------------------------------------------------------------
 */

static void add_numbers(cJSON *to, int n, const char *const *names, const double *values) {
    for (int i = 0; i < n; i++)
        cJSON_AddNumberToObject(to, names[i], values[i]);
}

static void add_model(cJSON *j, const mcc_artifact_info *info) {
    cJSON *m = cJSON_AddObjectToObject(j, "model");
    cJSON_AddStringToObject(m, "name", info->model_name);
    cJSON_AddStringToObject(m, "arch", info->arch);
    static const char *const names[] = {"layers", "hidden_size", "vocab_size", "max_model_len"};
    add_numbers(m, 4, names,
                (double[]){(double)info->n_layers, (double)info->hidden_size,
                           (double)info->vocab_size, (double)info->max_model_len});
    if (info->embedding_size > 0) {
        cJSON_AddNumberToObject(m, "embedding_size", (double)info->embedding_size);
        cJSON_AddStringToObject(m, "pooling", info->pooling);
    }
    cJSON_AddBoolToObject(m, "has_tokenizer", info->has_tokenizer);
    cJSON_AddBoolToObject(m, "has_chat_template", info->has_chat_template);
}

static void add_targets(cJSON *j, const mcc_artifact *a, const mcc_artifact_info *info) {
    mcc_target_info t = {.struct_size = sizeof t};
    if (info->target)
        cJSON_AddStringToObject(j, "target", info->target);
    else
        cJSON_AddNullToObject(j, "target");
    cJSON *list = cJSON_AddArrayToObject(j, "targets");
    for (int32_t i = 0; !mcc_artifact_get_target(a, i, &t, NULL); i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", t.name);
        cJSON_AddBoolToObject(item, "runs_here", t.fits);
        cJSON_AddItemToArray(list, item);
    }
    mcc_cuda_image_info m = {.struct_size = sizeof m};
    list = cJSON_AddArrayToObject(j, "cuda_targets");
    for (int32_t i = 0; !mcc_artifact_get_cuda_image(a, i, &m, NULL); i++) {
        char target[24];
        cuda_target(&m, target);
        if (first_of_target(a, i, &m))
            cJSON_AddItemToArray(list, cJSON_CreateString(target));
    }
}

static void add_sizes(cJSON *j, const mcc_artifact *a, const mcc_artifact_info *info) {
    cJSON *bytes = cJSON_AddObjectToObject(j, "bytes");
    static const char *const names[] = {"file", "code", "weights"};
    add_numbers(
        bytes, 3, names,
        (double[]){(double)info->file_bytes, (double)info->code_bytes, (double)info->weight_bytes});
    if (info->cuda_bytes)
        cJSON_AddNumberToObject(bytes, "cuda", (double)info->cuda_bytes);
    static const struct {
        int part;
        const char *name;
    } parts[] = {{MCC_PART_MANIFEST, "manifest"},
                 {MCC_PART_GRAPH, "graph"},
                 {MCC_PART_PLAN, "plan"},
                 {MCC_PART_FUSED, "fused"},
                 {MCC_PART_CHAT_TEMPLATE, "template"}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *text;
        uint64_t size;
        if (!mcc_artifact_get_part(a, parts[i].part, &text, &size, NULL))
            cJSON_AddNumberToObject(bytes, parts[i].name, (double)size);
    }
}

static void add_weights(cJSON *j, const mcc_artifact *a) {
    inspect_encoding encodings[INSPECT_MAX_ENCODINGS];
    int n = inspect_encodings(a, encodings);
    cJSON *by = cJSON_AddArrayToObject(j, "weights_by_encoding");
    for (int i = 0; i < n; i++) {
        cJSON *e = cJSON_CreateObject();
        cJSON_AddStringToObject(e, "encoding", encodings[i].name);
        cJSON_AddNumberToObject(e, "tensors", encodings[i].tensors);
        cJSON_AddNumberToObject(e, "bytes", (double)encodings[i].bytes);
        cJSON_AddItemToArray(by, e);
    }
    char hex[65];
    inspect_weights_hash(a, hex);
    cJSON_AddStringToObject(j, "weights_sha256", hex);
    cJSON *list = cJSON_AddArrayToObject(j, "weights");
    mcc_weight_info w = {.struct_size = sizeof w};
    for (int32_t i = 0; !mcc_artifact_get_weight(a, i, &w, NULL); i++) {
        cJSON *e = cJSON_CreateObject();
        cJSON_AddStringToObject(e, "name", w.name);
        cJSON_AddStringToObject(e, "type", w.type);
        cJSON_AddNumberToObject(e, "bytes", (double)w.bytes);
        cJSON_AddNumberToObject(e, "file_offset", (double)w.file_offset);
        rt_sha256_hex(w.sha256, hex);
        cJSON_AddStringToObject(e, "sha256", hex);
        cJSON_AddItemToArray(list, e);
    }
}

static void add_memory(cJSON *j, const mcc_artifact *a, const mcc_artifact_info *info) {
    inspect_arena m = inspect_arena_of(a);
    cJSON *memory = cJSON_AddObjectToObject(j, "memory");
    static const char *const names[] = {
        "activation_bytes_fixed",   "activation_bytes_per_token", "activation_bytes_per_sequence",
        "activation_bytes_per_row", "scratch_bytes_per_thread",   "kv_bytes_per_token"};
    add_numbers(memory, 6, names,
                (double[]){(double)m.fixed, (double)m.token, (double)m.sequence, (double)m.row,
                           (double)info->scratch_bytes, (double)info->kv_bytes_per_token});
    cJSON *groups = cJSON_AddArrayToObject(memory, "kv_groups");
    mcc_kv_group_info g = {.struct_size = sizeof g};
    for (int32_t i = 0; !mcc_artifact_get_kv_group(a, i, &g, NULL); i++) {
        cJSON *e = cJSON_CreateObject();
        static const char *const fields[] = {"layers", "heads",       "head_dim",
                                             "window", "page_tokens", "bytes_per_token"};
        add_numbers(e, 6, fields,
                    (double[]){g.layers, g.heads, g.head_dim, (double)g.window, g.page_tokens,
                               (double)(g.page_bytes / (uint64_t)g.page_tokens)});
        cJSON_AddStringToObject(e, "dtype", g.dtype);
        cJSON_AddItemToArray(groups, e);
    }
}

/* "a b c" -> ["a", "b", "c"] */
static void add_ops(cJSON *to, const char *ops) {
    cJSON *list = cJSON_AddArrayToObject(to, "ops");
    while (*ops) {
        size_t n = strcspn(ops, " ");
        char *word = strndup(ops, n);
        if (word && n)
            cJSON_AddItemToArray(list, cJSON_CreateString(word));
        free(word);
        ops += n + (ops[n] == ' ');
    }
}

/* The source ops of the kernel's first launch. */
static void add_kernel_ops(cJSON *to, const mcc_artifact *a, int32_t kernel) {
    mcc_launch_info l = {.struct_size = sizeof l};
    for (int32_t i = 0; !mcc_artifact_get_launch(a, i, &l, NULL); i++)
        if (l.kernel == kernel) {
            add_ops(to, l.ops);
            return;
        }
}

static void add_cuda_images(cJSON *to, const mcc_artifact *a, int32_t kernel) {
    cJSON *list = cJSON_AddArrayToObject(to, "cuda");
    mcc_cuda_image_info m = {.struct_size = sizeof m};
    for (int32_t i = 0; !mcc_artifact_get_cuda_image(a, i, &m, NULL); i++) {
        char target[24];
        if (m.kernel != kernel)
            continue;
        cuda_target(&m, target);
        cJSON *e = cJSON_CreateObject();
        cJSON_AddStringToObject(e, "function", m.function);
        cJSON_AddStringToObject(e, "target", target);
        cJSON_AddStringToObject(e, "form", m.form);
        static const char *const names[] = {"min_rows",    "threads",      "registers",
                                            "spill_bytes", "shared_bytes", "occupancy_blocks",
                                            "occupancy",   "bytes",        "file_offset"};
        add_numbers(e, 9, names,
                    (double[]){m.min_rows, m.threads, m.registers, m.spill_bytes, m.shared_bytes,
                               m.occupancy_blocks, m.occupancy, (double)m.bytes,
                               (double)m.file_offset});
        char hex[65];
        rt_sha256_hex(m.sha256, hex);
        cJSON_AddStringToObject(e, "sha256", hex);
        cJSON_AddItemToArray(list, e);
    }
}

static void add_kernels(cJSON *j, const mcc_artifact *a, const mcc_artifact_info *info) {
    mcc_kernel_info k = {.struct_size = sizeof k};
    mcc_launch_info l = {.struct_size = sizeof l};
    cJSON_AddNumberToObject(j, "launches_per_step", info->n_launches);
    cJSON *kernels = cJSON_AddArrayToObject(j, "kernels");
    for (int32_t i = 0; !mcc_artifact_get_kernel(a, i, &k, NULL); i++) {
        cJSON *e = cJSON_CreateObject();
        cJSON_AddStringToObject(e, "name", k.name);
        cJSON_AddStringToObject(e, "anchor", k.anchor);
        cJSON_AddNumberToObject(e, "launches", k.n_launches);
        add_kernel_ops(e, a, i);
        if (info->n_cuda_images)
            add_cuda_images(e, a, i);
        cJSON_AddItemToArray(kernels, e);
    }
    cJSON *launches = cJSON_AddArrayToObject(j, "launches");
    for (int32_t i = 0; !mcc_artifact_get_launch(a, i, &l, NULL); i++) {
        cJSON *e = cJSON_CreateObject();
        cJSON_AddStringToObject(e, "op", l.label);
        cJSON_AddNumberToObject(e, "kernel", l.kernel);
        cJSON_AddNumberToObject(e, "weight_bytes", (double)l.weight_bytes);
        add_ops(e, l.ops);
        cJSON_AddItemToArray(launches, e);
    }
}

cJSON *inspect_json(const mcc_artifact *a, const inspect_options *o) {
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_artifact_get_info(a, &info, NULL);
    cJSON *j = cJSON_CreateObject(), *manifest = inspect_manifest(a);
    cJSON_AddNumberToObject(j, "artifact_version", info.version);
    add_model(j, &info);
    add_targets(j, a, &info);
    add_sizes(j, a, &info);
    add_weights(j, a);
    add_memory(j, a, &info);
    add_kernels(j, a, &info);
    if (o->check)
        cJSON_AddBoolToObject(j, "weights_checked", true);
    if (manifest)
        cJSON_AddItemToObject(j, "manifest", manifest);
    return j;
}
