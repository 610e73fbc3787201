/* What the interpreter's tests share: modules from text, one op evaluated, attention's formula. */
#ifndef MCC_TESTS_INTERP_CASE_H
#define MCC_TESTS_INTERP_CASE_H

#include "check_main.h"
#include "ir/interp.h"
#include "ir/text.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static ir_diag diag;

static uint64_t random_state;

static inline uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static inline void random_floats(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)random_u32() / 2147483648.0f - 1;
}

static inline void setup(void) {
    diag = (ir_diag){0};
    random_state = 42;
}

static inline void teardown(void) {
    ir_diag_clear(&diag);
}

static inline ir_module *parse(const char *body) {
    char *text = NULL;
    ck_assert_int_ge(asprintf(&text, "module \"t\" {arch = \"t\"}\n%s", body), 0);
    ir_module *module = ir_parse_module(text, strlen(text), "test", &diag);
    if (!module) {
        ir_diag_print(&diag, stderr);
        ck_abort_msg("the test's module does not parse:\n%s", text);
    }
    free(text);
    return module;
}

/* Gives a weight of the text its data. */
static inline void set_weight(ir_module *module, const char *name, const void *data) {
    for (int i = 0; i < module->n_weights; i++)
        if (strcmp(module->weights[i].name, name) == 0) {
            module->weights[i].data = data;
            return;
        }
    ck_abort_msg("the text has no weight %s", name);
}

/* The op named "op". */
static inline const ir_op *find(const ir_module *module) {
    for (const ir_op *op = module->graph->first; op; op = op->next)
        if (op->name && strcmp(op->name, "op") == 0)
            return op;
    ck_abort_msg("no op is named \"op\"");
    return NULL;
}

static inline void check_near(const float *got, const float *expected, int n, const char *what) {
    for (int i = 0; i < n; i++) {
        float slack = 2e-7f * fmaxf(fabsf(expected[i]), 1e-3f);
        if (got[i] == expected[i] || (isnan(got[i]) && isnan(expected[i])))
            continue;
        ck_assert_msg(fabsf(got[i] - expected[i]) <= slack, "%s: element %d is %.9g, expected %.9g",
                      what, i, got[i], expected[i]);
    }
}

/* Evaluates the op named "op" and compares its first result. */
static inline void check_op(const char *body, const ir_interp_step *step,
                            const float *const *inputs, const float *expected, int n) {
    ir_module *module = parse(body);
    const ir_op *op = find(module);
    float *results[4] = {0};
    bool ok = ir_interp_op(op, step, inputs, results, module->arena, &diag);
    ir_diag_print(&diag, stderr);
    ck_assert_msg(ok, "%s was not evaluated", body);
    check_near(results[0], expected, n, body);
    ir_module_destroy(module);
}

static const ir_interp_step no_step = {0};

#define INPUTS(...) ((const float *const[]){__VA_ARGS__})
#define FLOATS(...) ((const float[]){__VA_ARGS__})
#define COUNT(...) ((int)(sizeof((const float[]){__VA_ARGS__}) / sizeof(float)))
#define CHECK(body, inputs, ...)                                                                   \
    check_op(body, &no_step, inputs, FLOATS(__VA_ARGS__), COUNT(__VA_ARGS__))

#define A(type) "%0 = weight {name = \"a\"} : " type "\n"
#define B(type) "%1 = weight {name = \"b\"} : " type "\n"
#define C(type) "%2 = weight {name = \"c\"} : " type "\n"

/* Whether evaluating fails with a message that has these words. */
static inline void check_fails(const char *body, const ir_interp_step *step,
                               const float *const *inputs, const char *words) {
    ir_module *module = parse(body);
    float *results[4] = {0};
    ck_assert(!ir_interp_op(find(module), step, inputs, results, module->arena, &diag));
    ck_assert_int_ge(diag.errors, 1);
    const char *message = diag.messages[diag.count - 1].text;
    ck_assert_msg(strstr(message, words) != NULL, "\"%s\" says nothing of \"%s\"", message, words);
    ck_assert_str_eq(diag.messages[diag.count - 1].where, "op");
    ir_diag_clear(&diag);
    ir_module_destroy(module);
}

/* --- attention ---------------------------------------------------------------------------------
 */

enum { HEADS = 4, KV_HEADS = 2, DIM = 8, LONGEST = 40, VOCAB = 50 };

/* The definition, for one token: every earlier token of its own sequence within the window. */
static inline void attention_formula(const float *q, const float *k, const float *v, int own,
                                     int window, double scale, double softcap, float *out) {
    for (int h = 0; h < HEADS; h++) {
        double weights[LONGEST], sum = 0;
        int g = h / (HEADS / KV_HEADS);
        for (int j = 0; j <= own; j++) {
            double score = 0;
            for (int i = 0; i < DIM; i++)
                score += (double)q[h * DIM + i] * k[(j * KV_HEADS + g) * DIM + i];
            score *= scale;
            if (softcap > 0)
                score = softcap * tanh(score / softcap);
            weights[j] = window && own - j >= window ? 0 : exp(score);
            sum += weights[j];
        }
        for (int i = 0; i < DIM; i++) {
            double total = 0;
            for (int j = 0; j <= own; j++)
                total += weights[j] / sum * v[(j * KV_HEADS + g) * DIM + i];
            out[h * DIM + i] = (float)total;
        }
    }
}

static const struct {
    int window;
    double softcap;
} attention_cases[] = {{0, 0}, {5, 0}, {1, 0}, {0, 2}, {7, 1.5}};

enum { N_ATTENTION_CASES = sizeof attention_cases / sizeof *attention_cases };

#endif
