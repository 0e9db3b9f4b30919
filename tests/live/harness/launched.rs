//! A program that memleax has started.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::process::{Command, ExitStatus};

use memleax_targets::Process;

use super::{Report, memleax};

/// memleax, with the standard input and output of the program that it has started.
pub(crate) struct Launched {
    pub(crate) memleax: Process,
}

impl Launched {
    /// Has memleax start `command`, which says READY.
    pub(crate) fn start(options: &[&str], command: &[impl AsRef<OsStr>]) -> Self {
        let mut launched = Self::spawn(options, command);
        let first = launched.memleax.line();
        assert_eq!(first.as_deref(), Some("READY"), "{}", launched.memleax.errors());
        launched
    }

    /// Has memleax start `command`.
    pub(crate) fn spawn(options: &[&str], command: &[impl AsRef<OsStr>]) -> Self {
        Self { memleax: Process::spawn(memleax().args(options).arg("--").args(command)) }
    }

    /// What memleax has started until now.
    pub(crate) fn children(&self) -> String {
        let children = format!("/proc/{0}/task/{0}/children", self.memleax.id());
        std::fs::read_to_string(children).unwrap_or_default()
    }

    /// The program's process id.
    pub(crate) fn program(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.memleax.id());
        let children = std::fs::read_to_string(&children).unwrap_or_else(|e| panic!("{children}: {e}"));
        children.trim().parse().unwrap_or_else(|_| panic!("the children of memleax: {children:?}"))
    }

    /// Waits for its end: its status, what the program still printed, and the report.
    pub(crate) fn wait(&mut self) -> (ExitStatus, Vec<String>, Report) {
        let (status, output) = self.memleax.wait();
        let errors = self.memleax.errors();
        let lines: Vec<String> =
            errors.lines().map(|line| line.strip_prefix("stderr: ").unwrap_or(line).to_owned()).collect();
        (status, output, Report::parse(&lines, String::new()))
    }

    /// Has the program end with status 0.
    pub(crate) fn quit(mut self) -> Report {
        self.memleax.send("quit");
        let (status, _, report) = self.wait();
        assert_eq!(status.code(), Some(0), "{report:?}");
        report
    }
}

/// A shell with job control and memleax as its job, in a terminal of their own.
pub(crate) struct InTerminal {
    /// The shell. Its standard output is no terminal, to be read.
    pub(crate) shell: Process,
    keyboard: File,
}

impl InTerminal {
    /// Runs a script in which `"$@" 2>&3` is memleax, which starts `program`.
    pub(crate) fn start(script: &str, program: &OsStr) -> Self {
        let terminal = nix::pty::openpty(None, None).expect("a terminal");
        let memleax = memleax();
        // bash controls jobs on the terminal that is its standard error.
        let script = format!("exec 3>&2 2>/dev/tty; set -m; {script}");
        let mut shell = Command::new("setsid");
        shell.args(["--ctty", "--wait", "bash", "-c", &script, "bash"]);
        shell.arg(memleax.get_program()).args(memleax.get_args()).arg("--").arg(program);
        let shell = Process::spawn_reading(&mut shell, terminal.slave.into());
        Self { shell, keyboard: terminal.master.into() }
    }

    /// Types.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// Types a line, and reads until the program has answered.
    pub(crate) fn ask(&mut self, command: &str) -> Vec<String> {
        self.press(&format!("{command}\n"));
        self.shell.answer(command)
    }
}
