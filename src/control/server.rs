//! The run's side: a thread that listens, and one for each who has connected.

use std::convert::Infallible;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use memleax_platform::{Pid, peer_user};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::geteuid;

use super::folder::{self, Watched};
use super::request::{LONGEST, Request, write_answer};
use crate::filter::Filters;
use crate::profile::{Profile, Site, View};
use crate::report::{Detail, Format, answers, human};
use crate::session::{Attendant, Inquirer};

/// So many are answered at a time; more wait in the socket's queue.
const CLIENTS: usize = 8;

/// Who has connected must have asked by then, and goes on reading the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// After the run, answers may take so long.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Answers questions from outside about a run, as `filters` leave it.
#[must_use]
pub fn attendant(filters: Filters) -> Attendant {
    Attendant::new("control", move |inquirer| match Place::open(inquirer.target()) {
        Ok((place, listener)) => {
            tracing::info!("listening on {}", place.0.display());
            attend(place, listener, &inquirer, &filters);
        }
        Err(error) => tracing::warn!("`memleax ctl` cannot reach this run: {error}"),
    })
}

/// A socket's name in the file system, which goes away with this.
struct Place(PathBuf);

impl Place {
    /// Listens where that is possible.
    fn open(target: Pid) -> io::Result<(Place, UnixListener)> {
        let me = Pid(std::process::id().cast_signed());
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for folder in folder::candidates() {
            match Self::open_in(&folder, Watched { target, by: Some(me) }) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    failure = io::Error::new(error.kind(), format!("cannot listen in {}: {error}", folder.display()));
                }
            }
        }
        Err(failure)
    }

    fn open_in(folder: &Path, watched: Watched) -> io::Result<(Place, UnixListener)> {
        folder::create(folder)?;
        let all = Watched { by: None, ..watched };
        for (found, path) in folder::sockets(folder, all) {
            // Left behind by a memleax that was killed; also one that had this process's id.
            if found == watched || is_stale(found, &path) {
                _ = fs::remove_file(path);
            }
        }
        let path = folder.join(watched.file_name());
        let listener = UnixListener::bind(&path)?;
        let place = Place(path);
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o600))?;
        Ok((place, listener))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

/// True if nobody listens there, nor is about to.
fn is_stale(watched: Watched, path: &Path) -> bool {
    let is_alive = watched.by.is_some_and(|by| kill(nix::unistd::Pid::from_raw(by.0), None) != Err(Errno::ESRCH));
    !is_alive && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Answers until the run is over.
fn attend(place: Place, listener: UnixListener, inquirer: &Inquirer, filters: &Filters) {
    let accepting = {
        let (inquirer, filters) = (inquirer.clone(), filters.clone());
        thread::Builder::new().name("control".into()).spawn(move || accept(&listener, &inquirer, &filters))
    };
    let Ok(accepting) = accepting else {
        tracing::warn!("`memleax ctl` cannot reach this run: the system has no thread left");
        return;
    };
    _ = inquirer.wait_for_end(Duration::MAX);
    // Wakes the other thread.
    let woken = UnixStream::connect(&place.0).is_ok();
    drop(place);
    if woken {
        _ = accepting.join();
    }
}

/// Who is being answered.
struct Client {
    thread: JoinHandle<()>,
    stream: UnixStream,
}

fn accept(listener: &UnixListener, inquirer: &Inquirer, filters: &Filters) {
    let mut serving: Vec<Client> = Vec::new();
    let (alive, all_ended) = mpsc::channel::<Infallible>();
    for stream in listener.incoming() {
        serving.retain(|client| !client.thread.is_finished());
        if inquirer.is_over() {
            break;
        }
        let Ok((stream, copy)) = stream.and_then(|stream| Ok((stream.try_clone()?, stream))) else {
            // No more open files, perhaps: the next may come when there are.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if serving.len() >= CLIENTS {
            _ = write_answer(&Err("too many ask at once; try again".into()), &mut &stream);
            continue;
        }
        let (inquirer, filters, alive) = (inquirer.clone(), filters.clone(), alive.clone());
        let served = thread::Builder::new().name("client".into()).spawn(move || {
            let _alive = alive;
            if let Err(error) = serve(&stream, &inquirer, &filters) {
                tracing::debug!("a client of the control socket is gone: {error}");
            }
            _ = stream.shutdown(Shutdown::Both);
        });
        serving.extend(served.map(|thread| Client { thread, stream: copy }));
    }
    drop(alive);
    for client in &serving {
        // Who has not asked by now will not be answered.
        _ = client.stream.shutdown(Shutdown::Read);
    }
    _ = all_ended.recv_timeout(FAREWELL);
    for client in serving {
        _ = client.stream.shutdown(Shutdown::Both);
        _ = client.thread.join();
    }
}

fn serve(stream: &UnixStream, inquirer: &Inquirer, filters: &Filters) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (user, own) = (peer_user(stream)?, geteuid().as_raw());
    if user != own && user != 0 {
        return write_answer(&Err("this run is another user's".into()), &mut &*stream);
    }
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    let answer = line.parse().and_then(|request| answer(&request, inquirer, filters));
    write_answer(&answer, &mut &*stream)
}

fn answer(request: &Request, inquirer: &Inquirer, filters: &Filters) -> Result<Vec<u8>, String> {
    let profile = || -> Result<Profile, String> {
        let profile = inquirer.profile().map_err(|error| error.to_string())?;
        Ok(filters.apply(Profile::clone(&profile)))
    };
    let mut text = Vec::new();
    let cannot = |error: io::Error| format!("cannot write the answer: {error}");
    match request {
        Request::Stats => {
            let profile = profile()?;
            text = answers::plain(|output| answers::write_statistics(&profile, output)).map_err(cannot)?;
        }
        Request::Show(id) => {
            let profile = profile()?;
            let sites: Vec<&Site> = profile.sites.iter().filter(|site| site.id() == *id).collect();
            if sites.is_empty() {
                return Err(format!("there is no call stack {id}; `stats` lists the largest, `report json` tells all"));
            }
            let write = |output: &mut dyn Write| sites.iter().try_for_each(|site| answers::write_site(site, output));
            text = answers::plain(write).map_err(cannot)?;
        }
        Request::Snapshot => {
            let taken = inquirer.snapshot("request").map_err(|error| error.to_string())?;
            let live = taken.profile.snapshots.last().map(|snapshot| snapshot.moment.live).unwrap_or_default();
            text.extend(format!("snapshot {}: {} live\n", taken.number, human::tally(live)).bytes());
        }
        Request::Report { format, topic } => {
            let (view, topics) = match topic.view() {
                Some(view) => (view.clone(), Vec::new()),
                None if *format == Format::Text => (View::Leaks, vec![topic.clone()]),
                None => return Err(format!("the format {} does not show {topic}", format.name())),
            };
            let detail = Detail { topics, ..Detail::default() };
            format.write_plain(&profile()?, &view, &detail, &mut text).map_err(|error| error.to_string())?;
        }
        Request::Stop => {
            inquirer.stop();
            let ending = inquirer.wait_for_end(Duration::from_secs(60));
            let ending = ending.ok_or("the end was asked for, but does not come; the target may be slow to be left")?;
            text.extend(format!("{ending}\n").bytes());
        }
    }
    Ok(text)
}
