//! Pages of a profile, and who gets them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use memleax_platform::OwnCost;

use super::*;
use crate::event::Tally;
use crate::profile::{Profile, sample};

fn page(profile: &Profile, sites: usize, form: Form) -> String {
    let cost = OwnCost { processor: Duration::from_millis(1250), resident: Some(5 << 20) };
    let state = State { whole: profile, filtered: profile, observes: true, cost };
    Page::new(sites).write(&state, form).expect("it is written to memory")
}

/// The value of a series, by what stands before it.
fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn a_page_tells_all_there_is() {
    insta::assert_snapshot!(page(&sample::profile(), 10, Form::OpenMetrics));
}

#[test]
fn both_forms_tell_the_same() {
    let values = |form| {
        let page = page(&sample::profile(), 10, form);
        page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(values(Form::OpenMetrics), values(Form::Prometheus));
    assert!(page(&sample::profile(), 10, Form::OpenMetrics).ends_with("\n# EOF\n"));
    assert!(!page(&sample::profile(), 10, Form::Prometheus).contains("# EOF"));
}

#[test]
fn call_stacks_have_series_as_long_as_they_are_among_the_worst() {
    let profile = sample::profile();
    let count = |page: &str| page.lines().filter(|line| line.starts_with("memleax_site_live_blocks{")).count();
    assert_eq!([0, 1, 2, 10].map(|sites| count(&page(&profile, sites, Form::OpenMetrics))), [0, 1, 2, 2]);
    let mut freed = profile;
    freed.sites[0].live = Tally::default();
    let later = page(&freed, 1, Form::OpenMetrics);
    assert!(!later.contains("Pool::take") && count(&later) == 1, "{later}");
}

#[test]
fn names_of_any_kind_are_one_label() {
    let mut profile = sample::profile();
    profile.sites[1].live = Tally { count: 1, bytes: 7 };
    profile.sites[1].expired = profile.sites[1].live;
    profile.sites[1].stack.frames.remove(0);
    profile.run.executable = "/srv/a \"b\"\\c\nd".into();
    let page = page(&profile, 10, Form::OpenMetrics);
    assert!(page.contains(r#"function="evil; <b>\"& [31m λ""#) || page.contains("module=\"plug in.so\""), "{page}");
    assert!(page.contains(r#"executable="/srv/a \"b\"\\c\nd""#), "{page}");
}

#[test]
fn counters_never_go_down() {
    let mut profile = sample::profile();
    let mut pages = Page::new(1);
    let mut write = |profile: &Profile| {
        let state = State { whole: profile, filtered: profile, observes: true, cost: OwnCost::default() };
        pages.write(&state, Form::OpenMetrics).expect("it is written to memory")
    };
    let series = "memleax_allocated_bytes_total";
    let before = value(&write(&profile), series).expect("a value");
    assert_eq!(before, 7_376.0, "what was resized counts anew");
    profile.timeline.last_mut().expect("a moment").allocated.bytes -= 100;
    assert_eq!(value(&write(&profile), series), Some(before));
    profile.timeline.last_mut().expect("a moment").allocated.bytes += 200;
    assert_eq!(value(&write(&profile), series), Some(before + 100.0));
}

#[test]
fn a_run_of_which_nothing_is_known_yet_has_a_page() {
    let mut profile = sample::profile();
    profile.sites.clear();
    profile.timeline.clear();
    profile.peak = None;
    let page = page(&profile, 10, Form::OpenMetrics);
    assert_eq!(value(&page, "memleax_live_bytes"), Some(0.0));
    assert!(!page.contains("memleax_site_"), "no family without metrics: {page}");
}

/// A server on a port of its own, until the end of the test.
struct Served {
    address: SocketAddr,
    server: Option<Server>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn new() -> Served {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.address();
        let (server, serve) = listener.into_server(|form| Some(format!("{form:?}\n").repeat(10_000)));
        Served { address, server: Some(server), thread: Some(std::thread::spawn(serve)) }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("it listens")
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn end(&mut self) {
        drop(self.server.take());
        self.thread.take().expect("once").join().expect("it ends");
    }
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_request_is_answered() {
    let served = Served::new();
    let answer = served.ask(GET);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    let open = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text\r\n\r\n";
    assert!(served.ask(open).contains("\r\n\r\nOpenMetrics\n"));
    assert!(served.ask("HEAD /metrics HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"), "no body");
    assert!(served.ask("GET /secret HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(served.ask("DELETE /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(served.ask("\u{16}\u{3}\u{1} hello\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn readers_that_send_nothing_or_read_nothing_keep_none_from_the_page() {
    let served = Served::new();
    let silent: Vec<TcpStream> = (0..200).map(|_| served.connect()).collect();
    let deaf: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = served.connect();
            // It may be let go already.
            _ = stream.write_all(GET.as_bytes());
            stream
        })
        .collect();
    for _ in 0..20 {
        assert!(served.ask(GET).starts_with("HTTP/1.1 200 OK"));
    }
    drop((silent, deaf));
}

#[test]
fn the_end_lets_all_readers_go() {
    let mut served = Served::new();
    let mut silent = served.connect();
    assert!(served.ask(GET).starts_with("HTTP/1.1 200 OK"), "both are connected now");
    served.end();
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    assert!(TcpStream::connect(served.address).is_err());
}

#[test]
fn an_address_that_cannot_be_had_is_told_with_a_remedy() {
    let taken = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let error = Listener::bind(taken.address()).expect_err("it is taken").to_string();
    let expected = format!("cannot serve metrics at {}: Address already in use", taken.address());
    assert!(error.starts_with(&expected) && error.ends_with("give another port, or 0 for any that is free"), "{error}");
    let error = Listener::bind(([192, 0, 2, 1], 0).into()).expect_err("not ours").to_string();
    assert!(error.ends_with("give an address of this machine, or only a port"), "{error}");
}

#[test]
fn the_documentation_tells_of_each_metric_and_no_other() {
    let told = include_str!("../../docs/metrics.md");
    let rows = || told.lines().filter(|line| line.starts_with("| `"));
    let mut names: Vec<&str> = rows().flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    names.retain(|name| name.starts_with("memleax_") || name.starts_with("process_"));
    names.sort_unstable();
    let page = page(&sample::profile(), 10, Form::OpenMetrics);
    let series = page.lines().filter(|line| !line.starts_with('#'));
    let mut served: Vec<&str> = series.filter_map(|line| line.split(['{', ' ']).next()).collect();
    served.sort_unstable();
    served.dedup();
    assert_eq!(names, served);
    for loss in crate::event::Loss::ALL {
        assert!(rows().any(|row| row.starts_with(&format!("| `{}` |", loss.name()))), "{}", loss.name());
    }
}
