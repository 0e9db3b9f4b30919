//! Holds README.md to what the program does.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_memleax")).arg("--help").output().expect("memleax runs");
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
    let mut expected = long_options(&help());
    for self_explaining in ["--help", "--version"] {
        assert!(expected.remove(self_explaining), "{self_explaining}");
    }
    assert_eq!(long_options(usage), expected);
}

#[test]
fn the_exit_statuses_are_those_of_the_help() {
    let help = help();
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
