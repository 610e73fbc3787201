/* Structured output: a request's tokens kept to a grammar.
 *
 * A grammar is compiled once for an engine and shared by its requests; a guide is where one
 * request is in it. Any threads may make grammars and use guides, one at a time each guide. */
#ifndef MCC_RUNTIME_GRAMMAR_GUIDE_H
#define MCC_RUNTIME_GRAMMAR_GUIDE_H

#include "runtime/grammar/mask.h"

typedef enum rt_grammar_kind { RT_GRAMMAR_JSON, RT_GRAMMAR_REGEX, RT_GRAMMAR_GBNF } rt_grammar_kind;

/* "guided_json", … */
const char *rt_grammar_field(rt_grammar_kind kind);

typedef struct rt_grammar rt_grammar;

/* Grammars of an engine by their texts: those used last are kept. */
typedef struct rt_grammars rt_grammars;

/* For a model with so many token ids. NULL when out of memory. The tokenizer outlives it. */
rt_grammars *rt_grammars_create(const rt_tokenizer *tokenizer, int32_t vocab_size);
void rt_grammars_destroy(rt_grammars *grammars); /* NULL is allowed */

/* The grammar of a text, compiled now or before; the caller's to release, before `grammars` is
 * destroyed. NULL with an error that names the field and the place. */
rt_grammar *rt_grammars_get(rt_grammars *grammars, rt_grammar_kind kind, const char *text,
                            size_t bytes, rt_error *error);

/* Compiles a grammar for a vocabulary that outlives it. */
rt_grammar *rt_grammar_create(rt_grammar_kind kind, const char *text, size_t bytes,
                              const rt_vocabulary *vocabulary, rt_error *error);
rt_grammar *rt_grammar_share(rt_grammar *grammar); /* one more reference to it */
void rt_grammar_release(rt_grammar *grammar);      /* NULL is allowed */

/* A place to come back to. */
typedef struct rt_guide_mark {
    bool set;
    rt_item *items; /* of the guide's set there */
    uint32_t n_items, capacity, n_frames;
    int64_t n_tokens;
    bool must_end;
} rt_guide_mark;

typedef struct rt_guide {
    rt_grammar *grammar;
    const int32_t *end_ids; /* tokens that end the text: allowed where the grammar can end */
    int32_t n_end_ids;
    rt_matcher matcher;
    rt_set set;
    int64_t n_tokens; /* accepted */
    bool must_end;    /* nothing can follow but an end token */
    uint32_t *mask;
    rt_item *mask_items; /* of the set that `mask` is of */
    uint32_t n_mask_items, mask_capacity;
    bool has_mask;
    rt_guide_mark mark;
} rt_guide;

/* Takes over the reference to the grammar, also when it fails: NULL, out of memory. `end_ids` is
 * to outlive it. */
rt_guide *rt_guide_create(rt_grammar *grammar, const int32_t *end_ids, int32_t n_end_ids);
void rt_guide_destroy(rt_guide *guide); /* NULL is allowed */

/* A bit for each token id: whether it may come next. Valid until the guide goes on. NULL when no
 * token may, or finding out takes too long: *why says which. */
const uint32_t *rt_guide_mask(rt_guide *guide, const char **why);

/* Goes on by a token that the mask allows, of these bytes. False when it does not. */
bool rt_guide_accept(rt_guide *guide, int32_t id, const char *text, size_t bytes);

/* Marks the place, to look at what would follow tokens that are not certain, and goes back to it.
 * Meanwhile the guide keeps all that it has met, so no more than some dozens of tokens should lie
 * between. False when out of memory. */
bool rt_guide_set_mark(rt_guide *guide);
void rt_guide_go_back(rt_guide *guide);

#endif
