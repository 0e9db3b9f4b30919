//! What is written is read again: whole, thinned out, cut off and damaged.

mod objects;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::chunk::{Chunks, Found};
use super::record::Record;
use super::*;
use crate::config::Limits;
use crate::event::{Backtrace, CallId, Ending, Event, Frame, FrameKind, Loss, Sink, StackId, Tally, Timestamp};
use crate::profile::{Profile, View};
use crate::symbol::{Function, NamedFrame};
use crate::tracker::Tracker;

const SECOND: u64 = 1_000_000_000;

fn begin() -> Begin {
    Begin {
        version: "0.1.0".into(),
        pid: 42,
        command: vec!["server".into(), "--verbose".into()],
        executable: "/usr/bin/server".into(),
        backend: "ptrace".into(),
        started: 1_700_000_000 * SECOND,
        expire: 5 * SECOND,
        launched: true,
        by_event: true,
    }
}

fn references() -> [String; 2] {
    ["serve".into(), "call".into()]
}

fn backtrace(id: u64) -> Backtrace {
    let frame = |address| Frame { module: None, kind: FrameKind::ReturnAddress, address };
    Backtrace { frames: vec![frame(7), frame(100 + id), frame(99)], ending: Ending::Complete, by_frame_pointer: false }
}

fn no_limits() -> Limits {
    Limits::none(Duration::from_secs(5))
}

/// Writes a run as a session does, to memory: a sample for each second, the end.
struct Run {
    tracker: Tracker,
    writer: Writer,
    log: Option<EventLog>,
    stacks: u32,
    now: u64,
    next: u64,
}

impl Run {
    fn new(limit: u64, is_full: bool) -> Run {
        let mut writer = Writer::begin(Storage::Memory(Vec::new()), limit, begin()).expect("written to memory");
        writer.references(&references()).expect("written to memory");
        let log = is_full.then(EventLog::default);
        Run { tracker: Tracker::new(no_limits()), writer, log, stacks: 0, now: 0, next: SECOND }
    }

    fn event(&mut self, passes: u64, event: Event) {
        let stack = match event {
            Event::Allocated { stack, .. } | Event::Reallocated { stack, .. } | Event::Mapped { stack, .. } => {
                Some(stack)
            }
            _ => None,
        };
        while stack.is_some_and(|stack| stack.0 >= self.stacks) {
            self.writer.stack(StackId(self.stacks), &backtrace(self.stacks.into())).expect("written to memory");
            self.stacks += 1;
        }
        self.now += passes;
        if self.now >= self.next {
            self.tracker.event(Timestamp(self.next), Event::Idle);
            self.sample();
            self.next = (self.now / SECOND + 1) * SECOND;
        }
        self.tracker.event(Timestamp(self.now), event);
        self.tracker.drain_findings();
        if let Some(log) = &mut self.log {
            log.push(Timestamp(self.now), event);
        }
    }

    fn sample(&mut self) {
        match &mut self.log {
            Some(log) => {
                let log = log.take();
                self.writer.events(log).expect("written to memory");
            }
            None => self.writer.sample(&Sample::take(&mut self.tracker)).expect("written to memory"),
        }
    }

    fn snapshot(&mut self) {
        self.sample();
        self.writer.snapshot("signal").expect("written to memory");
    }

    fn end(&mut self) -> Vec<u8> {
        self.tracker.event(Timestamp(self.now), Event::Idle);
        self.sample();
        if self.log.is_none() {
            self.writer.sample(&Sample::take_last(&mut self.tracker, Vec::new())).expect("written to memory");
        }
        self.writer.end(Timestamp(self.now), "The program ended.").expect("written to memory");
        self.contents()
    }

    fn contents(&mut self) -> Vec<u8> {
        self.writer.contents().expect("in memory")
    }
}

fn ledger(run: &Run) -> Profile {
    run.writer.ledger().expect("it is kept").profile(&mut |_| None)
}

fn profile(bytes: &[u8]) -> Profile {
    replay(bytes, None).expect("a recording").into_profile(&mut |_| None)
}

fn runs() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let address = || (1_u64..40).prop_map(|place| place * 16);
    let stack = || (0_u32..6).prop_map(StackId);
    let size = || prop_oneof![0_u64..50, 1_000_u64..100_000];
    let event = prop_oneof![
        6 => (address(), size(), stack()).prop_map(|(address, size, stack)| Event::Allocated { address, size, stack }),
        5 => address().prop_map(|address| Event::Freed { address }),
        1 => (0_u64..3, address()).prop_map(|(call, address)| Event::Reallocating { call: CallId(call), address }),
        1 => (0_u64..3, address(), size(), stack()).prop_map(|(call, address, size, stack)| Event::Reallocated {
            call: CallId(call),
            address,
            size,
            stack
        }),
        1 => Just(Event::Lost(Loss::NeverReturned, 2)),
        1 => Just(Event::UnknownFrees(3)),
        2 => (0_u32..2, 1_u64..9).prop_map(|(reference, count)| Event::Called { reference, count }),
        1 => Just(Event::Replaced),
    ];
    proptest::collection::vec((prop_oneof![3 => 0_u64..1000, 2 => 0..3 * SECOND], event), 1..300)
}

/// All but how the peak and the growth are told, which is coarser where moments were left out.
fn equal_at_the_end(one: &Profile, other: &Profile) -> Result<(), TestCaseError> {
    prop_assert_eq!(&one.sites.len(), &other.sites.len());
    for (one, other) in one.sites.iter().zip(&other.sites) {
        prop_assert_eq!(
            &crate::profile::Site { growth: Vec::new(), ..one.clone() },
            &crate::profile::Site { growth: Vec::new(), ..other.clone() }
        );
        let live = |site: &crate::profile::Site| site.growth.last().map(|last| last.1).unwrap_or_default();
        prop_assert_eq!(live(one), live(other));
    }
    prop_assert_eq!(one.peak, other.peak);
    prop_assert_eq!(&one.blocks, &other.blocks);
    prop_assert_eq!(&one.losses, &other.losses);
    prop_assert_eq!(one.unknown_frees, other.unknown_frees);
    prop_assert_eq!(&one.snapshots, &other.snapshots);
    prop_assert_eq!(&one.run, &other.run);
    // Calls belong to their moments, and some of those may be left out.
    for (one, other) in [(one, other), (other, one)] {
        for (reference, more) in one.references.iter().zip(&other.references) {
            let of_other: Vec<_> = other.timeline.iter().map(|moment| moment.at).zip(&more.counts).collect();
            for (moment, count) in one.timeline.iter().map(|moment| moment.at).zip(&reference.counts) {
                if of_other.iter().any(|(at, _)| *at == moment) {
                    prop_assert!(of_other.contains(&(moment, count)), "{moment:?} {count} {of_other:?}");
                }
            }
            prop_assert_eq!(reference.counts.last(), more.counts.last());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_the_tracker_had(run in runs(), snapshot_at in 0_usize..300) {
        let mut written = Run::new(LIMIT, false);
        let mut full = Run::new(LIMIT, true);
        let mut thinned = Run::new(1500, false);
        for (index, (passes, event)) in run.into_iter().enumerate() {
            for run in [&mut written, &mut full, &mut thinned] {
                run.event(passes, event);
                if index == snapshot_at {
                    run.snapshot();
                }
            }
        }
        let read = profile(&written.end());
        let end = Timestamp(written.now);
        let oldest = written.tracker.oldest();
        let accounts = (0..written.stacks).map(StackId).filter(|stack| oldest.len() > stack.0 as usize);
        let accounts: Vec<_> = accounts.map(|stack| (written.tracker.account(stack), oldest[stack.0 as usize])).collect();
        let known = accounts.iter().filter(|(account, _)| account.allocated.count > 0 || account.expired.count > 0);
        for (site, (account, oldest)) in read.sites.iter().zip(known) {
            prop_assert_eq!(site.allocated, account.allocated);
            prop_assert_eq!(site.live, account.live);
            prop_assert_eq!(site.freed, account.allocated.without(account.live));
            prop_assert_eq!(site.expired, account.expired);
            prop_assert_eq!(site.freed_expired, account.freed_expired);
            prop_assert_eq!(site.at_peak, account.at_peak);
            prop_assert_eq!(site.temporary, Some(account.temporary));
            prop_assert_eq!(site.sizes.as_ref(), Some(&account.sizes));
            prop_assert_eq!(site.lifetimes.as_ref(), Some(&account.lifetimes));
            prop_assert_eq!(site.oldest, oldest.map(|oldest| end.since(oldest)));
            let ages = site.ages.as_ref().expect("the last sample has them");
            prop_assert_eq!(ages.count(), site.live.count);
            let bucket = site.oldest.map(|oldest| (u64::BITS - oldest.as_secs().leading_zeros()) as usize);
            prop_assert_eq!(ages.buckets().len().checked_sub(1), bucket);
        }
        prop_assert_eq!(read.references.len(), 2);
        for (number, reference) in read.references.iter().enumerate() {
            prop_assert!(reference.counts.is_sorted() && reference.counts.len() == read.timeline.len());
            let called = written.tracker.calls().get(number).copied().unwrap_or(0);
            prop_assert_eq!(reference.counts.last().copied().unwrap_or(0), called);
        }
        // Shares of the peak and of snapshots add up to the whole.
        if let Some(peak) = read.peak {
            let shares = read.sites.iter().map(|site| site.at_peak).fold(Tally::default(), Tally::plus);
            prop_assert_eq!(shares, peak.live);
        }
        for snapshot in &read.snapshots {
            let shares = snapshot.live.iter().map(|(_, live)| *live).fold(Tally::default(), Tally::plus);
            prop_assert_eq!(shares, snapshot.moment.live);
        }
        equal_at_the_end(&read, &profile(&full.end()))?;
        equal_at_the_end(&read, &profile(&thinned.end()))?;
    }

    #[test]
    fn the_ledger_tells_at_any_time_what_the_recording_does(run in runs(), asked_at in 0_usize..300) {
        let mut written = Run::new(LIMIT, false);
        written.writer.keep_ledger(begin());
        written.writer.references(&references()).expect("written to memory");
        for (index, (passes, event)) in run.into_iter().enumerate() {
            written.event(passes, event);
            if index == asked_at {
                written.snapshot();
                let mut told = ledger(&written);
                prop_assert_eq!(told.run.ending.take(), Some("Monitoring goes on.".to_owned()));
                prop_assert_eq!(told, profile(&written.contents()));
            }
        }
        let recorded = profile(&written.end());
        prop_assert_eq!(ledger(&written), recorded);
    }

    #[test]
    fn a_damaged_recording_is_read_as_far_as_it_is_whole(
        run in runs(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        is_full in any::<bool>(),
    ) {
        let mut written = Run::new(LIMIT, is_full);
        for (passes, event) in run {
            written.event(passes, event);
        }
        let mut bytes = written.end();
        for (place, value) in places {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len()));
        if let Some(replayed) = replay(&bytes, None) {
            let profile = replayed.into_profile(&mut |_| None);
            prop_assert!(profile.weigh(&View::Leaks).is_ok());
        }
    }
}

/// A program that allocates all the time at many places, and lets what it allocates go after a while.
fn busy(run: &mut Run, seconds: u64, stacks: u32) {
    for second in 0..seconds {
        for stack in 0..stacks {
            let address = u64::from(stack) * 64 + 0x1000;
            run.event(0, Event::Allocated { address, size: 16 + second, stack: StackId(stack) });
            if second % 7 != 0 {
                run.event(0, Event::Freed { address });
            }
        }
        run.event(SECOND, Event::Idle);
    }
}

#[test]
fn a_long_run_stays_within_its_limit_and_keeps_its_peak() {
    let limit = 30_000;
    let (mut short, mut whole) = (Run::new(limit, false), Run::new(u64::MAX, false));
    for run in [&mut short, &mut whole] {
        busy(run, 600, 40);
    }
    let (short, whole) = (short.end(), whole.end());
    assert!(whole.len() > 10 * short.len(), "{} is not much longer than {}", whole.len(), short.len());
    assert!(short.len() as u64 <= limit + limit / 5, "{} bytes", short.len());
    equal_at_the_end(&profile(&short), &profile(&whole)).expect("the same at the end");
    assert!(profile(&short).timeline.len() > 10);
    assert!(profile(&whole).timeline.len() <= 1000);
}

#[test]
fn the_last_whole_second_is_there_when_the_writer_is_killed() {
    let mut run = Run::new(LIMIT, false);
    busy(&mut run, 20, 3);
    let bytes = run.contents();
    for cut in 0..bytes.len() {
        let Some(replayed) = replay(&bytes[..cut], None) else { continue };
        let profile = replayed.into_profile(&mut |_| None);
        assert_eq!(profile.run.ending, None);
        assert!(!profile.remarks.iter().any(|remark| remark.contains("damaged")), "{:?}", profile.remarks);
    }
    let profile = profile(&bytes);
    assert_eq!(profile.run.monitored, Duration::from_secs(20));
    assert_eq!(profile.sites[0].allocated.count, 20);
}

#[test]
fn one_damaged_moment_leaves_the_others() {
    let mut run = Run::new(LIMIT, false);
    busy(&mut run, 20, 3);
    let mut bytes = run.end();
    let whole = profile(&bytes);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    let damaged = profile(&bytes);
    assert!(damaged.remarks[0].contains("damaged in 1 place"), "{:?}", damaged.remarks);
    assert_eq!(damaged.timeline.len(), whole.timeline.len() - 1);
    assert_eq!(damaged.sites[0].allocated, whole.sites[0].allocated);
}

#[test]
fn names_are_read_where_they_were_written() {
    let mut run = Run::new(LIMIT, false);
    busy(&mut run, 3, 2);
    let name = |frame: &Frame| {
        let function = Function {
            name: format!("function_{}", frame.address),
            raw: "raw".into(),
            offset: Some(3),
            file: Some("a.c".into()),
            line: Some(12),
            inlined: false,
        };
        Arc::new(NamedFrame {
            address: frame.address,
            module: String::new(),
            offset: frame.address,
            functions: vec![function],
        })
    };
    run.writer.names(name).expect("written to memory");
    let named = replay(&run.end(), None).expect("a recording").into_profile(&mut |_| panic!("all names are there"));
    assert_eq!(
        named.sites[1].stack.calls().map(|call| call.to_string()).collect::<Vec<_>>(),
        ["function_7 [a.c:12]", "function_101 [a.c:12]", "function_99 [a.c:12]"]
    );
}

#[test]
fn single_events_can_be_asked_for_another_expiry_time() {
    let mut run = Run::new(LIMIT, true);
    busy(&mut run, 20, 1);
    let bytes = run.end();
    let expired = |expire| {
        let replayed = replay(&bytes, Some(Duration::from_secs(expire))).expect("a recording");
        replayed.into_profile(&mut |_| None).sites[0].expired.count
    };
    assert_eq!((expired(1), expired(100)), (3, 0));
    let mut run = Run::new(LIMIT, false);
    busy(&mut run, 20, 1);
    let replayed = replay(&run.end(), Some(Duration::from_secs(1))).expect("a recording");
    let remarks = replayed.into_profile(&mut |_| None).remarks;
    assert!(remarks[0].contains("only a recording made with --full"), "{remarks:?}");
}

#[test]
fn a_file_is_written_anew_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.memleax");
    let mut run = Run::new(0, false);
    run.writer = Writer::begin(Storage::create(&path).expect("a file"), 5_000, begin()).expect("written");
    busy(&mut run, 500, 5);
    run.end();
    let length = std::fs::metadata(&path).expect("a file").len();
    assert!(length < 10_000, "{length} bytes");
    let profile = read(&path, None).expect("a recording").into_profile(&mut |_| None);
    assert_eq!(profile.sites[4].allocated.count, 500);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

#[test]
fn what_is_no_recording_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a file");
        read(&path, None).expect_err("no recording").to_string()
    };
    assert!(refused(b"").contains("it is no recording of memleax"));
    assert!(refused(b"something else entirely").contains("it is no recording of memleax"));
    assert!(refused(b"memleax\n\x63\x00\x00\x00").contains("its format is version 99"));
    assert!(refused(b"memleax\n\x01\x00\x00\x00").contains("its first record is lost"));
    let missing = read(&folder.path().join("none"), None).expect_err("no file").to_string();
    assert!(missing.starts_with("cannot read the recording ") && missing.contains("No such file"), "{missing}");
}

#[test]
fn a_recording_begins_with_what_is_watched_and_tells_stacks_before_they_are_named() {
    let mut run = Run::new(LIMIT, false);
    busy(&mut run, 2, 1);
    let bytes = run.end();
    let kinds = Chunks::new(&bytes).map(|found| match found {
        Found::Record(Record::Begin(_)) => 'b',
        Found::Record(Record::Frames(_)) => 'f',
        Found::Record(Record::Stack(_)) => 's',
        Found::Record(Record::Sample(_)) => '.',
        Found::Record(Record::Blocks(_)) => 'o',
        Found::Record(Record::Ages(_)) => 'a',
        Found::Record(Record::References(_)) => 'r',
        Found::Record(Record::End(_)) => 'e',
        _ => '?',
    });
    assert_eq!(kinds.collect::<String>(), "brfs....ae");
}

#[test]
fn the_ledger_does_not_grow_with_time() {
    let (mut run, mut whole) = (Run::new(u64::MAX, false), Run::new(u64::MAX, false));
    run.writer.keep_ledger(begin());
    run.writer.references(&references()).expect("written to memory");
    for run in [&mut run, &mut whole] {
        busy(run, 5_000, 3);
    }
    let ledger = ledger(&run);
    let mut recorded = profile(&whole.contents());
    recorded.run.ending.clone_from(&ledger.run.ending);
    equal_at_the_end(&ledger, &recorded).expect("the same at the end");
    assert!((500..=1001).contains(&ledger.timeline.len()), "{}", ledger.timeline.len());
    assert_eq!(ledger.timeline.last(), recorded.timeline.last());
}

#[test]
fn a_recording_that_cannot_go_on_does_not_hold_up_the_ledger() {
    let mut run = Run::new(LIMIT, false);
    run.writer.keep_ledger(begin());
    run.writer.references(&references()).expect("written to memory");
    busy(&mut run, 5, 1);
    let before = run.contents();
    run.writer.give_up();
    busy(&mut run, 5, 1);
    assert_eq!(run.contents(), before);
    assert_eq!(ledger(&run).sites[0].allocated.count, 10);
}
