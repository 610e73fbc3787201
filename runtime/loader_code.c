/* Loads an artifact's code, and makes sure that what was loaded is what was checked. */
#include "runtime/loader.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void mcc_artifact_close(mcc_artifact *artifact) {
    if (!artifact)
        return;
    rt_close_text(artifact);
    if (artifact->handle)
        dlclose(artifact->handle);
    for (int i = 0; i < RT_PARTS; i++)
        if (artifact->parts[i].mapped_bytes > 0)
            munmap((void *)artifact->parts[i].data, artifact->parts[i].mapped_bytes);
    if (artifact->fd >= 0)
        close(artifact->fd);
    free(artifact->tables_data);
    free(artifact->cuda_data);
    free(artifact->path);
    free(artifact);
}

/* --- is the loaded code the file's? --------------------------------------------------------------
 *
 * dlopen goes by name: another file may have taken the name since ours was opened, or an older file
 * of that name may still be loaded in this process. So the program headers and the executable
 * segments in memory are compared with the file whose hash was checked. */

typedef struct comparison {
    const mcc_artifact *artifact;
    uintptr_t base; /* load address of the object to look at */
    bool found, same;
} comparison;

static bool same_bytes(const mcc_artifact *a, uint64_t offset, const uint8_t *memory,
                       uint64_t size) {
    uint8_t buffer[16384];
    for (uint64_t at = 0; at < size; at += sizeof buffer) {
        uint64_t n = size - at < sizeof buffer ? size - at : sizeof buffer;
        if (!rt_read_at(a, offset + at, buffer, n, NULL) || memcmp(buffer, memory + at, n) != 0)
            return false;
    }
    return true;
}

static bool same_code(const mcc_artifact *a, const struct dl_phdr_info *info) {
    const mcc_section *code = rt_footer_find(&a->footer, MCC_SECTION_CODE);
    ElfW(Ehdr) header;
    if (code->size < sizeof header || !rt_read_at(a, 0, &header, sizeof header, NULL) ||
        header.e_phnum != info->dlpi_phnum || header.e_phentsize != sizeof(ElfW(Phdr)) ||
        header.e_phoff > code->size ||
        header.e_phnum * sizeof(ElfW(Phdr)) > code->size - header.e_phoff ||
        !same_bytes(a, header.e_phoff, (const uint8_t *)info->dlpi_phdr,
                    header.e_phnum * sizeof(ElfW(Phdr))))
        return false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) || (p->p_flags & PF_W))
            continue;
        if (p->p_offset > code->size || p->p_filesz > code->size - p->p_offset ||
            !same_bytes(a, p->p_offset, (const uint8_t *)(info->dlpi_addr + p->p_vaddr),
                        p->p_filesz))
            return false;
    }
    return true;
}

static int compare_object(struct dl_phdr_info *info, size_t size, void *user) {
    (void)size;
    comparison *c = user;
    if (info->dlpi_addr != c->base)
        return 0;
    c->found = true;
    c->same = same_code(c->artifact, info);
    return 1;
}

static bool is_our_code(const mcc_artifact *a, const void *symbol) {
    Dl_info info;
    struct link_map *map = NULL;
    if (!dladdr1(symbol, &info, (void **)&map, RTLD_DL_LINKMAP) || !map)
        return false;
    comparison c = {.artifact = a, .base = map->l_addr};
    dl_iterate_phdr(compare_object, &c);
    return c.found && c.same;
}

/* --- loading -------------------------------------------------------------------------------------
 */

/* Loads the file under a name; *descriptor is NULL when something else has that name. */
static bool load_as(mcc_artifact *a, const char *name, const mcc_descriptor **descriptor,
                    rt_error *error) {
    *descriptor = NULL;
    a->handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!a->handle) {
        rt_fail(error, MCC_BAD_ARTIFACT, "%s: cannot load the code: %s", a->path, dlerror());
        dlerror(); /* frees the message */
        return false;
    }
    const void *symbol = dlsym(a->handle, MCC_DESCRIPTOR_SYMBOL);
    if (symbol && is_our_code(a, symbol)) {
        *descriptor = symbol;
        return true;
    }
    dlclose(a->handle);
    a->handle = NULL;
    return true;
}

static bool check_descriptor(mcc_artifact *a, const mcc_descriptor *d, rt_error *error) {
    const rt_tables *t = &a->tables;
    if (d->version != MCC_ARTIFACT_VERSION || d->n_targets != t->n_targets)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: the code's descriptor has version %" PRIu32 " and %" PRIu32
                       " targets, the tables %d and %" PRIu32,
                       a->path, d->version, d->n_targets, MCC_ARTIFACT_VERSION, t->n_targets);
    const mcc_target_code *code = &d->targets[a->target];
    const mcc_target_entry *entry = &t->targets[a->target];
    if (!code->name || strcmp(code->name, rt_string(t, entry->name)) != 0 ||
        code->cpu_features != entry->cpu_features || code->n_kernels != t->n_kernels)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: target %d of the code is %s with %" PRIu32
                       " kernels, of the tables %s with %" PRIu32,
                       a->path, a->target, code->name ? code->name : "unnamed", code->n_kernels,
                       rt_string(t, entry->name), t->n_kernels);
    for (uint32_t i = 0; i < code->n_kernels; i++)
        if (!code->kernels[i])
            return rt_fail(error, MCC_BAD_ARTIFACT, "%s: target %s lacks kernel %s", a->path,
                           code->name, rt_string(t, t->kernels[i].name));
    a->kernels = code->kernels;
    return true;
}

bool rt_load_code(mcc_artifact *a, rt_error *error) {
    const mcc_descriptor *descriptor;
    /* By its own name first: debuggers and profilers find the file by it. */
    if (!load_as(a, a->path, &descriptor, error))
        return false;
    if (!descriptor) {
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", a->fd);
        if (!load_as(a, name, &descriptor, error))
            return false;
    }
    if (!descriptor)
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "%s: what dlopen loaded under this name is not this file's code, or lacks "
                       "the symbol %s: another version of it may be open in this process; close "
                       "that first, or open a copy under another name",
                       a->path, MCC_DESCRIPTOR_SYMBOL);
    return check_descriptor(a, descriptor, error);
}
