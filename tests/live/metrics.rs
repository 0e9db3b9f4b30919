//! `--metrics`: what Prometheus is told while a target runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use memleax_targets::{Process, Target, patience};

use crate::harness::{Launched, Monitor, State, has_program, may_trace, tracer_of};

/// The answer to a request for `path`: its status and its body.
fn ask(address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// The body of what is at `path`.
fn get(address: SocketAddr, path: &str, accept: &str) -> String {
    let (status, body) = ask(address, path, accept);
    assert!(status.ends_with(" 200 OK"), "{status}: {body}");
    body
}

const PROMETHEUS: &str = "text/plain";
const OPEN_METRICS: &str = "application/openmetrics-text";

/// What is scraped: values by series.
fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let page = get(address, "/metrics", OPEN_METRICS);
    assert!(page.ends_with("\n# EOF\n"), "{page}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.into(), value.parse().expect("a number")))
        .collect()
}

/// The series of a metric of the call stack with this function.
fn of_site(values: &BTreeMap<String, f64>, metric: &str, function: &str) -> Option<f64> {
    let label = format!("function=\"{function}\"");
    values
        .iter()
        .find(|(series, _)| series.starts_with(&format!("{metric}{{")) && series.contains(&label))
        .map(|(_, value)| *value)
}

/// Where the metrics are, as standard error tells.
fn address(line: Option<String>) -> SocketAddr {
    let line = line.expect("a line on standard error");
    let url = line.strip_prefix("memleax: metrics are at http://").and_then(|rest| rest.strip_suffix("/metrics"));
    url.unwrap_or_else(|| panic!("{line}")).parse().unwrap_or_else(|_| panic!("an address in {line}"))
}

/// A page that `promtool` is content with; its complaints are on standard error.
fn check_page(page: &str) {
    if !has_program("promtool") {
        return;
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool starts");
    child.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("our own child");
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}\n{page}");
}

/// A leak grows from one scrape to the next, by exactly what was leaked in between.
#[test]
fn a_leak_grows_from_scrape_to_scrape() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("crash").start();
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &["--metrics", "0"]);
    let address = address(monitor.error_line());
    assert!(address.ip().is_loopback(), "{address}");
    let nothing = scrape(address);
    assert_eq!((nothing["memleax_suspect_blocks"], nothing["memleax_observing"]), (0.0, 1.0));
    assert_eq!(of_site(&nothing, "memleax_site_live_blocks", "leak_before_end"), None);

    target.ask("go 3");
    monitor.wait_for_leaks(3);
    let first = scrape(address);
    target.ask("go 40");
    monitor.wait_for_leaks(43);
    let second = scrape(address);
    for (values, leaked) in [(&first, 3.0), (&second, 43.0)] {
        let of = |metric| of_site(values, metric, "leak_before_end");
        assert_eq!(of("memleax_site_suspect_blocks"), Some(leaked), "{values:?}");
        assert_eq!(of("memleax_site_suspect_bytes"), Some(87.0 * leaked), "{values:?}");
        assert_eq!(of("memleax_site_allocated_blocks_total"), Some(2.0 * leaked), "{values:?}");
        assert!(values["memleax_live_bytes"] >= 87.0 * leaked, "{values:?}");
    }
    let grown = |metric: &str| second[metric] - first[metric];
    assert_eq!((grown("memleax_suspect_blocks"), grown("memleax_suspect_bytes")), (40.0, 40.0 * 87.0));
    assert!(grown("memleax_allocated_blocks_total") >= 80.0 && grown("memleax_freed_blocks_total") >= 40.0);
    assert!(grown("process_cpu_seconds_total") >= 0.0 && second["process_resident_memory_bytes"] > 0.0);
    check_page(&get(address, "/metrics", PROMETHEUS));

    let report = monitor.interrupt();
    assert_eq!(report.errors, "", "{report:?}");
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    before.assert_restored(&target);
    target.quit();
}

/// So are programs that memleax starts, and runs that are recorded.
#[test]
fn a_program_that_is_recorded() {
    if !may_trace() {
        return;
    }
    let program = Target::c("crash").build();
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("run.memleax");
    let recording = recording.to_str().expect("UTF-8");
    let mut memleax = crate::harness::program();
    memleax.args(["record", "--backend", crate::harness::Backend::under_test().name(), "-o", recording]);
    memleax.args(["--metrics", ":0", "--metrics-sites", "1", "--"]).arg(&program.path);
    let mut launched = Launched { memleax: Process::start(&mut memleax) };
    let address = address(launched.memleax.error_line());
    launched.memleax.ask("go 5");
    let values = scrape(address);
    assert_eq!(of_site(&values, "memleax_site_live_blocks", "leak_before_end"), Some(5.0), "{values:?}");
    let sites = values.keys().filter(|series| series.starts_with("memleax_site_live_blocks{")).count();
    assert_eq!(sites, 1, "{values:?}");
    launched.quit();
}

/// An address that cannot be had is told before the target is touched.
#[test]
fn an_address_in_use() {
    if !may_trace() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("an address");
    let target = Target::c("crash").start();
    let before = State::of(&target);
    let mut monitor = Monitor::spawn(target.id(), &["--metrics", &taken.1.to_string()]);
    let (status, report) = monitor.wait();
    assert_eq!(status.code(), Some(1), "{report:?}");
    let expected = format!("cannot serve metrics at {}: Address already in use", taken.1);
    assert!(report.errors.contains(&expected) && report.lines.is_empty(), "{report:?}");
    assert_eq!(tracer_of(target.id()), 0);
    before.assert_restored(&target);
    target.quit();
}

/// Prometheus itself scrapes, and answers queries for what the target leaked; the configuration is that of the documentation.
#[test]
fn prometheus_scrapes_it() {
    if !may_trace() || !has_program("prometheus") {
        return;
    }
    let mut target = Target::c("crash").start();
    let mut monitor = Monitor::attach(&target, &["--metrics", "0"]);
    let address = address(monitor.error_line());
    target.ask("go 7");
    monitor.wait_for_leaks(7);

    let folder = tempfile::tempdir().expect("a folder");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prometheus");
    let config = fs::read_to_string(example.join("prometheus.yml")).expect("the example");
    let config = config.replace("127.0.0.1:9464", &address.to_string()).replace("15s", "1s").replace("10s", "1s");
    fs::write(folder.path().join("prometheus.yml"), config).expect("a file");
    fs::copy(example.join("memleax.rules.yml"), folder.path().join("memleax.rules.yml")).expect("a file");
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    let mut prometheus = Process::spawn(command.arg("--web.listen-address=127.0.0.1:0"));
    let listens = loop {
        let line = prometheus.error_line().expect("prometheus gets ready");
        if let Some((_, place)) = line.split_once("msg=\"Listening on\" address=") {
            break place.trim().parse::<SocketAddr>().unwrap_or_else(|_| panic!("{line}"));
        }
    };
    let query = "/api/v1/query?query=memleax_site_suspect_blocks%7Bfunction%3D%22leak_before_end%22%7D";
    let begin = Instant::now();
    let answer = loop {
        // It listens before it is ready to answer.
        let (_, answer) = ask(listens, query, "application/json");
        if answer.contains("leak_before_end") {
            break answer;
        }
        assert!(begin.elapsed() < patience(), "{answer}; {}", prometheus.errors());
        std::thread::yield_now();
    };
    assert!(answer.contains("\"7\"") && answer.contains("\"service\":\"my-server\""), "{answer}");
    assert!(get(listens, "/api/v1/query?query=up", "application/json").contains("\"1\""));
    drop(prometheus);
    monitor.interrupt();
    target.quit();
}
