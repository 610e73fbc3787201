/* What `run`, `chat` and `batch` share: options of sampling, opening, and generating with streamed
 * text. Uses the engine only through runtime/modelcc.h. */
#ifndef MCC_COMPILER_GENERATE_H
#define MCC_COMPILER_GENERATE_H

#include "compiler/command.h"
#include "compiler/logprobs.h"
#include "compiler/speculative.h"
#include "runtime/modelcc.h"

#include <stdio.h>

enum { GENERATE_MAX_STOPS = 16, GENERATE_MAX_BIASES = 300 };

typedef struct generate_options {
    const char *artifact;
    const char *target; /* NULL: the best */
    const char *device; /* NULL: the CPU, or a GPU when the artifact is for those alone */
    int threads;        /* 0: as many as are useful */
    int64_t max_model_len;
    int max_num_batched_tokens;
    int max_num_seqs, max_num_waiting; /* 0: the engine's defaults; no options of run and chat */
    uint64_t swap_space_bytes;
    int32_t preemption_mode;        /* MCC_PREEMPT_ */
    bool many;                      /* max_num_seqs 0: what output_default_seqs says */
    uint64_t kv_cache_memory_bytes; /* the same */
    bool check, huge_pages;
    speculative_options speculative;
    mcc_request_params params; /* sampling and stops; the prompt is set by the caller */
    const char *stops[GENERATE_MAX_STOPS];
    int32_t bias_ids[GENERATE_MAX_BIASES];
    float biases[GENERATE_MAX_BIASES];
    const char *guided_file; /* that a field of params, guided_as, is to be read from … */
    const char **guided_as;
    char *guided; /* … and what is in it, for the command to free */
} generate_options;

/* getopt_long codes of the options below start here; a command's own are smaller. */
enum { GENERATE_FIRST = 1000 };
#define GENERATE_LONG_OPTIONS                                                                      \
    {"max-tokens", required_argument, NULL, 'n'}, {"threads", required_argument, NULL, 't'},       \
        {"temperature", required_argument, NULL, GENERATE_FIRST},                                  \
        {"top-k", required_argument, NULL, GENERATE_FIRST + 1},                                    \
        {"top-p", required_argument, NULL, GENERATE_FIRST + 2},                                    \
        {"min-p", required_argument, NULL, GENERATE_FIRST + 3},                                    \
        {"repetition-penalty", required_argument, NULL, GENERATE_FIRST + 4},                       \
        {"seed", required_argument, NULL, GENERATE_FIRST + 5},                                     \
        {"stop", required_argument, NULL, GENERATE_FIRST + 6},                                     \
        {"ignore-eos", no_argument, NULL, GENERATE_FIRST + 7},                                     \
        {"max-model-len", required_argument, NULL, GENERATE_FIRST + 8},                            \
        {"max-num-batched-tokens", required_argument, NULL, GENERATE_FIRST + 9},                   \
        {"target", required_argument, NULL, GENERATE_FIRST + 10},                                  \
        {"check", no_argument, NULL, GENERATE_FIRST + 11},                                         \
        {"huge-pages", no_argument, NULL, GENERATE_FIRST + 12},                                    \
        {"device", required_argument, NULL, GENERATE_FIRST + 13},                                  \
        {"num-speculative-tokens", required_argument, NULL, GENERATE_FIRST + 14},                  \
        {"draft", required_argument, NULL, GENERATE_FIRST + 15},                                   \
        {"speculative-config", required_argument, NULL, GENERATE_FIRST + 16},                      \
        {"presence-penalty", required_argument, NULL, GENERATE_FIRST + 17},                        \
        {"frequency-penalty", required_argument, NULL, GENERATE_FIRST + 18},                       \
        {"typical-p", required_argument, NULL, GENERATE_FIRST + 19},                               \
        {"guided-json", required_argument, NULL, GENERATE_FIRST + 21},                             \
        {"guided-regex", required_argument, NULL, GENERATE_FIRST + 22},                            \
        {"guided-grammar", required_argument, NULL, GENERATE_FIRST + 23}, {                        \
        "logit-bias", required_argument, NULL, GENERATE_FIRST + 20                                 \
    }
extern const char generate_help[];

void generate_defaults(generate_options *o);
/* Takes one option; EXIT_FINE, or EXIT_USAGE after a message. */
int generate_option(const char *command, generate_options *o, int option, const char *value);
/* Takes the value of --logprobs, of commands that print them. The same. */
int generate_logprobs_option(const char *command, generate_options *o, const char *value);

/* Once all options have been taken: reads the file with the schema or grammar, if there is one.
 * EXIT_FINE, or EXIT_FAILED after a message. */
int generate_read_guided(const char *command, generate_options *o);

/* A model that is ready to run. */
typedef struct generate_model {
    mcc_artifact *artifact, *draft; /* draft: NULL without a draft model */
    mcc_engine *engine;
} generate_model;

/* Opens the artifact, and a draft model, and makes an engine of them. EXIT_FINE or EXIT_FAILED,
 * after a message. Sets the num_speculative_tokens of o->params. */
int generate_open(generate_options *o, generate_model *model);
void generate_close(generate_model *model); /* zeroed or opened */

/* The outcome of one request. Arrays are malloc'ed. */
typedef struct generation {
    int32_t *ids;
    int64_t n_ids;
    char *text; /* zero-terminated */
    uint64_t text_bytes;
    int32_t *prompt_ids;
    int64_t n_prompt_ids;
    mcc_status status; /* of submitting it: MCC_CAPACITY when the prompt does not fit */
    int finish_reason; /* MCC_FINISH_ */
    int64_t prompt_tokens, cached_tokens;
    logprobs logprobs; /* where the parameters ask for them */
    double prefill_seconds, decode_seconds;
} generation;

void generation_free(generation *g);

/* Runs o->params with the prompt that it names. Text goes to `stream` as it comes (NULL: nowhere).
 * Ctrl-C, or a stream that cannot be written, ends it with MCC_FINISH_CANCELLED. */
int generate(mcc_engine *engine, const mcc_request_params *params, FILE *stream, generation *out);

/* "stop", "length", "cancelled", "error", "deadline" */
const char *generate_finish_name(int reason);

#endif
