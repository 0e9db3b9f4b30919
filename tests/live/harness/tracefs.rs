//! Probes of another tool: the kernel's own, by tracefs (Documentation/trace/uprobetracer.rst).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSegment, ObjectSymbol};

use super::unable;

/// A probe; removed when dropped.
pub(crate) struct ForeignProbe {
    tracefs: PathBuf,
    /// `GROUP/NAME`
    name: String,
}

impl ForeignProbe {
    /// Sets a probe at `place` (`PATH:0xOFFSET`, perhaps followed by `(0xCOUNTER)`); `kind` is `p` for one that is hit there, `r` for
    /// one that is hit when the function returns. `None`, having said why, where that cannot be done.
    pub(crate) fn set(kind: char, name: &str, place: &str) -> Option<Self> {
        let tracefs = tracing_folder()?;
        let name = format!("memleax_test_{}/{name}", std::process::id());
        let probe = ForeignProbe { tracefs, name };
        probe.define(&format!("{kind}:{} {place}", probe.name)).expect("the probe is accepted");
        fs::write(probe.tracefs.join("events").join(&probe.name).join("enable"), "1").expect("the probe is set");
        Some(probe)
    }

    fn define(&self, definition: &str) -> std::io::Result<()> {
        OpenOptions::new().append(true).open(self.tracefs.join("uprobe_events"))?.write_all(definition.as_bytes())
    }
}

impl Drop for ForeignProbe {
    fn drop(&mut self) {
        let _ = fs::write(self.tracefs.join("events").join(&self.name).join("enable"), "0");
        let _ = self.define(&format!("-:{}", self.name));
    }
}

/// Where tracefs is mounted; it is mounted at its usual place if it is not yet.
pub(crate) fn tracing_folder() -> Option<PathBuf> {
    let usual = Path::new("/sys/kernel/tracing");
    if !usual.join("uprobe_events").exists() {
        // Another test may be quicker.
        let _ = Command::new("mount").args(["-t", "tracefs", "tracefs"]).arg(usual).output();
    }
    if usual.join("uprobe_events").exists() {
        return Some(usual.into());
    }
    unable("tracefs cannot be mounted, or the kernel has no uprobe events in it");
    None
}

/// Where in the file a symbol of it is.
pub(crate) fn offset_of(file: &Path, symbol: &str) -> u64 {
    let bytes = fs::read(file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
    let elf = object::File::parse(&*bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut symbols = elf.symbols().chain(elf.dynamic_symbols()).filter(|of| of.is_definition());
    let found = symbols.find(|of| of.name() == Ok(symbol)).unwrap_or_else(|| panic!("no {symbol}: {}", file.display()));
    let mut segments = elf
        .segments()
        .filter(|segment| (segment.address()..segment.address() + segment.file_range().1).contains(&found.address()));
    let segment = segments.next().unwrap_or_else(|| panic!("{symbol} is in no segment"));
    found.address() - segment.address() + segment.file_range().0
}
