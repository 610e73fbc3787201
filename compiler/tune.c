#include "compiler/tune.h"

#include "compiler/profile.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_TRIED = 64, MOST_DECODING = 64 };

/* Kernels of one key. */
typedef struct subject {
    const char *key;
    uint32_t split_rows; /* of cg_cuda_split_rows */
    int n;
    cg_cuda_tile tried[MOST_TRIED];
    double (*seconds)[TUNE_MOST_ROWS]; /* [n]; of a launch of each kernel; 0: not timed */
} subject;

typedef struct tuning {
    const tune_options *options;
    ir_arena *arena;
    ir_diag *diag;
    const cg_cuda_target *target;
    char device[192];
    int n_subjects, n_kernels;
    subject *subjects;
    int *subject_of; /* [n_kernels]: -1: without tiles */
    char path[4096]; /* of the artifact of a round */
} tuning;

/* --- the device ----------------------------------------------------------------------------------
 */

static bool on_emulator(const tune_options *o) {
    return strcmp(o->device, "emulator") == 0;
}

static bool find_target(tuning *t, uint32_t arch) {
    int n;
    const cg_cuda_target *all = cg_cuda_targets(&n);
    for (int i = 0; i < n; i++)
        if (all[i].arch == arch)
            t->target = &all[i];
    return t->target ||
           ir_error(t->diag, NULL, "%s is of an architecture that is no target: sm_%" PRIu32,
                    t->device, arch);
}

static bool find_emulated(tuning *t) {
    verify_emulator e = {0};
    bool ok = verify_emulator_open(&e, t->diag);
    const modelcc_emulator_gpu *gpu = NULL;
    if (ok) {
        gpu = verify_emulator_named(&e, t->options->gpu ? t->options->gpu : "a100");
        if (gpu) {
            snprintf(t->device, sizeof t->device, "%s%s", gpu->title,
                     t->options->clock ? " (the emulator's clock)" : "");
            ok = find_target(t, (uint32_t)(gpu->major * 10 + gpu->minor));
        } else {
            ok = ir_error(t->diag, NULL, "no data sheet of a GPU \"%s\"", t->options->gpu);
        }
    }
    verify_emulator_close(&e);
    return ok;
}

static bool find_gpu(tuning *t) {
    const char *colon = strchr(t->options->device, ':');
    rt_cuda_driver d = {0};
    rt_error error = {0};
    CUdevice gpu;
    char name[128] = "";
    int major = 0, minor = 0;
    if (!rt_cuda_open(&d, false, &error))
        return ir_error(t->diag, NULL, "%s", error.text);
    bool ok = rt_cuda_ok(&d, RT_CUDA(&d, cuDeviceGet, &gpu, colon ? atoi(colon + 1) : 0),
                         "finding the device", &error) &&
              rt_cuda_ok(&d, RT_CUDA(&d, cuDeviceGetName, name, sizeof name - 1, gpu),
                         "naming the device", &error) &&
              rt_cuda_ok(&d,
                         RT_CUDA(&d, cuDeviceGetAttribute, &major,
                                 CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, gpu),
                         "asking for the architecture", &error) &&
              rt_cuda_ok(&d,
                         RT_CUDA(&d, cuDeviceGetAttribute, &minor,
                                 CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, gpu),
                         "asking for the architecture", &error);
    snprintf(t->device, sizeof t->device, "%s, driver of CUDA %d.%d", name, d.version / 1000,
             d.version % 1000 / 10);
    rt_cuda_close(&d);
    return ok ? find_target(t, (uint32_t)(major * 10 + minor))
              : ir_error(t->diag, NULL, "%s", error.text);
}

/* --- what is tried -------------------------------------------------------------------------------
 */

static bool same_tile(const cg_cuda_tile *a, const cg_cuda_tile *b) {
    return a->form == b->form && memcmp(a->values, b->values, sizeof a->values) == 0;
}

/* A kernel's candidates; of several kernels with one key those that all can have. */
static void note_kernel(tuning *t, int index, const cg_kernel *kernel) {
    const char *key = cg_cuda_tile_key(kernel, t->target, t->arena);
    cg_cuda_tile legal[MOST_TRIED];
    int n = cg_cuda_tile_candidates(kernel, t->target, t->arena, legal, MOST_TRIED), s = 0;
    t->subject_of[index] = -1;
    if (!key)
        return;
    while (s < t->n_subjects && strcmp(t->subjects[s].key, key) != 0)
        s++;
    subject *to = &t->subjects[s];
    t->subject_of[index] = s;
    if (s == t->n_subjects) {
        t->n_subjects++;
        *to = (subject){.key = key, .n = n, .split_rows = cg_cuda_split_rows(kernel)};
        memcpy(to->tried, legal, (size_t)n * sizeof *legal);
        return;
    }
    int kept = 0;
    for (int i = 0; i < to->n; i++)
        for (int k = 0; k < n; k++)
            if (same_tile(&to->tried[i], &legal[k])) {
                to->tried[kept++] = to->tried[i];
                break;
            }
    to->n = kept;
}

/* Of more candidates than may be tried, some from all over. */
static void thin_out(tuning *t) {
    int most = t->options->most;
    for (int s = 0; s < t->n_subjects; s++) {
        subject *to = &t->subjects[s];
        if (most > 0 && to->n > most) {
            for (int i = 0; i < most; i++)
                to->tried[i] = to->tried[i * to->n / most];
            to->n = most;
        }
        to->seconds = ir_arena_array(t->arena, (size_t)to->n + 1, sizeof *to->seconds);
    }
}

static void note_program(void *user, const cg_program_list *program) {
    tuning *t = user;
    if (t->subjects)
        return;
    t->n_kernels = program->n_kernels;
    size_t n = (size_t)program->n_kernels + 1;
    t->subjects = ir_arena_array(t->arena, n, sizeof *t->subjects);
    t->subject_of = ir_arena_array(t->arena, n, sizeof *t->subject_of);
    for (int i = 0; i < program->n_kernels; i++)
        note_kernel(t, i, program->kernels[i]);
    thin_out(t);
}

/* --- rounds --------------------------------------------------------------------------------------
 */

static int candidate_of(const subject *s, int round) {
    return s->n ? round % s->n : -1;
}

static bool with_splits(const subject *s, const cg_cuda_tile *tile) {
    return s->split_rows && tile->values[0] > 1;
}

/* A tile for all numbers of rows, as far as that is legal. */
static cg_cuda_tiling tiling_of(const subject *s, const cg_cuda_tile *tile) {
    cg_cuda_tiling out = {.key = s->key, .n = 1, .tiles = {*tile}};
    if (with_splits(s, tile)) {
        out.tiles[1] = *tile;
        out.tiles[1].min_rows = s->split_rows;
        out.tiles[1].values[0] = 1;
        out.n = 2;
    }
    return out;
}

static bool build_round(tuning *t, int round) {
    ir_arena *arena = ir_arena_create();
    if (!arena)
        return ir_error(t->diag, NULL, "out of memory");
    tile_table table = {0};
    for (int s = 0; round >= 0 && s < t->n_subjects; s++)
        if (t->subjects[s].n) {
            const cg_cuda_tile *tile = &t->subjects[s].tried[candidate_of(&t->subjects[s], round)];
            tile_entry entry = {.tiling = tiling_of(&t->subjects[s], tile)};
            tile_table_add(&table, &entry, arena);
        }
    build_options o = *t->options->build;
    o.output = t->path;
    o.n_targets = 0;
    o.cuda_targets[0] = t->target;
    o.n_cuda_targets = 1;
    o.emit = round < 0 ? BUILD_EMIT_TILES : BUILD_ARTIFACT; /* the first: what is there to try */
    o.quiet = true;
    o.tiles = round < 0 ? NULL : &table;
    o.generated = note_program;
    o.user = t;
    bool ok = build_run(&o, t->options->cancelled, t->diag);
    ir_arena_destroy(arena);
    return ok;
}

static double launch_seconds(const profile_report *r, const profile_kernel *k) {
    return r->gpu ? k->predicted.seconds : k->launches ? k->seconds / k->launches : 0;
}

/* Times the artifact for options->rows[i]. */
static bool time_rows(tuning *t, int round, int i) {
    const tune_options *o = t->options;
    int32_t rows = o->rows[i];
    bool prefill = rows > MOST_DECODING, count = on_emulator(o) && !o->clock;
    profile_options p = {.path = t->path,
                         .device = o->device,
                         .gpu = o->gpu,
                         .prefill = prefill,
                         .batch = prefill ? 1 : rows,
                         .context = prefill ? rows : o->context,
                         .repeat = o->repeat,
                         .cancelled = o->cancelled};
    profile_report r;
    bool ok = count ? profile_count(&p, &r, t->diag) : profile_measure(&p, &r, t->diag);
    for (int k = 0; ok && k < r.n_kernels; k++) {
        int at = r.kernels[k].kernel < t->n_kernels ? t->subject_of[r.kernels[k].kernel] : -1;
        if (at < 0 || !t->subjects[at].n)
            continue;
        subject *s = &t->subjects[at];
        int c = candidate_of(s, round);
        if (round < s->n && !(with_splits(s, &s->tried[c]) && (uint32_t)rows >= s->split_rows))
            s->seconds[c][i] += launch_seconds(&r, &r.kernels[k]);
    }
    profile_report_free(&r);
    return ok;
}

static bool run_rounds(tuning *t) {
    int rounds = 0;
    if (!build_round(t, -1))
        return false;
    for (int s = 0; s < t->n_subjects; s++)
        rounds = t->subjects[s].n > rounds ? t->subjects[s].n : rounds;
    for (int round = 0; round < rounds; round++) {
        if (t->options->progress)
            t->options->progress(t->options->user, round, rounds);
        if (!build_round(t, round))
            return false;
        for (int i = 0; i < t->options->n_rows; i++)
            if (!time_rows(t, round, i))
                return false;
    }
    return true;
}

/* --- the table -----------------------------------------------------------------------------------
 */

/* The tile that was fastest for the i-th number of rows, the first of equal ones; -1: none ran. */
static int fastest(const subject *s, int i) {
    int best = -1;
    for (int c = 0; c < s->n; c++)
        if (s->seconds[c][i] > 0 && (best < 0 || s->seconds[c][i] < s->seconds[best][i]))
            best = c;
    return best;
}

/* A number of rows has the tile of the next one that was timed. */
static void add_entry(const tuning *t, const subject *s, tile_table *out) {
    tile_entry e = {.tiling = {.key = s->key},
                    .origin = on_emulator(t->options) ? TILE_PREDICTED : TILE_MEASURED,
                    .device = ir_arena_strdup(t->arena, t->device),
                    .date = t->options->date};
    cg_cuda_tiling *to = &e.tiling;
    uint32_t from = 0;
    for (int i = 0; i < t->options->n_rows; i++) {
        int best = fastest(s, i);
        if (best < 0)
            continue;
        e.microseconds += s->seconds[best][i] * 1e6;
        if (!to->n || !same_tile(&to->tiles[to->n - 1], &s->tried[best])) {
            if (to->n == CG_MOST_TILES - 1)
                break;
            to->tiles[to->n] = s->tried[best];
            to->tiles[to->n++].min_rows = from;
        }
        from = (uint32_t)t->options->rows[i] + 1;
    }
    if (!to->n)
        return;
    const cg_cuda_tile *last = &to->tiles[to->n - 1];
    if (with_splits(s, last)) {
        to->tiles[to->n] = *last;
        to->tiles[to->n].min_rows = s->split_rows;
        to->tiles[to->n++].values[0] = 1;
    }
    e.microseconds = round(e.microseconds * 1000) / 1000;
    tile_table_add(out, &e, t->arena);
}

bool tune_run(const tune_options *o, ir_arena *arena, ir_diag *diag, tile_table *out) {
    tuning t = {.options = o, .arena = arena, .diag = diag};
    const char *tmp = getenv("TMPDIR");
    char directory[3072];
    *out = (tile_table){0};
    if (!(on_emulator(o) ? find_emulated(&t) : find_gpu(&t)))
        return false;
    snprintf(directory, sizeof directory, "%.3000s/modelcc-tune-XXXXXX",
             tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(directory))
        return ir_error(diag, directory, "cannot make the directory: %s", strerror(errno));
    snprintf(t.path, sizeof t.path, "%s/model.so", directory);
    bool ok = run_rounds(&t);
    unlink(t.path);
    rmdir(directory);
    for (int s = 0; ok && s < t.n_subjects; s++)
        add_entry(&t, &t.subjects[s], out);
    return ok && (out->n || ir_error(diag, o->build->input, "no kernel of it has tiles"));
}
