//! A call stack as a list of functions: inlined ones are functions like others.

use std::fmt;

use crate::symbol::{Function, NamedFrame, NamedStack};

/// One function of a call stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call<'a> {
    /// The frame that it lies in.
    pub frame: &'a NamedFrame,
    /// The function; `None` if it is unknown.
    pub function: Option<&'a Function>,
}

impl NamedStack {
    /// Its functions, innermost first: the allocator's entry, its caller…
    pub fn calls(&self) -> impl DoubleEndedIterator<Item = Call<'_>> {
        self.frames.iter().flat_map(|frame| frame.calls())
    }
}

impl NamedFrame {
    /// Its functions, innermost first: one nameless call where they are unknown.
    pub fn calls(&self) -> impl DoubleEndedIterator<Item = Call<'_>> {
        let nameless = self.functions.is_empty().then_some(None);
        nameless.into_iter().chain(self.functions.iter().map(Some)).map(|function| Call { frame: self, function })
    }
}

impl<'a> Call<'a> {
    /// Its name: the function's, else `module+0xoffset`, else the address.
    #[must_use]
    pub fn name(&self) -> String {
        match self.function {
            Some(function) if !function.name.is_empty() => function.name.clone(),
            _ => self.place(),
        }
    }

    /// `module+0xoffset`, with the module's full path; the address where there is no module.
    #[must_use]
    pub fn place(&self) -> String {
        let NamedFrame { address, module, offset, .. } = self.frame;
        if module.is_empty() { format!("0x{address:x}") } else { format!("{module}+0x{offset:x}") }
    }

    /// The last part of the module's path; empty for code in no file.
    #[must_use]
    pub fn module_name(&self) -> &'a str {
        self.frame.module.rsplit('/').next().unwrap_or_default()
    }

    /// Source file, as far as known.
    #[must_use]
    pub fn file(&self) -> Option<&'a str> {
        self.function.and_then(|function| function.file.as_deref())
    }

    /// Line in [`file`](Self::file).
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        self.function.and_then(|function| function.line)
    }
}

/// `function [file:line]`, as far as known, else [`Call::place`].
impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match (self.file(), self.line()) {
            (Some(file), Some(line)) => write!(f, " [{file}:{line}]"),
            (Some(file), None) => write!(f, " [{file}]"),
            _ => Ok(()),
        }
    }
}
