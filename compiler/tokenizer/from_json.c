/* tokenizer.json and tokenizer_config.json. */
#include <string.h>

#include "compiler/tokenizer/json.h"

enum { SHOWN = 5 }; /* problems of one kind that are spelled out; the rest are counted */

static const cJSON *get(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* -- the model ------------------------------------------------------------------------------- */

static int64_t find_piece(fe_tok *tok, fe_bytes text, int *problems) {
    int64_t id = fe_tok_find(tok, text.data, text.size);
    if (id < 0 && (*problems)++ < SHOWN)
        ir_error(tok->diag, tok->where,
                 "a merge needs the token \"%s\", which is not in the "
                 "vocabulary",
                 fe_printable(tok->arena, text.data, text.size));
    return id;
}

/* The two halves of a merge: "left right" or ["left", "right"]. */
static bool halves_of(fe_tok *tok, const cJSON *item, fe_bytes *left, fe_bytes *right) {
    if (cJSON_IsArray(item)) {
        const cJSON *first = item->child, *second = first ? first->next : NULL;
        *left = fe_tok_json_bytes(tok, first);
        *right = fe_tok_json_bytes(tok, second);
        return cJSON_IsString(first) && cJSON_IsString(second) && !second->next;
    }
    fe_bytes text = fe_tok_json_bytes(tok, item);
    const uint8_t *space = text.size ? memchr(text.data, ' ', text.size) : NULL;
    if (!space)
        return false;
    size_t size = (size_t)(space - text.data);
    *left = (fe_bytes){text.data, size};
    *right = (fe_bytes){space + 1, text.size - size - 1};
    return right->size && !memchr(right->data, ' ', right->size);
}

static void read_merges(fe_tok *tok, const cJSON *list) {
    int problems = 0, count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (!cJSON_IsArray(list))
        ir_error(tok->diag, tok->where, "the BPE model has no list \"merges\"");
    tok->merges = ir_arena_array(tok->arena, (size_t)count + 1, sizeof *tok->merges);
    const cJSON *item;
    uint32_t rank = 0;
    cJSON_ArrayForEach(item, list) {
        fe_bytes left, right;
        if (rank == 0 && cJSON_IsString(item) && strncmp(item->valuestring, "#version", 8) == 0)
            continue;
        if (!halves_of(tok, item, &left, &right)) {
            if (problems++ < SHOWN)
                ir_error(tok->diag, tok->where, "merge %u is not a pair of tokens", rank);
            rank++;
            continue;
        }
        uint8_t *both = ir_arena_alloc(tok->arena, left.size + right.size + 1);
        memcpy(both, left.data, left.size);
        memcpy(both + left.size, right.data, right.size);
        int64_t a = find_piece(tok, left, &problems), b = find_piece(tok, right, &problems);
        int64_t id = find_piece(tok, (fe_bytes){both, left.size + right.size}, &problems);
        if (a >= 0 && b >= 0 && id >= 0)
            tok->merges[tok->merge_count++] =
                (rt_tok_merge){(uint32_t)a, (uint32_t)b, rank, (uint32_t)id};
        rank++;
    }
    if (problems > SHOWN)
        ir_note(tok->diag, tok->where, "and %d more problems with merges", problems - SHOWN);
}

/* A string option that must be absent or empty. */
static void refuse_option(fe_tok *tok, const cJSON *model, const char *key) {
    const cJSON *item = get(model, key);
    if (item && !cJSON_IsNull(item) && fe_tok_json_bytes(tok, item).size)
        ir_error(tok->diag, tok->where, "the BPE model has \"%s\", which is not supported", key);
}

static void read_bpe(fe_tok *tok, const cJSON *model) {
    tok->model = RT_TOK_MODEL_BPE;
    const cJSON *vocab = get(model, "vocab"), *item;
    if (!cJSON_IsObject(vocab)) {
        ir_error(tok->diag, tok->where, "the BPE model has no object \"vocab\"");
        return;
    }
    int problems = 0;
    fe_tok_expect(tok, cJSON_GetArraySize(vocab));
    cJSON_ArrayForEach(item, vocab) {
        fe_bytes text = fe_tok_json_text(tok, item->string);
        int64_t id = fe_tok_json_index(item, RT_TOK_MAX_VOCAB - 1);
        if (id >= 0)
            id = fe_tok_set(tok, id, text, RT_TOK_IN_MODEL) ? id : -1;
        else if (problems < SHOWN)
            ir_error(tok->diag, tok->where, "token \"%s\" has no id from 0 to %d",
                     fe_printable(tok->arena, text.data, text.size), RT_TOK_MAX_VOCAB - 1);
        if (id < 0 && ++problems == SHOWN)
            break; /* the vocabulary is broken: more of the same says nothing new */
    }
    read_merges(tok, get(model, "merges"));
    refuse_option(tok, model, "continuing_subword_prefix");
    refuse_option(tok, model, "end_of_word_suffix");
    const cJSON *dropout = get(model, "dropout");
    if (cJSON_IsNumber(dropout) && dropout->valuedouble != 0)
        ir_error(tok->diag, tok->where, "the BPE model has \"dropout\", which is not supported");
    if (fe_tok_json_flag(tok, model, "the BPE model", "byte_fallback", false))
        tok->model_flags |= RT_TOK_BYTE_FALLBACK;
    if (fe_tok_json_flag(tok, model, "the BPE model", "fuse_unk", false))
        tok->model_flags |= RT_TOK_FUSE_UNK;
    if (fe_tok_json_flag(tok, model, "the BPE model", "ignore_merges", false))
        tok->model_flags |= RT_TOK_IGNORE_MERGES;
    const cJSON *unk = get(model, "unk_token");
    if (cJSON_IsString(unk)) {
        fe_bytes text = fe_tok_json_bytes(tok, unk);
        tok->unk = (int32_t)fe_tok_find(tok, text.data, text.size);
        if (tok->unk < 0)
            ir_error(tok->diag, tok->where, "unk_token \"%s\" is not in the vocabulary",
                     fe_printable(tok->arena, text.data, text.size));
    }
}

static void read_unigram(fe_tok *tok, const cJSON *model) {
    tok->model = RT_TOK_MODEL_UNIGRAM;
    tok->model_flags = RT_TOK_FUSE_UNK;
    const cJSON *vocab = get(model, "vocab"), *item;
    if (!cJSON_IsArray(vocab)) {
        ir_error(tok->diag, tok->where, "the Unigram model has no list \"vocab\"");
        return;
    }
    int64_t id = 0;
    double lowest = 0;
    int problems = 0;
    fe_tok_expect(tok, cJSON_GetArraySize(vocab));
    cJSON_ArrayForEach(item, vocab) {
        const cJSON *text = cJSON_IsArray(item) ? item->child : NULL;
        const cJSON *score = text ? text->next : NULL;
        bool good = cJSON_IsString(text) && cJSON_IsNumber(score);
        if (!good)
            ir_error(tok->diag, tok->where, "token %lld is not a text and a score", (long long)id);
        good = good && fe_tok_set(tok, id, fe_tok_json_bytes(tok, text), RT_TOK_IN_MODEL);
        if (good)
            tok->tokens[id].score = score->valuedouble;
        if (!good && ++problems == SHOWN)
            break;
        if (good && (id == 0 || score->valuedouble < lowest))
            lowest = score->valuedouble;
        id++;
    }
    tok->unk_score = lowest - 10; /* SentencePiece's kUnkPenalty */
    if (fe_tok_json_flag(tok, model, "the Unigram model", "byte_fallback", false))
        tok->model_flags |= RT_TOK_BYTE_FALLBACK;
    const cJSON *unk = get(model, "unk_id");
    if (unk && !cJSON_IsNull(unk)) {
        int64_t unk_id = fe_tok_json_index(unk, (int64_t)tok->vocab - 1);
        if (unk_id < 0)
            ir_error(tok->diag, tok->where, "unk_id is not a token of the vocabulary");
        tok->unk = (int32_t)unk_id;
    }
}

static void read_model(fe_tok *tok, const cJSON *model) {
    if (!cJSON_IsObject(model)) {
        ir_error(tok->diag, tok->where, "tokenizer.json has no \"model\"");
        return;
    }
    const char *type = cJSON_GetStringValue(get(model, "type"));
    if (!type) /* older files: the vocabulary tells */
        type = get(model, "merges") ? "BPE" : cJSON_IsArray(get(model, "vocab")) ? "Unigram" : "?";
    if (strcmp(type, "BPE") == 0)
        read_bpe(tok, model);
    else if (strcmp(type, "Unigram") == 0)
        read_unigram(tok, model);
    else
        ir_error(tok->diag, tok->where, "model \"%s\" is not supported; known are BPE and Unigram",
                 fe_printable_text(tok->arena, type));
}

/* -- added tokens ---------------------------------------------------------------------------- */

static void add_token(fe_tok *tok, const cJSON *item, int64_t id) {
    fe_tok_added added = {0};
    if (!fe_tok_json_string(tok, item, "an added token", "content", &added.content) ||
        added.content.size == 0)
        return;
    bool special = fe_tok_json_flag(tok, item, "an added token", "special", false);
    if (fe_tok_json_flag(tok, item, "an added token", "lstrip", false))
        added.flags |= RT_TOK_ADDED_LSTRIP;
    if (fe_tok_json_flag(tok, item, "an added token", "rstrip", false))
        added.flags |= RT_TOK_ADDED_RSTRIP;
    if (fe_tok_json_flag(tok, item, "an added token", "single_word", false))
        added.flags |= RT_TOK_ADDED_SINGLE_WORD;
    added.normalized = fe_tok_json_flag(tok, item, "an added token", "normalized", !special);
    int64_t known = fe_tok_find(tok, added.content.data, added.content.size);
    if (known >= 0)
        id = known;
    if (id < 0 || !fe_tok_set(tok, id, added.content, special ? RT_TOK_SPECIAL : 0)) {
        if (id < 0)
            ir_error(tok->diag, tok->where, "added token \"%s\" has no id",
                     fe_printable(tok->arena, added.content.data, added.content.size));
        return;
    }
    added.id = (uint32_t)id;
    fe_tok_add_added(tok, added);
}

static void read_added(fe_tok *tok, const cJSON *list) {
    const cJSON *item;
    if (list && !cJSON_IsNull(list) && !cJSON_IsArray(list))
        ir_error(tok->diag, tok->where, "\"added_tokens\" is not a list");
    if (!cJSON_IsArray(list))
        return;
    fe_tok_expect(tok, cJSON_GetArraySize(list));
    cJSON_ArrayForEach(item, list)
        add_token(tok, item, fe_tok_json_index(get(item, "id"), RT_TOK_MAX_VOCAB - 1));
}

/* tokenizer_config.json may list more of them, by id. */
static void read_more_added(fe_tok *tok, const cJSON *object) {
    const cJSON *item;
    if (!cJSON_IsObject(object))
        return;
    fe_tok_expect(tok, cJSON_GetArraySize(object));
    cJSON_ArrayForEach(item, object) {
        fe_bytes content = fe_tok_json_bytes(tok, get(item, "content"));
        int64_t id = 0;
        const char *digit = item->string ? item->string : "";
        for (; *digit >= '0' && *digit <= '9' && id < RT_TOK_MAX_VOCAB; digit++)
            id = id * 10 + (*digit - '0');
        if (*digit || digit == item->string || id >= RT_TOK_MAX_VOCAB)
            ir_error(tok->diag, tok->where, "added_tokens_decoder has the id \"%s\"",
                     fe_printable_text(tok->arena, item->string));
        else if (fe_tok_find(tok, content.data, content.size) < 0)
            add_token(tok, item, id);
    }
}

/* -- what is put around the text ------------------------------------------------------------- */

/* Puts an id outside of what is there already. */
static void put_around(fe_tok *tok, bool front, int64_t id) {
    uint32_t *count = front ? &tok->prefix_count : &tok->suffix_count;
    if (*count == FE_TOK_MAX_SPECIAL || id < 0 || id >= tok->vocab) {
        ir_error(tok->diag, tok->where,
                 "the post-processor adds more than %d tokens, or one that does not exist",
                 FE_TOK_MAX_SPECIAL);
        return;
    }
    if (front)
        tok->prefix[(*count)++] = (int32_t)id;
    else
        tok->suffix[(*count)++] = (int32_t)id;
}

static void read_template(fe_tok *tok, const cJSON *part) {
    const cJSON *single = get(part, "single"), *specials = get(part, "special_tokens"), *item;
    /* What this adds in front comes before what earlier steps add there. */
    int32_t inner[FE_TOK_MAX_SPECIAL];
    uint32_t inner_count = tok->prefix_count;
    memcpy(inner, tok->prefix, sizeof inner);
    tok->prefix_count = 0;
    int sequences = 0;
    if (cJSON_IsArray(single))
        cJSON_ArrayForEach(item, single) {
            const cJSON *special = get(item, "SpecialToken"), *id;
            const char *name = cJSON_GetStringValue(get(special, "id"));
            const char *sequence = cJSON_GetStringValue(get(get(item, "Sequence"), "id"));
            if (sequence && strcmp(sequence, "A") == 0) {
                sequences++;
                continue;
            }
            const cJSON *ids = name ? get(get(specials, name), "ids") : NULL;
            if (!cJSON_IsArray(ids))
                ir_error(tok->diag, tok->where,
                         "the template has a part that is neither the text nor a special token");
            else
                cJSON_ArrayForEach(id, ids)
                    put_around(tok, sequences == 0, fe_tok_json_index(id, RT_TOK_MAX_VOCAB - 1));
        }
    if (sequences != 1)
        ir_error(tok->diag, tok->where, "the template has the text %d times, expected once",
                 sequences);
    for (uint32_t i = 0; i < inner_count; i++)
        put_around(tok, true, inner[i]);
}

static void read_post_processor(fe_tok *tok, const cJSON *part) {
    if (!part || cJSON_IsNull(part))
        return;
    const char *type = fe_tok_json_type(tok, part, "the post-processor");
    const cJSON *item;
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *list = get(part, "processors");
        if (!cJSON_IsArray(list))
            ir_error(tok->diag, tok->where,
                     "a Sequence of the post-processor has no \"processors\"");
        else
            cJSON_ArrayForEach(item, list) read_post_processor(tok, item);
    } else if (strcmp(type, "TemplateProcessing") == 0) {
        read_template(tok, part);
    } else if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) {
        const cJSON *cls = get(part, "cls"), *sep = get(part, "sep");
        put_around(tok, true, fe_tok_json_index(cJSON_GetArrayItem(cls, 1), RT_TOK_MAX_VOCAB - 1));
        put_around(tok, false, fe_tok_json_index(cJSON_GetArrayItem(sep, 1), RT_TOK_MAX_VOCAB - 1));
    } else if (*type && strcmp(type, "ByteLevel") != 0) { /* ByteLevel only moves offsets */
        ir_error(tok->diag, tok->where,
                 "post-processor \"%s\" is not supported; known are TemplateProcessing, "
                 "BertProcessing, RobertaProcessing, ByteLevel and Sequence",
                 fe_printable_text(tok->arena, type));
    }
}

/* -- tokenizer_config.json ------------------------------------------------------------------- */

/* The id of a token that the configuration names: "…" or {"content": "…"}. */
static int32_t role(fe_tok *tok, const cJSON *config, const char *key) {
    const cJSON *item = get(config, key);
    if (cJSON_IsObject(item))
        item = get(item, "content");
    if (!cJSON_IsString(item))
        return RT_TOK_NONE;
    fe_bytes text = fe_tok_json_bytes(tok, item);
    int64_t id = fe_tok_find(tok, text.data, text.size);
    if (id < 0)
        ir_warning(tok->diag, tok->where, "%s \"%s\" is not in the vocabulary", key,
                   fe_printable(tok->arena, text.data, text.size));
    return (int32_t)id;
}

/* Llama's and Gemma's classes build the post-processor anew from these two flags. */
static void apply_add_flags(fe_tok *tok, const cJSON *config) {
    const char *class = cJSON_GetStringValue(get(config, "tokenizer_class"));
    if (!class || (strncmp(class, "Llama", 5) != 0 && strncmp(class, "Gemma", 5) != 0 &&
                   strncmp(class, "CodeLlama", 9) != 0))
        return;
    const cJSON *bos = get(config, "add_bos_token"), *eos = get(config, "add_eos_token");
    if (cJSON_IsBool(bos) && tok->bos >= 0) {
        tok->prefix_count = cJSON_IsTrue(bos) ? 1 : 0;
        tok->prefix[0] = tok->bos;
    }
    if (cJSON_IsBool(eos) && tok->eos >= 0) {
        tok->suffix_count = cJSON_IsTrue(eos) ? 1 : 0;
        tok->suffix[0] = tok->eos;
    }
}

/* Without a configuration the usual names have to do. */
static int32_t by_name(const fe_tok *tok, const char *const *names) {
    for (; *names; names++) {
        int64_t id = fe_tok_find_text(tok, *names);
        if (id >= 0 && tok->tokens[id].flags & RT_TOK_SPECIAL)
            return (int32_t)id;
    }
    return RT_TOK_NONE;
}

static void read_config(fe_tok *tok, const cJSON *config) {
    static const char *const bos_names[] = {"<s>", "<bos>", "<|begin_of_text|>",
                                            "<｜begin▁of▁sentence｜>", NULL};
    static const char *const eos_names[] = {
        "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", NULL};
    if (config) {
        tok->bos = role(tok, config, "bos_token");
        tok->eos = role(tok, config, "eos_token");
        tok->pad = role(tok, config, "pad_token");
        if (tok->unk < 0 && tok->model != RT_TOK_MODEL_BPE)
            tok->unk = role(tok, config, "unk_token");
        apply_add_flags(tok, config);
    } else {
        tok->bos = by_name(tok, bos_names);
        tok->eos = by_name(tok, eos_names);
    }
    fe_tok_known_ends(tok);
}

static void note_ignored(fe_tok *tok, const cJSON *root, const char *key) {
    const cJSON *item = get(root, key);
    if (item && !cJSON_IsNull(item))
        ir_note(tok->diag, tok->where,
                "\"%s\" in tokenizer.json is for batches of training texts; it is left out", key);
}

bool fe_tokenizer_from_json(ir_arena *arena, ir_diag *diag, const char *where, const char *json,
                            size_t size, const char *config, size_t config_size, fe_blob *out) {
    *out = (fe_blob){0};
    fe_tok tok;
    fe_tok_init(&tok, arena, diag, where);
    cJSON *root = fe_tok_json_parse(&tok, "tokenizer.json", json, size);
    cJSON *options = NULL;
    if (config && config_size)
        options = fe_tok_json_parse(&tok, "tokenizer_config.json", config, config_size);
    if (root) {
        read_model(&tok, get(root, "model"));
        read_added(&tok, get(root, "added_tokens"));
        const char *beside = ir_arena_printf(arena, "%s with tokenizer_config.json", where);
        tok.where = beside; /* what the second file gets wrong is not said of the first alone */
        if (options)
            read_more_added(&tok, get(options, "added_tokens_decoder"));
        tok.where = where;
        fe_tok_json_normalizer(&tok, get(root, "normalizer"));
        tok.normalizer_steps = tok.step_count;
        fe_tok_json_pre_tokenizer(&tok, get(root, "pre_tokenizer"));
        fe_tok_json_decoder(&tok, get(root, "decoder"));
        read_post_processor(&tok, get(root, "post_processor"));
        fe_tok_finish_steps(&tok);
        tok.where = beside;
        read_config(&tok, options);
        tok.where = where;
        note_ignored(&tok, root, "truncation");
        note_ignored(&tok, root, "padding");
    }
    bool good = root && fe_tok_build(&tok, out);
    cJSON_Delete(options);
    cJSON_Delete(root);
    return good;
}
