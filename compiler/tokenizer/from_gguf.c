/* The tokenizer that a GGUF file describes in its metadata. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/tokenizer/json.h"
#include "runtime/tokenizer/utf8.h"

enum { SHOWN = 5 };

#define META_SPACE "\xe2\x96\x81" /* U+2581, which SentencePiece writes for a space */

/* -- pre-tokenizers by name ------------------------------------------------------------------ */

enum { IGNORE_MERGES = 1, ADD_BOS = 2 };
enum { MAX_PRE_STEPS = 6 };

typedef struct pre_step {
    bool digits;
    const char *pattern;
} pre_step;

typedef struct pre_tokenizer {
    const char *name;
    unsigned flags;
    pre_step steps[MAX_PRE_STEPS]; /* the rest are zero */
} pre_tokenizer;

#define SPLIT(text)                                                                                \
    { false, text }
#define DIGITS                                                                                     \
    { true, NULL }
#define PRE(name, flags, ...) {name, flags, {__VA_ARGS__}},
static const pre_tokenizer pre_tokenizers[] = {
#include "compiler/tokenizer/pretokenizers.def"
};

static const pre_tokenizer *find_pre(fe_tok *tok, fe_bytes name) {
    size_t count = sizeof pre_tokenizers / sizeof *pre_tokenizers;
    if (name.size == 0)
        name = fe_tok_bytes("default");
    char *known = ir_arena_strdup(tok->arena, "");
    for (size_t i = 0; i < count; i++) {
        if (fe_tok_equal(name, pre_tokenizers[i].name))
            return &pre_tokenizers[i];
        known = ir_arena_printf(tok->arena, "%s%s%s", known, i ? ", " : "", pre_tokenizers[i].name);
    }
    ir_error(tok->diag, tok->where,
             "tokenizer.ggml.pre names the pre-tokenizer \"%s\", which is not known; known are %s",
             fe_printable(tok->arena, name.data, name.size), known);
    return NULL;
}

static void add_pre_steps(fe_tok *tok, const pre_tokenizer *pre) {
    for (int i = 0; i < MAX_PRE_STEPS; i++) {
        if (pre->steps[i].digits)
            fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_SPLIT_CLASS,
                                               .flags = RT_TOK_ISOLATED,
                                               .class = RT_TOK_CLASS_NUMERIC});
        else if (pre->steps[i].pattern)
            fe_tok_split_regex(tok, fe_tok_bytes(pre->steps[i].pattern), RT_TOK_ISOLATED);
    }
    fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_BYTE_MAP});
}

/* -- the vocabulary -------------------------------------------------------------------------- */

static int32_t type_of(const fe_tokenizer_gguf *gguf, int64_t id) {
    return gguf->types ? gguf->types[id] : FE_TOKENIZER_NORMAL;
}

static void read_tokens(fe_tok *tok, const fe_tokenizer_gguf *gguf) {
    if (gguf->token_count <= 0 || gguf->token_count > RT_TOK_MAX_VOCAB) {
        ir_error(tok->diag, tok->where, "tokenizer.ggml.tokens has %lld tokens, expected 1 to %d",
                 (long long)gguf->token_count, RT_TOK_MAX_VOCAB);
        return;
    }
    int problems = 0;
    fe_tok_expect(tok, gguf->token_count);
    for (int64_t id = 0; id < gguf->token_count; id++) {
        fe_bytes text = gguf->tokens[id];
        int32_t type = type_of(gguf, id);
        bool special = type == FE_TOKENIZER_CONTROL || type == FE_TOKENIZER_UNKNOWN;
        if (type < FE_TOKENIZER_NORMAL || type > FE_TOKENIZER_BYTE ||
            !rt_utf8_valid((const char *)text.data, text.size)) {
            if (problems++ < SHOWN)
                ir_error(tok->diag, tok->where,
                         "token %lld, \"%s\", has type %d, expected 1 to 6 and valid UTF-8",
                         (long long)id, fe_printable(tok->arena, text.data, text.size), (int)type);
            continue;
        }
        if (!fe_tok_set(tok, id, text, RT_TOK_IN_MODEL | (special ? RT_TOK_SPECIAL : 0)))
            return;
        if (gguf->scores)
            tok->tokens[id].score = isfinite(gguf->scores[id]) ? gguf->scores[id] : -1e30;
        if ((special || type == FE_TOKENIZER_USER_DEFINED) && text.size)
            fe_tok_add_added(tok, (fe_tok_added){.content = text, .id = (uint32_t)id});
    }
    if (problems > SHOWN)
        ir_note(tok->diag, tok->where, "and %d more tokens", problems - SHOWN);
}

static void read_merges(fe_tok *tok, const fe_tokenizer_gguf *gguf) {
    int64_t count = gguf->merge_count;
    if (count < 0 || count > UINT32_MAX / 4) {
        ir_error(tok->diag, tok->where, "tokenizer.ggml.merges has %lld merges, expected fewer",
                 (long long)count);
        return;
    }
    tok->merges = ir_arena_array(tok->arena, (size_t)count + 1, sizeof *tok->merges);
    int problems = 0;
    for (int64_t i = 0; i < count; i++) {
        fe_bytes text = gguf->merges[i];
        /* A token may itself be or begin with a space: the separator comes after its beginning. */
        const uint8_t *space = text.size > 2 ? memchr(text.data + 1, ' ', text.size - 1) : NULL;
        int64_t left = -1, right = -1, id = -1;
        if (space) {
            size_t size = (size_t)(space - text.data);
            char *both = ir_arena_alloc(tok->arena, text.size);
            memcpy(both, text.data, size);
            memcpy(both + size, space + 1, text.size - size - 1);
            left = fe_tok_find(tok, text.data, size);
            right = fe_tok_find(tok, space + 1, text.size - size - 1);
            id = fe_tok_find(tok, both, text.size - 1);
        }
        if (left < 0 || right < 0 || id < 0) {
            if (problems++ < SHOWN)
                ir_error(tok->diag, tok->where,
                         "merge %lld, \"%s\", is not of two tokens that make a third", (long long)i,
                         fe_printable(tok->arena, text.data, text.size));
            continue;
        }
        tok->merges[tok->merge_count++] =
            (rt_tok_merge){(uint32_t)left, (uint32_t)right, (uint32_t)i, (uint32_t)id};
    }
    if (problems > SHOWN)
        ir_note(tok->diag, tok->where, "and %d more merges", problems - SHOWN);
}

/* -- merges from scores ---------------------------------------------------------------------- */

typedef struct scored_merge {
    double score;
    uint32_t id, left, right;
} scored_merge;

/* The highest score first; then the token's id, then its parts' ids. */
static int compare_merges(const void *left, const void *right) {
    const scored_merge *a = left, *b = right;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    if (a->left != b->left)
        return a->left < b->left ? -1 : 1;
    return a->right < b->right ? -1 : a->right > b->right;
}

/* SentencePiece joins the neighbours that make the token with the highest score. As a list of
 * merges: every way to cut a token in two tokens, in that order. Only ordinary tokens are made so;
 * all others are found in the text, or stand for bytes. */
static void merges_from_scores(fe_tok *tok, const fe_tokenizer_gguf *gguf) {
    scored_merge *found = NULL;
    size_t count = 0, capacity = 0;
    for (uint32_t id = 0; id < tok->vocab; id++) {
        fe_bytes text = tok->tokens[id].text;
        if (type_of(gguf, id) != FE_TOKENIZER_NORMAL ||
            fe_tok_find(tok, text.data, text.size) != (int64_t)id)
            continue;
        for (size_t cut = 0; cut < text.size;) {
            cut += rt_utf8_size((const char *)text.data + cut);
            if (cut >= text.size)
                break;
            int64_t left = fe_tok_find(tok, text.data, cut);
            int64_t right = left < 0 ? -1 : fe_tok_find(tok, text.data + cut, text.size - cut);
            if (right < 0)
                continue;
            int32_t types[2] = {type_of(gguf, left), type_of(gguf, right)};
            if ((types[0] != FE_TOKENIZER_NORMAL && types[0] != FE_TOKENIZER_USER_DEFINED) ||
                (types[1] != FE_TOKENIZER_NORMAL && types[1] != FE_TOKENIZER_USER_DEFINED))
                continue;
            if (count == capacity) {
                capacity = capacity * 2 + 1024;
                scored_merge *grown = ir_arena_array(tok->arena, capacity, sizeof *grown);
                if (count)
                    memcpy(grown, found, count * sizeof *grown);
                found = grown;
            }
            found[count++] =
                (scored_merge){tok->tokens[id].score, id, (uint32_t)left, (uint32_t)right};
        }
    }
    if (count > UINT32_MAX / 4) {
        ir_error(tok->diag, tok->where, "the vocabulary has too many merges (%zu)", count);
        return;
    }
    if (count)
        qsort(found, count, sizeof *found, compare_merges);
    tok->merges = ir_arena_array(tok->arena, count + 1, sizeof *tok->merges);
    for (size_t i = 0; i < count; i++)
        tok->merges[i] = (rt_tok_merge){found[i].left, found[i].right, (uint32_t)i, found[i].id};
    tok->merge_count = (uint32_t)count;
}

/* -- the three kinds ------------------------------------------------------------------------- */

/* What a file that says nothing means. */
typedef struct defaults {
    bool add_bos, add_eos;
} defaults;

static defaults read_gpt2(fe_tok *tok, const fe_tokenizer_gguf *gguf) {
    tok->model = RT_TOK_MODEL_BPE;
    if (!gguf->merges)
        ir_error(tok->diag, tok->where,
                 "tokenizer.ggml.merges is missing; a tokenizer of model gpt2 needs it");
    else
        read_merges(tok, gguf);
    tok->has_decoder = true;
    fe_tok_add_decode(tok, (fe_tok_decode){.op = FE_TOK_DECODE_BYTE_LEVEL});
    const pre_tokenizer *pre = find_pre(tok, gguf->pre);
    if (!pre)
        return (defaults){false, false};
    add_pre_steps(tok, pre);
    if (pre->flags & IGNORE_MERGES)
        tok->model_flags |= RT_TOK_IGNORE_MERGES;
    return (defaults){pre->flags & ADD_BOS, false};
}

/* U+2581 back to spaces, <0xNN> to bytes; a space that was put in front is taken away. */
static void sentencepiece_decoder(fe_tok *tok, bool prefixed) {
    fe_bytes mark = fe_tok_bytes(META_SPACE), space = fe_tok_bytes(" ");
    tok->has_decoder = true;
    fe_tok_add_decode(tok, (fe_tok_decode){.op = FE_TOK_DECODE_REPLACE, .a = mark, .b = space});
    fe_tok_add_decode(tok, (fe_tok_decode){.op = FE_TOK_DECODE_BYTE_FALLBACK});
    fe_tok_add_decode(tok, (fe_tok_decode){.op = FE_TOK_DECODE_FUSE});
    if (prefixed)
        fe_tok_add_decode(tok, (fe_tok_decode){.op = FE_TOK_DECODE_STRIP, .a = space, .start = 1});
}

static void add_meta_space(fe_tok *tok, bool prefixed) {
    fe_bytes mark = fe_tok_bytes(META_SPACE);
    if (prefixed)
        fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_PREPEND, .a = mark});
    fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_REPLACE, .a = fe_tok_bytes(" "), .b = mark});
    tok->normalizer_steps = tok->step_count;
}

static defaults read_llama(fe_tok *tok, const fe_tokenizer_gguf *gguf) {
    tok->model = RT_TOK_MODEL_BPE;
    tok->model_flags = RT_TOK_BYTE_FALLBACK | RT_TOK_FUSE_UNK;
    if (!gguf->scores)
        ir_error(tok->diag, tok->where,
                 "tokenizer.ggml.scores is missing; a tokenizer of model llama needs it");
    else
        merges_from_scores(tok, gguf);
    bool prefixed = gguf->add_space_prefix != 0;
    add_meta_space(tok, prefixed);
    sentencepiece_decoder(tok, prefixed);
    return (defaults){true, false};
}

static defaults read_t5(fe_tok *tok, const fe_tokenizer_gguf *gguf) {
    tok->model = RT_TOK_MODEL_UNIGRAM;
    tok->model_flags = RT_TOK_FUSE_UNK;
    if (!gguf->scores)
        ir_error(tok->diag, tok->where,
                 "tokenizer.ggml.scores is missing; a tokenizer of model t5 needs it");
    double lowest = 0;
    for (uint32_t id = 0; id < tok->vocab; id++) {
        if (type_of(gguf, id) == FE_TOKENIZER_BYTE)
            tok->model_flags |= RT_TOK_BYTE_FALLBACK;
        if (type_of(gguf, id) == FE_TOKENIZER_NORMAL && tok->tokens[id].score < lowest)
            lowest = tok->tokens[id].score;
    }
    tok->unk_score = lowest - 10;
    if (gguf->charsmap.size) {
        tok->charsmap = gguf->charsmap;
        fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_CHARSMAP});
    }
    if (gguf->remove_extra_spaces == 1) {
        fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_STRIP,
                                           .flags = RT_TOK_STRIP_LEFT | RT_TOK_STRIP_RIGHT});
        fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_REPLACE_REGEX,
                                           .a = fe_tok_bytes(" {2,}"),
                                           .b = fe_tok_bytes(" ")});
    }
    bool prefixed = gguf->add_space_prefix != 0;
    add_meta_space(tok, prefixed);
    sentencepiece_decoder(tok, prefixed);
    return (defaults){false, true};
}

static int32_t role(fe_tok *tok, int64_t id, const char *key) {
    if (id == RT_TOK_NONE)
        return RT_TOK_NONE;
    if (id < 0 || id >= tok->vocab) {
        ir_error(tok->diag, tok->where, "tokenizer.ggml.%s is %lld, expected an id below %u", key,
                 (long long)id, tok->vocab);
        return RT_TOK_NONE;
    }
    return (int32_t)id;
}

fe_tokenizer_gguf fe_tokenizer_gguf_empty(void) {
    return (fe_tokenizer_gguf){.bos = -1,
                               .eos = -1,
                               .eot = -1,
                               .eom = -1,
                               .unk = -1,
                               .pad = -1,
                               .add_bos = -1,
                               .add_eos = -1,
                               .add_space_prefix = -1,
                               .remove_extra_spaces = -1};
}

bool fe_tokenizer_from_gguf(ir_arena *arena, ir_diag *diag, const char *where,
                            const fe_tokenizer_gguf *gguf, fe_blob *out) {
    *out = (fe_blob){0};
    fe_tok tok;
    fe_tok_init(&tok, arena, diag, where);
    read_tokens(&tok, gguf);
    tok.bos = role(&tok, gguf->bos, "bos_token_id");
    tok.eos = role(&tok, gguf->eos, "eos_token_id");
    tok.eot = role(&tok, gguf->eot, "eot_token_id");
    tok.pad = role(&tok, gguf->pad, "padding_token_id");
    int32_t unk = role(&tok, gguf->unk, "unknown_token_id");
    int32_t eom = role(&tok, gguf->eom, "eom_token_id");
    defaults add = {false, false};
    if (!fe_tok_good(&tok))
        return false; /* what follows relies on the tokens */
    if (fe_tok_equal(gguf->model, "gpt2")) {
        add = read_gpt2(&tok, gguf);
    } else if (fe_tok_equal(gguf->model, "llama")) {
        add = read_llama(&tok, gguf);
        tok.unk = unk;
    } else if (fe_tok_equal(gguf->model, "t5")) {
        add = read_t5(&tok, gguf);
        tok.unk = unk;
    } else {
        ir_error(diag, where,
                 "tokenizer.ggml.model is \"%s\", which is not supported; known are gpt2 (byte "
                 "level BPE), llama (SentencePiece BPE) and t5 (unigram)",
                 fe_printable(arena, gguf->model.data, gguf->model.size));
    }
    if (gguf->add_bos >= 0 ? gguf->add_bos : add.add_bos) {
        if (tok.bos < 0)
            ir_warning(diag, where, "the tokenizer adds a BOS token, but names none");
        else
            tok.prefix[tok.prefix_count++] = tok.bos;
    }
    if (gguf->add_eos >= 0 ? gguf->add_eos : add.add_eos) {
        if (tok.eos < 0)
            ir_warning(diag, where, "the tokenizer adds an EOS token, but names none");
        else
            tok.suffix[tok.suffix_count++] = tok.eos;
    }
    fe_tok_known_ends(&tok);
    fe_tok_add_end(&tok, eom);
    fe_tok_finish_steps(&tok);
    return fe_tok_build(&tok, out);
}
