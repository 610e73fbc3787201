/* Conversations in files: messages, and what the KV cache has of them. */
#ifndef MCC_COMPILER_CHAT_SESSION_H
#define MCC_COMPILER_CHAT_SESSION_H

#include "runtime/modelcc.h"

#include <cjson/cJSON.h>

/* Reads a file that chat_session_save wrote. Where there is none, *messages becomes NULL; else the
 * caller deletes it. An exit code; what went wrong has been printed. */
int chat_session_load(mcc_engine *engine, const char *path, cJSON **messages);

/* Writes it. An exit code. */
int chat_session_save(const mcc_artifact *artifact, mcc_engine *engine, const char *path,
                      const cJSON *messages);

#endif
