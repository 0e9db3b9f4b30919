//! Which processes are traced, and what is known of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use libc::c_int;

use super::abi::{self, Reg};
use crate::{Pid, StopKind, Tid};

/// A thread whose [`Stop`](crate::Stop) the caller holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Why it stopped.
    pub(super) kind: StopKind,
    /// The `si_code` of a SIGTRAP, if the kernel told one.
    pub(super) trap_code: Option<c_int>,
    /// Its registers, once they were asked for.
    pub(super) registers: Option<Reg>,
}

impl Held {
    /// A breakpoint instruction raised the trap.
    pub(super) fn is_by_breakpoint(&self) -> bool {
        self.kind == StopKind::Trap && self.trap_code == Some(abi::TRAP_BRKPT)
    }
}

/// One traced process.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// All its threads are stopped, and that was waited for.
    pub(super) is_stopped: bool,
    /// The thread whose report stopped it: the only one that continuing can give a signal.
    pub(super) reporter: Option<Tid>,
    /// What that thread is given when the process continues: as if nobody had looked, unless the caller decides otherwise.
    pub(super) signal: c_int,
    /// The threads whose stops the caller holds. The process continues when there are none.
    pub(super) held: HashMap<Tid, Held>,
    /// The threads as of the last look.
    pub(super) threads: BTreeSet<Tid>,
    /// Threads that wait in vfork for their child.
    pub(super) in_vfork: BTreeSet<Tid>,
    /// SIGSTOP was sent to stop it, and is still to be swallowed.
    pub(super) owes_sigstop: bool,
    /// The caller wanted it halted, which could not be.
    pub(super) is_halt_due: bool,
    /// Job control has stopped it: it does not continue before SIGCONT.
    pub(super) is_frozen: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Processes(BTreeMap<Pid, Process>);

impl Processes {
    pub(super) fn get(&self, pid: Pid) -> Option<&Process> {
        self.0.get(&pid)
    }

    pub(super) fn get_mut(&mut self, pid: Pid) -> Option<&mut Process> {
        self.0.get_mut(&pid)
    }

    /// Adds one of which nothing is known yet.
    pub(super) fn add(&mut self, pid: Pid) -> &mut Process {
        self.0.entry(pid).or_default()
    }

    pub(super) fn remove(&mut self, pid: Pid) -> Option<Process> {
        self.0.remove(&pid)
    }

    pub(super) fn pids(&self) -> Vec<Pid> {
        self.0.keys().copied().collect()
    }

    /// Those that `condition` holds for.
    pub(super) fn that(&self, condition: impl Fn(&Process) -> bool) -> Vec<Pid> {
        self.0.iter().filter(|(_, process)| condition(process)).map(|(&pid, _)| pid).collect()
    }
}

/// Children that were born while their parent was traced. A birth is reported twice, in no certain order: by the parent,
/// which names the child, and by the child.
#[derive(Debug, Default)]
pub(super) struct Births {
    /// Named by the parent: the parent, and whether the child shares its memory.
    announced: HashMap<Pid, (Pid, bool)>,
    /// Reported by the child: its thread.
    arrived: HashMap<Pid, Tid>,
}

impl Births {
    /// The parent names its child. The child's thread, if it has reported already.
    pub(super) fn announce(&mut self, child: Pid, parent: Pid, shares: bool) -> Option<(Tid, StopKind)> {
        match self.arrived.remove(&child) {
            Some(tid) => Some((tid, kind(parent, shares))),
            None => {
                self.announced.insert(child, (parent, shares));
                None
            }
        }
    }

    /// A child reports itself. What it is, if its parent has named it already.
    pub(super) fn arrive(&mut self, child: Pid, tid: Tid) -> Option<StopKind> {
        let Some((parent, shares)) = self.announced.remove(&child) else {
            self.arrived.insert(child, tid);
            return None;
        };
        Some(kind(parent, shares))
    }

    /// The child has ended.
    pub(super) fn forget(&mut self, child: Pid) {
        self.announced.remove(&child);
        self.arrived.remove(&child);
    }

    /// Children that have reported themselves, and wait for their parent to.
    pub(super) fn waiting(&self) -> Vec<Pid> {
        self.arrived.keys().copied().collect()
    }

    /// Children that are traced but were not handed out.
    pub(super) fn pending(&self) -> impl Iterator<Item = Pid> {
        self.announced.keys().chain(self.arrived.keys()).copied()
    }
}

fn kind(parent: Pid, shares: bool) -> StopKind {
    if shares { StopKind::SharingChild { parent } } else { StopKind::Forked { parent } }
}
