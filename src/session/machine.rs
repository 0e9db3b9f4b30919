//! A run over the whole machine: observe, and report each interval, until something ends it.
//!
//! One thread does both: the books are kept in the kernel, so nobody waits for a report that is slow to be written.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memleax_platform::native;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustc_hash::FxHashMap;

use super::{Error, Signals};
use crate::bpf::machine::{Machine, MachineError};
use crate::machine::{Interval, Losses, Process, Settings};
use crate::report::{MachineLines, MachineReport, MachineTable, Users, Window};
use crate::symbol::DebugFileFinder;
use crate::unwind::Module;

/// How often the machine is looked at: so late a new file's probes are set at the most.
const TICK: Duration = Duration::from_millis(20);

/// What is to be added to a time of the monotonic clock for the time since 1970.
fn epoch() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(native::monotonic_nanoseconds()))
}

/// Names of users, each looked up once.
fn users() -> Users {
    let mut known: FxHashMap<u32, Option<String>> = FxHashMap::default();
    Box::new(move |uid| {
        let look_up = || nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
        known.entry(uid).or_insert_with(look_up).clone()
    })
}

/// Watches all processes as `settings` say.
///
/// # Errors
/// What went wrong. All probes are gone then.
pub fn watch_machine(settings: &Settings, signals: &Signals, output: impl Write) -> Result<(), Error> {
    let report: &mut dyn MachineReport = match settings.json_lines {
        true => &mut MachineLines::new(output, users(), epoch()),
        false => &mut MachineTable::new(output, users(), settings.running),
    };
    allow_more_files();
    let finder = DebugFileFinder::new(None, None);
    let debug_files = Box::new(move |module: &Module| finder.find(module).ok().flatten());
    let machine =
        Machine::observe(&settings.wanted, debug_files).map_err(|why: MachineError| Error::Refused(why.into()))?;
    let mut watching =
        Watching { machine, settings, ended: Vec::new(), from: SystemTime::now(), lost: Losses::default() };
    match watching.run(signals, report) {
        // Nobody reads it any more.
        Err(Error::Output(cause)) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The kernel's handles of probes are files, two for each file with an allocator.
fn allow_more_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If not, the files that are too many are said when that happens.
        _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

struct Watching<'a> {
    machine: Machine,
    settings: &'a Settings,
    /// Since the last report.
    ended: Vec<Process>,
    /// When that was.
    from: SystemTime,
    /// Until then.
    lost: Losses,
}

impl Watching<'_> {
    fn run(&mut self, signals: &Signals, report: &mut dyn MachineReport) -> Result<(), Error> {
        let began = Instant::now();
        let mut next = began + self.settings.interval;
        report.begin()?;
        loop {
            thread::sleep(TICK.min(next.saturating_duration_since(Instant::now())));
            self.look(report)?;
            // A stopped memleax stops nobody else, but would miss what is mapped: so Ctrl-Z is of no use either.
            _ = signals.suspend_requested();
            let is_over = self.settings.duration.is_some_and(|duration| began.elapsed() >= duration);
            if signals.end_requested() || is_over {
                break;
            }
            if Instant::now() >= next || signals.snapshot_requested() {
                let interval = self.interval();
                self.tell(interval, report)?;
                while next <= Instant::now() {
                    next += self.settings.interval;
                }
            }
        }
        // What has ended just before.
        self.look(report)?;
        let interval = self.interval();
        self.machine.detach();
        self.tell(interval, report)
    }

    fn look(&mut self, report: &mut dyn MachineReport) -> Result<(), Error> {
        let ended = self.machine.look().map_err(|why| Error::BrokeOff(why.into()))?;
        self.ended.extend(ended);
        for notice in self.machine.notices() {
            report.notice(&notice)?;
        }
        Ok(())
    }

    fn interval(&mut self) -> Interval {
        let running = if self.settings.running { self.machine.running() } else { Vec::new() };
        let lost = self.machine.losses();
        let before = std::mem::replace(&mut self.lost, lost);
        Interval::new(std::mem::take(&mut self.ended), running, lost.since(before), &self.settings.wanted)
    }

    fn tell(&mut self, interval: Interval, report: &mut dyn MachineReport) -> Result<(), Error> {
        let to = SystemTime::now();
        let window = Window { from: std::mem::replace(&mut self.from, to), to };
        Ok(report.interval(window, &interval)?)
    }
}
