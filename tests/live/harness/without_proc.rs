//! What `/proc` would tell, on systems that have none: asked of the tracer, or of `ps`.

use std::os::unix::fs::FileExt;
use std::process::Command;

use memleax_platform::{Mapping, NativeTracer, Pid, Resume, Stop, Tracer};

fn pid_of(pid: u32) -> Pid {
    Pid(pid.try_into().expect("a process id"))
}

/// The mappings of a process.
pub(super) fn mappings(pid: u32) -> Vec<Mapping> {
    NativeTracer::default().mappings(pid_of(pid)).unwrap_or_else(|e| panic!("no mappings of {pid}: {e}"))
}

/// Bytes of the process's executable file mappings that differ from the file's: their addresses and values. The process is
/// stopped for that.
pub(super) fn text_differences(pid: u32) -> Vec<String> {
    let mut tracer = NativeTracer::default();
    let pid = pid_of(pid);
    tracer.attach(pid).unwrap_or_else(|e| panic!("{e}"));
    let stops = tracer.halt(pid).unwrap_or_else(|e| panic!("{e}"));
    let mut differences = Vec::new();
    let executable = |mapping: &Mapping| mapping.executable && mapping.file_id != (0, 0);
    let mappings = tracer.mappings(pid).expect("a map");
    for mapping in mappings.into_iter().filter(executable) {
        differences.extend(differences_in(&mut tracer, &stops[0], &mapping));
    }
    for stop in stops {
        tracer.detach(stop, Resume::Deliver).expect("detached");
    }
    differences
}

fn differences_in(tracer: &mut NativeTracer, stop: &Stop, mapping: &Mapping) -> Vec<String> {
    let file = tracer.open_mapping(stop.pid, mapping).unwrap_or_else(|e| panic!("{}: {e}", mapping.path.display()));
    let mut here = vec![0; usize::try_from(mapping.end - mapping.start).expect("fits in memory")];
    let mut there = here.clone();
    let readable = tracer.read(stop, mapping.start, &mut here).expect("readable");
    assert_eq!(readable, here.len(), "{}", mapping.path.display());
    // A mapping may end behind its file; what is there is zero in both.
    let mut done = 0;
    while let Ok(n @ 1..) = file.read_at(&mut there[done..], mapping.offset + done as u64) {
        done += n;
    }
    let found = (0..here.len()).filter(|&i| here[i] != there[i]).map(|i| {
        let address = mapping.start + i as u64;
        format!("{address:#x} in {}: {:02x}, not {:02x}", mapping.path.display(), here[i], there[i])
    });
    found.take(20).collect()
}

/// What `ps` says of each thread of a process.
fn ps(pid: u32, keyword: &str) -> Vec<String> {
    let output = Command::new("ps").args(["-H", "-o", &format!("{keyword}="), "-p", &pid.to_string()]).output();
    let output = output.unwrap_or_else(|e| panic!("ps: {e}"));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect()
}

/// A thread of the process runs.
pub(super) fn runs(pid: u32) -> bool {
    ps(pid, "state").iter().any(|state| state.starts_with('R'))
}

/// The process that traces this one; 0 for none.
pub(super) fn tracer_of(pid: u32) -> u32 {
    ps(pid, "tracer").first().and_then(|tracer| tracer.parse().ok()).unwrap_or_default()
}

/// The same as `/proc` tells, of a process that rests.
#[test]
fn agrees_with_proc() {
    if !super::state::has_proc() {
        return;
    }
    let target = memleax_targets::Target::c("crash").start();
    assert_eq!(text_differences(target.id()), Vec::<String>::new());
    assert_eq!(super::tracer_of(target.id()), 0);
    let own = mappings(target.id());
    assert!(own.iter().any(|mapping| mapping.executable && mapping.path.ends_with("crash")), "{own:?}");
    target.quit();
}
