//! `go tool pprof`, the original.

use std::process::Command;

use memleax_targets::has_program;

use super::{folder, output_of, profile, write};
use crate::profile::View;

/// What `go tool pprof` prints of a view, with single spaces.
fn pprof(view: &View, options: &[&str]) -> Option<String> {
    if !has_program("go") {
        return None;
    }
    let folder = folder();
    let (path, left_out) = write(folder.path(), "a.pb.gz", &profile(), view);
    assert_eq!(left_out, Vec::<String>::new());
    let mut command = Command::new("go");
    command.args(["tool", "pprof", "-symbolize=none"]).args(options).arg(path);
    command.env("PPROF_TMPDIR", folder.path()).envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("TZ", "UTC")]);
    let lines: Vec<String> =
        output_of(&mut command).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    Some(lines.join("\n"))
}

fn assert_has(text: &str, lines: &str) {
    assert!(text.contains(lines), "not found:\n{lines}\nin:\n{text}");
}

#[test]
fn everything_arrives() {
    let Some(text) = pprof(&View::Leaks, &["-raw"]) else { return };
    assert_has(
        &text,
        "PeriodType: space bytes\nPeriod: 1\nTime: 2023-11-14 22:13:20 +0000 UTC\nDuration: 10s\nSamples:\n\
         alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]\n\
         10 1280 8 1024: 1 2 3\n\
         3 6000 0 0: 1 4 5 3\n\
         1 0 1 0: 1 6\n\
         backtrace:[ends here: this code is in no file]",
    );
    // The frames of callers are a byte before the return address. The inlined function is first.
    for location in [
        "1: 0x5555555ea930 M=2 malloc :0 s=0",
        "2: 0x55555555124f M=1 Pool::take(int) /src/server.cpp:12 s=0(_ZN4Pool4takeEi)\n\
         serve(std::vector<int> const&) /src/server.cpp:44 s=0(_Z5serveRKSt6vectorIiE)",
        "3: 0x55555555117f M=1 main /src/server.cpp:80 s=0",
        "4: 0x5555555512ff M=1 evil;\u{fffd}<b>\"&\u{fffd}[31m λ /src/server.cpp:7 s=0(evil)",
        "5: 0x555555554241 M=3 /srv/plug in.so+0x4242 :0 s=0",
        "6: 0x7fff12345677 0x7fff12345678 :0 s=0",
        "1: 0x555555550000/0x555555553000/0x0 /srv/server abababababababababababababababababababab [FN][FL][LN][IN]",
        "2: 0x555555554000/0x555555700000/0x0 /usr/lib/libc.so.6 1234 [FN]",
        "3: 0x555555800000/0x555555810000/0x0 /srv/plug in.so",
    ] {
        assert_has(&text, location);
    }
}

#[test]
fn the_view_is_what_is_shown_first() {
    let Some(text) = pprof(&View::Peak, &["-top"]) else { return };
    assert_has(&text, "File: server\nBuild ID: abababababababababababababababababababab");
    assert_has(&text, "Type: peak_space");
    assert_has(&text, "Showing nodes accounting for 4768B, 100% of 4768B total");
    assert_has(&text, "4768B 100% 100% 4768B 100% malloc");
    assert_has(&text, "0 0% 100% 4000B 83.89% /srv/plug in.so+0x4242");
    assert_has(&text, "0 0% 100% 768B 16.11% Pool::take(int) (inline)");
    let text = pprof(&View::Allocated, &["-top"]).expect("as before");
    assert_has(&text, "Type: alloc_space");
    let text = pprof(&View::Growth { from: Some(1), to: None }, &["-top"]).expect("as before");
    assert_has(&text, "-3744B 87.97% 87.97% -3744B 87.97% malloc");
}

#[test]
fn what_is_not_in_the_numbers_is_a_comment() {
    let Some(text) = pprof(&View::Leaks, &["-comments"]) else { return };
    for line in [
        "View: never freed.",
        "memleax 0.1.0: process 4321 (/srv/server --port 80), watched from its start, so each of its blocks is known.",
        "2 allocator calls never returned",
        "3 frees of memory not known to be live",
        "Names of one library are missing.",
    ] {
        assert_has(&text, line);
    }
}
