#!/usr/bin/env python3
"""How far llama.cpp's output is from the float reference, on the file, text, windows and token ids of
tests/golden/perplexity.json.

    python3 -m venv VENV && VENV/bin/pip install -r tests/golden/requirements.txt -r tests/bench/requirements.txt
    VENV/bin/python tests/bench/peer_quality.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf [--peer-gguf OTHER.gguf]

The reference runs GGUF's dequantized weights in f32 in the same process, llama.cpp runs --peer-gguf (by default the same
file). Writes NAME (and the peer's file name) into tests/bench/peer_quality.json: nll and perplexity of both, the mean
over predicted tokens of KL(reference || peer) in nats, and how often both choose the same token.
"""

import argparse
import json
import math
import os
import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "golden"), str(HERE)]

import gguf_load
import gguf_tokenizer
import make_real
import peers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["smollm2", "gemma3"])
    parser.add_argument("gguf")
    parser.add_argument("--peer-gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=10**9, help="only so many windows; nothing is then written")
    args = parser.parse_args()
    peer_file = args.peer_gguf or args.gguf
    torch.set_num_threads(args.threads)
    model, meta = gguf_load.load(args.gguf)
    tok = gguf_tokenizer.from_metadata(meta)
    ids = tok.encode(make_real.TEXT.read_text(encoding="utf-8"), add_special_tokens=False).ids
    bos = meta.get("tokenizer.ggml.bos_token_id") if meta.get("tokenizer.ggml.add_bos_token", False) else None
    peer = peers.Peer(peer_file, args.threads, make_real.WINDOW, make_real.WINDOW, all_logits=True)
    sums = {"reference": 0.0, "peer": 0.0, "kl": 0.0, "same": 0}
    count = 0
    for w, window in enumerate(make_real.windows(ids, bos)):
        if w == args.windows:
            break
        with torch.no_grad():
            want_logits = model(input_ids=torch.tensor([window]), use_cache=False).logits[0, :-1]
        peer.clear()
        peer.decode(window, 0)
        got_logits = torch.from_numpy(peer.all(len(window)))[:-1]
        # A few rows at a time: a window of f64 log-probabilities over a large vocabulary is a gigabyte.
        for begin in range(0, len(window) - 1, 32):
            want = want_logits[begin:begin + 32].double().log_softmax(-1)
            got = got_logits[begin:begin + 32].double().log_softmax(-1)
            target = torch.tensor(window[begin + 1:begin + 33])[:, None]
            sums["reference"] -= float(want.gather(1, target).sum())
            sums["peer"] -= float(got.gather(1, target).sum())
            sums["kl"] += float((want.exp() * (want - got)).sum())
            sums["same"] += int((want.argmax(-1) == got.argmax(-1)).sum())
        count += len(window) - 1
        print(f"window {w}: reference {math.exp(sums['reference'] / count):.4f}, peer "
              f"{math.exp(sums['peer'] / count):.4f}, KL {sums['kl'] / count:.5f}", file=sys.stderr)
    entry = {"engine": "llama.cpp", "version": peer.lib.__version__, "tokens": count,
             "reference_nll": sums["reference"] / count, "reference_perplexity": math.exp(sums["reference"] / count),
             "nll": sums["peer"] / count, "perplexity": math.exp(sums["peer"] / count),
             "mean_kl": sums["kl"] / count, "top1_agreement": sums["same"] / count}
    print(json.dumps(entry))
    if args.windows < 10**9:
        return
    expected = json.loads((HERE.parent / "golden" / "perplexity.json").read_text())[args.name]
    assert count == expected["tokens"] and abs(entry["reference_nll"] - expected["nll"]) < 1e-4, expected["nll"]
    file = HERE / "peer_quality.json"
    data = json.loads(file.read_text()) if file.exists() else {}
    data[f"{args.name} {os.path.basename(peer_file)}"] = entry
    file.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
