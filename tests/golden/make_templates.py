#!/usr/bin/env python3
"""Renders templates with jinja2, set up exactly as transformers does, into templates.json.

    make_templates.py > templates.json            the committed goldens (needs: pip install jinja2)
    make_templates.py FILE... > other.json        goldens of template files (*.jinja) and of the
                                                  templates in GGUF files (needs: pip install gguf)

The second form checks the engine against the templates that models ship, which are not ours to
commit: run the unit test with MCC_TEMPLATE_GOLDENS=other.json.

Templates and contexts are listed once; a case names them by number, and has either the expected text or `error`: true when jinja2
raises, with `message` when the template itself raised it. `ours`: true marks what this engine
refuses although jinja2 renders it; `message` is then a part of our message.
"""
import json
import sys
from datetime import datetime, timezone

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from template_sources import CHATS, ERRORS, FEATURES, MODELS, REFUSED

NOW = 1753543210  # 2025-07-26 15:20:10 UTC


class RaisedByTemplate(jinja2.exceptions.TemplateError):
    pass


class Generation(jinja2.ext.Extension):
    """{% generation %}: transformers renders the body as a call block and keeps its text."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_body")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def raise_exception(message):
        raise RaisedByTemplate(message)

    def strftime_now(fmt):
        return datetime.fromtimestamp(NOW, timezone.utc).replace(tzinfo=None).strftime(fmt)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def case(env, name, template, context):
    out = {"name": name, "template": template, "context": context}
    try:
        variables = {k: v for k, v in context.items() if k != "strftime_now"}
        out["text"] = env.from_string(template).render(**variables)
    except RaisedByTemplate as e:
        out["error"] = True
        out["message"] = str(e)
    except Exception:  # whatever Python raises, the engine must refuse too
        out["error"] = True
    return out


def conversations(template, special):
    for name, chat in CHATS.items():
        for prompt in (True, False):
            context = {"tools": None, "documents": None, "strftime_now": NOW}
            context.update(special)
            context.update(chat)
            context["add_generation_prompt"] = prompt
            yield name + ("+prompt" if prompt else ""), context


def model_cases(env, name, template, special):
    for chat, context in conversations(template, special):
        yield case(env, f"{name}/{chat}", template, context)


def templates_of(path):
    if path.endswith(".gguf"):
        from gguf import GGUFReader

        field = GGUFReader(path).get_field("tokenizer.chat_template")
        if field:
            yield path, field.contents()
    else:
        with open(path, encoding="utf-8", newline="") as f:
            yield path, f.read()


def write(cases):
    tables = {"templates": [], "contexts": []}
    for c in cases:
        for key, table in (("template", tables["templates"]), ("context", tables["contexts"])):
            text = json.dumps(c[key], ensure_ascii=True)
            if text not in table:
                table.append(text)
            c[key] = table.index(text)
    tables["cases"] = [json.dumps(c, ensure_ascii=True) for c in cases]
    parts = (f'"{k}": [\n' + ",\n".join(v) + "\n]" for k, v in tables.items())
    print("{" + ",\n".join(parts) + "}")


def main():
    env = environment()
    cases = []
    if sys.argv[1:]:
        for path in sys.argv[1:]:
            for name, template in templates_of(path):
                special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
                cases.extend(model_cases(env, name, template, special))
    else:
        for name, (template, special) in MODELS.items():
            cases.extend(model_cases(env, name, template, special))
        for i, (template, context) in enumerate(FEATURES):
            made = case(env, f"feature {i}", template, {"strftime_now": NOW, **context})
            if "text" not in made:
                sys.exit(f"feature {i} fails in jinja2: {template!r}")
            cases.append(made)
        for i, (template, context) in enumerate(ERRORS):
            made = case(env, f"error {i}", template, context)
            if "error" not in made:
                sys.exit(f"error {i} renders in jinja2: {template!r}: {made['text']!r}")
            cases.append(made)
        for i, (template, context, message) in enumerate(REFUSED):
            made = {"name": f"refused {i}", "template": template, "context": context}
            cases.append({**made, "error": True, "ours": True, "message": message})
    write(cases)


if __name__ == "__main__":
    main()
