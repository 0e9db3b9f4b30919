//! Drives a headless Chromium by its DevTools protocol: a real page, real clicks and keys.
//!
//! The protocol runs over a pipe (`--remote-debugging-pipe`): JSON messages that end in a zero byte, Chromium reads them from descriptor 3 and
//! writes to 4. <https://chromedevtools.github.io/devtools-protocol/>

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use serde_json::{Value, json};

/// Its names, by distribution.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// How long a browser may take for a whole test; then it is killed, which ends what waits for it.
const PATIENCE: Duration = Duration::from_secs(150);

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// How many pages were loaded.
    loaded: u64,
    /// Ends the watch on the test's time.
    watch: Option<(Sender<()>, JoinHandle<()>)>,
    /// What the page complained of or asked the network for.
    complaints: Vec<String>,
    /// Its profile, removed at the end.
    _folder: tempfile::TempDir,
}

impl Browser {
    /// A browser; `None`, once said why, where there is none.
    pub(crate) fn start() -> Option<Browser> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = |name: &&&str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
        let Some(program) = PROGRAMS.iter().find(installed) else {
            memleax_targets::unable("chromium is not installed; scripts/setup.sh test installs it");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", program])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let commands = process.stdin.take().expect("a pipe");
        let messages = BufReader::new(process.stdout.take().expect("a pipe"));
        let complaints = Vec::new();
        let pid = Pid::from_raw(i32::try_from(process.id()).expect("a process id"));
        let (watch, end) = channel::<()>();
        let watcher = std::thread::spawn(move || {
            if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                _ = kill(pid, Signal::SIGKILL);
            }
        });
        let mut browser = Browser {
            process,
            commands,
            messages,
            session: None,
            last: 0,
            loaded: 0,
            complaints,
            watch: Some((watch, watcher)),
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    /// Shows a file, and waits until it is loaded.
    pub(crate) fn open(&mut self, file: &Path) {
        let url = format!("file://{}", file.display());
        let before = self.loaded;
        let answer = self.call("Page.navigate", &json!({"url": url}));
        assert_eq!(answer.get("errorText"), None, "{url}");
        while self.loaded == before {
            let message = self.message(&url);
            self.listen(&message);
        }
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let question = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", &question);
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}");
        answer["result"]["value"].take()
    }

    /// The text that an expression gives.
    pub(crate) fn text(&mut self, expression: &str) -> String {
        match self.value(expression) {
            Value::String(text) => text,
            other => panic!("{expression} is {other}"),
        }
    }

    /// The number that an expression gives.
    pub(crate) fn number(&mut self, expression: &str) -> f64 {
        let value = self.value(expression);
        value.as_f64().unwrap_or_else(|| panic!("{expression} is {value}"))
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&mut self, expression: &str) {
        let wait = format!(
            "new Promise((resolve) => {{
                const look = () => {{
                    if ({expression}) resolve(true);
                    else setTimeout(look, 5);
                }};
                look();
            }})"
        );
        self.value(&wait);
    }

    /// Clicks on the middle of the element that an expression gives, scrolled to if need be.
    pub(crate) fn click(&mut self, element: &str) {
        let (x, y) = self.point(element);
        self.mouse("mouseMoved", x, y);
        self.mouse("mousePressed", x, y);
        self.mouse("mouseReleased", x, y);
    }

    /// Moves the mouse to the middle of an element.
    pub(crate) fn hover(&mut self, element: &str) {
        let (x, y) = self.point(element);
        self.mouse("mouseMoved", x, y);
    }

    fn point(&mut self, element: &str) -> (f64, f64) {
        let place = self.value(&format!(
            "(() => {{
                const element = {element};
                if (!element) return null;
                element.scrollIntoView({{block: 'center', inline: 'nearest', behavior: 'instant'}});
                const r = element.getBoundingClientRect();
                return [(Math.max(r.left, 0) + Math.min(r.right, innerWidth)) / 2, (r.top + r.bottom) / 2];
            }})()"
        ));
        let coordinate = |at: usize| place[at].as_f64().unwrap_or_else(|| panic!("no element: {element}"));
        (coordinate(0), coordinate(1))
    }

    fn mouse(&mut self, kind: &str, x: f64, y: f64) {
        let pressed = kind != "mouseMoved";
        let button = if pressed { "left" } else { "none" };
        let clicks = u8::from(pressed);
        let event = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": clicks});
        self.call("Input.dispatchMouseEvent", &event);
    }

    /// Types text into what has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Presses a key, with Ctrl if `control`.
    pub(crate) fn press(&mut self, key: &str, code: u32, control: bool) {
        let modifiers = if control { 2 } else { 0 };
        // Enter is a character, too, or it presses no button.
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code, "modifiers": modifiers});
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Sets the window's width, and whether the user likes it dark.
    pub(crate) fn look(&mut self, width: u32, dark: bool) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// Lets pages run no scripts, from the next one on.
    pub(crate) fn disable_scripts(&mut self) {
        self.call("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    }

    /// What pages complained of since the last question: errors, warnings, requests for anything but files.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // What was sent before the answer has been read.
        self.value("1");
        std::mem::take(&mut self.complaints)
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut message = self.message(method);
            if message["id"] == json!(self.last) {
                assert_eq!(message.get("error"), None, "{method} {parameters}");
                return message["result"].take();
            }
            self.listen(&message);
        }
    }

    fn message(&mut self, awaited: &str) -> Value {
        let mut message = Vec::new();
        self.messages.read_until(0, &mut message).expect("a readable pipe");
        let complaints = &self.complaints;
        assert_eq!(message.pop(), Some(0), "ended, or took more than {PATIENCE:?}, at {awaited}; {complaints:?}");
        serde_json::from_slice(&message).expect("JSON")
    }

    fn listen(&mut self, message: &Value) {
        self.loaded += u64::from(message["method"] == "Page.loadEventFired");
        let parameters = &message["params"];
        let complains = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => parameters["type"] == "error" || parameters["type"] == "warning",
            Some("Log.entryAdded") => {
                parameters["entry"]["level"] == "error" || parameters["entry"]["level"] == "warning"
            }
            Some("Network.requestWillBeSent") => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                !url.starts_with("file:") && !url.starts_with("about:")
            }
            _ => false,
        };
        if complains {
            self.complaints.push(parameters.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some((watch, watcher)) = self.watch.take() {
            drop(watch);
            // Before the browser is waited for, which frees its id.
            _ = watcher.join();
        }
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
