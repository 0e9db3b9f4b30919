//! What a malloc/free pair costs under `memleax -a`, beside the same under bpf for that process alone, in turns.
//!
//! Nanoseconds of the target's own processor time, each the median of several runs of one loop (`tests/targets/programs/pairs.c`). `-a` is given the
//! process's id, so that the machine's others are left alone: a pair costs the same as without.

use std::io::Write;
use std::process::Command;

use memleax_targets::{Process, Program, Target};
use nix::sys::signal::Signal;

const RUNS: usize = 7;
const PAIRS: u32 = 300_000;

/// Threads, and live blocks among which pairs are.
const LOADS: [(u32, u32); 3] = [(1, 0), (2, 0), (1, 200_000)];

/// Arguments before the process's id, and the beginning of the line that says that it watches.
const WAYS: [(&str, &[&str], &str); 2] = [
    ("memleax -a", &["-a", "1d", "--pid"], "== Begin monitoring all processes"),
    ("memleax --backend bpf", &["--backend", "bpf", "--no-control"], "== Begin monitoring process"),
];

fn main() {
    let program = Target::c("pairs").build();
    let mut say = std::io::stdout().lock();
    writeln!(say, "{:14}{:>10}{:>24}{:>24}", "threads, live", "bare", WAYS[0].0, WAYS[1].0).expect("stdout is open");
    for load in LOADS {
        let mut times = [const { Vec::new() }; WAYS.len()];
        let mut bare = Vec::new();
        for _ in 0..RUNS {
            bare.push(time(&mut program.start(), load));
            for (times, way) in times.iter_mut().zip(WAYS) {
                times.push(watched(&program, load, way));
            }
        }
        let [whole, alone] = times.map(median);
        let name = format!("{}, {}", load.0, load.1);
        let ratio = format!("{whole:.0} ({:.2}x)", whole / alone);
        writeln!(say, "{name:14}{:>10.0}{ratio:>24}{alone:>24.0}", median(bare)).expect("stdout is open");
    }
}

fn watched(program: &Program, load: (u32, u32), (name, arguments, begins): (&str, &[&str], &str)) -> f64 {
    let mut target = program.start();
    let mut memleax = Command::new(env!("CARGO_BIN_EXE_memleax"));
    let mut memleax = Process::spawn(memleax.args(arguments).arg(target.id().to_string()));
    while !memleax
        .line()
        .unwrap_or_else(|| panic!("{name} does not work here: {}", memleax.errors()))
        .starts_with(begins)
    {}
    let time = time(&mut target, load);
    memleax.signal(Signal::SIGINT);
    memleax.wait();
    time
}

fn time(target: &mut Process, (threads, live): (u32, u32)) -> f64 {
    let answer = target.ask(&format!("pairs {PAIRS} {threads} 19 {live}"));
    let time = answer.iter().find_map(|line| line.strip_prefix("cpu ")?.parse().ok());
    time.unwrap_or_else(|| panic!("no time in {answer:?}"))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
