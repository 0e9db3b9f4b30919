//! Builds and runs the programs that memleax's live tests and benchmarks watch.
//!
//! [`Target`] compiles a program of `programs/` on demand, in the flavour that the test needs; [`Process`] runs one and
//! talks to it line by line; [`Site`] is what such a program says of itself: its ground truth.
//!
//! This is a tool of the tests: where something fails it panics with the reason.

mod compile;
mod process;
mod truth;
mod unable;

pub use compile::{Program, Target};
pub use process::{Process, patience, target_directory};
pub use truth::{Site, Step, Truth};
pub use unable::{has_program, unable};
