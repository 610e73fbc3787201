#!/usr/bin/env python3
"""Checks the golden data against llama.cpp, an implementation that shares no code with the libraries that made it.

    python3 -m venv VENV && VENV/bin/pip install -r tests/golden/requirements.txt -r tests/bench/requirements.txt
    VENV/bin/python tests/golden/cross_check.py [--smollm2 FILE.gguf] [--gemma3 FILE.gguf]

Logits of gguf/*.gguf agree as closely as llama.cpp's own rounding allows: it keeps keys and values in f16, and rounds
activations to f16, bf16 or int8 to match the weights. Token ids must be equal.
"""

import argparse
import base64
import json
import pathlib
import sys
import tempfile

import gguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "bench"))

import peers

# What rounding activations and the cache may move a logit by, relative to the largest.
BOUNDS = {"f32": 2e-3, "f16": 3e-3, "bf16": 2e-2}
QUANTIZED_BOUND = 6e-2


def check_logits():
    failed = 0
    for path in sorted((HERE / "gguf").glob("*.gguf")):
        reference = json.loads(path.with_suffix(".json").read_text())
        data = np.fromfile(path.with_suffix(".bin"), "<f4")
        peer = peers.Peer(str(path), 1, 512, all_logits=True)
        worst = 0.0
        for case in reference["cases"]:
            peer.clear()
            peer.decode(case["token_ids"], 0)
            got = np.array(peer.all(len(case["token_ids"])))[case["rows"]]
            want = data[case["offset"]:case["offset"] + got.size].reshape(got.shape)
            worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
        peer.close()
        bound = BOUNDS.get(path.stem.split("-")[-1], QUANTIZED_BOUND)
        failed += worst > bound
        print(f"{path.name}: {worst:.1e} of the largest logit, allowed {bound:.0e}{'' if worst <= bound else '  FAILED'}")
    return failed


def vocabulary_file(tokenizer_json, pre, out):
    """A GGUF file of nothing but a vocabulary, for llama.cpp to tokenize with."""
    tok = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    vocab = tok["model"]["vocab"]
    names = sorted(vocab, key=vocab.get)
    added = {a["id"] for a in tok["added_tokens"]}
    w = gguf.GGUFWriter(out, "llama")
    w.add_block_count(1)
    w.add_context_length(64)
    w.add_embedding_length(32)
    w.add_feed_forward_length(32)
    w.add_head_count(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(names))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(names)
    w.add_token_types([3 if i in added else 1 for i in range(len(names))])
    w.add_token_merges([" ".join(m) for m in tok["model"]["merges"]])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(False)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check_ids(name, path):
    from llama_cpp import Llama
    llama = Llama(str(path), vocab_only=True, verbose=False)
    rows = json.loads((HERE / f"tokenizer-{name}.json").read_text())
    wrong = 0
    for row in rows:
        text = base64.b64decode(row["text_b64"]).decode("utf-8", errors="replace")
        ids = llama.tokenize(text.encode("utf-8"), add_bos=False, special=True)
        if ids != row["ids"]:
            wrong += 1
            print(f"  {text[:50]!r}: {row['ids'][:16]}, llama.cpp {ids[:16]}")
    print(f"tokenizer-{name}.json: {wrong} of {len(rows)} texts differ")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2")
    parser.add_argument("--gemma3")
    args = parser.parse_args()
    failed = check_logits()
    with tempfile.TemporaryDirectory() as scratch:
        for file in sorted((HERE / "tokenizers").glob("*.json")):
            out = pathlib.Path(scratch) / f"{file.stem}.gguf"
            vocabulary_file(file, {"gpt2": "gpt-2"}.get(file.stem, file.stem), out)
            failed += check_ids(f"pre-{file.stem}", out)
    for name in ("smollm2", "gemma3"):
        if getattr(args, name):
            failed += check_ids(name, getattr(args, name))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
