/* What the files of runtime/tokenizer share. */
#ifndef MCC_RUNTIME_TOKENIZER_INTERNAL_H
#define MCC_RUNTIME_TOKENIZER_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "runtime/tokenizer/format.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/utf8.h"

/* Codes of rt_error, with the values of mcc_status. */
enum {
    RT_TOKENIZER_BAD_ARGUMENT = 1,
    RT_TOKENIZER_OUT_OF_MEMORY = 2,
    RT_TOKENIZER_DAMAGED = 4,
    RT_TOKENIZER_OTHER_VERSION = 5,
    RT_TOKENIZER_GAVE_UP = 8, /* a capacity: the text is too much for a pattern */
};

/* Longest text that is encoded in one call, so that positions fit 32 bits. */
#define RT_TOK_MAX_SIZE ((size_t)1 << 30)

typedef struct rt_tok_trie {
    uint32_t count; /* 0 when absent */
    const uint32_t *first_child;
    const uint32_t *value;
    const uint8_t *label;
    uint64_t first_bytes[4]; /* which bytes the root has children for */
} rt_tok_trie;

struct rt_tokenizer {
    const rt_tok_header *header;
    const char *strings;
    uint64_t strings_size;
    const uint32_t *text_offsets, *piece_offsets;
    const char *pieces;
    uint64_t pieces_size;
    const uint8_t *token_flags;
    const uint32_t *vocab_hash;
    uint64_t vocab_slots;
    const rt_tok_merge *merges;
    uint64_t merge_slots;
    const int32_t *byte_ids;
    const double *scores;
    rt_tok_trie vocab_trie, raw_trie, normal_trie;
    const rt_tok_added *added;
    uint32_t added_count;
    const rt_tok_step *steps;
    uint32_t step_count;
    const int32_t *ids;       /* prefix, suffix, end */
    const uint32_t *charsmap; /* the double array */
    uint32_t charsmap_units;
    const char *charsmap_strings;
    uint64_t charsmap_strings_size;
    pcre2_code *regex[RT_TOK_MAX_STEPS]; /* of the steps that have one */
};

/* A growing buffer of bytes. */
typedef struct rt_tok_buffer {
    char *data;
    size_t size, capacity;
} rt_tok_buffer;

bool rt_tok_buffer_reserve(rt_tok_buffer *buffer, size_t extra);
bool rt_tok_buffer_add(rt_tok_buffer *buffer, const void *data, size_t size);

/* One call of rt_tokenizer_encode: where ids go, and memory that pieces take turns in. */
typedef struct rt_tok_job {
    const rt_tokenizer *tokenizer;
    unsigned flags;
    int32_t *ids;
    int64_t capacity, count;
    size_t text_limit; /* no rewriting may make a text longer than this */
    rt_error *error;
    rt_tok_buffer normal[2];                   /* normalization, from one to the other */
    rt_tok_buffer level[RT_TOK_MAX_STEPS + 1]; /* rewritten text, by pre-tokenizer step */
    rt_tok_buffer shadow[RT_TOK_MAX_STEPS];    /* what a step's expression sees: see newer.c */
    bool newer;                                /* whether the text needs shadows */
    rt_tok_buffer work;                        /* codes, symbols or nodes of the model */
    rt_tok_buffer heap;
    pcre2_match_data *match_data;
    pcre2_match_context *match_context;
} rt_tok_job;

bool rt_tok_no_memory(rt_tok_job *job);
bool rt_tok_damaged(rt_tok_job *job, const char *what);

static inline void rt_tok_emit(rt_tok_job *job, uint32_t id) {
    if (job->count < job->capacity)
        job->ids[job->count] = (int32_t)id;
    job->count++;
}

/* The longest string of the trie that `text` begins with: its value, or RT_TOK_NO_VALUE. */
uint32_t rt_tok_trie_longest(const rt_tok_trie *trie, const char *text, size_t left, size_t *size);

/* The child of a node under a byte; 0 (the root is nobody's child) when there is none. */
static inline uint32_t rt_tok_trie_child(const rt_tok_trie *trie, uint32_t node, uint8_t byte) {
    uint32_t low = trie->first_child[node], high = trie->first_child[node + 1];
    /* A node's children lie behind it: so a damaged trie cannot make a walk go in circles. */
    if (low <= node || high > trie->count)
        return 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (trie->label[middle] == byte)
            return middle;
        if (trie->label[middle] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* The id of a token of the model (not one that was only added) by its text, or -1. */
int32_t rt_tok_find(const rt_tokenizer *tokenizer, const char *text, size_t size);

/* Whether text has characters that PCRE2 may be too old for; and the text with others in their
 * place. rt_tok_shadow returns false when out of memory. */
bool rt_tok_has_newer(const char *text, size_t size);
bool rt_tok_shadow(const char *text, size_t size, rt_tok_buffer *out);

/* The text that a step's expression is to be matched against: `text`, or its shadow, which lives
 * until the step is used again. NULL when out of memory (reported). */
const char *rt_tok_subject(rt_tok_job *job, uint32_t step, const char *text, size_t size);

/* A match of a step's expression in text[at, size): its bounds. `empty_at` is where the last match
 * ended: an empty match there is passed over, as Oniguruma's iterator does. Returns 1 when there is
 * one, 0 when not, -1 on error. */
int rt_tok_match(rt_tok_job *job, uint32_t step, const char *text, size_t size, size_t at,
                 size_t last_end, size_t *begin, size_t *end);

/* Runs the normalizer over text (valid UTF-8). The result lies in one of job->normal or is `text`
 * itself. `stripped` is set when white space was dropped at the beginning. */
bool rt_tok_normalize(rt_tok_job *job, const char *text, size_t size, const char **out,
                      size_t *out_size, bool *stripped);

/* The two rewriting steps that pre-tokenizers have too. They append to `out`. rt_tok_byte_map
 * returns false when out of memory; rt_tok_replace has reported what is wrong. */
bool rt_tok_replace(rt_tok_job *job, const rt_tok_step *step, const char *text, size_t size,
                    rt_tok_buffer *out);
bool rt_tok_byte_map(const char *text, size_t size, rt_tok_buffer *out);

/* Runs the pre-tokenizer, and the model on each piece. `first`: the text begins here. */
bool rt_tok_pretokenize(rt_tok_job *job, const char *text, size_t size, bool first);

/* The models: encode one piece (not empty). */
bool rt_tok_bpe(rt_tok_job *job, const char *text, size_t size);
bool rt_tok_unigram(rt_tok_job *job, const char *text, size_t size);

/* Begins and ends a job over `size` bytes of text. */
void rt_tok_job_init(rt_tok_job *job, const rt_tokenizer *tokenizer, size_t size, rt_error *error);
void rt_tok_job_free(rt_tok_job *job);

#endif
