#!/usr/bin/env python3
"""How well compiled models predict a text: quality.py MODELCC

For each model in the folder MCC_TEST_MODELS: the ids of a text, its negative log-likelihood with float activations and a
float cache, and how far the defaults are from that, against what `transformers` computes from the dequantized weights
(golden/perplexity.json). Of the text's windows one, drawn from MCC_TEST_SEED, or all with MCC_TEST_FULL=1.
"""
import hashlib
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FILES = {"smollm2": "SmolLM2-135M-Instruct.gguf", "gemma3": "gemma3-270m.gguf"}
# The reference's figures are rounded to six digits, and sums of f32 have different orders.
EXACT_NLL = 1e-5
PERPLEXITY_RATIO = 1.01
MEAN_KL = 0.02
failures = []


def check(condition, message):
    print("fine:" if condition else "FAILED:", message, flush=True)
    if not condition:
        failures.append(message)


def windows(ids, bos, size):
    """As make_real.py cuts them."""
    step = size - len(bos)
    return [w for w in (bos + ids[at:at + step] for at in range(0, len(ids), step)) if len(w) >= 2]


def check_model(modelcc, name, file, golden):
    def run(*args):
        done = subprocess.run([modelcc, *args], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True)
        return json.loads(done.stdout) if done.stdout else None

    text = HERE / "data" / "text.txt"
    run("build", file, "-q", "-o", "default.so")
    run("build", file, "-q", "--activations", "f32", "--kv-cache-dtype", "f32", "-o", "exact.so")
    ids = run("tokenize", "exact.so", "--no-special", "--json", "-p", text.read_text(encoding="utf-8"))["ids"]
    check(len(ids) == golden["text_tokens"] and
          hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest() == golden["text_tokens_sha256"],
          f"{name}: the text's {len(ids)} ids")
    # With its special tokens a text has <s> in front, where a model wants one.
    bos = run("tokenize", "exact.so", "--json", "-p", "a")["ids"][:1] if golden["add_bos"] else []
    all_windows = windows(ids, bos, golden["window"])
    check(len(all_windows) == len(golden["window_nll"]), f"{name}: {len(all_windows)} windows")
    chosen = list(range(len(all_windows)))
    if os.environ.get("MCC_TEST_FULL") != "1":
        chosen = [random.Random(os.environ.get("MCC_TEST_SEED", "1")).choice(chosen)]
    pathlib.Path("ids.json").write_text(json.dumps([all_windows[i] for i in chosen]))

    exact = run("eval", "exact.so", "--ids", "ids.json", "--json")
    worst = max(abs(exact["window_nll"][k] - golden["window_nll"][i]) for k, i in enumerate(chosen))
    check(worst <= EXACT_NLL, f"{name}: windows {chosen}: nll in floating point is off by {worst:.2g} at most")
    default = run("eval", "default.so", "--reference", "exact.so", "--ids", "ids.json", "--json")
    ratio = math.exp(default["nll"] - exact["nll"])
    what = f"{name}: perplexity with the defaults: times {ratio:.5f}"
    if len(chosen) == len(all_windows):
        check(1 / PERPLEXITY_RATIO <= ratio <= PERPLEXITY_RATIO, what)
    else:
        print(what)  # of few tokens it says little
    check(0 < default["mean_kl"] <= MEAN_KL, f"{name}: mean KL divergence with the defaults: {default['mean_kl']:.5f}")


def main():
    modelcc, folder = os.path.abspath(sys.argv[1]), os.environ.get("MCC_TEST_MODELS", "")
    goldens = json.loads((HERE / "golden" / "perplexity.json").read_text())
    found = {name: os.path.abspath(os.path.join(folder, file)) for name, file in FILES.items()}
    missing = [name for name, file in found.items() if not folder or not os.path.exists(file)]
    if len(missing) == len(found):
        print("SKIP: no model in the folder MCC_TEST_MODELS (tests/models.sh fetches them)")
        return 77
    for name in missing:
        print(f"skipped in part: {FILES[name]} is not there")
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        for name in found:
            if name not in missing:
                check_model(modelcc, name, found[name], goldens[name])
        os.chdir("/")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
