"""What drafts gain: decode speed with and without them, run by turns on the prompts of a file.

usage: speculation.py MODELCC MODEL.so [--prompts FILE.jsonl] [--rounds N] [--tokens N]
                      [--threads N] [--json] [OPTION…]

OPTIONs go to the runs with drafts; without any, --num-speculative-tokens 16. Tokens must be the
same with and without. A prompt's speed is the median of its rounds; seconds are those of decoding.
"""
import argparse, json, os, statistics, subprocess, sys

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("modelcc")
parser.add_argument("model")
parser.add_argument("--prompts", default=os.path.join(os.path.dirname(__file__), "repetitive.jsonl"))
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--tokens", type=int, default=200)
parser.add_argument("--threads", default="2")
parser.add_argument("--json", action="store_true")
o, options = parser.parse_known_args()
options = options or ["--num-speculative-tokens", "16"]


def run(prompt, more):
    done = subprocess.run([o.modelcc, "run", o.model, "-p", prompt, "-n", str(o.tokens), "-t",
                           o.threads, "--json", *more], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


with open(o.prompts, encoding="utf-8") as f:
    prompts = [json.loads(line) for line in f]
rows, total = [], [0, 0]
for p in prompts:
    seconds, d = ([], []), [None, None]
    for _ in range(o.rounds):
        for k in range(2):
            d[k] = run(p["prompt"], options if k else [])
            seconds[k].append(d[k]["timings"]["decode_seconds"])
    if d[0]["token_ids"] != d[1]["token_ids"] and "probabilistic" not in "".join(options):
        sys.exit(f"{p['name']}: other tokens with drafts")
    t, n = d[1]["timings"], len(d[1]["token_ids"]) - 1
    middle = [statistics.median(s) for s in seconds]
    total = [total[k] + middle[k] for k in range(2)]
    rows.append({"name": p["name"], "tokens": n, "steps": t["steps"], "without": n / middle[0],
                 "with": n / middle[1], "speedup": middle[0] / middle[1],
                 "draft_tokens": t["draft_tokens"], "accepted_tokens": t["accepted_tokens"],
                 "draft_tokens_per_pos": t["draft_tokens_per_pos"],
                 "accepted_tokens_per_pos": t["accepted_tokens_per_pos"]})
if o.json:
    print(json.dumps({"prompts": rows, "speedup": total[0] / total[1]}))
    sys.exit()
print(f"{'':14} {'tokens':>6} {'steps':>5} {'without':>8} {'with':>8} tokens/s {'speedup':>7} accepted")
for r in rows:
    print(f"{r['name']:14} {r['tokens']:6} {r['steps']:5} {r['without']:8.1f} {r['with']:8.1f} "
          f"{'':8} {r['speedup']:7.2f} {r['accepted_tokens']} of {r['draft_tokens']}")
print(f"in all {total[0] / total[1]:.2f} times as fast")
