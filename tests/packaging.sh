#!/usr/bin/env bash
# What is installed works: packaging.sh SOURCE BUILD
# Installs a build into a folder of its own, checks the library's size and symbols, builds the
# examples against the installation (CMake package and pkg-config) with a tiny model, runs them, and
# builds the runtime without the compiler.
set -euo pipefail
source_dir=$1 build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
prefix=$work/prefix
cmake --install "$build" --prefix "$prefix" --strip >"$work/log" || fail "$(cat "$work/log")"
library=$(find "$prefix" -name 'libmodelcc.so.*.*.*' -type f)
[ -n "$library" ] || fail "no libmodelcc.so is installed"
libdir=$(dirname "$library")

echo "-- the library: size and symbols"
size=$(stat -c %s "$library")
[ "$size" -lt 500000 ] || fail "libmodelcc.so has $size bytes, expected less than 500000"
others=$(nm -D --defined-only "$library" | awk '$3 !~ /^mcc_/ { print $3 }')
[ -z "$others" ] || fail "libmodelcc.so exports more than mcc_ functions: $others"
wanted=$(grep -o 'MCC_API [^(]*(' "$source_dir/runtime/modelcc.h" | grep -o 'mcc_[a-z_0-9]*(' | tr -d '(' | sort)
exported=$(nm -D --defined-only "$library" | awk '{ print $3 }' | sort)
[ "$wanted" = "$exported" ] || fail "what modelcc.h declares and libmodelcc.so exports differ:
$(diff <(echo "$wanted") <(echo "$exported"))"
echo "libmodelcc.so: $size bytes, $(echo "$exported" | wc -l) functions"

echo "-- find_package and modelcc_add_model"
mkdir "$work/a model" # a space in the path
cp "$source_dir"/tests/golden/tiny-llama/*.json "$source_dir"/tests/golden/tiny-llama/*.safetensors \
    "$work/a model/"
cp -r "$source_dir/examples" "$work/examples"
example=$work/build
cmake -S "$work/examples" -B "$example" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" \
    -DMODEL="$work/a model" >"$work/log" || fail "$(cat "$work/log")"
ninja -C "$example" >"$work/log" || fail "$(cat "$work/log")"
ninja -C "$example" -n | grep -q "no work to do" || fail "a second build has something to do"
touch "$work/a model/config.json"
ninja -C "$example" -n | grep -q "Compiling model" ||
    fail "a changed file of the model does not compile it again"
ninja -C "$example" >"$work/log" || fail "$(cat "$work/log")"

echo "-- generate.c, generate.py, modelcc run"
prompt="Once upon a time"
expected=$("$prefix/bin/modelcc" run "$example/model.so" --raw -p "$prompt" --max-tokens 20)
got=$("$example/generate" "$example/model.so" "$prompt" 20)
[ "$got" = "$expected"$'\n'"$(tail -n 1 <<<"$got")" ] ||
    fail "generate says \"$got\", modelcc run \"$expected\""
python=$(MODELCC_LIBRARY=$library python3 "$work/examples/generate.py" "$example/model.so" "$prompt" 20)
[ "$python" = "$got" ] || fail "generate.py says \"$python\", generate \"$got\""
tail -n 1 <<<"$got" | grep -q '^[1-9][0-9]* tokens$' || fail "no tokens were generated: $got"
if "$example/generate" "$work/nothing.so" x 2>"$work/log"; then fail "a missing model is no error"; fi
grep -q nothing.so "$work/log" || fail "the error does not name the file: $(cat "$work/log")"

echo "-- pkg-config"
export PKG_CONFIG_PATH=$libdir/pkgconfig
# shellcheck disable=SC2046
cc -Wall -Wextra -Werror "$work/examples/generate.c" -o "$work/generate" \
    $(pkg-config --cflags --libs modelcc) -Wl,-rpath,"$libdir"
[ "$("$work/generate" "$example/model.so" "$prompt" 20)" = "$got" ] || fail "another text"
[ "$(pkg-config --modversion modelcc)" = "$("$prefix/bin/modelcc" --version | grep -o '[0-9.]*[0-9]' | head -n 1)" ] ||
    fail "pkg-config and modelcc name different versions"

echo "-- the runtime alone, without LLVM"
cmake -S "$source_dir" -B "$work/runtime" -G Ninja -DMCC_BUILD_COMPILER=OFF -DMCC_BUILD_TESTS=OFF \
    >"$work/log" || fail "$(cat "$work/log")"
if grep -q '^LLVM_DIR' "$work/runtime/CMakeCache.txt"; then fail "the runtime alone looks for LLVM"; fi
ninja -C "$work/runtime" >"$work/log" || fail "$(tail -n 30 "$work/log")"
cmake --install "$work/runtime" --prefix "$work/small" --strip >"$work/log" || fail "$(cat "$work/log")"
small=$(find "$work/small" -name 'libmodelcc.so.*.*.*' -type f)
[ "$(MODELCC_LIBRARY=$small python3 "$work/examples/generate.py" "$example/model.so" "$prompt" 20)" = "$got" ] ||
    fail "the runtime that was built alone gives another text"
if readelf -d "$small" | grep NEEDED | grep -i llvm; then fail "the runtime needs LLVM"; fi
if [ -e "$work/small/bin" ]; then fail "the runtime alone installs programs"; fi
sed -i "s|modelcc_add_model.*|modelcc_add_model(model MODEL x)|" "$work/examples/CMakeLists.txt"
if cmake -S "$work/examples" -B "$work/refused" -G Ninja -DCMAKE_PREFIX_PATH="$work/small" \
    >"$work/log" 2>&1; then fail "modelcc_add_model works without a compiler"; fi
grep -q "only the runtime" "$work/log" || fail "$(cat "$work/log")"
echo "packaging: all fine"
