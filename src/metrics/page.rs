//! What is on a page.

use std::collections::BTreeMap;
use std::fmt;

use memleax_platform::OwnCost;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::exposition::{Form, to_prometheus};
use super::suspects::{self, Suspect};
use crate::event::{Loss, Tally};
use crate::profile::Profile;

/// What a page is made of.
#[derive(Clone, Debug)]
pub struct State<'a> {
    /// All that is known.
    pub whole: &'a Profile,
    /// What of it the user wants to see: suspects are of this.
    pub filtered: &'a Profile,
    /// memleax observes; else it has ended and makes its reports.
    pub observes: bool,
    /// What memleax has cost.
    pub cost: OwnCost,
}

/// Makes pages of a run, one after another.
#[derive(Debug, Default)]
pub struct Page {
    /// How many call stacks have series of their own.
    sites: usize,
    /// What counters showed last.
    shown: BTreeMap<&'static str, u64>,
}

impl Page {
    /// Pages with series of their own for so many call stacks.
    #[must_use]
    pub fn new(sites: usize) -> Page {
        Page { sites, shown: BTreeMap::new() }
    }

    /// A page.
    ///
    /// # Errors
    /// None in practice: it is written to memory.
    pub fn write(&mut self, state: &State<'_>, form: Form) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.collect(state)));
        let mut page = String::new();
        encode(&mut page, &registry)?;
        match form {
            Form::OpenMetrics => Ok(page),
            Form::Prometheus => to_prometheus(&page),
        }
    }

    fn collect(&mut self, state: &State<'_>) -> Collected {
        let State { whole, filtered, observes, cost } = *state;
        let now = whole.timeline.last().copied().unwrap_or_default();
        // A block that realloc leaves where it is counts with its old size as freed and with its new one as allocated: so neither ever
        // goes down.
        let handed_out = now.allocated.bytes.saturating_add(whole.resized.bytes);
        let freed = now.allocated.without(now.live);
        let suspected = filtered.sites.iter().map(suspects::expired).fold(Tally::default(), Tally::plus);
        let peak = whole.peak.map(|peak| peak.live).unwrap_or_default();
        let backend = whole.run.backend.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        Collected {
            target: [
                ("pid", whole.run.pid.to_string()),
                ("executable", whole.run.executable.clone()),
                ("backend", backend.to_owned()),
                ("version", whole.run.version.clone()),
            ],
            observes,
            monitored: whole.run.monitored.as_secs_f64(),
            expire: whole.run.expire.as_secs_f64(),
            allocated: Tally {
                count: self.counter("allocated_blocks", now.allocated.count),
                bytes: self.counter("allocated_bytes", handed_out),
            },
            freed: Tally {
                count: self.counter("freed_blocks", freed.count),
                bytes: self.counter("freed_bytes", handed_out.saturating_sub(now.live.bytes)),
            },
            resized: self.counter("resized_blocks", whole.resized.count),
            live: now.live,
            peak,
            suspected,
            call_stacks: whole.sites.len() as u64,
            sites: suspects::worst(filtered, self.sites),
            unknown_frees: whole.unknown_frees,
            losses: Loss::ALL.map(|loss| (loss, whole.losses.get(&loss).copied().unwrap_or(0))),
            cost,
        }
    }

    /// A counter, which never goes down: a source that counts itself may be asked amid its work, and tell less the next time.
    fn counter(&mut self, name: &'static str, value: u64) -> u64 {
        let shown = self.shown.entry(name).or_default();
        *shown = value.max(*shown);
        *shown
    }
}

/// The values of a page.
#[derive(Debug)]
struct Collected {
    target: [(&'static str, String); 4],
    observes: bool,
    monitored: f64,
    expire: f64,
    allocated: Tally,
    freed: Tally,
    resized: u64,
    live: Tally,
    peak: Tally,
    suspected: Tally,
    call_stacks: u64,
    sites: Vec<Suspect>,
    unknown_frees: u64,
    losses: [(Loss, u64); Loss::ALL.len()],
    cost: OwnCost,
}

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Families(encoder);
        page.one("memleax_target", "What is watched, and how", None, &Info::new(self.target.as_slice()))?;
        page.gauge(
            "memleax_observing",
            "1 while memleax observes, 0 when it has ended and makes its reports",
            u64::from(self.observes),
        )?;
        page.one(
            "memleax_monitored_seconds",
            "For how long it has observed",
            Some(Unit::Seconds),
            &ConstGauge::new(self.monitored),
        )?;
        page.one(
            "memleax_expire_seconds",
            "How old a block is that counts as expired",
            Some(Unit::Seconds),
            &ConstGauge::new(self.expire),
        )?;
        page.counter("memleax_allocated_blocks", "Blocks allocated", None, self.allocated.count)?;
        page.counter(
            "memleax_allocated_bytes",
            "Bytes allocated; a block resized where it is counts anew",
            Some(Unit::Bytes),
            self.allocated.bytes,
        )?;
        page.counter("memleax_freed_blocks", "Blocks that are gone", None, self.freed.count)?;
        page.counter(
            "memleax_freed_bytes",
            "Bytes that are gone; as of memleax_allocated_bytes",
            Some(Unit::Bytes),
            self.freed.bytes,
        )?;
        page.counter("memleax_resized_blocks", "Blocks that realloc left where they were", None, self.resized)?;
        page.tally("memleax_live", "Live blocks", self.live)?;
        page.tally("memleax_peak", "Live blocks when their bytes were the most", self.peak)?;
        page.tally(
            "memleax_suspect",
            "Live blocks that are older than --expire, of the call stacks that are shown",
            self.suspected,
        )?;
        page.gauge("memleax_call_stacks", "Call stacks that have allocated", self.call_stacks)?;
        page.sites("memleax_site_live", "Live blocks of a call stack", &self.sites, |site| site.live)?;
        page.sites("memleax_site_suspect", "Of those, the ones older than --expire", &self.sites, |site| site.expired)?;
        page.each_site(
            "memleax_site_allocated_blocks",
            "Blocks that a call stack has allocated",
            None,
            &self.sites,
            |site| ConstCounter::new(site.allocated.count),
        )?;
        page.losses(&self.losses)?;
        page.counter(
            "memleax_unknown_frees",
            "Frees of memory that is not known to be live",
            None,
            self.unknown_frees,
        )?;
        page.one(
            "process_cpu_seconds",
            "Processor time that memleax has taken",
            Some(Unit::Seconds),
            &ConstCounter::new(self.cost.processor.as_secs_f64()),
        )?;
        if let Some(resident) = self.cost.resident {
            let help = "Memory that memleax has taken";
            page.one("process_resident_memory_bytes", help, Some(Unit::Bytes), &ConstGauge::new(resident))?;
        }
        Ok(())
    }
}

/// The metric families of a page, in order.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn one(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: &impl EncodeMetric) -> fmt::Result {
        // The encoder adds the unit to the name, and a full stop to the help.
        let stem = unit.as_ref().and_then(|unit| name.strip_suffix(unit.as_str())?.strip_suffix('_')).unwrap_or(name);
        metric.encode(self.0.encode_descriptor(stem, help, unit.as_ref(), metric.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, None, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: u64) -> fmt::Result {
        self.one(name, help, unit, &ConstCounter::new(value))
    }

    /// `NAME_blocks` and `NAME_bytes`.
    fn tally(&mut self, name: &str, help: &str, tally: Tally) -> fmt::Result {
        self.gauge(&format!("{name}_blocks"), help, tally.count)?;
        let bytes = ConstGauge::new(tally.bytes);
        self.one(&format!("{name}_bytes"), &format!("{help}: their bytes"), Some(Unit::Bytes), &bytes)
    }

    /// The same for each call stack.
    fn sites(&mut self, name: &str, help: &str, sites: &[Suspect], of: impl Fn(&Suspect) -> Tally) -> fmt::Result {
        let blocks = |site: &Suspect| ConstGauge::new(of(site).count);
        self.each_site(&format!("{name}_blocks"), help, None, sites, blocks)?;
        let bytes = |site: &Suspect| ConstGauge::new(of(site).bytes);
        self.each_site(&format!("{name}_bytes"), &format!("{help}: their bytes"), Some(Unit::Bytes), sites, bytes)
    }

    fn each_site<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        sites: &[Suspect],
        of: impl Fn(&Suspect) -> M,
    ) -> fmt::Result {
        let labelled = sites.iter().map(|site| {
            let id = site.id.to_string();
            ([("site", id), ("function", site.function.clone()), ("module", site.module.clone())], of(site))
        });
        self.family(name, help, unit, labelled)
    }

    fn losses(&mut self, losses: &[(Loss, u64)]) -> fmt::Result {
        let labelled =
            losses.iter().map(|&(loss, count)| ([("kind", loss.name().to_owned())], ConstCounter::new(count)));
        self.family(
            "memleax_losses",
            "What could not be seen; docs/metrics.md tells what each kind means",
            None,
            labelled,
        )
    }

    fn family<M: EncodeMetric, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        metrics: impl Iterator<Item = ([(&'static str, String); N], M)>,
    ) -> fmt::Result {
        let mut metrics = metrics.peekable();
        // A family without metrics has no type.
        let Some((_, first)) = metrics.peek() else { return Ok(()) };
        let stem = unit.as_ref().and_then(|unit| name.strip_suffix(unit.as_str())?.strip_suffix('_')).unwrap_or(name);
        let mut family = self.0.encode_descriptor(stem, help, unit.as_ref(), first.metric_type())?;
        for (labels, metric) in metrics {
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
