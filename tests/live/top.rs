//! `memleax top` in a terminal: tmux is that, keys go to it, and what is on its screen is read.

use std::io::Write;
use std::process::{Command, Output};
use std::time::Instant;

use memleax_targets::{Process, Target, patience};

use crate::harness::{Backend, State, has_program, may_trace, text_differences, tracer_of, unable};

/// A terminal with a shell in it, whose server ends with this.
struct Screen {
    name: String,
    folder: tempfile::TempDir,
}

impl Screen {
    fn new(name: &str) -> Screen {
        let name = format!("memleax-{name}-{}", std::process::id());
        let screen = Screen { name, folder: tempfile::tempdir().expect("a folder") };
        let shell = "env PS1='$ ' NO_COLOR=1 sh";
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "36", shell]);
        screen.wait_for("$");
        screen
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.env("TMUX_TMPDIR", self.folder.path()).env_remove("TMUX").args(["-L", &self.name]).args(arguments);
        command.output().expect("tmux runs")
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// What is on it.
    fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J"])
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types text as it is.
    fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    /// Waits until it is so.
    fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let since = Instant::now();
        loop {
            let text = self.text();
            if is_so(&text) {
                return text;
            }
            assert!(since.elapsed() < patience(), "not {what}:\n{text}");
            std::thread::yield_now();
        }
    }

    fn wait_for(&self, part: &str) -> String {
        self.wait_until(part, |text| text.contains(part))
    }

    /// Waits until the report has this, though it may be longer than the screen.
    fn wait_for_report(&self, part: &str) {
        let all = || self.tmux(&["capture-pane", "-p", "-J", "-S", "-"]);
        self.wait_until(part, |_| all().contains(part));
        assert!(!all().contains("panicked"), "{}", all());
    }

    /// Starts a display of `target`, and waits for its first call stack.
    fn show(&self, target: &Process) {
        self.start(&format!("-e 1 {}", target.id()));
        self.wait_for("live bytes over");
    }

    fn start(&self, arguments: &str) {
        let memleax = env!("CARGO_BIN_EXE_memleax");
        let backend = Backend::under_test().name();
        self.line(&format!("{memleax} top --no-control --backend {backend} {arguments}"));
    }

    /// The shell's prompt is there, on the usual screen, and lines are echoed and edited.
    fn assert_usable(&self) {
        self.tmux(&["send-keys", "-l", "echo usable-$((20 + 3))x"]);
        self.keys(&["BSpace", "Enter"]);
        self.wait_until("usable", |text| text.lines().any(|line| line.trim_end().ends_with("usable-23")));
        assert_eq!(self.tmux(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]).trim(), "01");
        self.line("stty -a");
        self.wait_for(" icanon");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

fn can_run() -> bool {
    if !has_program("tmux") {
        unable("tmux is not installed; scripts/setup.sh test installs it");
        return false;
    }
    may_trace() && Backend::under_test() != Backend::FreebsdShim
}

/// Who shows `target`: its tracer, or the only other child of the screen's shell.
fn memleax_in(screen: &Screen) -> u32 {
    let shell = screen.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let shell = shell.trim();
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).expect("a shell");
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("memleax")
}

fn assert_left(target: &mut Process, before: &State) {
    let since = Instant::now();
    while tracer_of(target.id()) != 0 || !text_differences(target.id()).is_empty() {
        assert!(since.elapsed() < patience(), "it is not left");
    }
    before.assert_restored(target);
    target.ask("go 1");
}

/// Everything that keys do, then q: the statistics are on the usual screen.
#[test]
fn keys_lead_through_the_display_and_out_of_it() {
    if !can_run() {
        return;
    }
    let screen = Screen::new("keys");
    let mut target = Target::c("leak_sites").start();
    let before = State::of(&target);
    screen.show(&target);
    target.ask("go 3");
    let text = screen.wait_for("site_malloc");
    assert!(text.contains(&format!("memleax {} ", target.id())) && text.contains("q quit"), "{text}");
    // The stack of the chosen one, with its lines, and how old its blocks are.
    screen
        .wait_until("a stack", |text| text.contains("leak_sites.c:") && text.contains("main") && text.contains("ages"));
    screen.keys(&["/"]);
    screen.wait_for("/▏");
    screen.line("site_calloc");
    screen.wait_until("filtered", |text| text.contains("site_calloc") && !text.contains("site_malloc"));
    screen.keys(&["Escape"]);
    screen.wait_for("site_malloc");
    screen.keys(&["s"]);
    screen.wait_for("Snapshot 1 is taken");
    screen.keys(&["g"]);
    screen.wait_for("since #1▼");
    target.ask("go 5");
    screen.wait_until("grown", |text| {
        text.lines().any(|line| line.contains("site_") && line.contains('+') && !line.contains("+0"))
    });
    screen.keys(&["p"]);
    screen.wait_for("PAUSED");
    screen.keys(&["p"]);
    screen.keys(&["?"]);
    screen.wait_for("any key");
    screen.keys(&["x"]);
    screen.wait_until("no help", |text| !text.contains("any key"));
    let report = screen.folder.path().join("now.html");
    screen.keys(&["w"]);
    screen.line(report.to_str().expect("text"));
    screen.wait_for("Written: ");
    assert!(std::fs::read_to_string(&report).expect("a report").ends_with("</html>\n"));
    for (width, height) in [("40", "8"), ("10", "3"), ("120", "36")] {
        screen.tmux(&["resize-window", "-x", width, "-y", height]);
        screen.wait_for("memleax");
    }
    screen.keys(&["q"]);
    screen.wait_for_report("== Terminate monitoring.");
    screen.assert_usable();
    assert_left(&mut target, &before);
    target.quit();
}

/// Whatever ends memleax, the terminal and the program are as they were.
#[test]
fn every_end_leaves_terminal_and_program_as_they_were() {
    if !can_run() {
        return;
    }
    let screen = Screen::new("ends");
    for end in ["C-c", "TERM", "INT", "KILL"] {
        let mut target = Target::c("leak_sites").start();
        let before = State::of(&target);
        screen.show(&target);
        target.ask("go 1");
        match end {
            "C-c" => screen.keys(&["C-c"]),
            signal => {
                let kill = ["-s", signal, &memleax_in(&screen).to_string()].map(str::to_owned);
                assert!(Command::new("kill").args(kill).status().expect("kill runs").success());
            }
        }
        if end == "KILL" {
            screen.wait_until("left", |_| screen.tmux(&["display-message", "-p", "#{alternate_on}"]).trim() == "0");
            screen.assert_usable();
            // By ptrace, breakpoints stay, and a handler carries the program over them.
            target.ask("go 1");
        } else {
            screen.wait_for_report("== Terminate monitoring.");
            screen.assert_usable();
            assert_left(&mut target, &before);
        }
        screen.line("clear");
        screen.wait_until("clear", |text| !text.contains("usable"));
        screen.tmux(&["clear-history"]);
        target.quit();
    }
}

/// How the program ended is told on the display, and again below its statistics after that.
#[test]
fn a_program_that_ends_is_told_of() {
    if !can_run() {
        return;
    }
    let screen = Screen::new("target");
    let mut target = Target::c("leak_sites").start();
    screen.show(&target);
    target.ask("go 1");
    target.quit();
    // By bpf, nobody but its parent learns its status.
    screen.wait_for("The process ended");
    screen.keys(&["q"]);
    screen.wait_for_report("== Target process exit.");
    screen.assert_usable();
}

/// A program that memleax starts writes nothing into the display.
#[test]
fn a_program_can_be_started_below_the_display() {
    if !can_run() {
        return;
    }
    let screen = Screen::new("start");
    screen.start("-- sh -c 'printf LIT%s TER; printf LIT%s TER >&2; while sleep 1; do :; done'");
    let text = screen.wait_for("live bytes over");
    assert!(!text.contains("LITTER"), "{text}");
    let program = memleax_in(&screen);
    let children = std::fs::read_to_string(format!("/proc/{program}/task/{program}/children")).expect("memleax");
    let child = children.split_whitespace().next().expect("the program").to_owned();
    assert!(Command::new("kill").args(["-s", "KILL", &child]).status().expect("kill runs").success());
    screen.wait_for("q leaves");
    screen.keys(&["q"]);
    screen.wait_for_report("== Target process exit.");
    screen.assert_usable();
}

/// Who closes the window ends the display, also where the program that it was started with does not mind.
#[test]
fn a_closed_window_ends_the_display_and_not_the_program() {
    if !can_run() {
        return;
    }
    let screen = Screen::new("closed");
    let folder = tempfile::tempdir().expect("a folder");
    let (waits, answers) = (folder.path().join("waits"), folder.path().join("answers"));
    for pipe in [&waits, &answers] {
        nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    }
    let script = format!(
        "trap : HUP; while ! read -r word; do :; done < {}; echo $word > {}",
        waits.display(),
        answers.display()
    );
    screen.start(&format!("-- sh -c '{script}'"));
    let mut word = std::fs::OpenOptions::new().write(true).open(&waits).expect("it waits");
    screen.wait_for("live bytes over");
    let memleax = memleax_in(&screen);
    drop(screen);
    // Then it waits for the program, as it does whenever that outlives monitoring.
    let has_display = || {
        let threads = std::fs::read_dir(format!("/proc/{memleax}/task")).expect("memleax waits for the program");
        let names = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        names.flatten().any(|name| name.trim() == "top")
    };
    let since = Instant::now();
    while has_display() {
        assert!(since.elapsed() < patience(), "the display goes on without a terminal");
        std::thread::yield_now();
    }
    writeln!(word, "alive").expect("it reads");
    drop(word);
    assert_eq!(std::fs::read_to_string(&answers).expect("it answers"), "alive\n");
}

#[test]
fn without_a_terminal_it_says_what_else_there_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_memleax")).args(["top", "1"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("no terminal; `memleax --interval 5 PID` prints lists instead"), "{error}");
}
