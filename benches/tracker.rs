//! What an event costs in the tracker: the goal is 100 ns, 10 million a second.

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use memleax::config::Limits;
use memleax::event::{Event, Sink, StackId, Timestamp};
use memleax::tracker::Tracker;

const EVENTS: u64 = 1 << 20;

/// xorshift64: the same run each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn tracker() -> Tracker {
    let expire = Duration::from_millis(50);
    Tracker::new(Limits::none(expire))
}

/// Pairs of a free of any live block and an allocation at its place, as an allocator's cache does it, 100 ns apart; after
/// as many allocations as blocks stay live.
fn churn(live: u64) -> (Vec<Event>, Vec<Event>) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut allocated = |address| {
        let stack = StackId(u32::try_from(random.below(500)).unwrap_or(0));
        Event::Allocated { address, size: 16 + random.below(500), stack }
    };
    let address = |block: u64| 0x7F00_0000_1000 + block * 48;
    let warm_up = (0..live).map(|block| allocated(address(block))).collect();
    let mut places = Random(42);
    let pairs = (0..EVENTS / 2).flat_map(|_| {
        let address = address(places.below(live));
        [Event::Freed { address }, allocated(address)]
    });
    let pairs = pairs.collect();
    (warm_up, pairs)
}

/// Feeds the events, 100 ns apart, and drops what is found as often as a session would print it.
fn feed(tracker: &mut Tracker, events: &[Event], from: u64) {
    for (at, event) in (from..).zip(events) {
        tracker.event(Timestamp(at * 100), *event);
        if at % 1024 == 0 {
            tracker.drain_findings().for_each(drop);
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tracker");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(20);
    for (name, live) in [("1 live block", 1), ("1,000 live blocks", 1_000), ("100,000 live blocks", 100_000)] {
        let (warm_up, pairs) = churn(live);
        group.bench_function(name, |bencher| {
            let prepared = || {
                let mut tracker = tracker();
                feed(&mut tracker, &warm_up, 0);
                tracker
            };
            let churned = |mut tracker: Tracker| {
                feed(&mut tracker, &pairs, live);
                tracker
            };
            bencher.iter_batched(prepared, churned, BatchSize::LargeInput);
        });
    }
    let leaks = churn(EVENTS).0;
    group.bench_function("leaks that expire", |bencher| {
        let leaked = |mut tracker: Tracker| {
            feed(&mut tracker, &leaks, 0);
            tracker
        };
        bencher.iter_batched(tracker, leaked, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
