/* Grammars from fuzzed bytes: the first one says which reader, the rest up to a NUL is the text,
 * and what is behind it chooses tokens. What the mask allows is accepted; what is compiled can
 * begin. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/guide.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static rt_vocabulary *make_vocabulary(void) {
    static char bytes[256];
    static const char *pieces[300], *const more[] = {"\"a\"", "{\"",  "\":", ", \"",
                                                     "aa",    "ab",   "10",  "\xe2\x82",
                                                     "true",  "null", "]}",  "\n  "};
    static size_t sizes[300];
    int n = 0;
    for (; n < 256; n++) {
        bytes[n] = (char)n;
        pieces[n] = &bytes[n];
        sizes[n] = 1;
    }
    for (size_t i = 0; i < sizeof more / sizeof *more; i++, n++) {
        pieces[n] = more[i];
        sizes[n] = strlen(more[i]);
    }
    return rt_vocabulary_of(pieces, sizes, n);
}

/* The bytes of a token of that vocabulary, found in its trie. */
static bool accept(rt_guide *guide, const rt_vocabulary *v, int32_t id) {
    char text[RT_VOCABULARY_MAX_BYTES];
    for (uint32_t i = 1; i < v->n_nodes; i++) {
        text[v->nodes[i].depth - 1] = (char)v->nodes[i].byte;
        for (uint32_t k = v->nodes[i].first_id; k < v->nodes[i + 1].first_id; k++)
            if (v->ids[k] == id)
                return rt_guide_accept(guide, id, text, v->nodes[i].depth);
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static rt_vocabulary *vocabulary;
    if (size == 0 || (!vocabulary && !(vocabulary = make_vocabulary())))
        return 0;
    const char *text = (const char *)data + 1,
               *end = data + size > data + 1 ? text + size - 1 : text;
    const char *nul = memchr(text, 0, (size_t)(end - text));
    size_t n = (size_t)((nul ? nul : end) - text);
    char *copy = malloc(n + 1); /* so that what is read behind it is noticed */
    if (!copy)
        return 0;
    memcpy(copy, text, n);
    copy[n] = 0;
    rt_error error = {0};
    rt_grammar *grammar =
        rt_grammar_create((rt_grammar_kind)(*data % 3), copy, n, vocabulary, &error);
    free(copy);
    if (!grammar) {
        if (!error.code || !error.text[0])
            abort(); /* the fuzzer's way to report */
        return 0;
    }
    rt_guide *guide = rt_guide_create(grammar, NULL, 0);
    for (int step = 0; guide && step < 24 && !guide->must_end; step++) {
        const char *why;
        const uint32_t *mask = rt_guide_mask(guide, &why);
        int32_t from = nul && nul + 1 + step < end ? (uint8_t)nul[1 + step] : 97 * step, id = -1;
        for (int32_t i = 0; mask && id < 0 && i < vocabulary->size; i++) {
            int32_t k = (from + i) % vocabulary->size;
            id = mask[k / 32] >> k % 32 & 1 ? k : -1;
        }
        if (id < 0)
            break;
        if (!accept(guide, vocabulary, id))
            abort();
    }
    rt_guide_destroy(guide);
    return 0;
}
