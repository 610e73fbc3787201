# embed: vectors of texts. What the last layer gives, times the output matrix, are the logits that the
# model generates from; other vectors are means of these.
exact="--activations f32 --kv-cache-dtype f32"
# shellcheck disable=SC2086
expect 0 build "$golden/tiny-llama" $exact --task embed -q -o last.so
# shellcheck disable=SC2086
expect 0 build "$golden/tiny-llama" $exact --task embed --pooling mean -q -o mean.so
expect 0 inspect mean.so --json
holds 'd["model"]["pooling"] == "mean" and d["model"]["embedding_size"] == d["model"]["hidden_size"]'
expect 0 inspect last.so
prints "pooling: last"

cat >vectors.py <<'PY'
import array, json, math, struct, sys
def tensor(path, name):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8:8 + size])[name]
    begin, end = (8 + size + o for o in entry["data_offsets"])
    raw = data[begin:end]
    if entry["dtype"] == "BF16":
        raw = b"".join(b"\0\0" + raw[i:i + 2] for i in range(0, len(raw), 2))
    if entry["dtype"] == "F16":
        return [x for x in struct.unpack(f"<{len(raw) // 2}e", raw)], entry["shape"]
    return array.array("f", raw), entry["shape"]
def vectors(path):
    return {r["id"]: r["embedding"] for r in map(json.loads, open(path))}
PY
ids="3,193,102,7,55"
printf '{"id": %d, "input": [3]}\n{"id": %d, "input": [3, 193]}\n{"id": %d, "input": [3, 193, 102]}\n{"id": %d, "input": [3, 193, 102, 7]}\n{"id": %d, "input": [%s]}\n' \
    1 2 3 4 5 "$ids" >texts.jsonl
expect 0 embed last.so --no-normalize --input texts.jsonl
cp out last.jsonl
expect 0 run llama-f32.so --prompt-ids "$ids" -n 1 --ignore-eos --logprobs 20 --json
cp out generated.json
GOLDEN=$golden python3 - >out <<'PY'
import json, math, os, sys
sys.path.insert(0, ".")
from vectors import tensor, vectors
head, (n, k) = tensor(os.environ["GOLDEN"] + "/tiny-llama/model.safetensors", "lm_head.weight")
x = vectors("last.jsonl")[5]
logits = [sum(a * b for a, b in zip(x, head[i * k:(i + 1) * k])) for i in range(n)]
total = math.log(sum(math.exp(l) for l in logits))
top = json.load(open("generated.json"))["logprobs"]["content"][0]["top_logprobs"]
want = sorted((l - total for l in logits), reverse=True)[:len(top)]
worst = max(abs(t["logprob"] - w) for t, w in zip(top, want))
print(json.dumps({"n": len(top), "worst": worst}))
PY
holds 'd["n"] == 20 and d["worst"] < 1e-4'

# A mean is that of the vectors of all beginnings; normalized ones have length 1; any batch, any chunks.
expect 0 embed mean.so --no-normalize --input texts.jsonl
cp out mean.jsonl
expect 0 embed mean.so --input texts.jsonl --max-num-batched-tokens 4 --max-num-seqs 3
cp out normal.jsonl
python3 - >out <<'PY'
import json, math, sys
sys.path.insert(0, ".")
from vectors import vectors
last, mean, normal = (vectors(f + ".jsonl") for f in ("last", "mean", "normal"))
worst = 0
for n in range(1, 6):
    for i, x in enumerate(mean[n]):
        worst = max(worst, abs(x - sum(last[m][i] for m in range(1, n + 1)) / n))
length = math.sqrt(sum(x * x for x in mean[5]))
off = max(abs(a / length - b) for a, b in zip(mean[5], normal[5]))
print(json.dumps({"worst": worst, "off": off, "length": sum(x * x for x in normal[5])}))
PY
holds 'd["worst"] < 1e-6 and d["off"] < 1e-7 and abs(d["length"] - 1) < 1e-6'
expect 0 embed mean.so --input texts.jsonl
same out normal.jsonl

# Who writes a text and waits for its vector gets it.
case="embed, a line at a time"
mkfifo embed-in embed-out
"$modelcc" embed last.so <embed-in >embed-out 2>err &
exec 7>embed-in 8<embed-out
echo '{"id": 1, "input": "fox"}' >&7
if read -r -t 60 first <&8 && [[ $first == '{"id":1,"embedding":['* ]]; then pass; else fail "no vector"; fi
exec 7>&- 8<&-
wait

# Texts; damaged lines cost only themselves; commands that are for others.
expect 0 embed last.so -p "the quick" -p "brown fox"
holds_lines 'len(d) == 2 and d[0]["embedding"] != d[1]["embedding"] and d[0]["id"] is None'
printf '{"id": "a", "input": "fox"}\n{"id": "b"}\nnothing\n{"id": "c", "input": []}\n\n{"id": "d", "input": "fox"}\n' >damaged.jsonl
expect 1 embed last.so --input damaged.jsonl
holds_lines 'len(d) == 5 and d[0]["embedding"] == d[4]["embedding"] and ["error" in r for r in d] == [False, True, True, True, False]'
expect 1 embed llama.so -p hi
says "task embed"
expect 1 run last.so -p hi --raw
says "generates no tokens"
silent
expect 1 chat last.so </dev/null
expect 1 bench last.so
expect 1 eval last.so --text "$text"
expect 2 embed last.so -p hi --input texts.jsonl
expect 2 build "$golden/tiny-llama" --pooling mean -o x.so
expect 2 build "$golden/tiny-llama" --task sing -o x.so
