//! What may be asked, as a line of text; and the frame that an answer comes in.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

use crate::profile::{SiteId, Topic};
use crate::report::Format;

/// The longest line that is read as a request.
pub(super) const LONGEST: u64 = 4096;

/// What is asked for.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Totals, rates, losses, the largest call stacks.
    Stats,
    /// All about one call stack.
    Show(SiteId),
    /// A snapshot, kept by the recording.
    Snapshot,
    /// A report.
    Report {
        /// In this format.
        format: Format,
        /// Of this.
        topic: Topic,
    },
    /// An end, as by Ctrl-C.
    Stop,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Stats => f.write_str("stats"),
            Request::Show(id) => write!(f, "show {id}"),
            Request::Snapshot => f.write_str("snapshot"),
            Request::Report { format, topic } => write!(f, "report {} {topic}", format.name()),
            Request::Stop => f.write_str("stop"),
        }
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Request, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["stats"] => Ok(Request::Stats),
            ["show", id] => Ok(Request::Show(id.parse()?)),
            ["snapshot"] => Ok(Request::Snapshot),
            ["stop"] => Ok(Request::Stop),
            ["report", format] => Request::report(format, "leaks"),
            ["report", format, view] => Request::report(format, view),
            _ => Err("the requests are: stats, show ID, snapshot, report FORMAT [VIEW], stop".into()),
        }
    }
}

impl Request {
    fn report(format: &str, view: &str) -> Result<Request, String> {
        let format = Format::from_name(format).ok_or_else(|| {
            let names: Vec<&str> = Format::all().map(Format::name).collect();
            format!("the formats are {}", names.join(", "))
        })?;
        Ok(Request::Report { format, topic: view.parse()? })
    }
}

/// Writes an answer: whether it is one and its length on a line, then the answer, or why there is none.
pub(super) fn write_answer(answer: &Result<Vec<u8>, String>, output: &mut dyn Write) -> io::Result<()> {
    let (word, bytes) = match answer {
        Ok(bytes) => ("ok", &bytes[..]),
        Err(error) => ("error", error.as_bytes()),
    };
    output.write_all(format!("{word} {}\n", bytes.len()).as_bytes())?;
    output.write_all(bytes)?;
    output.flush()
}

/// Reads one, to its end; fails if it breaks off.
pub(super) fn read_answer(input: &mut dyn BufRead) -> io::Result<Result<Vec<u8>, String>> {
    let mut head = String::new();
    (&mut *input).take(64).read_line(&mut head)?;
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer breaks off");
    let (word, length) = head.strip_suffix('\n').and_then(|head| head.split_once(' ')).ok_or_else(broken)?;
    let length: u64 = length.parse().map_err(|_| broken())?;
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(broken());
    }
    Ok(match word {
        "ok" => Ok(bytes),
        _ => Err(String::from_utf8_lossy(&bytes).into_owned()),
    })
}
