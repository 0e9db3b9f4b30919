//! How text looks: the colours, and what keeps a target's names from commanding the terminal.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use anstream::adapter::StripBytes;
use anstyle::{AnsiColor, Style};

pub(super) const HEADING: Style = Style::new().bold();
pub(super) const CALL_STACK: Style = AnsiColor::Cyan.on_default();
pub(super) const LEAK: Style = AnsiColor::Red.on_default().bold();
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default();
pub(super) const FUNCTION: Style = Style::new().bold();
pub(super) const FAINT: Style = Style::new().dimmed();

/// Text that may come from the target: characters that a terminal could take for commands are replaced.
pub(super) struct Printable<'a>(pub(super) &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, part) in self.0.split(char::is_control).enumerate() {
            if place > 0 {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// Passes on what is written, without colours.
pub(super) struct Plain<'a> {
    output: &'a mut dyn Write,
    state: StripBytes,
}

impl<'a> Plain<'a> {
    pub(super) fn new(output: &'a mut dyn Write) -> Plain<'a> {
        Plain { output, state: StripBytes::new() }
    }
}

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.state.strip_next(bytes).try_for_each(|text| self.output.write_all(text))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
