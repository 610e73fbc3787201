/* modelcc tune: the fastest tiles of GPU kernels, by trying them; and merging what was found. */
#include "compiler/command.h"
#include "compiler/output.h"
#include "compiler/tune.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char help[] =
    "usage: modelcc tune MODEL -o TILES.json [options]\n"
    "       modelcc tune --merge FILE… -o TILES.json\n\n"
    "Builds a model with one tile after another in its GPU kernels, times their launches, and "
    "writes\n"
    "a table of the fastest, which modelcc build takes with --tiles. Results have the same bits "
    "with\n"
    "any tiles. Merging keeps, of entries for the same kernel, what was measured before what was\n"
    "predicted, then the later one, then the faster one.\n\n"
    "  -o, --output FILE      the table\n"
    "      --merge            the arguments are tables, to be made one\n"
    "      --device NAME      cuda (default) or cuda:N: measured on that GPU; emulator: predicted\n"
    "                         from counts and a data sheet, and labelled so\n"
    "      --gpu NAME         the GPU to predict for (default a100)\n"
    "      --rows LIST        numbers of rows, ascending: up to 64 decoding sequences, beyond that "
    "a\n"
    "                         prompt (default 1,2,4,8,16,32,64,128,512; 1,8,32 on the emulator)\n"
    "      --context N        tokens that decoding sequences hold (default 128)\n"
    "      --repeat N         steps to measure (default 10)\n"
    "      --most N           tiles to try of each kernel (default: all)\n"
    "      --quantize, --activations, --kv-cache-dtype, --max-model-len: as of modelcc build\n"
    "  -q, --quiet            no progress\n\n"
    "examples:\n"
    "  modelcc tune model.gguf -o h100.json\n"
    "  modelcc tune --merge h100.json l4.json -o tiles.json\n"
    "  modelcc build model.gguf --target cuda:sm_89,cuda:sm_90a --tiles tiles.json -o model.so\n";

static bool write_table(const tile_table *table, const char *path, ir_diag *diag) {
    char *text = tile_table_print(table);
    if (!text)
        return ir_error(diag, NULL, "out of memory for the table");
    FILE *f = fopen(path, "w");
    bool ok = f && fputs(text, f) >= 0;
    ok = f && fclose(f) == 0 && ok;
    free(text);
    return ok || ir_error(diag, path, "cannot write it: %s", strerror(errno));
}

static bool merge(char **paths, int n, const char *output, ir_arena *arena, ir_diag *diag) {
    tile_table merged = {0};
    for (int i = 0; i < n; i++) {
        unsigned long size;
        tile_table table;
        char *text = command_read_file("tune", paths[i], 64ul << 20, &size);
        bool ok = text && tile_table_parse(text, size, paths[i], arena, diag, &table);
        free(text);
        if (!ok)
            return false;
        for (int k = 0; k < table.n; k++)
            tile_table_add(&merged, &table.entries[k], arena);
    }
    return write_table(&merged, output, diag);
}

static bool parse_rows(tune_options *o, const char *text) {
    for (o->n_rows = 0; *text && o->n_rows < TUNE_MOST_ROWS;) {
        char number[16];
        long long value;
        size_t length = strcspn(text, ",");
        snprintf(number, sizeof number, "%.*s", (int)length, text);
        if (!command_number(number, 1, 1 << 16, &value) ||
            (o->n_rows && value <= o->rows[o->n_rows - 1]))
            return false;
        o->rows[o->n_rows++] = (int32_t)value;
        text += length + (text[length] == ',');
    }
    return o->n_rows > 0 && !*text;
}

static void show(void *user, int done, int rounds) {
    (void)user;
    fprintf(stderr, "tune: tile %d of %d of each kernel\n", done + 1, rounds);
}

static void print_messages(const ir_diag *diag) {
    for (int i = 0; i < diag->count; i++) {
        const ir_message *m = &diag->messages[i];
        if (m->severity >= IR_ERROR)
            fprintf(stderr, "error: %s%s%s\n", m->where ? m->where : "", m->where ? ": " : "",
                    m->text ? m->text : "out of memory");
    }
}

/* The command's options; *merging: --merge. An exit code, or -1 to go on. */
static int parse(int argc, char **argv, tune_options *o, build_options *build, const char **output,
                 bool *merging) {
    enum {
        OPT_MERGE = 256,
        OPT_DEVICE,
        OPT_GPU,
        OPT_ROWS,
        OPT_CONTEXT,
        OPT_REPEAT,
        OPT_MOST,
        OPT_QUANTIZE,
        OPT_ACTIVATIONS,
        OPT_KV,
        OPT_MAX_LEN
    };
    static const struct option longs[] = {{"output", required_argument, NULL, 'o'},
                                          {"merge", no_argument, NULL, OPT_MERGE},
                                          {"device", required_argument, NULL, OPT_DEVICE},
                                          {"gpu", required_argument, NULL, OPT_GPU},
                                          {"rows", required_argument, NULL, OPT_ROWS},
                                          {"context", required_argument, NULL, OPT_CONTEXT},
                                          {"repeat", required_argument, NULL, OPT_REPEAT},
                                          {"most", required_argument, NULL, OPT_MOST},
                                          {"quantize", required_argument, NULL, OPT_QUANTIZE},
                                          {"activations", required_argument, NULL, OPT_ACTIVATIONS},
                                          {"kv-cache-dtype", required_argument, NULL, OPT_KV},
                                          {"max-model-len", required_argument, NULL, OPT_MAX_LEN},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    long long number = 0;
    const char *rows = NULL;
    for (int option, code; (option = command_option(argc, argv, "o:qh", longs)) != -1;) {
        const char *name = "";
        for (const struct option *l = longs; l->name; l++)
            name = l->val == option ? l->name : name;
        switch (option) {
        case 'o':
            *output = optarg;
            break;
        case OPT_MERGE:
            *merging = true;
            break;
        case OPT_DEVICE:
            o->device = optarg;
            break;
        case OPT_GPU:
            o->gpu = optarg;
            break;
        case OPT_ROWS:
            rows = optarg;
            break;
        case OPT_CONTEXT:
        case OPT_REPEAT:
        case OPT_MOST:
            if (!command_number(optarg, 1, 1 << 16, &number))
                return command_usage("tune", "--%s %s: expected 1 to %d", name, optarg, 1 << 16);
            *(option == OPT_CONTEXT  ? &o->context
              : option == OPT_REPEAT ? &o->repeat
                                     : &o->most) = (int)number;
            break;
        case OPT_QUANTIZE:
        case OPT_ACTIVATIONS:
        case OPT_KV:
        case OPT_MAX_LEN:
            if ((code = build_set_option(build, name, optarg)) != EXIT_FINE)
                return code;
            break;
        case 'q':
            o->progress = NULL;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return EXIT_USAGE;
        }
    }
    bool emulator = strcmp(o->device, "emulator") == 0;
    if (!rows)
        rows = emulator ? "1,8,32" : "1,2,4,8,16,32,64,128,512";
    if (!parse_rows(o, rows))
        return command_usage("tune", "--rows %s: expected at most %d numbers that ascend", rows,
                             TUNE_MOST_ROWS);
    if (!emulator && strncmp(o->device, "cuda", 4) != 0)
        return command_usage("tune", "--device %s: expected cuda, cuda:N or emulator", o->device);
    if (o->gpu && !emulator)
        return command_usage("tune", "--gpu names the GPU to predict for: use it with --device "
                                     "emulator");
    return -1;
}

int cmd_tune(int argc, char **argv) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    build_options build = {.opt_level = 2,
                           .jobs = processors < 1    ? 1
                                   : processors > 64 ? 64
                                                     : (int)processors};
    tune_options o = {.build = &build,
                      .device = "cuda",
                      .context = 128,
                      .repeat = 10,
                      .progress = show,
                      .cancelled = &command_cancelled};
    const char *output = NULL;
    bool merging = false;
    char date[16];
    time_t now = time(NULL);
    struct tm day;
    int code = parse(argc, argv, &o, &build, &output, &merging);
    if (code >= 0)
        return code;
    if (!output)
        return command_usage("tune", "no output given: -o TILES.json");
    if (merging ? optind >= argc : optind + 1 != argc)
        return command_usage("tune", merging ? "no tables given" : "expected one MODEL");
    strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&now, &day));
    o.date = date;
    build.input = argv[optind];
    ir_arena_on_oom(command_out_of_memory);
    ir_arena *arena = ir_arena_create();
    if (!arena)
        return output_fail_memory();
    ir_diag diag = {0};
    tile_table table;
    bool ok = merging ? merge(argv + optind, argc - optind, output, arena, &diag)
                      : tune_run(&o, arena, &diag, &table) && write_table(&table, output, &diag);
    print_messages(&diag);
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
    return ok ? EXIT_FINE : EXIT_FAILED;
}
