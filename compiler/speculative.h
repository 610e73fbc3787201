/* --speculative-config and --draft: how tokens are drafted. */
#ifndef MCC_COMPILER_SPECULATIVE_H
#define MCC_COMPILER_SPECULATIVE_H

#include "compiler/command.h"
#include "runtime/modelcc.h"

#include <cJSON.h>

enum { SPECULATIVE_MAX = MCC_MAX_DRAFT, SPECULATIVE_DEFAULT = 8, SPECULATIVE_MAX_PATH = 4096 };

typedef struct speculative_options {
    char model[SPECULATIVE_MAX_PATH]; /* the draft model's file; "": prompt lookup */
    int32_t n;                        /* num_speculative_tokens; 0: none, -1: not said */
    int32_t prompt_lookup_min, prompt_lookup_max;
    bool rejection; /* rejection_sample_method is probabilistic */
    bool always;    /* as many as may be, whether it pays or not */
} speculative_options;

extern const char speculative_help[];

void speculative_defaults(speculative_options *o);
/* Take the value of an option. EXIT_FINE, or EXIT_USAGE after a message. */
int speculative_config(const char *command, const char *json, speculative_options *o);
int speculative_draft(const char *command, const char *path, speculative_options *o);
int speculative_tokens(const char *command, const char *number, speculative_options *o);

/* The num_speculative_tokens of requests. */
int32_t speculative_count(const speculative_options *o);

/* Opens the draft model, if there is one, with the given options, and sets what the engine needs.
 * EXIT_FINE or EXIT_FAILED, after a message. The caller closes *draft after the engine. */
int speculative_open(const speculative_options *o, const mcc_artifact_options *options,
                     mcc_engine_options *engine, mcc_artifact **draft);

/* What became of drafts: adds draft_tokens and accepted_tokens, and both by position in the draft.
 */
void speculative_report(const mcc_engine_stats *stats, cJSON *to);
/* The same as a line of a table, none without drafts: how many of them were accepted, and at each
 * position of those that were drafted there. */
void speculative_print(const mcc_engine_stats *stats);

#endif
