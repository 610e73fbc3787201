#!/usr/bin/env bash
# Parts of the CUDA Toolkit for machines without it, from PyPI: nvidia.sh nvrtc|nvdisasm DIR fetches one into
# DIR, where it is not there already. Prints, of NVRTC (58 MB), the library's path, for MODELCC_NVRTC; of
# nvdisasm (5 MB), which shows GPU machine code, its folder, for PATH.
set -euo pipefail
part=$1 dir=$2
case $part in
nvrtc) file=lib/libnvrtc.so.13 ;;
nvdisasm) file=bin/nvdisasm ;;
*) echo "nvidia.sh: the part is $part, expected nvrtc or nvdisasm" >&2; exit 2 ;;
esac
file=$dir/nvidia/cu13/$file
if [ ! -s "$file" ]; then
    echo "fetching $part" >&2
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
        -d "$wheels" "nvidia-cuda-$part>=13,<14" >&2
    mkdir -p "$dir"
    python3 -m zipfile -e "$wheels"/*.whl "$dir"
fi
file=$(realpath "$file")
if [ "$part" = nvdisasm ]; then
    chmod +x "$file"
    dirname "$file"
else
    echo "$file"
fi
