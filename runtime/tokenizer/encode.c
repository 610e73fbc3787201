/* Encoding: added tokens are cut out first, what lies between them is normalized, split and given
 * to the model. The order of things is that of the `tokenizers` library's AddedVocabulary. */
#include <stdlib.h>
#include <string.h>

#include "runtime/tokenizer/internal.h"

bool rt_tok_no_memory(rt_tok_job *job) {
    return rt_fail(job->error, RT_TOKENIZER_OUT_OF_MEMORY, "tokenizer: out of memory");
}

bool rt_tok_damaged(rt_tok_job *job, const char *what) {
    return rt_fail(job->error, RT_TOKENIZER_DAMAGED,
                   "tokenizer: %s: the tables are damaged; compile the model again", what);
}

void rt_tok_job_init(rt_tok_job *job, const rt_tokenizer *tokenizer, size_t size, rt_error *error) {
    /* No character grows by more than a factor of 18 in any of Unicode's normal forms. */
    size_t limit = size > RT_TOK_MAX_SIZE / 128 ? RT_TOK_MAX_SIZE : ((size_t)1 << 20) + 64 * size;
    *job = (rt_tok_job){.tokenizer = tokenizer, .text_limit = limit, .error = error};
}

void rt_tok_job_free(rt_tok_job *job) {
    free(job->normal[0].data);
    free(job->normal[1].data);
    for (int i = 0; i <= RT_TOK_MAX_STEPS; i++)
        free(job->level[i].data);
    for (int i = 0; i < RT_TOK_MAX_STEPS; i++)
        free(job->shadow[i].data);
    free(job->work.data);
    free(job->heap.data);
    pcre2_match_data_free(job->match_data);
    pcre2_match_context_free(job->match_context);
}

uint32_t rt_tok_trie_longest(const rt_tok_trie *trie, const char *text, size_t left, size_t *size) {
    uint32_t node = 0, value = RT_TOK_NO_VALUE;
    for (size_t i = 0; i < left; i++) {
        node = rt_tok_trie_child(trie, node, (uint8_t)text[i]);
        if (!node)
            break;
        if (trie->value[node] != RT_TOK_NO_VALUE) {
            value = trie->value[node];
            *size = i + 1;
        }
    }
    return value;
}

/* Where the character before `at` begins. */
static size_t char_before(const char *text, size_t at) {
    do
        at--;
    while (at > 0 && (text[at] & 0xc0) == 0x80);
    return at;
}

static bool inside_word(const char *text, size_t size, size_t begin, size_t end) {
    size_t step;
    return (begin > 0 && rt_char_is_word(rt_utf8_decode(text + char_before(text, begin), &step))) ||
           (end < size && rt_char_is_word(rt_utf8_decode(text + end, &step)));
}

/* Called with each stretch of text between added tokens. `first`: it begins the whole text. */
typedef bool between(rt_tok_job *job, const char *text, size_t size, bool first);

/* Cuts the trie's tokens out of the text, leftmost and longest first, emits them, and hands what
 * lies between to `rest`. */
static bool cut_added(rt_tok_job *job, const rt_tok_trie *trie, const char *text, size_t size,
                      bool first, between *rest) {
    const rt_tokenizer *t = job->tokenizer;
    size_t done = 0; /* everything before is dealt with */
    for (size_t at = 0; trie->count && at < size;) {
        uint8_t byte = (uint8_t)text[at];
        size_t length = 0;
        uint32_t index = RT_TOK_NO_VALUE;
        if (trie->first_bytes[byte / 64] >> byte % 64 & 1)
            index = rt_tok_trie_longest(trie, text + at, size - at, &length);
        if (index >= t->added_count) {
            at++;
            continue;
        }
        rt_tok_added added = t->added[index];
        size_t begin = at, end = at + length;
        at = end;
        if (added.id >= (uint32_t)t->header->vocab_size)
            return rt_tok_damaged(job, "an added token's id is out of range");
        if (t->token_flags[added.id] & RT_TOK_SPECIAL && !(job->flags & RT_TOKENIZER_PARSE_SPECIAL))
            continue;
        if (added.flags & RT_TOK_ADDED_SINGLE_WORD && inside_word(text, size, begin, end))
            continue;
        size_t step;
        if (added.flags & RT_TOK_ADDED_LSTRIP)
            while (begin > done) {
                size_t before = char_before(text, begin);
                if (!rt_char_is_space(rt_utf8_decode(text + before, &step)))
                    break;
                begin = before;
            }
        if (added.flags & RT_TOK_ADDED_RSTRIP)
            while (end < size && rt_char_is_space(rt_utf8_decode(text + end, &step)))
                end += step;
        if (done < begin && !rest(job, text + done, begin - done, first && done == 0))
            return false;
        rt_tok_emit(job, added.id);
        done = end;
    }
    return done >= size || rest(job, text + done, size - done, first && done == 0);
}

static bool normalized_part(rt_tok_job *job, const char *text, size_t size, bool first) {
    const rt_tokenizer *t = job->tokenizer;
    bool stripped = false;
    job->newer = rt_tok_has_newer(text, size);
    if (!rt_tok_normalize(job, text, size, &text, &size, &stripped))
        return false;
    return cut_added(job, &t->normal_trie, text, size, first && !stripped, rt_tok_pretokenize);
}

static bool emit_ids(rt_tok_job *job, uint32_t from, uint32_t count) {
    const rt_tokenizer *t = job->tokenizer;
    for (uint32_t i = from; i < from + count; i++) {
        if (t->ids[i] < 0 || t->ids[i] >= t->header->vocab_size)
            return rt_tok_damaged(job, "a special token's id is out of range");
        rt_tok_emit(job, (uint32_t)t->ids[i]);
    }
    return true;
}

/* Replaces every maximal invalid sequence by U+FFFD. */
static bool repair(rt_tok_buffer *out, const char *text, size_t size) {
    size_t step, good = 0, at = 0;
    uint32_t code;
    for (; at < size; at += step) {
        if (rt_utf8_next(text + at, size - at, &step, &code) == RT_UTF8_VALID)
            continue;
        if (!rt_tok_buffer_add(out, text + good, at - good) ||
            !rt_tok_buffer_add(out, "\xef\xbf\xbd", 3))
            return false;
        good = at + step;
    }
    return rt_tok_buffer_add(out, text + good, size - good);
}

int64_t rt_tokenizer_encode(const rt_tokenizer *tokenizer, const char *text, size_t size,
                            unsigned flags, int32_t *ids, int64_t capacity, rt_error *error) {
    const rt_tok_header *header = tokenizer->header;
    if ((!text && size) || (!ids && capacity > 0) || size > RT_TOK_MAX_SIZE / 3) {
        rt_fail(error, RT_TOKENIZER_BAD_ARGUMENT,
                "tokenizer: found %zu bytes of text, expected at most %zu", size,
                RT_TOK_MAX_SIZE / 3);
        return -1;
    }
    rt_tok_job job;
    rt_tok_job_init(&job, tokenizer, size, error);
    job.flags = flags;
    job.ids = ids;
    job.capacity = capacity;
    rt_tok_buffer repaired = {0};
    bool good = true;
    if (!rt_utf8_valid(text, size)) {
        good = repair(&repaired, text, size) || rt_tok_no_memory(&job);
        text = repaired.data;
        size = repaired.size;
    }
    bool special = flags & RT_TOKENIZER_ADD_SPECIAL;
    good = good && (!special || emit_ids(&job, 0, header->prefix_count)) &&
           cut_added(&job, &tokenizer->raw_trie, text, size, true, normalized_part) &&
           (!special || emit_ids(&job, header->prefix_count, header->suffix_count));
    free(repaired.data);
    rt_tok_job_free(&job);
    return good ? job.count : -1;
}
