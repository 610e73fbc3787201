# Building: the same bytes anywhere; nothing left behind after a failure; damaged inputs.
expect 0 build "$golden/tiny-llama" --target "$targets" --json -o one.so
quiet
holds 'd["file_bytes"] > 0 and d["kernels"] > 0 and d["launches"] >= d["kernels"]'
holds 'd["peak_memory_bytes"] > d["weight_bytes"] + 128 * d["arena_bytes_per_token"] + d["arena_bytes_per_row"]'
mkdir -p elsewhere
cp -r "$golden/tiny-llama" elsewhere/
(cd elsewhere && "$modelcc" build ./tiny-llama --target "$targets" -q --jobs 1 -o two.so) 2>err
case="building in another directory"
same one.so elsewhere/two.so

expect 0 build "$golden/tiny-llama" --dry-run -q -o dry.so
if [ -e dry.so ]; then fail "--dry-run writes"; else pass; fi
for kind in graph plan ir kernels llvm asm; do
    expect 0 build "$golden/tiny-llama" --emit "$kind" -q
    prints .
    quiet
done
# A plan that is written and read gives the same kernels.
expect 0 build "$golden/tiny-llama" --emit plan -q -o plan.txt
silent
expect 0 build "$golden/tiny-llama" --target "$targets" --fusion plan.txt -q -o replayed.so
expect 0 inspect replayed.so --fused
mv out replayed.ir
expect 0 inspect one.so --fused
case="the plan that --emit plan writes"
same out replayed.ir
expect 0 build "$golden/tiny-llama" --target "$targets" --fusion none -q -o unfused.so
expect 0 build "$golden/tiny-llama" --depfile deps.d -q -o deps.so
# Pages: K and V, a byte an element and two for each scale.
for kind in int8 fp8; do
    expect 0 build "$golden/tiny-llama" --target "$targets" --kv-cache-dtype $kind -q -o pages.so
    expect 0 inspect pages.so
    prints "${kind/fp8/fp8_e4m3}, .* a token"
    expect 0 inspect pages.so --json
    holds 'all(g["dtype"] == "'${kind/fp8/fp8_e4m3}'" and g["bytes_per_token"] == g["layers"] * g["heads"] * (2 * g["head_dim"] + 4)
               for g in d["memory"]["kv_groups"])'
    expect 0 run pages.so -p "Hello" --raw --max-tokens 3 --json
done
expect 2 build "$golden/tiny-llama" --activations int4 -q -o none.so
says "expected int8, f32, f16, bf16 or fp8"
expect 1 build "$golden/tiny-llama" --activations fp8 -q -o none.so
says "no matmul's weights are in fp8, which it goes beside: --quantize fp8"
expect 2 build "$golden/tiny-llama" --kv-cache-dtype fp8_e5m2 -q -o none.so
says "expected auto, f16, f32, int8, fp8 or fp8_e4m3"
case="the dependency file"
if grep -q model.safetensors deps.d && grep -q tokenizer.json deps.d; then pass; else fail "it lacks inputs"; fi
expect 0 build "$golden/tiny-llama" --target "$targets" --fusion plan.txt --depfile deps.d -q -o deps.so
case="the dependency file of a build by a plan"
if grep -q plan.txt deps.d; then pass; else fail "it lacks the plan"; fi
expect 0 build "$golden/tiny-llama" --emit plan -q -o -
case="-o -"
same out plan.txt
expect 2 build "$golden/tiny-llama" -q -o -
case="-o -"
if [ -e - ]; then fail "it makes a file named -"; else pass; fi
for option in --dry-run --json "--depfile x.d"; do
    # shellcheck disable=SC2086
    expect 2 build "$golden/tiny-llama" --emit plan -o x.txt $option
done
expect 2 build "$golden/tiny-llama" -q -o same.so --depfile same.so
expect 2 build "$golden/tiny-llama" -o same.so --json --print-after all
# What is asked for and not done, or beyond what the model was made for, is said, even with -q.
expect 0 build "$golden/gguf/llama-q4_1.gguf" -q --quantize int8 --dry-run
says "weights stay as they are"
expect 0 build "$golden/tiny-llama" -q --quantize int8 --dry-run
quiet
expect 0 build "$golden/tiny-llama" -q --max-model-len 1000000 --dry-run
says "max-model-len 1000000, but the model was made for"
mkdir -p no-tokenizer
cp "$golden"/tiny-llama/{config.json,model.safetensors} no-tokenizer/
expect 0 build no-tokenizer -q --dry-run
case="a directory without tokenizer.json"
if [ "$(grep -c tokenizer err)" -eq 1 ]; then pass; else fail "$(cat err)"; fi

# Failures leave what was there.
files() { find "$scratch/keep" -mindepth 1 | sort; }
mkdir -p keep
echo precious >keep/model.so
head -c 40000 "$golden/gguf/llama-q4_1.gguf" >cut.gguf
cp -r "$golden/tiny-llama" cut-dir
head -c 300000 "$golden/tiny-llama/model.safetensors" >cut-dir/model.safetensors
echo '{"model_type": "mamba"}' >mamba.json
mkdir -p mamba && mv mamba.json mamba/config.json
for input in cut.gguf cut-dir mamba missing.gguf plan.txt one.so /dev/null "$golden"; do
    expect 1 build "$input" -o keep/model.so
    silent
    says "error: "
done
case="files after failed builds"
if [ "$(files)" = "$scratch/keep/model.so" ] && [ "$(cat keep/model.so)" = precious ]; then
    pass
else
    fail "found $(files)"
fi
expect 1 build "$golden/tiny-llama" -q -o missing-dir/model.so
says "missing-dir"
expect 1 build "$golden/tiny-llama" -q -o keep
mkfifo fifo
expect 1 build "$golden/tiny-llama" -q -o fifo # not replaced
case="an output that is no file"
if [ -p fifo ]; then pass; else fail "it has been replaced"; fi
ln -s fifo link-to-fifo # as /dev/stdout may be
expect 1 build "$golden/tiny-llama" -q -o link-to-fifo
case="an output that is a link to no file"
if [ -L link-to-fifo ]; then pass; else fail "it has been replaced"; fi
expect 1 build "$golden/tiny-llama" -q --fusion plan.txt -o plan.txt
says "it is an input"
cp "$golden/gguf/llama-q4_1.gguf" input.gguf
expect 1 build input.gguf -q -o input.gguf
expect 1 build input.gguf -q --emit plan -o input.gguf
ln -s input.gguf link.gguf
expect 1 build input.gguf -q --emit ir -o link.gguf
expect 1 build input.gguf -q --depfile input.gguf -o deps.so
case="an output that is the input"
same input.gguf "$golden/gguf/llama-q4_1.gguf"
expect 1 build "$golden/tiny-llama" -q --emit ir -o missing-dir/x.ir
expect 1 build "$golden/tiny-llama" -q --depfile missing-dir/x.d -o no-deps.so
case="a dependency file that cannot be written"
if [ -e no-deps.so ]; then fail "the artifact is there all the same"; else pass; fi
# Ctrl-C.
case="an interrupted build"
"$modelcc" build "$golden/gguf/llama-q4_k.gguf" --opt-level 3 --target "$targets" -o keep/new.so \
    >out 2>err &
child=$!
sleep 0.1
kill -TERM $child
wait $child
code=$?
if [ $code -eq 0 ]; then
    rm -f keep/new.so # it was faster
elif [ $code -ne 1 ] && [ $code -ne 143 ]; then # 143: the signal came before the program began
    fail "exit code $code"
fi
if [ "$(files)" = "$scratch/keep/model.so" ]; then pass; else fail "found $(files)"; fi
