#!/bin/sh
# Runs every test: the documentation's examples, the live tests with each backend but the default, and last all others, so
# that their summary ends the output. On FreeBSD: the documentation's examples, the unit tests, the live tests. See `make test`.
set -eu

cd "$(dirname "$0")/.."
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export PATH
CARGO=${CARGO:-cargo}

# The live tests that name their backend themselves, or count what only one has.
of_one_backend='backend follow harness hits machine tracing uprobes'

# Over FreeBSD's rules (platform/shim) these are otherwise, or not there:
# the target dies when memleax is killed by SIGKILL,
otherwise_on_freebsd='safety::sigkill safety::counts_are_right_after_a_sigkill recordings::killed children::forks_while_memleax_is_killed
    signals::own_traps_after_a_sigkill signals::trap_blocked_and_memleax_killed options::report_to_a_file'
# the kernel takes the block of SIGTRAP away, and does not tell the parent that a traced process stopped,
otherwise_on_freebsd="$otherwise_on_freebsd signals::trap_blocked programs::redis
    signals::stop_and_continue"
# it keeps no reference to a replaced file, or one of another root; it has no seccomp,
otherwise_on_freebsd="$otherwise_on_freebsd modules::replaced_executable options::other_namespaces errors::seccomp
    containers::"
# a child that is born while its parent ends may not be known when memleax ends, and dies with it,
otherwise_on_freebsd="$otherwise_on_freebsd launch::a_program_that_goes_to_the_background launch::sigkill_while_a_program_is_started"
# and these are of another backend, or know nothing of one.
otherwise_on_freebsd="$otherwise_on_freebsd backend:: follow:: harness:: machine:: tracing:: uprobes::"

# The shim stops thread after thread for each breakpoint: this takes it minutes. What they count is the same as by ptrace.
slow_over_shim="threads::eight_threads_24000_leaks totals::"

# What the shim's program has not got.
not_over_shim="control:: metrics::"

# live BACKEND NAME…: the live tests with a backend, but for those whose names begin so.
live() {
    backend=$1
    shift
    if [ "$NEXTEST" ]; then
        MEMLEAX_TEST_BACKEND=$backend $CARGO nextest run --locked --no-fail-fast --test live \
            -E "not test(/^($(echo "$*" | tr -s ' ' '|'))/)"
    else
        skip=
        for name; do skip="$skip --skip $name"; done
        # shellcheck disable=SC2086
        MEMLEAX_TEST_BACKEND=$backend $CARGO test --locked --test live -- $skip
    fi
}

NEXTEST=
if $CARGO nextest --version >/dev/null 2>&1; then NEXTEST=1; fi

if [ $# = 0 ]; then
    case $(uname -s) in
    FreeBSD) set -- doc unit ptrace ;;
    *) set -- doc bpf freebsd-shim all ;;
    esac
fi
for part; do
    # shellcheck disable=SC2046,SC2086
    case $part in
    doc) $CARGO test --locked --workspace --doc --quiet ;;
    bpf) live bpf $(printf '%s:: ' $of_one_backend) ;;
    freebsd-shim)
        $CARGO build --locked --example freebsd_shim
        live freebsd-shim $otherwise_on_freebsd $slow_over_shim $not_over_shim
        ;;
    unit) $CARGO test --locked --workspace --lib --bins ;;
    ptrace) live ptrace $otherwise_on_freebsd ;;
    all)
        if [ "$NEXTEST" ]; then
            $CARGO nextest run --locked --workspace --no-fail-fast
        else
            $CARGO test --locked --workspace --lib --bins --tests
        fi
        ;;
    *)
        echo "test: no such part: $part (doc, unit, ptrace, bpf, freebsd-shim, all)" >&2
        exit 2
        ;;
    esac
done
