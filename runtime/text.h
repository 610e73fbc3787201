/* The text side of an open artifact, shared by the public functions and requests. */
#ifndef MCC_RUNTIME_TEXT_H
#define MCC_RUNTIME_TEXT_H

#include "runtime/loader.h"

/* False, with an error, when the artifact has no tokenizer. */
bool rt_need_tokenizer(const mcc_artifact *artifact, rt_error *error);

/* Parses the chat template, if there is one; why it cannot be used is kept for when it is. */
void rt_open_chat_template(mcc_artifact *artifact);
void rt_close_chat_template(mcc_artifact *artifact);

/* Renders a JSON array of messages with the chat template. Returns malloc'ed, zero-terminated text
 * and its length, or NULL with an error. */
char *rt_render_messages(const mcc_artifact *artifact, const char *messages, uint64_t bytes,
                         bool generation_prompt, uint64_t *size, rt_error *error);

/* Ends a function that stored `size` bytes, as many as fit, in a caller's buffer. */
mcc_status rt_hand_out_size(uint64_t size, char *text, uint64_t capacity, uint64_t *bytes,
                            mcc_error *error);

#endif
