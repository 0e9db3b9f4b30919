//! Programs that memleax starts: watched from their first instruction, and as they would be without memleax.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use memleax_targets::{Process, Program, Target};
use nix::sys::signal::Signal;

use crate::harness::{
    InTerminal, Launched, Report, assert_truth, has_program, memleax, program_symbols_of, rounds, text_differences,
    tracer_of, unable,
};

fn command(program: &Program) -> Vec<OsString> {
    vec![program.path.clone().into()]
}

/// What the report says was never freed: blocks and bytes.
fn never_freed(report: &Report) -> (u64, u64) {
    let told = report.lines.iter().find_map(|line| {
        if line == "-- Every memory block was freed." {
            return Some((0, 0));
        }
        let (blocks, rest) = line.strip_prefix("-- ")?.split_once(" memory block")?;
        let (bytes, rest) = rest.split_once('(')?.1.split_once(" bytes)")?;
        rest.ends_with("never freed.").then(|| (blocks.parse().expect("a count"), bytes.parse().expect("a count")))
    });
    told.unwrap_or_else(|| panic!("no word of what was never freed: {report:?}"))
}

/// Blocks of constructors, of functions that run even before those, and of main: all are counted, none but them.
fn counts_all(target: Target, has_preinit: bool) {
    counts_all_through(&[], target, has_preinit);
}

/// The same by a program that replaces itself with the target.
fn counts_all_through(through: &[&str], target: Target, has_preinit: bool) {
    let program = target.build();
    let run = |left_out: &str| {
        let mut memleax = memleax();
        memleax.args(["--expire", "1h", "--"]).args(through).args(command(&program)).env("LEAVE_OUT", left_out);
        let mut memleax = Process::start(&mut memleax);
        if left_out.is_empty() {
            memleax.ask("go 7");
        }
        memleax.send("exit 5");
        let (status, _) = memleax.wait();
        let lines: Vec<String> = memleax.errors().lines().map(|line| line.replacen("stderr: ", "", 1)).collect();
        let report = Report::parse(&lines, String::new());
        assert_eq!(status.code(), Some(5), "{report:?}");
        never_freed(&report)
    };
    // What a C library allocates for itself, and never frees.
    let (blocks, bytes) = run("preinit constructor");
    let (more_blocks, more_bytes) = run("");
    let preinit = if has_preinit { 3 } else { 0 };
    let planted = (preinit + 5 + 7, preinit * 31 + 5 * 32 + 7 * 33);
    assert_eq!((more_blocks - blocks, more_bytes - bytes), planted);
}

#[test]
fn every_block_of_a_program() {
    counts_all(Target::c("launched"), true);
}

#[test]
fn every_block_of_a_position_dependent_program() {
    counts_all(Target::c("launched").flags(&["-no-pie", "-fno-pie"]), true);
}

#[test]
fn every_block_of_a_stripped_program() {
    counts_all(Target::c("launched").stripped(), true);
}

#[test]
fn every_block_of_a_static_program() {
    counts_all(Target::c("launched").flags(&["-static"]), true);
}

#[test]
fn every_block_of_a_static_position_independent_program() {
    counts_all(Target::c("launched").flags(&["-static-pie"]), true);
}

/// musl calls no functions before constructors.
#[test]
fn every_block_of_a_program_with_musl() {
    counts_all(Target::c("launched").compiler("musl-gcc"), false);
}

#[test]
fn every_block_of_a_static_program_with_musl() {
    counts_all(Target::c("launched").compiler("musl-gcc").flags(&["-static"]), false);
}

/// What the program did before it was replaced is not counted for the new one.
#[test]
fn every_block_of_a_program_that_replaces_another() {
    counts_all_through(&["env"], Target::c("launched"), true);
    counts_all_through(&["sh", "-c", "exec \"$0\""], Target::c("launched"), true);
}

/// Call stacks from before main, line by line.
#[test]
fn call_stacks_from_before_main() {
    let program = Target::c("launched").build();
    let mut launched = Launched::start(&["--expire", "1", "--expired-blocks", "1000"], &command(&program));
    let truth = launched.memleax.truth("go 4");
    assert_eq!(truth.blocks(), 3 + 5 + 4);
    wait_for_leaks(&mut launched, truth.blocks());
    let symbols = program_symbols_of(&program, launched.program());
    assert_truth(&launched.quit(), &truth, &symbols);
}

fn wait_for_leaks(launched: &mut Launched, blocks: u64) {
    let mut seen = 0;
    let mut of_stack = HashMap::new();
    while seen < blocks {
        let line = launched.memleax.error_line().expect("the report goes on");
        let Some((stack, event)) = line.split_once("]: memory expires with ") else { continue };
        let again = event.strip_suffix(" times again").and_then(|event| event.rsplit(' ').next());
        let count: u64 = again.map_or(1, |count| count.parse().expect("a count"));
        of_stack.insert(stack.to_owned(), count);
        seen = of_stack.values().sum();
    }
}

#[test]
fn exit_statuses() {
    let program = Target::c("launched").build();
    for (text, code) in
        [("quit", 0), ("exit 1", 1), ("exit 255", 255), ("raise 9", 137), ("raise 11", 139), ("raise 15", 143)]
    {
        let mut launched = Launched::start(&["-q"], &command(&program));
        launched.memleax.send(text);
        let (status, _, report) = launched.wait();
        assert_eq!(status.code(), Some(code), "{text}: {report:?}");
    }
}

#[test]
fn leaks_make_another_exit_status() {
    let program = Target::c("launched").build();
    let status = |left_out: &str, how: &str| {
        let mut command = memleax();
        command.args(["-q", "--error-exitcode", "44", "--"]).arg(&program.path).env("LEAVE_OUT", left_out);
        let mut memleax = Process::start(&mut command);
        memleax.send(how);
        memleax.wait().0.code()
    };
    assert_eq!(status("", "exit 3"), Some(44));
    assert_eq!(status("preinit constructor", "exit 3"), Some(3));
    assert_eq!(status("preinit constructor", "quit"), Some(0));
    assert_eq!(status("", "raise 9"), Some(137), "it had no chance to free anything");
}

#[test]
fn input_and_output_are_the_program_s() {
    let mut launched = Launched::spawn(&[], &["sh", "-c", "cat; echo of its own >&2; exit 6"]);
    launched.memleax.send("through");
    let (status, output, report) = launched.wait();
    assert_eq!(status.code(), Some(6), "{report:?}");
    assert_eq!(output, ["through"]);
    assert!(report.says("of its own") && report.says("== Target process exit."), "{report:?}");
}

#[test]
fn a_program_that_is_not_there() {
    let (status, output, report) = Launched::spawn(&[], &["/nowhere/program"]).wait();
    assert_eq!((status.code(), output.len()), (Some(127), 0));
    assert_eq!(report.lines, ["memleax: cannot run /nowhere/program: No such file or directory (os error 2)"]);
}

#[test]
fn a_library_that_is_not_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let [library, program] = ["liblost.so", "program"].map(|name| directory.path().join(name));
    let source = directory.path().join("nothing.c");
    fs::write(&source, "int main(void) { return 0; }").expect("written");
    for arguments in [vec!["-shared", "-fPIC", "-o"], vec!["-Wl,--no-as-needed", "-o"]] {
        let is_library = arguments.contains(&"-shared");
        let mut gcc = std::process::Command::new("gcc");
        gcc.args(&arguments).arg(if is_library { &library } else { &program }).arg(&source);
        assert!(gcc.args((!is_library).then_some(&library)).status().expect("gcc").success());
    }
    fs::remove_file(library).expect("removed");
    let (status, _, report) = Launched::spawn(&[], &[&program]).wait();
    assert_eq!(status.code(), Some(127), "{report:?}");
    assert!(report.says("liblost.so") && report.says("ended before any code of its own ran"), "{report:?}");
}

/// Nothing in it is known to allocate: it is not run.
#[test]
fn a_program_that_cannot_be_watched_is_not_run() {
    let program = Target::c("launched").flags(&["-static"]).stripped().build();
    let (status, output, report) = Launched::spawn(&[], &command(&program)).wait();
    assert_eq!((status.code(), output.len()), (Some(1), 0), "{report:?}");
    assert!(report.says("cannot find an allocator"), "{report:?}");
}

#[test]
fn scripts() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/sh\nread line\necho \"$0 $1 $line\"\nexit 8\n").expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("made executable");
    let mut launched = Launched::spawn(&[], &[script.as_os_str(), "argument".as_ref()]);
    launched.memleax.send("input");
    let (status, output, report) = launched.wait();
    assert_eq!(status.code(), Some(8), "{report:?}");
    assert_eq!(output, [format!("{} argument input", script.display())]);
}

/// Everything that a Rust program planted, as where memleax attaches.
#[test]
fn a_rust_program() {
    let program = Target::rust("rust_sites").build();
    let mut launched = Launched::start(&["--expire", "1", "--expired-blocks", "1000000"], &command(&program));
    let mut truth = launched.memleax.truth("go 20");
    // What Rust's runtime keeps.
    truth.ignored.extend(["std::rt::init", "std::io::stdio::stdin", "std::thread::current"].map(str::to_owned));
    wait_for_leaks(&mut launched, truth.blocks());
    let symbols = program_symbols_of(&program, launched.program());
    assert_truth(&launched.quit(), &truth, &symbols);
}

#[test]
fn a_python_program() {
    if !has_program("python3") {
        return unable("no python3");
    }
    let code = "import sys; print(len(sys.stdin.read())); x = [str(i) * 100 for i in range(10000)]; sys.exit(3)";
    let mut launched = Launched::spawn(&[], &["/usr/bin/python3", "-c", code]);
    launched.memleax.send("12345");
    let (status, output, report) = launched.wait();
    assert_eq!((status.code(), output), (Some(3), vec!["6".to_owned()]), "{report:?}");
    assert!(never_freed(&report).0 > 0, "{report:?}");
}

/// What memleax does to itself does not reach the program.
#[test]
fn the_program_s_own_reactions_to_signals() {
    let program = Target::c("launched").build();
    let mut launched = Launched::start(&[], &command(&program));
    let is = |answer: Vec<String>, expected: &str| assert_eq!(answer, [expected]);
    is(launched.memleax.ask("mask"), "0");
    for signal in [1, 2, 3, 10, 12, 13, 14, 15, 20, 21, 22, 24, 28] {
        is(launched.memleax.ask(&format!("default {signal}")), "default");
    }
    launched.quit();

    let mut ignoring = std::process::Command::new("sh");
    ignoring.args(["-c", "trap '' INT HUP USR2; exec \"$@\"", "sh"]);
    let memleax = memleax();
    ignoring.arg(memleax.get_program()).args(memleax.get_args()).arg("--").arg(&program.path);
    let mut memleax = Process::start(&mut ignoring);
    for (signal, how) in [(1, "ignored"), (2, "ignored"), (12, "ignored"), (15, "default")] {
        is(memleax.ask(&format!("default {signal}")), how);
    }
    memleax.quit();
}

/// No file of memleax's own is open in the program.
#[test]
fn only_the_standard_files_are_open() {
    let list = ["sh", "-c", "ls /proc/$$/fd; true"];
    let expected = Process::spawn(std::process::Command::new(list[0]).args(&list[1..])).wait().1;
    let (_, output, report) = Launched::spawn(&[], &list).wait();
    assert_eq!(output, expected, "{report:?}");
}

#[test]
fn signals_are_passed_on_once() {
    let program = Target::c("launched").build();
    let mut launched = Launched::start(&[], &command(&program));
    launched.memleax.ask("catch");
    // This one is memleax's own.
    launched.memleax.signal(Signal::SIGUSR1);
    let passed_on = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGWINCH];
    for signal in passed_on {
        launched.memleax.signal(signal);
        assert_eq!(launched.memleax.line(), Some(format!("GOT {}", signal as i32)));
    }
    for signal in passed_on {
        assert_eq!(launched.memleax.ask(&format!("count {}", signal as i32)), ["1"], "{signal}");
    }
    assert_eq!(launched.memleax.ask(&format!("count {}", Signal::SIGUSR1 as i32)), ["0"]);
    launched.quit();
}

/// Ctrl-C in a terminal reaches the program once, and memleax goes on.
#[test]
fn the_interrupt_key() {
    let program = Target::c("launched").build();
    let mut terminal = InTerminal::start("\"$@\" 2>&3", program.path.as_os_str());
    assert_eq!(terminal.shell.line().as_deref(), Some("READY"));
    terminal.ask("catch");
    for key in ["\x03", "\x1c"] {
        terminal.press(key);
        let signal = if key == "\x03" { Signal::SIGINT } else { Signal::SIGQUIT } as i32;
        assert_eq!(terminal.shell.line(), Some(format!("GOT {signal}")));
        assert_eq!(terminal.ask(&format!("count {signal}")), ["1"]);
    }
    terminal.press("exit 21\n");
    let (status, _) = terminal.shell.wait();
    assert_eq!(status.code(), Some(21), "{}", terminal.shell.errors());
    assert!(terminal.shell.errors().contains("== Target process exit."));
}

/// Ctrl-Z stops both, and `fg` lets both go on.
#[test]
fn the_suspend_key() {
    let program = Target::c("launched").build();
    let script = "\"$@\" 2>&3; echo status $?; fg > /dev/null; echo status $?";
    let mut terminal = InTerminal::start(script, program.path.as_os_str());
    assert_eq!(terminal.shell.line().as_deref(), Some("READY"));
    terminal.ask("go 3");
    terminal.press("\x1a");
    assert_eq!(terminal.shell.line(), Some(format!("status {}", 128 + Signal::SIGSTOP as i32)));
    terminal.ask("go 3");
    terminal.press("exit 4\n");
    assert_eq!(terminal.shell.line().as_deref(), Some("status 4"));
    terminal.shell.wait();
}

/// A program that bears every signal can be left: it goes on, as it was.
#[test]
fn three_signals_leave_the_program() {
    let program = Target::c("launched").build();
    let mut launched = Launched::start(&[], &command(&program));
    let pid = launched.program();
    launched.memleax.ask("catch");
    launched.memleax.ask("go 3");
    // Three different ones: of the same one several may arrive as one.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        launched.memleax.signal(signal);
    }
    while launched.memleax.error_line().expect("a report") != "== Terminate monitoring." {}
    assert_eq!((tracer_of(pid), text_differences(pid)), (0, vec![]));
    launched.memleax.send("go 2");
    launched.memleax.answer("go 2");
    launched.memleax.send("quit");
    let (status, _, report) = launched.wait();
    // Named after the last.
    assert!([129, 130, 143].contains(&status.code().unwrap_or(0)), "{status}: {report:?}");
}

/// A program that goes to the background by a fork leaves none of memleax's breakpoints in its child.
#[test]
fn a_program_that_goes_to_the_background() {
    let program = Target::c("family").build();
    for _ in 0..rounds(4, 40) {
        let mut launched = Launched::start(&[], &command(&program));
        launched.memleax.send("leave");
        let child = loop {
            let line = launched.memleax.line().expect("the child goes on");
            if let Some(pid) = line.strip_prefix("child ") {
                break pid.parse().expect("a pid");
            }
        };
        // Its output is not at its end, as the child has it, too.
        while launched.memleax.has_ended().is_none() {
            std::thread::yield_now();
        }
        assert_eq!((tracer_of(child), text_differences(child)), (0, vec![]));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.cast_signed()), Signal::SIGKILL).expect("it is there");
        assert_eq!(launched.wait().0.code(), Some(0));
    }
}

/// Where monitoring ends before the program, memleax still waits for that.
#[test]
fn monitoring_that_ends_before_the_program() {
    let program = Target::c("launched").build();
    let mut launched = Launched::start(&["--duration", "100ms"], &command(&program));
    while launched.memleax.error_line().expect("a report") != "== Terminate monitoring." {}
    let pid = launched.program();
    assert_eq!((tracer_of(pid), text_differences(pid)), (0, vec![]));
    launched.memleax.ask("catch");
    launched.memleax.signal(Signal::SIGTERM);
    assert_eq!(launched.memleax.line().as_deref(), Some("GOT 15"));
    launched.memleax.send("exit 9");
    let (status, _, report) = launched.wait();
    assert_eq!(status.code(), Some(9), "{report:?}");
}

/// memleax is killed while it starts a program: that is not executed, or runs to its end as if nobody had ever watched it.
#[test]
fn sigkill_while_a_program_is_started() {
    let program = Target::c("crash").build();
    let mut executed = 0;
    for round in 0..rounds(10, 100) {
        let mut launched = Launched::spawn(&["-q"], &[&program.path]);
        match round % 3 {
            0 => {}
            1 => while launched.children().is_empty() {},
            _ => assert_eq!(launched.memleax.line().as_deref(), Some("READY")),
        }
        launched.memleax.signal(Signal::SIGKILL);
        // It has memleax's standard input and output, and ends where they do.
        let first = if round % 3 == 2 { Some("READY".into()) } else { launched.memleax.line() };
        if let Some(first) = first {
            assert_eq!(first, "READY");
            launched.memleax.ask("go 3");
            launched.memleax.send("quit");
            executed += 1;
        }
        let (status, rest) = launched.memleax.wait();
        assert!(!status.success() && rest.is_empty(), "{status}, {rest:?}");
    }
    assert!(executed >= rounds(10, 100) / 3, "{executed}");
}
