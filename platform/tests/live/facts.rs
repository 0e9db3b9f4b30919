//! What is told of a process.

use std::os::unix::fs::MetadataExt;

use memleax_platform::linux::LinuxTracer;
use memleax_platform::{Resume, Tracer};

use crate::target::{Target, attached, unprivileged};

#[test]
fn the_map_leads_to_the_files() {
    let target = Target::start(&["idle"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    let mappings = tracer.mappings(target.pid).expect("readable");
    assert!(mappings.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(mappings.iter().any(|mapping| mapping.path.as_os_str() == "[vdso]" && mapping.file_id == (0, 0)));
    let vector = tracer.auxiliary_vector(target.pid).expect("readable");
    let find = |address: u64| mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address));
    let executable = find(vector.entry).expect("mapped");
    assert!(executable.executable && executable.path.ends_with("target-process"));
    assert!(find(vector.program_headers).is_some_and(|mapping| mapping.path == executable.path));
    assert!(find(vector.interpreter_base).is_some_and(|mapping| mapping.path != executable.path));
    assert_eq!(find(vector.vdso).map(|mapping| mapping.path.clone()), Some("[vdso]".into()));
    let file = tracer.open_mapping(target.pid, executable).expect("opened");
    assert_eq!(file.metadata().expect("readable").ino(), executable.file_id.1);
    assert!(tracer.open_path(target.pid, &executable.path).is_ok());
    assert_eq!(tracer.facts(target.pid).expect("readable").name, "target-process");
}

#[test]
fn a_deleted_or_replaced_file_is_opened_nevertheless() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("program");
    let original = std::fs::metadata(Target::copy_program(&path)).expect("readable").ino();
    let target = Target::start_program(&path, &["idle"]);
    assert_eq!(target.line(), "ready");
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "another file").expect("written");
    let mut tracer = attached(&target);
    let mappings = tracer.mappings(target.pid).expect("readable");
    let mapping = mappings.iter().find(|mapping| mapping.path == path).expect("mapped");
    assert!(mapping.deleted);
    let file = tracer.open_mapping(target.pid, mapping).expect("opened");
    assert_eq!(file.metadata().expect("readable").ino(), original);
}

#[test]
fn threads_that_block_sigtrap_are_named() {
    let target = Target::start(&["blocked-trap"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    let facts = tracer.facts(target.pid).expect("readable");
    assert_eq!(facts.threads_blocking_trap.len(), 1);
    assert_ne!(facts.threads_blocking_trap[0].0, target.pid.0);
    assert_eq!(facts.remote_calls_refused, None);
}

#[test]
fn a_thread_that_blocks_sigtrap_does_not_while_it_is_traced() {
    let target = Target::start(&["blocked-trap"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    let blocking = tracer.facts(target.pid).expect("readable").threads_blocking_trap;
    let stops = tracer.halt(target.pid).expect("halted");
    for stop in &stops {
        assert!(tracer.unblock_trap(stop).expect("alive"));
    }
    assert_eq!(tracer.facts(target.pid).expect("readable").threads_blocking_trap, []);
    for stop in stops {
        tracer.detach(stop, Resume::Deliver).expect("alive");
    }
    assert_eq!(tracer.facts(target.pid).expect("readable").threads_blocking_trap, blocking);
}

#[test]
fn what_an_unprivileged_tracer_would_hamper_is_known() {
    let target = Target::start_as(&["idle"], Some(65534));
    assert_eq!(target.line(), "ready");
    let pid = target.pid;
    let hampered = move || LinuxTracer::new().facts(pid).expect("readable").exec_gains_nothing;
    assert!(!hampered(), "this test is run as root");
    assert!(unprivileged(65534, hampered));
}
