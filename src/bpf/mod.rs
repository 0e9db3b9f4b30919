//! Observes a target by uprobes whose BPF programs keep the books in the kernel.
//!
//! `memleax.bpf.c` follows calls, walks stacks and counts; `kernel` loads and attaches it, in the way that `attachment` finds, `placement` and `hooks` say where
//! its probes sit, `table` compiles the unwind information that it walks by, `books` reads what it counted.

mod attachment;
mod books;
mod history;
mod hooks;
mod kernel;
mod layout;
pub mod machine;
mod mmap_events;
pub mod placement;
mod privileges;
mod records;
mod source;
mod table;

pub use attachment::NoVariant;
pub use privileges::remedy;
pub use source::{AttachError, BpfSource};

/// Loads each variant of the programs, best first, and takes it out again: its name, and what the kernel says against it.
#[must_use]
pub fn examine() -> Vec<(&'static str, Result<(), String>)> {
    kernel::Kernel::examine()
}
