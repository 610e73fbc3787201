#include "compiler/bench_workload.h"
#include "compiler/output.h"
#include "compiler/progress.h"
#include "compiler/speculative.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct request {
    uint64_t id;
    double came, first, last; /* seconds: it, its first token, its last */
    int64_t tokens;           /* so far, with waste */
} request;

typedef struct run {
    const bench_workload *w;
    const char *model;
    mcc_engine *engine;
    int64_t vocab;
    bench_request *wanted; /* [n] */
    request *requests;     /* [n] */
    int n, n_submitted, n_ended;
    int32_t *ids; /* of one prompt */
    /* Seconds, for each request: to the first token; from there on, a token; to the last. */
    double *ttft, *tpot, *e2e;
    double *itl;   /* between two tokens of a request; all of them */
    double *times; /* of all tokens, after the beginning */
    int64_t n_itl, prompt_tokens, tokens;
    int64_t wasted; /* tokens of requests that had all they asked for */
    double start, seconds;
    mcc_engine_stats before, after;
} run;

/* --- preparing -----------------------------------------------------------------------------------
 */

static int too_long(const run *r, const bench_request *q) {
    fprintf(stderr, "error: a request of %" PRId64 " tokens, ", q->prompt + q->computed);
    if (q->computed > q->decode)
        fprintf(stderr, "%" PRId64 " of them until the longest of its batch ends, ",
                q->computed - q->decode);
    fprintf(stderr, "but at most %" PRId64 " fit: %s fewer tokens%s\n", r->before.max_model_len,
            r->w->trace ? "take a trace of" : "with --prompt-tokens or --decode-tokens ask for",
            q->computed > q->decode ? ", or with --max-num-seqs for smaller batches" : "");
    return EXIT_FAILED;
}

static int prepare(run *r) {
    int64_t tokens = 0, most = 0;
    int code = bench_requests_make(r->w, &r->wanted, &r->n);
    if (code != EXIT_FINE)
        return code;
    if (r->w->arrivals == BENCH_PADDED)
        bench_requests_pad(r->wanted, r->n, r->before.max_num_seqs);
    for (int i = 0; i < r->n; i++) {
        const bench_request *q = &r->wanted[i];
        if (q->prompt + q->computed > r->before.max_model_len)
            return too_long(r, q);
        tokens += q->decode;
        most = q->prompt > most ? q->prompt : most;
    }
    size_t n = (size_t)r->n;
    r->requests = calloc(n, sizeof *r->requests);
    r->ids = malloc((size_t)most * sizeof *r->ids);
    r->ttft = malloc(n * sizeof *r->ttft);
    r->tpot = malloc(n * sizeof *r->tpot);
    r->e2e = malloc(n * sizeof *r->e2e);
    r->itl = malloc((size_t)tokens * sizeof *r->itl);
    r->times = malloc((size_t)tokens * sizeof *r->times);
    return r->requests && r->ids && r->ttft && r->tpot && r->e2e && r->itl && r->times
               ? EXIT_FINE
               : output_fail_memory();
}

/* --- running -------------------------------------------------------------------------------------
 */

static bool comes_in_time(const run *r) {
    return r->w->arrivals == BENCH_POISSON || r->w->arrivals == BENCH_TRACE;
}

static int submit(run *r, double now) {
    mcc_error error = {.struct_size = sizeof error};
    const bench_request *wanted = &r->wanted[r->n_submitted];
    request *q = &r->requests[r->n_submitted];
    bench_requests_prompt(wanted, r->vocab, r->ids);
    mcc_request_params params = {.struct_size = sizeof params,
                                 .flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = r->ids,
                                 .n_prompt_ids = wanted->prompt,
                                 .max_tokens = wanted->computed,
                                 .num_speculative_tokens = r->w->n_drafts};
    if (mcc_request_submit(r->engine, &params, &q->id, &error))
        return output_fail(&error);
    /* Who comes while a step runs waits from then on, not from when it was let in. */
    q->came = comes_in_time(r) ? r->start + wanted->due : now;
    r->n_submitted++;
    return EXIT_FINE;
}

static bool one_is_due(const run *r, double now) {
    int there = r->n_submitted - r->n_ended;
    if (r->n_submitted == r->n)
        return false;
    if (comes_in_time(r))
        return now >= r->start + r->wanted[r->n_submitted].due;
    int most = r->before.max_num_seqs;
    return r->w->arrivals == BENCH_CLOSED ? there < most : there == 0 || r->n_submitted % most != 0;
}

static void take_event(run *r, const mcc_event *event, double now) {
    int64_t at = (int64_t)(event->request - r->requests[0].id); /* ids are given in order */
    request *q = &r->requests[at];
    if (event->kind == MCC_EVENT_TOKEN && ++q->tokens > r->wanted[at].decode) {
        r->wasted++;
        return;
    }
    if (event->kind == MCC_EVENT_TOKEN) {
        r->times[r->tokens++] = now - r->start;
        if (q->first == 0)
            q->first = now;
        else
            r->itl[r->n_itl++] = now - q->last;
        q->last = now;
        return;
    }
    int i = r->n_ended++;
    int64_t decode = r->wanted[at].decode;
    r->prompt_tokens += r->wanted[at].prompt;
    r->ttft[i] = q->first - q->came;
    r->e2e[i] = q->last - q->came;
    r->tpot[i] = decode > 1 ? (q->last - q->first) / (double)(decode - 1) : 0;
}

/* Until the next request comes. */
static void wait_for(double seconds) {
    struct timespec t = {.tv_sec = (time_t)seconds,
                         .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&t, NULL);
}

static int step(run *r) {
    mcc_error error = {.struct_size = sizeof error};
    if (mcc_engine_step(r->engine, NULL, &error))
        return output_fail(&error);
    double now = progress_now();
    for (mcc_event event = {.struct_size = sizeof event};;) {
        if (mcc_engine_next_event(r->engine, &event, &error))
            return output_fail(&error);
        if (event.kind == MCC_EVENT_NONE)
            return EXIT_FINE;
        take_event(r, &event, now);
    }
}

static int run_requests(run *r) {
    progress p;
    progress_init(&p, r->w->json);
    progress_phase(&p, "running");
    int code = EXIT_FINE;
    r->start = progress_now();
    while (code == EXIT_FINE && r->n_ended < r->n) {
        double now = progress_now();
        if (atomic_load(&command_cancelled)) {
            fprintf(stderr, "error: interrupted\n");
            code = EXIT_FAILED;
        } else if (one_is_due(r, now)) {
            code = submit(r, now);
        } else if (r->n_submitted > r->n_ended) {
            code = step(r);
            progress_update(&p, r->n_ended, r->n, "requests");
        } else {
            wait_for(r->start + r->wanted[r->n_submitted].due - now);
        }
    }
    r->seconds = progress_now() - r->start;
    progress_end(&p);
    mcc_engine_get_stats(r->engine, &r->after, NULL);
    return code;
}

/* --- results -------------------------------------------------------------------------------------
 */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct percentiles {
    double mean, p50, p90, p99;
} percentiles;

/* In milliseconds. Sorts them. The percentile is the least sample that so many are not above. */
static percentiles percentiles_of(double *seconds, int64_t n) {
    percentiles p = {0};
    if (n == 0)
        return p;
    qsort(seconds, (size_t)n, sizeof *seconds, compare);
    for (int64_t i = 0; i < n; i++)
        p.mean += 1e3 * seconds[i] / (double)n;
    p.p50 = 1e3 * seconds[(n * 50 + 99) / 100 - 1];
    p.p90 = 1e3 * seconds[(n * 90 + 99) / 100 - 1];
    p.p99 = 1e3 * seconds[(n * 99 + 99) / 100 - 1];
    return p;
}

static void add_percentiles(cJSON *j, const char *what, percentiles p) {
    static const char *const names[] = {"mean", "median", "p90", "p99"};
    const double values[] = {p.mean, p.p50, p.p90, p.p99};
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s_%s_ms", names[i], what);
        cJSON_AddNumberToObject(j, name, values[i]);
    }
}

static void print_percentiles(const char *what, percentiles p) {
    printf("  %-28s %10.2f %10.2f %10.2f %10.2f  ms\n", what, p.mean, p.p50, p.p90, p.p99);
}

static int plot(const run *r) {
    char title[256];
    snprintf(title, sizeof title,
             "%.80s: %d requests, %s, at most %" PRId32 " at a time: %.1f tokens/s", r->model, r->n,
             bench_arrivals_name(r->w->arrivals), r->after.max_num_seqs,
             (double)r->tokens / r->seconds);
    const bench_plot p = {.title = title,
                          .token_times = r->times,
                          .n_tokens = r->tokens,
                          .seconds = r->seconds,
                          .series = {{"first token", r->ttft, r->n_ended},
                                     {"a token", r->tpot, r->n_ended},
                                     {"between two", r->itl, r->n_itl},
                                     {"whole request", r->e2e, r->n_ended}}};
    return bench_plot_write(r->w->plot, &p);
}

static void print_table(const run *r, const percentiles p[4]) {
    const mcc_engine_stats *s = &r->after;
    double total = (double)(r->prompt_tokens + r->tokens);
    double computed = total + (double)r->wasted;
    uint64_t steps = s->steps - r->before.steps;
    char memory[24];
    printf("  %d requests, %s, at most %" PRId32 " at a time: %" PRId64
           " tokens of prompts, %" PRId64 " generated, %.2f s\n",
           r->n, bench_arrivals_name(r->w->arrivals), s->max_num_seqs, r->prompt_tokens, r->tokens,
           r->seconds);
    printf("  %-28s %10.2f  requests/s\n", "requests", r->n / r->seconds);
    printf("  %-28s %10.1f  tokens/s\n", "generated", (double)r->tokens / r->seconds);
    printf("  %-28s %10.1f  tokens/s\n", "prompts and generated", total / r->seconds);
    printf("  %-28s %10s %10s %10s %10s\n", "", "mean", "median", "p90", "p99");
    print_percentiles("time to first token", p[0]);
    print_percentiles("time per token after it", p[1]);
    print_percentiles("between two tokens", p[2]);
    print_percentiles("whole request", p[3]);
    if (r->w->arrivals == BENCH_PADDED)
        printf("  %" PRId64 " tokens beyond these, of requests that had ended before the longest "
               "of their batch\n",
               r->wasted);
    printf("  %" PRIu64 " steps of %.1f tokens, %" PRIu64 " tokens of prompts from the cache, "
           "%" PRIu64 " preemptions\n",
           steps, computed / (double)(steps ? steps : 1),
           s->cached_tokens - r->before.cached_tokens, s->preemptions - r->before.preemptions);
    speculative_print(s);
    printf("  limits: %" PRId32 " sequences of %" PRId64 " tokens, %" PRId32
           " tokens a step; KV cache %s: %" PRId64 " tokens\n",
           s->max_num_seqs, s->max_model_len, s->max_num_batched_tokens,
           output_bytes(s->kv_bytes_reserved, memory), s->kv_tokens);
}

static int print_json(const run *r, const percentiles p[4]) {
    const mcc_engine_stats *s = &r->after;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "workload", bench_arrivals_name(r->w->arrivals));
    if (r->w->arrivals == BENCH_POISSON)
        cJSON_AddNumberToObject(j, "request_rate", r->w->rate);
    cJSON_AddNumberToObject(j, "num_prompts", r->n);
    cJSON_AddNumberToObject(j, "max_num_seqs", s->max_num_seqs);
    cJSON_AddNumberToObject(j, "max_num_batched_tokens", s->max_num_batched_tokens);
    cJSON_AddNumberToObject(j, "max_model_len", (double)s->max_model_len);
    cJSON_AddNumberToObject(j, "kv_cache_memory_bytes", (double)s->kv_bytes_reserved);
    cJSON_AddNumberToObject(j, "kv_tokens", (double)s->kv_tokens);
    cJSON_AddNumberToObject(j, "threads", s->threads);
    cJSON_AddNumberToObject(j, "duration", r->seconds);
    cJSON_AddNumberToObject(j, "total_input_tokens", (double)r->prompt_tokens);
    cJSON_AddNumberToObject(j, "total_output_tokens", (double)r->tokens);
    cJSON_AddNumberToObject(j, "wasted_tokens", (double)r->wasted);
    cJSON_AddNumberToObject(j, "request_throughput", r->n / r->seconds);
    cJSON_AddNumberToObject(j, "output_throughput", (double)r->tokens / r->seconds);
    cJSON_AddNumberToObject(j, "total_token_throughput",
                            (double)(r->prompt_tokens + r->tokens) / r->seconds);
    add_percentiles(j, "ttft", p[0]);
    add_percentiles(j, "tpot", p[1]);
    add_percentiles(j, "itl", p[2]);
    add_percentiles(j, "e2el", p[3]);
    cJSON_AddNumberToObject(j, "steps", (double)(s->steps - r->before.steps));
    cJSON_AddNumberToObject(j, "prefill_tokens",
                            (double)(s->prefill_tokens - r->before.prefill_tokens));
    cJSON_AddNumberToObject(j, "cached_tokens",
                            (double)(s->cached_tokens - r->before.cached_tokens));
    cJSON_AddNumberToObject(j, "preemptions", (double)(s->preemptions - r->before.preemptions));
    speculative_report(s, j); /* since the engine was made: for this */
    return output_json(j);
}

static int print_results(run *r) {
    const percentiles p[] = {percentiles_of(r->ttft, r->n_ended),
                             percentiles_of(r->tpot, r->n_ended), percentiles_of(r->itl, r->n_itl),
                             percentiles_of(r->e2e, r->n_ended)};
    int code = r->w->plot ? plot(r) : EXIT_FINE;
    if (r->w->json)
        return print_json(r, p) == EXIT_FINE ? code : EXIT_FAILED;
    print_table(r, p);
    return code;
}

int bench_workload_run(const bench_workload *w, const mcc_artifact *artifact, mcc_engine *engine) {
    mcc_artifact_info info = {.struct_size = sizeof info};
    run r = {.w = w, .engine = engine};
    r.before.struct_size = r.after.struct_size = sizeof r.before;
    mcc_artifact_get_info(artifact, &info, NULL);
    mcc_engine_get_stats(engine, &r.before, NULL);
    r.vocab = info.vocab_size;
    r.model = info.model_name ? info.model_name : "";
    int code = prepare(&r);
    if (code == EXIT_FINE)
        code = run_requests(&r);
    if (code == EXIT_FINE)
        code = print_results(&r);
    void *const owned[] = {r.wanted, r.requests, r.ids, r.ttft, r.tpot, r.e2e, r.itl, r.times};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    return code;
}
