//! The engine on the fake machine.

mod calling;
mod code;
mod lifecycle;
mod processes;
mod signals;
mod turmoil;

use memleax_platform::{Pid, Report, Tid, Tracer};

use super::AttachError;
use super::engine::{Engine, Now, Settings};
use super::fake::{MAIN, Machine, RESULT, Ran, TARGET};
use crate::allocator::NamedFunctions;
use crate::event::{Event, Sink, StackId, Timestamp, Totals};
use crate::marker::Markers;
use crate::source::Progress;

const BLOCK: u64 = 0xb10c0;

#[derive(Default)]
struct Recorder(Vec<(u64, Event)>);

impl Sink for Recorder {
    fn event(&mut self, at: Timestamp, event: Event) {
        self.0.push((at.0, event));
    }

    fn counted(&mut self, _: Timestamp, _: StackId, _: &Totals) {
        unreachable!("the engine tells of each block");
    }
}

/// An engine attached to a machine.
struct Rig {
    engine: Engine<Machine>,
    recorder: Recorder,
    clock: u64,
    progress: Progress,
}

fn settings() -> Settings {
    Settings {
        pid: TARGET,
        depth: 16,
        by_thread: false,
        mmap: false,
        markers: Markers::default(),
        named: NamedFunctions::default(),
    }
}

fn try_attach(machine: Machine) -> Result<Rig, AttachError> {
    try_attach_with(machine, settings())
}

fn try_attach_with(machine: Machine, settings: Settings) -> Result<Rig, AttachError> {
    let engine = Engine::attach(machine, settings, Box::new(|_| None))?;
    let mut rig = Rig { engine, recorder: Recorder::default(), clock: 0, progress: Progress::Running };
    let mut now = Now { at: Timestamp(0), sink: &mut rig.recorder };
    rig.engine.resume_halted(&mut now).expect("a live target");
    rig.machine().poke(RESULT, BLOCK);
    rig.machine().actions.clear();
    Ok(rig)
}

fn attach(machine: Machine) -> Rig {
    try_attach(machine).expect("a target that can be observed")
}

fn rig() -> Rig {
    attach(Machine::new())
}

impl Rig {
    fn machine(&mut self) -> &mut Machine {
        &mut self.engine.tracer
    }

    /// Sends a thread to a piece of the program, with these arguments.
    fn at(&mut self, tid: Tid, label: &str, arguments: &[u64]) {
        let address = self.machine().label("/program", label);
        self.at_address(tid, address, arguments);
    }

    fn at_address(&mut self, tid: Tid, address: u64, arguments: &[u64]) {
        let registers = self.machine().thread(tid);
        registers.rip = address;
        for (argument, register) in arguments.iter().zip([&mut registers.rdi, &mut registers.rsi, &mut registers.rdx]) {
            *register = *argument;
        }
    }

    /// Runs a thread up to its next breakpoint, which is reported but not handled.
    fn trap(&mut self, tid: Tid) {
        assert_eq!(self.machine().run(tid), Ran::Trapped);
    }

    /// Handles all reports.
    fn handle(&mut self) {
        loop {
            let report = self.machine().wait().expect("the fake can wait");
            if report == Report::Tick {
                return;
            }
            self.clock += 1;
            let mut now = Now { at: Timestamp(self.clock), sink: &mut self.recorder };
            self.progress = self.engine.handle(report, &mut now).expect("a live target");
        }
    }

    fn tick(&mut self) {
        let mut now = Now { at: Timestamp(self.clock), sink: &mut self.recorder };
        self.engine.tick(&mut now).expect("a live target");
    }

    /// Runs a thread until it rests; returns how often it stopped on the way.
    fn run(&mut self, tid: Tid) -> usize {
        let mut stops = 0;
        self.handle();
        while self.machine().run(tid) == Ran::Trapped {
            stops += 1;
            self.handle();
        }
        stops
    }

    /// One call from the start of a piece of the program to its end.
    fn call(&mut self, label: &str, arguments: &[u64]) -> usize {
        self.at(MAIN, label, arguments);
        self.run(MAIN)
    }

    /// The events since the last time.
    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.recorder.0).into_iter().map(|(_, event)| event).collect()
    }

    fn warnings(&mut self) -> Vec<String> {
        let notices = std::mem::take(&mut self.engine.notices);
        notices
            .into_iter()
            .filter_map(|notice| match notice {
                crate::source::Notice::Warning(text) => Some(text),
                _ => None,
            })
            .collect()
    }

    /// The callers of a stack, innermost first, relative to the program.
    fn callers(&mut self, stack: StackId) -> Vec<u64> {
        let frames = self.engine.callers.table().get(stack).frames.clone();
        frames.into_iter().map(|frame| frame.address).collect()
    }

    /// Detaches, and checks that nothing of ours is left.
    fn detach(&mut self, pids: &[Pid]) {
        assert_eq!(self.engine.detach(), Vec::<String>::new());
        for &pid in pids {
            assert_eq!(self.machine().patched(pid), Vec::<u64>::new());
        }
    }
}

fn allocated(stack: u32) -> Event {
    Event::Allocated { address: BLOCK, size: 64, stack: StackId(stack) }
}
