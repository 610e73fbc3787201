#!/usr/bin/env python3
"""Makes the tiny FP8 checkpoints tests/golden/tiny-*-fp8/ and their reference logits.

  pip install numpy; python3 tests/golden/make_fp8.py

tiny-qwen3-fp8: quant_method fp8 as DeepSeek and Qwen write it: blocks of 128 rows and 128 k with a scale each in
weight_scale_inv (bf16), the last block of a row and of a column ragged; lm_head and the embedding in bf16.
tiny-llama-fp8: compressed-tensors' float-quantized, a scale a row in weight_scale (f32), k_proj with one for the
tensor, and a static scale of activations, which is not used; f32 otherwise.

The reference is a forward pass in f64 by numpy, on weights = codes * scales, which is first held against the
logits that transformers computed of tiny-qwen3 and tiny-llama. The files have reference_io.py's format.
"""

import json
import math
import random
import shutil
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LENGTHS = (1, 2, 17, 40)


# --- codes: OCP's 8-bit floating point specification, e4m3: sign, 4 bits of exponent (bias 7), 3 of mantissa ---

def e4m3_values():
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    value = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10.0), mantissa * 2.0**-9)
    value[codes & 127 == 127] = np.nan
    return np.where(codes & 128, -value, value)


VALUES = e4m3_values()


def nearest_codes(x):
    table = VALUES[:127]
    at = np.clip(np.searchsorted(table, np.abs(x)), 1, 126)
    lower = np.abs(x) - table[at - 1] <= table[at] - np.abs(x)
    return (at - lower + np.where(x < 0, 128, 0)).astype(np.uint8)


def to_bf16(x):
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(h):
    return (h.astype(np.uint32) << 16).view(np.float32)


# --- safetensors, by hand: numpy has neither type ---

def read_safetensors(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    out = {}
    for name, t in json.loads(raw[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = t["data_offsets"]
        data = raw[8 + length + begin:8 + length + end]
        assert t["dtype"] == "F32"
        out[name] = np.frombuffer(data, "<f4").reshape(t["shape"])
    return out


def write_safetensors(path, tensors):
    header, at, parts = {"__metadata__": {"format": "pt"}}, 0, []
    for name, (dtype, array) in sorted(tensors.items()):
        data = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


# --- the model: llama, or qwen3 with its norms of queries and keys ---

def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, theta):
    """x [tokens, heads, dim]: pairs i, i + dim/2."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[0])[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def logits_of(w, c, ids):
    eps, heads, kv_heads = c["rms_norm_eps"], c["num_attention_heads"], c["num_key_value_heads"]
    dim = c.get("head_dim", c["hidden_size"] // heads)
    theta = c["rope_parameters"]["rope_theta"] if "rope_parameters" in c else c["rope_theta"]
    n = len(ids)
    hidden = np.where(np.arange(n)[None] > np.arange(n)[:, None], -np.inf, 0)
    x = w["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        y = rms_norm(x, w[p + "input_layernorm.weight"], eps)
        q, k, v = ((y @ w[p + f"self_attn.{name}_proj.weight"].T).reshape(n, -1, dim) for name in "qkv")
        if p + "self_attn.q_norm.weight" in w:
            q = rms_norm(q, w[p + "self_attn.q_norm.weight"], eps)
            k = rms_norm(k, w[p + "self_attn.k_norm.weight"], eps)
        q, k = rotate(q, theta), rotate(k, theta)
        k, v = (np.repeat(a, heads // kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("thd,shd->hts", q, k) / math.sqrt(dim) + hidden
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        y = np.einsum("hts,shd->thd", scores, v).reshape(n, -1)
        x = x + y @ w[p + "self_attn.o_proj.weight"].T
        y = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
        gate, up = y @ w[p + "mlp.gate_proj.weight"].T, y @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    return rms_norm(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T


def in_f64(tensors):
    return {name: np.asarray(t, np.float64) for name, t in tensors.items()}


def check_against_transformers(name):
    folder = HERE / name
    config = json.loads((folder / "config.json").read_text())
    weights = in_f64(read_safetensors(folder / "model.safetensors"))
    reference = json.loads((folder / "reference.json").read_text())
    want = np.fromfile(folder / "reference.bin", "<f4")
    for case in reference["cases"]:
        got = logits_of(weights, config, case["token_ids"])[case["rows"]].ravel()
        expected = want[case["offset"]:case["offset"] + got.size]
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error < 1e-5, (name, case["name"], error)
    print(f"{name}: as transformers computes it")


# --- checkpoints ---

def random_weights(config, seed):
    rng = np.random.default_rng(seed)
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
              "self_attn.o_proj": (hidden, q), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
              "mlp.down_proj": (hidden, ffn)}
    w = {"model.embed_tokens.weight": rng.standard_normal((vocab, hidden)),
         "lm_head.weight": rng.standard_normal((vocab, hidden)) * 2 / math.sqrt(hidden),
         "model.norm.weight": 1 + 0.25 * rng.standard_normal(hidden)}
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            w[p + name + ".weight"] = 1 + 0.25 * rng.standard_normal(hidden)
        if config["model_type"] == "qwen3":
            for name in "qk":
                w[p + f"self_attn.{name}_norm.weight"] = 1 + 0.25 * rng.standard_normal(config["head_dim"])
        for name, shape in shapes.items():
            # rows and columns of different sizes, so that a scale in the wrong place is noticed
            sizes = np.exp(0.5 * rng.standard_normal((shape[0], 1))) * np.exp(0.5 * rng.standard_normal((1, shape[1])))
            w[p + name + ".weight"] = rng.standard_normal(shape) * sizes / math.sqrt(shape[1])
    return w


def block_maximum(x, rows, cols):
    return np.array([[np.abs(x[r:r + rows, c:c + cols]).max() for c in range(0, x.shape[1], cols)]
                     for r in range(0, x.shape[0], rows)])


def spread(scales, shape, rows, cols):
    return np.repeat(np.repeat(scales, rows, 0), cols, 1)[:shape[0], :shape[1]]


def quantize(x, rows, cols, scale_type):
    """Codes, stored scales, and what both stand for."""
    scales = block_maximum(x, rows, cols) / 448
    stored = to_bf16(scales) if scale_type == "BF16" else scales.astype(np.float32)
    scales = (from_bf16(stored) if scale_type == "BF16" else stored).astype(np.float64)
    whole = spread(scales, x.shape, rows, cols)
    codes = nearest_codes(np.clip(x / whole, -448, 448))
    return codes, stored, VALUES[codes] * whole


def plain(x, dtype):
    if dtype == "BF16":
        stored = to_bf16(x)
        return ("BF16", stored), from_bf16(stored).astype(np.float64)
    return ("F32", x.astype("<f4")), x.astype("<f4").astype(np.float64)


def make(name, config, tokenizer, seed, dtype, scheme):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(HERE / tokenizer / file, folder / file)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors, weights = {}, {}
    for key, x in random_weights(config, seed).items():
        if "_proj" not in key:
            tensors[key], weights[key] = plain(x, dtype)
            continue
        rows, cols, suffix, scale_type = scheme(key, x)
        codes, scales, weights[key] = quantize(x, rows, cols, scale_type)
        tensors[key] = ("F8_E4M3", codes)
        tensors[key + suffix] = (scale_type, scales.reshape(-1) if scales.size == 1 else scales)
        if "k_proj" in key and scale_type == "F32":
            tensors[key.replace(".weight", ".input_scale")] = ("F32", np.array([0.125], "<f4"))
    write_safetensors(folder / "model.safetensors", tensors)
    rng, table, parts, offset = random.Random(name), [], [], 0
    for n in LENGTHS:
        ids = [rng.randrange(config["vocab_size"]) for _ in range(n)]
        rows = list(range(n)) if n <= 17 else [0, 15, 16, 17, n - 1]
        logits = logits_of(weights, config, ids)[rows].astype("<f4")
        assert np.isfinite(logits).all()
        table.append({"name": f"len{n}", "token_ids": ids, "rows": rows, "offset": offset})
        parts.append(logits.ravel())
        offset += logits.size
    np.concatenate(parts).tofile(folder / "reference.bin")
    with open(folder / "reference.json", "w", encoding="utf-8") as f:
        f.write('{"vocab_size": %d, "logits_file": "reference.bin", "note": "numpy, f64, by make_fp8.py",\n "cases": [\n'
                % config["vocab_size"])
        f.write(",\n".join("  " + json.dumps(c) for c in table) + "\n ]}\n")
    print(f"{name}: {offset} logits, std {np.concatenate(parts).std():.2f}")


def main():
    check_against_transformers("tiny-qwen3")
    check_against_transformers("tiny-llama")
    qwen3 = json.loads((HERE / "tiny-qwen3/config.json").read_text())
    qwen3.update(hidden_size=160, intermediate_size=288, num_hidden_layers=1, dtype="bfloat16")
    qwen3["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                    "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}
    make("tiny-qwen3-fp8", qwen3, "tiny-qwen3", 21, "BF16", lambda key, x: (128, 128, "_scale_inv", "BF16"))
    llama = json.loads((HERE / "tiny-llama/config.json").read_text())
    llama.update(head_dim=llama["hidden_size"] // llama["num_attention_heads"])
    llama["quantization_config"] = {
        "config_groups": {"group_0": {
            "input_activations": {"dynamic": True, "num_bits": 8, "strategy": "token", "symmetric": True, "type": "float"},
            "output_activations": None, "targets": ["Linear"],
            "weights": {"block_structure": None, "dynamic": False, "group_size": None, "num_bits": 8,
                        "strategy": "channel", "symmetric": True, "type": "float"}}},
        "format": "float-quantized", "ignore": ["lm_head"], "kv_cache_scheme": None,
        "quant_method": "compressed-tensors", "quantization_status": "compressed"}
    make("tiny-llama-fp8", llama, "tiny-llama", 22, "F32",
         lambda key, x: (x.shape[0] if "k_proj" in key else 1, x.shape[1], "_scale", "F32"))


if __name__ == "__main__":
    main()
