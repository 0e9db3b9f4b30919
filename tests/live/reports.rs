//! Reports, comparisons and filters of real runs, from the command line.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use memleax_targets::{Process, Target};
use serde_json::Value;

use crate::harness::{Backend, memleax, program as program_itself};

/// Records the launched program, which leaks `blocks` blocks of 33 bytes in `leak_in_main` and frees as many, besides some before main.
fn record(folder: &Path, name: &str, blocks: u32) -> PathBuf {
    let (program, file) = (Target::c("launched").build(), folder.join(name));
    let mut command = program_itself();
    command
        .args(["record", "--backend", Backend::under_test().name(), "--expire", "1h", "-o"])
        .arg(&file)
        .arg("--")
        .arg(&program.path);
    let mut recorded = Process::start(&mut command);
    recorded.ask(&format!("go {blocks}"));
    recorded.send("quit");
    let (status, _) = recorded.wait();
    assert_eq!(status.code(), Some(0), "{}", recorded.errors());
    file
}

fn run(arguments: &[&str], files: &[&Path]) -> Output {
    let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
    Command::new(env!("CARGO_BIN_EXE_memleax"))
        .args(&arguments[..1])
        .args(files)
        .args(&arguments[1..])
        .output()
        .expect("memleax runs")
}

fn printed(arguments: &[&str], files: &[&Path]) -> String {
    let output = run(arguments, files);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn each_view_of_a_recording_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = record(folder.path(), "a.memleax", 7);
    let text = printed(&["report"], &[&file]);
    assert!(text.contains("CallStack[1]: "), "{text}");
    assert!(text.contains("leak_in_main()+"), "{text}");
    // Start code is hidden, and counted.
    assert!(!text.contains("_start"), "{text}");
    assert!(text.contains("frames of runtimes (start, rust, tokio, c++) hidden in"), "{text}");
    let tree = printed(&["report", "--format", "tree", "--all-frames", "--threshold", "0"], &[&file]);
    assert!(tree.contains("(231B, 7x): leak_in_main ["), "{tree}");
    assert!(tree.contains(": _start\n"), "{tree}");
    let top_down = printed(&["report", "--format", "tree", "--top-down", "--threshold", "0"], &[&file]);
    assert!(top_down.lines().any(|line| line.starts_with("  -> ") && line.contains(": main [")), "{top_down}");
    for (view, heading) in [
        ("summary", "== Process "),
        ("peak", "== Live at the peak"),
        ("allocated", "== Allocated: "),
        ("growth", "== Growth from the beginning to the end: +"),
        ("sites:blocks", "== Call stacks with the most allocated blocks: "),
        ("sizes", "== Sizes of all blocks"),
        ("lifetimes", "== Life times of all blocks"),
        ("timeline", "== Live memory over time"),
        ("snapshots", "== Snapshots: none."),
    ] {
        let text = printed(&["report", "--view", view], &[&file]);
        assert!(text.contains(heading), "{view}: {text}");
    }
}

#[test]
fn filters_leave_out_what_they_say_and_tell_how_much() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = record(folder.path(), "a.memleax", 7);
    let of_main = printed(&["report", "--include-function", "^leak_in_main$"], &[&file]);
    assert!(of_main.contains("== Never freed: 7 blocks, 231 bytes in 1 call stack "), "{of_main}");
    assert!(of_main.contains("-- Filters left out "), "{of_main}");
    let others = printed(&["report", "--exclude-function", "^leak_in_main$", "--format", "collapsed"], &[&file]);
    assert!(others.contains("leak_in_constructor;malloc 160\n") && !others.contains("leak_in_main"), "{others}");
    let suppressions = folder.path().join("known.supp");
    fs::write(&suppressions, "{\n   known\n   Memcheck:Leak\n   fun:malloc\n   fun:leak_in_main\n}\n").expect("a file");
    let text = printed(&["report", "--suppressions", suppressions.to_str().expect("UTF-8")], &[&file]);
    let told = format!(
        "-- Suppressed by known ({}:1): 1 call stack with 14 blocks (462 bytes), 7 of them (231 bytes) never freed.",
        suppressions.display()
    );
    assert!(text.contains(&told), "{text}");
    let wrong = run(&["report", "--include-file", "("], &[&file]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn a_comparison_shows_what_grew_and_by_how_much() {
    let folder = tempfile::tempdir().expect("a folder");
    let (before, after) = (record(folder.path(), "a", 7), record(folder.path(), "b", 19));
    let text = printed(&["diff"], &[&before, &after]);
    assert!(text.contains(": +12 blocks, +396 bytes in 1 call stack "), "{text}");
    assert!(text.contains("leak_in_main()+"), "{text}");
    let tree = printed(&["diff", "--format", "tree"], &[&after, &before]);
    assert!(tree.contains("-100.00% (-396B, -12x): leak_in_main ["), "{tree}");
    let same = printed(&["diff", "--view", "allocated", "--format", "collapsed"], &[&before, &before]);
    assert_eq!(same, "");
    let json: Value = serde_json::from_str(&printed(&["diff", "--format", "json"], &[&before, &after])).expect("JSON");
    assert_eq!(json["view"]["total"], serde_json::json!({"count": 12, "bytes": 396}));
    let error = run(&["diff", "--view", "snapshot:3"], &[&before, &after]);
    assert_eq!(error.status.code(), Some(1));
    let message = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(message.contains("a: cannot show snapshot 3: the number taken is 0"), "{message}");
}

#[test]
fn a_known_leak_is_none_for_the_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let suppressions = folder.path().join("known.supp");
    // Whatever the C library keeps is known, too.
    fs::write(&suppressions, "leak:leak_\nleak:main\nleak:libc.so\nleak:ld-linux\n").expect("a file");
    let program = Target::c("launched").build();
    let status = |options: &[&str]| {
        let mut command = memleax();
        command.args(["--quiet", "--error-exitcode", "99"]).args(options).arg("--").arg(&program.path);
        let mut run = Process::start(&mut command);
        run.ask("go 3");
        run.send("quit");
        let (status, _) = run.wait();
        (status.code(), run.errors())
    };
    let (code, errors) = status(&[]);
    assert_eq!(code, Some(99), "{errors}");
    let (code, errors) = status(&["--suppressions", suppressions.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("Suppressed by leak:leak_ ("), "{errors}");
}

#[test]
fn live_lines_are_filtered_and_are_json_where_that_is_asked_for() {
    let program = Target::c("launched").build();
    let live = |options: &[&str], expected: usize| {
        let mut command = memleax();
        command.args(["--live", "jsonl", "--expire", "1ms", "--format", "json"]).args(options);
        command.arg("--").arg(&program.path);
        let mut run = Process::start(&mut command);
        run.ask("go 3");
        // Both call stacks that leak before main, and that of main: all have expired when the last one has.
        let mut read = Vec::new();
        while read.iter().filter(|line: &&String| line.contains("\"event\":\"expired\"")).count() < expected {
            read.push(run.error_line().expect("a line for each call stack that expires"));
        }
        run.send("quit");
        let (status, _) = run.wait();
        assert_eq!(status.code(), Some(0), "{}", run.errors());
        let errors = run.errors();
        let lines = read
            .iter()
            .map(String::as_str)
            .chain(errors.lines())
            .map(|line| line.strip_prefix("stderr: ").unwrap_or(line));
        lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect::<Vec<_>>()
    };
    let schema: Value = serde_json::from_str(include_str!("../../docs/events.schema.json")).expect("JSON");
    let events = jsonschema::validator_for(&schema).expect("a schema");
    let schema: Value = serde_json::from_str(include_str!("../../docs/json.schema.json")).expect("JSON");
    let profiles = jsonschema::validator_for(&schema).expect("a schema");
    let names = |lines: &[Value]| -> Vec<String> {
        let stacks = lines.iter().filter(|line| line["event"] == "call_stack");
        stacks
            .map(|line| line["stack"]["frames"][1]["functions"][0]["name"].as_str().unwrap_or("?").to_owned())
            .collect()
    };
    let all = live(&["--include-function", "^leak_"], 3);
    for line in &all {
        let schema = if line["event"].is_null() { &profiles } else { &events };
        assert!(schema.is_valid(line), "{line:#}");
    }
    assert!(names(&all).contains(&"leak_in_main".to_owned()), "{all:#?}");
    let filtered = live(&["--exclude-function", "^leak_in_main$", "--include-function", "^leak_"], 2);
    assert!(!names(&filtered).contains(&"leak_in_main".to_owned()), "{filtered:#?}");
    let told = |line: &Value| {
        line["text"].as_str().is_some_and(|text| text.starts_with("Filters left out 1 call stack with may-leak="))
    };
    assert!(filtered.iter().any(told), "{filtered:#?}");
}
