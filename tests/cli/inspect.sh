# Looking into artifacts, sound and damaged.
expect 0 inspect llama.so
quiet
prints "tiny-llama"
prints "attention"
expect 0 inspect llama.so --weights --launches --check
prints "lm_head"
expect 0 inspect llama.so --json --check
quiet
holds 'd["model"]["arch"] == "llama" and d["model"]["vocab_size"] == 384 and d["weights_checked"]'
holds 'sum(e["tensors"] for e in d["weights_by_encoding"]) == len(d["weights"])'
holds 'sum(e["bytes"] for e in d["weights_by_encoding"]) == sum(w["bytes"] for w in d["weights"])'
holds 'len(d["launches"]) == d["launches_per_step"] == sum(k["launches"] for k in d["kernels"])'
holds '[sum(l["kernel"] == i for l in d["launches"]) for i in range(len(d["kernels"]))] == [k["launches"] for k in d["kernels"]]'
holds 'all(l["ops"] for l in d["launches"]) and len(d["memory"]["kv_groups"]) == 1'
holds 'd["manifest"]["options"]["fusion"] == "full" and "fuse" in d["manifest"]["passes"]'
holds 'd["bytes"]["weights"] >= sum(w["bytes"] for w in d["weights"]) and d["bytes"]["file"] == __import__("os").path.getsize("llama.so")'
# The hash of an input is what sha256sum says; a weight's hash is that of its bytes in the file.
holds '{i["file"]: i["sha256"] for i in d["manifest"]["inputs"]}["model.safetensors"] == __import__("hashlib").sha256(open("'"$golden"'/tiny-llama/model.safetensors", "rb").read()).hexdigest()'
holds 'all(__import__("hashlib").sha256(open("llama.so", "rb").read()[w["file_offset"]:][:w["bytes"]]).hexdigest() == w["sha256"] for w in d["weights"])'
expect 0 inspect gemma3.so --json
holds 'sorted(g["window"] for g in d["memory"]["kv_groups"]) == [0, 16]'

expect 0 inspect llama.so --manifest
holds 'd["model"]["arch"] == "llama"'
expect 0 inspect llama.so --plan
prints .
expect 0 inspect llama.so --template
prints "message"
expect 1 inspect mistral.so --template
silent
# The graphs inside parse and verify.
for part in graph fused; do
    expect 0 inspect llama.so --$part
    mv out part.ir
    expect 0 opt part.ir
    case="$part through modelcc opt"
    same out part.ir
done

# Nothing that is not a sound artifact is opened.
expect 1 inspect missing.so
says "missing.so"
for input in "$text" /dev/null "$golden/tiny-llama/model.safetensors" "$modelcc" "$scratch"; do
    expect 1 inspect "$input"
    silent
    expect 1 run "$input" -p hi
    silent
done
size=$(stat -c %s llama.so)
flip() { # flip OFFSET: llama.so with one bit of the byte at OFFSET inverted, as bad.so
    python3 - "$1" <<'PY'
import sys
data = bytearray(open("llama.so", "rb").read())
data[int(sys.argv[1])] ^= 0x10
open("bad.so", "wb").write(data)
PY
}
for cut in 1 4096 $((size / 2)) $((size - 1)); do
    head -c "$cut" llama.so >bad.so
    expect 1 inspect bad.so
    expect 1 run bad.so -p hi
    silent
done
# Code, footer: refused at once. A weight: refused by --check, which names it.
for offset in 64 5000 $((size - 4096 + 20)) $((size - 4096 + 100)); do
    flip "$offset"
    case="llama.so with a flipped bit at $offset"
    if [ "$("$modelcc" run bad.so -p hi -n 1 2>err)" ]; then fail "it runs"; else pass; fi
done
"$modelcc" inspect llama.so --json >out
read -r offset name < <(python3 -c 'import json
w = [w for w in json.load(open("out"))["weights"] if w["bytes"] > 4096][0]
print(w["file_offset"] + 17, w["name"])')
flip "$offset"
expect 0 inspect bad.so
expect 1 inspect bad.so --check
silent
says "$name"
expect 1 run bad.so --check -p hi
says "$name"
