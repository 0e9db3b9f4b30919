//! The flame graph and the HTML report in a real browser, headless: clicks, keys, and what is then to be seen.

mod devtools;
mod flamegraph;
mod page;
mod program;
mod run;

use std::path::{Path, PathBuf};

use memleax::profile::{Profile, View};
use memleax::report::Format;

use devtools::Browser;

/// The report of `profile` in a file of the build's own folder, named for the test that asks.
fn file_of(profile: &Profile, format: Format, view: &View) -> PathBuf {
    let test = std::thread::current().name().unwrap_or("report").replace("::", "-");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.{}", format.name()));
    format.write_file(profile, view, &path).expect("a file");
    path
}

fn complaints_of(browser: &mut Browser) -> String {
    browser.complaints().join("\n")
}
