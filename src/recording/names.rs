//! Functions, files and lines: written at the end of a run, so that a recording can be read where the modules are not.

use std::io;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::reader::FunctionName;
use super::record::{FunctionRecord, NamesRecord};
use super::writer::Writer;
use crate::event::Frame;
use crate::symbol::{Function, NamedFrame};

/// Frames a record: the strings of one are in memory at once.
const FRAMES: usize = 4096;

impl Writer {
    /// Writes the names of all frames.
    ///
    /// # Errors
    /// Those of the file.
    pub fn names(&mut self, mut name: impl FnMut(&Frame) -> Arc<NamedFrame>) -> io::Result<()> {
        let mut frames: Vec<(Frame, u32)> = self.frames().collect();
        frames.sort_unstable_by_key(|&(_, number)| number);
        for frames in frames.chunks(FRAMES) {
            let mut strings = Strings::default();
            let mut record = NamesRecord::default();
            for (frame, number) in frames {
                let named = name(frame);
                let functions = named.functions.iter().map(|function| strings.record(function)).collect();
                record.frames.push((*number, functions));
            }
            record.strings = strings.list;
            self.append_names(record)?;
        }
        Ok(())
    }
}

/// Each string once.
#[derive(Default)]
struct Strings {
    list: Vec<String>,
    numbers: FxHashMap<String, u32>,
}

impl Strings {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(text.into());
        self.numbers.insert(text.into(), number);
        number
    }

    fn record(&mut self, function: &Function) -> FunctionRecord {
        FunctionRecord {
            name: self.number(&function.name),
            raw: self.number(&function.raw),
            offset: function.offset,
            file: function.file.as_deref().map(|file| self.number(file)),
            line: function.line,
            inlined: function.inlined,
        }
    }
}

impl From<&FunctionName> for Function {
    fn from(name: &FunctionName) -> Function {
        Function {
            name: name.name.clone(),
            raw: name.raw.clone(),
            offset: name.record.offset,
            file: name.file.clone(),
            line: name.record.line,
            inlined: name.record.inlined,
        }
    }
}
