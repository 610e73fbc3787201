#!/usr/bin/env python3
"""Makes the tiny random checkpoints tests/golden/tiny-*/ and their reference logits.

    python3 -m venv VENV && VENV/bin/pip install -r tests/golden/requirements.txt
    VENV/bin/python tests/golden/make_checkpoints.py [NAME ...]

Each folder is a Hugging Face model directory (config.json in the style that family's published checkpoints have,
safetensors, tokenizer.json, tokenizer_config.json) plus reference.json and reference.bin (see reference_io.py).
The references are computed by `transformers` from the written directory, weights widened to f32, eager attention.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import reference_io
import tiny_tokenizers as tt

HERE = pathlib.Path(__file__).resolve().parent

CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
          "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
LLAMA2 = ("{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
          "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
          "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
          "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}")
LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
          "message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}"
          "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}")
GEMMA = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
         "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + "
         "message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}")

CHATML_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]

# name: what differs from DEFAULTS. `config` is config.json as written; `tokenizer` makes tokenizer.json.
DEFAULTS = {"dtype": "float32", "shards": 1, "model_kwargs": {}, "note": ""}
CHECKPOINTS = {
    "tiny-llama": {
        "config": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 384, "hidden_size": 64,
            "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "max_position_embeddings": 512,
            "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        },
        "tokenizer": lambda: tt.byte_level(
            "gpt2", 384, specials_first=CHATML_SPECIALS,
            extra=[AddedToken("<mask>", lstrip=True, normalized=False), AddedToken("Alice", single_word=True)]),
        "tokens": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "template": CHATML,
    },
    "tiny-llama-tied": {
        "config": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 512, "hidden_act": "silu", "tie_word_embeddings": True,
        },
        "dtype": "float16",
        "tokenizer": lambda: tt.sentencepiece_bpe("llama", 512),
        "tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "template": LLAMA2,
    },
    "tiny-llama3": {
        "config": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 416, "hidden_size": 64,
            "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 512,
            "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 64, "rope_type": "llama3"},
            "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        },
        "shards": 2,
        "tokenizer": lambda: tt.byte_level("llama-bpe", 405, specials_last=LLAMA3_SPECIALS, ignore_merges=True,
                                           bos="<|begin_of_text|>"),
        "tokens": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        "template": LLAMA3,
    },
    "tiny-mistral": {
        "config": {
            "architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": 512, "hidden_size": 96,
            "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
            "head_dim": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512,
            "sliding_window": 8, "hidden_act": "silu", "tie_word_embeddings": False,
        },
        "dtype": "bfloat16",
        "tokenizer": lambda: tt.unigram(512),
        "tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "template": None,
    },
    "tiny-qwen2": {
        "config": {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 411, "hidden_size": 64,
            "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "max_position_embeddings": 512, "sliding_window": 32,
            "use_sliding_window": False, "max_window_layers": 2, "hidden_act": "silu", "tie_word_embeddings": True,
        },
        "tokenizer": lambda: tt.byte_level("qwen2", 405, specials_last=CHATML_SPECIALS, nfc=True),
        "tokens": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "template": CHATML,
    },
    "tiny-qwen3": {
        "config": {
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 416, "hidden_size": 64,
            "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 32, "rms_norm_eps": 1e-6, "max_position_embeddings": 512,
            "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "attention_bias": False,
            "sliding_window": None, "use_sliding_window": False, "max_window_layers": 2, "hidden_act": "silu",
            "tie_word_embeddings": False,
        },
        "tokenizer": lambda: tt.byte_level("qwen2", 405, specials_last=CHATML_SPECIALS, nfc=True),
        "tokens": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "template": CHATML,
    },
    "tiny-gemma3": {
        "config": {
            "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": 512, "hidden_size": 64,
            "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 1,
            "head_dim": 32, "query_pre_attn_scalar": 24, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0, "rope_scaling": None, "sliding_window": 16, "sliding_window_pattern": 3,
            "max_position_embeddings": 512, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False,
            "attn_logit_softcapping": None, "final_logit_softcapping": None,
        },
        "tokenizer": lambda: tt.sentencepiece_bpe("gemma", 512),
        "tokens": {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
        "template": GEMMA,
    },
    "tiny-gemma3-softcap": {
        "config": {
            "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": 512, "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 32, "query_pre_attn_scalar": 32, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0, "rope_scaling": None, "sliding_window": 8,
            "_sliding_window_pattern": 6, "layer_types": ["sliding_attention", "full_attention"],
            "use_bidirectional_attention": False, "max_position_embeddings": 512,
            "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 3.0,
        },
        # The library's Gemma 3 keeps this setting but leaves it to the caller to pass it on to the attention function.
        "model_kwargs": {"softcap": 1.5},
        "note": "attn_logit_softcapping is applied as config.json asks (passed to transformers' attention as softcap)",
        "tokenizer": lambda: tt.sentencepiece_bpe("gemma", 512),
        "tokens": {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
        "template": GEMMA,
    },
}


def randomize(model, seed):
    """Weights that give varied activations: unit gain through matrices, sharper attention, norms away from 1."""
    gen = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma")
    for name, p in sorted(model.named_parameters()):
        r = torch.randn(p.shape, generator=gen, dtype=torch.float32)
        if name.endswith("bias"):
            p.data = 0.3 * r
        elif p.dim() == 1:
            p.data = 0.25 * r + (0.0 if gemma else 1.0)
        elif "embed_tokens" in name:
            p.data = r * (0.3 if gemma or model.config.tie_word_embeddings else 1.0)
        else:
            gain = 1.5 if "q_proj" in name or "k_proj" in name else 2.0 if "lm_head" in name else 1.0
            p.data = r * gain / np.sqrt(p.shape[1])
    model.tie_weights()


def save_weights(folder, model, dtype, shards):
    tied = model.config.tie_word_embeddings
    state = {k: v.detach().to(getattr(torch, dtype)).contiguous() for k, v in model.state_dict().items()
             if not (tied and k == "lm_head.weight")}
    names = sorted(state)
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
        save_file({n: state[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in state.values())},
             "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def save_tokenizer(folder, spec):
    tok = spec["tokenizer"]()
    (folder / "tokenizer.json").write_text(tok.to_str(pretty=False) + "\n", encoding="utf-8")
    added = {str(i): {"content": t.content, "lstrip": t.lstrip, "normalized": t.normalized, "rstrip": t.rstrip,
                      "single_word": t.single_word, "special": t.special}
             for i, t in sorted(tok.get_added_tokens_decoder().items())}
    config = {"added_tokens_decoder": added, "clean_up_tokenization_spaces": False, "model_max_length": 512,
              "tokenizer_class": "PreTrainedTokenizerFast", **spec["tokens"]}
    if spec["template"]:
        config["chat_template"] = spec["template"]
    text = json.dumps(config, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    assert tok.get_vocab_size() <= spec["config"]["vocab_size"], (tok.get_vocab_size(), folder)
    assert AutoTokenizer.from_pretrained(folder)("Alice said hello")["input_ids"]
    return tok


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def check_matters(folder, spec, cases, full):
    """Each special feature must change the logits, or the reference would not notice its absence."""
    changes = []
    config = spec["config"]
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        changes.append(("sliding_window", {"sliding_window": 4096}))
    if config.get("rope_scaling"):
        changes.append(("rope_scaling", {"rope_parameters": {"rope_type": "default",
                                                             "rope_theta": config["rope_theta"]}}))
    if config.get("final_logit_softcapping"):
        changes.append(("final_logit_softcapping", {"final_logit_softcapping": None}))
    long = max(cases, key=lambda c: len(c["token_ids"]))
    want = full[long["name"]]
    for what, values in changes:
        model_config = AutoConfig.from_pretrained(folder)
        for key, value in values.items():
            setattr(model_config, key, value)
        model = AutoModelForCausalLM.from_pretrained(folder, config=model_config, dtype=torch.float32,
                                                     attn_implementation="eager")
        got = reference_io.logits_of(model, long["token_ids"], **spec["model_kwargs"])
        moved = float(np.abs(got - want).max() / np.abs(want).max())
        assert moved > 1e-2, f"{what} moves the logits by only {moved:.1e}"
        print(f"  without {what} the logits move by {moved:.2f}")
    if spec["model_kwargs"]:
        moved = float(np.abs(reference_io.logits_of(load(folder), long["token_ids"]) - want).max() / np.abs(want).max())
        assert moved > 1e-2, f"{spec['model_kwargs']} moves the logits by only {moved:.1e}"
        print(f"  without {spec['model_kwargs']} the logits move by {moved:.2f}")


def make(name, seed):
    spec = {**DEFAULTS, **CHECKPOINTS[name]}
    print(name)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    v5 = "rope_parameters" in spec["config"]
    config = {**spec["config"], ("dtype" if v5 else "torch_dtype"): spec["dtype"]}
    tok = save_tokenizer(folder, spec)
    for key in ("bos_token", "eos_token", "pad_token"):
        text = spec["tokens"].get(key)
        config[key + "_id"] = tok.token_to_id(text) if text else None
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32,
                                             attn_implementation="eager")
    randomize(model, seed)
    save_weights(folder, model, spec["dtype"], spec["shards"])
    for file in folder.iterdir():
        file.chmod(0o644)
    cases = reference_io.make_cases(name, spec["config"]["vocab_size"])
    full = reference_io.write_reference(folder, load(folder), cases, spec["note"], **spec["model_kwargs"])
    check_matters(folder, spec, cases, full)


def main():
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or list(CHECKPOINTS)
    for name in wanted:
        make(name, 1000 + list(CHECKPOINTS).index(name))


if __name__ == "__main__":
    main()
