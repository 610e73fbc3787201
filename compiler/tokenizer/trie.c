/* Writes the tries of runtime/tokenizer/format.h: nodes in breadth-first order. */
#include <stdlib.h>
#include <string.h>

#include "compiler/tokenizer/build.h"

static int compare(const void *left, const void *right) {
    const fe_tok_string *a = left, *b = right;
    size_t shorter = a->text.size < b->text.size ? a->text.size : b->text.size;
    int order = shorter ? memcmp(a->text.data, b->text.data, shorter) : 0;
    if (order)
        return order;
    if (a->text.size != b->text.size)
        return a->text.size < b->text.size ? -1 : 1;
    return a->value < b->value ? -1 : a->value > b->value;
}

/* A node on the way: it stands for the first `depth` bytes of strings[low] … strings[high - 1]. */
typedef struct branch {
    uint32_t low, high, depth;
} branch;

fe_bytes fe_tok_trie(ir_arena *arena, fe_tok_string *strings, uint32_t count) {
    if (count == 0)
        return (fe_bytes){0};
    qsort(strings, count, sizeof *strings, compare);
    size_t most = 1; /* nodes: the root, and one a byte that the string before does not share */
    for (uint32_t i = 0; i < count; i++) {
        size_t shared = 0, limit = strings[i].text.size;
        if (i > 0) {
            size_t before = strings[i - 1].text.size;
            while (shared < limit && shared < before &&
                   strings[i].text.data[shared] == strings[i - 1].text.data[shared])
                shared++;
        }
        most += limit - shared;
    }
    branch *queue = ir_arena_array(arena, most, sizeof *queue);
    size_t size = 4 + 4 * (most + 1) + 5 * most;
    uint8_t *data = ir_arena_alloc(arena, size);
    uint32_t nodes = (uint32_t)most;
    memcpy(data, &nodes, 4);
    uint32_t *first_child = (uint32_t *)(data + 4);
    uint32_t *value = first_child + nodes + 1;
    uint8_t *label = (uint8_t *)(value + nodes);

    queue[0] = (branch){0, count, 0};
    uint32_t made = 1;
    for (uint32_t node = 0; node < nodes; node++) {
        branch b = queue[node];
        first_child[node] = made;
        value[node] = RT_TOK_NO_VALUE;
        uint32_t at = b.low;
        /* Equal strings lie together, the one that counts last. */
        while (at < b.high && strings[at].text.size == b.depth)
            value[node] = strings[at++].value;
        while (at < b.high) {
            uint32_t end = at + 1;
            uint8_t byte = strings[at].text.data[b.depth];
            while (end < b.high && strings[end].text.data[b.depth] == byte)
                end++;
            label[made] = byte;
            queue[made++] = (branch){at, end, b.depth + 1};
            at = end;
        }
    }
    first_child[nodes] = made;
    return (fe_bytes){data, size};
}
