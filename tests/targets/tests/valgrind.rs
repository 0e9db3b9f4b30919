//! The ground truth that the programs print, against valgrind's leak check.

use std::io::Write;
use std::process::Command;

use memleax_targets::{Process, Target};

/// Blocks and bytes not freed at the end, as valgrind counts them, and the program's own numbers.
fn run(target: &Target, commands: &[&str]) -> ((u64, u64), (u64, u64)) {
    let program = target.build();
    let mut command = Command::new("valgrind");
    command
        .args(["--leak-check=summary", "--show-leak-kinds=all"])
        .arg(&program.path)
        .env("LEAVE_OUT", "pvalloc bad_alloc");
    let mut process = Process::start(&mut command);
    let mut planted = (0, 0);
    for command in commands {
        let truth = process.truth(command);
        planted = (truth.blocks(), truth.sites.iter().map(|site| site.bytes).sum());
    }
    process.send("quit");
    process.wait();
    let mut found = (0, 0);
    let errors = process.errors();
    for kind in ["definitely lost: ", "indirectly lost: ", "possibly lost: ", "still reachable: "] {
        let Some((_, counts)) = errors.lines().find_map(|line| line.split_once(kind)) else {
            assert!(errors.contains("no leaks are possible"), "{errors}");
            continue;
        };
        let mut numbers =
            counts.split(' ').map(|word| word.replace(',', "")).filter_map(|word| word.parse::<u64>().ok());
        found.1 += numbers.next().unwrap_or(0);
        found.0 += numbers.next().unwrap_or(0);
    }
    (found, planted)
}

fn agrees(target: Target) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        let why = "valgrind is not installed; scripts/setup.sh test installs it";
        assert!(std::env::var_os("CI").is_none(), "this test must run in CI: {why}");
        writeln!(std::io::stderr(), "NOT TESTED: {why}").expect("stderr is open");
        return;
    }
    let (own, _) = run(&target, &[]);
    let (found, planted) = run(&target, &["go 3", "go 2"]);
    assert_eq!((found.0 - own.0, found.1 - own.1), planted);
    assert!(planted.0 > 40, "{planted:?}");
}

#[test]
fn c() {
    agrees(Target::c("leak_sites"));
}

#[test]
fn cpp() {
    agrees(Target::cpp("cpp_sites"));
}

#[test]
fn rust() {
    agrees(Target::rust("rust_sites"));
}
