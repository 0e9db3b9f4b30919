//! From frames to names, files and lines: symbol tables, DWARF, separate debug files.
//!
//! A module is looked into when a frame of it is named for the first time, and then only as far as needed: files are
//! mapped, not read, and of the debug information only the units that hold the addresses are parsed. It takes its time,
//! so it is for the thread that prints, never for the one that traces.
//!
//! Nothing here fails: what is missing or damaged is told once by `tracing`, and the names are as good as the rest allows.

mod compression;
mod debug_file;
mod demangle;
mod dynamic;
mod elf;
mod finder;
mod lines;
mod loaded;
mod plt;
mod scope;
mod search;
mod table;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use memleax_platform::{RootDirectory, SharedBytes};
use rustc_hash::FxHashMap;

pub use debug_file::{DebugFile, DebugFileError};
pub use demangle::demangle;
pub use finder::DebugFileFinder;

use crate::event::{Ending, Frame, FrameKind, ModuleId};
use crate::unwind::{Image, Module, ModuleTable};
use demangle::printable;
use loaded::Loaded;
use search::Search;

/// What a [`Symbolizer`] may use.
#[derive(Debug)]
pub struct SymbolOptions {
    /// `-d`: a debug file for one module, checked before.
    pub debug_file: Option<DebugFile>,
    /// The target's root, opened while it lived. Debug files are looked for below it, and then below memleax's own.
    pub target_root: Option<RootDirectory>,
    /// Directories with separate debug files, below each root.
    pub debug_directories: Vec<PathBuf>,
}

impl Default for SymbolOptions {
    fn default() -> Self {
        Self { debug_file: None, target_root: None, debug_directories: vec!["/usr/lib/debug".into()] }
    }
}

/// A frame with all that is known of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NamedFrame {
    /// Run-time address, as it was in the target.
    pub address: u64,
    /// The module's path as the target sees it; empty for code in no file.
    pub module: String,
    /// Address as the module's file counts it; the run-time address where there is no module.
    pub offset: u64,
    /// The functions inlined here, innermost first, and last the one that was called; empty if unknown.
    pub functions: Vec<Function>,
}

/// How the names of threads begin where they stand for frames.
const THREAD: &str = "[thread ";

impl NamedFrame {
    /// The thread that it stands for, if it does: `[thread 4322 worker]`.
    #[must_use]
    pub fn thread(&self) -> Option<&str> {
        // Code in no file has no names.
        let name = &self.functions.first().filter(|_| self.module.is_empty())?.name;
        name.starts_with(THREAD).then_some(name)
    }

    fn without_functions(frame: &Frame, module: Option<&Module>) -> Self {
        Self {
            address: module.map_or(frame.address, |module| module.run_time_address(frame.address)),
            module: module.map(path_text).unwrap_or_default(),
            offset: frame.address,
            functions: Vec::new(),
        }
    }
}

/// A call stack with names, innermost frame first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedStack {
    /// At least the allocator's entry.
    pub frames: Vec<Arc<NamedFrame>>,
    /// Why it ends.
    pub ending: Ending,
    /// Frames beyond one are a guess, as it was found by the frame pointer.
    pub by_frame_pointer: bool,
}

/// A function that a frame lies in.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Function {
    /// As its language writes it.
    pub name: String,
    /// As the linker writes it, without symbol version.
    pub raw: String,
    /// Bytes from the function's start to the frame's address; `None` for inlined functions, which have no start.
    pub offset: Option<u64>,
    /// Source file of the call (of the instruction, if the frame is no caller), as the compiler was told.
    pub file: Option<String>,
    /// Line in `file`.
    pub line: Option<u32>,
    /// The compiler put it into the next function of the list.
    pub inlined: bool,
}

/// What could not be found for a module of which frames were named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The module's path as the target sees it.
    pub module: String,
    /// What is missing, as a clause.
    pub text: String,
}

/// Names frames, each once.
pub struct Symbolizer {
    search: Search,
    debug_file: Option<DebugFile>,
    loaded: Vec<(Arc<Module>, Loaded)>,
    by_module: FxHashMap<ModuleId, usize>,
    named: FxHashMap<Frame, Arc<NamedFrame>>,
    threads: FxHashMap<u64, String>,
}

impl Symbolizer {
    /// A symbolizer that has not looked at anything yet.
    #[must_use]
    pub fn new(options: SymbolOptions) -> Self {
        Self {
            search: Search::new(options.target_root, options.debug_directories),
            debug_file: options.debug_file,
            loaded: Vec::new(),
            by_module: FxHashMap::default(),
            named: FxHashMap::default(),
            threads: FxHashMap::default(),
        }
    }

    /// The name of a frame. The first of a module may take long (seconds for debug information of gigabytes).
    pub fn name(&mut self, frame: &Frame, modules: &ModuleTable) -> Arc<NamedFrame> {
        if let Some(named) = self.named.get(frame) {
            return Arc::clone(named);
        }
        if frame.kind == FrameKind::Thread {
            return Arc::new(self.thread(frame.address));
        }
        let named = Arc::new(match frame.module {
            Some(id) => self.name_in(frame, modules.get(id)),
            None => NamedFrame::without_functions(frame, None),
        });
        self.named.insert(*frame, Arc::clone(&named));
        named
    }

    /// Names a thread for frames that stand for it.
    pub fn name_thread(&mut self, tid: u32, name: &str) {
        self.threads.insert(tid.into(), printable(name.to_owned()));
    }

    fn thread(&self, tid: u64) -> NamedFrame {
        let name = match self.threads.get(&tid) {
            Some(name) => format!("{THREAD}{tid} {name}]"),
            None => format!("{THREAD}{tid}]"),
        };
        let function = Function { name, raw: String::new(), offset: None, file: None, line: None, inlined: false };
        NamedFrame { address: tid, module: String::new(), offset: tid, functions: vec![function] }
    }

    /// The same at once: a frame that was not named before has its module and address only.
    #[must_use]
    pub fn name_if_known(&self, frame: &Frame, modules: &ModuleTable) -> Arc<NamedFrame> {
        if frame.kind == FrameKind::Thread {
            return Arc::new(self.thread(frame.address));
        }
        self.named.get(frame).cloned().unwrap_or_else(|| {
            let module = frame.module.map(|id| modules.get(id));
            Arc::new(NamedFrame::without_functions(frame, module.map(Arc::as_ref)))
        })
    }

    /// Frames of another process come next, whose modules have ids of their own. What was read of files is kept.
    pub fn turn_to_another_process(&mut self) {
        self.by_module.clear();
        self.named.clear();
    }

    /// What could not be found for the modules named so far.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> + '_ {
        self.loaded.iter().filter_map(|(module, loaded)| Some(Gap { module: path_text(module), text: loaded.gap()? }))
    }

    /// What cannot be found for a module, as a clause; `None` if nothing is missing.
    pub fn gap(&mut self, module: &Arc<Module>) -> Option<String> {
        let loaded = self.load(module);
        self.loaded[loaded].1.gap()
    }

    fn name_in(&mut self, frame: &Frame, module: &Arc<Module>) -> NamedFrame {
        let loaded = self.load(module);
        let functions = self.loaded[loaded].1.functions(frame.address, frame.kind, &self.search);
        NamedFrame { functions, ..NamedFrame::without_functions(frame, Some(module)) }
    }

    /// Its place in `loaded`.
    fn load(&mut self, module: &Arc<Module>) -> usize {
        *self.by_module.entry(module.id).or_insert_with(|| {
            // A library loaded again is another module with the same file.
            self.loaded.iter().position(|(known, _)| is_same_file(known, module)).unwrap_or_else(|| {
                let given = self.debug_file.as_ref().and_then(|file| file.for_module(module.id));
                let image = module.image.as_ref().map(image_bytes);
                let loaded = Loaded::load(&module.path, image, given, &self.search);
                if let Some(gap) = loaded.gap() {
                    tracing::info!("{}: {gap}", module.path.display());
                }
                self.loaded.push((Arc::clone(module), loaded));
                self.loaded.len() - 1
            })
        })
    }
}

impl fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Symbolizer({} modules, {} frames)", self.loaded.len(), self.named.len())
    }
}

fn path_text(module: &Module) -> String {
    printable(module.path.to_string_lossy().into_owned())
}

fn image_bytes(image: &Image) -> SharedBytes {
    match image {
        Image::File(file) => Arc::clone(file).into(),
        Image::Memory(bytes) => Arc::clone(bytes).into(),
    }
}

fn is_same_file(known: &Module, module: &Module) -> bool {
    let has_same_build_id = known.build_id.is_some() && known.build_id == module.build_id;
    if known.file_id == module.file_id && known.path == module.path && has_same_build_id {
        return true;
    }
    match (&known.image, &module.image) {
        (Some(Image::File(one)), Some(Image::File(other))) => Arc::ptr_eq(one, other),
        (Some(Image::Memory(one)), Some(Image::Memory(other))) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
