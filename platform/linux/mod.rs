//! Linux.

mod affinity;
mod attach;
mod facts;
mod halt;
mod memory;
mod newborn;
mod ptrace;
mod restart;
mod root;
mod status;
mod step;
mod threads;
mod tick;
mod tracer;
mod wait;

pub use root::RootDirectory;
pub use tracer::LinuxTracer;

/// The tracer of the system that this was compiled for.
pub type NativeTracer = LinuxTracer;
