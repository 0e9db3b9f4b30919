//! What waits for a slow reader or disk is bounded.

use super::*;
use crate::event::Loss;

/// Of single events so many wait at the most; the others are counted, in the report and in the recording.
#[test]
fn single_events_that_cannot_be_written_are_counted() {
    const ROUNDS: usize = 24;
    const EVENTS: u64 = 50_000;
    let (reached, was_reached) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let warning = Notice::Warning("something to be stuck with".into());
    let mut steps = vec![Step::Notice(warning), Step::WaitFor(was_reached)];
    steps.extend((0..ROUNDS).map(|_| Step::Expiries(EVENTS)));
    steps.push(Step::Signal);
    let mut run = Run::new(steps);
    let keep = Keep::File { path: "nowhere".into(), limit: u64::MAX, full: true };
    let config = Config { keep, quiet: true, ..config() };
    let stuck = Stuck { reached: Some(reached), go, log: run.log.clone() };
    let log = run.log.clone();
    let releaser = std::thread::spawn(move || {
        while !log.contains(DETACHED) {
            std::thread::yield_now();
        }
        let_go.send(()).expect("the report waits");
    });
    let outcome = run.go_to(&config, stuck).expect("an ordinary end");
    releaser.join().expect("released");
    let recording = outcome.recording.expect("it is wanted");
    let profile = crate::recording::replay(&recording, None).expect("a recording").into_profile(&mut |_| None);
    let left_out = profile.losses.get(&Loss::EventNotRecorded).copied().unwrap_or(0);
    let recorded = profile.sites.iter().map(|site| site.allocated.count).sum::<u64>();
    assert_eq!(recorded + left_out, ROUNDS as u64 * EVENTS);
    assert!(((1 << 20)..(1 << 20) + 2 * EVENTS).contains(&recorded), "{recorded}");
    assert!(run.log.contains(&format!("{left_out} events not recorded")), "{}", run.log.text());
    assert!(run.log.contains(&format!("alloc={} ", ROUNDS as u64 * EVENTS)), "the run has seen them");
}

/// Warnings that come again and again are in the recording once; those that are new each time, for so long.
#[test]
fn remarks_do_not_pile_up() {
    let again = || Step::Notice(Notice::Warning("no room for the rules of a library".into()));
    let another = |number: u32| Step::Notice(Notice::Warning(format!("cannot open /tmp/plugin.{number}")));
    let mut steps: Vec<Step> = (0..3000).flat_map(|number| [again(), another(number)]).collect();
    steps.push(Step::Signal);
    let config = Config { keep: Keep::Whole, ..config() };
    let outcome = Run::new(steps).go(&config).expect("an ordinary end");
    let recording = outcome.recording.expect("it is wanted");
    let profile = crate::recording::replay(&recording, None).expect("a recording").into_profile(&mut |_| None);
    assert_eq!(profile.remarks.len(), 1001, "{:?}", profile.remarks.last());
    assert_eq!(profile.remarks.iter().filter(|remark| remark.starts_with("no room")).count(), 1);
    assert_eq!(profile.remarks.last().map(String::as_str), Some("Further remarks are left out."));
}
