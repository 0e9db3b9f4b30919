//! What a malloc/free pair costs under memleax and its peers, beside the cheapest stop that this machine allows.
//!
//! Every number is the median of several runs of one loop (`tests/targets/programs/pairs.c`), which takes the time itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use memleax_targets::{Process, Program, Target};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

const RUNS: usize = 5;

/// What the loop does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    threads: u32,
    frames: u32,
}

const LOADS: [Load; 4] = [
    Load { threads: 1, frames: 1 },
    Load { threads: 1, frames: 30 },
    Load { threads: 2, frames: 1 },
    Load { threads: 2, frames: 30 },
];

/// Nanoseconds a pair by load; empty where the tool does not work here.
type Times = BTreeMap<Load, f64>;

fn main() {
    let program = Target::c("pairs").build();
    let stop = stop_floor(&program, Placement::OneProcessor);
    let placed = stop_floor(&program, Placement::AsTheKernelLikes);
    let bare = measure(|load| Some(time(&mut program.start(), load, 2_000_000)));
    let mut say = std::io::stdout().lock();
    let mut print = |line: String| writeln!(say, "{line}").expect("stdout is open");
    print(format!("The cheapest stop (tracer and target on one processor, wait and resume only): {stop:.0} ns"));
    print(format!("The same where the kernel puts the two, as it does under memleax: {placed:.0} ns\n"));
    print(format!("{:34}{}", "ns a malloc/free pair", header()));
    print(row("bare", &bare, |_, ns| format!("{ns:.1}")));

    let mut counted = BTreeMap::new();
    let attached = measure(|load| {
        let (ns, counters) = under_memleax(&program, load);
        counted.insert(load, counters);
        Some(ns)
    });
    let peers: [(&str, Times); 5] = [
        ("memleax --backend bpf", measure(|load| under_bpf(&program, load))),
        ("valgrind (memcheck)", measure(|load| under_valgrind(&program, load))),
        ("heaptrack (preloaded)", measure(|load| under_heaptrack(&program, load))),
        ("heaptrack -p (attached)", measure(|load| under_attached_heaptrack(&program, load))),
        ("bpfcc memleak (attached)", measure(|load| under_bpfcc(&program, load))),
    ];

    print(row("memleax --backend ptrace", &attached, |_, ns| format!("{ns:.0}")));
    for (name, times) in &peers {
        print(if times.is_empty() {
            format!("{name:34}not installed, or does not work here")
        } else {
            row(name, times, |_, ns| format!("{ns:.0}"))
        });
    }
    print(format!("\n{:34}{}", "ratios", header()));
    print(row("memleax / bare", &attached, |load, ns| format!("{:.0}", ns / bare[&load])));
    print(row("ptrace / stop, one processor", &attached, |_, ns| format!("{:.2}", ns / stop)));
    print(row("ptrace / stop, as placed", &attached, |_, ns| format!("{:.2}", ns / placed)));
    for (name, times) in peers.iter().filter(|(_, times)| !times.is_empty()) {
        print(row(&format!("{name} / bare"), times, |load, ns| format!("{:.0}", ns / bare[&load])));
    }
    print(format!("\n{:34}{}", "counted by memleax", header()));
    print(row("stops a pair", &attached, |load, _| format!("{:.3}", counted[&load].stops_a_pair())));
    print(row("stack reads an allocation", &attached, |load, _| {
        format!("{:.3}", counted[&load].reads_an_allocation())
    }));
}

fn header() -> String {
    LOADS.map(|load| format!("{:>18}", format!("{} thr, {} fr", load.threads, load.frames))).concat()
}

fn row(name: &str, times: &Times, cell: impl Fn(Load, f64) -> String) -> String {
    let cells = LOADS.map(|load| format!("{:>18}", times.get(&load).map_or("-".to_owned(), |&ns| cell(load, ns))));
    format!("{name:34}{}", cells.concat())
}

/// The median of several runs for each load; a tool that fails once is not asked again.
fn measure(mut run: impl FnMut(Load) -> Option<f64>) -> Times {
    let mut times = Times::new();
    for load in LOADS {
        let Some(mut runs) = (0..RUNS).map(|_| run(load)).collect::<Option<Vec<f64>>>() else { break };
        runs.sort_by(f64::total_cmp);
        times.insert(load, runs[RUNS / 2]);
    }
    times
}

fn time(process: &mut Process, load: Load, pairs: u32) -> f64 {
    // The first frame is the loop's own.
    nanoseconds(&process.ask(&format!("pairs {pairs} {} {} 0", load.threads, load.frames - 1)))
}

fn nanoseconds(answer: &[String]) -> f64 {
    let ns = answer.iter().find_map(|line| line.strip_prefix("ns ")?.parse().ok());
    ns.unwrap_or_else(|| panic!("no time in {answer:?}"))
}

/// Where tracer and target run while the floor is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// Both on one processor: a stop is two switches between tasks.
    OneProcessor,
    /// Nobody is told where to run. An idle machine wakes each on a processor that sleeps, which costs far more.
    AsTheKernelLikes,
}

/// Breakpoints that a tracer does nothing about but wait and resume.
fn stop_floor(program: &Program, placement: Placement) -> f64 {
    const STOPS: u32 = 50_000;
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let mut target = program.start();
            let everywhere = sched_getaffinity(Pid::from_raw(0)).expect("our own processors");
            if placement == Placement::OneProcessor {
                let mut here = CpuSet::new();
                here.set(sched_getcpu().expect("a processor")).expect("a processor number");
                sched_setaffinity(Pid::from_raw(0), &here).expect("our own processor");
                sched_setaffinity(target.pid(), &here).expect("our child's processor");
            }
            ptrace::seize(target.pid(), ptrace::Options::empty()).expect("our own child can be traced");
            target.send(&format!("stops {STOPS}"));
            for _ in 0..STOPS {
                let status = waitpid(target.pid(), None).expect("our own child");
                assert!(matches!(status, WaitStatus::Stopped(_, Signal::SIGTRAP)), "{status:?}");
                ptrace::cont(target.pid(), None).expect("a stopped tracee");
            }
            let ns = nanoseconds(&target.answer("stops"));
            sched_setaffinity(Pid::from_raw(0), &everywhere).expect("our own processors");
            ns
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}

/// What memleax counted, as `--log info` tells at the end.
#[derive(Clone, Copy)]
struct Counters {
    stops: f64,
    allocations: f64,
    releases: f64,
    stack_reads: f64,
    further_reads: f64,
}

impl Counters {
    fn parse(log: &str) -> Self {
        let line =
            log.lines().find(|line| line.contains(" stack reads")).unwrap_or_else(|| panic!("no counters: {log}"));
        let before = |what: &str| -> f64 {
            let number = line.split(what).next().and_then(|rest| rest.trim_end().rsplit(' ').next()?.parse().ok());
            number.unwrap_or_else(|| panic!("no number of{what}: {line}"))
        };
        Counters {
            stops: before(" stops"),
            allocations: before(" allocations"),
            releases: before(" releases"),
            stack_reads: before(" stack reads"),
            further_reads: before(" further reads"),
        }
    }

    fn stops_a_pair(&self) -> f64 {
        self.stops * 2.0 / (self.allocations + self.releases)
    }

    fn reads_an_allocation(&self) -> f64 {
        (self.stack_reads + self.further_reads) / self.allocations
    }
}

fn under_memleax(program: &Program, load: Load) -> (f64, Counters) {
    let mut target = program.start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_memleax"));
    let mut memleax = Process::spawn(command.args(["--backend", "ptrace", "--log", "info", &target.id().to_string()]));
    wait_for(&mut memleax, "== Begin monitoring process").expect("memleax attaches");
    time(&mut target, load, 1_000);
    let ns = time(&mut target, load, 20_000);
    memleax.signal(Signal::SIGINT);
    memleax.wait();
    (ns, Counters::parse(&memleax.errors()))
}

fn under_bpf(program: &Program, load: Load) -> Option<f64> {
    let mut target = program.start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_memleax"));
    let mut memleax = Process::spawn(command.args(["--backend", "bpf", &target.id().to_string()]));
    wait_for(&mut memleax, "-- Hooked in")?;
    time(&mut target, load, 10_000);
    let ns = time(&mut target, load, 200_000);
    memleax.signal(Signal::SIGINT);
    memleax.wait();
    Some(ns)
}

fn under_valgrind(program: &Program, load: Load) -> Option<f64> {
    installed("valgrind")?;
    let mut target = Process::start(Command::new("valgrind").arg("--quiet").arg(&program.path));
    Some(time(&mut target, load, 100_000))
}

fn under_heaptrack(program: &Program, load: Load) -> Option<f64> {
    installed("heaptrack")?;
    let directory = tempfile::tempdir().ok()?;
    let mut command = Command::new("heaptrack");
    command.arg("--output").arg(directory.path().join("record")).arg(&program.path);
    let mut target = Process::spawn(&mut command);
    wait_for(&mut target, "READY")?;
    let ns = time(&mut target, load, 100_000);
    target.quit();
    Some(ns)
}

fn under_attached_heaptrack(program: &Program, load: Load) -> Option<f64> {
    installed("heaptrack")?;
    installed("gdb")?;
    let directory = tempfile::tempdir().ok()?;
    let mut target = program.start();
    let mut command = Command::new("heaptrack");
    command.arg("--output").arg(directory.path().join("record"));
    let mut heaptrack = Process::spawn(command.args(["--pid", &target.id().to_string()]));
    wait_for(&mut heaptrack, "injection finished")?;
    let ns = time(&mut target, load, 100_000);
    // It takes its hooks out again when the target ends; by itself its detaching may hang both.
    target.signal(Signal::SIGKILL);
    Some(ns)
}

fn under_bpfcc(program: &Program, load: Load) -> Option<f64> {
    let tool = ["memleak-bpfcc", "/usr/share/bcc/tools/memleak"].into_iter().find(|name| installed(name).is_some())?;
    let mut target = program.start();
    let mut memleak = Process::spawn(Command::new(tool).args(["-p", &target.id().to_string(), "1"]));
    // Its first statistics: the probes are in place.
    wait_for(&mut memleak, "Top 10 stacks")?;
    Some(time(&mut target, load, 100_000))
}

fn installed(tool: &str) -> Option<()> {
    Command::new(tool).arg("--help").output().ok().map(drop)
}

/// Reads lines until one contains `text`; `None` if the program ends before.
fn wait_for(process: &mut Process, text: &str) -> Option<()> {
    while !process.line()?.contains(text) {}
    Some(())
}
