//! Holds README.md to what the program does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const README: &str = include_str!("../README.md");

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_memleax")).args(arguments).output().expect("memleax runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The words that begin with `--`, without what follows the name.
fn long_options(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| {
            word.len() > 3 && word.starts_with("--") && word[2..].starts_with(|c: char| c.is_ascii_lowercase())
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_option_is_in_the_table_and_no_other() {
    let usage = README.split("## Usage").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a usage section");
    let mut expected = long_options(&help(&["--help"]));
    for self_explaining in ["--help", "--version"] {
        assert!(expected.remove(self_explaining), "{self_explaining}");
    }
    assert_eq!(long_options(usage), expected);
}

#[test]
fn every_option_of_the_whole_machine_is_told_and_no_other() {
    let section = README.split("## The whole machine").nth(1).and_then(|rest| rest.split("\n## ").next());
    let mut expected = long_options(&help(&["-a", "--help"]));
    for told_elsewhere in ["--help", "--all"] {
        assert!(expected.remove(told_elsewhere), "{told_elsewhere}");
    }
    assert_eq!(long_options(section.expect("a section on the whole machine")), expected);
}

#[test]
fn every_option_of_recordings_and_reports_is_told_and_no_other() {
    let section = README.split("## Recordings and reports").nth(1).and_then(|rest| rest.split("\n## ").next());
    let told = long_options(section.expect("a section on recordings"));
    let of_run = long_options(&help(&["--help"]));
    let of_subcommands: BTreeSet<String> =
        ["record", "report", "diff"].iter().flat_map(|name| long_options(&help(&[name, "--help"]))).collect();
    let unknown: Vec<_> =
        told.iter().filter(|option| !of_run.contains(*option) && !of_subcommands.contains(*option)).collect();
    assert!(unknown.is_empty(), "no such options: {unknown:?}");
    let untold: Vec<_> =
        of_subcommands.iter().filter(|option| !of_run.contains(*option) && !told.contains(*option)).collect();
    assert!(untold.is_empty(), "not told of: {untold:?}");
}

#[test]
fn the_exit_statuses_are_those_of_the_help() {
    let help = help(&["--help"]);
    let told = help.split("Exit status:").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("in the help");
    let told: Vec<&str> = told.lines().filter_map(|line| line.trim().split_once("  ")).map(|(code, _)| code).collect();
    let table =
        README.split("### Exit status").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("in the README");
    let table: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"))
        .map(|(code, _)| code)
        .filter(|code| code.chars().all(|c| c.is_ascii_digit()))
        .collect();
    assert_eq!(told, ["0", "1", "2", "3"]);
    assert_eq!(table, told);
}

#[test]
fn linked_files_exist() {
    for target in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if !target.starts_with("http") && !target.starts_with('#') {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(), "{target}");
        }
    }
}

/// Ends the target at the end of the test, whatever that is.
struct Target(Child);

impl Drop for Target {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A report without what differs from run to run and from machine to machine: addresses and counts, the C library's
/// frames, how often the leak was seen again, which backend is chosen and what it missed while it attached.
fn shape(report: &str) -> Vec<String> {
    const VARYING: [&str; 5] =
        ["libc.so", "times again", "still live at the end", "-- Backend: ", "not known to be live"];
    let varies = |line: &&str| VARYING.iter().any(|text| line.contains(text));
    report
        .lines()
        .filter(|line| !varies(line) && !line.is_empty())
        .map(|line| match line.trim().strip_prefix("0x").and_then(|rest| rest.split_once(' ')) {
            Some((_address, frame)) => {
                let (function, place) = frame.split_once("()+").expect("a named function");
                let (_offset, place) = place.split_once("  ").expect("a source line");
                format!("{function}()  {}", place.replace(env!("CARGO_MANIFEST_DIR"), "/home/you/memleax"))
            }
            None => {
                line.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("N")
            }
        })
        .collect()
}

#[test]
fn the_report_shown_is_what_the_demo_prints() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("leak");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/leak.c");
    let built = Command::new("cc").args(["-O2", "-g", "-o"]).arg(&program).arg(source).status().expect("cc runs");
    assert!(built.success());
    let target = Target(Command::new(&program).stdin(Stdio::null()).spawn().expect("the demo's target runs"));

    let output = Command::new(env!("CARGO_BIN_EXE_memleax"))
        .args(["--expire", "1", "--duration", "5", &target.0.id().to_string()])
        .output()
        .expect("memleax runs");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{}\n{printed}", String::from_utf8_lossy(&output.stderr));

    let shown = README.split("<!-- demo output -->").nth(1).and_then(|rest| rest.split("```").nth(1));
    let shown = shown.expect("a block after the marker");
    assert_eq!(shape(shown), shape(&printed), "\nshown:\n{shown}\nprinted:\n{printed}");
    let source = fs::read_to_string(source).expect("readable");
    let leak = source.lines().position(|line| line.contains("planted leak */")).expect("planted");
    assert!(shown.contains(&format!("log_request()+14  /home/you/memleax/examples/demo/leak.c:{}\n", leak + 1)));
}
