//! The Linux tracer on real processes.

mod attach;
mod breakpoints;
mod children;
mod facts;
mod job_control;
mod memory;
mod signals;
mod target;
