//! Compiles the programs, each flavour once.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::Process;
use crate::process::target_directory;

/// A program to build: its source and flavour. Optimised, without frame pointers, with debug information, position
/// independent and dynamically linked unless said otherwise.
#[derive(Clone, Debug, Hash)]
pub struct Target {
    source: String,
    compiler: String,
    flags: Vec<String>,
    libraries: Vec<String>,
    stripped: bool,
}

/// A program that was built.
#[derive(Clone, Debug)]
pub struct Program {
    /// What to run.
    pub path: PathBuf,
    /// The same code with its symbols: differs from `path` where that is stripped.
    pub unstripped: PathBuf,
}

impl Target {
    fn new(source: String, compiler: &str, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Target { source, compiler: compiler.to_owned(), flags, libraries: Vec::new(), stripped: false }
    }

    /// The C program of this name.
    #[must_use]
    pub fn c(name: &str) -> Self {
        Self::new(format!("{name}.c"), "gcc", &["-O2", "-g", "-fomit-frame-pointer", "-pthread"])
    }

    /// The C++ program of this name.
    #[must_use]
    pub fn cpp(name: &str) -> Self {
        Self::new(format!("{name}.cpp"), "g++", &["-std=c++17", "-O2", "-g", "-fomit-frame-pointer", "-pthread"])
    }

    /// The Rust program of this name.
    #[must_use]
    pub fn rust(name: &str) -> Self {
        Self::new(format!("{name}.rs"), "rustc", &["--edition=2024", "-O", "-g"])
    }

    /// The same, by another compiler (`clang`, `musl-gcc`).
    #[must_use]
    pub fn compiler(mut self, compiler: &str) -> Self {
        compiler.clone_into(&mut self.compiler);
        self
    }

    /// The same, with more compiler flags.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// The same, linked with libraries (`-ljemalloc`), which follow the source on the command line.
    #[must_use]
    pub fn libraries(mut self, libraries: &[&str]) -> Self {
        self.libraries.extend(libraries.iter().map(|&library| library.to_owned()));
        self
    }

    /// The same, without symbols and debug information.
    #[must_use]
    pub fn stripped(mut self) -> Self {
        self.stripped = true;
        self
    }

    /// Compiles the program unless that was done before.
    ///
    /// # Panics
    /// If the compiler fails.
    #[must_use]
    pub fn build(&self) -> Program {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        let source = sources.join(&self.source);
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        for file in [&source, &sources.join("target.h")] {
            read(file).hash(&mut hasher);
        }
        let stem = Path::new(&self.source).file_stem().and_then(OsStr::to_str).expect("a source has a name");
        let directory = target_directory().join("watched").join(format!("{stem}-{:016x}", hasher.finish()));
        fs::create_dir_all(&directory).unwrap_or_else(|e| panic!("cannot create {}: {e}", directory.display()));
        let unstripped = directory.join(stem);
        let program = Program {
            path: if self.stripped { directory.join(format!("{stem}-stripped")) } else { unstripped.clone() },
            unstripped,
        };

        // Tests run in parallel, in threads and processes: one compiles, the others wait.
        let lock = directory.join("lock");
        let lock = File::create(&lock).unwrap_or_else(|e| panic!("cannot create {}: {e}", lock.display()));
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("a file of our own can be locked");
        if !program.path.exists() {
            self.compile(&source, &program);
        }
        program
    }

    fn compile(&self, source: &Path, program: &Program) {
        // Renamed into place, so that an interrupted compiler leaves nothing that looks finished.
        let unfinished = program.unstripped.with_extension("unfinished");
        let mut command = Command::new(&self.compiler);
        command.args(&self.flags).arg("-o").arg(&unfinished).arg(source).args(&self.libraries);
        run(&mut command);
        if self.stripped {
            run(Command::new("strip").arg("-o").arg(program.path.with_extension("unfinished-strip")).arg(&unfinished));
            rename(&unfinished, &program.unstripped);
            rename(&program.path.with_extension("unfinished-strip"), &program.path);
        } else {
            rename(&unfinished, &program.path);
        }
    }

    /// Builds and starts the program, and waits until it is ready.
    ///
    /// # Panics
    /// If either fails.
    #[must_use]
    pub fn start(&self) -> Process {
        self.build().start()
    }
}

impl Program {
    /// A command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start(&self) -> Process {
        Process::start(&mut self.command())
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{errors}");
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap_or_else(|e| panic!("cannot rename {} to {}: {e}", from.display(), to.display()));
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}
