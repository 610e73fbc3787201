#include "compiler/frontend/json.h"

#include <stdlib.h>
#include <string.h>

enum { most_values = 4000000 };

/* Every value but the first follows one of these characters, so their number bounds what cJSON
 * will allocate. */
static size_t count_values(fe_bytes text) {
    size_t count = 1;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        count += c == ',' || c == '[' || c == '{';
    }
    return count;
}

cJSON *fe_json_parse(fe_bytes text, const char *file, size_t base, ir_diag *diag) {
    size_t values = count_values(text);
    if (values > most_values) {
        ir_error(diag, file, "holds up to %zu JSON values, expected at most %d", values,
                 most_values);
        return NULL;
    }
    /* cJSON before 1.7.18 can look one byte past the end, so it gets a copy that ends in NUL. */
    char *copy = malloc(text.size + 1);
    if (!copy) {
        ir_error(diag, file, "out of memory for %zu bytes of JSON", text.size);
        return NULL;
    }
    if (text.size)
        memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    const char *end = copy;
    cJSON *root = cJSON_ParseWithLengthOpts(copy, text.size + 1, &end, false);
    size_t at = (size_t)(end - copy);
    bool complete = root && cJSON_IsObject(root);
    while (complete && at < text.size && strchr(" \t\r\n", copy[at]) && copy[at])
        at++;
    if (!complete || at != text.size) {
        ir_error(diag, file,
                 root && !cJSON_IsObject(root) ? "is not a JSON object at offset %zu"
                                               : "is not valid JSON near offset %zu",
                 base + (root && !cJSON_IsObject(root) ? 0 : at));
        cJSON_Delete(root);
        root = NULL;
    }
    free(copy);
    return root;
}

const cJSON *fe_json_member(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

bool fe_json_to_int(const cJSON *item, int64_t *value) {
    const double limit = 9007199254740992.0; /* 2^53 */
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= -limit && item->valuedouble <= limit) ||
        item->valuedouble != (double)(int64_t)item->valuedouble)
        return false;
    *value = (int64_t)item->valuedouble;
    return true;
}

bool fe_json_int(const cJSON *object, const char *key, int64_t *value, const char *file,
                 ir_diag *diag) {
    const cJSON *item = fe_json_member(object, key);
    if (!item)
        return false;
    return fe_json_to_int(item, value) || ir_error(diag, file, "\"%s\" is not an integer", key);
}

bool fe_json_float(const cJSON *object, const char *key, double *value, const char *file,
                   ir_diag *diag) {
    const cJSON *item = fe_json_member(object, key);
    if (!item)
        return false;
    if (!cJSON_IsNumber(item))
        return ir_error(diag, file, "\"%s\" is not a number", key);
    *value = item->valuedouble;
    return true;
}

bool fe_json_bool(const cJSON *object, const char *key, bool *value, const char *file,
                  ir_diag *diag) {
    const cJSON *item = fe_json_member(object, key);
    if (!item)
        return false;
    if (!cJSON_IsBool(item))
        return ir_error(diag, file, "\"%s\" is not true or false", key);
    *value = cJSON_IsTrue(item);
    return true;
}

bool fe_json_string(const cJSON *object, const char *key, const char **value, const char *file,
                    ir_diag *diag) {
    const cJSON *item = fe_json_member(object, key);
    if (!item)
        return false;
    if (!cJSON_IsString(item))
        return ir_error(diag, file, "\"%s\" is not a string", key);
    *value = item->valuestring;
    return true;
}
