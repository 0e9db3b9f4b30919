//! What is mapped in the target, kept up to date, and the hooks that follow from it.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;

use memleax_platform::{AuxiliaryVector, Error, MappedFile, Mapping, Pid, Stop, Tracer};

use crate::unwind::{Changes, DebugFiles, Image, Module, ModuleMap, Unwinder};

/// The modules of the target and its other code.
pub(super) struct Images {
    map: ModuleMap,
    unwinder: Unwinder,
    debug_files: DebugFiles,
    mappings: Vec<Mapping>,
    /// The program was replaced since the last refresh.
    replaced: bool,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("map", &self.map).finish_non_exhaustive()
    }
}

impl Images {
    pub(super) fn new(debug_files: DebugFiles) -> Self {
        Images {
            map: ModuleMap::default(),
            unwinder: Unwinder::default(),
            debug_files,
            mappings: Vec::new(),
            replaced: false,
        }
    }

    /// Looks at what is mapped now. `stop` is a thread of process `pid`.
    pub(super) fn refresh<T: Tracer>(&mut self, tracer: &mut T, stop: &Stop) -> Result<Changes, Error> {
        let pid: Pid = stop.pid;
        self.mappings = tracer.mappings(pid)?;
        let auxiliary: AuxiliaryVector = tracer.auxiliary_vector(pid)?;
        let tracer = RefCell::new(tracer);
        let mut open = |mapping: &Mapping| -> io::Result<MappedFile> {
            MappedFile::new(&tracer.borrow_mut().open_mapping(pid, mapping)?)
        };
        let mut read = |address, buffer: &mut [u8]| tracer.borrow_mut().read(stop, address, buffer).unwrap_or_default();
        let mut changes = self.map.refresh(&self.mappings, &auxiliary, &mut open, &mut read);
        if std::mem::take(&mut self.replaced) {
            // A module that the old program had, too, is nevertheless new.
            changes = Changes { added: self.map.live().to_vec(), removed: Vec::new() };
        }
        if !changes.added.is_empty() || !changes.removed.is_empty() {
            self.unwinder.update(&self.map, &mut self.debug_files);
        }
        Ok(changes)
    }

    /// Forgets what is mapped: the program was replaced.
    pub(super) fn forget(&mut self) {
        self.mappings.clear();
        self.replaced = true;
    }

    /// The mapping of an address, as of the last refresh.
    pub(super) fn mapping(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings[..after].last().filter(|mapping| address < mapping.end)
    }

    /// The byte at an address in the file that is mapped there.
    pub(super) fn byte_in_file(&self, address: u64) -> Option<u8> {
        let (module, _) = self.map.lookup(address)?;
        let mut byte = [0];
        module.original_bytes(address, &mut byte).then_some(byte[0])
    }

    /// The separate debug file of a module.
    pub(super) fn debug_file(&mut self, module: &Module) -> Option<Image> {
        (self.debug_files)(module)
    }

    pub(super) fn map(&self) -> &ModuleMap {
        &self.map
    }

    /// The unwinder, and the modules that it goes by.
    pub(super) fn unwinding(&mut self) -> (&mut Unwinder, &ModuleMap) {
        (&mut self.unwinder, &self.map)
    }
}

/// The modules' paths, for messages.
pub(super) fn paths<'a>(modules: impl IntoIterator<Item = &'a Arc<Module>>) -> String {
    let paths: Vec<String> = modules.into_iter().map(|module| module.path.display().to_string()).collect();
    paths.join(", ")
}
