#!/usr/bin/env python3
"""Many requests at a time: modelcc, llama.cpp and OpenVINO GenAI in turns on one machine, on the same requests.

    python3 tests/bench/batched.py --modelcc build/compiler/modelcc --model smollm2.so \\
        --llama VENV/bin/python smollm2-q4_0.gguf --openvino VENV2/bin/python SmolLM2-135M-Instruct.gguf \\
        --workload fixed --pairs 5 --threads 2 [--json out.json]

VENV has tests/bench/requirements.txt, VENV2 `pip install openvino-genai numpy`. Every engine gets the same requests, of
random token ids, and generates as many tokens as each says, whatever they are: `fixed`, --sequences requests at once
of --prompt and --tokens tokens; `mixed`, three times as many, of log-normal lengths about these (sigma 1), of which
--sequences run at a time and a waiting one takes the place of one that ends. The figure is tokens generated a second,
prompts and their time included, models' loading not. For llama.cpp, whose library leaves batching to its caller,
`serve_llama` below, with one cache for all sequences, fills every call with the next token of each sequence and the prompts of those that begin; it takes
no sampling time (the next token is any token), which the others spend. For each pair the engines run one after the
other, the order turned round from pair to pair: medians, and the median ratio with the lower end of its 95 % interval.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from compare import summarize


def requests_of(args):
    """[(prompt token ids, tokens to generate)]"""
    rng = random.Random(args.seed)

    def length(middle):
        return max(1, min(8 * middle, round(rng.lognormvariate(0, 1) * middle)))

    fixed = args.workload == "fixed"
    return [([rng.randrange(100, 49000) for _ in range(args.prompt if fixed else length(args.prompt))],
             args.tokens if fixed else length(args.tokens))
            for _ in range(args.sequences * (1 if fixed else 3))]


# --- the engines: each is a process of its own, that answers every line with the seconds it took --------------------


def serve_llama(args, requests):
    from peers import Peer
    most = max(len(prompt) for prompt, _ in requests)
    longest = max(len(prompt) + tokens for prompt, tokens in requests)
    peer = Peer(args.file, args.threads, args.sequences * (longest + 8), max(512, most), n_seq_max=args.sequences)
    lib, memory, batch = peer.lib, peer.lib.llama_get_memory(peer.context), peer.batch
    capacity = max(512, most)

    def put(token, position, sequence, logits):
        i = batch.n_tokens
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, logits
        batch.seq_id[i][0] = sequence
        batch.n_tokens += 1

    def run():
        peer.clear()
        waiting, free, running = list(reversed(requests)), list(range(args.sequences)), []
        while waiting or running:
            batch.n_tokens = 0
            for r in running:
                put(100 + r["position"] % 1000, r["position"], r["sequence"], True)
            while waiting and free and batch.n_tokens + len(waiting[-1][0]) <= capacity:
                prompt, tokens = waiting.pop()
                r = {"sequence": free.pop(), "position": len(prompt) - 1, "left": tokens}
                for i, token in enumerate(prompt):
                    put(token, i, r["sequence"], i == len(prompt) - 1)
                running.append(r)
            if lib.llama_decode(peer.context, batch) != 0:
                raise SystemExit("llama_decode failed")
            peer.logits()
            for r in running:
                r["position"] += 1
                r["left"] -= 1
                if r["left"] == 0:
                    lib.llama_memory_seq_rm(memory, r["sequence"], -1, -1)
                    free.append(r["sequence"])
            running = [r for r in running if r["left"]]

    return run


def serve_openvino(args, requests):
    import numpy as np
    import openvino
    import openvino_genai
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = args.sequences
    scheduler.max_num_batched_tokens = 512
    scheduler.cache_size = 2  # GB
    pipeline = openvino_genai.ContinuousBatchingPipeline(args.file, scheduler, "CPU",
                                                         {"INFERENCE_NUM_THREADS": args.threads})

    def run():
        handles = []
        for i, (prompt, tokens) in enumerate(requests):
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens = tokens
            config.ignore_eos = True
            handles.append(pipeline.add_request(i, openvino.Tensor(np.array([prompt], dtype=np.int64)), config))
        while pipeline.has_non_finished_requests():
            pipeline.step()
        for handle, (_, tokens) in zip(handles, requests):
            n = len(handle.read_all()[0].generated_ids)
            if n != tokens:
                raise SystemExit(f"OpenVINO generated {n} tokens of {tokens}")

    return run


def serve_modelcc(args, requests):
    folder = tempfile.mkdtemp()
    given, results = os.path.join(folder, "requests.jsonl"), os.path.join(folder, "results.jsonl")
    with open(given, "w", encoding="ascii") as f:
        for prompt, tokens in requests:
            f.write(json.dumps({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True}) + "\n")

    def run():
        done = subprocess.run([args.modelcc, "batch", args.file, "--input", given, "--output", results, "--json",
                               "--threads", str(args.threads), "--max-num-seqs", str(args.sequences), *args.modelcc_arg],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"modelcc batch: {done.stderr}")
        os.remove(results)
        summary = json.loads(done.stdout)
        if summary["completion_tokens"] != sum(tokens for _, tokens in requests):
            raise SystemExit(f"modelcc generated {summary['completion_tokens']} tokens")
        return summary["seconds"]  # without opening the artifact

    return run


def serve(args):
    run = {"llama": serve_llama, "openvino": serve_openvino, "modelcc": serve_modelcc}[args.serve](args, requests_of(args))
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        seconds = run()
        print(seconds or time.perf_counter() - begin, flush=True)


# --- the comparison ------------------------------------------------------------------------------------------------


class Engine:
    def __init__(self, args, name, python, file):
        command = [python, __file__, "--serve", name, "--file", file, "--workload", args.workload]
        for option in ("sequences", "prompt", "tokens", "threads", "seed"):
            command += [f"--{option}", str(getattr(args, option))]
        command += ["--modelcc", args.modelcc, *(f"--modelcc-arg={a}" for a in args.modelcc_arg)]
        self.name = name
        self.file = os.path.basename(file)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended early; its command is\n  {' '.join(self.process.args)}")
        return line.strip()

    def ready(self):
        while self.line() != "ready":
            pass

    def seconds(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return float(self.line())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modelcc", required=True)
    parser.add_argument("--modelcc-arg", action="append", default=[], help="one more argument for modelcc batch")
    parser.add_argument("--model")
    parser.add_argument("--llama", nargs=2, metavar=("PYTHON", "GGUF"))
    parser.add_argument("--openvino", nargs=2, metavar=("PYTHON", "GGUF"))
    parser.add_argument("--workload", choices=["fixed", "mixed"], default="fixed")
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=16, help="tokens (mixed: the median)")
    parser.add_argument("--tokens", type=int, default=128, help="generated for a request (mixed: the median)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args)
    engines = [Engine(args, "modelcc", sys.executable, args.model)]
    if args.llama:
        engines.append(Engine(args, "llama", *args.llama))
    if args.openvino:
        engines.append(Engine(args, "openvino", *args.openvino))
    for e in engines:
        e.ready()
        e.seconds()  # does not count
    total = sum(tokens for _, tokens in requests_of(args))
    rates = {e.name: [] for e in engines}
    for i in range(args.pairs):
        for e in engines if i % 2 == 0 else reversed(engines):
            rates[e.name].append(total / e.seconds())
        print(f"  round {i + 1} of {args.pairs}: " + ", ".join(f"{n} {r[-1]:.0f}" for n, r in rates.items()),
              file=sys.stderr)
    rows = []
    print(f"{'peer':10} {'model':34} {'modelcc':>9} {'peer':>9} {'ratio':>6} {'95 % from':>9}")
    for e in engines[1:]:
        row = summarize(rates["modelcc"], rates[e.name], random.Random(0))
        rows.append({"peer": e.name, "model": e.file, **row})
        print(f"{e.name:10} {e.file:34} {row['modelcc']:>9.1f} {row['peer']:>9.1f} {row['ratio']:>6.2f} "
              f"{row['ratio_lower_95']:>9.2f}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"workload": args.workload, "sequences": args.sequences,
                                                       "prompt": args.prompt, "tokens": args.tokens, "rows": rows},
                                                      indent=1) + "\n")
    for e in engines:
        e.process.stdin.close()
        e.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
