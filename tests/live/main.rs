//! memleax against real processes. One module a concern; each test starts its own target and ends it by its pid.
//!
//! They watch by ptrace, or by what `MEMLEAX_TEST_BACKEND` names; `tracing` and `follow` by ptrace only, `uprobes` and `machine` by bpf only, `backend` by both.
//!
//! `MEMLEAX_STRESS=1` runs the repeated ones as often as the promises are worded (20 or 100 times), instead of a few times.

mod allocators;
mod backend;
mod children;
mod containers;
mod control;
mod endings;
mod errors;
mod follow;
mod ground_truth;
mod harness;
mod hits;
mod launch;
#[cfg(bpf)]
mod machine;
mod marks;
mod metrics;
mod modules;
mod objects;
mod options;
mod programs;
mod recordings;
mod references;
mod reports;
mod safety;
mod session;
mod signals;
mod threads;
mod top;
mod totals;
mod tracing;
mod trends;
#[cfg(bpf)]
mod uprobes;
