/* The pre-tokenizer: a chain of steps, each of which rewrites a piece or splits it. Pieces go
 * through the chain depth first, so they reach the model in the order of the text and nothing is
 * collected in lists. */
#include <string.h>

#include "runtime/tokenizer/internal.h"

static bool run(rt_tok_job *job, uint32_t step, const char *text, size_t size, bool first);

/* A splitting step at work: takes spans in the order of the text, each a match or not, and hands on
 * the pieces that the step's behaviour makes of them. */
typedef struct splitter {
    rt_tok_job *job;
    uint32_t step, behaviour;
    bool invert, first;
    const char *text;
    /* The piece that may still grow: text[begin, end), when `held`. */
    size_t begin, end;
    bool held;
    bool last_match; /* whether the span before was a match */
} splitter;

static bool hand_on(splitter *s, size_t begin, size_t end) {
    if (begin == end)
        return true;
    return run(s->job, s->step + 1, s->text + begin, end - begin, s->first && begin == 0);
}

/* Hands on what is held, and holds the new span. */
static bool hold(splitter *s, size_t begin, size_t end) {
    bool good = !s->held || hand_on(s, s->begin, s->end);
    s->begin = begin;
    s->end = end;
    s->held = true;
    return good;
}

static bool take(splitter *s, size_t begin, size_t end, bool match) {
    match ^= s->invert;
    bool last = s->last_match, joins = false;
    s->last_match = match;
    switch (s->behaviour) {
    case RT_TOK_REMOVED:
        return match || hand_on(s, begin, end);
    case RT_TOK_MERGED_WITH_PREVIOUS:
        joins = match && !last;
        break;
    case RT_TOK_MERGED_WITH_NEXT:
        joins = !match && last;
        break;
    case RT_TOK_CONTIGUOUS:
        joins = match == last;
        break;
    default:
        return hand_on(s, begin, end);
    }
    if (joins && s->held) {
        s->end = end;
        return true;
    }
    return hold(s, begin, end);
}

static bool finish(splitter *s) {
    return !s->held || hand_on(s, s->begin, s->end);
}

int rt_tok_match(rt_tok_job *job, uint32_t step, const char *text, size_t size, size_t at,
                 size_t last_end, size_t *begin, size_t *end) {
    const pcre2_code *regex = job->tokenizer->regex[step];
    if (!job->match_data) {
        job->match_data = pcre2_match_data_create(1, NULL);
        job->match_context = pcre2_match_context_create(NULL);
        if (!job->match_data || !job->match_context) {
            rt_tok_no_memory(job);
            return -1;
        }
    }
    while (at <= size) {
        /* A sane pattern backtracks over what it matched, a few times; not exponentially. */
        uint64_t limit = 20000 + 64 * (uint64_t)(size - at);
        pcre2_set_match_limit(job->match_context,
                              limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
        int found = pcre2_match(regex, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK,
                                job->match_data, job->match_context);
        if (found == PCRE2_ERROR_JIT_STACKLIMIT)
            found =
                pcre2_match(regex, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            job->match_data, job->match_context);
        if (found == PCRE2_ERROR_NOMATCH)
            return 0;
        if (found < 0) {
            PCRE2_UCHAR message[128];
            if (pcre2_get_error_message(found, message, sizeof message) < 0)
                message[0] = 0;
            rt_fail(job->error, RT_TOKENIZER_GAVE_UP,
                    "tokenizer: regular expression %u gave up on %zu bytes of text: %s", step,
                    size - at, (const char *)message);
            return -1;
        }
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(job->match_data);
        *begin = bounds[0];
        *end = bounds[1];
        /* \K in a lookahead can turn bounds around. */
        if (*begin < at || *end < *begin || *end > size) {
            rt_tok_damaged(job, "a regular expression matches backwards");
            return -1;
        }
        if (*begin != *end || *end != last_end)
            return 1;
        at = *end < size ? *end + rt_utf8_size(text + *end) : size + 1;
        last_end = SIZE_MAX;
    }
    return 0;
}

const char *rt_tok_subject(rt_tok_job *job, uint32_t step, const char *text, size_t size) {
    if (!job->newer)
        return text;
    if (rt_tok_shadow(text, size, &job->shadow[step]))
        return job->shadow[step].data;
    rt_tok_no_memory(job);
    return NULL;
}

static bool split_regex(splitter *s, size_t size) {
    size_t at = 0, last = SIZE_MAX, begin, end;
    int found;
    const char *subject = rt_tok_subject(s->job, s->step, s->text, size);
    if (!subject)
        return false;
    while ((found = rt_tok_match(s->job, s->step, subject, size, at, last, &begin, &end)) == 1) {
        if (at != begin && !take(s, at, begin, false))
            return false;
        if (!take(s, begin, end, true))
            return false;
        at = last = end;
    }
    return found == 0 && (at == size || take(s, at, size, false));
}

static bool split_string(splitter *s, size_t size, const char *sought, size_t length) {
    size_t at = 0;
    while (at < size && length) {
        const char *found = memmem(s->text + at, size - at, sought, length);
        if (!found)
            break;
        size_t begin = (size_t)(found - s->text);
        if ((at != begin && !take(s, at, begin, false)) || !take(s, begin, begin + length, true))
            return false;
        at = begin + length;
    }
    return at == size || take(s, at, size, false);
}

static bool in_class(uint32_t class, uint32_t code) {
    switch (class) {
    case RT_TOK_CLASS_NUMERIC:
        return rt_char_is_numeric(code);
    case RT_TOK_CLASS_SPACE:
        return rt_char_is_space(code);
    default:
        return rt_char_is_punctuation(code);
    }
}

static bool split_class(splitter *s, size_t size, uint32_t class) {
    size_t begin = 0; /* of the characters before `at` that are not in the class */
    for (size_t at = 0, step; at < size; at += step) {
        if (!in_class(class, rt_utf8_decode(s->text + at, &step)))
            continue;
        if ((begin != at && !take(s, begin, at, false)) || !take(s, at, at + step, true))
            return false;
        begin = at + step;
    }
    return begin == size || take(s, begin, size, false);
}

static bool starts_with(const char *text, size_t size, const char *start, size_t length) {
    return size >= length && memcmp(text, start, length) == 0;
}

/* Runs the steps from `index` on, and then the model, over a piece that is not empty. */
static bool run(rt_tok_job *job, uint32_t index, const char *text, size_t size, bool first) {
    const rt_tokenizer *t = job->tokenizer;
    if (index == t->step_count)
        return t->header->model == RT_TOK_MODEL_BPE ? rt_tok_bpe(job, text, size)
                                                    : rt_tok_unigram(job, text, size);
    const rt_tok_step *step = &t->steps[index];
    const char *a = t->strings + step->a_offset;
    uint32_t behaviour = step->flags & RT_TOK_BEHAVIOUR_MASK;
    splitter s = {.job = job,
                  .step = index,
                  .behaviour = behaviour,
                  .invert = step->flags & RT_TOK_INVERT,
                  .first = first,
                  .text = text};
    switch (step->op) {
    case RT_TOK_SPLIT_REGEX:
        return split_regex(&s, size) && finish(&s);
    case RT_TOK_SPLIT_STRING:
        return split_string(&s, size, a, step->a_size) && finish(&s);
    case RT_TOK_SPLIT_CLASS:
        return split_class(&s, size, step->b_offset) && finish(&s);
    default:
        break;
    }
    rt_tok_buffer *out = &job->level[index];
    out->size = 0;
    if (step->op == RT_TOK_PREFIX) {
        if (starts_with(text, size, a, step->a_size) ||
            (step->flags & RT_TOK_PREFIX_FIRST && !first))
            return run(job, index + 1, text, size, first);
        if (!rt_tok_buffer_add(out, a, step->a_size) || !rt_tok_buffer_add(out, text, size))
            return rt_tok_no_memory(job);
    } else if (step->op == RT_TOK_REPLACE) {
        if (!step->a_size || !memmem(text, size, a, step->a_size))
            return run(job, index + 1, text, size, first);
        if (!rt_tok_replace(job, step, text, size, out))
            return false;
    } else if (!rt_tok_byte_map(text, size, out)) {
        return rt_tok_no_memory(job);
    }
    if (out->size > job->text_limit || !rt_utf8_valid(out->data, out->size))
        return rt_tok_damaged(job, "the pre-tokenizer gives invalid or too much text");
    return out->size == 0 || run(job, index + 1, out->data, out->size, first);
}

bool rt_tok_pretokenize(rt_tok_job *job, const char *text, size_t size, bool first) {
    return size == 0 || run(job, job->tokenizer->header->normalizer_steps, text, size, first);
}
