/* The requests of a benchmark: lengths, beginnings and times, at random or from a trace. */
#include "compiler/bench_workload.h"
#include "compiler/output.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_REQUESTS = 100, MAX_REQUESTS = 1 << 20, MAX_TOKENS = 1 << 24 };

static const char *const names[] = {"closed", "static", "padded", "poisson", "trace"};

const char *bench_arrivals_name(bench_arrivals arrivals) {
    return names[arrivals];
}

int bench_arrivals_named(const char *name) {
    for (int i = 0; i < BENCH_TRACE; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

uint64_t bench_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void bench_requests_prompt(const bench_request *q, int64_t vocab, int32_t *ids) {
    uint64_t prefix = q->prefix_seed, rest = q->seed;
    for (int64_t i = 0; i < q->prompt; i++)
        ids[i] = (int32_t)(bench_random(i < q->prefix ? &prefix : &rest) % (uint64_t)vocab);
}

/* --- a trace -------------------------------------------------------------------------------------
 */

typedef struct reading {
    const char *path;
    int64_t line; /* from 1 */
    bench_request *requests;
    int n, capacity;
} reading;

static int wrong(const reading *r, const char *what) {
    fprintf(stderr, "error: %s: line %" PRId64 ": %s\n", r->path, r->line, what);
    return EXIT_FAILED;
}

/* A whole number of least … MAX_TOKENS into *to, which keeps its value where the field is missing
 * and `needed` is not set. */
static bool tokens_of(const cJSON *json, const char *name, int64_t least, bool needed,
                      int64_t *to) {
    const cJSON *field = cJSON_GetObjectItemCaseSensitive(json, name);
    if (!field)
        return !needed;
    double x = field->valuedouble;
    if (!cJSON_IsNumber(field) || x != floor(x) || x < (double)least || x > MAX_TOKENS)
        return false;
    *to = (int64_t)x;
    return true;
}

/* FNV-1a. */
static uint64_t hash(const void *data, size_t bytes) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return h;
}

static int read_prefix(const reading *r, const cJSON *json, bench_request *q) {
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(json, "prefix_id");
    q->prefix = id ? q->prompt : 0;
    if (!tokens_of(json, "prefix_tokens", 0, false, &q->prefix) || q->prefix > q->prompt ||
        (!id && q->prefix > 0))
        return wrong(r, "prefix_tokens: expected a whole number of at most prompt_tokens, beside a "
                        "prefix_id");
    if (id && cJSON_IsString(id))
        q->prefix_seed = hash(id->valuestring, strlen(id->valuestring));
    else if (id && cJSON_IsNumber(id))
        q->prefix_seed = hash(&id->valuedouble, sizeof id->valuedouble);
    else if (id)
        return wrong(r, "prefix_id: expected a text or a number");
    return EXIT_FINE;
}

static int read_request(const reading *r, const cJSON *json, bench_request *q) {
    const cJSON *due = cJSON_GetObjectItemCaseSensitive(json, "arrival_s");
    if (!cJSON_IsObject(json))
        return wrong(r, "no JSON object");
    if (!cJSON_IsNumber(due) || !(due->valuedouble >= 0) || !(due->valuedouble < 1e9))
        return wrong(r, "arrival_s: expected seconds from the beginning");
    q->due = due->valuedouble;
    if (r->n > 0 && q->due < r->requests[r->n - 1].due)
        return wrong(r, "arrival_s: before that of the line above");
    if (!tokens_of(json, "prompt_tokens", 1, true, &q->prompt))
        return wrong(r, "prompt_tokens: expected a whole number from 1");
    if (!tokens_of(json, "max_tokens", 1, true, &q->decode))
        return wrong(r, "max_tokens: expected a whole number from 1");
    return read_prefix(r, json, q);
}

static int add_line(reading *r, const char *line, size_t bytes) {
    if (r->n == MAX_REQUESTS)
        return wrong(r, "too many requests");
    if (r->n == r->capacity) {
        int capacity = 2 * r->capacity + 64;
        bench_request *grown = realloc(r->requests, (size_t)capacity * sizeof *grown);
        if (!grown)
            return output_fail_memory();
        r->requests = grown;
        r->capacity = capacity;
    }
    bench_request *q = &r->requests[r->n];
    *q = (bench_request){0};
    cJSON *json = cJSON_ParseWithLength(line, bytes);
    int code = read_request(r, json, q);
    cJSON_Delete(json);
    r->n += code == EXIT_FINE;
    return code;
}

static int read_trace(reading *r, int most) {
    FILE *file = fopen(r->path, "re");
    if (!file) {
        fprintf(stderr, "error: %s: %s\n", r->path, strerror(errno));
        return EXIT_FAILED;
    }
    char *line = NULL;
    size_t capacity = 0;
    int code = EXIT_FINE;
    for (ssize_t bytes;
         code == EXIT_FINE && r->n < most && (bytes = getline(&line, &capacity, file)) >= 0;) {
        r->line++;
        if (strspn(line, " \t\r\n") < (size_t)bytes)
            code = add_line(r, line, (size_t)bytes);
    }
    if (code == EXIT_FINE && ferror(file)) {
        fprintf(stderr, "error: %s: %s\n", r->path, strerror(errno));
        code = EXIT_FAILED;
    } else if (code == EXIT_FINE && r->n == 0) {
        fprintf(stderr, "error: %s: no requests\n", r->path);
        code = EXIT_FAILED;
    }
    free(line);
    fclose(file);
    return code;
}

/* --- at random -----------------------------------------------------------------------------------
 */

/* Half to one and a half of n, at least 1. */
static int64_t around(int64_t n, uint64_t *state) {
    return n / 2 + 1 + (int64_t)(bench_random(state) % (uint64_t)(n > 0 ? n : 1));
}

int bench_requests_make(const bench_workload *w, bench_request **requests, int *n) {
    reading r = {.path = w->trace};
    int code =
        w->trace ? read_trace(&r, w->n_requests > 0 ? w->n_requests : MAX_REQUESTS + 1) : EXIT_FINE;
    if (code == EXIT_FINE && !w->trace) {
        r.n = w->n_requests > 0 ? w->n_requests : DEFAULT_REQUESTS;
        r.requests = calloc((size_t)r.n, sizeof *r.requests);
        code = r.requests ? EXIT_FINE : output_fail_memory();
    }
    uint64_t state = w->seed;
    double at = 0;
    for (int i = 0; i < r.n && code == EXIT_FINE; i++) {
        bench_request *q = &r.requests[i];
        if (!w->trace) {
            q->prompt = around(w->prompt, &state);
            q->decode = around(w->decode, &state);
        }
        q->computed = q->decode;
        q->seed = bench_random(&state);
        q->due = w->arrivals == BENCH_TRACE ? q->due : at;
        /* Exponential gaps; the uniform number is in (0, 1]. */
        if (w->arrivals == BENCH_POISSON)
            at += -log((double)(bench_random(&state) >> 11) * 0x1p-53 + 0x1p-54) / w->rate;
    }
    if (code != EXIT_FINE) {
        free(r.requests);
        return code;
    }
    *requests = r.requests;
    *n = r.n;
    return EXIT_FINE;
}

void bench_requests_pad(bench_request *requests, int n, int batch) {
    for (int begin = 0; begin < n; begin += batch) {
        int end = n - begin < batch ? n : begin + batch;
        int64_t longest = 0;
        for (int i = begin; i < end; i++)
            longest = requests[i].decode > longest ? requests[i].decode : longest;
        for (int i = begin; i < end; i++)
            requests[i].computed = longest;
    }
}
