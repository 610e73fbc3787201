# batch: results as alone, damaged lines, going on after an interruption.

# Prompts with common beginnings, texts and token ids, greedy and sampled.
python3 - <<'PY'
import json
with open("requests.jsonl", "w") as f:
    for i in range(30):
        prompt = "the quick brown fox " * (1 + i % 3) + "jumps over " * (i % 7)
        request = {"id": f"r{i}", "max_tokens": 1 + i * 7 % 40, "ignore_eos": i % 2 == 0}
        if i % 4 == 3:
            request["messages"] = [{"role": "user", "content": prompt}]
        else:
            request["prompt"] = prompt if i % 5 else [3 + k * i % 300 for k in range(1 + i)]
        if i % 3 == 1:
            request.update(temperature=1.5, top_k=40, seed=i)
        if i % 6 == 4:
            request.update(n=3, logprobs=True, stop=["zzz", "qqq"])
        f.write(json.dumps(request) + "\n")
PY
cat >results.py <<'PY'
import json, sys
def results(path):
    lines = [json.loads(line) for line in open(path, encoding="utf-8")]
    assert len({r["line"] for r in lines}) == len(lines), "a line has two results"
    for r in lines:
        r.pop("cached_tokens", None)
    return sorted(lines, key=lambda r: r["line"])
if __name__ == "__main__":
    a, b = map(results, sys.argv[1:])
    sys.exit(0 if a == b else "%s and %s differ" % tuple(sys.argv[1:]))
PY
same_results() {
    local message
    case="$case: $1 and $2"
    if message=$(python3 results.py "$1" "$2" 2>&1); then pass; else fail "$message"; fi
}

expect 0 batch llama.so --input requests.jsonl --output one.jsonl --max-num-seqs 1 --json
holds 'd["requests"] == d["done_now"] == 30 and d["done_before"] == d["errors"] == 0 and d["max_num_seqs"] == 1'
expect 0 batch llama.so --input requests.jsonl --output many.jsonl --json
holds 'd["max_num_seqs"] == 64 and d["kv_tokens"] > 0 and d["steps"] < 300 and d["cached_tokens"] > 0'
same_results one.jsonl many.jsonl
expect 0 batch llama.so --input requests.jsonl --output small.jsonl --max-num-seqs 16 \
    --max-num-batched-tokens 16 --max-model-len 200 --kv-cache-memory-bytes 60000 --threads 1 --json
holds 'd["kv_tokens"] < 250 and d["preemptions"] > 0'
same_results one.jsonl small.jsonl
# Drafts by prompt lookup change steps, not results.
for n in 1 6; do
    expect 0 batch llama.so --input requests.jsonl --output drafts-$n.jsonl --max-num-seqs 4 \
        --num-speculative-tokens $n --json
    holds '0 < d["accepted_tokens"] < d["draft_tokens"]'
    same_results one.jsonl drafts-$n.jsonl
done
# With sliding windows, over texts that are longer.
python3 -c 'import json
for i in range(8):
    print(json.dumps({"prompt": [3 + k * (1 + i // 4) % 300 for k in range(40 + 60 * i)], "max_tokens": 30,
                      "ignore_eos": True, "n": 1 + i % 2, "temperature": i % 2, "seed": i}))' >windows.jsonl
expect 0 batch gemma3.so --input windows.jsonl --output windows-one.jsonl --max-num-seqs 1
expect 0 batch gemma3.so --input windows.jsonl --output windows-many.jsonl --max-num-batched-tokens 40 \
    --num-speculative-tokens 4
same_results windows-one.jsonl windows-many.jsonl
case="results are those of run"
"$modelcc" run llama.so --raw -p "the quick brown fox the quick brown fox jumps over " -n 8 --ignore-eos --json >out 2>err
python3 - <<'PY' && pass || fail "others"
import json
from results import results
one, alone = results("one.jsonl"), json.load(open("out"))
assert one[1]["id"] == "r1" and len(one[4]["choices"]) == 3 and len(one[4]["choices"][2]["logprobs"]["content"]) == len(one[4]["choices"][2]["token_ids"])
assert any(r["finish_reason"] == "length" for r in one if "finish_reason" in r)
greedy = [json.loads(l) for l in open("requests.jsonl")]
open("alone.jsonl", "w").write(json.dumps({"prompt": "the quick brown fox the quick brown fox jumps over ", "max_tokens": 8, "ignore_eos": True}) + "\n")
open("want", "w").write(json.dumps(alone["token_ids"]))
PY
expect 0 batch llama.so --input alone.jsonl --output alone-results.jsonl
prints "requests    1: 0 before, 1 now; 0 errors"
prints "KV cache"
cp alone-results.jsonl out
holds 'd["token_ids"] == json.load(open("want")) and d["line"] == 1 and d["id"] is None'

# What is wrong with a line costs that line.
printf '%s\n' '{"id": 1, "prompt": "good", "max_tokens": 2}' '{"id": 2, "prompt"' '' 'null' '[]' '"text"' \
    '{"id": 7}' '{"id": 8, "prompt": ""}' '{"id": 9, "prompt": "a", "temprature": 1}' \
    '{"id": 10, "prompt": "a", "temperature": -1}' '{"id": 11, "prompt": [100000]}' \
    '{"id": 12, "prompt": "a", "max_tokens": 0}' '{"id": 13, "prompt": "a", "n": 1.5}' \
    '{"id": 14, "prompt": "a", "messages": []}' '{"id": 15, "messages": "hi"}' \
    '{"id": 16, "prompt": "a", "prompt": "b"}' '{"id": 17, "prompt": "a"} {"id": 18}' \
    '{"id": [19], "prompt": "a"}' '{"id": 20, "prompt": "a", "stop": [""]}' >bad.jsonl
printf '%s\n' '{"id": 1460323737035677699, "prompt": "a"}' '{"id": 22, "prompt": "a", "top_p": 0}' \
    '{"id": 23, "prompt": "a", "repetition_penalty": 1e-60}' '{"id": 24, "prompt": {"a": 5}}' \
    '{"id": 25, "prompt": "a", "stop_token_ids": 5}' >>bad.jsonl
printf '{"id": 21, "prompt": "%s"}\n' "$(printf 'word %.0s' {1..5000})" >>bad.jsonl
printf '{"id": "\xff", "prompt": "a"}\n{"id": 23, "prompt": "a\\u0000b"}\n{"id": "\\\\u0000", "prompt": "a", "max_tokens": 1}\n' >>bad.jsonl
printf '{"id": "last", "prompt": "good", "max_tokens": 2}' >>bad.jsonl # no end of the line
expect 1 batch llama.so --input bad.jsonl --output bad-results.jsonl --json
says "of the requests are errors"
holds 'd["requests"] == d["done_now"] == 28 and d["errors"] == 25'
python3 -c 'import json
json.dump([json.loads(l) for l in open("bad-results.jsonl", encoding="utf-8")], open("out", "w"))'
holds 'sorted(r["line"] for r in d if "text" in r)[0] == 1 and any(r["id"] == "last" and len(r["token_ids"]) == 2 for r in d)'
holds 'all(r["error"] for r in d if "text" not in r) and {r["line"] for r in d} == set(range(1, 30)) - {3}'
holds 'any(r["line"] == 9 and r["id"] == 9 and "temprature" in r["error"] for r in d)'
holds 'any(r["line"] == 25 and "max_model_len" in r["error"] for r in d)'
holds '[(r["id"], r["error"].split(":")[0]) for r in d if 20 <= r["line"] <= 24] == \
    [(None, "id"), (22, "top_p"), (23, "repetition_penalty"), (24, "prompt"), (25, "stop_token_ids")]'
# Again: nothing is left to do, and nothing is written.
cp bad-results.jsonl bad-before.jsonl
expect 1 batch llama.so --input bad.jsonl --output bad-results.jsonl --json
holds 'd["done_before"] == 28 and d["done_now"] == 0'
same bad-results.jsonl bad-before.jsonl

# Killed half-way, and cut off in the middle of a line: what is written stays and is not done again.
await_results() { # FILE N
    for i in $(seq 500); do
        if [ -s "$1" ] && [ "$(wc -l <"$1")" -ge "$2" ]; then break; fi
        sleep 0.02
    done
}
case="a killed batch"
for i in 1 2 3 4 5 6; do cat requests.jsonl; done | sed 's/"max_tokens": [0-9]*/"max_tokens": 60/' >long.jsonl
"$modelcc" batch llama.so --input long.jsonl --output long-results.jsonl --max-num-seqs 2 >out 2>err &
child=$!
await_results long-results.jsonl 5
kill -9 $child
wait $child 2>/dev/null
kept=$(wc -l <long-results.jsonl)
if [ "$kept" -ge 5 ] && [ "$kept" -lt 180 ]; then pass; else fail "$kept results before the kill"; fi
head -n "$kept" long-results.jsonl >long-before.jsonl
cp long-before.jsonl long-results.jsonl
printf '{"id":"r17","te' >>long-results.jsonl
expect 0 batch llama.so --input long.jsonl --output long-results.jsonl --json
holds "d['done_before'] == $kept and d['done_now'] == 180 - $kept"
head -n "$kept" long-results.jsonl >long-kept.jsonl
same long-before.jsonl long-kept.jsonl
expect 0 batch llama.so --input long.jsonl --output long-whole.jsonl
same_results long-results.jsonl long-whole.jsonl

case="an interrupted batch"
"$modelcc" batch llama.so --input long.jsonl --output interrupted.jsonl --max-num-seqs 1 >out 2>err &
child=$!
await_results interrupted.jsonl 1
kill -INT $child
wait $child
code=$?
if [ $code -eq 1 ]; then pass; else fail "exit code $code"; fi
says "run it again to go on"
silent

# Files that are not what they should be stay as they are.
cp "$text" other.txt
expect 1 batch llama.so --input requests.jsonl --output other.txt
says "line 1 is no result"
same other.txt "$text"
printf 'one line, which does not end' >other.txt # no result that was cut off
cp other.txt other-before.txt
expect 1 batch llama.so --input requests.jsonl --output other.txt
says "line 1 is no result"
same other.txt other-before.txt
cat one.jsonl one.jsonl >twice.jsonl
expect 1 batch llama.so --input requests.jsonl --output twice.jsonl
says "not the first one"
# Results of another input: a line that it does not have, lines that have moved.
head -n 20 requests.jsonl >fewer.jsonl
{ tail -n 1 requests.jsonl; cat requests.jsonl; } >moved.jsonl
for input in fewer moved; do
    cp one.jsonl other.jsonl
    expect 1 batch llama.so --input $input.jsonl --output other.jsonl
    same other.jsonl one.jsonl
done
says "line 1 has another id than its result in other.jsonl"
expect 1 batch llama.so --input requests.jsonl --output requests.jsonl
says "the same file"
expect 1 batch llama.so --input missing.jsonl --output new.jsonl
expect 1 batch llama.so --input /dev/null --output new.jsonl
says "not a file"
expect 1 batch llama.so --input requests.jsonl --output missing/new.jsonl
expect 1 batch ids-only.so --input requests.jsonl --output ids.jsonl --json
holds 'd["errors"] > 10 and d["errors"] < 30'
: >empty.jsonl
expect 0 batch llama.so --input empty.jsonl --output none.jsonl --json
holds 'd["requests"] == 0'
expect 1 batch llama.so --input requests.jsonl --output /dev/null
says "not a file"
expect 2 batch llama.so --input requests.jsonl
expect 2 batch llama.so --input requests.jsonl --output x --max-num-seqs 0
