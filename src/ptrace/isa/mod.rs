//! What the engine must know of the processor: how to run one instruction elsewhere, or by hand.

pub(super) mod x86_64;

pub(super) use x86_64 as native;
