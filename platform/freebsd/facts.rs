//! What sysctls tell of a process.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use libc::c_int;

use super::abi::{self, SignalSet, process, vmentry};
use super::sys::{Name, Sys};
use super::tracer::FreebsdTracer;
use crate::{AuxiliaryVector, Error, Mapping, Pid, Tid};

/// What of `struct kinfo_proc` matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ProcessInfo {
    pub(super) parent: Pid,
    /// Signals pending for the process or its first thread.
    pub(super) pending: SignalSet,
    pub(super) ignored: SignalSet,
    pub(super) caught: SignalSet,
    /// Effective, real and saved user.
    pub(super) users: [u32; 3],
    /// `P_*`.
    pub(super) flags: i64,
    /// `S*`.
    pub(super) stat: c_int,
    pub(super) name: String,
    /// What kind of program it is.
    pub(super) emulation: String,
    /// Who traces it, or 0.
    pub(super) tracer: i32,
    /// How many threads it has.
    pub(super) threads: usize,
}

/// The command line of a process; empty if it has none or is no more.
pub fn command_line<S: Sys>(sys: &mut S, pid: Pid) -> Vec<String> {
    let name = [abi::CTL_KERN, abi::KERN_PROC, abi::KERN_PROC_ARGS, pid.0];
    crate::process::words(&sys.sysctl(Name::Numbers(&name)).unwrap_or_default())
}

impl<S: Sys> FreebsdTracer<S> {
    /// What the kernel tells of a process: [`Error::Gone`] if there is none.
    pub(super) fn process_info(&mut self, pid: Pid) -> Result<ProcessInfo, Error> {
        let bytes = self.of_process("read the state of", abi::KERN_PROC_PID, pid)?;
        ProcessInfo::parse(&bytes).ok_or(Error::Gone(Tid(pid.0)))
    }

    /// See [`Tracer::mappings`](crate::Tracer::mappings).
    pub(super) fn read_mappings(&mut self, pid: Pid) -> Result<Vec<Mapping>, Error> {
        let mappings = parse_mappings(&self.of_process("read the memory map of", abi::KERN_PROC_VMMAP, pid)?);
        // A process that is ending has none any more.
        if mappings.is_empty() { Err(Error::Gone(Tid(pid.0))) } else { Ok(mappings) }
    }

    /// See [`Tracer::auxiliary_vector`](crate::Tracer::auxiliary_vector).
    pub(super) fn read_auxiliary_vector(&mut self, pid: Pid) -> Result<AuxiliaryVector, Error> {
        let bytes = self.of_process("read the auxiliary vector of", abi::KERN_PROC_AUXV, pid)?;
        Ok(parse_auxiliary_vector(&bytes))
    }

    fn of_process(&mut self, what: &'static str, kind: c_int, pid: Pid) -> Result<Vec<u8>, Error> {
        let name = [abi::CTL_KERN, abi::KERN_PROC, kind, pid.0];
        self.sys.sysctl(Name::Numbers(&name)).map_err(|cause| match cause.raw_os_error() {
            Some(libc::ESRCH) => Error::Gone(Tid(pid.0)),
            _ => Error::Os { what, pid, cause },
        })
    }
}

/// Opens the very file behind a mapping. The kernel keeps no reference that could be opened in its stead: a file that was
/// replaced since cannot be.
pub(super) fn open_mapped_file(mapping: &Mapping) -> io::Result<File> {
    if mapping.file_id == (0, 0) || mapping.path.as_os_str().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file of a known path is mapped there"));
    }
    let file = File::open(&mapping.path)?;
    let metadata = file.metadata()?;
    // Some file systems tell another device here than there; none tells another inode.
    if metadata.ino() != mapping.file_id.1 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "another file has taken its place"));
    }
    Ok(file)
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn int_at(bytes: &[u8], offset: usize) -> Option<c_int> {
    bytes_at(bytes, offset).map(c_int::from_ne_bytes)
}

fn long_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes_at(bytes, offset).map(u64::from_ne_bytes)
}

fn signals_at(bytes: &[u8], offset: usize) -> Option<SignalSet> {
    let mut set = SignalSet::default();
    for (index, word) in set.0.iter_mut().enumerate() {
        *word = u32::from_ne_bytes(bytes_at(bytes, offset + 4 * index)?);
    }
    Some(set)
}

/// A string up to its zero, or to the end of what there is.
fn text_at(bytes: &[u8], offset: usize) -> &[u8] {
    let rest = bytes.get(offset..).unwrap_or_default();
    &rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())]
}

impl ProcessInfo {
    /// Parses a `struct kinfo_proc`; `None` if it is shorter than the fields asked for.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let size = usize::try_from(int_at(bytes, process::STRUCTSIZE)?).ok()?;
        let bytes = bytes.get(..size)?;
        let text = |offset| String::from_utf8_lossy(text_at(bytes, offset)).into_owned();
        let user = |offset| bytes_at(bytes, offset).map(u32::from_ne_bytes);
        Some(ProcessInfo {
            parent: Pid(int_at(bytes, process::PPID)?),
            pending: signals_at(bytes, process::SIGLIST)?,
            ignored: signals_at(bytes, process::SIGIGNORE)?,
            caught: signals_at(bytes, process::SIGCATCH)?,
            users: [user(process::UID)?, user(process::RUID)?, user(process::SVUID)?],
            flags: long_at(bytes, process::FLAG)?.cast_signed(),
            stat: (*bytes.get(process::STAT)?).into(),
            name: text(process::COMM),
            emulation: text(process::EMUL),
            tracer: int_at(bytes, process::TRACER)?,
            threads: usize::try_from(int_at(bytes, process::NUMTHREADS)?).ok()?,
        })
    }
}

/// Parses the records of KERN_PROC_VMMAP, each as long as it says: the path is cut off behind its end
/// (`kern_proc_vmmap_out`, `sys/kern/kern_proc.c`). They come in ascending order.
fn parse_mappings(bytes: &[u8]) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    let mut rest = bytes;
    while let Some(size) = int_at(rest, vmentry::STRUCTSIZE).and_then(|size| usize::try_from(size).ok())
        && size >= vmentry::PATH
        && let Some((record, tail)) = rest.split_at_checked(size)
    {
        mappings.extend(parse_mapping(record));
        rest = tail;
    }
    mappings
}

fn parse_mapping(record: &[u8]) -> Option<Mapping> {
    let kind = int_at(record, vmentry::TYPE)?;
    let flags = int_at(record, vmentry::FLAGS)?;
    let protection = int_at(record, vmentry::PROTECTION)?;
    let allows = |bit: c_int| protection & bit != 0;
    let is_file = kind == abi::KVME_TYPE_VNODE;
    let path = PathBuf::from(OsStr::from_bytes(text_at(record, vmentry::PATH)));
    let name = match flags & abi::KVME_FLAG_GROWS_DOWN {
        // As Linux calls it: what is below is kept free for it.
        0 => path,
        _ => "[stack]".into(),
    };
    Some(Mapping {
        start: long_at(record, vmentry::START)?,
        end: long_at(record, vmentry::END)?,
        offset: if is_file { long_at(record, vmentry::OFFSET)? } else { 0 },
        readable: allows(abi::KVME_PROT_READ),
        writable: allows(abi::KVME_PROT_WRITE),
        executable: allows(abi::KVME_PROT_EXEC),
        shared: is_file && flags & abi::KVME_FLAG_COW == 0,
        file_id: match is_file {
            true => (long_at(record, vmentry::VN_FSID)?, long_at(record, vmentry::VN_FILEID)?),
            false => (0, 0),
        },
        // A file without any name left is one that was unlinked.
        deleted: is_file && name.as_os_str().is_empty(),
        path: name,
    })
}

/// Pairs of type and value (`Elf64_Auxinfo`).
fn parse_auxiliary_vector(bytes: &[u8]) -> AuxiliaryVector {
    let mut vector = AuxiliaryVector::default();
    for at in (0..bytes.len()).step_by(16) {
        let (Some(kind), Some(value)) = (long_at(bytes, at), long_at(bytes, at + 8)) else { break };
        match kind {
            abi::AT_PHDR => vector.program_headers = value,
            abi::AT_ENTRY => vector.entry = value,
            abi::AT_BASE => vector.interpreter_base = value,
            abi::AT_KPRELOAD => vector.vdso = value,
            _ => {}
        }
    }
    vector
}

#[cfg(test)]
#[path = "tests/facts.rs"]
mod tests;
