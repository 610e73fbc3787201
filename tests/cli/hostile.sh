# Damaged models of every format, sampled by a seed: no crash, no hang, nothing written, and an error
# that names the file. Then everything around a model that can be wrong.
seed=${MCC_TEST_SEED:-$RANDOM}
count=25
[ "${MCC_TEST_FULL:-0}" = 1 ] && count=1000
echo "damaged models: seed $seed, $count of each kind"

# survives ARGUMENT… runs modelcc on something damaged: exit code 0 or 1, 1 with an error that names
# $subject; a sanitizer's report, a signal and a minute are failures. The code is then in $code.
survives() {
    timeout 60 "$modelcc" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
    code=$?
    if [ $code -gt 1 ]; then
        fail "exit code $code ($done_to)"
    elif grep -q -e "Sanitizer" -e "runtime error:" -e "internal error" "$scratch/err"; then
        fail "a report of what must not happen ($done_to)"
    elif [ $code -eq 1 ] && ! grep -qF -e "$subject" "$scratch/err"; then
        fail "no error that names $subject ($done_to)"
    elif [ $code -eq 1 ] && ! grep -q "error: " "$scratch/err"; then
        fail "no error ($done_to)"
    else
        pass
    fi
}
refused() { if [ $code -eq 1 ]; then pass; else fail "it is accepted ($done_to)"; fi; }
nothing_written() {
    if [ -z "$(ls -A written)" ]; then pass; else fail "it has written $(ls -A written) ($done_to)"; fi
}

mkdir -p damaged written
damage() { python3 "$here/damage.py" "$1" "$2" damaged "$seed" "$count" >damaged/list || fail "no damaged files"; }

damage gguf "$golden/gguf/qwen2-q8_0.gguf"
while IFS=$'\t' read -r name done_to outcome; do
    case="a damaged GGUF file"
    mv "damaged/$name" hostile.gguf
    subject=hostile.gguf
    if [ "$outcome" = refuse ]; then
        survives build hostile.gguf -q -o written/x.so
        refused
        nothing_written
    else
        survives build hostile.gguf -q --dry-run -o written/x.so
    fi
done <damaged/list

# A directory with one of its files damaged.
damage_directory() {
    damage "$1" "$golden/tiny-llama/$2"
    rm -rf hostile && cp -r "$golden/tiny-llama" hostile && chmod -R u+w hostile
    while IFS=$'\t' read -r name done_to outcome; do
        case="a damaged $2"
        mv "damaged/$name" "hostile/$2"
        subject=$2
        # A tensor that is missing, or does not fit config.json, is an error of the directory.
        case $2 in config.json | model.safetensors) subject=hostile ;; esac
        survives build hostile -q --dry-run -o written/x.so
        [ "$outcome" = survive ] || refused
        nothing_written
    done <damaged/list
}
damage_directory safetensors model.safetensors
damage_directory json config.json
damage_directory json tokenizer.json
damage_directory json tokenizer_config.json

damage artifact q4_1.so
while IFS=$'\t' read -r name done_to outcome; do
    case="a damaged artifact"
    mv "damaged/$name" hostile.so
    subject=hostile.so
    survives inspect hostile.so --check
    [ "$outcome" = survive ] || refused
    checked=$code
    # Without --check only weights may differ from what they were.
    survives run hostile.so -p hi -n 2
    if [ $code -eq 0 ] && [ "$checked" -eq 1 ] && [[ "$done_to" != *"of section 9 "* ]] &&
        [[ "$done_to" == byte* ]]; then
        fail "it runs ($done_to)"
    fi
done <damaged/list
rm -rf damaged hostile hostile.gguf hostile.so

# What is no model at all.
mkdir -p empty-dir
: >empty.gguf
: >empty.so
ln -sf loop loop
for input in empty.gguf empty-dir /dev/zero /dev/null loop "" . /proc/self/mem; do
    expect 1 build "$input" -q -o written/x.so
    silent
    says "error: "
done
for input in empty.so empty-dir /dev/zero /dev/null loop "" /proc/self/mem "$golden/gguf/llama-q4_1.gguf" \
    /bin/sh "$text"; do
    expect 1 run "$input" -p hi
    silent
    says "error: "
    expect 1 inspect "$input"
done
if [ "$(id -u)" != 0 ]; then
    cp llama.so unreadable.so && chmod 0 unreadable.so
    expect 1 run unreadable.so -p hi
    says "unreadable.so"
    mkdir -p read-only && cp llama.so read-only/old.so && chmod 555 read-only
    expect 1 build "$golden/tiny-llama" -q -o read-only/old.so
    says "read-only/old.so: cannot replace it" # before the work
    expect 1 build "$golden/tiny-llama" -q -o read-only/x.so
    says "read-only/x.so"
else
    echo "skipped: files that may not be read or written (root may)"
fi
case="files after refused builds"
done_to="no models"
nothing_written

# No room: a file system of 128 kB, and a limit of 100 kB a file.
if unshare --mount sh -c 'mount -t tmpfs -o size=128k none written' 2>/dev/null; then
    case="build onto a full disk"
    # shellcheck disable=SC2016
    unshare --mount sh -c 'mount -t tmpfs -o size=128k none written
        "$0" build "$1" -q -o written/x.so </dev/null; code=$?; ls -A written; exit $code' \
        "$modelcc" "$golden/tiny-llama" >out 2>err
    if [ $? -eq 1 ]; then pass; else fail "the exit code is not 1"; fi
    says "written/x.so.*No space left"
    silent # nor is a file there
else
    echo "skipped: a full disk (mounting is not permitted)"
fi
case="build with a limit on the size of files"
(ulimit -f 100 && "$modelcc" build "$golden/tiny-llama" -q -o written/x.so </dev/null >out 2>err)
if [ $? -eq 1 ]; then pass; else fail "the exit code is not 1"; fi
says "written/x.so"
done_to="a limit on the size of files"
nothing_written

# Numbers beyond reason.
expect 1 run llama.so -p hi --max-model-len 1000000000
says "max-model-len\|max_model_len"
expect 2 run llama.so -p hi --max-model-len 99999999999999999999
expect 2 run llama.so -p hi --max-tokens -5
expect 0 run llama.so -p hi -n 3 --threads 1000
expect 2 run llama.so -p hi --threads 1000000000
expect 0 run llama.so -p hi -n 3 --max-model-len 32
expect 1 run llama.so --raw -p "$(head -c 20000 "$text")" -n 3
says "error: "
expect 1 run llama.so --prompt-ids 99999999 -n 3
says "error: "

# Standard streams that are not there.
case="run with standard input closed"
"$modelcc" run llama.so -p hi -n 3 <&- >out 2>err
if [ $? -eq 0 ]; then pass; else fail "exit code $?"; fi
case="run without prompt and with standard input closed"
"$modelcc" run llama.so -n 3 <&- >out 2>err
if [ $? -eq 1 ]; then pass; else fail "the exit code is not 1"; fi
says "error"
for command in "run llama.so -p hi -n 3" "inspect llama.so" "inspect llama.so --json" "doctor" \
    "tokenize llama.so -p hi" "targets"; do
    case="modelcc $command >&-"
    # shellcheck disable=SC2086
    "$modelcc" $command </dev/null 2>err >&-
    if [ $? -eq 1 ]; then pass; else fail "the exit code is not 1"; fi
    says "cannot write"
    case="modelcc $command 2>&-"
    # shellcheck disable=SC2086
    "$modelcc" $command </dev/null >out 2>&-
    if [ $? -le 1 ]; then pass; else fail "it crashes"; fi
done
case="build --emit asm >/dev/full"
"$modelcc" build "$golden/tiny-llama" -q --emit asm >/dev/full 2>err </dev/null
if [ $? -eq 1 ] && [ "$(grep -c "error: " err)" -eq 1 ]; then pass; else fail "not one error: $(cat err)"; fi

# An artifact that is cut short while it is in use, between two answers.
case="an artifact that is cut short in use"
cp llama.so short.so && mkfifo questions && : >out
timeout 60 "$modelcc" chat short.so --ignore-eos -n 4 <questions >out 2>err &
child=$!
exec 3>questions
echo hi >&3
for _ in $(seq 300); do
    [ -s out ] && break
    sleep 0.1
done
[ -s out ] || fail "no answer"
truncate -s 4096 short.so
echo hi >&3
exec 3>&-
wait $child
code=$?
if [ $code -eq 1 ]; then pass; else fail "exit code $code"; fi
says "error: .*cut short"

case="build with standard output and error closed"
"$modelcc" build "$golden/tiny-llama" -q -o written/x.so </dev/null >&- 2>&-
if [ $? -eq 0 ] && "$modelcc" inspect written/x.so --check >out 2>err; then pass; else fail "no sound artifact"; fi
rm -f written/x.so
"$modelcc" build "$golden/tiny-llama" -q --emit graph -o pipe.ir
for command in "run llama.so --raw -p hi -n 200" "inspect llama.so --graph" "build $golden/tiny-llama -q --emit asm" \
    "opt pipe.ir --pipeline --json"; do
    case="modelcc $command | head -c 1"
    # shellcheck disable=SC2086
    timeout 60 "$modelcc" $command </dev/null 2>err | head -c 1 >out
    if [ "${PIPESTATUS[0]}" -le 1 ]; then pass; else fail "it dies of the closed pipe"; fi
    if grep -q "error: " err; then fail "it complains of a reader that has enough"; else pass; fi
done
