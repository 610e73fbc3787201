/* Chat templates: messages as JSON to the text that the model was trained on. */
#include "runtime/template/template.h"
#include "runtime/text.h"
#include "runtime/tokenizer/tokenizer.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rt_open_chat_template(mcc_artifact *a) {
    const rt_part *part = &a->parts[MCC_SECTION_TEMPLATE];
    if (part->bytes > 0)
        a->chat_template = rt_template_parse(part->data, part->bytes, a->chat_template_error,
                                             sizeof a->chat_template_error);
}

void rt_close_chat_template(mcc_artifact *a) {
    rt_template_free(a->chat_template);
    a->chat_template = NULL;
}

/* Adds a special token's text as a variable; models without the token have no such variable. */
static bool add_token(cJSON *context, const char *name, const rt_tokenizer *tokenizer, int32_t id) {
    size_t size;
    const char *text = id >= 0 ? rt_tokenizer_text(tokenizer, id, &size) : NULL;
    if (!text)
        return true;
    char *copy = malloc(size + 1);
    if (!copy)
        return false;
    memcpy(copy, text, size);
    copy[size] = 0;
    bool ok = cJSON_AddStringToObject(context, name, copy) != NULL;
    free(copy);
    return ok;
}

static bool check_messages(const cJSON *messages, rt_error *error) {
    if (!cJSON_IsArray(messages))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "messages are not a JSON array of {\"role\": ..., \"content\": ...}");
    int i = 0;
    for (const cJSON *m = messages->child; m; m = m->next, i++)
        if (!cJSON_IsObject(m) || !cJSON_IsString(cJSON_GetObjectItemCaseSensitive(m, "role")))
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "messages[%d] is not an object with a string \"role\"", i);
    return true;
}

/* The variables that transformers' apply_chat_template gives a template. Takes `messages`. */
static cJSON *make_context(const mcc_artifact *a, cJSON *messages, bool generation_prompt) {
    cJSON *context = cJSON_CreateObject();
    if (!context || !cJSON_AddItemToObject(context, "messages", messages)) {
        cJSON_Delete(messages);
        cJSON_Delete(context);
        return NULL;
    }
    bool ok = cJSON_AddBoolToObject(context, "add_generation_prompt", generation_prompt) &&
              cJSON_AddNullToObject(context, "tools") &&
              cJSON_AddNullToObject(context, "documents");
    if (ok && a->tokenizer)
        ok = add_token(context, "bos_token", a->tokenizer, rt_tokenizer_bos(a->tokenizer)) &&
             add_token(context, "eos_token", a->tokenizer, rt_tokenizer_eos(a->tokenizer)) &&
             add_token(context, "pad_token", a->tokenizer, rt_tokenizer_pad(a->tokenizer)) &&
             add_token(context, "unk_token", a->tokenizer, rt_tokenizer_unk(a->tokenizer));
    if (!ok) {
        cJSON_Delete(context);
        return NULL;
    }
    return context;
}

char *rt_render_messages(const mcc_artifact *a, const char *messages, uint64_t bytes,
                         bool generation_prompt, uint64_t *size, rt_error *error) {
    if (!a->chat_template) {
        rt_fail(error, MCC_UNSUPPORTED, "%s: %.400s", a->path,
                a->chat_template_error[0] ? a->chat_template_error
                : a->handle               ? "carries no chat template: give the prompt as text"
                            : "was opened with MCC_OPEN_INSPECT, which loads no template");
        return NULL;
    }
    cJSON *json = cJSON_ParseWithLength(messages, bytes ? bytes : strlen(messages));
    if (!check_messages(json, error)) {
        cJSON_Delete(json);
        return NULL;
    }
    cJSON *context = make_context(a, json, generation_prompt);
    if (!context) {
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for the messages");
        return NULL;
    }
    char text[RT_ERROR_TEXT];
    size_t length = 0;
    char *rendered = rt_template_render(a->chat_template, context, &length, text, sizeof text);
    cJSON_Delete(context);
    if (!rendered)
        rt_fail(error, MCC_INVALID_ARGUMENT, "%s", text);
    *size = length;
    return rendered;
}

mcc_status mcc_apply_chat_template(const mcc_artifact *a, const char *messages,
                                   uint64_t messages_bytes, uint32_t flags, char *text,
                                   uint64_t capacity, uint64_t *bytes, mcc_error *error) {
    rt_error e = {0};
    if (!a || !messages || !bytes || (capacity > 0 && !text) ||
        (flags & ~(uint32_t)MCC_TEXT_NO_GENERATION_PROMPT))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: artifact, messages, bytes, and text for the capacity must be set; "
                         "flags are MCC_TEXT_NO_GENERATION_PROMPT",
                         __func__);
    uint64_t size;
    char *rendered = rt_render_messages(a, messages, messages_bytes,
                                        !(flags & MCC_TEXT_NO_GENERATION_PROMPT), &size, &e);
    if (!rendered)
        return rt_report(&e, error);
    if (capacity > 0)
        memcpy(text, rendered, size < capacity ? size : capacity);
    free(rendered);
    return rt_hand_out_size(size, text, capacity, bytes, error);
}
