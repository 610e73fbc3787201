/* Opens the bytes as a whole GGUF model, builds its graph and verifies it: configuration, tensor
 * table, tokenizer metadata and decoder together. Start it from tests/golden/gguf/. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "compiler/frontend/frontend.h"
#include "ir/verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whatever opens must build, and what is built must verify. */
static void check(const char *path) {
    ir_diag diag = {0};
    fe_model *model = fe_open(path, &diag);
    if (model) {
        ir_module *module = fe_build(model, &diag);
        if (!module || !ir_verify(module, &diag)) {
            ir_diag_print(&diag, stderr);
            __builtin_trap();
        }
        ir_module_destroy(module);
    } else if (diag.errors == 0) {
        __builtin_trap(); /* a refusal must say why */
    }
    fe_close(model);
    ir_diag_clear(&diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    char path[64];
    if (fd < 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size)
        check(path);
    close(fd);
    return 0;
}
