/* Reading tokenizer.json: small typed accessors over cJSON, which report what they do not find. */
#ifndef MCC_COMPILER_TOKENIZER_JSON_H
#define MCC_COMPILER_TOKENIZER_JSON_H

#include <cjson/cJSON.h>

#include "compiler/tokenizer/build.h"

/* Parses a document. cJSON's strings end at a NUL, so the escape for U+0000 is first rewritten to
 * the two bytes that fe_tok_json_bytes turns back. Reports what is wrong; then NULL. The caller
 * frees it with cJSON_Delete. */
cJSON *fe_tok_json_parse(fe_tok *tok, const char *what, const char *text, size_t size);

/* A string's bytes; size 0 when the item is no string. */
fe_bytes fe_tok_json_bytes(fe_tok *tok, const cJSON *item);

/* The same for a key, or for any of cJSON's strings. */
fe_bytes fe_tok_json_text(fe_tok *tok, const char *text);

/* A member's string; reports when it is missing or no string. `what` names the object. */
bool fe_tok_json_string(fe_tok *tok, const cJSON *object, const char *what, const char *key,
                        fe_bytes *out);

/* A member's truth value; `missing` where it is absent or null. */
bool fe_tok_json_flag(fe_tok *tok, const cJSON *object, const char *what, const char *key,
                      bool missing);

/* The "type" of an object, or "" (reported). */
const char *fe_tok_json_type(fe_tok *tok, const cJSON *object, const char *what);

/* A number as an integer from 0 to `limit`, or -1 when it is not one. */
int64_t fe_tok_json_index(const cJSON *item, int64_t limit);

/* Each reads one part of the document and adds its steps; null is nothing. */
void fe_tok_json_normalizer(fe_tok *tok, const cJSON *part);
void fe_tok_json_pre_tokenizer(fe_tok *tok, const cJSON *part);
void fe_tok_json_decoder(fe_tok *tok, const cJSON *part);

/* The pattern by which ByteLevel splits, in Oniguruma's syntax. */
#define FE_TOK_GPT2_PATTERN                                                                        \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Splits by a pattern in Oniguruma's syntax. */
void fe_tok_split_regex(fe_tok *tok, fe_bytes pattern, uint32_t flags);

#endif
