# run, chat and tokenize.
expect 0 run llama.so -p "hello there" -n 12
quiet
expect 0 run llama.so -p "hello there" -n 12 --json
quiet
holds 'len(d["token_ids"]) <= 12 and d["prompt_token_ids"] and d["finish_reason"] in ("stop", "length")'
# Greedy output is the same for any chunking, thread count and target.
"$modelcc" run llama.so --raw -p "the quick brown fox jumps" -n 40 --ignore-eos --json >want 2>err
for options in "--max-num-batched-tokens 1" "--max-num-batched-tokens 3" "--threads 1" "--threads 3" \
    $(tr ',' '\n' <<<"$targets" | sed 's/^/--target=/') "--huge-pages"; do
    # shellcheck disable=SC2086
    expect 0 run llama.so --raw -p "the quick brown fox jumps" -n 40 --ignore-eos --json $options
    holds 'd["token_ids"] == json.load(open("want"))["token_ids"] and len(d["token_ids"]) == 40'
done
# The same seed, the same tokens; another, others.
for seed in 1 1 2; do
    expect 0 run llama.so --raw -p "the" -n 40 --ignore-eos --temperature 2 --seed $seed --json
    python3 -c 'import json; print(json.load(open("out"))["token_ids"])' >>seeds
done
case="sampling with seeds 1, 1, 2"
if [ "$(sed -n 1p seeds)" = "$(sed -n 2p seeds)" ] && [ "$(sed -n 2p seeds)" != "$(sed -n 3p seeds)" ]; then
    pass
else
    fail "$(cat seeds)"
fi
expect 0 run llama.so --prompt-ids 3,193,102 -n 5 --json
holds 'd["prompt_token_ids"] == [3, 193, 102]'
expect 0 run ids-only.so --prompt-ids 3,193,102 -n 5 --ignore-eos --json
holds 'len(d["token_ids"]) == 5'
expect 0 run ids-only.so --prompt-ids 3,193,102 -n 5 --ignore-eos
quiet
case="ids, from a model without a tokenizer"
if grep -qxE '([0-9]+,){4}[0-9]+' out; then pass; else fail "found $(cat out)"; fi
expect 1 run ids-only.so -p hi
silent
expect 1 run mistral.so -p hi --system "be brief" # it has no chat template
silent
says "chat template"
expect 1 run llama.so --prompt-ids 3,384
silent
expect 1 run llama.so --target cpu:pdp-11 -p hi
expect 1 run llama.so --max-model-len 8 --raw -p "a text of more than eight tokens, surely"
silent
expect_with_input "from a pipe" 0 run llama.so --raw -n 3
for input in '' $' \n'; do
    expect_with_input "$input" 1 run llama.so -n 3
    silent
    says "the prompt is empty"
    expect 1 run llama.so -p "$input" -n 3
    silent
    says "the prompt is empty"
done
expect_with_input '' 1 run llama.so --raw -n 3
says "the prompt is empty"
expect_with_input $'\n' 0 run llama.so --raw -n 3
expect 1 run mistral.so -p hi --check --max-model-len 100000000
says "max_model_len"

# chat: turns share the cache; commands; what does not fit.
expect_with_input $'one\ntwo words\n/reset\none\n' 0 chat llama.so --json -n 6
quiet_lines=$(wc -l <out)
case="chat --json"
if [ "$quiet_lines" -eq 3 ]; then pass; else fail "$quiet_lines lines, expected 3"; fi
holds_lines 'd[0]["cached_tokens"] == 0 and d[1]["cached_tokens"] >= d[0]["prompt_tokens"] - 1'
holds 'd[2]["text"] == d[0]["text"] and d[2]["prompt_tokens"] == d[0]["prompt_tokens"] and 0 < d[2]["cached_tokens"] < d[2]["prompt_tokens"]'
expect_with_input $'/system be brief\nhi\n/exit\nnever\n' 0 chat gemma3.so --json -n 4
case="chat ends at /exit"
if [ "$(wc -l <out)" -eq 1 ]; then pass; else fail "$(cat out)"; fi
expect_with_input $'hi\n' 0 chat llama.so -n 4
case="chat without a terminal prints no prompt"
if grep -q '^> ' out err; then fail "it does"; else pass; fi
expect_with_input '' 0 chat llama.so
silent
expect_with_input $'/unknown\n' 1 chat llama.so
silent
expect_with_input $'a line of text that is longer than the context\n' 1 chat llama.so --max-model-len 16
silent
says "/reset"
expect_with_input $'hi\n' 1 chat mistral.so
says "chat template"

# A conversation in a file goes on as if it had not ended.
expect_with_input $'one\ntwo words\nthree\n' 0 chat llama.so --json -n 6
cp out whole
expect_with_input $'one\ntwo words\n' 0 chat llama.so --json -n 6 --session talk.session
expect_with_input $'three\n' 0 chat llama.so --json -n 6 --session talk.session
says "4 messages"
holds 'd["text"] == json.loads(open("whole").readlines()[2])["text"] and d["cached_tokens"] >= 16'
expect_with_input $'hi\n' 1 chat llama.so --session talk.session --system "be brief"
says "has a conversation that has begun"
expect_with_input $'hi\n' 1 chat gemma3.so --session talk.session
says "another model"
head -c 100 talk.session >cut.session
expect_with_input $'hi\n' 1 chat llama.so --session cut.session
silent
case="an interrupted chat"
"$modelcc" chat llama.so >out 2>err < <(sleep 5) &
child=$!
sleep 0.5
kill -TERM $child
wait $child
code=$?
if [ $code -le 1 ]; then pass; else fail "exit code $code"; fi

# tokenize: there and back.
for sample in "hello world" "a  b   c" "naïve café" "tab	and 你好 🙂" " leading"; do
    for model in llama.so q4_1.so; do
        expect 0 tokenize $model -p "$sample" --no-special --json
        quiet
        printf '%s' "$sample" >sample
        holds '"".join(d["pieces"]) == d["text"] == open("sample").read() or "\ufffd" in "".join(d["pieces"])'
        ids=$(python3 -c 'import json; print(",".join(map(str, json.load(open("out"))["ids"])))')
        expect 0 tokenize $model --decode "$ids" --json
        holds 'd["text"] == open("sample").read()'
    done
done
expect 0 tokenize gemma3.so -p hi --json
holds 'd["pieces"][0] == "<bos>"'
expect 0 tokenize gemma3.so -p hi --no-special --json
holds 'd["pieces"][0] != "<bos>"'
expect 0 tokenize llama.so -p hi --chat --json
holds '"hi" in d["text"] and d["text"] != "hi"'
expect_with_input "hi" 0 tokenize llama.so --json
holds 'd["text"] == "hi"'
expect 1 tokenize llama.so --decode 384
silent
expect 1 tokenize ids-only.so -p hi
silent

# On a terminal: a prompt, answers, a wrong command that ends nothing, Ctrl-C at the prompt.
cat >terminal.py <<'PY'
import os, pty, select, sys, time

pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], "chat", "llama.so", "-n", "8"])


data = b""


def until(*wanted):
    global data
    for what in wanted:
        end = time.monotonic() + 60
        while what not in data and time.monotonic() < end:
            if select.select([fd], [], [], 0.2)[0]:
                try:
                    data += os.read(fd, 4096)
                except OSError:
                    break
        if what not in data:
            sys.exit(f"no {what!r} in {data!r}")
        data = data[data.index(what) + len(what) :]


until(b"> ")
for line, answer in ((b"hi\n", b"hi\r\n"), (b"/nope\n", b"there is no /nope"), (b"/reset\n", b"/reset")):
    os.write(fd, line)
    until(answer, b"\n> ")
os.write(fd, b"\x03")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PY
case="chat on a terminal"
if timeout 120 python3 terminal.py "$modelcc" >out 2>err; then pass; else fail "exit code $?"; fi
