/* open model -> build graph -> run pipeline -> emit kernels -> write artifact */
#include "compiler/build.h"

#include "codegen/artifact/link.h"
#include "codegen/artifact/writer.h"
#include "compiler/build_cuda.h"
#include "compiler/frontend/frontend.h"
#include "compiler/manifest.h"
#include "compiler/progress.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/plan.h"
#include "runtime/kv.h"
#include "runtime/sha256.h"
#include "runtime/template/template.h"

#include <cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Text that is written to memory. */
typedef struct text {
    char *bytes;
    size_t size;
} text;

typedef struct build {
    const build_options *options;
    atomic_int *cancelled;
    ir_diag *diag;
    ir_arena *arena;
    progress progress;
    fe_model *model;
    ir_module *module;
    pass_context context;
    cg_program_list *program;
    cuda_code cuda;
    text graph, plan, fused;
    fe_blob tokenizer;
    manifest_hashes hashes;
    pthread_t hasher;
    bool hashing;
    cg_object *objects; /* one per unit, the descriptor last */
    int n_units;
    uint64_t file_bytes;
    uint64_t released; /* bytes of weights written when the model's pages were last given back */
} build;

enum { RELEASE_BYTES = 32 << 20 };

static bool is_cancelled(build *b) {
    return b->cancelled && atomic_load(b->cancelled) &&
           !ir_error(b->diag, b->options->output, "interrupted; nothing was written");
}

/* --- the model
 * ------------------------------------------------------------------------------------- */

/* The i-th file that the artifact is made from, or NULL: the model's, then the plan and the tiles.
 */
static const char *input_path(const build *b, int i) {
    const char *plan = b->options->passes.plan_file, *tiles = b->options->tiles_file;
    const char *more[] = {plan ? plan : tiles, plan ? tiles : NULL, NULL};
    int n = b->model->file_count;
    return i < n ? b->model->files[i].path : i < n + 3 ? more[i - n] : NULL;
}

/* Whether a name is none of the inputs (and not a link to one, if links are followed). */
static bool is_no_input(build *b, const char *path, const struct stat *output) {
    struct stat input;
    const char *name;
    for (int i = 0; (name = input_path(b, i)); i++)
        if (!stat(name, &input) && input.st_dev == output->st_dev && input.st_ino == output->st_ino)
            return ir_error(b->diag, path, "it is an input; choose another name");
    return true;
}

/* Whether a file can be made in the directory of `path`; otherwise errno says why not. */
static bool can_create(build *b, const char *path) {
    const char *slash = strrchr(path, '/');
    const char *directory =
        slash ? ir_arena_strndup(b->arena, path, (size_t)(slash - path) + 1) : ".";
    return access(directory, W_OK | X_OK) == 0;
}

/* The artifact takes the name of what is there: that must be a file, and none of the inputs. Texts
 * are written to what is there, so links to inputs count as well. Said before the work, not after
 * it. */
static bool check_outputs(build *b) {
    const build_options *o = b->options;
    const char *texts[] = {o->depfile, o->emit == BUILD_ARTIFACT ? NULL : o->output};
    struct stat found, target;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!texts[i] || cuda_emits_directory(o))
            continue;
        if (!stat(texts[i], &found) ? access(texts[i], W_OK)
                                    : errno != ENOENT || !can_create(b, texts[i]))
            return ir_error(b->diag, texts[i], "cannot write it: %s", strerror(errno));
        if (!stat(texts[i], &found) && !is_no_input(b, texts[i], &found))
            return false;
    }
    if (o->emit != BUILD_ARTIFACT || o->dry_run)
        return true;
    if (lstat(o->output, &found))
        return (errno == ENOENT && can_create(b, o->output)) ||
               ir_error(b->diag, o->output, "cannot write it: %s", strerror(errno));
    /* A link is replaced, as by other linkers, but not one such as /dev/stdout. */
    bool replaced =
        S_ISREG(found.st_mode) ||
        (S_ISLNK(found.st_mode) && (stat(o->output, &target) || S_ISREG(target.st_mode)));
    if (!replaced)
        return ir_error(b->diag, o->output, "cannot replace it: it is not a file");
    if (!can_create(b, o->output))
        return ir_error(b->diag, o->output, "cannot replace it: %s", strerror(errno));
    return is_no_input(b, o->output, &found);
}

/* Hashes the model's files while kernels compile. */
static void *hash_files(void *arg) {
    build *b = arg;
    for (int i = 0; i < b->model->file_count; i++) {
        const fe_file *f = &b->model->files[i];
        uint8_t digest[32];
        rt_sha256 hash;
        rt_sha256_init(&hash);
        /* In pieces, so that Ctrl-C is heard. */
        for (size_t at = 0; at < f->size && !(b->cancelled && atomic_load(b->cancelled));) {
            size_t n = f->size - at < (8u << 20) ? f->size - at : (8u << 20);
            rt_sha256_update(&hash, f->data + at, n);
            fe_file_release(f, at, n);
            at += n;
        }
        rt_sha256_final(&hash, digest);
        rt_sha256_hex(digest, b->hashes.hex[i]);
    }
    return NULL;
}

static bool start_hashing(build *b) {
    b->hashes.hex = calloc((size_t)b->model->file_count + 1, sizeof *b->hashes.hex);
    b->hashing = b->hashes.hex && !pthread_create(&b->hasher, NULL, hash_files, b);
    return b->hashing || ir_error(b->diag, NULL, "out of memory for a thread");
}

static void end_hashing(build *b) {
    if (b->hashing)
        pthread_join(b->hasher, NULL);
    b->hashing = false;
}

static bool tokenizer_from_source(const fe_tokenizer_source *s, ir_arena *arena, ir_diag *diag,
                                  fe_blob *blob) {
    switch (s->kind) {
    case FE_TOKENIZER_NONE:
        break;
    case FE_TOKENIZER_JSON:
        return fe_tokenizer_from_json(arena, diag, s->where, (const char *)s->json.data,
                                      s->json.size, (const char *)s->config.data, s->config.size,
                                      blob);
    case FE_TOKENIZER_GGUF:
        return fe_tokenizer_from_gguf(arena, diag, s->where, &s->gguf, blob);
    }
    return false;
}

/* In an arena of its own: what it takes to make one is a multiple of it. */
static bool build_tokenizer(build *b) {
    const fe_tokenizer_source *s = &b->model->tokenizer;
    if (b->options->no_tokenizer)
        return true;
    if (s->kind == FE_TOKENIZER_NONE) {
        ir_warning(b->diag, b->options->input,
                   "it has no tokenizer; the artifact takes token ids only");
        return true;
    }
    ir_arena *arena = ir_arena_create();
    fe_blob blob = {0};
    if (!arena)
        return ir_error(b->diag, NULL, "out of memory");
    bool ok = tokenizer_from_source(s, arena, b->diag, &blob);
    if (ok) {
        uint8_t *copy = ir_arena_alloc(b->arena, blob.size);
        memcpy(copy, blob.data, blob.size);
        b->tokenizer = (fe_blob){copy, blob.size};
    }
    ir_arena_destroy(arena);
    return ok;
}

/* A template that the runtime cannot run is said now, not when the first message comes. */
static void check_template(build *b) {
    const fe_bytes *t = &b->model->chat_template;
    char error[512] = "";
    if (!t->size)
        return;
    rt_template *parsed = rt_template_parse((const char *)t->data, t->size, error, sizeof error);
    if (!parsed)
        ir_warning(b->diag, b->options->input,
                   "%s; build goes on, but chat needs --raw prompts with this model", error);
    rt_template_free(parsed);
}

/* --- passes
 * ------------------------------------------------------------------------------------------ */

static void print_module(ir_module *module, text *out) {
    FILE *f = open_memstream(&out->bytes, &out->size);
    if (!f)
        return;
    ir_print_module_lines(module, f);
    fclose(f);
}

static bool after_pass(void *user, const pass_info *pass, pass_context *context) {
    build *b = user;
    const char *wanted = b->options->print_after;
    if (wanted && (strcmp(wanted, "all") == 0 || strcmp(wanted, pass->name) == 0)) {
        printf("// after %s\n", pass->name);
        ir_print_module(context->module, stdout);
    }
    /* The graph that the artifact carries: simplified, before quantization, paging and fusion. */
    if (!b->graph.bytes && strcmp(pass->name, "dce") == 0)
        print_module(context->module, &b->graph);
    return !is_cancelled(b);
}

static const ir_target *pass_target(const build *b) {
    return b->options->n_targets ? cg_cpu_pass_target() : cg_cuda_pass_target();
}

static bool run_passes(build *b) {
    b->context = (pass_context){.module = b->module,
                                .diag = b->diag,
                                .options = &b->options->passes,
                                .target = pass_target(b)};
    if (!ir_verify(b->module, b->diag) || !pass_run_pipeline(&b->context, after_pass, b))
        return false;
    FILE *f = open_memstream(&b->plan.bytes, &b->plan.size);
    if (f) {
        plan_print(b->context.plan, f);
        fclose(f);
    }
    print_module(b->module, &b->fused); /* debug lines of kernels point into this text */
    if (!b->graph.bytes || !b->plan.bytes || !b->fused.bytes)
        return ir_error(b->diag, NULL, "out of memory for the graph's text");
    return true;
}

/* --- kernels
 * ------------------------------------------------------------------------------------------ */

typedef struct unit_queue {
    build *b;
    atomic_int next;
    int per_unit; /* kernels */
    int units_per_target;
    pthread_mutex_t lock;
    int done;
    bool failed;
    FILE *llvm, *assembly; /* NULL, or where to collect text (then one job) */
} unit_queue;

static void *compile_units(void *arg) {
    unit_queue *q = arg;
    build *b = q->b;
    const cg_program_list *p = b->program;
    for (int i; (i = atomic_fetch_add(&q->next, 1)) < b->n_units;) {
        const cg_cpu_target *target = b->options->targets[i / q->units_per_target];
        int first = i % q->units_per_target * q->per_unit;
        int n = p->n_kernels - first < q->per_unit ? p->n_kernels - first : q->per_unit;
        cg_cpu_options options = {.opt_level = b->options->opt_level,
                                  .graph_file = "model.ir",
                                  .emit_llvm = q->llvm,
                                  .emit_asm = q->assembly};
        ir_diag diag = {0}; /* of this unit: the sink is not shared between threads */
        bool ok = !(b->cancelled && atomic_load(b->cancelled)) &&
                  cg_cpu_compile(p->kernels + first, n, target, &options, &diag, &b->objects[i]);
        pthread_mutex_lock(&q->lock);
        for (int m = 0; m < diag.count; m++)
            ir_error(b->diag, diag.messages[m].where, "%s", diag.messages[m].text);
        q->failed |= !ok;
        q->done += n;
        progress_update(&b->progress, q->done, p->n_kernels * b->options->n_targets, "kernels");
        pthread_mutex_unlock(&q->lock);
        ir_diag_clear(&diag);
        if (!ok)
            break;
    }
    return NULL;
}

/* Compiles the kernels for each target, in units of a few, on several threads. */
static bool compile_kernels(build *b, FILE *llvm, FILE *assembly) {
    enum { MOST_UNITS = 48 };
    const cg_program_list *p = b->program;
    int total = p->n_kernels * b->options->n_targets;
    unit_queue q = {.b = b, .llvm = llvm, .assembly = assembly};
    q.per_unit = (total + MOST_UNITS - 1) / MOST_UNITS;
    if (q.per_unit < 1)
        q.per_unit = 1;
    q.units_per_target = (p->n_kernels + q.per_unit - 1) / q.per_unit;
    b->n_units = q.units_per_target * b->options->n_targets;
    b->objects = calloc((size_t)b->n_units + 1, sizeof *b->objects);
    if (!b->objects)
        return ir_error(b->diag, NULL, "out of memory");
    pthread_mutex_init(&q.lock, NULL);
    pthread_t threads[64];
    int n = 0, jobs = llvm || assembly ? 1 : b->options->jobs;
    for (; n < jobs - 1 && n < 64; n++)
        if (pthread_create(&threads[n], NULL, compile_units, &q))
            break;
    compile_units(&q);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&q.lock);
    return !is_cancelled(b) && !q.failed;
}

static int link_code(build *b) {
    const cg_program_list *p = b->program;
    if (!b->objects && !(b->objects = calloc(1, sizeof *b->objects))) { /* code for GPUs alone */
        ir_error(b->diag, NULL, "out of memory");
        return -1;
    }
    if (!cg_cpu_compile_descriptor(p->kernels, p->n_kernels, b->options->targets,
                                   b->options->n_targets, b->diag, &b->objects[b->n_units]))
        return -1;
    cg_link_input inputs[64];
    for (int i = 0; i <= b->n_units; i++)
        inputs[i] = (cg_link_input){b->objects[i].bytes, b->objects[i].size};
    return cg_link(inputs, b->n_units + 1, b->diag);
}

/* --- the artifact
 * ---------------------------------------------------------------------------------------- */

static void show_weights(void *user, uint64_t done, uint64_t total) {
    build *b = user;
    progress_update(&b->progress, (double)done / 1e6, (double)total / 1e6, "MB");
    /* What was packed is not read again, so that it need not stay in memory. */
    if (done - b->released < RELEASE_BYTES)
        return;
    b->released = done;
    for (int i = 0; i < b->model->file_count; i++)
        fe_file_release(&b->model->files[i], 0, b->model->files[i].size);
}

static int64_t max_model_len(const build *b) {
    return b->options->max_model_len ? b->options->max_model_len : b->model->config.max_context;
}

static bool write_artifact(build *b, int code) {
    const build_options *o = b->options;
    end_hashing(b);
    size_t cuda_bytes = 0;
    void *cuda = !b->cuda.n_units
                     ? NULL
                     : cg_cuda_section_create(b->cuda.units, b->cuda.n_units, b->cuda.targets,
                                              b->cuda.n_targets, &cuda_bytes);
    if (b->cuda.n_units && !cuda)
        return ir_error(b->diag, NULL, "out of memory for the GPU code");
    char *manifest =
        manifest_create(o, b->model, b->program, b->context.plan->graph_hash,
                        b->context.plan->strategy, max_model_len(b), &b->hashes, &b->cuda);
    if (!manifest) {
        free(cuda);
        return ir_error(b->diag, NULL, "out of memory for the manifest");
    }
    cg_section_bytes sections[] = {
        {MCC_SECTION_MANIFEST, manifest, strlen(manifest)},
        {MCC_SECTION_GRAPH, b->graph.bytes, b->graph.size},
        {MCC_SECTION_PLAN, b->plan.bytes, b->plan.size},
        {MCC_SECTION_FUSED, b->fused.bytes, b->fused.size},
        {MCC_SECTION_TOKENIZER, b->tokenizer.data, b->tokenizer.size},
        {MCC_SECTION_TEMPLATE, b->model->chat_template.data, b->model->chat_template.size},
        {MCC_SECTION_CUDA, cuda, cuda_bytes},
    };
    cg_target_fact targets[BUILD_MAX_TARGETS];
    for (int i = 0; i < o->n_targets; i++)
        targets[i] = (cg_target_fact){o->targets[i]->name, o->targets[i]->cpu_features};
    const fe_config *c = &b->model->config;
    cg_model_facts facts = {c->vocab, c->hidden, c->layers, max_model_len(b)};
    cg_artifact_spec spec = {.path = o->output,
                             .code = code,
                             .program = b->program,
                             .backend = &cg_cpu_backend,
                             .facts = &facts,
                             .targets = targets,
                             .n_targets = o->n_targets,
                             .sections = sections,
                             .n_sections = sizeof sections / sizeof *sections,
                             .jobs = o->jobs,
                             .cancelled = b->cancelled,
                             .progress = show_weights,
                             .user = b};
    bool ok = cg_artifact_write(&spec, &b->file_bytes, b->diag);
    free(manifest);
    free(cuda);
    return ok;
}

/* --- texts
 * ------------------------------------------------------------------------------------------ */

/* Writes a text that is complete, to standard output where path is NULL. What cannot be written
 * whole is removed. */
static bool write_text(build *b, const char *path, const text *t) {
    if (!path) /* what goes wrong there is main's to say */
        return fwrite(t->bytes, 1, t->size, stdout) == t->size;
    FILE *f = fopen(path, "w");
    if (!f)
        return ir_error(b->diag, path, "cannot write it: %s", strerror(errno));
    bool ok = fwrite(t->bytes, 1, t->size, f) == t->size;
    ok = fflush(f) == 0 && ok;
    int error = errno;
    if (fclose(f) && ok) {
        ok = false;
        error = errno;
    }
    struct stat found;
    if (!ok && !lstat(path, &found) && S_ISREG(found.st_mode))
        unlink(path);
    return ok || ir_error(b->diag, path, "cannot write it: %s", strerror(error));
}

/* "OUT: INPUT …" for make and ninja; spaces and dollars escaped as both read them. */
static bool write_depfile(build *b) {
    text t = {0};
    FILE *f = open_memstream(&t.bytes, &t.size);
    if (!f)
        return ir_error(b->diag, NULL, "out of memory for the dependencies");
    const char *path = b->options->output;
    for (int i = -1; path; path = input_path(b, ++i)) {
        fputs(i < 0 ? "" : " \\\n  ", f);
        for (; *path; path++) {
            if (*path == ' ' || *path == '#')
                fputc('\\', f);
            if (*path == '$')
                fputc('$', f);
            fputc(*path, f);
        }
        if (i < 0)
            fputc(':', f);
    }
    fputc('\n', f);
    bool ok = fclose(f) == 0 || ir_error(b->diag, NULL, "out of memory for the dependencies");
    ok = ok && write_text(b, b->options->depfile, &t);
    free(t.bytes);
    return ok;
}

static bool emit_text(build *b) {
    const build_options *o = b->options;
    if (o->emit == BUILD_EMIT_GRAPH)
        return write_text(b, o->output, &b->graph);
    if (o->emit == BUILD_EMIT_IR)
        return write_text(b, o->output, &b->fused);
    if (o->emit == BUILD_EMIT_PLAN)
        return write_text(b, o->output, &b->plan);
    text t = {0};
    FILE *f = open_memstream(&t.bytes, &t.size);
    if (!f)
        return ir_error(b->diag, NULL, "out of memory for the text");
    bool ok = true;
    if (o->emit >= BUILD_EMIT_CUDA)
        ok = cuda_generate(b->program, o, b->arena, b->diag, &b->cuda) &&
             (o->emit == BUILD_EMIT_CUDA || o->emit == BUILD_EMIT_TILES ||
              cuda_compile(&b->cuda, o, b->cancelled, &b->progress, b->diag)) &&
             cuda_emit(&b->cuda, o, f, b->diag);
    else if (o->emit == BUILD_EMIT_KERNELS)
        for (int i = 0; i < b->program->n_kernels; i++)
            fprintf(f, "%s// %s\n%s", i ? "\n" : "", b->program->kernels[i]->name,
                    cg_kernel_describe(b->program->kernels[i], b->arena));
    else
        ok = compile_kernels(b, o->emit == BUILD_EMIT_LLVM ? f : NULL,
                             o->emit == BUILD_EMIT_ASM ? f : NULL);
    if (fclose(f))
        ok = ir_error(b->diag, NULL, "out of memory for the text");
    ok = ok && (cuda_emits_directory(o) || write_text(b, o->output, &t));
    free(t.bytes);
    return ok;
}

/* --- summary
 * ------------------------------------------------------------------------------------------------
 */

/* What a process needs for one sequence of the longest context: weights, KV cache, activations of
 * steps of the engine's default size. */
static uint64_t peak_memory(const build *b) {
    enum { STEP = 128 };
    const cg_program_list *p = b->program;
    const ir_module *m = p->module;
    uint64_t bytes = p->weight_bytes + (uint64_t)(p->arena_bytes.c + STEP * p->arena_bytes.t +
                                                  p->arena_bytes.s + p->arena_bytes.r);
    for (int i = 0; i < m->n_kv_groups; i++) {
        const ir_kv_group *g = &m->kv_groups[i];
        mcc_kv_group_entry entry = {.window = g->window,
                                    .layers = (int32_t)g->layers,
                                    .page_tokens = (int32_t)g->page_tokens,
                                    .layer_bytes = (uint64_t)ir_kv_page_bytes(g)};
        bytes += rt_kv_bytes_for(&entry, 1, max_model_len(b), STEP);
    }
    return bytes;
}

static void print_summary_json(const build *b) {
    const cg_program_list *p = b->program;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "output", b->options->dry_run ? "" : b->options->output);
    cJSON_AddNumberToObject(j, "file_bytes", (double)b->file_bytes);
    cJSON_AddNumberToObject(j, "weight_bytes", (double)p->weight_bytes);
    cJSON_AddNumberToObject(j, "kernels", p->n_kernels);
    cJSON_AddNumberToObject(j, "launches", p->n_launches);
    cJSON_AddNumberToObject(j, "arena_bytes_per_token", (double)p->arena_bytes.t);
    cJSON_AddNumberToObject(j, "arena_bytes_per_row", (double)p->arena_bytes.r);
    cJSON_AddNumberToObject(j, "peak_memory_bytes", (double)peak_memory(b));
    if (b->cuda.n_units) {
        cuda_facts facts = cuda_facts_of(&b->cuda);
        cJSON_AddNumberToObject(j, "cuda_functions", b->cuda.n_units);
        cJSON_AddNumberToObject(j, "cuda_bytes", (double)facts.bytes);
        cJSON_AddNumberToObject(j, "cuda_registers", facts.registers);
        cJSON_AddNumberToObject(j, "cuda_spill_bytes", facts.spill_bytes);
        cJSON_AddNumberToObject(j, "cuda_tiles", b->cuda.tiles.n);
        cJSON_AddNumberToObject(j, "cuda_tiles_given", b->cuda.given_tiles);
    }
    cJSON *phases = cJSON_AddObjectToObject(j, "seconds");
    for (int i = 0; i < b->progress.n_phases; i++)
        cJSON_AddNumberToObject(phases, b->progress.phases[i].name, b->progress.phases[i].seconds);
    char *printed = cJSON_Print(j);
    puts(printed ? printed : "{}");
    free(printed);
    cJSON_Delete(j);
}

static void print_cuda_summary(const build *b) {
    cuda_facts facts = cuda_facts_of(&b->cuda);
    if (!b->cuda.n_units)
        return;
    printf("  cuda     %d functions for %d architectures, %.1f MB; at most %" PRIu32 " registers, ",
           b->cuda.n_units, b->cuda.n_targets, (double)facts.bytes / 1e6, facts.registers);
    if (b->options->tiles)
        printf("tiles of %d of %d from %s; ", b->cuda.given_tiles, b->cuda.tiles.n,
               b->options->tiles_file ? b->options->tiles_file : "a table");
    if (facts.functions_that_spill)
        printf("%" PRIu32 " spill\n", facts.functions_that_spill);
    else
        puts("no spills");
}

static void print_summary(const build *b) {
    const build_options *o = b->options;
    const cg_program_list *p = b->program;
    if (o->json) {
        print_summary_json(b);
        return;
    }
    if (o->quiet)
        return;
    if (o->dry_run)
        printf("dry run: nothing written\n");
    else
        printf("%s  %.1f MB\n", o->output, (double)b->file_bytes / 1e6);
    printf("  model    %s (%s), %" PRId64 " layers\n", b->model->name, b->model->arch->name,
           b->model->config.layers);
    printf("  targets ");
    for (int i = 0; i < o->n_targets; i++)
        printf(" %s", o->targets[i]->name);
    for (int i = 0; i < o->n_cuda_targets; i++)
        printf(" %s", o->cuda_targets[i]->name);
    printf("\n  kernels  %d distinct, %d launches a step (fusion: %s)\n", p->n_kernels,
           p->n_launches, b->context.plan->strategy);
    print_cuda_summary(b);
    printf("  memory   weights %.1f MB; activations %.1f kB a token + %.1f kB an output row;\n"
           "           in all %.1f MB with one sequence of %" PRId64 " tokens\n",
           (double)p->weight_bytes / 1e6, (double)p->arena_bytes.t / 1e3,
           (double)p->arena_bytes.r / 1e3, (double)peak_memory(b) / 1e6, max_model_len(b));
    printf("  seconds ");
    double total = 0;
    for (int i = 0; i < b->progress.n_phases; i++) {
        printf(" %s %.2f,", b->progress.phases[i].name, b->progress.phases[i].seconds);
        total += b->progress.phases[i].seconds;
    }
    printf(" in all %.2f\n", total);
}

/* --- the whole
 * ------------------------------------------------------------------------------------------------
 */

static bool run(build *b) {
    const build_options *o = b->options;
    progress_phase(&b->progress, "read");
    b->model = fe_open(o->input, b->diag);
    if (!b->model || is_cancelled(b))
        return false;
    bool artifact = o->emit == BUILD_ARTIFACT;
    if (!check_outputs(b) || (artifact && !o->dry_run && !start_hashing(b)))
        return false;
    check_template(b);
    if (!build_tokenizer(b))
        return false;
    if (o->max_model_len > b->model->config.max_context)
        ir_warning(b->diag, o->input,
                   "--max-model-len %" PRId64 ", but the model was made for %" PRId64
                   " tokens: what it says beyond them may make no sense",
                   o->max_model_len, b->model->config.max_context);
    b->module = fe_build(b->model, o->task, b->diag);
    if (!b->module)
        return false;
    progress_phase(&b->progress, "passes");
    if (!run_passes(b))
        return false;
    b->program = cg_program_create(b->module, &cg_cpu_backend, b->arena, b->diag);
    if (!b->program)
        return false;
    if (o->generated)
        o->generated(o->user, b->program);
    progress_phase(&b->progress, "kernels");
    if (!artifact)
        return emit_text(b);
    if (o->n_targets && !compile_kernels(b, NULL, NULL))
        return false;
    if (o->n_cuda_targets) {
        progress_phase(&b->progress, "cuda");
        if (!cuda_generate(b->program, o, b->arena, b->diag, &b->cuda) ||
            !cuda_compile(&b->cuda, o, b->cancelled, &b->progress, b->diag))
            return false;
    }
    progress_phase(&b->progress, "link");
    int code = link_code(b);
    if (code < 0)
        return false;
    progress_phase(&b->progress, "weights");
    bool ok = o->dry_run || write_artifact(b, code);
    close(code);
    if (!ok)
        return false;
    if (o->depfile && !o->dry_run && !write_depfile(b))
        return false;
    progress_end(&b->progress);
    print_summary(b);
    return true;
}

bool build_run(const build_options *options, atomic_int *cancelled, ir_diag *diag) {
    build b = {
        .options = options, .cancelled = cancelled, .diag = diag, .arena = ir_arena_create()};
    if (!b.arena)
        return ir_error(diag, NULL, "out of memory");
    progress_init(&b.progress, options->quiet || options->json);
    bool ok = run(&b);
    progress_end(&b.progress);
    end_hashing(&b);
    for (int i = 0; b.objects && i <= b.n_units; i++)
        free(b.objects[i].bytes);
    free(b.objects);
    cuda_free(&b.cuda);
    free(b.hashes.hex);
    free(b.graph.bytes);
    free(b.plan.bytes);
    free(b.fused.bytes);
    ir_module_destroy(b.module);
    fe_close(b.model);
    ir_arena_destroy(b.arena);
    return ok;
}
