//! Reports of a real run, beside what the tools that they are for make of the same program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memleax_targets::{Program, Target, has_program, unable};

fn output_of(command: &mut Command) -> String {
    let output = command.output().expect("a program that starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn may_trace() -> bool {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let may = nix::unistd::geteuid().is_root() || matches!(scope.trim(), "" | "0");
    if !may {
        unable(&format!("tracing needs root where kernel.yama.ptrace_scope is {}", scope.trim()));
    }
    may
}

/// Watches the program by ptrace from its first instruction, and writes its whole run.
fn report(program: &Program, folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let mut memleax = Command::new(env!("CARGO_BIN_EXE_memleax"));
    memleax.args(["--backend", "ptrace", "--quiet", "-o"]).arg(&path).arg("--").arg(&program.path);
    output_of(&mut memleax);
    path
}

/// Costs of the call stacks from `main` on, as heaptrack finds them in a file. Those of the same functions are a list.
fn heaptrack_costs(file: &Path, kind: &str) -> BTreeMap<String, Vec<i64>> {
    let stacks = file.with_extension("stacks");
    let mut print = Command::new("heaptrack_print");
    print.arg("--file").arg(file).args(["--flamegraph-cost-type", kind, "--print-flamegraph"]).arg(&stacks);
    output_of(&mut print);
    let mut costs: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for line in fs::read_to_string(&stacks).expect("a file").lines().filter(|line| line.starts_with("main ")) {
        let (stack, cost) = line.rsplit_once(' ').expect("a cost");
        costs.entry(stack.to_owned()).or_default().push(cost.parse().expect("a number"));
    }
    costs.values_mut().for_each(|costs| costs.sort_unstable());
    costs
}

#[test]
fn heaptrack_finds_in_our_file_what_it_finds_itself() {
    if !may_trace() || !has_program("heaptrack_print") || !has_program("heaptrack") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = Target::c("course").build();
    let ours = report(&program, folder.path(), "ours.heaptrack.gz");
    let its = folder.path().join("its");
    output_of(Command::new("heaptrack").arg("-o").arg(&its).arg(&program.path));
    let its = ["zst", "gz"].map(|extension| its.with_extension(extension)).into_iter().find(|path| path.exists());
    let its = its.expect("heaptrack's file");

    for kind in ["allocations", "temporary", "peak", "leaked"] {
        assert_eq!(heaptrack_costs(&ours, kind), heaptrack_costs(&its, kind), "{kind}");
    }
    // And both are what the program does.
    let of = |kind: &str| -> i64 { heaptrack_costs(&ours, kind).values().flatten().sum() };
    let hill: i64 = (1000..1700).sum();
    assert_eq!(
        ["allocations", "temporary", "peak", "leaked"].map(of),
        [50 + 300 + 40 + 700 + 10, 50 + 10, hill + 40 * 64, 40 * 64]
    );
}

#[test]
fn pprof_counts_each_block_of_a_program() {
    if !may_trace() || !has_program("go") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = report(&Target::c("course").build(), folder.path(), "ours.pb.gz");
    let top = |index: &str| {
        let mut pprof = Command::new("go");
        pprof.args(["tool", "pprof", "-symbolize=none", "-top", "-unit=B", "-nodefraction=0"]);
        pprof.arg(format!("-sample_index={index}")).arg(&file).env("PPROF_TMPDIR", folder.path());
        let text = output_of(pprof.envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off")]));
        let of = |function: &str| -> Option<i64> {
            // Above the table are our comments.
            let line = text.lines().rfind(|line| line.split_whitespace().nth(5) == Some(function))?;
            line.split_whitespace().nth(3)?.trim_end_matches('B').parse().ok()
        };
        ["temporary", "hill", "leak"].map(of)
    };
    let temporary = |count: i64| -> i64 { (0..count).map(|i| 100 + i % 7).sum() };
    let hill = |count: i64| -> i64 { (0..count).map(|i| 1000 + i).sum() };
    let bytes = [temporary(50) + temporary(10), hill(300) + hill(700), 40 * 64];
    assert_eq!(top("alloc_space"), bytes.map(Some));
    assert_eq!(top("alloc_objects"), [Some(60), Some(1000), Some(40)]);
    assert_eq!(top("inuse_space")[2], Some(40 * 64));
}

/// The configuration and the alerts that the documentation offers, as Prometheus' own tool reads them; and that the alerts come when they should.
#[test]
fn promtool_accepts_the_examples() {
    if !has_program("promtool") {
        return;
    }
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prometheus");
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "memleax.rules.yml"],
        ["test", "rules", "memleax.rules.test.yml"],
    ] {
        output_of(Command::new("promtool").args(arguments).current_dir(&examples));
    }
}
