//! What the tests of all concerns use.

mod backend;
mod judge;
mod launched;
mod monitor;
mod redis;
mod report;
mod state;
#[cfg(bpf)]
mod tracefs;
mod without_proc;

pub(crate) use backend::{Backend, memleax, program};
pub(crate) use judge::{assert_truth, lines_checked, program_symbols, program_symbols_of};
pub(crate) use launched::{InTerminal, Launched};
pub(crate) use monitor::Monitor;
pub(crate) use redis::RedisServer;
pub(crate) use report::{CallStack, Frame, Report};
pub(crate) use state::{State, text_differences, tracer_of, wait_until_idle};
#[cfg(bpf)]
pub(crate) use tracefs::{ForeignProbe, offset_of, tracing_folder};

use memleax_targets::{Process, Program, Truth};
pub(crate) use memleax_targets::{has_program, unable};

/// True if this machine lets us trace. Says why not, which is a failure where `CI` is set.
pub(crate) fn may_trace() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if root || matches!(scope.trim(), "" | "0") {
        return true;
    }
    unable(&format!("tracing needs root where kernel.yama.ptrace_scope is {}", scope.trim()));
    false
}

/// What the program planted between two of its answers.
pub(crate) fn since(later: &Truth, earlier: &Truth) -> Truth {
    let mut truth = later.clone();
    for site in &mut truth.sites {
        if let Some(old) = earlier.sites.iter().find(|old| old.name == site.name) {
            site.blocks -= old.blocks;
            site.bytes -= old.bytes;
            site.allocations -= old.allocations;
            site.frees -= old.frees;
        }
    }
    truth
}

/// How often to repeat: `few` times, or `all` times under `MEMLEAX_STRESS`. Fewer by bpf, where the kernel waits at each attach and
/// detach for all its readers.
pub(crate) fn rounds(few: usize, all: usize) -> usize {
    match Backend::under_test() {
        _ if std::env::var_os("MEMLEAX_STRESS").is_some_and(|value| value != "0") => all,
        Backend::Ptrace | Backend::FreebsdShim => few,
        Backend::Bpf => few.div_ceil(4),
    }
}

/// Watches a program while it plants its leaks (by `command`, then once more by `go 1`), compares the report with what the
/// program says, and checks that the program was left as it was found.
pub(crate) fn check_ground_truth(program: &Program, mut target: Process, command: &str) -> (Report, Truth) {
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &[]);
    target.ask(command);
    // The second, later batch has expired only after everything of the first has.
    let truth = target.truth("go 1");
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(program, &target);
    let report = monitor.interrupt();
    assert_truth(&report, &truth, &symbols);
    before.assert_restored(&target);
    target.quit();
    (report, truth)
}
