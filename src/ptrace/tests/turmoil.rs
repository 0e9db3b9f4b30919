//! Threads that call the allocator, are interrupted, fork and are let go at any moment.

use proptest::prelude::*;

use super::super::fake::DATA;
use super::*;

const THREADS: i32 = 3;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Call {
    Malloc,
    MallocDeeper,
    MallocTwice,
    Calloc,
    Realloc,
    Free,
    FreeWrapped,
    Memalign,
    New,
    NotEmulated,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A thread that rests calls.
    Call(i32, Call),
    /// A thread executes so many instructions.
    Run(i32, usize),
    /// A thread gets a signal.
    Signal(i32),
    /// A thread forks.
    Fork(i32),
    /// The engine handles what was reported.
    Handle,
}

fn call() -> impl Strategy<Value = Call> {
    use Call::*;
    proptest::sample::select(vec![
        Malloc,
        MallocDeeper,
        MallocTwice,
        Calloc,
        Realloc,
        Free,
        FreeWrapped,
        Memalign,
        New,
        NotEmulated,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    let thread = 0..THREADS;
    prop_oneof![
        3 => (thread.clone(), call()).prop_map(|(thread, call)| Step::Call(thread, call)),
        10 => (thread.clone(), 1..6_usize).prop_map(|(thread, budget)| Step::Run(thread, budget)),
        2 => thread.clone().prop_map(Step::Signal),
        1 => thread.prop_map(Step::Fork),
        8 => Just(Step::Handle),
    ]
}

/// How often what is expected.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Tally {
    allocated: usize,
    reallocated: usize,
    freed: usize,
}

impl Tally {
    fn of(events: &[Event]) -> Self {
        let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
        Tally {
            allocated: count(|event| matches!(event, Event::Allocated { .. })),
            reallocated: count(|event| matches!(event, Event::Reallocated { .. })),
            freed: count(|event| matches!(event, Event::Freed { .. })),
        }
    }

    fn expect(&mut self, call: Call) {
        match call {
            Call::MallocTwice => self.allocated += 2,
            Call::Realloc => self.reallocated += 1,
            Call::Free | Call::FreeWrapped => self.freed += 1,
            _ => self.allocated += 1,
        }
    }
}

struct Turmoil {
    rig: Rig,
    stacks: Vec<u64>,
    expected: Tally,
    addresses: u64,
    children: i32,
}

impl Turmoil {
    fn new(emulates: bool) -> Self {
        let mut machine = Machine::new();
        if emulates {
            machine.facts.remote_calls_refused = Some("a filter".into());
            machine.refuse_code = true;
        }
        for index in 1..THREADS {
            machine.add_thread(TARGET, Self::tid(index));
        }
        let stacks = (0..THREADS).map(|index| machine.thread(Self::tid(index)).rsp).collect();
        let mut rig = attach(machine);
        for index in 0..THREADS {
            rig.run(Self::tid(index));
        }
        Turmoil { rig, stacks, expected: Tally::default(), addresses: 0xf0_0000, children: 1000 }
    }

    fn tid(index: i32) -> Tid {
        Tid(MAIN.0 + index)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Handle => self.rig.handle(),
            Step::Call(thread, call) => self.call(thread, call),
            Step::Run(thread, budget) if self.runs(thread) => {
                self.rig.machine().run_for(Self::tid(thread), budget);
            }
            Step::Signal(thread) if self.runs(thread) => self.rig.machine().send(Self::tid(thread), 10),
            Step::Fork(thread) if self.runs(thread) => {
                self.children += 1;
                self.rig.machine().fork(Self::tid(thread), Pid(self.children));
            }
            Step::Run(..) | Step::Signal(_) | Step::Fork(_) => {}
        }
    }

    fn runs(&mut self, thread: i32) -> bool {
        !self.rig.machine().is_stopped(Self::tid(thread))
    }

    fn call(&mut self, thread: i32, call: Call) {
        let tid = Self::tid(thread);
        if !self.runs(thread) || !self.rig.machine().rests(tid) {
            return;
        }
        self.expected.expect(call);
        self.addresses += 16;
        let block = self.addresses;
        let (label, arguments) = match call {
            Call::Malloc => ("call_malloc", [64, 0, 0]),
            Call::MallocDeeper => ("call_malloc_deeper", [64, 0, 0]),
            Call::MallocTwice => ("call_malloc_twice", [64, 0, 0]),
            Call::Calloc => ("call_calloc", [8, 8, 0]),
            Call::Realloc => ("call_realloc", [block, 64, 0]),
            Call::Free => ("call_free", [block, 0, 0]),
            Call::FreeWrapped => ("call_cfree", [block, 0, 0]),
            Call::Memalign => ("call_memalign", [DATA + 64 * (thread as u64 + 1), 16, 64]),
            Call::New => ("call_new", [64, 0, 0]),
            Call::NotEmulated => ("call_valloc", [64, 0, 0]),
        };
        let stack = self.stacks[thread as usize];
        self.rig.machine().thread(tid).rsp = stack;
        self.rig.at(tid, label, &arguments);
    }

    /// Every thread rests with its stack pointer where its piece of the program leaves it.
    fn check_threads(&mut self) {
        for index in 0..THREADS {
            let tid = Self::tid(index);
            assert!(self.rig.machine().rests(tid));
            let below = self.stacks[index as usize] - self.rig.machine().thread(tid).rsp;
            assert!(below == 0 || below == 0x100, "thread {tid} has {below} bytes too much on its stack");
        }
    }

    fn check_children(&mut self) {
        for child in 1001..=self.children {
            assert_eq!(self.rig.machine().patched(Pid(child)), Vec::<u64>::new(), "child {child}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_call_is_seen_once(steps in prop::collection::vec(step(), 0..150), emulates: bool) {
        let mut turmoil = Turmoil::new(emulates);
        for step in steps {
            turmoil.step(step);
        }
        for index in 0..THREADS {
            turmoil.rig.run(Turmoil::tid(index));
        }
        let events = turmoil.rig.events();
        prop_assert_eq!(Tally::of(&events), turmoil.expected);
        prop_assert!(!events.iter().any(|event| matches!(event, Event::Lost(..))));
        turmoil.check_threads();
        turmoil.rig.detach(&[TARGET]);
        turmoil.check_children();
    }

    #[test]
    fn a_target_let_go_at_any_moment_runs_on(steps in prop::collection::vec(step(), 0..150), emulates: bool) {
        let mut turmoil = Turmoil::new(emulates);
        for step in steps {
            turmoil.step(step);
        }
        turmoil.rig.detach(&[TARGET]);
        turmoil.check_children();
        for index in 0..THREADS {
            prop_assert_eq!(turmoil.rig.machine().run(Turmoil::tid(index)), Ran::Rested);
        }
        turmoil.check_threads();
    }
}
