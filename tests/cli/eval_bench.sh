# eval against the reference logits, and what its options must not change; bench.

# The mean negative log-likelihood of a golden case, from its logits.
cat >golden_nll.py <<'PY'
import array, json, math, sys
directory = sys.argv[1]
reference = json.load(open(directory + "/reference.json"))
logits = array.array("f", open(directory + "/" + reference["logits_file"], "rb").read())
vocab = reference["vocab_size"]
windows, total, count = [], 0.0, 0
for case in reference["cases"]:
    ids = case["token_ids"]
    if len(ids) < 2 or case["rows"] != list(range(len(ids))):
        continue
    windows.append(ids)
    for row in range(len(ids) - 1):
        x = logits[case["offset"] + row * vocab:case["offset"] + (row + 1) * vocab]
        most = max(x)
        total += most + math.log(sum(math.exp(v - most) for v in x)) - x[ids[row + 1]]
        count += 1
json.dump(windows, open("ids.json", "w"))
json.dump({"nll": total / count, "tokens": count}, open("want", "w"))
PY
for model in llama-f32.so:tiny-llama gemma3.so:tiny-gemma3; do
    python3 golden_nll.py "$golden/${model#*:}"
    expect 0 eval "${model%:*}" --ids ids.json --json
    quiet
    holds 'd["tokens"] == json.load(open("want"))["tokens"] > 40 and abs(d["nll"] - json.load(open("want"))["nll"]) < 1e-4'
    holds 'abs(d["perplexity"] - __import__("math").exp(d["nll"])) < 1e-6 * d["perplexity"]'
done

head -c 6000 "$text" >short.txt
expect 0 eval llama.so --text short.txt --window 100 --json
quiet
cp out want
holds 'len(d["window_nll"]) == -(-d["text_tokens"] // 100) or d["text_tokens"] % 100 == 1'
holds 'd["tokens"] == d["text_tokens"] - len(d["window_nll"])'
for options in "--threads 1" "--threads 3" "--max-num-batched-tokens 1" "--max-num-batched-tokens 17" \
    $(tr ',' '\n' <<<"$targets" | sed 's/^/--target=/'); do
    # shellcheck disable=SC2086
    expect 0 eval llama.so --text short.txt --window 100 --json $options
    holds 'd["nll"] == json.load(open("want"))["nll"] and d["window_nll"] == json.load(open("want"))["window_nll"]'
done
# The ids of the text, and its windows as such, say the same.
"$modelcc" tokenize llama.so --no-special --json <short.txt >out 2>err
python3 - <<'PY'
import json
ids = json.load(open("out"))["ids"]
json.dump(ids, open("flat.json", "w"))
json.dump([ids[i:i + 100] for i in range(0, len(ids), 100)], open("windows.json", "w"))
PY
for ids in flat windows; do
    expect 0 eval llama.so --ids $ids.json --window 100 --json
    holds 'd["nll"] == json.load(open("want"))["nll"]'
done
# With a stride every token but the first is scored, once.
expect 0 eval llama.so --text short.txt --window 100 --stride 30 --json
holds 'd["tokens"] == d["text_tokens"] - 1'
# A model that wants <bos> gets it in every window, and then all tokens are scored.
expect 0 eval gemma3.so --text short.txt --window 64 --json
holds 'len(d["prefix"]) == 1 and d["tokens"] == d["text_tokens"] and d["stride"] == 63'
expect 0 eval gemma3.so --text short.txt --window 64 --no-bos --json
holds 'd["prefix"] == [] and d["tokens"] == d["text_tokens"] - len(d["window_nll"])'

# Against itself there is no divergence; against other arithmetic a small one.
expect 0 eval llama.so --text short.txt --window 100 --reference llama.so --json
holds 'd["mean_kl"] == 0 and d["top1_agreement"] == 1 and d["nll"] == d["reference_nll"] == json.load(open("want"))["nll"]'
"$modelcc" build "$golden/tiny-llama" --target "$targets" --quantize int4 -q -o int4.so 2>err
expect 0 eval int4.so --text short.txt --window 100 --reference llama-f32.so --json
holds '0 < d["mean_kl"] < 1 and 0.1 < d["top1_agreement"] < 1 and d["nll"] != d["reference_nll"]'
expect 0 eval int4.so --text short.txt --reference llama-f32.so --window 100
quiet
prints "mean KL"
expect 1 eval llama.so --text short.txt --reference gemma3.so
says "vocabulary"
expect 1 eval llama.so --text missing.txt
silent
expect 1 eval llama.so --text /dev/null
expect 1 eval llama.so --text short.txt --window 100000
says "window"
for bad in '{}' '[1, 2, 384]' '[1.5, 2]' '["a"]' '[[1, 2], 3]' '[1' '[]' '[[]]' '[-1, 2]'; do
    echo "$bad" >bad.json
    expect 1 eval llama.so --ids bad.json
    silent
done
expect 1 eval ids-only.so --text short.txt
says "tokenizer"

expect 0 bench llama.so --repeat 2 --prompt-tokens 64 --decode-tokens 8 --context 100 --json
quiet
holds 'd["prefill"]["tokens"] == 64 and len(d["prefill"]["seconds"]) == 2 and d["prefill"]["tokens_per_second"] > 0'
holds 'd["decode"]["tokens"] == d["decode_after"]["tokens"] == 8 and d["decode_after"]["context"] == 100'
holds 'd["decode"]["min_tokens_per_second"] <= d["decode"]["tokens_per_second"] <= d["decode"]["max_tokens_per_second"]'
holds '0 < d["load_ms"] < d["first_token_ms"] and d["peak_rss_mb"] > 1'
expect 0 bench llama.so --repeat 1 --threads 1 --context 0
prints "prefill"
expect 1 bench llama.so --prompt-tokens 5000
silent
expect 1 bench llama.so --decode-tokens 5000
for workload in closed static padded "poisson --request-rate 500"; do
    # shellcheck disable=SC2086
    expect 0 bench llama.so --workload $workload --num-prompts 20 --max-num-seqs 4 --prompt-tokens 30 \
        --decode-tokens 10 --json
    quiet
    holds "d['workload'] == '${workload%% *}' and d['num_prompts'] == 20 and d['max_num_seqs'] == 4"
    holds '20 * 16 <= d["total_input_tokens"] <= 20 * 45 and 20 * 6 <= d["total_output_tokens"] <= 20 * 15'
    holds '0 < d["median_ttft_ms"] <= d["p99_ttft_ms"] <= d["p99_e2el_ms"] and d["p90_itl_ms"] > 0'
    holds 'abs(d["output_throughput"] - d["total_output_tokens"] / d["duration"]) < 1e-6 * d["output_throughput"]'
done
expect 0 bench llama.so --workload closed --num-prompts 3 --prompt-tokens 30
prints "time to first token"
expect 1 bench llama.so --workload closed --prompt-tokens 5000
silent
# Traces: when requests come, how long they are, and what they have in common.
cat >trace.jsonl <<'EOF'
{"arrival_s": 0, "prompt_tokens": 70, "max_tokens": 5, "prefix_id": "a", "prefix_tokens": 64}
{"arrival_s": 0.02, "prompt_tokens": 80, "max_tokens": 90, "prefix_id": "a", "prefix_tokens": 64}

{"arrival_s": 0.02, "prompt_tokens": 9, "max_tokens": 3, "prefix_id": 7}
{"arrival_s": 0.05, "prompt_tokens": 68, "max_tokens": 2, "prefix_id": "a", "prefix_tokens": 64}
EOF
expect 0 bench llama.so --workload trace.jsonl --plot trace.svg --json
holds 'd["workload"] == "trace" and d["num_prompts"] == 4 and d["total_input_tokens"] == 227'
holds 'd["total_output_tokens"] == 100 and d["cached_tokens"] == 128 and d["prefill_tokens"] == 99'
holds 'd["duration"] >= 0.05 and d["max_num_seqs"] == 64 and d["kv_tokens"] > 0'
case="the picture of a workload"
if python3 -c 'import xml.dom.minidom as m
d = m.parse("trace.svg")
assert len(d.getElementsByTagName("polyline")) == 5'; then pass; else fail "it is not what was meant"; fi
expect 1 bench llama.so --workload trace.jsonl --plot no/such/plot.svg
# The same lengths, as they come otherwise. Lengths of many sizes: a batch waits for its longest.
python3 -c 'import json, random
r = random.Random(1)
for i in range(64):
    print(json.dumps({"arrival_s": 0, "prompt_tokens": 10, "max_tokens": min(200, round(r.lognormvariate(3, 1.1)))}))' >mixed.jsonl
for workload in static padded closed; do
    expect 0 bench llama.so --workload $workload --dataset-path mixed.jsonl --max-num-seqs 8 --json
    cp out "$workload"
    holds 'd["total_output_tokens"] == sum(json.loads(l)["max_tokens"] for l in open("mixed.jsonl"))'
done
holds 'json.load(open("static"))["steps"] >= 2 * json.load(open("closed"))["steps"]'
# Batches that keep their shape: each request is computed as long as the longest beside it.
python3 - >wasted <<'PY'
import json
lengths = [json.loads(line)["max_tokens"] for line in open("mixed.jsonl")]
batches = [lengths[i:i + 8] for i in range(0, len(lengths), 8)]
print(sum(len(b) * max(b) - sum(b) for b in batches))
PY
holds 'json.load(open("padded"))["wasted_tokens"] == json.load(open("wasted")) > sum(json.loads(l)["max_tokens"] for l in open("mixed.jsonl"))'
holds '0 <= json.load(open("padded"))["steps"] - json.load(open("static"))["steps"] <= 16'
holds 'd["wasted_tokens"] == json.load(open("static"))["wasted_tokens"] == 0'
expect 0 bench llama.so --workload padded --dataset-path mixed.jsonl --max-num-seqs 4 --num-prompts 8
prints "tokens beyond these"
printf '{"arrival_s": 0, "prompt_tokens": %d, "max_tokens": %d}\n' 300 10 10 300 >long.jsonl
expect 0 bench llama.so --workload static --dataset-path long.jsonl --json
holds 'd["total_output_tokens"] == 310'
expect 0 bench llama.so --workload padded --dataset-path long.jsonl --max-num-seqs 1 --json
holds 'd["wasted_tokens"] == 0'
expect 1 bench llama.so --workload padded --dataset-path long.jsonl
silent
says "600 tokens, 290 of them until the longest of its batch ends, but at most 512 fit"
expect 0 bench llama.so --workload closed --dataset-path mixed.jsonl --num-prompts 3
prints "limits: 64 sequences of 512 tokens"
for line in '[]' '{"arrival_s": 0, "prompt_tokens": 0, "max_tokens": 1}' '{"prompt_tokens": 1, "max_tokens": 1}' \
    '{"arrival_s": 0, "prompt_tokens": 3, "max_tokens": 1.5}' '{"arrival_s": -1, "prompt_tokens": 3, "max_tokens": 1}' \
    '{"arrival_s": 0, "prompt_tokens": 3, "max_tokens": 1, "prefix_id": []}' '{' \
    '{"arrival_s": 0, "prompt_tokens": 3, "max_tokens": 1, "prefix_tokens": 4, "prefix_id": 1}'; do
    printf '{"arrival_s": 0, "prompt_tokens": 3, "max_tokens": 1}\n%s\n' "$line" >bad.jsonl
    expect 1 bench llama.so --workload bad.jsonl
    says "bad.jsonl: line 2: "
done
: >empty.jsonl
expect 1 bench llama.so --workload empty.jsonl
expect 1 bench llama.so --workload none.jsonl
# Drafts: the model itself is always right, another one sometimes.
always='{"model": "llama.so", "num_speculative_tokens": 4, "adaptive": false}'
expect 0 bench llama.so --speculative-config "$always" --repeat 1 --decode-tokens 20 --context 0 --json
quiet
holds '0 < d["draft_tokens"] == d["accepted_tokens"] and len(d["draft_tokens_per_pos"]) == 4'
expect 0 bench llama.so --speculative-config "$always" --repeat 1 --decode-tokens 20 --context 0
prints "drafts: .* accepted (100.0 %); by position, in %: 100 100 100 100$"
expect 0 bench llama.so --workload closed --dataset-path mixed.jsonl --max-num-seqs 8 --json
cp out without
expect 0 bench llama.so --workload closed --dataset-path mixed.jsonl --max-num-seqs 8 --json \
    --speculative-config "$always"
holds 'd["draft_tokens"] == d["accepted_tokens"] > 0 and d["steps"] < json.load(open("without"))["steps"] / 2'
holds 'd["total_output_tokens"] == json.load(open("without"))["total_output_tokens"]'
holds 'json.load(open("without"))["draft_tokens"] == 0'
expect 0 bench llama.so --workload static --num-prompts 8 --prompt-tokens 30 --decode-tokens 60 \
    --speculative-config '{"model": "llama-f32.so", "num_speculative_tokens": 3, "adaptive": false}' --json
holds 'd["draft_tokens"] >= d["accepted_tokens"] == sum(d["accepted_tokens_per_pos"]) > 0'
expect 0 bench llama.so --repeat 1 --decode-tokens 40 --context 0 --num-speculative-tokens 4
expect 1 bench llama.so --draft gemma3.so
silent
says "a draft model must have the same"
expect 1 bench llama.so --workload closed --draft missing.so
says "missing.so"
expect 2 bench llama.so --speculative-config '{"method": "ngram"}'
expect 2 bench llama.so --overhead --draft llama.so
expect 2 bench llama.so --workload trace.jsonl --dataset-path mixed.jsonl
expect 2 bench llama.so --workload closed --dataset-path mixed.jsonl --decode-tokens 3
expect 2 bench llama.so --plot x.svg
expect 2 bench llama.so --workload open
expect 2 bench llama.so --workload poisson
expect 2 bench llama.so --workload closed --request-rate 3
expect 2 bench llama.so --workload closed --repeat 3
expect 2 bench llama.so --num-prompts 3
expect 0 bench llama.so --overhead --threads 2 --json
quiet
holds '[o["sequences"] for o in d["overhead"]] == [1, 8, 32] and d["threads"] == 2'
holds 'all(0 < o["min_step_us"] <= o["step_us"] <= o["max_step_us"] for o in d["overhead"])'
expect 0 bench llama.so --overhead --threads 1
prints "us a sequence"
expect 2 bench llama.so --overhead --workload closed
case="an interrupted bench"
"$modelcc" bench llama.so --repeat 1000 --context 400 --decode-tokens 64 >out 2>err &
child=$!
sleep 0.5
kill -INT $child
wait $child
code=$?
if [ $code -eq 1 ]; then pass; else fail "exit code $code"; fi
says "interrupted"
silent
