#!/bin/sh
# Watches a Redis server by bpf and a small program by ptrace for SOAK_MINUTES (30), and fails unless memleax's own memory stays flat, the
# numbers are exact, and both are as well as before. scripts/soak/soak.py says how. See `make soak`.
set -eu

cd "$(dirname "$0")/.."
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/sbin:/usr/sbin"
export PATH

built=${CARGO_TARGET_DIR:-target}
folder=$built/soak
mkdir -p "$folder"
cc -O2 -g -fPIC -shared -o "$folder/plugin.so" scripts/soak/plugin.c
cc -O2 -g -pthread -o "$folder/worker" scripts/soak/worker.c -ldl
exec python3 scripts/soak/soak.py "$built/release/memleax" "$folder" "${SOAK_MINUTES:-30}"
