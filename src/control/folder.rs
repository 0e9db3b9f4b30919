//! Where the sockets are: a folder that is its user's alone.
//!
//! A socket is named `TARGET.MEMLEAX`, by two process ids, as several may watch the same process.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use memleax_platform::Pid;
use nix::unistd::geteuid;

/// A process that is watched, and by which memleax, if that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// The process.
    pub target: Pid,
    /// memleax's own.
    pub by: Option<Pid>,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Watched, String> {
        let pid = |text: &str| text.parse().ok().filter(|&pid| pid > 0).map(Pid);
        let parsed = match text.split_once('.') {
            Some((target, by)) => pid(target).zip(pid(by)).map(|(target, by)| Watched { target, by: Some(by) }),
            None => pid(text).map(|target| Watched { target, by: None }),
        };
        parsed.ok_or_else(|| "give the id of a process that memleax watches; or TARGET.MEMLEAX, if several do".into())
    }
}

impl Watched {
    pub(super) fn file_name(self) -> String {
        match self.by {
            Some(by) => format!("{}.{}", self.target, by),
            None => format!("{}.", self.target),
        }
    }

    fn matches(self, other: Watched) -> bool {
        self.target == other.target && self.by.is_none_or(|by| other.by == Some(by))
    }
}

/// The folders that a user's sockets may be in, the best first.
pub(super) fn candidates() -> Vec<PathBuf> {
    let user = geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = PathBuf::from(format!("/run/user/{user}"));
    let mut folders: Vec<PathBuf> = runtime
        .into_iter()
        .chain([usual])
        .filter(|path| belongs_to(path, user))
        .map(|path| path.join("memleax"))
        .collect();
    folders.dedup();
    folders.push(format!("/tmp/memleax-{user}").into());
    folders
}

/// Where root looks besides: other users' folders.
pub(super) fn of_others() -> Vec<PathBuf> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    let list = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let in_temporary =
        list("/tmp").filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("memleax-")));
    list("/run/user").map(|path| path.join("memleax")).chain(in_temporary).collect()
}

fn belongs_to(path: &Path, user: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user)
}

/// Makes one of them, if it is not there. It must be a folder, no link, this user's, and nobody else's to enter.
///
/// # Errors
/// Those of `mkdir(2)`; `PermissionDenied` if it is somebody else's.
pub(super) fn create(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if is_safe(folder) {
        return Ok(());
    }
    let why = "it is no folder of this user's alone (mode 0700); remove it";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// True if nobody else could have put something into it.
pub(super) fn is_safe(folder: &Path) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o077 == 0)
}

/// The sockets in `folder` of those who watch what is asked for.
pub(super) fn sockets(folder: &Path, asked: Watched) -> Vec<(Watched, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sockets: Vec<(Watched, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(found, _)| asked.matches(*found))
        .collect();
    sockets.sort_by_key(|(found, _)| found.by.map(|pid| pid.0));
    sockets
}
