/* Text and token ids: the tokenizer in an artifact, as modelcc.h offers it. */
#include "runtime/text.h"

#include "runtime/tokenizer/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool rt_open_text(mcc_artifact *a, rt_error *error) {
    const rt_part *part = &a->parts[MCC_SECTION_TOKENIZER];
    if (part->bytes > 0) {
        rt_error e = {0};
        a->tokenizer = rt_tokenizer_open(part->data, part->bytes, &e);
        if (!a->tokenizer)
            return rt_fail(error, e.code ? e.code : MCC_BAD_ARTIFACT, "%s: tokenizer: %.400s",
                           a->path, e.text);
    }
    rt_open_chat_template(a);
    return true;
}

void rt_close_text(mcc_artifact *a) {
    rt_close_chat_template(a);
    rt_tokenizer_close(a->tokenizer);
    a->tokenizer = NULL;
}

bool rt_need_tokenizer(const mcc_artifact *a, rt_error *error) {
    return a->tokenizer ||
           rt_fail(error, MCC_UNSUPPORTED, "%s: %s", a->path,
                   a->handle ? "carries no tokenizer: use token ids"
                             : "was opened with MCC_OPEN_INSPECT, which loads no tokenizer");
}

mcc_status mcc_tokenize(const mcc_artifact *a, const char *text, uint64_t text_bytes,
                        uint32_t flags, int32_t *ids, int64_t capacity, int64_t *n,
                        mcc_error *error) {
    rt_error e = {0};
    if (!a || !text || !n || capacity < 0 || (capacity > 0 && !ids) ||
        (flags & ~(uint32_t)(MCC_TEXT_ADD_SPECIAL | MCC_TEXT_PARSE_SPECIAL)))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: artifact, text, n, and ids for the capacity must be set; flags are "
                         "MCC_TEXT_ADD_SPECIAL and MCC_TEXT_PARSE_SPECIAL",
                         __func__);
    if (!rt_need_tokenizer(a, &e))
        return rt_report(&e, error);
    unsigned tokenizer_flags = (flags & MCC_TEXT_ADD_SPECIAL ? RT_TOKENIZER_ADD_SPECIAL : 0) |
                               (flags & MCC_TEXT_PARSE_SPECIAL ? RT_TOKENIZER_PARSE_SPECIAL : 0);
    *n = rt_tokenizer_encode(a->tokenizer, text, text_bytes ? text_bytes : strlen(text),
                             tokenizer_flags, ids, capacity, &e);
    if (*n < 0)
        return rt_report(&e, error);
    if (*n > capacity)
        return rt_refuse(error, MCC_BUFFER_TOO_SMALL,
                         "%" PRId64 " token ids, but room for %" PRId64, *n, capacity);
    return MCC_OK;
}

mcc_status mcc_token_text(const mcc_artifact *a, int32_t id, const char **text, uint64_t *bytes,
                          mcc_error *error) {
    rt_error e = {0};
    size_t size;
    if (!a || !text || !bytes)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: artifact, text and bytes must be set",
                         __func__);
    if (!rt_need_tokenizer(a, &e))
        return rt_report(&e, error);
    const char *piece = rt_tokenizer_piece(a->tokenizer, id, &size);
    if (!piece)
        return rt_refuse(error, MCC_NOT_FOUND, "the vocabulary has no token %" PRId32, id);
    *text = piece;
    *bytes = size;
    return MCC_OK;
}

mcc_status mcc_detokenize(const mcc_artifact *a, const int32_t *ids, int64_t n, uint32_t flags,
                          char *text, uint64_t capacity, uint64_t *bytes, mcc_error *error) {
    rt_error e = {0};
    if (!a || n < 0 || (n > 0 && !ids) || !bytes || (capacity > 0 && !text) ||
        capacity > INT64_MAX || (flags & ~(uint32_t)MCC_TEXT_SKIP_SPECIAL))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: artifact, ids, bytes, and text for the capacity must be set; flags "
                         "are MCC_TEXT_SKIP_SPECIAL",
                         __func__);
    if (!rt_need_tokenizer(a, &e))
        return rt_report(&e, error);
    int64_t size = rt_tokenizer_decode(
        a->tokenizer, ids, n, flags & MCC_TEXT_SKIP_SPECIAL ? RT_TOKENIZER_SKIP_SPECIAL : 0, text,
        (int64_t)capacity, &e);
    if (size < 0) {
        e.code = e.code ? e.code : MCC_INVALID_ARGUMENT;
        return rt_report(&e, error);
    }
    return rt_hand_out_size((uint64_t)size, text, capacity, bytes, error);
}

mcc_status rt_hand_out_size(uint64_t size, char *text, uint64_t capacity, uint64_t *bytes,
                            mcc_error *error) {
    *bytes = size;
    if (size > capacity)
        return rt_refuse(error, MCC_BUFFER_TOO_SMALL,
                         "%" PRIu64 " bytes of text, but room for %" PRIu64, size, capacity);
    if (size < capacity)
        text[size] = 0;
    return MCC_OK;
}
