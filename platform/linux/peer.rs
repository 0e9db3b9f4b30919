//! Who is at the other end of a socket.

use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt};

/// The user whose process has connected (`SO_PEERCRED`), as of then.
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    Ok(getsockopt(stream, sockopt::PeerCredentials)?.uid())
}
