#!/usr/bin/env bash
# Installs the Debian packages of tests/packages.txt that are missing: install.sh [--tests]
set -euo pipefail
cd "$(dirname "$0")"
sections="build"
[ "${1:-}" = --tests ] && sections="build tests"
wanted=$(awk -v want="$sections" 'BEGIN { section = "build" }
    /^\[/ { gsub(/[][]/, ""); section = $1; next }
    /^#/ || index(want, section) == 0 { next }
    { print }' packages.txt)
missing=""
for package in $wanted; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" ||
        missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "packages: all there"
    exit 0
fi
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
echo "packages: installing$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
