/* Sessions: what the KV cache has of a beginning, in a file.
 *
 * The file is a header, a record for each KV group, the token ids, the application's own bytes, the
 * pages (group by group, page by page, layer by layer), and the SHA-256 of all before it. All that
 * the header says is compared with the engine before anything else is read, the checksum before
 * anything in the cache changes. Numbers are little-endian. */
#include "runtime/engine.h"
#include "runtime/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SESSION_VERSION = 1, SHA_BYTES = 32 };

static const char session_magic[8] = "MCCSESSN";
static const uint64_t most_data = UINT64_C(1) << 30;

typedef struct session_header {
    char magic[8];
    uint32_t version, n_groups;
    uint8_t model[SHA_BYTES];
    int64_t n_ids, cached; /* tokens; of these, whose keys and values are here */
    uint64_t data_bytes;
} session_header;

typedef struct session_group {
    uint64_t layer_bytes;
    int32_t layers, page_tokens;
    int64_t first, end; /* pages, by number in the sequence: first … end-1 */
} session_group;

/* A file that is written or read from the beginning, hashed on the way. */
typedef struct session_file {
    int fd;
    const char *path;
    rt_sha256 hash;
} session_file;

static bool fail_io(const session_file *f, const char *what, rt_error *error) {
    return rt_fail(error, MCC_IO_ERROR, "%.400s: cannot %s: %s", f->path, what, strerror(errno));
}

static bool put(session_file *f, const void *data, uint64_t bytes, rt_error *error) {
    const uint8_t *p = data;
    if (bytes > 0)
        rt_sha256_update(&f->hash, p, bytes);
    while (bytes > 0) {
        ssize_t n = write(f->fd, p, bytes < (1u << 30) ? bytes : 1u << 30);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_io(f, "write it", error);
        p += n;
        bytes -= (uint64_t)n;
    }
    return true;
}

static bool get(session_file *f, void *data, uint64_t bytes, rt_error *error) {
    uint8_t *p = data;
    uint64_t left = bytes;
    while (left > 0) {
        ssize_t n = read(f->fd, p, left < (1u << 30) ? left : 1u << 30);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_io(f, "read it", error);
        if (n == 0)
            return rt_fail(error, MCC_BAD_ARTIFACT, "%.400s: the file ends early", f->path);
        p += n;
        left -= (uint64_t)n;
    }
    if (bytes > 0)
        rt_sha256_update(&f->hash, data, bytes);
    return true;
}

/* What must be equal for pages to mean the same: the weights and the fused graph. Which device
 * computed them is not looked at, so that a conversation can move: see mcc_session_load. */
static void hash_model(const mcc_artifact *a, uint8_t digest[SHA_BYTES]) {
    rt_sha256 hash;
    rt_sha256_init(&hash);
    for (uint32_t i = 0; i < a->footer.n_sections; i++) {
        const mcc_section *s = &a->footer.sections[i];
        if (s->kind == MCC_SECTION_FUSED || s->kind == MCC_SECTION_WEIGHTS)
            rt_sha256_update(&hash, s->sha256, SHA_BYTES);
    }
    rt_sha256_final(&hash, digest);
}

static uint64_t page_bytes(const mcc_kv_group_entry *g) {
    return g->layer_bytes * (uint64_t)g->layers;
}

/* Room for a page of any group; NULL when out of memory. */
static void *make_page(const mcc_engine *e, rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    uint64_t most = 1;
    for (uint32_t i = 0; i < t->n_kv_groups; i++)
        most = page_bytes(&t->kv_groups[i]) > most ? page_bytes(&t->kv_groups[i]) : most;
    void *page = calloc(1, most);
    if (!page)
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a page of %" PRIu64 " bytes", most);
    return page;
}

/* A slot that no sequence has, so that the session can have it for a moment. */
static int take_slot(mcc_engine *e, rt_error *error) {
    int slot = rt_scheduler_free_slot(e->scheduler);
    if (slot < 0)
        rt_fail(error, MCC_CAPACITY,
                "max_num_seqs (%" PRId32 ") requests are at work: try again when one has ended",
                e->max_seqs);
    else
        rt_engine_drop_eval(e);
    return slot;
}

/* --- saving --------------------------------------------------------------------------------------
 */

/* *lost is set where the device has failed, and with it the cache. */
static bool put_pages(mcc_engine *e, session_file *f, int slot, const session_group *groups,
                      bool *lost, rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    uint8_t *page = make_page(e, error);
    bool ok = page != NULL;
    for (uint32_t i = 0; ok && i < t->n_kv_groups; i++)
        for (int64_t p = groups[i].first; ok && p < groups[i].end; p++) {
            bool here = e->device->ops->read_page(e->device, i, rt_kv_table(e->kv, i, slot)[p],
                                                  page, error);
            ok = here && put(f, page, page_bytes(&t->kv_groups[i]), error);
            *lost = *lost || !here;
        }
    free(page);
    return ok;
}

/* What the slot holds, and the rest. */
static bool put_session(mcc_engine *e, session_file *f, int slot, const mcc_session *s, bool *lost,
                        rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    session_header h = {.version = SESSION_VERSION,
                        .n_groups = t->n_kv_groups,
                        .n_ids = s->n_ids,
                        .cached = s->cached,
                        .data_bytes = s->data_bytes};
    memcpy(h.magic, session_magic, sizeof h.magic);
    hash_model(e->artifact, h.model);
    session_group *groups = calloc(t->n_kv_groups + 1, sizeof *groups);
    if (!groups)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a session");
    for (uint32_t i = 0; i < t->n_kv_groups; i++) {
        const mcc_kv_group_entry *g = &t->kv_groups[i];
        groups[i] = (session_group){.layer_bytes = g->layer_bytes,
                                    .layers = g->layers,
                                    .page_tokens = g->page_tokens,
                                    .first = rt_kv_first_page(g, s->cached),
                                    .end = s->cached / g->page_tokens};
    }
    rt_sha256_init(&f->hash);
    bool ok = put(f, &h, sizeof h, error) &&
              put(f, groups, t->n_kv_groups * sizeof *groups, error) &&
              put(f, s->ids, (uint64_t)s->n_ids * sizeof *s->ids, error) &&
              put(f, s->data, s->data_bytes, error) && put_pages(e, f, slot, groups, lost, error);
    free(groups);
    uint8_t digest[SHA_BYTES];
    if (ok)
        rt_sha256_final(&f->hash, digest);
    return ok && put(f, digest, sizeof digest, error);
}

/* Under another name until it is whole. */
static bool save(mcc_engine *e, int slot, const mcc_session *s, const char *path, bool *lost,
                 rt_error *error) {
    size_t length = strlen(path) + 8;
    char *temporary = malloc(length);
    session_file f = {.path = path};
    if (!temporary)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a session");
    snprintf(temporary, length, "%s.XXXXXX", path);
    f.fd = mkostemp(temporary, O_CLOEXEC);
    bool ok = f.fd >= 0 || fail_io(&f, "create a file beside it", error);
    if (ok) {
        ok = put_session(e, &f, slot, s, lost, error);
        if (ok && fsync(f.fd))
            ok = fail_io(&f, "write it to disk", error);
        if (close(f.fd) && ok)
            ok = fail_io(&f, "write it to disk", error);
        if (ok && rename(temporary, path))
            ok = fail_io(&f, "give it its name", error);
        if (!ok)
            unlink(temporary);
    }
    free(temporary);
    return ok;
}

static bool check_session(const mcc_engine *e, const mcc_session *s, rt_error *error) {
    if (s->n_ids < 0 || s->n_ids > e->max_len || (s->n_ids > 0 && !s->ids))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "n_ids is %" PRId64 ", expected 0 to %" PRId64 " (max_model_len) and as "
                       "many ids",
                       s->n_ids, e->max_len);
    for (int64_t i = 0; i < s->n_ids; i++)
        if (s->ids[i] < 0 || s->ids[i] >= e->vocab_size)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "ids[%" PRId64 "] is %" PRId32 ", but the vocabulary has %" PRId32, i,
                           s->ids[i], e->vocab_size);
    if (s->data_bytes > most_data || (s->data_bytes > 0 && !s->data))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "data_bytes is %" PRIu64 ", expected at most %" PRIu64 ", and data",
                       s->data_bytes, most_data);
    return true;
}

mcc_status mcc_session_save(mcc_engine *engine, mcc_session *session, const char *path,
                            mcc_error *error) {
    mcc_session s;
    rt_error e = {0};
    if (!engine || !path || !rt_take_struct(&s, sizeof s, session))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine, path, and session with its struct_size, must be set",
                         __func__);
    if (!check_session(engine, &s, &e))
        return rt_report(&e, error);
    rt_engine_lock(engine);
    int slot = take_slot(engine, &e);
    bool ok = slot >= 0;
    if (ok) {
        s.cached = rt_kv_attach(engine->kv, slot, s.ids, s.n_ids, s.cache_salt);
        bool lost = false;
        ok = save(engine, slot, &s, path, &lost, &e);
        rt_kv_truncate(engine->kv, slot, 0);
        if (lost)
            rt_engine_lose_cache(engine);
    }
    rt_engine_unlock(engine);
    if (!ok)
        return rt_report(&e, error);
    s.struct_size = session->struct_size;
    rt_give_struct(&s, sizeof s, session);
    return MCC_OK;
}

/* --- loading -------------------------------------------------------------------------------------
 */

static bool damaged(const session_file *f, rt_error *error) {
    return rt_fail(error, MCC_BAD_ARTIFACT, "%.400s: the session is damaged", f->path);
}

/* The header, and the groups, which must be as this engine would have them. *pages becomes the
 * bytes of all pages. */
static bool get_header(const mcc_engine *e, session_file *f, session_header *h, uint64_t *pages,
                       rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    uint8_t model[SHA_BYTES];
    *pages = 0;
    if (!get(f, h, sizeof *h, error))
        return false;
    if (memcmp(h->magic, session_magic, sizeof h->magic) != 0)
        return rt_fail(error, MCC_BAD_ARTIFACT, "%.400s: not a session that was saved here",
                       f->path);
    if (h->version != SESSION_VERSION)
        return rt_fail(error, MCC_VERSION_MISMATCH,
                       "%.400s: its format is version %" PRIu32 ", this runtime reads %d", f->path,
                       h->version, SESSION_VERSION);
    hash_model(e->artifact, model);
    if (memcmp(h->model, model, sizeof model) != 0)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "%.200s: saved with another model, or one built otherwise, than %.200s",
                       f->path, e->artifact->path);
    if (h->n_groups != t->n_kv_groups || h->n_ids < 0 || h->cached < 0 || h->cached > h->n_ids ||
        h->cached % rt_kv_block(e->kv) != 0 || h->data_bytes > most_data)
        return damaged(f, error);
    if (h->n_ids > e->max_len)
        return rt_fail(error, MCC_CAPACITY,
                       "%.300s: %" PRId64 " tokens, but max_model_len is %" PRId64, f->path,
                       h->n_ids, e->max_len);
    for (uint32_t i = 0; i < t->n_kv_groups; i++) {
        const mcc_kv_group_entry *g = &t->kv_groups[i];
        session_group s;
        if (!get(f, &s, sizeof s, error))
            return false;
        if (s.layer_bytes != g->layer_bytes || s.layers != g->layers ||
            s.page_tokens != g->page_tokens || s.first != rt_kv_first_page(g, h->cached) ||
            s.end != h->cached / g->page_tokens)
            return damaged(f, error);
        *pages += (uint64_t)(s.end - s.first) * page_bytes(g);
    }
    return true;
}

/* Reads the rest of the file, which is `bytes` long before its checksum, and compares that. */
static bool check_rest(session_file *f, uint64_t bytes, uint8_t *buffer, size_t capacity,
                       rt_error *error) {
    while (bytes > 0) {
        uint64_t n = bytes < capacity ? bytes : capacity;
        if (!get(f, buffer, n, error))
            return false;
        bytes -= n;
    }
    uint8_t found[SHA_BYTES], expected[SHA_BYTES];
    rt_sha256_final(&f->hash, found);
    rt_sha256_init(&f->hash);
    return get(f, expected, sizeof expected, error) &&
           (memcmp(found, expected, sizeof found) == 0 || damaged(f, error));
}

static bool check_file(const mcc_engine *e, session_file *f, session_header *h, rt_error *error) {
    enum { CAPACITY = 1 << 20 };
    uint64_t pages = 0;
    struct stat status;
    rt_sha256_init(&f->hash);
    if (!get_header(e, f, h, &pages, error))
        return false;
    uint64_t rest = (uint64_t)h->n_ids * sizeof(int32_t) + h->data_bytes + pages;
    uint64_t all =
        sizeof *h + e->artifact->tables.n_kv_groups * sizeof(session_group) + rest + SHA_BYTES;
    if (fstat(f->fd, &status))
        return fail_io(f, "read it", error);
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != all)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%.300s: the session has %" PRIu64 " bytes, expected %" PRIu64, f->path,
                       (uint64_t)status.st_size, all);
    uint8_t *buffer = malloc(CAPACITY);
    if (!buffer)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a session");
    bool ok = check_rest(f, rest, buffer, CAPACITY, error);
    free(buffer);
    return ok;
}

static bool get_pages(mcc_engine *e, session_file *f, int slot, int64_t length, rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    uint8_t *page = make_page(e, error);
    bool ok = page != NULL;
    for (uint32_t i = 0; ok && i < t->n_kv_groups; i++) {
        const mcc_kv_group_entry *g = &t->kv_groups[i];
        for (int64_t p = rt_kv_first_page(g, length); ok && p < length / g->page_tokens; p++) {
            ok = get(f, page, page_bytes(g), error);
            if (ok && !e->device->ops->write_page(e->device, i, rt_kv_table(e->kv, i, slot)[p],
                                                  page, error)) {
                rt_engine_lose_cache(e);
                ok = false;
            }
        }
    }
    free(page);
    return ok;
}

/* Reads ids and data, and gives the cache the pages. */
static bool load(mcc_engine *e, session_file *f, const session_header *h, int slot, mcc_session *s,
                 rt_error *error) {
    uint64_t groups = e->artifact->tables.n_kv_groups * sizeof(session_group);
    int32_t *ids = malloc((size_t)h->n_ids * sizeof *ids + 1);
    char *data = malloc(h->data_bytes + 1);
    bool ok = ids && data;
    s->ids = ids;
    s->data = data;
    if (!ok)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a session");
    if (lseek(f->fd, (off_t)(sizeof *h + groups), SEEK_SET) < 0)
        return fail_io(f, "read it", error);
    ok = get(f, ids, (uint64_t)h->n_ids * sizeof *ids, error) && get(f, data, h->data_bytes, error);
    data[h->data_bytes] = '\0';
    for (int64_t i = 0; ok && i < h->n_ids; i++)
        if (ids[i] < 0 || ids[i] >= e->vocab_size)
            ok = damaged(f, error);
    if (!ok || !rt_kv_restore(e->kv, slot, h->cached, s->cache_salt, error))
        return false;
    ok = get_pages(e, f, slot, h->cached, error);
    if (ok)
        rt_kv_commit(e->kv, slot, h->cached, ids);
    rt_kv_truncate(e->kv, slot, 0);
    s->n_ids = h->n_ids;
    s->data_bytes = h->data_bytes;
    s->cached = h->cached;
    return ok;
}

mcc_status mcc_session_load(mcc_engine *engine, const char *path, mcc_session *session,
                            mcc_error *error) {
    mcc_session s;
    rt_error e = {0};
    if (!engine || !path || !rt_take_struct(&s, sizeof s, session) ||
        session->struct_size < sizeof s)
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine, path, and session with its struct_size, must be set",
                         __func__);
    s = (mcc_session){.struct_size = session->struct_size, .cache_salt = s.cache_salt};
    session_file f = {.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    session_header h;
    bool ok = f.fd >= 0 || fail_io(&f, "open it", &e);
    ok = ok && check_file(engine, &f, &h, &e);
    if (ok) {
        rt_engine_lock(engine);
        int slot = take_slot(engine, &e);
        ok = slot >= 0 && load(engine, &f, &h, slot, &s, &e);
        rt_engine_unlock(engine);
    }
    if (f.fd >= 0)
        close(f.fd);
    if (!ok) {
        mcc_session_free(&s);
        return rt_report(&e, error);
    }
    *session = s;
    return MCC_OK;
}

void mcc_session_free(mcc_session *session) {
    if (!session)
        return;
    free((void *)session->ids);
    free((void *)session->data);
    session->ids = NULL;
    session->data = NULL;
    session->n_ids = 0;
    session->data_bytes = 0;
}
