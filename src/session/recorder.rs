//! Writes the recording of a run, in the thread that prints.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use memleax_platform::{ExitStatus, Pid};

use super::Error;
use crate::config::{Config, Keep, Target};
use crate::event::{Backtrace, Class, Frame, StackId, Timestamp};
use crate::objects::Objects;
use crate::profile::Profile;
use crate::recording::{self, Begin, EventLog, Ledger, Look, Sample, Storage, Writer};
use crate::report::End;
use crate::source::Source;
use crate::symbol::NamedFrame;
use crate::tracker::Limit;
use crate::unwind::{ModuleTable, Role};

/// Remarks that a recording takes.
const REMARKS: usize = 1000;

/// What a recording is to be.
pub(super) struct Plan {
    pub(super) begin: Begin,
    /// Functions whose calls are counted.
    pub(super) references: Vec<String>,
    pub(super) storage: Storage,
    pub(super) limit: u64,
    /// Somebody reads it after the run, so frames are to be named.
    /// The types of objects: their names, and whether they may have more than one reference.
    pub(super) types: Vec<(String, bool)>,
    pub(super) is_wanted: bool,
}

/// A recording that grows.
pub(super) struct Recorder {
    writer: Writer,
    is_wanted: bool,
    /// How many are written.
    modules: usize,
    /// Those that are written.
    remarks: BTreeSet<String>,
    /// Why nothing is written any more.
    failure: Option<io::Error>,
}

/// Opens the file that `config` asks for.
///
/// # Errors
/// If it cannot be opened.
pub(super) fn storage(config: &Config) -> Result<Storage, Error> {
    match &config.keep {
        Keep::File { path, .. } => {
            Storage::create(path).map_err(|cause| Error::NoRecording { path: path.clone(), cause })
        }
        Keep::Whole => Ok(Storage::Memory(Vec::new())),
        Keep::Nothing => Ok(Storage::Nowhere),
    }
}

impl Plan {
    pub(super) fn new(config: &Config, pid: Pid, backend: &str, source: &dyn Source, storage: Storage) -> Self {
        let command = match &config.target {
            Target::Command(command) => command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            Target::Process(_) => memleax_platform::command_line(pid),
        };
        let executable = source.modules().iter().find(|module| module.role == Role::Executable);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Plan {
            begin: Begin {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: pid.0.unsigned_abs(),
                command,
                executable: executable.map(|module| module.path.display().to_string()).unwrap_or_default(),
                backend: backend.into(),
                started: nanoseconds(started),
                expire: nanoseconds(config.limits.expire),
                launched: matches!(config.target, Target::Command(_)),
                by_event: source.tells_events(),
            },
            references: config.references.clone(),
            storage,
            limit: match config.keep {
                Keep::File { limit, .. } => limit,
                Keep::Nothing | Keep::Whole => recording::LIMIT,
            },
            types: types_of(&config.objects),
            is_wanted: !matches!(config.keep, Keep::Nothing),
        }
    }
}

/// As a recording has them.
pub(super) fn types_of(objects: &Objects) -> Vec<(String, bool)> {
    objects.types().iter().map(|of| (of.name().to_owned(), of.is_counted())).collect()
}

impl Recorder {
    /// Begins to write.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn begin(plan: Plan) -> io::Result<Self> {
        Self::with(Writer::begin(plan.storage, plan.limit, plan.begin)?, &plan.references, &plan.types, plan.is_wanted)
    }

    /// The same, and what it tells may be asked for on the way.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn begin_with_ledger(plan: Plan) -> io::Result<Self> {
        let mut writer = Writer::begin(plan.storage, plan.limit, plan.begin.clone())?;
        writer.keep_ledger(plan.begin);
        Self::with(writer, &plan.references, &plan.types, plan.is_wanted)
    }

    fn with(mut writer: Writer, references: &[String], types: &[(String, bool)], is_wanted: bool) -> io::Result<Self> {
        writer.references(references)?;
        writer.types(types)?;
        Ok(Self { writer, is_wanted, modules: 0, remarks: BTreeSet::new(), failure: None })
    }

    pub(super) fn modules(&mut self, modules: &ModuleTable) {
        for module in modules.iter().skip(self.modules) {
            self.attempt(|writer| writer.module(module));
        }
        self.modules = modules.len();
    }

    pub(super) fn stack(&mut self, id: StackId, backtrace: &Backtrace) {
        self.attempt(|writer| writer.stack(id, backtrace));
    }

    pub(super) fn sample(&mut self, class: Class, sample: &Sample) {
        self.attempt(|writer| writer.sample_of(class, sample));
    }

    pub(super) fn events(&mut self, events: EventLog) {
        self.attempt(|writer| writer.events(events));
    }

    /// Each once, and not without end: a library that is loaded for days may give the same warning each time, or another.
    pub(super) fn remark(&mut self, text: &str) {
        if self.remarks.len() > REMARKS || self.remarks.contains(text) {
            return;
        }
        let text = if self.remarks.len() == REMARKS { "Further remarks are left out." } else { text };
        self.remarks.insert(text.to_owned());
        self.attempt(|writer| writer.remark(text));
    }

    /// Keeps what is live as of the last sample.
    pub(super) fn snapshot(&mut self, cause: &str) {
        self.attempt(|writer| writer.snapshot(cause));
    }

    /// A moment that the recording has by its single events.
    pub(super) fn note(&mut self, class: Class, sample: &Sample) {
        self.writer.note_of(class, sample);
    }

    /// What a look at each block tells, for those who ask.
    pub(super) fn look(&mut self, look: Look) {
        if let Some(ledger) = self.writer.ledger_mut() {
            ledger.look(look);
        }
    }

    /// What the recording tells until now; nothing if that is not kept.
    pub(super) fn profile(&self, mut name: impl FnMut(&Frame) -> Arc<NamedFrame>) -> Option<Profile> {
        Some(self.writer.ledger()?.profile(&mut |frame| Some(name(frame))))
    }

    /// Snapshots taken until now.
    pub(super) fn count_snapshots(&self) -> usize {
        self.writer.ledger().map_or(0, Ledger::count_snapshots)
    }

    /// True if frames are to be named for those who read the recording.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted && self.failure.is_none()
    }

    pub(super) fn names(&mut self, name: impl FnMut(&Frame) -> Arc<NamedFrame>) {
        self.attempt(|writer| writer.names(name));
    }

    /// The frames that [`names`](Self::names) will ask for.
    pub(super) fn count_frames(&self) -> usize {
        self.writer.frame_count()
    }

    /// Ends the recording. Returns it if it is in memory and wanted.
    ///
    /// # Errors
    /// Why it is not complete.
    pub(super) fn end(&mut self, end: End, at: Timestamp) -> io::Result<Option<Vec<u8>>> {
        let ending = sentence(end);
        self.attempt(|writer| writer.end(at, &ending));
        match self.failure.take() {
            Some(failure) => Err(failure),
            None if self.is_wanted => Ok(self.writer.take_memory()),
            None => Ok(None),
        }
    }

    /// After the first failure (a full disk) nothing more is written: it would not be readable.
    fn attempt(&mut self, write: impl FnOnce(&mut Writer) -> io::Result<()>) {
        if let Err(error) = write(&mut self.writer) {
            tracing::warn!("the recording ends here: {error}");
            self.writer.give_up();
            self.failure = Some(error);
        }
    }
}

/// Why monitoring ended.
pub(super) fn sentence(end: End) -> String {
    match end {
        End::TargetEnded(ExitStatus::Exited(status)) => format!("The process ended with status {status}."),
        End::TargetEnded(ExitStatus::Killed(signal)) => format!("The process was killed by signal {}.", signal.0),
        End::TargetEnded(ExitStatus::Unknown) => "The process ended.".into(),
        End::Limit(Limit::ExpiredBlocks { count, .. }) => {
            format!("Monitoring ended as {count} blocks of one call stack had expired.")
        }
        End::Limit(Limit::CallStacks { count }) => {
            format!("Monitoring ended as {count} call stacks had expired blocks.")
        }
        End::Limit(Limit::LeakedBlocks { count }) => {
            format!("Monitoring ended as {count} blocks had expired and were not freed.")
        }
        End::Terminated => "Monitoring was ended; the process went on.".into(),
    }
}
