//! The live report for programs: one JSON object a line, each flushed. `docs/json.md` describes them, `docs/events.schema.json` defines them.

use std::io::{self, Write};
use std::time::Duration;

use memleax_platform::{ExitStatus, Pid};
use serde::Serialize;

use super::json::{Amount, FrameOf, Lost, ending_name, nanoseconds};
use super::live::written;
use super::trend_json::TrendOf;
use super::{End, Format, Live};
use crate::event::{Notice, StackId, Tally};
use crate::profile::{Profile, View};
use crate::symbol::NamedStack;
use crate::tracker::{CallStackStatistics, Finding, Limit, Statistics};
use crate::trend::Trends;

/// Told in the first line; another number means that what a reader knows has changed.
const VERSION: u32 = 1;

/// Writes the live report as JSON lines.
#[derive(Debug)]
pub struct JsonLines<W> {
    output: W,
}

impl<W: Write> JsonLines<W> {
    /// Reports to `output`.
    pub fn new(output: W) -> JsonLines<W> {
        JsonLines { output }
    }

    fn object_line(&mut self, of: &str, line: Line<'_>) -> io::Result<()> {
        self.line(&Line::Object { r#type: of, of: Box::new(line) })
    }

    fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, line)?;
        self.output.write_all(b"\n")?;
        self.output.flush()
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Begin {
        format: &'static str,
        version: u32,
        memleax_version: &'static str,
        pid: i32,
        backend: &'a str,
        expire_ns: u64,
    },
    Hooked {
        module: &'a str,
        functions: &'a [&'static str],
    },
    Exec {
        program: &'a str,
    },
    Trend {
        live: Amount,
        trend: TrendOf<'a>,
        stack: StackOf,
    },
    Remark {
        text: &'a str,
    },
    Warning {
        text: &'a str,
    },
    Expired {
        call_stack: u32,
        bytes: u64,
        stack: Option<StackOf>,
    },
    ExpiredAgain {
        call_stack: u32,
        bytes: u64,
        count: u64,
    },
    ExpiredFreed {
        call_stack: u32,
        after_ns: u64,
    },
    Muted {
        call_stack: u32,
    },
    End(EndOf),
    CallStack(CallStackOf),
    Statistics(StatisticsOf),
    NeverFreed(Amount),
    /// Another line, of objects.
    Object {
        r#type: &'a str,
        of: Box<Line<'a>>,
    },
}

impl Line<'_> {
    fn of_finding(finding: &Finding, stack: Option<&NamedStack>) -> Self {
        match *finding {
            Finding::Expired { callstack, bytes, .. } => {
                Line::Expired { call_stack: callstack.0, bytes, stack: stack.map(StackOf::of) }
            }
            Finding::ExpiredAgain { callstack, bytes, count } => {
                Line::ExpiredAgain { call_stack: callstack.0, bytes, count }
            }
            Finding::ExpiredFreed { callstack, after } => {
                Line::ExpiredFreed { call_stack: callstack.0, after_ns: nanoseconds(after) }
            }
            Finding::Muted { callstack } => Line::Muted { call_stack: callstack.0 },
        }
    }
}

#[derive(Serialize)]
struct StackOf {
    frames: Vec<FrameOf>,
    ending: &'static str,
    by_frame_pointer: bool,
}

impl StackOf {
    fn of(stack: &NamedStack) -> StackOf {
        StackOf {
            frames: stack.frames.iter().map(|frame| FrameOf::of(frame)).collect(),
            ending: ending_name(stack.ending),
            by_frame_pointer: stack.by_frame_pointer,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
enum EndOf {
    Terminated,
    TargetExited { status: Option<i32> },
    TargetKilled { signal: i32 },
    ExpiredBlocksLimit { call_stack: u32, count: u64, freed: u64 },
    CallStacksLimit { count: u64 },
    LeakedBlocksLimit { count: u64 },
}

impl From<End> for EndOf {
    fn from(end: End) -> EndOf {
        match end {
            End::Terminated => EndOf::Terminated,
            End::TargetEnded(ExitStatus::Exited(status)) => EndOf::TargetExited { status: Some(status) },
            End::TargetEnded(ExitStatus::Unknown) => EndOf::TargetExited { status: None },
            End::TargetEnded(ExitStatus::Killed(signal)) => EndOf::TargetKilled { signal: signal.0 },
            End::Limit(Limit::ExpiredBlocks { callstack, count, freed }) => {
                EndOf::ExpiredBlocksLimit { call_stack: callstack.0, count, freed }
            }
            End::Limit(Limit::CallStacks { count }) => EndOf::CallStacksLimit { count },
            End::Limit(Limit::LeakedBlocks { count }) => EndOf::LeakedBlocksLimit { count },
        }
    }
}

#[derive(Serialize)]
struct CallStackOf {
    call_stack: u32,
    may_leak: Amount,
    expired: Amount,
    freed_expired: Amount,
    allocated: Amount,
    freed: Amount,
    lives: Option<Lives>,
    oldest_ns: u64,
    stack: StackOf,
}

#[derive(Serialize)]
struct Lives {
    min_ns: u64,
    mean_ns: u64,
    max_ns: u64,
}

impl CallStackOf {
    fn of(of: &CallStackStatistics, stack: &NamedStack) -> CallStackOf {
        CallStackOf {
            call_stack: of.number.0,
            may_leak: of.may_leak().into(),
            expired: of.expired.into(),
            freed_expired: of.freed_expired.into(),
            allocated: of.allocated.into(),
            freed: of.freed.into(),
            lives: of.freed_live_time.map(|of| Lives {
                min_ns: nanoseconds(of.min),
                mean_ns: nanoseconds(of.average),
                max_ns: nanoseconds(of.max),
            }),
            oldest_ns: nanoseconds(of.unfreed_live_time),
            stack: StackOf::of(stack),
        }
    }
}

#[derive(Serialize)]
struct StatisticsOf {
    monitored_ns: u64,
    expire_ns: u64,
    call_stacks: usize,
    unexpired: Amount,
    unknown_frees: u64,
    unseen_frees: Amount,
    dropped_by_exec: Amount,
    losses: Vec<Lost>,
}

impl StatisticsOf {
    fn of(statistics: &Statistics) -> StatisticsOf {
        StatisticsOf {
            monitored_ns: nanoseconds(statistics.monitored),
            expire_ns: nanoseconds(statistics.expire),
            call_stacks: statistics.call_stacks.len(),
            unexpired: statistics.unexpired.into(),
            unknown_frees: statistics.unknown_frees,
            unseen_frees: statistics.unseen_frees.into(),
            dropped_by_exec: statistics.dropped_by_exec.into(),
            losses: statistics.losses.iter().map(|(&loss, &count)| Lost::of(loss, count)).collect(),
        }
    }
}

impl<W: Write> Live for JsonLines<W> {
    fn begin(&mut self, target: Pid, backend: &str, expire: Duration) -> io::Result<()> {
        let (format, memleax_version) = ("memleax events", env!("CARGO_PKG_VERSION"));
        let expire_ns = nanoseconds(expire);
        self.line(&Line::Begin { format, version: VERSION, memleax_version, pid: target.0, backend, expire_ns })
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        self.line(&match notice {
            Notice::Hooked(module) => Line::Hooked { module: &module.path, functions: &module.functions },
            Notice::Warning(text) => Line::Warning { text },
            Notice::Exec(program) => Line::Exec { program },
        })
    }

    fn remark(&mut self, text: &str) -> io::Result<()> {
        self.line(&Line::Remark { text })
    }

    fn warning(&mut self, text: &str) -> io::Result<()> {
        self.line(&Line::Warning { text })
    }

    fn finding(&mut self, finding: &Finding, stack: Option<&NamedStack>) -> io::Result<()> {
        self.line(&Line::of_finding(finding, stack))
    }

    fn object_finding(&mut self, of: &str, finding: &Finding, stack: Option<&NamedStack>) -> io::Result<()> {
        self.object_line(of, Line::of_finding(finding, stack))
    }

    fn end(&mut self, end: End) -> io::Result<()> {
        self.line(&Line::End(end.into()))
    }

    fn statistics(&mut self, statistics: &Statistics, name: &mut dyn FnMut(StackId) -> NamedStack) -> io::Result<()> {
        for call_stack in &statistics.call_stacks {
            self.line(&Line::CallStack(CallStackOf::of(call_stack, &name(call_stack.stack))))?;
        }
        self.line(&Line::Statistics(StatisticsOf::of(statistics)))
    }

    fn object_statistics(
        &mut self,
        of: &str,
        statistics: &Statistics,
        name: &mut dyn FnMut(StackId) -> NamedStack,
    ) -> io::Result<()> {
        for call_stack in &statistics.call_stacks {
            self.object_line(of, Line::CallStack(CallStackOf::of(call_stack, &name(call_stack.stack))))?;
        }
        self.object_line(of, Line::Statistics(StatisticsOf::of(statistics)))
    }

    fn objects_never_freed(&mut self, of: &str, objects: Tally) -> io::Result<()> {
        self.object_line(of, Line::NeverFreed(objects.into()))
    }

    fn never_freed(&mut self, blocks: Tally) -> io::Result<()> {
        self.line(&Line::NeverFreed(blocks.into()))
    }

    fn snapshot(&mut self, profile: &Profile, view: &View) -> io::Result<()> {
        // It is one line.
        let view = if profile.weigh(view).is_ok() { view } else { &View::Leaks };
        written(Format::Json.write(profile, view, &mut self.output))?;
        self.output.flush()
    }

    fn trends(&mut self, profile: &Profile) -> io::Result<()> {
        let trends = Trends::of(profile);
        for trend in &trends.sites {
            if let Some(site) = profile.sites.get(trend.site) {
                let (stack, live) = (StackOf::of(&site.stack), site.live.into());
                self.line(&Line::Trend { live, trend: TrendOf::of(profile, &trends, trend), stack })?;
            }
        }
        Ok(())
    }

    fn output(&mut self) -> &mut dyn Write {
        &mut self.output
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use memleax_platform::Signal;
    use serde_json::{Value, json};

    use super::*;
    use crate::event::{HookedModule, Loss};
    use crate::profile::sample;
    use crate::tracker::{CallStackNumber, LiveTime};

    fn statistics() -> Statistics {
        let tally = |count, bytes| Tally { count, bytes };
        let second = Duration::from_secs(1);
        let call_stack = |number, freed_live_time| CallStackStatistics {
            number: CallStackNumber(number),
            stack: StackId(number),
            expired: tally(20, 2020),
            freed_expired: tally(1, 20),
            allocated: tally(30, u64::MAX),
            freed: tally(5, 5),
            freed_live_time,
            unfreed_live_time: second,
        };
        let lives = LiveTime { min: second, max: second * 3, average: second * 2 };
        Statistics {
            monitored: second * 60,
            expire: second * 10,
            call_stacks: vec![call_stack(1, None), call_stack(2, Some(lives))],
            unexpired: tally(1, 2),
            never_freed: tally(7, 8),
            unknown_frees: 3,
            unseen_frees: tally(0, 0),
            dropped_by_exec: tally(0, 0),
            losses: BTreeMap::from([(Loss::NoStack, 4)]),
        }
    }

    fn lines(write: impl FnOnce(&mut JsonLines<Vec<u8>>) -> io::Result<()>) -> Vec<Value> {
        let mut lines = JsonLines::new(Vec::new());
        write(&mut lines).expect("a Vec takes everything");
        let text = String::from_utf8(lines.output).expect("UTF-8");
        assert!(text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn all() -> Vec<Value> {
        let sites = sample::profile().sites;
        let callstack = CallStackNumber(1);
        let hooked = HookedModule { path: "/usr/lib/libc.so.6".into(), functions: vec!["malloc", "free"] };
        lines(|lines| {
            lines.begin(Pid(1234), "ptrace", Duration::from_millis(1500))?;
            lines.notice(&Notice::Hooked(hooked))?;
            lines.notice(&Notice::Warning("2 threads block SIGTRAP".into()))?;
            lines.notice(&Notice::Exec("/bin/true".into()))?;
            lines.remark("Names are missing.")?;
            for site in &sites {
                let finding = Finding::Expired { callstack, stack: StackId(7), bytes: 101 };
                lines.finding(&finding, Some(&site.stack))?;
            }
            lines.finding(&Finding::ExpiredAgain { callstack, bytes: u64::MAX, count: 2 }, None)?;
            lines.finding(&Finding::ExpiredFreed { callstack, after: Duration::from_secs(11) }, None)?;
            lines.finding(&Finding::Muted { callstack }, None)?;
            for end in [
                End::Terminated,
                End::TargetEnded(ExitStatus::Exited(3)),
                End::TargetEnded(ExitStatus::Unknown),
                End::TargetEnded(ExitStatus::Killed(Signal(11))),
                End::Limit(Limit::ExpiredBlocks { callstack, count: 1000, freed: 7 }),
                End::Limit(Limit::CallStacks { count: 50 }),
                End::Limit(Limit::LeakedBlocks { count: 60 }),
            ] {
                lines.end(end)?;
            }
            lines.statistics(&statistics(), &mut |_| sites[0].stack.clone())?;
            lines.trends(&sample::profile())?;
            lines.never_freed(Tally { count: 7, bytes: 8 })?;
            let finding = Finding::Expired { callstack, stack: StackId(7), bytes: 0 };
            lines.object_finding("conn", &finding, Some(&sites[0].stack))?;
            lines.object_statistics("conn", &statistics(), &mut |_| sites[0].stack.clone())?;
            lines.objects_never_freed("conn", Tally { count: 2, bytes: 0 })
        })
    }

    #[test]
    fn each_line_is_as_the_schema_says() {
        let schema: Value = serde_json::from_str(include_str!("../../docs/events.schema.json")).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        for line in all() {
            let errors: Vec<String> = validator.iter_errors(&line).map(|error| error.to_string()).collect();
            assert_eq!(errors, [""; 0], "{line:#}");
            let mut other = line.clone();
            other["event"] = "other".into();
            assert!(!validator.is_valid(&other));
        }
    }

    #[test]
    fn a_snapshot_is_a_profile_on_one_line() {
        let lines = lines(|lines| lines.snapshot(&sample::profile(), &View::Leaks));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["format"], "memleax profile");
    }

    #[test]
    fn lines_say_what_the_text_says() {
        let lines = all();
        assert_eq!(lines[0]["expire_ns"], 1_500_000_000);
        assert_eq!(
            lines[1],
            json!({"event": "hooked", "module": "/usr/lib/libc.so.6", "functions": ["malloc", "free"]})
        );
        assert_eq!(lines[5]["stack"]["frames"][1]["functions"][0]["name"], "Pool::take(int)");
        assert_eq!(lines[7]["stack"]["ending"], "unknown_code");
        assert_eq!(lines[8], json!({"event": "expired_again", "call_stack": 1, "bytes": u64::MAX, "count": 2}));
        assert_eq!(lines[9]["after_ns"], 11_000_000_000_u64);
        assert_eq!(lines[14], json!({"event": "end", "cause": "target_killed", "signal": 11}));
        assert_eq!(lines[17], json!({"event": "end", "cause": "leaked_blocks_limit", "count": 60}));
        assert_eq!(lines[18]["may_leak"], json!({"count": 19, "bytes": 2000}));
        assert_eq!(lines[19]["lives"]["mean_ns"], 2_000_000_000);
        assert_eq!(lines[20]["losses"][0]["kind"], "no_stack");
        assert_eq!(lines[21]["trend"]["per_call"][0]["reference"], "handle_request");
        assert_eq!(lines[24], json!({"event": "never_freed", "count": 7, "bytes": 8}));
    }
}
