//! What may be asked only while the process is stopped, and what comes of asking when it was killed.

use super::*;
use crate::freebsd::Sys;

/// The fake kernel itself fails a test in which something is asked of a running process.
#[test]
#[should_panic(expected = "EBUSY")]
fn the_fake_kernel_refuses_requests_outside_a_stop() {
    let mut rig = rig(1);
    _ = rig.list_threads(TARGET);
}

#[test]
fn memory_is_read_as_far_as_it_goes() {
    let mut rig = rig(1);
    let stops = rig.halt(TARGET).expect("halted");
    let end = TEXT + kernel::TEXT_SIZE as u64;
    let mut buffer = vec![0; 0x3000];
    assert_eq!(rig.read(&stops[0], TEXT, &mut buffer[..0x2000]).expect("readable"), 0x2000);
    assert_eq!(rig.sys.requests.iter().filter(|(name, _)| *name == "read").count(), 1, "by one request");
    // The whole request fails: the page that is there is asked for by itself.
    assert_eq!(rig.read(&stops[0], end - 0x1000, &mut buffer).expect("readable"), 0x1000);
    assert_eq!(rig.read(&stops[0], end - 3, &mut buffer[..8]).expect("readable"), 3);
    assert_eq!(rig.read(&stops[0], end, &mut buffer[..8]).expect("no error"), 0);
    rig.write(&stops[0], TEXT + 0xfff, &[1, 2]).expect("across two pages");
    assert!(matches!(rig.write(&stops[0], end - 1, &[1, 2]), Err(Error::Memory { length: 2, .. })));
    rig.leave(stops);
}

#[test]
fn whatever_is_asked_of_a_killed_process_is_gone() {
    let mut rig = rig(2);
    let mut stops = rig.halt(TARGET).expect("halted");
    rig.sys.kill_process(TARGET.0);
    assert!(is_gone(rig.registers(&stops[0])));
    assert!(is_gone(rig.read(&stops[0], TEXT, &mut [0; 4])));
    assert!(is_gone(rig.write(&stops[0], TEXT, &[0])));
    assert!(is_gone(rig.step(&mut stops[0])));
    for stop in stops {
        _ = rig.detach(stop, Resume::Deliver);
    }
    assert!(matches!(rig.wait().expect("its end"), Report::ProcessEnded { pid: TARGET, .. }));
    assert!(is_gone(rig.halt(TARGET)));
}

/// A thread that sleeps amid a system call of its own cannot make one for the tracer; one that has trapped can.
#[test]
fn code_is_mapped_by_a_thread_that_can() {
    let mut rig = rig(2);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(B, &[Act::Execute(at)]);
    let trapped = rig.next_stop();
    let sleeping = rig.halt(TARGET).expect("halted");
    let place = rig.map_code(&sleeping[0], TEXT, 0x1_0000).expect("mapped");
    assert_eq!(place, TEXT - 0x1_0000);
    let calls = rig.sys.requests.iter().filter(|(name, _)| *name == "system call");
    assert_eq!(calls.map(|&(_, id)| id).collect::<Vec<_>>(), [A, B]);
    rig.unmap_code(&sleeping[0], place, 0x1_0000).expect("unmapped");
    rig.leave(std::iter::once(trapped).chain(sleeping).collect());
}

#[test]
fn the_fake_kernel_names_the_threads_by_other_ids_than_the_process() {
    let mut rig = rig(1);
    assert!(rig.sys.ptrace(LWP - 1, crate::freebsd::Request::Attach).is_err());
    let stops = rig.halt(TARGET).expect("halted");
    assert!(stops.iter().all(|stop| stop.tid.0 >= LWP && stop.pid == TARGET));
}
