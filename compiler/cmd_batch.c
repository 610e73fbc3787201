/* modelcc batch: a file of requests through the engine, many at a time. */
#include "compiler/batch.h"
#include "compiler/generate.h"
#include "compiler/output.h"
#include "compiler/progress.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char help[] =
    "usage: modelcc batch MODEL.so --input REQUESTS.jsonl --output RESULTS.jsonl [options]\n\n"
    "Runs a file of requests, many at a time. A line of the input is a JSON object: \"prompt\" "
    "(text\n"
    "or token ids) or \"messages\", and if need be \"id\", max_tokens, temperature, top_k, top_p, "
    "min_p,\n"
    "typical_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias (ids to "
    "biases), seed,\n"
    "stop, stop_token_ids, ignore_eos, logprobs (true, or the number of top_logprobs), priority, n "
    "(samples).\n"
    "What a line does not say is as the options below say. A result is a line with the input's "
    "\"line\" "
    "and\n"
    "\"id\", and text, token_ids, finish_reason, … or \"error\"; with n, \"choices\" of these. "
    "Results come\n"
    "in the order in which they are ready. Run again after an interruption, it does only what has "
    "no\n"
    "result yet.\n\n"
    "      --input FILE           the requests\n"
    "      --output FILE          the results: added to what is there\n"
    "      --max-num-seqs N       requests computed at the same time (default 64; on a GPU\n"
    "                             256)\n"
    "      --kv-cache-memory-bytes N   of the KV cache (default: what these need at full length, "
    "at\n"
    "                             most half of the memory of the machine or the cgroup, or 9/10 of "
    "what\n"
    "                             is free on the GPU)\n"
    "      --logprobs N           tokens' log-probabilities and those of the N most probable ones, "
    "0 "
    "to 20\n"
    "      --swap-space GIB       memory of the host for requests that are preempted (default 0)\n"
    "      --preemption-mode MODE   with that: auto (what is cheaper), recompute or swap\n"
    "      --json                 the summary as one JSON object\n";
static const char examples[] =
    "\nexamples:\n"
    "  modelcc batch smollm2.so --input requests.jsonl --output results.jsonl\n"
    "  echo '{\"id\": 1, \"prompt\": \"Once upon a time\", \"max_tokens\": 50}' > requests.jsonl\n";

enum { MAX_SEQS = 4096 };
enum {
    OPT_INPUT = 256,
    OPT_OUTPUT,
    OPT_SEQS,
    OPT_KV,
    OPT_SWAP,
    OPT_PREEMPTION,
    OPT_JSON,
    OPT_LOGPROBS
};

typedef struct sample {
    int32_t *ids;
    logprobs logprobs;
    int64_t n, capacity;
    char *text;
    uint64_t text_bytes;
    int32_t reason; /* MCC_FINISH_NONE: at work */
} sample;

/* A line of the input that is at work: its samples' requests have the ids first … first+n-1. */
typedef struct job {
    int64_t line;
    cJSON *id;
    uint64_t first;
    int32_t n, left;
    bool logprobs;
    bool lost;   /* with the device: it may do better another time */
    char *error; /* of the step in which the first of them failed; NULL: none; malloc'ed */
    sample *samples;
    int64_t prompt_tokens, cached_tokens, completion_tokens;
} job;

typedef struct batch {
    generate_options common;
    const char *input_path, *output_path;
    bool json;
    generate_model model;
    FILE *input;
    batch_results results;
    int64_t n_lines, at; /* of the input; the next one, from 0 */
    int64_t n_requests;  /* lines that are not blank */
    char *text;          /* of the line read last */
    size_t text_capacity;
    job *jobs; /* at work: n_jobs of job_capacity */
    int n_jobs, job_capacity;
    int64_t prompt_tokens, cached_tokens, completion_tokens;
    double seconds;
    char step_error[512]; /* of the last step that failed */
    bool device_failed;   /* in the last step */
    int64_t n_lost;       /* requests without a result for that */
} batch;

/* --- results -------------------------------------------------------------------------------------
 */

static cJSON *begin_result(const cJSON *id) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddItemToObject(j, "id", id ? cJSON_Duplicate(id, true) : cJSON_CreateNull());
    return j;
}

static int add_error(batch *b, int64_t line, const cJSON *id, const char *text) {
    cJSON *j = begin_result(id);
    cJSON_AddStringToObject(j, "error", text);
    return batch_results_add(&b->results, line, j);
}

static void describe(cJSON *j, const batch *b, const job *at, const sample *s) {
    cJSON_AddStringToObject(j, "text", s->text ? s->text : "");
    cJSON_AddItemToObject(j, "token_ids", output_ids(s->ids, s->n));
    if (at->logprobs)
        cJSON_AddItemToObject(j, "logprobs", logprobs_json(&s->logprobs, b->model.artifact));
    cJSON_AddStringToObject(j, "finish_reason", generate_finish_name(s->reason));
}

static int add_result(batch *b, const job *at) {
    cJSON *j = begin_result(at->id);
    if (at->lost) {
        b->n_lost++;
        cJSON_Delete(j);
        return EXIT_FINE;
    }
    if (at->error) {
        cJSON_AddStringToObject(j, "error", at->error);
        return batch_results_add(&b->results, at->line, j);
    }
    if (at->n == 1)
        describe(j, b, at, &at->samples[0]);
    cJSON *choices = at->n > 1 ? cJSON_AddArrayToObject(j, "choices") : NULL;
    for (int32_t i = 0; i < at->n && choices; i++) {
        cJSON *choice = cJSON_CreateObject();
        describe(choice, b, at, &at->samples[i]);
        cJSON_AddItemToArray(choices, choice);
    }
    cJSON_AddNumberToObject(j, "prompt_tokens", (double)at->prompt_tokens);
    cJSON_AddNumberToObject(j, "cached_tokens", (double)at->cached_tokens);
    cJSON_AddNumberToObject(j, "completion_tokens", (double)at->completion_tokens);
    b->prompt_tokens += at->prompt_tokens;
    b->cached_tokens += at->cached_tokens;
    b->completion_tokens += at->completion_tokens;
    return batch_results_add(&b->results, at->line, j);
}

/* --- jobs ----------------------------------------------------------------------------------------
 */

static void clear_job(job *at) {
    for (int32_t i = 0; at->samples && i < at->n; i++) {
        free(at->samples[i].ids);
        logprobs_free(&at->samples[i].logprobs);
        free(at->samples[i].text);
    }
    free(at->samples);
    free(at->error);
    cJSON_Delete(at->id);
}

static int submit(batch *b, int64_t line, const batch_request *r) {
    mcc_error error = {.struct_size = sizeof error};
    job *at = &b->jobs[b->n_jobs];
    *at = (job){.line = line,
                .n = r->params.n > 0 ? r->params.n : 1,
                .logprobs = logprobs_wanted(&r->params)};
    at->left = at->n;
    at->samples = calloc((size_t)at->n, sizeof *at->samples);
    at->id = r->id ? cJSON_Duplicate(r->id, true) : NULL;
    if (!at->samples || (r->id && !at->id)) {
        clear_job(at);
        return output_fail_memory();
    }
    for (int32_t i = 0; i < at->n; i++)
        at->samples[i].logprobs.n_top = r->params.top_logprobs;
    mcc_status status = mcc_request_submit(b->model.engine, &r->params, &at->first, &error);
    if (status == MCC_OK) {
        b->n_jobs++;
        return EXIT_FINE;
    }
    clear_job(at);
    return status == MCC_OUT_OF_MEMORY ? output_fail(&error)
                                       : add_error(b, line, r->id, error.text);
}

static bool is_blank(const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i])
            return false;
    return true;
}

/* Takes the next line; *end at the end of the input. */
static int take_line(batch *b, bool *end) {
    enum { MAX_LINE = 64 << 20 };
    errno = 0;
    ssize_t n = getline(&b->text, &b->text_capacity, b->input);
    if (n < 0) {
        *end = true;
        if (!ferror(b->input) && errno != ENOMEM)
            return EXIT_FINE;
        fprintf(stderr, "error: %s: %s\n", b->input_path, strerror(errno));
        return EXIT_FAILED;
    }
    int64_t line = b->at++;
    if (is_blank(b->text, (size_t)n))
        return EXIT_FINE;
    b->n_requests++;
    batch_request r = {.error = "the line is longer than 64 MiB"};
    if (n <= MAX_LINE)
        batch_request_read(&r, b->text, (size_t)n, &b->common.params);
    int code = EXIT_FINE;
    if (!batch_results_has(&b->results, line)) {
        code = r.error[0] ? add_error(b, line, r.id, r.error) : submit(b, line, &r);
    } else if (!batch_results_fits(&b->results, line, r.id)) {
        fprintf(stderr,
                "error: %s: line %" PRId64 " has another id than its result in %s: it has changed; "
                "name another --output\n",
                b->input_path, line + 1, b->output_path);
        code = EXIT_FAILED;
    }
    batch_request_clear(&r);
    return code;
}

/* --- events --------------------------------------------------------------------------------------
 */

static bool append_token(sample *s, const mcc_event *event, bool with_logprobs) {
    if (s->n == s->capacity) {
        int64_t capacity = 2 * s->capacity + 16;
        int32_t *ids = realloc(s->ids, (size_t)capacity * sizeof *ids);
        if (!ids)
            return false;
        s->ids = ids;
        s->capacity = capacity;
    }
    s->ids[s->n++] = event->token_id;
    return !with_logprobs || logprobs_add(&s->logprobs, event);
}

static bool append_text(sample *s, const mcc_event *event) {
    char *grown = realloc(s->text, s->text_bytes + event->text_bytes + 1);
    if (!grown)
        return false;
    s->text = grown;
    memcpy(grown + s->text_bytes, event->text, event->text_bytes + 1);
    s->text_bytes += event->text_bytes;
    return true;
}

static int take_event(batch *b, const mcc_event *event) {
    int i = 0;
    while (event->request - b->jobs[i].first >= (uint64_t)b->jobs[i].n)
        i++;
    job *at = &b->jobs[i];
    sample *s = &at->samples[event->request - at->first];
    if (!append_text(s, event) ||
        (event->kind == MCC_EVENT_TOKEN && !append_token(s, event, at->logprobs)))
        return output_fail_memory();
    if (event->kind != MCC_EVENT_FINISHED)
        return EXIT_FINE;
    s->reason = event->finish_reason;
    at->lost = at->lost || (s->reason == MCC_FINISH_ERROR && b->device_failed);
    if (s->reason == MCC_FINISH_ERROR && !at->error && !(at->error = strdup(b->step_error)))
        return output_fail_memory();
    at->prompt_tokens = event->prompt_tokens;
    if (event->request == at->first)
        at->cached_tokens = event->cached_tokens;
    at->completion_tokens += event->completion_tokens;
    if (--at->left > 0)
        return EXIT_FINE;
    int code = add_result(b, at);
    clear_job(at);
    b->jobs[i] = b->jobs[--b->n_jobs];
    return code;
}

static int step(batch *b) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_status status = mcc_engine_step(b->model.engine, NULL, &error);
    bool failed = status == MCC_DEVICE_FAILED;
    if (failed && b->device_failed) /* nor could it be set up again */
        return output_fail(&error);
    b->device_failed = failed;
    if (status != MCC_OK)
        snprintf(b->step_error, sizeof b->step_error, "%s", error.text);
    for (;;) {
        mcc_event event = {.struct_size = sizeof event};
        if (mcc_engine_next_event(b->model.engine, &event, &error))
            return output_fail(&error);
        if (event.kind == MCC_EVENT_NONE)
            return EXIT_FINE;
        int code = take_event(b, &event);
        if (code != EXIT_FINE)
            return code;
    }
}

static int run_lines(batch *b) {
    progress p;
    progress_init(&p, false);
    progress_phase(&p, "running");
    double start = progress_now();
    int code = EXIT_FINE;
    bool end = false;
    while (code == EXIT_FINE && (!end || b->n_jobs > 0)) {
        if (atomic_load(&command_cancelled)) {
            fprintf(stderr,
                    "error: interrupted: %" PRId64 " results are in %s; run it again to go on\n",
                    b->results.n_before + b->results.n_written, b->output_path);
            code = EXIT_FAILED;
        } else if (!end && b->n_jobs < b->job_capacity) {
            code = take_line(b, &end);
        } else {
            code = step(b);
            progress_update(&p, (double)(b->at - b->n_jobs), (double)b->n_lines, "lines");
        }
    }
    b->seconds = progress_now() - start;
    progress_end(&p);
    return code;
}

/* --- summary -------------------------------------------------------------------------------------
 */

static int print_json(const batch *b, const mcc_engine_stats *s) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "requests", (double)b->n_requests);
    cJSON_AddNumberToObject(j, "done_before", (double)b->results.n_before);
    cJSON_AddNumberToObject(j, "done_now", (double)b->results.n_written);
    cJSON_AddNumberToObject(j, "errors", (double)b->results.n_errors);
    cJSON_AddNumberToObject(j, "prompt_tokens", (double)b->prompt_tokens);
    cJSON_AddNumberToObject(j, "cached_tokens", (double)b->cached_tokens);
    cJSON_AddNumberToObject(j, "completion_tokens", (double)b->completion_tokens);
    cJSON_AddNumberToObject(j, "seconds", b->seconds);
    cJSON_AddNumberToObject(j, "completion_tokens_per_second",
                            b->seconds > 0 ? (double)b->completion_tokens / b->seconds : 0);
    cJSON_AddNumberToObject(j, "steps", (double)s->steps);
    cJSON_AddNumberToObject(j, "preemptions", (double)s->preemptions);
    cJSON_AddNumberToObject(j, "swaps", (double)s->swaps);
    speculative_report(s, j);
    cJSON_AddNumberToObject(j, "threads", s->threads);
    cJSON_AddNumberToObject(j, "max_num_seqs", s->max_num_seqs);
    cJSON_AddNumberToObject(j, "max_num_batched_tokens", s->max_num_batched_tokens);
    cJSON_AddNumberToObject(j, "max_model_len", (double)s->max_model_len);
    cJSON_AddNumberToObject(j, "kv_cache_memory_bytes", (double)s->kv_bytes_reserved);
    cJSON_AddNumberToObject(j, "kv_tokens", (double)s->kv_tokens);
    return output_json(j);
}

static void print_table(const batch *b, const mcc_engine_stats *s) {
    char memory[24];
    printf("requests    %" PRId64 ": %" PRId64 " before, %" PRId64 " now; %" PRId64 " errors\n",
           b->n_requests, b->results.n_before, b->results.n_written, b->results.n_errors);
    printf("tokens      %" PRId64 " of prompts (%" PRId64 " cached), %" PRId64 " generated\n",
           b->prompt_tokens, b->cached_tokens, b->completion_tokens);
    printf("seconds     %.2f: %.1f tokens/s generated, %" PRIu64 " steps, %" PRIu64
           " preemptions\n",
           b->seconds, b->seconds > 0 ? (double)b->completion_tokens / b->seconds : 0, s->steps,
           s->preemptions);
    printf("limits      %" PRId32 " sequences of %" PRId64 " tokens, %" PRId32
           " tokens a step; KV cache %s: %" PRId64 " tokens\n",
           s->max_num_seqs, s->max_model_len, s->max_num_batched_tokens,
           output_bytes(s->kv_bytes_reserved, memory), s->kv_tokens);
}

static int print_summary(const batch *b) {
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    mcc_engine_get_stats(b->model.engine, &stats, NULL);
    int code = EXIT_FINE;
    if (b->json)
        code = print_json(b, &stats);
    else
        print_table(b, &stats);
    if (b->n_lost > 0) {
        fprintf(stderr,
                "error: %" PRId64 " of the requests have no result, run it again for them: %s\n",
                b->n_lost, b->step_error);
        code = EXIT_FAILED;
    }
    if (b->results.n_errors > 0) {
        fprintf(stderr, "error: %" PRId64 " of the requests are errors: see \"error\" in %s\n",
                b->results.n_errors, b->output_path);
        code = EXIT_FAILED;
    }
    return code;
}

/* --- from the beginning --------------------------------------------------------------------------
 */

/* Opens the input and counts its lines. */
static int open_input(batch *b) {
    struct stat in, out;
    b->input = fopen(b->input_path, "re");
    if (!b->input) {
        fprintf(stderr, "error: %s: %s\n", b->input_path, strerror(errno));
        return EXIT_FAILED;
    }
    if (fstat(fileno(b->input), &in) != 0 || !S_ISREG(in.st_mode)) {
        fprintf(stderr, "error: %s: not a file: to go on later, it must be there again\n",
                b->input_path);
        return EXIT_FAILED;
    }
    if (stat(b->output_path, &out) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino) {
        fprintf(stderr, "error: --input and --output are the same file\n");
        return EXIT_FAILED;
    }
    int before = '\n';
    for (int c; (c = getc_unlocked(b->input)) != EOF; before = c)
        b->n_lines += c == '\n';
    b->n_lines += before != '\n';
    rewind(b->input);
    return EXIT_FINE;
}

static int run_batch(batch *b) {
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    b->common.max_num_waiting = 2 * MAX_SEQS * BATCH_MAX_N;
    int code = open_input(b);
    if (code == EXIT_FINE)
        code = generate_open(&b->common, &b->model);
    if (code == EXIT_FINE) {
        /* Enough at work that there is always one to start when another ends. */
        mcc_engine_get_stats(b->model.engine, &stats, NULL);
        b->job_capacity = 2 * stats.max_num_seqs;
        b->jobs = calloc((size_t)b->job_capacity, sizeof *b->jobs);
        code = b->jobs ? EXIT_FINE : output_fail_memory();
    }
    if (code == EXIT_FINE)
        code = batch_results_open(&b->results, b->output_path, b->n_lines);
    if (code == EXIT_FINE)
        code = run_lines(b);
    int closed = batch_results_close(&b->results);
    code = code == EXIT_FINE ? closed : code;
    if (code == EXIT_FINE)
        code = print_summary(b);
    for (int i = 0; i < b->n_jobs; i++)
        clear_job(&b->jobs[i]);
    free(b->jobs);
    free(b->text);
    if (b->input)
        fclose(b->input);
    generate_close(&b->model);
    return code;
}

static int set_swap_space(generate_options *o, const char *value) {
    double gib;
    if (!command_real(value, 0, 1 << 20, &gib))
        return command_usage("batch", "--swap-space %s: expected GiB", value);
    o->swap_space_bytes = (uint64_t)(gib * (1 << 30));
    return EXIT_FINE;
}

static int set_preemption(generate_options *o, const char *value) {
    static const char *const modes[] = {"auto", "recompute", "swap"};
    int mode = 0;
    while (mode < 3 && strcmp(value, modes[mode]) != 0)
        mode++;
    o->preemption_mode = mode;
    return mode < 3 ? EXIT_FINE
                    : command_usage(
                          "batch", "--preemption-mode %s: expected auto, recompute or swap", value);
}

int cmd_batch(int argc, char **argv) {
    static const struct option longs[] = {
        {"input", required_argument, NULL, OPT_INPUT},
        {"output", required_argument, NULL, OPT_OUTPUT},
        {"max-num-seqs", required_argument, NULL, OPT_SEQS},
        {"kv-cache-memory-bytes", required_argument, NULL, OPT_KV},
        {"swap-space", required_argument, NULL, OPT_SWAP},
        {"preemption-mode", required_argument, NULL, OPT_PREEMPTION},
        {"json", no_argument, NULL, OPT_JSON},
        {"logprobs", required_argument, NULL, OPT_LOGPROBS},
        {"help", no_argument, NULL, 'h'},
        GENERATE_LONG_OPTIONS,
        {0}};
    batch b = {.results = {.fd = -1}};
    long long n;
    generate_defaults(&b.common);
    b.common.many = true;
    for (int option; (option = command_option(argc, argv, "n:t:h", longs)) != -1;) {
        int code = EXIT_FINE;
        switch (option) {
        case OPT_INPUT:
            b.input_path = optarg;
            break;
        case OPT_OUTPUT:
            b.output_path = optarg;
            break;
        case OPT_SEQS:
            if (!command_number(optarg, 1, MAX_SEQS, &n))
                return command_usage("batch", "--max-num-seqs %s: expected 1 to %d", optarg,
                                     MAX_SEQS);
            b.common.max_num_seqs = (int)n;
            break;
        case OPT_KV:
            if (!command_number(optarg, 1, INT64_MAX, &n))
                return command_usage("batch", "--kv-cache-memory-bytes %s: expected a number",
                                     optarg);
            b.common.kv_cache_memory_bytes = (uint64_t)n;
            break;
        case OPT_SWAP:
            code = set_swap_space(&b.common, optarg);
            break;
        case OPT_PREEMPTION:
            code = set_preemption(&b.common, optarg);
            break;
        case OPT_JSON:
            b.json = true;
            break;
        case OPT_LOGPROBS:
            code = generate_logprobs_option("batch", &b.common, optarg);
            break;
        case 'h':
            printf("%s%s%s%s", help, generate_help, speculative_help, examples);
            return EXIT_FINE;
        default:
            code = generate_option("batch", &b.common, option, optarg);
        }
        if (code != EXIT_FINE)
            return code;
    }
    if (optind + 1 != argc)
        return command_usage("batch", "expected one MODEL.so");
    if (!b.input_path || !b.output_path)
        return command_usage("batch", "expected --input FILE and --output FILE");
    b.common.artifact = argv[optind];
    int code = generate_read_guided("batch", &b.common);
    if (code == EXIT_FINE)
        code = run_batch(&b);
    free(b.common.guided);
    return code;
}
