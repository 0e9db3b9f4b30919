//! Strings, addresses and call stacks of a heaptrack file, each written when it is first needed. Numbers count from 1, 0 is none.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::report::markup::in_one_line;
use crate::symbol::{NamedFrame, NamedStack};

/// What was written, by number.
#[derive(Default)]
pub(super) struct Tables<'a> {
    strings: HashMap<String, u64>,
    /// By module, address, and whether it is a caller's.
    addresses: HashMap<(&'a str, u64, bool), u64>,
    /// By address and caller.
    traces: HashMap<(u64, u64), u64>,
    /// Places of sizes allocated by a trace.
    infos: HashMap<(u64, u64), u64>,
}

impl<'a> Tables<'a> {
    /// The number of a call stack.
    ///
    /// heaptrack's have no allocator in them, so the first frame is left out, unless there is no other.
    pub(super) fn trace(&mut self, stack: &'a NamedStack, output: &mut dyn Write) -> io::Result<u64> {
        let allocator = usize::from(stack.frames.len() > 1);
        let mut trace = 0;
        for (depth, frame) in stack.frames.iter().enumerate().skip(allocator).rev() {
            let address = self.address(frame, depth > 0, output)?;
            let next = self.traces.len() as u64 + 1;
            let known = *self.traces.entry((address, trace)).or_insert(next);
            if known == next {
                writeln!(output, "t {address:x} {trace:x}")?;
            }
            trace = known;
        }
        Ok(trace)
    }

    /// The number of blocks of a size that a trace allocates: the first of two, as [`super`] says. Counts from 0.
    pub(super) fn info(&mut self, size: u64, trace: u64, output: &mut dyn Write) -> io::Result<u64> {
        let next = self.infos.len() as u64 * 2;
        let known = *self.infos.entry((size, trace)).or_insert(next);
        if known == next {
            writeln!(output, "a {size:x} {trace:x}\na {size:x} {trace:x}")?;
        }
        Ok(known)
    }

    fn address(&mut self, frame: &'a NamedFrame, is_caller: bool, output: &mut dyn Write) -> io::Result<u64> {
        let key = (frame.module.as_str(), frame.address, is_caller);
        if let Some(&known) = self.addresses.get(&key) {
            return Ok(known);
        }
        // A return address may already be the next statement's.
        let address = frame.address.wrapping_sub(u64::from(is_caller));
        let mut line = format!("i {address:x} {:x}", self.string(&frame.module, output)?);
        // The innermost inlined function first.
        for call in frame.calls() {
            let name = self.string(&call.name(), output)?;
            let file = self.string(call.file().unwrap_or_default(), output)?;
            let _ = write!(line, " {name:x} {file:x} {:x}", call.line().unwrap_or_default());
        }
        writeln!(output, "{line}")?;
        let number = self.addresses.len() as u64 + 1;
        self.addresses.insert(key, number);
        Ok(number)
    }

    fn string(&mut self, text: &str, output: &mut dyn Write) -> io::Result<u64> {
        if text.is_empty() {
            return Ok(0);
        }
        let text = in_one_line(text);
        if let Some(&known) = self.strings.get(&text) {
            return Ok(known);
        }
        writeln!(output, "s {:x} {text}", text.len())?;
        let number = self.strings.len() as u64 + 1;
        self.strings.insert(text, number);
        Ok(number)
    }
}
