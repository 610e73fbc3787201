/* A file an image, named by its key: a header with sizes and a hash, the cubin, the PTX. Files
 * appear whole, by rename, so that builds side by side can share a directory. */
#include "codegen/cuda/cache.h"

#include "codegen/cuda/internal.h"
#include "codegen/cuda/nvrtc.h"
#include "runtime/sha256.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct cache_header {
    char magic[8];
    uint64_t cubin_bytes, ptx_bytes;
    uint32_t registers, spill_bytes, static_shared_bytes, reserved;
    uint8_t sha256[32]; /* of cubin and PTX */
} cache_header;

static const char magic[8] = "MCCCUDA1";
enum { MOST_BYTES = 1 << 28 };

static void add(rt_sha256 *hash, const char *text) {
    rt_sha256_update(hash, text, strlen(text) + 1);
}

void cg_cuda_cache_key(const cg_cuda_function *function, const cg_cuda_target *target,
                       char key[65]) {
    rt_sha256 hash;
    uint8_t digest[32];
    rt_sha256_init(&hash);
    add(&hash, cg_cuda_nvrtc_version());
    add(&hash, cg_nvrtc_options());
    add(&hash, target->arch_name);
    for (const cg_cuda_header *h = cg_cuda_headers; h->name; h++) {
        add(&hash, h->name);
        add(&hash, h->text);
    }
    add(&hash, function->name);
    add(&hash, function->source);
    rt_sha256_final(&hash, digest);
    rt_sha256_hex(digest, key);
}

static void hash_image(const void *cubin, size_t cubin_bytes, const void *ptx, size_t ptx_bytes,
                       uint8_t digest[32]) {
    rt_sha256 hash;
    rt_sha256_init(&hash);
    rt_sha256_update(&hash, cubin, cubin_bytes);
    rt_sha256_update(&hash, ptx, ptx_bytes);
    rt_sha256_final(&hash, digest);
}

static bool read_image(FILE *f, cg_cuda_image *out) {
    cache_header h;
    if (fread(&h, sizeof h, 1, f) != 1 || memcmp(h.magic, magic, sizeof magic) != 0 ||
        h.cubin_bytes > MOST_BYTES || h.ptx_bytes > MOST_BYTES || h.ptx_bytes == 0)
        return false;
    char *cubin = malloc(h.cubin_bytes + 1), *ptx = malloc(h.ptx_bytes);
    uint8_t digest[32];
    bool ok = cubin && ptx && fread(cubin, 1, h.cubin_bytes, f) == h.cubin_bytes &&
              fread(ptx, 1, h.ptx_bytes, f) == h.ptx_bytes && ptx[h.ptx_bytes - 1] == 0;
    if (ok) {
        hash_image(cubin, h.cubin_bytes, ptx, h.ptx_bytes, digest);
        ok = memcmp(digest, h.sha256, sizeof digest) == 0;
    }
    if (!ok) {
        free(cubin);
        free(ptx);
        return false;
    }
    *out = (cg_cuda_image){.cubin = cubin,
                           .cubin_bytes = h.cubin_bytes,
                           .ptx = ptx,
                           .ptx_bytes = h.ptx_bytes,
                           .registers = h.registers,
                           .spill_bytes = h.spill_bytes,
                           .static_shared_bytes = h.static_shared_bytes};
    return true;
}

bool cg_cuda_cache_get(const char *directory, const char *key, cg_cuda_image *out) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", directory, key) >= (int)sizeof path)
        return false;
    FILE *f = fopen(path, "rb");
    if (!f)
        return false;
    bool ok = read_image(f, out);
    fclose(f);
    return ok;
}

/* Makes a directory and those above it; whether that worked shows when a file is opened there. */
static void make_directories(const char *directory) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s", directory) >= (int)sizeof path)
        return;
    for (char *p = path + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(path, 0755);
            *p = '/';
        }
    mkdir(path, 0755);
}

void cg_cuda_cache_put(const char *directory, const char *key, const cg_cuda_image *image) {
    char path[4096], temporary[4096];
    if (snprintf(path, sizeof path, "%s/%s", directory, key) >= (int)sizeof path ||
        snprintf(temporary, sizeof temporary, "%s/%s.XXXXXX", directory, key) >=
            (int)sizeof temporary)
        return;
    make_directories(directory);
    int fd = mkstemp(temporary);
    if (fd < 0)
        return;
    FILE *f = fdopen(fd, "wb");
    if (!f) {
        close(fd);
        unlink(temporary);
        return;
    }
    cache_header h = {.cubin_bytes = image->cubin_bytes,
                      .ptx_bytes = image->ptx_bytes,
                      .registers = image->registers,
                      .spill_bytes = image->spill_bytes,
                      .static_shared_bytes = image->static_shared_bytes};
    memcpy(h.magic, magic, sizeof magic);
    hash_image(image->cubin, image->cubin_bytes, image->ptx, image->ptx_bytes, h.sha256);
    bool ok = fwrite(&h, sizeof h, 1, f) == 1 &&
              fwrite(image->cubin, 1, image->cubin_bytes, f) == image->cubin_bytes &&
              fwrite(image->ptx, 1, image->ptx_bytes, f) == image->ptx_bytes;
    ok = fclose(f) == 0 && ok;
    if (!ok || rename(temporary, path))
        unlink(temporary);
}
