//! What `/proc` tells, in the shape of FreeBSD's sysctls.

use std::fs;
use std::io;

use libc::c_int;
use memleax_platform::freebsd::abi::{self, process, vmentry};

use super::signals;

/// `KERN_PROC_PID`.
pub(crate) fn process_record(pid: i32) -> io::Result<Vec<u8>> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| gone())?;
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim();
    if field("Tgid") != pid.to_string() {
        return Err(gone());
    }
    let number = |name: &str| field(name).parse::<i32>().unwrap_or_default();
    let set = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or_default();
    let users: Vec<i32> = field("Uid").split_whitespace().filter_map(|id| id.parse().ok()).collect();
    let user = |index: usize| users.get(index).copied().unwrap_or(-1);
    let is_kernel = fs::read(format!("/proc/{pid}/exe")).is_err() && field("VmSize").is_empty();
    let state = field("State").chars().next().unwrap_or('Z');
    let threads = number("Threads");
    let mut flags = if number("TracerPid") == 0 { 0 } else { abi::P_TRACED };
    flags |= if state == 'T' { abi::P_STOPPED_SIG } else { 0 };
    flags |= if is_kernel && state != 'Z' { abi::P_KPROC } else { 0 };

    let mut record = vec![0; process::SIZE];
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, value) in [
        (process::STRUCTSIZE, process::SIZE as i32),
        (process::PID, pid),
        (process::PPID, number("PPid")),
        (process::UID, user(1)),
        (process::RUID, user(0)),
        (process::SVUID, user(2)),
        (process::TRACER, number("TracerPid")),
        (process::NUMTHREADS, threads),
    ] {
        put(at, &value.to_ne_bytes());
    }
    put(process::FLAG, &flags.to_ne_bytes());
    put(
        process::STAT,
        &[match state {
            'Z' | 'X' => abi::SZOMB as u8,
            'T' => abi::SSTOP as u8,
            _ => 3,
        }],
    );
    for (at, bits) in [
        (process::SIGLIST, set("SigPnd") | set("ShdPnd")),
        (process::SIGIGNORE, set("SigIgn")),
        (process::SIGCATCH, set("SigCgt")),
    ] {
        signals::set(bits).0.iter().enumerate().for_each(|(index, word)| put(at + 4 * index, &word.to_ne_bytes()));
    }
    put(process::COMM, field("Name").as_bytes());
    put(process::EMUL, emulation(pid).as_bytes());
    Ok(record)
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

fn emulation(pid: i32) -> &'static str {
    const ELFCLASS32: u8 = 1;
    let mut header = [0; 5];
    let read =
        fs::File::open(format!("/proc/{pid}/exe")).and_then(|mut file| io::Read::read_exact(&mut file, &mut header));
    if read.is_ok() && header[4] == ELFCLASS32 { "FreeBSD ELF32" } else { "FreeBSD ELF64" }
}

/// `KERN_PROC_VMMAP`.
pub(crate) fn mapping_records(pid: i32) -> io::Result<Vec<u8>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::from_raw_os_error(libc::EPERM),
        _ => gone(),
    })?;
    Ok(text.lines().filter_map(mapping_record).flatten().collect())
}

fn mapping_record(line: &str) -> Option<Vec<u8>> {
    let mut fields = line.splitn(6, ' ');
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let device = libc::makedev(hex(major)? as u32, hex(minor)? as u32);
    let inode: u64 = fields.next()?.parse().ok()?;
    let name = fields.next().unwrap_or_default().trim_start();
    let is_file = inode != 0;
    let path = if is_file && !name.ends_with(" (deleted)") { name } else { "" };
    const SWAP: c_int = 3;
    let kind = if is_file { abi::KVME_TYPE_VNODE } else { SWAP };
    let mut flags = if permissions.ends_with('p') { abi::KVME_FLAG_COW } else { 0 };
    flags |= if name == "[stack]" { abi::KVME_FLAG_GROWS_DOWN } else { 0 };
    let bits = [('r', abi::KVME_PROT_READ), ('w', abi::KVME_PROT_WRITE), ('x', abi::KVME_PROT_EXEC)];
    let protection: c_int = bits.iter().filter(|(letter, _)| permissions.contains(*letter)).map(|(_, bit)| bit).sum();

    let mut record = vec![0; vmentry::PATH];
    record.extend(path.as_bytes());
    record.resize((record.len() + 1).next_multiple_of(8), 0);
    let size = c_int::try_from(record.len()).ok()?;
    for (at, value) in
        [(vmentry::STRUCTSIZE, size), (vmentry::TYPE, kind), (vmentry::FLAGS, flags), (vmentry::PROTECTION, protection)]
    {
        record[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    for (at, value) in [
        (vmentry::START, hex(start)?),
        (vmentry::END, hex(end)?),
        (vmentry::OFFSET, offset),
        (vmentry::VN_FSID, device),
        (vmentry::VN_FILEID, inode),
    ] {
        record[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    Some(record)
}

/// `KERN_PROC_AUXV`.
pub(crate) fn auxiliary_vector(pid: i32) -> io::Result<Vec<u8>> {
    const AT_SYSINFO_EHDR: u64 = 33;
    let mut bytes = fs::read(format!("/proc/{pid}/auxv")).map_err(|_| gone())?;
    for kind in bytes.chunks_exact_mut(8).step_by(2) {
        if *kind == AT_SYSINFO_EHDR.to_ne_bytes() {
            kind.copy_from_slice(&abi::AT_KPRELOAD.to_ne_bytes());
        }
    }
    Ok(bytes)
}

/// The threads of a process.
pub(crate) fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The process of a thread.
pub(crate) fn process_of(tid: i32) -> Option<i32> {
    status_number(tid, "Tgid")
}

/// The process is neither stopped nor ending.
pub(crate) fn runs(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("State:\t")).any(|state| state.starts_with(['R', 'S', 'D', 't']))
}

/// The thread has ended, and waits to be collected.
pub(crate) fn has_ended(tid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    !text.contains("State:") || text.contains("State:\tZ") || text.contains("State:\tX")
}

fn status_number(tid: i32, name: &str) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}
