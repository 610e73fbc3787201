/* modelcc tokenize: text to token ids and back, with an artifact's tokenizer. */
#include "compiler/output.h"
#include "runtime/modelcc.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: modelcc tokenize MODEL.so -p TEXT [options]\n"
    "       modelcc tokenize MODEL.so --decode IDS\n\n"
    "Prints the token ids of a text with the piece of text that each stands for, or the text of\n"
    "token ids. Without -p the text is read from standard input.\n\n"
    "  -p, --prompt TEXT          the text; tokenized as modelcc run --raw does\n"
    "      --chat                 put it into the chat template first, as a user's message\n"
    "      --no-special           add no special tokens, and read none in the text\n"
    "      --decode IDS           token ids, separated by commas\n"
    "      --skip-special         with --decode: special tokens give no text\n"
    "      --json                 an object with ids, pieces and text\n\n"
    "examples:\n"
    "  modelcc tokenize smollm2.so -p \"Hello, world\"\n"
    "  modelcc tokenize smollm2.so --decode 19556,28,905\n";

typedef struct tokenize_options {
    const char *artifact, *prompt, *decode;
    bool chat, no_special, skip_special, json;
} tokenize_options;

/* The text of ids, malloc'ed and zero-terminated; NULL with *error filled. */
static char *detokenize(const mcc_artifact *a, const int32_t *ids, int64_t n, uint32_t flags,
                        uint64_t *bytes, mcc_error *error) {
    mcc_status status = mcc_detokenize(a, ids, n, flags, NULL, 0, bytes, error);
    if (status != MCC_OK && status != MCC_BUFFER_TOO_SMALL)
        return NULL;
    char *text = malloc(*bytes + 1);
    if (!text) {
        snprintf(error->text, sizeof error->text, "out of memory");
        return NULL;
    }
    if (mcc_detokenize(a, ids, n, flags, text, *bytes + 1, bytes, error)) {
        free(text);
        return NULL;
    }
    return text;
}

/* What one token adds to a text. Tokenizers drop the space at a text's beginning, so it is what
 * comes second when the token comes twice. */
static char *piece_of(const mcc_artifact *a, int32_t id, mcc_error *error) {
    uint64_t once_bytes, twice_bytes;
    char *once = detokenize(a, &id, 1, 0, &once_bytes, error);
    char *twice = detokenize(a, (int32_t[]){id, id}, 2, 0, &twice_bytes, error);
    if (once && twice && twice_bytes >= once_bytes)
        memmove(twice, twice + once_bytes, twice_bytes - once_bytes + 1);
    free(once);
    return twice;
}

/* The text that is tokenized: the prompt, or what the chat template makes of it; malloc'ed. */
static char *render(const mcc_artifact *a, const tokenize_options *o, mcc_error *error) {
    if (!o->chat)
        return strdup(o->prompt);
    cJSON *list = cJSON_CreateArray(), *message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "role", "user");
    cJSON_AddStringToObject(message, "content", o->prompt);
    cJSON_AddItemToArray(list, message);
    char *messages = cJSON_PrintUnformatted(list), *text = NULL;
    cJSON_Delete(list);
    uint64_t bytes;
    mcc_status status = MCC_OUT_OF_MEMORY;
    if (messages)
        status = mcc_apply_chat_template(a, messages, strlen(messages), 0, NULL, 0, &bytes, error);
    if (status == MCC_OK || status == MCC_BUFFER_TOO_SMALL)
        text = malloc(bytes + 1);
    if (text &&
        mcc_apply_chat_template(a, messages, strlen(messages), 0, text, bytes + 1, &bytes, error)) {
        free(text);
        text = NULL;
    }
    free(messages);
    return text;
}

static int print_tokens(const mcc_artifact *a, const tokenize_options *o, const char *text,
                        const int32_t *ids, int64_t n, mcc_error *error) {
    cJSON *j = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(j, "ids");
    cJSON *pieces = cJSON_AddArrayToObject(j, "pieces");
    cJSON_AddStringToObject(j, "text", text);
    for (int64_t i = 0; i < n; i++) {
        char *piece = piece_of(a, ids[i], error);
        if (!piece) {
            cJSON_Delete(j);
            return output_fail(error);
        }
        if (o->json) {
            cJSON_AddItemToArray(list, cJSON_CreateNumber(ids[i]));
            cJSON_AddItemToArray(pieces, cJSON_CreateString(piece));
        } else {
            /* As JSON writes it: on one line, spaces and line ends visible. */
            cJSON *s = cJSON_CreateString(piece);
            char *quoted = cJSON_PrintUnformatted(s);
            printf("%8" PRId32 "  %s\n", ids[i], quoted ? quoted : "");
            cJSON_free(quoted);
            cJSON_Delete(s);
        }
        free(piece);
    }
    if (o->json)
        return output_json(j);
    cJSON_Delete(j);
    return EXIT_FINE;
}

static int encode(const mcc_artifact *a, const tokenize_options *o) {
    mcc_error error = {.struct_size = sizeof error};
    snprintf(error.text, sizeof error.text, "out of memory");
    uint32_t flags = o->no_special ? 0
                     : o->chat     ? MCC_TEXT_PARSE_SPECIAL
                                   : MCC_TEXT_ADD_SPECIAL | MCC_TEXT_PARSE_SPECIAL;
    char *text = render(a, o, &error);
    if (!text)
        return output_fail(&error);
    int64_t n = 0;
    int32_t *ids = output_tokenize(a, text, strlen(text), flags, &n, &error);
    int code = ids ? print_tokens(a, o, text, ids, n, &error) : output_fail(&error);
    free(ids);
    free(text);
    return code;
}

static int decode(const mcc_artifact *a, const tokenize_options *o, const int32_t *ids, int64_t n) {
    mcc_error error = {.struct_size = sizeof error};
    uint64_t bytes;
    char *text = detokenize(a, ids, n, o->skip_special ? MCC_TEXT_SKIP_SPECIAL : 0, &bytes, &error);
    if (!text)
        return output_fail(&error);
    int code = EXIT_FINE;
    if (o->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddItemToObject(j, "ids", cJSON_CreateIntArray(ids, (int)n));
        cJSON_AddStringToObject(j, "text", text);
        code = output_json(j);
    } else {
        fwrite(text, 1, bytes, stdout);
        if (!bytes || text[bytes - 1] != '\n')
            putchar('\n');
    }
    free(text);
    return code;
}

static int tokenize(tokenize_options *o) {
    int32_t *ids = NULL;
    int64_t n = 0;
    if (o->decode && !(ids = output_parse_ids(o->decode, &n)))
        return command_usage("tokenize", "--decode %s: expected token ids separated by commas",
                             o->decode);
    char *typed = NULL;
    unsigned long size;
    if (!o->decode && !o->prompt)
        o->prompt = typed = command_read_file("tokenize", "/dev/stdin", 64ul << 20, &size);
    int code = EXIT_FAILED;
    if (o->decode || o->prompt) {
        mcc_error error = {.struct_size = sizeof error};
        mcc_artifact *a;
        if (mcc_artifact_open(o->artifact, NULL, &a, &error)) {
            output_fail(&error);
        } else {
            code = o->decode ? decode(a, o, ids, n) : encode(a, o);
            mcc_artifact_close(a);
        }
    }
    free(typed);
    free(ids);
    return code;
}

int cmd_tokenize(int argc, char **argv) {
    enum { OPT_CHAT = 256, OPT_NO_SPECIAL, OPT_DECODE, OPT_SKIP, OPT_JSON };
    static const struct option longs[] = {{"prompt", required_argument, NULL, 'p'},
                                          {"chat", no_argument, NULL, OPT_CHAT},
                                          {"no-special", no_argument, NULL, OPT_NO_SPECIAL},
                                          {"decode", required_argument, NULL, OPT_DECODE},
                                          {"skip-special", no_argument, NULL, OPT_SKIP},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    tokenize_options o = {0};
    for (int option; (option = command_option(argc, argv, "p:h", longs)) != -1;) {
        switch (option) {
        case 'p':
            o.prompt = optarg;
            break;
        case OPT_CHAT:
            o.chat = true;
            break;
        case OPT_NO_SPECIAL:
            o.no_special = true;
            break;
        case OPT_DECODE:
            o.decode = optarg;
            break;
        case OPT_SKIP:
            o.skip_special = true;
            break;
        case OPT_JSON:
            o.json = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc)
        return command_usage("tokenize", "expected one MODEL.so");
    o.artifact = argv[optind];
    if (o.prompt && o.decode)
        return command_usage("tokenize", "-p and --decode exclude each other");
    if (o.decode ? o.chat || o.no_special : o.skip_special)
        return command_usage("tokenize",
                             "--chat and --no-special are for text, --skip-special for --decode");
    if (!o.prompt && !o.decode && isatty(STDIN_FILENO))
        return command_usage("tokenize", "no text: -p TEXT, or text on standard input");
    return tokenize(&o);
}
