//! Books of objects in a recording: told the same as memory, they tell the same.

use super::*;
use crate::event::Class;

/// Writes runs in which all that happens to memory happens to objects of one type, too.
struct Twins {
    memory: Tracker,
    objects: Tracker,
    writer: Writer,
    log: Option<EventLog>,
    now: u64,
}

impl Twins {
    const CLASS: Class = Class(1);

    fn new(limit: u64, is_full: bool) -> Twins {
        let mut writer = Writer::begin(Storage::Memory(Vec::new()), limit, begin()).expect("written to memory");
        writer.keep_ledger(begin());
        writer.types(&[("conn".into(), false), ("none".into(), true)]).expect("written to memory");
        for id in 0..6 {
            writer.stack(StackId(id), &backtrace(id.into())).expect("written to memory");
        }
        let log = is_full.then(EventLog::default);
        Twins { memory: Tracker::new(no_limits()), objects: Tracker::new(no_limits()), writer, log, now: 0 }
    }

    fn event(&mut self, passes: u64, event: Event) {
        let of_both = matches!(event, Event::Allocated { .. } | Event::Freed { .. });
        if !of_both && !event.concerns_objects() {
            return;
        }
        self.pass(passes);
        let at = Timestamp(self.now);
        self.memory.event(at, event);
        self.objects.event(at, event);
        if let Some(log) = &mut self.log {
            log.push(at, event);
            if of_both {
                log.push_object(at, Self::CLASS, event);
            }
        }
    }

    fn pass(&mut self, passes: u64) {
        let next = (self.now / SECOND + 1) * SECOND;
        self.now += passes;
        if self.now >= next {
            self.memory.event(Timestamp(next), Event::Idle);
            self.objects.event(Timestamp(next), Event::Idle);
            self.sample(Sample::take);
        }
    }

    fn sample(&mut self, take: impl Fn(&mut Tracker) -> Sample) {
        let (objects, memory) = (take(&mut self.objects), take(&mut self.memory));
        match &mut self.log {
            Some(log) => {
                self.writer.events(log.take()).expect("written to memory");
                self.writer.note_of(Self::CLASS, &objects);
                self.writer.note_of(Class::MEMORY, &memory);
            }
            None => {
                self.writer.sample_of(Self::CLASS, &objects).expect("written to memory");
                self.writer.sample(&memory).expect("written to memory");
            }
        }
    }

    fn end(&mut self) -> Vec<u8> {
        self.memory.event(Timestamp(self.now), Event::Idle);
        self.objects.event(Timestamp(self.now), Event::Idle);
        self.sample(|tracker| Sample::take_last(tracker, Vec::new()));
        self.writer.end(Timestamp(self.now), "The program ended.").expect("written to memory");
        self.writer.contents().expect("in memory")
    }
}

/// The type's profile is that of memory, and there is nothing of the other type. Which moments are left where there was no room for all may differ.
fn assert_alike(mut profile: Profile, has_all_moments: bool) {
    let [objects, none] = &mut std::mem::take(&mut profile.objects)[..] else { panic!("two types") };
    assert_eq!((objects.of.as_deref(), none.of.as_deref()), (Some("conn"), Some("none")));
    assert_eq!(none.sites, []);
    objects.of = None;
    if !has_all_moments {
        for profile in [&mut *objects, &mut profile] {
            profile.timeline.clear();
            profile.sites.iter_mut().for_each(|site| site.growth.clear());
        }
    }
    assert_eq!(*objects, profile);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_are_told_as_memory_is(
        run in runs(),
        limit in prop_oneof![Just(LIMIT), 1_000_u64..4_000],
        is_full in any::<bool>(),
        snapshot_at in 0_usize..200,
    ) {
        let mut twins = Twins::new(limit, is_full);
        for (index, (passes, event)) in run.into_iter().enumerate() {
            twins.event(passes, event);
            if index == snapshot_at {
                twins.sample(Sample::take);
                twins.writer.snapshot("signal").expect("written to memory");
            }
        }
        let bytes = twins.end();
        assert_alike(profile(&bytes), limit == LIMIT);
        assert_alike(twins.writer.ledger().expect("it is kept").profile(&mut |_| None), true);
    }
}

#[test]
fn references_end_an_object_with_the_last_of_them() {
    let mut twins = Twins::new(LIMIT, true);
    let log = twins.log.as_mut().expect("each event");
    let address = 16;
    for (at, event) in [
        (1, Event::Allocated { address, size: 0, stack: StackId(1) }),
        (2, Event::Allocated { address: 32, size: 0, stack: StackId(1) }),
        (3, Event::Retained { address }),
        (4, Event::Released { address }),
        (5, Event::Released { address }),
        (6, Event::Retained { address: 32 }),
        (7, Event::Released { address: 32 }),
        (8, Event::Released { address }),
    ] {
        for class in [1, 2] {
            log.push_object(Timestamp(at), Class(class), event);
        }
    }
    let bytes = twins.end();
    let profile = profile(&bytes);
    for objects in &profile.objects {
        let site = &objects.sites[0];
        assert_eq!((site.allocated.count, site.freed.count, site.live.count), (2, 1, 1));
    }
    assert_eq!(profile.objects.iter().map(|objects| objects.unknown_frees).collect::<Vec<_>>(), [1, 0]);
}
