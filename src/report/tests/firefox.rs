//! The Firefox Profiler itself: its command line is made of the same code as <https://profiler.firefox.com>. It upgrades the file to its
//! newest format and computes trees, counters and markers as the page does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use memleax_targets::patience;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use tempfile::TempDir;

use super::{consumer, folder, output_of, profile, write};
use crate::profile::View;

/// Names the folder where sessions are kept.
const FOLDER: &str = "PROFILER_CLI_SESSION_DIR";

/// A file that the Profiler has loaded, until it is dropped.
struct Session {
    node: PathBuf,
    program: PathBuf,
    /// Short: a socket is in it.
    folder: TempDir,
    server: Child,
}

impl Session {
    fn load(view: &View) -> Option<Session> {
        let node = consumer("node")?;
        let program = consumer("node_modules/@firefox-devtools/profiler-cli/dist/profiler-cli.js")?;
        let folder = folder();
        let (path, left_out) = write(folder.path(), "a.firefox.json", &profile(), view);
        assert_eq!(left_out, Vec::<String>::new());
        // Where the server keeps its log, we listen.
        let log = folder.path().join("a.log");
        mkfifo(&log, Mode::S_IRWXU).expect("a named pipe");
        // `load` would start it in the background, and give up after half a second.
        let mut server = Command::new(&node);
        server.arg(&program).arg("--daemon").arg(path).args(["--session", "a"]).env(FOLDER, folder.path());
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server");
        let session = Session { node, program, folder, server };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // To its end, lest the server wait for room.
            for line in BufReader::new(File::open(log).expect("a named pipe")).lines().map_while(Result::ok) {
                _ = sender.send(line);
            }
        });
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|line: &String| line.ends_with("Profile loaded successfully")) {
            let Ok(line) = lines.recv_timeout(patience()) else {
                panic!("the Profiler does not take the file: {heard:#?}")
            };
            assert!(!line.starts_with("[ERROR]"), "{heard:#?}\n{line}");
            heard.push(line);
        }
        Some(session)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.node);
        command.arg(&self.program).args(words).env(FOLDER, self.folder.path());
        command
    }

    fn ask(&self, words: &[&str]) -> Value {
        let text = output_of(self.command(words).arg("--json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}\n{text}"))
    }

    /// Bytes of each function in a thread, itself and with callees.
    fn functions(&self, thread: &str, strategy: &str) -> BTreeMap<String, (i64, i64)> {
        let answer = self.ask(&["thread", "functions", "--thread", thread, "--strategy", strategy]);
        assert_eq!(answer["weightType"], "bytes");
        let bytes = |function: &Value, key: &str| function[key].as_i64().expect("a whole number");
        let functions = answer["functions"].as_array().expect("functions").iter().map(|function| {
            let name = function["nameWithLibrary"].as_str().expect("a name").to_owned();
            (name, (bytes(function, "selfSamples"), bytes(function, "totalSamples")))
        });
        functions.collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.server.kill().expect("a child that can be killed");
        self.server.wait().expect("a child");
    }
}

fn map<const N: usize>(functions: [(&str, i64, i64); N]) -> BTreeMap<String, (i64, i64)> {
    functions.into_iter().map(|(name, own, all)| (name.to_owned(), (own, all))).collect()
}

#[test]
fn retained_memory_is_what_was_never_freed() {
    let Some(session) = Session::load(&View::Leaks) else { return };
    let leaked = map([
        ("libc.so.6!malloc", 1024, 1024),
        ("server!Pool::take(int)", 0, 1024),
        ("server!main", 0, 1024),
        ("server!serve(std::vector<int> const&)", 0, 1024),
    ]);
    assert_eq!(session.functions("t-0", "native-retained-allocations"), leaked);
    // And what was freed, by who allocated it.
    assert_eq!(session.functions("t-0", "native-deallocations-memory")["libc.so.6!malloc"], (-4000, -4000));
    let status = output_of(&mut session.command(&["status"]));
    assert!(status.contains("t-0 (Live, server)"), "{status}");
}

#[test]
fn the_sums_are_exact() {
    let Some(session) = Session::load(&View::Growth { from: Some(1), to: None }) else { return };
    let hostile = "server!evil;\u{fffd}<b>\"&\u{fffd}[31m λ";
    let of_all = map([
        ("libc.so.6!malloc", 7280, 7280),
        ("plug in.so!/srv/plug in.so+0x4242", 0, 6000),
        (hostile, 0, 6000),
        ("server!Pool::take(int)", 0, 1280),
        ("server!main", 0, 7280),
        ("server!serve(std::vector<int> const&)", 0, 1280),
    ]);
    assert_eq!(session.functions("t-1", "native-allocations"), of_all);
    assert_eq!(session.functions("t-2", "native-allocations")["libc.so.6!malloc"], (4768, 4768));
    assert_eq!(session.functions("t-2", "native-allocations")[hostile], (0, 4000));
    // The view is the fourth thread, and the selected one.
    assert_eq!(session.functions("t-3", "native-allocations")["server!main"], (0, 256));
    assert_eq!(session.functions("t-3", "native-deallocations-sites")["server!main"], (0, -4000));
    let status = output_of(&mut session.command(&["status"]));
    assert!(status.contains("t-3 (growth from snapshot 1 (signal, 5.00 s) to the end, server)"), "{status}");
}

#[test]
fn the_memory_track_is_the_timeline() {
    let Some(session) = Session::load(&View::Peak) else { return };
    let counter = session.ask(&["counter", "info", "c-0"]);
    assert_eq!(counter["category"], "Memory");
    assert_eq!(counter["unit"], "bytes");
    let graph: Vec<i64> = counter["graph"].as_array().expect("a graph").iter().filter_map(Value::as_i64).collect();
    let mut levels = graph;
    levels.dedup();
    assert_eq!(levels, [0, 128, 4768, 1024]);
    let markers = output_of(&mut session.command(&["thread", "markers", "--thread", "t-0", "--list"]));
    for marker in ["Monitoring", "Peak", "high-water mark of live bytes", "Snapshot 1", "signal"] {
        assert!(markers.contains(marker), "no {marker} in\n{markers}");
    }
}

#[test]
fn libraries_and_remarks_arrive() {
    let Some(session) = Session::load(&View::Leaks) else { return };
    let meta = output_of(&mut session.command(&["profile", "meta"]));
    for text in ["Started: 2023-11-14T22:13:20.000Z", "Name: server", "Arguments: --port 80", "Symbolicated: yes"] {
        assert!(meta.contains(text), "no {text} in\n{meta}");
    }
    assert!(meta.contains("2 allocator calls never returned") && meta.contains("Names of one library"), "{meta}");
    let tree = output_of(&mut session.command(&["thread", "samples-top-down", "--strategy", "native-allocations"]));
    assert!(tree.contains("server!Pool::take(int) (inl)"), "{tree}");
    let function =
        tree.split_whitespace().zip(tree.split_whitespace().skip(1)).find(|(_, name)| *name == "server!main");
    let handle = function.expect("main").0.trim_end_matches('.').to_owned();
    let main = output_of(&mut session.command(&["function", "info", &handle]));
    assert!(main.contains("Library path: /srv/server"), "{main}");
    assert!(main.contains("Breakpad ID: ABABABABABABABABABABABABABABABAB0"), "{main}");
}
