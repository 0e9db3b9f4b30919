//! Compiles programs and takes their debug information apart, each test in a directory of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use memleax_platform::{MappedFile, SharedBytes};

use crate::event::FrameKind;
use crate::symbol::Function;
use crate::symbol::loaded::Loaded;
use crate::symbol::search::Search;

/// A directory with a program in it.
pub(in crate::symbol) struct Workshop {
    directory: tempfile::TempDir,
}

/// What memleax makes of a program.
pub(in crate::symbol) struct Named {
    pub(in crate::symbol) loaded: Loaded,
    pub(in crate::symbol) search: Search,
}

impl Workshop {
    pub(in crate::symbol) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/programs");
        for name in ["inlines.c", "inlines.h", "shapes.cpp", "boxes.rs", "symbols.s"] {
            fs::copy(sources.join(name), directory.path().join(name)).expect("copied");
        }
        Self { directory }
    }

    pub(in crate::symbol) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where [`named`](Self::named) looks for separate debug files.
    pub(in crate::symbol) fn debug_directory(&self) -> PathBuf {
        self.path("debug")
    }

    /// Runs a program in the directory.
    #[track_caller]
    pub(in crate::symbol) fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> String {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .unwrap_or_else(|cause| panic!("cannot run {program}: {cause}; scripts/setup.sh test installs it"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command whose words are parted by spaces.
    #[track_caller]
    pub(in crate::symbol) fn sh(&self, command: &str) -> String {
        let mut words = command.split(' ');
        self.run(words.next().expect("a program"), words)
    }

    /// The build id, as `.build-id/ab/cdef.debug`.
    pub(in crate::symbol) fn build_id_path(&self, name: &str) -> String {
        let notes = self.sh(&format!("readelf -n {name}"));
        let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).expect("a build id");
        format!(".build-id/{}/{}.debug", &id[..2], &id[2..])
    }

    /// The address of a symbol, as the file counts it.
    #[track_caller]
    pub(in crate::symbol) fn symbol(&self, program: &str, name: &str) -> u64 {
        let table = self.sh(&format!("nm {program}"));
        let line = table.lines().find(|line| line.split(' ').nth(2) == Some(name)).expect("the symbol");
        u64::from_str_radix(&line[..16], 16).expect("an address")
    }

    /// Moves a file into the debug directory.
    pub(in crate::symbol) fn install(&self, name: &str, below: &str) {
        let to = self.debug_directory().join(below);
        fs::create_dir_all(to.parent().expect("a directory")).expect("created");
        fs::rename(self.path(name), to).expect("moved");
    }

    pub(in crate::symbol) fn open(&self, name: &str) -> SharedBytes {
        let file = fs::File::open(self.path(name)).expect("opened");
        Arc::new(MappedFile::new(&file).expect("mapped")).into()
    }

    pub(in crate::symbol) fn search(&self) -> Search {
        Search::new(None, vec![self.debug_directory()])
    }

    /// What memleax makes of the program.
    pub(in crate::symbol) fn named(&self, name: &str) -> Named {
        let search = self.search();
        let loaded = Loaded::load(&self.path(name), Some(self.open(name)), None, &search);
        Named { loaded, search }
    }
}

impl Named {
    pub(in crate::symbol) fn at(&self, address: u64) -> Vec<Function> {
        self.of_kind(address, FrameKind::Exact)
    }

    pub(in crate::symbol) fn of_kind(&self, address: u64, kind: FrameKind) -> Vec<Function> {
        self.loaded.functions(address, kind, &self.search)
    }
}
