#!/usr/bin/env python3
"""Runs modelcc and llama.cpp in turns on one machine, and says how many times as fast modelcc is, and how surely.

    python3 tests/bench/compare.py --modelcc build/modelcc --model smollm2.so \\
        --peer-python VENV/bin/python --gguf SmolLM2-135M-Instruct.Q4_1.gguf [--gguf smollm2-q4_0.gguf] \\
        --pairs 10 --threads 1,2 [--require prefill=5,decode=2] [--json out.json]

VENV has tests/bench/requirements.txt. Each pair is one run of `modelcc bench MODEL.so --json` and one of peers.py for
each GGUF file, each in a process of its own, the order turned round from pair to pair, so that what else the machine
does falls on both. For each figure: the medians, the median of the pairs' ratios (modelcc / peer; above 1 is faster),
and the lower end of its 95 % interval, from 10,000 bootstrap samples of the pairs. --require fails (exit status 1)
where that lower end is not above the number, against the first GGUF file; against the others it must be above 1.

--cold measures a cold process to its first token instead: `modelcc run MODEL.so --raw -p PROMPT --max-tokens 1` by
wall clock and peak memory, beside the peer with and without Python's own start.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

PEERS = pathlib.Path(__file__).resolve().parent / "peers.py"
PROMPT = "The capital of France is"


def call(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def run_modelcc(args, threads):
    return call([args.modelcc, "bench", args.model, "--threads", str(threads), "--json", *args.modelcc_arg])


def run_peer(args, gguf, threads, context):
    return call([args.peer_python, PEERS, "bench", gguf, "--threads", str(threads), "--context", str(context),
                 "--repeat", str(args.peer_repeat)])


def lower_bound(values, rng, rounds=10000):
    """The 2.5th percentile of the bootstrapped median."""
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(0.025 * rounds)]


def summarize(ours, theirs, rng):
    ratios = [a / b for a, b in zip(ours, theirs)]
    return {"modelcc": statistics.median(ours), "peer": statistics.median(theirs),
            "ratio": statistics.median(ratios), "ratio_lower_95": lower_bound(ratios, rng),
            "modelcc_samples": ours, "peer_samples": theirs}


def compare(args, threads, rng):
    ours = []
    theirs = {gguf: [] for gguf in args.gguf}
    warm = run_modelcc(args, threads)
    context = warm["decode"].get("context", 16)
    if warm["prefill"]["tokens"] != 512:
        raise SystemExit(f"modelcc bench measured a prefill of {warm['prefill']['tokens']} tokens, the peer measures 512")
    for i in range(args.pairs):
        jobs = [None, *args.gguf]
        for job in jobs if i % 2 == 0 else reversed(jobs):
            if job is None:
                ours.append(run_modelcc(args, threads))
            else:
                theirs[job].append(run_peer(args, job, threads, context))
        print(f"  threads {threads}, pair {i + 1} of {args.pairs}: decode {ours[-1]['decode']['tokens_per_second']} | "
              + ", ".join(str(t[-1]["decode"]["tokens_per_second"]) for t in theirs.values()), file=sys.stderr)
    rows = []
    for gguf, samples in theirs.items():
        for what in ("prefill", "decode"):
            row = summarize([s[what]["tokens_per_second"] for s in ours],
                            [s[what]["tokens_per_second"] for s in samples], rng)
            rows.append({"threads": threads, "peer_model": os.path.basename(gguf), "what": what, "context": context, **row})
    return rows


def cold_modelcc(args, threads):
    begin = time.perf_counter()
    child = subprocess.Popen([args.modelcc, "run", args.model, "--raw", "-p", PROMPT, "--max-tokens", "1",
                              "--threads", str(threads)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = 1e3 * (time.perf_counter() - begin)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"modelcc run: exit status {child.returncode}\n{error.decode(errors='replace')[-2000:]}")
    return {"process_ms": wall, "peak_rss_mb": usage.ru_maxrss / 1024}


def cold(args, threads):
    cold_modelcc(args, threads)
    ours, theirs = [], []
    for _ in range(args.pairs):
        ours.append(cold_modelcc(args, threads))
        theirs.append(call([args.peer_python, PEERS, "first-token", args.gguf[0], "--threads", str(threads),
                            "--prompt", PROMPT]))
    median = lambda rows, key: statistics.median(r[key] for r in rows)
    return {"threads": threads, "peer_model": os.path.basename(args.gguf[0]),
            "modelcc_ms": median(ours, "process_ms"), "modelcc_peak_rss_mb": median(ours, "peak_rss_mb"),
            "peer_process_ms": median(theirs, "process_ms"),
            "peer_without_python_ms": median(theirs, "without_python_ms"),
            "peer_peak_rss_mb": median(theirs, "peak_rss_mb")}


def check(args, rows):
    wanted = dict(item.split("=") for item in args.require.split(",")) if args.require else {}
    first = os.path.basename(args.gguf[0])
    bad = []
    for row in rows:
        if row["what"] in wanted:
            need = float(wanted[row["what"]]) if row["peer_model"] == first else 1.0
            if row["ratio_lower_95"] <= need:
                bad.append(f"{row['what']}, {row['threads']} threads, against {row['peer_model']}: "
                           f"lower bound {row['ratio_lower_95']:.2f}, required above {need:g}")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modelcc", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--modelcc-arg", action="append", default=[], help="one more argument for modelcc bench")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer-repeat", type=int, default=3)
    parser.add_argument("--gguf", action="append", required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--require", default="")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    threads = [int(t) for t in args.threads.split(",")]
    rng = random.Random(0)
    if args.cold:
        rows = [cold(args, t) for t in threads]
        for r in rows:
            print(f"{r['threads']} threads: modelcc {r['modelcc_ms']:.0f} ms, {r['modelcc_peak_rss_mb']:.0f} MiB | "
                  f"{r['peer_model']}: {r['peer_process_ms']:.0f} ms ({r['peer_without_python_ms']:.0f} without Python), "
                  f"{r['peer_peak_rss_mb']:.0f} MiB")
        bad = []
    else:
        rows = [row for t in threads for row in compare(args, t, rng)]
        print(f"{'threads':>7} {'figure':8} {'peer':34} {'modelcc':>9} {'peer':>9} {'ratio':>6} {'95 % from':>9}")
        for r in rows:
            print(f"{r['threads']:>7} {r['what']:8} {r['peer_model']:34} {r['modelcc']:>9.1f} {r['peer']:>9.1f} "
                  f"{r['ratio']:>6.2f} {r['ratio_lower_95']:>9.2f}")
        bad = check(args, rows)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"pairs": args.pairs, "rows": rows}, indent=1) + "\n")
    for line in bad:
        print("not reached:", line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
