# What kernels do, and how long they take.
expect 2 profile
silent
expect 2 profile a.so b.so
expect 2 profile q4_1.so --phase both
expect 2 profile q4_1.so --batch 0
expect 2 profile q4_1.so --device cpu --gpu a100
expect 2 profile q4_1.so --num-speculative-tokens 65
expect 2 profile q4_1.so --phase prefill --num-speculative-tokens 2
says "while decoding"
expect 0 profile --help
prints "usage: modelcc profile"
expect 1 profile missing.so
silent
expect 2 profile q4_1.so --context 5000000000
expect 1 profile q4_1.so --context 100000
says "positions"
expect 1 profile q4_1.so --device emulator
says "no code for GPUs"
expect 0 profile q4_1.so --context 5 --repeat 3
quiet
prints "measured"
for phase in decode prefill; do
    expect 0 profile q4_1.so --device cpu --phase $phase --batch 3 --context 20 --repeat 3 --json
    quiet
    holds 'd["time"] == "measured" and d["phase"] == "'$phase'" and d["device"] == "cpu"'
    holds 'd["sequences"] == 3 and d["tokens"] == (3 if d["phase"] == "decode" else 60)'
    holds 'sum(k["launches"] for k in d["kernels"]) == d["launches"] and all(k["seconds"] > 0 for k in d["kernels"])'
    holds '0 < d["least_seconds_a_step"] <= d["seconds_a_step"]'
done
expect 0 profile q4_1.so --batch 2 --context 20 --num-speculative-tokens 3 --repeat 3 --json
holds 'd["num_speculative_tokens"] == 3 and d["tokens"] == 8 and d["sequences"] == 2'
if "$modelcc" build "$golden/gguf/llama-q4_1.gguf" --target cuda:sm_80 -q -o gpu.so 2>err; then
    expect 0 profile gpu.so
    quiet
    prints "PREDICTED"
    prints "bound by"
    expect 0 profile gpu.so --gpu l4 --batch 2 --context 40 --json
    quiet
    holds 'd["time"] == "predicted" and d["gpu"] == "NVIDIA L4" and d["tokens"] == 2'
    holds 'sum(k["launches"] * k["functions"] for k in d["kernels"]) == d["launches"]'
    holds 'abs(sum(k["seconds"] for k in d["kernels"]) - d["seconds_a_step"]) < 1e-9'
    holds 'abs(sum(k["dram_bytes"] * k["launches"] for k in d["kernels"]) - d["dram_bytes"]) < 1'
    holds 'all(k["warp_instructions"] == sum(k["instructions"].values()) > 0 for k in d["kernels"])'
    holds 'all(k["tensor_macs"] > 0 for k in d["kernels"] if k["kernel"].startswith("matmul"))'
    holds 'all(k["predicted"]["bound"] for k in d["kernels"]) and not any(k["registers_known"] for k in d["kernels"])'
    mv out without
    expect 0 profile gpu.so --gpu l4 --batch 2 --context 40 --num-speculative-tokens 4 --json
    # The head, the one matmul that runs once, is computed for 10 rows, not 2.
    cat >head.py <<'PY'
def head(d):
    return next(k for k in d["kernels"] if k["launches"] == 1 and k["kernel"].startswith("matmul"))
PY
    holds 'd["tokens"] == 10 and d["sequences"] == 2'
    holds 'exec(open("head.py").read()) or head(d)["tensor_macs"] == 5 * head(json.load(open("without")))["tensor_macs"]'
    expect 0 profile gpu.so --phase prefill --context 40 --json
    holds 'd["tokens"] == 40 and d["arch"] == "sm_80" and all(k["registers_known"] and k["registers"] > 0 for k in d["kernels"])'
    # The emulator's own account of a run, and settings that it does not know.
    export MODELCC_EMULATOR_COUNTERS=counters.json
    expect 0 run gpu.so --device emulator --prompt-ids 1,2,3 --raw -n 3 --ignore-eos --json
    unset MODELCC_EMULATOR_COUNTERS
    mv counters.json out
    holds 'all(k["launches"] > 0 and k["warp_instructions"] == sum(k["instructions"].values()) for k in d["kernels"])'
    holds 'sum(k["mma_macs"] for k in d["kernels"]) > 0 and sum(k["async_copies"] for k in d["kernels"]) > 0'
    export MODELCC_EMULATOR_CHECKS=some
    expect 1 run gpu.so --device emulator --prompt-ids 1 --raw -n 1
    says "known are all, none, uninitialised"
    unset MODELCC_EMULATOR_CHECKS
    expect 1 profile gpu.so --gpu vaxgpu
    says "no data sheet of a GPU \"vaxgpu\": there are a100"
    # More of everything is not slower.
    expect 0 profile gpu.so --gpu orin --phase prefill --context 100 --json
    mv out slow
    expect 0 profile gpu.so --gpu rtx5090 --phase prefill --context 100 --json
    holds 'd["seconds_a_step"] < json.load(open("slow"))["seconds_a_step"]'
else
    echo "skipped in part: GPU code cannot be built here: $(head -1 err)"
fi
