//! Linux.

#[allow(dead_code, reason = "until the tracer stands upon it")]
mod memory;
#[allow(dead_code, reason = "until the tracer stands upon it")]
mod ptrace;
mod root;

pub use root::RootDirectory;
