//! What a test does where it cannot run.

use std::io::Write;

/// Says why a test cannot run here; a failure where `CI` is set.
pub fn unable(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "this test must run in CI: {why}");
    // Straight to the stream, so that the test harness does not capture it.
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {why}");
}

/// True if there is a program of this name (or path).
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers stand where only root's search path leads.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).any(|file| file.exists());
    if !found {
        unable(&format!("{name} is not installed; scripts/setup.sh test installs it"));
    }
    found
}
