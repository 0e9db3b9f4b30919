//! The Firefox Profiler's processed format, for <https://profiler.firefox.com>.
//!
//! Version 55, which every later release of the Profiler takes: it upgrades older files when it reads them. Threads stand for the
//! questions one has, as the Profiler's own import of DHAT's files does it:
//!
//! - the process: what was live, at the moments that are known. "Retained memory" is what was never freed; with a span of time selected, what grew
//!   in it and stayed. A block that came and went between two moments is not seen there;
//! - `Allocated`: all bytes, exact, at the time of the end;
//! - `Live at the peak`, at its time;
//! - the view, where it is another.
//!
//! Beside them the memory track draws all live bytes, with the snapshots and the peak as markers; losses and remarks are in the profile's information.

mod live;
mod stacks;
mod tables;

use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use self::stacks::{CATEGORIES, Lib, OTHER, Stacks};
use self::tables::{NativeAllocations, Tables};
use super::format::WriteError;
use super::notes::notes;
use crate::event::Tally;
use crate::profile::{Moment, Profile, View};

/// Milliseconds between samples, of which there are none; what is a moment is so long in the Profiler's eyes.
const INTERVAL: f64 = 1.0;

#[derive(Serialize)]
struct File<'a> {
    meta: Value,
    libs: Vec<Lib>,
    pages: [(); 0],
    counters: [Counter; 1],
    threads: Vec<Thread<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Thread<'a> {
    name: String,
    is_main_thread: bool,
    process_name: &'a str,
    process_type: &'static str,
    pid: String,
    tid: usize,
    process_startup_time: f64,
    process_shutdown_time: Option<f64>,
    register_time: f64,
    unregister_time: Option<f64>,
    paused_ranges: [(); 0],
    show_markers_in_timeline: bool,
    samples: Value,
    markers: Markers,
    native_allocations: NativeAllocations,
    #[serde(flatten)]
    tables: &'a Tables,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Markers {
    length: usize,
    category: Vec<usize>,
    data: Vec<Value>,
    name: Vec<usize>,
    /// 0: a moment. 1: a span.
    phase: Vec<u8>,
    start_time: Vec<f64>,
    end_time: Vec<Option<f64>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counter {
    name: &'static str,
    category: &'static str,
    description: &'static str,
    main_thread_index: usize,
    pid: String,
    samples: CounterSamples,
}

/// What changed from one moment to the next.
#[derive(Serialize, Default)]
struct CounterSamples {
    length: usize,
    /// Milliseconds.
    time: Vec<f64>,
    /// Bytes.
    count: Vec<i64>,
    /// Calls that allocated or freed.
    number: Vec<u64>,
}

/// Writes the whole run.
///
/// # Errors
/// If `view` cannot be had, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    let weighed = profile.weigh(view)?;
    let end = end(profile);
    let mut stacks = Stacks::new(profile);
    let rows: Vec<Option<usize>> = profile.sites.iter().map(|site| stacks.stack(&site.stack)).collect();
    let at = |time: f64, bytes: &dyn Fn(usize) -> u64| {
        let mut table = NativeAllocations::new(false);
        for (index, &row) in rows.iter().enumerate().filter(|(index, _)| bytes(*index) > 0) {
            table.add(time, bytes(index).cast_signed(), row, 0);
        }
        table
    };
    let peak = profile.peak.map_or(end, |peak| milliseconds(peak.at.0.into()));
    let mut series = vec![
        ("Live".to_owned(), live::over_time(profile, &rows)),
        ("Allocated".to_owned(), at(end, &|index| profile.sites[index].allocated.bytes)),
        ("Live at the peak".to_owned(), at(peak, &|index| profile.sites[index].at_peak.bytes)),
    ];
    let selected = match view {
        View::Leaks => 0,
        View::Allocated => 1,
        View::Peak => 2,
        View::Expired | View::Temporary | View::Snapshot(_) | View::Growth { .. } => {
            let mut table = NativeAllocations::new(false);
            let time = match view {
                View::Snapshot(number) => milliseconds(profile.snapshots[number - 1].moment.at.0.into()),
                _ => end,
            };
            for cost in weighed.costs.iter().filter(|cost| cost.change.bytes != 0) {
                table.add(time, cost.change.bytes, rows[cost.index], 0);
            }
            series.push((weighed.label.clone(), table));
            3
        }
    };
    let process_name = profile.run.executable.rsplit('/').next().unwrap_or_default();
    let mut markers = Some(markers(profile, end, &mut stacks));
    let Stacks { tables, libs, .. } = stacks;
    let pid = profile.run.pid.to_string();
    let threads = series.into_iter().enumerate().map(|(index, (name, native_allocations))| Thread {
        name,
        is_main_thread: index == 0,
        process_name,
        process_type: "default",
        pid: pid.clone(),
        tid: profile.run.pid as usize + index,
        process_startup_time: 0.0,
        process_shutdown_time: None,
        register_time: 0.0,
        unregister_time: None,
        paused_ranges: [],
        show_markers_in_timeline: index == 0,
        samples: json!({"length": 0, "stack": [], "time": [], "weight": null, "weightType": "samples"}),
        markers: markers.take().unwrap_or_default(),
        native_allocations,
        tables: &tables,
    });
    let threads: Vec<Thread<'_>> = threads.collect();
    let meta = meta(profile, process_name, end, threads.len(), selected);
    let counters = [Counter {
        name: "malloc",
        category: "Memory",
        description: "Live bytes",
        main_thread_index: 0,
        pid: pid.clone(),
        samples: counter_samples(&profile.timeline),
    }];
    serde_json::to_writer(output, &File { meta, libs, pages: [], counters, threads })?;
    Ok(Vec::new())
}

fn meta(profile: &Profile, process_name: &str, end: f64, threads: usize, selected: usize) -> Value {
    let run = &profile.run;
    let entries = notes(profile).into_iter().map(|note| json!({"label": "Note", "format": "string", "value": note}));
    json!({
        "arguments": run.command.get(1..).unwrap_or_default().join(" "),
        "categories": CATEGORIES,
        "debug": false,
        "extensions": {"length": 0, "baseURL": [], "id": [], "name": []},
        "extra": [{"label": "memleax", "entries": entries.collect::<Vec<_>>()}],
        "importedFrom": format!("memleax {}", run.version),
        "initialSelectedThreads": [selected],
        "initialVisibleThreads": (0..threads).collect::<Vec<_>>(),
        "interval": INTERVAL,
        "keepProfileThreadOrder": true,
        "markerSchema": [{
            "name": "Memory",
            "display": ["marker-chart", "marker-table", "timeline-overview", "timeline-memory"],
            "tooltipLabel": "{marker.name}",
            "tableLabel": "{marker.data.what}",
            "fields": [
                {"key": "what", "label": "What", "format": "string", "searchable": true},
                {"key": "bytes", "label": "Live", "format": "bytes"},
                {"key": "blocks", "label": "Blocks", "format": "integer"},
            ],
        }],
        "pausedRanges": [],
        "preprocessedProfileVersion": 55,
        "processType": 0,
        "product": process_name,
        "profilingStartTime": 0,
        // What happens at the end is in the range: its end is not.
        "profilingEndTime": end + INTERVAL,
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "ns"},
        "sourceCodeIsNotOnSearchfox": true,
        "stackwalk": 1,
        "startTime": milliseconds(run.started.into()),
        "symbolicated": true,
        "usesOnlyOneStackType": true,
        // Of the format before processing, which plays no part.
        "version": 31,
    })
}

/// The run, its peak and its snapshots.
fn markers(profile: &Profile, end: f64, stacks: &mut Stacks<'_>) -> Markers {
    let mut markers = Markers::default();
    let mut add = |name: &str, what: &str, start: f64, end: Option<f64>, live: Tally| {
        markers.length += 1;
        markers.category.push(OTHER);
        markers.data.push(json!({"type": "Memory", "what": what, "bytes": live.bytes, "blocks": live.count}));
        markers.name.push(stacks.string(name));
        markers.phase.push(u8::from(end.is_some()));
        markers.start_time.push(start);
        markers.end_time.push(end);
    };
    let at_end = profile.timeline.last().map_or_else(Tally::default, |moment| moment.live);
    add("Monitoring", profile.run.ending.as_deref().unwrap_or_default(), 0.0, Some(end), at_end);
    if let Some(peak) = profile.peak {
        add("Peak", "high-water mark of live bytes", milliseconds(peak.at.0.into()), None, peak.live);
    }
    for (index, snapshot) in profile.snapshots.iter().enumerate() {
        let Moment { at, live, .. } = snapshot.moment;
        add(&format!("Snapshot {}", index + 1), &snapshot.cause, milliseconds(at.0.into()), None, live);
    }
    markers
}

fn counter_samples(timeline: &[Moment]) -> CounterSamples {
    let mut samples = CounterSamples::default();
    let mut before = Moment::default();
    // The first is the level that changes count from.
    for moment in [Moment::default()].iter().chain(timeline) {
        let calls = |moment: &Moment| moment.allocated.count.wrapping_add(moment.allocated.without(moment.live).count);
        samples.length += 1;
        samples.time.push(milliseconds(moment.at.0.into()));
        samples.count.push(moment.live.bytes.wrapping_sub(before.live.bytes).cast_signed());
        samples.number.push(calls(moment).wrapping_sub(calls(&before)));
        before = *moment;
    }
    samples
}

/// Of the run, in milliseconds.
fn end(profile: &Profile) -> f64 {
    let last = profile.timeline.last().map_or(0, |moment| moment.at.0);
    milliseconds(profile.run.monitored.as_nanos().max(last.into()))
}

#[expect(clippy::cast_precision_loss, reason = "the format has floating-point numbers, for microseconds of centuries")]
fn milliseconds(nanoseconds: u128) -> f64 {
    nanoseconds as f64 / 1e6
}
