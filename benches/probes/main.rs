//! What a malloc/free pair costs under the bpf backend, beside the traps alone and beside the usual way to trace an allocator.
//!
//! All rows are taken in turns, round by round, so that a busy machine disturbs each alike; each number is the median of the rounds,
//! in nanoseconds of the target's processor time a pair.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_rs::{Link, Object, ObjectBuilder, ProgramMut, UprobeMultiOpts, UprobeOpts};
use memleax::bpf::placement::placement;
use memleax_targets::{Process, Program, Target};
use nix::sys::signal::Signal;
use object::{Object as _, ObjectSymbol};

const ROUNDS: usize = 7;

/// What the loop does.
#[derive(Clone, Copy)]
struct Load {
    threads: u32,
    frames: u32,
    /// Blocks that are live while one of them, chosen at random, is exchanged by each pair.
    live: u32,
}

const LOADS: [Load; 6] = [
    Load { threads: 1, frames: 1, live: 0 },
    Load { threads: 1, frames: 20, live: 0 },
    Load { threads: 1, frames: 40, live: 0 },
    Load { threads: 2, frames: 20, live: 0 },
    Load { threads: 2, frames: 40, live: 0 },
    Load { threads: 1, frames: 20, live: 200_000 },
];

/// What watches the loop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watcher {
    Nobody,
    EmptyProbes,
    Memleax,
    NaiveProbes,
    Bpfcc,
}

const WATCHERS: [(Watcher, &str); 5] = [
    (Watcher::Nobody, "bare"),
    (Watcher::EmptyProbes, "empty probes at the same places"),
    (Watcher::Memleax, "memleax --backend bpf"),
    (Watcher::NaiveProbes, "naive: 3 probes, hash maps"),
    (Watcher::Bpfcc, "bpfcc memleak"),
];

fn main() {
    let bench = Bench { program: Target::c("pairs").build(), libc: Libc::find(), object: compile() };
    let mut table = Vec::new();
    for load in LOADS {
        let mut samples = WATCHERS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for ((watcher, _), samples) in WATCHERS.iter().zip(&mut samples) {
                samples.extend(bench.run(*watcher, load));
            }
        }
        table.push(samples.map(median));
    }
    print(&table).expect("stdout is open");
}

fn print(table: &[[Option<f64>; WATCHERS.len()]]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let heads = LOADS.map(|load| match load.live {
        0 => format!("{:>16}", format!("{} thr, {} fr", load.threads, load.frames)),
        live => format!("{:>24}", format!("{} thr, {} fr, {}k live", load.threads, load.frames, live / 1000)),
    });
    let cell = |value: Option<String>, head: &str| format!("{:>1$}", value.unwrap_or_else(|| "-".into()), head.len());
    let mut row = |name: &str, of: &dyn Fn(&[Option<f64>; WATCHERS.len()]) -> Option<String>| {
        let cells: String = table.iter().zip(&heads).map(|(column, head)| cell(of(column), head)).collect();
        writeln!(out, "{name:34}{cells}")
    };
    row("ns of CPU time a malloc/free pair", &|_| Some(String::new()))?;
    row("", &|_| None)?;
    for (index, (_, name)) in WATCHERS.iter().enumerate() {
        row(name, &|column| column[index].map(|ns| format!("{ns:.0}")))?;
    }
    let ratio = |column: &[Option<f64>; WATCHERS.len()], of: usize, to: usize| Some(column[of]? / column[to]?);
    for (name, of, to) in [("memleax / empty probes", 2, 1), ("naive / memleax", 3, 2), ("bpfcc / memleax", 4, 2)] {
        row(name, &|column| ratio(column, of, to).map(|ratio| format!("{ratio:.2}")))?;
    }
    Ok(())
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// The program that is watched, and what it takes to watch it.
struct Bench {
    program: Program,
    libc: Libc,
    object: Vec<u8>,
}

impl Bench {
    /// Nothing if that watcher does not work here.
    fn run(&self, watcher: Watcher, load: Load) -> Option<f64> {
        let mut target = self.program.start();
        let pairs = if watcher == Watcher::Nobody { 2_000_000 } else { 100_000 };
        match watcher {
            Watcher::Nobody => Some(time(&mut target, load, pairs)),
            Watcher::EmptyProbes => {
                let _attached = self.empty_probes(&target).ok()?;
                Some(time(&mut target, load, pairs))
            }
            Watcher::NaiveProbes => {
                let _attached = self.naive_probes(&target).ok()?;
                Some(time(&mut target, load, pairs))
            }
            Watcher::Memleax => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_memleax"));
                command.args(["--backend", "bpf", "--expire", "1h", &target.id().to_string()]);
                under(command, "-- Hooked in", &mut target, load, pairs)
            }
            Watcher::Bpfcc => {
                let mut command = Command::new(
                    ["memleak-bpfcc", "/usr/share/bcc/tools/memleak"].into_iter().find(|tool| is_installed(tool))?,
                );
                command.args(["-p", &target.id().to_string(), "1"]);
                under(command, "Top 10 stacks", &mut target, load, pairs)
            }
        }
    }

    /// As memleax places its probes and traps the return.
    fn empty_probes(&self, target: &Process) -> libbpf_rs::Result<(Object, [Link; 2])> {
        let object = self.load(&["nothing_at_calls", "nothing_at_frees"])?;
        let attach = |program: &str, function: &Function, session: bool| {
            let place = placement(&function.code, &[0], session).offset;
            let options =
                UprobeMultiOpts { offsets: vec![function.offset + place as usize], session, ..Default::default() };
            self.program(&object, program).attach_uprobe_multi_with_opts(
                target.pid().as_raw(),
                &self.libc.path,
                "",
                options,
            )
        };
        let calls = attach("nothing_at_calls", &self.libc.malloc, true)?;
        let frees = attach("nothing_at_frees", &self.libc.free, false)?;
        Ok((object, [calls, frees]))
    }

    fn naive_probes(&self, target: &Process) -> libbpf_rs::Result<(Object, [Link; 3])> {
        let object = self.load(&["naive_enter", "naive_return", "naive_free"])?;
        let attach = |program: &str, function: &Function, retprobe: bool| {
            let options = UprobeOpts { retprobe, ..Default::default() };
            self.program(&object, program).attach_uprobe_with_opts(
                target.pid().as_raw(),
                &self.libc.path,
                function.offset,
                options,
            )
        };
        let links = [
            attach("naive_enter", &self.libc.malloc, false)?,
            attach("naive_return", &self.libc.malloc, true)?,
            attach("naive_free", &self.libc.free, false)?,
        ];
        Ok((object, links))
    }

    fn load(&self, programs: &[&str]) -> libbpf_rs::Result<Object> {
        let mut open = ObjectBuilder::default().open_memory(&self.object)?;
        for mut program in open.progs_mut() {
            let is_wanted = program.name().to_str().is_some_and(|name| programs.contains(&name));
            program.set_autoload(is_wanted);
        }
        open.load()
    }

    fn program<'object>(&self, object: &'object Object, name: &str) -> ProgramMut<'object> {
        object.progs_mut().find(|program| program.name() == name).expect("a program of ours")
    }
}

/// Runs the loop while a tool watches; its first line with `ready` says that it does.
fn under(mut command: Command, ready: &str, target: &mut Process, load: Load, pairs: u32) -> Option<f64> {
    let mut tool = Process::spawn(&mut command);
    while !tool.line()?.contains(ready) {}
    let ns = time(target, load, pairs);
    tool.signal(Signal::SIGINT);
    tool.wait();
    Some(ns)
}

fn time(target: &mut Process, load: Load, pairs: u32) -> f64 {
    let Load { threads, frames, live } = load;
    // A first run fills caches. The first frame is the loop's own.
    target.ask(&format!("pairs 5000 {threads} {} {live}", frames - 1));
    let answer = target.ask(&format!("pairs {pairs} {threads} {} {live}", frames - 1));
    let ns = answer.iter().find_map(|line| line.strip_prefix("cpu ")?.parse().ok());
    ns.unwrap_or_else(|| panic!("no time in {answer:?}"))
}

fn is_installed(tool: &str) -> bool {
    Command::new(tool).arg("--help").output().is_ok()
}

/// The C library's two functions.
struct Libc {
    path: PathBuf,
    malloc: Function,
    free: Function,
}

struct Function {
    /// In the file.
    offset: usize,
    code: Vec<u8>,
}

impl Libc {
    /// That of this process, which is the target's too.
    fn find() -> Libc {
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
        let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
        let path = PathBuf::from(path.expect("a dynamic C library"));
        let bytes = fs::read(&path).expect("a readable C library");
        let file = object::File::parse(&*bytes).expect("an ELF file");
        let function = |name: &str| {
            let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name)).expect("a C library's symbol");
            // Debian's links its text where the file has it.
            let (offset, size) = (symbol.address() as usize, symbol.size() as usize);
            Function { offset, code: bytes[offset..offset + size].to_vec() }
        };
        Libc { malloc: function("malloc"), free: function("free"), path }
    }
}

/// The programs of this bench.
fn compile() -> Vec<u8> {
    let object = memleax_targets::target_directory().join("probes.bpf.o");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/probes/programs.bpf.c");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let mut command = Command::new(clang);
    command.args(["-target", "bpf", "-mcpu=v3", "-g", "-O2", "-c", "-o"]).arg(&object).arg(source);
    assert!(command.status().expect("clang runs").success(), "{command:?}");
    fs::read(object).expect("what clang wrote")
}
