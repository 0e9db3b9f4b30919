#!/usr/bin/env bash
# Runs live tests of the bpf backend under other kernels: Debian's, each in a virtual machine without hardware support (qemu's TCG).
#
#   scripts/test-kernels.sh [KERNEL…]        (default: all of those below)
#
# The machine has no disk: everything that the tests need is in its initramfs, at the same paths as here (which may be below /tmp). The test programs are
# those that this kernel runs the same tests with first. Kernels are kept in target/kernels; remove that to fetch anew.
# DEBIAN_MIRROR: where from, http://deb.debian.org/debian unless set.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

# Name, Debian's suite that has it, how memleax must set its probes there.
KERNELS='
5.10   bullseye perf uprobe with programs for old kernels
6.1    bookworm perf uprobe
6.12   trixie   uprobe multi
newest sid      uprobe session
'
# C and C++ with each kind of executable, threads (but not a quarter of a million pairs: this is slow), forks and execs, libraries that come
# and go, all ways to end, objects.
TESTS=(
    ground_truth::c_pie ground_truth::c_static_glibc ground_truth::c_static_musl ground_truth::c_dynamic_musl
    ground_truth::c_stripped ground_truth::c_without_plt ground_truth::cpp_pie ground_truth::cpp_static ground_truth::rust
    threads::four_threads threads::thread_storm threads::attach_and_detach threads::block_in_flight threads::realloc_that
    children:: modules::library_loaded modules::replaced_executable endings:: objects::every_object objects::in_several_threads
)
# Seconds: for all tests under one kernel.
PATIENCE=900
MEMORY=3G

say() { printf 'test-kernels: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

[ "$(uname -m)" = x86_64 ] || die "only for x86_64"
for tool in qemu-system-x86_64 apt-get dpkg-deb busybox; do
    command -v $tool >/dev/null || die "cannot go on without $tool: scripts/setup.sh kernels installs it where packages come by apt"
done
mkdir -p target/kernels
HERE=$(pwd)
KEPT=$HERE/target/kernels
WORK=$(mktemp -d "$KEPT/run.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'say "line $LINENO of the script failed" >&2' ERR

# Brings $KEPT/NAME/vmlinuz. 3: the archive has this suite no longer.
fetch() {
    local name=$1 suite=$2 folder=$KEPT/$1 mirror deb package
    [ ! -s "$folder/vmlinuz" ] || return 0
    rm -rf "$folder"
    mkdir -p "$folder"/apt/{state/lists/partial,cache/archives/partial} "$folder"/debs
    cat >"$folder/apt.conf" <<CONF
Dir::Etc::SourceList "$folder/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$folder/apt/state";
Dir::State::status "/dev/null";
Dir::Cache "$folder/apt/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
CONF
    local -x APT_CONFIG=$folder/apt.conf
    # The archive of a suite that is no longer supported moves.
    for mirror in "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" http://archive.debian.org/debian; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$folder/sources.list"
        apt-get -q --error-on=any update >"$folder/update" 2>&1 && break
        grep -Eq '404 +Not Found|does not have a Release file' "$folder/update" || { cat "$folder/update" >&2; return 1; }
        [ "$mirror" = http://archive.debian.org/debian ] && return 3
    done
    package=$(depends linux-image-cloud-amd64 'linux-image-')
    # As of 6.19 the kernel itself is in a package of its own.
    (cd "$folder/debs" && apt-get -q download $package $(depends "$package" 'linux-binary-')) >"$folder/download" 2>&1 ||
        { cat "$folder/download" >&2; return 1; }
    for deb in "$folder"/debs/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -O --wildcards '*/vmlinuz*' >"$folder/unfinished" 2>/dev/null || continue
        dpkg-deb --field "$deb" Version >"$folder/version"
        rm -rf "$folder"/{apt,debs}
        mv "$folder/unfinished" "$folder/vmlinuz"
        return 0
    done
    say "no kernel in: $(ls "$folder/debs")" >&2
    return 1
}
depends() {
    apt-cache depends --important "$1" | sed -n "s/^ *Depends: \($2.*\)/\1/p" | head -1
}

# $WORK/root: what the guest sees.
put() {
    local file
    for file in "$@"; do
        mkdir -p "$WORK/root$(dirname "$file")"
        cp -r "$file" "$WORK/root$file"
    done
}
build_root() {
    local file
    put "$TEST" "$BUILT/watched" "$BUILT/CACHEDIR.TAG" "$HERE/tests/targets/programs"
    mkdir -p "$WORK/root"/{bin,proc,sys,dev,tmp}
    # Much faster than the one for debugging, which it takes the place of.
    cp "$BUILT/release/memleax" "$WORK/root$BUILT/debug/memleax"
    strip -g "$WORK/root$TEST" "$WORK/root$BUILT/debug/memleax"
    cp "$(command -v busybox)" "$WORK/root/bin/busybox"
    ! ldd "$WORK/root/bin/busybox" >/dev/null 2>&1 || die "busybox must be static here: the package busybox-static"
    for file in $(busybox --list); do
        [ "$file" = busybox ] || ln -s busybox "$WORK/root/bin/$file"
    done
    # Dynamic linkers and libraries.
    find "$WORK/root$BUILT" -type f -perm -100 | while read -r file; do
        { readelf -lW "$file" 2>/dev/null || true; } | sed -n 's/.*program interpreter: \(.*\)\]/\1/p'
        # It fails for what is static.
        { ldd "$file" 2>/dev/null || true; } | sed -n 's/^\t\(.* => \)\?\(\/[^ ]*\) (0x.*/\2/p'
    done | sort -u | while read -r file; do
        mkdir -p "$WORK/root$(dirname "$file")"
        cp -L "$file" "$WORK/root$file"
    done
    cat >"$WORK/root/init" <<INIT
#!/bin/sh
export PATH=/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tracefs trace /sys/kernel/tracing
# Test programs ask for more than there is, and do not use it.
echo 1 >/proc/sys/vm/overcommit_memory
cd '$HERE'
echo "kernel: \$(uname -r)"
sleep 60 | '$EXAMPLE' >/dev/null &
'$BUILT/debug/memleax' --backend bpf --log info --duration 1 \$! 2>&1 | grep -E 'probes by|^memleax:'
# Everything takes many times as long here.
export MEMLEAX_TEST_PATIENCE=400 MEMLEAX_TEST_EXPIRY=4
CI=true MEMLEAX_TEST_BACKEND=bpf timeout $PATIENCE '$TEST' --test-threads 4 ${TESTS[*]}
status=\$?
dmesg | grep -E 'BUG:|WARNING:|Oops|general protection fault|rcu.*stall' | sed 's/^/kernel says: /'
echo "status: \$status"
poweroff -f
INIT
    chmod +x "$WORK/root/init"
    (cd "$WORK/root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$WORK/initramfs"
    rm -rf "$WORK/root"
}

# NAME LOG
boot() {
    # qemu 7.2 leaves nonsense in the flags after cmpxchg16b, which the kernel may fall over; newer ones cannot do without it.
    local cpu=max,-cx16
    [ "$1" != newest ] || cpu=max
    timeout $((PATIENCE + 120)) qemu-system-x86_64 -accel tcg -cpu $cpu -smp 2 -m $MEMORY -nodefaults -display none -serial "file:$2" \
        -no-reboot -kernel "$KEPT/$1/vmlinuz" -initrd "$WORK/initramfs" -append "console=ttyS0 quiet panic=-1 oops=panic" </dev/null || true
    sed -i 's/\r//g' "$2"
}

SUMMARY=()
FAILED=
result() {
    SUMMARY+=("$(printf '%-8s %-28s %s' "$1" "$2" "$3")")
    say "${SUMMARY[-1]}"
}

# One kernel: NAME SUITE how its probes must be set.
test_kernel() {
    local name=$1 suite=$2 way=$3 log=$KEPT/$1.log release tests began=$SECONDS fetched=0
    fetch "$name" "$suite" || fetched=$?
    case $fetched in
    0) ;;
    3) result "$name" "-" "NOT TESTED: Debian's archive has $suite no longer"; return ;;
    *) result "$name" "-" "FAILED: its package cannot be had"; FAILED=yes; return ;;
    esac
    say "booting $name; all that it says: $log"
    boot "$name" "$log"
    release=$(sed -n 's/^kernel: //p' "$log")
    tests=$(sed -n 's/^test result: [a-zA-Z]*\. \(.*\); 0 ignored.*/\1/p' "$log")
    local problem=
    if ! grep -q '^status: ' "$log"; then
        problem="it ended or hung before the tests did"
    elif ! grep -q "probes by $way\$" "$log"; then
        problem="wants probes by $way"
    elif grep -q '^kernel says: ' "$log"; then
        problem=$(sed -n 's/^kernel says: //p' "$log" | head -1)
    elif ! grep -q '^status: 0$' "$log" || [ -z "$tests" ]; then
        problem="tests failed"
    fi
    if [ -n "$problem" ]; then
        FAILED=yes
        tail -n 150 "$log"
        result "$name" "${release:-?}" "FAILED: $problem${tests:+ ($tests)}"
    else
        result "$name" "$release" "ok: $tests, $way, $((SECONDS - began)) s"
    fi
}

say "building"
CARGO=${CARGO:-cargo} scripts/build.sh
TEST=$(${CARGO:-cargo} test --locked --test live --no-run --message-format=json |
    sed -n 's/.*"name":"live".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$TEST" ] || die "cannot find the program of the live tests"
BUILT=${TEST%/debug/deps/*}

say "running the tests here, which builds their programs"
if MEMLEAX_TEST_BACKEND=bpf "$TEST" --test-threads 4 "${TESTS[@]}" >"$KEPT/here.log" 2>&1; then
    result here "$(uname -r)" "ok: $(sed -n 's/^test result: ok\. \(.*\); 0 ignored.*/\1/p' "$KEPT/here.log")"
else
    # Without the right to load BPF programs the others can still be tested.
    [ "$(id -u)" != 0 ] || FAILED=yes
    tail -n 150 "$KEPT/here.log"
    result here "$(uname -r)" "FAILED"
fi
EXAMPLE=$(find "$BUILT/watched" -type f -perm -100 -path '*/exec-*' -print -quit)
build_root

while read -r name suite way; do
    [ -n "$name" ] || continue
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    test_kernel "$name" "$suite" "$way"
done <<<"$KERNELS"

printf '\nkernels:\n'
printf '  %s\n' "${SUMMARY[@]}"
[ -z "$FAILED" ]
