/* modelcc build: compile a model into a shared library. */
#include "compiler/build.h"
#include "compiler/command.h"
#include "passes/plan.h"
#include "runtime/sha256.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: modelcc build MODEL -o OUT.so [options]\n\n"
    "MODEL is a GGUF file or a Hugging Face directory (config.json, *.safetensors,\n"
    "tokenizer.json). The result is one shared library with code, weights and tokenizer.\n\n"
    "  -o, --output FILE      the artifact (or the text of --emit, default standard output)\n"
    "  --target LIST          cpu (this machine), cpu:x86-64-v3, cpu:x86-64-v4, cuda:sm_80 …\n"
    "                         cuda:sm_120 (modelcc targets lists them); several with commas: the\n"
    "                         best one is chosen when the artifact is opened\n"
    "  --task TASK            generate (default), or embed: the artifact turns texts into vectors\n"
    "                         (modelcc embed)\n"
    "  --pooling KIND         with --task embed: of its last token (last, the default), or the\n"
    "                         mean over all (mean)\n"
    "  --quantize KIND        f16, bf16, int8, int4, fp8 (e4m3): round weights that are not\n"
    "                         quantized (default: keep the file's encodings)\n"
    "  --activations KIND     int8 (default) or f32 beside weights of integer codes; f16 or bf16:\n"
    "                         int8 there, and this type beside weights of it and fp8 ones (else\n"
    "                         f32); fp8 (e4m3): int8 there, and fp8 beside fp8 weights\n"
    "  --kv-cache-dtype KIND  f16 (default), f32, int8 or fp8 (e4m3): the last two with a scale a\n"
    "                         token and head, in about half the memory of f16\n"
    "  --sampling WHERE       device or host: what chooses tokens on GPUs (default device; a "
    "CPU's\n"
    "                         tokens, which are the same, are chosen by the host)\n"
    "  --fusion WHAT          none, pointwise, full (default), prologues, or a plan file\n"
    "  --max-model-len N      tokens a sequence may have (default: the model's)\n"
    "  --emit KIND            write a text, not an artifact: graph (the model's, for modelcc\n"
    "                         opt), plan, ir (the graph after all passes), kernels, llvm, asm;\n"
    "                         of GPU functions cuda, ptx, sass (to files, where OUT is a\n"
    "                         directory), and tiles, the table of their tiles\n"
    "  --tiles FILE           take GPU kernels' tiles from a file: one of --emit tiles, edited, "
    "or\n"
    "                         of modelcc tune; those it lacks are chosen\n"
    "  --print-after PASS     print the graph after a pass, or after all\n"
    "  --no-tokenizer         leave the tokenizer out; the artifact takes token ids\n"
    "  --depfile FILE         write the inputs as make dependencies\n"
    "  --opt-level N          LLVM's, 0 to 3 (default 2)\n"
    "  --no-cache             compile every GPU function; the cache is in\n"
    "                         $XDG_CACHE_HOME/modelcc or ~/.cache/modelcc\n"
    "  -j, --jobs N           threads (default: the processors there are)\n"
    "  --dry-run              do everything but write the artifact\n"
    "  --json                 the summary as JSON\n"
    "  -v, --verbose          show the choices that passes made\n"
    "  -q, --quiet            no progress, no summary\n\n"
    "examples:\n"
    "  modelcc build SmolLM2-135M-Instruct.gguf -o smollm2.so\n"
    "  modelcc build ./Qwen3-0.6B --quantize int4 --target cpu:x86-64-v3,cpu:x86-64-v4 -o q.so\n"
    "  modelcc build model.gguf --target cpu,cuda:sm_80,cuda:sm_90a -o both.so\n"
    "  modelcc build model.gguf --emit plan -o plan.txt    # edit it, then:\n"
    "  modelcc build model.gguf --fusion plan.txt -o model.so\n";

enum {
    OPT_TARGET = 256,
    OPT_TASK,
    OPT_POOLING,
    OPT_QUANTIZE,
    OPT_ACTIVATIONS,
    OPT_KV,
    OPT_SAMPLING,
    OPT_FUSION,
    OPT_MAX_LEN,
    OPT_EMIT,
    OPT_PRINT_AFTER,
    OPT_NO_TOKENIZER,
    OPT_DEPFILE,
    OPT_LEVEL,
    OPT_DRY_RUN,
    OPT_JSON,
    OPT_NO_CACHE,
    OPT_TILES,
    OPT_HELP
};

static const struct option long_options[] = {
    {"output", required_argument, NULL, 'o'},
    {"target", required_argument, NULL, OPT_TARGET},
    {"task", required_argument, NULL, OPT_TASK},
    {"pooling", required_argument, NULL, OPT_POOLING},
    {"quantize", required_argument, NULL, OPT_QUANTIZE},
    {"quantization", required_argument, NULL, OPT_QUANTIZE},
    {"activations", required_argument, NULL, OPT_ACTIVATIONS},
    {"kv-cache-dtype", required_argument, NULL, OPT_KV},
    {"sampling", required_argument, NULL, OPT_SAMPLING},
    {"fusion", required_argument, NULL, OPT_FUSION},
    {"max-model-len", required_argument, NULL, OPT_MAX_LEN},
    {"emit", required_argument, NULL, OPT_EMIT},
    {"print-after", required_argument, NULL, OPT_PRINT_AFTER},
    {"no-tokenizer", no_argument, NULL, OPT_NO_TOKENIZER},
    {"depfile", required_argument, NULL, OPT_DEPFILE},
    {"opt-level", required_argument, NULL, OPT_LEVEL},
    {"jobs", required_argument, NULL, 'j'},
    {"dry-run", no_argument, NULL, OPT_DRY_RUN},
    {"json", no_argument, NULL, OPT_JSON},
    {"no-cache", no_argument, NULL, OPT_NO_CACHE},
    {"tiles", required_argument, NULL, OPT_TILES},
    {"verbose", no_argument, NULL, 'v'},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* The index of `text` in a list that ends in NULL, or -1. */
static int choice(const char *text, const char *const *list) {
    for (int i = 0; list[i]; i++)
        if (strcmp(text, list[i]) == 0)
            return i;
    return -1;
}

/* Targets in the order of the table, from the least demanding, each once. */
static bool parse_targets(build_options *o, const char *list, char *bad, size_t capacity) {
    int n, n_cuda;
    const cg_cpu_target *all = cg_cpu_targets(&n);
    const cg_cuda_target *all_cuda = cg_cuda_targets(&n_cuda);
    bool wanted[BUILD_MAX_TARGETS] = {false}, wanted_cuda[BUILD_MAX_TARGETS] = {false};
    while (*list) {
        size_t length = strcspn(list, ",");
        snprintf(bad, capacity, "%.*s", (int)length, list);
        const cg_cpu_target *t = cg_cpu_target_find(bad);
        const cg_cuda_target *cuda = cg_cuda_target_find(bad);
        if (t)
            wanted[t - all] = true;
        else if (cuda)
            wanted_cuda[cuda - all_cuda] = true;
        else
            return false;
        list += length + (list[length] == ',');
    }
    for (int i = 0; i < n && i < BUILD_MAX_TARGETS; i++)
        if (wanted[i])
            o->targets[o->n_targets++] = &all[i];
    for (int i = 0; i < n_cuda && i < BUILD_MAX_TARGETS; i++)
        if (wanted_cuda[i])
            o->cuda_targets[o->n_cuda_targets++] = &all_cuda[i];
    return o->n_targets + o->n_cuda_targets > 0;
}

static int set_fusion(build_options *o, const char *value, char **plan_text) {
    if (fusion_strategy_find(value)) {
        o->passes.fusion = value;
        return EXIT_FINE;
    }
    if (access(value, R_OK) != 0)
        return command_usage(
            "build",
            "--fusion %s: neither a strategy (none, pointwise, full, prologues) nor "
            "a file that can be read",
            value);
    unsigned long size;
    *plan_text = command_read_file("build", value, 64ul << 20, &size);
    o->passes.plan_text = *plan_text;
    o->passes.plan_file = value;
    return *plan_text ? EXIT_FINE : EXIT_FAILED;
}

/* Options that are read when all are there; NULL: not given. */
typedef struct later {
    const char *targets, *fusion, *sampling, *task, *pooling;
} later;

/* One option; EXIT_FINE, or the exit code of a wrong one. */
static int set_option(build_options *o, int option, const char *value, later *later) {
    static const char *const emit[] = {"artifact", "graph", "ir",  "plan", "kernels", "llvm",
                                       "asm",      "cuda",  "ptx", "sass", "tiles",   NULL};
    long long number;
    int i;
    switch (option) {
    case 'o':
        o->output = value;
        return EXIT_FINE;
    case OPT_TARGET:
        later->targets = value;
        return EXIT_FINE;
    case OPT_TASK:
        later->task = value;
        return EXIT_FINE;
    case OPT_POOLING:
        later->pooling = value;
        return EXIT_FINE;
    case OPT_QUANTIZE:
        if ((i = choice(value, pass_quantize_names)) < 0)
            return command_usage("build", "--quantize %s: expected f16, bf16, int8, int4 or fp8",
                                 value);
        o->passes.quantize = (pass_quantize)i;
        return EXIT_FINE;
    case OPT_ACTIVATIONS:
        if (!pass_activations_from_name(value, &o->passes))
            return command_usage("build", "--activations %s: expected int8, f32, f16, bf16 or fp8",
                                 value);
        return EXIT_FINE;
    case OPT_KV:
        if (!pass_kv_from_name(value, &o->passes.kv))
            return command_usage("build",
                                 "--kv-cache-dtype %s: expected auto, f16, f32, int8, fp8 or "
                                 "fp8_e4m3",
                                 value);
        return EXIT_FINE;
    case OPT_SAMPLING:
        later->sampling = value;
        if (strcmp(value, "device") != 0 && strcmp(value, "host") != 0)
            return command_usage("build", "--sampling %s: expected device or host", value);
        return EXIT_FINE;
    case OPT_FUSION:
        later->fusion = value;
        return EXIT_FINE;
    case OPT_MAX_LEN:
        if (!command_number(value, 1, 1 << 30, &number))
            return command_usage("build", "--max-model-len %s: expected a number of tokens", value);
        o->max_model_len = number;
        return EXIT_FINE;
    case OPT_EMIT:
        if ((i = choice(value, emit)) <= 0)
            return command_usage(
                "build",
                "--emit %s: expected graph, plan, ir, kernels, llvm, asm, cuda, ptx, sass or tiles",
                value);
        o->emit = (build_emit)i;
        return EXIT_FINE;
    case OPT_PRINT_AFTER:
        if (strcmp(value, "all") != 0 && !pass_find(value))
            return command_usage("build",
                                 "--print-after %s: no such pass; modelcc opt "
                                 "--list-passes lists them",
                                 value);
        o->print_after = value;
        return EXIT_FINE;
    case OPT_NO_TOKENIZER:
        o->no_tokenizer = true;
        return EXIT_FINE;
    case OPT_DEPFILE:
        o->depfile = value;
        return EXIT_FINE;
    case OPT_LEVEL:
        if (!command_number(value, 0, 3, &number))
            return command_usage("build", "--opt-level %s: expected 0 to 3", value);
        o->opt_level = (int)number;
        return EXIT_FINE;
    case 'j':
        if (!command_number(value, 1, 64, &number))
            return command_usage("build", "--jobs %s: expected 1 to 64", value);
        o->jobs = (int)number;
        return EXIT_FINE;
    case OPT_DRY_RUN:
        o->dry_run = true;
        return EXIT_FINE;
    case OPT_TILES:
        o->tiles_file = value;
        return EXIT_FINE;
    case OPT_NO_CACHE:
        o->no_cache = true;
        return EXIT_FINE;
    case OPT_JSON:
        o->json = true;
        return EXIT_FINE;
    case 'v':
        o->notes = true;
        return EXIT_FINE;
    case 'q':
        o->quiet = true;
        return EXIT_FINE;
    default:
        return EXIT_USAGE;
    }
}

static int set_task(build_options *o, const later *later) {
    static const char *const tasks[] = {"generate", "embed", NULL};
    static const char *const poolings[] = {"last", "mean", NULL};
    int task = later->task ? choice(later->task, tasks) : 0;
    int pooling = later->pooling ? choice(later->pooling, poolings) : 0;
    if (task < 0)
        return command_usage("build", "--task %s: expected generate or embed", later->task);
    if (pooling < 0)
        return command_usage("build", "--pooling %s: expected last or mean", later->pooling);
    if (later->pooling && task == 0)
        return command_usage("build", "--pooling is for --task embed");
    if (later->sampling && task == 1)
        return command_usage("build", "--sampling is not for --task embed: it chooses no tokens");
    o->task = task == 0 ? FE_LOGITS : pooling == 0 ? FE_EMBEDDING_LAST : FE_EMBEDDING_MEAN;
    return EXIT_FINE;
}

int build_set_option(build_options *o, const char *name, const char *value) {
    later unused;
    for (const struct option *l = long_options; l->name; l++)
        if (strcmp(l->name, name) == 0)
            return set_option(o, l->val, value, &unused);
    return EXIT_USAGE;
}

/* Notes about choices only when asked for; those that follow an error belong to it. */
static void print_messages(const ir_diag *diag, bool notes) {
    static const char *const names[] = {"note", "warning", "error", "internal error"};
    for (int i = 0; i < diag->count; i++) {
        const ir_message *m = &diag->messages[i];
        notes = notes || m->severity >= IR_ERROR;
        if (m->severity == IR_NOTE && !notes)
            continue;
        fprintf(stderr, "%s: %s%s%s\n", names[m->severity], m->where ? m->where : "",
                m->where ? ": " : "", m->text ? m->text : "out of memory");
    }
}

static bool read_tiles(build_options *o, tile_table *tiles, ir_arena *arena, ir_diag *diag) {
    unsigned long size;
    uint8_t digest[32];
    char *text = command_read_file("build", o->tiles_file, 64ul << 20, &size);
    if (!text)
        return false;
    bool ok = tile_table_parse(text, size, o->tiles_file, arena, diag, tiles);
    rt_sha256_of(text, size, digest);
    rt_sha256_hex(digest, o->tiles_sha256);
    o->tiles = tiles;
    free(text);
    return ok;
}

int cmd_build(int argc, char **argv) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    build_options o = {.opt_level = 2,
                       .jobs = processors < 1    ? 1
                               : processors > 64 ? 64
                                                 : (int)processors};
    later later = {.targets = "cpu"};
    int option, code;
    while ((option = command_option(argc, argv, "o:j:vqh", long_options)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return EXIT_FINE;
        }
        if ((code = set_option(&o, option, optarg, &later)) != EXIT_FINE)
            return code;
    }
    if (optind + 1 != argc)
        return command_usage("build", optind == argc ? "no model given"
                                                     : "one model at a time, found several");
    o.input = argv[optind];
    if (o.emit != BUILD_ARTIFACT && (o.dry_run || o.json || o.depfile))
        return command_usage("build", "--emit writes a text alone: no %s beside it",
                             o.dry_run ? "--dry-run"
                             : o.json  ? "--json"
                                       : "--depfile");
    if (o.json && o.print_after)
        return command_usage("build", "--json and --print-after both write to standard output");
    if (o.output && strcmp(o.output, "-") == 0) {
        if (o.emit == BUILD_ARTIFACT)
            return command_usage("build", "-o -: an artifact must be a file");
        o.output = NULL;
    }
    if (o.output && o.depfile && strcmp(o.output, o.depfile) == 0)
        return command_usage("build", "-o and --depfile are the same file");
    if (!o.output && o.emit == BUILD_ARTIFACT) {
        if (!o.dry_run)
            return command_usage("build", "no output given: -o OUT.so");
        o.output = "(dry run)";
    }
    char bad[64];
    if (!parse_targets(&o, later.targets, bad, sizeof bad))
        return command_usage("build",
                             "--target %s: not a target of this modelcc, or not one that this "
                             "machine can run; modelcc targets lists them",
                             bad);
    if ((code = set_task(&o, &later)) != EXIT_FINE)
        return code;
    if (later.sampling && strcmp(later.sampling, "device") == 0 && !o.n_cuda_targets)
        return command_usage("build", "--sampling device needs a target for GPUs, such as "
                                      "--target cuda:sm_80");
    o.passes.sampling = o.n_cuda_targets && o.task == FE_LOGITS &&
                        (!later.sampling || strcmp(later.sampling, "device") == 0);
    if (o.emit >= BUILD_EMIT_CUDA && !o.n_cuda_targets)
        return command_usage("build",
                             "--emit cuda, ptx, sass and tiles need a target for GPUs, such as "
                             "--target cuda:sm_80");
    if ((o.emit == BUILD_EMIT_LLVM || o.emit == BUILD_EMIT_ASM) && !o.n_targets)
        return command_usage("build", "--emit llvm and asm need a target for CPUs");
    if (o.tiles_file && !o.n_cuda_targets)
        return command_usage("build", "--tiles needs a target for GPUs, such as --target "
                                      "cuda:sm_80");
    char *plan_text = NULL;
    if (later.fusion && (code = set_fusion(&o, later.fusion, &plan_text)) != EXIT_FINE)
        return code;
    ir_diag diag = {0};
    ir_arena_on_oom(command_out_of_memory);
    ir_arena *arena = ir_arena_create();
    tile_table tiles;
    bool ok = arena && (!o.tiles_file || read_tiles(&o, &tiles, arena, &diag)) &&
              build_run(&o, &command_cancelled, &diag);
    print_messages(&diag, o.notes);
    ir_diag_clear(&diag);
    if (arena)
        ir_arena_destroy(arena);
    free(plan_text);
    return ok ? EXIT_FINE : EXIT_FAILED;
}
