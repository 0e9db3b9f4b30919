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

# The display, in a terminal that tmux is: its screen, with its colours, as a page.
screen="tmux -L pictures-$$"
trap '$screen kill-server 2>/dev/null; rm -rf "$directory"' EXIT
$screen -f /dev/null new-session -d -x 128 -y 34 "'$memleax' top --no-control --backend ptrace --expire 1 -- ./orders"
sleep 7
$screen send-keys Down
sleep 1
$screen capture-pane -p -e >screen.ansi
$screen send-keys q
python3 - screen.ansi >top.html <<'PAGE'
import html, re, sys
colours = ["#16181d", "#e05561", "#8cc265", "#d18f52", "#4aa5f0", "#c162de", "#42b3c2", "#d0d3d8"]
print("<!doctype html><meta charset=utf-8><body style='margin:0;background:#16181d;color:#d0d3d8'>"
      "<pre style='font:13.5px/17px DejaVu Sans Mono,monospace;margin:14px'>", end="")
weight, faint, reverse, colour = "normal", 1, False, colours[7]
for part in re.split(r"(\x1b\[[0-9;]*m|\x0e|\x0f)", open(sys.argv[1], encoding="utf-8").read()):
    codes = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
    if codes:
        codes = [int(code or 0) for code in codes[1].split(";")]
        if codes[:2] == [38, 5]:
            codes = [30 + codes[2] % 8]
        for code in codes:
            if code == 0: weight, faint, reverse, colour = "normal", 1, False, colours[7]
            elif code == 1: weight = "bold"
            elif code == 2: faint = 0.6
            elif code == 22: weight, faint = "normal", 1
            elif code in (7, 27): reverse = code == 7
            elif 30 <= code <= 37: colour = colours[code - 30]
            elif code == 39: colour = colours[7]
    elif part not in ("\x0e", "\x0f"):
        front, back = (colours[0], colour) if reverse else (colour, "transparent")
        css = f"font-weight:{weight};opacity:{faint};color:{front};background:{back}"
        print(f"<span style='{css}'>{html.escape(part)}</span>", end="")
print("</pre>")
PAGE
picture top.png top.html 1070 606
