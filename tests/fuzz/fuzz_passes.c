/* Fuzzes the passes: a graph that parses and verifies still verifies after each of them, or the
 * pass says what is wrong with it. The simple passes have no reason to fail at all. */
#include "codegen/cpu/cpu.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool verify_after(void *user, const pass_info *pass, pass_context *context) {
    (void)user;
    if (!ir_verify(context->module, context->diag)) {
        fprintf(stderr, "the module does not verify after %s\n", pass->name);
        ir_diag_print(context->diag, stderr);
        abort();
    }
    return true;
}

/* strict: the passes may not fail. */
static void run(const uint8_t *data, size_t size, const char *names, bool strict) {
    ir_diag diag = {0};
    pass_options options = {0};
    ir_module *module = ir_parse_module((const char *)data, size, "fuzz.ir", &diag);
    if (module && ir_verify(module, &diag)) {
        pass_context context = {
            .module = module, .diag = &diag, .options = &options, .target = cg_cpu_pass_target()};
        bool ok = pass_run_list(&context, names, verify_after, NULL);
        bool internal = false;
        for (int i = 0; i < diag.count; i++)
            internal |= diag.messages[i].severity == IR_INTERNAL_ERROR;
        if ((strict && !ok) || (!ok && !diag.errors) || internal) {
            ir_diag_print(&diag, stderr);
            abort();
        }
    }
    ir_module_destroy(module);
    ir_diag_clear(&diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    run(data, size, "canonicalize,constant-fold,cse,dce", true);
    run(data, size, "rope-frequencies,quantize,cse,paged-kv,dce,name-ops,fusion-plan,fuse,dce",
        false);
    return 0;
}
