//! The `memleax` program: parse, run, exit code.

fn main() {}
