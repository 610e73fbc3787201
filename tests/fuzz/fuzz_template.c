/* Chat templates and contexts from fuzzed bytes: a template, a NUL (or the middle), JSON. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "runtime/template/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size / 2, rest = nul ? n + 1 : n;
    char err[128];
    rt_template *t = rt_template_parse((const char *)data, n, err, sizeof err);
    if (!t)
        return 0;
    cJSON *context = cJSON_ParseWithLength((const char *)data + rest, size - rest);
    if (!cJSON_IsObject(context)) { /* then the template still gets a conversation */
        cJSON_Delete(context);
        context =
            cJSON_Parse("{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": "
                        "\"assistant\", \"content\": \"ho\"}], \"add_generation_prompt\": "
                        "true, \"n\": 3, \"f\": 2.5, \"d\": {\"k\": [1, \"é\", null]}}");
    }
    size_t len;
    char *text = rt_template_render(t, context, &len, err, sizeof err);
    if (text && text[len] != 0)
        abort(); /* the fuzzer's way to report */
    free(text);
    cJSON_Delete(context);
    rt_template_free(t);
    return 0;
}
