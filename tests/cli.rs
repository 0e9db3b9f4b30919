//! The command line as its user meets it: texts, exit statuses, and what goes to which stream.

use std::fs::File;
use std::process::{Command as Process, Stdio};

use snapbox::cmd::{Command, OutputAssert};
use snapbox::{file, str};

fn memleax(arguments: &[&str]) -> OutputAssert {
    Command::new(env!("CARGO_BIN_EXE_memleax")).env("COLUMNS", "100").env_remove("NO_COLOR").args(arguments).assert()
}

fn output(arguments: &[&str]) -> String {
    let output = memleax(arguments).success().stderr_eq("").get_output().stdout.clone();
    String::from_utf8(output).expect("UTF-8")
}

#[test]
fn help_is_short_or_long() {
    memleax(&["-h"]).success().stdout_eq(file!["cli/help-short.txt"]).stderr_eq("");
    memleax(&["--help"]).success().stdout_eq(file!["cli/help.txt"]).stderr_eq("");
}

/// As with `memleax --help | head -1`.
#[test]
fn a_reader_who_has_had_enough_is_no_error() {
    for answer in [&["--help"][..], &["--man"], &["--completions", "bash"], &["--list-noise"], &["doctor"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let memleax =
            Process::new(env!("CARGO_BIN_EXE_memleax")).args(answer).stdout(writer).stderr(Stdio::piped()).output();
        let output = memleax.expect("it runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{answer:?}: {output:?}");
    }
}

#[test]
fn the_version_is_told_three_ways() {
    for option in ["-v", "-V", "--version"] {
        assert_eq!(output(&[option]), concat!("memleax ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn a_missing_process_id_is_a_usage_error() {
    memleax(&[]).code(2).stdout_eq("").stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <PID>

Usage: memleax [OPTIONS] <PID>
       memleax [OPTIONS] -- <COMMAND> [ARGS]...
       memleax -a [INTERVAL] [OPTIONS OF ITS OWN]
       memleax record [OPTIONS] -o <FILE> <PID>|-- <COMMAND> [ARGS]...
       memleax top [OPTIONS] <PID>|-- <COMMAND> [ARGS]...
       memleax report [OPTIONS] <FILE>
       memleax diff [OPTIONS] <BEFORE> <AFTER>
       memleax ctl <PID> stats|show <ID>|snapshot|report <FORMAT>|stop
       memleax doctor [PID]

For more information, try '--help'.

"#]]);
}

#[test]
fn bad_values_are_named_with_what_is_good() {
    for (arguments, message) in [
        (&["nginx"][..], "invalid value 'nginx' for '[PID]': a process id is a number above 0; see `pgrep NAME`"),
        (&["0"], "invalid value '0' for '[PID]': a process id is a number above 0; see `pgrep NAME`"),
        (&["-e", "0", "1"], "invalid value '0' for '--expire <TIME>': it must be above zero"),
        (
            &["-e", "soon", "1"],
            "invalid value 'soon' for '--expire <TIME>': give seconds, or numbers with the units ms, s, m, h or d, as in 6m or 1h30m",
        ),
        (&["-e", "9999999999d", "1"], "invalid value '9999999999d' for '--expire <TIME>': it is too long"),
        (&["-l", "0", "1"], "invalid value '0' for '--depth <N>': 0 is not in 1..=1000"),
        (&["-l", "1001", "1"], "invalid value '1001' for '--depth <N>': 1001 is not in 1..=1000"),
        (&["-m", "0", "1"], "invalid value '0' for '--expired-blocks <N>': 0 is not in 1..18446744073709551615"),
        (&["-c", "x", "1"], "invalid value 'x' for '--call-stacks <N>': invalid digit found in string"),
        (&["1", "2"], "unexpected argument '2' found"),
        (&["--man", "1"], "the argument '--man' cannot be used with one or more of the other specified arguments"),
    ] {
        let assert = memleax(arguments).code(2).stdout_eq("");
        let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert_eq!(stderr.lines().next(), Some(format!("error: {message}").as_str()), "{arguments:?}");
    }
}

#[cfg(not(feature = "bpf"))]
#[test]
fn a_backend_that_is_not_built_in_says_so() {
    memleax(&["--backend", "bpf", "1"]).code(1).stdout_eq("").stderr_eq(
        "memleax: cannot observe by bpf: it is not built in; use --backend ptrace, or build with the feature bpf\n",
    );
}

#[test]
fn a_process_that_does_not_exist_is_refused() {
    // Above the largest pid_max that Linux allows.
    memleax(&["2000000000"]).code(1).stdout_eq("").stderr_eq(
        "memleax: cannot trace process 2000000000: no such process; give the id of a running one (see `pgrep NAME`)\n",
    );
}

#[test]
fn memleax_does_not_watch_itself() {
    let shell =
        Process::new("sh").args(["-c", "exec \"$0\" $$", env!("CARGO_BIN_EXE_memleax")]).output().expect("a shell");
    assert_eq!(shell.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&shell.stderr).ends_with("it is memleax itself\n"), "{shell:?}");
}

#[test]
fn a_program_that_cannot_be_run_is_told_as_env_tells_it() {
    for (program, code, cause) in [
        ("/nowhere/program", 127, "No such file or directory (os error 2)"),
        ("no-such-program", 127, "No such file or directory (os error 2)"),
        ("/", 126, "Permission denied (os error 13)"),
    ] {
        let error = format!("memleax: cannot run {program}: {cause}\n");
        memleax(&["--backend", "ptrace", "--", program]).code(code).stdout_eq("").stderr_eq(&error);
    }
}

#[test]
fn completions_name_the_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = output(&["--completions", shell]);
        assert!(script.contains("expired-blocks"), "{shell}: {script}");
    }
}

#[test]
fn the_manual_has_every_section() {
    let page = output(&["--man"]);
    for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SIGNALS", "\"EXIT STATUS\"", "EXAMPLES"] {
        assert!(page.contains(&format!(".SH {heading}\n")), "{heading} is missing in:\n{page}");
    }
    assert!(page.contains("SIGKILL"));
}

#[test]
fn a_full_disk_is_an_error_with_a_status() {
    let full = File::create("/dev/full").expect("/dev/full");
    let output = Process::new(env!("CARGO_BIN_EXE_memleax"))
        .arg("--man")
        .stdout(Stdio::from(full))
        .stderr(Stdio::piped())
        .output()
        .expect("memleax runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("memleax: "), "{output:?}");
}
