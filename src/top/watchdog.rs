//! Puts the terminal right if memleax is killed while the display has it: a small shell that waits for that, in a process of its own.

use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::process::Command;

/// Waits until the display has the terminal, then until memleax says that it has left it, or is gone.
///
/// Descriptor 3 is the terminal, 4 what is waited on: a background process has no standard input. `stty` puts back what was only if
/// nobody else (the shell) has done so; from the background that needs SIGTTOU ignored.
const SCRIPT: &str = r#"
exec 3<&2 4<&0 >/dev/null 2>&1
trap '' TTOU TTIN INT QUIT HUP TSTP
before=$(stty -g <&3) || exit
(
    read -r _ <&4 || exit
    now=$(stty -g <&3)
    read -r _ <&4 && exit
    [ "$(stty -g <&3)" != "$now" ] || stty "$before" <&3
    printf '\033[?1049l\033[?25h\033[0m' >&3
) &
"#;

/// The other end of what it waits on.
#[derive(Debug)]
pub(super) struct Watchdog(PipeWriter);

impl Watchdog {
    /// Starts it. To be called before anything is traced: the process that starts it is waited for.
    ///
    /// # Errors
    /// Those of `pipe(2)`, and if there is no shell.
    pub(super) fn start(terminal: &File) -> io::Result<Watchdog> {
        let (waits, says) = io::pipe()?;
        let status = Command::new("sh").args(["-c", SCRIPT]).stdin(waits).stderr(terminal.try_clone()?).status()?;
        if status.success() { Ok(Watchdog(says)) } else { Err(io::Error::other(format!("sh ended with {status}"))) }
    }

    /// The display has the terminal.
    pub(super) fn watch(&mut self) {
        _ = self.0.write_all(b"\n");
    }

    /// The terminal is as it was.
    pub(super) fn dismiss(mut self) {
        _ = self.0.write_all(b"\n");
    }
}
