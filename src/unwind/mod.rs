//! From registers and stack to a backtrace; and the modules that code belongs to.
//!
//! [`ModuleMap`] knows what is mapped where; [`Unwinder`] walks stacks by the modules' call frame information.

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
mod rule;
mod rule_cache;
mod rules;
mod unwinder;

pub use image::{Image, Segment};
pub use loader::state_changed_function;
pub use module::{Module, ModuleTable, Role};
pub use module_map::{Changes, ModuleMap};
pub use raw_backtrace::{RawBacktrace, RawFrame};
pub use rules::{Base, Row, Rule, RuleKind, Saved};
pub use unwinder::{Unwinder, rule_rows};

/// Finds the separate debug file of a module.
pub type DebugFiles = Box<dyn FnMut(&Module) -> Option<Image>>;
