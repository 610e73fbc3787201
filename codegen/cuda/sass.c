/* Machine code as text, by the toolkit's nvdisasm. */
#include "codegen/cuda/cuda.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static bool find_nvdisasm(char *path, size_t capacity) {
    const char *dirs = getenv("PATH"), *home = getenv("CUDA_HOME");
    for (const char *d = dirs ? dirs : ""; *d;) {
        size_t n = strcspn(d, ":");
        snprintf(path, capacity, "%.*s/nvdisasm", (int)n, d);
        if (n && access(path, X_OK) == 0)
            return true;
        d += n + (d[n] == ':');
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, capacity, "%s/bin/nvdisasm", i == 0 && home ? home : "/usr/local/cuda");
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static bool run(const char *tool, int cubin, int out) {
    char input[64];
    snprintf(input, sizeof input, "/proc/%d/fd/%d", (int)getpid(), cubin);
    char *argv[] = {(char *)tool, "-c", input, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status = 0;
    if (posix_spawn_file_actions_init(&actions))
        return false;
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    bool ok = posix_spawn(&pid, tool, &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    while (ok && waitpid(pid, &status, 0) < 0)
        ok = errno == EINTR;
    return ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void copy(int from, FILE *to) {
    char buffer[1 << 16];
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;)
        fwrite(buffer, 1, (size_t)n, to);
}

bool cg_cuda_disassemble(const cg_cuda_image *image, const char *name, FILE *out, ir_diag *diag) {
    char tool[4096];
    if (!find_nvdisasm(tool, sizeof tool))
        return ir_error(
            diag, name,
            "nvdisasm was not found on PATH or in /usr/local/cuda/bin; it comes with the "
            "CUDA Toolkit and as PyPI's nvidia-cuda-nvdisasm");
    int cubin = memfd_create("modelcc-cubin", MFD_CLOEXEC);
    int text = memfd_create("modelcc-sass", MFD_CLOEXEC);
    bool ok = cubin >= 0 && text >= 0 &&
              write(cubin, image->cubin, image->cubin_bytes) == (ssize_t)image->cubin_bytes &&
              run(tool, cubin, text) && lseek(text, 0, SEEK_SET) == 0;
    if (ok)
        copy(text, out);
    if (cubin >= 0)
        close(cubin);
    if (text >= 0)
        close(text);
    return ok || ir_error(diag, name, "%s failed", tool);
}
