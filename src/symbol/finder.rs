//! Separate debug files for those who need more of them than names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memleax_platform::{RootDirectory, SharedBytes};

use super::elf::ElfFile;
use super::loaded::mini_debug_info;
use super::search::Search;
use super::{DebugFile, DebugFileError, SymbolOptions, image_bytes};
use crate::unwind::{Image, Module, Role};

/// Finds the file with the symbols and the call frame information that were stripped from a module.
#[derive(Debug)]
pub struct DebugFileFinder {
    search: Search,
    /// `-d`.
    of_executable: Option<PathBuf>,
}

impl DebugFileFinder {
    /// `of_executable` is the file that the user names for the program itself (`-d`); the rest is looked for below
    /// `target_root` and memleax's own root.
    #[must_use]
    pub fn new(of_executable: Option<PathBuf>, target_root: Option<RootDirectory>) -> Self {
        let search = Search::new(target_root, SymbolOptions::default().debug_directories);
        Self { search, of_executable }
    }

    /// The debug file of a module: the one that the user named, a separate file, or what is packed into the module's own
    /// (`.gnu_debugdata`). `None` also if the module is not stripped.
    ///
    /// # Errors
    /// If the file that the user named cannot be used.
    pub fn find(&self, module: &Module) -> Result<Option<Image>, DebugFileError> {
        if let (Role::Executable, Some(path)) = (module.role, &self.of_executable) {
            return Ok(Some(to_image(DebugFile::check(module, path)?.bytes())));
        }
        Ok(self.search_for(&module.path, module.image.as_ref()))
    }

    fn search_for(&self, path: &Path, image: Option<&Image>) -> Option<Image> {
        let elf = ElfFile::parse(image_bytes(image?)).ok()?;
        if elf.has_symbols() && elf.has_debug_info() {
            return None;
        }
        let separate = self.search.debug_file(path, &elf).map(|found| to_image(found.elf.bytes()));
        separate.or_else(|| Some(to_image(mini_debug_info(path, &elf)?.bytes())))
    }
}

fn to_image(bytes: &SharedBytes) -> Image {
    match bytes.whole_file() {
        Some(file) => Image::File(Arc::clone(file)),
        None => Image::Memory(Arc::from(&bytes[..])),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::workshop::Workshop;
    use super::*;

    fn finds(workshop: &Workshop, name: &str) -> Option<Image> {
        let image = Image::Memory(Arc::from(&workshop.open(name)[..]));
        let finder = DebugFileFinder { search: workshop.search(), of_executable: None };
        finder.search_for(&workshop.path(name), Some(&image))
    }

    #[test]
    fn a_stripped_programs_symbols_are_found() {
        let workshop = Workshop::new();
        workshop.sh("gcc -O2 -g -Wl,--build-id=sha1 -o plain inlines.c");
        workshop.sh("eu-strip -f program.debug -o program plain");
        assert!(finds(&workshop, "plain").is_none(), "nothing is missing");
        let found = finds(&workshop, "program").expect("the linked file");
        assert_eq!(found.bytes(), &workshop.open("program.debug")[..]);
    }

    #[test]
    fn packed_symbols_are_unpacked() {
        let workshop = Workshop::new();
        workshop.sh("gcc -O2 -o plain inlines.c");
        workshop.sh("cp plain mini");
        workshop.sh("xz mini");
        workshop.sh("strip -o stripped plain");
        workshop.sh("objcopy --add-section .gnu_debugdata=mini.xz stripped program");
        assert_eq!(finds(&workshop, "program").expect("the unpacked file").bytes(), &workshop.open("plain")[..]);
        assert!(finds(&workshop, "stripped").is_none());
    }
}
