//! The ways to attach probes that kernels offer, and which of them one has.

use std::fmt;
use std::fs;
use std::io;
use std::sync::mpsc::channel;
use std::thread;

use libbpf_rs::{ErrorExt, ErrorKind, Link, MapType, Object, ObjectBuilder, ProgramMut, UprobeMultiOpts, UprobeOpts};
use memleax_platform::native::Confined;
use nix::unistd::gettid;

static TRIAL: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/trial.bpf.o")));

/// The program that runs.
const OURSELVES: &str = "/proc/self/exe";

/// Objects must be aligned for their headers to be read in place.
#[repr(align(16))]
pub(super) struct Aligned<Bytes: ?Sized>(pub(super) Bytes);

/// How probes are attached: what each kernel has, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attachment {
    /// One program for a call's entry and its return, many probes a link (6.13).
    Session,
    /// Many probes a link; its filter by process sees all threads from 6.10 on.
    Multi,
    /// A perf event a probe; programs as of 6.1.
    Perf,
    /// A perf event a probe; programs that 5.8 to 5.19 take.
    Old,
}

impl Attachment {
    pub(super) const BEST_FIRST: [Attachment; 4] =
        [Attachment::Session, Attachment::Multi, Attachment::Perf, Attachment::Old];

    /// The programs that this way needs.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Attachment::Session => &["session_call", "multi_free", "multi_loader", "multi_mark", "exec"],
            Attachment::Multi => &["multi_enter", "multi_return", "multi_free", "multi_loader", "multi_mark", "exec"],
            Attachment::Perf | Attachment::Old => {
                &["perf_enter", "perf_return", "perf_free", "perf_loader", "perf_mark", "exec"]
            }
        }
    }

    /// For who wants to know.
    pub(super) fn name(self) -> &'static str {
        match self {
            Attachment::Session => "uprobe session",
            Attachment::Multi => "uprobe multi",
            Attachment::Perf => "perf uprobe",
            Attachment::Old => "perf uprobe with programs for old kernels",
        }
    }

    /// Whether loading the programs can be tried. Before 6.1 a kernel that is given programs with a map that grows as needed complains
    /// in its log, or panics where it was told to panic at complaints. 6.1 also brought the map type that is asked for here.
    ///
    /// # Errors
    /// That it cannot.
    fn check(self) -> libbpf_rs::Result<()> {
        // Without privileges neither is to be had: then loading says so.
        if self != Attachment::Old && MapType::Hash.is_supported()? && !MapType::UserRingBuf.is_supported()? {
            return Err(libbpf_rs::Error::from_raw_os_error(nix::libc::EOPNOTSUPP))
                .context("it is older than Linux 6.1");
        }
        Ok(())
    }

    /// Attaches a program that does nothing to memleax itself, to find out whether the kernel does that: a version would not tell, as
    /// features are carried to older ones.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn try_out(self) -> libbpf_rs::Result<()> {
        self.check()?;
        let (object, name) = self.trial()?;
        // Beyond what is mapped: no instruction is replaced.
        let offset = usize::try_from(fs::metadata(OURSELVES)?.len()).map_err(io::Error::other)?.saturating_sub(1);
        let attach = |process| {
            program(&object, name, |program| match self {
                Attachment::Session | Attachment::Multi => {
                    let session = self == Attachment::Session;
                    let options = UprobeMultiOpts { offsets: vec![offset], session, ..Default::default() };
                    program.attach_uprobe_multi_with_opts(process, OURSELVES, "", options)
                }
                Attachment::Perf | Attachment::Old => {
                    program.attach_uprobe_with_opts(process, OURSELVES, offset, UprobeOpts::default())
                }
            })
        };
        drop(attach(i32::try_from(std::process::id()).map_err(io::Error::other)?)?);
        if self == Attachment::Multi {
            refused(attach)?;
        }
        // A filter may be there from the start, or come when it is too late to let go.
        self.try_out_confined()
    }

    /// The program that does nothing, loaded, and its name.
    fn trial(self) -> libbpf_rs::Result<(Object, &'static str)> {
        let name = match self {
            Attachment::Session => "session",
            Attachment::Multi => "multi",
            Attachment::Perf | Attachment::Old => "perf",
        };
        let mut open = ObjectBuilder::default().open_memory(&TRIAL.0)?;
        for mut program in open.progs_mut() {
            let wanted = program.name() == name;
            program.set_autoload(wanted);
        }
        Ok((open.load()?, name))
    }

    /// Traps the return of a function in a child that is confined as by seccomp filters: there are kernels that kill it for that.
    ///
    /// # Errors
    /// That this is one of them, or why it cannot be found out.
    fn try_out_confined(self) -> libbpf_rs::Result<()> {
        let (object, name) = self.trial()?;
        let child = Confined::fork()?;
        let (pid, offset) = (child.pid().0, usize::try_from(Confined::offset()?).map_err(io::Error::other)?);
        let _link = program(&object, name, |program| match self {
            Attachment::Session | Attachment::Multi => {
                let session = self == Attachment::Session;
                let options =
                    UprobeMultiOpts { offsets: vec![offset], session, retprobe: !session, ..Default::default() };
                program.attach_uprobe_multi_with_opts(pid, OURSELVES, "", options)
            }
            Attachment::Perf | Attachment::Old => {
                let options = UprobeOpts { retprobe: true, ..Default::default() };
                program.attach_uprobe_with_opts(pid, OURSELVES, offset, options)
            }
        })?;
        match child.survives()? {
            true => Ok(()),
            false => Err(libbpf_rs::Error::from_raw_os_error(nix::libc::EOPNOTSUPP)).context(
                "it kills processes with seccomp filters where returns are trapped, as 6.11 to 6.13 do unless repaired",
            ),
        }
    }
}

/// Why no variant of the programs can be used.
#[derive(Debug)]
pub struct NoVariant(Vec<(Attachment, libbpf_rs::Error)>);

impl NoVariant {
    /// What each of them failed with, at least one, in the order of trial.
    pub(super) fn new(reasons: Vec<(Attachment, libbpf_rs::Error)>) -> NoVariant {
        NoVariant(reasons)
    }

    /// What the least demanding one failed with.
    pub(super) fn kind(&self) -> ErrorKind {
        self.0.last().map_or(ErrorKind::Other, |(_, why)| why.kind())
    }
}

impl fmt::Display for NoVariant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> = self.0.iter().map(|(attachment, why)| (attachment, format!("{why:#}"))).collect();
        let groups: Vec<_> = reasons.chunk_by(|(_, one), (_, other)| one == other).collect();
        for (index, group) in groups.iter().enumerate() {
            let names: Vec<_> = group.iter().map(|(attachment, _)| attachment.name()).collect();
            let why = &group[0].1;
            match groups.len() {
                1 => write!(out, "{why}")?,
                _ => write!(out, "{}{}: {why}", if index > 0 { "; " } else { "" }, names.join(", "))?,
            }
        }
        Ok(())
    }
}

/// Before 6.10 (and its time's stable kernels) what is given as a process is a thread, and only that one's hits arrive. As of then a thread
/// that is not its process's first is refused: `bpf_uprobe_multi_link_attach`, `kernel/trace/bpf_trace.c`.
fn refused(attach: impl FnOnce(i32) -> libbpf_rs::Result<Link>) -> libbpf_rs::Result<()> {
    let attached = thread::scope(|scope| {
        let (tell, told) = channel();
        let (_alive, end) = channel::<()>();
        scope.spawn(move || {
            // Errors say that the other side is gone, which is the end.
            let _ = tell.send(gettid());
            let _ = end.recv();
        });
        told.recv().map(|thread| attach(thread.as_raw()))
    });
    match attached.map_err(io::Error::other)? {
        Err(_) => Ok(()),
        Ok(_) => Err(libbpf_rs::Error::from_raw_os_error(nix::libc::EOPNOTSUPP))
            .context("its filter sees a single thread only"),
    }
}

/// Attaches the program of this name.
pub(super) fn program(
    object: &Object,
    name: &str,
    attach: impl FnOnce(ProgramMut<'_>) -> libbpf_rs::Result<Link>,
) -> libbpf_rs::Result<Link> {
    match object.progs_mut().find(|program| program.name() == name) {
        Some(program) => attach(program),
        None => Err(libbpf_rs::Error::from_raw_os_error(nix::libc::ENOENT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_told_once() {
        let error = libbpf_rs::Error::from_raw_os_error;
        let reason =
            |errno| Attachment::BEST_FIRST.into_iter().zip(errno).map(|(it, errno)| (it, error(errno))).collect();
        let same = NoVariant::new(reason([nix::libc::EPERM; 4]));
        assert_eq!(same.to_string(), "Operation not permitted (os error 1)");
        assert_eq!(same.kind(), ErrorKind::PermissionDenied);
        let differing =
            NoVariant::new(reason([nix::libc::EINVAL, nix::libc::EINVAL, nix::libc::EPERM, nix::libc::EPERM]));
        assert_eq!(
            differing.to_string(),
            "uprobe session, uprobe multi: Invalid argument (os error 22); \
             perf uprobe, perf uprobe with programs for old kernels: Operation not permitted (os error 1)"
        );
    }
}
