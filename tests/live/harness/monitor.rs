//! Runs the `memleax` program.

use std::collections::HashMap;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use memleax_targets::{Process, patience};
use nix::sys::signal::Signal;

use super::{Backend, Report, program, text_differences, tracer_of};

/// A running memleax. Dropping it kills it with SIGKILL, as a crash would.
pub(crate) struct Monitor {
    process: Process,
    lines: Vec<String>,
}

/// How long blocks may live, in seconds, where a test does not say, if not [`EXPIRY`].
const OTHER_EXPIRY: &str = "MEMLEAX_TEST_EXPIRY";

/// Long enough that a block freed at once never counts as expired, even on a busy machine.
const EXPIRY: &str = "1";

impl Monitor {
    /// Attaches to a process with `arguments` and waits until it observes.
    pub(crate) fn attach(target: &Process, arguments: &[&str]) -> Self {
        Self::attach_to(target.id(), arguments)
    }

    /// The same by pid.
    pub(crate) fn attach_to(target: u32, arguments: &[&str]) -> Self {
        let mut monitor = Self::spawn(target, arguments);
        let begin = format!("== Begin monitoring process {target}...");
        while monitor.next().unwrap_or_else(|| panic!("memleax ended early; {}", monitor.transcript())) != begin {}
        monitor
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn(target: u32, arguments: &[&str]) -> Self {
        Self::spawn_through(program(), target, arguments)
    }

    /// The same by a command that ends with memleax's path (`setpriv … memleax`).
    pub(crate) fn spawn_through(mut command: Command, target: u32, arguments: &[&str]) -> Self {
        let expiry = std::env::var(OTHER_EXPIRY).unwrap_or_else(|_| EXPIRY.into());
        for (option, value) in [("--expire", &*expiry), ("--expired-blocks", "1000000")] {
            if !arguments.contains(&option) {
                command.args([option, value]);
            }
        }
        if !arguments.contains(&"--backend") {
            command.arg("--backend").arg(Backend::under_test().name());
        }
        command.args(arguments).arg(target.to_string());
        Monitor { process: Process::spawn(&mut command), lines: Vec::new() }
    }

    /// The next line of the report.
    pub(crate) fn next(&mut self) -> Option<String> {
        let line = self.process.line()?;
        self.lines.push(line.clone());
        Some(line)
    }

    /// The next line of its standard error.
    pub(crate) fn error_line(&mut self) -> Option<String> {
        self.process.error_line()
    }

    /// Reads live lines until `blocks` have expired without having been freed.
    pub(crate) fn wait_for_leaks(&mut self, blocks: u64) {
        self.wait_for_leaks_of("memory", blocks);
    }

    /// The same of objects of a type.
    pub(crate) fn wait_for_leaks_of(&mut self, what: &str, blocks: u64) {
        let frees = format!("expired-{what} frees after ");
        let expires = format!("{what} expires");
        let mut leaked: HashMap<String, i128> = HashMap::new();
        while leaked.values().sum::<i128>() < i128::from(blocks) {
            let line = self.next().unwrap_or_else(|| panic!("{leaked:?} of {blocks} leaks; {}", self.transcript()));
            let Some((call_stack, event)) = line.split_once("]: ") else { continue };
            let of_stack = leaked.entry(call_stack.to_owned()).or_default();
            if event.starts_with(&frees) {
                *of_stack -= 1;
            } else if let Some(again) = event.strip_suffix(" times again").filter(|again| again.starts_with(&expires)) {
                // A backend that keeps the books itself tells of several blocks by one line.
                let count = again.rsplit(' ').next().and_then(|count| count.parse().ok());
                *of_stack = count.unwrap_or_else(|| panic!("a count in: {line}"));
            } else if event.starts_with(&expires) {
                *of_stack = 1;
            }
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it with Ctrl-C; it must say goodbye with status 0.
    pub(crate) fn interrupt(self) -> Report {
        self.end(Signal::SIGINT)
    }

    /// Ends it with a signal that it handles.
    pub(crate) fn end(self, signal: Signal) -> Report {
        self.signal(signal);
        self.finish()
    }

    /// Waits for its own end, with status 0.
    pub(crate) fn finish(mut self) -> Report {
        let (status, report) = self.wait();
        assert!(status.success(), "memleax ended with {status}; {}", self.transcript());
        report
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> (ExitStatus, Report) {
        let (status, rest) = self.process.wait();
        self.lines.extend(rest);
        (status, Report::parse(&self.lines, self.process.errors()))
    }

    /// Waits until it has begun to attach: it traces the target, or a first probe is in the target's code.
    pub(crate) fn wait_until_it_attaches(&self, target: &Process) {
        let has_begun = || match Backend::under_test() {
            Backend::Ptrace | Backend::FreebsdShim => tracer_of(target.id()) == self.id(),
            Backend::Bpf => !text_differences(target.id()).is_empty(),
        };
        let since = Instant::now();
        while !has_begun() {
            assert!(since.elapsed() < patience(), "memleax does not attach; {}", self.transcript());
            std::thread::yield_now();
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.process.wait();
    }

    fn transcript(&self) -> String {
        format!("{}stdout:\n{}", self.process.errors(), self.lines.join("\n"))
    }
}
