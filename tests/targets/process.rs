//! A child process whose output is read line by line, and which never outlives its owner.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Truth;

/// How long a process may stay silent before the test gives it up: a watchdog against hangs, not a measure of speed. Two minutes;
/// `MEMLEAX_TEST_PATIENCE`, in seconds, for machines slower than any real one.
#[must_use]
pub fn patience() -> Duration {
    let asked = std::env::var("MEMLEAX_TEST_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(120))
}

/// A running child process. Dropping it kills it (by its id) and reaps it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    rest_of_stderr: Vec<String>,
    name: String,
}

impl Process {
    /// Starts a command with all three standard streams piped.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        Self::spawn_reading(command, Stdio::piped())
    }

    /// Starts a command whose standard input is `stdin`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn_reading(command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let name = format!("{} ({})", command.get_program().to_string_lossy(), child.id());
        let stdout = lines_of(child.stdout.take().expect("stdout is piped"));
        let stderr = lines_of(child.stderr.take().expect("stderr is piped"));
        let stdin = child.stdin.take();
        Process { child, stdin, stdout, stderr, rest_of_stderr: Vec::new(), name }
    }

    /// Starts a program that prints READY, and waits for that.
    ///
    /// # Panics
    /// If it prints something else.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut process = Self::spawn(command);
        let first = process.line();
        assert_eq!(first.as_deref(), Some("READY"), "the first line of {}; {}", process.name, process.errors());
        process
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its process id, to signal it.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has been reaped.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|e| panic!("cannot send {signal} to {}: {e}", self.name));
    }

    /// Writes a line to its stdin.
    ///
    /// # Panics
    /// If it no longer reads.
    pub fn send(&mut self, command: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is a pipe, and open until `wait`");
        stdin
            .write_all(format!("{command}\n").as_bytes())
            .unwrap_or_else(|e| panic!("cannot send {command:?} to {}: {e}", self.name));
    }

    /// The next line of its stdout; `None` at the end.
    ///
    /// # Panics
    /// If nothing comes for [`patience()`].
    pub fn line(&mut self) -> Option<String> {
        receive(&self.stdout, patience(), &self.name)
    }

    /// The next line of its stderr; `None` at the end.
    ///
    /// # Panics
    /// If nothing comes for [`patience()`].
    pub fn error_line(&mut self) -> Option<String> {
        receive(&self.stderr, patience(), &self.name)
    }

    /// What stderr said until now; after [`wait`](Self::wait) that is all.
    #[must_use]
    pub fn errors(&self) -> String {
        let lines = self.stderr.try_iter().map(|line| format!("stderr: {line}\n"));
        self.rest_of_stderr.iter().cloned().chain(lines).collect()
    }

    /// Sends a command and returns the lines of its answer, without the final DONE.
    ///
    /// # Panics
    /// If the program ends or hangs.
    pub fn ask(&mut self, command: &str) -> Vec<String> {
        self.send(command);
        self.answer(command)
    }

    /// The lines up to the next DONE.
    ///
    /// # Panics
    /// If the program ends or hangs.
    pub fn answer(&mut self, command: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line() {
                Some(line) if line == "DONE" => return lines,
                Some(line) => lines.push(line),
                None => {
                    let status = self.child.wait();
                    panic!("{} ended ({status:?}) while it should answer {command:?}: {lines:?}", self.name)
                }
            }
        }
    }

    /// Sends a command whose answer ends with the ground truth.
    ///
    /// # Panics
    /// If the program ends or hangs.
    pub fn truth(&mut self, command: &str) -> Truth {
        Truth::parse(&self.ask(command))
    }

    /// Closes its stdin and waits for its end.
    ///
    /// # Panics
    /// If it does not end within [`patience()`] after its last line.
    pub fn wait(&mut self) -> (ExitStatus, Vec<String>) {
        drop(self.stdin.take());
        let mut rest = Vec::new();
        while let Some(line) = self.line() {
            rest.push(line);
        }
        while let Some(line) = self.error_line() {
            self.rest_of_stderr.push(format!("stderr: {line}\n"));
        }
        let status = self.child.wait().unwrap_or_else(|e| panic!("cannot wait for {}: {e}", self.name));
        (status, rest)
    }

    /// Asks the program to end and checks that it does so with status 0.
    ///
    /// # Panics
    /// If it does not.
    pub fn quit(mut self) {
        self.send("quit");
        let (status, _) = self.wait();
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// True if it has ended (and is reaped by this call).
    ///
    /// # Panics
    /// If it was reaped before.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|e| panic!("cannot look after {}: {e}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn receive(lines: &Receiver<String>, patience: Duration, name: &str) -> Option<String> {
    match lines.recv_timeout(patience) {
        Ok(line) => Some(line),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("{name} is silent for {patience:?}"),
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Cargo's target directory: where everything that tests build belongs.
///
/// # Panics
/// If the running program is not in one.
#[must_use]
pub fn target_directory() -> PathBuf {
    let program = std::env::current_exe().expect("a test knows its own path");
    let found = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists()).map(Path::to_owned);
    found.unwrap_or_else(|| panic!("{} is in no cargo target directory", program.display()))
}
