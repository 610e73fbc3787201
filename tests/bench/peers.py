#!/usr/bin/env python3
"""Measures llama.cpp (through llama-cpp-python) on a GGUF file, and prints one JSON object.

    python3 -m venv VENV && CMAKE_ARGS="-DGGML_NATIVE=ON" VENV/bin/pip install -r tests/bench/requirements.txt
    VENV/bin/python tests/bench/peers.py bench MODEL.gguf --threads 2
    VENV/bin/python tests/bench/peers.py first-token MODEL.gguf --threads 2
    VENV/bin/python tests/bench/peers.py requantize IN.gguf OUT.gguf --type q4_0

bench prints what `modelcc bench --json` prints: {"threads", "prefill": {"tokens", "tokens_per_second"}, "decode":
{"context", "tokens", "tokens_per_second"}, "load_ms", "first_token_ms"}. Figures are medians over --repeat rounds
after one unmeasured round; sampling is not in them. A prefill is one call with all its tokens. Decoding begins with
`context` tokens in the cache. compare.py runs this file interleaved with modelcc.
"""

import argparse
import ctypes
import json
import os
import random
import statistics
import sys
import time



def process_age():
    """Seconds since this process was started, from /proc."""
    with open("/proc/self/stat", encoding="ascii") as f:
        ticks = int(f.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime", encoding="ascii") as f:
        uptime = float(f.read().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def silence(llama_cpp):
    """Drops llama.cpp's log. The library keeps the callback's address, so the callback must outlive it."""
    global _quiet
    _quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(_quiet, None)


class Peer:
    """A model and a context of llama.cpp."""

    def __init__(self, path, threads, n_ctx, n_batch=512, all_logits=False, n_seq_max=1):
        import llama_cpp
        self.lib = llama_cpp
        silence(llama_cpp)
        llama_cpp.llama_backend_init()
        begin = time.perf_counter()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = n_ctx
        context.n_batch = context.n_ubatch = n_batch
        context.n_seq_max = n_seq_max
        context.kv_unified = True  # one cache for all sequences: over three times as fast with 32 of them
        context.n_threads = context.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        if not self.context:
            raise SystemExit(f"{path}: llama.cpp cannot make a context of {n_ctx}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.load_ms = 1e3 * (time.perf_counter() - begin)
        self.all_logits = all_logits
        self.batch = llama_cpp.llama_batch_init(n_batch, 0, 1)

    def close(self):
        self.lib.llama_batch_free(self.batch)
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def decode(self, tokens, position):
        b = self.batch
        b.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            b.token[i] = token
            b.pos[i] = position + i
            b.n_seq_id[i] = 1
            b.seq_id[i][0] = 0
            b.logits[i] = self.all_logits or i == len(tokens) - 1
        rc = self.lib.llama_decode(self.context, b)
        if rc != 0:
            raise SystemExit(f"llama_decode of {len(tokens)} tokens at {position} returned {rc}")

    def logits(self, row=-1):
        return self.lib.llama_get_logits_ith(self.context, row)

    def all(self, rows):
        import numpy as np
        pointer = ctypes.cast(self.lib.llama_get_logits(self.context), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape=(rows, self.vocab_size))


def bench(args):
    rng = random.Random(1)
    peer = Peer(args.model, args.threads, max(args.prefill, args.context + args.decode) + 8, max(args.prefill, 512))
    prompt = [rng.randrange(100, peer.vocab_size) for _ in range(args.prefill)]
    context = [rng.randrange(100, peer.vocab_size) for _ in range(args.context)]
    prefill, decode = [], []
    for round_ in range(args.repeat + 1):
        peer.clear()
        begin = time.perf_counter()
        peer.decode(prompt, 0)
        peer.logits()
        prefill.append(args.prefill / (time.perf_counter() - begin))
        peer.clear()
        peer.decode(context, 0)
        begin = time.perf_counter()
        for i in range(args.decode):
            peer.decode([prompt[i % len(prompt)]], args.context + i)
            peer.logits()
        decode.append(args.decode / (time.perf_counter() - begin))
        if round_ == 0:
            prefill, decode = [], []
    peer.clear()
    begin = time.perf_counter()
    peer.decode(context[:8] or [1], 0)
    peer.logits()
    first = 1e3 * (time.perf_counter() - begin)
    return {"engine": "llama.cpp", "version": peer.lib.__version__, "model": os.path.basename(args.model),
            "threads": args.threads,
            "prefill": {"tokens": args.prefill, "tokens_per_second": round(statistics.median(prefill), 2)},
            "decode": {"context": args.context, "tokens": args.decode,
                       "tokens_per_second": round(statistics.median(decode), 2)},
            "load_ms": round(peer.load_ms, 2), "first_token_ms": round(peer.load_ms + first, 2)}


def first_token(args):
    """Cold process to first token: with the interpreter's start and imports, and without them."""
    import llama_cpp
    import numpy as np
    llama_cpp.llama_backend_init()
    begin = time.perf_counter()
    peer = Peer(args.model, args.threads, 2048)
    text = args.prompt.encode()
    tokens = (peer.lib.llama_token * (len(text) + 8))()
    n = peer.lib.llama_tokenize(peer.vocab, text, len(text), tokens, len(tokens), True, True)
    peer.decode(list(tokens[:n]), 0)
    best = int(np.ctypeslib.as_array(peer.logits(), shape=(peer.vocab_size,)).argmax())
    done = time.perf_counter()
    with open("/proc/self/status", encoding="ascii") as f:
        peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    return {"engine": "llama.cpp", "threads": args.threads, "prompt_tokens": n, "token": best,
            "process_ms": round(1e3 * process_age(), 1), "without_python_ms": round(1e3 * (done - begin), 1),
            "peak_rss_mb": round(peak / 1024, 1)}


def requantize(args):
    import llama_cpp
    ftype = {"q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, "q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1,
             "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
             "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M}[args.type]
    silence(llama_cpp)
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    params.allow_requantize = True
    rc = llama_cpp.llama_model_quantize(os.fsencode(args.model), os.fsencode(args.out), ctypes.byref(params))
    if rc != 0:
        raise SystemExit(f"{args.model}: llama.cpp cannot requantize it to {args.type}")
    return {"out": args.out, "type": args.type, "bytes": os.path.getsize(args.out)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("bench")
    p.add_argument("model")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--prefill", type=int, default=512)
    p.add_argument("--context", type=int, default=16, help="tokens in the cache when decoding begins")
    p.add_argument("--decode", type=int, default=64, help="tokens decoded")
    p.add_argument("--repeat", type=int, default=3)
    p = commands.add_parser("first-token")
    p.add_argument("model")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--prompt", default="The capital of France is")
    p = commands.add_parser("requantize")
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--type", default="q4_0", choices=["q4_0", "q4_1", "q8_0", "f16", "q4_k_m"])
    args = parser.parse_args()
    result = {"bench": bench, "first-token": first_token, "requantize": requantize}[args.command](args)
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
