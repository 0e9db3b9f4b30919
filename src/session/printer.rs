//! Names frames and prints, in a thread of its own.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use memleax_platform::{Pid, RootDirectory};

use super::Error;
use super::recorder::{Plan, Recorder};
use super::reporter::{Message, Shared};
use crate::event::{Backtrace, Frame, StackId};
use crate::profile::View;
use crate::report::{End, Format, Progress, Text, WriteError};
use crate::source::Notice;
use crate::symbol::{DebugFile, NamedFrame, NamedStack, SymbolOptions, Symbolizer};
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
    recorder: Recorder,
    recording: Option<Vec<u8>>,
}

/// Prints and records until the last message. Returns the recording if it is in memory and wanted.
///
/// # Errors
/// If the output fails, or the debug file is not the target's.
pub(super) fn print(
    subject: Subject,
    plan: Plan,
    modules: ModuleTable,
    output: impl Write,
    inbox: &Receiver<Message>,
    shared: Arc<Shared>,
) -> Result<Option<Vec<u8>>, Error> {
    let executable = modules.iter().find(|module| module.role == Role::Executable);
    let debug_file = match (&subject.debug_file, executable) {
        (Some(path), Some(executable)) => Some(DebugFile::check(executable, path)?),
        _ => None,
    };
    let unused = subject.debug_file.filter(|_| debug_file.is_none());
    let symbolizer =
        Symbolizer::new(SymbolOptions { debug_file, target_root: subject.root, ..SymbolOptions::default() });
    let mut recorder = Recorder::begin(plan).map_err(Error::Recording)?;
    recorder.modules(&modules);
    let names = Names { symbolizer, modules, stacks: HashMap::new(), shared };
    let mut printer = Printer { text: Text::new(output), quiet: subject.quiet, names, recorder, recording: None };
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
    Ok(printer.recording)
}

impl<W: Write> Printer<W> {
    fn print(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Modules(modules) => {
                self.recorder.modules(&modules);
                self.names.modules = modules;
            }
            Message::Sample(sample) => self.recorder.sample(&sample),
            Message::Events(events) => self.recorder.events(events),
            Message::Notice(Notice::Hooked(_)) if self.quiet => {}
            Message::Notice(notice) => {
                if let Notice::Warning(warning) = &notice {
                    self.recorder.remark(warning);
                }
                self.text.notice(&notice)?;
            }
            Message::Stack(id, backtrace) => {
                self.recorder.stack(id, &backtrace);
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
            Message::Snapshot(cause) => {
                self.recorder.snapshot(cause);
                self.show_live()?;
            }
            Message::SuspendRefused => self
                .text
                .remark("Not stopped: the target would stop at its next allocation, too. Ctrl-C detaches and ends.")?,
            Message::End { end, broke_off, statistics } => self.end(end, broke_off, &statistics)?,
        }
        Ok(())
    }

    /// Prints what is live now.
    fn show_live(&mut self) -> Result<(), Error> {
        let Some(replayed) = self.recorder.replay().map_err(Error::Recording)? else { return Ok(()) };
        let profile = replayed.into_profile(&mut |frame| Some(self.names.frame(frame)));
        match Format::Tree.write(&profile, &View::Leaks, self.text.output()) {
            Ok(_) => Ok(()),
            Err(WriteError::Output(error)) => Err(error.into()),
            Err(error) => Err(io::Error::other(error).into()),
        }
    }

    fn end(&mut self, end: End, broke_off: Option<String>, statistics: &Statistics) -> Result<(), Error> {
        self.text.end(end)?;
        if let Some(cause) = broke_off {
            self.text.warning(&format!("Monitoring broke off: {cause}"))?;
        }
        self.text.statistics(statistics, |id| self.names.stack(id))?;
        if let End::TargetEnded(_) = end {
            self.text.never_freed(statistics.never_freed)?;
        }
        if self.names.shared.hurry.load(Ordering::Relaxed) {
            self.text.remark("Names are missing, as a second signal cut the naming short.")?;
        }
        let is_hurried = |names: &Names| names.shared.hurry.load(Ordering::Relaxed);
        if self.recorder.is_wanted() && !is_hurried(&self.names) {
            let names = &mut self.names;
            let progress = Progress::new("naming frames", self.recorder.count_frames());
            self.recorder.names(|frame| {
                progress.step();
                names.frame(frame)
            });
        }
        for gap in self.names.symbolizer.gaps() {
            let text = format!("{}: {}", gap.module, gap.text);
            self.text.remark(&text)?;
            self.recorder.remark(&text);
        }
        self.recording = self.recorder.end(end).map_err(Error::Recording)?;
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
        let (ending, by_frame_pointer) = (backtrace.ending, backtrace.by_frame_pointer);
        let frames = backtrace.frames.clone();
        NamedStack { frames: frames.iter().map(|frame| self.frame(frame)).collect(), ending, by_frame_pointer }
    }

    fn frame(&mut self, frame: &Frame) -> Arc<NamedFrame> {
        if self.shared.hurry.load(Ordering::Relaxed) {
            self.symbolizer.name_if_known(frame, &self.modules)
        } else {
            self.symbolizer.name(frame, &self.modules)
        }
    }
}
