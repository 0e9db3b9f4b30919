//! Linux.

#[allow(dead_code, reason = "until the tracer stands upon it")]
mod memory;
#[allow(dead_code, reason = "until the tracer stands upon it")]
mod ptrace;
mod root;
#[allow(dead_code, reason = "until the tracer stands upon it")]
mod step;

pub use root::RootDirectory;
