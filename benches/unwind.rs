//! What it costs to walk a stack: on a made-up one of calls within the C library that the benchmark itself runs with.

#![allow(missing_docs)]

use std::fs::{self, File};
use std::hint::black_box;
use std::path::PathBuf;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use memleax::unwind::{ModuleMap, RawBacktrace, Unwinder};
use memleax_platform::{AuxiliaryVector, MappedFile, Mapping, Registers};

const STACK: u64 = 0x7fff_0000_0000;
const DEPTH: usize = 50;
const CALL_SITES: usize = 500;

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

/// Return addresses in the library, each with the size of its frame.
fn call_sites(modules: &ModuleMap) -> Vec<(u64, u64)> {
    let mut unwinder = unwinder(modules);
    let mut backtrace = RawBacktrace::default();
    let module = &modules.live()[0];
    let registers = Registers { rsp: STACK, ..Registers::default() };
    let mut found = Vec::new();
    for pc in module.range.clone().filter(|&pc| module.is_code(pc)) {
        // Every word of the stack is its own address, so the next frame tells where it was found.
        let mut read = |address| Some(if address == STACK { pc } else { address });
        unwinder.unwind_from_call_entry(&registers, &mut read, 3, &mut backtrace);
        let size = backtrace.frames.get(2).map_or(0, |frame| frame.pc.wrapping_sub(STACK));
        if (8..1024).contains(&size) {
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

fn unwind(criterion: &mut Criterion) {
    let modules = modules();
    let call_sites = call_sites(&modules);
    assert_eq!(call_sites.len(), CALL_SITES);
    let registers = Registers { rsp: STACK, ..Registers::default() };
    let mut group = criterion.benchmark_group("unwind");
    for frames in [4, 30] {
        let words = stack(&call_sites, frames, 0);
        let mut read = |address: u64| words.get(((address - STACK) / 8) as usize).copied();
        let mut backtrace = RawBacktrace::default();
        let mut warm = unwinder(&modules);
        warm.unwind_from_call_entry(&registers, &mut read, DEPTH, &mut backtrace);
        assert_eq!(backtrace.frames.len(), frames + 1);
        group.throughput(Throughput::Elements(frames as u64));
        group.bench_function(format!("{frames} frames"), |bencher| {
            bencher.iter(|| {
                warm.unwind_from_call_entry(black_box(&registers), &mut read, DEPTH, &mut backtrace);
                backtrace.frames.len()
            });
        });
    }
    // Call sites never seen before.
    let words = stack(&call_sites, 30, 0);
    let mut backtrace = RawBacktrace::default();
    group.throughput(Throughput::Elements(30));
    group.bench_function("30 frames, cold", |bencher| {
        bencher.iter_batched_ref(
            || unwinder(&modules),
            |unwinder| {
                let mut read = |address: u64| words.get(((address - STACK) / 8) as usize).copied();
                unwinder.unwind_from_call_entry(&registers, &mut read, DEPTH, &mut backtrace);
                backtrace.frames.len()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, unwind);
criterion_main!(benches);
