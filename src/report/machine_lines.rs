//! Processes of a whole machine for programs: one JSON object a line. `docs/json.md` describes them, `docs/machine.schema.json` defines them.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memleax_platform::ExitStatus;
use serde::Serialize;

use super::json::{Amount, nanoseconds};
use super::machine_table::{MachineReport, Users, Window};
use crate::event::Notice;
use crate::machine::{Interval, Process, Seen};

/// Told in the first line; another number means that what a reader knows has changed.
const VERSION: u32 = 1;

/// Writes JSON lines.
pub struct MachineLines<W> {
    output: W,
    users: Users,
    /// What the monotonic clock showed when this was the time since 1970.
    epoch: Duration,
}

impl<W: Write> MachineLines<W> {
    /// Reports to `output`. `epoch`: what is to be added to a time of the monotonic clock for the time since 1970.
    pub fn new(output: W, users: Users, epoch: Duration) -> Self {
        MachineLines { output, users, epoch }
    }

    fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, line)?;
        self.output.write_all(b"\n")
    }

    fn process(&mut self, process: &Process) -> io::Result<()> {
        let user = (self.users)(process.uid);
        let since_1970 = |time: Duration| nanoseconds(self.epoch + time);
        let before = process.before_exec;
        let line = Line::Process(Box::new(ProcessOf {
            state: if process.ended.is_some() { "ended" } else { "running" },
            pid: process.pid.0,
            parent: (process.parent.0 != 0).then_some(process.parent.0),
            uid: process.uid,
            user: user.as_deref(),
            name: &process.name,
            cgroup: process.cgroup,
            began_ns: since_1970(process.began),
            ended_ns: process.ended.map(|(time, _)| since_1970(time)),
            exit_status: process.ended.and_then(|(_, status)| match status {
                ExitStatus::Exited(status) => Some(status),
                ExitStatus::Killed(_) | ExitStatus::Unknown => None,
            }),
            signal: process.ended.and_then(|(_, status)| match status {
                ExitStatus::Killed(signal) => Some(signal.0),
                ExitStatus::Exited(_) | ExitStatus::Unknown => None,
            }),
            seen: match process.seen {
                Seen::All => "all",
                Seen::SinceReady => "since_ready",
                Seen::NotAtOnce => "not_at_once",
            },
            allocated: process.allocated.into(),
            freed: process.freed.into(),
            live: process.live.into(),
            peak_bytes: process.peak_bytes,
            unseen_frees: process.unseen_frees.into(),
            unknown_frees: process.unknown_frees,
            not_kept: process.not_kept.into(),
            not_followed: process.not_followed,
            never_returned: process.never_returned,
            before_exec: BeforeExecOf {
                execs: before.execs,
                allocated: before.allocated.into(),
                left: before.left.into(),
            },
        }));
        self.line(&line)
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Begin { format: &'static str, version: u32, memleax_version: &'static str },
    Hooked { module: &'a str, functions: &'a [&'static str] },
    Warning { text: &'a str },
    Process(Box<ProcessOf<'a>>),
    Interval { from_ns: u64, to_ns: u64, ended: usize, running: usize, losses: LossesOf },
}

#[derive(Serialize)]
struct ProcessOf<'a> {
    state: &'static str,
    pid: i32,
    parent: Option<i32>,
    uid: u32,
    user: Option<&'a str>,
    name: &'a str,
    cgroup: u64,
    began_ns: u64,
    ended_ns: Option<u64>,
    exit_status: Option<i32>,
    signal: Option<i32>,
    seen: &'static str,
    allocated: Amount,
    freed: Amount,
    live: Amount,
    peak_bytes: u64,
    unseen_frees: Amount,
    unknown_frees: u64,
    not_kept: Amount,
    not_followed: u64,
    never_returned: u64,
    before_exec: BeforeExecOf,
}

#[derive(Serialize)]
struct BeforeExecOf {
    execs: u64,
    allocated: Amount,
    left: Amount,
}

#[derive(Serialize)]
struct LossesOf {
    processes: u64,
    calls: u64,
    blocks: u64,
}

fn since_1970(time: SystemTime) -> u64 {
    nanoseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl<W: Write> MachineReport for MachineLines<W> {
    fn begin(&mut self) -> io::Result<()> {
        let (format, memleax_version) = ("memleax machine", env!("CARGO_PKG_VERSION"));
        self.line(&Line::Begin { format, version: VERSION, memleax_version })?;
        self.output.flush()
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        match notice {
            Notice::Hooked(module) => {
                self.line(&Line::Hooked { module: &module.path, functions: &module.functions })?;
            }
            Notice::Warning(text) => self.line(&Line::Warning { text })?,
            Notice::Exec(_) => {}
        }
        self.output.flush()
    }

    fn interval(&mut self, window: Window, interval: &Interval) -> io::Result<()> {
        for process in interval.ended.iter().chain(&interval.running) {
            self.process(process)?;
        }
        let losses = interval.losses;
        self.line(&Line::Interval {
            from_ns: since_1970(window.from),
            to_ns: since_1970(window.to),
            ended: interval.ended.len(),
            running: interval.running.len(),
            losses: LossesOf { processes: losses.processes, calls: losses.calls, blocks: losses.blocks },
        })?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::sample::interval;

    #[test]
    fn lines_are_as_their_schema_says() {
        let mut output = Vec::new();
        let mut lines = MachineLines::new(&mut output, Box::new(|_| None), Duration::from_secs(1000));
        lines.begin().expect("written");
        lines.notice(&Notice::Warning("beware".into())).expect("written");
        lines.interval(Window::sample(), &interval()).expect("written");
        let schema = serde_json::from_str(include_str!("../../docs/machine.schema.json")).expect("a JSON document");
        let schema = jsonschema::validator_for(&schema).expect("a schema");
        let text = String::from_utf8(output).expect("UTF-8");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
        for line in &lines {
            if let Err(why) = schema.validate(line) {
                panic!("{why} in {line}");
            }
        }
        assert_eq!(lines.len(), 6, "{text}");
        assert_eq!((&lines[2]["name"], &lines[2]["allocated"]["bytes"]), (&"cc1".into(), &(3 << 20).into()));
        assert_eq!(lines[2]["began_ns"], 1001 * 1_000_000_000_u64);
        assert_eq!((&lines[4]["state"], &lines[4]["ended_ns"]), (&"running".into(), &serde_json::Value::Null));
        assert_eq!(lines[5]["losses"]["processes"], 2);
    }
}
