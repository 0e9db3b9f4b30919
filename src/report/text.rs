//! The text that the original memleax made popular, line by line.
//!
//! ```text
//! CallStack[3]: memory expires with 101 bytes, backtrace:
//!     0x00007fd322bd8220  libc-2.17.so  malloc()+0
//!     [inlined]           test  make()  foo.c:7
//!     0x000000000040084e  test  foo()+14  foo.c:12
//!     0x00007fd322c01234  libstripped.so+0x1234
//!     0x0000000000400acb  test  main()+364  test.c:80
//! ```

mod kind;

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use memleax_platform::{ExitStatus, Pid};

use super::live::written;
use super::style::{HEADING, LEAK, Printable, WARNING};
use super::wording;
use super::{Detail, End, Format, Live, backtrace, human, lists};
use crate::event::{Notice, StackId};
use crate::profile::{Profile, Topic, View};
use crate::symbol::NamedStack;
use crate::tracker::{CallStackStatistics, Finding, Limit, Statistics, Tally};

use kind::Kind;

/// The trends of so many call stacks end a report.
const TRENDS: usize = 20;

/// Writes the report as text, coloured; a writer that strips the colours leaves exactly the documented text.
#[derive(Debug)]
pub struct Text<W> {
    output: W,
}

impl<W: Write> Text<W> {
    /// Reports to `output`.
    pub fn new(output: W) -> Text<W> {
        Text { output }
    }

    fn call_stack(&mut self, kind: Kind<'_>, of: &CallStackStatistics) -> io::Result<()> {
        let tally = |tally: Tally| kind.tally(tally);
        let label = kind.label(of.number);
        writeln!(self.output, "{label}: {LEAK}may-leak={}{LEAK:#}", tally(of.may_leak()))?;
        writeln!(self.output, "    expired={}, free_expired={}", tally(of.expired), tally(of.freed_expired))?;
        writeln!(self.output, "    alloc={}, free={}", tally(of.allocated), tally(of.freed))?;
        let seconds = of.freed_live_time.map_or([0; 3], |of| [of.min, of.max, of.average].map(|time| time.as_secs()));
        let [min, max, average] = seconds;
        writeln!(self.output, "    freed {kind} live time: min={min} max={max} average={average}")?;
        writeln!(self.output, "    un-freed {kind} live time: max={}", of.unfreed_live_time.as_secs())
    }

    /// What the statistics do not tell, and what they tell wrongly.
    fn shortcomings(&mut self, kind: Kind<'_>, statistics: &Statistics) -> io::Result<()> {
        let Statistics { unexpired, unseen_frees, dropped_by_exec, unknown_frees, .. } = statistics;
        let blocks = |of: &Tally| kind.blocks(*of);
        if unexpired.count > 0 {
            self.remark(&format!("{} still live at the end had not expired.", blocks(unexpired)))?;
        }
        if dropped_by_exec.count > 0 {
            let text = "live when the target replaced its program (exec) went away with it.";
            self.remark(&format!("{} {text}", blocks(dropped_by_exec)))?;
        }
        if *unknown_frees > 0 {
            self.remark(&kind.unknown_frees(*unknown_frees))?;
        }
        if unseen_frees.count > 0 {
            let text = "replaced without a seen free: the address was handed out again. Counted as freed.";
            self.warning(&format!("{} {text}", blocks(unseen_frees)))?;
        }
        for (&loss, &count) in &statistics.losses {
            self.warning(&wording::loss(loss, count))?;
        }
        Ok(())
    }

    fn found(&mut self, kind: Kind<'_>, finding: &Finding, stack: Option<&NamedStack>) -> io::Result<()> {
        match *finding {
            Finding::Expired { callstack, bytes, .. } => {
                writeln!(self.output, "{}: {kind} expires{}, backtrace:", kind.label(callstack), kind.with(bytes))?;
                stack.map_or(Ok(()), |stack| backtrace::write(stack, &mut self.output))
            }
            Finding::ExpiredAgain { callstack, bytes, count } => {
                let label = kind.label(callstack);
                writeln!(self.output, "{label}: {kind} expires{}, {count} times again", kind.with(bytes))
            }
            Finding::ExpiredFreed { callstack, after } => {
                let (label, after) = (kind.label(callstack), after.as_secs());
                writeln!(self.output, "{label}: expired-{kind} frees after {after} seconds")
            }
            Finding::Muted { callstack } => {
                let label = kind.label(callstack);
                writeln!(
                    self.output,
                    "{WARNING}Warning:{WARNING:#} too many expired-free at {label}. will not show this CallStack later"
                )
            }
        }
    }

    /// Those of call stacks, if there are some.
    fn call_stacks(
        &mut self,
        kind: Kind<'_>,
        statistics: &Statistics,
        name: &mut dyn FnMut(StackId) -> NamedStack,
    ) -> io::Result<()> {
        writeln!(self.output)?;
        for call_stack in &statistics.call_stacks {
            self.call_stack(kind, call_stack)?;
            backtrace::write(&name(call_stack.stack), &mut self.output)?;
            writeln!(self.output)?;
        }
        Ok(())
    }

    fn heading(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        writeln!(self.output, "{HEADING}== {text}{HEADING:#}")
    }
}

impl<W: Write> Live for Text<W> {
    fn begin(&mut self, target: Pid, backend: &str, expire: Duration) -> io::Result<()> {
        writeln!(self.output, "{HEADING}== Begin monitoring process {target}...{HEADING:#}")?;
        self.remark(&format!("Backend: {backend}. Memory expires after {} seconds.", whole_seconds(expire)))
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        match notice {
            Notice::Hooked(module) => {
                self.remark(&format!("Hooked in {}: {}", module.path, module.functions.join(", ")))
            }
            Notice::Warning(text) => self.warning(text),
            Notice::Exec(path) => {
                self.remark(&format!("The target replaced its program by {path} (exec). Monitoring goes on."))
            }
        }
    }

    fn remark(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "-- {}", Printable(text))
    }

    fn warning(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{WARNING}Warning:{WARNING:#} {}", Printable(text))
    }

    fn finding(&mut self, finding: &Finding, stack: Option<&NamedStack>) -> io::Result<()> {
        self.found(Kind::Memory, finding, stack)
    }

    fn object_finding(&mut self, of: &str, finding: &Finding, stack: Option<&NamedStack>) -> io::Result<()> {
        self.found(Kind::Objects(of), finding, stack)
    }

    fn end(&mut self, end: End) -> io::Result<()> {
        writeln!(self.output)?;
        match end {
            End::Terminated => self.heading(format_args!("Terminate monitoring.")),
            End::TargetEnded(status) => {
                self.heading(format_args!("Target process exit."))?;
                match status {
                    ExitStatus::Exited(0) | ExitStatus::Unknown => Ok(()),
                    ExitStatus::Exited(status) => self.remark(&format!("Its exit status is {status}.")),
                    ExitStatus::Killed(signal) => self.remark(&format!("It was killed by signal {}.", signal.0)),
                }
            }
            End::Limit(Limit::ExpiredBlocks { callstack, count, freed }) => {
                self.heading(format_args!("{count} memory blocks leaked at CallStack[{callstack}]."))?;
                if freed > 0 {
                    let text = "of them were freed since. Maybe you should set bigger expired time by `-e`.";
                    self.remark(&format!("{freed} {text}"))?;
                }
                Ok(())
            }
            End::Limit(Limit::CallStacks { count }) => {
                self.heading(format_args!("{count} CallStacks gets memory leak."))?;
                self.remark("Maybe you should set bigger expired time by `-e`.")
            }
            End::Limit(Limit::LeakedBlocks { count }) => {
                self.heading(format_args!("{count} memory blocks leaked in all."))
            }
        }
    }

    fn statistics(&mut self, statistics: &Statistics, name: &mut dyn FnMut(StackId) -> NamedStack) -> io::Result<()> {
        if statistics.monitored < statistics.expire {
            let needed = whole_seconds(statistics.expire);
            self.heading(format_args!("Your monitoring time is too short. {needed} seconds is need."))?;
        } else if statistics.call_stacks.is_empty() {
            self.heading(format_args!("No expired memory blocks."))?;
            writeln!(self.output)?;
        } else {
            self.heading(format_args!("Callstack statistics: (in ascending order)"))?;
            self.call_stacks(Kind::Memory, statistics, name)?;
        }
        self.shortcomings(Kind::Memory, statistics)
    }

    fn object_statistics(
        &mut self,
        of: &str,
        statistics: &Statistics,
        name: &mut dyn FnMut(StackId) -> NamedStack,
    ) -> io::Result<()> {
        if statistics.call_stacks.is_empty() {
            // That the time was too short was said of memory.
            self.heading(format_args!("Objects {of}: none has expired."))?;
        } else {
            self.heading(format_args!("Objects {of}: callstack statistics: (in ascending order)"))?;
            self.call_stacks(Kind::Objects(of), statistics, name)?;
        }
        self.shortcomings(Kind::Objects(of), statistics)
    }

    fn never_freed(&mut self, blocks: Tally) -> io::Result<()> {
        self.remark(&Kind::Memory.never_freed(blocks))
    }

    fn objects_never_freed(&mut self, of: &str, objects: Tally) -> io::Result<()> {
        self.remark(&Kind::Objects(of).never_freed(objects))
    }

    fn snapshot(&mut self, profile: &Profile, view: &View) -> io::Result<()> {
        if let Some(snapshot) = profile.snapshots.last() {
            let (number, at) = (profile.snapshots.len(), Duration::from_nanos(snapshot.moment.at.0));
            writeln!(self.output)?;
            self.heading(format_args!(
                "Snapshot {number} ({}), after {}: {} live",
                snapshot.cause,
                human::time(at),
                human::tally(snapshot.moment.live)
            ))?;
        }
        let is_at_interval = profile.snapshots.last().is_some_and(|snapshot| snapshot.cause == "interval");
        if is_at_interval && *view == View::Leaks {
            return lists::write(profile, &mut self.output);
        }
        if let Err(error) = profile.weigh(view) {
            return self.remark(&error.to_string());
        }
        written(Format::Tree.write(profile, view, &mut self.output))?;
        self.output.flush()
    }

    fn trends(&mut self, profile: &Profile) -> io::Result<()> {
        writeln!(self.output)?;
        let detail = Detail { topics: vec![Topic::Trends], top: TRENDS, ..Detail::default() };
        written(Format::Text.write_detail(profile, &View::Leaks, &detail, &mut self.output))?;
        self.output.flush()
    }

    fn output(&mut self) -> &mut dyn Write {
        &mut self.output
    }
}

/// A threshold in seconds, rounded up: monitoring that long is enough.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
