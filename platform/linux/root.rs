//! The file system as a process sees it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use crate::Pid;

/// A root directory kept open, so that files can be opened below it as a process sees them (container, chroot), even
/// after that process has ended.
#[derive(Debug)]
pub struct RootDirectory {
    directory: OwnedFd,
    /// Keeps the mounts below the root in place when the last process of the mount namespace ends; `None` if that is
    /// not permitted.
    _namespace: Option<OwnedFd>,
}

impl RootDirectory {
    /// The root of a running process.
    ///
    /// # Errors
    /// That of `open(2)` of `/proc/PID/root`, which asks for the right to trace the process.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let namespace = open(format!("/proc/{pid}/ns/mnt").as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let directory = Self::open_directory(Path::new(&format!("/proc/{pid}/root")))?;
        Ok(Self { directory, _namespace: namespace.ok() })
    }

    /// Any directory as a root.
    ///
    /// # Errors
    /// That of `open(2)`.
    pub fn at(directory: &Path) -> io::Result<Self> {
        Ok(Self { directory: Self::open_directory(directory)?, _namespace: None })
    }

    fn open_directory(path: &Path) -> io::Result<OwnedFd> {
        Ok(open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// Opens a regular file for reading; symbolic links, absolute ones included, and `..` stay below the root
    /// (`RESOLVE_IN_ROOT`, Linux 5.6).
    ///
    /// # Errors
    /// That of `openat2(2)`; [`io::ErrorKind::InvalidInput`] if it is no regular file.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        // O_NONBLOCK: what stands at that path may be a FIFO.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        let how =
            OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(&self.directory, path, how)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_absolute_link_stays_below_the_root() {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(root.path().join("inside")).expect("created");
        std::fs::write(root.path().join("inside/file"), "inside").expect("written");
        symlink("/inside/file", root.path().join("absolute")).expect("linked");
        symlink("../../../../inside/file", root.path().join("relative")).expect("linked");

        let directory = RootDirectory::at(root.path()).expect("opened");
        for path in ["/absolute", "absolute", "/relative", "/../../inside/file"] {
            let mut text = String::new();
            directory.open(Path::new(path)).expect(path).read_to_string(&mut text).expect("read");
            assert_eq!(text, "inside", "{path}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let root = tempfile::tempdir().expect("a temporary directory");
        nix::unistd::mkfifo(&root.path().join("fifo"), Mode::S_IRWXU).expect("a FIFO");
        let directory = RootDirectory::at(root.path()).expect("opened");
        assert_eq!(directory.open(Path::new("/fifo")).map_err(|e| e.kind()).err(), Some(io::ErrorKind::InvalidInput));
        assert_eq!(directory.open(Path::new("/")).map_err(|e| e.kind()).err(), Some(io::ErrorKind::InvalidInput));
    }

    #[test]
    fn the_own_root_is_that_of_this_process() {
        let pid = Pid(i32::try_from(std::process::id()).expect("a pid"));
        let path = std::env::current_exe().expect("a path");
        assert!(RootDirectory::of(pid).expect("opened").open(&path).is_ok());
    }
}
