#!/usr/bin/env python3
"""Makes tiny GGUF files with reference logits, and blocks of every quantized type with what they mean.

    python3 -m venv VENV && VENV/bin/pip install -r tests/golden/requirements.txt
    VENV/bin/python tests/golden/make_gguf.py

Writes tests/golden/gguf/NAME.gguf with NAME.json and NAME.bin (see reference_io.py), and quant_blocks.json and .bin.
Metadata keys, tensor names and the q/k row order are those of the format as published models use it. The references
are computed by `transformers` from the dequantized tensors of the written file.

quant_blocks.json: {"types": [{"name", "ggml_type", "block_elements", "block_bytes", "blocks", "raw_offset",
"values_offset"}]}; offsets are in bytes into quant_blocks.bin: `blocks` raw blocks, then (at values_offset, a
multiple of 4) blocks * block_elements little-endian f32.
"""

import json
import pathlib
import shutil

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type

import gguf_load
import kquants
import reference_io
import tiny_tokenizers as tt
from make_checkpoints import CHATML, CHATML_SPECIALS, LLAMA3_SPECIALS, randomize

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "gguf"
LENGTHS = (1, 7, 33, 300)

LLAMA = {"vocab_size": 288, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": False}
# Rows of K types hold multiples of 256.
WIDE = {**LLAMA, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 8,
        "num_key_value_heads": 1, "head_dim": 32, "tie_word_embeddings": True}
QWEN2 = {**LLAMA, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
QWEN3 = {**LLAMA, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "head_dim": 32}
GEMMA3 = {"vocab_size": 384, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7,
          "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32,
          "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "sliding_window": 16,
          "sliding_window_pattern": 6, "max_position_embeddings": 512, "tie_word_embeddings": True}
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

# name: (architecture, config, type of the matrices, type of the embedding and output, tokenizer, extras)
FILES = {}
for _t in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
    FILES[f"llama-{_t.lower()}"] = ("llama", LLAMA, _t, _t, "smollm", {})
for _t in ("Q4_K", "Q5_K", "Q6_K"):
    FILES[f"llama-{_t.lower()}"] = ("llama", WIDE, _t, _t, "smollm", {})
FILES["llama3-rope-q8_0"] = ("llama", {**LLAMA, "rope_theta": 500000.0}, "Q8_0", "F16", "llama-bpe",
                             {"rope": LLAMA3_ROPE})
FILES["qwen2-q8_0"] = ("qwen2", QWEN2, "Q8_0", "Q8_0", "qwen2", {"alignment": 64})
FILES["qwen3-f16"] = ("qwen3", QWEN3, "F16", "F32", "qwen2", {})
FILES["gemma3-mixed"] = ("gemma3", GEMMA3, ("Q5_0", "Q8_0", "Q4_1", "BF16"), "Q8_0", "gemma", {})


def to_gguf_name(arch, name):
    for gguf_part, hf_part in gguf_load.BLOCK_NAMES.items():
        for i in range(16):
            for kind in ("weight", "bias"):
                ours = f"blk.{i}.{gguf_part}.{kind}"
                if gguf_load.hf_name(arch, ours) == name and not (
                        arch != "gemma3" and gguf_part == "post_attention_norm"):
                    return ours
    return {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight",
            "model.norm.weight": "output_norm.weight"}[name]


def permute(rows, n_head):
    """Halves (i, i + d/2) of each head's rows to interleaved rotary pairs, as the llama architecture stores q and k."""
    half = rows.shape[0] // n_head // 2
    return np.ascontiguousarray(rows.reshape(n_head, 2, half, -1).swapaxes(1, 2).reshape(rows.shape))


def quantize(data, type_name):
    if type_name in kquants.QUANTIZERS:
        raw = kquants.quantize(type_name, data)
    else:
        raw = gguf.quants.quantize(data.astype(np.float32), Type[type_name])
    back = gguf.quants.dequantize(raw, Type[type_name])
    error = float(np.abs(back - data).max() / np.abs(data).max())
    assert error < 0.15, f"{type_name} loses {error:.2f}"
    return raw


def write_tokenizer(w, kind, size):
    """Returns nothing; the vocabulary has exactly `size` entries, padded with unused ones."""
    normal, unknown, control, user, byte = 1, 2, 3, 4, 6
    if kind == "gemma":
        tok = tt.sentencepiece_bpe("gemma", size)
    elif kind == "llama-bpe":
        tok = tt.byte_level("llama-bpe", size - 3, specials_last=LLAMA3_SPECIALS, ignore_merges=True)
    elif kind == "qwen2":
        tok = tt.byte_level("qwen2", size - 3, specials_last=CHATML_SPECIALS)
    else:
        tok = tt.byte_level(kind, size - 3, specials_first=CHATML_SPECIALS)
    names = [tok.id_to_token(i) for i in range(tok.get_vocab_size())]
    types = []
    for name in names:
        if name.startswith("<0x"):
            types.append(byte)
        elif name == "<unk>":
            types.append(unknown if kind != "gemma" else control)
        else:
            types.append(control if tok.token_to_id(name) in tok.get_added_tokens_decoder() else normal)
    while len(names) < size:
        types.append(5)
        names.append(f"[PAD{len(names)}]")
    model = json.loads(tok.to_str())["model"]
    w.add_tokenizer_model("llama" if kind == "gemma" else "gpt2")
    w.add_tokenizer_pre("default" if kind == "gemma" else kind)
    if kind == "gemma":
        # The score of a piece is minus the rank of the merge that makes it, as SentencePiece trains them.
        rank = {}
        for i, (a, b) in enumerate(model["merges"]):
            rank.setdefault(a + b, i)
        scores = [-1000.0 if t != normal else -float(rank.get(n, len(rank) + 100)) for n, t in zip(names, types)]
        for i, name in enumerate(names):
            if name in ("\n", "\n\n", "▁▁", "▁▁▁▁"):
                names[i], types[i], scores[i] = name.replace("▁", " "), user, -1000.0
        w.add_token_list(names)
        w.add_token_scores(scores)
        w.add_token_types(types)
        w.add_bos_token_id(names.index("<bos>"))
        w.add_eos_token_id(names.index("<eos>"))
        w.add_unk_token_id(names.index("<unk>"))
        w.add_pad_token_id(names.index("<pad>"))
        w.add_add_bos_token(True)
        w.add_add_eos_token(False)
        w.add_add_space_prefix(False)
        return
    w.add_token_list(names)
    w.add_token_types(types)
    w.add_token_merges([f"{a} {b}" for a, b in model["merges"]])
    if kind == "llama-bpe":
        w.add_bos_token_id(names.index("<|begin_of_text|>"))
        w.add_eos_token_id(names.index("<|eot_id|>"))
        w.add_add_bos_token(True)
    else:
        w.add_bos_token_id(names.index("<|im_start|>"))
        w.add_eos_token_id(names.index("<|im_end|>"))
        w.add_add_bos_token(False)
        w.add_add_space_prefix(False)
        w.add_chat_template(CHATML)


def rope_factors(config, rope):
    """The divisors of the rotary frequencies that llama 3 files carry in rope_freqs.weight."""
    dim = config["head_dim"]
    freqs = 1.0 / rope["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    old, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for wavelength in 2 * np.pi / freqs:
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(rope["factor"])
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def make_file(name, seed):
    arch, config, matrix_types, table_type, tokenizer, extras = FILES[name]
    overrides = {"rope_parameters": extras["rope"]} if "rope" in extras else {}
    hf_config = gguf_load.CLASSES[arch][0](**{**config, **overrides})
    hf_config._attn_implementation = "eager"
    model = gguf_load.CLASSES[arch][1](hf_config).float()
    randomize(model, seed)
    path = OUT / f"{name}.gguf"
    w = gguf.GGUFWriter(path, arch)
    if "alignment" in extras:
        w.add_custom_alignment(extras["alignment"])
    w.add_name(name)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(config["num_attention_heads"])
    w.add_head_count_kv(config["num_key_value_heads"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_freq_base(config["rope_theta"])
    if arch == "llama":
        w.add_rope_dimension_count(config["head_dim"])
        w.add_vocab_size(config["vocab_size"])
    if arch in ("qwen3", "gemma3"):
        w.add_key_length(config["head_dim"])
        w.add_value_length(config["head_dim"])
    if arch == "gemma3":
        w.add_sliding_window(config["sliding_window"])
    write_tokenizer(w, tokenizer, config["vocab_size"])
    state = {k: v.detach().numpy() for k, v in model.state_dict().items()
             if not (config["tie_word_embeddings"] and k == "lm_head.weight")}
    if "rope" in extras:
        w.add_tensor("rope_freqs.weight", rope_factors(config, extras["rope"]))
    matrices = [matrix_types] if isinstance(matrix_types, str) else list(matrix_types)
    for i, key in enumerate(sorted(state)):
        data = state[key].astype(np.float32)
        ours = to_gguf_name(arch, key)
        if arch == "gemma3" and ours.endswith("norm.weight"):
            data = data + np.float32(1)
        if arch == "llama" and ours.endswith(("attn_q.weight", "attn_k.weight")):
            data = permute(data, config["num_attention_heads" if "attn_q" in ours else "num_key_value_heads"])
        kind = "F32"
        if data.ndim == 2:
            kind = table_type if ours in ("token_embd.weight", "output.weight") else matrices[i % len(matrices)]
        w.add_tensor(ours, quantize(data, kind), raw_dtype=Type[kind])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    loaded, _ = gguf_load.load(path, **overrides)
    if matrix_types == "F32":
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, model.state_dict()[key]), key
    print(f"{name}: {path.stat().st_size} bytes")
    cases = reference_io.make_cases(name, config["vocab_size"], LENGTHS)
    cases[-1]["rows"] = [0, 15, 16, 17, 255, 256, 257, 299]
    reference_io.write_reference(OUT, loaded, cases, "", stem=name)


def f16_field(rng, n):
    """Finite f16 scales as bytes: mostly ordinary, some zero, negative, subnormal and large."""
    values = rng.normal(0, 0.05, n).astype(np.float16)
    pick = rng.integers(0, 16, n)
    values[pick == 0] = 0.0
    values[pick == 1] = np.float16(6e-8)
    values[pick == 2] = np.float16(-3e-5)
    values[pick == 3] = np.float16(100.0)
    return values.view(np.uint8).reshape(n, 2)


# Where each type's f16 scales lie in a block.
SCALE_OFFSETS = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2],
                 "Q5_K": [0, 2], "Q6_K": [208]}


def make_blocks(count=32):
    rng = np.random.default_rng(7)
    parts, table, offset = [], [], 0
    for name, places in SCALE_OFFSETS.items():
        elements, size = gguf.GGML_QUANT_SIZES[Type[name]]
        raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for place in places:
            raw[:, place:place + 2] = f16_field(rng, count)
        raw[0, :] = np.where(np.isin(np.arange(size), [p + b for p in places for b in (0, 1)]), raw[0], 0)
        raw[1, :] = np.where(np.isin(np.arange(size), [p + b for p in places for b in (0, 1)]), raw[1], 255)
        values = gguf.quants.dequantize(raw, Type[name]).astype("<f4").reshape(count, elements)
        assert np.isfinite(values).all()
        pad = -(offset + raw.size) % 4
        table.append({"name": name, "ggml_type": int(Type[name]), "block_elements": elements, "block_bytes": size,
                      "blocks": count, "raw_offset": offset, "values_offset": offset + raw.size + pad})
        parts += [raw.tobytes(), b"\0" * pad, values.tobytes()]
        offset += raw.size + pad + values.nbytes
    (HERE / "quant_blocks.bin").write_bytes(b"".join(parts))
    rows = ",\n".join("  " + json.dumps(t) for t in table)
    (HERE / "quant_blocks.json").write_text('{"types": [\n' + rows + "\n]}\n")


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for i, name in enumerate(FILES):
        make_file(name, 2000 + i)
    make_blocks()


if __name__ == "__main__":
    main()
