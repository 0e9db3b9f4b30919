//! Processes of a whole machine as a table an interval: memory-leak-monitor's columns.

use std::io::{self, Write};
use std::time::SystemTime;

use memleax_platform::{Pid, local_time};

use super::human::grouped;
use super::style::{FAINT, HEADING, Printable, WARNING};
use crate::event::Notice;
use crate::machine::{Interval, Losses, Process, Remarks};

/// Names of users by their ids.
pub type Users = Box<dyn FnMut(u32) -> Option<String>>;

/// From when to when an interval was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Its beginning.
    pub from: SystemTime,
    /// Its end.
    pub to: SystemTime,
}

#[cfg(test)]
impl Window {
    /// A second of 2026.
    pub(super) fn sample() -> Window {
        let from = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_770_000_000);
        Window { from, to: from + std::time::Duration::from_secs(1) }
    }
}

/// Where it goes what is told of all processes.
pub trait MachineReport {
    /// They are watched from now on.
    ///
    /// # Errors
    /// Those of the output.
    fn begin(&mut self) -> io::Result<()>;

    /// Something happened on the way.
    ///
    /// # Errors
    /// Those of the output.
    fn notice(&mut self, notice: &Notice) -> io::Result<()>;

    /// An interval is over.
    ///
    /// # Errors
    /// Those of the output.
    fn interval(&mut self, window: Window, interval: &Interval) -> io::Result<()>;
}

/// So many process ids a remark names.
const NAMED: usize = 10;

/// Writes tables.
pub struct MachineTable<W> {
    output: W,
    users: Users,
    /// Whether those that run are asked for.
    running: bool,
}

impl<W: Write> MachineTable<W> {
    /// Reports to `output`; with `running` also of processes that run.
    pub fn new(output: W, users: Users, running: bool) -> Self {
        MachineTable { output, users, running }
    }

    fn table(&mut self, window: Window, of: &str, processes: &[Process]) -> io::Result<()> {
        let [from, to] = [window.from, window.to].map(local_time);
        writeln!(
            self.output,
            "{HEADING}[{from} - {to}] Report Of Memory Allocation Of Process {of} The Time Window{HEADING:#}"
        )?;
        row(&mut self.output, ["UID", "USER", "PID", "COMM", "TOTAL_ALLOCS_MB", "MEM_LEAK_MB"])?;
        for process in processes {
            let user = (self.users)(process.uid).unwrap_or_else(|| process.uid.to_string());
            let name = Printable(&process.name).to_string();
            let [total, leak] = [process.allocated.bytes, process.live.bytes].map(mebibytes);
            row(&mut self.output, [&process.uid.to_string(), &user, &process.pid.to_string(), &name, &total, &leak])?;
        }
        Ok(())
    }

    fn remarks(&mut self, remarks: &Remarks, losses: Losses) -> io::Result<()> {
        let since_ready = remarks.since_ready.iter().map(ToString::to_string).collect::<Vec<_>>();
        let not_at_once = remarks.not_at_once.iter().map(ToString::to_string).collect::<Vec<_>>();
        let counted = |of: &[(Pid, u64)]| {
            of.iter().map(|(pid, count)| format!("{pid} ({})", grouped(*count))).collect::<Vec<_>>()
        };
        let told = [
            ("Began before memleax did, so only what they did since is counted", since_ready),
            ("Mapped a file that nobody had mapped before, so their first calls may not have been seen", not_at_once),
            ("Blocks without room in the books, left out of MEM_LEAK_MB", counted(&remarks.not_kept)),
            ("Calls that could not be followed to their end", counted(&remarks.not_followed)),
        ];
        for (what, processes) in told.into_iter().filter(|(_, processes)| !processes.is_empty()) {
            writeln!(self.output, "{FAINT}-- {what}: {}{FAINT:#}", list(&processes))?;
        }
        let lost = [
            (losses.processes, "processes are missing, as there were too many at once"),
            (losses.calls, "calls of processes that are missing were not counted"),
            (losses.blocks, "blocks of all processes found no room in the books: they are in TOTAL_ALLOCS_MB only"),
        ];
        for (count, what) in lost.into_iter().filter(|&(count, _)| count > 0) {
            writeln!(self.output, "{WARNING}-- {} {what}.{WARNING:#}", grouped(count))?;
        }
        Ok(())
    }
}

impl<W: Write> MachineReport for MachineTable<W> {
    fn begin(&mut self) -> io::Result<()> {
        writeln!(self.output, "{HEADING}== Begin monitoring all processes...{HEADING:#}")?;
        self.output.flush()
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        match notice {
            Notice::Warning(text) => {
                writeln!(self.output, "{WARNING}-- Warning: {}{WARNING:#}", Printable(text))?;
                self.output.flush()
            }
            // Of these there are many, of interest to few.
            Notice::Hooked(_) | Notice::Exec(_) => Ok(()),
        }
    }

    fn interval(&mut self, window: Window, interval: &Interval) -> io::Result<()> {
        self.table(window, "Finished In", &interval.ended)?;
        if self.running {
            self.table(window, "Running At The End Of", &interval.running)?;
        }
        self.remarks(&interval.remarks(), interval.losses)?;
        self.output.flush()
    }
}

fn row(output: &mut impl Write, [uid, user, pid, name, total, leak]: [&str; 6]) -> io::Result<()> {
    writeln!(output, "{uid:<8} {user:<12} {pid:<6} {name:<16} {total:<12} {leak}")
}

/// MiB with three decimals.
fn mebibytes(bytes: u64) -> String {
    let thousandths = (u128::from(bytes) * 1000 + (1 << 19)) >> 20;
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

fn list(processes: &[String]) -> String {
    match processes.len().checked_sub(NAMED) {
        None | Some(0) => processes.join(", "),
        Some(more) => format!("{} and {more} more", processes[..NAMED].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::sample::interval;

    fn text(running: bool) -> String {
        let mut output = Vec::new();
        let users = Box::new(|uid| (uid == 0).then(|| "root".into()));
        let mut table = MachineTable::new(anstream::StripStream::new(&mut output), users, running);
        table.begin().expect("written");
        let mut interval = interval();
        if !running {
            interval.running.clear();
        }
        table.interval(Window::sample(), &interval).expect("written");
        String::from_utf8(output).expect("UTF-8")
    }

    #[test]
    fn columns_are_those_of_memory_leak_monitor() {
        let text = text(false);
        let [from, to] = [Window::sample().from, Window::sample().to].map(local_time);
        let expected = format!(
            "== Begin monitoring all processes...\n\
             [{from} - {to}] Report Of Memory Allocation Of Process Finished In The Time Window\n\
             UID      USER         PID    COMM             TOTAL_ALLOCS_MB MEM_LEAK_MB\n\
             0        root         7      cc1              3.000        0.500\n\
             65534    65534        8      a\u{fffd}b              0.001        0.000\n\
             -- Blocks without room in the books, left out of MEM_LEAK_MB: 8 (3)\n\
             -- 2 processes are missing, as there were too many at once.\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn those_that_run_have_a_table_of_their_own() {
        let text = text(true);
        assert!(text.contains("Process Running At The End Of The Time Window\nUID "), "{text}");
        assert!(text.contains("-- Began before memleax did, so only what they did since is counted: 9\n"), "{text}");
        assert!(text.contains("\n0        root         9      server           1.000        1.000\n"), "{text}");
    }

    #[test]
    fn long_lists_are_cut_and_said_to_be() {
        let pids: Vec<String> = (1..=12).map(|pid| pid.to_string()).collect();
        assert_eq!(list(&pids), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
        assert_eq!(list(&pids[..10]), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10");
    }
}
