#!/usr/bin/env bash
# The command line, end to end, on tiny checkpoints: exit codes, what is on standard output and what
# is not, JSON, damaged and missing files, full disks, Ctrl-C. Each *.sh beside this one is a group
# of cases; they use the functions and the models below, each in a folder of its own.
# usage: run.sh MODELCC [GROUP…]         (groups: the names of the files, without .sh)
set -u -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
modelcc=$(realpath "${1:?usage: run.sh MODELCC [GROUP…]}")
shift
golden=$(realpath "$here/../golden")
text=$(realpath "$here/../data/text.txt")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cache=$folder/cache    # of compiled GPU functions, for those that set XDG_CACHE_HOME
scratch=$folder/models # where a group is, its commands' output in out and err
mkdir "$scratch" && cd "$scratch" || exit 1
passed=0 failed=0 case=

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $case: $1"
    sed 's/^/    stderr: /' "$scratch/err" 2>/dev/null | head -5
}

# expect CODE ARGUMENT… runs modelcc; its output is then in out and err. Sanitizer reports are no
# outcome that a test may expect.
expect() {
    local want=$1 got
    shift
    case="modelcc $*"
    "$modelcc" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
    got=$?
    if [ "$got" -ne "$want" ]; then
        fail "exit code $got, expected $want"
    elif grep -q -e "Sanitizer" -e "runtime error:" "$scratch/err"; then
        fail "a sanitizer reports"
    else
        pass
    fi
}

# As expect, with standard input from a text.
expect_with_input() {
    local input=$1 want=$2 got
    shift 2
    case="modelcc $* (with input)"
    printf '%s' "$input" | "$modelcc" "$@" >"$scratch/out" 2>"$scratch/err"
    got=$?
    if [ "$got" -eq "$want" ]; then pass; else fail "exit code $got, expected $want"; fi
}

# What the last command printed: nothing on standard output; a pattern on standard error or output.
silent() { if [ -s "$scratch/out" ]; then fail "it prints on standard output"; else pass; fi; }
quiet() { if [ -s "$scratch/err" ]; then fail "it prints on standard error"; else pass; fi; }
says() { if grep -q -e "$1" "$scratch/err"; then pass; else fail "no \"$1\" on standard error"; fi; }
prints() { if grep -q -e "$1" "$scratch/out"; then pass; else fail "no \"$1\" on standard output"; fi; }

# holds EXPRESSION: a Python expression over `d`, the JSON on standard output of the last command.
holds() {
    local message
    if message=$(python3 -c 'import json, sys
d = json.load(open("out", encoding="utf-8"))
sys.exit(0 if eval(sys.argv[1]) else "false for " + json.dumps(d)[:300])' "$1" 2>&1); then
        pass
    else
        fail "$1: $(tail -1 <<<"$message")"
    fi
}
# holds_lines: the same over a list, one JSON object a line.
holds_lines() {
    python3 -c 'import json
json.dump([json.loads(l) for l in open("out", encoding="utf-8")], open("list", "w"))' &&
        mv list out && holds "$1" || fail "no JSON lines: $1"
}

same() { if cmp -s "$1" "$2"; then pass; else fail "$1 and $2 differ"; fi; }
differ() { if cmp -s "$1" "$2"; then fail "$1 and $2 are the same"; else pass; fi; }

# The targets that this machine runs, with commas; the models that the groups use.
targets=$("$modelcc" targets --json | python3 -c 'import json, sys
print(",".join(t["name"] for t in json.load(sys.stdin)["targets"] if t["runs_here"]))')
if [ -z "$targets" ]; then
    echo "SKIP: this processor runs none of the targets"
    exit 77
fi
expect 0 build "$golden/tiny-llama" --target "$targets" -q -o llama.so
expect 0 build "$golden/tiny-llama" --target "$targets" --activations f32 --kv-cache-dtype f32 \
    -q -o llama-f32.so
expect 0 build "$golden/gguf/llama-q4_1.gguf" --target "$targets" -q -o q4_1.so
expect 0 build "$golden/tiny-gemma3" --target "$targets" --activations f32 --kv-cache-dtype f32 \
    -q -o gemma3.so
expect 0 build "$golden/tiny-mistral" -q -o mistral.so # no chat template
expect 0 build "$golden/tiny-llama" --no-tokenizer -q -o ids-only.so

if [ $# -eq 0 ]; then
    for file in "$here"/*.sh; do
        name=$(basename "$file" .sh)
        [ "$name" = run ] || set -- "$@" "$name"
    done
fi
for group in "$@"; do
    before=$failed
    scratch=$folder/$group
    mkdir "$scratch" && cd "$scratch" && cp "$folder"/models/*.so . || exit 1
    # shellcheck disable=SC1090
    . "$here/$group.sh"
    [ "$failed" -eq "$before" ] || echo "group $group: $((failed - before)) failed"
done
echo "command line: $passed checks passed, $failed failed"
[ "$failed" -eq 0 ]
