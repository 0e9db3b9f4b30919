#!/bin/sh
# Makes README's pictures: memleax starts a small C++ program and reports on it, a headless Chromium photographs the reports.
set -eu
cd "$(dirname "$0")/.."

memleax=${MEMLEAX:-$PWD/${CARGO_TARGET_DIR:-target}/release/memleax}
pictures=$PWD/docs/pictures
source=$PWD/examples/orders/orders.cpp
largest=204800

for browser in chromium chromium-browser google-chrome chrome none; do
    if command -v "$browser" >/dev/null 2>&1; then break; fi
done
if [ "$browser" = none ]; then
    echo "pictures: cannot photograph without chromium; scripts/setup.sh test installs it" >&2
    exit 1
fi

# Not in the checkout, whose path is nobody's business.
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
c++ -std=c++17 -O1 -g -fno-inline -ffile-prefix-map="${source%/*}=/home/you/shop" -o orders "$source"
"$memleax" --backend ptrace --quiet --interval 3 --expire 3 -o flamegraph.svg -o report.html -- ./orders

# picture NAME FILE WIDTH HEIGHT
mkdir -p "$pictures"
picture() {
    "$browser" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$directory/profile" \
        --window-size="$3,$4" --screenshot="$pictures/$1" "file://$directory/$2" 2>browser.log || { cat browser.log >&2; exit 1; }
    size=$(wc -c <"$pictures/$1")
    echo "docs/pictures/$1: $size bytes"
    if [ "$size" -gt "$largest" ]; then
        echo "pictures: docs/pictures/$1 is larger than $largest bytes" >&2
        exit 1
    fi
}
picture report.png report.html 1120 1280
picture flamegraph.png flamegraph.svg 1120 470
