/* What `modelcc batch` is made of: lines of requests, and the file of results. */
#ifndef MCC_COMPILER_BATCH_H
#define MCC_COMPILER_BATCH_H

#include "compiler/command.h"
#include "runtime/modelcc.h"

#include <cJSON.h>
#include <stddef.h>
#include <stdint.h>

/* --- batch_request.c: one line of the input ------------------------------------------------------
 */

enum { BATCH_MAX_STOPS = 64, BATCH_MAX_N = 128 };

typedef struct batch_request {
    cJSON *json; /* of the line; NULL when it is none */
    cJSON *id;   /* within it: what the line is called; NULL: nothing */
    mcc_request_params params;
    const char *stops[BATCH_MAX_STOPS];
    int32_t stop_ids[BATCH_MAX_STOPS];
    int32_t *prompt_ids; /* malloc'ed */
    int32_t *bias_ids;   /* the same */
    float *biases;       /* the same */
    char *messages;      /* cJSON's */
    char *guided;        /* the same */
    char error[256];     /* why it is not a request; "" when it is one */
} batch_request;

/* Reads a line of `bytes` bytes. What it does not say is as in `defaults`. *request is to be
 * cleared in any case. */
void batch_request_read(batch_request *request, const char *line, size_t bytes,
                        const mcc_request_params *defaults);
void batch_request_clear(batch_request *request);

/* --- batch_results.c: the output -----------------------------------------------------------------
 */

/* Results are lines of JSON, each with the number of the request's line in the input, in the order
 * in which they were ready. A line is written by one append, and the rest of one that was cut off
 * is removed when the file is opened again: what is there is whole. */
typedef struct batch_results {
    const char *path;
    int fd;
    int64_t n_lines;             /* of the input */
    uint64_t *done;              /* [n_lines] hash of the id of the line's result; 0: it has none */
    int64_t n_before, n_written; /* results found, and added */
    int64_t n_errors;            /* of both, those that are errors */
} batch_results;

/* Opens it, or makes it, and reads what it has for an input of n_lines lines. EXIT_FINE, or
 * EXIT_FAILED after a message: it cannot be opened, another process writes it, or it is something
 * else. */
int batch_results_open(batch_results *results, const char *path, int64_t n_lines);
/* EXIT_FAILED, after a message, when what was written may not have reached the disk. */
int batch_results_close(batch_results *results);

/* Whether an input line has a result. */
bool batch_results_has(const batch_results *results, int64_t line);

/* Whether the result of a line that has one is of a request with this id (NULL: none): else the
 * input has changed. */
bool batch_results_fits(const batch_results *results, int64_t line, const cJSON *id);

/* Appends a result, whose "line" is set here, and frees it (NULL: memory was short). EXIT_FINE, or
 * EXIT_FAILED after a message. */
int batch_results_add(batch_results *results, int64_t line, cJSON *result);

#endif
