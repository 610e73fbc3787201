/* A tokenizer taken apart: what the readers of tokenizer.json and of GGUF metadata fill in, and
 * what fe_tok_build makes a blob of. All of it lives in one arena. */
#ifndef MCC_COMPILER_TOKENIZER_BUILD_H
#define MCC_COMPILER_TOKENIZER_BUILD_H

#include "compiler/tokenizer/tokenizer.h"
#include "runtime/tokenizer/format.h"

typedef struct fe_tok_token {
    fe_bytes text;
    fe_bytes
        decoded; /* what the decoder takes for its text, when that is another (data not NULL) */
    double score;
    uint8_t flags; /* RT_TOK_PRESENT, … */
} fe_tok_token;

typedef struct fe_tok_added {
    fe_bytes content;
    uint32_t id, flags; /* RT_TOK_ADDED_* */
    bool normalized;    /* sought in normalized text, in normalized form */
} fe_tok_added;

typedef struct fe_tok_step {
    rt_tok_op op;
    uint32_t flags;
    rt_tok_class class;
    fe_bytes a, b;
} fe_tok_step;

typedef enum fe_tok_decode_op {
    FE_TOK_DECODE_REPLACE,       /* every a becomes b */
    FE_TOK_DECODE_BYTE_FALLBACK, /* <0xNN> is a byte */
    FE_TOK_DECODE_BYTE_LEVEL,    /* GPT-2's alphabet */
    FE_TOK_DECODE_METASPACE,     /* a becomes a space; see `first` */
    FE_TOK_DECODE_STRIP,         /* up to start and stop times a at the ends */
    FE_TOK_DECODE_FUSE
} fe_tok_decode_op;

typedef struct fe_tok_decode {
    fe_tok_decode_op op;
    fe_bytes a, b;
    uint32_t start, stop;
    bool first; /* Metaspace: the first token loses its spaces */
} fe_tok_decode;

enum { FE_TOK_MAX_DECODE = 16, FE_TOK_MAX_SPECIAL = 16, FE_TOK_MAX_END = 64 };

typedef struct fe_tok {
    ir_arena *arena;
    ir_diag *diag;
    const char *where;
    int errors_before; /* diag->errors when work began */

    fe_tok_token *tokens; /* by id; those without RT_TOK_PRESENT are gaps */
    uint32_t vocab, capacity;
    int64_t id_limit; /* ids are below: see fe_tok_expect */
    uint64_t *index; /* text to id, open addressing: see tok.c */
    uint64_t index_slots, index_used;

    rt_tok_model model;
    uint32_t model_flags;
    rt_tok_merge *merges; /* by rank */
    uint32_t merge_count;
    double unk_score;

    fe_tok_added *added;
    uint32_t added_count, added_capacity;

    fe_tok_step steps[RT_TOK_MAX_STEPS];
    uint32_t step_count, normalizer_steps;
    fe_bytes charsmap;

    fe_tok_decode decode[FE_TOK_MAX_DECODE];
    uint32_t decode_count;
    bool has_decoder;

    int32_t prefix[FE_TOK_MAX_SPECIAL], suffix[FE_TOK_MAX_SPECIAL], end[FE_TOK_MAX_END];
    uint32_t prefix_count, suffix_count, end_count;
    int32_t bos, eos, eot, pad, unk;
} fe_tok;

void fe_tok_init(fe_tok *tok, ir_arena *arena, ir_diag *diag, const char *where);

/* True while nothing was reported since fe_tok_init. */
bool fe_tok_good(const fe_tok *tok);

/* Announces `count` tokens that will be set. Ids may have gaps, but not so large ones that a small
 * file makes large tables. */
void fe_tok_expect(fe_tok *tok, int64_t count);

/* Sets the token of an id; reports one that is out of range, and an id that has another token
 * already. Where two ids have the same text, the later one is found by it. */
bool fe_tok_set(fe_tok *tok, int64_t id, fe_bytes text, uint8_t flags);

/* The id of a text, or -1. */
int64_t fe_tok_find(const fe_tok *tok, const void *text, size_t size);
int64_t fe_tok_find_text(const fe_tok *tok, const char *text);

void fe_tok_add_step(fe_tok *tok, fe_tok_step step);
void fe_tok_add_decode(fe_tok *tok, fe_tok_decode decode);

/* Adds an added token, whose id must be set. Of two that are sought as the same text, the later
 * one counts. */
void fe_tok_add_added(fe_tok *tok, fe_tok_added added);

/* Ends generation at this id too; ignores -1 and what is there already. */
void fe_tok_add_end(fe_tok *tok, int64_t id);

/* Adds to the ends of generation the tokens that are known by name to end a turn or a text, and
 * finds the end of turn where the source names none. */
void fe_tok_known_ends(fe_tok *tok);

/* Ends the pre-tokenizer: a last ByteLevel becomes the model's own business where that gives the
 * same, which spares rewriting the text. */
void fe_tok_finish_steps(fe_tok *tok);

/* Shorthands for literals and for slices of them. */
fe_bytes fe_tok_bytes(const char *text);
bool fe_tok_equal(fe_bytes bytes, const char *text);

/* Rewrites a pattern from Oniguruma's syntax (Ruby), which tokenizer.json has, to PCRE2's. Reports
 * constructs that the two read differently and that have no equivalent; then `out` is empty. */
bool fe_tok_regex(fe_tok *tok, fe_bytes pattern, fe_bytes *out);

/* Writes the blob and opens it once, so that it is known to work. */
bool fe_tok_build(fe_tok *tok, fe_blob *out);

/* The trie section for `count` strings with their values; the strings are sorted in place. */
typedef struct fe_tok_string {
    fe_bytes text;
    uint32_t value;
} fe_tok_string;
fe_bytes fe_tok_trie(ir_arena *arena, fe_tok_string *strings, uint32_t count);

#endif
