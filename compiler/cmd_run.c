/* modelcc run: continue one prompt. */
#include "compiler/generate.h"
#include "compiler/output.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: modelcc run MODEL.so -p TEXT [options]\n\n"
    "Prints what the model answers. With a chat template the text is the user's message; --raw\n"
    "continues it as it is. Without -p the prompt is read from standard input. Without a "
    "tokenizer\n"
    "in the artifact, token ids are taken and printed.\n\n"
    "  -p, --prompt TEXT          the prompt\n"
    "      --system TEXT          a system message before it\n"
    "      --prompt-ids LIST      token ids, separated by commas, instead of text\n"
    "      --raw                  no chat template\n"
    "      --json                 one JSON object instead of streamed text\n"
    "      --logprobs N           with --json: each token's log-probability and those of the N "
    "most\n"
    "                             probable ones, 0 to 20\n";
static const char examples[] =
    "\nexamples:\n"
    "  modelcc run smollm2.so -p \"What is a compiler?\"\n"
    "  modelcc run smollm2.so --raw -p \"Once upon a time\" --temperature 0.8 --seed 7 -n 100\n";

enum { OPT_SYSTEM = 256, OPT_IDS, OPT_RAW, OPT_JSON, OPT_LOGPROBS };

static const struct option long_options[] = {{"prompt", required_argument, NULL, 'p'},
                                             {"system", required_argument, NULL, OPT_SYSTEM},
                                             {"prompt-ids", required_argument, NULL, OPT_IDS},
                                             {"raw", no_argument, NULL, OPT_RAW},
                                             {"json", no_argument, NULL, OPT_JSON},
                                             {"logprobs", required_argument, NULL, OPT_LOGPROBS},
                                             {"help", no_argument, NULL, 'h'},
                                             GENERATE_LONG_OPTIONS,
                                             {0}};

typedef struct run_options {
    generate_options common;
    const char *prompt, *system, *ids;
    bool raw, json;
} run_options;

static char *read_standard_input(void) {
    unsigned long size;
    return command_read_file("run", "/dev/stdin", 64ul << 20, &size);
}

static cJSON *add_message(cJSON *list, const char *role, const char *content) {
    cJSON *message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "role", role);
    cJSON_AddStringToObject(message, "content", content);
    cJSON_AddItemToArray(list, message);
    return list;
}

static int print_json(const generate_model *model, const mcc_request_params *params,
                      const generation *g) {
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    mcc_engine_get_stats(model->engine, &stats, NULL);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "text", g->text);
    cJSON_AddItemToObject(j, "token_ids", output_ids(g->ids, g->n_ids));
    if (logprobs_wanted(params))
        cJSON_AddItemToObject(j, "logprobs", logprobs_json(&g->logprobs, model->artifact));
    cJSON_AddItemToObject(j, "prompt_token_ids", output_ids(g->prompt_ids, g->n_prompt_ids));
    cJSON_AddStringToObject(j, "finish_reason", generate_finish_name(g->finish_reason));
    cJSON *t = cJSON_AddObjectToObject(j, "timings");
    cJSON_AddNumberToObject(t, "prefill_seconds", g->prefill_seconds);
    cJSON_AddNumberToObject(t, "decode_seconds", g->decode_seconds);
    cJSON_AddNumberToObject(t, "cached_tokens", (double)g->cached_tokens);
    if (g->decode_seconds > 0)
        cJSON_AddNumberToObject(t, "decode_tokens_per_second",
                                (double)(g->n_ids - 1) / g->decode_seconds);
    cJSON_AddNumberToObject(t, "steps", (double)stats.steps);
    speculative_report(&stats, t);
    return output_json(j);
}

/* As --prompt-ids takes them. */
static void print_ids(const generation *g) {
    for (int64_t i = 0; i < g->n_ids; i++)
        printf("%s%" PRId32, i ? "," : "", g->ids[i]);
    putchar('\n');
}

static int run_prompt(run_options *o) {
    generate_model model;
    int code = generate_open(&o->common, &model);
    if (code != EXIT_FINE)
        return code;
    mcc_request_params *p = &o->common.params;
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_artifact_get_info(model.artifact, &info, NULL);
    char *messages = NULL;
    int32_t *ids = NULL;
    if (o->ids) {
        ids = output_parse_ids(o->ids, &p->n_prompt_ids);
        p->prompt_ids = ids;
        if (!ids)
            code = command_usage("run", "--prompt-ids: expected token ids separated by commas");
    } else if (!o->prompt[strspn(o->prompt, o->raw ? "" : " \t\r\n")]) {
        /* Such as nothing on standard input: a template would make a question of it. */
        fputs("error: the prompt is empty: give -p TEXT, or text on standard input\n", stderr);
        code = EXIT_FAILED;
    } else if (o->system && !info.has_chat_template) {
        fprintf(stderr, "error: %s: it has no chat template to put --system into\n",
                o->common.artifact);
        code = EXIT_FAILED;
    } else if (info.has_chat_template && !o->raw) {
        cJSON *list = cJSON_CreateArray();
        if (o->system)
            add_message(list, "system", o->system);
        messages = cJSON_PrintUnformatted(add_message(list, "user", o->prompt));
        cJSON_Delete(list);
        p->messages = messages;
    } else {
        p->prompt = o->prompt;
    }
    generation g = {0};
    if (code == EXIT_FINE)
        code = generate(model.engine, p, o->json ? NULL : stdout, &g);
    if (code == EXIT_FINE && o->json)
        code = print_json(&model, p, &g);
    else if (code == EXIT_FINE && !info.has_tokenizer)
        print_ids(&g);
    else if (code == EXIT_FINE && (g.text_bytes == 0 || g.text[g.text_bytes - 1] != '\n'))
        putchar('\n');
    if (code == EXIT_FINE && g.finish_reason == MCC_FINISH_CANCELLED)
        code = EXIT_FAILED;
    generation_free(&g);
    free(messages);
    free(ids);
    generate_close(&model);
    return code;
}

int cmd_run(int argc, char **argv) {
    run_options o = {0};
    generate_defaults(&o.common);
    int option;
    while ((option = command_option(argc, argv, "p:n:t:h", long_options)) != -1) {
        switch (option) {
        case 'p':
            o.prompt = optarg;
            break;
        case OPT_SYSTEM:
            o.system = optarg;
            break;
        case OPT_IDS:
            o.ids = optarg;
            break;
        case OPT_RAW:
            o.raw = true;
            break;
        case OPT_JSON:
            o.json = true;
            break;
        case OPT_LOGPROBS: {
            int code = generate_logprobs_option("run", &o.common, optarg);
            if (code != EXIT_FINE)
                return code;
            break;
        }
        case 'h':
            printf("%s%s%s%s", help, generate_help, speculative_help, examples);
            return EXIT_FINE;
        default: {
            int code = generate_option("run", &o.common, option, optarg);
            if (code != EXIT_FINE)
                return code;
        }
        }
    }
    if (optind + 1 != argc)
        return command_usage("run", "expected one MODEL.so%s",
                             optind == argc ? "" : ", and a prompt after -p");
    o.common.artifact = argv[optind];
    if (o.ids && (o.prompt || o.system))
        return command_usage("run", "--prompt-ids is all of the prompt: no %s beside it",
                             o.prompt ? "-p" : "--system");
    if (logprobs_wanted(&o.common.params) && !o.json)
        return command_usage("run", "--logprobs: only --json prints them");
    if (o.raw && o.system)
        return command_usage("run", "--system and --raw exclude each other: a system message goes "
                                    "into the chat template");
    char *typed = NULL;
    if (!o.prompt && !o.ids) {
        if (isatty(STDIN_FILENO))
            return command_usage("run", "no prompt: -p TEXT, or text on standard input");
        o.prompt = typed = read_standard_input();
        if (!typed)
            return EXIT_FAILED;
    }
    int code = generate_read_guided("run", &o.common);
    if (code == EXIT_FINE)
        code = run_prompt(&o);
    free(o.common.guided);
    free(typed);
    return code;
}
