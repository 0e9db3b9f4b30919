//! The kernel's word for each mapping of code, at the time when it is made (`PERF_RECORD_MMAP2`, `perf_event_open(2)`).
//!
//! One event a processor, for all processes: events for one process would have to be opened for each of its threads, on each
//! processor, and would miss threads that come while that is done. The kernel writes some hundred bytes for each mapping of
//! code in the system, so a few for each program that starts.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use memleax_platform::{Mapping, Pid};
use nix::libc;
use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag, Sampler, data};

/// Bytes of a processor's buffer at the most (what anyone may have locked: `kernel.perf_event_mlock_kb`), and of all together.
const LARGEST_BUFFER: usize = 1 << 19;
const ALL_BUFFERS: usize = 1 << 25;

/// `struct perf_event_header`
const HEADER: usize = 8;

/// No record is larger: a path, and what stands beside it.
const LARGEST_RECORD: usize = 4096 + 256;

/// What is mapped for execution.
pub(super) struct MmapEvents {
    /// One a processor.
    samplers: Vec<Sampler>,
    /// Bytes of each one's buffer.
    buffer: usize,
    /// Of which process; `None`: of all.
    target: Option<Pid>,
}

/// What there was to learn.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// When (by the monotonic clock), and what; ascending. Anonymous memory has no file.
    pub(super) made: Vec<(u64, Mapping)>,
    /// There may have been more, for which a buffer had no room.
    pub(super) is_incomplete: bool,
}

/// A mapping by whichever process.
#[derive(Debug)]
pub(super) struct Mapped {
    /// By the monotonic clock, in nanoseconds.
    pub(super) time: u64,
    pub(super) pid: Pid,
    /// Of the inode, whose number may be used anew.
    pub(super) generation: u64,
    pub(super) mapping: Mapping,
}

impl MmapEvents {
    /// Begins to listen to what one process maps.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(target: Pid) -> io::Result<Self> {
        Self::of(Some(target))
    }

    /// The same of all processes.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn of_all() -> io::Result<Self> {
        Self::of(None)
    }

    fn of(target: Option<Pid>) -> io::Result<Self> {
        let processors = libbpf_rs::num_possible_cpus().map_err(io::Error::other)?;
        let buffer = (ALL_BUFFERS / processors.next_power_of_two()).clamp(1 << 14, LARGEST_BUFFER);
        let mut samplers = Vec::new();
        for processor in 0..processors {
            let mut events = Builder::new(Software::DUMMY);
            events.any_pid().one_cpu(processor).enabled(true).mmap(true).mmap2(true);
            events.clockid(Clock::MONOTONIC).sample(SampleFlag::TIME).sample_id_all(true);
            match events.build().and_then(|counter| counter.sampled(buffer)) {
                Ok(sampler) => samplers.push(sampler),
                // It is not online.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(MmapEvents { samplers, buffer, target })
    }

    /// Takes what there is.
    pub(super) fn receive(&mut self) -> Learnt {
        let (mapped, is_incomplete) = self.receive_all();
        Learnt { made: mapped.into_iter().map(|of| (of.time, of.mapping)).collect(), is_incomplete }
    }

    /// The same, with whose mappings they are; true if there may have been more, for which a buffer had no room.
    pub(super) fn receive_all(&mut self) -> (Vec<Mapped>, bool) {
        let mut all = Vec::new();
        let mut is_incomplete = false;
        for sampler in &mut self.samplers {
            let mut taken = 0;
            while let Some(record) = sampler.next_record() {
                taken += HEADER + record.len();
                // Of what may follow a record, only the time was asked for.
                let time = record.to_contiguous().last_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
                match record.parse_record() {
                    Ok(data::Record::Mmap2(mapped)) => {
                        let pid = Pid(mapped.pid.cast_signed());
                        if self.target.is_none_or(|target| target == pid) {
                            let generation = mapped.ino_generation().unwrap_or(0);
                            all.push(Mapped { time, pid, generation, mapping: mapping(&mapped) });
                        }
                    }
                    Ok(data::Record::Lost(_)) => is_incomplete = true,
                    _ => {}
                }
            }
            // The kernel tells of a loss only when there is room again and something to tell besides.
            is_incomplete |= taken + LARGEST_RECORD > self.buffer;
        }
        all.sort_by_key(|of| of.time);
        (all, is_incomplete)
    }
}

fn mapping(of: &data::Mmap2<'_>) -> Mapping {
    let inode = of.ino().unwrap_or(0);
    let device = libc::makedev(of.maj().unwrap_or(0), of.min().unwrap_or(0));
    let named = of.filename.strip_suffix(b" (deleted)");
    let path = if inode == 0 { &[] } else { named.unwrap_or(&of.filename) };
    let has = |flag: i32| of.prot & flag.cast_unsigned() != 0;
    Mapping {
        start: of.addr,
        end: of.addr.saturating_add(of.len),
        offset: if inode == 0 { 0 } else { of.pgoff },
        readable: has(libc::PROT_READ),
        writable: has(libc::PROT_WRITE),
        executable: has(libc::PROT_EXEC),
        shared: of.flags & libc::MAP_SHARED.cast_unsigned() != 0,
        file_id: if inode == 0 { (0, 0) } else { (device, inode) },
        path: OsStr::from_bytes(path).into(),
        deleted: named.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use memleax_platform::native;
    use memleax_targets::{Process, unable};

    use super::*;

    /// A shell that becomes another program while its mappings are listened to.
    #[test]
    fn mappings_of_code_are_told_with_file_and_time() {
        let mut program = Process::spawn(Command::new("sh").args(["-c", "read line; exec cat"]));
        let mut events = match MmapEvents::new(Pid(program.id().cast_signed())) {
            Ok(events) => events,
            Err(why) => return unable(&format!("the kernel does not tell of mappings: {why}")),
        };
        let began = native::monotonic_nanoseconds();
        program.send("");
        program.send("ready");
        assert_eq!(program.line().as_deref(), Some("ready"), "it is cat now");
        let Learnt { made, .. } = events.receive();
        let (time, mapping) = made.iter().find(|(_, mapping)| mapping.path.ends_with("libc.so.6")).expect("its libc");
        assert!((began..native::monotonic_nanoseconds()).contains(time));
        let file = std::fs::metadata(&mapping.path).expect("it is there");
        assert_eq!((file.dev(), file.ino()), mapping.file_id);
        assert!(mapping.executable && mapping.end > mapping.start && !mapping.deleted, "{mapping:?}");
    }
}
