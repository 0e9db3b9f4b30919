//! From registers and stack to a backtrace; and the modules that code belongs to.
//!
//! [`ModuleMap`] knows what is mapped where; [`Unwinder`] walks stacks by the modules' call frame information.
//!
//! Why not framehop: it keeps rip, rsp and rbp only, reads no memory in an expression and none of `.debug_frame` where
//! there is `.eh_frame`; where it has no rule it takes rbp for a frame pointer, and does not say so. Signal handlers'
//! stacks then end in the handler, those above a frame realigned through r10 at a wrong caller: at each such stop in
//! `tests/unwind.rs`, where framehop is the reference. `framehop_agrees_where_its_three_registers_suffice` holds both
//! to gdb's frames elsewhere. The price, by `benches/unwind.rs` on the same stacks: ours costs more on four known
//! frames and, by half, on call sites never seen before; less where call sites are more than the 509 rules that
//! framehop remembers.

mod call_site;
mod cfi;
mod evaluate;
mod image;
mod inference;
mod loader;
mod module;
mod module_map;
mod raw_backtrace;
mod registers;
mod reopened;
mod rule;
mod rule_cache;
mod rules;
mod unwinder;

pub use image::{Image, Segment};
pub use loader::{LoaderState, state_changed_function};
pub use module::{Module, ModuleTable, Role};
pub use module_map::{Changes, ModuleMap};
pub use raw_backtrace::{RawBacktrace, RawFrame};
pub use reopened::NotedModule;
pub use rules::{Base, Row, Rule, RuleKind, Saved};
pub use unwinder::{Unwinder, rule_rows};

/// Finds the separate debug file of a module.
pub type DebugFiles = Box<dyn FnMut(&Module) -> Option<Image>>;
