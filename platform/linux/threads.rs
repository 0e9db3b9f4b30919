//! Which threads are traced, of which process, and what each is doing.

use std::collections::HashMap;

use crate::{Pid, Tid};

/// What a traced thread is doing, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Activity {
    /// It runs, or sleeps, or listens for SIGCONT: it stops when it is interrupted.
    Running,
    /// It is stopped, and was or will be handed out.
    Stopped,
    /// It was interrupted in a system call that nothing but SIGKILL interrupts, as vfork. It executes no instruction
    /// before it stops.
    Deaf,
    /// The main thread, which has ended before others: it will never stop, and has no status before the last of the
    /// others ends.
    Ended,
}

/// One traced thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Thread {
    /// Its process.
    pub(super) pid: Pid,
    pub(super) activity: Activity,
    /// When it last stopped, job control had stopped its process: the target must see it stopped again.
    pub(super) group_stopped: bool,
}

/// All traced threads.
#[derive(Debug, Default)]
pub(super) struct Threads(HashMap<Tid, Thread>);

impl Threads {
    /// Adds a thread that was not known; a known one stays as it is.
    pub(super) fn add(&mut self, tid: Tid, pid: Pid, activity: Activity) {
        self.0.entry(tid).or_insert(Thread { pid, activity, group_stopped: false });
    }

    pub(super) fn get(&self, tid: Tid) -> Option<&Thread> {
        self.0.get(&tid)
    }

    pub(super) fn get_mut(&mut self, tid: Tid) -> Option<&mut Thread> {
        self.0.get_mut(&tid)
    }

    /// Notes what a thread does; it may have been forgotten.
    pub(super) fn set(&mut self, tid: Tid, activity: Activity) {
        if let Some(thread) = self.0.get_mut(&tid) {
            thread.activity = activity;
        }
    }

    pub(super) fn remove(&mut self, tid: Tid) -> Option<Thread> {
        self.0.remove(&tid)
    }

    /// Forgets the threads of `pid`.
    pub(super) fn remove_all(&mut self, pid: Pid) {
        self.0.retain(|_, thread| thread.pid != pid);
    }

    /// The threads of a process.
    pub(super) fn of(&self, pid: Pid) -> impl Iterator<Item = (Tid, &Thread)> {
        self.0.iter().filter(move |(_, thread)| thread.pid == pid).map(|(&tid, thread)| (tid, thread))
    }

    /// Those threads of a process that stop when they are interrupted.
    pub(super) fn running(&self, pid: Pid) -> Vec<Tid> {
        self.of(pid).filter(|(_, thread)| thread.activity == Activity::Running).map(|(tid, _)| tid).collect()
    }

    /// Those threads of a process of which a status may come: a main thread that has ended is among them, as another
    /// thread that executes a program takes over its id.
    pub(super) fn not_stopped(&self, pid: Pid) -> Vec<Tid> {
        self.of(pid).filter(|(_, thread)| thread.activity != Activity::Stopped).map(|(tid, _)| tid).collect()
    }

    /// Whether a thread of the process is traced and has not ended.
    pub(super) fn any_living(&self, pid: Pid) -> bool {
        self.of(pid).any(|(_, thread)| thread.activity != Activity::Ended)
    }

    /// The processes that have traced threads, each once.
    pub(super) fn processes(&self) -> Vec<Pid> {
        let mut pids: Vec<Pid> = self.0.values().map(|thread| thread.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}
