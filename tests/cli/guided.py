"""Structured output against Python's own readers: run by guided.sh.

guided.py make SEED N    prints N requests for `modelcc batch`, of a seed
guided.py check REQUESTS RESULTS    fails unless each result that ended by itself matches what its request asked for
"""

import json
import random
import re
import sys

NAMES = ["a", "name", "b c", "é", "x\"y", "tags"]


def random_schema(rng, depth):
    """A schema of the keywords that are supported, and not too large for a short output."""
    kind = rng.randrange(16 if depth else 7)
    if kind == 0:
        low, multiple = rng.randrange(-300, 300), rng.choice([1, 1, 2, 7, 25])
        return {"type": "integer", "minimum": low, "maximum": low + multiple + rng.randrange(400), "multipleOf": multiple}
    if kind == 1:
        low = rng.randrange(-20, 20)
        return {"type": "number", rng.choice(["minimum", "exclusiveMinimum"]): low,
                rng.choice(["maximum", "exclusiveMaximum"]): low + rng.randrange(1, 30)}
    if kind == 2:
        low = rng.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + rng.randrange(5)}
    if kind == 3:
        return {"type": "string", "pattern": rng.choice(["^[a-c\"\\\\]{1,4}$", "^\\d+\\.\\w$", "^(é|€){2}"])}
    if kind == 4:
        return {"enum": rng.sample(["red", 1, -2.5, None, True, "é\"", [1, {"a": 2}]], 3)}
    if kind == 5:
        return {"type": rng.sample(["null", "boolean", "integer"], 2)}
    if kind == 6:
        return {"const": rng.choice(["x", 0, {"k": []}])}
    if kind == 7:
        low = rng.randrange(3)
        return {"type": "array", "items": random_schema(rng, depth - 1), "minItems": low,
                "maxItems": low + rng.randrange(3)}
    if kind == 8:
        return {"anyOf": [random_schema(rng, depth - 1) for _ in range(2)]}
    if kind == 9:
        return {"type": "array", "prefixItems": [random_schema(rng, depth - 1) for _ in range(2)],
                "items": rng.choice([False, {"type": "null"}]), "minItems": rng.randrange(3)}
    if kind == 10:
        return {"allOf": [random_object(rng, 0) for _ in range(2)]}
    if kind == 11:  # the same beside other keywords, and anyOf beside some
        return {**random_object(rng, 0), "allOf": [{"type": ["object", "integer"]}],
                "anyOf": [random_object(rng, 0), {"required": [rng.choice(NAMES)]}]}
    if kind == 12:
        low = rng.randrange(5)
        return {"allOf": [{"type": "array", "items": compatible(rng), "maxItems": 4},
                          {"minItems": low % 3, "prefixItems": [compatible(rng)], "items": compatible(rng)},
                          {"anyOf": [{"minItems": 1}, {"type": "null"}]}]}
    if kind == 13:
        return {"type": rng.sample(["integer", "boolean", "null", "string"], 2),
                "not": rng.choice([{"enum": [0, 1, True, None, "a"]}, {"type": "null"}, {"anyOf": [{"const": ""}, {"const": 7}]}])}
    if kind == 14:
        low = rng.randrange(3)
        return {"type": "array", "items": {"enum": rng.sample(["red", 1, None, "é", True], 4)}, "uniqueItems": True,
                "minItems": low, "maxItems": low + rng.randrange(3)}
    return random_object(rng, depth)


def compatible(rng):
    """A schema that has whole numbers in common with the others."""
    return rng.choice([{"type": "integer", "minimum": rng.randrange(9)}, {"type": ["string", "integer"]},
                       {"maximum": 40 + rng.randrange(9), "type": "number"}, {"exclusiveMinimum": 5}, {}])


def random_object(rng, depth):
    names = rng.sample(NAMES, rng.randrange(1, 4))
    values = {n: random_schema(rng, depth - 1) if depth > 0 else compatible(rng) for n in names}
    schema = {"type": "object", "properties": values,
              "required": rng.sample(names, rng.randrange(len(names) + 1))}
    if rng.randrange(2):
        schema["additionalProperties"] = rng.choice([False, {"type": "null"}] if depth > 0 else [True, {"type": "integer"}])
    return schema


def is_type(value, name):
    if name == "integer":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"null": type(None), "boolean": bool, "string": str, "array": list, "object": dict}[name])


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def valid(v, s):
    """JSON Schema, as far as random_schema goes."""
    if isinstance(s, bool):
        return s
    types = s.get("type", [])
    if types and not any(is_type(v, t) for t in ([types] if isinstance(types, str) else types)):
        return False
    if "const" in s and not same(v, s["const"]) or "enum" in s and not any(same(v, e) for e in s["enum"]):
        return False
    if "anyOf" in s and not any(valid(v, b) for b in s["anyOf"]) or not all(valid(v, b) for b in s.get("allOf", [])):
        return False
    if "not" in s and valid(v, s["not"]) or s.get("uniqueItems") and len(set(map(json.dumps, v))) < len(v):
        return False
    if is_type(v, "number"):
        return ("multipleOf" not in s or v % s["multipleOf"] == 0) and (v >= s.get("minimum", v) and v <= s.get("maximum", v) and
                not v <= s.get("exclusiveMinimum", -float("inf")) and not v >= s.get("exclusiveMaximum", float("inf")))
    if isinstance(v, str):
        return (s.get("minLength", 0) <= len(v) <= s.get("maxLength", len(v)) and
                bool(re.search(s.get("pattern", ""), v, re.ASCII)))
    if isinstance(v, list):
        prefix = s.get("prefixItems", [])
        return (s.get("minItems", 0) <= len(v) <= s.get("maxItems", len(v)) and
                all(valid(x, prefix[i] if i < len(prefix) else s.get("items", True)) for i, x in enumerate(v)))
    if isinstance(v, dict):
        known = s.get("properties", {})
        return (all(n in v for n in s.get("required", [])) and
                all(valid(x, known.get(n, s.get("additionalProperties", True))) for n, x in v.items()))
    return True


def no_twins(pairs):
    assert len(dict(pairs)) == len(pairs) or all(v is None for k, v in pairs if [p[0] for p in pairs].count(k) > 1), pairs
    return dict(pairs)


# Not the character 0: texts of results end there.
REGEXES = [r"[a-f]{2,5}(-\d\d){0,2}", r"(yes|no|maybe), [^\W\d]+\.", r"[^a-z\x00]{3}x?", r"\u00e9+|€\d", r"(a|ab)(c|bcd)(d*)", r"\S\s\S"]
LISTS = 'root ::= "[" (item ("," item)*)? "]"\nitem ::= root | "0" | [1-9] [0-9]*'


def make(seed, n):
    rng = random.Random(seed)
    for i in range(n):
        request = {"id": i, "prompt": rng.choice(["the quick brown", "{", "a"]), "max_tokens": 150,
                   "temperature": rng.choice([0, 0.7, 1, 3]), "seed": i, "ignore_eos": rng.randrange(4) == 0}
        kind = rng.randrange(8)
        if kind == 0:
            request["guided_regex"] = rng.choice(REGEXES)
        elif kind == 1:
            request["guided_grammar"] = LISTS
        elif kind == 2:
            request["guided_choice"] = ["yes", "no (really?)", "a|b", "é\\"]
        else:
            request["guided_json"] = random_schema(rng, 3)
        print(json.dumps(request))


def matches(request, text):
    if "guided_regex" in request:
        return re.fullmatch(request["guided_regex"], text, re.ASCII)
    if "guided_choice" in request:
        return text in request["guided_choice"]
    value = json.loads(text, object_pairs_hook=no_twins)
    return valid(value, request["guided_json"]) if "guided_json" in request else isinstance(value, list)


def check(requests, results):
    requests = {r["id"]: r for r in map(json.loads, open(requests, encoding="utf-8"))}
    stopped, contradictory, all_of = {}, 0, 0
    for result in map(json.loads, open(results, encoding="utf-8")):
        request = requests.pop(result["id"])
        merged = "allOf" in json.dumps(request)
        if merged and re.search("no text can ever match", str(result.get("error"))):
            contradictory += 1  # what random members of allOf say of the same value
            continue
        assert "error" not in result, (request, result)
        if result["finish_reason"] == "stop":
            assert matches(request, result["text"]), (request, result["text"])
            kind = next(k for k in request if k.startswith("guided_"))
            stopped[kind] = stopped.get(kind, 0) + 1
            all_of += merged
    assert not requests, "requests without a result"
    # The test meets what it is about.
    assert len(stopped) == 4 and stopped["guided_json"] > 5 and all_of > contradictory, (stopped, all_of, contradictory)


if sys.argv[1] == "make":
    make(int(sys.argv[2]), int(sys.argv[3]))
else:
    check(*sys.argv[2:])
