//! A recording of 100 million events: how large it gets, and how long a report of it takes. The goals: below 50 MB, below 5 s.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use memleax::config::Limits;
use memleax::event::{Backtrace, Ending, Event, Frame, FrameKind, Sink, StackId, Timestamp};
use memleax::profile::View;
use memleax::recording::{Begin, LIMIT, Sample, Storage, Writer};
use memleax::rendering::{self, Reading};
use memleax::report::Format;
use memleax::tracker::Tracker;

const EVENTS: u64 = 100_000_000;
const STACKS: u32 = 5_000;
const FRAMES: u64 = 20;
const LIVE: u64 = 100_000;
/// A million events a second.
const NANOSECONDS: u64 = 1_000;
const SECOND: u64 = 1_000_000_000;

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

fn backtrace(random: &mut Random) -> Backtrace {
    let frame = |address| Frame { module: None, kind: FrameKind::ReturnAddress, address };
    let frames = (0..FRAMES).map(|depth| frame(0x40_0000 + depth * 0x1000 + random.below(300) * 8)).collect();
    Backtrace { frames, ending: Ending::Complete, by_frame_pointer: false }
}

fn record(path: &Path) -> io::Result<Duration> {
    let begin = Begin { expire: 10 * SECOND, by_event: true, launched: true, ..Begin::default() };
    let mut writer = Writer::begin(Storage::create(path)?, LIMIT, begin)?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for id in 0..STACKS {
        writer.stack(StackId(id), &backtrace(&mut random))?;
    }
    let limits = Limits::none(Duration::from_secs(10));
    let mut tracker = Tracker::new(limits);
    let mut writing = Duration::ZERO;
    for event in 0..EVENTS / 2 {
        let at = Timestamp(2 * event * NANOSECONDS);
        let address = 0x7F00_0000_1000 + random.below(LIVE) * 64;
        let stack = StackId(u32::try_from(random.below(STACKS.into())).unwrap_or(0));
        tracker.event(at, Event::Freed { address });
        tracker.event(at, Event::Allocated { address, size: 16 + random.below(500), stack });
        if at.0.is_multiple_of(SECOND) {
            tracker.drain_findings().for_each(drop);
            let began = Instant::now();
            writer.sample(&Sample::take(&mut tracker))?;
            writing += began.elapsed();
        }
    }
    writer.sample(&Sample::take_last(&mut tracker, Vec::new()))?;
    writer.end(Timestamp(EVENTS * NANOSECONDS), "The process ended with status 0.")?;
    Ok(writing)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.memleax");
    let mut output = io::stdout();
    let writing = record(&path)?;
    let megabytes = std::fs::metadata(&path)?.len() as f64 / 1e6;
    writeln!(
        output,
        "recording: {EVENTS} events of {STACKS} call stacks in {megabytes:.1} MB; written in {writing:.2?} of {} s",
        EVENTS * NANOSECONDS / SECOND
    )?;
    for format in [Format::Text, Format::Json, Format::Html] {
        let began = Instant::now();
        let profile = rendering::read(&path, &Reading::default())?;
        format.write(&profile, &View::Leaks, &mut io::sink())?;
        writeln!(output, "reported as {} in {:.2?}", format.name(), began.elapsed())?;
    }
    Ok(())
}
