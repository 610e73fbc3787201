/* Text to token ids and back, from tables compiled at build time and used in place.
 *
 * A tokenizer is opened over a blob (format.h) that lies in memory, usually mapped read-only from
 * an artifact. Opening reads the header and compiles at most a few regular expressions; nothing
 * else is built or copied. The blob is not trusted: a damaged one gives errors or wrong ids, never
 * an access outside of it. */
#ifndef MCC_RUNTIME_TOKENIZER_H
#define MCC_RUNTIME_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/error.h"

typedef struct rt_tokenizer rt_tokenizer;

/* Flags of rt_tokenizer_encode. */
enum {
    RT_TOKENIZER_ADD_SPECIAL = 1,  /* put in front and behind what the tokenizer adds (bos, eos) */
    RT_TOKENIZER_PARSE_SPECIAL = 2 /* special tokens spelled out in the text become their ids */
};
/* Flags of rt_tokenizer_decode and rt_detok_init. */
enum {
    RT_TOKENIZER_SKIP_SPECIAL = 4, /* special tokens give no text */
    RT_TOKENIZER_CONTINUE = 8      /* the ids go on from earlier text: keep their first space */
};

/* The blob must be aligned to 8 and outlive the tokenizer. NULL on error: not a tokenizer, another
 * version, damaged, out of memory. */
rt_tokenizer *rt_tokenizer_open(const void *blob, size_t size, rt_error *error);
void rt_tokenizer_close(rt_tokenizer *tokenizer);

/* Everything below takes a const tokenizer and may run in several threads at once. */

/* Encodes `size` bytes of text. Any bytes are accepted: each maximal invalid UTF-8 sequence counts
 * as U+FFFD. Returns the number of ids there are; the first `capacity` of them are stored. -1 on
 * error (out of memory; a pattern that ran into its match limit; a damaged blob). */
int64_t rt_tokenizer_encode(const rt_tokenizer *tokenizer, const char *text, size_t size,
                            unsigned flags, int32_t *ids, int64_t capacity, rt_error *error);

/* Decodes ids to UTF-8 text, not NUL-terminated. Returns its size in bytes; the first `capacity`
 * bytes are stored. Invalid byte sequences become U+FFFD. -1 on error: an id out of range. */
int64_t rt_tokenizer_decode(const rt_tokenizer *tokenizer, const int32_t *ids, int64_t count,
                            unsigned flags, char *out, int64_t capacity, rt_error *error);

/* Decodes a stream of ids: what comes out is complete characters only. A plain struct: copy it to
 * take a snapshot; nothing to free. Its output, joined, equals rt_tokenizer_decode's for text that
 * is valid UTF-8. Allocates nothing. */
typedef struct rt_detok {
    const rt_tokenizer *tokenizer;
    unsigned flags;
    int64_t pushed;     /* ids that gave text so far */
    uint32_t to_strip;  /* leading spaces still to be dropped */
    uint8_t pending[4]; /* the beginning of a character that is not complete yet */
    uint8_t pending_size;
    bool pending_bytes; /* pending came from byte tokens (<0xNN>) */
} rt_detok;

void rt_detok_init(rt_detok *detok, const rt_tokenizer *tokenizer, unsigned flags);

/* Stores the text that `id` completes, possibly none, and returns its size in bytes, at most
 * rt_detok_max(). When `capacity` is smaller, the state stays as it was and the size needed is
 * returned: call again with more room. -1 when the id is out of range. */
int64_t rt_detok_push(rt_detok *detok, int32_t id, char *out, int64_t capacity);

/* Ends the stream: an incomplete character becomes U+FFFD. Otherwise as rt_detok_push. */
int64_t rt_detok_flush(rt_detok *detok, char *out, int64_t capacity);

/* The most bytes that one push or flush may give. */
int64_t rt_detok_max(const rt_tokenizer *tokenizer);

/* Ids are 0 … size-1; a few of them may have no token. */
int32_t rt_tokenizer_vocab_size(const rt_tokenizer *tokenizer);

/* A token as the vocabulary spells it ("Ġhello", "▁the", "<0x0A>"), and the bytes that it stands
 * for (" hello", " the", "\n"). Not NUL-terminated; valid as long as the blob. NULL and size 0
 * when the id is out of range or has no token. */
const char *rt_tokenizer_text(const rt_tokenizer *tokenizer, int32_t id, size_t *size);
const char *rt_tokenizer_piece(const rt_tokenizer *tokenizer, int32_t id, size_t *size);

/* The id of a token as the vocabulary spells it, or -1. */
int32_t rt_tokenizer_find(const rt_tokenizer *tokenizer, const char *text, size_t size);

/* True where texts of tokens are joined by spaces, which are in no token's piece. */
bool rt_tokenizer_joins_by_spaces(const rt_tokenizer *tokenizer);

/* True for special tokens (control tokens): not text, skipped by RT_TOKENIZER_SKIP_SPECIAL. */
bool rt_tokenizer_is_special(const rt_tokenizer *tokenizer, int32_t id);

/* Ids with a role, or -1: beginning and end of text, end of turn, padding, unknown. */
int32_t rt_tokenizer_bos(const rt_tokenizer *tokenizer);
int32_t rt_tokenizer_eos(const rt_tokenizer *tokenizer);
int32_t rt_tokenizer_eot(const rt_tokenizer *tokenizer);
int32_t rt_tokenizer_pad(const rt_tokenizer *tokenizer);
int32_t rt_tokenizer_unk(const rt_tokenizer *tokenizer);

/* The ids that end generation, ascending; `count` receives how many. Valid as long as the blob. */
const int32_t *rt_tokenizer_end_ids(const rt_tokenizer *tokenizer, int64_t *count);

#endif
