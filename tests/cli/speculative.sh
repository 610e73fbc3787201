# Drafts: --draft, --speculative-config and --num-speculative-tokens give the same tokens as none.
for sampling in "" "--temperature 1.5 --seed 4"; do
    # shellcheck disable=SC2086
    "$modelcc" run llama.so --raw -p "the quick brown" -n 30 --ignore-eos --json $sampling >want 2>err
    for options in "--draft llama-f32.so" "--draft llama.so --num-speculative-tokens 3" \
        "--speculative-config {\"model\":\"llama-f32.so\",\"num_speculative_tokens\":5}" \
        "--speculative-config {\"method\":\"draft_model\",\"model\":\"llama-f32.so\"}" \
        "--speculative-config {\"method\":\"ngram\",\"num_speculative_tokens\":4,\"prompt_lookup_max\":3}"; do
        # shellcheck disable=SC2086
        expect 0 run llama.so --raw -p "the quick brown" -n 30 --ignore-eos --json $sampling $options
        quiet
        holds 'd["token_ids"] == json.load(open("want"))["token_ids"] and len(d["token_ids"]) == 30'
    done
done
printf '{"prompt": "the quick brown", "max_tokens": 30, "ignore_eos": true}\n' >draft.jsonl
rm -f draft-out.jsonl
expect 0 batch llama.so --input draft.jsonl --output draft-out.jsonl --json \
    --speculative-config '{"model": "llama.so", "num_speculative_tokens": 4, "adaptive": false}'
holds '0 < d["draft_tokens"] == d["accepted_tokens"] and d["steps"] < 15'
expect 0 run llama.so --raw -p "the quick" -n 20 --ignore-eos --json --temperature 1 --speculative-config \
    '{"model": "llama.so", "num_speculative_tokens": 3, "adaptive": false, "rejection_sample_method": "probabilistic"}'
holds 'len(d["token_ids"]) == 20 and d["timings"]["accepted_tokens_per_pos"] == d["timings"]["draft_tokens_per_pos"]'
# What is wrong with a draft model, and with a configuration.
expect 1 run llama.so -p hi --draft missing.so
silent
says "missing.so"
expect 1 run llama.so -p hi --draft gemma3.so
silent
says "a draft model must have the same"
expect 1 run llama.so -p hi --draft ids-only.so
says "tokenizer"
config() { expect 2 run llama.so -p hi --speculative-config "$1"; silent; says "$2"; }
config '{' "expected a JSON object"
config '[]' "expected a JSON object"
config '{"method": "ngram"}' "num_speculative_tokens must be set"
config '{"method": "eagle", "num_speculative_tokens": 2}' '"ngram" or "draft_model"'
config '{"method": "draft_model", "num_speculative_tokens": 2}' "needs a model"
config '{"method": "ngram", "model": "llama.so", "num_speculative_tokens": 2}' "has no model"
config '{"num_speculative_tokens": 65}' "0 to 64"
config '{"num_speculative_tokens": 2.5}' "0 to 64"
config '{"num_speculative_tokens": 2, "prompt_lookup_max": 0}' "1 to 64"
config '{"model": "llama.so", "rejection_sample_method": "often"}' '"strict" or "probabilistic"'
config '{"num_speculative_tokens": 2, "adaptive": 1}' "true or false"
config '{"num_speculative_tokens": 2, "tokens": 0}' "tokens is not supported"
expect 1 run llama.so -p hi --speculative-config \
    '{"num_speculative_tokens": 2, "prompt_lookup_max": 2, "prompt_lookup_min": 3}'
says "prompt_lookup_min"
