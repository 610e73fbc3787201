/* What is in an artifact, as a table and as JSON. Reads it only through runtime/modelcc.h. */
#ifndef MCC_COMPILER_INSPECT_H
#define MCC_COMPILER_INSPECT_H

#include "compiler/output.h"
#include "runtime/modelcc.h"

typedef struct inspect_options {
    bool weights, launches; /* the table lists each of them */
    bool check;             /* the weights' hashes have been compared, and fit */
    bool json;
} inspect_options;

void inspect_print(const mcc_artifact *artifact, const char *path, const inspect_options *o);
/* Everything, each weight and launch too. The caller frees it. */
cJSON *inspect_json(const mcc_artifact *artifact, const inspect_options *o);

/* --- what both show ------------------------------------------------------------------------------
 */

/* Weights that have one encoding: "q4_1@n16". */
typedef struct inspect_encoding {
    char name[48];
    int tensors;
    uint64_t bytes;
} inspect_encoding;

enum { INSPECT_MAX_ENCODINGS = 32 };
/* Fills at most INSPECT_MAX_ENCODINGS, the last one standing for the rest; returns how many. */
int inspect_encodings(const mcc_artifact *artifact, inspect_encoding list[INSPECT_MAX_ENCODINGS]);

/* Activation memory of a step: fixed + token*T + sequence*S + row*R bytes. */
typedef struct inspect_arena {
    uint64_t fixed, token, sequence, row;
} inspect_arena;
inspect_arena inspect_arena_of(const mcc_artifact *artifact);

/* SHA-256 over the weights' SHA-256s in order: one hash that names the weights, as hex. */
void inspect_weights_hash(const mcc_artifact *artifact, char hex[65]);

/* The manifest, parsed; NULL when there is none. The caller frees it. */
cJSON *inspect_manifest(const mcc_artifact *artifact);

#endif
