//! A C project is built by `make -j2` while processes fork: each process that ends is told of once, with the totals that other tools count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memleax_targets::{Process, Target, unable};
use serde_json::Value;

use super::corner::{Corner, Told};
use super::said;
use crate::harness::{has_program, tracing_folder};

const SOURCES: usize = 20;

/// Each compiler and assembler leaves its process id. With another environment, or at another address, it might allocate something else.
const MAKEFILE: &str = "\
ALONE = echo $$$$ > $@.pid && exec env -i LD_LIBRARY_PATH=$(LIBRARIES) setarch -R
all: $(OBJECTS)
\tgcc -o all $(OBJECTS) && ./all
%.i: %.c
\tgcc -E $< -o $@
%.s: %.i
\t$(ALONE) $(CC1) -quiet -fpreprocessed $< -o $@
%.o: %.s
\t$(ALONE) $(AS) $< -o $@
.SECONDARY:
";

fn write_project(folder: &Path) {
    fs::write(folder.join("Makefile"), MAKEFILE).expect("written");
    for number in 0..SOURCES {
        let lines: String =
            (0..=number).map(|i| format!("int f{number}_{i}(int n) {{ return n * {i} + {number}; }}\n")).collect();
        let main = if number == 0 { "int main(void) { return f0_0(0); }\n" } else { "" };
        fs::write(folder.join(format!("{number:02}.c")), format!("#include <stdlib.h>\n{lines}{main}"))
            .expect("written");
    }
}

/// What the kernel itself traces of processes that begin.
struct Forks(PathBuf);

impl Forks {
    fn trace() -> Option<Forks> {
        let folder = tracing_folder()?.join(format!("instances/memleax-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        fs::write(folder.join("buffer_size_kb"), "4096").expect("a larger buffer");
        fs::write(folder.join("events/sched/sched_process_fork/enable"), "1").expect("an event");
        Some(Forks(folder))
    }

    /// The descendants of these, whose programs have no threads.
    fn descendants(&self, of: &[u32]) -> BTreeSet<u64> {
        let mut family: BTreeSet<u64> = of.iter().map(|&pid| pid.into()).collect();
        let trace = fs::read_to_string(self.0.join("trace")).expect("a trace");
        let number = |line: &str, name: &str| -> Option<u64> {
            line.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok())
        };
        for line in trace.lines().filter(|line| line.contains("sched_process_fork:")) {
            let [parent, child] = ["pid=", "child_pid="].map(|name| number(line, name));
            if parent.is_some_and(|parent| family.contains(&parent)) {
                family.extend(child);
            }
        }
        family
    }
}

impl Drop for Forks {
    fn drop(&mut self) {
        _ = fs::remove_dir(&self.0);
    }
}

/// All blocks, all bytes, and blocks and bytes that were never freed.
type Totals = [u64; 4];

fn totals(process: &Value) -> Totals {
    let number = |of: &str, what: &str| process[of][what].as_u64().expect("a number");
    [number("allocated", "count"), number("allocated", "bytes"), number("live", "count"), number("live", "bytes")]
}

fn by_valgrind(command: &[&str], folder: &Path) -> Totals {
    let mut valgrind = Command::new("/usr/bin/valgrind");
    valgrind.args(["--run-libc-freeres=no", "--run-cxx-freeres=no"]).args(command).env_clear().current_dir(folder);
    let said = valgrind.output().expect("valgrind runs").stderr;
    let said = String::from_utf8_lossy(&said).replace(',', "");
    let numbers = |line: &str| -> Vec<u64> {
        let line = said.lines().find_map(|said| said.split_once(line)).unwrap_or_else(|| panic!("{said}")).1;
        line.split(' ').filter_map(|word| word.parse().ok()).collect()
    };
    let (all, live) = (numbers("total heap usage: "), numbers("in use at exit: "));
    [all[0], all[2], live[1], live[0]]
}

/// Other tools count each `realloc` as a block and a free, as this one does in its `resized`.
fn by_ptrace(command: &[&str], folder: &Path) -> Totals {
    let mut memleax = Command::new("/usr/bin/setarch");
    memleax.arg("-R").arg(crate::harness::program().get_program());
    memleax.args(["--backend", "ptrace", "-q", "--no-control", "-o", "ptrace.json", "--"]).args(command);
    let output = memleax.env_clear().current_dir(folder).output().expect("memleax runs");
    assert!(output.status.success(), "{output:?}");
    let report = fs::read_to_string(folder.join("ptrace.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let of = &report["totals"];
    let [all, bytes, live, live_bytes] = totals(of);
    let number = |what: &str| of["resized"][what].as_u64().expect("a number");
    [all + number("count"), bytes + number("bytes"), live, live_bytes]
}

/// The process that made this file.
fn maker<'a>(told: &'a Told, folder: &Path, file: &str) -> &'a Value {
    let pid = fs::read_to_string(folder.join(format!("{file}.pid"))).expect("its process id");
    told.process(pid.trim().parse().expect("a number"))
}

#[test]
fn every_process_of_a_build_is_told_of_once_with_its_totals() {
    for needed in ["make", "gcc", "setarch", "valgrind"] {
        if !has_program(needed) {
            return unable(&format!("{needed} is not installed"));
        }
    }
    let Some(corner) = Corner::new() else { return };
    let Some(forks) = Forks::trace() else { return unable("tracefs cannot be used") };
    let folder = tempfile::tempdir().expect("a folder");
    write_project(folder.path());
    let cc1 = Command::new("gcc").arg("-print-prog-name=cc1").output().expect("gcc runs").stdout;
    let cc1 = String::from_utf8(cc1).expect("UTF-8").trim().to_owned();
    let assembler = "/usr/bin/as";
    let objects = (0..SOURCES).map(|number| format!("{number:02}.o")).collect::<Vec<_>>().join(" ");

    let watch = corner.watch(&[]);
    let mut make = Command::new("make");
    make.args(["-r", "-j2", &format!("OBJECTS={objects}"), &format!("CC1={cc1}"), &format!("AS={assembler}")]);
    make.arg(format!("LIBRARIES={}", corner.folder().display())).current_dir(folder.path());
    let mut forking = corner.start(&Target::c("accounts").build());
    let mut make = Process::spawn(&mut corner.command(&mut make));
    let began = [make.id(), forking.id()];
    let mut lines: Vec<String> = (0..30).flat_map(|_| forking.ask("fork")).collect();
    let (status, output) = make.wait();
    assert!(status.success(), "{output:?} {}", make.errors());
    forking.send("quit");
    lines.extend(forking.wait().1);
    let told = watch.end();

    let family = forks.descendants(&began);
    assert!(family.len() > 30 + 4 * SOURCES, "{} processes", family.len());
    for &pid in &family {
        assert_ne!(told.process(pid)["seen"], "since_ready");
    }
    // The processes of the corner itself are known by no trace.
    let others = told.processes().filter(|process| !family.contains(&process["pid"].as_u64().expect("a pid"))).count();
    assert_eq!(others, 0);
    let truths: Vec<_> = said(&lines).collect();
    assert_eq!(truths.len(), 31);
    truths.into_iter().for_each(|truth| _ = told.check(truth));
    told.check_losses();

    for number in 0..SOURCES {
        let [i, s, o] = ["i", "s", "o"].map(|extension| format!("{number:02}.{extension}"));
        let process = maker(&told, folder.path(), &o);
        assert_eq!(process["name"], "as");
        assert_eq!(totals(process), by_valgrind(&[assembler, &s, "-o", &o], folder.path()), "{process:#}");
        // The compiler is slow by breakpoints.
        if number % 5 == 0 {
            let process = maker(&told, folder.path(), &s);
            let command = [&*cc1, "-quiet", "-fpreprocessed", &i, "-o", &s];
            assert_eq!(process["name"], "cc1");
            // It allocates for the name of a file that it replaces.
            fs::remove_file(folder.path().join(&s)).expect("a file");
            assert_eq!(totals(process), by_ptrace(&command, folder.path()), "{process:#}");
        }
    }
}
