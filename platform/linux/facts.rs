//! What `/proc` tells of a process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::status::{self, Status, proc_error};
use super::{LinuxTracer, RootDirectory};
use crate::{AuxiliaryVector, Error, Mapping, Pid, ProcessFacts, Tid};

/// The command line of a process; empty if it has none or is no more.
#[must_use]
pub fn command_line(pid: Pid) -> Vec<String> {
    crate::process::words(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
}

/// The name of a thread (`comm`); `None` if it is no more.
#[must_use]
pub fn thread_name(pid: Pid, tid: Tid) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

impl LinuxTracer {
    /// See [`Tracer::facts`](crate::Tracer::facts).
    pub(super) fn read_facts(&self, pid: Pid) -> Result<ProcessFacts, Error> {
        let mut facts = ProcessFacts { name: Status::of(Tid(pid.0))?.name, ..ProcessFacts::default() };
        // `cap_bprm_creds_from_file`, `security/commoncap.c`.
        facts.exec_gains_nothing = !Status::of_this_thread()?.may_trace_any();
        let mut filtered = None;
        for tid in status::threads_of(pid)? {
            match Status::of(tid) {
                Ok(status) => {
                    if !status.has_ended() && status.blocks(libc::SIGTRAP) {
                        facts.threads_blocking_trap.push(tid);
                    }
                    filtered = filtered.or((status.seccomp != 0).then_some(tid));
                }
                Err(Error::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        facts.remote_calls_refused = filtered.map(|tid| match tid.0 == pid.0 {
            true => "a seccomp filter is in force".into(),
            false => format!("a seccomp filter is in force in thread {tid}"),
        });
        Ok(facts)
    }

    /// See [`Tracer::auxiliary_vector`](crate::Tracer::auxiliary_vector).
    pub(super) fn read_auxiliary_vector(&self, pid: Pid) -> Result<AuxiliaryVector, Error> {
        let tid = living_thread(pid);
        let bytes = fs::read(format!("/proc/{tid}/auxv"))
            .map_err(|error| proc_error("read the auxiliary vector of", tid, error))?;
        Ok(parse_auxiliary_vector(&bytes))
    }

    /// See [`Tracer::open_mapping`](crate::Tracer::open_mapping).
    pub(super) fn open_mapped_file(&self, pid: Pid, mapping: &Mapping) -> io::Result<File> {
        let tid = living_thread(pid);
        if mapping.file_id == (0, 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file is mapped there"));
        }
        let by_path = RootDirectory::of(Pid(tid.0)).and_then(|root| root.open(&mapping.path));
        if let Ok(file) = &by_path
            && !mapping.deleted
            && is_file(file, mapping)
        {
            return by_path;
        }
        // The kernel's own references. The first asks for CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
        let by_range = File::open(format!("/proc/{tid}/map_files/{:x}-{:x}", mapping.start, mapping.end));
        if by_range.is_ok() {
            return by_range;
        }
        if let Ok(file) = File::open(format!("/proc/{tid}/exe"))
            && is_file(&file, mapping)
        {
            return Ok(file);
        }
        // On btrfs and overlayfs, stat(2) tells another device (and perhaps inode) than the map does. As the map does
        // not call the file deleted, the path still names it.
        if mapping.deleted { by_range } else { by_path }
    }

    /// See [`Tracer::open_path`](crate::Tracer::open_path).
    pub(super) fn open_in_root(&self, pid: Pid, path: &Path) -> io::Result<File> {
        RootDirectory::of(Pid(living_thread(pid).0))?.open(path)
    }
}

/// See [`Tracer::mappings`](crate::Tracer::mappings).
pub(super) fn mappings(pid: Pid) -> Result<Vec<Mapping>, Error> {
    let tid = living_thread(pid);
    let maps =
        fs::read(format!("/proc/{tid}/maps")).map_err(|error| proc_error("read the memory map of", tid, error))?;
    let mappings: Vec<Mapping> = maps.split(|&byte| byte == b'\n').filter_map(parse_mapping).collect();
    // A process that is ending has none any more.
    if mappings.is_empty() { Err(Error::Gone(tid)) } else { Ok(mappings) }
}

/// A thread by which `/proc` reaches the process: the main thread, unless it ended before the others.
pub(super) fn living_thread(pid: Pid) -> Tid {
    let living = |tid: Tid| Status::of(tid).is_ok_and(|status| !status.has_ended());
    let main = Tid(pid.0);
    if living(main) {
        return main;
    }
    status::threads_of(pid).unwrap_or_default().into_iter().find(|&tid| living(tid)).unwrap_or(main)
}

fn is_file(file: &File, mapping: &Mapping) -> bool {
    file.metadata().is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == mapping.file_id)
}

/// One line of `/proc/PID/maps` (`proc_pid_maps(5)`); `None` if it is not of that form.
fn parse_mapping(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        let (field, tail) = rest.split_at(end);
        rest = tail.strip_prefix(b" ").unwrap_or(tail);
        std::str::from_utf8(field).ok()
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = field()?.split_once('-')?;
    let permissions = field()?.as_bytes();
    let offset = hex(field()?)?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let path = rest.trim_ascii_start();
    let named = path.strip_suffix(b" (deleted)");
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset,
        readable: permissions.first() == Some(&b'r'),
        writable: permissions.get(1) == Some(&b'w'),
        executable: permissions.get(2) == Some(&b'x'),
        shared: permissions.get(3) == Some(&b's'),
        file_id: (libc::makedev(hex(major)? as u32, hex(minor)? as u32), inode),
        path: unescape(named.unwrap_or(path)),
        deleted: named.is_some(),
    })
}

/// The kernel writes a newline in a path as `\012` (`seq_path`).
fn unescape(path: &[u8]) -> PathBuf {
    const NEWLINE: &[u8] = b"\\012";
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(NEWLINE) {
            bytes.push(b'\n');
            rest = tail;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsStr::from_bytes(&bytes).into()
}

/// Pairs of type and value (`getauxval(3)`).
fn parse_auxiliary_vector(bytes: &[u8]) -> AuxiliaryVector {
    const AT_SYSINFO_EHDR: u64 = 33;
    let mut vector = AuxiliaryVector::default();
    let (pairs, _) = bytes.as_chunks::<16>();
    for pair in pairs {
        let [kind, value] = [0, 8].map(|at| u64::from_ne_bytes(std::array::from_fn(|index| pair[at + index])));
        match kind {
            libc::AT_PHDR => vector.program_headers = value,
            libc::AT_ENTRY => vector.entry = value,
            libc::AT_BASE => vector.interpreter_base = value,
            AT_SYSINFO_EHDR => vector.vdso = value,
            _ => {}
        }
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Mapping> {
        parse_mapping(line.as_bytes())
    }

    #[test]
    fn a_file_mapping_is_parsed() {
        let line = "7f2c54400000-7f2c54422000 r-xp 00026000 08:01 2097                       /usr/lib/lib c.so.6";
        let expected = Mapping {
            start: 0x7f2c_5440_0000,
            end: 0x7f2c_5442_2000,
            offset: 0x26000,
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            file_id: (libc::makedev(8, 1), 2097),
            path: "/usr/lib/lib c.so.6".into(),
            deleted: false,
        };
        assert_eq!(parse(line), Some(expected));
    }

    #[test]
    fn deleted_anonymous_and_pseudo_mappings_are_parsed() {
        let deleted = parse("1000-2000 rw-s 00000000 00:05 7 /tmp/a\\012b (deleted)").expect("parsed");
        assert_eq!((deleted.path, deleted.deleted, deleted.shared), ("/tmp/a\nb".into(), true, true));
        let anonymous = parse("1000-2000 ---p 00000000 00:00 0 ").expect("parsed");
        assert_eq!((anonymous.path, anonymous.file_id, anonymous.readable), (PathBuf::new(), (0, 0), false));
        let vsyscall = parse("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]");
        assert_eq!(vsyscall.expect("parsed").path, Path::new("[vsyscall]"));
        assert_eq!(parse(""), None);
        assert_eq!(parse("nonsense"), None);
    }
}
