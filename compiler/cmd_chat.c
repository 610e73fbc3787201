/* modelcc chat: a conversation, line by line. */
#include "compiler/chat_session.h"
#include "compiler/generate.h"
#include "compiler/output.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

static const char help[] =
    "usage: modelcc chat MODEL.so [options]\n\n"
    "Reads messages from standard input, one a line, and prints the answers as they come. What "
    "was\n"
    "said before stays in the KV cache and is not computed again.\n\n"
    "      --system TEXT          a system message before the first\n"
    "      --session FILE         go on with the conversation in FILE, if it is there, and keep "
    "it\n"
    "                             there in the end: what was said is not computed again\n"
    "      --json                 one JSON object a line instead of streamed text\n";
static const char more_help[] =
    "\nLines that are commands: /exit (or end of input), /reset (forget all), /system TEXT "
    "(forget\n"
    "all, begin with this system message), /help. Ctrl-C stops an answer; at the prompt it "
    "ends.\n\n"
    "examples:\n"
    "  modelcc chat smollm2.so --system \"You are brief.\"\n"
    "  modelcc chat smollm2.so --session ada.session\n"
    "  printf 'Hi, I am Ada.\\nWho am I?\\n' | modelcc chat smollm2.so\n";

typedef struct chat {
    generate_options common;
    char *system;        /* NULL: none; malloc'ed */
    const char *session; /* NULL: none */
    bool json, terminal;
    generate_model model;
    int64_t max_len;
    cJSON *messages;
} chat;

static const char commands_text[] = "/exit  /reset  /system TEXT  /help";

static bool add_message(cJSON *list, const char *role, const char *content) {
    cJSON *message = cJSON_CreateObject();
    return cJSON_AddStringToObject(message, "role", role) &&
           cJSON_AddStringToObject(message, "content", content) &&
           cJSON_AddItemToArray(list, message);
}

/* Begins anew; the KV cache keeps what the next prompt has in common with the last. */
static bool reset(chat *c) {
    cJSON_Delete(c->messages);
    c->messages = cJSON_CreateArray();
    return c->messages && (!c->system || add_message(c->messages, "system", c->system));
}

static int print_turn(const generation *g) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "text", g->text);
    cJSON_AddStringToObject(j, "finish_reason", generate_finish_name(g->finish_reason));
    cJSON_AddNumberToObject(j, "prompt_tokens", (double)g->prompt_tokens);
    cJSON_AddNumberToObject(j, "cached_tokens", (double)g->cached_tokens);
    cJSON_AddNumberToObject(j, "completion_tokens", (double)g->n_ids);
    cJSON_AddNumberToObject(j, "prefill_seconds", g->prefill_seconds);
    cJSON_AddNumberToObject(j, "decode_seconds", g->decode_seconds);
    return output_json_line(j);
}

/* What the person should know about how an answer ended. */
static void note_end(const chat *c, const generation *g) {
    if (g->finish_reason == MCC_FINISH_CANCELLED)
        fprintf(stderr, "[stopped]\n");
    else if (g->finish_reason == MCC_FINISH_LENGTH && g->prompt_tokens + g->n_ids >= c->max_len)
        fprintf(stderr, "[the context of %" PRId64 " tokens is full: /reset begins anew]\n",
                c->max_len);
    else if (g->finish_reason == MCC_FINISH_LENGTH)
        fprintf(stderr, "[--max-tokens %" PRId64 " reached]\n", c->common.params.max_tokens);
}

/* Takes the last message back: it has not been answered. */
static void drop_last(chat *c) {
    cJSON_DeleteItemFromArray(c->messages, cJSON_GetArraySize(c->messages) - 1);
}

/* One message and its answer. After an error that another message could avoid, the conversation is
 * as it was. */
static int answer(chat *c, const char *line) {
    if (!add_message(c->messages, "user", line))
        return output_fail_memory();
    char *text = cJSON_PrintUnformatted(c->messages);
    if (!text)
        return output_fail_memory();
    c->common.params.messages = text;
    generation g;
    int code = generate(c->model.engine, &c->common.params, c->json ? NULL : stdout, &g);
    free(text);
    if (code != EXIT_FINE) {
        if (g.status == MCC_CAPACITY)
            fprintf(stderr,
                    "[the conversation no longer fits the context of %" PRId64
                    " tokens: /reset begins anew%s]\n",
                    c->max_len, c->common.max_model_len ? ", --max-model-len allows more" : "");
        drop_last(c);
    } else {
        if (c->json)
            code = print_turn(&g);
        else if (g.text_bytes == 0 || g.text[g.text_bytes - 1] != '\n')
            putchar('\n');
        fflush(stdout);
        note_end(c, &g);
        if (!add_message(c->messages, "assistant", g.text))
            code = output_fail_memory();
    }
    generation_free(&g);
    return code;
}

/* Takes a line that is a command. *end is set by /exit. Returns false for any other line. */
static bool take_command(chat *c, const char *line, bool *end, int *code) {
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) {
        *end = true;
    } else if (strcmp(line, "/reset") == 0) {
        *code = reset(c) ? EXIT_FINE : output_fail_memory();
    } else if (strncmp(line, "/system", 7) == 0 && (!line[7] || line[7] == ' ')) {
        const char *text = line + 7 + strspn(line + 7, " ");
        free(c->system);
        c->system = *text ? strdup(text) : NULL;
        *code = reset(c) && (c->system || !*text) ? EXIT_FINE : output_fail_memory();
    } else if (strcmp(line, "/help") == 0) {
        fprintf(stderr, "%s\n", commands_text);
    } else if (line[0] == '/' && !line[1 + strspn(line + 1, "abcdefghijklmnopqrstuvwxyz")]) {
        fprintf(stderr, "[there is no %s; there are: %s]\n", line, commands_text);
        if (!c->terminal)
            *code = EXIT_FAILED;
    } else {
        return false;
    }
    return true;
}

/* Ctrl-C stops an answer and leads back to the prompt of a terminal; anything else ends. */
static bool goes_on(const chat *c) {
    if (ferror(stdout))
        return false;
    int signal_number = atomic_load(&command_cancelled);
    if (!signal_number)
        return true;
    if (signal_number != SIGINT || !c->terminal)
        return false;
    atomic_store(&command_cancelled, 0);
    return true;
}

/* Waits for a line of a terminal, whose stream keeps nothing back, or for a signal: one that comes
 * now is seen, and one that comes later ends the waiting. */
static void wait_for_line(void) {
    sigset_t signals, before;
    fd_set in;
    FD_ZERO(&in);
    FD_SET(STDIN_FILENO, &in);
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    if (!atomic_load(&command_cancelled))
        pselect(STDIN_FILENO + 1, &in, NULL, NULL, NULL, &before);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int converse(chat *c) {
    char *line = NULL;
    size_t capacity = 0;
    bool end = false;
    int code = EXIT_FINE;
    if (c->terminal)
        setvbuf(stdin, NULL, _IONBF, 0);
    while (!end) {
        if (c->terminal) {
            fputs("> ", stderr);
            wait_for_line();
        }
        errno = 0;
        bool left = c->terminal && atomic_load(&command_cancelled);
        if (left || getline(&line, &capacity, stdin) < 0) {
            if (errno && !atomic_load(&command_cancelled)) {
                fprintf(stderr, "error: standard input: %s\n", strerror(errno));
                code = EXIT_FAILED;
            }
            break;
        }
        line[strcspn(line, "\r\n")] = '\0';
        if (!line[strspn(line, " \t")])
            continue;
        int outcome = EXIT_FINE;
        if (!take_command(c, line, &end, &outcome))
            outcome = answer(c, line);
        if (!goes_on(c)) {
            code = EXIT_FAILED;
            break;
        }
        /* Who reads the answers by a program wants to know that one is missing. */
        if (outcome != EXIT_FINE && !c->terminal) {
            code = outcome;
            break;
        }
    }
    if (c->terminal)
        fputc('\n', stderr);
    free(line);
    return code;
}

/* The conversation in the session's file, or a new one. */
static int begin(chat *c) {
    int code = EXIT_FINE;
    if (c->session)
        code = chat_session_load(c->model.engine, c->session, &c->messages);
    if (code != EXIT_FINE)
        return code;
    if (c->messages && c->system) {
        fprintf(stderr, "error: --system: %s has a conversation that has begun\n", c->session);
        return EXIT_FAILED;
    }
    return c->messages || reset(c) ? EXIT_FINE : output_fail_memory();
}

/* Whatever ended the conversation, what was said is kept. */
static int end(chat *c, int code) {
    int saved = EXIT_FINE;
    if (c->session)
        saved = chat_session_save(c->model.artifact, c->model.engine, c->session, c->messages);
    return code == EXIT_FINE ? saved : code;
}

static int run_chat(chat *c) {
    int code = generate_open(&c->common, &c->model);
    if (code != EXIT_FINE)
        return code;
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    mcc_artifact_get_info(c->model.artifact, &info, NULL);
    mcc_engine_get_stats(c->model.engine, &stats, NULL);
    c->max_len = stats.max_model_len;
    if (!info.has_chat_template || !info.has_tokenizer) {
        fprintf(stderr,
                "error: %s: it has no %s, which a conversation needs; modelcc run continues "
                "a text\n",
                c->common.artifact, info.has_tokenizer ? "chat template" : "tokenizer");
        code = EXIT_FAILED;
    } else if ((code = begin(c)) == EXIT_FINE) {
        if (c->terminal)
            fprintf(stderr, "%s; %s\n", info.model_name, commands_text);
        code = end(c, converse(c));
    }
    cJSON_Delete(c->messages);
    generate_close(&c->model);
    return code;
}

int cmd_chat(int argc, char **argv) {
    enum { OPT_SYSTEM = 256, OPT_SESSION, OPT_JSON };
    static const struct option longs[] = {{"system", required_argument, NULL, OPT_SYSTEM},
                                          {"session", required_argument, NULL, OPT_SESSION},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"help", no_argument, NULL, 'h'},
                                          GENERATE_LONG_OPTIONS,
                                          {0}};
    chat c = {.terminal = isatty(STDIN_FILENO)};
    const char *system = NULL;
    generate_defaults(&c.common);
    for (int option, code; (option = command_option(argc, argv, "n:t:h", longs)) != -1;) {
        switch (option) {
        case OPT_SYSTEM:
            system = optarg;
            break;
        case OPT_SESSION:
            c.session = optarg;
            break;
        case OPT_JSON:
            c.json = true;
            break;
        case 'h':
            printf("%s%s%s%s", help, generate_help, speculative_help, more_help);
            return EXIT_FINE;
        default:
            code = generate_option("chat", &c.common, option, optarg);
            if (code != EXIT_FINE)
                return code;
        }
    }
    if (optind + 1 != argc)
        return command_usage("chat", "expected one MODEL.so");
    c.common.artifact = argv[optind];
    c.system = system ? strdup(system) : NULL;
    if (system && !c.system)
        return output_fail_memory();
    int code = generate_read_guided("chat", &c.common);
    if (code == EXIT_FINE)
        code = run_chat(&c);
    free(c.common.guided);
    free(c.system);
    return code;
}
