//! The writing end: appends records, and writes the whole anew with fewer moments when it has grown too long.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use super::chunk::{self, append};
use super::full::EventLog;
use super::ledger::Ledger;
use super::reader::thinned;
use super::record::{
    Begin, BlockRecord, ENDINGS, EndRecord, FrameRecord, FramesRecord, LOSSES, LevelRecord, ModuleRecord, NamesRecord,
    Record, SampleRecord, SiteRecord, StackRecord, TypeRecord, changed_buckets, number_of, pair,
};
use super::sample::Sample;
use crate::event::{Backtrace, Class, Frame, StackId, Timestamp};
use crate::histogram::Histogram;
use crate::tracker::{Account, Level};
use crate::unwind::{Module, Role};

/// Bytes beyond which a recording is written anew with fewer moments, unless told otherwise.
pub const LIMIT: u64 = 32 << 20;

/// Where a recording is kept.
#[derive(Debug)]
pub enum Storage {
    /// Nowhere: nobody reads it. What is asked for on the way, the ledger knows.
    Nowhere,
    /// In memory.
    Memory(Vec<u8>),
    /// In a file.
    File {
        /// Its name.
        path: PathBuf,
        /// Open for reading and writing.
        file: File,
        /// It is no regular file (a pipe, a device): what is written stays so.
        is_stream: bool,
    },
}

impl Storage {
    /// A file to be written; what is in it stays until a recording begins.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn create(path: &Path) -> io::Result<Storage> {
        let is_stream = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let file = OpenOptions::new().write(true).read(!is_stream).create(true).truncate(false).open(path)?;
        Ok(Storage::File { path: path.to_owned(), file, is_stream })
    }

    fn clear(&mut self) -> io::Result<()> {
        match self {
            Storage::File { file, is_stream: false, .. } => file.set_len(0),
            Storage::File { .. } | Storage::Memory(_) | Storage::Nowhere => Ok(()),
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Storage::Nowhere => Ok(Vec::new()),
            Storage::Memory(bytes) => Ok(bytes.clone()),
            Storage::File { file, .. } => {
                let mut bytes = Vec::new();
                file.seek(SeekFrom::Start(0))?;
                file.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// Puts `bytes` in the place of all that is there, or leaves that as it is.
    fn replace(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Storage::Nowhere => {}
            Storage::Memory(old) => *old = bytes,
            Storage::File { path, file, .. } => {
                // Whoever is killed on the way leaves the old file.
                let mut name = path.file_name().unwrap_or_default().to_owned();
                name.push(".new");
                let aside = path.with_file_name(name);
                let written = (|| {
                    let mut new = OpenOptions::new().write(true).read(true).create(true).truncate(true).open(&aside)?;
                    new.set_permissions(file.metadata()?.permissions())?;
                    new.write_all(&bytes)?;
                    fs::rename(&aside, &*path)?;
                    Ok(new)
                })();
                match written {
                    Ok(new) => *file = new,
                    Err(error) => {
                        _ = fs::remove_file(&aside);
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn is_stream(&self) -> bool {
        matches!(self, Storage::File { is_stream: true, .. })
    }
}

impl Write for Storage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Storage::Nowhere => Ok(bytes.len()),
            Storage::Memory(all) => all.write(bytes),
            Storage::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was written last of a class.
#[derive(Debug, Default)]
struct Written {
    /// By call stack.
    accounts: Vec<Account>,
    peak: Option<Level>,
}

impl Written {
    fn site(&mut self, stack: StackId, account: &Account, has_new_peak: bool) -> SiteRecord {
        let index = stack.0 as usize;
        if index >= self.accounts.len() {
            self.accounts.resize_with(index + 1, Account::default);
        }
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let changed = |old: &Histogram, new: &Histogram| changed_buckets(old, new);
        let last = &self.accounts[index];
        let record = SiteRecord {
            stack: stack.0,
            allocated: pair(account.allocated),
            live: pair(account.live),
            expired: pair(account.expired),
            freed_expired: pair(account.freed_expired),
            at_peak: has_new_peak.then_some(pair(account.at_peak)),
            temporary: pair(account.temporary),
            sizes: changed(&last.sizes, &account.sizes),
            lifetimes: changed(&last.lifetimes, &account.lifetimes),
            lives: account
                .lives
                .map(|lives| (nanoseconds(lives.min), nanoseconds(lives.average), nanoseconds(lives.max))),
            oldest: account.oldest.map(|oldest| oldest.0),
        };
        self.accounts[index].clone_from(account);
        record
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer {
    storage: Storage,
    length: u64,
    limit: u64,
    /// The length at which to look again whether it can be made shorter.
    next_look: u64,
    /// What was written last, by class.
    written: Vec<Written>,
    frames: FxHashMap<Frame, u32>,
    /// What is written adds up to this, if somebody may ask.
    ledger: Option<Ledger>,
    /// Only the ledger is kept any more.
    has_given_up: bool,
}

impl Writer {
    /// Begins a recording. `limit`: bytes; what cannot be made shorter (the call stacks themselves, single events) may still
    /// exceed it.
    ///
    /// # Errors
    /// Those of the file.
    pub fn begin(mut storage: Storage, limit: u64, begin: Begin) -> io::Result<Writer> {
        storage.clear()?;
        storage.write_all(&chunk::header())?;
        let length = chunk::HEADER as u64;
        let has_given_up = matches!(storage, Storage::Nowhere);
        let mut writer = Writer {
            storage,
            length,
            limit,
            next_look: limit,
            written: Vec::new(),
            frames: FxHashMap::default(),
            ledger: None,
            has_given_up,
        };
        writer.append(Record::Begin(begin))?;
        Ok(writer)
    }

    /// From now on, what the recording tells is known without reading it again. To be called first of all.
    pub fn keep_ledger(&mut self, begin: Begin) {
        self.ledger = Some(Ledger::new(begin));
    }

    /// What [`keep_ledger`](Self::keep_ledger) has kept.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// The same, to be told what is in no recording.
    pub fn ledger_mut(&mut self) -> Option<&mut Ledger> {
        self.ledger.as_mut()
    }

    /// Writes no more; the ledger goes on.
    pub fn give_up(&mut self) {
        self.has_given_up = true;
    }

    /// The functions whose calls samples count, by number.
    ///
    /// # Errors
    /// Those of the file.
    pub fn references(&mut self, names: &[String]) -> io::Result<()> {
        if names.is_empty() { Ok(()) } else { self.append(Record::References(names.to_vec())) }
    }

    /// The types of objects, in the order of their classes: their names, and whether they may have more than one reference.
    ///
    /// # Errors
    /// Those of the file.
    pub fn types(&mut self, types: &[(String, bool)]) -> io::Result<()> {
        let record = |(name, is_counted): &(String, bool)| TypeRecord { name: name.clone(), is_counted: *is_counted };
        if types.is_empty() { Ok(()) } else { self.append(Record::Types(types.iter().map(record).collect())) }
    }

    /// A module that frames name from now on. Those of a recording are numbered as in the table they come from.
    ///
    /// # Errors
    /// Those of the file; so with the others.
    pub fn module(&mut self, module: &Module) -> io::Result<()> {
        self.append(Record::Module(ModuleRecord {
            id: module.id.0,
            path: module.path.to_string_lossy().into_owned(),
            build_id: module.build_id.as_deref().unwrap_or_default().to_vec(),
            start: module.range.start,
            end: module.range.end,
            bias: module.bias,
            file_offset: module.segments.first().map_or(0, |segment| segment.offset),
            is_executable: module.role == Role::Executable,
        }))
    }

    /// A call stack that samples or events name from now on.
    ///
    /// # Errors
    /// Those of the file.
    pub fn stack(&mut self, id: StackId, backtrace: &Backtrace) -> io::Result<()> {
        let first = self.count_frames();
        let mut new = Vec::new();
        let mut numbers = Vec::with_capacity(backtrace.frames.len());
        for frame in &backtrace.frames {
            let next = self.count_frames();
            numbers.push(*self.frames.entry(*frame).or_insert_with(|| {
                new.push(FrameRecord::from(frame));
                next
            }));
        }
        if !new.is_empty() {
            self.append(Record::Frames(FramesRecord { first, frames: new }))?;
        }
        self.append(Record::Stack(StackRecord {
            id: id.0,
            frames: numbers,
            ending: number_of(&ENDINGS, &backtrace.ending),
            by_frame_pointer: backtrace.by_frame_pointer,
        }))
    }

    fn count_frames(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// The frames written, with their numbers, in no particular order.
    pub(super) fn frames(&self) -> impl Iterator<Item = (Frame, u32)> + '_ {
        self.frames.iter().map(|(frame, number)| (*frame, *number))
    }

    /// A moment.
    ///
    /// # Errors
    /// Those of the file.
    pub fn sample(&mut self, sample: &Sample) -> io::Result<()> {
        self.sample_of(Class::MEMORY, sample)
    }

    /// A moment of objects of a class. To be told before that of memory.
    ///
    /// # Errors
    /// Those of the file.
    pub fn sample_of(&mut self, class: Class, sample: &Sample) -> io::Result<()> {
        let record = self.sample_record(class, sample);
        self.append_of(class, record)?;
        if !sample.calls.is_empty() {
            self.append_of(class, Record::Calls(sample.calls.clone()))?;
        }
        if !sample.blocks.is_empty() {
            let record = |block: &crate::notable::KnownBlock| BlockRecord {
                address: block.address,
                size: block.size,
                allocated: block.allocated.0,
                stack: block.stack.0,
            };
            self.append_of(class, Record::Blocks(sample.blocks.iter().map(record).collect()))?;
        }
        if let Some(ages) = &sample.ages {
            let nothing = Histogram::default();
            let record = |(stack, ages): (&StackId, &Histogram)| (stack.0, changed_buckets(&nothing, ages));
            self.append_of(class, Record::Ages(ages.iter().map(record).collect()))?;
        }
        Ok(())
    }

    /// A moment that the recording has by its single events: for the ledger only.
    pub fn note_of(&mut self, class: Class, sample: &Sample) {
        let record = self.sample_record(class, sample);
        if let Some(ledger) = &mut self.ledger {
            ledger.take(Record::of_class(class, record));
            ledger.take(Record::of_class(class, Record::Calls(sample.calls.clone())));
        }
    }

    fn append_of(&mut self, class: Class, record: Record) -> io::Result<()> {
        self.append(Record::of_class(class, record))
    }

    fn sample_record(&mut self, class: Class, sample: &Sample) -> Record {
        let class = usize::from(class.0);
        if class >= self.written.len() {
            self.written.resize_with(class + 1, Written::default);
        }
        let written = &mut self.written[class];
        let has_new_peak = sample.peak != written.peak;
        written.peak = sample.peak;
        let sites = sample.sites.iter().map(|(stack, account)| written.site(*stack, account, has_new_peak)).collect();
        Record::Sample(SampleRecord {
            level: sample.level.into(),
            peak: sample.peak.filter(|_| has_new_peak).map(LevelRecord::from),
            unknown_frees: sample.unknown_frees,
            resized: pair(sample.resized),
            losses: sample.losses.iter().map(|(loss, &count)| (number_of(&LOSSES, loss), count)).collect(),
            sites,
        })
    }

    /// What is live as of the last sample is a snapshot.
    ///
    /// # Errors
    /// Those of the file.
    pub fn snapshot(&mut self, cause: &str) -> io::Result<()> {
        self.append(Record::Snapshot(cause.into()))
    }

    /// Single events.
    ///
    /// # Errors
    /// Those of the file.
    pub fn events(&mut self, log: EventLog) -> io::Result<()> {
        match log.into_record() {
            Some(record) => self.append(Record::Events(record)),
            None => Ok(()),
        }
    }

    /// What a reader has to know besides, as a sentence.
    ///
    /// # Errors
    /// Those of the file.
    pub fn remark(&mut self, text: &str) -> io::Result<()> {
        self.append(Record::Remark(text.into()))
    }

    /// How many frames were written.
    #[must_use]
    pub fn frame_count(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn append_names(&mut self, names: NamesRecord) -> io::Result<()> {
        self.append(Record::Names(names))
    }

    /// The end of the run, and why, as a sentence.
    ///
    /// # Errors
    /// Those of the file.
    pub fn end(&mut self, at: Timestamp, ending: &str) -> io::Result<()> {
        self.append(Record::End(EndRecord { at: at.0, ending: ending.into() }))
    }

    /// All that was written.
    ///
    /// # Errors
    /// Those of the file; also if it cannot be read, as a pipe.
    pub fn contents(&mut self) -> io::Result<Vec<u8>> {
        self.storage.read()
    }

    /// Takes all that was written, if it is in memory: nothing may be written any more.
    pub fn take_memory(&mut self) -> Option<Vec<u8>> {
        match &mut self.storage {
            Storage::Memory(bytes) => Some(std::mem::take(bytes)),
            Storage::File { .. } | Storage::Nowhere => None,
        }
    }

    pub(super) fn append(&mut self, record: Record) -> io::Result<()> {
        let written = if self.has_given_up { Ok(()) } else { self.write(&record) };
        if let Some(ledger) = &mut self.ledger {
            ledger.take(record);
        }
        written
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut counted = Counted { output: &mut self.storage, length: 0 };
        append(record, &mut counted)?;
        self.length += counted.length;
        if self.length > self.next_look && !self.storage.is_stream() {
            self.shorten()?;
        }
        Ok(())
    }

    /// Writes all anew with fewer moments. If that cannot be, the recording goes on as it is.
    fn shorten(&mut self) -> io::Result<()> {
        let shorter = thinned(&self.storage.read()?, self.limit / 2);
        let length = shorter.len() as u64;
        if length < self.length
            && let Err(error) = self.storage.replace(shorter)
        {
            tracing::warn!("cannot write the recording anew with fewer moments: {error}; it grows beyond its limit");
            self.next_look = self.length * 2;
            // The reading has moved the place where a file is written.
            if let Storage::File { file, .. } = &mut self.storage {
                file.seek(SeekFrom::End(0))?;
            }
            return Ok(());
        }
        self.length = length.min(self.length);
        self.next_look = self.limit.max(self.length + self.limit / 2);
        Ok(())
    }
}

/// Counts what is written.
struct Counted<'a, W> {
    output: &'a mut W,
    length: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
