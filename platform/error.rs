//! What can go wrong between a tracer and a kernel.

use std::io;

use crate::{Pid, Tid};

/// Why a process may not be traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachRefusal {
    /// There is no process of this id.
    NoSuchProcess,
    /// The id is that of a thread of another process.
    ThreadOf(Pid),
    /// The process has ended and waits for its parent.
    Zombie,
    /// A thread of the kernel, which has no user memory.
    KernelThread,
    /// The tracer itself.
    Itself,
    /// Another tracer is attached.
    AlreadyTraced {
        /// The other tracer.
        by: Pid,
        /// Its `comm`, empty if unknown.
        name: String,
    },
    /// The process belongs to another user (its id) and the tracer lacks the privilege.
    OtherUser(u32),
    /// A system-wide setting forbids it: its name, value, and the command that allows it.
    Setting {
        /// For example `kernel.yama.ptrace_scope`.
        name: &'static str,
        /// The value that forbids it.
        value: String,
        /// What to run or do instead.
        remedy: String,
    },
    /// The process is not dumpable, or runs with privileges that the tracer lacks.
    Privileged,
    /// The tracer is in a user namespace (a rootless container), which the process is not in.
    Confined,
    /// The kernel denies it to a tracer that has all the privilege there is.
    Denied,
    /// Not a 64-bit process of the tracer's own architecture; what it is.
    OtherArchitecture(String),
}

/// An error of a [`Tracer`](crate::Tracer).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thread or process ended, or was killed, in the meantime. Never fatal.
    #[error("thread {0} has ended")]
    Gone(Tid),
    /// The process may not be traced.
    #[error("cannot trace process {pid}: {}", refusal_text(.why))]
    Refused {
        /// The process.
        pid: Pid,
        /// The reason.
        why: AttachRefusal,
    },
    /// A system call made in the target's name was refused or failed.
    #[error("cannot {what} inside process {pid}: {cause}")]
    Remote {
        /// What was wanted, as a verb phrase.
        what: &'static str,
        /// The process.
        pid: Pid,
        /// The reason.
        cause: io::Error,
    },
    /// No system call can be made in the target's name now, as each of its threads sleeps amid one of its own. One that
    /// has just met a breakpoint can.
    #[error("cannot {what} inside process {pid}: each of its threads sleeps in a system call of its own")]
    NotNow {
        /// What was wanted, as a verb phrase.
        what: &'static str,
        /// The process.
        pid: Pid,
    },
    /// Memory of the target could not be read or written.
    #[error("cannot {what} {length} bytes at {address:#x} of process {pid}: {cause}")]
    Memory {
        /// `read` or `write`.
        what: &'static str,
        /// How many bytes.
        length: usize,
        /// First address.
        address: u64,
        /// The process.
        pid: Pid,
        /// The reason.
        cause: io::Error,
    },
    /// Any other failed request.
    #[error("cannot {what} process {pid}: {cause}")]
    Os {
        /// What was wanted, as a verb phrase.
        what: &'static str,
        /// The process.
        pid: Pid,
        /// The reason.
        cause: io::Error,
    },
}

fn refusal_text(why: &AttachRefusal) -> String {
    match why {
        AttachRefusal::NoSuchProcess => "no such process; give the id of a running one (see `pgrep NAME`)".into(),
        AttachRefusal::ThreadOf(pid) => format!("it is a thread of process {pid}; give that id"),
        AttachRefusal::Zombie => "it has already ended (a zombie that waits for its parent)".into(),
        AttachRefusal::KernelThread => "it is a thread of the kernel, which has no user memory".into(),
        AttachRefusal::Itself => "it is memleax itself".into(),
        AttachRefusal::AlreadyTraced { by, name } => {
            format!("process {by} ({name}) traces it already; end that one first (a process has one tracer)")
        }
        AttachRefusal::OtherUser(uid) => format!("it belongs to user {uid}; run memleax as that user or as root"),
        AttachRefusal::Setting { name, value, remedy } => format!("{name} is {value}; {remedy}"),
        AttachRefusal::Privileged => {
            "it is protected (set-user-id, capabilities or not dumpable); run memleax as root, in a container with \
             CAP_SYS_PTRACE"
                .into()
        }
        AttachRefusal::Confined => {
            "memleax runs in a user namespace (a rootless container) that the process is not in; run it outside".into()
        }
        AttachRefusal::Denied => {
            "the kernel denies it even to root: a security module (its log says more), or a filter that \
             memleax itself runs under; in a container allow ptrace (for example `--security-opt seccomp=unconfined`)"
                .into()
        }
        AttachRefusal::OtherArchitecture(what) => format!("it is {what}; this memleax traces x86_64 processes"),
    }
}
