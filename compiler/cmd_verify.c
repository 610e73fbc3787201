/* modelcc verify: does an artifact's GPU code compute what its graph says? No GPU is needed. */
#include "compiler/output.h"
#include "compiler/verify.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: modelcc verify MODEL.so [options]\n\n"
    "Proves an artifact's GPU code without a GPU. Each kernel of some steps (prefill, decode, "
    "both\n"
    "at once) runs on an emulated GPU, with the artifact's weights, on the inputs that the "
    "reference\n"
    "interpreter computes from the graph inside the artifact. Accesses out of bounds, races,\n"
    "uninitialised reads and missing waits are errors; results must be within bounds that follow\n"
    "from the number formats. Then the engine runs the same steps as a whole, which must give the\n"
    "bits that the kernels give one by one.\n\n"
    "      --against MODEL        the model that it was built from: the graph is made of that "
    "again,\n"
    "                             and the weights must be the same, byte for byte\n"
    "      --arch sm_XX           only the code for this architecture (default: all there is)\n"
    "      --tokens N             of the prompt (default 12)\n"
    "      --schedules N          orders of warps and blocks to run each kernel in (default 2)\n"
    "      --all-variants         run all of a kernel's functions each time, not only the first\n"
    "      --seed N               of the prompt's tokens and of those orders (default 1)\n"
    "  -t, --threads N            (default: the processors this process may use)\n"
    "      --json                 one JSON object\n"
    "  -q, --quiet                print nothing but errors\n\n"
    "Exits with 0 when everything is right, with 1 when not.\n\n"
    "examples:\n"
    "  modelcc verify qwen3.so\n"
    "  modelcc verify qwen3.so --against ./Qwen3-0.6B --json | jq .verdict\n";

/* --- JSON ----------------------------------------------------------------------------------------
 */

static void add_number(cJSON *to, const char *name, double value) {
    if (isfinite(value))
        cJSON_AddNumberToObject(to, name, value);
    else
        cJSON_AddNullToObject(to, name); /* infinity: beyond all bounds */
}

static cJSON *kernel_json(const verify_report *r, int index, const verify_kernel *k) {
    const cg_kernel *kernel = r->model.program->kernels[index];
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "kernel", kernel->name);
    cJSON_AddStringToObject(j, "verdict", verify_kernel_is_right(k) ? "right" : "wrong");
    cJSON_AddNumberToObject(j, "launches", k->launches);
    cJSON_AddNumberToObject(j, "variants", k->variants);
    cJSON_AddNumberToObject(j, "values", (double)k->count.values);
    cJSON_AddNumberToObject(j, "wrong_values", (double)k->count.wrong);
    cJSON_AddNumberToObject(j, "close_values", (double)k->count.close);
    add_number(j, "max_error", k->count.worst_error);
    add_number(j, "max_error_of_bound", k->count.worst_ratio);
    cJSON_AddNumberToObject(j, "failures", k->failures);
    if (k->count.first[0])
        cJSON_AddStringToObject(j, "first_wrong", k->count.first);
    if (k->failure[0])
        cJSON_AddStringToObject(j, "failure", k->failure);
    return j;
}

static cJSON *whole_json(const verify_step *step, const verify_whole *w) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "step", step->name);
    cJSON_AddStringToObject(j, "verdict", verify_whole_is_right(w) ? "right" : "wrong");
    cJSON_AddNumberToObject(j, "tokens", step->interp.T);
    cJSON_AddNumberToObject(j, "sequences", step->interp.S);
    cJSON_AddNumberToObject(j, "rows", w->rows);
    add_number(j, "relative_difference", w->ran ? w->relative : INFINITY);
    cJSON_AddNumberToObject(j, "limit", w->limit);
    cJSON_AddNumberToObject(j, "other_bits", (double)w->other_bits);
    cJSON_AddNumberToObject(j, "other_tokens", w->other_tokens);
    if (w->failure[0])
        cJSON_AddStringToObject(j, "failure", w->failure);
    return j;
}

static void arch_name(const verify_arch *a, char name[16]) {
    snprintf(name, 16, "sm_%" PRIu32 "%s", a->arch, a->specific ? "a" : "");
}

static cJSON *arch_json(const verify_report *r, const verify_arch *a) {
    char name[16];
    cJSON *j = cJSON_CreateObject();
    arch_name(a, name);
    cJSON_AddStringToObject(j, "arch", name);
    cJSON_AddStringToObject(j, "emulated_gpu", a->gpu->title);
    cJSON *kernels = cJSON_AddArrayToObject(j, "kernels");
    for (int i = 0; i < r->model.program->n_kernels; i++)
        cJSON_AddItemToArray(kernels, kernel_json(r, i, &a->kernels[i]));
    cJSON *steps = cJSON_AddArrayToObject(j, "steps");
    for (int i = 0; i < r->steps.n; i++)
        cJSON_AddItemToArray(steps, whole_json(&r->steps.steps[i], &a->whole[i]));
    return j;
}

static int print_json(const verify_report *r, const verify_options *o) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "artifact", o->path);
    cJSON_AddStringToObject(j, "verdict", verify_is_right(r) ? "right" : "wrong");
    cJSON_AddStringToObject(j, "weights", o->against ? o->against : "artifact");
    if (o->against)
        cJSON_AddNumberToObject(j, "weights_equal", (double)r->model.weights_compared);
    cJSON_AddNumberToObject(j, "schedules", o->seeds);
    cJSON *archs = cJSON_AddArrayToObject(j, "architectures");
    for (int i = 0; i < r->n_archs; i++)
        cJSON_AddItemToArray(archs, arch_json(r, &r->archs[i]));
    return output_json(j);
}

/* --- for people ----------------------------------------------------------------------------------
 */

static void print_kernel(const verify_report *r, int index, const verify_kernel *k) {
    const cg_kernel *kernel = r->model.program->kernels[index];
    printf("  %-6s %-44s %5d %4d %10" PRId64 " %10.2e",
           verify_kernel_is_right(k) ? "right" : "WRONG", kernel->name, k->launches, k->variants,
           k->count.values, k->count.worst_error);
    if (isfinite(k->count.worst_ratio))
        printf(" %7.3f\n", k->count.worst_ratio);
    else
        printf("  beyond\n");
    if (k->count.first[0])
        printf("         %" PRId64 " values are wrong; %s\n", k->count.wrong, k->count.first);
    if (k->failure[0])
        printf("         %d launches failed; %s\n", k->failures, k->failure);
    if (!verify_count_is_close(&k->count))
        printf("         only %" PRId64
               " values are as close as all are but for rare other codes\n",
               k->count.close);
    if (!k->count.first[0] && !k->failure[0] && k->count.values == 0)
        printf("         no value of it was compared\n");
}

static void print_whole(const verify_step *step, const verify_whole *w) {
    printf("  %-6s %s: %d tokens, %d sequences, %d rows",
           verify_whole_is_right(w) ? "right" : "WRONG", step->name, step->interp.T, step->interp.S,
           step->interp.R);
    if (w->ran)
        printf("; logits differ by %.2e of their size (at most %.2e)\n", w->relative, w->limit);
    else
        printf("; %s\n", w->failure[0] ? w->failure : "not run: an earlier failure tells enough");
    if (w->other_bits)
        printf("         %" PRId64 " logits have other bits than the kernels give one by one\n",
               w->other_bits);
    if (w->other_tokens)
        printf("         %d rows have another most probable token\n", w->other_tokens);
}

static void print_report(const verify_report *r, const verify_options *o) {
    for (int i = 0; i < r->n_archs; i++) {
        const verify_arch *a = &r->archs[i];
        char name[16];
        arch_name(a, name);
        printf("%s%s, on an emulated %s\n", i ? "\n" : "", name, a->gpu->title);
        printf("  %-6s %-44s %5s %4s %10s %10s %7s\n", "", "kernel", "runs", "fns", "values",
               "max error", "/ bound");
        for (int k = 0; k < r->model.program->n_kernels; k++)
            print_kernel(r, k, &a->kernels[k]);
        printf("  whole steps\n");
        for (int s = 0; s < r->steps.n; s++)
            print_whole(&r->steps.steps[s], &a->whole[s]);
    }
    if (o->against)
        printf("\n%" PRId64 " weights are those of %s, byte for byte\n", r->model.weights_compared,
               o->against);
    printf("\n%s\n", verify_is_right(r) ? "everything is right" : "NOT right");
}

/* Without the notes on what passes chose: build has them. */
static void print_messages(const ir_diag *diag) {
    for (int i = 0; i < diag->count; i++) {
        const ir_message *m = &diag->messages[i];
        if (m->severity != IR_NOTE)
            fprintf(stderr, "%s: %s%s%s\n", m->severity == IR_WARNING ? "warning" : "error",
                    m->where ? m->where : "", m->where ? ": " : "", m->text);
    }
}

static void show(void *user, const char *text) {
    (void)user;
    fprintf(stderr, "\r%-70s", text);
    fflush(stderr);
}

static int verify(const verify_options *o, bool json, bool quiet) {
    verify_report report;
    ir_diag diag = {0};
    bool done = verify_run(o, &report, &diag);
    if (o->progress)
        fprintf(stderr, "\r%-70s\r", "");
    print_messages(&diag);
    ir_diag_clear(&diag);
    int code = done && verify_is_right(&report) ? EXIT_FINE : EXIT_FAILED;
    if (done && json) {
        if (print_json(&report, o) != EXIT_FINE)
            code = EXIT_FAILED;
    } else if (done && (!quiet || code != EXIT_FINE)) {
        print_report(&report, o);
    }
    verify_report_free(&report);
    return code;
}

/* --- options -------------------------------------------------------------------------------------
 */

static int bad_number(const char *name) {
    return command_usage("verify", "--%s: expected a whole number in its range", name);
}

int cmd_verify(int argc, char **argv) {
    enum {
        OPT_AGAINST = 256,
        OPT_ARCH,
        OPT_TOKENS,
        OPT_SCHEDULES,
        OPT_VARIANTS,
        OPT_SEED,
        OPT_JSON
    };
    static const struct option longs[] = {{"against", required_argument, NULL, OPT_AGAINST},
                                          {"arch", required_argument, NULL, OPT_ARCH},
                                          {"tokens", required_argument, NULL, OPT_TOKENS},
                                          {"schedules", required_argument, NULL, OPT_SCHEDULES},
                                          {"all-variants", no_argument, NULL, OPT_VARIANTS},
                                          {"seed", required_argument, NULL, OPT_SEED},
                                          {"threads", required_argument, NULL, 't'},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    verify_options o = {.tokens = 12, .seeds = 2, .seed = 1, .cancelled = &command_cancelled};
    bool json = false, quiet = false;
    long long number;
    for (int option; (option = getopt_long(argc, argv, "t:qh", longs, NULL)) != -1;) {
        switch (option) {
        case OPT_AGAINST:
            o.against = optarg;
            break;
        case OPT_ARCH:
            o.arch = strncmp(optarg, "cuda:", 5) == 0 ? optarg + 5 : optarg;
            break;
        case OPT_TOKENS:
            if (!command_number(optarg, 2, 4096, &number))
                return bad_number("tokens");
            o.tokens = number;
            break;
        case OPT_SCHEDULES:
            if (!command_number(optarg, 1, 1000, &number))
                return bad_number("schedules");
            o.seeds = (int)number;
            break;
        case OPT_VARIANTS:
            o.all_variants = true;
            break;
        case OPT_SEED:
            if (!command_number(optarg, 0, INT64_MAX, &number))
                return bad_number("seed");
            o.seed = (uint64_t)number;
            break;
        case 't':
            if (!command_number(optarg, 1, 256, &number))
                return bad_number("threads");
            o.threads = (int)number;
            break;
        case OPT_JSON:
            json = true;
            break;
        case 'q':
            quiet = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return command_usage("verify", "%s: unknown option, or its value is missing",
                                 argv[optind - 1]);
        }
    }
    if (optind + 1 != argc)
        return command_usage("verify", "expected one MODEL.so");
    o.path = argv[optind];
    if (!json && !quiet && isatty(STDERR_FILENO))
        o.progress = show;
    ir_arena_on_oom(command_out_of_memory);
    return verify(&o, json, quiet);
}
