//! Linux.

mod attach;
mod facts;
mod halt;
mod memory;
mod newborn;
mod ptrace;
mod root;
mod status;
mod step;
mod threads;
mod tick;
mod tracer;
mod wait;

pub use root::RootDirectory;
pub use tracer::LinuxTracer;
