#!/usr/bin/env bash
# Installs what the tests need, builds, and runs all of them: run.sh [--full] [--seed N]
# Without --full, long tests take a sample of their cases, from a seed that is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
full=0 seed=${MCC_TEST_SEED:-$(date +%s)}
while [ $# -gt 0 ]; do
    case "$1" in
    --full) full=1 ;;
    --seed) seed=$2; shift ;;
    *) echo "usage: tests/run.sh [--full] [--seed N]" >&2; exit 2 ;;
    esac
    shift
done
export MCC_TEST_SEED=$seed MCC_TEST_FULL=$full
echo "seed $seed, $([ "$full" = 1 ] && echo "all cases" || echo "sampled cases")"
bash tests/install.sh --tests
build=${MCC_BUILD_DIR:-build-tests}
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" >/dev/null
ninja -C "$build" --quiet
bash tests/models.sh "$build/models" smollm2
export MCC_TEST_MODELS="$PWD/$build/models"
log=$build/tests.log
status=0
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" | tee "$log" || status=$?
# All of them again, built with AddressSanitizer and UndefinedBehaviorSanitizer.
if [ "$full" = 1 ]; then
    cmake -S . -B "$build/sanitized" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
        -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DMCC_SANITIZE=ON >/dev/null
    ninja -C "$build/sanitized" --quiet
    MCC_TEST_FULL=0 CK_TIMEOUT_MULTIPLIER=10 ctest --test-dir "$build/sanitized" \
        --output-on-failure --timeout 3600 -j "$(nproc)" | tee -a "$log" || status=$?
fi
# One closing line that counts tests: the check of every unit test, and each of the other tests.
passed=$(grep -cE '^ *[0-9]+/[0-9]+ Test .* Passed' "$log" || true)
failed=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*\*\*\*(Failed|Timeout|Exception|Not Run)' "$log" || true)
skipped=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*\*\*\*Skipped' "$log" || true)
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
