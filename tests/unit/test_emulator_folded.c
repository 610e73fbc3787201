/* Instructions executed by the GPU emulator, from text to registers, against what NVIDIA's own
 * assembler makes of them when their operands are constants. */
#include "emulator_kernel.h"
#include "fixture/ptx_executed.h"

/* A kernel whose threads take a, b, c from in[4 tid …] and store d there. */
static char *kernel_of(const char *text) {
    static const char head[] =
        ".version 7.8\n.target sm_86\n.address_size 64\n"
        ".visible .entry k(.param .u64 words) { .reg .b64 g; .reg .b32 t; " EXECUTED_REGISTERS "\n"
        "ld.param.u64 g, [words]; mov.u32 t, %tid.x; mad.wide.u32 g, t, 16, g;\n"
        "ld.global.u32 a, [g]; ld.global.u32 b, [g+4]; ld.global.u32 c, [g+8];\n" EXECUTED_OPERANDS
        "\n",
                      tail[] = "\nst.global.u32 [g+12], d; ret; }\n";
    char *made = malloc(sizeof head + strlen(text) + sizeof tail);
    HOLDS(made, "no memory");
    sprintf(made, "%s%s%s", head, text, tail);
    return made;
}

enum { N_OPERATIONS = sizeof executed_operations / sizeof *executed_operations };

START_TEST(as_folded) {
    for (int i = 0; i < N_OPERATIONS; i++) {
        const executed_operation *o = &executed_operations[i];
        char *text = kernel_of(o->text);
        gpu g = gpu_open(text);
        const emu_allocation *words = gpu_buffer(&g, o->cases, 16 * (size_t)o->n);
        GPU_MUST(&g, "k", 1, (uint32_t)o->n, words->base);
        for (int k = 0; k < o->n; k++) {
            const uint32_t *c = o->cases[k];
            uint32_t got = gpu_u32(words, 4 * (size_t)k + 3);
            HOLDS(got == c[3], "%s with a %#x, b %#x, c %#x gives %#x, the assembler %#x", o->text,
                  c[0], c[1], c[2], got, c[3]);
        }
        gpu_close(&g);
        free(text);
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator_folded");
    TCase *c = tcase_create("folded");
    tcase_add_test(c, as_folded);
    tcase_set_timeout(c, 60);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
