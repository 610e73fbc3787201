/* modelcc bench: how fast an artifact loads, reads a prompt and decodes. */
#include "compiler/bench_overhead.h"
#include "compiler/bench_workload.h"
#include "compiler/output.h"
#include "compiler/progress.h"
#include "compiler/speculative.h"
#include "runtime/modelcc.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char help[] =
    "usage: modelcc bench MODEL.so [options]\n\n"
    "Measures, as medians over several rounds after one that does not count: opening the "
    "artifact,\n"
    "the time from there to the first token of a short prompt, tokens a second of a long prompt, "
    "and\n"
    "of decoding after a short and after a long context. Prompts are random tokens.\n\n"
    "      --prompt-tokens N      tokens of the long prompt (default 512)\n"
    "      --decode-tokens N      tokens decoded (default 64)\n"
    "      --context N            tokens before the second decoding (default 1024; 0: leave it "
    "out)\n"
    "      --repeat N             rounds (default 5)\n"
    "      --workload KIND        instead of all this, many requests: closed (one comes when "
    "another "
    "ends),\n"
    "                             static (all come when all before them have ended), padded (so, "
    "and\n"
    "                             each is computed on until the longest of its batch ends: "
    "latencies and\n"
    "                             throughput count its own tokens only), poisson (at random, at a "
    "rate),\n"
    "                             or a trace, FILE.jsonl: a line for each, {\"arrival_s\", "
    "\"prompt_tokens\",\n"
    "                             \"max_tokens\"}, and if need be \"prefix_id\" and "
    "\"prefix_tokens\" of\n"
    "                             those that begin alike\n"
    "      --dataset-path FILE    for the others, the lengths of such a trace, not half to one and "
    "a half\n"
    "                             of the tokens above\n"
    "      --request-rate X       requests a second, for poisson\n"
    "      --num-prompts N        requests of the workload (default 100, or all of the trace)\n"
    "      --max-num-seqs N       requests computed at the same time (default 64; on a GPU 256)\n"
    "      --plot FILE            throughput and latencies of the workload as an SVG picture\n"
    "      --overhead             instead of all this, what the engine itself costs: microseconds "
    "of a\n"
    "                             decode step without kernels, medians of 1000 steps\n"
    "  -t, --threads N            (default: the processors this process may use)\n"
    "      --device NAME          cpu, cuda, cuda:N (the N-th GPU) or emulator (default: cpu, or "
    "cuda\n"
    "                             when the artifact has no code for the CPU)\n"
    "      --target NAME          use the CPU code for this target\n"
    "      --max-num-batched-tokens N   tokens of the prompt computed at once\n"
    "      --huge-pages           copy the weights to huge pages: slower start, faster steps\n"
    "      --seed N               of the random tokens (default 1)\n"
    "      --json                 figures and samples as one JSON object\n";
static const char examples[] =
    "\nexamples:\n"
    "  modelcc bench smollm2.so\n"
    "  modelcc bench smollm2.so --threads 1 --target cpu:x86-64-v3 --json\n"
    "  modelcc bench smollm2.so --workload poisson --request-rate 4 --prompt-tokens 200\n"
    "  modelcc bench smollm2.so --workload trace.jsonl --plot trace.svg\n";

enum {
    MAX_REPEAT = 1000,
    SHORT_CONTEXT = 16, /* tokens before the first decoding */
    FIRST_PROMPT = 8    /* tokens of the prompt that first_token_ms has */
};

typedef struct bench_options {
    const char *artifact, *target, *device;
    int threads, repeat, batched;
    int64_t prompt, decode, context;
    bool decode_given;
    bool prompt_given, context_given; /* else they are cut to what the model allows */
    bool huge_pages, json;
    uint64_t seed;
    bool repeat_given, overhead;
    const char *kind; /* of the workload; NULL: none */
    bench_workload workload;
    int max_num_seqs; /* of the workload; 0: not given */
    speculative_options speculative;
} bench_options;

typedef struct bench {
    bench_options o;
    mcc_artifact *artifact, *draft;
    mcc_engine *engine;
    mcc_artifact_info info;
    mcc_engine_stats stats;
    int32_t *ids; /* random; enough for the longest prompt */
    double *load, *first, *prefill, *decode, *decode_after; /* seconds, [repeat] each */
} bench;

static void close_model(bench *b) {
    mcc_engine_destroy(b->engine);
    mcc_artifact_close(b->draft);
    mcc_artifact_close(b->artifact);
    b->engine = NULL;
    b->artifact = b->draft = NULL;
}

static mcc_artifact_options artifact_options(const bench *b) {
    return (mcc_artifact_options){.struct_size = sizeof(mcc_artifact_options),
                                  .flags = b->o.huge_pages ? MCC_OPEN_HUGE_PAGES : 0,
                                  .target = b->o.target};
}

static int open_artifact(bench *b) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_artifact_options open = artifact_options(b);
    return mcc_artifact_open(b->o.artifact, &open, &b->artifact, &error) ? output_fail(&error)
                                                                         : EXIT_FINE;
}

static int open_model(bench *b) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine_options engine = {.struct_size = sizeof engine,
                                 .threads = b->o.threads,
                                 .max_num_batched_tokens = b->o.batched,
                                 .max_num_waiting = 1 << 20, /* any workload */
                                 .device = b->o.device};
    int code = open_artifact(b);
    if (code != EXIT_FINE)
        return code;
    engine.max_num_seqs = b->o.max_num_seqs;
    if (b->o.kind && engine.max_num_seqs == 0)
        engine.max_num_seqs = output_default_seqs(b->artifact, b->o.device, b->o.batched);
    mcc_artifact_options draft = artifact_options(b);
    code = speculative_open(&b->o.speculative, &draft, &engine, &b->draft);
    if (code == EXIT_FINE && mcc_engine_create(b->artifact, &engine, &b->engine, &error))
        code = output_fail(&error);
    if (code != EXIT_FINE)
        close_model(b);
    return code;
}

/* Steps until the request has made `tokens` more, or is finished. */
static int step_until(bench *b, uint64_t id, int64_t tokens) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_event event = {.struct_size = sizeof event};
    while (tokens > 0) {
        if (atomic_load(&command_cancelled)) {
            fprintf(stderr, "error: interrupted\n");
            return EXIT_FAILED;
        }
        if (mcc_engine_step(b->engine, NULL, &error))
            return output_fail(&error);
        do {
            if (mcc_engine_poll(b->engine, id, &event, &error))
                return output_fail(&error);
            tokens -= event.kind == MCC_EVENT_TOKEN;
            if (event.kind == MCC_EVENT_FINISHED)
                return EXIT_FINE;
        } while (event.kind != MCC_EVENT_NONE);
    }
    return EXIT_FINE;
}

/* One request; seconds to its first token, and from there to its last. `cached` leaves it what the
 * KV cache holds: what decoding costs is the same. */
static int measure(bench *b, int64_t prompt, int64_t decode, bool cached, double *first,
                   double *rest) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_request_params params = {.struct_size = sizeof params,
                                 .flags =
                                     MCC_REQUEST_IGNORE_EOS | (cached ? 0 : MCC_REQUEST_NO_CACHE),
                                 .prompt_ids = b->ids,
                                 .n_prompt_ids = prompt,
                                 .max_tokens = decode + 1,
                                 .num_speculative_tokens = speculative_count(&b->o.speculative)};
    uint64_t id;
    double start = progress_now();
    if (mcc_request_submit(b->engine, &params, &id, &error))
        return output_fail(&error);
    int code = step_until(b, id, 1);
    double middle = progress_now();
    if (code == EXIT_FINE && decode)
        code = step_until(b, id, decode);
    double end = progress_now();
    if (first)
        *first = middle - start;
    if (rest)
        *rest = end - middle;
    /* Finished requests go when their last event is taken. */
    mcc_event event = {.struct_size = sizeof event};
    while (code == EXIT_FINE && !mcc_engine_poll(b->engine, id, &event, NULL) &&
           event.kind != MCC_EVENT_NONE && event.kind != MCC_EVENT_FINISHED)
        ;
    return code;
}

/* Opens the model anew `repeat` times, and keeps the last. */
static int measure_load(bench *b) {
    int code = EXIT_FINE;
    for (int i = 0; i < b->o.repeat && code == EXIT_FINE; i++) {
        close_model(b);
        double start = progress_now();
        code = open_model(b);
        b->load[i] = progress_now() - start;
        double first = 0;
        if (code == EXIT_FINE)
            code = measure(b, FIRST_PROMPT, 0, false, &first, NULL);
        b->first[i] = b->load[i] + first;
    }
    if (code == EXIT_FINE) /* its strings belong to the artifact */
        mcc_artifact_get_info(b->artifact, &b->info, NULL);
    return code;
}

static int measure_rounds(bench *b, progress *p) {
    int code = EXIT_FINE;
    for (int i = -1; i < b->o.repeat && code == EXIT_FINE; i++) {
        int at = i < 0 ? 0 : i; /* the first round is overwritten */
        code = measure(b, b->o.prompt, 0, false, &b->prefill[at], NULL);
        if (code == EXIT_FINE)
            code = measure(b, SHORT_CONTEXT, b->o.decode, false, NULL, &b->decode[at]);
        if (code == EXIT_FINE && b->o.context)
            code = measure(b, b->o.context, b->o.decode, true, NULL, &b->decode_after[at]);
        progress_update(p, i + 2, b->o.repeat + 1, "rounds");
    }
    mcc_engine_get_stats(b->engine, &b->stats, NULL); /* the last step decoded */
    return code;
}

/* Cuts what was not asked for to the model's length, and makes the random prompt. */
static int prepare(bench *b) {
    int code = open_model(b);
    if (code != EXIT_FINE)
        return code;
    b->info.struct_size = sizeof b->info;
    b->stats.struct_size = sizeof b->stats;
    mcc_artifact_get_info(b->artifact, &b->info, NULL);
    mcc_engine_get_stats(b->engine, &b->stats, NULL);
    bench_options *o = &b->o;
    int64_t longest = b->stats.max_model_len, room = longest - o->decode - 1;
    if (room < SHORT_CONTEXT) {
        fprintf(stderr,
                "error: %s: at most %" PRId64 " tokens, too few for %d of context and %" PRId64
                " decoded: --decode-tokens less\n",
                o->artifact, longest, SHORT_CONTEXT, o->decode);
        return EXIT_FAILED;
    }
    if (!o->prompt_given && o->prompt > longest - 1)
        o->prompt = longest - 1;
    if (!o->context_given && o->context > room)
        o->context = room;
    int64_t most = o->prompt > o->context ? o->prompt : o->context;
    most = most > SHORT_CONTEXT ? most : SHORT_CONTEXT;
    b->ids = malloc((size_t)most * sizeof *b->ids);
    double *samples = calloc((size_t)o->repeat * 5, sizeof *samples);
    if (!b->ids || !samples) {
        free(samples);
        fprintf(stderr, "error: out of memory\n");
        return EXIT_FAILED;
    }
    double **lists[] = {&b->load, &b->first, &b->prefill, &b->decode, &b->decode_after};
    for (int i = 0; i < 5; i++)
        *lists[i] = samples + (size_t)i * (size_t)o->repeat;
    uint64_t state = o->seed;
    for (int64_t i = 0; i < most; i++)
        b->ids[i] = (int32_t)(bench_random(&state) % (uint64_t)b->info.vocab_size);
    return EXIT_FINE;
}

/* --- results -------------------------------------------------------------------------------------
 */

static double peak_rss_mb(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (double)usage.ru_maxrss / 1024;
}

static void add_milliseconds(cJSON *j, const char *name, const char *samples_name,
                             const double *seconds, int n) {
    cJSON_AddNumberToObject(j, name, 1e3 * output_spread_of(seconds, n).median);
    cJSON *samples = cJSON_AddArrayToObject(j, samples_name);
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(samples, cJSON_CreateNumber(1e3 * seconds[i]));
}

static void add_rate(cJSON *j, const char *name, int64_t context, int64_t tokens,
                     const double *seconds, int n) {
    output_spread s = output_spread_of(seconds, n);
    cJSON *e = cJSON_AddObjectToObject(j, name);
    if (context >= 0)
        cJSON_AddNumberToObject(e, "context", (double)context);
    cJSON_AddNumberToObject(e, "tokens", (double)tokens);
    cJSON_AddNumberToObject(e, "tokens_per_second", (double)tokens / s.median);
    cJSON_AddNumberToObject(e, "min_tokens_per_second", (double)tokens / s.most);
    cJSON_AddNumberToObject(e, "max_tokens_per_second", (double)tokens / s.least);
    cJSON_AddItemToObject(e, "seconds", cJSON_CreateDoubleArray(seconds, n));
}

/* What the engine chose when no device was named. */
static const char *runs_on(const bench *b) {
    return b->o.device ? b->o.device : b->info.target ? "cpu" : "cuda";
}

static bool on_cpu(const bench *b) {
    return strcmp(runs_on(b), "cpu") == 0;
}

static int print_json(const bench *b) {
    const bench_options *o = &b->o;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "engine", "modelcc");
    cJSON_AddStringToObject(j, "version", mcc_version());
    cJSON_AddStringToObject(j, "model", b->info.model_name);
    cJSON_AddNumberToObject(j, "threads", b->stats.threads);
    cJSON_AddStringToObject(j, "device", runs_on(b));
    if (on_cpu(b)) {
        cJSON_AddStringToObject(j, "target", b->info.target);
    } else {
        cJSON_AddNumberToObject(j, "device_bytes", (double)b->stats.device_bytes);
        cJSON_AddNumberToObject(j, "launches_per_decode_step", (double)b->stats.last_launches);
        cJSON_AddNumberToObject(j, "driver_calls_per_decode_step",
                                (double)b->stats.last_driver_calls);
        cJSON_AddNumberToObject(j, "results_bytes_per_decode_step",
                                (double)b->stats.last_results_bytes);
    }
    add_milliseconds(j, "load_ms", "load_ms_samples", b->load, o->repeat);
    add_milliseconds(j, "first_token_ms", "first_token_ms_samples", b->first, o->repeat);
    add_rate(j, "prefill", -1, o->prompt, b->prefill, o->repeat);
    add_rate(j, "decode", SHORT_CONTEXT, o->decode, b->decode, o->repeat);
    if (o->context)
        add_rate(j, "decode_after", o->context, o->decode, b->decode_after, o->repeat);
    speculative_report(&b->stats, j);
    cJSON_AddNumberToObject(j, "peak_rss_mb", peak_rss_mb());
    return output_json(j);
}

static void print_milliseconds(const char *name, const double *seconds, int n) {
    output_spread s = output_spread_of(seconds, n);
    printf("  %-28s %10.2f %10.2f %10.2f  ms\n", name, 1e3 * s.median, 1e3 * s.least, 1e3 * s.most);
}

static void print_rate(const char *what, int64_t count, int64_t tokens, const double *seconds,
                       int n) {
    char name[64];
    output_spread s = output_spread_of(seconds, n);
    snprintf(name, sizeof name, what, count);
    printf("  %-28s %10.1f %10.1f %10.1f  tokens/s\n", name, (double)tokens / s.median,
           (double)tokens / s.most, (double)tokens / s.least);
}

static void print_table(const bench *b) {
    const bench_options *o = &b->o;
    output_clean(b->info.model_name, stdout);
    if (on_cpu(b))
        printf(", %s, %" PRId32 " threads, %d rounds\n", b->info.target, b->stats.threads,
               o->repeat);
    else
        printf(", %s, %d rounds\n", runs_on(b), o->repeat);
    printf("  %-28s %10s %10s %10s\n", "", "median", "min", "max");
    print_milliseconds("load", b->load, o->repeat);
    print_milliseconds("load to first token", b->first, o->repeat);
    print_rate("prefill %" PRId64 " tokens", o->prompt, o->prompt, b->prefill, o->repeat);
    print_rate("decode after %" PRId64 " tokens", SHORT_CONTEXT, o->decode, b->decode, o->repeat);
    if (o->context)
        print_rate("decode after %" PRId64 " tokens", o->context, o->decode, b->decode_after,
                   o->repeat);
    speculative_print(&b->stats);
    printf("  %-28s %10.1f %32s\n", "peak resident memory", peak_rss_mb(), "MiB");
    if (!on_cpu(b))
        printf("  memory of the GPU %.1f MiB; a decode step has %" PRIu64 " launches and %" PRIu64
               " driver calls, and copies %" PRIu64 " bytes back\n",
               (double)b->stats.device_bytes / (1 << 20), b->stats.last_launches,
               b->stats.last_driver_calls, b->stats.last_results_bytes);
}

static int run_bench(bench *b) {
    progress p;
    int code = prepare(b);
    progress_init(&p, b->o.json);
    progress_phase(&p, "opening");
    if (code == EXIT_FINE)
        code = measure_load(b);
    progress_phase(&p, "measuring");
    if (code == EXIT_FINE)
        code = measure_rounds(b, &p);
    progress_end(&p);
    if (code == EXIT_FINE && b->o.json)
        code = print_json(b);
    else if (code == EXIT_FINE)
        print_table(b);
    close_model(b);
    free(b->ids);
    free(b->load);
    return code;
}

static int run_workload(bench *b) {
    bench_workload w = b->o.workload;
    w.prompt = b->o.prompt;
    w.decode = b->o.decode;
    w.seed = b->o.seed;
    w.json = b->o.json;
    w.n_drafts = speculative_count(&b->o.speculative);
    int code = open_model(b);
    if (code == EXIT_FINE)
        code = bench_workload_run(&w, b->artifact, b->engine);
    close_model(b);
    return code;
}

static int run_overhead(bench *b) {
    enum { STEPS = 1000 };
    int code = open_artifact(b);
    mcc_engine_options o = {
        .struct_size = sizeof o, .threads = b->o.threads, .device = b->o.device};
    if (code == EXIT_FINE)
        code = bench_overhead_run(b->artifact, &o, STEPS, b->o.json);
    close_model(b);
    return code;
}

/* --- options -------------------------------------------------------------------------------------
 */

enum {
    OPT_PROMPT = 256,
    OPT_DECODE,
    OPT_CONTEXT,
    OPT_REPEAT,
    OPT_TARGET,
    OPT_DEVICE,
    OPT_BATCHED,
    OPT_HUGE,
    OPT_SEED,
    OPT_WORKLOAD,
    OPT_RATE,
    OPT_PROMPTS,
    OPT_SEQS,
    OPT_DATASET,
    OPT_PLOT,
    OPT_OVERHEAD,
    OPT_DRAFTS,
    OPT_DRAFT,
    OPT_SPECULATIVE,
    OPT_JSON
};

static int set_number(const char *name, const char *value, long long min, long long max,
                      int64_t *out) {
    long long n;
    if (!command_number(value, min, max, &n))
        return command_usage("bench", "%s %s: expected %lld to %lld", name, value, min, max);
    *out = n;
    return EXIT_FINE;
}

static int set_option(bench_options *o, int option, const char *value) {
    int64_t n = 0;
    int code = EXIT_FINE;
    switch (option) {
    case OPT_PROMPT:
        o->prompt_given = true;
        return set_number("--prompt-tokens", value, 1, 1 << 24, &o->prompt);
    case OPT_DECODE:
        o->decode_given = true;
        return set_number("--decode-tokens", value, 1, 1 << 24, &o->decode);
    case OPT_CONTEXT:
        o->context_given = true;
        return set_number("--context", value, 0, 1 << 24, &o->context);
    case OPT_WORKLOAD:
        o->kind = value;
        return EXIT_FINE;
    case OPT_DATASET:
        o->workload.trace = value;
        return EXIT_FINE;
    case OPT_PLOT:
        o->workload.plot = value;
        return EXIT_FINE;
    case OPT_RATE:
        return command_real(value, 1e-6, 1e6, &o->workload.rate)
                   ? EXIT_FINE
                   : command_usage("bench", "--request-rate %s: expected a positive number", value);
    case OPT_PROMPTS:
        code = set_number("--num-prompts", value, 1, 1 << 20, &n);
        o->workload.n_requests = (int)n;
        return code;
    case OPT_SEQS:
        code = set_number("--max-num-seqs", value, 1, 4096, &n);
        o->max_num_seqs = (int)n;
        return code;
    case OPT_REPEAT:
        o->repeat_given = true;
        code = set_number("--repeat", value, 1, MAX_REPEAT, &n);
        o->repeat = (int)n;
        return code;
    case 't':
        code = set_number("--threads", value, 1, 1024, &n);
        o->threads = (int)n;
        return code;
    case OPT_BATCHED:
        code = set_number("--max-num-batched-tokens", value, 1, 1 << 16, &n);
        o->batched = (int)n;
        return code;
    case OPT_SEED:
        code = set_number("--seed", value, 0, INT64_MAX, &n);
        o->seed = (uint64_t)n;
        return code;
    case OPT_TARGET:
        o->target = value;
        return EXIT_FINE;
    case OPT_DEVICE:
        o->device = value;
        return EXIT_FINE;
    case OPT_HUGE:
        o->huge_pages = true;
        return EXIT_FINE;
    case OPT_OVERHEAD:
        o->overhead = true;
        return EXIT_FINE;
    case OPT_DRAFTS:
        return speculative_tokens("bench", value, &o->speculative);
    case OPT_DRAFT:
        return speculative_draft("bench", value, &o->speculative);
    case OPT_SPECULATIVE:
        return speculative_config("bench", value, &o->speculative);
    case OPT_JSON:
        o->json = true;
        return EXIT_FINE;
    default:
        return EXIT_USAGE;
    }
}

/* What the workload's options say together. */
static int check_workload(bench_options *o) {
    bench_workload *w = &o->workload;
    if (!o->kind)
        return w->rate > 0 || w->n_requests > 0 || o->max_num_seqs > 0 || w->trace || w->plot
                   ? command_usage("bench", "--request-rate, --num-prompts, --max-num-seqs, "
                                            "--dataset-path and --plot are for a --workload")
                   : EXIT_FINE;
    size_t length = strlen(o->kind);
    int kind = bench_arrivals_named(o->kind);
    if (kind < 0 && length > 6 && strcmp(o->kind + length - 6, ".jsonl") == 0) {
        kind = BENCH_TRACE;
        if (w->trace)
            return command_usage("bench", "--dataset-path is for other workloads than a trace");
        w->trace = o->kind;
    }
    if (kind < 0)
        return command_usage(
            "bench", "--workload %s: expected closed, static, padded, poisson or FILE.jsonl",
            o->kind);
    if ((kind == BENCH_POISSON) != (w->rate > 0))
        return command_usage("bench", "--request-rate is for --workload poisson, and needed there");
    if (o->context_given || o->repeat_given)
        return command_usage("bench", "--context and --repeat have no effect on a --workload");
    if (w->trace && (o->prompt_given || o->decode_given))
        return command_usage("bench", "--prompt-tokens and --decode-tokens have no effect on the "
                                      "lengths of a trace");
    w->arrivals = (bench_arrivals)kind;
    return EXIT_FINE;
}

int cmd_bench(int argc, char **argv) {
    static const struct option longs[] = {
        {"prompt-tokens", required_argument, NULL, OPT_PROMPT},
        {"decode-tokens", required_argument, NULL, OPT_DECODE},
        {"context", required_argument, NULL, OPT_CONTEXT},
        {"repeat", required_argument, NULL, OPT_REPEAT},
        {"threads", required_argument, NULL, 't'},
        {"target", required_argument, NULL, OPT_TARGET},
        {"device", required_argument, NULL, OPT_DEVICE},
        {"max-num-batched-tokens", required_argument, NULL, OPT_BATCHED},
        {"huge-pages", no_argument, NULL, OPT_HUGE},
        {"seed", required_argument, NULL, OPT_SEED},
        {"workload", required_argument, NULL, OPT_WORKLOAD},
        {"request-rate", required_argument, NULL, OPT_RATE},
        {"num-prompts", required_argument, NULL, OPT_PROMPTS},
        {"max-num-seqs", required_argument, NULL, OPT_SEQS},
        {"dataset-path", required_argument, NULL, OPT_DATASET},
        {"plot", required_argument, NULL, OPT_PLOT},
        {"overhead", no_argument, NULL, OPT_OVERHEAD},
        {"num-speculative-tokens", required_argument, NULL, OPT_DRAFTS},
        {"draft", required_argument, NULL, OPT_DRAFT},
        {"speculative-config", required_argument, NULL, OPT_SPECULATIVE},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, 'h'},
        {0}};
    bench b = {.o = {.prompt = 512, .decode = 64, .context = 1024, .repeat = 5, .seed = 1}};
    speculative_defaults(&b.o.speculative);
    for (int option, code; (option = command_option(argc, argv, "t:h", longs)) != -1;) {
        if (option == 'h') {
            printf("%s%s%s", help, speculative_help, examples);
            return EXIT_FINE;
        }
        if ((code = set_option(&b.o, option, optarg)) != EXIT_FINE)
            return code;
    }
    if (optind + 1 != argc)
        return command_usage("bench", "expected one MODEL.so");
    b.o.artifact = argv[optind];
    int code = check_workload(&b.o);
    if (code != EXIT_FINE)
        return code;
    bool drafts = speculative_count(&b.o.speculative) > 0;
    if (b.o.overhead &&
        (drafts || b.o.kind || b.o.prompt_given || b.o.context_given || b.o.repeat_given))
        return command_usage("bench",
                             "--overhead is a measurement of its own, of prompts and steps "
                             "that it chooses");
    if (b.o.overhead)
        return run_overhead(&b);
    return b.o.kind ? run_workload(&b) : run_bench(&b);
}
