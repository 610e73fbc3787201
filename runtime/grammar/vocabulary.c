#include "runtime/grammar/vocabulary.h"

#include <stdlib.h>
#include <string.h>

typedef struct piece {
    const char *text;
    uint32_t bytes;
    int32_t id;
} piece;

static int by_text(const void *a, const void *b) {
    const piece *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->bytes < y->bytes ? x->bytes : y->bytes);
    if (order == 0 && x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return order ? order : x->id < y->id ? -1 : x->id > y->id;
}

static uint32_t common(const piece *a, const piece *b) {
    uint32_t n = 0;
    while (n < a->bytes && n < b->bytes && a->text[n] == b->text[n])
        n++;
    return n;
}

/* Sorts the pieces: then each adds the nodes by which it differs from the one before. */
static rt_vocabulary *create(piece *pieces, uint32_t n, int32_t size) {
    qsort(pieces, n, sizeof *pieces, by_text);
    size_t n_nodes = 1;
    for (uint32_t i = 0; i < n; i++)
        n_nodes += pieces[i].bytes - (i > 0 ? common(&pieces[i - 1], &pieces[i]) : 0);
    rt_vocabulary *v = calloc(1, sizeof *v);
    if (!v)
        return NULL;
    v->nodes = malloc((n_nodes + 1) * sizeof *v->nodes);
    v->ids = malloc((n + (size_t)1) * sizeof *v->ids);
    if (!v->nodes || !v->ids) {
        rt_vocabulary_destroy(v);
        return NULL;
    }
    uint32_t open[RT_VOCABULARY_MAX_BYTES + 1] = {0}, depth = 0; /* nodes whose end is not known */
    v->size = size;
    v->n_nodes = 1;
    v->nodes[0] = (rt_trie_node){0};
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t keep = i > 0 ? common(&pieces[i - 1], &pieces[i]) : 0; depth > keep; depth--)
            v->nodes[open[depth]].end = v->n_nodes;
        while (depth < pieces[i].bytes) {
            uint8_t byte = (uint8_t)pieces[i].text[depth++];
            open[depth] = v->n_nodes;
            v->nodes[v->n_nodes++] =
                (rt_trie_node){.first_id = i, .depth = (uint16_t)depth, .byte = byte};
        }
        v->ids[i] = pieces[i].id;
        v->longest = pieces[i].bytes > v->longest ? pieces[i].bytes : v->longest;
    }
    for (; depth > 0; depth--)
        v->nodes[open[depth]].end = v->n_nodes;
    v->nodes[0].end = v->n_nodes;
    v->nodes[v->n_nodes] = (rt_trie_node){.end = v->n_nodes + 1, .first_id = n};
    v->n_ids = n;
    return v;
}

rt_vocabulary *rt_vocabulary_create(const rt_tokenizer *t, int32_t size) {
    piece *pieces = malloc(((size_t)size + 1) * sizeof *pieces);
    if (!pieces)
        return NULL;
    uint32_t n = 0;
    for (int32_t id = 0; id < size && id < rt_tokenizer_vocab_size(t); id++) {
        size_t bytes;
        const char *text = rt_tokenizer_piece(t, id, &bytes);
        if (text && bytes > 0 && bytes <= RT_VOCABULARY_MAX_BYTES &&
            !rt_tokenizer_is_special(t, id))
            pieces[n++] = (piece){text, (uint32_t)bytes, id};
    }
    rt_vocabulary *v = create(pieces, n, size);
    free(pieces);
    return v;
}

rt_vocabulary *rt_vocabulary_of(const char *const *texts, const size_t *bytes, int32_t size) {
    piece *pieces = malloc(((size_t)size + 1) * sizeof *pieces);
    if (!pieces)
        return NULL;
    uint32_t n = 0;
    for (int32_t id = 0; id < size; id++)
        if (bytes[id] > 0 && bytes[id] <= RT_VOCABULARY_MAX_BYTES)
            pieces[n++] = (piece){texts[id], (uint32_t)bytes[id], id};
    rt_vocabulary *v = create(pieces, n, size);
    free(pieces);
    return v;
}

void rt_vocabulary_destroy(rt_vocabulary *v) {
    if (!v)
        return;
    free(v->nodes);
    free(v->ids);
    free(v);
}
