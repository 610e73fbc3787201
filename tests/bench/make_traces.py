#!/usr/bin/env python3
"""Makes the traces beside this file, for `modelcc bench --workload`; the same bytes each time.

mixed.jsonl: lengths of mixed sizes, log-normal, with the mean lengths of conversations in ShareGPT (161 and 338 tokens:
Kwon et al. 2023, section 6.1) and a standard deviation of their logarithm of 1.1; at most 1024. Poisson arrivals, 4 a
second.
shared.jsonl: one system prompt of 1,000 tokens, and 20 to 60 tokens of each request's own."""
import json
import math
import pathlib
import random

HERE = pathlib.Path(__file__).parent
SIGMA = 1.1


def length(rng, mean, most):
    """Log-normal with this mean before it is cut."""
    return max(1, min(most, round(rng.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA))))


def mixed(rng):
    at = 0.0
    for _ in range(128):
        yield {"arrival_s": round(at, 3), "prompt_tokens": length(rng, 161, 1024), "max_tokens": length(rng, 338, 1024)}
        at += rng.expovariate(4)


def shared(rng):
    for i in range(32):
        yield {"arrival_s": round(i / 16, 3), "prompt_tokens": 1000 + rng.randint(20, 60),
               "max_tokens": rng.randint(10, 50), "prefix_id": "system", "prefix_tokens": 1000}


for name, make in ("mixed", mixed), ("shared", shared):
    with open(HERE / f"{name}.jsonl", "w") as out:
        for line in make(random.Random(1)):
            out.write(json.dumps(line) + "\n")
