"""Tiny tokenizers of every kind modelcc reads, trained on a few kilobytes of text.

Used by make_checkpoints.py and make_tokenizer.py; run those. Each function returns a `tokenizers.Tokenizer` laid out
as the checkpoints of that family ship it (order of special tokens, normalizer, pre-tokenizer, post-processor).
"""

import json
import pathlib

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

HERE = pathlib.Path(__file__).resolve().parent

# The split patterns as their tokenizer.json files state them.
LLAMA3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                  r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")

OTHER_LINES = [
    "def add(a, b):\n    return a + b\n",
    "for (int i = 0; i < n; i++) { sum += x[i]; }\n",
    "0 1 2 3 10 100 1000 2024 3.14159 1e-5\n",
    "你好，世界。今天天气很好。模型编译器把模型变成程序。\n",
    "مرحبا بالعالم. هذا نص عربي قصير.\n",
    "नमस्ते दुनिया। यह एक छोटा वाक्य है।\n",
    "Grüße aus München, où êtes-vous? ¿Cómo está?\n",
    "Привет, мир! Быстрая лиса.\n",
    "I'm sure they've said we'll go; he'd don't.\n",
] * 4


def training_lines():
    text = (HERE.parent / "data" / "text.txt").read_text(encoding="utf-8")
    return text[:24000].splitlines(keepends=True) + OTHER_LINES


def pre_tokenizer(name):
    """The pre-tokenizers by the names GGUF files use for them."""
    if name == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "smollm":
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    pattern = {"llama-bpe": LLAMA3_PATTERN, "qwen2": QWEN2_PATTERN}[name]
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def byte_level(pre, size, specials_first=(), specials_last=(), extra=(), ignore_merges=False, nfc=False, bos=None):
    """Byte-level BPE: `specials_last` come after the vocabulary, as in GPT-2's, Llama 3's and Qwen's descendants."""
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizer(pre)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(specials_last) - len(extra), special_tokens=list(specials_first), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(training_lines(), trainer)
    if specials_last:
        tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials_last])
    if extra:
        tok.add_tokens(list(extra))
    if bos:
        tok.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
                                          special_tokens=[(bos, tok.token_to_id(bos))]),
        ])
    return tok


def _trained_pieces(size):
    """Pieces and merges over text whose spaces became U+2581; words keep their leading one."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tok.train_from_iterator((line.rstrip("\n") for line in training_lines()),
                            trainers.BpeTrainer(vocab_size=size, limit_alphabet=70, show_progress=False))
    model = json.loads(tok.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    return pieces, [tuple(m) for m in model["merges"]]


def byte_tokens():
    return [f"<0x{b:02X}>" for b in range(256)]


def sentencepiece_bpe(style, size):
    """SentencePiece-style BPE with byte fallback; style is "llama" (prefix space) or "gemma" (none)."""
    head = {"llama": ["<unk>", "<s>", "</s>"],
            "gemma": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]}[style]
    bos = {"llama": "<s>", "gemma": "<bos>"}[style]
    pieces, merges = _trained_pieces(size - len(head) - 256 - (4 if style == "gemma" else 0))
    vocab = {}
    for piece in head + byte_tokens() + pieces:
        vocab.setdefault(piece, len(vocab))
    if style == "gemma":
        merges = [("▁", "▁"), ("▁▁", "▁▁"), ("\n", "\n")] + merges
        for piece in ("▁▁", "▁▁▁▁", "\n", "\n\n"):
            vocab.setdefault(piece, len(vocab))
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if style == "llama":
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                         decoders.Strip(" ", 1, 0)])
    else:
        tok.normalizer = normalizers.Replace(" ", "▁")
        tok.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
        tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in head])
    tok.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tok.token_to_id(bos))])
    return tok


def unigram(size):
    """SentencePiece-style unigram with byte fallback: pieces carry log probabilities."""
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tok.train_from_iterator((line.rstrip("\n") for line in training_lines()),
                            trainers.UnigramTrainer(vocab_size=size - 256 - 3, show_progress=False,
                                                    special_tokens=[], unk_token="<unk>", shrinking_factor=0.75))
    trained = [(p, s) for p, s in json.loads(tok.to_str())["model"]["vocab"] if p != "<unk>"]
    head = ["<unk>", "<s>", "</s>"]
    vocab = [(p, 0.0) for p in head + byte_tokens()] + [(p, round(s, 5)) for p, s in trained]
    tok = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tok.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in head])
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tok
