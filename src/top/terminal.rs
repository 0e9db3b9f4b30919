//! The terminal while the display has it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::watchdog::Watchdog;

/// The display has the terminal, of which there is one.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Leaves it, as it was, when it is dropped; also if any thread panics, whose message is then to be seen.
pub(super) struct Taken {
    pub(super) terminal: Terminal<CrosstermBackend<File>>,
    device: File,
    watchdog: Option<Watchdog>,
}

impl Taken {
    /// Takes it.
    ///
    /// # Errors
    /// If it is none any more.
    pub(super) fn new(device: File, mut watchdog: Option<Watchdog>) -> io::Result<Taken> {
        let mut screen = device.try_clone()?;
        enable_raw_mode()?;
        if let Err(error) = execute!(screen, EnterAlternateScreen) {
            _ = disable_raw_mode();
            return Err(error);
        }
        IS_TAKEN.store(true, Ordering::SeqCst);
        watchdog.iter_mut().for_each(Watchdog::watch);
        let at_panic = device.try_clone()?;
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            leave(&at_panic);
            usual(panic);
        }));
        let terminal = Terminal::new(CrosstermBackend::new(screen)).inspect_err(|_| leave(&device))?;
        Ok(Taken { terminal, device, watchdog })
    }

    /// Waits until keys may have come, at most so long.
    ///
    /// # Errors
    /// If nobody is at the terminal any more. crossterm must not find that out: it would read the end again and again.
    pub(super) fn wait_for_keys(&self, at_most: Duration) -> io::Result<()> {
        let mut descriptors = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        let at_most = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        match poll(&mut descriptors, at_most) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_hung_up = |events: PollFlags| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        if descriptors[0].revents().is_some_and(has_hung_up) {
            return Err(io::Error::other("its terminal was closed"));
        }
        Ok(())
    }

    /// True as long as the display has it.
    pub(super) fn is_taken() -> bool {
        IS_TAKEN.load(Ordering::SeqCst)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        leave(&self.device);
        self.watchdog.take().into_iter().for_each(Watchdog::dismiss);
    }
}

/// Once; whatever fails here cannot be helped.
fn leave(mut device: &File) {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        _ = disable_raw_mode();
        _ = execute!(device, LeaveAlternateScreen, Show);
        _ = device.flush();
    }
}
