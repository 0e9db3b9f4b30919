//! Threads that ask a run while it goes on.

use super::*;

/// A run that goes on until it is stopped, after `steps`.
fn attended(steps: Vec<Step>, attendants: Vec<Attendant>) -> Run {
    Run { attendants, ..Run::new(steps) }
}

#[test]
fn who_attends_learns_what_is_known_and_can_end_the_run() {
    let (tell, told) = mpsc::channel();
    let asker = Attendant::new("asker", move |inquirer| {
        assert_eq!((inquirer.target(), inquirer.backend()), (Pid(42), "scripted"));
        assert!(!inquirer.is_over());
        let first = inquirer.profile().expect("the run goes on");
        let taken = inquirer.snapshot("request").expect("the run goes on");
        inquirer.stop();
        let ending = inquirer.wait_for_end(Duration::from_secs(60)).expect("it ends");
        tell.send((first, taken, ending, inquirer.profile().expect_err("it is over"))).expect("the test waits");
    });
    let mut run = attended(vec![Step::Expiries(3)], vec![asker]);
    assert!(run.go(&config()).is_ok());
    let (first, taken, ending, after) = told.recv().expect("it was told");
    assert_eq!(first.sites[0].live, Tally { count: 3, bytes: 3 });
    assert!(first.sites[0].oldest.is_some() && first.blocks.len() == 3);
    assert_eq!(first.sites[0].stack.frames.len(), 1);
    assert_eq!((taken.number, taken.profile.snapshots.len()), (1, 1));
    assert_eq!(
        (taken.profile.snapshots[0].cause.as_str(), &taken.profile.snapshots[0].live[..]),
        ("request", &[(0, Tally { count: 3, bytes: 3 })][..])
    );
    assert_eq!(ending, "Monitoring was ended; the process went on.");
    assert_eq!(after, InquiryError::Over);
    assert!(run.log.has_in_order(DETACHED, "== Terminate monitoring."), "{}", run.log.text());
}

#[test]
fn all_who_ask_are_answered() {
    let (tell, told) = mpsc::channel();
    let askers = (0..8).map(|_| {
        let tell = tell.clone();
        Attendant::new("asker", move |inquirer| {
            for _ in 0..20 {
                tell.send(inquirer.snapshot("request").map(|taken| taken.number)).expect("the test waits");
            }
        })
    });
    let mut attendants: Vec<Attendant> = askers.collect();
    drop(tell);
    let (over, is_over) = mpsc::channel();
    attendants.push(Attendant::new("last", move |inquirer| {
        let mut numbers: Vec<usize> = told.iter().map(|number| number.expect("the run goes on")).collect();
        numbers.sort_unstable();
        inquirer.stop();
        over.send(numbers).expect("the test waits");
    }));
    assert!(attended(vec![Step::Expiries(1)], attendants).go(&config()).is_ok());
    assert_eq!(is_over.recv().expect("told"), (1..=160).collect::<Vec<_>>());
}

#[test]
fn a_run_with_single_events_is_told_of_as_well() {
    let (tell, told) = mpsc::channel();
    let asker = Attendant::new("asker", move |inquirer| {
        tell.send(inquirer.snapshot("request").expect("the run goes on")).expect("the test waits");
        inquirer.stop();
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run");
    let config = Config { keep: Keep::File { path, limit: u64::MAX, full: true }, ..config() };
    assert!(attended(vec![Step::Expiries(2)], vec![asker]).go(&config).is_ok());
    let taken = told.recv().expect("told");
    assert_eq!(taken.profile.sites[0].live.count, 2);
    assert_eq!(taken.profile.snapshots[0].live, [(0, Tally { count: 2, bytes: 2 })]);
}

#[test]
fn whoever_hangs_or_panics_is_left_behind() {
    let (let_go, go) = mpsc::channel::<()>();
    let hangs = Attendant::new("hangs", move |_| _ = go.recv());
    let panics = Attendant::new("panics", |_| panic!("scripted panic"));
    let mut run = attended(vec![Step::Expiries(2), Step::Signal], vec![hangs, panics]);
    assert!(run.go(&config()).is_ok());
    assert!(run.log.has_in_order(DETACHED, "may-leak=2 (2 bytes)"), "{}", run.log.text());
    drop(let_go);
}

#[test]
fn a_run_that_panics_leaves_nobody_waiting() {
    let (tell, told) = mpsc::channel();
    let waits = Attendant::new("waits", move |inquirer| {
        tell.send(inquirer.wait_for_end(Duration::from_secs(600))).expect("the test waits");
    });
    let mut run = attended(vec![Step::Panics], vec![waits]);
    catch_unwind(AssertUnwindSafe(|| run.go(&config()))).expect_err("a panic");
    assert_eq!(told.recv().expect("told").as_deref(), Some("Monitoring broke off."));
    assert!(run.log.contains(DETACHED));
}

#[test]
fn a_report_that_is_stuck_does_not_keep_an_attendant_from_ending_the_run() {
    let (reached, was_reached) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let stops = Attendant::new("stops", move |inquirer| {
        inquirer.stop();
        assert!(inquirer.wait_for_end(Duration::from_secs(600)).is_some());
        let_go.send(()).expect("the report waits");
    });
    let mut run = attended(vec![Step::WaitFor(was_reached)], vec![stops]);
    let stuck = Stuck { reached: Some(reached), go, log: run.log.clone() };
    assert!(run.go_to(&config(), stuck).is_ok());
    assert!(run.log.contains(DETACHED));
}
