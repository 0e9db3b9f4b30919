//! What is told of one interval.

use std::cmp::Reverse;

use memleax_platform::Pid;

use super::{Process, Seen, Wanted};

/// What could not be kept or followed of the whole machine, since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Losses {
    /// Processes for which there was no place.
    pub processes: u64,
    /// Calls of processes that have no place.
    pub calls: u64,
    /// Blocks for which there was no room.
    pub blocks: u64,
}

impl Losses {
    /// What was lost since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Losses) -> Losses {
        Losses {
            processes: self.processes - earlier.processes,
            calls: self.calls - earlier.calls,
            blocks: self.blocks - earlier.blocks,
        }
    }
}

/// One interval: the processes that ended in it, and those that run at its end if they are asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Interval {
    /// Those that ended, and then those that run: each by bytes allocated, the most first.
    pub ended: Vec<Process>,
    /// See `ended`.
    pub running: Vec<Process>,
    /// What was lost in it.
    pub losses: Losses,
}

/// What a reader of the table has to know besides.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Remarks {
    /// Processes whose program began before memleax was ready.
    pub since_ready: Vec<Pid>,
    /// Processes whose first calls were not seen.
    pub not_at_once: Vec<Pid>,
    /// Processes some of whose blocks were not kept, and how many.
    pub not_kept: Vec<(Pid, u64)>,
    /// Processes some of whose calls were not followed, and how many.
    pub not_followed: Vec<(Pid, u64)>,
}

impl Interval {
    /// Of processes that ended in it, and those that run, what is wanted.
    #[must_use]
    pub fn new(ended: Vec<Process>, running: Vec<Process>, losses: Losses, wanted: &Wanted) -> Interval {
        let sorted = |mut processes: Vec<Process>| {
            processes.retain(|process| wanted.has(process));
            processes.sort_by_key(|process| (Reverse(process.allocated.bytes), process.pid.0));
            processes
        };
        Interval { ended: sorted(ended), running: sorted(running), losses }
    }

    /// What is to be said of the processes.
    #[must_use]
    pub fn remarks(&self) -> Remarks {
        let mut remarks = Remarks::default();
        for process in self.ended.iter().chain(&self.running) {
            match process.seen {
                Seen::All => {}
                Seen::SinceReady => remarks.since_ready.push(process.pid),
                Seen::NotAtOnce => remarks.not_at_once.push(process.pid),
            }
            if process.not_kept.count > 0 {
                remarks.not_kept.push((process.pid, process.not_kept.count));
            }
            let unfollowed = process.not_followed + process.never_returned;
            if unfollowed > 0 {
                remarks.not_followed.push((process.pid, unfollowed));
            }
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Tally;
    use crate::machine::sample::process;

    #[test]
    fn the_most_bytes_come_first() {
        let ended = [(7, 10), (5, 30), (4, 10), (6, 20)].map(|(pid, bytes)| process(pid, bytes, 0)).to_vec();
        let interval = Interval::new(ended, Vec::new(), Losses::default(), &Wanted::default());
        assert_eq!(interval.ended.iter().map(|process| process.pid.0).collect::<Vec<_>>(), [5, 6, 4, 7]);
    }

    #[test]
    fn remarks_are_of_those_that_were_not_seen_whole() {
        let since_ready = Process { seen: Seen::SinceReady, ..process(1, 1, 1) };
        let late = Process { seen: Seen::NotAtOnce, never_returned: 1, not_followed: 2, ..process(2, 1, 1) };
        let full = Process { not_kept: Tally { count: 3, bytes: 9 }, ended: None, ..process(3, 1, 1) };
        let unwanted = Process { uid: 1, ..since_ready.clone() };
        let wanted = Wanted { uids: vec![0], ..Wanted::default() };
        let interval =
            Interval::new(vec![since_ready, late, process(4, 1, 1), unwanted], vec![full], Losses::default(), &wanted);
        assert_eq!(
            interval.remarks(),
            Remarks {
                since_ready: vec![Pid(1)],
                not_at_once: vec![Pid(2)],
                not_kept: vec![(Pid(3), 3)],
                not_followed: vec![(Pid(2), 3)],
            }
        );
    }
}
