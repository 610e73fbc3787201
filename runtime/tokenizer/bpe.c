/* Byte pair encoding: a piece begins as one symbol per character (or byte); the neighbours whose
 * merge has the lowest rank become one symbol, the leftmost first, until nothing merges.
 *
 * Short pieces, nearly all of them, scan for the best merge each time. Long ones (text without
 * spaces, and whole texts under SentencePiece-style tokenizers) keep the merges in a heap, which
 * makes the work O(n log n). Both give the same result. */
#include <string.h>

#include "runtime/tokenizer/internal.h"

enum { SCAN_LIMIT = 48 }; /* symbols up to which scanning is faster than a heap */

/* The merge of two ids, or NULL. */
static const rt_tok_merge *find_merge(const rt_tokenizer *t, uint32_t left, uint32_t right) {
    uint64_t slots = t->merge_slots;
    if (slots == 0)
        return NULL;
    uint64_t slot = rt_tok_slot(rt_tok_pair_hash(left, right), slots);
    for (uint32_t probe = 0; probe <= t->header->max_probe && probe < slots; probe++) {
        const rt_tok_merge *merge = &t->merges[slot];
        if (merge->left == left && merge->right == right)
            return merge->id < (uint32_t)t->header->vocab_size ? merge : NULL;
        if (merge->left == RT_TOK_NO_VALUE)
            return NULL;
        slot = slot + 1 < slots ? slot + 1 : 0;
    }
    return NULL;
}

static inline uint32_t rank_of(const rt_tokenizer *t, uint32_t left, uint32_t right) {
    const rt_tok_merge *merge = find_merge(t, left, right);
    return merge ? merge->rank : UINT32_MAX;
}

/* The ids that a piece begins with, as the `tokenizers` library makes them: what is not in the
 * vocabulary becomes byte tokens if all of its bytes have one, else the unknown token, else
 * nothing. There are at most `size` of them. */
typedef struct beginning {
    const rt_tokenizer *t;
    uint32_t *ids;
    size_t count;
    bool unknown; /* an unknown token is still to be added */
} beginning;

static void add_unknown(beginning *b) {
    if (b->unknown)
        b->ids[b->count++] = (uint32_t)b->t->header->unk;
    b->unknown = false;
}

static void add_unit(beginning *b, int32_t id, const char *bytes, size_t size) {
    const rt_tok_header *header = b->t->header;
    if (id >= 0 && id < header->vocab_size) {
        add_unknown(b);
        b->ids[b->count++] = (uint32_t)id;
        return;
    }
    if (header->model_flags & RT_TOK_BYTE_FALLBACK) {
        size_t known = 0;
        for (; known < size; known++) {
            int32_t byte_id = b->t->byte_ids[(unsigned char)bytes[known]];
            if (byte_id < 0 || byte_id >= header->vocab_size)
                break;
        }
        if (known == size) {
            /* A pending unknown token stays pending: so the reference has it. Its place was
             * reserved by the character that it stands for. */
            for (size_t i = 0; i < size; i++)
                b->ids[b->count++] = (uint32_t)b->t->byte_ids[(unsigned char)bytes[i]];
            return;
        }
    }
    if (header->unk < 0 || header->unk >= header->vocab_size)
        return;
    if (!(header->model_flags & RT_TOK_FUSE_UNK))
        add_unknown(b);
    b->unknown = true;
}

static size_t begin_piece(const rt_tokenizer *t, const char *text, size_t size, uint32_t *ids) {
    beginning b = {.t = t, .ids = ids};
    if (t->header->model_flags & RT_TOK_BYTE_SYMBOLS) {
        for (size_t i = 0; i < size; i++)
            add_unit(&b, t->byte_ids[(unsigned char)text[i]], text + i, 1);
    } else {
        for (size_t at = 0; at < size;) {
            size_t step = rt_utf8_size(text + at);
            add_unit(&b, rt_tok_find(t, text + at, step), text + at, step);
            at += step;
        }
    }
    add_unknown(&b);
    return b.count;
}

/* Merges ids[0, count) in place by scanning; returns how many are left. */
static size_t merge_scanning(const rt_tokenizer *t, uint32_t *ids, size_t count) {
    uint32_t ranks[SCAN_LIMIT]; /* ranks[i] is of ids[i] with ids[i + 1] */
    for (size_t i = 0; i + 1 < count; i++)
        ranks[i] = rank_of(t, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (ranks[i] < ranks[best])
                best = i;
        const rt_tok_merge *merge =
            ranks[best] == UINT32_MAX ? NULL : find_merge(t, ids[best], ids[best + 1]);
        if (!merge)
            break;
        ids[best] = merge->id;
        count--;
        memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
        if (best + 1 < count)
            memmove(ranks + best, ranks + best + 1, (count - best - 1) * sizeof *ranks);
        if (best > 0)
            ranks[best - 1] = rank_of(t, ids[best - 1], ids[best]);
        if (best + 1 < count)
            ranks[best] = rank_of(t, ids[best], ids[best + 1]);
    }
    return count;
}

/* A binary heap of merges: rank in the upper half, position in the lower. */
static void heap_push(uint64_t *heap, size_t *count, uint64_t item) {
    size_t at = (*count)++;
    while (at > 0 && heap[(at - 1) / 2] > item) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = item;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count) {
    uint64_t top = heap[0], item = heap[--*count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= *count)
            break;
        if (child + 1 < *count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= item)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
    return top;
}

#define GONE UINT32_MAX

static void push_pair(const rt_tokenizer *t, const uint32_t *ids, uint32_t left, uint32_t right,
                      uint64_t *heap, size_t *count) {
    uint32_t rank = rank_of(t, ids[left], ids[right]);
    if (rank != UINT32_MAX)
        heap_push(heap, count, (uint64_t)rank << 32 | left);
}

/* The same with a heap. `next` and `previous` hold `count` links each; `heap` has room for
 * 3 * count items: every pair at first, and two more a merge. Symbols that were merged away keep
 * next == GONE. */
static size_t merge_heaped(const rt_tokenizer *t, uint32_t *ids, size_t count, uint32_t *next,
                           uint32_t *previous, uint64_t *heap) {
    size_t pending = 0;
    for (uint32_t i = 0; i < count; i++) {
        next[i] = i + 1;
        previous[i] = i - 1; /* the first has none: it wraps to GONE */
        if (i + 1 < count)
            push_pair(t, ids, i, i + 1, heap, &pending);
    }
    while (pending) {
        uint64_t top = heap_pop(heap, &pending);
        uint32_t left = (uint32_t)top;
        uint32_t right = next[left];
        if (right == GONE || right >= count)
            continue;
        /* Stale when the neighbours have changed since: their own entry follows. */
        const rt_tok_merge *merge = find_merge(t, ids[left], ids[right]);
        if (!merge || merge->rank != top >> 32)
            continue;
        ids[left] = merge->id;
        uint32_t after = next[right];
        next[left] = after;
        next[right] = GONE;
        if (after < count) {
            previous[after] = left;
            push_pair(t, ids, left, after, heap, &pending);
        }
        if (previous[left] != GONE)
            push_pair(t, ids, previous[left], left, heap, &pending);
    }
    size_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (next[i] != GONE)
            ids[kept++] = ids[i];
    return kept;
}

/* The token that a whole piece is, or -1; -2 when out of memory. */
static int32_t whole_piece(rt_tok_job *job, const char *text, size_t size) {
    const rt_tokenizer *t = job->tokenizer;
    if (!(t->header->model_flags & RT_TOK_BYTE_SYMBOLS))
        return rt_tok_find(t, text, size);
    if (size > t->header->max_text)
        return -1;
    job->work.size = 0;
    if (!rt_tok_byte_map(text, size, &job->work))
        return -2;
    return rt_tok_find(t, job->work.data, job->work.size);
}

bool rt_tok_bpe(rt_tok_job *job, const char *text, size_t size) {
    const rt_tokenizer *t = job->tokenizer;
    if (t->header->model_flags & RT_TOK_IGNORE_MERGES) {
        int32_t id = whole_piece(job, text, size);
        if (id == -2)
            return rt_tok_no_memory(job);
        if (id >= 0) {
            rt_tok_emit(job, (uint32_t)id);
            return true;
        }
    }
    uint32_t small[SCAN_LIMIT];
    uint32_t *ids = small;
    size_t count;
    if (size <= SCAN_LIMIT) {
        count = merge_scanning(t, small, begin_piece(t, text, size, small));
    } else {
        job->work.size = job->heap.size = 0;
        if (!rt_tok_buffer_reserve(&job->work, 3 * size * sizeof *ids))
            return rt_tok_no_memory(job);
        ids = (uint32_t *)job->work.data;
        count = begin_piece(t, text, size, ids);
        if (!rt_tok_buffer_reserve(&job->heap, 3 * count * sizeof(uint64_t)))
            return rt_tok_no_memory(job);
        count = merge_heaped(t, ids, count, ids + size, ids + 2 * size, (uint64_t *)job->heap.data);
    }
    for (size_t i = 0; i < count; i++)
        rt_tok_emit(job, ids[i]);
    return true;
}
