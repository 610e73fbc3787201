"""Reference logits from `transformers`, and the two files in which the tests read them.

reference.json: {"vocab_size", "logits_file", "note", "cases": [{"name", "token_ids", "rows", "offset"}]}
reference.bin:  little-endian f32. A case's logits start at float index `offset`: one row of vocab_size floats for
                each entry of `rows`; row r holds the logits after the model has seen token_ids[0..r].
"""

import json
import random

import numpy as np
import torch

LENGTHS = (1, 2, 7, 17, 40, 300)
# Of the longest sequence only these rows are kept: around 16 and 128, around the 256-position boundary, and the end.
LONG_ROWS = (0, 1, 7, 8, 15, 16, 17, 127, 128, 200, 254, 255, 256, 257, 258, 298, 299)


def make_cases(seed, vocab, lengths=LENGTHS):
    rng = random.Random(seed)
    cases = []
    for n in lengths:
        ids = [rng.randrange(vocab) for _ in range(n)]
        rows = list(range(n)) if n <= 40 else [r for r in LONG_ROWS if r < n]
        cases.append({"name": f"len{n}", "token_ids": ids, "rows": rows})
    return cases


@torch.no_grad()
def logits_of(model, ids, **kwargs):
    out = model(input_ids=torch.tensor([ids]), use_cache=False, **kwargs).logits[0]
    return out.to(torch.float32).numpy()


def write_reference(folder, model, cases, note, stem="reference", **kwargs):
    """Computes and writes the logits. The model must be f32 and eager; returns {name: [rows, vocab]}.

    The same cases are computed again in f64 (only the norms' and softmax's inner steps stay f32): if rounding alone
    moved a logit by 1e-5 of the largest, the checkpoint would be too badly conditioned to serve as a reference.
    """
    assert model.dtype == torch.float32 and model.config._attn_implementation == "eager"
    model.eval()
    full = {c["name"]: logits_of(model, c["token_ids"], **kwargs) for c in cases}
    model.double()
    worst = 0.0
    for c in cases:
        exact = logits_of(model, c["token_ids"], **kwargs)
        worst = max(worst, float(np.abs(exact - full[c["name"]]).max() / np.abs(exact).max()))
    model.float()
    assert worst < 1e-5, f"f32 and f64 logits differ by {worst:.2e} of the largest"
    offset = 0
    parts, table = [], []
    for c in cases:
        rows = full[c["name"]][c["rows"]].astype("<f4")
        assert np.isfinite(rows).all()
        table.append({**c, "offset": offset})
        parts.append(rows.ravel())
        offset += rows.size
    np.concatenate(parts).tofile(folder / f"{stem}.bin")
    vocab = int(next(iter(full.values())).shape[1])
    with open(folder / f"{stem}.json", "w", encoding="utf-8") as f:
        f.write('{"vocab_size": %d, "logits_file": %s, "note": %s,\n "cases": [\n' %
                (vocab, json.dumps(f"{stem}.bin"), json.dumps(note)))
        f.write(",\n".join("  " + json.dumps(c) for c in table))
        f.write("\n ]}\n")
    spread = np.concatenate([v.ravel() for v in full.values()])
    print(f"  {stem}: {len(cases)} cases, {offset} logits, std {spread.std():.2f}, f32 against f64 {worst:.1e}")
    return full
