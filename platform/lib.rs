//! What a kernel must offer to memleax's ptrace engine, and the kernels that do.
//!
//! This crate knows nothing of memleax: no allocators, no call stacks. It holds all of the project's
//! hand-written `unsafe`, and is the only place (with `build.rs`) that asks which operating system it
//! is compiled for.
//!
//! # The contract
//!
//! A [`Tracer`] controls the threads of one process (and, for as long as the caller keeps them, of its
//! children). Its rules are the intersection of what Linux and FreeBSD allow:
//!
//! 1. **Stop windows.** Registers and memory of a tracee exist only while one of its threads is
//!    stopped, that is between the moment that [`Tracer::wait`] or [`Tracer::halt`] hands out a
//!    [`Stop`] and the moment that the `Stop` is given back to [`Tracer::resume`] or
//!    [`Tracer::detach`]. Every access names the `Stop` that makes it legal.
//! 2. **Whole-process stops.** A platform may stop every thread of the process whenever one stops
//!    (FreeBSD does). A thread runs again only after its own `Stop` was given back, and perhaps not
//!    before all outstanding `Stop`s of its process were: hold none across a [`Tracer::wait`].
//! 3. **Nothing is swallowed.** A signal that stops a thread reaches the thread if the caller resumes
//!    with [`Resume::Deliver`]. Job control (SIGSTOP, SIGCONT) works on a traced process as on any other;
//!    the platform sees to it and reports nothing.
//! 4. **Threads are the platform's business.** New threads are followed without a report; the end of
//!    one is reported once as [`Report::ThreadEnded`]. "It died in the meantime" is
//!    [`Error::Gone`], which is never fatal to the caller.
//! 5. **No breakpoint trap is ever lost.** [`Tracer::halt`] returns only when no thread has executed a
//!    breakpoint instruction whose [`StopKind::Trap`] was not handed out; so after it the caller may remove
//!    its breakpoints, correct the program counters, and detach.
//! 6. After a [`StopKind::Trap`] caused by a breakpoint at `a`, the program counter is `a + 1` on x86_64.
//!
//! [`linux`](mod@native) implements it by Linux's calls, [`freebsd`] by FreeBSD's, with the same file names. The latter is
//! compiled everywhere: only `freebsd/native.rs`, the four calls that it makes, is for FreeBSD alone.

pub mod freebsd;
#[cfg(target_os = "linux")]
pub mod linux;

#[cfg(target_os = "linux")]
pub use linux as native;
#[cfg(target_os = "freebsd")]
#[path = "freebsd/native.rs"]
pub mod native;

pub use native::{NativeTracer, RootDirectory, command_line, peer_user, thread_name};

mod bytes;
mod clock;
mod contract;
mod error;
mod host;
mod launch;
mod map;
mod own_cost;
mod own_signals;
mod placement;
mod process;
mod queue;
mod registers;
mod tick;

pub use bytes::SharedBytes;
pub use clock::local_time;
pub use contract::{ExitStatus, Guard, Leftover, Report, Resume, Stop, StopKind, Tracer};
pub use error::{AttachRefusal, Error};
pub use host::{Host, Remark};
pub use launch::Child;
pub use map::{MappedFile, SharedWords};
pub use own_cost::OwnCost;
pub use own_signals::{Arrivals, InheritedSignals, is_ignored};
pub use process::{AuxiliaryVector, Mapping, Pid, ProcessFacts, Signal, Tid};
pub use registers::Registers;
