//! What finds no room is counted, and told.

use std::collections::{BTreeMap, HashMap};

use memleax_targets::Target;

use super::*;
use crate::event::Tally;

/// What a source told of.
#[derive(Default)]
struct Told {
    totals: HashMap<StackId, Totals>,
    losses: BTreeMap<Loss, u64>,
}

impl Sink for Told {
    fn event(&mut self, _: Timestamp, event: Event) {
        if let Event::Lost(loss, count) = event {
            *self.losses.entry(loss).or_default() += count;
        }
    }

    fn counted(&mut self, _: Timestamp, stack: StackId, totals: &Totals) {
        self.totals.insert(stack, *totals);
    }
}

impl Told {
    fn sum(&self, of: fn(&Totals) -> Tally) -> u64 {
        self.totals.values().map(|totals| of(totals).count).sum()
    }

    fn lost(&self, loss: Loss) -> u64 {
        self.losses.get(&loss).copied().unwrap_or_default()
    }
}

fn check_blocks_without_room(variants: &[Attachment]) {
    const BLOCKS: u64 = 1000;
    let (bucket_bits, overflow) = (4, 64);
    let mut target = Target::c("blocks").start();
    let sizes = Sizes { bucket_bits, overflow, ..SIZES };
    let Some(mut source) = attach(&target, Duration::from_nanos(1), variants, sizes) else { return };
    let mut told = Told::default();
    target.ask(&format!("keep {BLOCKS}"));
    source.detach(&mut told).expect("a source that can be left");
    let room = (8 << bucket_bits) + u64::from(overflow);
    let kept = told.sum(|totals| totals.expired);
    assert_eq!(told.sum(|totals| totals.allocated), BLOCKS);
    assert_eq!(kept + told.lost(Loss::BlockNotKept), BLOCKS, "{:?}", told.losses);
    assert!(kept > 0 && kept <= room, "{kept} of {room} places");
    target.quit();
}

#[test]
fn blocks_without_room_are_told() {
    check_blocks_without_room(BEST);
}

#[test]
fn blocks_without_room_are_told_by_old_programs() {
    check_blocks_without_room(OLD);
}

/// A stack that finds no room in the ring buffer is numbered when it is seen again, however many found none before.
fn check_stacks_without_room(variants: &[Attachment]) {
    // More than there are numbers.
    const BEFORE: u64 = 70_000;
    const LATER: u64 = 2;
    let mut target = Target::c("blocks").start();
    let sizes = Sizes { records: 4096, ..SIZES };
    let Some(mut source) = attach(&target, Duration::from_secs(10), variants, sizes) else { return };
    let mut told = Told::default();
    target.ask(&format!("stacks {BEFORE}"));
    source.observe(&mut told).expect("the target can be observed");
    let (stacks, lost) = (told.totals.len(), told.lost(Loss::StackNotKept));
    assert!(lost > BEFORE - 10, "{lost} stacks without room");
    target.ask(&format!("stacks {LATER}"));
    source.detach(&mut told).expect("a source that can be left");
    assert_eq!(told.totals.len() - stacks, LATER as usize);
    assert_eq!(told.sum(|totals| totals.allocated), BEFORE + LATER);
    assert_eq!(told.sum(|totals| totals.freed), BEFORE + LATER);
    target.quit();
}

#[test]
fn stacks_without_room_are_told_and_found_later() {
    check_stacks_without_room(BEST);
}

#[test]
fn stacks_without_room_are_told_and_found_later_by_old_programs() {
    check_stacks_without_room(OLD);
}

#[test]
fn a_census_takes_at_most_a_twentieth_of_the_time() {
    let seconds = Duration::from_secs;
    assert_eq!(pause(seconds(10), Duration::from_millis(5)), seconds(1));
    assert_eq!(pause(seconds(1), Duration::ZERO), Duration::from_millis(500));
    assert_eq!(pause(seconds(10), seconds(1)), seconds(20));
}
