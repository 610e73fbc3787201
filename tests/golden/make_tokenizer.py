#!/usr/bin/env python3
"""Makes tokenizer-*.json: texts and the ids the `tokenizers` library gives for them.

    python3 -m venv VENV && VENV/bin/pip install -r tests/golden/requirements.txt
    VENV/bin/python tests/golden/make_tokenizer.py [--smollm2 FILE.gguf] [--gemma3 FILE.gguf]

Run it after make_checkpoints.py. Files:
  tokenizer-smollm2.json, tokenizer-gemma3.json   the tokenizers inside those GGUF files (made where a file is given)
  tokenizer-tiny-*.json                           tests/golden/tiny-*/tokenizer.json
  tokenizer-pre-*.json                            tests/golden/tokenizers/*.json: one vocabulary, each pre-tokenizer
                                                  that GGUF files name
Each is a list of {"text_b64", "ids"}: the text's bytes in base64 and its ids without BOS or EOS; special tokens
inside the text are recognised. Where the bytes are not valid UTF-8 the ids are those of the text in which each
maximal ill-formed part became U+FFFD (bytes.decode("utf-8", errors="replace")). Two more keys are there when they say
something: "ids_special", the ids with what the post-processor adds, and "decoded_b64", what decoding the ids gives
(special tokens kept) where that is not the text itself.
"""

import argparse
import base64
import json
import pathlib
import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import tiny_tokenizers as tt

HERE = pathlib.Path(__file__).resolve().parent

TEXTS = [
    "", " ", "  ", "\n", "\n\n", "\t", "a", " a", "a ", " a ", "Hello, world!", "hello  world   again    four",
    "The quick brown fox jumps over the lazy dog.", "Alice was beginning to get very tired",
    "Alice, Alices and MalAlice; Alice", "I'm you're he'd she'll they've it's don't WE'LL I'M O'Neil 'tis",
    "  leading and trailing  ", "line one\nline two\r\nline three\rend\n\n\n", "tabs\t\tand \t mixed \n \t lines\n ",
    "trailing newline and spaces   \n   ", "x=1;y+=22;z**=333;w//=4444;", "3.14159 1,000,000 0x1F 1e-10 12345678901",
    "2024-06-01T12:34:56Z +1 (555) 010-9999", "½ ² ³ Ⅷ ① ٣٤٥ १२३ 五", "f(x) = {a: [1, 2], 'b': \"c\"}",
    "#include <stdio.h>\n\nint main(void) {\n\tprintf(\"%d\\n\", 42);\n\treturn 0;\n}\n",
    "def f(n):\n    if n < 2:\n        return n\n    return f(n - 1) + f(n - 2)  # slow\n",
    "SELECT * FROM t WHERE a >= 10 AND b <> 'x' -- comment", "<b>bold</b><table><tr><td>1</td></tr></table>",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org", "C:\\dir\\file.txt /usr/bin/env ~/.rc",
    "你好，世界！今天天气很好。", "日本語のテキスト、カタカナとひらがな。", "한국어 문장입니다.", "你好world你好 123你好",
    "مرحبا بالعالم، كيف حالك؟", "السَّلَامُ عَلَيْكُمْ", "नमस्ते दुनिया। आप कैसे हैं?", "क्षत्रिय ज्ञान श्री", "שלום עולם",
    "Привет, мир! Ёлка и ёж.", "Ελληνικά κείμενα", "ไทยไม่มีเว้นวรรค", "Grüße, naïve café, Ærøskøbing, Łódź",
    "e\u0301 versus é, A\u030a versus Å, \u1e9b\u0323", "ﬁ ﬂ ligatures, ｆｕｌｌ　ｗｉｄｔｈ",
    "🙂", "🙂🙃 🎉!", "👩‍👩‍👧‍👦 family, 👍🏽 tone, 🇫🇷 flag, ❤️ heart", "emoji🙂inside🙂words", "👨\u200d💻", "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "zero\u200bwidth\u200dand\u00a0no\u2009break\u3000spaces\u2028line\u2029para\u0085nel", "\ufeffbom first",
    "\u00a0\u00a0 mixed \u00a0 spaces", "nul\x00inside \x01\x02\x7f\x1b[0m", "\U0010ffff \ue000 \ufffd \ufffe",
    "a" * 300, " " * 130, "\n" * 40, "ab" * 100, "=" * 77, "-" * 5 + " " + "_" * 6, "!?" * 12, "¡¿" * 9, "🙂" * 20,
    "▁ literal lower one eighth block ▁▁ x▁y", "Ġ literal Ġ and Ċ", "<0x41> literal byte <0x0A> piece", "<unk> text",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", " <|endoftext|> ", "<|endoftext|",
    "a<|im_end|>b<|im_end|><|im_end|> c", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "<s>[INST] Hi [/INST] Hello</s>", "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "<bos>x<eos>",
    "fill the   <mask>  here<mask>", "<pad><pad>", "<unused0> <unused99> [multimodal]", "<|IM_START|> not special",
]


def corpus():
    rng = random.Random(11)
    text = (HERE.parent / "data" / "text.txt").read_text(encoding="utf-8")
    raw = [t.encode("utf-8") for t in TEXTS]
    raw += [text[start:start + 700].encode("utf-8") for start in (9000, 30000)]
    ranges = [(0x20, 0x7e)] * 4 + [(0x09, 0x0d), (0x80, 0x24f), (0x370, 0x5ff), (0x600, 0x6ff), (0x900, 0x97f),
                                   (0x2000, 0x206f), (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3),
                                   (0x1f300, 0x1faff), (0x10000, 0x10ffff)]
    for _ in range(50):
        chars = []
        for _ in range(rng.randrange(1, 30)):
            low, high = rng.choice(ranges)
            chars.append(chr(rng.randint(low, high)))
        raw.append("".join(chars).encode("utf-8"))
    for _ in range(60):
        raw.append("".join(rng.choice(WORDS) for _ in range(rng.randrange(2, 14))).encode("utf-8"))
    # Ill-formed: stray and missing continuation bytes, overlong forms, surrogates, values above U+10FFFF, plain noise.
    raw += [b"\x80", b"\xff\xfe", b"abc\xe4\xbd", b"\xe4\xbd\xa0\xe5\xa5", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80", b"\xf0\x9f\x99", b"a\xf0\x9f\x99b", b"\xf8\x88\x80\x80\x80", b"ok \xc3( ok"]
    for _ in range(40):
        raw.append(bytes(rng.randrange(256) for _ in range(rng.randrange(1, 24))))
    for _ in range(20):
        damaged = bytearray("Grüße 你好 🙂 नमस्ते end".encode("utf-8"))
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        raw.append(bytes(damaged))
    return raw


def write(name, tok):
    rows = []
    for raw in corpus():
        text = raw.decode("utf-8", errors="replace")
        ids = tok.encode(text, add_special_tokens=False).ids
        special = tok.encode(text, add_special_tokens=True).ids
        row = {"text_b64": base64.b64encode(raw).decode("ascii"), "ids": ids}
        if special != ids and len(rows) < 12:
            row["ids_special"] = special
        decoded = tok.decode(ids, skip_special_tokens=False)
        if decoded != text:
            row["decoded_b64"] = base64.b64encode(decoded.encode("utf-8")).decode("ascii")
        rows.append(json.dumps(row, separators=(",", ":")))
    file = HERE / f"tokenizer-{name}.json"
    file.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    print(f"{file.name}: {len(rows)} texts, {file.stat().st_size} bytes")


WORDS = ["the", "The", " ", "  ", "   ", "\n", "\n\n", "'s", "'S", "'", "12", "1234", "2024", "x_y", "...", "!?", "é", "你",
         "好", "🙂", "\t", "ab-cd", "I'm", "we'll", "WE'LL", "\r\n", " =", "==", "+", "$", ".", ",", " .", "a1", "1a", "٣٤", "½",
         "+=", ") {", "//", "नम", "स्", "e\u0301", "\u00a0", "\u200b", "^", "|", "`"]


def boundary_lines():
    rng = random.Random(5)
    return ["".join(rng.choice(WORDS) for _ in range(rng.randrange(2, 6))) for _ in range(20000)]


def default_pre_tokenizer():
    """What a GGUF file means by "default" (or by naming none): the split every early converter produced."""
    patterns = [r"[\p{P}\$\+<=>\^~\|]+",
                r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
                r"\p{N}+", r"[0-9][0-9][0-9]"]
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make_pre_tokenizers():
    folder = HERE / "tokenizers"
    folder.mkdir(exist_ok=True)
    # One vocabulary for all, so that only the split differs. It was trained without any split, on text full of what
    # the patterns treat differently, so its merges cross every boundary that a pattern may or may not draw.
    unsplit = Tokenizer(models.BPE())
    unsplit.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    unsplit.decoder = decoders.ByteLevel()
    unsplit.train_from_iterator(boundary_lines(), trainers.BpeTrainer(
        vocab_size=760, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    for name in ("gpt2", "smollm", "llama-bpe", "qwen2", "default"):
        tok = Tokenizer.from_str(unsplit.to_str())
        tok.pre_tokenizer = default_pre_tokenizer() if name == "default" else tt.pre_tokenizer(name)
        (folder / f"{name}.json").write_text(tok.to_str(pretty=False) + "\n", encoding="utf-8")
        write(f"pre-{name}", tok)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2")
    parser.add_argument("--gemma3")
    args = parser.parse_args()
    for folder in sorted(HERE.glob("tiny-*/")):
        write(folder.name, Tokenizer.from_file(str(folder / "tokenizer.json")))
    make_pre_tokenizers()
    for name, file in (("smollm2", args.smollm2), ("gemma3", args.gemma3)):
        if file:
            import gguf_load
            import gguf_tokenizer
            write(name, gguf_tokenizer.from_metadata(gguf_load.Metadata(file)))


if __name__ == "__main__":
    main()
