//! FreeBSD's rules of tracing, on top of Linux's ptrace: [`Shim`] is a [`Sys`](memleax_platform::freebsd::Sys) for processes of
//! Linux, so that the FreeBSD tracer can be tested on real ones.
//!
//! What it adds to Linux, or takes away:
//! - all threads of a process stop when one does, and continue together (`PT_SUSPEND` excepted);
//! - one report at a time: what other threads have to report waits, and is dropped on them when the process is detached:
//!   a SIGTRAP then kills;
//! - every request but attaching fails with EBUSY unless the process is stopped and was waited for;
//! - a thread that was made to step does so until `PT_CLEARSTEP`, and is killed by its trap if it is detached before;
//! - transfers of memory do not tell how far they came; stop signals are ignored; children come with default events;
//! - signals have FreeBSD's numbers, threads have ids that no process has, and `/proc` is told as sysctls.

#[cfg(target_os = "linux")]
mod facts;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod remote;
#[cfg(target_os = "linux")]
mod shim;
#[cfg(target_os = "linux")]
mod signals;

/// On FreeBSD itself, the kernel has these rules.
#[cfg(target_os = "freebsd")]
pub use memleax_platform::native::NativeSys as Shim;
#[cfg(target_os = "linux")]
pub use shim::Shim;
