#include "compiler/batch.h"
#include "compiler/output.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool wrong(batch_request *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool wrong(batch_request *r, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(r->error, sizeof r->error, format, args);
    va_end(args);
    return false;
}

/* --- values of fields ----------------------------------------------------------------------------
 */

/* Numbers that JSON holds exactly, and below which cJSON writes them so. */
static const double max_exact = 9007199254740991.0, max_exact_id = 1e15;

static bool whole(batch_request *r, const cJSON *field, double min, double max, int64_t *out) {
    double x = field->valuedouble;
    if (!cJSON_IsNumber(field) || x != floor(x) || x < min || x > max)
        return wrong(r, "%s: expected a whole number from %.0f to %.0f", field->string, min, max);
    *out = (int64_t)x;
    return true;
}

static bool real(batch_request *r, const cJSON *field, float *out) {
    if (!cJSON_IsNumber(field) || !isfinite(field->valuedouble))
        return wrong(r, "%s: expected a number", field->string);
    *out = (float)field->valuedouble;
    return true;
}

/* Of parameters whose 0 would be taken for the default. */
static bool positive(batch_request *r, const cJSON *field, float *out) {
    return real(r, field, out) &&
           (*out > 0 || wrong(r, "%s: expected a number above 0", field->string));
}

/* Results repeat it. */
static bool id(batch_request *r, const cJSON *field) {
    if (cJSON_IsNumber(field) && !(fabs(field->valuedouble) < max_exact_id))
        return wrong(r, "id: a number of more than 15 digits would be rounded: make it a text");
    return cJSON_IsString(field) || cJSON_IsNumber(field) ||
           wrong(r, "id: expected text or a number");
}

static bool flag(batch_request *r, const cJSON *field, uint32_t bit) {
    if (!cJSON_IsBool(field))
        return wrong(r, "%s: expected true or false", field->string);
    r->params.flags = cJSON_IsTrue(field) ? r->params.flags | bit : r->params.flags & ~bit;
    return true;
}

static bool prompt(batch_request *r, const cJSON *field) {
    if (cJSON_IsString(field)) {
        r->params.prompt = field->valuestring;
        return true;
    }
    r->prompt_ids = cJSON_IsArray(field) ? output_take_ids(field, &r->params.n_prompt_ids) : NULL;
    r->params.prompt_ids = r->prompt_ids;
    return r->prompt_ids || wrong(r, "prompt: expected text or a list of token ids");
}

static bool messages(batch_request *r, const cJSON *field) {
    if (!cJSON_IsArray(field))
        return wrong(r, "messages: expected a list of {\"role\": …, \"content\": …}");
    r->messages = cJSON_PrintUnformatted(field);
    r->params.messages = r->messages;
    return r->messages || wrong(r, "out of memory");
}

static bool stops(batch_request *r, const cJSON *field) {
    const cJSON *one = cJSON_IsArray(field) ? field->child : field;
    r->params.n_stop = 0;
    r->params.stop = r->stops;
    for (; one; one = cJSON_IsArray(field) ? one->next : NULL) {
        if (!cJSON_IsString(one) || r->params.n_stop == BATCH_MAX_STOPS)
            return wrong(r, "stop: expected a text, or a list of at most %d", BATCH_MAX_STOPS);
        r->stops[r->params.n_stop++] = one->valuestring;
    }
    return true;
}

static bool stop_ids(batch_request *r, const cJSON *field) {
    int64_t n = 0;
    int32_t *ids = cJSON_IsArray(field) ? output_take_ids(field, &n) : NULL;
    bool ok = ids && n <= BATCH_MAX_STOPS;
    if (ok) {
        memcpy(r->stop_ids, ids, (size_t)n * sizeof *ids);
        r->params.stop_token_ids = r->stop_ids;
        r->params.n_stop_token_ids = (int32_t)n;
    }
    free(ids);
    return ok || wrong(r, "stop_token_ids: expected a list of at most %d", BATCH_MAX_STOPS);
}

/* {"TOKEN ID": BIAS, …}, as OpenAI and vLLM take it; ids are checked by the engine. */
static bool logit_bias(batch_request *r, const cJSON *field) {
    int n = cJSON_IsObject(field) ? cJSON_GetArraySize(field) : 0;
    const cJSON *one;
    r->bias_ids = malloc(((size_t)n + 1) * sizeof *r->bias_ids);
    r->biases = malloc(((size_t)n + 1) * sizeof *r->biases);
    if (!r->bias_ids || !r->biases)
        return wrong(r, "out of memory");
    r->params.logit_bias_ids = r->bias_ids;
    r->params.logit_bias = r->biases;
    r->params.n_logit_bias = 0;
    cJSON_ArrayForEach(one, field) {
        long long id;
        if (!cJSON_IsObject(field) || !command_number(one->string, 0, INT32_MAX, &id) ||
            !cJSON_IsNumber(one) || !(fabs(one->valuedouble) <= 100))
            return wrong(r, "logit_bias: \"%.40s\": expected token ids with biases of -100 to 100",
                         one->string ? one->string : "");
        r->bias_ids[r->params.n_logit_bias] = (int32_t)id;
        r->biases[r->params.n_logit_bias++] = (float)one->valuedouble;
    }
    return cJSON_IsObject(field) || wrong(r, "logit_bias: expected {\"TOKEN ID\": BIAS, …}");
}

/* true or false as in OpenAI's chat completions, beside top_logprobs; or that number itself. */
static bool take_logprobs(batch_request *r, const cJSON *field) {
    int64_t n = 0;
    if (cJSON_IsBool(field)) {
        r->params.top_logprobs = cJSON_IsTrue(field) ? r->params.top_logprobs : 0;
        return flag(r, field, MCC_REQUEST_LOGPROBS);
    }
    if (!cJSON_IsNumber(field))
        return wrong(r, "logprobs: expected true, false or a number of top_logprobs");
    r->params.flags |= MCC_REQUEST_LOGPROBS;
    bool ok = whole(r, field, 0, MCC_MAX_TOP_LOGPROBS, &n);
    r->params.top_logprobs = (int32_t)n;
    return ok;
}

/* --- structured output ---------------------------------------------------------------------------
 */

/* Where a line has one of these, those of the command line are not its. */
static bool guided(batch_request *r, const cJSON *field, const char **at, const char *expected) {
    if (r->guided)
        return wrong(r, "%s: there is another guided_… already", field->string);
    r->params.guided_json = r->params.guided_regex = r->params.guided_grammar = NULL;
    r->guided = cJSON_IsString(field) ? cJSON_malloc(strlen(field->valuestring) + 1)
                                      : cJSON_PrintUnformatted(field);
    if (!r->guided)
        return wrong(r, "out of memory");
    if (cJSON_IsString(field))
        strcpy(r->guided, field->valuestring);
    else if (at != &r->params.guided_json)
        return wrong(r, "%s: expected %s", field->string, expected);
    *at = r->guided;
    return true;
}

/* A regular expression of texts, each as it is. */
static bool choice(batch_request *r, const cJSON *field) {
    size_t size = 1;
    if (r->guided)
        return wrong(r, "%s: there is another guided_… already", field->string);
    for (const cJSON *c = cJSON_IsArray(field) ? field->child : NULL; c; c = c->next)
        size += cJSON_IsString(c) ? 2 * strlen(c->valuestring) + 1 : 0;
    char *p = r->guided = cJSON_malloc(size);
    if (!p)
        return wrong(r, "out of memory");
    for (const cJSON *c = cJSON_IsArray(field) ? field->child : NULL; c; c = c->next) {
        if (!cJSON_IsString(c))
            return wrong(r, "guided_choice: expected a list of texts");
        if (p != r->guided)
            *p++ = '|';
        for (const char *t = c->valuestring; *t; t++) {
            if (strchr(".^$*+?{}[]\\|()", *t))
                *p++ = '\\';
            *p++ = *t;
        }
    }
    *p = '\0';
    r->params.guided_json = r->params.guided_grammar = NULL;
    r->params.guided_regex = r->guided;
    return (cJSON_IsArray(field) && field->child) ||
           wrong(r, "guided_choice: expected a list of texts");
}

/* --- fields --------------------------------------------------------------------------------------
 */

static bool take_field(batch_request *r, const cJSON *field) {
    mcc_request_params *p = &r->params;
    const char *name = field->string;
    int64_t n = 0;
    bool ok = true;
    if (cJSON_IsNull(field)) /* as if it were not there */
        return true;
    if (strcmp(name, "id") == 0)
        return id(r, field);
    if (strcmp(name, "prompt") == 0)
        return prompt(r, field);
    if (strcmp(name, "messages") == 0)
        return messages(r, field);
    if (strcmp(name, "max_tokens") == 0)
        return whole(r, field, 1, max_exact, &p->max_tokens);
    if (strcmp(name, "temperature") == 0)
        return real(r, field, &p->temperature);
    if (strcmp(name, "top_p") == 0)
        return positive(r, field, &p->top_p);
    if (strcmp(name, "min_p") == 0)
        return real(r, field, &p->min_p);
    if (strcmp(name, "repetition_penalty") == 0)
        return positive(r, field, &p->repetition_penalty);
    if (strcmp(name, "stop") == 0)
        return stops(r, field);
    if (strcmp(name, "stop_token_ids") == 0)
        return stop_ids(r, field);
    if (strcmp(name, "ignore_eos") == 0)
        return flag(r, field, MCC_REQUEST_IGNORE_EOS);
    if (strcmp(name, "logprobs") == 0)
        return take_logprobs(r, field);
    if (strcmp(name, "guided_json") == 0)
        return guided(r, field, &p->guided_json, "a JSON schema");
    if (strcmp(name, "guided_regex") == 0)
        return guided(r, field, &p->guided_regex, "text");
    if (strcmp(name, "guided_grammar") == 0)
        return guided(r, field, &p->guided_grammar, "text");
    if (strcmp(name, "guided_choice") == 0)
        return choice(r, field);
    if (strcmp(name, "typical_p") == 0)
        return positive(r, field, &p->typical_p);
    if (strcmp(name, "presence_penalty") == 0)
        return real(r, field, &p->presence_penalty);
    if (strcmp(name, "frequency_penalty") == 0)
        return real(r, field, &p->frequency_penalty);
    if (strcmp(name, "logit_bias") == 0)
        return logit_bias(r, field);
    if (strcmp(name, "top_logprobs") == 0) {
        const cJSON *on = cJSON_GetObjectItemCaseSensitive(r->json, "logprobs");
        ok = cJSON_IsTrue(on) ? whole(r, field, 0, MCC_MAX_TOP_LOGPROBS, &n)
                              : wrong(r, "top_logprobs: only with \"logprobs\": true");
        p->top_logprobs = (int32_t)n;
    } else if (strcmp(name, "top_k") == 0) {
        ok = whole(r, field, 0, INT32_MAX, &n);
        p->top_k = (int32_t)n;
    } else if (strcmp(name, "seed") == 0) {
        ok = whole(r, field, 0, max_exact, &n);
        p->seed = (uint64_t)n;
    } else if (strcmp(name, "priority") == 0) {
        ok = whole(r, field, INT32_MIN, INT32_MAX, &n);
        p->priority = (int32_t)n;
    } else if (strcmp(name, "n") == 0) {
        ok = whole(r, field, 1, BATCH_MAX_N, &n);
        p->n = (int32_t)n;
    } else {
        ok = wrong(r, "there is no field \"%.60s\"", name);
    }
    return ok;
}

/* Whether it is UTF-8 (RFC 3629, section 4): results repeat parts of it. */
static bool is_utf8(const char *text, size_t bytes) {
    for (const uint8_t *p = (const uint8_t *)text, *end = p + bytes; p < end;) {
        int more = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : -1;
        uint32_t code = more > 0 ? *p & (0x3fu >> more) : *p;
        if (more < 0 || end - p <= more)
            return false;
        for (int i = 1; i <= more; i++) {
            if (p[i] >> 6 != 2)
                return false;
            code = code << 6 | (p[i] & 0x3f);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
        p += more + 1;
    }
    return true;
}

/* Whether a text in it has the character 0, at which cJSON's strings would end. */
static bool has_zero(const char *line, size_t bytes) {
    static const char zero[] = "\\u0000";
    const char *at = line, *end = line + bytes;
    for (; (at = memmem(at, (size_t)(end - at), zero, sizeof zero - 1)); at++) {
        const char *before = at;
        while (before > line && before[-1] == '\\')
            before--;
        if ((at - before) % 2 == 0) /* else the backslash is escaped itself */
            return true;
    }
    return memchr(line, 0, bytes) != NULL;
}

void batch_request_read(batch_request *r, const char *line, size_t bytes,
                        const mcc_request_params *defaults) {
    *r = (batch_request){.params = *defaults};
    const char *end = NULL;
    if (!is_utf8(line, bytes)) {
        wrong(r, "not UTF-8");
        return;
    }
    if (has_zero(line, bytes)) {
        wrong(r, "a text with the character 0");
        return;
    }
    r->json = cJSON_ParseWithLengthOpts(line, bytes, &end, false);
    if (!cJSON_IsObject(r->json)) {
        wrong(r, "not a JSON object");
        return;
    }
    r->id = cJSON_GetObjectItemCaseSensitive(r->json, "id");
    if (r->id && !cJSON_IsString(r->id) &&
        !(cJSON_IsNumber(r->id) && fabs(r->id->valuedouble) < max_exact_id))
        r->id = NULL; /* not to be repeated, not even beside the error */
    while (end < line + bytes && strchr(" \t\r\n", *end) && *end)
        end++;
    if (end < line + bytes) {
        wrong(r, "more than one JSON object");
        return;
    }
    for (const cJSON *field = r->json->child; field; field = field->next) {
        for (const cJSON *before = r->json->child; before != field; before = before->next)
            if (strcmp(before->string, field->string) == 0)
                wrong(r, "two fields \"%.60s\"", field->string);
        if (r->error[0] || !take_field(r, field))
            return;
    }
    if ((r->params.prompt || r->params.prompt_ids) == (r->params.messages != NULL))
        wrong(r, "expected one of prompt and messages");
}

void batch_request_clear(batch_request *r) {
    cJSON_Delete(r->json);
    free(r->prompt_ids);
    free(r->bias_ids);
    free(r->biases);
    cJSON_free(r->messages);
    cJSON_free(r->guided);
    r->json = r->id = NULL;
    r->prompt_ids = r->bias_ids = NULL;
    r->biases = NULL;
    r->messages = r->guided = NULL;
}
