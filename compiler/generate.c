#include "compiler/generate.h"
#include "compiler/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char generate_help[] =
    "  -n, --max-tokens N         tokens to generate at most (default 512)\n"
    "      --temperature X        0 takes the most probable token (default)\n"
    "      --top-k N --top-p X --min-p X --typical-p X --seed N\n"
    "      --repetition-penalty X --presence-penalty X --frequency-penalty X\n"
    "      --logit-bias ID:X[,…]  add X, -100 to 100, to the logits of these token ids\n"
    "      --stop TEXT            end before this text; may be repeated\n"
    "      --guided-json FILE|TEXT      the output is JSON that this schema describes\n"
    "      --guided-regex REGEX         the output matches this regular expression\n"
    "      --guided-grammar FILE|TEXT   the output is one of this grammar (GBNF)\n"
    "      --ignore-eos           go on when the model says it is done\n"
    "  -t, --threads N            (default: the processors this process may use)\n"
    "      --max-model-len N      tokens of context (default: the model's)\n"
    "      --max-num-batched-tokens N   tokens of the prompt computed at once\n"
    "      --device NAME          cpu, cuda, cuda:N (the N-th GPU) or emulator (default: cpu, or "
    "cuda\n"
    "                             when the artifact has no code for the CPU)\n"
    "      --target NAME          use the CPU code for this target\n"
    "      --check                check the weights' hashes first\n"
    "      --huge-pages           copy the weights to huge pages: slower start, faster steps\n";

void generate_defaults(generate_options *o) {
    /* A small model may go on for ever: without a limit that would be its whole context. */
    enum { MAX_TOKENS = 512 };
    *o = (generate_options){.params = {.struct_size = sizeof o->params, .max_tokens = MAX_TOKENS}};
    speculative_defaults(&o->speculative);
}

static int bad(const char *command, const char *option, const char *value, const char *expected) {
    return command_usage(command, "%s %s: expected %s", option, value, expected);
}

/* Adds ID:X,ID:X to the biases. */
static bool take_biases(generate_options *o, const char *text) {
    mcc_request_params *p = &o->params;
    p->logit_bias_ids = o->bias_ids;
    p->logit_bias = o->biases;
    for (char *end = (char *)text; *text; text = end + (*end == ',')) {
        errno = 0;
        long id = strtol(text, &end, 10);
        if (*text < '0' || *text > '9' || *end != ':' || errno || id > INT32_MAX ||
            p->n_logit_bias == GENERATE_MAX_BIASES)
            return false;
        text = end + 1;
        double bias = strtod(text, &end);
        if (end == text || (*end && *end != ',') || !(bias >= -100 && bias <= 100))
            return false;
        o->bias_ids[p->n_logit_bias] = (int32_t)id;
        o->biases[p->n_logit_bias++] = (float)bias;
    }
    return p->n_logit_bias > 0;
}

int generate_logprobs_option(const char *command, generate_options *o, const char *value) {
    long long n;
    if (!command_number(value, 0, MCC_MAX_TOP_LOGPROBS, &n))
        return bad(command, "--logprobs", value, "0 to 20");
    o->params.flags |= MCC_REQUEST_LOGPROBS;
    o->params.top_logprobs = (int32_t)n;
    return EXIT_FINE;
}

/* A schema or grammar is a file, or else the text itself: one begins with a brace, the other has
 * `::=` in it. */
static int guided(const char *command, generate_options *o, const char *option, const char *value,
                  bool is_text, const char **text) {
    if (is_text) {
        *text = value;
        return EXIT_FINE;
    }
    if (o->guided_file)
        return command_usage(command, "%s: there is another grammar already", option);
    o->guided_file = value;
    o->guided_as = text;
    return EXIT_FINE;
}

int generate_read_guided(const char *command, generate_options *o) {
    enum { MAX_BYTES = 16 << 20 }; /* the engine takes less, and says so */
    unsigned long size;
    if (!o->guided_file)
        return EXIT_FINE;
    o->guided = command_read_file(command, o->guided_file, MAX_BYTES, &size);
    if (!o->guided)
        return EXIT_FAILED;
    *o->guided_as = o->guided;
    if (strlen(o->guided) == size)
        return EXIT_FINE;
    fprintf(stderr, "error: %s: there is a zero byte in it\n", o->guided_file);
    free(o->guided);
    o->guided = NULL;
    return EXIT_FAILED;
}

int generate_option(const char *command, generate_options *o, int option, const char *value) {
    mcc_request_params *p = &o->params;
    long long n;
    double x;
    switch (option) {
    case 'n':
        if (!command_number(value, 1, 1 << 30, &n))
            return bad(command, "--max-tokens", value, "a positive number");
        p->max_tokens = n;
        return EXIT_FINE;
    case 't':
        if (!command_number(value, 1, 1024, &n))
            return bad(command, "--threads", value, "1 to 1024");
        o->threads = (int)n;
        return EXIT_FINE;
    case GENERATE_FIRST:
        if (!command_real(value, 0, 100, &x))
            return bad(command, "--temperature", value, "0 to 100");
        p->temperature = (float)x;
        return EXIT_FINE;
    case GENERATE_FIRST + 1:
        if (!command_number(value, 0, 1 << 30, &n))
            return bad(command, "--top-k", value, "0 (all) or a number of tokens");
        p->top_k = (int32_t)n;
        return EXIT_FINE;
    case GENERATE_FIRST + 2:
        if (!command_real(value, 0, 1, &x) || x == 0)
            return bad(command, "--top-p", value, "above 0, at most 1");
        p->top_p = (float)x;
        return EXIT_FINE;
    case GENERATE_FIRST + 3:
        if (!command_real(value, 0, 1, &x))
            return bad(command, "--min-p", value, "0 to 1");
        p->min_p = (float)x;
        return EXIT_FINE;
    case GENERATE_FIRST + 4:
        if (!command_real(value, 0.01, 100, &x))
            return bad(command, "--repetition-penalty", value, "0.01 to 100");
        p->repetition_penalty = (float)x;
        return EXIT_FINE;
    case GENERATE_FIRST + 5:
        if (!command_number(value, 0, INT64_MAX, &n))
            return bad(command, "--seed", value, "a number from 0");
        p->seed = (uint64_t)n;
        return EXIT_FINE;
    case GENERATE_FIRST + 6:
        if (p->n_stop == GENERATE_MAX_STOPS || !*value)
            return bad(command, "--stop", value, "at most 16 texts, none empty");
        o->stops[p->n_stop++] = value;
        p->stop = o->stops;
        return EXIT_FINE;
    case GENERATE_FIRST + 7:
        p->flags |= MCC_REQUEST_IGNORE_EOS;
        return EXIT_FINE;
    case GENERATE_FIRST + 8:
        if (!command_number(value, 1, 1 << 30, &n))
            return bad(command, "--max-model-len", value, "a positive number");
        o->max_model_len = n;
        return EXIT_FINE;
    case GENERATE_FIRST + 9:
        if (!command_number(value, 1, 1 << 20, &n))
            return bad(command, "--max-num-batched-tokens", value, "a positive number");
        o->max_num_batched_tokens = (int)n;
        return EXIT_FINE;
    case GENERATE_FIRST + 10:
        o->target = value;
        return EXIT_FINE;
    case GENERATE_FIRST + 11:
        o->check = true;
        return EXIT_FINE;
    case GENERATE_FIRST + 12:
        o->huge_pages = true;
        return EXIT_FINE;
    case GENERATE_FIRST + 13:
        o->device = value;
        return EXIT_FINE;
    case GENERATE_FIRST + 14:
        return speculative_tokens(command, value, &o->speculative);
    case GENERATE_FIRST + 15:
        return speculative_draft(command, value, &o->speculative);
    case GENERATE_FIRST + 16:
        return speculative_config(command, value, &o->speculative);
    case GENERATE_FIRST + 17:
        if (!command_real(value, -2, 2, &x))
            return bad(command, "--presence-penalty", value, "-2 to 2");
        p->presence_penalty = (float)x;
        return EXIT_FINE;
    case GENERATE_FIRST + 18:
        if (!command_real(value, -2, 2, &x))
            return bad(command, "--frequency-penalty", value, "-2 to 2");
        p->frequency_penalty = (float)x;
        return EXIT_FINE;
    case GENERATE_FIRST + 19:
        if (!command_real(value, 0, 1, &x) || x == 0)
            return bad(command, "--typical-p", value, "above 0, at most 1");
        p->typical_p = (float)x;
        return EXIT_FINE;
    case GENERATE_FIRST + 21: {
        bool is_text = value[strspn(value, " \t\r\n")] == '{' || strcmp(value, "true") == 0;
        return guided(command, o, "--guided-json", value, is_text, &p->guided_json);
    }
    case GENERATE_FIRST + 22:
        p->guided_regex = value;
        return EXIT_FINE;
    case GENERATE_FIRST + 23:
        return guided(command, o, "--guided-grammar", value, strstr(value, "::=") != NULL,
                      &p->guided_grammar);
    case GENERATE_FIRST + 20:
        return take_biases(o, value)
                   ? EXIT_FINE
                   : bad(command, "--logit-bias", value,
                         "token ids and biases of -100 to 100 as ID:X,ID:X, at most 300");
    default:
        return EXIT_USAGE;
    }
}

void generate_close(generate_model *m) {
    mcc_engine_destroy(m->engine);
    mcc_artifact_close(m->draft);
    mcc_artifact_close(m->artifact);
    *m = (generate_model){0};
}

int generate_open(generate_options *o, generate_model *m) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_artifact_options artifact_options = {.struct_size = sizeof artifact_options,
                                             .flags = (o->check ? MCC_OPEN_CHECK : 0) |
                                                      (o->huge_pages ? MCC_OPEN_HUGE_PAGES : 0),
                                             .target = o->target};
    *m = (generate_model){0};
    if (mcc_artifact_open(o->artifact, &artifact_options, &m->artifact, &error))
        return output_fail(&error);
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_artifact_get_info(m->artifact, &info, NULL);
    if (info.embedding_size > 0) {
        fprintf(stderr,
                "error: %s: it computes embeddings and generates no tokens: modelcc embed is for "
                "it\n",
                o->artifact);
        generate_close(m);
        return EXIT_FAILED;
    }
    mcc_engine_options engine_options = {.struct_size = sizeof engine_options,
                                         .threads = o->threads,
                                         .max_num_batched_tokens = o->max_num_batched_tokens,
                                         .max_model_len = o->max_model_len,
                                         .max_num_seqs = o->max_num_seqs,
                                         .max_num_waiting = o->max_num_waiting,
                                         .kv_cache_memory_bytes = o->kv_cache_memory_bytes,
                                         .swap_space_bytes = o->swap_space_bytes,
                                         .preemption_mode = o->preemption_mode,
                                         .device = o->device};
    if (o->many && o->max_num_seqs == 0)
        engine_options.max_num_seqs =
            output_default_seqs(m->artifact, o->device, o->max_num_batched_tokens);
    o->params.num_speculative_tokens = speculative_count(&o->speculative);
    int code = speculative_open(&o->speculative, &artifact_options, &engine_options, &m->draft);
    if (code == EXIT_FINE && mcc_engine_create(m->artifact, &engine_options, &m->engine, &error))
        code = output_fail(&error);
    if (code != EXIT_FINE)
        generate_close(m);
    return code;
}

void generation_free(generation *g) {
    free(g->ids);
    free(g->text);
    free(g->prompt_ids);
    logprobs_free(&g->logprobs);
    *g = (generation){0};
}

const char *generate_finish_name(int reason) {
    static const char *const names[] = {"none", "stop", "length", "cancelled", "error", "deadline"};
    return reason >= 0 && reason <= 5 ? names[reason] : "unknown";
}

static bool append_text(generation *g, const char *text, uint64_t bytes) {
    char *grown = realloc(g->text, g->text_bytes + bytes + 1);
    if (!grown)
        return false;
    memcpy(grown + g->text_bytes, text, bytes);
    g->text = grown;
    g->text_bytes += bytes;
    grown[g->text_bytes] = '\0';
    return true;
}

static bool append_id(generation *g, int32_t id) {
    if ((g->n_ids & (g->n_ids - 1)) == 0) { /* full at powers of two */
        int32_t *grown = realloc(g->ids, (size_t)(g->n_ids ? 2 * g->n_ids : 1) * sizeof *grown);
        if (!grown)
            return false;
        g->ids = grown;
    }
    g->ids[g->n_ids++] = id;
    return true;
}

static bool read_prompt(const mcc_engine *engine, uint64_t id, generation *g) {
    if (mcc_request_prompt_ids(engine, id, NULL, 0, &g->n_prompt_ids, NULL) !=
            MCC_BUFFER_TOO_SMALL ||
        g->n_prompt_ids <= 0)
        return true;
    g->prompt_ids = malloc((size_t)g->n_prompt_ids * sizeof *g->prompt_ids);
    return g->prompt_ids && !mcc_request_prompt_ids(engine, id, g->prompt_ids, g->n_prompt_ids,
                                                    &g->n_prompt_ids, NULL);
}

/* Takes the request's events until there is none; *finished when it ended. */
static bool take_events(mcc_engine *engine, uint64_t id, const mcc_request_params *params,
                        FILE *stream, generation *g, bool *finished, mcc_error *error) {
    mcc_event event = {.struct_size = sizeof event};
    while (!*finished) {
        if (mcc_engine_poll(engine, id, &event, error))
            return false;
        if (event.kind == MCC_EVENT_NONE)
            return true;
        bool ok = append_text(g, event.text, event.text_bytes);
        if (event.kind == MCC_EVENT_TOKEN)
            ok = ok && append_id(g, event.token_id) &&
                 (!logprobs_wanted(params) || logprobs_add(&g->logprobs, &event));
        if (!ok) {
            snprintf(error->text, sizeof error->text, "out of memory for the generated text");
            return false;
        }
        if (stream && event.text_bytes) {
            fwrite(event.text, 1, event.text_bytes, stream);
            fflush(stream);
        }
        if (event.kind == MCC_EVENT_FINISHED) {
            *finished = true;
            g->finish_reason = event.finish_reason;
            g->prompt_tokens = event.prompt_tokens;
            g->cached_tokens = event.cached_tokens;
            g->prefill_seconds = event.prefill_seconds;
            g->decode_seconds = event.decode_seconds;
        }
    }
    return true;
}

int generate(mcc_engine *engine, const mcc_request_params *params, FILE *stream, generation *out) {
    mcc_error error = {.struct_size = sizeof error};
    uint64_t id;
    *out = (generation){.logprobs = {.n_top = params->top_logprobs}};
    out->status = mcc_request_submit(engine, params, &id, &error);
    if (out->status)
        return output_fail(&error);
    bool finished = false, cancelled = false;
    if (!read_prompt(engine, id, out)) {
        fprintf(stderr, "error: out of memory for the prompt\n");
        return EXIT_FAILED;
    }
    while (!finished) {
        bool stop = atomic_load(&command_cancelled) || (stream && ferror(stream));
        if (stop && !cancelled) {
            mcc_request_cancel(engine, id, NULL);
            cancelled = true;
        } else if (mcc_engine_step(engine, NULL, &error)) {
            return output_fail(&error);
        }
        if (!take_events(engine, id, params, stream, out, &finished, &error))
            return output_fail(&error);
    }
    return append_text(out, "", 0) ? EXIT_FINE : EXIT_FAILED;
}
