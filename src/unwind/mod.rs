//! From registers and stack to a backtrace; and the modules that code belongs to.
//!
//! [`ModuleMap`] knows what is mapped where; [`Unwinder`] walks stacks by the modules' call frame information.

mod call_site;
mod cfi;
mod evaluate;
mod image;
mod inference;
mod module;
mod module_map;
mod raw_backtrace;
mod registers;
mod rule;
mod rule_cache;
mod unwinder;

pub use image::{Image, Segment};
pub use module::{Module, ModuleTable, Role};
pub use module_map::{Changes, ModuleMap};
pub use raw_backtrace::{RawBacktrace, RawFrame};
pub use unwinder::Unwinder;
