//! What it costs to walk a stack, beside what it costs framehop: on made-up ones of calls within the C library that the
//! benchmark itself runs with.

#![allow(missing_docs)]

use std::fs::{self, File};
use std::hint::black_box;
use std::path::PathBuf;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use memleax::unwind::{ModuleMap, RawBacktrace, Unwinder};
use memleax_platform::{AuxiliaryVector, MappedFile, Mapping, Registers};
use reference::Reference;

#[path = "../tests/unwind/reference.rs"]
mod reference;

const STACK: u64 = 0x7fff_0000_0000;
const DEPTH: usize = 50;
/// More than framehop remembers the rules of (509), fewer than we do: as many as a large program allocates from.
const CALL_SITES: usize = 5000;

/// The C library's mappings in this process.
fn mappings() -> Vec<Mapping> {
    let maps = fs::read_to_string("/proc/self/maps").expect("the benchmark's own mappings");
    let hex = |text: &str| u64::from_str_radix(text, 16).expect("a hexadecimal number");
    let lines = maps.lines().filter(|line| line.contains("/libc.so"));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (start, end) = fields[0].split_once('-').expect("a range");
            Mapping {
                start: hex(start),
                end: hex(end),
                offset: hex(fields[2]),
                readable: fields[1].contains('r'),
                writable: fields[1].contains('w'),
                executable: fields[1].contains('x'),
                shared: false,
                file_id: (1, 1),
                path: PathBuf::from(fields[5]),
                deleted: false,
            }
        })
        .collect()
}

fn modules() -> ModuleMap {
    let mut modules = ModuleMap::default();
    let mut open = |mapping: &Mapping| MappedFile::new(&File::open(&mapping.path)?);
    modules.refresh(&mappings(), &AuxiliaryVector::default(), &mut open, &mut |_, _| 0);
    assert_eq!(modules.live().len(), 1, "a dynamic C library");
    modules
}

fn unwinder(modules: &ModuleMap) -> Unwinder {
    let mut unwinder = Unwinder::default();
    unwinder.update(modules, &mut |_| None);
    unwinder
}

/// Return addresses in the library, each with the size of its frame; only those that framehop, too, finds a rule for.
fn call_sites(modules: &ModuleMap) -> Vec<(u64, u64)> {
    let (mut unwinder, mut framehop) = (unwinder(modules), Reference::new(modules));
    let (mut backtrace, mut frames) = (RawBacktrace::default(), Vec::new());
    let module = &modules.live()[0];
    let registers = Registers { rsp: STACK, ..Registers::default() };
    let mut found = Vec::new();
    for pc in module.range.clone().filter(|&pc| module.is_code(pc)) {
        // Every word of the stack is its own address, so the next frame tells where it was found. Below it there is
        // nothing: framehop reads a saved rbp even there.
        let mut read = |address| (address >= STACK).then_some(if address == STACK { pc } else { address });
        unwinder.unwind_from_call_entry(&registers, &mut read, 3, &mut backtrace);
        framehop.unwind_from_call_entry(&registers, &mut read, 3, &mut frames);
        let caller = backtrace.frames.get(2).map_or(0, |frame| frame.pc);
        let size = caller.wrapping_sub(STACK);
        if (8..1024).contains(&size) && frames.get(2) == Some(&caller) {
            found.push((pc, size));
        }
        if found.len() == CALL_SITES {
            break;
        }
    }
    found
}

/// A stack of `frames` calls, from [`STACK`] on.
fn stack(call_sites: &[(u64, u64)], frames: usize, first: usize) -> Vec<u64> {
    let mut words = Vec::new();
    for index in 0..frames {
        let (pc, size) = call_sites[(first + index * 7) % call_sites.len()];
        words.push(pc);
        words.resize(words.len() + (size / 8 - 1) as usize, 0);
    }
    words.push(0);
    words
}

fn word(words: &[u64], address: u64) -> Option<u64> {
    words.get(((address - STACK) / 8) as usize).copied()
}

/// Measures both unwinders on these stacks in turn, all of them walked before.
fn warm(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, modules: &ModuleMap, stacks: &[Vec<u64>]) {
    let registers = Registers { rsp: STACK, ..Registers::default() };
    let (mut unwinder, mut framehop) = (unwinder(modules), Reference::new(modules));
    let (mut backtrace, mut frames) = (RawBacktrace::default(), Vec::new());
    for words in stacks {
        let mut read = |address| word(words, address);
        unwinder.unwind_from_call_entry(&registers, &mut read, DEPTH, &mut backtrace);
        framehop.unwind_from_call_entry(&registers, &mut read, DEPTH, &mut frames);
        let ours: Vec<u64> = backtrace.frames.iter().map(|frame| frame.pc).collect();
        assert_eq!(ours, frames);
        let expected: Vec<u64> = words.iter().copied().filter(|&word| word != 0).collect();
        assert_eq!(ours[1..], expected);
    }
    let mut next = stacks.iter().cycle();
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let words = next.next().expect("a stack");
            let mut read = |address| word(words, address);
            unwinder.unwind_from_call_entry(black_box(&registers), &mut read, DEPTH, &mut backtrace);
            backtrace.frames.len()
        });
    });
    let mut next = stacks.iter().cycle();
    group.bench_function(format!("{name}, framehop"), |bencher| {
        bencher.iter(|| {
            let words = next.next().expect("a stack");
            let mut read = |address| word(words, address);
            framehop.unwind_from_call_entry(black_box(&registers), &mut read, DEPTH, &mut frames);
            frames.len()
        });
    });
}

/// Measures both unwinders on a stack of call sites never seen before.
fn cold(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, modules: &ModuleMap, words: &[u64]) {
    let registers = Registers { rsp: STACK, ..Registers::default() };
    let mut read = |address| word(words, address);
    let (mut backtrace, mut frames) = (RawBacktrace::default(), Vec::new());
    group.bench_function(name, |bencher| {
        bencher.iter_batched_ref(
            || unwinder(modules),
            |unwinder| {
                unwinder.unwind_from_call_entry(&registers, &mut read, DEPTH, &mut backtrace);
                backtrace.frames.len()
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function(format!("{name}, framehop"), |bencher| {
        bencher.iter_batched_ref(
            || Reference::new(modules),
            |framehop| {
                framehop.unwind_from_call_entry(&registers, &mut read, DEPTH, &mut frames);
                frames.len()
            },
            BatchSize::SmallInput,
        );
    });
}

fn unwind(criterion: &mut Criterion) {
    let modules = modules();
    let call_sites = call_sites(&modules);
    assert_eq!(call_sites.len(), CALL_SITES);
    let mut group = criterion.benchmark_group("unwind");
    for frames in [4, 30] {
        group.throughput(Throughput::Elements(frames as u64));
        warm(&mut group, &format!("{frames} frames"), &modules, &[stack(&call_sites, frames, 0)]);
    }
    cold(&mut group, "30 frames, cold", &modules, &stack(&call_sites, 30, 0));
    let many: Vec<Vec<u64>> = call_sites.chunks_exact(30).map(|chunk| stack(chunk, 30, 0)).collect();
    warm(&mut group, "30 frames, 5000 call sites", &modules, &many);
    group.finish();
}

criterion_group!(benches, unwind);
criterion_main!(benches);
