#include "compiler/logprobs.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

bool logprobs_wanted(const mcc_request_params *p) {
    return (p->flags & MCC_REQUEST_LOGPROBS) || p->top_logprobs > 0;
}

bool logprobs_add(logprobs *l, const mcc_event *event) {
    size_t each = 1 + (size_t)l->n_top;
    if (l->n == l->capacity) {
        int64_t capacity = 2 * l->capacity + 16;
        mcc_logprob *grown = realloc(l->list, (size_t)capacity * each * sizeof *grown);
        if (!grown)
            return false;
        l->list = grown;
        l->capacity = capacity;
    }
    mcc_logprob *to = l->list + (size_t)l->n++ * each;
    to[0] = (mcc_logprob){event->token_id, event->logprob};
    for (int32_t i = 0; i < l->n_top; i++)
        to[1 + i] =
            i < event->n_top_logprobs ? event->top_logprobs[i] : (mcc_logprob){.token_id = -1};
    return true;
}

void logprobs_free(logprobs *l) {
    free(l->list);
    *l = (logprobs){0};
}

/* --- JSON ----------------------------------------------------------------------------------------
 */

/* Bytes of the whole UTF-8 character (RFC 3629, section 4) that p begins with; 0: it is none. */
static size_t character(const uint8_t *p, size_t n) {
    size_t size = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
    if (size == 0 || size > n)
        return 0;
    uint32_t code = size == 1 ? *p : *p & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return code < least[size] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : size;
}

/* A token may be a part of a character, or hold the character 0, which texts of JSON here cannot:
 * such bytes become U+FFFD. "bytes" has them as they are. */
static bool add_text(cJSON *j, const char *piece, size_t n) {
    char *text = malloc(3 * n + 1);
    if (!text)
        return false;
    size_t at = 0;
    for (size_t i = 0; i < n;) {
        size_t size = character((const uint8_t *)piece + i, n - i);
        bool whole = size > 0 && piece[i];
        memcpy(text + at, whole ? piece + i : "\xef\xbf\xbd", whole ? size : 3);
        at += whole ? size : 3;
        i += whole ? size : 1;
    }
    text[at] = '\0';
    cJSON *bytes = NULL;
    bool ok =
        cJSON_AddStringToObject(j, "token", text) && (bytes = cJSON_AddArrayToObject(j, "bytes"));
    for (size_t i = 0; i < n && ok; i++)
        ok = cJSON_AddItemToArray(bytes, cJSON_CreateNumber((uint8_t)piece[i]));
    free(text);
    return ok;
}

/* Frees it when memory is short. */
static cJSON *describe(const mcc_logprob *token, const mcc_artifact *artifact) {
    const char *piece;
    uint64_t bytes;
    cJSON *j = cJSON_CreateObject();
    bool ok = j != NULL;
    if (mcc_token_text(artifact, token->token_id, &piece, &bytes, NULL) == MCC_OK)
        ok = ok && add_text(j, piece, bytes);
    ok = ok && cJSON_AddNumberToObject(j, "token_id", token->token_id) &&
         cJSON_AddNumberToObject(j, "logprob", (double)token->logprob);
    if (ok)
        return j;
    cJSON_Delete(j);
    return NULL;
}

cJSON *logprobs_json(const logprobs *l, const mcc_artifact *artifact) {
    cJSON *j = cJSON_CreateObject(), *content = cJSON_AddArrayToObject(j, "content");
    bool ok = content != NULL;
    for (int64_t i = 0; i < l->n && ok; i++) {
        const mcc_logprob *at = l->list + i * (1 + l->n_top);
        cJSON *token = describe(at, artifact), *top = NULL;
        ok = cJSON_AddItemToArray(content, token) &&
             (top = cJSON_AddArrayToObject(token, "top_logprobs"));
        for (int32_t k = 1; k <= l->n_top && ok && at[k].token_id >= 0; k++)
            ok = cJSON_AddItemToArray(top, describe(&at[k], artifact));
    }
    if (ok)
        return j;
    cJSON_Delete(j);
    return NULL;
}
