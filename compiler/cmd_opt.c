/* modelcc opt: runs passes on the text form of a graph; text in, text out. */
#include "codegen/cpu/cpu.h"
#include "compiler/cmd.h"
#include "ir/export.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2 };

static const char usage[] =
    "usage: modelcc opt FILE.ir [options]       (FILE - reads standard input)\n"
    "  --passes=A,B,…         the passes to run, in this order\n"
    "  --pipeline             all passes of `modelcc build`\n"
    "  --print-after=PASS|all print the graph after a pass, on standard error\n"
    "  --list-passes          list the passes and exit\n"
    "  --quantize=keep|f16|bf16|int8|int4, --activations=int8|f32, --kv-cache-dtype=f16|f32,\n"
    "  --fusion=none|pointwise|full|FILE   as for `modelcc build`\n"
    "  --dot, --json          print Graphviz or JSON instead of text\n"
    "  -o FILE                write there instead of standard output\n";

struct opt {
    const char *input, *output, *passes, *print_after, *fusion_file;
    bool pipeline, list, dot, json;
    pass_options options;
};

/* The whole of a file, with a zero byte behind it; NULL with errno set. */
static char *read_all(const char *path, size_t *length) {
    FILE *in = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    if (!in)
        return NULL;
    char *text = NULL;
    size_t capacity = 0;
    *length = 0;
    for (;;) {
        if (capacity - *length < 2) {
            capacity = capacity ? capacity * 2 : 1 << 16;
            char *grown = realloc(text, capacity);
            if (!grown)
                break;
            text = grown;
        }
        size_t n = fread(text + *length, 1, capacity - *length - 1, in);
        *length += n;
        if (n == 0)
            break;
    }
    int failed = ferror(in) || !text;
    if (in != stdin)
        fclose(in);
    if (failed) {
        free(text);
        return NULL;
    }
    text[*length] = 0;
    return text;
}

static bool choose(const char *what, const char *value, const char *const *names, int count,
                   int *choice) {
    for (int i = 0; i < count; i++)
        if (!strcmp(value, names[i])) {
            *choice = i;
            return true;
        }
    fprintf(stderr, "error: --%s: found \"%s\", expected one of", what, value);
    for (int i = 0; i < count; i++)
        fprintf(stderr, " %s", names[i]);
    fputc('\n', stderr);
    return false;
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
                                          {"dot", no_argument, NULL, 'd'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"output", required_argument, NULL, 'o'},
                                          {NULL, 0, NULL, 0}};
    static const char *const encodings[] = {"keep", "f16", "bf16", "int8", "int4"};
    static const char *const activations[] = {"int8", "f32"};
    static const char *const kv_dtypes[] = {"f16", "f32"};
    int choice;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "o:", longs, NULL)) != -1;) {
        switch (c) {
        case 'p':
            opt->passes = optarg;
            break;
        case 'P':
            opt->pipeline = true;
            break;
        case 'a':
            if (strcmp(optarg, "all") && !pass_find(optarg)) {
                fprintf(stderr, "error: --print-after: unknown pass \"%s\"; see --list-passes\n",
                        optarg);
                return false;
            }
            opt->print_after = optarg;
            break;
        case 'l':
            opt->list = true;
            break;
        case 'q':
            if (!choose("quantize", optarg, encodings, 5, &choice))
                return false;
            opt->options.quantize = (pass_quantize)choice;
            break;
        case 'A':
            if (!choose("activations", optarg, activations, 2, &choice))
                return false;
            opt->options.activations_f32 = choice == 1;
            break;
        case 'k':
            if (!choose("kv-cache-dtype", optarg, kv_dtypes, 2, &choice))
                return false;
            opt->options.kv_f32 = choice == 1;
            break;
        case 'f':
            if (!strcmp(optarg, "none") || !strcmp(optarg, "pointwise") || !strcmp(optarg, "full"))
                opt->options.fusion = optarg;
            else
                opt->fusion_file = optarg;
            break;
        case 'd':
            opt->dot = true;
            break;
        case 'j':
            opt->json = true;
            break;
        case 'o':
            opt->output = optarg;
            break;
        default:
            return false;
        }
    }
    if (optind < argc)
        opt->input = argv[optind++];
    if (optind < argc) {
        fprintf(stderr, "error: one input is expected, found \"%s\" as well\n", argv[optind]);
        return false;
    }
    if (!opt->input && !opt->list) {
        fputs("error: no input\n", stderr);
        return false;
    }
    if (opt->passes && opt->pipeline) {
        fputs("error: --passes and --pipeline exclude each other\n", stderr);
        return false;
    }
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
    ok = (opt->output ? fclose(out) : fflush(out)) == 0 && ok;
    if (!ok)
        fprintf(stderr, "error: %s: %s\n", opt->output ? opt->output : "standard output",
                strerror(errno));
    return ok;
}

static bool run(struct opt *opt, ir_module *module, ir_diag *diag) {
    pass_context context = {
        .module = module, .diag = diag, .options = &opt->options, .target = cg_cpu_pass_target()};
    if (!ir_verify(module, diag))
        return false;
    if (opt->pipeline)
        return pass_run_pipeline(&context, after_pass, opt);
    return !opt->passes || pass_run_list(&context, opt->passes, after_pass, opt);
}

int cmd_opt(int argc, char **argv) {
    struct opt opt = {0};
    if (!parse_options(argc, argv, &opt)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (opt.list) {
        list_passes();
        return EXIT_SUCCESS;
    }
    size_t length = 0, plan_length;
    char *plan = NULL, *text = read_all(opt.input, &length);
    if (!text) {
        fprintf(stderr, "error: %s: %s\n", opt.input, strerror(errno));
        return EXIT_FAILURE;
    }
    if (opt.fusion_file && !(plan = read_all(opt.fusion_file, &plan_length))) {
        fprintf(stderr, "error: --fusion: %s: %s\n", opt.fusion_file, strerror(errno));
        free(text);
        return EXIT_FAILURE;
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
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
