//! The cgroups asked for, and which processes are in them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use memleax_platform::Pid;

use super::error::MachineError;

/// So many may be asked for.
pub(super) const AT_MOST: usize = 16;

/// Cgroups of the second version's hierarchy.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// Their folders.
    pub(super) folders: Vec<File>,
    /// Their names, as `/proc/PID/cgroup` has them.
    names: Vec<PathBuf>,
}

impl Cgroups {
    /// Opens the folders.
    ///
    /// # Errors
    /// If one is no cgroup's, or they are too many.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Cgroups, MachineError> {
        if paths.len() > AT_MOST {
            return Err(MachineError::TooManyCgroups(AT_MOST));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut cgroups = Cgroups { folders: Vec::new(), names: Vec::new() };
        for path in paths {
            let refused = |cause| MachineError::Cgroup { path: path.clone(), cause };
            let folder = path.canonicalize().map_err(refused)?;
            let name = mount_points(&mounts).find_map(|mount| folder.strip_prefix(mount).ok());
            let name = name.ok_or_else(|| refused(io::Error::other("it is in no hierarchy of cgroups, version 2")))?;
            cgroups.names.push(Path::new("/").join(name));
            cgroups.folders.push(File::open(&folder).map_err(refused)?);
        }
        Ok(cgroups)
    }

    /// True if none is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// True if a process is in one of them, or if none is asked for; `None` if it has ended.
    pub(super) fn have(&self, pid: Pid) -> Option<bool> {
        if self.names.is_empty() {
            return Some(true);
        }
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let own = Path::new(lines.lines().find_map(|line| line.strip_prefix("0::"))?);
        Some(self.names.iter().any(|name| own.starts_with(name)))
    }
}

/// Where the hierarchy is mounted (proc_pid_mountinfo(5)).
fn mount_points(mounts: &str) -> impl Iterator<Item = &Path> {
    mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        file_system.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(Path::new))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_of_the_second_version_is_found() {
        let mounts = "31 24 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                      30 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_points(mounts).collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup/unified")]);
    }

    #[test]
    fn a_process_is_in_the_cgroups_above_its_own() {
        let lines = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let Some(own) = lines.lines().find_map(|line| line.strip_prefix("0::")) else {
            return memleax_targets::unable("there are no cgroups of version 2");
        };
        let me = Pid(std::process::id().cast_signed());
        let cgroups = |name: &Path| Cgroups { folders: Vec::new(), names: vec![name.into()] };
        assert_eq!(cgroups(Path::new("/")).have(me), Some(true));
        assert_eq!(cgroups(Path::new(own)).have(me), Some(true));
        assert_eq!(cgroups(&Path::new(own).join("below")).have(me), Some(false));
        assert_eq!(cgroups(Path::new("/")).have(Pid(i32::MAX)), None);
    }
}
