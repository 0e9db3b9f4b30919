//! The tracer on a fake kernel, so that each interleaving can be had.

mod attach;
mod children;
mod draining;
mod kernel;
mod signals;
mod windows;

use super::FreebsdTracer;
use crate::{Error, Pid, Report, Resume, Stop, StopKind, Tid, Tracer};
use kernel::{Act, Kernel, LWP, TEXT};

const TARGET: Pid = Pid(10);
const CHILD: Pid = Pid(20);
/// The first three threads.
const A: i32 = LWP;
const B: i32 = LWP + 1;
const C: i32 = LWP + 2;
const INT3: u8 = 0xcc;

type Rig = FreebsdTracer<Kernel>;

/// A tracer attached to a process of so many threads, which run.
fn rig(threads: i32) -> Rig {
    let mut rig = FreebsdTracer::new(Kernel::with_process(TARGET.0, threads));
    rig.attach(TARGET).expect("attached");
    assert_eq!(rig.wait().expect("a tick"), Report::Tick);
    rig.sys.requests.clear();
    rig
}

impl Rig {
    fn next_stop(&mut self) -> Stop {
        match self.wait().expect("a report") {
            Report::Stopped(stop) => stop,
            other => panic!("{other:?}"),
        }
    }

    /// Writes a breakpoint; returns its address.
    fn breakpoint(&mut self, offset: u64) -> u64 {
        let memory = &mut self.sys.process(TARGET.0).memory;
        memory[usize::try_from(offset).expect("small")] = INT3;
        TEXT + offset
    }

    /// Takes all breakpoints out, as the caller does before it detaches.
    fn restore(&mut self, stop: &Stop) {
        let bytes = vec![0x90; kernel::TEXT_SIZE];
        self.write(stop, TEXT, &bytes).expect("written");
    }

    /// Halts, takes all breakpoints out, sets back who has met one, and lets the process go.
    fn leave(&mut self, mut stops: Vec<Stop>) {
        stops.extend(self.halt(TARGET).expect("halted"));
        self.restore(&stops[0]);
        for stop in &stops {
            if stop.kind == StopKind::Trap && self.is_breakpoint_trap(stop).expect("held") {
                let registers = self.registers(stop).expect("held");
                self.set_program_counter(stop, registers.rip - 1).expect("held");
            }
        }
        for stop in stops {
            let how = if stop.kind == StopKind::Trap { Resume::Swallow } else { Resume::Deliver };
            self.detach(stop, how).expect("detached");
        }
        self.assert_unharmed();
        assert_eq!(self.traced(), []);
    }

    /// The target runs on by itself, and nothing that was done to it shows.
    fn assert_unharmed(&mut self) {
        self.sys.run_freely(TARGET.0);
        let process = self.sys.process(TARGET.0);
        assert_eq!(process.killed_by, None, "it was killed");
        assert!(!process.was_left_stopped, "it was stopped");
    }

    fn rip(&mut self, lwp: i32) -> u64 {
        self.sys.thread(lwp).registers.rip
    }
}

fn kinds(stops: &[Stop]) -> Vec<(i32, StopKind)> {
    let mut kinds: Vec<(i32, StopKind)> = stops.iter().map(|stop| (stop.tid.0, stop.kind)).collect();
    kinds.sort_by_key(|&(tid, _)| tid);
    kinds
}

fn is_gone<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Gone(_)))
}
