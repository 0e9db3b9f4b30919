//! Questions from outside to a run that goes on: a socket beside it, and who asks through it (`docs/control.md`).

mod client;
mod folder;
mod request;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Answer, Error, ask};
pub use folder::Watched;
pub use request::Request;
pub use server::attendant;
