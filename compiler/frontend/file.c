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

bool fe_path_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool fe_path_is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

const char *fe_printable(ir_arena *arena, const void *data, size_t size) {
    enum { longest = 120 };
    const unsigned char *bytes = data;
    size_t shown = size > longest ? longest : size;
    char *text = ir_arena_alloc(arena, shown + 4);
    for (size_t i = 0; i < shown; i++)
        text[i] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    memcpy(text + shown, shown < size ? "..." : "", shown < size ? 4 : 1);
    return text;
}

bool fe_name_is_clean(const void *data, size_t size, size_t longest) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] <= 0x20 || bytes[i] >= 0x7f)
            return false;
    return size >= 1 && size <= longest;
}
