/* Fuzzes the fusion plan's text: alone, and applied to a small graph. What is read must print to a
 * text that reads the same, and a plan either fuses the graph into one that verifies or is refused
 * with a reason. */
#include "codegen/cpu/cpu.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"
#include "passes/plan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two matmuls that can be merged, what comes after them, and a way around: x is used by the end
 * too, so that careless regions would depend on each other in a circle. The head has the table. */
static const char graph_text[] = "module \"fuzz\" {arch = \"test\"}\n"
                                 "%0 = input {name = \"token_ids\"} : i32[T]\n"
                                 "%1 = weight {name = \"table\"} : f32[16, 32]\n"
                                 "%2 = weight {name = \"wa\"} : q8_0[64, 32]\n"
                                 "%3 = weight {name = \"wb\"} : q8_0[64, 32]\n"
                                 "%4 = weight {name = \"wc\"} : f32[32, 64]\n"
                                 "%5 = weight {name = \"wn\"} : f32[32]\n"
                                 "%6 = gather(%1, %0) : f32[T, 32] @\"x\"\n"
                                 "%7 = rms_norm(%6, %5) {eps = 1e-06} : f32[T, 32] @\"n\"\n"
                                 "%8 = matmul(%7, %2) {transpose_b = 1} : f32[T, 64] @\"a\"\n"
                                 "%9 = matmul(%7, %3) {transpose_b = 1} : f32[T, 64] @\"b\"\n"
                                 "%10 = silu(%8) : f32[T, 64] @\"s\"\n"
                                 "%11 = mul(%10, %9) : f32[T, 64] @\"m\"\n"
                                 "%12 = matmul(%11, %4) {transpose_b = 1} : f32[T, 32] @\"c\"\n"
                                 "%13 = add(%6, %12) : f32[T, 32] @\"y\"\n"
                                 "%14 = matmul(%13, %1) {transpose_b = 1} : f32[T, 16] @\"head\"\n"
                                 "output(%14) {name = \"scores\"}\n";

static char *print(const plan *p) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        abort();
    plan_print(p, out);
    fclose(out);
    return text;
}

static plan *check_text(const char *text, ir_arena *arena, ir_diag *diag) {
    plan *p = plan_parse(text, "fuzz.plan", arena, diag);
    if ((p == NULL) != (diag->errors != 0))
        abort(); /* refusals and errors go together */
    if (!p)
        return NULL;
    char *once = print(p);
    plan *again = plan_parse(once, "printed.plan", arena, diag);
    if (!again)
        abort();
    char *twice = print(again);
    if (strcmp(once, twice) != 0)
        abort();
    free(once);
    free(twice);
    return p;
}

static bool verify_after(void *user, const pass_info *pass, pass_context *context) {
    (void)user;
    if (!ir_verify(context->module, context->diag)) {
        fprintf(stderr, "the module does not verify after %s\n", pass->name);
        ir_diag_print(context->diag, stderr);
        abort();
    }
    return true;
}

static void apply(plan *p) {
    ir_diag diag = {0};
    ir_module *module = ir_parse_module(graph_text, sizeof graph_text - 1, "graph.ir", &diag);
    if (!module || !ir_verify(module, &diag)) {
        ir_diag_print(&diag, stderr);
        abort();
    }
    /* With the hash of this graph, else nearly every plan would be for another one. */
    pass_options options = {0};
    pass_context context = {
        .module = module, .diag = &diag, .options = &options, .target = cg_cpu_pass_target()};
    if (!pass_run_list(&context, "quantize,cse,name-ops", verify_after, NULL))
        abort();
    plan_hash_graph(module, p->graph_hash);
    char *text = print(p);
    options.plan_text = text;
    options.plan_file = "fuzz.plan";
    bool ok = pass_run_list(&context, "fusion-plan,fuse,dce", verify_after, NULL);
    bool internal = false;
    for (int i = 0; i < diag.count; i++)
        internal |= diag.messages[i].severity == IR_INTERNAL_ERROR;
    if (internal || ok != (diag.errors == 0)) {
        ir_diag_print(&diag, stderr);
        abort();
    }
    free(text);
    ir_module_destroy(module);
    ir_diag_clear(&diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    char *text = malloc(size + 1); /* of the exact size, so that ASan sees the end */
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    plan *p = check_text(text, arena, &diag);
    if (p)
        apply(p);
    free(text);
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
    return 0;
}
