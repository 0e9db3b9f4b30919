//! FreeBSD, as far as it is the same on every system: all but the four calls of [`Sys`], so that it is tested without one.

pub mod abi;
mod abi_table;
mod attach;
mod code_map;
mod facts;
mod halt;
mod host;
mod job_control;
mod memory;
mod processes;
mod ptrace;
mod root;
mod status;
mod step;
mod sys;
#[cfg(test)]
mod tests;
mod tracer;
mod wait;

pub use facts::command_line;
pub use host::{check_access, host};
pub use root::RootDirectory;
pub use sys::{Name, Request, Sys};
pub use tracer::FreebsdTracer;
