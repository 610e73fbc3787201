#include "compiler/speculative.h"
#include "compiler/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char speculative_help[] =
    "      --num-speculative-tokens N   draft up to N tokens, as many as pay, by prompt lookup or "
    "a\n"
    "                             draft model: the same text, sooner where drafts are right "
    "(default 0;\n"
    "                             with a draft model 8)\n"
    "      --draft DRAFT.so       a smaller model with the same tokenizer drafts them\n"
    "      --speculative-config JSON   the same as vLLM takes it: {\"method\": \"ngram\" or "
    "\"draft_model\",\n"
    "                             \"model\", \"num_speculative_tokens\", \"prompt_lookup_min\", "
    "\"prompt_lookup_max\",\n"
    "                             \"rejection_sample_method\": \"strict\", the same tokens as "
    "without\n"
    "                             drafts, or \"probabilistic\", others of the same distribution; "
    "\"adaptive\":\n"
    "                             false drafts as many always, also where that does not pay}\n";

void speculative_defaults(speculative_options *o) {
    *o = (speculative_options){.n = -1};
}

int32_t speculative_count(const speculative_options *o) {
    return o->n >= 0 ? o->n : o->model[0] ? SPECULATIVE_DEFAULT : 0;
}

int speculative_tokens(const char *command, const char *number, speculative_options *o) {
    long long n;
    if (!command_number(number, 0, SPECULATIVE_MAX, &n))
        return command_usage(command, "--num-speculative-tokens %s: expected 0 to %d", number,
                             SPECULATIVE_MAX);
    o->n = (int32_t)n;
    return EXIT_FINE;
}

int speculative_draft(const char *command, const char *path, speculative_options *o) {
    if (!*path || strlen(path) >= sizeof o->model)
        return command_usage(command, "--draft: expected the file of a model");
    strcpy(o->model, path);
    return EXIT_FINE;
}

/* --- JSON ----------------------------------------------------------------------------------------
 */

static int bad(const char *command, const char *what) {
    return command_usage(command, "--speculative-config: %s", what);
}

static bool take_number(const cJSON *item, int32_t least, int32_t *out) {
    if (!cJSON_IsNumber(item) || item->valuedouble < least || item->valuedouble > SPECULATIVE_MAX ||
        item->valuedouble != (double)item->valueint)
        return false;
    *out = item->valueint;
    return true;
}

static int take_item(const char *command, const cJSON *item, speculative_options *o,
                     const char **method) {
    char text[240];
    const char *name = item->string, *expected = NULL;
    if (strcmp(name, "method") == 0) {
        *method = cJSON_GetStringValue(item);
        if (!*method || (strcmp(*method, "ngram") != 0 && strcmp(*method, "draft_model") != 0))
            expected = "\"ngram\" or \"draft_model\"";
    } else if (strcmp(name, "model") == 0) {
        const char *model = cJSON_GetStringValue(item);
        if (model && *model && strlen(model) < sizeof o->model)
            strcpy(o->model, model);
        else
            expected = "the file of a model";
    } else if (strcmp(name, "num_speculative_tokens") == 0) {
        expected = take_number(item, 0, &o->n) ? NULL : "0 to 64";
    } else if (strcmp(name, "prompt_lookup_min") == 0) {
        expected = take_number(item, 1, &o->prompt_lookup_min) ? NULL : "1 to 64";
    } else if (strcmp(name, "prompt_lookup_max") == 0) {
        expected = take_number(item, 1, &o->prompt_lookup_max) ? NULL : "1 to 64";
    } else if (strcmp(name, "rejection_sample_method") == 0) {
        const char *value = cJSON_GetStringValue(item);
        o->rejection = value && strcmp(value, "probabilistic") == 0;
        if (!value || (!o->rejection && strcmp(value, "strict") != 0))
            expected = "\"strict\" or \"probabilistic\"";
    } else if (strcmp(name, "adaptive") == 0) {
        o->always = cJSON_IsFalse(item);
        expected = cJSON_IsBool(item) ? NULL : "true or false";
    } else {
        snprintf(text, sizeof text,
                 "%.40s is not supported; there are method, model, num_speculative_tokens, "
                 "prompt_lookup_min, prompt_lookup_max, rejection_sample_method and adaptive",
                 name);
        return bad(command, text);
    }
    if (!expected)
        return EXIT_FINE;
    snprintf(text, sizeof text, "%s: expected %s", name, expected);
    return bad(command, text);
}

int speculative_config(const char *command, const char *json, speculative_options *o) {
    cJSON *config = cJSON_Parse(json);
    const char *method = NULL;
    int code = cJSON_IsObject(config)
                   ? EXIT_FINE
                   : bad(command, "expected a JSON object, such as {\"method\": \"ngram\", "
                                  "\"num_speculative_tokens\": 8}");
    for (const cJSON *item = config ? config->child : NULL; item && code == EXIT_FINE;
         item = item->next)
        code = take_item(command, item, o, &method);
    bool lookup = method && strcmp(method, "ngram") == 0;
    if (code == EXIT_FINE && lookup && o->model[0])
        code = bad(command, "method ngram has no model");
    else if (code == EXIT_FINE && method && !lookup && !o->model[0])
        code = bad(command, "method draft_model needs a model");
    else if (code == EXIT_FINE && !o->model[0] && o->n < 0)
        code = bad(command, "num_speculative_tokens must be set");
    cJSON_Delete(config);
    return code;
}

/* --- opening -------------------------------------------------------------------------------------
 */

int speculative_open(const speculative_options *o, const mcc_artifact_options *options,
                     mcc_engine_options *engine, mcc_artifact **draft) {
    mcc_error error = {.struct_size = sizeof error};
    *draft = NULL;
    engine->flags |= o->always ? MCC_ENGINE_DRAFT_ALWAYS : 0;
    engine->flags |= o->rejection ? MCC_ENGINE_REJECTION_SAMPLING : 0;
    engine->prompt_lookup_min = o->prompt_lookup_min;
    engine->prompt_lookup_max = o->prompt_lookup_max;
    if (!o->model[0] || speculative_count(o) == 0)
        return EXIT_FINE;
    if (mcc_artifact_open(o->model, options, draft, &error))
        return output_fail(&error);
    engine->draft = *draft;
    return EXIT_FINE;
}

/* --- reporting -----------------------------------------------------------------------------------
 */

static void add_positions(cJSON *to, const char *name, const uint64_t *counts, int n) {
    cJSON *list = cJSON_AddArrayToObject(to, name);
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)counts[i]));
}

static int positions(const mcc_engine_stats *stats) {
    int n = 0;
    while (n < MCC_MAX_DRAFT && stats->draft_tokens_at[n] > 0)
        n++;
    return n;
}

void speculative_report(const mcc_engine_stats *stats, cJSON *to) {
    int n = positions(stats);
    cJSON_AddNumberToObject(to, "draft_tokens", (double)stats->draft_tokens);
    cJSON_AddNumberToObject(to, "accepted_tokens", (double)stats->accepted_tokens);
    add_positions(to, "draft_tokens_per_pos", stats->draft_tokens_at, n);
    add_positions(to, "accepted_tokens_per_pos", stats->accepted_tokens_at, n);
}

void speculative_print(const mcc_engine_stats *stats) {
    if (stats->draft_tokens == 0)
        return;
    printf("  drafts: %" PRIu64 " tokens, %" PRIu64 " accepted (%.1f %%); by position, in %%:",
           stats->draft_tokens, stats->accepted_tokens,
           100 * (double)stats->accepted_tokens / (double)stats->draft_tokens);
    for (int i = 0; i < positions(stats); i++)
        printf(" %.0f",
               100 * (double)stats->accepted_tokens_at[i] / (double)stats->draft_tokens_at[i]);
    putchar('\n');
}
