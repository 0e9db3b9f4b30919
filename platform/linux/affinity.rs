//! The tracer follows the target's CPU.
//!
//! A stop costs two switches between tracer and target. On one CPU that is 7 microseconds; on two, each switch wakes a
//! CPU that sleeps, which is 5 to 12 times dearer (see `examples/stop_floor.rs`). The kernel places them as it likes; so the tracer
//! moves to where the target last ran. The target's own affinity is its own affair: if it does not stay (the kernel
//! may wake it on an idle CPU, and several threads run on several ones), following is futile and is given up for a while.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid as ThreadId;

use crate::{Pid, Tid};

/// One in so many stops is looked at: a look costs some 5 microseconds.
const STOPS_PER_LOOK: u32 = 256;

/// Following is futile if the target was elsewhere at so many of the last eight looks.
const FUTILE: u32 = 4;

/// For how many looks following is given up at first, and at the most.
const FIRST_REST: u32 = 16;
const LONGEST_REST: u32 = 1024;

/// Follows the target from CPU to CPU; puts the tracing thread's affinity back when it is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    /// Where the tracing thread may run; `None` if the kernel does not tell.
    allowed: Option<CpuSet>,
    stops: u32,
    course: Course,
}

impl Default for Follower {
    fn default() -> Self {
        Self { allowed: sched_getaffinity(ThreadId::from_raw(0)).ok(), stops: 0, course: Course::default() }
    }
}

impl Follower {
    /// Takes note of a stop.
    pub(super) fn stopped(&mut self, pid: Pid, tid: Tid) {
        self.stops += 1;
        if self.stops < STOPS_PER_LOOK {
            return;
        }
        self.stops = 0;
        let Some(allowed) = self.allowed else { return };
        let (Some((target, policy)), Ok(own)) = (cpu_of(pid, tid), sched_getcpu()) else { return };
        // A CPU that real-time threads occupy might leave nothing to the tracer, for which they wait.
        if !allowed.is_set(target).unwrap_or(false) || !matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH) {
            return;
        }
        let place = match self.course.next(target, own) {
            Step::Stay => return,
            Step::Anywhere => Some(allowed),
            Step::To(cpu) => single(cpu),
        };
        if let Some(place) = place
            && let Err(error) = sched_setaffinity(ThreadId::from_raw(0), &place)
        {
            tracing::debug!("cannot follow the target's CPU: {error}");
            self.allowed = None;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let (Some(allowed), true) = (self.allowed, self.course.is_pinned) {
            // Without effect on anything but speed.
            let _ = sched_setaffinity(ThreadId::from_raw(0), &allowed);
        }
    }
}

fn single(cpu: usize) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    set.set(cpu).ok().map(|()| set)
}

/// The CPU on which a thread last ran, and its scheduling policy.
fn cpu_of(pid: Pid, tid: Tid) -> Option<(usize, i32)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?)
}

/// Fields 39 and 41 of `stat` (`proc_pid_stat(5)`).
fn parse_stat(stat: &str) -> Option<(usize, i32)> {
    // The fields after the name, which stands in parentheses and may contain any character, begin with the third.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(39 - 3);
    Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
}

/// What to do after a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Stay,
    To(usize),
    Anywhere,
}

/// Decides whether to follow.
#[derive(Debug)]
struct Course {
    is_pinned: bool,
    /// A bit for each of the last eight looks: 1 if the target was elsewhere.
    misses: u8,
    /// For how many more looks not to follow.
    rest: u32,
    next_rest: u32,
}

impl Default for Course {
    fn default() -> Self {
        Self { is_pinned: false, misses: 0, rest: 0, next_rest: FIRST_REST }
    }
}

impl Course {
    fn next(&mut self, target: usize, own: usize) -> Step {
        if self.rest > 0 {
            self.rest -= 1;
            return Step::Stay;
        }
        let missed = target != own;
        self.misses = self.misses << 1 | u8::from(missed);
        if self.misses.count_ones() >= FUTILE {
            let rest = self.next_rest;
            *self = Self { is_pinned: false, misses: 0, rest, next_rest: (rest * 2).min(LONGEST_REST) };
            return Step::Anywhere;
        }
        if self.is_pinned && !missed {
            if self.misses == 0 {
                self.next_rest = FIRST_REST;
            }
            return Step::Stay;
        }
        self.is_pinned = true;
        Step::To(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_stays_is_followed_once() {
        let mut course = Course::default();
        assert_eq!(course.next(1, 0), Step::To(1));
        for _ in 0..100 {
            assert_eq!(course.next(1, 1), Step::Stay);
        }
        assert_eq!(course.next(3, 1), Step::To(3));
    }

    #[test]
    fn a_target_that_always_leaves_is_let_go_and_tried_again_later() {
        let mut course = Course::default();
        for rest in [FIRST_REST, FIRST_REST * 2, FIRST_REST * 4] {
            let mut own = 0;
            for _ in 1..FUTILE {
                assert_eq!(course.next(1 - own, own), Step::To(1 - own));
                own = 1 - own;
            }
            assert_eq!(course.next(1 - own, own), Step::Anywhere);
            for _ in 0..rest {
                assert_eq!(course.next(0, 1), Step::Stay);
            }
        }
    }

    #[test]
    fn the_cpu_of_a_stopped_thread_is_known() {
        let stat = format!("7 (a ) b) S{} 5 0 1 0", " 0".repeat(35));
        assert_eq!(parse_stat(&stat), Some((5, libc::SCHED_FIFO)));
        let pid = std::process::id() as i32;
        assert!(cpu_of(Pid(pid), Tid(pid)).is_some());
    }

    #[test]
    fn the_affinity_is_put_back() {
        std::thread::spawn(|| {
            let before = sched_getaffinity(ThreadId::from_raw(0)).expect("known");
            let tid = Tid(nix::unistd::gettid().as_raw());
            let mut follower = Follower::default();
            for _ in 0..STOPS_PER_LOOK {
                follower.stopped(Pid(std::process::id() as i32), tid);
            }
            assert!(follower.course.is_pinned);
            drop(follower);
            assert_eq!(sched_getaffinity(ThreadId::from_raw(0)).expect("known"), before);
        })
        .join()
        .expect("no panic");
    }
}
