//! A small profile with everything that formats may stumble over, for their tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{LiveBlock, Module, Moment, Profile, Reference, Run, Site, Snapshot};
use crate::event::{Ending, Loss, Tally, Timestamp};
use crate::histogram::Histogram;
use crate::symbol::{Function, NamedFrame, NamedStack};

fn frame(module: &str, offset: u64, functions: Vec<Function>) -> Arc<NamedFrame> {
    let bias = if module.is_empty() { 0 } else { 0x5555_5555_0000 };
    Arc::new(NamedFrame { address: bias + offset, module: module.into(), offset, functions })
}

fn function(name: &str, raw: &str, offset: Option<u64>, line: Option<u32>) -> Function {
    Function {
        name: name.into(),
        raw: raw.into(),
        offset,
        file: line.map(|_| "/src/server.cpp".into()),
        line,
        inlined: offset.is_none(),
    }
}

fn tally(count: u64, bytes: u64) -> Tally {
    Tally { count, bytes }
}

fn histogram(values: &[u64]) -> Option<Histogram> {
    let mut histogram = Histogram::default();
    values.iter().for_each(|&value| histogram.add(value));
    Some(histogram)
}

/// Three sites: one that leaks, below an inlined function; one that frees all, whose names are hostile; one that ends in unknown code.
pub(crate) fn profile() -> Profile {
    let malloc = frame("/usr/lib/libc.so.6", 0x9a930, vec![function("malloc", "malloc", Some(0), None)]);
    let main = frame("/srv/server", 0x1180, vec![function("main", "main", Some(36), Some(80))]);
    let serve = frame(
        "/srv/server",
        0x1250,
        vec![
            function("Pool::take(int)", "_ZN4Pool4takeEi", None, Some(12)),
            function("serve(std::vector<int> const&)", "_Z5serveRKSt6vectorIiE", Some(14), Some(44)),
        ],
    );
    let hostile = frame("/srv/server", 0x1300, vec![function("evil;\n<b>\"&\u{1b}[31m λ", "evil", Some(1), Some(7))]);
    let stripped = frame("/srv/plug in.so", 0x4242, Vec::new());
    let unknown = frame("", 0x7fff_1234_5678, Vec::new());
    let stack = |frames: Vec<Arc<NamedFrame>>, ending| NamedStack { frames, ending, by_frame_pointer: false };
    let sites = vec![
        Site {
            stack: stack(vec![malloc.clone(), serve, main.clone()], Ending::Complete),
            allocated: tally(10, 1_280),
            freed: tally(2, 256),
            live: tally(8, 1_024),
            expired: tally(7, 896),
            freed_expired: tally(1, 128),
            at_peak: tally(6, 768),
            temporary: Some(tally(1, 128)),
            sizes: histogram(&[128; 10]),
            lifetimes: histogram(&[1_000, 2_000_000_000]),
            lives: Some((Duration::from_nanos(1_000), Duration::from_nanos(1_000_000_500), Duration::from_secs(2))),
            ages: histogram(&[0, 1, 1, 3, 3, 9, 9, 9]),
            oldest: Some(Duration::from_secs(9)),
            growth: vec![(0, tally(1, 128)), (1, tally(6, 768)), (2, tally(8, 1_024))],
        },
        Site {
            stack: stack(vec![malloc.clone(), hostile, stripped, main], Ending::Complete),
            allocated: tally(3, 6_000),
            freed: tally(3, 6_000),
            live: tally(0, 0),
            expired: tally(0, 0),
            freed_expired: tally(0, 0),
            at_peak: tally(2, 4_000),
            temporary: Some(tally(0, 0)),
            sizes: histogram(&[2_000; 3]),
            lifetimes: histogram(&[5_000_000, 6_000_000, 7_000_000]),
            lives: Some((Duration::from_millis(5), Duration::from_millis(6), Duration::from_millis(7))),
            ages: histogram(&[]),
            oldest: None,
            growth: vec![(1, tally(2, 4_000)), (2, tally(0, 0))],
        },
        Site {
            stack: stack(vec![malloc, unknown], Ending::UnknownCode),
            allocated: tally(1, 0),
            freed: tally(0, 0),
            live: tally(1, 0),
            expired: tally(1, 0),
            freed_expired: tally(0, 0),
            at_peak: tally(1, 0),
            temporary: Some(tally(0, 0)),
            sizes: histogram(&[0]),
            lifetimes: histogram(&[]),
            lives: None,
            ages: histogram(&[10]),
            oldest: Some(Duration::from_secs(10)),
            growth: vec![(0, tally(1, 0))],
        },
    ];
    let moment = |at, allocated, live| Moment { at: Timestamp(at), allocated, live };
    let peak = moment(5_000_000_000, tally(9, 4_768), tally(9, 4_768));
    Profile {
        run: Run {
            pid: 4321,
            command: vec!["/srv/server".into(), "--port".into(), "80".into()],
            executable: "/srv/server".into(),
            backend: "ptrace".into(),
            version: "0.1.0".into(),
            started: 1_700_000_000_000_000_000,
            monitored: Duration::from_secs(10),
            expire: Duration::from_secs(1),
            launched: true,
            by_event: true,
            ending: Some("The program ended with status 0.".into()),
        },
        modules: vec![
            Module {
                path: "/srv/server".into(),
                build_id: vec![0xab; 20],
                range: 0x5555_5555_0000..0x5555_5555_3000,
                bias: 0x5555_5555_0000,
                file_offset: 0,
            },
            Module {
                path: "/usr/lib/libc.so.6".into(),
                build_id: vec![0x12, 0x34],
                range: 0x5555_5555_4000..0x5555_5570_0000,
                bias: 0x5555_5555_0000,
                file_offset: 0,
            },
            Module {
                path: "/srv/plug in.so".into(),
                build_id: Vec::new(),
                range: 0x5555_5580_0000..0x5555_5581_0000,
                bias: 0x5555_5555_0000,
                file_offset: 0,
            },
        ],
        sites,
        timeline: vec![
            moment(1_000_000_000, tally(2, 128), tally(2, 128)),
            peak,
            moment(10_000_000_000, tally(14, 7_280), tally(9, 1_024)),
        ],
        references: vec![Reference { name: "handle_request".into(), counts: vec![2, 60, 100] }],
        peak: Some(peak),
        snapshots: vec![Snapshot {
            cause: "signal".into(),
            moment: peak,
            live: vec![(0, tally(6, 768)), (1, tally(2, 4_000)), (2, tally(1, 0))],
        }],
        blocks: vec![LiveBlock { address: 0x5555_6000_1000, size: 128, age: Duration::from_secs(9), site: 0 }],
        unknown_frees: 3,
        resized: tally(2, 96),
        losses: BTreeMap::from([(Loss::NeverReturned, 2)]),
        remarks: vec!["Names of one library are missing.".into()],
        of: None,
        objects: Vec::new(),
    }
}

/// The same, with a type of objects: connections, without sizes, at the first and the last of its call stacks.
pub(crate) fn with_objects() -> Profile {
    let whole = profile();
    let mut objects = Profile { of: Some("conn".into()), ..whole.clone() };
    objects.losses.clear();
    objects.remarks.clear();
    let no_bytes = |tally: &mut Tally| tally.bytes = 0;
    for site in &mut objects.sites {
        let Site { allocated, freed, live, expired, freed_expired, at_peak, .. } = site;
        [allocated, freed, live, expired, freed_expired, at_peak].into_iter().for_each(no_bytes);
        site.temporary.iter_mut().for_each(no_bytes);
        site.growth.iter_mut().for_each(|(_, tally)| no_bytes(tally));
    }
    for moment in objects.timeline.iter_mut().chain(&mut objects.peak) {
        [&mut moment.allocated, &mut moment.live].into_iter().for_each(no_bytes);
    }
    for snapshot in &mut objects.snapshots {
        [&mut snapshot.moment.allocated, &mut snapshot.moment.live].into_iter().for_each(no_bytes);
        snapshot.live.iter_mut().for_each(|(_, tally)| no_bytes(tally));
    }
    objects.blocks.iter_mut().for_each(|block| block.size = 0);
    Profile { objects: vec![objects], ..whole }
}
