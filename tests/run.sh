#!/usr/bin/env bash
# Installs what the tests need, builds, and runs them: run.sh [--full] [--seed N]
# By default long tests take a sample of their cases, from a seed that is printed. --full then also
# runs all cases, longer fuzzing and an artifact above 2 GB; and everything again under AddressSanitizer
# and UndefinedBehaviorSanitizer, and what has several threads under ThreadSanitizer. The last lines
# say what was skipped and why, and count: a unit test by its cases.
# Ctrl-C ends all of it and removes its temporary files.
set -euo pipefail
cd "$(dirname "$0")/.."
full=0 seed=${MCC_TEST_SEED:-$(date +%s)}
while [ $# -gt 0 ]; do
    case "$1" in
    --full) full=1 ;;
    --seed) seed=${2:?--seed needs a number}; shift ;;
    *) echo "usage: tests/run.sh [--full] [--seed N]" >&2; exit 2 ;;
    esac
    shift
done
case $seed in '' | *[!0-9]*) echo "run.sh: the seed is $seed, expected a number" >&2; exit 2 ;; esac

# Temporary files of all tests are below this folder, and go with it; some tests mount a small disk.
temporary=$(mktemp -d "${TMPDIR:-/tmp}/modelcc-tests-XXXXXX")
export TMPDIR=$temporary
child=
clean() {
    awk -v below="$temporary/" 'index($2, below) == 1 { print $2 }' /proc/mounts | xargs -r umount || true
    rm -rf "$temporary"
}
interrupted() {
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        kill -TERM -- "-$child" 2>/dev/null || true
        for _ in $(seq 25); do
            kill -0 -- "-$child" 2>/dev/null || break
            sleep 0.2
        done
        kill -KILL -- "-$child" 2>/dev/null || true
    fi
    echo "interrupted" >&2
    exit 130
}
trap clean EXIT
trap interrupted INT TERM HUP
# Runs a command in a process group of its own, which an interruption ends as a whole.
group() {
    local code=0
    set -m
    "$@" &
    child=$!
    set +m
    wait "$child" || code=$?
    child=
    return "$code"
}

begin=$SECONDS
build=${MCC_BUILD_DIR:-build-tests}
models=smollm2
parts=1
[ "$full" = 1 ] && models="smollm2 gemma3" parts=4
export MCC_TEST_SEED=$seed MCC_TEST_FULL=0
echo "seed $seed, $([ "$full" = 1 ] && echo "all cases" || echo "sampled cases")"
bash tests/install.sh --tests
# shellcheck disable=SC2086
group bash tests/models.sh "$build/models" $models
export MCC_TEST_MODELS="$PWD/$build/models"
results=$build/results
rm -rf "$results"
mkdir -p "$results"

# build FOLDER OPTION…
build() {
    local folder=$1
    shift
    group cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" \
        "$@" >"$results/configure.log" || { cat "$results/configure.log"; exit 1; }
    group ninja -C "$folder" --quiet || { echo "$folder does not build" >&2; exit 1; }
}
# part NUMBER NAME FOLDER WHAT OPTION…: one run of ctest, with its results in a file of that name.
status=0
part() {
    local number=$1 name=$2 folder=$3 what=$4
    shift 4
    echo "== part $number of $parts: $what ($(((SECONDS - begin) / 60)) min so far)"
    group ctest --test-dir "$folder" --output-on-failure -j "$(nproc)" --no-tests=error "$@" \
        --output-junit "$PWD/$results/$name.xml" --test-output-size-passed 100000000 \
        --test-output-size-failed 100000000 || status=1
}

# Whether the CUDA compiler is found: without the Toolkit it comes from PyPI, and where that fails too,
# what needs it is skipped and says so.
has_nvrtc() {
    { "$build/compiler/modelcc" doctor --json || true; } | python3 -c 'import json, sys
checks = {c["name"]: c["verdict"] for c in json.load(sys.stdin)["checks"]}
sys.exit(checks["NVRTC"] != "fine")'
}

build "$build"
if ! has_nvrtc && MODELCC_NVRTC=$(bash tests/nvidia.sh nvrtc "$build/nvrtc"); then
    export MODELCC_NVRTC
fi
if ! command -v nvdisasm >/dev/null && tools=$(bash tests/nvidia.sh nvdisasm "$build/nvdisasm"); then
    export PATH=$PATH:$tools
fi
part 1 tests "$build" "every test, long ones with a sample of their cases"
if [ "$full" = 1 ]; then
    part 2 all-cases "$build" "all cases, 60 s of every fuzz target, an artifact above 2 GB" -C Full -L full
    # Sanitizers make code several times slower, so that Check's limits on time are longer too.
    export CK_TIMEOUT_MULTIPLIER=10
    build "$build/sanitized" -DMCC_SANITIZE=ON
    part 3 sanitized "$build/sanitized" "every test under AddressSanitizer and UndefinedBehaviorSanitizer"
    part 3 sanitized-soak "$build/sanitized" "10,000 requests in the same way" -C Full -R '^test_soak_all$'
    build "$build/threads" -DMCC_SANITIZE_THREAD=ON
    export TSAN_OPTIONS=suppressions=$PWD/tests/tsan.supp
    part 4 threads "$build/threads" "what has several threads, under ThreadSanitizer" -L threads
    part 4 threads-soak "$build/threads" "10,000 requests in the same way" -C Full -R '^test_soak_all$'
fi
echo "== seed $seed, $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s"
files=()
for name in tests all-cases sanitized sanitized-soak threads threads-soak; do
    files+=("$results/$name.xml")
    [ "$full" = 1 ] || break
done
python3 tests/summary.py "${files[@]}" || status=1
exit "$status"
