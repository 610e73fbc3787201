# GPU code proven on the emulator, and what is wrong noticed.
expect 2 verify
silent
expect 2 verify a.so b.so
expect 2 verify q4_1.so --tokens 1
expect 0 verify --help
prints "usage: modelcc verify"
expect 1 verify missing.so
silent
expect 1 verify q4_1.so
says "no code for GPUs: build it with --target cuda:sm_80"
silent
if "$modelcc" build "$golden/gguf/llama-q4_1.gguf" --target "$targets,cuda:sm_80" -q -o gpu.so 2>err; then
    expect 0 verify gpu.so
    quiet
    prints "everything is right"
    expect 0 build "$golden/gguf/llama-q4_1.gguf" --kv-cache-dtype fp8 --target cuda:sm_80 -q -o fp8.so
    expect 0 verify fp8.so
    prints "everything is right"
    expect 0 build "$golden/tiny-llama" --quantize fp8 --activations fp8 --target "$targets,cuda:sm_89" -q -o e4m3.so
    expect 0 verify e4m3.so --against "$golden/tiny-llama"
    prints "everything is right"
    expect 0 inspect e4m3.so
    prints "activations fp8"
    expect 0 run e4m3.so -p "Hello" --raw --max-tokens 3 --json
    expect 0 verify gpu.so --json --against "$golden/gguf/llama-q4_1.gguf"
    quiet
    holds 'd["verdict"] == "right" and d["weights_equal"] > 10 and len(d["architectures"]) == 1'
    holds 'all(k["verdict"] == "right" and k["values"] > 0 and k["launches"] > 0 and k["max_error_of_bound"] < 1 and k["close_values"] > 0.98 * k["values"] for k in d["architectures"][0]["kernels"])'
    holds 'any(k["variants"] > 1 for k in d["architectures"][0]["kernels"])'
    holds '[s["step"] for s in d["architectures"][0]["steps"]] == ["prefill", "decode", "mixed", "batch"]'
    holds 'all(s["verdict"] == "right" and s["other_bits"] == 0 and s["relative_difference"] < 0.05 for s in d["architectures"][0]["steps"])'
    expect 1 verify gpu.so --arch sm_90a
    says "it has no PTX for sm_90a; it has some for sm_80"
    expect 1 verify gpu.so --against "$golden/gguf/llama-q5_0.gguf"
    says "not the model that the artifact was built from"
    silent

    # A weight that is not the model's. Its hash is not looked at here.
    expect 0 inspect gpu.so --json
    python3 - <<'PY'
import json
weight = next(w for w in json.load(open("out"))["weights"] if "q4_1" in w["type"])
data = bytearray(open("gpu.so", "rb").read())
data[weight["file_offset"] + 5] ^= 0x10
open("bad.so", "wb").write(data)
PY
    expect 1 verify bad.so --against "$golden/gguf/llama-q4_1.gguf"
    says "is not that of"
    expect 0 verify bad.so -q # the kernels do compute what these weights say

    # Code that is wrong.
    mutate() { # mutate ARTIFACT KERNEL FROM TO: the artifact with other PTX, as bad.so
        local artifact=$1
        shift
        case="mutation of $1: $2"
        if python3 "$here/mutate_ptx.py" "$artifact" bad.so "$@" 2>err; then pass; else fail "nothing to change"; fi
    }
    # Within the bound, which allows for other codes everywhere, but not close: 126 for 127 as the
    # largest code, and another epsilon. Kernels for GPUs alone quantize what they multiply.
    expect 0 build "$golden/gguf/llama-q4_1.gguf" --target cuda:sm_80 -q -o gpu-only.so
    for constant in "0f42FE0000 0f42FC0000" "0f3727C5AC 0f3A27C5AC"; do
        # shellcheck disable=SC2086
        mutate gpu-only.so rms_norm_quantize_matmul $constant
        expect 1 verify bad.so --json
        holds 'any(k["verdict"] == "wrong" and k["wrong_values"] == 0 and k["close_values"] < 0.9 * k["values"] for k in d["architectures"][0]["kernels"])'
    done
    mutate gpu.so matmul 'bar.sync' '//r.sync'
    expect 1 verify bad.so
    quiet
    prints "WRONG"
    prints "NOT right"
    expect 1 verify bad.so --json
    holds 'd["verdict"] == "wrong"'
    holds 'any(k["verdict"] == "wrong" and "race" in k.get("failure", "") for k in d["architectures"][0]["kernels"])'
    holds 'any(k["verdict"] == "right" for k in d["architectures"][0]["kernels"])'
    # A window that no context fills is none.
    cp -r "$golden/tiny-mistral" wide
    sed 's/"sliding_window": 8/"sliding_window": 2147483647/' "$golden/tiny-mistral/config.json" >wide/config.json
    expect 0 build wide --target cuda:sm_80 -q -o wide.so
    expect 0 verify wide.so
else
    echo "skipped in part: GPU code cannot be built here: $(head -1 err)"
fi
