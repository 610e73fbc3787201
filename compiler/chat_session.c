#include "compiler/chat_session.h"
#include "compiler/command.h"
#include "compiler/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const mcc_error *error) {
    fprintf(stderr, "error: %s\n", error->text);
    return EXIT_FAILED;
}

/* Messages are an array of {"role": text, "content": text}. */
static bool are_messages(const cJSON *list) {
    const cJSON *message;
    cJSON_ArrayForEach(message, list) {
        if (!cJSON_IsString(cJSON_GetObjectItemCaseSensitive(message, "role")) ||
            !cJSON_IsString(cJSON_GetObjectItemCaseSensitive(message, "content")))
            return false;
    }
    return cJSON_IsArray(list);
}

int chat_session_load(mcc_engine *engine, const char *path, cJSON **messages) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_session s = {.struct_size = sizeof s};
    *messages = NULL;
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return EXIT_FINE;
    if (mcc_session_load(engine, path, &s, &error))
        return fail(&error);
    cJSON *list = cJSON_ParseWithLength(s.data, s.data_bytes);
    int code = EXIT_FINE;
    if (!are_messages(list)) {
        fprintf(stderr, "error: %s: a session, but not of a chat: its data are no messages\n",
                path);
        cJSON_Delete(list);
        code = EXIT_FAILED;
    } else {
        fprintf(stderr, "[%s: %d messages, %" PRId64 " tokens, %" PRId64 " of them computed]\n",
                path, cJSON_GetArraySize(list), s.n_ids, s.cached);
        *messages = list;
    }
    mcc_session_free(&s);
    return code;
}

/* The tokens that the next prompt will begin with. */
static int tokens_of(const mcc_artifact *artifact, const char *messages, int32_t **ids,
                     int64_t *n) {
    mcc_error error = {.struct_size = sizeof error};
    uint64_t bytes = 0;
    mcc_status status =
        mcc_apply_chat_template(artifact, messages, strlen(messages), MCC_TEXT_NO_GENERATION_PROMPT,
                                NULL, 0, &bytes, &error);
    if (status && status != MCC_BUFFER_TOO_SMALL)
        return fail(&error);
    char *text = malloc(bytes + 1);
    *ids = malloc((bytes + 1) * sizeof **ids); /* a token has a byte at least */
    int code = EXIT_FINE;
    if (!text || !*ids)
        code = output_fail_memory();
    else if (mcc_apply_chat_template(artifact, messages, strlen(messages),
                                     MCC_TEXT_NO_GENERATION_PROMPT, text, bytes + 1, &bytes,
                                     &error) ||
             mcc_tokenize(artifact, text, bytes, MCC_TEXT_PARSE_SPECIAL, *ids, (int64_t)bytes + 1,
                          n, &error))
        code = fail(&error);
    free(text);
    return code;
}

int chat_session_save(const mcc_artifact *artifact, mcc_engine *engine, const char *path,
                      const cJSON *messages) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    char *text = cJSON_PrintUnformatted(messages);
    int32_t *ids = NULL;
    int64_t n = 0;
    if (!text)
        return output_fail_memory();
    int code = EXIT_FINE;
    if (cJSON_GetArraySize(messages) > 0)
        code = tokens_of(artifact, text, &ids, &n);
    mcc_engine_get_stats(engine, &stats, NULL);
    mcc_session s = {.struct_size = sizeof s,
                     .ids = ids,
                     .n_ids = n < stats.max_model_len ? n : stats.max_model_len,
                     .data = text,
                     .data_bytes = strlen(text)};
    if (code == EXIT_FINE && mcc_session_save(engine, &s, path, &error))
        code = fail(&error);
    free(ids);
    free(text);
    return code;
}
