/* modelcc eval: perplexity of a text, and the distance to another artifact. */
#include "compiler/evaluate.h"
#include "compiler/output.h"
#include "compiler/progress.h"
#include "runtime/modelcc.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: modelcc eval MODEL.so --text FILE [options]\n\n"
    "Prints how well the model predicts a text: the mean negative log-likelihood of its tokens "
    "(in\n"
    "nats) and the perplexity. The text is cut into windows; in each, every token is predicted "
    "from\n"
    "those before it in the window. Models that want a token such as <s> first get it in each.\n\n"
    "      --text FILE            the text\n"
    "      --ids FILE             token ids instead: a JSON array of them, or an array of arrays,\n"
    "                             which are then the windows, taken as they are\n"
    "      --window N             tokens of a window, <s> included (default 512)\n"
    "      --stride N             a window begins so many tokens after the last one; tokens are\n"
    "                             scored once (default: windows do not overlap)\n"
    "      --no-bos               no <s> in front\n"
    "      --reference OTHER.so   also the mean KL divergence from OTHER.so's prediction to this\n"
    "                             one's, and how often both find the same token most probable\n"
    "  -t, --threads N            (default: the processors this process may use)\n"
    "      --device NAME          cpu, cuda, cuda:N (the N-th GPU) or emulator (default: cpu, or "
    "cuda\n"
    "                             when the artifact has no code for the CPU)\n"
    "      --reference-device NAME   the same for --reference (default: as --device)\n"
    "      --target NAME          use the CPU code for this target\n"
    "      --max-num-batched-tokens N   tokens computed at once; the result is the same\n"
    "      --json                 one JSON object, with the figure of each window\n\n"
    "examples:\n"
    "  modelcc eval smollm2.so --text book.txt\n"
    "  modelcc eval int4.so --text book.txt --reference f32.so --json\n";

typedef struct eval_options {
    const char *artifact, *reference, *target, *text, *ids;
    const char *device, *reference_device;
    int threads, batched;
    int64_t window, stride; /* stride 0: as long as what a window holds of the text */
    bool no_bos, json;
} eval_options;

/* A model that runs: the one that is measured, or the reference. */
typedef struct side {
    mcc_artifact *artifact;
    mcc_engine *engine;
} side;

typedef struct eval {
    eval_options o;
    side model, reference;
    mcc_pool *pool;
    mcc_artifact_info info;
    int threads, chunk;
    int32_t *ids; /* of the text, or of all windows in a row */
    int64_t n_ids;
    int64_t *ends;     /* of the windows in ids, when they were given; else NULL */
    int32_t prefix[8]; /* what the model wants in front of a text */
    int64_t n_prefix;
    int32_t *tokens, *positions, *sequences, *rows; /* of the window at work */
    evaluate_row *scores;
    double *window_nll;
    int64_t n_windows, longest;
    evaluate_sums sums;
    double seconds;
} eval;

/* --- the models ----------------------------------------------------------------------------------
 */

static int open_artifact(const eval *e, const char *path, mcc_artifact **artifact) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_artifact_options options = {.struct_size = sizeof options, .target = e->o.target};
    return mcc_artifact_open(path, &options, artifact, &error) ? output_fail(&error) : EXIT_FINE;
}

static int create_engine(eval *e, side *s, const char *device) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine_options options = {.struct_size = sizeof options,
                                  .max_num_batched_tokens = e->chunk,
                                  .max_model_len = e->longest,
                                  .pool = e->pool,
                                  .device = device};
    return mcc_engine_create(s->artifact, &options, &s->engine, &error) ? output_fail(&error)
                                                                        : EXIT_FINE;
}

static bool predicts(const char *path, const mcc_artifact_info *info) {
    if (info->embedding_size == 0)
        return true;
    fprintf(stderr, "error: %s: it computes embeddings, and predicts no tokens\n", path);
    return false;
}

/* Opens both artifacts; engines come when the longest window is known. */
static int open_artifacts(eval *e) {
    int code = open_artifact(e, e->o.artifact, &e->model.artifact);
    if (code != EXIT_FINE)
        return code;
    e->info.struct_size = sizeof e->info;
    mcc_artifact_get_info(e->model.artifact, &e->info, NULL);
    if (!predicts(e->o.artifact, &e->info))
        return EXIT_FAILED;
    if (!e->o.reference)
        return EXIT_FINE;
    code = open_artifact(e, e->o.reference, &e->reference.artifact);
    if (code != EXIT_FINE)
        return code;
    mcc_artifact_info other = {.struct_size = sizeof other};
    mcc_artifact_get_info(e->reference.artifact, &other, NULL);
    if (!predicts(e->o.reference, &other))
        return EXIT_FAILED;
    if (other.vocab_size == e->info.vocab_size)
        return EXIT_FINE;
    fprintf(stderr,
            "error: %s has a vocabulary of %" PRId64 ", %s one of %" PRId64
            ": their predictions cannot be compared\n",
            e->o.artifact, e->info.vocab_size, e->o.reference, other.vocab_size);
    return EXIT_FAILED;
}

static int create_engines(eval *e) {
    enum { LOGIT_BYTES = 64 << 20, DEFAULT_CHUNK = 128, LEAST_CHUNK = 8 };
    mcc_error error = {.struct_size = sizeof error};
    if (mcc_pool_create(e->o.threads, &e->pool, &error))
        return output_fail(&error);
    /* Every token of a chunk has a row of logits: with large vocabularies, smaller chunks. */
    int64_t rows = LOGIT_BYTES / (4 * e->info.vocab_size);
    e->chunk = rows > DEFAULT_CHUNK ? DEFAULT_CHUNK : rows < LEAST_CHUNK ? LEAST_CHUNK : (int)rows;
    if (e->o.batched)
        e->chunk = e->o.batched;
    int code = create_engine(e, &e->model, e->o.device);
    if (code == EXIT_FINE && e->o.reference)
        code = create_engine(e, &e->reference,
                             e->o.reference_device ? e->o.reference_device : e->o.device);
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    if (code == EXIT_FINE)
        mcc_engine_get_stats(e->model.engine, &stats, NULL);
    e->threads = stats.threads;
    return code;
}

/* --- the tokens ----------------------------------------------------------------------------------
 */

/* What the tokenizer puts in front of a text: where a short one begins when it does. */
static int find_prefix(eval *e) {
    mcc_error error = {.struct_size = sizeof error};
    if (e->o.no_bos || !e->info.has_tokenizer)
        return EXIT_FINE;
    int64_t n_plain, n_special, at = 0;
    int32_t *plain = output_tokenize(e->model.artifact, "a", 1, 0, &n_plain, &error),
            *special = NULL;
    if (plain)
        special =
            output_tokenize(e->model.artifact, "a", 1, MCC_TEXT_ADD_SPECIAL, &n_special, &error);
    if (special)
        while (at + n_plain <= n_special &&
               memcmp(special + at, plain, (size_t)n_plain * sizeof *plain) != 0)
            at++;
    if (special && at + n_plain <= n_special && at <= (int64_t)(sizeof e->prefix / sizeof *plain)) {
        memcpy(e->prefix, special, (size_t)at * sizeof *special);
        e->n_prefix = at;
    }
    free(plain);
    free(special);
    return special ? EXIT_FINE : output_fail(&error);
}

static int read_text(eval *e) {
    unsigned long size;
    char *text = command_read_file("eval", e->o.text, 1ul << 30, &size);
    if (!text)
        return EXIT_FAILED;
    mcc_error error = {.struct_size = sizeof error};
    e->ids = output_tokenize(e->model.artifact, text, size, 0, &e->n_ids, &error);
    free(text);
    return e->ids ? EXIT_FINE : output_fail(&error);
}

/* An array of arrays: the windows. */
static bool take_windows(eval *e, const cJSON *lists) {
    const cJSON *list;
    int64_t total = 0, windows = 0;
    cJSON_ArrayForEach(list, lists) total += cJSON_GetArraySize(list);
    e->ids = malloc(((size_t)total + 1) * sizeof *e->ids);
    e->ends = calloc((size_t)cJSON_GetArraySize(lists) + 1, sizeof *e->ends);
    if (!e->ids || !e->ends)
        return false;
    cJSON_ArrayForEach(list, lists) {
        int64_t n;
        int32_t *ids = cJSON_IsArray(list) ? output_take_ids(list, &n) : NULL;
        if (!ids)
            return false;
        memcpy(e->ids + e->n_ids, ids, (size_t)n * sizeof *ids);
        free(ids);
        e->ends[windows++] = e->n_ids += n;
    }
    return true;
}

static int read_ids(eval *e) {
    unsigned long size;
    char *text = command_read_file("eval", e->o.ids, 1ul << 30, &size);
    if (!text)
        return EXIT_FAILED;
    cJSON *json = cJSON_ParseWithLength(text, size);
    free(text);
    bool ok = false;
    if (cJSON_IsArray(json) && cJSON_IsArray(cJSON_GetArrayItem(json, 0)))
        ok = take_windows(e, json);
    else if (cJSON_IsArray(json))
        ok = (e->ids = output_take_ids(json, &e->n_ids)) != NULL;
    cJSON_Delete(json);
    if (!ok) {
        fprintf(stderr,
                "error: %s: expected a JSON array of token ids, or an array of such arrays\n",
                e->o.ids);
        return EXIT_FAILED;
    }
    for (int64_t i = 0; i < e->n_ids; i++)
        if (e->ids[i] >= e->info.vocab_size) {
            fprintf(stderr,
                    "error: %s: token %" PRId64 " is %" PRId32 ", but the vocabulary has %" PRId64
                    "\n",
                    e->o.ids, i, e->ids[i], e->info.vocab_size);
            return EXIT_FAILED;
        }
    return EXIT_FINE;
}

/* --- windows -------------------------------------------------------------------------------------
 */

/* Window `at` in e->tokens: *n tokens, those from *score on scored. False behind the last. */
static bool load_window(eval *e, int64_t at, int64_t *n, int64_t *score) {
    evaluate_window w;
    int64_t prefix = e->ends ? 0 : e->n_prefix;
    if (e->ends) {
        if (at >= e->n_windows)
            return false;
        int64_t begin = at ? e->ends[at - 1] : 0;
        w = (evaluate_window){begin, e->ends[at], begin + 1};
    } else if (!evaluate_window_at(e->n_ids, prefix, e->o.window, e->o.stride, at, &w)) {
        return false;
    }
    memcpy(e->tokens, e->prefix, (size_t)prefix * sizeof *e->tokens);
    memcpy(e->tokens + prefix, e->ids + w.text_begin,
           (size_t)(w.text_end - w.text_begin) * sizeof *e->tokens);
    *n = prefix + w.text_end - w.text_begin;
    *score = prefix + w.score_begin - w.text_begin;
    return true;
}

/* Counts the windows and makes room for the longest. */
static int plan_windows(eval *e) {
    if (!e->o.stride)
        e->o.stride = e->o.window - e->n_prefix;
    if (e->ends) {
        for (int64_t begin = 0; begin < e->n_ids; begin = e->ends[e->n_windows++])
            if (e->ends[e->n_windows] - begin > e->longest)
                e->longest = e->ends[e->n_windows] - begin;
    } else if (e->o.window < e->n_prefix + 2 || e->o.stride > e->o.window - e->n_prefix) {
        return command_usage("eval",
                             "a window of %" PRId64 " tokens and a stride of %" PRId64
                             ": expected a window of at least %" PRId64
                             ", and a stride of at most what a window holds of the text",
                             e->o.window, e->o.stride, e->n_prefix + 2);
    } else {
        evaluate_window w;
        while (
            evaluate_window_at(e->n_ids, e->n_prefix, e->o.window, e->o.stride, e->n_windows, &w))
            e->n_windows++;
        e->longest = e->n_ids + e->n_prefix < e->o.window ? e->n_ids + e->n_prefix : e->o.window;
    }
    if (!e->n_windows || e->longest < 2) {
        fprintf(stderr, "error: %s: %" PRId64 " tokens, too few to predict one\n",
                e->o.text ? e->o.text : e->o.ids, e->n_ids);
        return EXIT_FAILED;
    }
    if (e->longest > e->info.max_model_len) {
        fprintf(stderr,
                "error: a window of %" PRId64 " tokens, but the model takes %" PRId64
                ": give a smaller --window\n",
                e->longest, e->info.max_model_len);
        return EXIT_FAILED;
    }
    size_t room = (size_t)e->longest;
    e->tokens = malloc(room * sizeof *e->tokens);
    e->positions = malloc(room * sizeof *e->positions);
    e->sequences = calloc(room, sizeof *e->sequences);
    e->rows = malloc(room * sizeof *e->rows);
    e->scores = malloc(room * sizeof *e->scores);
    e->window_nll = malloc((size_t)e->n_windows * sizeof *e->window_nll);
    if (!e->tokens || !e->positions || !e->sequences || !e->rows || !e->scores || !e->window_nll)
        return output_fail_memory();
    for (size_t i = 0; i < room; i++)
        e->positions[i] = (int32_t)i;
    return EXIT_FINE;
}

/* Runs tokens begin … end-1 of the window, with logits of those from first_row on. */
static int run_chunk(eval *e, side *s, int64_t begin, int64_t end, int64_t first_row,
                     const float **logits) {
    mcc_error error = {.struct_size = sizeof error};
    int32_t n_rows = 0;
    for (int64_t i = first_row > begin ? first_row : begin; i < end; i++)
        e->rows[n_rows++] = (int32_t)(i - begin);
    mcc_eval_step step = {.struct_size = sizeof step,
                          .n_tokens = (int32_t)(end - begin),
                          .n_rows = n_rows,
                          .token_ids = e->tokens + begin,
                          .positions = e->positions + begin,
                          .sequences = e->sequences,
                          .output_rows = e->rows};
    if (mcc_engine_eval(s->engine, &step, &error))
        return output_fail(&error);
    *logits = step.logits;
    return EXIT_FINE;
}

/* Scores tokens `score` … n-1 of the window in e->tokens. The last token predicts nothing. */
static int run_window(eval *e, int64_t n, int64_t score, double *nll) {
    evaluate_sums before = e->sums;
    for (int64_t begin = 0; begin < n - 1; begin += e->chunk) {
        int64_t end = begin + e->chunk < n - 1 ? begin + e->chunk : n - 1;
        int64_t first = score - 1 > begin ? score - 1 : begin;
        const float *logits = NULL, *reference = NULL;
        if (atomic_load(&command_cancelled)) {
            fprintf(stderr, "error: interrupted\n");
            return EXIT_FAILED;
        }
        int code = run_chunk(e, &e->model, begin, end, first, &logits);
        if (code == EXIT_FINE && e->o.reference)
            code = run_chunk(e, &e->reference, begin, end, first, &reference);
        if (code != EXIT_FINE)
            return code;
        if (first >= end)
            continue;
        int rows = (int)(end - first);
        evaluate_rows(logits, reference, e->tokens + first + 1, rows, e->info.vocab_size,
                      e->threads, e->scores);
        evaluate_add(&e->sums, e->scores, rows);
    }
    int64_t tokens = e->sums.tokens - before.tokens;
    *nll = tokens ? (e->sums.nll - before.nll) / (double)tokens : 0;
    return EXIT_FINE;
}

static int run_windows(eval *e) {
    progress p;
    progress_init(&p, false);
    progress_phase(&p, "evaluating");
    double start = progress_now();
    int code = EXIT_FINE;
    int64_t n, score;
    for (int64_t at = 0; code == EXIT_FINE && load_window(e, at, &n, &score); at++) {
        code = run_window(e, n, score, &e->window_nll[at]);
        progress_update(&p, (double)at + 1, (double)e->n_windows, "windows");
    }
    e->seconds = progress_now() - start;
    progress_end(&p);
    if (code == EXIT_FINE && !e->sums.tokens) {
        fprintf(stderr, "error: no window has a token to predict\n");
        code = EXIT_FAILED;
    }
    return code;
}

/* --- results -------------------------------------------------------------------------------------
 */

static int print_json(const eval *e) {
    const evaluate_sums *s = &e->sums;
    double tokens = (double)s->tokens;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "perplexity", exp(s->nll / tokens));
    cJSON_AddNumberToObject(j, "nll", s->nll / tokens);
    cJSON_AddNumberToObject(j, "tokens", tokens);
    if (e->o.reference) {
        cJSON_AddNumberToObject(j, "reference_perplexity", exp(s->reference_nll / tokens));
        cJSON_AddNumberToObject(j, "reference_nll", s->reference_nll / tokens);
        cJSON_AddNumberToObject(j, "mean_kl", s->kl / tokens);
        cJSON_AddNumberToObject(j, "max_kl", s->kl_most);
        cJSON_AddNumberToObject(j, "top1_agreement", (double)s->same_top / tokens);
    }
    if (!e->ends) {
        cJSON_AddNumberToObject(j, "window", (double)e->o.window);
        cJSON_AddNumberToObject(j, "stride", (double)e->o.stride);
        cJSON_AddItemToObject(j, "prefix", cJSON_CreateIntArray(e->prefix, (int)e->n_prefix));
    }
    cJSON_AddNumberToObject(j, "text_tokens", (double)e->n_ids);
    cJSON_AddNumberToObject(j, "threads", e->threads);
    if (e->o.device)
        cJSON_AddStringToObject(j, "device", e->o.device);
    if (e->info.target)
        cJSON_AddStringToObject(j, "target", e->info.target);
    cJSON_AddNumberToObject(j, "seconds", e->seconds);
    cJSON_AddItemToObject(j, "window_nll",
                          cJSON_CreateDoubleArray(e->window_nll, (int)e->n_windows));
    return output_json(j);
}

static void print_table(const eval *e) {
    const evaluate_sums *s = &e->sums;
    double tokens = (double)s->tokens;
    printf("perplexity  %.4f\n", exp(s->nll / tokens));
    printf("nll         %.5f nats a token\n", s->nll / tokens);
    printf("tokens      %" PRId64 " in %" PRId64 " windows of at most %" PRId64 "\n", s->tokens,
           e->n_windows, e->longest);
    if (e->o.reference) {
        printf("reference   perplexity %.4f, nll %.5f\n", exp(s->reference_nll / tokens),
               s->reference_nll / tokens);
        printf("mean KL     %.6f nats a token, at most %.4f\n", s->kl / tokens, s->kl_most);
        printf("same top    %.2f %% of the tokens\n", 100 * (double)s->same_top / tokens);
    }
    printf("seconds     %.2f, %.0f tokens/s\n", e->seconds, tokens / e->seconds);
}

static int run_eval(eval *e) {
    int code = open_artifacts(e);
    if (code == EXIT_FINE)
        code = e->o.text ? read_text(e) : read_ids(e);
    if (code == EXIT_FINE && !e->ends)
        code = find_prefix(e);
    if (code == EXIT_FINE)
        code = plan_windows(e);
    if (code == EXIT_FINE)
        code = create_engines(e);
    if (code == EXIT_FINE)
        code = run_windows(e);
    if (code == EXIT_FINE && e->o.json)
        code = print_json(e);
    else if (code == EXIT_FINE)
        print_table(e);
    mcc_engine_destroy(e->model.engine);
    mcc_engine_destroy(e->reference.engine);
    mcc_pool_destroy(e->pool);
    mcc_artifact_close(e->model.artifact);
    mcc_artifact_close(e->reference.artifact);
    void *const owned[] = {e->ids,       e->ends, e->tokens, e->positions,
                           e->sequences, e->rows, e->scores, e->window_nll};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    return code;
}

/* --- options -------------------------------------------------------------------------------------
 */

int cmd_eval(int argc, char **argv) {
    enum {
        OPT_TEXT = 256,
        OPT_IDS,
        OPT_WINDOW,
        OPT_STRIDE,
        OPT_NO_BOS,
        OPT_REFERENCE,
        OPT_TARGET,
        OPT_DEVICE,
        OPT_REFERENCE_DEVICE,
        OPT_BATCHED,
        OPT_JSON
    };
    static const struct option longs[] = {
        {"text", required_argument, NULL, OPT_TEXT},
        {"ids", required_argument, NULL, OPT_IDS},
        {"window", required_argument, NULL, OPT_WINDOW},
        {"stride", required_argument, NULL, OPT_STRIDE},
        {"no-bos", no_argument, NULL, OPT_NO_BOS},
        {"reference", required_argument, NULL, OPT_REFERENCE},
        {"threads", required_argument, NULL, 't'},
        {"target", required_argument, NULL, OPT_TARGET},
        {"device", required_argument, NULL, OPT_DEVICE},
        {"reference-device", required_argument, NULL, OPT_REFERENCE_DEVICE},
        {"max-num-batched-tokens", required_argument, NULL, OPT_BATCHED},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, 'h'},
        {0}};
    eval e = {.o = {.window = 512}};
    long long n;
    for (int option; (option = command_option(argc, argv, "t:h", longs)) != -1;) {
        switch (option) {
        case OPT_TEXT:
            e.o.text = optarg;
            break;
        case OPT_IDS:
            e.o.ids = optarg;
            break;
        case OPT_WINDOW:
            if (!command_number(optarg, 2, 1 << 24, &n))
                return command_usage("eval", "--window %s: expected 2 or more tokens", optarg);
            e.o.window = n;
            break;
        case OPT_STRIDE:
            if (!command_number(optarg, 1, 1 << 24, &n))
                return command_usage("eval", "--stride %s: expected a positive number", optarg);
            e.o.stride = n;
            break;
        case OPT_NO_BOS:
            e.o.no_bos = true;
            break;
        case OPT_REFERENCE:
            e.o.reference = optarg;
            break;
        case 't':
            if (!command_number(optarg, 1, 1024, &n))
                return command_usage("eval", "--threads %s: expected 1 to 1024", optarg);
            e.o.threads = (int)n;
            break;
        case OPT_TARGET:
            e.o.target = optarg;
            break;
        case OPT_DEVICE:
            e.o.device = optarg;
            break;
        case OPT_REFERENCE_DEVICE:
            e.o.reference_device = optarg;
            break;
        case OPT_BATCHED:
            if (!command_number(optarg, 1, 1 << 16, &n))
                return command_usage("eval", "--max-num-batched-tokens %s: expected 1 to 65536",
                                     optarg);
            e.o.batched = (int)n;
            break;
        case OPT_JSON:
            e.o.json = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc)
        return command_usage("eval", "expected one MODEL.so");
    if (!e.o.text == !e.o.ids)
        return command_usage("eval", "expected one of --text FILE and --ids FILE");
    if (e.o.reference_device && !e.o.reference)
        return command_usage("eval", "--reference-device without --reference OTHER.so");
    e.o.artifact = argv[optind];
    return run_eval(&e);
}
