//! Objects of the target's own types, against what it says that it has planted.

use memleax::event::Tally;
use memleax::profile::Site;
use memleax::recording;
use memleax_targets::{Process, Program, Target, Truth};

use crate::harness::{
    Backend, Monitor, Report, State, assert_truth, may_trace, program as program_under_test, program_symbols,
};

/// The types of `objects.c`.
const TYPES: &[&str] = &[
    "conn=conn_new,conn_dup|conn_free,conn_close(2)",
    "server=server_new|server_free",
    "db=db_open(out=2,always)|db_close",
    "file=file_open(out=1,size=2*3)|file_close",
    "stream=stream_init(this=1)|stream_end",
    "handle=handle_new(size=1)|handle_free",
    "node=node_new|node_destroy|node_ref,node_share(2)|node_unref",
    "token=tok_*_new|tok_*_free",
];

fn options<'a>(option: &'a str, specs: &[&'a str]) -> Vec<&'a str> {
    specs.iter().flat_map(|spec| [option, spec]).collect()
}

/// What the program says of the sites of a type, or of memory.
fn of_type(truth: &Truth, name: &str) -> Truth {
    let is_of = |site: &str| site.split_once(':').map_or("", |(of, _)| of) == name;
    let sites = truth.sites.iter().filter(|site| is_of(&site.name)).cloned().collect();
    Truth { sites, ignored: truth.ignored.clone() }
}

fn report_of(report: &Report, name: &str) -> Report {
    let statistics = report.objects.get(name).cloned().unwrap_or_default();
    Report { lines: report.lines.clone(), errors: report.errors.clone(), statistics, objects: Default::default() }
}

/// Watches a program that has types of objects: each object at its call stack, no other, and the program is left as it was.
fn check(program: &Program, options: &[&str], types: &[&str], command: &str) -> (Report, Truth) {
    let mut target: Process = program.start();
    // The C library sets up its own signals with the first thread.
    target.ask("threads 0");
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, options);
    target.ask(command);
    let truth = target.truth("go 1");
    // Of the last type that the program plants all expire last.
    let last = types.last().expect("types");
    monitor.wait_for_leaks_of(last, of_type(&truth, last).blocks());
    let symbols = program_symbols(program, &target);
    let report = monitor.interrupt();
    for name in types {
        let truth = of_type(&truth, name);
        assert!(truth.blocks() > 0, "{name}");
        assert_truth(&report_of(&report, name), &truth, &symbols);
    }
    before.assert_restored(&target);
    target.quit();
    (report, truth)
}

fn check_types(target: Target, command: &str) {
    if !may_trace() {
        return;
    }
    let types: Vec<&str> = TYPES.iter().map(|of| of.split_once('=').expect("a type").0).collect();
    check(&target.build(), &options("--object", TYPES), &types, command);
}

#[test]
fn every_object_at_its_call_stack() {
    check_types(Target::c("objects"), "go 3");
}

#[test]
fn in_a_position_dependent_program() {
    check_types(Target::c("objects").flags(&["-no-pie", "-fno-pie"]), "go 3");
}

#[test]
fn in_a_static_program() {
    check_types(Target::c("objects").flags(&["-static"]), "go 3");
}

#[test]
fn unoptimised() {
    check_types(Target::c("objects").flags(&["-O0", "-fno-omit-frame-pointer"]), "go 3");
}

#[test]
fn in_several_threads() {
    check_types(Target::c("objects"), "threads 200");
}

/// Objects of C++ by their names in the source, overloads told apart; memory from the program's own pool, exactly, beside what malloc hands out.
#[test]
fn names_of_the_source_and_an_allocator_of_its_own() {
    if !may_trace() {
        return;
    }
    let program = Target::cpp("pools").build();
    let types = [
        "cached=net::Cache<net::Session>::take(int, char const*)|net::Cache<net::Session>::give",
        "session=net::Session::Session(this=1,always)|net::Session::~Session",
    ];
    let mut options = options("--object", &types);
    options.extend(["--allocator", "pool_alloc(size=2)|pool_free(2)|pool_resize(2,size=3)"]);
    let mut target = program.start();
    let mut monitor = Monitor::attach(&target, &options);
    target.ask("go 3");
    let truth = target.truth("go 1");
    monitor.wait_for_leaks(of_type(&truth, "").blocks());
    let symbols = program_symbols(&program, &target);
    let report = monitor.interrupt();
    for name in ["cached", "session"] {
        assert_truth(&report_of(&report, name), &of_type(&truth, name), &symbols);
    }
    assert_truth(&report, &of_type(&truth, ""), &symbols);
    target.quit();
}

/// A name that is nowhere: nothing is watched, what it may have meant is said, and the program is as it was.
#[test]
fn a_misspelt_name_is_an_error() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("objects").start();
    let before = State::of(&target);
    let specs = ["conn=conn_neww,?conn_made|conn_free", "token=tik_*|conn_free"];
    let mut monitor = Monitor::spawn(target.id(), &options("--object", &specs));
    let (status, report) = monitor.wait();
    assert_eq!(status.code(), Some(1), "{report:?}");
    let expected = format!(
        "cannot follow objects in process {}: it has no function conn_neww (for conn; like it are conn_new), \
         it has no function tik_* (for token)",
        target.id()
    );
    assert!(report.errors.contains(&expected), "{report:?}");
    before.assert_restored(&target);
    target.ask("go 1");
    target.quit();
}

/// What has not come yet is told of: objects may be missing because of it.
#[test]
fn a_function_that_may_come_later_is_awaited() {
    if !may_trace() {
        return;
    }
    let target = Target::c("objects").start();
    let monitor = Monitor::attach_to(target.id(), &options("--object", &["later=?later_new,?conn_new|?later_free"]));
    let report = monitor.interrupt();
    let awaited = "no module has later_new (for later), later_free (for later) yet";
    assert!(report.says(awaited), "{report:?}");
    target.quit();
}

/// The recording has what the program planted of each type, of moments and of single events, and so has each kind of report of one type.
#[test]
fn recordings_have_the_books_of_each_type() {
    if !may_trace() {
        return;
    }
    for full in [false, true] {
        if full && Backend::under_test() == Backend::Bpf {
            continue;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("recording");
        let program = Target::c("objects").build();
        let mut record = program_under_test();
        record.arg("record").args(["--backend", Backend::under_test().name(), "-o"]).arg(&file);
        record.args(options("--object", TYPES)).args(full.then_some("--full")).arg("--").arg(&program.path);
        let mut memleax = Process::start(&mut record);
        let truth = memleax.truth("go 5");
        memleax.send("quit");
        let (status, _) = memleax.wait();
        assert!(status.success(), "{}", memleax.errors());
        let profile = recording::read(&file, None).expect("a recording").into_profile(&mut |_| None);
        for spec in TYPES {
            let name = spec.split_once('=').expect("a type").0;
            let objects = profile.of_type(name).expect("a type");
            let sum = |of: fn(&Site) -> Tally| objects.sites.iter().map(of).fold(Tally::default(), Tally::plus);
            let planted = of_type(&truth, name);
            let bytes: u64 = planted.sites.iter().map(|site| site.bytes).sum();
            assert_eq!(sum(|site| site.live), Tally { count: planted.blocks(), bytes }, "{name}");
            let freed: u64 = planted.sites.iter().map(|site| site.frees).sum();
            assert_eq!(sum(|site| site.freed).count, freed, "{name}");
        }
        for (format, expected) in [("collapsed", "conn_dup 5"), ("text", "never freed  20 objects")] {
            // The shim's program makes no reports.
            let mut report = std::process::Command::new(env!("CARGO_BIN_EXE_memleax"));
            let output =
                report.args(["report", "--of", "conn", "--format", format]).arg(&file).output().expect("it runs");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(expected), "{format}: {text}{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// What the interpreter leaks of its own modules' libraries: databases of libsqlite3, sessions and contexts of libssl.
const LEAK: &str = r#"
import os, sys, sqlite3, ssl, socket

kept = []

def leak_databases(count):
    for number in range(count):
        kept.append(sqlite3.connect(":memory:"))
        sqlite3.connect(":memory:").close()

def leak_sessions(count):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    kept.append(context)
    for number in range(count):
        kept.append(context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO()))
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())

def say(text):
    os.write(1, (text + "\n").encode())

say("READY")
for line in sys.stdin:
    if line == "quit\n":
        break
    leak_databases(3)
    leak_sessions(4)
    say("DONE")
"#;

/// A Debian program's own pairs of functions.
#[test]
fn databases_and_sessions_of_python() {
    if !may_trace() {
        return;
    }
    let mut command = std::process::Command::new("/usr/bin/python3");
    command.args(["-c", LEAK]);
    let mut target = Process::start(&mut command);
    let types = [
        "db=sqlite3_open_v2(out=2,always)|sqlite3_close,sqlite3_close_v2",
        "context=SSL_CTX_new||SSL_CTX_up_ref|SSL_CTX_free",
        "session=SSL_new||SSL_up_ref|SSL_free",
    ];
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &options("--object", &types));
    target.ask("go");
    target.ask("go");
    monitor.wait_for_leaks_of("session", 8);
    let report = monitor.interrupt();
    for (name, inner, module, planted, freed) in [
        ("db", "sqlite3_open_v2", "libsqlite3", 6, 6),
        ("context", "SSL_CTX_new", "libssl", 2, 0),
        ("session", "SSL_new", "libssl", 8, 8),
    ] {
        let stacks = report.objects.get(name).unwrap_or_else(|| panic!("no {name}: {report:?}"));
        let sum = |count: fn(&crate::harness::CallStack) -> u64| stacks.iter().map(count).sum::<u64>();
        assert_eq!(sum(|of| of.may_leak.blocks), planted, "{name}: {report:?}");
        // What was freed at once has stacks of its own, which are only told with those that leak.
        assert!(sum(|of| of.free.blocks) <= freed, "{name}: {report:?}");
        for stack in stacks {
            assert_eq!(stack.frames[0].function.as_deref(), Some(inner), "{report:?}");
            assert!(stack.frames[0].module.starts_with(module), "{report:?}");
        }
    }
    before.assert_restored(&target);
    target.quit();
}
