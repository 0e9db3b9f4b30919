//! Processes for the tests of all who use them.

use std::time::Duration;

use memleax_platform::{ExitStatus, Pid};

use super::{BeforeExec, Interval, Losses, Process, Seen};
use crate::event::Tally;

/// One that has ended, with at most one block of each kind.
pub(crate) fn process(pid: i32, allocated: u64, live: u64) -> Process {
    let blocks = |bytes: u64| Tally { count: bytes.min(1), bytes };
    Process {
        serial: 1,
        pid: Pid(pid),
        parent: Pid(1),
        uid: 0,
        name: "name".into(),
        began: Duration::from_secs(1),
        ended: Some((Duration::from_secs(2), ExitStatus::Exited(0))),
        cgroup: 1,
        in_cgroup: false,
        seen: Seen::All,
        allocated: blocks(allocated),
        freed: blocks(allocated - live),
        live: blocks(live),
        peak_bytes: allocated,
        unseen_frees: Tally::default(),
        unknown_frees: 0,
        not_kept: Tally::default(),
        not_followed: 0,
        never_returned: 0,
        before_exec: BeforeExec::default(),
    }
}

/// Two that have ended and one that runs, with something to say of two of them.
pub(crate) fn interval() -> Interval {
    let one = Process { name: "cc1".into(), ..process(7, 3 << 20, 1 << 19) };
    let not_kept = Tally { count: 3, bytes: 90 };
    let other = Process { name: "a\x1bb".into(), uid: 65534, not_kept, ..process(8, 1000, 0) };
    let server = Process {
        name: "server".into(),
        ended: None,
        parent: Pid(0),
        seen: Seen::SinceReady,
        ..process(9, 1 << 20, 1 << 20)
    };
    Interval { ended: vec![one, other], running: vec![server], losses: Losses { processes: 2, ..Losses::default() } }
}
