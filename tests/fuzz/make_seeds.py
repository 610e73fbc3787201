#!/usr/bin/env python3
"""Writes the hand-made seeds of the corpora: models of a few kilobytes, since a fuzzer learns little from large ones.

    python3 tests/fuzz/make_seeds.py

Needs nothing but Python. Writes tests/fuzz/corpus/fuzz_{gguf,gguf_model,safetensors,artifact,template,plan,grammar}/seed-*;
the other files beside them were found by fuzzing. The formats are written out here by hand, so that the seeds do not depend on the
readers they test.
"""

import json
import pathlib
import random
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
BLOCK = {F32: (1, 4), F16: (1, 2), Q4_0: (32, 18), Q8_0: (32, 34)}
HIDDEN, FFN, HEADS, KV_HEADS, VOCAB = 32, 32, 2, 1, 20


def string(text):
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(v):
    """A typed metadata value: the type's number and its bytes."""
    if isinstance(v, bool):
        return BOOL, struct.pack("<?", v)
    if isinstance(v, int):
        return UINT32, struct.pack("<I", v)
    if isinstance(v, float):
        return FLOAT32, struct.pack("<f", v)
    if isinstance(v, str):
        return STRING, string(v)
    kind = INT32 if isinstance(v[0], int) else value(v[0])[0]
    items = b"".join(struct.pack("<i", i) if kind == INT32 else value(i)[1] for i in v)
    return ARRAY, struct.pack("<IQ", kind, len(v)) + items


def gguf(metadata, tensors):
    rng = random.Random(1)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, v in metadata.items():
        kind, raw = value(v)
        head += string(key) + struct.pack("<I", kind) + raw
    data = b""
    for name, (kind, dims) in tensors.items():
        n = 1
        for d in dims:
            n *= d
        elements, size = BLOCK[kind]
        head += string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        head += struct.pack("<IQ", kind, len(data))
        # Small integers, so that bytes make sense as f32, f16 and scales alike: no infinities.
        data += bytes(rng.choice((0, 1, 60)) for _ in range(n // elements * size))
        data += b"\0" * (-len(data) % 32)
    return head + b"\0" * (-len(head) % 32) + data


def model(arch, matrix, tokenizer, extra=(), extra_tensors=()):
    head_dim = HIDDEN // HEADS
    metadata = {
        "general.architecture": arch, "general.name": "seed", f"{arch}.block_count": 1,
        f"{arch}.context_length": 64, f"{arch}.embedding_length": HIDDEN, f"{arch}.feed_forward_length": FFN,
        f"{arch}.attention.head_count": HEADS, f"{arch}.attention.head_count_kv": KV_HEADS,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5, f"{arch}.rope.freq_base": 10000.0,
        **dict(extra), **tokenizer}
    tensors = {
        "token_embd.weight": (matrix, (HIDDEN, VOCAB)), "output_norm.weight": (F32, (HIDDEN,)),
        "blk.0.attn_norm.weight": (F32, (HIDDEN,)), "blk.0.ffn_norm.weight": (F32, (HIDDEN,)),
        "blk.0.attn_q.weight": (matrix, (HIDDEN, HIDDEN)),
        "blk.0.attn_k.weight": (matrix, (HIDDEN, KV_HEADS * head_dim)),
        "blk.0.attn_v.weight": (matrix, (HIDDEN, KV_HEADS * head_dim)),
        "blk.0.attn_output.weight": (matrix, (HIDDEN, HIDDEN)),
        "blk.0.ffn_gate.weight": (matrix, (HIDDEN, FFN)), "blk.0.ffn_up.weight": (matrix, (HIDDEN, FFN)),
        "blk.0.ffn_down.weight": (matrix, (FFN, HIDDEN)), **dict(extra_tensors)}
    return gguf(metadata, tensors)


def byte_level():
    tokens = ["<s>", "</s>"] + list("abcdefghijklmnop") + ["ab", "Ġa"]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3, 3] + [1] * (VOCAB - 2), "tokenizer.ggml.merges": ["a b", "Ġ a"],
            "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.add_bos_token": True,
            "tokenizer.chat_template": "{% for m in messages %}{{ m.role }}: {{ m['content'] }}\n{% endfor %}"}


def pieces(kind):
    tokens = ["<unk>", "<s>", "</s>", "▁", "▁a", "ab", "<0x0A>", "<0xC3>"] + list("abcdefghijkl")
    types = [2, 3, 3, 1, 1, 1, 6, 6] + [1] * (VOCAB - 8)
    return {"tokenizer.ggml.model": kind, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.scores": [-float(i) for i in range(VOCAB)], "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.add_space_prefix": True, "tokenizer.ggml.remove_extra_whitespaces": True}


def gguf_seeds():
    head_dim = HIDDEN // HEADS
    qk_norms = {"blk.0.attn_q_norm.weight": (F32, (head_dim,)), "blk.0.attn_k_norm.weight": (F32, (head_dim,))}
    biases = {"blk.0.attn_q.bias": (F32, (HIDDEN,)), "blk.0.attn_k.bias": (F32, (KV_HEADS * head_dim,)),
              "blk.0.attn_v.bias": (F32, (KV_HEADS * head_dim,))}
    norms = {"blk.0.post_attention_norm.weight": (F32, (HIDDEN,)), "blk.0.post_ffw_norm.weight": (F32, (HIDDEN,))}
    return {
        "llama-q4": model("llama", Q4_0, byte_level(), {"llama.rope.dimension_count": head_dim}),
        "qwen2-q8": model("qwen2", Q8_0, byte_level(), (), biases),
        "qwen3-f16": model("qwen3", F16, byte_level(), {"qwen3.attention.key_length": head_dim,
                                                      "qwen3.attention.value_length": head_dim}, qk_norms),
        "gemma3-q8": model("gemma3", Q8_0, pieces("llama"), {"gemma3.attention.sliding_window": 8},
                           {**qk_norms, **norms}),
        "llama-t5-q8": model("llama", Q8_0, pieces("t5"), {"llama.rope.dimension_count": head_dim},
                             {"rope_freqs.weight": (F32, (head_dim // 2,))}),
    }


def safetensors(tensors, metadata=None):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes(i % 61 for i in range(size))
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


def safetensors_seeds():
    return {
        "plain": safetensors({"a.weight": ("F32", [2, 3], 24), "b.weight": ("BF16", [4], 8)}, {"format": "pt"}),
        "kinds": safetensors({"scalar": ("F16", [], 2), "empty": ("F32", [0, 5], 0), "ids": ("I64", [2], 16),
                              "fp8": ("F8_E4M3", [3], 3), "\u00e9\n": ("U8", [1], 1)}),
        "none": safetensors({}),
    }


def artifact_seeds():
    """Input of fuzz_artifact: how to read the rest, then a footer, tables, or changes to sound tables."""
    def change(at, kind, number):
        return struct.pack("<HBQ", at, kind, number)
    # Section cuda: a header, then three spans of an offset and a count each.
    cuda = struct.pack("<II", 88, 1) + b"".join(struct.pack("<QII", 88, n, 0) for n in (1, 0, 0)) + bytes(33)
    return {
        "sound": b"\2",
        "cuda": b"\3" + cuda,
        "cuda-short": b"\3" + cuda[:40],
        "cuda-changes": b"\2" + b"".join(change(at, 3, (1 << 63) + at) for at in range(1688, 4184, 48)),
        "zero-footer": b"\0" + bytes(64),
        "short-tables": b"\1" + struct.pack("<II", 64, 1) + bytes(120),
        "changes": b"\2" + b"".join(change(at, 2, 1 << 31) for at in (8, 40, 72, 200, 400)),
        "counts": b"\2" + b"".join(change(at, 3, (1 << 64) - 1) for at in range(0, 128, 16)),
    }


def template_seeds():
    """The templates of real models, which also appear in the tests with what they render."""
    cases = json.loads((CORPUS.parent.parent / "golden" / "chat_templates.json").read_text())
    context = {"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True, "bos_token": "<s>"}
    return {case["name"]: case["template"].encode() + b"\0" + json.dumps(context).encode() for case in cases}


def plan_seeds():
    return {
        "full": b"modelcc-plan 1\nstrategy full\nmerge ab = a b\nkernel ab matmul = ab n n.quantize\n"
                b"kernel x rows = x\nkernel c matmul = c s m y\n# the rest\nkernel head matmul = head\n",
        "circle": b"modelcc-plan 1\nmerge h = head\nkernel k rows = n y\nkernel q rows = s m\n",
    }


def grammar_seeds():
    """The first byte says which reader: 0 JSON schema, 1 regular expression, 2 GBNF."""
    schema = {"type": "object", "required": ["a", "z"], "additionalProperties": {"type": "null"},
              "properties": {"a": {"type": "string", "maxLength": 5}, "b": {"$ref": "#/$defs/n"},
                             "c": {"enum": ["x", 1, None]}, "d": {"type": "number", "minimum": -3, "exclusiveMaximum": 17},
                             "e": {"type": "array", "prefixItems": [{"type": "integer"}], "items": False, "minItems": 1},
                             "f": {"oneOf": [{"const": 1}, {"type": "string", "pattern": "^[a-c]+$"}]}},
              "$defs": {"n": {"anyOf": [{"type": "integer", "minimum": 5, "maximum": 1234},
                                        {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 3}]}}}
    picks = bytes((37 * i + 5) % 256 for i in range(24))
    texts = {"schema": (0, json.dumps(schema)), "any": (0, "true"), "date": (0, '{"type": "string", "format": "date-time"}'),
             "regex": (1, r"^(?:[^\W\d]{2,4}|\u00e9+?|a{,3})[]x-z]*\.$"), "unicode": (1, "[\u00e9-\U0001f600]+"),
             "gbnf": (2, 'root ::= item ("," item)* # list\nitem ::= "[" root? "]" | [a-z\\]]{1,3} | . "\\x41"'),
             "ambiguous": (2, 'root ::= "a" root root | "b" | ""')}
    return {name: bytes([kind]) + text.encode() + b"\0" + picks for name, (kind, text) in texts.items()}


def main():
    seeds = {"fuzz_gguf_model": gguf_seeds(), "fuzz_safetensors": safetensors_seeds(),
             "fuzz_artifact": artifact_seeds(), "fuzz_template": template_seeds(), "fuzz_plan": plan_seeds(),
             "fuzz_grammar": grammar_seeds()}
    seeds["fuzz_gguf"] = {"llama-q4": seeds["fuzz_gguf_model"]["llama-q4"]}
    for target, files in seeds.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in files.items():
            (folder / f"seed-{name}").write_bytes(raw)


if __name__ == "__main__":
    main()
