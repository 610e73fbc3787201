/* modelcc embed: texts in, vectors out. */
#include "compiler/command.h"
#include "compiler/output.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: modelcc embed MODEL.so [-p TEXT]… [options]\n\n"
    "Turns texts into vectors, many at a time, with an artifact that was built with --task embed.\n"
    "Without -p, each line of standard input is a JSON object: \"input\" (text, or token ids), "
    "and\n"
    "if need be \"id\". A result is a line {\"id\", \"embedding\", \"prompt_tokens\"}, or "
    "{\"id\",\n"
    "\"error\"}, in the order of the input. Vectors have length 1: the product of two is their\n"
    "cosine similarity.\n\n"
    "  -p, --prompt TEXT          a text; may be repeated\n"
    "      --input FILE           lines of a file instead of standard input\n"
    "      --no-normalize         vectors as they come, not scaled to length 1\n"
    "      --max-num-seqs N       texts computed at the same time (default 32)\n"
    "      --max-num-batched-tokens N   tokens computed at the same time\n"
    "      --max-model-len N      tokens of a text at most (default: the model's)\n"
    "  -t, --threads N            (default: the processors this process may use)\n"
    "      --device NAME          cpu, cuda, cuda:N (the N-th GPU) or emulator\n"
    "      --target NAME          use the CPU code for this target\n\n"
    "examples:\n"
    "  modelcc build model.gguf --task embed --pooling mean -o embed.so\n"
    "  modelcc embed embed.so -p \"a cat\" -p \"a kitten\"\n"
    "  modelcc embed embed.so --input texts.jsonl >vectors.jsonl\n";

typedef struct job {
    uint64_t request; /* 0: it could not be submitted */
    cJSON *id;        /* NULL: none */
    char *line;       /* the result, when it is there; malloc'ed */
} job;

typedef struct embed {
    const char *artifact, *target, *device, *input;
    const char **texts; /* of -p */
    int n_texts, next_text;
    mcc_engine_options options;
    uint32_t flags;
    mcc_artifact *model;
    mcc_engine *engine;
    FILE *file;
    char *line; /* read last */
    size_t capacity;
    job *jobs; /* a ring: those at work, in the input's order */
    int first, n, room;
    int64_t n_lines, n_errors;
} embed;

static job *job_at(embed *e, int i) {
    return &e->jobs[(e->first + i) % e->room];
}

/* --- results -------------------------------------------------------------------------------------
 */

/* False when out of memory. */
static bool set_result(job *at, cJSON *j) {
    at->line = j ? cJSON_PrintUnformatted(j) : NULL;
    cJSON_Delete(j);
    return at->line != NULL;
}

static cJSON *begin(const job *at) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddItemToObject(j, "id", at->id ? cJSON_Duplicate(at->id, true) : cJSON_CreateNull());
    return j;
}

static bool set_error(embed *e, job *at, const char *text) {
    cJSON *j = begin(at);
    cJSON_AddStringToObject(j, "error", text);
    e->n_errors++;
    return set_result(at, j);
}

static bool set_embedding(job *at, const mcc_event *event) {
    cJSON *j = begin(at), *list = cJSON_AddArrayToObject(j, "embedding");
    for (int64_t i = 0; i < event->n_embedding; i++) {
        char number[32];
        snprintf(number, sizeof number, "%.9g", (double)event->embedding[i]);
        cJSON_AddItemToArray(list, cJSON_CreateRaw(number));
    }
    cJSON_AddNumberToObject(j, "prompt_tokens", (double)event->prompt_tokens);
    return set_result(at, j);
}

static void print_ready(embed *e) {
    while (e->n > 0 && job_at(e, 0)->line) {
        job *at = job_at(e, 0);
        puts(at->line);
        free(at->line);
        cJSON_Delete(at->id);
        e->first = (e->first + 1) % e->room;
        e->n--;
    }
    fflush(stdout);
}

/* --- requests ------------------------------------------------------------------------------------
 */

static bool submit(embed *e, job *at, mcc_request_params *p) {
    mcc_error error = {.struct_size = sizeof error};
    p->struct_size = sizeof *p;
    p->flags = e->flags;
    return mcc_request_submit(e->engine, p, &at->request, &error) == MCC_OK ||
           set_error(e, at, error.text);
}

/* A line {"input": …, "id": …}. */
static bool submit_line(embed *e, job *at, const char *line, size_t bytes) {
    mcc_request_params p = {0};
    cJSON *json = cJSON_ParseWithLength(line, bytes);
    cJSON *id = cJSON_DetachItemFromObjectCaseSensitive(json, "id");
    const cJSON *input = cJSON_GetObjectItemCaseSensitive(json, "input");
    int32_t *ids = NULL;
    bool ok = true;
    at->id = id;
    if (cJSON_IsString(input))
        p.prompt = input->valuestring;
    else if (cJSON_IsArray(input))
        p.prompt_ids = ids = output_take_ids(input, &p.n_prompt_ids);
    char text[128] = "";
    if (!cJSON_IsObject(json))
        snprintf(text, sizeof text, "line %" PRId64 ": not a JSON object", e->n_lines);
    else if (!p.prompt && !p.prompt_ids)
        snprintf(text, sizeof text, "input: expected a text or a list of token ids");
    ok = *text ? set_error(e, at, text) : submit(e, at, &p);
    cJSON_Delete(json);
    free(ids);
    return ok;
}

/* Whether to compute what is there rather than to wait for what another program may write. */
static bool is_idle(const embed *e) {
    struct pollfd input = {.fd = fileno(e->file), .events = POLLIN};
    return e->n > 0 && e->n_texts == 0 && poll(&input, 1, 0) == 0;
}

/* Takes the next text; *end when there is none. False after a message. */
static bool take_text(embed *e, bool *end) {
    job *at = job_at(e, e->n);
    *at = (job){0};
    if (e->n_texts > 0) {
        *end = e->next_text == e->n_texts;
        if (*end)
            return true;
        e->n++;
        mcc_request_params p = {.prompt = e->texts[e->next_text++]};
        return submit(e, at, &p) || output_fail_memory() == EXIT_FINE;
    }
    errno = 0;
    ssize_t n = getline(&e->line, &e->capacity, e->file);
    *end = n < 0;
    if (atomic_load(&command_cancelled))
        return false;
    if (*end && (ferror(e->file) || errno == ENOMEM)) {
        fprintf(stderr, "error: %s: cannot be read: %s\n", e->input ? e->input : "standard input",
                strerror(errno));
        return false;
    }
    e->n_lines += !*end;
    if (*end || !e->line[strspn(e->line, " \t\r\n")])
        return true;
    e->n++;
    return submit_line(e, at, e->line, (size_t)n) || output_fail_memory() == EXIT_FINE;
}

/* Takes what has been computed. */
static bool take_events(embed *e) {
    mcc_event event = {.struct_size = sizeof event};
    while (mcc_engine_next_event(e->engine, &event, NULL) == MCC_OK &&
           event.kind != MCC_EVENT_NONE) {
        int i = 0;
        while (i < e->n && job_at(e, i)->request != event.request)
            i++;
        if (event.kind != MCC_EVENT_FINISHED || i == e->n)
            continue;
        bool ok = event.embedding ? set_embedding(job_at(e, i), &event)
                                  : set_error(e, job_at(e, i), "its computation failed");
        if (!ok)
            return output_fail_memory() == EXIT_FINE;
    }
    return true;
}

static int run(embed *e) {
    mcc_error error = {.struct_size = sizeof error};
    for (bool end = false; !end || e->n > 0;) {
        while (!end && e->n < e->room && !is_idle(e))
            if (!take_text(e, &end))
                return EXIT_FAILED;
        if (mcc_engine_step(e->engine, NULL, &error))
            fprintf(stderr, "error: %s\n", error.text);
        if (!take_events(e))
            return EXIT_FAILED;
        print_ready(e);
        if (ferror(stdout) || atomic_load(&command_cancelled))
            return EXIT_FAILED;
    }
    return e->n_errors ? EXIT_FAILED : EXIT_FINE;
}

static int open_and_run(embed *e) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_artifact_options options = {.struct_size = sizeof options, .target = e->target};
    mcc_artifact_info info = {.struct_size = sizeof info};
    if (mcc_artifact_open(e->artifact, &options, &e->model, &error))
        return output_fail(&error);
    mcc_artifact_get_info(e->model, &info, NULL);
    if (info.embedding_size == 0) {
        fprintf(stderr, "error: %s: it generates text: build it with --task embed for vectors\n",
                e->artifact);
        return EXIT_FAILED;
    }
    if (mcc_engine_create(e->model, &e->options, &e->engine, &error))
        return output_fail(&error);
    e->file = e->input ? fopen(e->input, "r") : stdin;
    if (!e->file) {
        fprintf(stderr, "error: %s: %s\n", e->input, strerror(errno));
        return EXIT_FAILED;
    }
    e->room = 4 * e->options.max_num_seqs;
    e->jobs = calloc((size_t)e->room, sizeof *e->jobs);
    if (!e->jobs)
        return output_fail_memory();
    int code = run(e);
    while (e->n > 0) {
        job *at = job_at(e, --e->n);
        free(at->line);
        cJSON_Delete(at->id);
    }
    return code;
}

int cmd_embed(int argc, char **argv) {
    enum { OPT_INPUT = 256, OPT_RAW, OPT_SEQS, OPT_BATCHED, OPT_LEN, OPT_DEVICE, OPT_TARGET };
    static const struct option longs[] = {
        {"prompt", required_argument, NULL, 'p'},
        {"input", required_argument, NULL, OPT_INPUT},
        {"no-normalize", no_argument, NULL, OPT_RAW},
        {"max-num-seqs", required_argument, NULL, OPT_SEQS},
        {"max-num-batched-tokens", required_argument, NULL, OPT_BATCHED},
        {"max-model-len", required_argument, NULL, OPT_LEN},
        {"threads", required_argument, NULL, 't'},
        {"device", required_argument, NULL, OPT_DEVICE},
        {"target", required_argument, NULL, OPT_TARGET},
        {"help", no_argument, NULL, 'h'},
        {0}};
    embed e = {.options = {.struct_size = sizeof e.options, .max_num_seqs = 32}};
    e.texts = calloc((size_t)argc, sizeof *e.texts);
    if (!e.texts)
        return output_fail_memory();
    int code = EXIT_FINE;
    long long n = 0;
    for (int option;
         code == EXIT_FINE && (option = command_option(argc, argv, "p:t:h", longs)) != -1;) {
        const struct option *l = longs;
        while (l->name && l->val != option)
            l++;
        if (l->name && (option == 't' || (option >= OPT_SEQS && option <= OPT_LEN)) &&
            !command_number(optarg, 1, 1 << 24, &n)) {
            code = command_usage("embed", "--%s %s: expected a positive number", l->name, optarg);
            break;
        }
        switch (option) {
        case 'p':
            e.texts[e.n_texts++] = optarg;
            break;
        case OPT_INPUT:
            e.input = optarg;
            break;
        case OPT_RAW:
            e.flags = MCC_REQUEST_RAW_EMBEDDING;
            break;
        case OPT_SEQS:
            e.options.max_num_seqs = (int32_t)n;
            break;
        case OPT_BATCHED:
            e.options.max_num_batched_tokens = (int32_t)n;
            break;
        case OPT_LEN:
            e.options.max_model_len = n;
            break;
        case 't':
            e.options.threads = (int32_t)n;
            break;
        case OPT_DEVICE:
            e.options.device = optarg;
            break;
        case OPT_TARGET:
            e.target = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            free(e.texts);
            return EXIT_FINE;
        default:
            code = EXIT_USAGE;
        }
    }
    if (code == EXIT_FINE && optind + 1 != argc)
        code = command_usage("embed", "expected one MODEL.so");
    if (code == EXIT_FINE && e.input && e.n_texts > 0)
        code = command_usage("embed", "--input and -p are two sources of texts: give one");
    if (code == EXIT_FINE) {
        e.artifact = argv[optind];
        code = open_and_run(&e);
    }
    if (e.file && e.file != stdin)
        fclose(e.file);
    free(e.line);
    free(e.jobs);
    free(e.texts);
    mcc_engine_destroy(e.engine);
    mcc_artifact_close(e.model);
    return code;
}
