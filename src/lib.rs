//! memleax names the call stacks of a running process that allocate memory and keep it too long.
//!
//! The library behind the `memleax` program. Read `ARCHITECTURE.md` first: it says which module may know which.

#![forbid(unsafe_code)]

pub mod allocator;
#[cfg(bpf)]
pub mod bpf;
pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod event;
pub mod filter;
pub mod histogram;
pub mod likeness;
pub mod machine;
pub mod marker;
pub mod metrics;
pub mod notable;
pub mod objects;
pub mod profile;
pub mod ptrace;
pub mod recording;
pub mod rendering;
pub mod report;
pub mod session;
pub mod source;
pub mod stack;
pub mod symbol;
pub mod top;
pub mod tracker;
pub mod trend;
pub mod unwind;
pub mod wildcard;
