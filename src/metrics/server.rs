//! Serves metrics by HTTP: a thread that accepts, and one for each reader that is connected, of which there are few at a time.
//!
//! Who connects and then sends nothing, or reads nothing, is let go when too many do, the longest connected first; so none of them keeps
//! Prometheus from its page.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::connection::{self, Answer};
use super::exposition::Form;

/// Readers that are connected at a time.
const CONNECTIONS: usize = 16;

/// How long nobody is let in when the system has no descriptor or thread left for a connection, in milliseconds.
const SHORTAGE: u16 = 200;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be had.
    #[error("cannot serve metrics at {address}: {cause}; {}", remedy(cause))]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The system gave no pipe.
    #[error("cannot serve metrics: {0}")]
    System(#[from] io::Error),
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        ErrorKind::AddrInUse => "another program listens there; give another port, or 0 for any that is free",
        ErrorKind::PermissionDenied => "ports below 1024 are root's; give a higher one",
        ErrorKind::AddrNotAvailable => "give an address of this machine, or only a port",
        _ => "give another address",
    }
}

/// An address that is ours; nobody is served yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    end: PipeReader,
    ending: PipeWriter,
}

/// Ends a server when it is dropped.
#[derive(Debug)]
pub struct Server {
    _ending: PipeWriter,
}

impl Listener {
    /// Takes the address; with port 0, any port that is free.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn bind(address: SocketAddr) -> Result<Listener, ServerError> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            // Who gives up between the kernel's word and ours must not hold us up.
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (address, listener) = bound.map_err(|cause| ServerError::Address { address, cause })?;
        let (end, ending) = io::pipe()?;
        Ok(Listener { listener, address, end, ending })
    }

    /// The address, with the port that was chosen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What ends the serving, and what serves until then, for a thread of its own; `page` makes the metrics.
    pub fn into_server(
        self,
        page: impl Fn(Form) -> Option<String> + Send + Sync + 'static,
    ) -> (Server, impl FnOnce() + Send) {
        let Listener { listener, end, ending, .. } = self;
        let serve = move || accept(&listener, &end, &Arc::new(page));
        (Server { _ending: ending }, serve)
    }
}

/// Those that are connected, in the order in which they came.
#[derive(Default)]
struct Connected {
    streams: Mutex<VecDeque<(u64, TcpStream)>>,
}

impl Connected {
    /// Nothing that holds the lock can panic half-way.
    fn streams(&self) -> MutexGuard<'_, VecDeque<(u64, TcpStream)>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one. If there are too many, the one that came first is let go.
    fn add(&self, number: u64, stream: TcpStream) {
        let mut streams = self.streams();
        streams.push_back((number, stream));
        while streams.len() > CONNECTIONS {
            if let Some((_, longest)) = streams.pop_front() {
                _ = longest.shutdown(Shutdown::Both);
            }
        }
    }

    fn remove(&self, number: u64) {
        self.streams().retain(|&(other, _)| other != number);
    }

    fn let_all_go(&self) {
        for (_, stream) in self.streams().drain(..) {
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Accepts readers until the other end of the pipe is closed.
fn accept<P>(listener: &TcpListener, end: &PipeReader, page: &Arc<P>)
where
    P: Fn(Form) -> Option<String> + Send + Sync + 'static,
{
    let connected = Arc::new(Connected::default());
    for number in 0.. {
        if wait(end, Some(listener), PollTimeout::NONE) {
            break;
        }
        let served = match listener.accept() {
            Ok((stream, _)) => start(number, stream, &connected, Arc::clone(page)),
            // The reader has left again.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::warn!("cannot serve a reader of the metrics: {error}");
            if wait(end, None, PollTimeout::from(SHORTAGE)) {
                break;
            }
        }
    }
    connected.let_all_go();
}

/// Waits until somebody connects, or for so long; true if all is to end.
fn wait(end: &PipeReader, listener: Option<&TcpListener>, timeout: PollTimeout) -> bool {
    let mut watched = vec![PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    watched.extend(listener.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
    match poll(&mut watched, timeout) {
        Ok(_) => watched[0].any() == Some(true),
        Err(Errno::EINTR) => false,
        Err(error) => {
            tracing::warn!("cannot wait for readers of the metrics: {error}");
            true
        }
    }
}

fn start<P>(number: u64, mut stream: TcpStream, connected: &Arc<Connected>, page: Arc<P>) -> io::Result<()>
where
    P: Fn(Form) -> Option<String> + Send + Sync + 'static,
{
    // On some systems it inherits that from the listener.
    stream.set_nonblocking(false)?;
    connected.add(number, stream.try_clone()?);
    let others = Arc::clone(connected);
    let spawned = thread::Builder::new().name("metrics".into()).spawn(move || {
        let metrics = |form: Form| match page(form) {
            Some(body) => Answer { status: "200 OK", content_type: form.content_type(), body },
            None => Answer::text("503 Service Unavailable", "monitoring has ended, or is busy\n"),
        };
        if let Err(error) = connection::serve(&mut stream, metrics) {
            tracing::debug!("a reader of the metrics was left: {error}");
        }
        others.remove(number);
    });
    if spawned.is_err() {
        connected.remove(number);
    }
    spawned.map(|_| ())
}
