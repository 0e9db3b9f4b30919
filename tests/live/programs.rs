//! Programs of the real world under load: 20 attach/detach cycles each, and every answer they give is checked.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use memleax_targets::{Process, Target, patience};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Monitor, RedisServer, State, has_program, may_trace, rounds, wait_until_idle};

/// Checked answers per half cycle: while attached, and after detaching.
const ANSWERS: usize = 5;

/// Attaches to and detaches from `pid` again and again while `request` is made over and over; it checks its answer.
fn cycles_under_load(pid: u32, mut request: impl FnMut() + Send) {
    wait_until_idle(pid);
    let before = State::of_pid(pid);
    let stop = AtomicBool::new(false);
    let (answered, answers) = channel();
    thread::scope(|scope| {
        let stop = &stop;
        let client = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) && answered.send(()).is_ok() {
                request();
            }
        });
        for _ in 0..rounds(20, 20) {
            let monitor = Monitor::attach_to(pid, &[]);
            wait_for_answers(&answers);
            let report = monitor.interrupt();
            assert_eq!(report.errors, "", "nothing to complain of");
            wait_for_answers(&answers);
        }
        stop.store(true, Ordering::Relaxed);
        drop(answers);
        client.join().expect("every answer is right");
    });
    wait_until_idle(pid);
    before.assert_restored_pid(pid);
}

fn wait_for_answers(answers: &Receiver<()>) {
    let _ = answers.try_iter().count();
    for _ in 0..ANSWERS {
        answers.recv_timeout(patience()).expect("the program answers, rightly");
    }
}

#[test]
fn redis() {
    if !may_trace() || !has_program("redis-server") {
        return;
    }
    let server = RedisServer::start(&[]);
    let mut client = server.connect();
    let mut round = 0u64;
    cycles_under_load(server.process.id(), || {
        round += 1;
        let (key, value) = (format!("key:{}", round % 100), "v".repeat(usize::try_from(round % 3000).unwrap_or(0)));
        assert_eq!(client.ask(&["SET", &key, &value]), "+OK");
        assert_eq!(client.ask(&["GET", &key]), format!("${}", value.len()));
        assert_eq!(client.bulk(value.len()), value);
        assert_eq!(client.ask(&["INCR", "counter"]), format!(":{round}"));
        let list = format!("list:{round}");
        assert_eq!(client.ask(&["RPUSH", &list, "a", "b", &value]), ":3");
        assert_eq!(client.ask(&["DEL", &list]), ":1");
    });
}

#[test]
fn nginx() {
    if !may_trace() || !has_program("nginx") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (root, socket) = (directory.path(), directory.path().join("nginx.sock"));
    let page: String = (0..2000).map(|i| format!("line {i} of the page\n")).collect();
    fs::write(root.join("page"), &page).expect("a file");
    let at = root.display();
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let configuration = format!(
        "{user} daemon off; worker_processes 1; pid {at}/pid; error_log stderr notice; events {{}}
         http {{ access_log off; gzip on; gzip_types *; client_body_temp_path {at}; proxy_temp_path {at};
         fastcgi_temp_path {at}; uwsgi_temp_path {at}; scgi_temp_path {at};
         server {{ listen unix:{at}/nginx.sock; root {at}; }} }}"
    );
    fs::write(root.join("configuration"), configuration).expect("a file");
    let mut server =
        Nginx { master: Process::spawn(Command::new("nginx").arg("-c").arg(root.join("configuration"))), worker: None };
    let worker = loop {
        let line = server.master.error_line().expect("nginx starts a worker");
        if let Some((_, pid)) = line.split_once("start worker process ") {
            break pid.trim().parse::<u32>().expect("the pid of the worker");
        }
    };
    server.worker = Some(Pid::from_raw(worker.cast_signed()));
    // The first answer comes from a worker that has initialised itself.
    assert_eq!(get(&socket, "/page", false).1, page.as_bytes());
    let compressed = get(&socket, "/page", true).1;

    cycles_under_load(worker, || {
        assert_eq!(get(&socket, "/page", false), (200, page.clone().into_bytes()));
        assert_eq!(get(&socket, "/page", true), (200, compressed.clone()));
        assert_eq!(get(&socket, "/nothing", false).0, 404);
    });
}

/// A master and its worker, both ended with the test.
struct Nginx {
    master: Process,
    worker: Option<Pid>,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master first, so that it starts no other worker.
        let _ = kill(self.master.pid(), Signal::SIGKILL);
        if let Some(worker) = self.worker {
            let _ = kill(worker, Signal::SIGKILL);
        }
    }
}

/// Status and body.
fn get(socket: &Path, path: &str, compressed: bool) -> (u32, Vec<u8>) {
    let mut stream = UnixStream::connect(socket).expect("nginx listens");
    let encoding = if compressed { "Accept-Encoding: gzip\r\n" } else { "" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{encoding}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("nginx reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("nginx answers");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a header");
    let header = String::from_utf8_lossy(&answer[..end]);
    let status = header.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer[end + 4..].to_vec())
}

#[test]
fn sqlite() {
    if !may_trace() || !has_program("sqlite3") {
        return;
    }
    let mut command = Command::new("sqlite3");
    command.args(["-init", "/dev/null", "-interactive", ":memory:"]);
    let mut shell = Process::spawn(&mut command);
    let pid = shell.id();
    shell.send(".prompt '' ''");
    shell.send("create table t(a integer primary key, b text);");
    let mut rows = 0u64;
    let ask = |shell: &mut Process, query: &str, expected: &str| {
        shell.send(query);
        let line = loop {
            let line = shell.line().expect("sqlite answers");
            // Its line editor may echo the question.
            if line.starts_with("answer:") {
                break line;
            }
        };
        assert_eq!(line, format!("answer:{expected}"), "{query}");
    };
    ask(&mut shell, "select 'answer:' || 1;", "1");
    cycles_under_load(pid, || {
        rows += 1;
        shell.send(&format!("insert into t values ({rows}, hex(zeroblob(200)) || {rows});"));
        ask(&mut shell, "select 'answer:' || count(*) from t;", &rows.to_string());
        let sum = rows * (rows + 1) / 2;
        ask(&mut shell, "select 'answer:' || sum(a) from t;", &sum.to_string());
        let longest = 400 + rows.to_string().len();
        ask(
            &mut shell,
            "select 'answer:' || max(length(b)) from (select b from t order by b desc, a);",
            &longest.to_string(),
        );
    });
}

const PYTHON: &str = r#"
import sys, threading, json, hashlib
print("READY", flush=True)
def work(n, out, i):
    d = {str(k): [k] * (k % 7) for k in range(n)}
    out[i] = sum(len(v) for v in json.loads(json.dumps(d)).values())
for line in sys.stdin:
    if line == "quit\n":
        break
    n = int(line.split()[1])
    out = [0] * 3
    threads = [threading.Thread(target=work, args=(n, out, i)) for i in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
    print(out[0], out[1], out[2], hashlib.sha256(b"x" * n).hexdigest()[:4], flush=True)
    print("DONE", flush=True)
"#;

#[test]
fn python() {
    if !may_trace() || !has_program("/usr/bin/python3") {
        return;
    }
    // Its own allocator would ask malloc for arenas only; by malloc every object is a block.
    let mut command = Command::new("/usr/bin/python3");
    let mut python = Process::start(command.args(["-S", "-c", PYTHON]).env("PYTHONMALLOC", "malloc"));
    let pid = python.id();
    let expected = python.ask("go 20");
    assert!(expected[0].starts_with("57 57 57 "), "{expected:?}");
    cycles_under_load(pid, || assert_eq!(python.ask("go 20"), expected));
    python.quit();
}

fn thrower(target: Target) {
    if !may_trace() {
        return;
    }
    let mut target = target.start();
    let pid = target.id();
    cycles_under_load(pid, || assert_eq!(target.ask("throw 20"), ["caught 20"]));
    target.quit();
}

#[test]
fn cpp_that_throws() {
    thrower(Target::cpp("cpp_sites"));
}

#[test]
fn static_cpp_that_throws() {
    thrower(Target::cpp("cpp_sites").flags(&["-static"]));
}
