/* How commands print what they found: JSON, sizes, text that an artifact carries, errors; and how
 * they take token ids. */
#ifndef MCC_COMPILER_OUTPUT_H
#define MCC_COMPILER_OUTPUT_H

#include "compiler/command.h"
#include "runtime/modelcc.h"

#include <cJSON.h>
#include <stdint.h>
#include <stdio.h>

/* Print "error: …" on standard error and return EXIT_FAILED. */
int output_fail(const mcc_error *error);
int output_fail_memory(void);

/* Prints an object and frees it. EXIT_FINE, or EXIT_FAILED after a message when memory is short. */
int output_json(cJSON *json);
/* As one line. */
int output_json_line(cJSON *json);

/* "1.5 MB" into `text`; returns it. */
char *output_bytes(uint64_t bytes, char text[24]);

/* Sequences at the same time, where throughput counts and nobody has said how many: on a real GPU
 * a step costs nearly the same for many. At most the tokens of a step, where those are given (0:
 * not). */
int32_t output_default_seqs(const mcc_artifact *artifact, const char *device, int32_t batched);

/* Writes text of a file on one line: control characters become '?'. NULL is written as "". */
void output_clean(const char *text, FILE *out);

/* A list of measurements: its median, least and largest. Sorts a copy; n is at least 1. */
typedef struct output_spread {
    double median, least, most;
} output_spread;
output_spread output_spread_of(const double *samples, int n);

/* Token ids of a JSON array of whole numbers from 0; malloc'ed, NULL when it is no such array or
 * memory is short. An empty list is allowed. */
int32_t *output_take_ids(const cJSON *list, int64_t *n);
/* The same from "1,2,3" or "[1, 2, 3]". */
int32_t *output_parse_ids(const char *text, int64_t *n);
/* The other way: an array, also of none. NULL when memory is short. */
cJSON *output_ids(const int32_t *ids, int64_t n);
/* Those of a text, by the artifact's tokenizer; flags are mcc_tokenize's. NULL with *error filled.
 */
int32_t *output_tokenize(const mcc_artifact *artifact, const char *text, uint64_t bytes,
                         uint32_t flags, int64_t *n, mcc_error *error);

#endif
