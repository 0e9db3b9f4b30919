//! A run as a display that renews itself: call stacks by what they have live, by growth, by rate; one of them whole.
//!
//! What is shown is a pure function of its state; keys change it (`keys`), profiles come from another thread (`fetch`), and
//! `terminal` sees to it that whatever ends the display leaves the terminal as it was.

mod draw;
mod fetch;
mod gate;
mod keys;
mod rows;
mod screen;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod watchdog;

pub use gate::Gate;
pub use screen::{Display, Unusable};
