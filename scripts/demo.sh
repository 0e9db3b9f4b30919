#!/bin/sh
# memleax at its main job: attaches to a running program with a planted leak and names the line that allocates.
set -eu
cd "$(dirname "$0")/.."

memleax=${CARGO_TARGET_DIR:-target}/release/memleax
directory=${CARGO_TARGET_DIR:-target}/demo
source=examples/demo/leak.c
mkdir -p "$directory"

cc -O2 -g -o "$directory/leak" "$source"
"$directory/leak" &
leak=$!
trap 'kill "$leak" 2>/dev/null || :' EXIT

echo "+ cc -O2 -g -o $directory/leak $source && $directory/leak &"
echo "+ $memleax --expire 1 --duration 5 $leak"
"$memleax" --expire 1 --duration 5 "$leak" | tee "$directory/report"

line=$(grep -n 'planted leak \*/' "$source" | cut -d: -f1)
if ! kill -0 "$leak"; then
    echo "demo: the target did not survive" >&2
    exit 1
fi
if ! grep -q "log_request.*leak\.c:$line" "$directory/report"; then
    echo "demo: the report does not name log_request at $source:$line" >&2
    exit 1
fi
