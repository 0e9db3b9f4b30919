//! What was written for programs that were made up, read as heaptrack reads it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{MAX_CALLS, write_at_most};
use crate::event::{Ending, Tally, Timestamp};
use crate::profile::{Moment, Profile, Site, sample};
use crate::symbol::{NamedFrame, NamedStack};

/// What a program does.
#[derive(Clone, Debug)]
enum Act {
    Allocate {
        site: usize,
        size: u64,
    },
    /// One of the live blocks.
    Free(usize),
    /// One of the live blocks, which stays what it is.
    Resize {
        block: usize,
        size: u64,
    },
    /// Somebody looks.
    Moment,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..3_usize, 0..100_u64).prop_map(|(site, size)| Act::Allocate { site, size }),
        4 => (0..1000_usize).prop_map(Act::Free),
        1 => (0..1000_usize, 0..100_u64).prop_map(|(block, size)| Act::Resize { block, size }),
        1 => Just(Act::Moment),
    ]
}

/// The true numbers of a program, as an exact source tells them.
struct Run {
    profile: Profile,
    /// By site: temporary blocks that were live when somebody looked, or at the peak.
    caught: [u64; 3],
    /// By site: a block grew or shrank.
    resized: [bool; 3],
}

fn run(acts: &[Act]) -> Run {
    let frame = |offset| Arc::new(NamedFrame { address: offset, module: "/p".into(), offset, functions: Vec::new() });
    let mut profile = sample::profile();
    let empty = Site {
        allocated: Tally::default(),
        freed: Tally::default(),
        live: Tally::default(),
        at_peak: Tally::default(),
        temporary: Some(Tally::default()),
        growth: Vec::new(),
        ..profile.sites[2].clone()
    };
    let site = |index: u64| Site {
        stack: NamedStack {
            frames: vec![frame(1), frame(100 + index)],
            ending: Ending::Complete,
            by_frame_pointer: false,
        },
        ..empty.clone()
    };
    profile.sites = (0..3).map(site).collect();
    (profile.timeline, profile.peak) = (Vec::new(), None);
    let mut blocks: Vec<(usize, u64, usize)> = Vec::new();
    let mut temporary: Vec<(usize, usize, usize)> = Vec::new();
    let mut resized = [false; 3];
    let (mut allocated, mut live, mut last) = (Tally::default(), Tally::default(), None);
    for (time, act) in acts.iter().enumerate() {
        let at = Timestamp(time as u64 * 1_000_000);
        match *act {
            Act::Allocate { site: index, size } => {
                let one = Tally { count: 1, bytes: size };
                blocks.push((index, size, time));
                last = Some(time);
                let site = &mut profile.sites[index];
                site.allocated = site.allocated.plus(one);
                site.live = site.live.plus(one);
                (allocated, live) = (allocated.plus(one), live.plus(one));
                look(&mut profile, at, allocated, live);
            }
            Act::Free(which) if !blocks.is_empty() => {
                let (index, size, born) = blocks.swap_remove(which % blocks.len());
                let one = Tally { count: 1, bytes: size };
                let site = &mut profile.sites[index];
                site.freed = site.freed.plus(one);
                site.live = site.live.without(one);
                live = live.without(one);
                if last == Some(born) {
                    site.temporary = site.temporary.map(|tally| tally.plus(one));
                    temporary.push((index, born, time));
                }
            }
            Act::Resize { block, size } if !blocks.is_empty() => {
                let block = block % blocks.len();
                let (index, before, _) = blocks[block];
                blocks[block].1 = size;
                let (before, after) = (Tally { count: 1, bytes: before }, Tally { count: 1, bytes: size });
                let site = &mut profile.sites[index];
                site.live = site.live.without(before).plus(after);
                live = live.without(before).plus(after);
                resized[index] = true;
                look(&mut profile, at, allocated, live);
            }
            Act::Free(_) | Act::Resize { .. } => {}
            Act::Moment => {
                let index = profile.timeline.len();
                profile.timeline.push(Moment { at, allocated, live });
                for site in &mut profile.sites {
                    if site.growth.last().map_or(Tally::default(), |&(_, tally)| tally) != site.live {
                        site.growth.push((index, site.live));
                    }
                }
            }
        }
    }
    profile.run.monitored = Duration::from_millis(acts.len() as u64);
    let mut caught = [0; 3];
    for (site, born, gone) in temporary {
        let looks = profile.timeline.iter().chain(&profile.peak).map(|moment| moment.at.0 / 1_000_000);
        caught[site] += u64::from(looks.into_iter().any(|at| (born..gone).contains(&(at as usize))));
    }
    Run { profile, caught, resized }
}

fn look(profile: &mut Profile, at: Timestamp, allocated: Tally, live: Tally) {
    if live.bytes > profile.peak.map_or(0, |peak| peak.live.bytes) {
        profile.peak = Some(Moment { at, allocated, live });
        profile.sites.iter_mut().for_each(|site| site.at_peak = site.live);
    }
}

/// What heaptrack makes of a call stack.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Account {
    calls: u64,
    temporary: u64,
    leaked: i64,
    peak: i64,
}

/// By trace, and in all. The rules are those of `AccumulatedTraceData::read`.
fn read(text: &str) -> (HashMap<u64, Account>, Account) {
    let mut infos: Vec<(i64, u64)> = Vec::new();
    let mut accounts: HashMap<u64, Account> = HashMap::new();
    let (mut total, mut last) = (Account::default(), 0);
    for line in text.lines() {
        let number = |place| u64::from_str_radix(line.split(' ').nth(place).expect("a field"), 16).expect("a number");
        match line.as_bytes()[0] {
            b'a' => infos.push((number(1).cast_signed(), number(2))),
            b'+' => {
                let (size, trace) = infos[number(1) as usize];
                last = number(1);
                let account = accounts.entry(trace).or_default();
                account.calls += 1;
                account.leaked += size;
                total.calls += 1;
                total.leaked += size;
                if total.leaked > total.peak {
                    total.peak = total.leaked;
                    accounts.values_mut().for_each(|account| account.peak = account.leaked);
                }
            }
            b'-' => {
                let (size, trace) = infos[number(1) as usize];
                let temporary = u64::from(last == number(1));
                last = 0;
                let account = accounts.entry(trace).or_default();
                account.leaked -= size;
                account.temporary += temporary;
                total.leaked -= size;
                total.temporary += temporary;
            }
            _ => {}
        }
    }
    (accounts, total)
}

fn written(max: u64, profile: &Profile) -> (String, Vec<String>) {
    let mut output = Vec::new();
    let left_out = write_at_most(max, profile, &mut output).expect("a writer that takes all");
    (String::from_utf8(output).expect("text"), left_out)
}

proptest! {
    #[test]
    fn heaptrack_counts_what_we_count(acts in prop::collection::vec(act(), 0..200)) {
        let Run { profile, caught, resized } = run(&acts);
        let (text, left_out) = written(MAX_CALLS, &profile);
        let (accounts, total) = read(&text);
        // Each call stack has one frame besides the allocator's.
        for ((trace, site), (caught, resized)) in (1..).zip(&profile.sites).zip(caught.into_iter().zip(resized)) {
            let temporary = site.temporary.unwrap_or_default().count;
            let found = accounts.get(&trace).copied().unwrap_or_default();
            let least = if resized { 0 } else { temporary - caught };
            prop_assert!((least..=temporary).contains(&found.temporary), "trace {}\n{}", trace, text);
            prop_assert!(found.calls >= site.allocated.count);
            let expected = Account {
                calls: if resized { found.calls } else { site.allocated.count },
                temporary: found.temporary,
                leaked: site.live.bytes.cast_signed(),
                peak: site.at_peak.bytes.cast_signed(),
            };
            prop_assert_eq!(found, expected, "trace {}\n{}", trace, text);
        }
        prop_assert_eq!(total.peak.cast_unsigned(), profile.peak.map_or(0, |peak| peak.live.bytes));
        let calls: u64 = profile.sites.iter().map(|site| site.allocated.count).sum();
        prop_assert_eq!(total.calls > calls, left_out.iter().any(|text| text.contains("more than there were")));
    }

    #[test]
    fn a_share_of_the_calls_leaves_the_bytes_whole(acts in prop::collection::vec(act(), 20..200)) {
        let Run { profile, .. } = run(&acts);
        let (text, left_out) = written(10, &profile);
        let (_, total) = read(&text);
        let calls: u64 = profile.sites.iter().map(|site| site.allocated.count).sum();
        prop_assert_eq!(left_out.first().is_some_and(|text| text.contains("its share")), calls > 10);
        prop_assert_eq!(total.leaked.cast_unsigned(), profile.sites.iter().map(|site| site.live.bytes).sum::<u64>());
        prop_assert_eq!(total.peak.cast_unsigned(), profile.peak.map_or(0, |peak| peak.live.bytes));
    }
}

#[test]
fn a_temporary_block_may_be_the_peak() {
    let acts = [Act::Allocate { site: 0, size: 7 }, Act::Allocate { site: 1, size: 90 }, Act::Free(1), Act::Moment];
    let (accounts, total) = read(&written(MAX_CALLS, &run(&acts).profile).0);
    assert_eq!(total, Account { calls: 2, temporary: 1, leaked: 7, peak: 97 });
    assert_eq!(accounts[&2], Account { calls: 1, temporary: 1, leaked: 0, peak: 90 });
}

#[test]
fn a_hundred_million_calls_are_no_gigabyte() {
    let mut profile = sample::profile();
    let many = 100_000_000;
    profile.sites[1].allocated = Tally { count: many, bytes: many * 2_000 };
    profile.sites[1].freed = profile.sites[1].allocated;
    let mut length = 0;
    let left_out = write_at_most(MAX_CALLS, &profile, &mut Counted(&mut length)).expect("a writer that takes all");
    assert!(length < 60_000_000, "{length} bytes");
    assert!(left_out[0].starts_with("The file has about 4000000 of 100000011 calls"), "{left_out:?}");
}

struct Counted<'a>(&'a mut usize);

impl std::io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
