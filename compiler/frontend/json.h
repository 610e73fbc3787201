/* JSON files of a model, read with cJSON behind bounds of our own. */
#ifndef MCC_FRONTEND_JSON_H
#define MCC_FRONTEND_JSON_H

#include <cjson/cJSON.h>

#include "compiler/frontend/file.h"

/* Parses one JSON object; `file` names it in messages and `base` is the offset in that file at
 * which the text begins. Refused: more than 4 million values (a bound on memory), nesting deeper
 * than cJSON's limit, anything but white space after the object. The caller frees the result with
 * cJSON_Delete. */
cJSON *fe_json_parse(fe_bytes text, const char *file, size_t base, ir_diag *diag);

/* Reads members of an object. Each returns true when the member is there with a fitting value. When
 * it is absent or null they return false and leave `value` alone; when it has another type they
 * also report an error that names `file` and the key. `object` may be NULL: everything is absent.
 */
bool fe_json_int(const cJSON *object, const char *key, int64_t *value, const char *file,
                 ir_diag *diag);
bool fe_json_float(const cJSON *object, const char *key, double *value, const char *file,
                   ir_diag *diag);
bool fe_json_bool(const cJSON *object, const char *key, bool *value, const char *file,
                  ir_diag *diag);
/* The string is cJSON's and lives as long as the object. */
bool fe_json_string(const cJSON *object, const char *key, const char **value, const char *file,
                    ir_diag *diag);

/* The member with this key, or NULL when it is absent or null. */
const cJSON *fe_json_member(const cJSON *object, const char *key);

/* True for a number that is an integer within ±2^53, which a JSON number holds exactly. */
bool fe_json_to_int(const cJSON *item, int64_t *value);

#endif
