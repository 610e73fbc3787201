/* Reference logits of tests/golden/ (reference_io.py has the format), read for a test. */
#ifndef MCC_TESTS_REFERENCE_H
#define MCC_TESTS_REFERENCE_H

#include <cJSON.h>
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REFERENCE_MAX_TOKENS = 512, REFERENCE_MAX_CASES = 16 };

typedef struct reference_case {
    char name[64];
    int32_t n_tokens, n_rows;
    int32_t tokens[REFERENCE_MAX_TOKENS], rows[REFERENCE_MAX_TOKENS];
    const float *logits; /* [n_rows][vocab] */
} reference_case;

typedef struct reference {
    int64_t vocab;
    int n_cases;
    reference_case cases[REFERENCE_MAX_CASES];
    float *logits;
    char stem[2048];
} reference;

static inline char *reference_read(const char *path, long *size) {
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "cannot open %s", path);
    fseek(f, 0, SEEK_END);
    *size = ftell(f);
    rewind(f);
    char *bytes = malloc((size_t)*size + 1);
    ck_assert_msg(fread(bytes, 1, (size_t)*size, f) == (size_t)*size, "cannot read %s", path);
    bytes[*size] = '\0';
    fclose(f);
    return bytes;
}

static inline int32_t reference_ints(const cJSON *list, int32_t *out) {
    int32_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        ck_assert_int_lt(n, REFERENCE_MAX_TOKENS);
        out[n++] = item->valueint;
    }
    return n;
}

/* `stem` is a path without its .json or .bin. The caller frees ->logits and the struct. */
static inline reference *reference_open(const char *stem) {
    char path[4096];
    long size;
    reference *r = calloc(1, sizeof *r);
    snprintf(r->stem, sizeof r->stem, "%s", stem);
    snprintf(path, sizeof path, "%s.bin", stem);
    r->logits = (float *)(void *)reference_read(path, &size);
    snprintf(path, sizeof path, "%s.json", stem);
    char *text = reference_read(path, &size);
    cJSON *json = cJSON_Parse(text);
    ck_assert_msg(json != NULL, "%s is no JSON", path);
    r->vocab = cJSON_GetObjectItem(json, "vocab_size")->valueint;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "cases")) {
        ck_assert_int_lt(r->n_cases, REFERENCE_MAX_CASES);
        reference_case *c = &r->cases[r->n_cases++];
        snprintf(c->name, sizeof c->name, "%s", cJSON_GetObjectItem(item, "name")->valuestring);
        c->n_tokens = reference_ints(cJSON_GetObjectItem(item, "token_ids"), c->tokens);
        c->n_rows = reference_ints(cJSON_GetObjectItem(item, "rows"), c->rows);
        c->logits = r->logits + cJSON_GetObjectItem(item, "offset")->valueint;
    }
    cJSON_Delete(json);
    free(text);
    ck_assert_int_gt(r->n_cases, 0);
    return r;
}

static inline void reference_close(reference *r) {
    free(r->logits);
    free(r);
}

/* max|difference| and max|reference| over n numbers, kept in *difference and *scale. */
static inline void reference_compare(const float *got, const float *want, int64_t n,
                                     double *difference, double *scale) {
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= *difference)) /* a NaN counts as a difference */
            *difference = d;
        if (fabs((double)want[i]) > *scale)
            *scale = fabs((double)want[i]);
    }
}

#endif
