#include "compiler/frontend/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool fe_file_map(fe_file *file, const char *path, ir_diag *diag) {
    *file = (fe_file){.path = path};
    /* O_NONBLOCK: a pipe named as a model must not make us wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return ir_error(diag, path, "cannot open: %s", strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int error = errno;
        close(fd);
        return ir_error(diag, path, "cannot read its size: %s", strerror(error));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return ir_error(diag, path, "is not a regular file");
    }
    if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            int error = errno;
            close(fd);
            return ir_error(diag, path, "cannot map its %lld bytes: %s", (long long)st.st_size,
                            strerror(error));
        }
        file->data = data;
        file->size = (size_t)st.st_size;
    }
    close(fd);
    return true;
}

void fe_file_unmap(fe_file *file) {
    if (file->data)
        munmap((void *)(uintptr_t)file->data, file->size);
    file->data = NULL;
    file->size = 0;
}

void fe_file_release(const fe_file *file, size_t begin, size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), skip = begin % page;
    if (file->data && size)
        madvise((void *)(uintptr_t)(file->data + begin - skip), size + skip, MADV_DONTNEED);
}

bool fe_path_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool fe_path_is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Bytes of the UTF-8 character at `p` if it is well formed (The Unicode Standard, table 3-7) and
 * prints as itself: no control character, none that changes the direction of text. Else 0. */
static size_t printable_character(const unsigned char *p, size_t left) {
    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] != 0x7f;
    size_t length = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : p[0] >= 0xe0 && p[0] <= 0xef ? 3 : 4;
    if (p[0] < 0xc2 || p[0] > 0xf4 || length > left)
        return 0;
    uint32_t code = p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    bool too_long = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
    bool no_character = code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff);
    bool control = code < 0xa0 || (code >= 0x200e && code <= 0x200f) ||
                   (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
    return too_long || no_character || control ? 0 : length;
}

const char *fe_printable(ir_arena *arena, const void *data, size_t size) {
    enum { longest = 120 };
    const unsigned char *bytes = data;
    char *text = ir_arena_alloc(arena, longest + 8), *end = text;
    size_t at = 0;
    while (at < size && end - text < longest) {
        size_t length = printable_character(bytes + at, size - at);
        if (length)
            memcpy(end, bytes + at, length);
        else
            *end = '?';
        end += length ? length : 1;
        at += length ? length : 1;
    }
    strcpy(end, at < size ? "..." : "");
    return text;
}

const char *fe_printable_text(ir_arena *arena, const char *text) {
    return fe_printable(arena, text, strlen(text));
}

bool fe_name_is_clean(const void *data, size_t size, size_t longest) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] <= 0x20 || bytes[i] >= 0x7f)
            return false;
    return size >= 1 && size <= longest;
}
