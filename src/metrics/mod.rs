//! What a run counts, for Prometheus and others to read while it goes on: `--metrics`.
//!
//! A page is made of a [`Profile`](crate::profile::Profile), as reports are, whenever somebody asks for it. What serves it knows nothing of
//! what is on it, and neither touches the thread that traces. `docs/metrics.md` tells of each metric.

mod attendant;
mod connection;
mod exposition;
mod page;
mod server;
mod suspects;
#[cfg(test)]
mod tests;

pub use attendant::{Wish, attend};
pub use exposition::Form;
pub use page::{Page, State};
pub use server::{Listener, Server, ServerError};
