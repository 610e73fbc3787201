#!/usr/bin/env bash
# From a fresh Debian 12 machine to an answer: installs what is needed, builds modelcc, fetches
# SmolLM2-135M-Instruct, compiles it and asks it a question. Run it again whenever you like.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tests/install.sh
echo "building modelcc"
cmake -S . -B build -G Ninja -DMCC_BUILD_TESTS=OFF >/dev/null
ninja -C build --quiet
bash tests/models.sh build/models smollm2
build/compiler/modelcc build build/models/SmolLM2-135M-Instruct.gguf -o build/smollm2.so
echo
echo '> What is a compiler?'
build/compiler/modelcc run build/smollm2.so -p "${1:-What is a compiler?}" --max-tokens 120
