/* How well a model predicts given tokens, and how far it is from another. Uses the engine only
 * through runtime/modelcc.h. */
#ifndef MCC_COMPILER_EVALUATE_H
#define MCC_COMPILER_EVALUATE_H

#include <stdbool.h>
#include <stdint.h>

/* What one row of logits says about the token that came next. */
typedef struct evaluate_row {
    double nll;           /* -log p(target), nats */
    double reference_nll; /* the reference's */
    double kl;            /* KL(reference || model), nats */
    bool same_top;        /* both find the same token most probable */
} evaluate_row;

/* Scores n rows of `vocab` logits against the tokens that came next, on `threads` threads.
 * `reference` may be NULL: only nll is then set. Each row's result is the same for any number of
 * threads. */
void evaluate_rows(const float *logits, const float *reference, const int32_t *targets, int n,
                   int64_t vocab, int threads, evaluate_row *rows);

/* Sums over rows. */
typedef struct evaluate_sums {
    int64_t tokens, same_top;
    double nll, reference_nll, kl, kl_most;
} evaluate_sums;
void evaluate_add(evaluate_sums *sums, const evaluate_row *rows, int n);

/* One window of a text: tokens text_begin … text_end-1, of which those from score_begin on are
 * scored. */
typedef struct evaluate_window {
    int64_t text_begin, text_end, score_begin;
} evaluate_window;

/* The windows of a text of n tokens. Each holds `prefix` tokens that the model wants before a text
 * (such as <s>) and up to window - prefix tokens of it; window k begins `stride` tokens after
 * window k-1. A token is scored once, in the first window that has one before it; without a prefix
 * the first token of a window has none. Windows with nothing to score are left out. False when
 * there is no window `at`. */
bool evaluate_window_at(int64_t n, int64_t prefix, int64_t window, int64_t stride, int64_t at,
                        evaluate_window *out);

#endif
