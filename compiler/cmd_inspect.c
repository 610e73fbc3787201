/* modelcc inspect: what is in an artifact, without loading any of its code. */
#include "compiler/inspect.h"

#include <getopt.h>
#include <stdlib.h>

static const char help[] =
    "usage: modelcc inspect MODEL.so [options]\n\n"
    "Shows what an artifact carries: the model, the targets, kernels with the ops they cover, the\n"
    "weights by encoding, memory, inputs and options. Never loads its code.\n\n"
    "      --weights              list each weight\n"
    "      --launches             list the kernel calls of a step, in order\n"
    "      --check                read the weights and check their hashes\n"
    "      --json                 all of this as one JSON object\n"
    "  One of these prints a part as it is:\n"
    "      --graph                the model's graph\n"
    "      --plan                 the fusion plan; modelcc build --fusion FILE takes it\n"
    "      --fused                the graph that the kernels were made from\n"
    "      --manifest             inputs, options, versions and hashes, as JSON\n"
    "      --template             the chat template\n\n"
    "examples:\n"
    "  modelcc inspect smollm2.so\n"
    "  modelcc inspect smollm2.so --plan > plan.txt\n"
    "  modelcc inspect smollm2.so --json | jq .kernels\n";

static int print_part(const mcc_artifact *a, int part) {
    mcc_error error = {.struct_size = sizeof error};
    const char *text;
    uint64_t bytes;
    if (mcc_artifact_get_part(a, part, &text, &bytes, &error))
        return output_fail(&error);
    fwrite(text, 1, bytes, stdout);
    if (bytes && text[bytes - 1] != '\n')
        putchar('\n');
    return EXIT_FINE;
}

static int inspect(const char *path, const inspect_options *o, int part) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_artifact_options open = {.struct_size = sizeof open, .flags = MCC_OPEN_INSPECT};
    mcc_artifact *a;
    if (mcc_artifact_open(path, &open, &a, &error))
        return output_fail(&error);
    int code = EXIT_FINE;
    if (o->check && mcc_artifact_check(a, 0, &error))
        code = output_fail(&error);
    else if (part)
        code = print_part(a, part);
    else if (o->json)
        code = output_json(inspect_json(a, o));
    else
        inspect_print(a, path, o);
    mcc_artifact_close(a);
    return code;
}

int cmd_inspect(int argc, char **argv) {
    enum { OPT_WEIGHTS = 256, OPT_LAUNCHES, OPT_CHECK, OPT_JSON, OPT_PART };
    static const struct option longs[] = {
        {"weights", no_argument, NULL, OPT_WEIGHTS},
        {"launches", no_argument, NULL, OPT_LAUNCHES},
        {"check", no_argument, NULL, OPT_CHECK},
        {"json", no_argument, NULL, OPT_JSON},
        {"graph", no_argument, NULL, OPT_PART + MCC_PART_GRAPH},
        {"plan", no_argument, NULL, OPT_PART + MCC_PART_PLAN},
        {"fused", no_argument, NULL, OPT_PART + MCC_PART_FUSED},
        {"manifest", no_argument, NULL, OPT_PART + MCC_PART_MANIFEST},
        {"template", no_argument, NULL, OPT_PART + MCC_PART_CHAT_TEMPLATE},
        {"help", no_argument, NULL, 'h'},
        {0}};
    inspect_options o = {0};
    int part = 0;
    for (int option; (option = command_option(argc, argv, "h", longs)) != -1;) {
        switch (option) {
        case OPT_WEIGHTS:
            o.weights = true;
            break;
        case OPT_LAUNCHES:
            o.launches = true;
            break;
        case OPT_CHECK:
            o.check = true;
            break;
        case OPT_JSON:
            o.json = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            if (option < OPT_PART)
                return EXIT_USAGE;
            if (part)
                return command_usage("inspect", "one part at a time");
            part = option - OPT_PART;
        }
    }
    if (part && (o.json || o.weights || o.launches))
        return command_usage("inspect", "a part is printed as it is: no other output beside it");
    if (optind + 1 != argc)
        return command_usage("inspect", "expected one MODEL.so");
    return inspect(argv[optind], &o, part);
}
