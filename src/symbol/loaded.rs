//! All that is known of one module's functions and lines, and what is missing.

use std::path::Path;

use memleax_platform::SharedBytes;
use object::elf;

use super::demangle::{demangle, printable};
use super::elf::{ElfError, ElfFile};
use super::lines::{Lines, SourceFrame};
use super::search::{Found, Search};
use super::table::{FoundSymbol, SymbolTable};
use super::{Function, compression};
use crate::event::FrameKind;

/// The symbols and debug information of a module.
#[derive(Default)]
pub(super) struct Loaded {
    symbols: SymbolTable,
    lines: Option<Lines>,
    /// What was found to be missing when the files were opened.
    missing: Option<String>,
}

impl Loaded {
    /// Reads what there is for the module at `path`; `given` is the debug file that the user named for it.
    pub(super) fn load(path: &Path, image: Option<SharedBytes>, given: Option<Found>, search: &Search) -> Self {
        let Some(image) = image else {
            return Self { missing: Some("its file cannot be read".to_owned()), ..Self::default() };
        };
        let image = match ElfFile::parse(image) {
            Ok(elf) => elf,
            Err(cause) => {
                tracing::warn!("cannot read the symbols of {}: {cause}", path.display());
                return Self { missing: Some(cause.to_string()), ..Self::default() };
            }
        };
        let complete = image.has_debug_info() && image.has_symbols();
        let separate = given.or_else(|| if complete { None } else { search.debug_file(path, &image) });
        let symbols = collect_symbols(path, &image, separate.as_ref());
        let lines = match &separate {
            Some(found) if found.elf.has_debug_info() => load_lines(&found.elf, &found.path, path, search),
            _ if image.has_debug_info() => load_lines(&image, path, path, search),
            _ => None,
        };
        let build_id = image.build_id().map(|id| format!(" (build id {id})")).unwrap_or_default();
        let damaged = image.has_debug_info() || separate.is_some_and(|found| found.elf.has_debug_info());
        let missing = match (&lines, symbols.has_functions()) {
            (Some(_), _) => None,
            (None, _) if damaged => {
                Some("its debug information is damaged, so there are no files and lines".to_owned())
            }
            (None, true) => Some(format!("no debug information{build_id}, so no files and lines")),
            (None, false) => Some(format!("no symbols and no debug information{build_id}")),
        };
        Self { symbols, lines, missing }
    }

    /// What is missing, as a clause; `None` if nothing is, as far as it was looked for.
    pub(super) fn gap(&self) -> Option<String> {
        let split = || match self.lines.as_ref()?.missing_units() {
            0 => None,
            units => Some(format!(
                "split debug information (.dwo, .dwp) of {units} compilation units, so inlined functions may be missing"
            )),
        };
        self.missing.clone().or_else(split)
    }

    /// The functions at `address`, innermost inlined first.
    pub(super) fn functions(&self, address: u64, kind: FrameKind, search: &Search) -> Vec<Function> {
        let probe = match kind {
            FrameKind::Exact | FrameKind::Thread => address,
            FrameKind::ReturnAddress => address.saturating_sub(1),
        };
        let symbol = self.symbols.find(probe);
        let mut frames = self.lines.as_ref().map(|lines| lines.frames(probe, search)).unwrap_or_default();
        let outermost = frames.pop().unwrap_or_default();
        let mut functions: Vec<_> = frames.into_iter().map(inlined).collect();
        let start = || self.lines.as_ref().and_then(|lines| lines.function_start(probe, &outermost, search));
        let real = real_name(symbol, &outermost).map(|(name, raw, symbol_start)| Function {
            name,
            offset: symbol_start.or_else(start).map(|start| address.saturating_sub(start)),
            raw,
            file: outermost.file.clone().map(printable),
            line: outermost.line,
            inlined: false,
        });
        functions.extend(real);
        functions
    }
}

/// Name, raw name and start. The symbol tables name clones and aliases exactly; debug information knows better than a symbol
/// without size.
fn real_name(symbol: Option<FoundSymbol<'_>>, frame: &SourceFrame) -> Option<(String, String, Option<u64>)> {
    match symbol {
        Some(symbol) if symbol.sized || frame.function.is_none() => {
            let raw = String::from_utf8_lossy(symbol.name).into_owned();
            Some((demangle(&raw), raw, Some(symbol.start)))
        }
        _ => Some((source_name(frame)?, frame.function.clone()?, None)),
    }
}

fn source_name(frame: &SourceFrame) -> Option<String> {
    frame.qualified.clone().map(printable).or_else(|| Some(demangle(frame.function.as_deref()?)))
}

fn inlined(frame: SourceFrame) -> Function {
    const UNKNOWN: &str = "??";
    Function {
        name: source_name(&frame).unwrap_or_else(|| UNKNOWN.to_owned()),
        raw: frame.function.unwrap_or_else(|| UNKNOWN.to_owned()),
        offset: None,
        file: frame.file.map(printable),
        line: frame.line,
        inlined: true,
    }
}

/// Every table there is: one alone may have been thinned out. `.gnu_debugdata` is unpacked only where no `.symtab` is.
fn collect_symbols(path: &Path, image: &ElfFile, separate: Option<&Found>) -> SymbolTable {
    let mut symbols = SymbolTable::default();
    let warn = |path: &Path, added: Result<(), ElfError>| {
        if let Err(cause) = added {
            tracing::warn!("{}: {cause}; its symbols are ignored", path.display());
        }
    };
    warn(path, symbols.add(image, elf::SHT_SYMTAB));
    if let Some(found) = separate {
        warn(&found.path, symbols.add(&found.elf, elf::SHT_SYMTAB));
    }
    if !image.has_symbols()
        && separate.is_none_or(|found| !found.elf.has_symbols())
        && let Some(mini) = mini_debug_info(path, image)
    {
        warn(path, symbols.add(&mini, elf::SHT_SYMTAB));
    }
    warn(path, symbols.add(image, elf::SHT_DYNSYM));
    warn(path, symbols.add_stubs(image));
    symbols.finish();
    symbols
}

/// The symbols that Fedora leaves in stripped programs ("MiniDebugInfo"): an ELF file compressed by xz.
pub(super) fn mini_debug_info(path: &Path, image: &ElfFile) -> Option<ElfFile> {
    let unpacked = match image.section(".gnu_debugdata") {
        Ok(data) => compression::xz(&data?).map_err(|cause| cause.to_string()),
        Err(cause) => Err(cause.to_string()),
    };
    let parsed = unpacked.and_then(|bytes| ElfFile::parse(bytes.into()).map_err(|cause| cause.to_string()));
    parsed.map_err(|cause| tracing::warn!("{}: its .gnu_debugdata is ignored: {cause}", path.display())).ok()
}

fn load_lines(elf: &ElfFile, path: &Path, module: &Path, search: &Search) -> Option<Lines> {
    Lines::load(elf, path, module, search)
        .map_err(|cause| tracing::warn!("{}: its debug information is damaged: {cause}", path.display()))
        .ok()
}
