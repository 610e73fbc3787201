# Structured output: what random requests give matches what they ask for, in Python's eyes; the same tokens in a batch
# of one and of many, with drafts, and on other threads.
n=60
[ "${MCC_TEST_FULL:-0}" = 1 ] && n=1500
python3 "$here/guided.py" make "${MCC_TEST_SEED:-0}" "$n" >guided.jsonl
expect 0 batch llama.so --input guided.jsonl --output guided-many.jsonl --max-num-seqs 16
case="results of random schemas, expressions and grammars"
if message=$(python3 "$here/guided.py" check guided.jsonl guided-many.jsonl 2>&1); then
    pass
else
    fail "$(tail -1 <<<"$message")"
fi
expect 0 batch llama.so --input guided.jsonl --output guided-one.jsonl --max-num-seqs 1 --threads 1
expect 0 batch llama.so --input guided.jsonl --output guided-drafts.jsonl --max-num-seqs 4 --num-speculative-tokens 4
for file in guided-many guided-one guided-drafts; do sort -t: -k2 $file.jsonl | sed 's/"cached_tokens":[0-9]*//' >$file.sorted; done
same guided-many.sorted guided-one.sorted
same guided-many.sorted guided-drafts.sorted

# Options, files and errors.
printf '{"type": "object", "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 0}}, "required": ["n"]}' >schema.json
expect 0 run llama.so -p hi --guided-json schema.json --json -n 60
holds '0 <= json.loads(d["text"])["n"] <= 99 and d["finish_reason"] == "stop"'
expect 0 run llama.so -p hi --guided-json "$(cat schema.json)" --json -n 60
holds '0 <= json.loads(d["text"])["n"] <= 99'
expect 0 run llama.so -p hi --guided-regex '[0-9]{3}' --ignore-eos
prints '^[0-9][0-9][0-9]$'
printf 'root ::= "<" [a-c]{4} ">"\n' >grammar.gbnf
expect 0 run llama.so -p hi --guided-grammar grammar.gbnf
prints '^<[abc]*>$'
expect 1 run llama.so -p hi --guided-regex 'a('
silent
says "guided_regex: at character 2"
expect 1 run llama.so -p hi --guided-grammar 'root ::= root "a" | "b"'
says "left-recursive"
expect 1 run llama.so -p hi --guided-json '{"properties": {"a": {"uniqueItems": true, "not": {"minimum": 1}}}, "minProperties": 1}'
says "/minProperties"
says "/properties/a/uniqueItems"
says "/properties/a/not"
expect 1 run llama.so -p hi --guided-json '{"$ref": "#/nowhere"}'
says "points to nothing"
expect 1 run llama.so -p hi --guided-json '{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}'
says "no text can ever match"
expect 1 run llama.so -p hi --guided-json missing.json
expect 1 run llama.so -p hi --guided-regex a --guided-json '{}'
says "exclude each other"
expect 1 run ids-only.so --prompt-ids 3 --guided-regex a
says "tokenizer"
