# Code for GPUs: built without one, run on the emulator, the same answers as on the CPU.
if ! "$modelcc" targets --json | python3 -c 'import json, sys
sys.exit(json.load(sys.stdin)["nvrtc"] is None)'; then
    echo "skipped in part: no NVRTC: nothing is built for GPUs"
    expect 1 build "$golden/tiny-llama" --target cuda:sm_80 -q -o none.so
    says "NVRTC was not found"
    says "MODELCC_NVRTC"
    return 0
fi
export XDG_CACHE_HOME="$cache"
cuda=cuda:sm_80,cuda:sm_90a
q4="$golden/gguf/llama-q4_1.gguf"
exact="--kv-cache-dtype f32" # of f16 pages attention on GPUs has bits of its own

expect 0 build "$q4" $exact --target "$targets,$cuda" --json -o both.so
quiet
holds 'd["cuda_functions"] >= d["kernels"] and d["cuda_registers"] > 0 and d["cuda_bytes"] > 0'
case="the cache"
if [ -n "$(ls "$XDG_CACHE_HOME/modelcc/cuda")" ]; then pass; else fail "it is empty"; fi
# The same bytes from the cache, without it, from another directory and with one thread.
expect 0 build "$q4" $exact --target "$cuda,$targets" -q -o cached.so
same both.so cached.so
mkdir -p other && cp "$q4" other/
(cd other && "$modelcc" build llama-q4_1.gguf $exact --target "$targets,$cuda" --no-cache --jobs 1 -q -o x.so)
case="a build without the cache in another directory"
same both.so other/x.so
expect 0 inspect both.so
for target in cuda:sm_80 cuda:sm_90a; do prints "$target  *cubin"; done
prints "registers, .* B spilled"
expect 0 inspect both.so --json
holds 'd["cuda_targets"] == ["cuda:sm_80", "cuda:sm_90a"] and d["target"] is not None'
holds 'all(any(i["target"] == t for k in d["kernels"] for i in k["cuda"]) for t in d["cuda_targets"])'
holds 'all(i["registers"] > 0 and i["occupancy"] > 0 and "shared_bytes" in i and "spill_bytes" in i
           for k in d["kernels"] for i in k["cuda"] if i["form"] == "cubin")'
expect 0 inspect both.so --manifest
holds 'd["nvrtc"] and {e["target"] for e in d["cuda"]} == {"cuda:sm_80", "cuda:sm_90a"}'

# The same tokens as the CPU, whatever the step has in it.
run() { expect 0 run "$@" -p "Hello there" --raw --max-tokens 12 --json; }
tokens() { holds 'd["token_ids"] == json.load(open("expected"))["token_ids"]'; }
run both.so --device cpu && cp out expected
run both.so --device emulator && tokens
run both.so --device emulator --max-num-batched-tokens 2 && tokens
MODELCC_EMULATOR_GPU=h100 run both.so --device emulator && tokens
# A model that drafts for itself is always right: rows of drafts have the bits of steps of one token.
expect 0 run both.so --device emulator -p "Hello there" --raw --max-tokens 12 --json --speculative-config \
    '{"model": "both.so", "num_speculative_tokens": 3, "adaptive": false}'
tokens
holds '0 < d["timings"]["draft_tokens"] == d["timings"]["accepted_tokens"]'
# Many requests in a step, prompts in chunks beside them, and samples that copy pages they share.
python3 -c 'import json
for i in range(4):
    print(json.dumps({"prompt": [3 + k * (1 + i // 2) % (300 if i < 2 else 7) for k in range(5 + 9 * i)], "n": 1 + i % 3,
                      "temperature": i % 2, "seed": i, "max_tokens": 30 if i == 2 else 3 + i, "ignore_eos": True}))' >gpu.jsonl
for device in cpu emulator; do
    expect 0 batch both.so --device $device --input gpu.jsonl --output batch-$device.jsonl \
        --max-num-seqs 5 --max-num-batched-tokens 16 \
        --speculative-config '{"num_speculative_tokens": 3, "adaptive": false}'
    sort batch-$device.jsonl >batch-$device.sorted
done
case="a batch on the CPU and the emulator"
same batch-cpu.sorted batch-emulator.sorted
# A conversation moves from one to the other, by its file.
for device in cpu emulator; do
    expect_with_input $'one two three four\n' 0 chat both.so --device $device --json -n 5 --session $device.session
done
case="sessions of the CPU and the emulator"
same cpu.session emulator.session
expect_with_input $'five\n' 0 chat both.so --device cpu --json -n 5 --session emulator.session
cp out expected.turn
expect_with_input $'five\n' 0 chat both.so --device emulator --json -n 5 --session cpu.session
holds 'd["text"] == json.load(open("expected.turn"))["text"] and d["cached_tokens"] >= 16'
# Embeddings: the same vectors.
expect 0 build "$q4" $exact --task embed --pooling mean --target "cpu,$cuda" -q -o embed.so
expect 0 embed embed.so --device cpu -p "Hello there" -p "one two three"
cp out vectors
expect 0 embed embed.so --device emulator -p "Hello there" -p "one two three" --max-num-batched-tokens 33
case="embeddings of the CPU and the emulator"
same out vectors
expect 0 verify embed.so --against "$q4" -q
# With little room for keys and values requests are preempted: to the host's memory and back.
for mode in recompute swap; do
    expect 0 batch both.so --device emulator --input gpu.jsonl --output "$mode.jsonl" --max-num-seqs 5 \
        --max-num-batched-tokens 16 --max-model-len 64 --kv-cache-memory-bytes 33000 --swap-space 0.001 \
        --preemption-mode $mode --json
    holds "d['preemptions'] > 0 and d['swaps'] == (d['preemptions'] if '$mode' == 'swap' else 0)"
    python3 - "$mode.jsonl" batch-cpu.jsonl <<'EOF' >out
import json, sys
def tokens(name):
    return {r["line"]: [c["token_ids"] for c in r.get("choices", [r])] for r in map(json.loads, open(name))}
print(json.dumps({"same": tokens(sys.argv[1]) == tokens(sys.argv[2])}))
EOF
    holds 'd["same"]'
done
# A kernel that faults costs the requests of its step; the GPU is set up again, those that come after
# are served, and another run does the rest.
export MODELCC_EMULATOR_FAIL=60
expect 1 batch both.so --device emulator --input gpu.jsonl --output failed.jsonl --max-num-seqs 2 \
    --max-num-batched-tokens 16
unset MODELCC_EMULATOR_FAIL
says "of the requests have no result, run it again for them.*made to fail (MODELCC_EMULATOR_FAIL)"
case="a batch whose GPU fails"
lines=$(wc -l <failed.jsonl)
if [ "$lines" -ge 1 ] && [ "$lines" -lt 4 ]; then pass; else fail "$lines results"; fi
expect 0 batch both.so --device emulator --input gpu.jsonl --output failed.jsonl
python3 - <<'EOF' >out
import json
def tokens(name):
    return {r["line"]: [c["token_ids"] for c in r.get("choices", [r])] for r in map(json.loads, open(name))}
print(json.dumps({"same": tokens("failed.jsonl") == tokens("batch-cpu.jsonl")}))
EOF
holds 'd["same"]'
# Only code for GPUs.
expect 0 build "$q4" $exact --target "$cuda" -q -o gpu.so
expect 0 inspect gpu.so --json
holds 'd["target"] is None and d["targets"] == []'
run gpu.so --device emulator && tokens
expect 1 run gpu.so -p "Hello" --device cpu
silent
says "no code for a CPU"
# Tokens are chosen on the GPU, and are the host's; with what the GPU does not do the host chooses, of logits.
expect 0 build "$q4" $exact --target "$cuda" --sampling host -q -o host.so
for how in "--temperature 0.9" "--temperature 1.2 --top-k 12 --top-p 0.9 --seed 5" \
    "--temperature 0.7 --min-p 0.05 --seed 9" "--repetition-penalty 1.3" \
    "--temperature 1.3 --typical-p 0.5 --seed 2" "--presence-penalty 1 --logit-bias 20:3,30:-50"; do
    run both.so --device cpu $how && cp out expected
    for artifact in both.so gpu.so host.so; do run "$artifact" --device emulator $how && tokens; done
done
expect 0 bench gpu.so --device emulator --prompt-tokens 4 --decode-tokens 2 --context 0 --repeat 1 --json
holds 'd["results_bytes_per_decode_step"] == 16'
expect 0 bench host.so --device emulator --prompt-tokens 4 --decode-tokens 2 --context 0 --repeat 1 --json
holds 'd["results_bytes_per_decode_step"] == 4 * 288'
expect 0 inspect gpu.so
prints "sample       1 x  sample_"
# In one step rows of all kinds, with log-probabilities.
cat >mixed.jsonl <<'EOF'
{"id": 0, "prompt": [5, 6, 7, 8], "max_tokens": 3, "logprobs": true}
{"id": 1, "prompt": [9, 6], "max_tokens": 5, "temperature": 1, "seed": 4, "logprobs": true}
{"id": 2, "prompt": [11], "max_tokens": 4, "temperature": 0.8, "top_k": 9, "top_p": 0.8, "min_p": 0.02}
{"id": 3, "prompt": [5, 6, 7], "max_tokens": 2, "temperature": 2, "repetition_penalty": 1.4, "logprobs": true}
{"id": 4, "prompt": [5, 9, 7], "max_tokens": 4, "logprobs": 3}
{"id": 5, "prompt": [8, 6, 7], "max_tokens": 4, "temperature": 1.5, "typical_p": 0.4, "frequency_penalty": 0.9, "logit_bias": {"15": 2}}
EOF
for device in cpu emulator; do
    expect 0 batch both.so --device $device --input mixed.jsonl --output "mixed.$device" --json
    sort "mixed.$device" >"sorted.$device"
done
case="the results of a batch on the CPU and on the emulator"
same sorted.cpu sorted.emulator
# Grammars, beside requests without: where the GPU samples, it gets masks.
cat >guided-gpu.jsonl <<'EOF'
{"id": 0, "prompt": [67, 67, 67, 67], "max_tokens": 24, "guided_regex": "a{16}[b-f]*\\.", "logprobs": true, "ignore_eos": true}
{"id": 1, "prompt": [9, 6], "max_tokens": 12, "temperature": 1.5, "seed": 4, "n": 3, "guided_json": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 300}}, "required": ["n"]}}
{"id": 2, "prompt": [11], "max_tokens": 4, "temperature": 0.8, "top_k": 9}
{"id": 3, "prompt": [5, 6, 7], "max_tokens": 9, "temperature": 2, "repetition_penalty": 1.4, "guided_grammar": "root ::= \"[\" (root \",\"?)* \"]\" | [0-9]+"}
{"id": 4, "prompt": [5, 9, 7], "max_tokens": 9, "temperature": 1, "top_p": 0.9, "guided_choice": ["yes", "no (really?)", "maybe"]}
EOF
for device in cpu emulator; do
    expect 0 batch both.so --device $device --input guided-gpu.jsonl --output "guided.$device" --json \
        --speculative-config '{"num_speculative_tokens": 3, "adaptive": false}'
    sort "guided.$device" >"guided.$device.sorted"
done
case="structured output on the CPU and on the emulator"
same guided.cpu.sorted guided.emulator.sorted
expect 0 batch host.so --device emulator --input guided-gpu.jsonl --output guided.host --json
python3 - <<'EOF' >out
import json
def tokens(name):
    return {r["id"]: [c["token_ids"] for c in r.get("choices", [r])] for r in map(json.loads, open(name))}
print(json.dumps({"same": tokens("guided.cpu") == tokens("guided.host")}))
EOF
holds 'd["same"]'
# Another architecture, with sliding windows and several encodings of weights; f32 pages.
expect 0 build "$golden/gguf/gemma3-mixed.gguf" --target "$targets,cuda:sm_80" \
    --kv-cache-dtype f32 -q -o gemma3-gpu.so
run gemma3-gpu.so --device cpu && cp out expected
run gemma3-gpu.so --device emulator && tokens

# Shapes that the checkpoints above lack, whose rope and append join the matmul on GPUs alone, but of
# quantized pages. With pages of f32 the logits have the CPU's bits (no divergence at all), in one step
# and in pieces; with others attention is on tensor cores where heads are a multiple of 16, of a class
# of its own: near the CPU's, and the same bits in one step and in pieces.
python3 -c 'import json, random
random.seed(3)
print(json.dumps([[random.randrange(200) for _ in range(n)] for n in (70, 9, 2)]))' >ids.json
# compare ARCH HEADS KV_HEADS HEAD_DIM LAUNCHES KL OPTION…: LAUNCHES in a step, KL at most
compare() {
    python3 "$here/random_model.py" random "${@:1:4}"
    expect 0 build random --no-tokenizer "${@:7}" --target "$targets" -q -o random-cpu.so
    expect 0 build random --no-tokenizer "${@:7}" --target cuda:sm_80 --json -o random-gpu.so
    holds "d['launches'] == $5"
    for tokens in 64 5; do
        expect 0 eval random-gpu.so --device emulator --reference random-cpu.so \
            --reference-device cpu --ids ids.json --no-bos --max-num-batched-tokens "$tokens" --json
        holds "d['max_kl'] <= $6 and ($6 > 0 or d['nll'] == d['reference_nll'])"
        [ "$tokens" = 5 ] || cp out whole
    done
    holds 'd["nll"] == json.load(open("whole"))["nll"]'
}
compare llama 3 1 64 14 0 --quantize int8 --kv-cache-dtype f32
compare qwen2 2 1 64 14 0 --activations f32 --kv-cache-dtype f32
compare qwen3 2 1 32 16 0 --quantize int8 --kv-cache-dtype f32
compare llama 4 4 32 14 1e-6 --activations f32
# What differs a little may take to another code, and then differs by a step.
compare llama 4 2 32 16 1e-4 --activations f32 --kv-cache-dtype int8
compare qwen3 2 1 40 16 0 --activations f32 --kv-cache-dtype fp8

# Texts.
for kind in cuda ptx; do
    expect 0 build "$q4" --target cuda:sm_80 --emit "$kind" -q
    quiet
    prints matmul
    mkdir -p "texts-$kind"
    expect 0 build "$q4" --target "$cuda" --emit "$kind" -q -o "texts-$kind"
    silent
done
case="the files of --emit"
if ls texts-cuda/*.cu texts-ptx/*.sm_80.ptx texts-ptx/*.sm_90a.ptx >listed 2>err; then
    pass
else
    fail "not one a function"
fi
if grep -q "extern \"C\" __global__" texts-cuda/*.cu; then pass; else fail "no kernel in them"; fi
if "$modelcc" build "$q4" --target cuda:sm_80 --emit sass -q -o sass 2>err; then
    case="machine code"
    if grep -q "IMMA" sass; then pass; else fail "no tensor core in it"; fi
else
    case="machine code without nvdisasm"
    says "nvdisasm was not found"
fi

# What is missing or wrong.
expect 2 build "$q4" --target cuda:sm_75 -q -o none.so
says "cuda:sm_75"
expect 2 build "$q4" --emit ptx -q
says "cuda:sm_80"
expect 2 build "$q4" --sampling device -q -o none.so
says "cuda:sm_80"
expect 2 build "$q4" --target cuda:sm_80 --sampling there -q -o none.so
says "expected device or host"
MODELCC_NVRTC=/nowhere/libnvrtc.so expect 1 build "$q4" --target cuda:sm_80 -q -o none.so
says "/nowhere/libnvrtc.so"
MODELCC_NVRTC=/nowhere/libnvrtc.so expect 0 build "$q4" --target "$targets" -q -o cpu-only.so
MODELCC_NVRTC=/nowhere/libnvrtc.so expect 0 doctor --json
holds 'any(c["name"] == "NVRTC" and c["verdict"] == "absent" for c in d["checks"])'
case="a failed build"
if [ -e none.so ]; then fail "it leaves a file"; else pass; fi
expect 1 run both.so -p "Hello" --device cuda
says "driver"
unset XDG_CACHE_HOME
