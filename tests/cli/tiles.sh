# Tables of GPU tiles: given, shown, found and merged. Nothing here needs a GPU.
if ! "$modelcc" targets --json | python3 -c 'import json, sys
sys.exit(json.load(sys.stdin)["nvrtc"] is None)'; then
    echo "skipped in part: no NVRTC: nothing is built for GPUs"
    return 0
fi
export XDG_CACHE_HOME="$cache"
cuda=cuda:sm_80,cuda:sm_90a
q4="$golden/gguf/llama-q4_1.gguf"
exact="--kv-cache-dtype f32"
run() { expect 0 run "$@" -p "Hello there" --raw --max-tokens 6 --json; }
tokens() { holds 'd["token_ids"] == json.load(open("expected"))["token_ids"]'; }

# A table is written, edited and taken; results do not change.
expect 0 build "$q4" --target "$cuda" --emit tiles -o tiles.json
expect 0 build "$q4" $exact --target "$cuda" -q -o chosen.so
expect 0 build "$q4" $exact --target "$cuda" --tiles tiles.json --json -o given.so
holds 'd["cuda_tiles"] > d["cuda_tiles_given"] > 0' # of f16 pages: attention's are not among them
python3 - <<'PY'
import json
t = json.load(open("tiles.json"))
assert {e["key"].split()[0] for e in t["tiles"]} == {"sm_80", "sm_90a"}
for e in t["tiles"]: # another tile for one row, on one architecture
    if e["key"].startswith("sm_80 a8"):
        e["variants"] = [{"rows": 0, "form": "a8_decode", "tokens": 4, "warps": 4, "unroll": 1}]
json.dump(t, open("edited.json", "w"))
t["tiles"][0]["variants"][0]["tokens"] = 64
json.dump(t, open("illegal.json", "w"))
PY
expect 0 build "$q4" $exact --target "$cuda" --tiles edited.json --depfile tiles.d -q -o edited.so
case="the tiles as a dependency"
if grep -q "edited.json" tiles.d; then pass; else fail "not in the depfile"; fi
expect 0 build "$q4" $exact --target "$cuda" --tiles edited.json --no-cache -q -o again.so
same edited.so again.so
differ edited.so chosen.so
expect 0 inspect edited.so --manifest
holds 'd["options"]["tiles"]["file"] == "edited.json" and len(d["options"]["tiles"]["sha256"]) == 64'
holds 'all(("decode4x4x1" in e["function"]) == (e["target"] == "cuda:sm_80") for e in d["cuda"]
           if "_decode" in e["function"])'
run chosen.so --device emulator && cp out expected
run edited.so --device emulator && tokens
MODELCC_EMULATOR_GPU=h100 run edited.so --device emulator && tokens
expect 0 verify edited.so --tokens 5 --schedules 1 --json
holds 'd["verdict"] == "right"'
expect 1 build "$q4" --target "$cuda" --tiles illegal.json -q -o none.so
says "sm_80 a8 .*tile 1 (a8_decode from 0 rows on): tokens is 64, expected 1 to 8"
expect 1 build "$q4" --target "$cuda" --tiles "$q4" -q -o none.so
says "not JSON"
expect 2 build "$q4" --target "$targets" --tiles tiles.json -q -o none.so
says "needs a target for GPUs"
# Tuning, without a GPU: predicted, and said so.
expect 1 tune "$q4" -o tuned.json
says "driver"
expect 0 tune "$q4" --device emulator --gpu h100 --rows 1,9 --most 2 --context 8 -q -o tuned.json
silent
cp tuned.json out
holds 'len(d["tiles"]) > 3 and all(e["key"].startswith("sm_90a ") for e in d["tiles"])'
holds 'all("measured" not in e and "H100" in e["predicted"]["device"] for e in d["tiles"])'
expect 0 build "$q4" --target cuda:sm_90a --tiles tuned.json --json -o tuned.so
holds 'd["cuda_tiles_given"] == d["cuda_tiles"]'
expect 0 tune --merge tiles.json tuned.json -o one.json
expect 0 tune --merge tuned.json tiles.json -o other.json
same one.json other.json
cp one.json out
holds 'sum("predicted" in e for e in d["tiles"]) == len(json.load(open("tuned.json"))["tiles"])'
# Measured, on the emulator in the driver's place; the tiles are in the cache, for with a driver that
# is not NVIDIA's NVRTC crashes.
mkdir driver
ln -s "$(dirname "$modelcc")/libcuda_emulator.so" driver/libcuda.so.1
LD_LIBRARY_PATH="$PWD/driver" MODELCC_EMULATOR_GPU=h100 expect 0 tune "$q4" --device cuda \
    --rows 1,9 --most 2 --context 8 --repeat 1 -q -o measured.json
cp measured.json out
holds 'len(d["tiles"]) == len(json.load(open("tuned.json"))["tiles"])'
holds 'all("H100" in e["measured"]["device"] and e["measured"]["microseconds"] > 0 for e in d["tiles"])'
expect 0 build "$q4" --target cuda:sm_90a --tiles measured.json --json -o measured.so
holds 'd["cuda_tiles_given"] == d["cuda_tiles"]'
expect 2 tune "$q4" --rows 9,1 -o none.json
says "ascend"
expect 1 tune --merge "$q4" -o none.json
says "not JSON"
unset XDG_CACHE_HOME
