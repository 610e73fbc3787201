/* Log-probabilities of a request's tokens, as they come, and as JSON in the form of OpenAI's chat
 * completions: {"content": [{"token", "token_id", "logprob", "bytes", "top_logprobs": […]}, …]}. */
#ifndef MCC_COMPILER_LOGPROBS_H
#define MCC_COMPILER_LOGPROBS_H

#include "runtime/modelcc.h"

#include <cJSON.h>
#include <stdbool.h>

typedef struct logprobs {
    mcc_logprob *list; /* [n][1 + n_top]: the token, then the most probable ones of its place, as
                          many as there are, then the token -1; malloc'ed */
    int64_t n, capacity;
    int32_t n_top;
} logprobs;

/* For events of a request with these parameters. Whether it has log-probabilities. */
bool logprobs_wanted(const mcc_request_params *params);

/* Adds a token's event, n_top being set before the first. False when memory is short. */
bool logprobs_add(logprobs *logprobs, const mcc_event *event);

/* Without a tokenizer in the artifact, "token" and "bytes" are left out. NULL when memory is short.
 */
cJSON *logprobs_json(const logprobs *logprobs, const mcc_artifact *artifact);

void logprobs_free(logprobs *logprobs);

#endif
