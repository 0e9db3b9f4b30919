//! A corner of the machine: a cgroup whose processes have a C library of their own, so that the probes in it are in nobody else's way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use memleax_targets::{Process, unable};
use serde_json::Value;

use crate::harness::program;

/// The C library's file, as the dynamic linker looks for it.
const LIBRARY: &str = "libc.so.6";

/// A cgroup, a C library, and a process that has that mapped.
pub(super) struct Corner {
    cgroup: PathBuf,
    folder: tempfile::TempDir,
    resident: Option<Process>,
}

impl Corner {
    /// `None`, said, if there can be none here.
    pub(super) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            unable("watching all processes needs root");
            return None;
        }
        let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
        let hierarchy = mounts.lines().find_map(|line| line.split(' ').nth(1).filter(|_| line.contains(" cgroup2 ")));
        let Some(hierarchy) = hierarchy else {
            unable("there are no cgroups of version 2");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its own folder");
        fs::copy(library_in_use(), folder.path().join(LIBRARY)).expect("a C library");
        let name = format!("memleax-test-{}", folder.path().file_name().expect("a name").display());
        let cgroup = Path::new(hierarchy).join(name);
        fs::create_dir(&cgroup).expect("a cgroup");
        let mut corner = Corner { cgroup, folder, resident: None };
        corner.resident =
            Some(Process::start(&mut corner.command(Command::new("sh").args(["-c", "echo READY; read line"]))));
        Some(corner)
    }

    /// The same command, in here.
    pub(super) fn command(&self, of: &mut Command) -> Command {
        let mut command = Command::new("sh");
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.cgroup.display());
        command.args(["-c", &enter, "sh"]).arg(of.get_program()).args(of.get_args());
        command.env("LD_LIBRARY_PATH", self.folder.path());
        for (name, value) in of.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        if let Some(folder) = of.get_current_dir() {
            command.current_dir(folder);
        }
        command
    }

    /// A target in here, ready.
    pub(super) fn start(&self, program: &memleax_targets::Program) -> Process {
        Process::start(&mut self.command(&mut program.command()))
    }

    /// Watches what is in here, from now on.
    pub(super) fn watch(&self, arguments: &[&str]) -> Watch {
        let cgroup = self.cgroup.to_str().expect("UTF-8");
        Watch::begin(&[&["--cgroup", cgroup], arguments].concat())
    }

    /// Where the processes' files may be.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        if let Some(mut resident) = self.resident.take() {
            resident.send("");
            resident.wait();
        }
        // A test that failed may leave processes in it, which end by themselves when their pipes close.
        _ = fs::remove_dir(&self.cgroup);
    }
}

/// The file of the C library that this process has mapped.
fn library_in_use() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let path =
        maps.lines().find_map(|line| line.find('/').map(|at| &line[at..]).filter(|path| path.ends_with(LIBRARY)));
    path.expect("a C library").into()
}

/// `memleax -a`, running.
pub(super) struct Watch {
    process: Process,
    lines: Vec<Value>,
}

impl Watch {
    /// Starts it, and waits until it watches.
    pub(super) fn begin(arguments: &[&str]) -> Watch {
        let mut command = program();
        // A day: one interval, at the end.
        command.args(["-a", "1d", "--format", "jsonl"]).args(arguments);
        let mut watch = Watch { process: Process::spawn(&mut command), lines: Vec::new() };
        while watch.next()["event"] != "begin" {}
        watch
    }

    /// The next line.
    pub(super) fn next(&mut self) -> Value {
        let line = self.process.line().unwrap_or_else(|| panic!("it has ended; {}", self.process.errors()));
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"));
        self.lines.push(value.clone());
        value
    }

    /// Ends it by Ctrl-C; all that it said.
    pub(super) fn end(mut self) -> Told {
        self.process.signal(nix::sys::signal::Signal::SIGINT);
        let (status, rest) = self.process.wait();
        assert!(status.success(), "{status}; {}", self.process.errors());
        self.lines.extend(rest.iter().map(|line| serde_json::from_str(line).expect("a JSON object")));
        Told(self.lines)
    }
}

/// What was told.
pub(super) struct Told(Vec<Value>);

impl Told {
    /// The processes.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|line| line["event"] == "process")
    }

    /// The process that has ended with this id; told of once.
    pub(super) fn process(&self, pid: u64) -> &Value {
        let mut found = self.processes().filter(|process| process["pid"] == pid && process["state"] == "ended");
        let process = found.next().unwrap_or_else(|| panic!("no process {pid} in {:#?}", self.0));
        assert!(found.next().is_none(), "process {pid} is told of twice: {:#?}", self.0);
        process
    }

    /// Compares a process with what it said itself: `process PID ALLOCATED BYTES LIVE LIVE_BYTES`.
    pub(super) fn check(&self, said: &str) -> &Value {
        let numbers: Vec<u64> = said.split(' ').skip(1).map(|word| word.parse().expect("a number")).collect();
        let process = self.process(numbers[0]);
        let tally =
            |of: &str| [&process[of]["count"], &process[of]["bytes"]].map(|number| number.as_u64().expect("a number"));
        assert_eq!([tally("allocated"), tally("live")].concat(), numbers[1..], "{said}: {process:#}");
        assert_eq!(process["seen"], "all", "{process:#}");
        process
    }

    /// Nothing was lost.
    pub(super) fn check_losses(&self) {
        for interval in self.0.iter().filter(|line| line["event"] == "interval") {
            assert!(interval["losses"].as_object().expect("losses").values().all(|count| count == 0), "{interval}");
        }
        for process in self.processes() {
            for what in ["not_followed", "never_returned"] {
                assert_eq!(process[what], 0, "{process:#}");
            }
            assert_eq!(process["not_kept"]["count"], 0, "{process:#}");
            assert_eq!(process["unseen_frees"]["count"], 0, "{process:#}");
        }
    }
}
