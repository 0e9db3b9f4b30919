//! `heaptrack_print`, which reads the file as `heaptrack_gui` does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use memleax_targets::has_program;

use super::{folder, output_of, profile, write};
use crate::profile::View;

fn print(path: &Path, options: &[&str]) -> String {
    output_of(Command::new("heaptrack_print").args(options).arg("--file").arg(path))
}

/// A cost by the first function that heaptrack has of each call stack.
fn costs(path: &Path, kind: &str) -> BTreeMap<String, i64> {
    let stacks = path.with_extension(kind);
    let into = stacks.to_str().expect("a readable path");
    print(path, &["--flamegraph-cost-type", kind, "--print-flamegraph", into, "--shorten-templates=0"]);
    let text = fs::read_to_string(&stacks).expect("a file");
    let costs = text.lines().map(|line| {
        let (stack, cost) = line.rsplit_once(' ').expect("a cost");
        (stack.trim_end_matches(';').to_owned(), cost.parse().expect("a number"))
    });
    costs.collect()
}

#[test]
fn its_totals_are_ours() {
    if !has_program("heaptrack_print") {
        return;
    }
    for name in ["a.heaptrack", "a.heaptrack.gz"] {
        let folder = folder();
        let (path, left_out) = write(folder.path(), name, &profile(), &View::Leaks);
        assert_eq!(left_out, Vec::<String>::new());
        let text = print(&path, &["--print-leaks=1"]);
        for total in [
            "Debuggee command was: /srv/server --port 80",
            "total runtime: 10.00s.",
            "calls to allocation functions: 14 (",
            "temporary memory allocations: 1 (",
            "peak heap memory consumption: 4.77K",
            "total memory leaked: 1.02K",
        ] {
            assert!(text.contains(total), "no {total} in\n{text}");
        }
        // The innermost inlined function first, with the lines of the calls.
        let frames = "  Pool::take(int)\n    at /src/server.cpp:12\n    in /srv/server\n  serve(std::vector<> const&)\n    at /src/server.cpp:44\n  main\n    at /src/server.cpp:80\n    in /srv/server\n";
        let text = print(&path, &["--merge-backtraces=0", "--print-leaks=1"]);
        assert!(text.contains(&format!("1.02K leaked over 10 calls from\n{frames}")), "{text}");
        assert!(!text.contains("failed") && !text.contains("out of bounds") && !text.contains("unexpected"), "{text}");
    }
}

#[test]
fn each_call_stack_has_its_own_numbers() {
    if !has_program("heaptrack_print") {
        return;
    }
    let folder = folder();
    let (path, _) = write(folder.path(), "a.heaptrack", &profile(), &View::Leaks);
    // Inlined functions are in heaptrack's own order there.
    let serve = "main (server.cpp);Pool::take(int) (server.cpp);serve(std::vector<int> const&) (server.cpp)";
    let hostile = "main (server.cpp);/srv/plug in.so+0x4242;evil;\u{fffd}<b>\"&\u{fffd}[31m λ (server.cpp)";
    let unknown = "0x7fff12345678";
    for (kind, expected) in
        [("allocations", [10, 3, 1]), ("temporary", [1, 0, 0]), ("leaked", [1024, 0, 0]), ("peak", [768, 4000, 0])]
    {
        let stacks = [serve, hostile, unknown].map(str::to_owned);
        let expected: BTreeMap<String, i64> = stacks.into_iter().zip(expected).collect();
        assert_eq!(costs(&path, kind), expected, "{kind}");
    }
}
