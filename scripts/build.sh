#!/bin/sh
# Builds the release program: with libelf and zlib inside, so that it needs the C library only, where their static libraries are
# installed and sufficient; else it needs those two at run time.
set -eu
cd "$(dirname "$0")/.."

# Where cc finds a static library; nothing if it does not.
archive() {
    file=$(cc -print-file-name="$1")
    [ "$file" != "$1" ] && [ -f "$file" ] && echo "$file"
}

features=
if [ "$(uname -s)" = Linux ] && libelf=$(archive libelf.a) && archive libz.a >/dev/null; then
    # As of 0.189 libelf may ask for zstd, which libbpf's build does not link.
    if grep -q ZSTD_ "$libelf"; then
        echo "build: $libelf needs libzstd: linking libelf and zlib dynamically" >&2
    else
        features="--features static"
        LIBBPF_SYS_LIBRARY_PATH=$(dirname "$libelf")
        export LIBBPF_SYS_LIBRARY_PATH
    fi
fi
# shellcheck disable=SC2086
exec "${CARGO:-cargo}" build --locked --release $features
