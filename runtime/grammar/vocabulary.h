/* The tokens of a vocabulary by their bytes, as a trie: what a grammar's mask is a walk of. */
#ifndef MCC_RUNTIME_GRAMMAR_VOCABULARY_H
#define MCC_RUNTIME_GRAMMAR_VOCABULARY_H

#include "runtime/error.h"
#include "runtime/tokenizer/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

enum { RT_VOCABULARY_MAX_BYTES = 256 }; /* of a token; longer ones are never allowed */

/* Nodes are in depth-first order, children by ascending bytes: a subtree is a range of nodes, and
 * its tokens a range of `ids`. A node's own tokens are ids[first_id … the next node's first_id -
 * 1].
 */
typedef struct rt_trie_node {
    uint32_t end;      /* the first node behind its subtree */
    uint32_t first_id; /* index into ids */
    uint16_t depth;    /* bytes up to it */
    uint8_t byte;      /* that leads to it */
} rt_trie_node;

typedef struct rt_vocabulary {
    rt_trie_node *nodes; /* [n_nodes + 1]; node 0 is the root, the last one an end mark */
    int32_t *ids;
    uint32_t n_nodes, n_ids;
    int32_t size;     /* of the vocabulary */
    uint32_t longest; /* bytes of a token */
} rt_vocabulary;

/* Of the tokens that are text: neither special nor empty. NULL when out of memory. */
rt_vocabulary *rt_vocabulary_create(const rt_tokenizer *tokenizer, int32_t size);
void rt_vocabulary_destroy(rt_vocabulary *vocabulary); /* NULL is allowed */

/* The same of n tokens with these bytes; those of 0 bytes are left out. */
rt_vocabulary *rt_vocabulary_of(const char *const *pieces, const size_t *bytes, int32_t n);

#endif
