//! Reading and writing the target's memory.

use memleax_platform::{Error, Resume, Tracer};

use crate::target::{Target, attached, deliver, resume};

const PAGE: u64 = 4096;

#[test]
fn reads_end_where_memory_ends() {
    let mut target = Target::start(&["memory"]);
    let pages = target.address("pages");
    let mut tracer = attached(&target);
    // A page without permissions, one with them, and nothing.
    for stop in tracer.halt(target.pid).expect("halted") {
        let mut buffer = vec![0; 3 * PAGE as usize];
        let readable = &mut buffer[..];
        assert_eq!(tracer.read(&stop, pages + PAGE + 10, readable).expect("alive"), PAGE as usize - 10);
        assert!(readable[..PAGE as usize - 10].iter().all(|&byte| byte == b'x'));
        assert_eq!(tracer.read(&stop, pages + 2 * PAGE, readable).expect("alive"), 0);
        assert_eq!(tracer.read(&stop, 0, readable).expect("alive"), 0);
        assert_eq!(tracer.read(&stop, u64::MAX - 2, readable).expect("alive"), 0);
        // Debuggers may read and write what the process itself may not.
        assert_eq!(tracer.read(&stop, pages, &mut readable[..4]).expect("alive"), 4);
        assert_eq!(&readable[..4], b"xxxx");
        tracer.write(&stop, pages, b"mine").expect("written");
        let error = tracer.write(&stop, pages + 2 * PAGE - 2, b"beyond").expect_err("not all of it is mapped");
        assert!(matches!(error, Error::Memory { what: "write", length: 6, .. }), "{error:?}");
        resume(&mut tracer, stop, Resume::Swallow);
    }
    target.go();
    assert_eq!(target.line_under(&mut tracer, deliver), "mine");
}
