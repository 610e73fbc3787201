/* Unigram: of all ways to cut a piece into tokens, the one with the highest sum of scores
 * (Kudo 2018, "Subword Regularization"; Viterbi over positions). */
#include "runtime/tokenizer/internal.h"

/* The best way to get to a position. */
typedef struct node {
    double score;
    uint32_t begin; /* where its last token begins; RT_TOK_NO_VALUE until it is reached */
    uint32_t id;
} node;

static void offer(node *target, double score, uint32_t begin, uint32_t id) {
    if (target->begin == RT_TOK_NO_VALUE || score > target->score)
        *target = (node){score, begin, id};
}

/* Fills nodes[1 … size]. False when there is an unknown character and no unknown token. */
static bool forward(const rt_tokenizer *t, const char *text, size_t size, node *nodes) {
    const rt_tok_trie *trie = &t->vocab_trie;
    uint32_t vocab = (uint32_t)t->header->vocab_size;
    for (size_t at = 0, step; at < size; at += step) {
        step = rt_utf8_size(text + at);
        double here = nodes[at].score;
        bool single = false; /* whether some token is just the character here */
        uint32_t at_node = 0;
        for (size_t i = at; trie->count && i < size; i++) {
            at_node = rt_tok_trie_child(trie, at_node, (uint8_t)text[i]);
            if (!at_node)
                break;
            uint32_t id = trie->value[at_node];
            if (id >= vocab)
                continue;
            offer(&nodes[i + 1], t->scores[id] + here, (uint32_t)at, id);
            single |= i + 1 - at == step;
        }
        if (!single) {
            if (t->header->unk < 0 || (uint32_t)t->header->unk >= vocab)
                return false;
            offer(&nodes[at + step], t->header->unk_score + here, (uint32_t)at,
                  (uint32_t)t->header->unk);
        }
    }
    return true;
}

/* Emits an unknown stretch of text: as a token if it is one after all (the unknown token's own
 * text), as byte tokens, or as the unknown token. */
static void emit_unknown(rt_tok_job *job, const char *text, size_t size) {
    const rt_tokenizer *t = job->tokenizer;
    int32_t id = rt_tok_find(t, text, size);
    if (id >= 0) {
        rt_tok_emit(job, (uint32_t)id);
        return;
    }
    bool bytes = t->header->model_flags & RT_TOK_BYTE_FALLBACK;
    for (size_t i = 0; bytes && i < size; i++) {
        int32_t byte_id = t->byte_ids[(unsigned char)text[i]];
        bytes = byte_id >= 0 && byte_id < t->header->vocab_size;
    }
    if (!bytes) {
        rt_tok_emit(job, (uint32_t)t->header->unk);
        return;
    }
    for (size_t i = 0; i < size; i++)
        rt_tok_emit(job, (uint32_t)t->byte_ids[(unsigned char)text[i]]);
}

bool rt_tok_unigram(rt_tok_job *job, const char *text, size_t size) {
    const rt_tokenizer *t = job->tokenizer;
    job->work.size = 0;
    if (!rt_tok_buffer_reserve(&job->work, (size + 1) * sizeof(node)))
        return rt_tok_no_memory(job);
    node *nodes = (node *)job->work.data;
    nodes[0] = (node){0, 0, 0};
    for (size_t i = 1; i <= size; i++)
        nodes[i] = (node){0, RT_TOK_NO_VALUE, 0};
    if (!forward(t, text, size, nodes))
        return rt_fail(job->error, RT_TOKENIZER_BAD_ARGUMENT,
                       "tokenizer: the text has a character that the vocabulary lacks, and the "
                       "vocabulary has no unknown token");
    /* Turn the links around: from where a token ends, to where the next one ends. */
    uint32_t end = (uint32_t)size, next = RT_TOK_NO_VALUE;
    while (end > 0) {
        uint32_t begin = nodes[end].begin;
        if (begin >= end)
            return rt_tok_damaged(job, "the vocabulary cuts a character");
        nodes[end].begin = next;
        next = end;
        end = begin;
    }
    uint32_t unk = (uint32_t)t->header->unk;
    bool fuse = t->header->model_flags & RT_TOK_FUSE_UNK;
    uint32_t begin = 0;
    while (next != RT_TOK_NO_VALUE) {
        bool unknown = t->header->unk >= 0 && nodes[next].id == unk;
        uint32_t last = next, id = nodes[next].id;
        next = nodes[next].begin;
        while (unknown && fuse && next != RT_TOK_NO_VALUE && nodes[next].id == unk) {
            last = next;
            next = nodes[next].begin;
        }
        if (unknown)
            emit_unknown(job, text + begin, last - begin);
        else
            rt_tok_emit(job, id);
        begin = last;
    }
    return true;
}
