/* The compiled tokenizer: one contiguous, position-independent, little-endian blob.
 *
 *   [header][section 0][section 1]…     each section at a multiple of 8 from the beginning
 *
 * It is written by compiler/tokenizer and used in place by runtime/tokenizer, which trusts nothing
 * in it: sections are checked when it is opened, what they hold where it is used. */
#ifndef MCC_RUNTIME_TOKENIZER_FORMAT_H
#define MCC_RUNTIME_TOKENIZER_FORMAT_H

#include <stdint.h>

#define RT_TOK_MAGIC "MCCTOKEN" /* 8 bytes, without the NUL */

enum {
    RT_TOK_VERSION = 1,
    RT_TOK_MAX_VOCAB = 1 << 24,
    RT_TOK_MAX_STEPS = 32,
    RT_TOK_NONE = -1, /* no such id */
};
#define RT_TOK_NO_VALUE UINT32_MAX /* a trie node that ends no string; an empty hash slot */

typedef enum rt_tok_model { RT_TOK_MODEL_BPE, RT_TOK_MODEL_UNIGRAM, RT_TOK_MODELS } rt_tok_model;

/* Flags of the model. */
enum {
    RT_TOK_BYTE_SYMBOLS = 1, /* BPE starts from the bytes of a piece, spelled in GPT-2's alphabet */
    RT_TOK_BYTE_FALLBACK = 2, /* characters not in the vocabulary become <0xNN> tokens */
    RT_TOK_FUSE_UNK = 4,      /* neighbouring unknown characters become one unknown token */
    RT_TOK_IGNORE_MERGES = 8  /* a piece that is a token is that token, whatever the merges say */
};

/* How token texts become text. The per-token work is done at build time: see RT_TOK_PIECES. */
typedef enum rt_tok_decoder {
    RT_TOK_DECODE_TEXT,   /* pieces joined; byte tokens form UTF-8 with their neighbours */
    RT_TOK_DECODE_BYTES,  /* pieces are bytes, joined, then read as UTF-8 */
    RT_TOK_DECODE_SPACED, /* pieces joined by spaces: a tokenizer that names no decoder */
    RT_TOK_DECODERS
} rt_tok_decoder;

enum {
    /* The first token loses every `decoder_char` of its text (Metaspace). */
    RT_TOK_DECODE_FIRST = 1
};

/* What a token is. */
enum {
    RT_TOK_PRESENT = 1, /* the id has a token */
    RT_TOK_SPECIAL = 2, /* skipped when special tokens are */
    RT_TOK_BYTE = 4,    /* a byte token: its piece is one byte */
    RT_TOK_IN_MODEL = 8 /* the model may give it; others come from added tokens only */
};

typedef enum rt_tok_op {
    /* Normalizer: text to text. */
    RT_TOK_NFC,
    RT_TOK_NFD,
    RT_TOK_NFKC,
    RT_TOK_NFKD,
    RT_TOK_LOWERCASE,
    RT_TOK_PREPEND,       /* a */
    RT_TOK_REPLACE,       /* every a becomes b */
    RT_TOK_REPLACE_REGEX, /* every match of a becomes b */
    RT_TOK_STRIP,         /* white space; flags: RT_TOK_STRIP_* */
    RT_TOK_STRIP_ACCENTS,
    RT_TOK_NMT,
    RT_TOK_CHARSMAP, /* SentencePiece's precompiled map, in its own section */
    RT_TOK_BYTE_MAP, /* every byte becomes its character in GPT-2's alphabet */
    /* Pre-tokenizer: text to pieces. */
    RT_TOK_SPLIT_STRING, /* at every a; flags: a behaviour, RT_TOK_INVERT */
    RT_TOK_SPLIT_REGEX,  /* at every match of a */
    RT_TOK_SPLIT_CLASS,  /* at every character of the class b_offset (rt_tok_class) */
    RT_TOK_PREFIX,       /* put a in front of a piece that does not begin with it; flags: FIRST */
    RT_TOK_OPS
} rt_tok_op;

enum { RT_TOK_STRIP_LEFT = 1, RT_TOK_STRIP_RIGHT = 2 };
enum { RT_TOK_PREFIX_FIRST = 1 }; /* only where the text begins */

/* What becomes of the matches that a split finds. */
enum {
    RT_TOK_REMOVED,
    RT_TOK_ISOLATED,
    RT_TOK_MERGED_WITH_PREVIOUS,
    RT_TOK_MERGED_WITH_NEXT,
    RT_TOK_CONTIGUOUS,
    RT_TOK_BEHAVIOURS,
    RT_TOK_BEHAVIOUR_MASK = 0xff,
    RT_TOK_INVERT = 0x100 /* what does not match is the match */
};

typedef enum rt_tok_class {
    RT_TOK_CLASS_NUMERIC,
    RT_TOK_CLASS_SPACE,
    RT_TOK_CLASS_PUNCTUATION,
    RT_TOK_CLASSES
} rt_tok_class;

/* One step of the normalizer or the pre-tokenizer. a and b lie in the string section. Regular
 * expressions are PCRE2's, for UTF and UCP, multi-line. */
typedef struct rt_tok_step {
    uint32_t op, flags;
    uint32_t a_offset, a_size;
    uint32_t b_offset, b_size;
} rt_tok_step;

/* A slot of the merge table. Empty when left is RT_TOK_NO_VALUE. */
typedef struct rt_tok_merge {
    uint32_t left, right; /* ids */
    uint32_t rank;        /* lower merges first */
    uint32_t id;          /* what they become */
} rt_tok_merge;

/* An added token: found in the text before anything else is done with it. */
typedef struct rt_tok_added {
    uint32_t id;
    uint32_t flags;
} rt_tok_added;

enum {
    RT_TOK_ADDED_LSTRIP = 1,     /* takes the white space on its left with it */
    RT_TOK_ADDED_RSTRIP = 2,     /* … on its right */
    RT_TOK_ADDED_SINGLE_WORD = 4 /* not inside of a word */
};

enum {
    RT_TOK_STRINGS,       /* bytes that the offsets below point into */
    RT_TOK_TEXT_OFFSETS,  /* u32[vocab + 1]: token i is strings[o[i], o[i + 1]) */
    RT_TOK_PIECE_OFFSETS, /* u32[vocab + 1]: what token i decodes to, in RT_TOK_PIECES */
    RT_TOK_PIECES,        /* bytes */
    RT_TOK_TOKEN_FLAGS,   /* u8[vocab] */
    RT_TOK_VOCAB_HASH,    /* u32[n]: ids, open addressing, by rt_tok_hash of the text */
    RT_TOK_MERGES,        /* rt_tok_merge[n], open addressing, by rt_tok_pair_hash (BPE) */
    RT_TOK_BYTE_IDS,      /* i32[256]: the token of each byte (alphabet or <0xNN>), or -1 */
    RT_TOK_SCORES,        /* f64[vocab] (unigram) */
    RT_TOK_VOCAB_TRIE,    /* trie: text to id (unigram) */
    RT_TOK_ADDED,         /* rt_tok_added[n] */
    RT_TOK_RAW_TRIE,      /* trie: added tokens sought in the raw text, to index in ADDED */
    RT_TOK_NORMAL_TRIE,   /* trie: those sought in normalized text */
    RT_TOK_STEPS,         /* rt_tok_step[n]: normalizer, then pre-tokenizer */
    RT_TOK_IDS,           /* i32[n]: put in front, put behind, ids that end generation */
    RT_TOK_CHARSMAP_DATA, /* u32 size of the double array in bytes, the array, the strings */
    RT_TOK_SECTIONS
};

/* A trie section: u32 count; u32 first_child[count + 1]; u32 value[count]; u8 label[count].
 * Node 0 is the root; nodes lie in breadth-first order, so the children of node i are
 * first_child[i] … first_child[i + 1] - 1, with ascending labels. An absent trie has size 0. */

typedef struct rt_tok_section {
    uint64_t offset, size; /* bytes, from the beginning of the blob */
} rt_tok_section;

typedef struct rt_tok_header {
    char magic[8];
    uint32_t version;
    uint32_t header_size; /* sizeof this */
    uint64_t size;        /* of the blob */
    uint32_t model, model_flags;
    uint32_t decoder, decoder_flags;
    uint32_t decoder_char; /* the code point that RT_TOK_DECODE_FIRST and strip_count are about */
    uint32_t strip_count;  /* this many of it are dropped where the text begins */
    int32_t vocab_size;
    int32_t bos, eos, eot, pad, unk; /* ids or -1 */
    uint32_t max_text, max_piece;    /* bytes of the longest token, of the longest piece */
    uint32_t max_probe;              /* slots looked at before a key is known to be absent */
    uint32_t normalizer_steps;       /* the rest of the steps are the pre-tokenizer's */
    uint32_t prefix_count, suffix_count, end_count; /* the three parts of RT_TOK_IDS */
    uint32_t reserved;
    double unk_score; /* of an unknown character (unigram) */
    rt_tok_section sections[RT_TOK_SECTIONS];
} rt_tok_header;

/* Hashes, part of the format. */
static inline uint64_t rt_tok_hash(const void *data, uint64_t size) {
    const unsigned char *bytes = (const unsigned char *)data;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a, then mixed for the upper bits */
    for (uint64_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash * 0x9e3779b97f4a7c15u;
}

static inline uint64_t rt_tok_pair_hash(uint32_t left, uint32_t right) {
    uint64_t key = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    return (key ^ key >> 29) * 0xbf58476d1ce4e5b9u;
}

/* The first slot of `slots` (at most 2^32) to look at. */
static inline uint64_t rt_tok_slot(uint64_t hash, uint64_t slots) {
    return (hash >> 32) * slots >> 32;
}

#endif
