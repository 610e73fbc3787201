# Sampling parameters of run and batch: what they do on the command line, and in results.
ids() { python3 -c 'import json; print(",".join(map(str, json.load(open("out"))["token_ids"])))'; }

expect 0 run llama.so --raw -p "the quick brown" -n 30 --ignore-eos --json --logprobs 4
holds 'len(d["logprobs"]["content"]) == len(d["token_ids"]) == 30'
# Greedy: each token is the most probable one. Log-probabilities fall, and are those of one distribution.
holds 'all([t["token_id"], t["logprob"]] == [t["top_logprobs"][0][k] for k in ("token_id", "logprob")] for t in d["logprobs"]["content"])'
holds 'all([x["logprob"] for x in t["top_logprobs"]] == sorted((x["logprob"] for x in t["top_logprobs"]), reverse=True)
    and len({x["token_id"] for x in t["top_logprobs"]}) == 4 for t in d["logprobs"]["content"])'
holds 'all(__import__("math").fsum(__import__("math").exp(x["logprob"]) for x in t["top_logprobs"]) < 1.0001 for t in d["logprobs"]["content"])'
# The text is made of the tokens, whose bytes are whole.
holds 'b"".join(bytes(t["bytes"]) for t in d["logprobs"]["content"]).decode("utf-8", "replace") == d["text"]'
greedy=$(ids)
cp out greedy
expect 0 run llama.so --raw -p "the quick brown" -n 3 --ignore-eos --json --logprobs 0
holds 'all(t["top_logprobs"] == [] and t["logprob"] < 0 for t in d["logprobs"]["content"])'
expect 0 run ids-only.so --prompt-ids 3,193,102 -n 5 --ignore-eos --json --logprobs 20
holds 'all(len(t["top_logprobs"]) == 20 and "token" not in t for t in d["logprobs"]["content"])'
expect 2 run llama.so -p hi --logprobs 3
says "only --json prints them"
expect 2 run llama.so -p hi --json --logprobs 21
says "0 to 20"

# A bias takes away the first token, or forces it; the model's own log-probabilities stay.
first=${greedy%%,*}
expect 0 run llama.so --raw -p "the quick brown" -n 30 --ignore-eos --json --logit-bias "$first:-100"
holds "$first not in d['token_ids']"
expect 0 run llama.so --raw -p "the quick brown" -n 30 --ignore-eos --json --logit-bias 77:100 --logprobs 4
holds 'set(d["token_ids"]) == {77}'
holds 'd["logprobs"]["content"][0]["top_logprobs"] == json.load(open("greedy"))["logprobs"]["content"][0]["top_logprobs"]'
# Penalties of presence and frequency: over the output alone, so the first token is the same.
for how in "--presence-penalty 2" "--frequency-penalty 2" "--presence-penalty -2 --frequency-penalty -2"; do
    # shellcheck disable=SC2086
    expect 0 run llama.so --raw -p "the quick brown" -n 30 --ignore-eos --json $how
    holds "d['token_ids'] != [$greedy] and d['token_ids'][0] == $first"
done
expect 0 run llama.so --raw -p "the" -n 40 --ignore-eos --temperature 2 --typical-p 0.2 --seed 1 --json
typical=$(ids)
expect 0 run llama.so --raw -p "the" -n 40 --ignore-eos --temperature 2 --seed 1 --json
holds "d['token_ids'] != [$typical]"
for how in "--presence-penalty 3" "--frequency-penalty x" "--typical-p 0" "--logit-bias 5" "--logit-bias 5:1000" \
    "--logit-bias -5:1" "--logit-bias 5:1;6:1"; do
    # shellcheck disable=SC2086
    expect 2 run llama.so -p hi $how
    silent
    says "${how%% *}"
done
expect 1 run llama.so -p hi --logit-bias 100000:1
says "logit_bias: token 100000"

# Lines of a batch: each of them as run.
cat >sampling.jsonl <<JSON
{"id": 0, "prompt": "the quick brown", "max_tokens": 30, "ignore_eos": true, "logprobs": 4}
{"id": 1, "prompt": "the quick brown", "max_tokens": 30, "ignore_eos": true, "logprobs": true, "top_logprobs": 4}
{"id": 2, "prompt": "the quick brown", "max_tokens": 30, "ignore_eos": true, "logit_bias": {"77": 100}}
{"id": 3, "prompt": "the", "max_tokens": 40, "ignore_eos": true, "temperature": 2, "seed": 1, "typical_p": 0.2}
{"id": 4, "prompt": "the quick brown", "max_tokens": 30, "ignore_eos": true, "presence_penalty": 2, "frequency_penalty": 0}
{"id": 5, "prompt": "the quick brown", "max_tokens": 3, "n": 2, "logprobs": false}
{"id": 6, "prompt": "the", "logprobs": 21}
{"id": 7, "prompt": "the", "top_logprobs": 3}
{"id": 8, "prompt": "the", "logit_bias": {"a": 3}}
{"id": 9, "prompt": "the", "logit_bias": {"5": 101}}
{"id": 10, "prompt": "the", "logit_bias": {"100000": 1}}
{"id": 11, "prompt": "the", "logit_bias": [[5, 1]]}
{"id": 12, "prompt": "the", "presence_penalty": 2.5}
{"id": 13, "prompt": "the", "frequency_penalty": "much"}
{"id": 14, "prompt": "the", "typical_p": 1.5}
{"id": 15, "prompt": "the", "logprobs": "yes"}
JSON
expect 1 batch llama.so --input sampling.jsonl --output sampled.jsonl --json
holds 'd["errors"] == 10'
python3 -c 'import json
json.dump(sorted((json.loads(l) for l in open("sampled.jsonl", encoding="utf-8")), key=lambda r: r["line"]), open("out", "w"))'
holds 'd[0]["token_ids"] == d[1]["token_ids"] == json.load(open("greedy"))["token_ids"]'
holds 'd[0]["logprobs"] == d[1]["logprobs"] == json.load(open("greedy"))["logprobs"]'
holds "set(d[2]['token_ids']) == {77} and d[3]['token_ids'] == [$typical] and 'logprobs' not in d[3]"
holds "d[4]['token_ids'][0] == $first and d[4]['token_ids'] != [$greedy]"
holds '[r["error"].split(":")[0].split(" ")[0] for r in d[6:]] == ["logprobs", "top_logprobs", "logit_bias",
    "logit_bias", "logit_bias", "logit_bias", "presence_penalty", "frequency_penalty", "typical_p", "logprobs"]'
# What the command line says of it holds for lines that do not.
head -n 6 sampling.jsonl >six.jsonl
expect 0 batch llama.so --input six.jsonl --output six-results.jsonl --logprobs 2
python3 -c 'import json
json.dump(sorted((json.loads(l) for l in open("six-results.jsonl", encoding="utf-8")), key=lambda r: r["line"]), open("out", "w"))'
holds '[len(r["logprobs"]["content"][0]["top_logprobs"]) for r in d[:5]] == [4, 4, 2, 2, 2] and "logprobs" not in d[5]["choices"][0]'
