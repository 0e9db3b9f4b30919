//! Names compared with those of binutils' `addr2line`, for programs packed in every way that debug information comes in.

mod flavours;
mod hostile;
mod oracle;
mod symbolizer;
mod symbols;
pub(super) mod workshop;
