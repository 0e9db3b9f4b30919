//! Who asks.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use memleax_platform::Pid;

use super::folder::{self, Watched};
use super::request::{Request, read_answer};

/// An answer is waited for as long as a run takes to name frames by large debug information.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a run has answered.
pub type Answer = Vec<u8>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No run of this user's.
    #[error(
        "no memleax of yours watches process {0}; start one with `memleax {0}` or `memleax record -o FILE {0}`, or ask as the user who did"
    )]
    NotWatched(Pid),
    /// More than one.
    #[error("several watch process {target}: say which by {which}")]
    Several {
        /// The process.
        target: Pid,
        /// What to write instead.
        which: String,
    },
    /// The socket is somebody else's.
    #[error("cannot ask about process {target} by {}: {cause}; ask as the user who runs memleax, or as root", .path.display())]
    NotYours {
        /// The process.
        target: Pid,
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The run ended, or does not answer.
    #[error("cannot get an answer about process {target}: {cause}; has that memleax just ended?")]
    BrokenOff {
        /// The process.
        target: Pid,
        /// Why.
        cause: io::Error,
    },
    /// The run says why not.
    #[error("cannot {request}: {cause}")]
    Refused {
        /// What was asked.
        request: String,
        /// Its words.
        cause: String,
    },
}

/// Asks the memleax that watches what is told.
///
/// # Errors
/// [`Error`].
pub fn ask(watched: Watched, request: &Request) -> Result<Answer, Error> {
    let mut stream = connect(watched)?;
    let target = watched.target;
    let broken = |cause| Error::BrokenOff { target, cause };
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(broken)?;
    let answer = read_answer(&mut BufReader::new(stream)).map_err(broken)?;
    answer.map_err(|cause| Error::Refused { request: request.to_string(), cause })
}

fn connect(watched: Watched) -> Result<UnixStream, Error> {
    let target = watched.target;
    let own = folder::candidates().into_iter().filter(|folder| folder::is_safe(folder));
    let sockets = own.chain(folder::of_others()).flat_map(|folder| folder::sockets(&folder, watched));
    let mut open: Vec<(Watched, UnixStream)> = Vec::new();
    for (found, path) in sockets {
        match UnixStream::connect(&path) {
            // Root's own folders are among those of others.
            Ok(_) if open.iter().any(|(known, _)| *known == found) => {}
            Ok(stream) => open.push((found, stream)),
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Error::NotYours { target, path, cause });
            }
            // Left behind by one that was killed.
            Err(_) => {}
        }
    }
    if open.len() > 1 {
        let which: Vec<String> = open.iter().map(|(found, _)| found.file_name()).collect();
        return Err(Error::Several { target, which: which.join(" or ") });
    }
    open.pop().map(|(_, stream)| stream).ok_or(Error::NotWatched(target))
}
