//! The traced process: `target.c`, compiled once, run in one of its modes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use memleax_platform::linux::LinuxTracer;
use memleax_platform::{Error, Pid, Report, Resume, Signal, Stop, Tid, Tracer};

/// A process in a mode of `target.c`. Its parent is a process of its own, as the target of a user's is.
pub(crate) struct Target {
    pub(crate) pid: Pid,
    launcher: Child,
    input: ChildStdin,
    output: Receiver<String>,
    statuses: Receiver<String>,
    ended: bool,
}

impl Target {
    /// Starts a mode with its arguments.
    pub(crate) fn start(mode: &[&str]) -> Self {
        Self::start_as(mode, None)
    }

    /// Starts a mode as a user.
    pub(crate) fn start_as(mode: &[&str], user: Option<u32>) -> Self {
        let mut command = Command::new(program());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        Self::launch(command.arg("launch").args(mode))
    }

    /// Starts a mode of a copy of the program.
    pub(crate) fn start_program(program: &Path, mode: &[&str]) -> Self {
        Self::launch(Command::new(program).arg("launch").args(mode))
    }

    /// Copies the program; returns its path.
    pub(crate) fn copy_program(to: &Path) -> &Path {
        std::fs::copy(program(), to).expect("copied");
        to
    }

    fn launch(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut launcher = command.spawn().expect("the target starts");
        let output = lines_of(launcher.stdout.take().expect("piped"));
        let statuses = lines_of(launcher.stderr.take().expect("piped"));
        let input = launcher.stdin.take().expect("piped");
        let pid = statuses.recv().expect("the launcher tells the pid");
        let pid = Pid(pid.strip_prefix("pid ").expect("pid").parse().expect("a number"));
        Target { pid, launcher, input, output, statuses, ended: false }
    }

    /// The next line of the target's output, while it is not traced.
    pub(crate) fn line(&self) -> String {
        self.output.recv().expect("a line")
    }

    /// The address in a line such as `bump 0x1234`.
    pub(crate) fn address(&self, name: &str) -> u64 {
        let line = self.line();
        let address = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(" 0x")).expect(&line);
        u64::from_str_radix(address, 16).expect(&line)
    }

    /// What became of the target (`stopped 19`, `continued 18`, `exited 0`, `killed 11`), while it is not traced.
    pub(crate) fn status(&mut self) -> String {
        let status = self.statuses.recv().expect("a status");
        self.note(status)
    }

    fn note(&mut self, status: String) -> String {
        self.ended |= status.starts_with("exited") || status.starts_with("killed");
        status
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) {
        self.input.write_all(b"\n").expect("the target reads");
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::kill(self.pid.0, signal) }, 0);
    }

    /// Lets it run under `tracer`, with `handle` for each report, until it has written a line.
    pub(crate) fn line_under(
        &mut self,
        tracer: &mut LinuxTracer,
        handle: impl FnMut(&mut LinuxTracer, Report),
    ) -> String {
        self.receive(tracer, handle, |target| target.output.try_recv())
    }

    /// The same until its parent has been told a status.
    pub(crate) fn status_under(
        &mut self,
        tracer: &mut LinuxTracer,
        handle: impl FnMut(&mut LinuxTracer, Report),
    ) -> String {
        let status = self.receive(tracer, handle, |target| target.statuses.try_recv());
        self.note(status)
    }

    fn receive(
        &mut self,
        tracer: &mut LinuxTracer,
        mut handle: impl FnMut(&mut LinuxTracer, Report),
        next: impl Fn(&Self) -> Result<String, TryRecvError>,
    ) -> String {
        loop {
            match next(self) {
                Ok(line) => return line,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => panic!("the target has ended"),
            }
            if tracer.traced().is_empty() {
                // Nothing left to wait for: what it has written is on its way.
                std::thread::yield_now();
                continue;
            }
            match tracer.wait().expect("a report") {
                Report::Tick => {}
                report => handle(tracer, report),
            }
        }
    }

    /// The letter of its state, and who traces it.
    pub(crate) fn state(&self) -> (char, i32) {
        self.state_of(Tid(self.pid.0))
    }

    fn state_of(&self, tid: Tid) -> (char, i32) {
        let status = std::fs::read_to_string(format!("/proc/{}/task/{tid}/status", self.pid)).expect("alive");
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
        (field("State:").chars().next().expect("a letter"), field("TracerPid:").parse().expect("a number"))
    }

    /// Returns when job control has stopped all its threads. (After a detach they stop by themselves, a little later.)
    pub(crate) fn await_stopped(&self) {
        let entries = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("alive");
        for entry in entries {
            let tid = Tid(entry.expect("listed").file_name().to_string_lossy().parse().expect("a tid"));
            while self.state_of(tid) != ('T', 0) {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: touches no memory. Its parent has not told its end, so the id is still its own.
            unsafe { libc::kill(self.pid.0, libc::SIGKILL) };
        }
        // The launcher ends by itself once the target has; it can only be collected here if that is so already.
        let _ = self.launcher.try_wait();
    }
}

/// A tracer that returns from its wait often enough to look at what the target has written.
pub(crate) fn tracer() -> LinuxTracer {
    let mut tracer = LinuxTracer::new();
    tracer.set_tick(std::time::Duration::from_millis(2)).expect("a timer");
    tracer
}

/// A tracer attached to `target`.
pub(crate) fn attached(target: &Target) -> LinuxTracer {
    let mut tracer = tracer();
    tracer.attach(target.pid).expect("attached");
    tracer
}

/// Resumes whatever stops, with what stopped it.
pub(crate) fn deliver(tracer: &mut LinuxTracer, report: Report) {
    if let Report::Stopped(stop) = report {
        resume(tracer, stop, Resume::Deliver);
    }
}

/// Resumes a thread that may have been killed.
pub(crate) fn resume(tracer: &mut LinuxTracer, stop: Stop, how: Resume) {
    match tracer.resume(stop, how) {
        Ok(()) | Err(Error::Gone(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Halts the process and detaches every thread.
pub(crate) fn detach_all(tracer: &mut LinuxTracer, pid: Pid) {
    match tracer.halt(pid) {
        Ok(stops) => stops.into_iter().for_each(|stop| tracer.detach(stop, Resume::Deliver).expect("detached")),
        Err(error) => assert!(matches!(error, Error::Gone(_)), "{error}"),
    }
    while !tracer.traced().is_empty() {
        match tracer.wait().expect("a report") {
            Report::Stopped(stop) if stop.pid == pid => tracer.detach(stop, Resume::Deliver).expect("detached"),
            report => deliver(tracer, report),
        }
    }
}

/// Runs in a thread that has lost root's privileges.
pub(crate) fn unprivileged<T: Send>(user: u32, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: touches no memory. The system call itself, unlike libc's function, changes this thread alone.
            unsafe {
                assert_eq!(libc::syscall(libc::SYS_setresgid, user, user, user), 0);
                assert_eq!(libc::syscall(libc::SYS_setresuid, user, user, user), 0);
            }
            run()
        });
        thread.join().expect("no panic")
    })
}

/// Says why the rest of a test is left out on this machine; in CI that is a failure.
#[expect(clippy::print_stderr, reason = "a test that is left out has to be seen")]
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("not tested: {why}");
}

pub(crate) const SIGTRAP: Signal = Signal(libc::SIGTRAP);

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/target.c");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Tests may run in processes of their own: none may run a program that another one is writing.
        let program = directory.join(format!("target-{}", std::process::id()));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let status = Command::new(&compiler)
            .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .args([&program, &source])
            .status()
            .unwrap_or_else(|error| panic!("cannot run {compiler}: {error}"));
        assert!(status.success(), "{compiler} fails");
        let shared = directory.join("target-process");
        std::fs::rename(&program, &shared).expect("renamed");
        shared
    })
}
