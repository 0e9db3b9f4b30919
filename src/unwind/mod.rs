//! From registers and stack to a backtrace; and the modules that code belongs to.
//!
//! [`ModuleMap`] knows what is mapped where; [`Unwinder`] walks stacks by the modules' call frame information.

mod image;
mod module;
mod module_map;
mod unwinder;

pub use image::{Image, Segment};
pub use module::{Module, ModuleTable, Role};
pub use module_map::{Changes, ModuleMap};
pub use unwinder::{RawBacktrace, RawFrame, Unwinder};
