#include "codegen/artifact/link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { MAX_INPUTS = 64, MAX_MESSAGE = 2048 };

bool cg_linker_find(char *path, size_t capacity) {
    static const char *const names[] = {"ld.lld-19", "ld.lld"};
    const char *dirs = getenv("PATH");
    if (!dirs || !*dirs)
        dirs = "/usr/local/bin:/usr/bin:/bin";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (const char *d = dirs; *d;) {
            size_t n = strcspn(d, ":");
            int length = snprintf(path, capacity, "%.*s/%s", (int)n, d, names[i]);
            if (n && length > 0 && (size_t)length < capacity && access(path, X_OK) == 0)
                return true;
            d += n + (d[n] == ':');
        }
    path[0] = '\0';
    return false;
}

static bool write_all(int fd, const void *bytes, size_t size) {
    const char *p = bytes;
    while (size) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

/* Runs the linker with its output and its messages in memory files. */
static int run(char *const *argv, int out, int messages) {
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions))
        return -1;
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, messages, STDERR_FILENO);
    /* Deaf to Ctrl-C and the like, from its first moment: they are for us, who stop once it is
     * done. */
    sigset_t deaf;
    sigemptyset(&deaf);
    sigaddset(&deaf, SIGINT);
    sigaddset(&deaf, SIGTERM);
    posix_spawnattr_t attributes;
    if (posix_spawnattr_init(&attributes)) {
        posix_spawn_file_actions_destroy(&actions);
        return -1;
    }
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &deaf);
    pid_t pid;
    int failed = posix_spawn(&pid, argv[0], &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (failed)
        return -1;
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

int cg_link(const cg_link_input *inputs, int n_inputs, ir_diag *diag) {
    char linker[512], names[MAX_INPUTS][32], message[MAX_MESSAGE] = "";
    if (!cg_linker_find(linker, sizeof linker)) {
        ir_error(
            diag, NULL,
            "no linker: found neither ld.lld-19 nor ld.lld on PATH; install the package lld-19");
        return -1;
    }
    if (n_inputs > MAX_INPUTS) {
        ir_internal_error(diag, NULL, "%d objects to link, at most %d", n_inputs, MAX_INPUTS);
        return -1;
    }
    char *argv[MAX_INPUTS + 16];
    int argc = 0, fds[MAX_INPUTS], n = 0;
    argv[argc++] = linker;
    /* -o - writes to standard output; the rest makes the bytes depend on the inputs alone. */
    static const char *const fixed[] = {
        "-shared", "-o", "-",   "--build-id=none", "--hash-style", "gnu", "-z", "noexecstack", "-z",
        "relro",   "-z", "now", "--threads=1"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        argv[argc++] = (char *)(uintptr_t)fixed[i];
    bool ok = true;
    for (; n < n_inputs && ok; n++) {
        /* Inherited by the linker, which opens it by this name. */
        fds[n] = memfd_create("modelcc-object", 0);
        ok = fds[n] >= 0 && write_all(fds[n], inputs[n].bytes, inputs[n].size);
        snprintf(names[n], sizeof names[n], "/proc/self/fd/%d", fds[n]);
        argv[argc++] = names[n];
    }
    argv[argc] = NULL;
    int out = memfd_create("modelcc-code", MFD_CLOEXEC);
    int messages = memfd_create("modelcc-linker", MFD_CLOEXEC);
    ok = ok && out >= 0 && messages >= 0;
    if (!ok) {
        ir_error(diag, NULL, "cannot hold the objects to link in memory: %s", strerror(errno));
    } else {
        int status = run(argv, out, messages);
        ok = status == 0;
        if (!ok) {
            ssize_t length = pread(messages, message, sizeof message - 1, 0);
            message[length > 0 ? length : 0] = '\0';
            message[strcspn(message, "\n")] = '\0';
            ir_internal_error(diag, linker, "linking failed (status %d): %s", status, message);
        }
    }
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (messages >= 0)
        close(messages);
    if (!ok && out >= 0)
        close(out);
    return ok ? out : -1;
}
