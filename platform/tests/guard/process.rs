//! The two processes of a test: the target, and the tracer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use crate::tracer::REPLY;

/// A child process that answers lines with lines, and is killed when the test ends.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Process { child, input, output }
    }

    /// A mode of `target.c`.
    pub(crate) fn target(mode: &[&str]) -> Self {
        Self::target_built(&[], mode)
    }

    /// The same, with flags for the compiler.
    pub(crate) fn target_built(flags: &[&str], mode: &[&str]) -> Self {
        Self::start(Command::new(target_program(flags)).args(mode))
    }

    /// A tracer.
    pub(crate) fn tracer() -> Self {
        let program = std::env::current_exe().expect("a path");
        Self::start(Command::new(program).args(["--exact", "the_tracer", "--ignored", "--nocapture"]))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The letter of its state.
    pub(crate) fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("alive");
        stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next()).expect("a letter")
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::kill(self.pid() as i32, signal) }, 0);
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("it reads");
    }

    /// The next line that it writes; empty if it has ended.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it writes");
        line.trim_end().into()
    }

    /// The address in its next line.
    pub(crate) fn address(&mut self) -> String {
        let line = self.line();
        line.split_once(' ').expect("a name and an address").1.into()
    }

    /// Lets the target do what a letter stands for; returns what it then writes.
    pub(crate) fn ask(&mut self, letter: &str) -> String {
        self.send(letter);
        self.line()
    }

    /// Lets the tracer execute a command; returns its reply.
    pub(crate) fn command(&mut self, command: &str) -> String {
        self.send(&format!("{command}\n"));
        loop {
            let line = self.line();
            if let Some(reply) = line.strip_prefix(REPLY) {
                return reply.into();
            }
            assert!(
                self.child.try_wait().expect("waited").is_none() || !line.is_empty(),
                "the tracer ended: {command}"
            );
        }
    }

    /// Lets the tracer execute commands that cannot fail.
    pub(crate) fn commands(&mut self, commands: &[&str]) {
        for command in commands {
            assert_eq!(self.command(command), "ok", "{command}");
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited");
    }

    /// Its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("waited")
    }

    /// Waits until a thread of it sleeps in the kernel; false if it has ended before that was seen.
    pub(crate) fn until_asleep(&self, tid: &str) -> bool {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", self.pid()));
            match stat.as_deref().map(|stat| stat.rsplit_once(") ")) {
                Ok(Some((_, fields))) if fields.starts_with('S') => return true,
                Ok(_) => std::thread::yield_now(),
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The signal that ended a process.
pub(crate) fn signal_of(status: ExitStatus) -> Option<i32> {
    status.signal()
}

/// `target.c`, compiled with these flags besides the usual ones.
fn target_program(flags: &[&str]) -> PathBuf {
    static PROGRAMS: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let name = format!("guarded{}", flags.concat());
    let mut programs = PROGRAMS.lock().expect("not poisoned");
    programs.entry(name.clone()).or_insert_with(|| compile(&name, flags)).clone()
}

fn compile(name: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guard/target.c");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Tests may run in processes of their own: none may run a program that another one is writing.
    let unique = directory.join(format!("{name}-{}", std::process::id()));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let usual = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"];
    let status = Command::new(&compiler).args(usual).args(flags).arg("-o").args([&unique, &source]).status();
    let status = status.unwrap_or_else(|error| panic!("cannot run {compiler}: {error}"));
    assert!(status.success(), "{compiler} fails");
    let program = directory.join(name);
    std::fs::rename(&unique, &program).expect("renamed");
    program
}
