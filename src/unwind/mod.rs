//! From registers and stack to a backtrace; and the modules that code belongs to.

mod modules;

pub use modules::{Module, ModuleTable};
