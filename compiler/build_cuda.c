#include "compiler/build_cuda.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The tiles that a kernel got, and whether they were given. */
static void note_tiles(cuda_code *out, const cg_cuda_code *code, const tile_table *given,
                       ir_arena *arena) {
    tile_entry entry = {.tiling = code->tiling};
    for (int i = 0; code->given && i < given->n; i++)
        if (strcmp(given->entries[i].tiling.key, code->tiling.key) == 0)
            entry = given->entries[i];
    int before = out->tiles.n;
    tile_table_add(&out->tiles, &entry, arena);
    out->given_tiles += code->given && out->tiles.n > before;
}

/* Where a target's function goes among those of `kernel`, from unit `first` on: the same one of
 * another target, or a new place behind all of its number of rows. */
static cg_cuda_unit *place_of(cuda_code *out, int first, const cg_cuda_function *f, bool *there) {
    int at = out->n_units;
    *there = false;
    for (int i = first; i < out->n_units; i++) {
        const cg_cuda_function *other = out->units[i].function;
        *there = strcmp(other->name, f->name) == 0 && strcmp(other->source, f->source) == 0;
        if (*there)
            return &out->units[i];
        if (other->min_rows > f->min_rows && at == out->n_units)
            at = i;
    }
    memmove(&out->units[at + 1], &out->units[at], (size_t)(out->n_units - at) * sizeof *out->units);
    out->n_units++;
    return &out->units[at];
}

/* The functions of a kernel, `codes` of all targets, each once. Two functions that are one variant
 * stay side by side: they have one name but for a suffix, so both are there or neither. */
static void add_units(cuda_code *out, int kernel, const cg_cuda_code *codes, ir_arena *arena) {
    int first = out->n_units;
    for (int t = 0; t < out->n_targets; t++)
        for (int k = 0; k < codes[t].n_functions; k++) {
            bool there;
            const cg_cuda_function *f = &codes[t].functions[k];
            cg_cuda_unit *unit = place_of(out, first, f, &there);
            if (!there)
                *unit = (cg_cuda_unit){.function = f,
                                       .kernel = (uint32_t)kernel,
                                       .images = ir_arena_array(arena, (size_t)out->n_targets + 1,
                                                                sizeof(cg_cuda_image))};
            unit->targets |= 1u << t;
        }
}

bool cuda_generate(const cg_program_list *program, const build_options *options, ir_arena *arena,
                   ir_diag *diag, cuda_code *out) {
    *out = (cuda_code){.targets = options->cuda_targets, .n_targets = options->n_cuda_targets};
    cg_cuda_tiles given = {0};
    if (options->tiles)
        given = tile_table_tiles(options->tiles, arena);
    size_t n_targets = (size_t)out->n_targets;
    cg_cuda_code *codes =
        ir_arena_array(arena, (size_t)program->n_kernels * n_targets + 1, sizeof *codes);
    bool ok = true;
    int total = 0;
    for (int i = 0; i < program->n_kernels; i++)
        for (int t = 0; t < out->n_targets; t++) {
            cg_cuda_code *code = &codes[(size_t)i * n_targets + (size_t)t];
            int errors = diag->errors;
            ok &= cg_cuda_generate_for(program->kernels[i], out->targets[t], &given, arena, diag,
                                       code);
            total += code->n_functions;
            if (code->tiling.key && diag->errors == errors)
                note_tiles(out, code, options->tiles, arena);
            if (diag->errors > errors && !code->given)
                break; /* not supported: once is enough */
        }
    out->units = ir_arena_array(arena, (size_t)total + 1, sizeof *out->units);
    for (int i = 0; i < program->n_kernels; i++)
        add_units(out, i, &codes[(size_t)i * n_targets], arena);
    return ok;
}

/* --- compilation ---------------------------------------------------------------------------------
 */

typedef struct queue {
    cuda_code *code;
    const cg_cuda_options *options;
    atomic_int *cancelled;
    progress *progress;
    ir_diag *diag;
    atomic_int next;
    pthread_mutex_t lock;
    int done;
    bool failed;
} queue;

static void *compile_units(void *arg) {
    queue *q = arg;
    int total = q->code->n_units * q->code->n_targets, images = 0;
    for (int i = 0; i < q->code->n_units; i++)
        images += __builtin_popcount(q->code->units[i].targets);
    for (int i; (i = atomic_fetch_add(&q->next, 1)) < total;) {
        if (q->cancelled && atomic_load(q->cancelled))
            break;
        const cg_cuda_unit *unit = &q->code->units[i / q->code->n_targets];
        int target = i % q->code->n_targets;
        if (!cg_cuda_unit_has(unit, target))
            continue;
        ir_diag diag = {0}; /* of this function: the sink is not shared between threads */
        bool ok = cg_cuda_compile(unit->function, q->code->targets[target], q->options, &diag,
                                  &unit->images[target]);
        pthread_mutex_lock(&q->lock);
        for (int m = 0; m < diag.count; m++)
            ir_error(q->diag, diag.messages[m].where, "%s", diag.messages[m].text);
        q->failed |= !ok;
        progress_update(q->progress, ++q->done, images, "GPU functions");
        pthread_mutex_unlock(&q->lock);
        ir_diag_clear(&diag);
        if (!ok)
            break;
    }
    return NULL;
}

/* $XDG_CACHE_HOME/modelcc/cuda, ~/.cache/modelcc/cuda; NULL where neither is set. */
static char *cache_directory(void) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int n = -1;
    if (base && *base == '/')
        n = asprintf(&path, "%s/modelcc/cuda", base);
    else if (home && *home == '/')
        n = asprintf(&path, "%s/.cache/modelcc/cuda", home);
    return n < 0 ? NULL : path;
}

bool cuda_compile(cuda_code *code, const build_options *options, atomic_int *cancelled,
                  progress *progress, ir_diag *diag) {
    if (!cg_cuda_nvrtc_load(diag)) /* once, not in every thread */
        return false;
    char *directory = options->no_cache ? NULL : cache_directory();
    cg_cuda_options cuda = {.cache_dir = directory};
    queue q = {
        .code = code, .options = &cuda, .cancelled = cancelled, .progress = progress, .diag = diag};
    pthread_mutex_init(&q.lock, NULL);
    pthread_t threads[64];
    int n = 0;
    for (; n < options->jobs - 1 && n < 64; n++)
        if (pthread_create(&threads[n], NULL, compile_units, &q))
            break;
    compile_units(&q);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&q.lock);
    free(directory);
    if (cancelled && atomic_load(cancelled))
        return ir_error(diag, options->output, "interrupted; nothing was written");
    return !q.failed;
}

/* --- texts ---------------------------------------------------------------------------------------
 */

bool cuda_emits_directory(const build_options *options) {
    struct stat found;
    size_t length = options->output ? strlen(options->output) : 0;
    bool texts = options->emit == BUILD_EMIT_CUDA || options->emit == BUILD_EMIT_PTX ||
                 options->emit == BUILD_EMIT_SASS;
    return texts && length &&
           (options->output[length - 1] == '/' ||
            (!stat(options->output, &found) && S_ISDIR(found.st_mode)));
}

static bool write_one(const cg_cuda_unit *unit, int target, build_emit emit, FILE *out,
                      ir_diag *diag) {
    const char *name = unit->function->name;
    if (emit == BUILD_EMIT_CUDA)
        return fputs(unit->function->source, out) >= 0;
    if (emit == BUILD_EMIT_PTX)
        return fputs(unit->images[target].ptx, out) >= 0;
    return cg_cuda_disassemble(&unit->images[target], name, out, diag);
}

static bool write_file(const cg_cuda_unit *unit, int target, const char *suffix,
                       const build_options *options, ir_diag *diag) {
    char *path = NULL;
    const char *slash = options->output[strlen(options->output) - 1] == '/' ? "" : "/";
    if (asprintf(&path, "%s%s%s%s", options->output, slash, unit->function->name, suffix) < 0)
        return ir_error(diag, NULL, "out of memory");
    FILE *f = fopen(path, "w");
    bool ok = f && write_one(unit, target, options->emit, f, diag);
    int errors = diag->errors;
    if (f)
        ok = fclose(f) == 0 && ok;
    if (!ok && diag->errors == errors)
        ir_error(diag, path, "cannot write it: %s", strerror(errno));
    free(path);
    return ok;
}

static bool emit_tiles(const cuda_code *code, FILE *out, ir_diag *diag) {
    char *text = tile_table_print(&code->tiles);
    bool ok = text && fputs(text, out) >= 0;
    free(text);
    return ok || ir_error(diag, NULL, "out of memory for the table of tiles");
}

bool cuda_emit(const cuda_code *code, const build_options *options, FILE *out, ir_diag *diag) {
    if (options->emit == BUILD_EMIT_TILES)
        return emit_tiles(code, out, diag);
    bool directory = cuda_emits_directory(options), ok = true;
    int n = options->emit == BUILD_EMIT_CUDA ? 1 : code->n_targets;
    if (directory && mkdir(options->output, 0777) && errno != EEXIST)
        return ir_error(diag, options->output, "cannot make the directory: %s", strerror(errno));
    for (int i = 0; ok && i < code->n_units; i++)
        for (int t = 0; ok && t < n; t++) {
            char suffix[64] = ".cu";
            if (options->emit != BUILD_EMIT_CUDA && !cg_cuda_unit_has(&code->units[i], t))
                continue;
            if (options->emit != BUILD_EMIT_CUDA)
                snprintf(suffix, sizeof suffix, ".%s.%s", code->targets[t]->arch_name,
                         options->emit == BUILD_EMIT_PTX ? "ptx" : "sass");
            if (directory) {
                ok = write_file(&code->units[i], t, suffix, options, diag);
                continue;
            }
            fprintf(out, "%s// %s%s\n", i || t ? "\n" : "", code->units[i].function->name, suffix);
            ok = write_one(&code->units[i], t, options->emit, out, diag);
        }
    return ok;
}

/* --- facts ---------------------------------------------------------------------------------------
 */

cuda_facts cuda_facts_of(const cuda_code *code) {
    cuda_facts facts = {0};
    for (int i = 0; i < code->n_units; i++)
        for (int t = 0; t < code->n_targets; t++) {
            const cg_cuda_image *m = &code->units[i].images[t];
            facts.registers = m->registers > facts.registers ? m->registers : facts.registers;
            facts.spill_bytes += m->spill_bytes;
            facts.functions_that_spill += m->spill_bytes != 0;
            facts.bytes += m->cubin_bytes + m->ptx_bytes;
        }
    return facts;
}

void cuda_manifest(const cuda_code *code, const cg_program_list *program, cJSON *manifest) {
    if (!code->n_units)
        return;
    cJSON_AddStringToObject(manifest, "nvrtc", cg_cuda_nvrtc_version());
    cJSON *list = cJSON_AddArrayToObject(manifest, "cuda");
    for (int i = 0; i < code->n_units; i++)
        for (int t = 0; t < code->n_targets; t++) {
            const cg_cuda_unit *u = &code->units[i];
            const cg_cuda_image *m = &u->images[t];
            const cg_cuda_target *target = code->targets[t];
            if (!cg_cuda_unit_has(u, t))
                continue;
            uint32_t warps = (u->function->threads + 31) / 32;
            cJSON *e = cJSON_CreateObject();
            cJSON_AddStringToObject(e, "function", u->function->name);
            cJSON_AddStringToObject(e, "kernel", program->kernels[u->kernel]->name);
            cJSON_AddStringToObject(e, "target", target->name);
            cJSON_AddNumberToObject(e, "registers", m->registers);
            cJSON_AddNumberToObject(e, "spill_bytes", m->spill_bytes);
            cJSON_AddNumberToObject(e, "shared_bytes",
                                    u->function->shared_bytes + m->static_shared_bytes);
            cJSON_AddNumberToObject(
                e, "occupancy", (double)(m->occupancy_blocks * warps * 32) / target->sm_threads);
            cJSON_AddItemToArray(list, e);
        }
}

void cuda_free(cuda_code *code) {
    for (int i = 0; i < code->n_units; i++)
        for (int t = 0; t < code->n_targets; t++)
            cg_cuda_image_free(&code->units[i].images[t]);
}
