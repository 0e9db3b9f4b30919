//! Flame graphs: call stacks as a tree of functions, where each lies in the picture, and its colour. Drawing is for the formats.
//!
//! Widths are bytes. Of growth, which has both signs, a function is as wide as the bytes that its stacks grew and shrank by
//! together, and coloured by what remains when they are set off: red grew, blue shrank.

mod layout;
mod names;
mod palette;
mod tree;

pub(super) use layout::{Layout, Limits, Placed};
pub(super) use names::{Function, Names};
pub(super) use palette::{Palette, growth_class, style};
pub(super) use tree::Tree;
