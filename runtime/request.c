/* One request: the prompt it came with, the tokens it got, the text they make. */
#include "runtime/engine.h"
#include "runtime/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_STOPS = 64,
    MAX_STOP_BYTES = 4096,
    MIN_TEXT_CAPACITY = 4096 /* many tokens' text: it does not grow when events are polled */
};

static bool no_memory(rt_error *error) {
    return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a request");
}

/* --- prompt --------------------------------------------------------------------------------------
 */

/* Tokenizes text into *ids (malloc'ed). */
static bool encode(const mcc_artifact *a, const char *text, uint64_t bytes, unsigned flags,
                   int32_t **ids, int64_t *n, rt_error *error) {
    if (!rt_need_tokenizer(a, error))
        return false;
    /* Seldom more tokens than bytes; when there are, the second round knows how many. */
    int64_t capacity = (int64_t)(bytes < 1 << 30 ? bytes : 1 << 30) + 8;
    for (int round = 0; round < 2; round++) {
        *ids = malloc((size_t)capacity * sizeof **ids);
        if (!*ids)
            return no_memory(error);
        *n = rt_tokenizer_encode(a->tokenizer, text, bytes, flags, *ids, capacity, error);
        if (*n >= 0 && *n <= capacity)
            return true;
        free(*ids);
        *ids = NULL;
        if (*n < 0)
            return false;
        capacity = *n;
    }
    return rt_fail(error, MCC_INTERNAL, "the tokenizer gave two lengths for the same text");
}

/* The prompt as token ids (malloc'ed), whichever way it was given. */
static bool prompt_ids(const mcc_artifact *a, const mcc_request_params *p, int32_t **ids,
                       int64_t *n, rt_error *error) {
    if ((p->prompt_ids != NULL) + (p->prompt != NULL) + (p->messages != NULL) != 1)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "exactly one of prompt_ids, prompt and messages must be set");
    if (p->prompt)
        return encode(a, p->prompt, p->prompt_bytes ? p->prompt_bytes : strlen(p->prompt),
                      RT_TOKENIZER_ADD_SPECIAL | RT_TOKENIZER_PARSE_SPECIAL, ids, n, error);
    if (p->messages) {
        uint64_t bytes;
        if (!rt_need_tokenizer(a, error))
            return false;
        char *text = rt_render_messages(a, p->messages, p->messages_bytes, true, &bytes, error);
        if (!text)
            return false;
        bool ok = encode(a, text, bytes, RT_TOKENIZER_PARSE_SPECIAL, ids, n, error);
        free(text);
        return ok;
    }
    if (p->n_prompt_ids < 0 || p->n_prompt_ids > INT32_MAX)
        return rt_fail(error, MCC_INVALID_ARGUMENT, "n_prompt_ids is %" PRId64, p->n_prompt_ids);
    *n = p->n_prompt_ids;
    *ids = malloc((size_t)(*n > 0 ? *n : 1) * sizeof **ids);
    if (!*ids)
        return no_memory(error);
    memcpy(*ids, p->prompt_ids, (size_t)*n * sizeof **ids);
    return true;
}

static bool set_prompt(const mcc_engine *e, const mcc_request_params *p, rt_request *r,
                       rt_error *error) {
    if (!prompt_ids(e->artifact, p, &r->seq.ids, &r->seq.n_prompt, error))
        return false;
    r->seq.n_ids = r->seq.n_prompt;
    if (r->seq.n_prompt == 0)
        return rt_fail(error, MCC_INVALID_ARGUMENT, "the prompt is empty");
    bool embeds = e->artifact->tables.pooling != RT_POOL_NONE;
    if (r->seq.n_prompt > e->max_len - !embeds)
        return rt_fail(error, MCC_CAPACITY,
                       "the prompt has %" PRId64 " tokens; max_model_len is %" PRId64 "%s",
                       r->seq.n_prompt, e->max_len,
                       embeds ? "" : " and must leave room for one more");
    for (int64_t i = 0; i < r->seq.n_prompt; i++)
        if (r->seq.ids[i] < 0 || r->seq.ids[i] >= e->vocab_size)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "prompt token %" PRId64 " is %" PRId32
                           ", but the model's vocabulary has %" PRId32,
                           i, r->seq.ids[i], e->vocab_size);
    if (p->max_tokens < 0)
        return rt_fail(error, MCC_INVALID_ARGUMENT, "max_tokens is %" PRId64, p->max_tokens);
    int64_t room = embeds ? 0 : e->max_len - r->seq.n_prompt;
    r->max_ids =
        r->seq.n_prompt + (p->max_tokens > 0 && p->max_tokens < room ? p->max_tokens : room);
    int32_t *ids = realloc(r->seq.ids, (size_t)r->max_ids * sizeof *ids);
    if (!ids)
        return no_memory(error);
    r->seq.ids = ids;
    return true;
}

/* --- parameters ----------------------------------------------------------------------------------
 */

static bool set_sampling(const mcc_engine *e, const mcc_request_params *p, rt_request *r,
                         rt_error *error) {
    r->sampling = (rt_sampling){.temperature = p->temperature,
                                .top_k = p->top_k,
                                .top_p = p->top_p == 0 ? 1 : p->top_p,
                                .min_p = p->min_p,
                                .seed = p->seed,
                                .typical_p = p->typical_p};
    if (p->top_logprobs < 0 || p->top_logprobs > MCC_MAX_TOP_LOGPROBS)
        return rt_fail(error, MCC_INVALID_ARGUMENT, "top_logprobs is %" PRId32 ", expected 0 to %d",
                       p->top_logprobs, MCC_MAX_TOP_LOGPROBS);
    r->n_top = p->top_logprobs;
    if (r->n_top > 0)
        r->flags |= MCC_REQUEST_LOGPROBS;
    return rt_sampling_check(&r->sampling, error) &&
           rt_adjust_create(&r->adjust, p, e->vocab_size, r->seq.ids, r->seq.n_prompt, r->max_ids,
                            error);
}

static bool set_stops(const mcc_artifact *a, const mcc_request_params *p, rt_request *r,
                      rt_error *error) {
    if (p->n_stop < 0 || p->n_stop > MAX_STOPS || (p->n_stop > 0 && !p->stop) ||
        p->n_stop_token_ids < 0 || p->n_stop_token_ids > MAX_STOPS ||
        (p->n_stop_token_ids > 0 && !p->stop_token_ids))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "%" PRId32 " stop texts and %" PRId32 " stop tokens, at most %d of each",
                       p->n_stop, p->n_stop_token_ids, MAX_STOPS);
    if (p->n_stop > 0 && !rt_need_tokenizer(a, error))
        return false;
    r->stops = calloc((size_t)p->n_stop + 1, sizeof *r->stops);
    if (!r->stops)
        return no_memory(error);
    for (int32_t i = 0; i < p->n_stop; i++) {
        size_t bytes = p->stop[i] ? strnlen(p->stop[i], MAX_STOP_BYTES + 1) : 0;
        /* Text comes in whole characters, so one that begins in the middle of a character would
         * never be found. */
        if (bytes == 0 || bytes > MAX_STOP_BYTES || ((uint8_t)p->stop[i][0] & 0xc0) == 0x80)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "stop[%" PRId32 "] must be UTF-8 text of 1 to %d bytes", i,
                           MAX_STOP_BYTES);
        char *copy = malloc(bytes);
        if (!copy)
            return no_memory(error);
        memcpy(copy, p->stop[i], bytes);
        r->stops[r->n_stops++] = (rt_stop){copy, bytes};
    }

    /* The model's own end tokens, unless they are to be ignored, and the caller's. */
    int64_t n_end = 0;
    const int32_t *end = NULL;
    if (a->tokenizer && !(p->flags & MCC_REQUEST_IGNORE_EOS))
        end = rt_tokenizer_end_ids(a->tokenizer, &n_end);
    r->stop_ids = malloc(((size_t)n_end + (size_t)p->n_stop_token_ids + 1) * sizeof *r->stop_ids);
    if (!r->stop_ids)
        return no_memory(error);
    for (int64_t i = 0; i < n_end; i++)
        r->stop_ids[r->n_stop_ids++] = end[i];
    for (int32_t i = 0; i < p->n_stop_token_ids; i++)
        r->stop_ids[r->n_stop_ids++] = p->stop_token_ids[i];
    return true;
}

/* After set_stops: the end tokens are those that the grammar allows in the end. */
static bool set_guide(const mcc_engine *e, const mcc_request_params *p, rt_request *r,
                      rt_error *error) {
    const char *const texts[] = {p->guided_json, p->guided_regex, p->guided_grammar};
    int kind = -1;
    for (int i = 0; i < (int)(sizeof texts / sizeof *texts); i++) {
        if (!texts[i])
            continue;
        if (kind >= 0)
            return rt_fail(error, MCC_INVALID_ARGUMENT, "%s and %s exclude each other",
                           rt_grammar_field((rt_grammar_kind)kind),
                           rt_grammar_field((rt_grammar_kind)i));
        kind = i;
    }
    if (kind < 0)
        return true;
    if (!rt_need_tokenizer(e->artifact, error))
        return false;
    if (rt_tokenizer_joins_by_spaces(e->artifact->tokenizer))
        return rt_fail(error, MCC_UNSUPPORTED,
                       "%s: the model's tokenizer joins tokens by spaces, for which grammars are "
                       "not supported",
                       rt_grammar_field((rt_grammar_kind)kind));
    rt_grammar *grammar = rt_grammars_get(e->grammars, (rt_grammar_kind)kind, texts[kind],
                                          strlen(texts[kind]), error);
    if (!grammar)
        return false;
    r->guide = rt_guide_create(grammar, r->stop_ids, r->n_stop_ids);
    return r->guide || no_memory(error);
}

size_t rt_request_event_bytes(const mcc_artifact *a) {
    return 2 * (a->tokenizer ? (size_t)rt_detok_max(a->tokenizer) : 0) + MAX_STOP_BYTES + 1;
}

/* Room for the text of a token, and for what stop texts can hold back. */
static bool set_output(const mcc_engine *e, rt_request *r, rt_error *error) {
    size_t piece = 0, held = 0;
    if (e->artifact->tokenizer) {
        rt_detok_init(&r->detok, e->artifact->tokenizer,
                      RT_TOKENIZER_SKIP_SPECIAL | RT_TOKENIZER_CONTINUE);
        piece = (size_t)rt_detok_max(e->artifact->tokenizer);
    }
    for (int32_t i = 0; i < r->n_stops; i++)
        held = r->stops[i].bytes > held ? r->stops[i].bytes : held;
    r->text.capacity = 2 * (piece + held) + MIN_TEXT_CAPACITY;
    r->text.buffer = malloc(r->text.capacity);
    size_t most = (size_t)(r->max_ids - r->seq.n_prompt);
    r->text_ends = malloc(most * sizeof *r->text_ends);
    if (r->flags & MCC_REQUEST_LOGPROBS)
        r->logprobs = malloc(most * sizeof *r->logprobs);
    if (r->n_top > 0)
        r->top = malloc(most * (size_t)r->n_top * sizeof *r->top);
    if (!r->text.buffer || !r->text_ends || ((r->flags & MCC_REQUEST_LOGPROBS) && !r->logprobs) ||
        (r->n_top > 0 && !r->top))
        return no_memory(error);
    return true;
}

/* Of a mean, the rows of all tokens are needed, so that none may come from the cache. */
static bool set_embedding(const mcc_engine *e, rt_request *r, rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    if (!t->pooling)
        return true;
    r->embedding = malloc((size_t)t->rows->width * sizeof *r->embedding);
    if (t->pooling == RT_POOL_MEAN)
        r->sums = malloc((size_t)t->rows->width * sizeof *r->sums);
    r->seq.all_rows = t->pooling == RT_POOL_MEAN;
    r->seq.no_cache = r->seq.no_cache || r->seq.all_rows;
    return (r->embedding && (r->sums || !r->seq.all_rows)) || no_memory(error);
}

static bool set_drafts(const mcc_engine *e, rt_request *r, rt_error *error) {
    r->proposer = r->max_drafts > 0 ? e->proposer : NULL;
    r->rejects = r->proposer && e->draft_weights && r->sampling.temperature > 0;
    if (!r->proposer || !r->proposer->ops->open)
        return true;
    r->draft_state = r->proposer->ops->open(r->proposer, &r->seq, r->max_ids);
    return r->draft_state || no_memory(error);
}

rt_request *rt_request_create(const mcc_engine *engine, const mcc_request_params *p,
                              rt_error *error) {
    uint32_t known = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_LOGPROBS | MCC_REQUEST_NO_CACHE |
                     MCC_REQUEST_RAW_EMBEDDING;
    if (p->flags & ~known) {
        rt_fail(error, MCC_INVALID_ARGUMENT, "unknown request flags 0x%x", (unsigned)p->flags);
        return NULL;
    }
    if (engine->artifact->tables.pooling && !rt_embed_check(p, error))
        return NULL;
    if (!(p->deadline_seconds >= 0)) {
        rt_fail(error, MCC_INVALID_ARGUMENT, "deadline_seconds is %g, expected 0 (none) or more",
                p->deadline_seconds);
        return NULL;
    }
    if (p->num_speculative_tokens < 0 || p->num_speculative_tokens > MCC_MAX_DRAFT) {
        rt_fail(error, MCC_INVALID_ARGUMENT,
                "num_speculative_tokens is %" PRId32 ", expected 0 (none) to %d",
                p->num_speculative_tokens, MCC_MAX_DRAFT);
        return NULL;
    }
    rt_request *r = calloc(1, sizeof *r);
    if (!r) {
        no_memory(error);
        return NULL;
    }
    r->flags = p->flags;
    r->user_data = p->user_data;
    r->seq.priority = p->priority;
    r->seq.salt = p->cache_salt;
    r->max_drafts = p->num_speculative_tokens;
    r->seq.no_cache = p->flags & MCC_REQUEST_NO_CACHE;
    if (!set_prompt(engine, p, r, error) || !set_sampling(engine, p, r, error) ||
        !set_stops(engine->artifact, p, r, error) || !set_guide(engine, p, r, error) ||
        !set_output(engine, r, error) || !set_embedding(engine, r, error) ||
        !set_drafts(engine, r, error)) {
        rt_request_free(r);
        return NULL;
    }
    return r;
}

void rt_request_free(rt_request *r) {
    if (!r)
        return;
    if (r->proposer && r->proposer->ops->close)
        r->proposer->ops->close(r->draft_state);
    for (int32_t i = 0; i < r->n_stops; i++)
        free((char *)r->stops[i].text);
    free(r->stops);
    rt_guide_destroy(r->guide);
    free(r->stop_ids);
    rt_adjust_destroy(&r->adjust);
    free(r->seq.ids);
    free(r->text.buffer);
    free(r->text_ends);
    free(r->logprobs);
    free(r->top);
    free(r->embedding);
    free(r->sums);
    free(r);
}

/* --- output --------------------------------------------------------------------------------------
 */

/* Makes room for `bytes` more: first what has been polled, then more memory. */
static bool make_room(rt_output_text *t, size_t bytes, rt_error *error) {
    if (t->capacity - (size_t)(t->end - t->base) >= bytes)
        return true;
    size_t waiting = (size_t)(t->end - t->begin);
    memmove(t->buffer, t->buffer + (t->begin - t->base), waiting);
    t->base = t->begin;
    if (t->capacity - waiting >= bytes)
        return true;
    char *buffer = realloc(t->buffer, 2 * t->capacity + bytes);
    if (!buffer)
        return no_memory(error);
    t->buffer = buffer;
    t->capacity = 2 * t->capacity + bytes;
    return true;
}

/* Appends what the tokenizer has for `id`, or at the end (id < 0) what it still holds. */
static bool append_text(rt_request *r, int32_t id, rt_error *error) {
    rt_output_text *t = &r->text;
    for (size_t need = 64;;) {
        if (!make_room(t, need, error))
            return false;
        char *out = t->buffer + (t->end - t->base);
        int64_t capacity = (int64_t)t->capacity - (t->end - t->base);
        int64_t bytes = id < 0 ? rt_detok_flush(&r->detok, out, capacity)
                               : rt_detok_push(&r->detok, id, out, capacity);
        if (bytes <= capacity) {
            /* An id without a token (-1) makes no text. */
            t->end += bytes > 0 ? bytes : 0;
            return true;
        }
        need = (size_t)bytes;
    }
}

/* Looks for a stop text in what has not been released: nothing before it can be a part of one. True
 * when there is one: the text then ends before it. Otherwise releases all but an end that could be
 * the beginning of one. */
static bool find_stop(rt_request *r) {
    rt_output_text *t = &r->text;
    const char *held = t->buffer + (t->released - t->base);
    size_t n = (size_t)(t->end - t->released), keep = 0;
    const char *first = NULL;
    for (int32_t i = 0; i < r->n_stops; i++) {
        const rt_stop *s = &r->stops[i];
        const char *at = memmem(held, n, s->text, s->bytes);
        if (at && (!first || at < first))
            first = at;
        for (size_t k = s->bytes - 1 < n ? s->bytes - 1 : n; k > keep; k--)
            if (memcmp(held + n - k, s->text, k) == 0)
                keep = k;
    }
    t->released = first ? t->released + (first - held) : t->end - (int64_t)keep;
    if (first)
        t->end = t->released;
    return first != NULL;
}

void rt_request_finish(rt_request *r, int32_t reason) {
    r->finished = true;
    r->finish_reason = reason;
    if (reason != MCC_FINISH_ERROR && r->detok.tokenizer)
        append_text(r, -1, NULL); /* without memory for it, a broken character is lost */
    if (!find_stop(r))
        r->text.released = r->text.end;
}

bool rt_request_add(rt_request *r, const rt_sampled *token, rt_error *error) {
    const int32_t id = token->id;
    int64_t i = r->seq.n_ids - r->seq.n_prompt;
    bool ends = false;
    for (int32_t s = 0; s < r->n_stop_ids; s++)
        ends = ends || r->stop_ids[s] == id;
    if (!ends && r->detok.tokenizer && !append_text(r, id, error))
        return false;
    bool stopped = find_stop(r);
    r->seq.ids[r->seq.n_ids++] = id;
    r->text_ends[i] = r->text.released;
    if (r->logprobs)
        r->logprobs[i] = token->logprob;
    if (r->top)
        memcpy(r->top + i * r->n_top, token->top, (size_t)r->n_top * sizeof *r->top);
    if (stopped) {
        /* The text ends before the stop text: nothing is flushed after it. */
        r->finished = true;
        r->finish_reason = MCC_FINISH_STOP;
    } else if (ends || (r->guide && r->guide->must_end &&
                        r->guide->n_tokens == r->seq.n_ids - r->seq.n_prompt)) {
        rt_request_finish(r, MCC_FINISH_STOP);
    } else if (r->seq.n_ids == r->max_ids) {
        rt_request_finish(r, MCC_FINISH_LENGTH);
    }
    return true;
}
