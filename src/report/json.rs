//! All of a profile as one JSON object, for programs. `docs/json.md` describes it, `docs/json.schema.json` defines it.

mod objects;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::format::WriteError;
use super::trend_json::TrendOf;
use super::wording;
use crate::event::{Ending, Loss, Tally};
use crate::histogram::Histogram;
use crate::profile::{self, Change, Moment, Profile, View, Weighed};
use crate::symbol::{Function, NamedFrame, NamedStack};
use crate::trend::Trends;
use objects::ObjectsOf;

/// Told in each file; another number means that what a reader knows has changed. New members do not change it.
const VERSION: u32 = 1;

/// Writes `profile`, and what each call stack costs in `view`.
///
/// # Errors
/// If `view` cannot be had, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    let weighed = profile.weigh(view)?;
    let mut frames = Frames::default();
    let sites = Site::all(profile, &mut frames);
    let weighed_objects = objects::weigh(profile, view);
    let objects = weighed_objects.iter().map(|weighed| ObjectsOf::of(weighed, &mut frames)).collect();
    let document = Document {
        format: "memleax profile",
        version: VERSION,
        run: Run::of(&profile.run),
        totals: Totals::of(profile),
        peak: profile.peak.map(Into::into),
        view: Costs::of(&weighed),
        objects,
        of: profile.of.as_deref(),
        sites,
        frames: &frames.table,
        modules: profile.modules.iter().map(Module::of).collect(),
        timeline: profile.timeline.iter().copied().map(Into::into).collect(),
        references: profile.references.iter().map(ReferenceOf::of).collect(),
        snapshots: profile.snapshots.iter().map(Snapshot::of).collect(),
        blocks: profile.blocks.iter().map(Block::of).collect(),
        unknown_frees: profile.unknown_frees,
        losses: profile.losses.iter().map(|(&loss, &count)| Lost::of(loss, count)).collect(),
        remarks: &profile.remarks,
    };
    serde_json::to_writer(&mut *output, &document)?;
    output.write_all(b"\n")?;
    Ok(Vec::new())
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    version: u32,
    /// The type of objects that it is of, if it is not of memory.
    of: Option<&'a str>,
    run: Run<'a>,
    totals: Totals,
    peak: Option<MomentOf>,
    view: Costs<'a>,
    sites: Vec<Site<'a>>,
    frames: &'a [FrameOf],
    modules: Vec<Module<'a>>,
    timeline: Vec<MomentOf>,
    references: Vec<ReferenceOf<'a>>,
    snapshots: Vec<Snapshot<'a>>,
    blocks: Vec<Block>,
    unknown_frees: u64,
    losses: Vec<Lost>,
    remarks: &'a [String],
    objects: Vec<ObjectsOf<'a>>,
}

#[derive(Serialize)]
struct Run<'a> {
    pid: u32,
    command: &'a [String],
    executable: &'a str,
    backend: &'a str,
    memleax_version: &'a str,
    started_ns: u64,
    monitored_ns: u64,
    expire_ns: u64,
    launched: bool,
    by_event: bool,
    ending: Option<&'a str>,
}

impl<'a> Run<'a> {
    fn of(run: &'a profile::Run) -> Run<'a> {
        Run {
            pid: run.pid,
            command: &run.command,
            executable: &run.executable,
            backend: &run.backend,
            memleax_version: &run.version,
            started_ns: run.started,
            monitored_ns: nanoseconds(run.monitored),
            expire_ns: nanoseconds(run.expire),
            launched: run.launched,
            by_event: run.by_event,
            ending: run.ending.as_deref(),
        }
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Blocks and bytes.
#[derive(Serialize, Clone, Copy)]
pub(super) struct Amount {
    count: u64,
    bytes: u64,
}

impl From<Tally> for Amount {
    fn from(Tally { count, bytes }: Tally) -> Amount {
        Amount { count, bytes }
    }
}

#[derive(Serialize)]
struct Totals {
    allocated: Amount,
    freed: Amount,
    live: Amount,
    expired: Amount,
    freed_expired: Amount,
    temporary: Option<Amount>,
    resized: Amount,
}

impl Totals {
    fn of(profile: &Profile) -> Totals {
        let sum = |of: fn(&profile::Site) -> Tally| {
            profile.sites.iter().fold(Tally::default(), |sum, site| sum.plus(of(site))).into()
        };
        let temporary = profile.sites.iter().try_fold(Tally::default(), |sum, site| Some(sum.plus(site.temporary?)));
        Totals {
            allocated: sum(|site| site.allocated),
            freed: sum(|site| site.freed),
            live: sum(|site| site.live),
            expired: sum(|site| site.expired),
            freed_expired: sum(|site| site.freed_expired),
            temporary: temporary.map(Into::into),
            resized: profile.resized.into(),
        }
    }
}

#[derive(Serialize)]
struct MomentOf {
    at_ns: u64,
    allocated: Amount,
    live: Amount,
}

impl From<Moment> for MomentOf {
    fn from(Moment { at, allocated, live }: Moment) -> MomentOf {
        MomentOf { at_ns: at.0, allocated: allocated.into(), live: live.into() }
    }
}

/// A view: what sites cost, by their numbers, the dearest first.
#[derive(Serialize)]
struct Costs<'a> {
    label: &'a str,
    total: ChangeOf,
    costs: Vec<Cost>,
}

#[derive(Serialize)]
struct ChangeOf {
    count: i64,
    bytes: i64,
}

impl From<Change> for ChangeOf {
    fn from(Change { count, bytes }: Change) -> ChangeOf {
        ChangeOf { count, bytes }
    }
}

#[derive(Serialize)]
struct Cost {
    site: usize,
    #[serde(flatten)]
    change: ChangeOf,
}

impl<'a> Costs<'a> {
    fn of(weighed: &'a Weighed<'_>) -> Costs<'a> {
        let costs = weighed.costs.iter().map(|cost| Cost { site: cost.index, change: cost.change.into() }).collect();
        Costs { label: &weighed.label, total: weighed.total().into(), costs }
    }
}

#[derive(Serialize)]
struct Site<'a> {
    stack: Stack,
    allocated: Amount,
    freed: Amount,
    live: Amount,
    expired: Amount,
    freed_expired: Amount,
    at_peak: Amount,
    temporary: Option<Amount>,
    sizes: Option<Vec<Bucket>>,
    lifetimes_ns: Option<Vec<Bucket>>,
    lives: Option<Lives>,
    oldest_ns: Option<u64>,
    growth: Vec<Growth>,
    ages_seconds: Option<Vec<Bucket>>,
    trend: Option<TrendOf<'a>>,
}

impl<'a> Site<'a> {
    /// Those of a profile, with their trends.
    fn all(profile: &'a Profile, frames: &mut Frames) -> Vec<Site<'a>> {
        let trends = Trends::of(profile);
        let mut sites: Vec<Site> = profile.sites.iter().map(|site| Site::of(site, frames)).collect();
        for trend in &trends.sites {
            sites[trend.site].trend = Some(TrendOf::of(profile, &trends, trend));
        }
        sites
    }

    fn of(site: &profile::Site, frames: &mut Frames) -> Site<'a> {
        let lives = site.lives.map(|(min, mean, max)| Lives {
            min_ns: nanoseconds(min),
            mean_ns: nanoseconds(mean),
            max_ns: nanoseconds(max),
        });
        Site {
            stack: Stack::of(&site.stack, frames),
            allocated: site.allocated.into(),
            freed: site.freed.into(),
            live: site.live.into(),
            expired: site.expired.into(),
            freed_expired: site.freed_expired.into(),
            at_peak: site.at_peak.into(),
            temporary: site.temporary.map(Into::into),
            sizes: site.sizes.as_ref().map(buckets),
            lifetimes_ns: site.lifetimes.as_ref().map(buckets),
            lives,
            oldest_ns: site.oldest.map(nanoseconds),
            growth: site.growth.iter().map(|&(moment, live)| Growth { moment, live: live.into() }).collect(),
            ages_seconds: site.ages.as_ref().map(buckets),
            trend: None,
        }
    }
}

/// A function whose calls were counted.
#[derive(Serialize)]
struct ReferenceOf<'a> {
    name: &'a str,
    calls: u64,
    /// Until each moment.
    counts: &'a [u64],
}

impl<'a> ReferenceOf<'a> {
    fn of(reference: &'a profile::Reference) -> ReferenceOf<'a> {
        let counts = &reference.counts;
        ReferenceOf { name: &reference.name, calls: counts.last().copied().unwrap_or(0), counts }
    }
}

#[derive(Serialize)]
struct Lives {
    min_ns: u64,
    mean_ns: u64,
    max_ns: u64,
}

#[derive(Serialize)]
struct Growth {
    moment: usize,
    live: Amount,
}

/// Values from `from` to below twice that, or zeros.
#[derive(Serialize)]
struct Bucket {
    from: u64,
    count: u64,
}

fn buckets(histogram: &Histogram) -> Vec<Bucket> {
    let counted = histogram.buckets().iter().enumerate().filter(|&(_, &count)| count > 0);
    counted.map(|(bucket, &count)| Bucket { from: Histogram::lower_bound(bucket), count }).collect()
}

#[derive(Serialize)]
struct Stack {
    /// Numbers of frames, innermost first.
    frames: Vec<usize>,
    ending: &'static str,
    by_frame_pointer: bool,
}

impl Stack {
    fn of(stack: &NamedStack, frames: &mut Frames) -> Stack {
        let numbers = stack.frames.iter().map(|frame| frames.number(frame)).collect();
        Stack { frames: numbers, ending: ending_name(stack.ending), by_frame_pointer: stack.by_frame_pointer }
    }
}

/// Frames, each once.
#[derive(Default)]
struct Frames {
    table: Vec<FrameOf>,
    numbers: FxHashMap<Arc<NamedFrame>, usize>,
}

impl Frames {
    fn number(&mut self, frame: &Arc<NamedFrame>) -> usize {
        *self.numbers.entry(Arc::clone(frame)).or_insert_with(|| {
            self.table.push(FrameOf::of(frame));
            self.table.len() - 1
        })
    }
}

/// A frame. Addresses are text, as JavaScript's numbers are too short for them.
#[derive(Serialize)]
pub(super) struct FrameOf {
    address: String,
    module: Option<String>,
    offset: String,
    functions: Vec<FunctionOf>,
}

impl FrameOf {
    pub(super) fn of(frame: &NamedFrame) -> FrameOf {
        FrameOf {
            address: hex(frame.address),
            module: Some(frame.module.clone()).filter(|module| !module.is_empty()),
            offset: hex(frame.offset),
            functions: frame.functions.iter().map(FunctionOf::of).collect(),
        }
    }
}

#[derive(Serialize)]
struct FunctionOf {
    name: String,
    symbol: String,
    offset: Option<u64>,
    file: Option<String>,
    line: Option<u32>,
    inlined: bool,
}

impl FunctionOf {
    fn of(function: &Function) -> FunctionOf {
        let Function { name, raw, offset, file, line, inlined } = function.clone();
        FunctionOf { name, symbol: raw, offset, file, line, inlined }
    }
}

#[derive(Serialize)]
struct Module<'a> {
    path: &'a str,
    build_id: Option<String>,
    start: String,
    end: String,
    bias: String,
    file_offset: u64,
}

impl<'a> Module<'a> {
    fn of(module: &'a profile::Module) -> Module<'a> {
        let id: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        Module {
            path: &module.path,
            build_id: Some(id).filter(|id| !id.is_empty()),
            start: hex(module.range.start),
            end: hex(module.range.end),
            bias: hex(module.bias),
            file_offset: module.file_offset,
        }
    }
}

#[derive(Serialize)]
struct Snapshot<'a> {
    cause: &'a str,
    #[serde(flatten)]
    moment: MomentOf,
    sites: Vec<SnapshotSite>,
}

#[derive(Serialize)]
struct SnapshotSite {
    site: usize,
    live: Amount,
}

impl<'a> Snapshot<'a> {
    fn of(snapshot: &'a profile::Snapshot) -> Snapshot<'a> {
        let sites = snapshot.live.iter().map(|&(site, live)| SnapshotSite { site, live: live.into() }).collect();
        Snapshot { cause: &snapshot.cause, moment: snapshot.moment.into(), sites }
    }
}

#[derive(Serialize)]
struct Block {
    address: String,
    size: u64,
    age_ns: u64,
    site: usize,
}

impl Block {
    fn of(block: &profile::LiveBlock) -> Block {
        let profile::LiveBlock { address, size, age, site } = *block;
        Block { address: hex(address), size, age_ns: nanoseconds(age), site }
    }
}

/// What was not seen, how often, and what follows.
#[derive(Serialize)]
pub(super) struct Lost {
    kind: &'static str,
    count: u64,
    text: String,
}

impl Lost {
    pub(super) fn of(loss: Loss, count: u64) -> Lost {
        Lost { kind: loss.name(), count, text: wording::loss(loss, count) }
    }
}

pub(super) fn hex(number: u64) -> String {
    format!("0x{number:x}")
}

pub(super) fn ending_name(ending: Ending) -> &'static str {
    match ending {
        Ending::Complete => "complete",
        Ending::DepthLimit => "depth_limit",
        Ending::NoUnwindInfo => "no_unwind_info",
        Ending::UnknownCode => "unknown_code",
        Ending::HiddenByProbe => "hidden_by_probe",
        Ending::UnreadableStack => "unreadable_stack",
        Ending::Inconsistent => "inconsistent",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::profile::{Comparison, compare, sample};

    fn written(profile: &Profile, view: &View) -> Value {
        let mut output = Vec::new();
        write(profile, view, &mut output).expect("a view that can be had");
        assert_eq!(output.last(), Some(&b'\n'));
        serde_json::from_slice(&output).expect("JSON")
    }

    fn assert_valid(document: &Value) {
        let schema = include_str!("../../docs/json.schema.json");
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let errors: Vec<String> =
            validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(errors, [""; 0], "{document:#}");
    }

    #[test]
    fn the_output_is_as_its_schema_says() {
        let mut poor = sample::profile();
        poor.sites.truncate(1);
        let site = &mut poor.sites[0];
        (site.temporary, site.sizes, site.lifetimes, site.lives, site.oldest) = (None, None, None, None, None);
        (poor.peak, poor.run.ending) = (None, None);
        (poor.snapshots, poor.timeline, poor.blocks) = (Vec::new(), Vec::new(), Vec::new());
        let mut empty = poor.clone();
        (empty.sites, empty.modules) = (Vec::new(), Vec::new());
        for profile in [sample::profile(), sample::with_objects(), poor, empty] {
            assert_valid(&written(&profile, &View::Leaks));
        }
        assert_valid(&written(&sample::profile(), &View::Growth { from: Some(1), to: None }));
    }

    #[test]
    fn the_schema_refuses_what_is_not_so() {
        let schema: Value = serde_json::from_str(include_str!("../../docs/json.schema.json")).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let good = written(&sample::profile(), &View::Leaks);
        for (pointer, wrong) in [
            ("/version", Value::from(2)),
            ("/sites/0/live/bytes", Value::from(-1)),
            ("/sites/0/stack/ending", Value::from("somehow")),
            ("/frames/0/address", Value::from(7)),
            ("/view", Value::Null),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).expect(pointer) = wrong;
            assert!(!validator.is_valid(&bad), "{pointer}");
        }
    }

    #[test]
    fn numbers_are_exact_and_references_fit() {
        let mut profile = sample::profile();
        profile.sites[0].allocated.bytes = u64::MAX - 1;
        let document = written(&profile, &View::Peak);
        assert_eq!(document["sites"][0]["allocated"]["bytes"], u64::MAX - 1);
        assert_eq!(document["frames"].as_array().map(Vec::len), Some(6));
        let frame =
            &document["frames"][document["sites"][0]["stack"]["frames"][1].as_u64().expect("a number") as usize];
        assert_eq!(frame["functions"][0]["name"], "Pool::take(int)");
        assert_eq!(frame["functions"][0]["symbol"], "_ZN4Pool4takeEi");
        assert_eq!(frame["offset"], "0x1250");
        assert_eq!(document["view"]["label"], "live at the peak (5.00 s)");
        assert_eq!(document["view"]["costs"][0], serde_json::json!({"site": 1, "count": 2, "bytes": 4000}));
        assert_eq!(document["losses"][0]["kind"], "never_returned");
        assert_eq!(document["remarks"][0], "Names of one library are missing.");
    }

    #[test]
    fn a_comparison_has_negative_costs() {
        let (before, mut after) = (sample::profile(), sample::profile());
        after.sites.remove(0);
        let names = ["a".into(), "b".into()];
        let how = Comparison { view: View::Leaks, per: None, names };
        let document = written(&compare(&before, &after, &how).expect("comparable"), &Comparison::VIEW);
        assert_valid(&document);
        assert_eq!(document["view"]["total"], serde_json::json!({"count": -8, "bytes": -1024}));
    }
}
