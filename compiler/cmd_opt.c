/* modelcc opt: runs passes on the text form of a graph; text in, text out. */
#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"
#include "compiler/command.h"
#include "ir/export.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/plan.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: modelcc opt FILE.ir [options]\n\n"
    "Reads a graph in text form (- reads standard input), runs passes on it, prints the result.\n\n"
    "  --passes A,B,…         the passes to run, in this order\n"
    "  --pipeline             all passes of modelcc build\n"
    "  --print-after PASS     print the graph after a pass, or after all, on standard error\n"
    "  --list-passes          list the passes and exit\n"
    "  --quantize, --activations, --kv-cache-dtype, --fusion   as for modelcc build\n"
    "  --sampling WHERE       device or host (default): whether steps choose tokens\n"
    "  --target KIND          cpu (default) or cuda: what passes plan for\n"
    "  --dot, --json          print Graphviz or JSON instead of text\n"
    "  -o, --output FILE      write there instead of standard output\n\n"
    "examples:\n"
    "  modelcc build model.gguf --emit graph -o model.ir\n"
    "  modelcc opt model.ir --passes=canonicalize,cse,dce --print-after all\n"
    "  modelcc opt model.ir --dot | dot -Tsvg > model.svg\n";

enum { MAX_TEXT = 1 << 30 };

struct opt {
    const char *input, *output, *passes, *print_after, *fusion_file;
    bool pipeline, list, help, dot, json, cuda;
    pass_options options;
};

/* The index of value among names, or -1 after saying what was expected. */
static int choose(const char *what, const char *value, const char *const *names) {
    for (int i = 0; names[i]; i++)
        if (!strcmp(value, names[i]))
            return i;
    char expected[64] = "";
    for (int i = 0; names[i]; i++)
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s%s",
                 i ? ", " : "", names[i]);
    command_usage("opt", "--%s %s: expected one of %s", what, value, expected);
    return -1;
}

/* One option; false after an error. */
static bool set_option(struct opt *opt, int c, const char *value) {
    static const char *const targets[] = {"cpu", "cuda", NULL};
    static const char *const places[] = {"host", "device", NULL};
    int choice;
    switch (c) {
    case 'p':
        opt->passes = value;
        return true;
    case 'P':
        opt->pipeline = true;
        return true;
    case 'a':
        opt->print_after = value;
        return !strcmp(value, "all") || pass_find(value) ||
               (command_usage("opt", "--print-after %s: no such pass; --list-passes lists them",
                              value),
                false);
    case 'l':
        opt->list = true;
        return true;
    case 'q':
        choice = choose("quantize", value, pass_quantize_names);
        opt->options.quantize = (pass_quantize)choice;
        return choice >= 0;
    case 'A':
        return pass_activations_from_name(value, &opt->options) ||
               (command_usage("opt", "--activations %s: expected int8, f32, f16, bf16 or fp8",
                              value),
                false);
    case 'k':
        return pass_kv_from_name(value, &opt->options.kv) ||
               (command_usage("opt",
                              "--kv-cache-dtype %s: expected auto, f16, f32, int8, fp8 or fp8_e4m3",
                              value),
                false);
    case 'f':
        if (fusion_strategy_find(value))
            opt->options.fusion = value;
        else
            opt->fusion_file = value;
        return true;
    case 't':
        choice = choose("target", value, targets);
        opt->cuda = choice == 1;
        return choice >= 0;
    case 's':
        choice = choose("sampling", value, places);
        opt->options.sampling = choice == 1;
        return choice >= 0;
    case 'd':
        opt->dot = true;
        return true;
    case 'j':
        opt->json = true;
        return true;
    case 'o':
        opt->output = strcmp(value, "-") ? value : NULL;
        return true;
    case 'h':
        opt->help = true;
        return true;
    default:
        return false;
    }
}

static bool parse_options(int argc, char **argv, struct opt *opt) {
    static const struct option longs[] = {{"passes", required_argument, NULL, 'p'},
                                          {"pipeline", no_argument, NULL, 'P'},
                                          {"print-after", required_argument, NULL, 'a'},
                                          {"list-passes", no_argument, NULL, 'l'},
                                          {"quantize", required_argument, NULL, 'q'},
                                          {"activations", required_argument, NULL, 'A'},
                                          {"kv-cache-dtype", required_argument, NULL, 'k'},
                                          {"fusion", required_argument, NULL, 'f'},
                                          {"target", required_argument, NULL, 't'},
                                          {"sampling", required_argument, NULL, 's'},
                                          {"dot", no_argument, NULL, 'd'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"output", required_argument, NULL, 'o'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    for (int c; (c = command_option(argc, argv, "o:h", longs)) != -1;)
        if (!set_option(opt, c, optarg))
            return false;
    if (optind < argc)
        opt->input = argv[optind++];
    if (optind < argc)
        return command_usage("opt", "one input is expected, found \"%s\" as well", argv[optind]),
               false;
    if (!opt->input && !opt->list && !opt->help)
        return command_usage("opt", "no input"), false;
    if (opt->passes && opt->pipeline)
        return command_usage("opt", "--passes and --pipeline exclude each other"), false;
    if (opt->dot && opt->json)
        return command_usage("opt", "--dot and --json exclude each other"), false;
    return true;
}

static void list_passes(void) {
    int count;
    const pass_info *passes = pass_list(&count);
    for (int i = 0; i < count; i++)
        printf("%-18s %s\n", passes[i].name, passes[i].summary);
}

/* Prints what was asked for, and verifies, after each pass. */
static bool after_pass(void *user, const pass_info *pass, pass_context *context) {
    const struct opt *opt = user;
    if (opt->print_after &&
        (!strcmp(opt->print_after, "all") || !strcmp(opt->print_after, pass->name))) {
        fprintf(stderr, "// after %s\n", pass->name);
        ir_print_module(context->module, stderr);
    }
    return ir_verify(context->module, context->diag) ||
           ir_internal_error(context->diag, pass->name,
                             "the graph does not verify after this pass");
}

static bool write_output(const struct opt *opt, const ir_module *module) {
    FILE *out = opt->output ? fopen(opt->output, "wb") : stdout;
    if (!out) {
        fprintf(stderr, "error: %s: %s\n", opt->output, strerror(errno));
        return false;
    }
    if (opt->dot)
        ir_export_dot(module, out);
    else if (opt->json)
        ir_export_json(module, out);
    else
        ir_print_module(module, out);
    bool ok = !ferror(out);
    if (!opt->output) /* what goes wrong there is main's to say */
        return ok;
    ok = fclose(out) == 0 && ok;
    if (!ok)
        fprintf(stderr, "error: %s: %s\n", opt->output, strerror(errno));
    return ok;
}

static bool run(struct opt *opt, ir_module *module, ir_diag *diag) {
    pass_context context = {.module = module,
                            .diag = diag,
                            .options = &opt->options,
                            .target = opt->cuda ? cg_cuda_pass_target() : cg_cpu_pass_target()};
    if (!ir_verify(module, diag))
        return false;
    if (opt->pipeline)
        return pass_run_pipeline(&context, after_pass, opt);
    return !opt->passes || pass_run_list(&context, opt->passes, after_pass, opt);
}

int cmd_opt(int argc, char **argv) {
    struct opt opt = {0};
    if (!parse_options(argc, argv, &opt))
        return EXIT_USAGE;
    if (opt.help) {
        fputs(help, stdout);
        return EXIT_FINE;
    }
    if (opt.list) {
        list_passes();
        return EXIT_FINE;
    }
    ir_arena_on_oom(command_out_of_memory);
    const char *path = strcmp(opt.input, "-") ? opt.input : "/dev/stdin";
    unsigned long length, plan_length;
    char *plan = NULL, *text = command_read_file("opt", path, MAX_TEXT, &length);
    if (text && opt.fusion_file)
        plan = command_read_file("opt", opt.fusion_file, MAX_TEXT, &plan_length);
    if (!text || (opt.fusion_file && !plan)) {
        free(text);
        return EXIT_FAILED;
    }
    opt.options.plan_text = plan;
    opt.options.plan_file = opt.fusion_file;
    ir_diag diag = {0};
    ir_module *module = ir_parse_module(text, length, opt.input, &diag);
    bool ok = module && run(&opt, module, &diag);
    ir_diag_print(&diag, stderr);
    ok = ok && write_output(&opt, module);
    ir_diag_clear(&diag);
    ir_module_destroy(module);
    free(plan);
    free(text);
    return ok ? EXIT_FINE : EXIT_FAILED;
}
