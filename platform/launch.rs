//! Starting a program: a child process of our own that waits, before it executes the program, until it is let.

use std::ffi::{CString, OsString};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use libc::{c_char, c_int};

use crate::own_signals::{InheritedSignals, LAST_SIGNAL};
use crate::{ExitStatus, Pid, Signal};

/// What the child ends with if it cannot execute the program. Nobody asks for it: [`Child::failure`] says more.
const NOT_EXECUTED: c_int = 127;

/// A child process that executes a program as soon as it is [released](Self::release).
///
/// It has the terminal, the process group, the open files and the environment of this process, and reacts to signals as this one
/// did when it was started. Dropping this does nothing to it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    go: Option<PipeWriter>,
    /// The child's `errno` if it cannot execute the program; its end if it can.
    failure: PipeReader,
}

impl Child {
    /// Starts the child that is to execute `command`: a program, searched for in `PATH` as `execvp(3)` does, and its arguments.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a null byte, or no command at all; the errors of `pipe(2)` and `fork(2)`.
    pub fn start(command: &[OsString], inherited: &InheritedSignals) -> io::Result<Self> {
        let arguments =
            command.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        if arguments.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let pointers: Vec<*const c_char> =
            arguments.iter().map(|argument| argument.as_ptr()).chain([ptr::null()]).collect();
        let (waits, go) = io::pipe()?;
        let (failure, fails) = io::pipe()?;
        let ends = Ends { go: go.as_raw_fd(), waits: waits.as_raw_fd(), fails: fails.as_raw_fd() };
        // A signal that the child gets before it has its own reactions must wait for those.
        let mask = block_all_signals()?;
        // SAFETY: the child calls nothing but async-signal-safe functions before it executes the program or exits.
        let pid = match unsafe { libc::fork() } {
            // SAFETY: as above; the pointers end with a null, and are to strings that live in the child's copy, too.
            0 => unsafe { execute(&ends, &pointers, inherited) },
            pid => pid,
        };
        let result = if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(pid) };
        set_mask(&mask);
        Ok(Self { pid: Pid(result?), go: Some(go), failure })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets it execute the program.
    ///
    /// # Errors
    /// Those of `write(2)`: it has ended.
    pub fn release(&mut self) -> io::Result<()> {
        self.go.take().map_or(Ok(()), |mut go| go.write_all(&[1]))
    }

    /// Why it could not execute the program; `None` if it could. To be asked after it was released; waits until either is known.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn failure(&mut self) -> io::Result<Option<io::Error>> {
        let mut errno = [0; size_of::<c_int>()];
        match self.failure.read_exact(&mut errno) {
            Ok(()) => Ok(Some(io::Error::from_raw_os_error(c_int::from_ne_bytes(errno)))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends it a signal. It must not have been waited for.
    pub fn signal(&self, signal: Signal) {
        // SAFETY: touches no memory. That it has ended is no trouble.
        _ = unsafe { libc::kill(self.pid.0, signal.0) };
    }

    /// How it ended, if it has. To be asked by the thread that traces it, if one does; [`ExitStatus::Unknown`] if that took note
    /// of it already.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        self.collect(libc::WNOHANG)
    }

    /// Ends it, if it has not ended.
    pub fn kill(self) {
        self.signal(Signal(libc::SIGKILL));
        while self.collect(0).is_none() {}
    }

    /// A traced one tells of its stops, too: `None`.
    fn collect(&self, options: c_int) -> Option<ExitStatus> {
        let mut status = 0;
        // SAFETY: waitpid fills an int.
        match unsafe { libc::waitpid(self.pid.0, &raw mut status, options) } {
            0 => None,
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => None,
            -1 => Some(ExitStatus::Unknown),
            _ if libc::WIFEXITED(status) => Some(ExitStatus::Exited(libc::WEXITSTATUS(status))),
            _ if libc::WIFSIGNALED(status) => Some(ExitStatus::Killed(Signal(libc::WTERMSIG(status)))),
            _ => None,
        }
    }
}

/// The child's ends of the pipes, and the one that it must close to learn of this process's end.
struct Ends {
    go: RawFd,
    waits: RawFd,
    fails: RawFd,
}

/// What the child does.
///
/// # Safety
/// To be called between fork and exec, with all signals blocked; `arguments` ends with a null pointer.
unsafe fn execute(ends: &Ends, arguments: &[*const c_char], inherited: &InheritedSignals) -> ! {
    // SAFETY: these functions are async-signal-safe, and get pointers to live values.
    unsafe {
        libc::close(ends.go);
        let mut word = 0u8;
        // All signals are blocked: nothing interrupts it.
        if libc::read(ends.waits, (&raw mut word).cast(), 1) != 1 {
            libc::_exit(NOT_EXECUTED);
        }
        for signal in 1..=LAST_SIGNAL {
            react(signal, inherited);
        }
        set_mask(&inherited.mask);
        libc::execvp(arguments[0], arguments.as_ptr());
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        libc::write(ends.fails, (&raw const errno).cast(), size_of::<c_int>());
        libc::_exit(NOT_EXECUTED)
    }
}

/// Gives a signal the reaction that this process inherited.
///
/// # Safety
/// None of the handlers that are taken away may be needed any more.
unsafe fn react(signal: c_int, inherited: &InheritedSignals) {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all-zero bytes are a value: no flags, an empty mask. sigaction refuses what cannot be set.
    unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = if inherited.ignores(signal) { libc::SIG_IGN } else { libc::SIG_DFL };
        libc::sigaction(signal, action, ptr::null_mut());
    }
}

/// Returns which were blocked before.
fn block_all_signals() -> io::Result<libc::sigset_t> {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: sigfillset and pthread_sigmask fill what they get pointers to; the latter returns an error number.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: reads a live value.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}
