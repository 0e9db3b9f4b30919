//! Names frames and prints, in a thread of its own.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use memleax_platform::{Pid, RootDirectory};

use super::inquiry::{Question, Taken};
use super::recorder::{Plan, Recorder};
use super::reporter::{Message, Shared};
use super::sieve::Sieve;
use super::{Error, Showing};
use crate::config::LiveForm;
use crate::event::{Backtrace, Frame, StackId, Timestamp};
use crate::profile::{Profile, View};
use crate::report::{End, JsonLines, Live, Progress, Text};
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
    pub(super) form: LiveForm,
    pub(super) showing: Showing,
    /// The names of the types of objects, in the order of their classes.
    pub(super) types: Vec<String>,
}

pub(super) struct Printer {
    report: Box<dyn Live>,
    sieve: Sieve,
    types: Vec<ObjectType>,
    view: View,
    quiet: bool,
    names: Names,
    recorder: Recorder,
    recording: Option<Vec<u8>>,
    /// Calls are counted.
    shows_trends: bool,
}

/// Prints and records until the last message. Returns the recording if it is in memory and wanted.
///
/// # Errors
/// If the output fails, or the debug file is not the target's.
pub(super) fn print(
    subject: Subject,
    plan: Plan,
    modules: ModuleTable,
    output: impl Write + 'static,
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
    let shows_trends = !plan.references.is_empty();
    let mut recorder = Recorder::begin_with_ledger(plan).map_err(Error::Recording)?;
    recorder.modules(&modules);
    let names = Names { symbolizer, modules, stacks: HashMap::new(), shared };
    let report: Box<dyn Live> = match subject.form {
        LiveForm::Text => Box::new(Text::new(output)),
        LiveForm::JsonLines => Box::new(JsonLines::new(output)),
    };
    let Showing { filters, view } = subject.showing;
    let of_type = |name: String| ObjectType { name, sieve: Sieve::new(filters.clone()) };
    let types = subject.types.into_iter().map(of_type).collect();
    let sieve = Sieve::new(filters);
    let mut printer =
        Printer { report, sieve, types, view, quiet: subject.quiet, names, recorder, recording: None, shows_trends };
    if !subject.quiet {
        printer.report.begin(subject.target, &subject.backend, subject.expire)?;
    }
    if let Some(path) = unused {
        let path = path.display();
        printer.report.warning(&format!("{path} is not used: the target's executable is unknown."))?;
    }
    for message in inbox {
        printer.names.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        printer.print(message)?;
    }
    printer.report.output().flush()?;
    Ok(printer.recording)
}

impl Printer {
    fn print(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Modules(modules) => {
                self.recorder.modules(&modules);
                self.names.modules = modules;
            }
            Message::Sample(class, sample) => {
                self.recorder.sample(class, &sample);
                self.names.shared.moments.fetch_sub(1, Ordering::Relaxed);
            }
            Message::Events(events) => {
                let count = events.len();
                self.recorder.events(events);
                self.names.shared.events.fetch_sub(count, Ordering::Relaxed);
            }
            Message::Note(class, sample) => {
                self.recorder.note(class, &sample);
                self.names.shared.moments.fetch_sub(1, Ordering::Relaxed);
            }
            Message::Look(look) => self.recorder.look(look),
            Message::Questions(questions) => self.answer(questions),
            Message::Notice(Notice::Hooked(_)) if self.quiet => {}
            Message::Notice(notice) => {
                if let Notice::Warning(warning) = &notice {
                    self.recorder.remark(warning);
                }
                self.report.notice(&notice)?;
            }
            Message::Thread(tid, name) => self.names.symbolizer.name_thread(tid, &name),
            Message::Stack(id, backtrace) => {
                self.recorder.stack(id, &backtrace);
                self.names.stacks.insert(id, backtrace);
            }
            Message::Finding(class, finding) => {
                let stack = match finding {
                    Finding::Expired { stack, .. } => Some(self.names.stack(stack)),
                    _ => None,
                };
                match class.type_place().and_then(|place| self.types.get_mut(place)) {
                    Some(of) => {
                        if of.sieve.shows(&finding, stack.as_ref()) {
                            self.report.object_finding(&of.name, &finding, stack.as_ref())?;
                        }
                    }
                    None => {
                        if self.sieve.shows(&finding, stack.as_ref()) {
                            self.report.finding(&finding, stack.as_ref())?;
                        }
                    }
                }
            }
            Message::LeftOut(count) => {
                self.report.warning(&format!("{count} lines left out here, as the report is read too slowly."))?;
            }
            Message::Snapshot { cause, is_shown } => {
                self.recorder.snapshot(&cause);
                if is_shown {
                    self.show_live()?;
                }
            }
            Message::SuspendRefused => self
                .report
                .remark("Not stopped: the target would stop at its next allocation, too. Ctrl-C detaches and ends.")?,
            Message::End { end, broke_off, statistics, of_types } => {
                self.end(end, broke_off, &statistics, &of_types)?
            }
        }
        Ok(())
    }

    /// Prints what is live now.
    fn show_live(&mut self) -> Result<(), Error> {
        let Some(profile) = self.profile() else { return Ok(()) };
        Ok(self.report.snapshot(&self.sieve.apply(profile), &self.view)?)
    }

    /// All that is known now.
    fn profile(&mut self) -> Option<Profile> {
        let names = &mut self.names;
        self.recorder.profile(|frame| names.frame(frame))
    }

    /// Answers all who have asked until now. That one of them waits no longer does not matter to the others.
    fn answer(&mut self, questions: Vec<Question>) {
        for cause in questions.iter().filter_map(|question| question.snapshot.as_deref()) {
            self.recorder.snapshot(cause);
        }
        let mut number = self.recorder.count_snapshots();
        let Some(profile) = self.profile().map(Arc::new) else { return };
        for Question { snapshot, answer } in questions.into_iter().rev() {
            _ = answer.try_send(Taken { number, profile: Arc::clone(&profile) });
            number -= usize::from(snapshot.is_some());
        }
    }

    fn end(
        &mut self,
        end: End,
        broke_off: Option<String>,
        statistics: &Statistics,
        of_types: &[Statistics],
    ) -> Result<(), Error> {
        self.report.end(end)?;
        if let Some(cause) = broke_off {
            self.report.warning(&format!("Monitoring broke off: {cause}"))?;
        }
        let (shown, left_out) = self.sieve.select(statistics, |of| self.names.stack(of.stack));
        self.report.statistics(&shown, &mut |id| self.names.stack(id))?;
        for sentence in left_out {
            self.report.remark(&sentence)?;
        }
        if let End::TargetEnded(_) = end {
            self.report.never_freed(statistics.never_freed)?;
        }
        for (of, statistics) in self.types.iter_mut().zip(of_types) {
            let (shown, left_out) = of.sieve.select(statistics, |of| self.names.stack(of.stack));
            self.report.object_statistics(&of.name, &shown, &mut |id| self.names.stack(id))?;
            for sentence in left_out {
                self.report.remark(&sentence)?;
            }
            if let End::TargetEnded(_) = end {
                self.report.objects_never_freed(&of.name, statistics.never_freed)?;
            }
        }
        if self.shows_trends
            && let Some(profile) = self.profile()
        {
            self.report.trends(&self.sieve.apply(profile))?;
        }
        if self.names.shared.hurry.load(Ordering::Relaxed) {
            self.report.remark("Names are missing, as a second signal cut the naming short.")?;
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
        // A module that was loaded anew may have several.
        let gaps: BTreeSet<String> =
            self.names.symbolizer.gaps().map(|gap| format!("{}: {}", gap.module, gap.text)).collect();
        for text in gaps {
            self.report.remark(&text)?;
            self.recorder.remark(&text);
        }
        self.recording = self
            .recorder
            .end(end, Timestamp(u64::try_from(statistics.monitored.as_nanos()).unwrap_or(u64::MAX)))
            .map_err(Error::Recording)?;
        Ok(())
    }
}

/// A type of objects.
struct ObjectType {
    name: String,
    /// By the numbers of its own call stacks.
    sieve: Sieve,
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
