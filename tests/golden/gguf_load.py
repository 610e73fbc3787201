"""A GGUF file as a `transformers` model in f32: the float reference for what the file's weights mean.

Every tensor is dequantized by the `gguf` package, renamed to the Hugging Face name, and brought back to Hugging Face
conventions: the llama architecture's q and k rows are stored with rotary pairs interleaved, gemma's norms with the 1
added. Only what the tests need is handled; anything else raises.
"""

import gguf
import numpy as np
import torch
from transformers import Gemma3TextConfig, LlamaConfig, Qwen2Config, Qwen3Config
from transformers import Gemma3ForCausalLM, LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
}

BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    # ffn_norm is the norm before the MLP; where there are post norms, Hugging Face calls it pre_feedforward_layernorm.
    "ffn_norm": "post_attention_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class Metadata:
    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.arch = self.get("general.architecture")

    def get(self, key, default=None):
        field = self.reader.fields.get(key)
        return default if field is None else field.contents()

    def of_arch(self, key, default=None):
        return self.get(f"{self.arch}.{key}", default)


def hf_name(arch, name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output.weight":
        return "lm_head.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, kind = name.split(".")
    target = BLOCK_NAMES[part]
    if arch == "gemma3" and part == "ffn_norm":
        target = "pre_feedforward_layernorm"
    return f"model.layers.{layer}.{target}.{kind}"


def unpermute(rows, n_head):
    """Interleaved rotary pairs (2i, 2i+1) back to halves (i, i + d/2), for each head's rows."""
    half = rows.shape[0] // n_head // 2
    return rows.reshape(n_head, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def make_config(meta, vocab, tied, overrides):
    m = meta.of_arch
    heads = m("attention.head_count")
    rope_factors = any(t.name == "rope_freqs.weight" for t in meta.reader.tensors)
    if rope_factors and "rope_parameters" not in overrides:
        raise ValueError("the file scales its rotary frequencies: pass rope_parameters")
    values = {
        "vocab_size": vocab,
        "hidden_size": m("embedding_length"),
        "intermediate_size": m("feed_forward_length"),
        "num_hidden_layers": m("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": m("attention.head_count_kv", heads),
        "head_dim": m("attention.key_length", m("embedding_length") // heads),
        "rms_norm_eps": m("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": m("context_length"),
        "rope_theta": m("rope.freq_base", 10000.0),
        "tie_word_embeddings": tied,
        "attention_bias": False,
    }
    if meta.arch == "gemma3":
        # What the format leaves unsaid for gemma3: five sliding layers and one global, local rotary base 10000.
        values.update(sliding_window=m("attention.sliding_window"), sliding_window_pattern=6,
                      rope_local_base_freq=10000.0, query_pre_attn_scalar=values["head_dim"])
    values.update(overrides)
    return CLASSES[meta.arch][0](**values)


def load(path, **overrides):
    """Returns (model in f32 with eager attention, metadata). Overrides replace values of the Hugging Face config."""
    meta = Metadata(path)
    state = {}
    for tensor in meta.reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        data = data.reshape([int(d) for d in reversed(tensor.shape)])
        if meta.arch == "llama" and tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            kind = "head_count" if "attn_q" in tensor.name else "head_count_kv"
            data = unpermute(data, meta.of_arch(f"attention.{kind}"))
        if meta.arch == "gemma3" and tensor.name.endswith("norm.weight"):
            data = data - np.float32(1)
        state[hf_name(meta.arch, tensor.name)] = torch.from_numpy(np.ascontiguousarray(data))
    tied = "lm_head.weight" not in state
    config = make_config(meta, state["model.embed_tokens.weight"].shape[0], tied, overrides)
    config._attn_implementation = "eager"
    model = CLASSES[meta.arch][1](config)
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    allowed = {"lm_head.weight"} if tied else set()
    assert set(missing) <= allowed and not unexpected, (missing, unexpected)
    assert not tied or model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    return model.eval(), meta
