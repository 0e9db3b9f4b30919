use std::sync::Arc;

use super::*;
use crate::event::Ending;
use crate::profile::{Snapshot, View, sample};
use crate::symbol::{Function, NamedFrame};

fn filtered(options: &FilterOptions) -> Profile {
    Filters::new(options).expect("good filters").apply(sample::profile())
}

/// Which of the sample's sites are left, by their innermost caller.
fn left(options: &FilterOptions) -> Vec<String> {
    let name = |site: &Site| site.stack.calls().nth(1).map(|call| call.name()).unwrap_or_default();
    filtered(options).sites.iter().map(name).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.into()).collect()
}

const TAKE: &str = "Pool::take(int)";
const EVIL: &str = "evil;\n<b>\"&\u{1b}[31m λ";
const UNKNOWN: &str = "0x7fff12345678";

#[test]
fn names_include_and_exclude() {
    let none = FilterOptions::default;
    for (options, sites) in [
        (none(), &[TAKE, EVIL, UNKNOWN][..]),
        (FilterOptions { include_functions: texts(&["^Pool::"]), ..none() }, &[TAKE]),
        (FilterOptions { include_functions: texts(&["^_ZN4Pool"]), ..none() }, &[TAKE]),
        (FilterOptions { include_functions: texts(&["^Pool::", "evil"]), ..none() }, &[TAKE, EVIL]),
        (FilterOptions { exclude_functions: texts(&["^main$"]), ..none() }, &[UNKNOWN]),
        (FilterOptions { include_modules: texts(&["/srv/"]), exclude_modules: texts(&["plug"]), ..none() }, &[TAKE]),
        (FilterOptions { include_files: texts(&[r"server\.cpp$"]), ..none() }, &[TAKE, EVIL]),
        (FilterOptions { exclude_files: texts(&["server"]), ..none() }, &[UNKNOWN]),
        // All kinds must agree.
        (FilterOptions { include_functions: texts(&["main"]), include_modules: texts(&["plug"]), ..none() }, &[EVIL]),
    ] {
        assert_eq!(left(&options), sites, "{options:?}");
    }
}

#[test]
fn sizes_and_ages_choose_call_stacks_and_single_blocks() {
    let none = FilterOptions::default;
    for (options, sites, blocks) in [
        (FilterOptions { min_size: Some(129), ..none() }, &[EVIL][..], 0),
        (FilterOptions { max_size: Some(128), ..none() }, &[TAKE, UNKNOWN], 1),
        (FilterOptions { min_age: Some(Duration::from_secs(10)), ..none() }, &[UNKNOWN], 0),
        (FilterOptions { max_age: Some(Duration::from_secs(9)), ..none() }, &[TAKE], 1),
    ] {
        assert_eq!(left(&options), sites, "{options:?}");
        assert_eq!(filtered(&options).blocks.len(), blocks, "{options:?}");
    }
}

#[test]
fn what_is_left_out_is_told_and_numbers_follow_their_sites() {
    let options = FilterOptions { exclude_functions: texts(&["^Pool::"]), ..FilterOptions::default() };
    let profile = filtered(&options);
    assert_eq!(
        profile.remarks[1..],
        [
            "Filters left out 1 call stack with 10 blocks (1280 bytes), 8 of them (1024 bytes) never freed.",
            "The peak and the course of time are those of the whole program, with what was left out.",
        ]
    );
    assert_eq!(profile.blocks, []);
    let snapshot: Vec<_> = profile.snapshots[0].live.iter().map(|(site, tally)| (*site, tally.bytes)).collect();
    assert_eq!(snapshot, [(0, 4_000), (1, 0)]);
    let weighed = profile.weigh(&View::Snapshot(1)).expect("one was taken");
    assert_eq!(weighed.total().bytes, 4_000);
}

#[test]
fn a_filter_that_leaves_all_says_nothing() {
    assert_eq!(filtered(&FilterOptions::default()), sample::profile());
}

#[test]
fn suppressions_are_counted_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("known.supp");
    std::fs::write(&path, "leak:nowhere\nleak:Pool::*\nleak:main\n").expect("a file");
    let profile = filtered(&FilterOptions { suppressions: vec![path.clone()], ..FilterOptions::default() });
    let path = path.display();
    // Of the site that frees all, nothing is left out, though it has the same `main`.
    let mut profile_with_twin = sample::profile();
    profile_with_twin.sites[1].live = Tally { count: 1, bytes: 5 };
    let options = FilterOptions { suppressions: vec![path.to_string().into()], ..FilterOptions::default() };
    let with_twin = Filters::new(&options).expect("good filters").apply(profile_with_twin);
    let first = format!(
        "Suppressed by leak:Pool::* ({path}:2): 1 call stack with 10 blocks (1280 bytes), 8 of them (1024 bytes) never freed."
    );
    let second = format!(
        "Suppressed by leak:main ({path}:3): 1 call stack with 3 blocks (6000 bytes), 1 of them (5 bytes) never freed."
    );
    assert_eq!(profile.remarks[1], first);
    assert_eq!(profile.sites.len(), 2);
    assert_eq!(with_twin.remarks[1..3], [first, second]);
    assert_eq!(with_twin.sites.len(), 1);
}

#[test]
fn an_expression_that_is_none_is_named() {
    let error = Filters::new(&FilterOptions { include_files: texts(&["a("]), ..FilterOptions::default() });
    assert_eq!(error.expect_err("no expression").to_string(), "cannot filter by \"a(\": unclosed group");
}

fn call(name: &str, raw: &str, inlined: bool) -> Function {
    let offset = (!inlined).then_some(1);
    Function { name: name.into(), raw: raw.into(), offset, file: None, line: None, inlined }
}

fn frame(address: u64, module: &str, functions: &[(&str, &str)]) -> Arc<NamedFrame> {
    let last = functions.len().saturating_sub(1);
    let functions = functions.iter().enumerate().map(|(at, (name, raw))| call(name, raw, at < last)).collect();
    Arc::new(NamedFrame { address, module: module.into(), offset: address, functions })
}

/// malloc, two allocator frames of Rust's that differ by `address`, a program's function below inlined std, main, start.
fn rust_stack(address: u64) -> NamedStack {
    let frames = vec![
        frame(1, "/lib/libc.so.6", &[("malloc", "malloc")]),
        frame(2, "/bin/app", &[("alloc::alloc::alloc", "_RNvA"), ("alloc::raw_vec::finish_grow", "_RNvB")]),
        frame(address, "/bin/app", &[("alloc::raw_vec::RawVec<T,A>::reserve", "_RNvC")]),
        frame(4, "/bin/app", &[("alloc::vec::Vec<T>::push", "_RNvD"), ("app::work", "_RNvE")]),
        frame(5, "/bin/app", &[("core::ops::function::FnOnce::call_once", "_RNvF")]),
        frame(6, "/bin/app", &[("main", "main")]),
        frame(7, "/lib/libc.so.6", &[]),
        frame(8, "/lib/libc.so.6", &[("__libc_start_main", "__libc_start_main")]),
        frame(9, "/bin/app", &[("_start", "_start")]),
    ];
    NamedStack { frames, ending: Ending::Complete, by_frame_pointer: false }
}

fn shown(stack: &NamedStack, sets: &[NoiseSet]) -> (Vec<String>, u64) {
    let (stack, hidden) = hiding::Hider::new(sets).hide(stack);
    (stack.calls().map(|call| call.name()).collect(), hidden)
}

#[test]
fn noise_is_hidden_and_the_allocator_and_the_program_stay() {
    let usual: Vec<NoiseSet> = NoiseSet::usual().collect();
    assert_eq!(shown(&rust_stack(3), &usual), (texts(&["malloc", "app::work", "main"]), 8));
    let (names, hidden) = shown(&rust_stack(3), &[NoiseSet::Start]);
    assert_eq!((names.last().map(String::as_str), hidden), (Some("main"), 3));
    let only_noise = NamedStack { frames: rust_stack(3).frames[..3].to_vec(), ..rust_stack(3) };
    assert_eq!(shown(&only_noise, &usual).1, 0);
}

#[test]
fn a_stack_that_ends_early_in_the_c_library_is_left_as_it_is() {
    let frames = [frame(1, "/lib/libc.so.6", &[("malloc", "malloc")]), frame(7, "/lib/libc.so.6", &[])];
    let caller = frame(4, "/bin/app", &[("app::work", "_RNvE")]);
    let outermost_in_libc = |ending| {
        let frames = vec![Arc::clone(&frames[0]), Arc::clone(&caller), Arc::clone(&frames[1])];
        shown(&NamedStack { frames, ending, by_frame_pointer: false }, &[NoiseSet::Start]).1
    };
    assert_eq!(outermost_in_libc(Ending::NoUnwindInfo), 0);
    assert_eq!(outermost_in_libc(Ending::Complete), 1);
}

#[test]
fn sites_that_differ_in_hidden_frames_only_are_joined() {
    let mut profile = sample::profile();
    profile.sites[0].stack = rust_stack(3);
    profile.sites[1].stack = rust_stack(33);
    let before = profile.clone();
    let options = FilterOptions { noise: NoiseSet::usual().collect(), ..FilterOptions::default() };
    let profile = Filters::new(&options).expect("good filters").apply(profile);
    assert_eq!(profile.sites.len(), 2);
    let joint = &profile.sites[0];
    assert_eq!(joint.allocated, before.sites[0].allocated.plus(before.sites[1].allocated));
    assert_eq!(joint.live, Tally { count: 8, bytes: 1_024 });
    assert_eq!(joint.sizes.as_ref().map(crate::histogram::Histogram::count), Some(13));
    let bytes: Vec<_> = joint.growth.iter().map(|(at, tally)| (*at, tally.bytes)).collect();
    assert_eq!(bytes, [(0, 128), (1, 4_768), (2, 1_024)]);
    // Two blocks with a mean of 1.0000005 s, three with 6 ms.
    let (min, mean, max) = joint.lives.expect("five blocks");
    assert_eq!(
        (min, mean, max),
        (Duration::from_nanos(1_000), Duration::from_nanos(403_600_200), Duration::from_secs(2))
    );
    assert_eq!(joint.temporary, Some(Tally { count: 1, bytes: 128 }));
    let Snapshot { live, .. } = &profile.snapshots[0];
    assert_eq!(live.iter().map(|(site, tally)| (*site, tally.count)).collect::<Vec<_>>(), [(0, 8), (1, 1)]);
    assert_eq!(
        profile.remarks.last().map(String::as_str),
        Some("16 frames of runtimes (start, rust, tokio, c++) hidden in 2 call stacks; --all-frames shows them.")
    );
    for view in [View::Leaks, View::Peak, View::Allocated] {
        let total = |profile: &Profile| profile.weigh(&view).expect("a view that can be had").total();
        assert_eq!(total(&profile), total(&before));
    }
}
