//! Leaks by what Rust programs allocate with. Command: `go N`.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::sync::Arc;

struct Site {
    name: &'static str,
    chain: &'static str,
    bytes: usize,
    line: u32,
    leak: fn(bool) -> u32,
}

#[inline(never)]
fn site_box(leaked: bool) -> u32 {
    let (line, block) = (line!(), Box::new(black_box([1u8; 151])));
    keep(leaked, block);
    line
}

#[inline(never)]
fn site_vec(leaked: bool) -> u32 {
    let (line, block) = (line!(), Vec::<u16>::with_capacity(black_box(76)));
    keep(leaked, block);
    line
}

#[inline(never)]
fn site_zeroed(leaked: bool) -> u32 {
    let (line, block) = (line!(), vec![0u8; black_box(153)]);
    keep(leaked, block);
    line
}

#[inline(never)]
fn site_string(leaked: bool) -> u32 {
    let (line, block) = (line!(), String::from(black_box("a string of twenty-nine bytes")));
    keep(leaked, block);
    line
}

#[inline(never)]
fn site_arc(leaked: bool) -> u32 {
    let (line, block) = (line!(), Arc::new(black_box([3u64; 18])));
    keep(leaked, block);
    line
}

#[repr(align(64))]
struct Aligned([u8; 192]);

#[inline(never)]
fn site_aligned(leaked: bool) -> u32 {
    let (line, block) = (line!(), Box::new(black_box(Aligned([1; 192]))));
    black_box(&block.0);
    keep(leaked, block);
    line
}

#[inline(never)]
fn generic<T: Default + Clone>(count: usize) -> Vec<T> {
    let block = black_box(vec![T::default(); count]);
    black_box(());
    block
}

#[inline(never)]
fn site_generic(leaked: bool) -> u32 {
    let (line, block) = (line!(), generic::<Option<u32>>(black_box(20)));
    keep(leaked, block);
    line
}

trait Leaks {
    fn leak(&self, leaked: bool);
}

struct Leaker;

impl Leaks for Leaker {
    #[inline(never)]
    fn leak(&self, leaked: bool) {
        let block = Box::new(black_box([1u8; 157]));
        keep(leaked, block);
    }
}

#[inline(never)]
fn site_dyn(leaked: bool) -> u32 {
    let leaker: &dyn Leaks = black_box(&Leaker);
    leaker.leak(leaked);
    black_box(());
    0
}

#[inline(never)]
fn site_closure(leaked: bool) -> u32 {
    let leak = black_box(move |bytes: usize| keep(leaked, vec![7u8; bytes]));
    leak(black_box(158));
    black_box(());
    0
}

#[inline(always)]
fn keep<T>(leaked: bool, block: T) {
    if leaked { std::mem::forget(black_box(block)) } else { drop(black_box(block)) }
}

const SITES: &[Site] = &[
    Site { name: "box", chain: "malloc<-*<-site_box:@<-run_sites<-*<-main", bytes: 151, line: 0, leak: site_box },
    Site { name: "vec", chain: "malloc<-*<-site_vec:@<-run_sites<-*<-main", bytes: 152, line: 0, leak: site_vec },
    Site { name: "zeroed", chain: "calloc<-*<-site_zeroed:@<-run_sites<-*<-main", bytes: 153, line: 0, leak: site_zeroed },
    Site { name: "string", chain: "malloc<-*<-site_string:@<-run_sites<-*<-main", bytes: 29, line: 0, leak: site_string },
    Site { name: "arc", chain: "malloc<-*<-site_arc:@<-run_sites<-*<-main", bytes: 160, line: 0, leak: site_arc },
    Site {
        name: "aligned",
        chain: "posix_memalign|aligned_alloc<-*<-site_aligned:@<-run_sites<-*<-main",
        bytes: 192,
        line: 0,
        leak: site_aligned,
    },
    Site {
        name: "generic",
        chain: "malloc|calloc<-*<-generic<-site_generic:@<-run_sites<-*<-main",
        bytes: 160,
        line: 0,
        leak: site_generic,
    },
    Site { name: "dyn", chain: "malloc<-*<-leak<-site_dyn<-run_sites<-*<-main", bytes: 157, line: 0, leak: site_dyn },
    Site { name: "closure", chain: "malloc<-*<-site_closure<-run_sites<-*<-main", bytes: 158, line: 0, leak: site_closure },
];

#[inline(never)]
fn run_sites(sites: &mut [Site], rounds: usize) {
    for site in sites {
        for i in 0..2 * rounds {
            site.line = (site.leak)(i % 2 == 0);
        }
    }
}

fn main() {
    let mut sites: Vec<Site> = SITES.iter().map(|site| Site { ..*site }).collect();
    let mut line = String::with_capacity(256);
    let mut out = std::io::stdout().lock();
    let mut input = std::io::stdin().lock();
    // The first use of a hash map seeds the thread's keys, and the first read makes the buffer.
    black_box(HashMap::<u8, u8>::new());
    writeln!(out, "READY").expect("stdout is open");
    let mut total = 0;
    while input.read_line(&mut line).is_ok_and(|length| length > 0) && line != "quit\n" {
        if let Some(rounds) = line.strip_prefix("go ").and_then(|n| n.trim().parse::<usize>().ok()) {
            run_sites(&mut sites, rounds);
            total += rounds;
            for Site { name, chain, bytes, line, .. } in &sites {
                writeln!(out, "site {name} {total} {} {} {total} {line} {chain}", total * bytes, 2 * total)
                    .expect("stdout is open");
            }
        }
        writeln!(out, "DONE").expect("stdout is open");
        line.clear();
    }
}
