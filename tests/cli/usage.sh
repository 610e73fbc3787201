# Every command: --help, wrong options, no arguments; results that cannot be written.
expect 2
silent
expect 0 --help
quiet
expect 0 --version
expect 0 help run
quiet
prints "usage: modelcc run"
expect 0 help build # the other program's
prints "usage: modelcc build"
expect 2 help no-such-command
says "there is no command"
expect 2 run llama.so "a prompt without -p"
says "after -p"
expect 2 no-such-command
says "there is no command"
silent
"$modelcc" --help >all-help
for command in $(sed -n 's/^  \([a-z]*\) .*/\1/p' all-help | grep -v modelcc); do
    expect 0 "$command" --help
    quiet
    prints "usage: modelcc $command"
    expect 2 "$command" --no-such-option
    silent
    says "modelcc $command --help"
    says "modelcc $command: --no-such-option: unknown option"
    case $command in
    targets | doctor) expect 2 "$command" surplus ;;
    *) expect 2 "$command" ;;
    esac
    silent
done

expect 2 run llama.so -p hi --temperature hot
expect 2 run llama.so -p hi --top-p 0
expect 2 run llama.so -p hi --threads 0
expect 2 run llama.so -p hi --prompt-ids "1,2,x"
# What would be without effect is no option to give.
for options in "-p hi --prompt-ids 1" "--prompt-ids 1 --system hi" "-p hi --raw --system hi"; do
    # shellcheck disable=SC2086
    expect 2 run llama.so $options
    silent
done
expect 2 tokenize llama.so --decode 1 --chat
expect 2 tokenize llama.so --decode 1 --no-special
expect 2 tokenize llama.so -p hi --skip-special
expect 2 eval llama.so --text "$text" --reference-device cpu
"$modelcc" build "$golden/tiny-llama" -q --emit graph -o llama.ir
expect 2 opt llama.ir --dot --json
silent
expect 2 chat llama.so --max-tokens 0
expect 2 eval llama.so
expect 2 eval llama.so --text a --ids b
expect 2 eval llama.so --text "$text" --window 1
expect 2 eval llama.so --text "$text" --window 64 --stride 65
expect 2 bench llama.so --repeat 0
expect 2 tokenize llama.so -p a --decode 1
expect 2 tokenize llama.so --decode 1,,2
expect 2 tokenize llama.so --decode -1
expect 2 inspect llama.so --plan --graph
expect 2 inspect llama.so --plan --json
expect 2 inspect llama.so gemma3.so
expect 2 build "$golden/tiny-llama"
expect 2 build "$golden/tiny-llama" -o x.so --target cpu:pdp-11

# A full disk behind standard output is a failure that is said.
for command in "targets" "doctor --json" "inspect llama.so" "run llama.so -p hi -n 3" \
    "tokenize llama.so -p hi" "eval llama.so --text $text --window 64"; do
    case="modelcc $command >/dev/full"
    # shellcheck disable=SC2086
    "$modelcc" $command >/dev/full 2>"$scratch/err" </dev/null
    if [ $? -eq 1 ]; then pass; else fail "the exit code is not 1"; fi
    says "cannot write"
done

expect 0 targets --json
quiet
holds 'd["cpu"] in [t["name"] for t in d["targets"] if t["runs_here"]]'
expect 0 doctor --json
quiet
holds 'd["ok"] and {"linker", "LLVM", "processor"} <= {c["name"] for c in d["checks"]}'
# Without a linker, doctor says which package has one, and building fails without leaving a file.
case="doctor without a linker"
PATH=/nonexistent "$modelcc" doctor --json >out 2>err </dev/null
if [ $? -eq 1 ]; then pass; else fail "the exit code is not 1"; fi
holds 'not d["ok"] and [c for c in d["checks"] if "lld-19" in c.get("advice", "")]'
