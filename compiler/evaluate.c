#include "compiler/evaluate.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

/* A row of logits x: its largest, where that is, and log sum exp(x). */
typedef struct row_norm {
    float most;
    int64_t top;
    double log_sum;
} row_norm;

/* exp in f32 has a relative error of 1e-7, the sum in f64 none that counts. */
static row_norm normalize(const float *x, int64_t n) {
    row_norm r = {.most = x[0]};
    for (int64_t i = 1; i < n; i++)
        if (x[i] > r.most) {
            r.most = x[i];
            r.top = i;
        }
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += expf(x[i] - r.most);
    r.log_sum = r.most + log(sum);
    return r;
}

/* sum p (log p - log q), where p = softmax(a) is the reference and q = softmax(b) */
static double divergence(const float *a, const float *b, const row_norm *na, const row_norm *nb,
                         int64_t n) {
    double sum = 0, mass = 0;
    for (int64_t i = 0; i < n; i++) {
        double p = expf(a[i] - na->most);
        mass += p;
        sum += p * ((double)a[i] - (double)b[i]);
    }
    return sum / mass - na->log_sum + nb->log_sum;
}

typedef struct job {
    const float *logits, *reference;
    const int32_t *targets;
    int n;
    int64_t vocab;
    evaluate_row *rows;
    atomic_int next;
} job;

static void *score_rows(void *arg) {
    job *j = arg;
    for (int i; (i = atomic_fetch_add(&j->next, 1)) < j->n;) {
        const float *x = j->logits + (ptrdiff_t)i * j->vocab;
        row_norm norm = normalize(x, j->vocab);
        evaluate_row row = {.nll = norm.log_sum - x[j->targets[i]]};
        if (j->reference) {
            const float *y = j->reference + (ptrdiff_t)i * j->vocab;
            row_norm other = normalize(y, j->vocab);
            row.reference_nll = other.log_sum - y[j->targets[i]];
            row.kl = divergence(y, x, &other, &norm, j->vocab);
            row.same_top = norm.top == other.top;
        }
        j->rows[i] = row;
    }
    return NULL;
}

void evaluate_rows(const float *logits, const float *reference, const int32_t *targets, int n,
                   int64_t vocab, int threads, evaluate_row *rows) {
    enum { MAX_THREADS = 64 };
    job j = {.logits = logits,
             .reference = reference,
             .targets = targets,
             .n = n,
             .vocab = vocab,
             .rows = rows};
    pthread_t helpers[MAX_THREADS];
    int started = 0;
    if (threads > n)
        threads = n;
    while (started < threads - 1 && started < MAX_THREADS &&
           !pthread_create(&helpers[started], NULL, score_rows, &j))
        started++;
    score_rows(&j);
    for (int i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);
}

void evaluate_add(evaluate_sums *s, const evaluate_row *rows, int n) {
    for (int i = 0; i < n; i++) {
        s->nll += rows[i].nll;
        s->reference_nll += rows[i].reference_nll;
        s->kl += rows[i].kl;
        if (rows[i].kl > s->kl_most)
            s->kl_most = rows[i].kl;
        s->same_top += rows[i].same_top;
    }
    s->tokens += n;
}

bool evaluate_window_at(int64_t n, int64_t prefix, int64_t window, int64_t stride, int64_t at,
                        evaluate_window *out) {
    int64_t room = window - prefix;
    if (room < 1 || stride < 1 || at < 0 || at > (n - 1) / stride)
        return false;
    int64_t begin = at * stride;
    int64_t before = at && begin - stride + room < n ? begin - stride + room : at ? n : 0;
    int64_t first = begin + (prefix == 0);
    *out = (evaluate_window){.text_begin = begin,
                             .text_end = begin + room < n ? begin + room : n,
                             .score_begin = first > before ? first : before};
    return out->score_begin < out->text_end;
}
