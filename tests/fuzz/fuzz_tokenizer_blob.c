/* Damaged compiled tokenizers: whatever the bytes, opening, encoding and decoding stay inside of
 * them. The input's first byte chooses one of a few good blobs, and each three bytes that follow
 * change one byte of it; or the rest of the input is the blob. */
#include <stdlib.h>
#include <string.h>

#include "compiler/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char byte_level[] =
    "{\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true,\"lstrip\":true,"
    "\"rstrip\":true},{\"id\":7,\"content\":\"Wo\",\"normalized\":true,\"single_word\":true}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},"
    "{\"type\":\"Lowercase\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},"
    "\"content\":\"y\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}]},"
    "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\",1]},"
    "\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\",\"ignore_merges\":true,\"vocab\":{\"a\":0,"
    "\"b\":1,\"ab\":2,\"\xc4\xa0\":3,\"\xc4\xa0"
    "ab\":4,\"l\":5},\"merges\":[\"a b\",\"\xc4\xa0 ab\"]}}";
static const char pieces[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true}],"
    "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},"
    "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
    "\"prepend_scheme\":\"first\"},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},"
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"}]},"
    "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":["
    "[\"<unk>\",0],[\"\xe2\x96\x81\",-2],[\"a\",-3],[\"b\",-3.5],[\"ab\",-4],[\"<0xFF>\",-9],"
    "[\"\xe2\x96\x81"
    "ab\",-5],[\"<0xC3>\",-9]]}}";
static const char sentencepiece[] =
    "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
    "\"content\":\"\xe2\x96\x81\"},"
    "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s+|[a-z]+\"},"
    "\"behavior\":\"MergedWithNext\",\"invert\":false},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
    "{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,"
    "\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"ab\":3,\"\xe2\x96\x81\":4,\"\xe2\x96\x81"
    "ab\":5,\"<0xC3>\":6,\"<0xA9>\":7},\"merges\":[[\"a\",\"b\"],[\"\xe2\x96\x81\",\"ab\"]]}}";

enum { BASES = 3 };
static fe_blob bases[BASES];
static ir_arena *arena; /* holds them as long as the process lives */

static void make_bases(void) {
    static const char *const sources[BASES] = {byte_level, pieces, sentencepiece};
    arena = ir_arena_create();
    for (int i = 0; i < BASES; i++) {
        ir_diag diag = {0};
        if (!fe_tokenizer_from_json(arena, &diag, "base", sources[i], strlen(sources[i]), NULL, 0,
                                    &bases[i])) {
            ir_diag_print(&diag, stderr);
            abort();
        }
    }
}

static void use(const void *blob, size_t size) {
    static const char text[] = "ab <s> Wo abab 12 xx\xc3\xa9\xff\xe2\x96\x81"
                               "abababababababababababababababababababababababababababababababab";
    rt_error error = {0};
    rt_tokenizer *tokenizer = rt_tokenizer_open(blob, size, &error);
    if (!tokenizer)
        return;
    int32_t ids[64];
    char out[64];
    int64_t count;
    rt_tokenizer_end_ids(tokenizer, &count);
    for (unsigned flags = 0; flags < 4; flags++) {
        int64_t needed =
            rt_tokenizer_encode(tokenizer, text, sizeof text - 1, flags, ids, 64, &error);
        rt_tokenizer_decode(tokenizer, ids, needed < 64 ? needed : 64, flags << 2, out, sizeof out,
                            &error);
    }
    for (int32_t id = -1; id < 12; id++) {
        size_t length;
        const char *spelled = rt_tokenizer_text(tokenizer, id, &length);
        if (spelled)
            rt_tokenizer_find(tokenizer, spelled, length);
        rt_detok detok;
        rt_detok_init(&detok, tokenizer, 0);
        rt_detok_push(&detok, id, out, sizeof out);
        rt_detok_flush(&detok, out, sizeof out);
    }
    rt_tokenizer_close(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!bases[0].data)
        make_bases();
    if (size < 1)
        return 0;
    bool raw = data[0] % (BASES + 1) == BASES;
    const fe_blob *base = raw ? NULL : &bases[data[0] % (BASES + 1)];
    size_t length = raw ? size - 1 : base->size;
    uint8_t *copy = malloc(length ? length : 1); /* of the exact size, so that ASan sees the end */
    if (!copy)
        return 0;
    memcpy(copy, raw ? data + 1 : base->data, length);
    for (size_t i = 1; !raw && i + 3 <= size; i += 3)
        copy[(data[i] | (size_t)data[i + 1] << 8) % length] ^= data[i + 2];
    use(copy, length);
    free(copy);
    return 0;
}
