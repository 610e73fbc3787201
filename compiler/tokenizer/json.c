#include "compiler/tokenizer/json.h"

#include <string.h>

#include "runtime/tokenizer/utf8.h"

/* U+0000 in the form that Java and Tcl use: no valid UTF-8 has these bytes. */
#define NUL_FORM "\xc0\x80"

/* Copies the text, with every \u0000 escape rewritten. */
static char *hide_nuls(ir_arena *arena, const char *text, size_t *size) {
    char *out = ir_arena_alloc(arena, *size + 1);
    size_t length = 0;
    for (size_t i = 0; i < *size; i++) {
        if (text[i] != '\\' || i + 1 >= *size) {
            out[length++] = text[i];
        } else if (*size - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0) {
            memcpy(out + length, NUL_FORM, 2);
            length += 2;
            i += 5;
        } else { /* an escaped backslash must not begin another escape */
            out[length++] = text[i++];
            out[length++] = text[i];
        }
    }
    *size = length;
    return out;
}

cJSON *fe_tok_json_parse(fe_tok *tok, const char *what, const char *text, size_t size) {
    if (size == 0) {
        ir_error(tok->diag, tok->where, "%s is empty", what);
        return NULL;
    }
    if (!rt_utf8_valid(text, size)) {
        ir_error(tok->diag, tok->where, "%s is not valid UTF-8", what);
        return NULL;
    }
    if (memmem(text, size, "\\u0000", 6))
        text = hide_nuls(tok->arena, text, &size);
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, size, &end, false);
    if (!root) {
        size_t at = end >= text && end <= text + size ? (size_t)(end - text) : 0;
        ir_error(tok->diag, tok->where, "%s is not valid JSON near byte %zu", what, at);
        return NULL;
    }
    if (!cJSON_IsObject(root)) {
        ir_error(tok->diag, tok->where, "%s is not a JSON object", what);
        cJSON_Delete(root);
        return NULL;
    }
    return root;
}

fe_bytes fe_tok_json_bytes(fe_tok *tok, const cJSON *item) {
    return fe_tok_json_text(tok, cJSON_GetStringValue(item));
}

fe_bytes fe_tok_json_text(fe_tok *tok, const char *text) {
    if (!text)
        return (fe_bytes){(const uint8_t *)"", 0};
    size_t size = strlen(text), length = 0;
    char *out = ir_arena_alloc(tok->arena, size + 1);
    for (size_t i = 0; i < size; i++) {
        if (i + 1 < size && memcmp(text + i, NUL_FORM, 2) == 0) {
            out[length++] = 0;
            i++;
        } else {
            out[length++] = text[i];
        }
    }
    return (fe_bytes){(const uint8_t *)out, length};
}

bool fe_tok_json_string(fe_tok *tok, const cJSON *object, const char *what, const char *key,
                        fe_bytes *out) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    *out = fe_tok_json_bytes(tok, item);
    if (!cJSON_IsString(item))
        return ir_error(tok->diag, tok->where, "%s has no string \"%s\"", what, key);
    return true;
}

bool fe_tok_json_flag(fe_tok *tok, const cJSON *object, const char *what, const char *key,
                      bool missing) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item || cJSON_IsNull(item))
        return missing;
    if (!cJSON_IsBool(item))
        ir_error(tok->diag, tok->where, "\"%s\" of %s is neither true nor false", key, what);
    return cJSON_IsTrue(item);
}

const char *fe_tok_json_type(fe_tok *tok, const cJSON *object, const char *what) {
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "type"));
    if (!type)
        ir_error(tok->diag, tok->where, "%s has no \"type\"", what);
    return type ? type : "";
}

int64_t fe_tok_json_index(const cJSON *item, int64_t limit) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > (double)limit)
        return -1;
    int64_t value = (int64_t)item->valuedouble;
    return (double)value == item->valuedouble ? value : -1;
}
