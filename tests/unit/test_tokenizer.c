/* Tokenizers: small ones made here, and goldens of the `tokenizers` library over many texts. */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "check_main.h"
#include "compiler/tokenizer/tokenizer.h"
#include "runtime/tokenizer/format.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/utf8.h"

#define META "\xe2\x96\x81"

static ir_arena *arena;
static ir_diag diag;

static void setup(void) {
    arena = ir_arena_create();
    diag = (ir_diag){0};
}

static void teardown(void) {
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
}

static rt_tokenizer *open_blob(const fe_blob *blob) {
    rt_error error = {0};
    rt_tokenizer *t = rt_tokenizer_open(blob->data, blob->size, &error);
    ck_assert_msg(t != NULL, "%s", error.text);
    return t;
}

static rt_tokenizer *from_json(const char *json, const char *config, fe_blob *blob) {
    bool good = fe_tokenizer_from_json(arena, &diag, "test", json, strlen(json), config,
                                       config ? strlen(config) : 0, blob);
    if (!good)
        ir_diag_print(&diag, stderr);
    ck_assert(good);
    return open_blob(blob);
}

/* True when some message has this in it. */
static bool reported(const char *text) {
    for (int i = 0; i < diag.count; i++)
        if (strstr(diag.messages[i].text, text))
            return true;
    return false;
}

static void assert_ids(const rt_tokenizer *t, const char *text, size_t size, unsigned flags,
                       const int32_t *want, int64_t count) {
    int32_t ids[4096];
    rt_error error = {0};
    int64_t got = rt_tokenizer_encode(t, text, size, flags, ids, 4096, &error);
    ck_assert_msg(got >= 0, "%s", error.text);
    ck_assert_int_eq(got, count);
    for (int64_t i = 0; i < count; i++)
        ck_assert_msg(ids[i] == want[i], "\"%.*s\": id %d is %d, expected %d", (int)size, text,
                      (int)i, ids[i], want[i]);
}

#define ASSERT_IDS(t, text, flags, ...)                                                            \
    assert_ids(t, text, strlen(text), flags, (const int32_t[]){__VA_ARGS__},                       \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* Decodes as a stream and checks on the way that every piece of output is whole characters. */
static size_t stream(const rt_tokenizer *t, const int32_t *ids, int64_t count, char *out) {
    rt_detok d;
    size_t size = 0;
    rt_detok_init(&d, t, 0);
    for (int64_t i = 0; i <= count; i++) {
        char some[8192];
        int64_t n = i < count ? rt_detok_push(&d, ids[i], some, sizeof some)
                              : rt_detok_flush(&d, some, sizeof some);
        ck_assert_int_ge(n, 0);
        ck_assert_int_le(n, rt_detok_max(t));
        ck_assert(rt_utf8_valid(some, (size_t)n));
        memcpy(out + size, some, (size_t)n);
        size += (size_t)n;
    }
    return size;
}

/* -- a byte-level tokenizer ------------------------------------------------------------------ */

static const char byte_level[] =
    "{\"added_tokens\":[{\"id\":9,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
    "{\"id\":10,\"content\":\"lo\",\"special\":false,\"normalized\":false,\"single_word\":true}],"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],"
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[9],\"tokens\":[\"<s>\"]}}},"
    "\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"h\":0,\"e\":1,\"l\":2,\"o\":3,\"he\":4,\"ll\":5,"
    "\"hell\":6,\"\xc4\xa0\":7,\"\xc4\xa0hell\":8,\"\xc3\xa3\":11,\"\xc4\xa3\":12,\"\xc4\xa4\":13},"
    "\"merges\":[\"h e\",\"l l\",\"he ll\",\"\xc4\xa0 hell\"]}}";

START_TEST(test_bpe) {
    fe_blob blob;
    rt_tokenizer *t = from_json(byte_level, "{\"eos_token\":{\"content\":\"<s>\"}}", &blob);
    ASSERT_IDS(t, "hello hell", RT_TOKENIZER_PARSE_SPECIAL, 6, 3, 8);
    ASSERT_IDS(t, "hell<s>hell", RT_TOKENIZER_PARSE_SPECIAL, 6, 9, 6);
    /* "<" and ">" are not in this vocabulary, which has no unknown token: they give nothing. */
    ASSERT_IDS(t, "hell<s>hell", 0, 6, 6);
    ASSERT_IDS(t, "hell", RT_TOKENIZER_ADD_SPECIAL, 9, 6);
    ASSERT_IDS(t, "lo lo hello", 0, 10, 7, 10, 8, 3); /* lo: only as a word of its own */
    ck_assert_int_eq(rt_tokenizer_encode(t, "", 0, 0, NULL, 0, NULL), 0);
    /* The count is right when the ids do not fit, and nothing is stored beyond them. */
    int32_t two[3] = {-7, -7, -7};
    ck_assert_int_eq(rt_tokenizer_encode(t, "hello hell", 10, 0, two, 2, NULL), 3);
    ck_assert_int_eq(two[1], 3);
    ck_assert_int_eq(two[2], -7);
    rt_tokenizer_close(t);
}
END_TEST

START_TEST(test_queries) {
    fe_blob blob;
    rt_tokenizer *t = from_json(
        byte_level, "{\"eos_token\":\"<s>\",\"bos_token\":null,\"pad_token\":\"none\"}", &blob);
    ck_assert_int_eq(rt_tokenizer_vocab_size(t), 14);
    ck_assert_int_eq(rt_tokenizer_eos(t), 9);
    ck_assert_int_eq(rt_tokenizer_bos(t), -1);
    ck_assert_int_eq(rt_tokenizer_pad(t), -1);
    ck_assert(reported("pad_token \"none\" is not in the vocabulary"));
    ck_assert(rt_tokenizer_is_special(t, 9));
    ck_assert(!rt_tokenizer_is_special(t, 10));
    ck_assert(!rt_tokenizer_is_special(t, -1));
    ck_assert(!rt_tokenizer_is_special(t, 14));
    size_t size;
    const char *text = rt_tokenizer_text(t, 8, &size);
    ck_assert(size == 6 && memcmp(text, "\xc4\xa0hell", 6) == 0);
    text = rt_tokenizer_piece(t, 8, &size);
    ck_assert(size == 5 && memcmp(text, " hell", 5) == 0);
    ck_assert_ptr_null(rt_tokenizer_text(t, 14, &size));
    ck_assert_int_eq(rt_tokenizer_find(t, "hell", 4), 6);
    ck_assert_int_eq(rt_tokenizer_find(t, "lo", 2), 10);
    ck_assert_int_eq(rt_tokenizer_find(t, "hel", 3), -1);
    int64_t count;
    const int32_t *ends = rt_tokenizer_end_ids(t, &count);
    ck_assert_int_eq(count, 1);
    ck_assert_int_eq(ends[0], 9);
    rt_tokenizer_close(t);
}
END_TEST

START_TEST(test_detok_holds_characters_back) {
    fe_blob blob;
    rt_tokenizer *t = from_json(byte_level, NULL, &blob);
    rt_detok d;
    char out[64];
    rt_detok_init(&d, t, 0);
    /* U+3042 is e3 81 82: three tokens, of which only the last gives text. */
    ck_assert_int_eq(rt_detok_push(&d, 11, out, 64), 0);
    ck_assert_int_eq(rt_detok_push(&d, 12, out, 64), 0);
    /* Too little room changes nothing. */
    ck_assert_int_eq(rt_detok_push(&d, 13, out, 2), 3);
    ck_assert_int_eq(rt_detok_push(&d, 13, out, 64), 3);
    ck_assert_mem_eq(out, "\xe3\x81\x82", 3);
    /* A character that breaks off is one U+FFFD, and what follows is kept. */
    ck_assert_int_eq(rt_detok_push(&d, 11, out, 64), 0);
    ck_assert_int_eq(rt_detok_push(&d, 12, out, 64), 0);
    ck_assert_int_eq(rt_detok_push(&d, 0, out, 64), 4);
    ck_assert_mem_eq(out, "\xef\xbf\xbdh", 4);
    ck_assert_int_eq(rt_detok_push(&d, 11, out, 64), 0);
    ck_assert_int_eq(rt_detok_flush(&d, out, 64), 3);
    ck_assert_mem_eq(out, "\xef\xbf\xbd", 3);
    ck_assert_int_eq(rt_detok_flush(&d, out, 64), 0);
    ck_assert_int_eq(rt_detok_push(&d, 99, out, 64), -1);
    /* Special tokens can be passed over. */
    rt_detok_init(&d, t, RT_TOKENIZER_SKIP_SPECIAL);
    ck_assert_int_eq(rt_detok_push(&d, 9, out, 64), 0);
    rt_detok_init(&d, t, 0);
    ck_assert_int_eq(rt_detok_push(&d, 9, out, 64), 3);
    rt_tokenizer_close(t);
}
END_TEST

/* -- SentencePiece style, from GGUF ---------------------------------------------------------- */

typedef struct piece {
    const char *text;
    float score;
    int type;
} piece;

static const piece pieces[] = {
    {"<unk>", 0, FE_TOKENIZER_UNKNOWN},    {"<s>", 0, FE_TOKENIZER_CONTROL},
    {"</s>", 0, FE_TOKENIZER_CONTROL},     {"<0xC3>", 0, FE_TOKENIZER_BYTE},
    {"<0xA9>", 0, FE_TOKENIZER_BYTE},      {META, -1, FE_TOKENIZER_NORMAL},
    {"a", -2, FE_TOKENIZER_NORMAL},        {"b", -3, FE_TOKENIZER_NORMAL},
    {"ab", -9, FE_TOKENIZER_NORMAL},       {"ba", -8, FE_TOKENIZER_NORMAL},
    {META "ab", -10, FE_TOKENIZER_NORMAL}, {"aba", -7, FE_TOKENIZER_NORMAL},
    {"<x>", 0, FE_TOKENIZER_USER_DEFINED},
};
enum { PIECES = sizeof pieces / sizeof *pieces };

static fe_tokenizer_gguf piece_gguf(void) {
    static fe_bytes tokens[PIECES];
    static float scores[PIECES];
    static int32_t types[PIECES];
    for (int i = 0; i < PIECES; i++) {
        tokens[i] = (fe_bytes){(const uint8_t *)pieces[i].text, strlen(pieces[i].text)};
        scores[i] = pieces[i].score;
        types[i] = pieces[i].type;
    }
    fe_tokenizer_gguf gguf = fe_tokenizer_gguf_empty();
    gguf.model = (fe_bytes){(const uint8_t *)"llama", 5};
    gguf.tokens = tokens;
    gguf.token_count = PIECES;
    gguf.scores = scores;
    gguf.types = types;
    gguf.bos = 1;
    gguf.eos = 2;
    gguf.unk = 0;
    return gguf;
}

START_TEST(test_scores) {
    fe_tokenizer_gguf gguf = piece_gguf();
    fe_blob blob;
    ck_assert(fe_tokenizer_from_gguf(arena, &diag, "test", &gguf, &blob));
    rt_tokenizer *t = open_blob(&blob);
    /* "ba" (-8) is joined before "ab" (-9). */
    ASSERT_IDS(t, "aba", 0, 5, 11);
    ASSERT_IDS(t, "ab ab", 0, 10, 10);
    ASSERT_IDS(t, "ab", RT_TOKENIZER_ADD_SPECIAL, 1, 10); /* model llama adds BOS by default */
    ASSERT_IDS(t, "\xc3\xa9", 0, 5, 3, 4);                /* byte tokens */
    ASSERT_IDS(t, "\xe3\x81\x82", 0, 5, 0);               /* neither: unknown */
    ASSERT_IDS(t, "ab<x>ab", 0, 10, 12, 10); /* user defined; each stretch has its own space */
    char out[64];
    const int32_t ids[] = {10, 10, 3, 4, 6};
    ck_assert_int_eq(rt_tokenizer_decode(t, ids, 5, 0, out, 64, NULL), 8);
    ck_assert_mem_eq(out,
                     "ab ab\xc3\xa9"
                     "a",
                     8);
    ck_assert_int_eq(rt_tokenizer_decode(t, ids, 1, RT_TOKENIZER_CONTINUE, out, 64, NULL), 3);
    /* Byte tokens that are no character. */
    const int32_t broken[] = {4, 3, 6};
    ck_assert_int_eq(rt_tokenizer_decode(t, broken, 3, 0, out, 64, NULL), 7);
    ck_assert_mem_eq(out,
                     "\xef\xbf\xbd\xef\xbf\xbd"
                     "a",
                     7);
    rt_tokenizer_close(t);

    gguf.add_space_prefix = 0;
    gguf.add_bos = 0;
    ck_assert(fe_tokenizer_from_gguf(arena, &diag, "test", &gguf, &blob));
    t = open_blob(&blob);
    ASSERT_IDS(t, "ab ab", RT_TOKENIZER_ADD_SPECIAL, 8, 10);
    ck_assert_int_eq(rt_tokenizer_decode(t, ids, 1, 0, out, 64, NULL), 3);
    rt_tokenizer_close(t);
}
END_TEST

START_TEST(test_unigram) {
    static const char json[] =
        "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" META
        "\",\"prepend_scheme\":\"always\"},\"decoder\":{\"type\":\"Metaspace\",\"replacement\":"
        "\"" META "\",\"prepend_scheme\":\"always\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,"
        "\"vocab\":[[\"<unk>\",0],[\"" META "\",-3],[\"a\",-4],[\"b\",-4],[\"ab\",-5],[\"" META
        "a\",-5],[\"bb\",-2]]}}";
    fe_blob blob;
    rt_tokenizer *t = from_json(json, NULL, &blob);
    ASSERT_IDS(t, "abb", 0, 5, 6);          /* -7, against -12 for _ ab b */
    ASSERT_IDS(t, "ab", 0, 1, 4);           /* -8, against -9 for _a b */
    ASSERT_IDS(t, "a zz a", 0, 5, 1, 0, 5); /* neighbouring unknowns are one */
    char out[16];
    const int32_t ids[] = {5, 6, 1, 4};
    ck_assert_int_eq(rt_tokenizer_decode(t, ids, 4, 0, out, 16, NULL), 6);
    ck_assert_mem_eq(out, "abb ab", 6);
    rt_tokenizer_close(t);
}
END_TEST

/* Patterns mean what they mean to Oniguruma, whatever version of Unicode PCRE2 has. */
START_TEST(test_pattern_dialect) {
    static const struct {
        const char *pattern, *text;
        int64_t left; /* characters that are not removed */
    } cases[] = {
        {"\\\\p{L}+",
         "a\xf0\xb1\x8d\x90"
         "b1",
         1},                                           /* U+31350, of Unicode 15 */
        {"\\\\s", "\xe1\xa0\x8e \xc2\x85", 1},         /* U+180E is no space */
        {"[^\\\\S\\\\n]+", "\xe1\xa0\x8e \n", 2},      /* nor here */
        {"\\\\w", "e\xcc\x81_\xc2\xbd-", 1},           /* marks; 1/2 outside of sets */
        {"[\\\\w]", "e\xcc\x81_\xc2\xbd-", 2},         /* but not in one */
        {"\\\\p{Han}", "\xe4\xb8\xad\xe3\x80\x82", 1}, /* the script: not U+3002 */
        {"\\\\h", "fg \t", 3},                         /* a hexadecimal digit */
        {"a{1,2}+b", "aaaaab", 0},                     /* repeated, not possessive */
        {"[[:alpha:]]+",
         "a\xe0\xa5\x80"
         "1",
         1},                 /* Alphabetic has U+0940 */
        {"^.", "ab\ncd", 3}, /* at each line */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fe_blob blob;
        rt_tokenizer *t = from_json(
            ir_arena_printf(arena,
                            "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
                            "\"behavior\":\"Removed\"},\"model\":{\"type\":\"BPE\",\"unk_token\":"
                            "\"?\",\"vocab\":{\"?\":0},\"merges\":[]}}",
                            cases[i].pattern),
            NULL, &blob);
        rt_error error = {0};
        int64_t left =
            rt_tokenizer_encode(t, cases[i].text, strlen(cases[i].text), 0, NULL, 0, &error);
        ck_assert_msg(left == cases[i].left, "%s leaves %d characters, expected %d",
                      cases[i].pattern, (int)left, (int)cases[i].left);
        rt_tokenizer_close(t);
    }
}
END_TEST

/* NFC; and marks that are newer than the reference's Unicode neither move nor compose. */
START_TEST(test_normalizers) {
    static const char json[] =
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
        "\"Lowercase\"},{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},{\"type\":"
        "\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"y\"}]},\"model\":{\"type\":"
        "\"BPE\","
        "\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"\xc3\xa9\":1,\"y\":2,\"a\":3,\"\xd6\xb0\":4,"
        "\"\xd6\xbc\":5},\"merges\":[]}}";
    fe_blob blob;
    rt_tokenizer *t = from_json(json, NULL, &blob);
    ASSERT_IDS(t, " E\xcc\x81xxX ", 0, 1, 2);
    ASSERT_IDS(t, "a\xd6\xbc\xd6\xb0", 0, 3, 4, 5); /* classes 21 and 10: reordered */
    ASSERT_IDS(t, "a\xd6\xbc\xf0\x90\xb4\xa4\xd6\xb0", 0, 3, 5, 0, 4); /* U+10D24 between */
    /* A long run of marks in the wrong order takes no quadratic time. */
    enum { PAIRS = 200000 };
    char *marks = ir_arena_alloc(arena, 4 * PAIRS);
    for (int i = 0; i < PAIRS; i++)
        memcpy(marks + 4 * i, "\xd6\xbc\xd6\xb0", 4);
    ck_assert_int_eq(rt_tokenizer_encode(t, marks, 4 * PAIRS, 0, NULL, 0, NULL), 2 * PAIRS);
    rt_tokenizer_close(t);
}
END_TEST

/* -- what is refused ------------------------------------------------------------------------- */

START_TEST(test_all_problems_at_once) {
    static const char json[] =
        "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
        "\"pretokenizers\":[{\"type\":\"UnicodeScripts\"},{\"type\":\"Split\",\"pattern\":{"
        "\"Regex\":\"[a&&b]\"},\"behavior\":\"Isolated\"}]},\"decoder\":{\"type\":\"CTC\"},"
        "\"post_processor\":{\"type\":\"Odd\"},\"model\":{\"type\":\"WordPiece\"}}";
    fe_blob blob;
    ck_assert(!fe_tokenizer_from_json(arena, &diag, "t.json", json, strlen(json), NULL, 0, &blob));
    ck_assert_int_eq(diag.errors, 6);
    ck_assert(reported("normalizer \"BertNormalizer\" is not supported"));
    ck_assert(reported("pre-tokenizer \"UnicodeScripts\" is not supported"));
    ck_assert(reported("an intersection of sets"));
    ck_assert(reported("decoder \"CTC\" is not supported"));
    ck_assert(reported("post-processor \"Odd\" is not supported"));
    ck_assert(reported("model \"WordPiece\" is not supported"));
}
END_TEST

START_TEST(test_unknown_pre_tokenizer) {
    fe_tokenizer_gguf gguf = piece_gguf();
    gguf.model = (fe_bytes){(const uint8_t *)"gpt2", 4};
    gguf.pre = (fe_bytes){(const uint8_t *)"martian", 7};
    fe_bytes merge = {(const uint8_t *)"a b", 3};
    gguf.merges = &merge;
    gguf.merge_count = 1;
    fe_blob blob;
    ck_assert(!fe_tokenizer_from_gguf(arena, &diag, "t.gguf", &gguf, &blob));
    ck_assert(reported("\"martian\", which is not known; known are default, gpt-2"));
    ck_assert_int_eq(diag.errors, 1);
}
END_TEST

/* Every pre-tokenizer of the table makes a tokenizer that opens. */
START_TEST(test_every_pre_tokenizer) {
    static const char *const names[] = {
#define PRE(name, flags, ...) name,
#include "compiler/tokenizer/pretokenizers.def"
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fe_tokenizer_gguf gguf = piece_gguf();
        gguf.model = (fe_bytes){(const uint8_t *)"gpt2", 4};
        gguf.pre = (fe_bytes){(const uint8_t *)names[i], strlen(names[i])};
        fe_bytes merge = {(const uint8_t *)"a b", 3};
        gguf.merges = &merge;
        gguf.merge_count = 1;
        fe_blob blob;
        bool good = fe_tokenizer_from_gguf(arena, &diag, names[i], &gguf, &blob);
        if (!good)
            ir_diag_print(&diag, stderr);
        ck_assert_msg(good, "%s", names[i]);
        rt_tokenizer *t = open_blob(&blob);
        ASSERT_IDS(t, "ab", 0, 8);
        rt_tokenizer_close(t);
    }
}
END_TEST

/* -- damage ---------------------------------------------------------------------------------- */

START_TEST(test_damaged_blobs) {
    fe_blob blob;
    rt_tokenizer_close(from_json(byte_level, NULL, &blob));
    rt_error error = {0};
    uint8_t *copy = ir_arena_alloc(arena, blob.size);
    for (size_t size = 0; size < blob.size; size += size < 600 ? 1 : 97)
        ck_assert_ptr_null(rt_tokenizer_open(blob.data, size, &error));
    memcpy(copy, blob.data, blob.size);
    copy[8]++;
    ck_assert_ptr_null(rt_tokenizer_open(copy, blob.size, &error));
    ck_assert_ptr_nonnull(strstr(error.text, "this runtime reads version 1"));
    uint32_t random = 12345;
    for (int round = 0; round < 3000; round++) {
        memcpy(copy, blob.data, blob.size);
        for (int flips = 0; flips < 1 + round % 4; flips++) {
            random = random * 1664525 + 1013904223;
            uint32_t at = (random >> 3) % (uint32_t)(blob.size * 8);
            copy[at / 8] ^= (uint8_t)(1u << at % 8);
        }
        rt_tokenizer *t = rt_tokenizer_open(copy, blob.size, &error);
        if (!t)
            continue;
        int32_t ids[64];
        char out[64];
        int64_t n = rt_tokenizer_encode(t, "hello <s>hell \xe3\x81\x82 lo", 20, 3, ids, 64, &error);
        rt_tokenizer_decode(t, ids, n < 64 ? n : 64, 0, out, 64, &error);
        rt_tokenizer_close(t);
    }
}
END_TEST

START_TEST(test_long_text_is_not_quadratic) {
    fe_tokenizer_gguf gguf = piece_gguf();
    fe_blob blob;
    ck_assert(fe_tokenizer_from_gguf(arena, &diag, "test", &gguf, &blob));
    rt_tokenizer *t = open_blob(&blob);
    enum { SIZE = 1000000 };
    char *text = ir_arena_alloc(arena, SIZE);
    for (int i = 0; i < SIZE; i++)
        text[i] = "aab"[i % 3];
    /* a aba aba … : quadratic work would be 10^12 steps, and the test would not end. */
    int64_t count = rt_tokenizer_encode(t, text, SIZE, 0, NULL, 0, NULL);
    ck_assert_int_gt(count, SIZE / 4);
    ck_assert_int_lt(count, SIZE / 2 + 4);
    rt_tokenizer_close(t);
    t = from_json(byte_level, NULL, &blob);
    memset(text, ' ', SIZE);
    ck_assert_int_eq(rt_tokenizer_encode(t, text, SIZE, 0, NULL, 0, NULL), SIZE);
    rt_tokenizer_close(t);
}
END_TEST

/* -- goldens --------------------------------------------------------------------------------- */

static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = ir_arena_alloc(arena, *size + 1);
    ck_assert_uint_eq(fread(data, 1, *size, file), *size);
    fclose(file);
    return data;
}

static char *base64(const char *text, size_t *size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = ir_arena_alloc(arena, strlen(text) + 1);
    uint32_t bits = 0;
    int have = 0;
    *size = 0;
    for (; *text && *text != '='; text++) {
        const char *digit = strchr(digits, *text);
        ck_assert_ptr_nonnull(digit);
        bits = bits << 6 | (uint32_t)(digit - digits);
        have += 6;
        if (have >= 8)
            out[(*size)++] = (char)(bits >> (have -= 8));
    }
    return out;
}

static int64_t read_ids(const cJSON *list, int32_t *ids) {
    int64_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) ids[count++] = item->valueint;
    return count;
}

static int check_golden(const rt_tokenizer *t, const char *path) {
    size_t size;
    char *json = read_file(path, &size);
    cJSON *root = cJSON_ParseWithLength(json, size), *row;
    ck_assert_msg(cJSON_IsArray(root), "%s", path);
    int rows = 0;
    cJSON_ArrayForEach(row, root) {
        static int32_t want[4096];
        static char decoded[65536], streamed[65536];
        size_t text_size, back_size;
        char *text = base64(cJSON_GetObjectItem(row, "text_b64")->valuestring, &text_size);
        int64_t count = read_ids(cJSON_GetObjectItem(row, "ids"), want);
        assert_ids(t, text, text_size, RT_TOKENIZER_PARSE_SPECIAL, want, count);
        int64_t got = rt_tokenizer_decode(t, want, count, 0, decoded, sizeof decoded, NULL);
        ck_assert(got >= 0 && got <= (int64_t)sizeof decoded);
        const cJSON *back = cJSON_GetObjectItem(row, "decoded_b64");
        if (back) {
            char *expected = base64(back->valuestring, &back_size);
            ck_assert_int_eq(got, (int64_t)back_size);
            ck_assert_mem_eq(decoded, expected, back_size);
        } else if (rt_utf8_valid(text, text_size)) {
            ck_assert_int_eq(got, (int64_t)text_size);
            ck_assert_mem_eq(decoded, text, text_size);
        }
        ck_assert_int_eq((int64_t)stream(t, want, count, streamed), got);
        ck_assert_mem_eq(streamed, decoded, (size_t)got);
        const cJSON *special = cJSON_GetObjectItem(row, "ids_special");
        if (special) {
            count = read_ids(special, want);
            assert_ids(t, text, text_size, RT_TOKENIZER_PARSE_SPECIAL | RT_TOKENIZER_ADD_SPECIAL,
                       want, count);
        }
        rows++;
    }
    cJSON_Delete(root);
    return rows;
}

/* Every tests/golden/tokenizer-NAME.json whose tokenizer.json is beside it. Those of the real GGUF
 * files need the files, and are checked where the models are. */
START_TEST(test_goldens) {
    DIR *folder = opendir(MCC_TEST_DATA "/golden");
    ck_assert_ptr_nonnull(folder);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char name[200], path[512];
        if (sscanf(entry->d_name, "tokenizer-%190[^.].json", name) != 1)
            continue;
        if (strncmp(name, "pre-", 4) == 0)
            snprintf(path, sizeof path, MCC_TEST_DATA "/golden/tokenizers/%s.json", name + 4);
        else
            snprintf(path, sizeof path, MCC_TEST_DATA "/golden/%s/tokenizer.json", name);
        size_t size;
        char *json = read_file(path, &size);
        if (!json)
            continue;
        fe_blob blob, again;
        ck_assert(fe_tokenizer_from_json(arena, &diag, path, json, size, NULL, 0, &blob));
        ck_assert(fe_tokenizer_from_json(arena, &diag, path, json, size, NULL, 0, &again));
        ck_assert_uint_eq(blob.size, again.size); /* same input, same bytes */
        ck_assert_mem_eq(blob.data, again.data, blob.size);
        rt_tokenizer *t = open_blob(&blob);
        snprintf(path, sizeof path, MCC_TEST_DATA "/golden/%s", entry->d_name);
        ck_assert_int_gt(check_golden(t, path), 100);
        rt_tokenizer_close(t);
        files++;
    }
    closedir(folder);
    ck_assert_int_ge(files, 10);
}
END_TEST

static Suite *tokenizer_suite(void) {
    Suite *suite = suite_create("tokenizer");
    TCase *tests = tcase_create("tokenizer");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_bpe);
    tcase_add_test(tests, test_queries);
    tcase_add_test(tests, test_detok_holds_characters_back);
    tcase_add_test(tests, test_scores);
    tcase_add_test(tests, test_unigram);
    tcase_add_test(tests, test_pattern_dialect);
    tcase_add_test(tests, test_normalizers);
    tcase_add_test(tests, test_all_problems_at_once);
    tcase_add_test(tests, test_unknown_pre_tokenizer);
    tcase_add_test(tests, test_every_pre_tokenizer);
    tcase_add_test(tests, test_damaged_blobs);
    tcase_add_test(tests, test_long_text_is_not_quadratic);
    tcase_add_test(tests, test_goldens);
    suite_add_tcase(suite, tests);
    return suite;
}

CHECK_MAIN(tokenizer_suite)
