//! Fills the tables: each function, frame and call stack once.

use std::collections::HashMap;
use std::hash::Hash;

use serde::Serialize;

use super::tables::Tables;
use crate::profile::{Call, Module, Profile};
use crate::report::markup::in_one_line;
use crate::symbol::{NamedFrame, NamedStack};

/// Colours of frames, by what they belong to.
#[derive(Serialize)]
pub(super) struct Category {
    name: &'static str,
    color: &'static str,
    subcategories: [&'static str; 1],
}

const fn category(name: &'static str, color: &'static str) -> Category {
    Category { name, color, subcategories: ["Other"] }
}

/// The first grey one is the default.
pub(super) const CATEGORIES: [Category; 3] =
    [category("Other", "grey"), category("Program", "orange"), category("Library", "blue")];
pub(super) const OTHER: usize = 0;
const PROGRAM: usize = 1;
const LIBRARY: usize = 2;

/// A module that frames lie in.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lib {
    arch: &'static str,
    name: String,
    path: String,
    debug_name: String,
    debug_path: String,
    /// The first half of the build id as a GUID, and the age 0.
    breakpad_id: String,
    /// The whole of it.
    code_id: Option<String>,
}

/// The tables while they are filled.
#[derive(Default)]
pub(super) struct Stacks<'a> {
    pub(super) tables: Tables,
    pub(super) libs: Vec<Lib>,
    modules: &'a [Module],
    executable: &'a str,
    strings: HashMap<String, usize>,
    /// By path.
    lib_indices: HashMap<&'a str, usize>,
    /// By name, resource and file.
    funcs: HashMap<(usize, i64, Option<usize>), usize>,
    /// By library, address and name.
    symbols: HashMap<(usize, i64, usize), usize>,
    /// By module, address, whether it is a caller, and depth.
    frames: HashMap<(&'a str, u64, bool, usize), usize>,
    stacks: HashMap<(Option<usize>, usize), usize>,
}

impl<'a> Stacks<'a> {
    pub(super) fn new(profile: &'a Profile) -> Stacks<'a> {
        Stacks { modules: &profile.modules, executable: &profile.run.executable, ..Stacks::default() }
    }

    pub(super) fn string(&mut self, text: &str) -> usize {
        let strings = &mut self.tables.string_array;
        numbered(&mut self.strings, text.to_owned(), strings.len(), |text| strings.push(text))
    }

    /// The row of a call stack: that of its innermost function.
    pub(super) fn stack(&mut self, stack: &'a NamedStack) -> Option<usize> {
        let mut prefix = None;
        for (depth, frame) in stack.frames.iter().enumerate().rev() {
            for (inline_depth, call) in frame.calls().rev().enumerate() {
                let frame = self.frame(&call, depth > 0, inline_depth);
                let table = &mut self.tables.stack_table;
                let row = numbered(&mut self.stacks, (prefix, frame), table.length, |(prefix, frame)| {
                    table.length += 1;
                    table.prefix.push(prefix);
                    table.frame.push(frame);
                });
                prefix = Some(row);
            }
        }
        prefix
    }

    fn frame(&mut self, call: &Call<'a>, is_caller: bool, inline_depth: usize) -> usize {
        let frame = call.frame;
        let key = (frame.module.as_str(), frame.address, is_caller, inline_depth);
        if let Some(&row) = self.frames.get(&key) {
            return row;
        }
        let lib = self.lib(&frame.module);
        let func = self.func(call, lib);
        let (mut address, mut native_symbol) = (-1, None);
        if let Some(lib) = lib {
            let exact = self.relative(frame);
            // A return address may already be the next statement's.
            address = exact - i64::from(is_caller);
            // The function that was called, whatever is inlined into it there.
            if let Some((function, offset)) = frame.functions.last().and_then(|last| Some((last, last.offset?))) {
                native_symbol = Some(self.symbol(lib, exact.wrapping_sub_unsigned(offset), &function.name));
            }
        }
        let category = match lib {
            None => OTHER,
            Some(_) if frame.module == self.executable => PROGRAM,
            Some(_) => LIBRARY,
        };
        let table = &mut self.tables.frame_table;
        let row = table.length;
        table.length += 1;
        table.address.push(address);
        table.inline_depth.push(inline_depth);
        table.category.push(category);
        table.subcategory.push(0);
        table.func.push(func);
        table.native_symbol.push(native_symbol);
        table.inner_window_id.push(0);
        table.line.push(call.line());
        table.column.push(None);
        self.frames.insert(key, row);
        row
    }

    /// From the first byte of the frame's module.
    fn relative(&self, frame: &NamedFrame) -> i64 {
        let of_path = |module: &&Module| module.path == frame.module;
        let mut modules = self.modules.iter().filter(of_path);
        let module = modules.clone().find(|module| module.range.contains(&frame.address)).or_else(|| modules.next());
        let first = module.map_or(0, |module| module.range.start.wrapping_sub(module.bias));
        frame.offset.wrapping_sub(first).cast_signed()
    }

    fn func(&mut self, call: &Call<'a>, lib: Option<usize>) -> usize {
        let name = self.string(&in_one_line(&call.name()));
        let file = call.file().map(|file| self.string(file));
        // A library's resource has its number.
        let resource = lib.map_or(-1, |lib| lib as i64);
        let table = &mut self.tables.func_table;
        numbered(&mut self.funcs, (name, resource, file), table.length, |(name, resource, file)| {
            table.length += 1;
            table.name.push(name);
            table.is_js.push(false);
            table.relevant_for_js.push(false);
            table.resource.push(resource);
            table.file_name.push(file);
            table.line_number.push(None);
            table.column_number.push(None);
        })
    }

    fn symbol(&mut self, lib: usize, address: i64, name: &str) -> usize {
        let name = self.string(&in_one_line(name));
        let table = &mut self.tables.native_symbols;
        numbered(&mut self.symbols, (lib, address, name), table.length, |(lib, address, name)| {
            table.length += 1;
            table.lib_index.push(lib);
            table.address.push(address);
            table.name.push(name);
            table.function_size.push(None);
        })
    }

    /// The library with this path, and the resource of the same number; `None` for code in no file.
    fn lib(&mut self, path: &'a str) -> Option<usize> {
        if path.is_empty() {
            return None;
        }
        if let Some(&index) = self.lib_indices.get(path) {
            return Some(index);
        }
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        let build_id =
            self.modules.iter().find(|module| module.path == path).map_or(&[][..], |module| &module.build_id);
        let string = self.string(&name);
        let table = &mut self.tables.resource_table;
        table.length += 1;
        table.lib.push(self.libs.len());
        table.name.push(string);
        table.host.push(None);
        table.kind.push(1);
        self.libs.push(Lib {
            arch: std::env::consts::ARCH,
            debug_name: name.clone(),
            name,
            path: path.to_owned(),
            debug_path: path.to_owned(),
            breakpad_id: breakpad_id(build_id),
            code_id: (!build_id.is_empty()).then(|| build_id.iter().map(|byte| format!("{byte:02x}")).collect()),
        });
        let index = self.libs.len() - 1;
        self.lib_indices.insert(path, index);
        Some(index)
    }
}

/// The number of `key`; if it is new, `next`, after `add` has made its row.
fn numbered<K: Clone + Eq + Hash>(known: &mut HashMap<K, usize>, key: K, next: usize, add: impl FnOnce(K)) -> usize {
    if let Some(&number) = known.get(&key) {
        return number;
    }
    known.insert(key.clone(), next);
    add(key);
    next
}

/// As Breakpad names a build id: 16 bytes, of which the first three numbers are little-endian.
fn breakpad_id(build_id: &[u8]) -> String {
    let mut bytes = [0; 16];
    let length = build_id.len().min(16);
    bytes[..length].copy_from_slice(&build_id[..length]);
    for number in [0..4, 4..6, 6..8] {
        bytes[number].reverse();
    }
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>() + "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_is_named_as_breakpad_names_it() {
        let bytes: Vec<u8> = (0..20).collect();
        assert_eq!(breakpad_id(&bytes), "030201000504070608090A0B0C0D0E0F0");
        assert_eq!(breakpad_id(&[]), "0".repeat(33));
    }
}
