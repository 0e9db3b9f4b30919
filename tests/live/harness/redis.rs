//! A redis server, and one that talks to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use memleax_targets::Process;
use tempfile::TempDir;

/// A redis server of a test's own, ended with it.
pub(crate) struct RedisServer {
    pub(crate) process: Process,
    directory: TempDir,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk.
    pub(crate) fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", "redis.sock"]).args(options);
        let mut process = Process::spawn(command.current_dir(directory.path()));
        while !process.line().expect("redis gets ready").contains("eady to accept connections") {}
        Self { process, directory }
    }

    /// A connection.
    pub(crate) fn connect(&self) -> Redis {
        let socket = self.directory.path().join("redis.sock");
        Redis { stream: BufReader::new(UnixStream::connect(socket).expect("redis listens")) }
    }
}

/// A connection to it.
pub(crate) struct Redis {
    stream: BufReader<UnixStream>,
}

impl Redis {
    /// Sends a command; the first line of the answer.
    pub(crate) fn ask(&mut self, words: &[&str]) -> String {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.get_mut().write_all(text.as_bytes()).expect("redis reads");
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("redis answers");
        line.trim_end().to_owned()
    }

    /// So many bytes that the last answer has announced.
    pub(crate) fn bulk(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).expect("redis answers");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}
