#!/bin/sh
# What can be known of memleax on FreeBSD without a FreeBSD machine.
#
#   scripts/freebsd.sh [lint] [abi] [link]        (default: all three)
#
# lint: clippy for x86_64-unknown-freebsd (not the benchmarks, which are Linux's), warnings denied
# abi:  the table platform/freebsd/abi_table.rs against FreeBSD's own headers, by a C compiler and by rustc; a wrong row must fail
# link: a memleax binary for FreeBSD, shown by file(1)
#
# C compiler, headers and libraries are those of zig, a package of PyPI, put under target/. It fails if something cannot be had.
set -eu

cd "$(dirname "$0")/.."
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export PATH

TARGET=x86_64-unknown-freebsd
RELEASE=14.0
TABLE=platform/freebsd/abi_table.rs
WORK=${CARGO_TARGET_DIR:-target}/freebsd
mkdir -p "$WORK"
WORK=$(cd "$WORK" && pwd)

say() { printf 'freebsd: %s\n' "$*"; }
fail() {
    say "$*" >&2
    exit 1
}

# zig as a C compiler for FreeBSD, at $WORK/cc.
get_compiler() {
    mkdir -p "$WORK/lib"
    if ! "$WORK/zig/bin/python3" -m ziglang version >/dev/null 2>&1; then
        rm -rf "$WORK/zig"
        if ! { python3 -m venv "$WORK/zig" && "$WORK/zig/bin/python3" -m pip install --quiet ziglang; }; then
            fail "cannot install zig from PyPI (no network, or no python3 with venv?): headers and libraries of FreeBSD are missing"
        fi
    fi
    printf '#!/bin/sh\nexec "%s/zig/bin/python3" -m ziglang cc -target x86_64-freebsd.%s -L"%s/lib" "$@"\n' "$WORK" "$RELEASE" \
        "$WORK" >"$WORK/cc"
    chmod +x "$WORK/cc"
}

get_target() {
    # Not from a pipe: grep -q would end it early.
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$TARGET" ] && ! rustup target add "$TARGET"; then
        fail "cannot install Rust's standard library for $TARGET (no network, or Rust not by rustup?)"
    fi
}

# The libc crate names libraries of FreeBSD's base system that zig lacks, and of which nothing here uses anything: the
# linker drops empty ones again (--as-needed).
make_stubs() {
    echo >"$WORK/empty.c"
    for library in kvm.so.7 memstat.so.3 procstat.so.1 devstat.so.7; do
        name=lib${library%%.so.*}
        "$WORK/cc" -shared -nostdlib -Wl,-soname,"lib$library" -o "$WORK/lib/$name.so" "$WORK/empty.c"
    done
}

lint() {
    get_target
    say "clippy for $TARGET"
    cargo clippy --locked --target "$TARGET" --workspace --lib --bins --tests --examples -- -D warnings
}

# abi_source FILE: the table's rows as static asserts of C.
abi_source() {
    cat <<'C'
#include <sys/param.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/sysctl.h>
#include <sys/elf.h>
#include <sys/proc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <machine/reg.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
C
    sed -n 's/^    \["\(.*\)", .*, \([-0-9a-fx]*\)\],$/_Static_assert((\1) == (\2), "\1");/p' "$1"
}

abi() {
    get_compiler
    get_target
    rows=$(grep -c '^    \["' "$TABLE")
    abi_source "$TABLE" >"$WORK/abi.c"
    [ "$rows" -gt 100 ] && [ "$(grep -c '^_Static_assert' "$WORK/abi.c")" = "$rows" ] || fail "not every row of $TABLE became C"
    "$WORK/cc" -c -o "$WORK/abi.o" "$WORK/abi.c" || fail "$TABLE contradicts FreeBSD's headers"
    cargo check --locked --quiet --target "$TARGET" -p memleax-platform || fail "$TABLE contradicts platform/freebsd/abi.rs"

    # What always agrees would prove nothing.
    row='    \["sizeof(struct ptrace_lwpinfo)", size_of::<LwpInfo>(), '
    sed "s/^${row}160\]/${row}168]/; s/\\\\\[/[/" "$TABLE" >"$WORK/wrong_table.rs"
    cmp -s "$TABLE" "$WORK/wrong_table.rs" && fail "the negative control found no row to change"
    abi_source "$WORK/wrong_table.rs" >"$WORK/wrong.c"
    if "$WORK/cc" -c -o "$WORK/wrong.o" "$WORK/wrong.c" 2>"$WORK/wrong.err"; then
        fail "a wrong row was not noticed by the C compiler"
    fi
    grep -q 'ptrace_lwpinfo' "$WORK/wrong.err" || fail "the C compiler failed for another reason: $(cat "$WORK/wrong.err")"
    printf '#![allow(dead_code)]\n#[path = "%s"]\npub mod abi;\n#[path = "%s"]\nmod abi_table;\n' \
        "$PWD/platform/freebsd/abi.rs" "$WORK/wrong_table.rs" >"$WORK/wrong.rs"
    libc=$(find "${CARGO_TARGET_DIR:-target}/$TARGET/debug/deps" -name 'liblibc-*.rmeta' | head -n 1)
    if rustc --edition 2024 --target "$TARGET" --crate-type lib --emit metadata -o "$WORK/wrong.rmeta" --extern libc="$libc" \
        "$WORK/wrong.rs" 2>"$WORK/wrong.err"; then
        fail "a wrong row was not noticed by rustc"
    fi
    grep -q 'sizeof(struct ptrace_lwpinfo)' "$WORK/wrong.err" || fail "rustc failed for another reason: $(cat "$WORK/wrong.err")"
    say "the ABI: $rows rows agree with FreeBSD $RELEASE's headers; a wrong one is noticed by both compilers"
}

link() {
    get_compiler
    get_target
    make_stubs
    say "linking for $TARGET"
    CARGO_TARGET_X86_64_UNKNOWN_FREEBSD_LINKER="$WORK/cc" cargo build --locked --target "$TARGET" --bin memleax
    file "${CARGO_TARGET_DIR:-target}/$TARGET/debug/memleax" | tee "$WORK/file.txt"
    grep -q 'ELF 64-bit .*FreeBSD' "$WORK/file.txt" || fail "that is no program for FreeBSD"
}

[ $# -gt 0 ] || set -- lint abi link
for step; do
    case $step in
    lint | abi | link) "$step" ;;
    *) fail "no such step: $step (lint, abi, link)" ;;
    esac
done
