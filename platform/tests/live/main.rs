//! The Linux tracer on real processes.

#![cfg(target_os = "linux")]

mod attach;
mod breakpoints;
mod children;
mod facts;
mod job_control;
mod memory;
mod signals;
mod target;
