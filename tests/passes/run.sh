#!/usr/bin/env bash
# Runs the RUN lines of the textual tests beside this script:
#   // RUN: modelcc opt %s --passes=cse | FileCheck-19 %s
# %s is the file, %t a scratch file, `not` expects the command to fail. The last line says how many
# passed; the exit status is 77 where FileCheck is missing.
# usage: run.sh MODELCC [FILE.ir…]       FILECHECK=… names another FileCheck.
set -u -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
modelcc=${1:?usage: run.sh MODELCC [FILE.ir…]}
shift
filecheck=${FILECHECK:-}
for candidate in FileCheck-19 FileCheck /usr/lib/llvm-19/bin/FileCheck; do
    [ -n "$filecheck" ] || filecheck=$(command -v "$candidate" || true)
done
if [ -z "$filecheck" ]; then
    echo "SKIP: no FileCheck (Debian package llvm-19-tools)"
    exit 77
fi
[ $# -gt 0 ] || set -- "$here"/*.ir
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

not() { ! "$@"; }
modelcc() { "$modelcc" "$@"; }
FileCheck-19() { "$filecheck" "$@"; }
FileCheck() { "$filecheck" "$@"; }

passed=0 failed=0
for file in "$@"; do
    lines=$(sed -n 's|^// *RUN: *||p' "$file")
    if [ -z "$lines" ]; then
        echo "FAIL: $file: no RUN line"
        failed=$((failed + 1))
        continue
    fi
    number=0
    while IFS= read -r line; do
        number=$((number + 1))
        command=${line//%s/$(printf %q "$file")}
        command=${command//%t/$(printf %q "$scratch/t")}
        if (eval "$command") >"$scratch/log" 2>&1; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "FAIL: $file: RUN line $number: $line"
            sed 's/^/    /' "$scratch/log" | head -40
        fi
    done <<<"$lines"
done
echo "passes: $passed RUN lines passed, $failed failed"
[ "$failed" -eq 0 ]
