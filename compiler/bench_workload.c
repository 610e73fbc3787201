#include "compiler/bench_workload.h"
#include "compiler/output.h"
#include "compiler/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct request {
    int64_t prompt, decode; /* tokens */
    uint64_t seed;          /* of the prompt */
    double due;             /* seconds after the beginning */
    uint64_t id;
    double came, first, last; /* seconds: it, its first token, its last */
} request;

typedef struct run {
    const bench_workload *w;
    mcc_engine *engine;
    int64_t vocab;
    request *requests; /* [n_requests] */
    int n_submitted, n_ended;
    int32_t *ids; /* of one prompt */
    /* Seconds, for each request: to the first token; from there on, a token; to the last. */
    double *ttft, *tpot, *e2e;
    double *itl; /* between two tokens of a request; all of them */
    int64_t n_itl, prompt_tokens, tokens;
    double start, seconds;
    mcc_engine_stats before, after;
} run;

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Half to one and a half of n, at least 1. */
static int64_t around(int64_t n, uint64_t *state) {
    return n / 2 + 1 + (int64_t)(next_random(state) % (uint64_t)(n > 0 ? n : 1));
}

/* --- preparing -----------------------------------------------------------------------------------
 */

static int prepare(run *r) {
    const bench_workload *w = r->w;
    int64_t longest = 3 * (w->prompt + w->decode) / 2 + 2, tokens = 0, most = 0;
    if (longest > r->before.max_model_len) {
        fprintf(stderr,
                "error: requests of up to %" PRId64 " tokens, but at most %" PRId64
                " fit: --prompt-tokens or --decode-tokens less\n",
                longest, r->before.max_model_len);
        return EXIT_FAILED;
    }
    size_t n = (size_t)w->n_requests;
    r->requests = calloc(n, sizeof *r->requests);
    if (!r->requests)
        return output_fail_memory();
    uint64_t state = w->seed;
    double at = 0;
    for (size_t i = 0; i < n; i++) {
        request *q = &r->requests[i];
        q->prompt = around(w->prompt, &state);
        q->decode = around(w->decode, &state);
        q->seed = next_random(&state);
        q->due = at;
        /* Exponential gaps; the uniform number is in (0, 1]. */
        if (w->arrivals == BENCH_POISSON)
            at += -log((double)(next_random(&state) >> 11) * 0x1p-53 + 0x1p-54) / w->rate;
        tokens += q->decode;
        most = q->prompt > most ? q->prompt : most;
    }
    r->ids = malloc((size_t)most * sizeof *r->ids);
    r->ttft = malloc(n * sizeof *r->ttft);
    r->tpot = malloc(n * sizeof *r->tpot);
    r->e2e = malloc(n * sizeof *r->e2e);
    r->itl = malloc((size_t)tokens * sizeof *r->itl);
    return r->ids && r->ttft && r->tpot && r->e2e && r->itl ? EXIT_FINE : output_fail_memory();
}

/* --- running -------------------------------------------------------------------------------------
 */

static int submit(run *r, double now) {
    mcc_error error = {.struct_size = sizeof error};
    request *q = &r->requests[r->n_submitted];
    uint64_t state = q->seed;
    for (int64_t i = 0; i < q->prompt; i++)
        r->ids[i] = (int32_t)(next_random(&state) % (uint64_t)r->vocab);
    mcc_request_params params = {.struct_size = sizeof params,
                                 .flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = r->ids,
                                 .n_prompt_ids = q->prompt,
                                 .max_tokens = q->decode};
    if (mcc_request_submit(r->engine, &params, &q->id, &error))
        return output_fail(&error);
    /* Who comes while a step runs waits from then on, not from when it was let in. */
    q->came = r->w->arrivals == BENCH_POISSON ? r->start + q->due : now;
    r->n_submitted++;
    return EXIT_FINE;
}

static bool one_is_due(const run *r, double now) {
    int there = r->n_submitted - r->n_ended;
    if (r->n_submitted == r->w->n_requests)
        return false;
    if (r->w->arrivals == BENCH_POISSON)
        return now >= r->start + r->requests[r->n_submitted].due;
    int most = r->before.max_num_seqs;
    return r->w->arrivals == BENCH_CLOSED ? there < most : there == 0 || r->n_submitted % most != 0;
}

static void take_event(run *r, const mcc_event *event, double now) {
    request *q = &r->requests[event->request - r->requests[0].id]; /* ids are given in order */
    if (event->kind == MCC_EVENT_TOKEN) {
        r->tokens++;
        if (q->first == 0)
            q->first = now;
        else
            r->itl[r->n_itl++] = now - q->last;
        q->last = now;
        return;
    }
    int i = r->n_ended++;
    r->prompt_tokens += q->prompt;
    r->ttft[i] = q->first - q->came;
    r->e2e[i] = q->last - q->came;
    r->tpot[i] = q->decode > 1 ? (q->last - q->first) / (double)(q->decode - 1) : 0;
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
    while (code == EXIT_FINE && r->n_ended < r->w->n_requests) {
        double now = progress_now();
        if (atomic_load(&command_cancelled)) {
            fprintf(stderr, "error: interrupted\n");
            code = EXIT_FAILED;
        } else if (one_is_due(r, now)) {
            code = submit(r, now);
        } else if (r->n_submitted > r->n_ended) {
            code = step(r);
            progress_update(&p, r->n_ended, r->w->n_requests, "requests");
        } else {
            wait_for(r->start + r->requests[r->n_submitted].due - now);
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

static int print_results(run *r) {
    static const char *const arrivals[] = {"closed", "static", "poisson"};
    const bench_workload *w = r->w;
    double total = (double)(r->prompt_tokens + r->tokens);
    uint64_t steps = r->after.steps - r->before.steps;
    uint64_t preemptions = r->after.preemptions - r->before.preemptions;
    percentiles ttft = percentiles_of(r->ttft, r->n_ended);
    percentiles tpot = percentiles_of(r->tpot, r->n_ended);
    percentiles itl = percentiles_of(r->itl, r->n_itl);
    percentiles e2e = percentiles_of(r->e2e, r->n_ended);
    if (!w->json) {
        printf("  %d requests, %s, at most %" PRId32 " at a time: %" PRId64
               " tokens of prompts, %" PRId64 " generated, %.2f s\n",
               w->n_requests, arrivals[w->arrivals], r->after.max_num_seqs, r->prompt_tokens,
               r->tokens, r->seconds);
        printf("  %-28s %10.2f  requests/s\n", "requests", w->n_requests / r->seconds);
        printf("  %-28s %10.1f  tokens/s\n", "generated", (double)r->tokens / r->seconds);
        printf("  %-28s %10.1f  tokens/s\n", "prompts and generated", total / r->seconds);
        printf("  %-28s %10s %10s %10s %10s\n", "", "mean", "median", "p90", "p99");
        print_percentiles("time to first token", ttft);
        print_percentiles("time per token after it", tpot);
        print_percentiles("between two tokens", itl);
        print_percentiles("whole request", e2e);
        printf("  %" PRIu64 " steps of %.1f tokens, %" PRIu64 " preemptions\n", steps,
               total / (double)(steps ? steps : 1), preemptions);
        return EXIT_FINE;
    }
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "workload", arrivals[w->arrivals]);
    if (w->arrivals == BENCH_POISSON)
        cJSON_AddNumberToObject(j, "request_rate", w->rate);
    cJSON_AddNumberToObject(j, "num_prompts", w->n_requests);
    cJSON_AddNumberToObject(j, "max_num_seqs", r->after.max_num_seqs);
    cJSON_AddNumberToObject(j, "max_num_batched_tokens", r->after.max_num_batched_tokens);
    cJSON_AddNumberToObject(j, "threads", r->after.threads);
    cJSON_AddNumberToObject(j, "duration", r->seconds);
    cJSON_AddNumberToObject(j, "total_input_tokens", (double)r->prompt_tokens);
    cJSON_AddNumberToObject(j, "total_output_tokens", (double)r->tokens);
    cJSON_AddNumberToObject(j, "request_throughput", w->n_requests / r->seconds);
    cJSON_AddNumberToObject(j, "output_throughput", (double)r->tokens / r->seconds);
    cJSON_AddNumberToObject(j, "total_token_throughput", total / r->seconds);
    add_percentiles(j, "ttft", ttft);
    add_percentiles(j, "tpot", tpot);
    add_percentiles(j, "itl", itl);
    add_percentiles(j, "e2el", e2e);
    cJSON_AddNumberToObject(j, "steps", (double)steps);
    cJSON_AddNumberToObject(j, "preemptions", (double)preemptions);
    return output_json(j);
}

int bench_workload_run(const bench_workload *w, const mcc_artifact *artifact, mcc_engine *engine) {
    mcc_artifact_info info = {.struct_size = sizeof info};
    run r = {.w = w, .engine = engine};
    r.before.struct_size = r.after.struct_size = sizeof r.before;
    mcc_artifact_get_info(artifact, &info, NULL);
    mcc_engine_get_stats(engine, &r.before, NULL);
    r.vocab = info.vocab_size;
    int code = prepare(&r);
    if (code == EXIT_FINE)
        code = run_requests(&r);
    if (code == EXIT_FINE)
        code = print_results(&r);
    void *const owned[] = {r.requests, r.ids, r.ttft, r.tpot, r.e2e, r.itl};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    return code;
}
