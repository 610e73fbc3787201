#!/usr/bin/env bash
# NVRTC for machines without the CUDA Toolkit: nvrtc.sh DIR fetches it from PyPI (58 MB) into DIR, where
# it is not there already, and prints the library's path, for MODELCC_NVRTC.
set -euo pipefail
dir=$1
library=$dir/nvidia/cu13/lib/libnvrtc.so.13
if [ ! -s "$library" ]; then
    echo "fetching NVRTC (58 MB)" >&2
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
        -d "$wheels" "nvidia-cuda-nvrtc>=13,<14" >&2
    mkdir -p "$dir"
    python3 -m zipfile -e "$wheels"/*.whl "$dir"
fi
realpath "$library"
