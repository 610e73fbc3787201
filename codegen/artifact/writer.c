#include "codegen/artifact/writer.h"

#include "runtime/sha256.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STREAM_BYTES = 2 << 20 };

typedef struct writer {
    const cg_artifact_spec *spec;
    ir_diag *diag;
    int fd;
    char *directory; /* of the output */
    char *temporary; /* its name, or NULL while it has none */
    uint64_t end;    /* of what is written so far */
    mcc_footer footer;
    /* shared by the threads that stream weights */
    uint64_t weights_offset;
    atomic_int next_weight;
    atomic_int error; /* errno of the first failed write, or -1: cancelled, -2: memory */
    pthread_mutex_t lock;
    uint64_t done;
} writer;

/* --- the file without a name
 * ------------------------------------------------------------------------ */

static bool fail(writer *w, int error, const char *doing) {
    return ir_error(w->diag, w->spec->path, "cannot %s: %s%s", doing, strerror(error),
                    error == ENOSPC ? "; free some space or choose another place with -o" : "");
}

/* How the temporary names of an output begin: one file name, in the output's directory. */
static void temporary_prefix(const char *path, char prefix[32]) {
    const char *slash = strrchr(path, '/');
    uint32_t hash = 2166136261u; /* FNV-1a: the output's name may be as long as names can be */
    for (const char *p = slash ? slash + 1 : path; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    snprintf(prefix, 32, ".modelcc-%08x-", hash);
}

/* Removes what killed builds of this output have left. Who still builds holds a lock on its file.
 */
static void sweep(const char *directory, const char *prefix) {
    DIR *dir = opendir(directory);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)))
            continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (!flock(fd, LOCK_EX | LOCK_NB))
            unlinkat(dirfd(dir), e->d_name, 0);
        close(fd);
    }
    closedir(dir);
}

static bool create(writer *w) {
    char prefix[32];
    temporary_prefix(w->spec->path, prefix);
    sweep(w->directory, prefix);
    w->fd = open(w->directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0755);
    if (w->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
        /* No files without names here: one with a name that is removed on failure. */
        if (asprintf(&w->temporary, "%s/%sXXXXXX", w->directory, prefix) < 0)
            w->temporary = NULL;
        w->fd = w->temporary ? mkostemp(w->temporary, O_CLOEXEC) : -1;
        if (w->fd < 0) {
            free(w->temporary);
            w->temporary = NULL;
        } else {
            mode_t mask = umask(0);
            umask(mask);
            fchmod(w->fd, 0755 & ~mask);
        }
    }
    if (w->fd < 0)
        return fail(w, errno, "create it");
    flock(w->fd, LOCK_EX); /* see sweep() */
    return true;
}

/* Links the file without a name as `to`. errno, or 0. */
static int link_as(writer *w, const char *to) {
    char from[64];
    snprintf(from, sizeof from, "/proc/self/fd/%d", w->fd);
    return linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) ? errno : 0;
}

/* Gives the finished file its name. A link cannot take the place of a file that is there: then it
 * gets a temporary one first. Killed in between, a build leaves that, for the next one's sweep().
 */
static bool publish(writer *w) {
    if (fsync(w->fd))
        return fail(w, errno, "write it to disk");
    int error = w->temporary ? EEXIST : link_as(w, w->spec->path);
    if (!error)
        return true;
    char prefix[32];
    temporary_prefix(w->spec->path, prefix);
    for (int i = 0; !w->temporary && error == EEXIST && i < 100; i++) {
        if (asprintf(&w->temporary, "%s/%s%d-%d", w->directory, prefix, (int)getpid(), i) < 0) {
            w->temporary = NULL;
            error = ENOMEM;
        } else if ((error = link_as(w, w->temporary))) {
            free(w->temporary);
            w->temporary = NULL;
        }
    }
    if (!w->temporary)
        return fail(w, error, "name it");
    if (rename(w->temporary, w->spec->path))
        return fail(w, errno, "name it");
    free(w->temporary);
    w->temporary = NULL;
    return true;
}

/* --- bytes
 * ------------------------------------------------------------------------------------------ */

static int write_at(int fd, const void *bytes, size_t size, uint64_t offset) {
    const char *p = bytes;
    while (size) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? errno : EIO;
        p += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static mcc_section *new_section(writer *w, mcc_section_kind kind, uint64_t size) {
    mcc_section *s = &w->footer.sections[w->footer.n_sections++];
    w->end = (w->end + MCC_ARTIFACT_PAGE - 1) / MCC_ARTIFACT_PAGE * MCC_ARTIFACT_PAGE;
    *s = (mcc_section){.kind = kind, .offset = w->end, .size = size};
    w->end += size;
    return s;
}

static bool add_section(writer *w, const cg_section_bytes *bytes) {
    if (!bytes->size)
        return true;
    mcc_section *s = new_section(w, bytes->kind, bytes->size);
    rt_sha256_of(bytes->bytes, bytes->size, s->sha256);
    int error = write_at(w->fd, bytes->bytes, bytes->size, s->offset);
    return !error || fail(w, error, "write it");
}

static bool add_code(writer *w) {
    struct stat st;
    if (fstat(w->spec->code, &st) || st.st_size <= 0)
        return ir_internal_error(w->diag, w->spec->path, "the linked code is empty");
    size_t size = (size_t)st.st_size;
    char *bytes = malloc(size);
    bool ok = bytes && pread(w->spec->code, bytes, size, 0) == (ssize_t)size &&
              add_section(w, &(cg_section_bytes){MCC_SECTION_CODE, bytes, size});
    if (!bytes)
        fail(w, ENOMEM, "write it");
    free(bytes);
    return ok;
}

/* --- weights
 * ----------------------------------------------------------------------------------------- */

static void set_error(writer *w, int error) {
    int none = 0;
    atomic_compare_exchange_strong(&w->error, &none, error);
}

static bool stopped(writer *w) {
    if (w->spec->cancelled && atomic_load(w->spec->cancelled))
        set_error(w, -1);
    return atomic_load(&w->error) != 0;
}

static void write_weight_bytes(writer *w, rt_sha256 *hash, const void *bytes, size_t size,
                               uint64_t offset) {
    rt_sha256_update(hash, bytes, size);
    int error = write_at(w->fd, bytes, size, offset);
    if (error)
        set_error(w, error);
    pthread_mutex_lock(&w->lock);
    w->done += size;
    if (w->spec->progress)
        w->spec->progress(w->spec->user, w->done, w->spec->program->weight_bytes);
    pthread_mutex_unlock(&w->lock);
}

static void stream_packed(writer *w, cg_weight *weight, rt_sha256 *hash) {
    const cg_backend *backend = w->spec->backend;
    int64_t tiles = backend->packed_tiles(&weight->type);
    int64_t tile_bytes = tiles ? (int64_t)weight->bytes / tiles : 0;
    if (!tile_bytes)
        return;
    int64_t step = STREAM_BYTES / tile_bytes ? STREAM_BYTES / tile_bytes : 1;
    void *buffer = aligned_alloc(64, (size_t)((step * tile_bytes + 63) / 64 * 64));
    if (!buffer)
        set_error(w, -2);
    for (int64_t t = 0; t < tiles && !stopped(w); t += step) {
        int64_t end = t + step < tiles ? t + step : tiles;
        backend->pack_tiles(&weight->type, weight->n_parts, weight->sources, weight->rows, t, end,
                            buffer);
        write_weight_bytes(w, hash, buffer, (size_t)((end - t) * tile_bytes),
                           w->weights_offset + weight->offset + (uint64_t)(t * tile_bytes));
    }
    free(buffer);
}

/* Row-major parts lie one behind the other as they are in the model's file. */
static void stream_plain(writer *w, cg_weight *weight, rt_sha256 *hash) {
    uint64_t offset = w->weights_offset + weight->offset;
    int64_t rows = 0;
    for (int i = 0; i < weight->n_parts; i++)
        rows += weight->rows[i];
    uint64_t row_bytes = rows ? weight->bytes / (uint64_t)rows : 0;
    for (int i = 0; i < weight->n_parts; i++) {
        uint64_t size = row_bytes * (uint64_t)weight->rows[i];
        for (uint64_t at = 0; at < size && !stopped(w); at += STREAM_BYTES) {
            size_t n = size - at < STREAM_BYTES ? (size_t)(size - at) : STREAM_BYTES;
            write_weight_bytes(w, hash, (const char *)weight->sources[i] + at, n, offset + at);
        }
        offset += size;
    }
}

static void *stream_weights(void *arg) {
    writer *w = arg;
    cg_program_list *p = w->spec->program;
    for (int i; (i = atomic_fetch_add(&w->next_weight, 1)) < p->n_weights && !stopped(w);) {
        cg_weight *weight = &p->weights[i];
        rt_sha256 hash;
        rt_sha256_init(&hash);
        if (weight->type.layout)
            stream_packed(w, weight, &hash);
        else
            stream_plain(w, weight, &hash);
        rt_sha256_final(&hash, weight->sha256);
    }
    return NULL;
}

static bool add_weights(writer *w) {
    cg_program_list *p = w->spec->program;
    if (!p->weight_bytes)
        return true;
    mcc_section *s = new_section(w, MCC_SECTION_WEIGHTS, p->weight_bytes);
    w->weights_offset = s->offset;
    pthread_t threads[64];
    int n = 0;
    for (int jobs = w->spec->jobs; n < jobs - 1 && n < 64; n++)
        if (pthread_create(&threads[n], NULL, stream_weights, w))
            break;
    stream_weights(w);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    int error = atomic_load(&w->error);
    if (error == -1)
        return ir_error(w->diag, w->spec->path, "interrupted; nothing was written");
    if (error)
        return fail(w, error == -2 ? ENOMEM : error, "write its weights");
    rt_sha256 hash;
    rt_sha256_init(&hash);
    for (int i = 0; i < p->n_weights; i++)
        rt_sha256_update(&hash, p->weights[i].sha256, sizeof p->weights[i].sha256);
    rt_sha256_final(&hash, s->sha256);
    return true;
}

/* --- tables and footer
 * --------------------------------------------------------------------------------- */

static bool add_tables(writer *w) {
    const cg_artifact_spec *spec = w->spec;
    size_t size;
    void *tables =
        cg_tables_create(spec->program, spec->facts, spec->targets, spec->n_targets, &size);
    bool ok = tables ? add_section(w, &(cg_section_bytes){MCC_SECTION_TABLES, tables, size})
                     : fail(w, ENOMEM, "write its tables");
    free(tables);
    return ok;
}

static bool add_footer(writer *w) {
    char page[MCC_ARTIFACT_PAGE] = {0};
    uint64_t at = (w->end + MCC_ARTIFACT_PAGE - 1) / MCC_ARTIFACT_PAGE * MCC_ARTIFACT_PAGE;
    memcpy(w->footer.magic, MCC_ARTIFACT_MAGIC, sizeof w->footer.magic);
    w->footer.version = MCC_ARTIFACT_VERSION;
    w->footer.file_bytes = at + MCC_ARTIFACT_PAGE;
    rt_sha256_of(&w->footer, offsetof(mcc_footer, sha256), w->footer.sha256);
    _Static_assert(sizeof(mcc_footer) <= MCC_ARTIFACT_PAGE, "the footer is one page");
    memcpy(page, &w->footer, sizeof w->footer);
    int error = write_at(w->fd, page, sizeof page, at);
    return !error || fail(w, error, "write it");
}

bool cg_artifact_write(const cg_artifact_spec *spec, uint64_t *file_bytes, ir_diag *diag) {
    writer w = {.spec = spec, .diag = diag, .fd = -1};
    pthread_mutex_init(&w.lock, NULL);
    const char *slash = strrchr(spec->path, '/');
    w.directory = slash ? strndup(spec->path, (size_t)(slash - spec->path) + 1) : strdup(".");
    bool ok = w.directory ? create(&w) : fail(&w, ENOMEM, "create it");
    ok = ok && add_code(&w) && add_weights(&w);
    for (int i = 0; i < spec->n_sections && ok; i++)
        ok = add_section(&w, &spec->sections[i]);
    ok = ok && add_tables(&w) && add_footer(&w);
    if (ok && spec->cancelled && atomic_load(spec->cancelled))
        ok = ir_error(diag, spec->path, "interrupted; nothing was written");
    ok = ok && publish(&w);
    *file_bytes = w.footer.file_bytes;
    if (w.temporary)
        unlink(w.temporary);
    free(w.temporary);
    free(w.directory);
    if (w.fd >= 0)
        close(w.fd);
    pthread_mutex_destroy(&w.lock);
    return ok;
}
