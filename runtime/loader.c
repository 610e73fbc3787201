/* Opens artifacts: everything is read and checked here before any of its code is loaded. */
#include "runtime/loader.h"

#include "runtime/cpu.h"
#include "runtime/sha256.h"
#include "runtime/threadpool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A section of tables or GPU code larger than this is refused: it is copied into memory. */
#define MAX_TABLES (UINT64_C(1) << 28)
#define HUGE_PAGE (UINT64_C(2) << 20)

bool rt_read_at(const mcc_artifact *artifact, uint64_t offset, void *data, uint64_t size,
                rt_error *error) {
    uint64_t done = 0;
    while (done < size) {
        uint64_t want = size - done < 1 << 30 ? size - done : 1 << 30;
        ssize_t n = pread(artifact->fd, (char *)data + done, want, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rt_fail(error, MCC_IO_ERROR,
                           "%s: cannot read %" PRIu64 " bytes at %" PRIu64 ": %s", artifact->path,
                           size - done, offset + done, strerror(errno));
        if (n == 0)
            return rt_fail(error, MCC_BAD_ARTIFACT,
                           "%s: the file ends at byte %" PRIu64 " while it is read", artifact->path,
                           offset + done);
        done += (uint64_t)n;
    }
    return true;
}

/* --- hashes --------------------------------------------------------------------------------------
 */

/* Hashes a range of the file through a buffer, so that its pages do not count as this process's. */
static bool hash_range(const mcc_artifact *a, uint64_t offset, uint64_t size, uint8_t digest[32],
                       rt_error *error) {
    enum { BUFFER = 1 << 17 };
    uint8_t *buffer = malloc(BUFFER);
    if (!buffer)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a read buffer");
    rt_sha256 hash;
    rt_sha256_init(&hash);
    bool ok = true;
    for (uint64_t at = 0; ok && at < size; at += BUFFER) {
        uint64_t n = size - at < BUFFER ? size - at : BUFFER;
        ok = rt_read_at(a, offset + at, buffer, n, error);
        if (ok)
            rt_sha256_update(&hash, buffer, n);
    }
    rt_sha256_final(&hash, digest);
    free(buffer);
    return ok;
}

static bool check_hash(const mcc_artifact *a, const mcc_section *s, const uint8_t digest[32],
                       rt_error *error) {
    if (memcmp(digest, s->sha256, 32) == 0)
        return true;
    char found[65], expected[65];
    rt_sha256_hex(digest, found);
    rt_sha256_hex(s->sha256, expected);
    return rt_fail(error, MCC_BAD_ARTIFACT,
                   "%s: damaged: section %s (%" PRIu64 " bytes at byte %" PRIu64
                   ") has SHA-256 %.16s..., the footer says %.16s...",
                   a->path, rt_section_name(s->kind), s->size, s->offset, found, expected);
}

/* Every section but the weights, of which the footer holds the hash of the tables' hashes. */
static bool check_section_hashes(const mcc_artifact *a, rt_error *error) {
    for (uint32_t i = 0; i < a->footer.n_sections; i++) {
        const mcc_section *s = &a->footer.sections[i];
        uint8_t digest[32];
        if (s->kind == MCC_SECTION_WEIGHTS) {
            rt_sha256 hash;
            rt_sha256_init(&hash);
            for (uint32_t w = 0; w < a->tables.n_weights; w++)
                rt_sha256_update(&hash, a->tables.weights[w].sha256, 32);
            rt_sha256_final(&hash, digest);
        } else if (s->kind == MCC_SECTION_TABLES) {
            rt_sha256_of(a->tables_data, s->size, digest);
        } else if (s->kind == MCC_SECTION_CUDA) {
            rt_sha256_of(a->cuda_data, s->size, digest);
        } else if (!hash_range(a, s->offset, s->size, digest, error)) {
            return false;
        }
        if (!check_hash(a, s, digest, error))
            return false;
    }
    return true;
}

/* --- weights' hashes, several threads ------------------------------------------------------------
 */

typedef struct weight_check {
    const mcc_artifact *artifact;
    const uint8_t *weights;
    atomic_uint first_bad; /* index of the first damaged weight, or n_weights */
} weight_check;

static void check_weight_tiles(const mcc_cpu_call *call, int64_t begin, int64_t end,
                               void *scratch) {
    (void)scratch;
    weight_check *check = call->args[0];
    for (int64_t i = begin; i < end; i++) {
        const mcc_weight_entry *w = &check->artifact->tables.weights[i];
        uint8_t digest[32];
        rt_sha256_of(check->weights + w->offset, w->bytes, digest);
        unsigned seen = atomic_load(&check->first_bad);
        if (memcmp(digest, w->sha256, 32) != 0)
            while ((unsigned)i < seen &&
                   !atomic_compare_exchange_weak(&check->first_bad, &seen, (unsigned)i))
                continue;
    }
}

static bool check_weights(const mcc_artifact *a, int threads, rt_error *error) {
    const mcc_section *s = rt_footer_find(&a->footer, MCC_SECTION_WEIGHTS);
    weight_check check = {.artifact = a, .weights = a->parts[MCC_SECTION_WEIGHTS].data};
    atomic_init(&check.first_bad, a->tables.n_weights);
    rt_pool *pool = rt_pool_create(threads, error);
    if (!pool)
        return false;
    void *args[1] = {&check};
    mcc_cpu_call call = {.args = args};
    rt_job job = {check_weight_tiles, &call, a->tables.n_weights};
    rt_pool_run(pool, &job, 1, NULL, 0);
    rt_pool_destroy(pool);
    unsigned bad = atomic_load(&check.first_bad);
    if (bad == a->tables.n_weights)
        return true;
    const mcc_weight_entry *w = &a->tables.weights[bad];
    return rt_fail(error, MCC_BAD_ARTIFACT,
                   "%s: damaged: weight %s (%" PRIu64 " bytes at byte %" PRIu64
                   ") does not have the hash that the tables say",
                   a->path, rt_string(&a->tables, w->name), w->bytes, s->offset + w->offset);
}

/* The section's own hash has been checked; these say which kernel a writer has got wrong. */
static bool check_images(const mcc_artifact *a, rt_error *error) {
    for (uint32_t i = 0; i < a->cuda.n_images; i++) {
        const mcc_cuda_image_entry *m = &a->cuda.images[i];
        uint8_t digest[32];
        rt_sha256_of((const uint8_t *)a->cuda_data + m->offset, m->bytes, digest);
        if (memcmp(digest, m->sha256, 32) != 0)
            return rt_fail(error, MCC_BAD_ARTIFACT,
                           "%s: damaged: the %s of %s for sm_%" PRIu32
                           "%s does not have the hash that its entry says",
                           a->path, m->form == MCC_CUDA_PTX ? "PTX" : "cubin",
                           a->cuda.strings + a->cuda.functions[m->function].name, m->arch,
                           m->arch_specific ? "a" : "");
    }
    return true;
}

static bool check_all(const mcc_artifact *a, int threads, rt_error *error) {
    return check_images(a, error) && check_weights(a, threads, error);
}

/* --- mapping -------------------------------------------------------------------------------------
 */

static bool map_part(mcc_artifact *a, mcc_section_kind kind, rt_error *error) {
    const mcc_section *s = rt_footer_find(&a->footer, kind);
    if (!s || s->size == 0)
        return true;
    void *data = mmap(NULL, s->size, PROT_READ, MAP_SHARED, a->fd, (off_t)s->offset);
    if (data == MAP_FAILED)
        return rt_fail(error, MCC_IO_ERROR, "%s: cannot map section %s (%" PRIu64 " bytes): %s",
                       a->path, rt_section_name(kind), s->size, strerror(errno));
    a->parts[kind] = (rt_part){data, s->size, s->size};
    return true;
}

/* Weights in huge pages are a private copy; in place they are the page cache's own pages. */
static bool copy_weights(mcc_artifact *a, rt_error *error) {
    const mcc_section *s = rt_footer_find(&a->footer, MCC_SECTION_WEIGHTS);
    uint64_t bytes = (s->size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (bytes == 0)
        return true;
    /* One huge page more than needed, to cut an aligned piece from. */
    uint8_t *raw = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %" PRIu64 " bytes of weights",
                       bytes);
    uint64_t before = (HUGE_PAGE - (uintptr_t)raw % HUGE_PAGE) % HUGE_PAGE;
    uint8_t *data = raw + before;
    if (before > 0)
        munmap(raw, before);
    if (HUGE_PAGE - before > 0)
        munmap(data + bytes, HUGE_PAGE - before);
    madvise(data, bytes, MADV_HUGEPAGE);
    a->parts[MCC_SECTION_WEIGHTS] = (rt_part){data, s->size, bytes};
    return rt_read_at(a, s->offset, data, s->size, error) &&
           (mprotect(data, bytes, PROT_READ) == 0 ||
            rt_fail(error, MCC_IO_ERROR, "cannot protect the weights: %s", strerror(errno)));
}

static bool map_parts(mcc_artifact *a, uint32_t flags, rt_error *error) {
    static const mcc_section_kind kinds[] = {MCC_SECTION_MANIFEST,  MCC_SECTION_GRAPH,
                                             MCC_SECTION_PLAN,      MCC_SECTION_FUSED,
                                             MCC_SECTION_TOKENIZER, MCC_SECTION_TEMPLATE};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!map_part(a, kinds[i], error))
            return false;
    if (flags & MCC_OPEN_HUGE_PAGES)
        return copy_weights(a, error);
    if (!map_part(a, MCC_SECTION_WEIGHTS, error))
        return false;
    const rt_part *weights = &a->parts[MCC_SECTION_WEIGHTS];
    if (weights->bytes > 0 && !(flags & MCC_OPEN_INSPECT)) {
        /* Only advice: read ahead, and huge pages where the file system has them. */
        madvise((void *)weights->data, weights->bytes, MADV_WILLNEED);
        madvise((void *)weights->data, weights->bytes, MADV_HUGEPAGE);
    }
    return true;
}

/* --- opening and closing -------------------------------------------------------------------------
 */

static bool read_footer(mcc_artifact *a, rt_error *error) {
    struct stat st;
    if (fstat(a->fd, &st) != 0)
        return rt_fail(error, MCC_IO_ERROR, "%s: %s", a->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return rt_fail(error, MCC_IO_ERROR, "%s: not a regular file", a->path);
    if (st.st_size < 2 * MCC_ARTIFACT_PAGE)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: not a modelcc artifact: it has %lld bytes, an artifact at least %d",
                       a->path, (long long)st.st_size, 2 * MCC_ARTIFACT_PAGE);
    uint64_t bytes = (uint64_t)st.st_size;
    return rt_read_at(a, bytes - MCC_ARTIFACT_PAGE, &a->footer, sizeof a->footer, error) &&
           rt_footer_check(&a->footer, bytes, a->path, error);
}

/* Copies a section into memory that cannot change after it has been checked. */
static void *read_section(const mcc_artifact *a, const mcc_section *s, rt_error *error) {
    if (s->size > MAX_TABLES) {
        rt_fail(error, MCC_BAD_ARTIFACT, "%s: section %s of %" PRIu64 " bytes, at most %" PRIu64,
                a->path, rt_section_name(s->kind), s->size, MAX_TABLES);
        return NULL;
    }
    void *data = malloc(s->size > 0 ? s->size : 1);
    if (!data)
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %" PRIu64 " bytes of section %s",
                s->size, rt_section_name(s->kind));
    if (!data || rt_read_at(a, s->offset, data, s->size, error))
        return data;
    free(data);
    return NULL;
}

static bool read_tables(mcc_artifact *a, rt_error *error) {
    const mcc_section *s = rt_footer_find(&a->footer, MCC_SECTION_TABLES);
    const mcc_section *weights = rt_footer_find(&a->footer, MCC_SECTION_WEIGHTS);
    a->tables_data = read_section(a, s, error);
    return a->tables_data &&
           rt_tables_check(a->tables_data, s->size, weights->size, a->path, &a->tables, error);
}

static bool read_cuda(mcc_artifact *a, rt_error *error) {
    const mcc_section *s = rt_footer_find(&a->footer, MCC_SECTION_CUDA);
    if (!s)
        return a->tables.n_targets > 0 ||
               rt_fail(error, MCC_BAD_ARTIFACT, "%s: no code: no targets, and no section cuda",
                       a->path);
    a->cuda_data = read_section(a, s, error);
    return a->cuda_data &&
           rt_cuda_check(a->cuda_data, s->size, &a->tables, a->path, &a->cuda, error);
}

static bool open_artifact(mcc_artifact *a, const char *path, const mcc_artifact_options *options,
                          rt_error *error) {
    a->path = realpath(path, NULL);
    if (!a->path)
        return rt_fail(error, errno == ENOMEM ? MCC_OUT_OF_MEMORY : MCC_IO_ERROR,
                       "%s: cannot open: %s", path, strerror(errno));
    a->fd = open(a->path, O_RDONLY | O_CLOEXEC);
    if (a->fd < 0)
        return rt_fail(error, MCC_IO_ERROR, "%s: cannot open: %s", a->path, strerror(errno));
    if (!read_footer(a, error) || !read_tables(a, error) || !read_cuda(a, error) ||
        !check_section_hashes(a, error))
        return false;

    /* From here on the file is what its writer wrote. */
    a->inspect = options->flags & MCC_OPEN_INSPECT;
    rt_error mismatch = {0};
    a->target =
        rt_target_choose(&a->tables, rt_cpu_features(), options->target, a->path, &mismatch);
    /* Without code that runs on this processor it may still run on a GPU. */
    bool needed = options->target || (!a->inspect && !a->cuda.header);
    if (a->target < 0 && needed) {
        *error = mismatch;
        return false;
    }
    if (!map_parts(a, options->flags, error))
        return false;
    if ((options->flags & MCC_OPEN_CHECK) && !check_all(a, 0, error))
        return false;
    return a->inspect || ((a->target < 0 || rt_load_code(a, error)) && rt_open_text(a, error));
}

mcc_status mcc_artifact_open(const char *path, const mcc_artifact_options *options,
                             mcc_artifact **artifact, mcc_error *error) {
    mcc_artifact_options local;
    if (!path || !artifact || !rt_take_struct(&local, sizeof local, options))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "mcc_artifact_open: path, artifact and options.struct_size must be set");
    if (local.flags & ~(uint32_t)(MCC_OPEN_INSPECT | MCC_OPEN_CHECK | MCC_OPEN_HUGE_PAGES))
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "mcc_artifact_open: unknown flags 0x%x",
                         (unsigned)local.flags);
    mcc_artifact *a = calloc(1, sizeof *a);
    if (!a)
        return rt_refuse(error, MCC_OUT_OF_MEMORY, "out of memory");
    a->fd = -1;
    a->target = -1;
    rt_error e = {0};
    if (!open_artifact(a, path, &local, &e)) {
        mcc_artifact_close(a);
        return rt_report(&e, error);
    }
    *artifact = a;
    return MCC_OK;
}

mcc_status mcc_artifact_check(const mcc_artifact *artifact, int32_t threads, mcc_error *error) {
    rt_error e = {0};
    if (!artifact || threads < 0)
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "mcc_artifact_check: needs an artifact and at least 0 threads");
    return check_all(artifact, threads, &e) ? MCC_OK : rt_report(&e, error);
}
