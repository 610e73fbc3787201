"""A GGUF file's tokenizer as a `tokenizers.Tokenizer`, with the pre-tokenizer that the file names.

`transformers` rebuilds these without the pre-tokenizer, so its ids can differ; here it is set by hand.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

import tiny_tokenizers as tt

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def byte_level(meta):
    tokens = meta.get("tokenizer.ggml.tokens")
    types = meta.get("tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in meta.get("tokenizer.ggml.merges")]
    pre = meta.get("tokenizer.ggml.pre")
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges,
                               ignore_merges=pre == "llama-bpe"))
    tok.pre_tokenizer = tt.pre_tokenizer(pre)
    tok.decoder = decoders.ByteLevel()
    _add(tok, tokens, types)
    return tok


def merges_from_scores(tokens, scores, types):
    """SentencePiece BPE joins the pair whose piece scores highest; as a merge list: by score of the joined piece.

    Where a piece can be made from several pairs, the order among them is that of their parts' ids.
    """
    ids = {t: i for i, (t, k) in enumerate(zip(tokens, types)) if k in (NORMAL, USER_DEFINED)}
    merges = []
    for piece, i in ids.items():
        if types[i] != NORMAL:
            continue
        pairs = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in ids and piece[k:] in ids]
        pairs.sort(key=lambda p: (ids[p[0]], ids[p[1]]))
        merges += [(scores[i], pair) for pair in pairs]
    merges.sort(key=lambda m: -m[0])
    return [pair for _, pair in merges]


def sentencepiece(meta):
    tokens = meta.get("tokenizer.ggml.tokens")
    types = meta.get("tokenizer.ggml.token_type")
    scores = meta.get("tokenizer.ggml.scores")
    if meta.get("tokenizer.ggml.add_space_prefix", True):
        normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        normalizer = normalizers.Replace(" ", "▁")
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)},
                               merges=merges_from_scores(tokens, scores, types), fuse_unk=True, byte_fallback=True,
                               unk_token=tokens[meta.get("tokenizer.ggml.unknown_token_id")]))
    tok.normalizer = normalizer
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _add(tok, tokens, types)
    return tok


def _add(tok, tokens, types):
    """Control and user-defined tokens are found in the raw text before anything else, leftmost and longest first."""
    added = [AddedToken(t, special=k == CONTROL, normalized=False) for t, k in zip(tokens, types)
             if k in (CONTROL, USER_DEFINED)]
    tok.add_tokens(added)


def from_metadata(meta):
    return {"gpt2": byte_level, "llama": sentencepiece}[meta.get("tokenizer.ggml.model")](meta)
