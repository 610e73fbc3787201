#!/usr/bin/env bash
# nvdisasm, which shows GPU machine code, for machines without the CUDA Toolkit: nvdisasm.sh DIR fetches it
# from PyPI (5 MB) into DIR, where it is not there already, and prints the folder for PATH.
set -euo pipefail
dir=$1
tool=$dir/nvidia/cu13/bin/nvdisasm
if [ ! -s "$tool" ]; then
    echo "fetching nvdisasm (5 MB)" >&2
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
        -d "$wheels" "nvidia-cuda-nvdisasm>=13,<14" >&2
    mkdir -p "$dir"
    python3 -m zipfile -e "$wheels"/*.whl "$dir"
fi
chmod +x "$tool"
dirname "$(realpath "$tool")"
