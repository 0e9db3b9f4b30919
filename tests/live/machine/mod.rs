//! `memleax -a`: all processes of a corner of the machine, each by what it says of itself.

mod building;
mod corner;
mod filters;

use std::process::Command;

use memleax_targets::{Process, Target};

use corner::Corner;

/// The lines of what processes say of themselves.
fn said(lines: &[String]) -> impl Iterator<Item = &String> {
    lines.iter().filter(|line| line.starts_with("process "))
}

/// Gives commands to a process, lets it quit, and returns what it and its children said.
fn talk(mut process: Process, commands: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = commands.iter().flat_map(|command| process.ask(command)).collect();
    process.send("quit");
    lines.extend(process.wait().1);
    said(&lines).cloned().collect()
}

#[test]
fn each_process_has_exactly_its_own_totals() {
    let Some(corner) = Corner::new() else { return };
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let commands = ["allocate 500", "free 120", "resize 30", "zero 3", "shapes", "allocate 9"];
    let truths: Vec<_> = (1..=4).flat_map(|count| talk(corner.start(&program), &commands[..2 + count])).collect();
    let told = watch.end();
    assert_eq!(truths.len(), 4);
    for truth in &truths {
        let process = told.check(truth);
        assert_eq!((&process["exit_status"], &process["name"]), (&0.into(), &"accounts".into()));
        assert_eq!(process["before_exec"]["execs"], 2, "the shell, and it");
    }
    told.check_losses();
}

/// Linked statically, so with a C library that nobody has mapped before: the first of its processes is not seen at once, and that is said.
#[test]
fn static_programs_that_are_started_later_are_seen() {
    let Some(corner) = Corner::new() else { return };
    for (compiler, flags) in [("gcc", &["-static"][..]), ("musl-gcc", &[][..])] {
        if !crate::harness::has_program(compiler) {
            memleax_targets::unable(&format!("{compiler} is not installed"));
            continue;
        }
        let watch = corner.watch(&[]);
        let built = Target::c("accounts").compiler(compiler).flags(flags).build();
        // Nobody has it mapped.
        let own = corner.folder().join(compiler);
        std::fs::copy(&built.path, &own).expect("a copy");
        let program = memleax_targets::Program { path: own.clone(), unstripped: own };
        let mut first = corner.start(&program);
        let mut watch = watch;
        while !watch.next()["module"]
            .as_str()
            .is_some_and(|module| module.ends_with(compiler) || module.contains("musl"))
        {}
        let later: Vec<_> = [&["allocate 300", "free 20", "resize 5", "fork"][..], &["allocate 40"]]
            .into_iter()
            .map(|commands| talk(corner.start(&program), commands))
            .collect();
        let pid = u64::from(first.id());
        first.ask("allocate 70");
        first.quit();
        let told = watch.end();
        told.check(&later[0][0]);
        // What the C library allocates itself as it begins is the same for both.
        let surplus = |said: &str| {
            let numbers: Vec<u64> = said.split(' ').skip(1).map(|word| word.parse().expect("a number")).collect();
            let own = told.process(numbers[0]);
            assert_eq!(own["seen"], "all", "{own:#}");
            let number = |of: &str, what: &str| own[of][what].as_u64().expect("a number");
            [
                number("allocated", "count") - numbers[1],
                number("allocated", "bytes") - numbers[2],
                number("live", "bytes") - numbers[4],
            ]
        };
        assert_eq!(surplus(&later[0][1]), surplus(&later[1][0]), "{compiler}");
        let first = told.process(pid);
        assert_eq!(first["allocated"]["count"], 70, "{first:#}");
        assert_eq!(first["seen"], "not_at_once", "{first:#}");
        told.check_losses();
    }
}

#[test]
fn parent_and_child_have_each_its_own_after_fork() {
    let Some(corner) = Corner::new() else { return };
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let truths = talk(corner.start(&program), &["allocate 100", "fork", "free 10", "fork", "fork", "allocate 7"]);
    let told = watch.end();
    assert_eq!(truths.len(), 4, "{truths:?}");
    for truth in &truths {
        let process = told.check(truth);
        // Each child frees a block of its parent's and resizes another.
        let is_child = process["exit_status"] == 3;
        assert_eq!(process["unknown_frees"], if is_child { 2 } else { 0 }, "{process:#}");
        assert_eq!(process["before_exec"]["execs"], if is_child { 0 } else { 2 });
    }
    told.check_losses();
}

#[test]
fn what_a_child_of_vfork_allocates_is_its_parents() {
    let Some(corner) = Corner::new() else { return };
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let process = corner.start(&program);
    let parent = process.id();
    let truths = talk(process, &["allocate 3", "vfork", "vfork", "free 1"]);
    let told = watch.end();
    assert_eq!(truths.len(), 1);
    told.check(&truths[0]);
    let children: Vec<_> = told.processes().filter(|process| process["parent"] == parent).collect();
    assert_eq!(children.len(), 2, "{children:#?}");
    for child in children {
        assert_eq!((&child["allocated"]["count"], &child["exit_status"]), (&0.into(), &4.into()));
    }
    told.check_losses();
}

#[test]
fn a_process_appears_once_as_the_program_that_it_last_was() {
    let Some(corner) = Corner::new() else { return };
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let mut process = corner.start(&program);
    let mut lines = process.ask("allocate 50");
    process.send("exec");
    lines.push(process.line().expect("what it was"));
    assert_eq!(process.line().as_deref(), Some("READY"));
    lines.extend(talk(process, &["allocate 8", "free 3"]));
    let told = watch.end();
    let own = told.check(&lines[1]);
    assert_eq!(own["before_exec"]["execs"], 3, "a shell, and it twice");
    let number = |what: &str| own["before_exec"]["left"][what].as_u64().expect("a number");
    assert!(number("count") >= 50 && number("bytes") >= 5000, "{own:#}");
    told.check_losses();
}

/// The same program at the same addresses, at the same time.
#[test]
fn processes_with_equal_addresses_never_mix() {
    let Some(corner) = Corner::new() else { return };
    if !crate::harness::has_program("setarch") {
        return memleax_targets::unable("setarch is not installed");
    }
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let start = || {
        let mut command = Command::new("setarch");
        command.arg("-R").arg(&program.path);
        Process::start(&mut corner.command(&mut command))
    };
    let mut processes = [start(), start(), start()];
    for round in 1..=3 {
        for (index, process) in processes.iter_mut().enumerate() {
            process.ask(&format!("allocate {}", 40 * round + index));
            process.ask(&format!("free {}", 7 * index + round));
        }
    }
    let truths: Vec<_> = processes.into_iter().flat_map(|process| talk(process, &["resize 2"])).collect();
    let told = watch.end();
    assert_eq!(truths.len(), 3);
    truths.iter().for_each(|truth| _ = told.check(truth));
    told.check_losses();
}

#[test]
fn threads_count_to_their_process() {
    let Some(corner) = Corner::new() else { return };
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let process = corner.start(&program);
    let pid = process.id();
    let truths = talk(process, &["threads 8", "threads 16"]);
    let told = watch.end();
    // The C library allocates for each thread, too.
    let own = told.process(pid.into());
    let planted: Vec<u64> = truths[0].split(' ').skip(2).map(|word| word.parse().expect("a number")).collect();
    let count = |what: &str| own[what]["count"].as_u64().expect("a number");
    assert_eq!(planted[..], [1200, 39600, 600, 19800]);
    assert!((1200..1300).contains(&count("allocated")) && (600..650).contains(&count("live")), "{own:#}");
    assert_eq!(count("allocated") - count("freed"), count("live"), "{own:#}");
    told.check_losses();
}

/// The last two threads of a process end at the same time, on two processors.
#[test]
fn a_process_whose_last_threads_end_together_appears_once() {
    let Some(corner) = Corner::new() else { return };
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let process = corner.start(&program);
    let parent = process.id();
    talk(process, &["race 40", "race 40", "race 40"]);
    let told = watch.end();
    let mut children: Vec<_> =
        told.processes().filter(|child| child["parent"] == parent).map(|child| child["pid"].as_u64()).collect();
    children.sort_unstable();
    let all = children.len();
    children.dedup();
    assert_eq!((all, children.len()), (120, 120));
}

#[test]
fn one_that_is_killed_is_told_of_with_what_it_had() {
    let Some(corner) = Corner::new() else { return };
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let mut process = corner.start(&program);
    process.ask("allocate 60");
    process.send("kill");
    let lines = process.wait().1;
    let told = watch.end();
    let own = told.check(&lines[0]);
    assert_eq!((&own["signal"], &own["exit_status"]), (&9.into(), &serde_json::Value::Null));
}

/// Those that run when memleax begins: what they had is not known, and that is said.
#[test]
fn what_ran_before_is_seen_from_then_on() {
    let Some(corner) = Corner::new() else { return };
    let mut process = corner.start(&Target::c("accounts").build());
    let pid = process.id();
    process.ask("allocate 100");
    let watch = corner.watch(&["--live"]);
    process.ask("allocate 11");
    process.ask("free 31");
    let told = watch.end();
    let own = told.processes().find(|own| own["pid"] == pid).expect("it runs");
    assert_eq!((&own["state"], &own["seen"]), (&"running".into(), &"since_ready".into()));
    assert_eq!([&own["allocated"]["count"], &own["live"]["count"], &own["unknown_frees"]], [11, 0, 20], "{own:#}");
    process.quit();
}
