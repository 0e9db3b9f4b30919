//! Names frames and prints, in a thread of its own.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use memleax_platform::{Pid, RootDirectory};

use super::Error;
use super::reporter::{Message, Shared};
use crate::event::{Backtrace, StackId};
use crate::report::{End, Text};
use crate::source::Notice;
use crate::symbol::{DebugFile, NamedStack, SymbolOptions, Symbolizer};
use crate::tracker::{Finding, Statistics};
use crate::unwind::{ModuleTable, Role};

/// What the report is about.
pub(super) struct Subject {
    pub(super) target: Pid,
    pub(super) backend: String,
    pub(super) expire: Duration,
    pub(super) debug_file: Option<PathBuf>,
    pub(super) root: Option<RootDirectory>,
    pub(super) quiet: bool,
}

pub(super) struct Printer<W> {
    text: Text<W>,
    quiet: bool,
    names: Names,
}

/// Prints until the last message.
///
/// # Errors
/// If the output fails, or the debug file is not the target's.
pub(super) fn print(
    subject: Subject,
    modules: ModuleTable,
    output: impl Write,
    inbox: &Receiver<Message>,
    shared: Arc<Shared>,
) -> Result<(), Error> {
    let executable = modules.iter().find(|module| module.role == Role::Executable);
    let debug_file = match (&subject.debug_file, executable) {
        (Some(path), Some(executable)) => Some(DebugFile::check(executable, path)?),
        _ => None,
    };
    let unused = subject.debug_file.filter(|_| debug_file.is_none());
    let symbolizer =
        Symbolizer::new(SymbolOptions { debug_file, target_root: subject.root, ..SymbolOptions::default() });
    let names = Names { symbolizer, modules, stacks: HashMap::new(), shared };
    let mut printer = Printer { text: Text::new(output), quiet: subject.quiet, names };
    if !subject.quiet {
        printer.text.begin(subject.target, &subject.backend, subject.expire)?;
    }
    if let Some(path) = unused {
        let path = path.display();
        printer.text.warning(&format!("{path} is not used: the target's executable is unknown."))?;
    }
    for message in inbox {
        printer.names.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        printer.print(message)?;
    }
    printer.text.output().flush()?;
    Ok(())
}

impl<W: Write> Printer<W> {
    fn print(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Modules(modules) => self.names.modules = modules,
            Message::Notice(Notice::Hooked(_)) if self.quiet => {}
            Message::Notice(notice) => self.text.notice(&notice)?,
            Message::Stack(id, backtrace) => {
                self.names.stacks.insert(id, backtrace);
            }
            Message::Finding(finding) => {
                let stack = match finding {
                    Finding::Expired { stack, .. } => Some(self.names.stack(stack)),
                    _ => None,
                };
                self.text.finding(&finding, stack.as_ref())?;
            }
            Message::LeftOut(count) => {
                self.text.warning(&format!("{count} lines left out here, as the report is read too slowly."))?;
            }
            Message::SuspendRefused => self
                .text
                .remark("Not stopped: the target would stop at its next allocation, too. Ctrl-C detaches and ends.")?,
            Message::End { end, broke_off, statistics } => self.end(end, broke_off, &statistics)?,
        }
        Ok(())
    }

    fn end(&mut self, end: End, broke_off: Option<String>, statistics: &Statistics) -> Result<(), Error> {
        self.text.end(end)?;
        if let Some(cause) = broke_off {
            self.text.warning(&format!("Monitoring broke off: {cause}"))?;
        }
        self.text.statistics(statistics, |id| self.names.stack(id))?;
        if self.names.shared.hurry.load(Ordering::Relaxed) {
            self.text.remark("Names are missing, as a second signal cut the naming short.")?;
        }
        for gap in self.names.symbolizer.gaps() {
            self.text.remark(&format!("{}: {}", gap.module, gap.text))?;
        }
        Ok(())
    }
}

/// Names call stacks.
struct Names {
    symbolizer: Symbolizer,
    modules: ModuleTable,
    stacks: HashMap<StackId, Backtrace>,
    shared: Arc<Shared>,
}

impl Names {
    fn stack(&mut self, id: StackId) -> NamedStack {
        let backtrace = &self.stacks[&id];
        let frames = backtrace.frames.iter().map(|frame| {
            if self.shared.hurry.load(Ordering::Relaxed) {
                self.symbolizer.name_if_known(frame, &self.modules)
            } else {
                self.symbolizer.name(frame, &self.modules)
            }
        });
        NamedStack { frames: frames.collect(), ending: backtrace.ending, by_frame_pointer: backtrace.by_frame_pointer }
    }
}
