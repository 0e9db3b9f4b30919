//! Objects, by each kind of probe: their functions call one another and allocate, so stacks go through returns that are trapped for us.

use std::collections::BTreeMap;

use memleax_targets::Target;

use super::*;
use crate::event::Tally;
use crate::objects::Objects;

/// What was told of.
#[derive(Default)]
struct Told {
    totals: BTreeMap<(Class, StackId), Totals>,
    unknown: BTreeMap<Class, u64>,
    losses: BTreeMap<Loss, u64>,
}

impl Sink for Told {
    fn event(&mut self, _: Timestamp, event: Event) {
        match event {
            Event::Lost(loss, count) => *self.losses.entry(loss).or_default() += count,
            Event::UnknownFrees(count) => *self.unknown.entry(Class::MEMORY).or_default() += count,
            _ => {}
        }
    }

    fn counted(&mut self, at: Timestamp, stack: StackId, totals: &Totals) {
        self.object_counted(at, Class::MEMORY, stack, totals);
    }

    fn object(&mut self, _: Timestamp, class: Class, event: Event) {
        let Event::UnknownFrees(count) = event else { panic!("{event:?}") };
        *self.unknown.entry(class).or_default() += count;
    }

    fn object_counted(&mut self, _: Timestamp, class: Class, stack: StackId, totals: &Totals) {
        self.totals.insert((class, stack), *totals);
    }
}

impl Told {
    fn sum(&self, class: Class, of: fn(&Totals) -> Tally) -> u64 {
        self.totals.iter().filter(|((its, _), _)| *its == class).map(|(_, totals)| of(totals).count).sum()
    }
}

fn objects() -> Objects {
    let mut objects = Objects::default();
    for text in [
        "conn=conn_new,conn_dup|conn_free|conn_ref|conn_unref,conn_put",
        "pool=pool_new|pool_free",
        "session=session_open(out=2,always)|session_close",
    ] {
        objects.add_type(text.parse().expect("a type")).expect("another type");
    }
    objects
}

/// A function of two types: each counts its calls, unless the kernel does not tell two probes at one place apart.
fn check_two_types(variants: &[Attachment]) {
    let mut target = Target::c("handles").start();
    let mut both = Objects::default();
    for text in ["pool=pool_new|pool_free", "arena=pool_new|pool_free"] {
        both.add_type(text.parse().expect("a type")).expect("another type");
    }
    let config = Config { objects: both, ..config(&target, Duration::from_secs(10)) };
    let crate::config::Target::Process(pid) = config.target else { unreachable!("a process is watched") };
    let attached = BpfSource::attach_with(pid, &config, NativeTracer::default(), Box::new(|_| None), variants, SIZES);
    match attached {
        Err(error @ AttachError::Load { .. }) => memleax_targets::unable(&error.to_string()),
        Err(error @ AttachError::Ambiguous { .. }) if variants == OLD => {
            assert!(error.to_string().starts_with("cannot follow pool_new of "), "{error}");
        }
        Err(error) => panic!("{error}"),
        Ok(mut source) => {
            assert!(variants != OLD, "they cannot be told apart");
            let mut told = Told::default();
            target.ask("go 5");
            source.detach(&mut told).expect("a source that can be left");
            for class in [Class(1), Class(2)] {
                let counts = [told.sum(class, |totals| totals.allocated), told.sum(class, |totals| totals.freed)];
                assert_eq!(counts, [20, 10]);
            }
        }
    }
    target.quit();
}

#[test]
fn a_function_of_two_types_counts_for_each() {
    check_two_types(BEST);
    check_two_types(&[Attachment::Multi]);
    check_two_types(&[Attachment::Perf]);
}

#[test]
fn a_function_of_two_types_is_refused_by_old_programs() {
    check_two_types(OLD);
}

fn check(variants: &[Attachment]) {
    let mut target = Target::c("handles").start();
    let config = Config { objects: objects(), ..config(&target, Duration::from_secs(10)) };
    let copies = Copies { length: 65536, all: true };
    let Some(mut source) = attach_as(&config, variants, Sizes { records: 1 << 26, copies, ..SIZES }) else { return };
    let mut told = Told::default();
    let truth = target.ask("go 100");
    source.receive(&mut told).expect("the target can be observed");
    let records = source.records.borrow().stacks.clone();
    assert!(!records.is_empty());
    for (time, record) in records {
        let copy = record.copy.as_ref().expect("a copy of each");
        let (by_table, by_copy) = (source.backtrace(&record, time), source.walk_copy(&record, copy));
        assert_eq!(by_table.ending, Ending::Complete, "{by_table:?}");
        assert_eq!(by_table, by_copy);
    }
    source.detach(&mut told).expect("a source that can be left");
    let found: Vec<String> = ["memory", "conn", "pool", "session"]
        .into_iter()
        .zip((0..).map(Class))
        .map(|(name, class)| {
            format!("{name} {} {}", told.sum(class, |totals| totals.allocated), told.sum(class, |totals| totals.freed))
        })
        .collect();
    assert_eq!(found, truth);
    // Called 100 times; the calls that came after took its place.
    assert_eq!(told.losses, BTreeMap::from([(Loss::NeverReturned, 100)]));
    assert!(told.unknown.values().all(|&count| count == 0), "{:?}", told.unknown);
    target.quit();
}

/// The kernel would kill the program if a return were trapped there: see `is_above` of follow.bpf.h. Old kernels do.
#[test]
fn a_handler_on_a_stack_above_a_call_is_left_alone() {
    let mut target = Target::c("handles").flags(&["-pthread"]).start();
    let config = Config { objects: objects(), ..config(&target, Duration::from_secs(10)) };
    let Some(mut source) = attach_as(&config, &[Attachment::Session], SIZES) else { return };
    let mut told = Told::default();
    target.ask("above 10");
    source.detach(&mut told).expect("a source that can be left");
    assert_eq!(told.losses, BTreeMap::from([(Loss::NotFollowed, 10)]));
    assert_eq!(told.sum(Class(1), |totals| totals.allocated), 10);
    target.quit();
}

#[test]
fn all_are_counted() {
    check(BEST);
}

#[test]
fn all_are_counted_by_probes_that_are_set_many_at_a_time() {
    check(&[Attachment::Multi]);
}

#[test]
fn all_are_counted_by_probes_that_are_set_one_by_one() {
    check(&[Attachment::Perf]);
}

#[test]
fn all_are_counted_by_old_programs() {
    check(OLD);
}
