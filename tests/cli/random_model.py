"""A checkpoint of random weights: random_model.py DIR ARCH HEADS KV_HEADS HEAD_DIM [KEY=VALUE…]

For shapes that the tiny checkpoints of tests/golden do not have. No tokenizer. KEY=VALUE (JSON) go
into config.json.
"""
import array, json, os, random, struct, sys

directory, arch, heads, kv_heads, dim = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
hidden, ffn, vocab, layers = 96, 160, 200, 2
config = {
    "model_type": arch, "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": ffn,
    "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
    "head_dim": dim, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512,
    "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "float32",
    "bos_token_id": 1, "eos_token_id": 2,
}
for pair in sys.argv[6:]:
    key, value = pair.split("=")
    config[key] = json.loads(value)
shapes = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden],
          "lm_head.weight": [vocab, hidden]}
for i in range(layers):
    at = f"model.layers.{i}."
    for name, rows in (("q", heads * dim), ("k", kv_heads * dim), ("v", kv_heads * dim)):
        shapes[f"{at}self_attn.{name}_proj.weight"] = [rows, hidden]
        if arch == "qwen2":
            shapes[f"{at}self_attn.{name}_proj.bias"] = [rows]
    shapes[f"{at}self_attn.o_proj.weight"] = [hidden, heads * dim]
    for name in ("gate", "up"):
        shapes[f"{at}mlp.{name}_proj.weight"] = [ffn, hidden]
    shapes[f"{at}mlp.down_proj.weight"] = [hidden, ffn]
    for name in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"{at}{name}.weight"] = [hidden]
    if arch == "qwen3":
        for name in ("q", "k"):
            shapes[f"{at}self_attn.{name}_norm.weight"] = [dim]
random.seed(1)
header, blobs, end = {}, [], 0
for name, shape in shapes.items():
    n = shape[0] * (shape[1] if len(shape) > 1 else 1)
    mean, spread = (1, 0.1) if "norm" in name else (0, 0.15)
    data = array.array("f", (random.gauss(mean, spread) for _ in range(n))).tobytes()
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(data)]}
    blobs.append(data)
    end += len(data)
os.makedirs(directory, exist_ok=True)
with open(os.path.join(directory, "config.json"), "w") as f:
    json.dump(config, f)
text = json.dumps(header).encode()
with open(os.path.join(directory, "model.safetensors"), "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
