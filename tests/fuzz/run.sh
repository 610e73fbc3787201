#!/usr/bin/env bash
# Builds the fuzz targets with clang, AddressSanitizer and UndefinedBehaviorSanitizer, and runs each
# for a while from its seeds: corpus/TARGET/ beside this script and files that other tests use.
#   run.sh [--seconds N] [--build DIR] [TARGET…]      N: seconds a target (default 2; 60 with
#                                                     MCC_TEST_FULL=1 in the environment)
# What breaks a target is kept in DIR/found/; inputs with new coverage in DIR/corpus/TARGET/, where
# the next run starts too. The exit status is 77 where clang is missing.
set -u -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
seconds=2
[ "${MCC_TEST_FULL:-0}" = 1 ] && seconds=60
build=$root/build-fuzz
names=""
while [ $# -gt 0 ]; do
    case "$1" in
    --seconds) seconds=${2:?} && shift ;;
    --build) build=${2:?} && shift ;;
    --help | -h) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit 0 ;;
    -*) echo "run.sh: unknown option $1" >&2 && exit 2 ;;
    *) names="$names $1" ;;
    esac
    shift
done
[ -n "$names" ] || names=$(cd "$here" && ls fuzz_*.c | sed 's/\.c$//')
clang=""
for candidate in clang-19 clang; do
    [ -n "$clang" ] || clang=$(command -v "$candidate" || true)
done
if [ -z "$clang" ]; then
    echo "SKIP: no clang (Debian packages clang-19 and libclang-rt-19-dev)"
    exit 77
fi
mkdir -p "$build/found"
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER="$clang" -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DMCC_FUZZ=ON -DMCC_SANITIZE=ON >"$build/configure.log" 2>&1 ||
    { cat "$build/configure.log"; exit 1; }
# shellcheck disable=SC2086
ninja -C "$build" $names >"$build/build.log" 2>&1 || { tail -40 "$build/build.log"; exit 1; }

# The files that a target starts from besides its corpus.
seeds_of() {
    case "$1" in
    fuzz_hf_config) ls "$here"/../golden/tiny-*/config.json ;;
    fuzz_tokenizer_json) ls "$here"/../golden/tiny-*/tokenizer.json ;;
    fuzz_ir_text | fuzz_passes) ls "$here"/../passes/*.ir ;;
    esac
}

run_target() {
    local name=$1 corpus=$build/corpus/$1 log=$build/found/$1.log dict=$here/dict/$1.dict seeds
    mkdir -p "$corpus"
    [ "$name" = fuzz_passes ] && dict=$here/dict/fuzz_ir_text.dict
    seeds=$(seeds_of "$name" | paste -sd, -)
    local arguments=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000
        -artifact_prefix="$build/found/$name-" -print_final_stats=1)
    [ -f "$dict" ] && arguments+=(-dict="$dict")
    [ -n "$seeds" ] && arguments+=(-seed_inputs="$seeds")
    [ -n "${MCC_TEST_SEED:-}" ] && arguments+=(-seed="$((MCC_TEST_SEED % 4294967295 + 1))")
    local committed=()
    [ -d "$here/corpus/$name" ] && committed=("$here/corpus/$name")
    if "$build/tests/$name" "${arguments[@]}" "$corpus" "${committed[@]}" >"$log" 2>&1; then
        awk -v name="$name" '/number_of_executed_units/ { runs = $2 } / cov: / { for (i = 1; i < NF; i++)
            if ($i == "cov:") cov = $(i + 1) } END { printf "%s: %d inputs, coverage %d\n", name, runs, cov }' "$log"
    else
        echo "FAIL: $name"
        grep -vE '^#[0-9]+[[:space:]]+(NEW|REDUCE|pulse|INITED|RELOAD)' "$log" | tail -60 | sed 's/^/    /'
        return 1
    fi
}

# As many at a time as there are processors.
failed=0 running=0
for name in $names; do
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n || failed=$((failed + 1))
        running=$((running - 1))
    fi
    run_target "$name" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
done
echo "fuzz: $(echo $names | wc -w) targets, $seconds s each, $failed failed"
[ "$failed" -eq 0 ]
