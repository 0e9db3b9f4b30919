//! What must not change in a process that is watched.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use memleax_targets::{Process, patience};

use super::without_proc;

/// What memleax must leave as it was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Executable mappings by name (empty: anonymous), and their bytes.
    executable: BTreeMap<String, u64>,
    /// Signals caught and ignored, as /proc tells them.
    signals: Vec<String>,
    /// Threads and the signals that each blocks.
    blocked: Vec<String>,
}

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    executable: bool,
    path: String,
}

impl State {
    /// The state now. The process must be idle.
    pub(crate) fn of(target: &Process) -> Self {
        Self::of_pid(target.id())
    }

    /// The same by pid.
    pub(crate) fn of_pid(pid: u32) -> Self {
        let mut executable = BTreeMap::new();
        // The kernel keeps its page for displaced instructions until the program ends, once a uprobe was hit.
        let counts = |mapping: &&Mapping| mapping.executable && mapping.path != "[uprobes]";
        for mapping in mappings(pid).iter().filter(counts) {
            *executable.entry(mapping.path.clone()).or_default() += mapping.end - mapping.start;
        }
        if !has_proc() {
            return State { executable, signals: Vec::new(), blocked: Vec::new() };
        }
        let signals = status_lines(&format!("/proc/{pid}/status"), &["SigCgt:", "SigIgn:"]);
        let mut blocked: Vec<String> = fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap_or_else(|e| panic!("cannot list the threads of {pid}: {e}"))
            .flatten()
            .flat_map(|entry| status_lines(&format!("{}/status", entry.path().display()), &["SigBlk:"]))
            .collect();
        blocked.sort();
        State { executable, signals, blocked }
    }

    /// Checks that the process is in the same state again, with its code as it is in its files, and not traced.
    pub(crate) fn assert_restored(&self, target: &Process) {
        self.assert_restored_pid(target.id());
    }

    /// The same by pid.
    pub(crate) fn assert_restored_pid(&self, pid: u32) {
        assert_eq!(text_differences(pid), Vec::<String>::new(), "the code of {pid} differs from its files");
        assert_eq!(*self, Self::of_pid(pid), "what was (left) and what is (right) in {pid}");
        assert_eq!(tracer_of(pid), 0, "the tracer of {pid}");
    }
}

impl State {
    /// The same where the program has a SIGTRAP handler of its own: the guard stays mapped, as a thread may be in a handler
    /// that was called through it.
    pub(crate) fn assert_restored_but_for_guard(mut self, target: &Process) {
        let now = Self::of(target);
        if let Some(guard) = now.executable.get("") {
            self.executable.insert(String::new(), *guard);
        }
        self.assert_restored(target);
    }
}

/// Waits until every thread of a process sleeps: one that has just been created blocks all signals until it runs, and so does one
/// that was joined, until it is quite gone.
pub(crate) fn wait_until_idle(pid: u32) {
    let is_running = |entry: fs::DirEntry| {
        let states = status_lines(&format!("{}/status", entry.path().display()), &["State:"]);
        states.iter().any(|state| ["R (", "D (", "X ("].iter().any(|busy| state.contains(busy)))
    };
    let tasks = format!("/proc/{pid}/task");
    let since = Instant::now();
    while !has_proc() {
        if !without_proc::runs(pid) {
            return;
        }
        assert!(since.elapsed() < patience(), "{pid} is never idle");
    }
    while fs::read_dir(&tasks)
        .unwrap_or_else(|e| panic!("cannot list the threads of {pid}: {e}"))
        .flatten()
        .any(is_running)
    {
        assert!(since.elapsed() < patience(), "{pid} is never idle");
        std::thread::yield_now();
    }
}

/// Bytes of the process's executable file mappings that differ from the file's: their addresses and values.
pub(crate) fn text_differences(pid: u32) -> Vec<String> {
    if !has_proc() {
        return without_proc::text_differences(pid);
    }
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap_or_else(|e| panic!("cannot open memory of {pid}: {e}"));
    let mut differences = Vec::new();
    for mapping in mappings(pid).iter().filter(|mapping| mapping.executable && mapping.path.starts_with('/')) {
        let path = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
        let file = File::open(&path).unwrap_or_else(|e| panic!("cannot open {path} ({}): {e}", mapping.path));
        let mut here = vec![0; usize::try_from(mapping.end - mapping.start).expect("fits in memory")];
        let mut there = here.clone();
        memory.read_exact_at(&mut here, mapping.start).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
        // A mapping may end behind its file; what is there is zero in both.
        let mut done = 0;
        while let Ok(n @ 1..) = file.read_at(&mut there[done..], mapping.offset + done as u64) {
            done += n;
        }
        let found = (0..here.len()).filter(|&i| here[i] != there[i]).map(|i| {
            let address = mapping.start + i as u64;
            format!("{address:#x} in {}: {:02x}, not {:02x}", mapping.path, here[i], there[i])
        });
        differences.extend(found.take(20));
    }
    differences
}

/// The process that traces this one; 0 for none.
pub(crate) fn tracer_of(pid: u32) -> u32 {
    if !has_proc() {
        return without_proc::tracer_of(pid);
    }
    let line = status_lines(&format!("/proc/{pid}/status"), &["TracerPid:"]).pop();
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).expect("a status names the tracer")
}

fn status_lines(path: &str, names: &[&str]) -> Vec<String> {
    let mut text = String::new();
    // A thread may end between its listing and this.
    let _ = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    text.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

/// Linux has it.
pub(super) fn has_proc() -> bool {
    Path::new("/proc/self/maps").exists()
}

fn mappings(pid: u32) -> Vec<Mapping> {
    if !has_proc() {
        return without_proc::mappings(pid).into_iter().map(Mapping::from).collect();
    }
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_else(|e| panic!("no mappings of {pid}: {e}"));
    text.lines().map(|line| Mapping::parse(line).unwrap_or_else(|| panic!("not a mapping: {line:?}"))).collect()
}

impl From<memleax_platform::Mapping> for Mapping {
    fn from(mapping: memleax_platform::Mapping) -> Self {
        let memleax_platform::Mapping { start, end, offset, executable, path, .. } = mapping;
        Mapping { start, end, offset, executable, path: path.to_string_lossy().into_owned() }
    }
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let executable = fields.next()?.contains('x');
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let path = fields.skip(2).collect::<Vec<_>>().join(" ");
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Mapping { start: number(start)?, end: number(end)?, offset, executable, path })
    }
}

/// Where the file `name` is mapped first: the address that its file offset 0 has.
pub(super) fn load_address(pid: u32, name: &str) -> Option<u64> {
    let all = mappings(pid);
    all.iter().find(|mapping| mapping.path == name).map(|mapping| mapping.start.wrapping_sub(mapping.offset))
}
