//! Which processes are told of.

use std::path::PathBuf;

use memleax_platform::Pid;
use regex::Regex;

use super::Process;

/// Filters; those of different kinds must all agree. None, by default.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wanted {
    /// Names, of which one must match.
    pub names: Vec<NamePattern>,
    /// Real user ids.
    pub uids: Vec<u32>,
    /// Folders of cgroups; what is in those below is in them.
    pub cgroups: Vec<PathBuf>,
    /// Processes.
    pub pids: Vec<Pid>,
}

/// An expression for names of processes.
#[derive(Clone, Debug)]
pub struct NamePattern(pub Regex);

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for NamePattern {}

impl Wanted {
    /// True if this process is to be told of.
    #[must_use]
    pub fn has(&self, process: &Process) -> bool {
        let any = |is_empty: bool, found: bool| is_empty || found;
        any(self.names.is_empty(), self.names.iter().any(|pattern| pattern.0.is_match(&process.name)))
            && any(self.uids.is_empty(), self.uids.contains(&process.uid))
            && any(self.cgroups.is_empty(), process.in_cgroup)
            && any(self.pids.is_empty(), self.pids.contains(&process.pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::sample::process;

    #[test]
    fn filters_of_different_kinds_must_all_agree() {
        let one = Process { uid: 7, name: "cc1".into(), in_cgroup: true, ..process(5, 0, 0) };
        assert!(Wanted::default().has(&one));
        let named = |text: &str| vec![NamePattern(Regex::new(text).expect("an expression"))];
        let of = |names, uids: &[u32], pids: &[i32]| Wanted {
            names,
            uids: uids.into(),
            pids: pids.iter().copied().map(Pid).collect(),
            cgroups: vec!["/sys/fs/cgroup/a".into()],
        };
        assert!(of(named("^cc"), &[7, 8], &[5]).has(&one));
        assert!(!of(named("^c1"), &[7, 8], &[5]).has(&one));
        assert!(!of(named("^cc"), &[8], &[5]).has(&one));
        assert!(!of(named("^cc"), &[7], &[6]).has(&one));
        assert!(!of(Vec::new(), &[], &[]).has(&Process { in_cgroup: false, ..one }));
    }
}
