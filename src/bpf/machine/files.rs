//! Files that processes map, and the probes that go into those that define allocators.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memleax_platform::{Mapping, NativeTracer, Pid, Tracer};
use rustc_hash::FxHashSet;

use super::cgroups::Cgroups;
use super::kernel::Kernel;
use crate::allocator;
use crate::bpf::hooks;
use crate::bpf::kernel::Probe;
use crate::source::HookedModule;
use crate::unwind::{DebugFiles, Module};

/// Device and inode, and the inode's generation, where it is known: numbers of inodes are used anew.
type FileId = ((u64, u64), u64);

/// The files seen so far.
pub(super) struct Files {
    facts: NativeTracer,
    debug_files: DebugFiles,
    /// Which processes' calls are followed; empty: all.
    targets: Vec<Pid>,
    /// What only processes outside of these map needs no probes; none: all.
    cgroups: Cgroups,
    /// By what mappings tell: with probes or without.
    seen: FxHashSet<FileId>,
    /// By what the file system tells: with probes. The kernel holds them, so their inodes are not used anew.
    probed: FxHashSet<(u64, u64)>,
}

/// What came of a file that a process maps.
#[derive(Debug)]
pub(super) enum Found {
    /// It was seen before, or defines no allocator.
    Nothing,
    /// The process and its file are gone.
    Gone,
    /// Its functions are observed from now on.
    Hooked(HookedModule),
    /// They cannot be: a sentence.
    Unobserved(String),
}

impl Files {
    pub(super) fn new(debug_files: DebugFiles, targets: Vec<Pid>, cgroups: Cgroups) -> Files {
        let facts = NativeTracer::default();
        Files { facts, debug_files, targets, cgroups, seen: FxHashSet::default(), probed: FxHashSet::default() }
    }

    /// Looks at what all processes map now.
    ///
    /// # Errors
    /// If there is no `/proc`.
    pub(super) fn scan(&mut self, kernel: &mut Kernel, mut tell: impl FnMut(Pid, Found)) -> io::Result<()> {
        let mut pids = self.targets.clone();
        if pids.is_empty() {
            let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            pids.extend(numbers.map(Pid));
        }
        for pid in pids {
            if self.is_of_interest(pid) != Some(true) {
                continue;
            }
            // One that has ended, or a thread of the kernel, has none.
            for mapping in self.facts.mappings(pid).unwrap_or_default() {
                if mapping.executable {
                    let found = self.look(kernel, pid, &mapping, 0);
                    tell(pid, found);
                }
            }
        }
        Ok(())
    }

    /// Looks at a file that a process has mapped. `generation`: 0 if it is not known.
    pub(super) fn look(&mut self, kernel: &mut Kernel, pid: Pid, mapping: &Mapping, generation: u64) -> Found {
        let id = (mapping.file_id, generation);
        if mapping.file_id == (0, 0) || self.seen.contains(&id) {
            return Found::Nothing;
        }
        let interest = self.is_of_interest(pid);
        if interest == Some(false) {
            return Found::Nothing;
        }
        // If it is gone, the next process that maps it is looked at instead.
        let opened = self.facts.open_mapping(pid, mapping).or_else(|_| reopened(mapping));
        let Ok(file) = opened else { return Found::Gone };
        let Ok(metadata) = file.metadata() else { return Found::Gone };
        let inode = (metadata.dev(), metadata.ino());
        if self.probed.contains(&inode) {
            self.seen.insert(id);
            return Found::Nothing;
        }
        let (probes, functions) = self.probes(mapping, &file);
        if probes.is_empty() {
            self.seen.insert(id);
            return Found::Nothing;
        }
        if interest.is_none() {
            return Found::Gone;
        }
        self.seen.insert(id);
        let path = mapping.path.display().to_string();
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        match self.attach(kernel, &descriptor, &probes) {
            Ok(()) => {
                self.probed.insert(inode);
                Found::Hooked(HookedModule { path, functions })
            }
            Err(why) => {
                Found::Unobserved(format!("cannot set uprobes in {path}: {why:#}; what is allocated by it is not seen"))
            }
        }
    }

    /// The probes for a file's allocators, and their names; none if it defines none.
    fn probes(&mut self, mapping: &Mapping, file: &File) -> (Vec<Probe>, Vec<&'static str>) {
        let Ok(module) = Module::of_file(mapping.path.clone(), mapping.file_id, file) else {
            return Default::default();
        };
        let Some(image) = &module.image else { return Default::default() };
        let debug_file = || (self.debug_files)(&module).map(|image| image.shared());
        let hooks = allocator::observed(&module.path, image.bytes(), debug_file, false).hooks;
        let probe = |hook| hooks::probe(&module, hook, 0).map(|(probe, _)| (probe, hook.function.name));
        hooks.iter().filter_map(probe).unzip()
    }

    /// Whether a process's calls are asked for; `None` if it is too late to know.
    fn is_of_interest(&self, pid: Pid) -> Option<bool> {
        if self.targets.is_empty() { self.cgroups.have(pid) } else { Some(self.targets.contains(&pid)) }
    }

    /// True if processes may become of interest without mapping anything.
    pub(super) fn are_to_be_scanned(&self) -> bool {
        !self.cgroups.is_empty()
    }

    fn attach(&self, kernel: &mut Kernel, file: &Path, probes: &[Probe]) -> libbpf_rs::Result<()> {
        if self.targets.is_empty() {
            return kernel.attach(None, file, probes);
        }
        self.targets.iter().try_for_each(|&target| kernel.attach(Some(target), file, probes))
    }
}

/// The file of a process that has ended meanwhile, if its path still names it here.
fn reopened(mapping: &Mapping) -> io::Result<File> {
    let file = File::open(&mapping.path)?;
    let metadata = file.metadata()?;
    if (metadata.dev(), metadata.ino()) == mapping.file_id {
        Ok(file)
    } else {
        Err(io::Error::from(io::ErrorKind::NotFound))
    }
}
