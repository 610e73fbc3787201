/* The normalizer, pre-tokenizer and decoder of tokenizer.json: each is one step or a Sequence of
 * them. What each does is documented at https://huggingface.co/docs/tokenizers/components. */
#include <string.h>

#include "compiler/tokenizer/json.h"

static void unsupported(fe_tok *tok, const char *part, const char *type, const char *known) {
    if (*type)
        ir_error(tok->diag, tok->where, "%s \"%s\" is not supported; known are %s", part,
                 fe_printable_text(tok->arena, type), known);
}

/* The items of a Sequence; reports when there are none. */
static const cJSON *items_of(fe_tok *tok, const cJSON *part, const char *what, const char *key) {
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(part, key);
    if (!cJSON_IsArray(items))
        ir_error(tok->diag, tok->where, "a Sequence of the %s has no list \"%s\"", what, key);
    return cJSON_IsArray(items) ? items : NULL;
}

/* A pattern: {"String": …} or {"Regex": …}. Returns whether it is a regular expression. */
static bool pattern_of(fe_tok *tok, const cJSON *part, const char *what, fe_bytes *pattern) {
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(part, "pattern");
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(object, "String");
    const cJSON *regex = cJSON_GetObjectItemCaseSensitive(object, "Regex");
    *pattern = fe_tok_json_bytes(tok, text ? text : regex);
    if (!cJSON_IsString(text ? text : regex) || pattern->size == 0)
        ir_error(tok->diag, tok->where,
                 "%s has no pattern; expected {\"String\": …} or {\"Regex\": …}", what);
    return !text;
}

static void replace(fe_tok *tok, const cJSON *part) {
    fe_tok_step step = {.op = RT_TOK_REPLACE};
    fe_tok_json_string(tok, part, "Replace", "content", &step.b);
    if (pattern_of(tok, part, "Replace", &step.a) && step.a.size) {
        step.op = RT_TOK_REPLACE_REGEX;
        fe_tok_regex(tok, step.a, &step.a);
    }
    fe_tok_add_step(tok, step);
}

static int base64_value(uint8_t c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static void precompiled(fe_tok *tok, const cJSON *part) {
    fe_bytes text;
    if (!fe_tok_json_string(tok, part, "Precompiled", "precompiled_charsmap", &text))
        return;
    uint8_t *bytes = ir_arena_alloc(tok->arena, text.size + 4);
    size_t size = 0;
    uint32_t bits = 0, have = 0;
    while (text.size && text.data[text.size - 1] == '=')
        text.size--;
    for (size_t i = 0; i < text.size; i++) {
        int value = base64_value(text.data[i]);
        if (value < 0) {
            ir_error(tok->diag, tok->where, "precompiled_charsmap is not base64");
            return;
        }
        bits = bits << 6 | (uint32_t)value;
        have += 6;
        if (have >= 8)
            bytes[size++] = (uint8_t)(bits >> (have -= 8));
    }
    if (tok->charsmap.size) {
        ir_error(tok->diag, tok->where, "the normalizer has two Precompiled steps");
        return;
    }
    tok->charsmap = (fe_bytes){bytes, size};
    fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_CHARSMAP});
}

/* Steps without parameters. */
static const struct {
    const char *type;
    rt_tok_op op;
} plain_normalizers[] = {
    {"NFC", RT_TOK_NFC},
    {"NFD", RT_TOK_NFD},
    {"NFKC", RT_TOK_NFKC},
    {"NFKD", RT_TOK_NFKD},
    {"Nmt", RT_TOK_NMT},
    {"Lowercase", RT_TOK_LOWERCASE},
    {"StripAccents", RT_TOK_STRIP_ACCENTS},
    {"ByteLevel", RT_TOK_BYTE_MAP},
};

void fe_tok_json_normalizer(fe_tok *tok, const cJSON *part) {
    if (!part || cJSON_IsNull(part))
        return;
    const char *type = fe_tok_json_type(tok, part, "the normalizer");
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *items = items_of(tok, part, "normalizer", "normalizers"), *item;
        cJSON_ArrayForEach(item, items) fe_tok_json_normalizer(tok, item);
        return;
    }
    for (size_t i = 0; i < sizeof plain_normalizers / sizeof *plain_normalizers; i++)
        if (strcmp(type, plain_normalizers[i].type) == 0) {
            fe_tok_add_step(tok, (fe_tok_step){.op = plain_normalizers[i].op});
            return;
        }
    if (strcmp(type, "Prepend") == 0) {
        fe_tok_step step = {.op = RT_TOK_PREPEND};
        fe_tok_json_string(tok, part, "Prepend", "prepend", &step.a);
        fe_tok_add_step(tok, step);
    } else if (strcmp(type, "Replace") == 0) {
        replace(tok, part);
    } else if (strcmp(type, "Strip") == 0) {
        uint32_t flags = 0;
        if (fe_tok_json_flag(tok, part, "Strip", "strip_left", true))
            flags |= RT_TOK_STRIP_LEFT;
        if (fe_tok_json_flag(tok, part, "Strip", "strip_right", true))
            flags |= RT_TOK_STRIP_RIGHT;
        fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_STRIP, .flags = flags});
    } else if (strcmp(type, "Precompiled") == 0) {
        precompiled(tok, part);
    } else {
        unsupported(tok, "normalizer", type,
                    "NFC, NFD, NFKC, NFKD, Nmt, Lowercase, StripAccents, ByteLevel, Prepend, "
                    "Replace, Strip, Precompiled and Sequence");
    }
}

/* "Removed", "Isolated", … as flags of a split. */
static uint32_t behaviour_of(fe_tok *tok, const cJSON *part, const char *what, uint32_t missing) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(part, "behavior");
    if (!item && missing != RT_TOK_BEHAVIOURS)
        return missing;
    const char *name = cJSON_GetStringValue(item);
    for (uint32_t i = 0; name && i < RT_TOK_BEHAVIOURS; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    ir_error(tok->diag, tok->where,
             "%s has no known \"behavior\"; expected Removed, Isolated, MergedWithPrevious, "
             "MergedWithNext or Contiguous",
             what);
    return RT_TOK_ISOLATED;
}

void fe_tok_split_regex(fe_tok *tok, fe_bytes pattern, uint32_t flags) {
    fe_tok_step step = {.op = RT_TOK_SPLIT_REGEX, .flags = flags};
    if (fe_tok_regex(tok, pattern, &step.a))
        fe_tok_add_step(tok, step);
}

static void split(fe_tok *tok, const cJSON *part) {
    uint32_t flags = behaviour_of(tok, part, "Split", RT_TOK_BEHAVIOURS);
    if (fe_tok_json_flag(tok, part, "Split", "invert", false))
        flags |= RT_TOK_INVERT;
    fe_bytes pattern;
    bool regex = pattern_of(tok, part, "Split", &pattern);
    if (!pattern.size)
        return;
    if (regex)
        fe_tok_split_regex(tok, pattern, flags);
    else
        fe_tok_add_step(tok,
                        (fe_tok_step){.op = RT_TOK_SPLIT_STRING, .flags = flags, .a = pattern});
}

static void byte_level(fe_tok *tok, const cJSON *part) {
    if (fe_tok_json_flag(tok, part, "ByteLevel", "add_prefix_space", true))
        fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_PREFIX, .a = fe_tok_bytes(" ")});
    if (fe_tok_json_flag(tok, part, "ByteLevel", "use_regex", true))
        fe_tok_split_regex(tok, fe_tok_bytes(FE_TOK_GPT2_PATTERN), RT_TOK_ISOLATED);
    fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_BYTE_MAP});
}

/* Metaspace's prepend_scheme: 'a'lways, 'f'irst or 'n'ever. */
static char scheme_of(fe_tok *tok, const cJSON *part) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(part, "prepend_scheme");
    const char *scheme = item ? cJSON_GetStringValue(item) : "always";
    if (!scheme || (strcmp(scheme, "always") != 0 && strcmp(scheme, "first") != 0 &&
                    strcmp(scheme, "never") != 0)) {
        ir_error(tok->diag, tok->where,
                 "Metaspace has no known \"prepend_scheme\"; expected always, first or never");
        scheme = "always";
    }
    return fe_tok_json_flag(tok, part, "Metaspace", "add_prefix_space", true) ? *scheme : 'n';
}

static void metaspace(fe_tok *tok, const cJSON *part) {
    fe_bytes mark;
    fe_tok_json_string(tok, part, "Metaspace", "replacement", &mark);
    fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_REPLACE, .a = fe_tok_bytes(" "), .b = mark});
    char scheme = scheme_of(tok, part);
    if (scheme != 'n')
        fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_PREFIX,
                                           .flags = scheme == 'f' ? RT_TOK_PREFIX_FIRST : 0,
                                           .a = mark});
    if (fe_tok_json_flag(tok, part, "Metaspace", "split", true))
        fe_tok_add_step(
            tok,
            (fe_tok_step){.op = RT_TOK_SPLIT_STRING, .flags = RT_TOK_MERGED_WITH_NEXT, .a = mark});
}

static void split_class(fe_tok *tok, rt_tok_class class, uint32_t flags) {
    fe_tok_add_step(tok, (fe_tok_step){.op = RT_TOK_SPLIT_CLASS, .flags = flags, .class = class});
}

/* Rust's \w, which is wider than Oniguruma's: in PCRE2's terms. */
#define RUST_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}"
#define SPACE "\\x{9}-\\x{d}\\x{85}\\p{Z}"

void fe_tok_json_pre_tokenizer(fe_tok *tok, const cJSON *part) {
    if (!part || cJSON_IsNull(part))
        return;
    const char *type = fe_tok_json_type(tok, part, "the pre-tokenizer");
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *items = items_of(tok, part, "pre-tokenizer", "pretokenizers"), *item;
        cJSON_ArrayForEach(item, items) fe_tok_json_pre_tokenizer(tok, item);
    } else if (strcmp(type, "ByteLevel") == 0) {
        byte_level(tok, part);
    } else if (strcmp(type, "Split") == 0) {
        split(tok, part);
    } else if (strcmp(type, "Digits") == 0) {
        bool single = fe_tok_json_flag(tok, part, "Digits", "individual_digits", false);
        split_class(tok, RT_TOK_CLASS_NUMERIC, single ? RT_TOK_ISOLATED : RT_TOK_CONTIGUOUS);
    } else if (strcmp(type, "Metaspace") == 0) {
        metaspace(tok, part);
    } else if (strcmp(type, "Whitespace") == 0) {
        fe_tok_add_step(
            tok, (fe_tok_step){.op = RT_TOK_SPLIT_REGEX,
                               .flags = RT_TOK_REMOVED | RT_TOK_INVERT,
                               .a = fe_tok_bytes("[" RUST_WORD "]+|[^" RUST_WORD SPACE "]+")});
    } else if (strcmp(type, "WhitespaceSplit") == 0) {
        split_class(tok, RT_TOK_CLASS_SPACE, RT_TOK_REMOVED);
    } else if (strcmp(type, "Punctuation") == 0) {
        split_class(tok, RT_TOK_CLASS_PUNCTUATION,
                    behaviour_of(tok, part, "Punctuation", RT_TOK_ISOLATED));
    } else if (strcmp(type, "BertPreTokenizer") == 0) {
        split_class(tok, RT_TOK_CLASS_SPACE, RT_TOK_REMOVED);
        split_class(tok, RT_TOK_CLASS_PUNCTUATION, RT_TOK_ISOLATED);
    } else if (strcmp(type, "CharDelimiterSplit") == 0) {
        fe_tok_step step = {.op = RT_TOK_SPLIT_STRING, .flags = RT_TOK_REMOVED};
        fe_tok_json_string(tok, part, "CharDelimiterSplit", "delimiter", &step.a);
        fe_tok_add_step(tok, step);
    } else {
        unsupported(tok, "pre-tokenizer", type,
                    "ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, "
                    "Punctuation, BertPreTokenizer, CharDelimiterSplit and Sequence");
    }
}

static void decode_strip(fe_tok *tok, const cJSON *part) {
    fe_tok_decode op = {.op = FE_TOK_DECODE_STRIP};
    fe_tok_json_string(tok, part, "Strip", "content", &op.a);
    int64_t start = fe_tok_json_index(cJSON_GetObjectItemCaseSensitive(part, "start"), 1 << 20);
    int64_t stop = fe_tok_json_index(cJSON_GetObjectItemCaseSensitive(part, "stop"), 1 << 20);
    if (start < 0 || stop < 0)
        ir_error(tok->diag, tok->where, "Strip of the decoder has no \"start\" or \"stop\"");
    op.start = start < 0 ? 0 : (uint32_t)start;
    op.stop = stop < 0 ? 0 : (uint32_t)stop;
    fe_tok_add_decode(tok, op);
}

void fe_tok_json_decoder(fe_tok *tok, const cJSON *part) {
    if (!part || cJSON_IsNull(part))
        return;
    tok->has_decoder = true;
    const char *type = fe_tok_json_type(tok, part, "the decoder");
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *items = items_of(tok, part, "decoder", "decoders"), *item;
        cJSON_ArrayForEach(item, items) fe_tok_json_decoder(tok, item);
    } else if (strcmp(type, "ByteLevel") == 0) {
        fe_tok_add_decode(tok, (fe_tok_decode){.op = FE_TOK_DECODE_BYTE_LEVEL});
    } else if (strcmp(type, "ByteFallback") == 0) {
        fe_tok_add_decode(tok, (fe_tok_decode){.op = FE_TOK_DECODE_BYTE_FALLBACK});
    } else if (strcmp(type, "Fuse") == 0) {
        fe_tok_add_decode(tok, (fe_tok_decode){.op = FE_TOK_DECODE_FUSE});
    } else if (strcmp(type, "Metaspace") == 0) {
        fe_tok_decode op = {.op = FE_TOK_DECODE_METASPACE};
        fe_tok_json_string(tok, part, "Metaspace", "replacement", &op.a);
        op.first = scheme_of(tok, part) != 'n';
        fe_tok_add_decode(tok, op);
    } else if (strcmp(type, "Replace") == 0) {
        fe_tok_decode op = {.op = FE_TOK_DECODE_REPLACE};
        fe_tok_json_string(tok, part, "Replace", "content", &op.b);
        if (pattern_of(tok, part, "Replace", &op.a) && op.a.size)
            ir_error(tok->diag, tok->where,
                     "the decoder replaces by a regular expression, which is not supported");
        fe_tok_add_decode(tok, op);
    } else if (strcmp(type, "Strip") == 0) {
        decode_strip(tok, part);
    } else {
        unsupported(tok, "decoder", type,
                    "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip and Sequence");
    }
}
