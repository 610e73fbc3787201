#!/usr/bin/env python3
"""Makes chat_templates.json: chat templates, conversations, and the text that `transformers` renders.

    python3 -m venv VENV && VENV/bin/pip install -r tests/golden/requirements.txt
    VENV/bin/python tests/golden/make_templates.py [--smollm2 FILE.gguf]

The templates are written for this test, each in the manner of a family's published one: the same constructs, so that
what renders these renders those. Format: [{"name", "template", "bos_token", "eos_token", "cases": [{"messages",
"add_generation_prompt", "text" | "error"}]}]. "error" is there where the template itself refuses the conversation
(raise_exception), with its message. The entry "smollm2" is the template inside that GGUF file.
"""

import argparse
import json
import pathlib

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

import make_checkpoints as mc

HERE = pathlib.Path(__file__).resolve().parent

# name: (template, bos, eos)
TEMPLATES = {
    "chatml": (mc.CHATML, "<|im_start|>", "<|im_end|>"),
    "llama2-style": (mc.LLAMA2, "<s>", "</s>"),
    "llama3-style": (mc.LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
    "gemma-style": (mc.GEMMA, "<bos>", "<eos>"),
    # Whitespace control, a system message pulled out by slicing, defaults.
    "qwen2-style": ("""\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""", None, "<|im_end|>"),
    # A namespace, a reversed walk, string methods, an optional variable.
    "qwen3-style": ("""\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""", None, "<|im_end|>"),
    # Content as a string or a list of parts, alternation enforced, the system message folded into the first turn.
    "gemma3-style": ("""\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("conversation roles must alternate user/assistant") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
""", "<bos>", "<eos>"),
    # Llama 3.1's manner: optional settings with defaults, a system header always.
    "llama31-style": ("""\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""", "<|begin_of_text|>", "<|eot_id|>"),
    # Mistral's manner: the system message goes with the last user turn.
    "mistral-style": ("""\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('after the optional system message, roles must alternate') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
""", "<s>", "</s>"),
    # Blocks on lines of their own: trim_blocks and lstrip_blocks matter; a comment, tilde, nested loops, filters.
    "plain-lines": ("""\
{# roles in capitals #}
{% for m in messages %}
    {% if loop.first and not loop.last %}
[first]
    {% elif loop.last %}
[last of {{ loop.length }}, {{ loop.revindex }} left]
    {% endif %}
  {{ m.role | upper ~ ": " ~ m.content | default("(none)") }}
{% endfor %}
{{ "go" if add_generation_prompt else "stop" }}{{ ' ' -}}
   {{ messages | map(attribute='role') | join(', ') }} {{ 7 // 2 }} {{ 7 % 4 }} {{ [1, 2, 3] | length }}
""", None, None),
}

USER = {"role": "user", "content": "Hello there"}
REPLY = {"role": "assistant", "content": "  Hi!\n"}
SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONS = [
    [USER],
    [SYSTEM, USER],
    [USER, REPLY, {"role": "user", "content": " and \"quoted\" {{ braces }} é 你好 🙂 \n"}],
    [SYSTEM, USER, REPLY, {"role": "user", "content": ""}],
    [USER, {"role": "assistant", "content": "<think>\nwell\n</think>\n\nanswer"}],
    [USER, USER],
    [{"role": "assistant", "content": "I begin"}],
]


def render(template, messages, generate, bos, eos):
    extra = {k: v for k, v in (("bos_token", bos), ("eos_token", eos)) if v is not None}
    try:
        out = render_jinja_template(conversations=[messages], chat_template=template, add_generation_prompt=generate,
                                    **extra)
        return {"text": out[0][0]}
    except jinja2.exceptions.TemplateError as e:
        return {"error": str(e)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", required=False)
    args = parser.parse_args()
    templates = dict(TEMPLATES)
    file = HERE / "chat_templates.json"
    if args.smollm2:
        import gguf_load
        meta = gguf_load.Metadata(args.smollm2)
        names = meta.get("tokenizer.ggml.tokens")
        templates["smollm2"] = (meta.get("tokenizer.chat_template"), names[meta.get("tokenizer.ggml.bos_token_id")],
                                names[meta.get("tokenizer.ggml.eos_token_id")])
    entries = []
    for name, (template, bos, eos) in templates.items():
        cases = [{"messages": m, "add_generation_prompt": g, **render(template, m, g, bos, eos)}
                 for m in CONVERSATIONS for g in (True, False)]
        assert any("text" in c for c in cases), name
        entries.append({"name": name, "template": template, "bos_token": bos, "eos_token": eos, "cases": cases})
        print(f"{name}: {sum('text' in c for c in cases)} texts, {sum('error' in c for c in cases)} refusals")
    file.write_text("[\n" + ",\n".join(json.dumps(e, ensure_ascii=False) for e in entries) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
