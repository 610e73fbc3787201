/* Opens the bytes as a whole GGUF model, builds its graph and verifies it, and compiles its
 * tokenizer: configuration, tensor table, tokenizer metadata and decoder together. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "compiler/frontend/frontend.h"
#include "compiler/tokenizer/tokenizer.h"
#include "ir/verify.h"
#include "runtime/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What compiles opens and encodes; what does not is refused with a reason. */
static void check_tokenizer(const fe_model *model) {
    if (model->tokenizer.kind != FE_TOKENIZER_GGUF)
        return;
    static const char text[] = "ab <s> 12\n\xc3\xa9\xff\xe2\x96\x81";
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    fe_blob blob;
    bool good = fe_tokenizer_from_gguf(arena, &diag, "fuzz", &model->tokenizer.gguf, &blob);
    if (good != (diag.errors == 0))
        __builtin_trap();
    if (good) {
        int32_t ids[64];
        rt_error error = {0};
        rt_tokenizer *tokenizer = rt_tokenizer_open(blob.data, blob.size, &error);
        if (!tokenizer)
            __builtin_trap();
        rt_tokenizer_encode(tokenizer, text, sizeof text - 1, 3, ids, 64, &error);
        rt_tokenizer_close(tokenizer);
    }
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
}

/* Whatever opens must build, and what is built must verify. */
static void check(const char *path) {
    ir_diag diag = {0};
    fe_model *model = fe_open(path, &diag);
    if (model) {
        ir_module *module = fe_build(model, FE_LOGITS, &diag);
        if (!module || !ir_verify(module, &diag)) {
            ir_diag_print(&diag, stderr);
            __builtin_trap();
        }
        ir_module_destroy(module);
        check_tokenizer(model);
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
