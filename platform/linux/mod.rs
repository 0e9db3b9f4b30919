//! Linux.

mod action;
mod affinity;
mod attach;
mod code_map;
mod confined;
mod facts;
mod guard;
mod guard_code;
mod guard_image;
mod guard_table;
mod halt;
mod hash_map;
mod host;
mod isa;
mod memory;
mod newborn;
mod peer;
mod privileges;
mod ptrace;
mod remote;
mod restart;
mod root;
mod status;
mod step;
mod stub;
mod threads;
mod tracer;
mod trap_mask;
mod wait;
mod watch;

pub use confined::Confined;
pub use facts::{command_line, thread_name};
pub use hash_map::read_hash_map;
pub use host::{check_access, host};
pub use peer::peer_user;
pub use privileges::{Privilege, is_confined};
pub use root::RootDirectory;
pub use tracer::LinuxTracer;

/// The tracer of the system that this was compiled for.
pub type NativeTracer = LinuxTracer;
pub use watch::{ProcessWatch, monotonic_nanoseconds, read_memory, thread_processor_time};

/// The id of the calling thread.
pub(crate) fn thread_id() -> libc::pid_t {
    nix::unistd::gettid().as_raw()
}
