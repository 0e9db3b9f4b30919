//! Builds the programs that the live tests watch.
