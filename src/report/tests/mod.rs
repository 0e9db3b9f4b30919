//! Each format that other tools read, read by such a tool.

mod collapsed;
mod firefox;
mod gprof2dot;
mod heaptrack;
mod pprof;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use memleax_targets::{target_directory, unable};

use super::Format;
use crate::profile::{Profile, View, sample};

/// The sample, without what a consumer in question cannot hold.
fn profile() -> Profile {
    sample::profile()
}

/// Writes a file for a consumer; what is left out, too.
fn write(folder: &Path, name: &str, profile: &Profile, view: &View) -> (PathBuf, Vec<String>) {
    let path = folder.join(name);
    let format = Format::of_path(&path).expect("a format's extension");
    let left_out = format.write_file(profile, view, &path).expect("a written file");
    (path, left_out)
}

/// A program that `scripts/setup.sh test` has put into `target/consumers`; `None` if it has not.
fn consumer(name: &str) -> Option<PathBuf> {
    let path = target_directory().join("consumers").join(name);
    if path.exists() {
        return Some(path);
    }
    unable(&format!("{} is missing; scripts/setup.sh test installs it", path.display()));
    None
}

/// What a consumer prints; it must be content.
fn output_of(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("a consumer that starts");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    format!("{}{stderr}", String::from_utf8_lossy(&stdout))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}
