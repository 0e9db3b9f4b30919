//! Network addresses as the user writes them.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

/// `9464` or `:9464` (a port of this machine's own, by its loopback address), `192.0.2.1:9464`, `[::]:9464`, `localhost:9464`.
pub(super) fn parse(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        return match port.parse() {
            Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
            Err(_) => Err("a port is a number up to 65535".into()),
        };
    }
    match text.to_socket_addrs().map(|mut addresses| addresses.next()) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err("this name has no address".into()),
        Err(error) => {
            Err(format!("give a port, or an address with a port as in 192.0.2.1:9464 or [::1]:9464 ({error})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_port_alone_is_this_machine_s_own() {
        for text in ["9464", ":9464", "127.0.0.1:9464"] {
            assert_eq!(parse(text).map(|address| address.to_string()), Ok("127.0.0.1:9464".into()), "{text}");
        }
        assert_eq!(parse("[::]:0").map(|address| address.to_string()), Ok("[::]:0".into()));
        for text in ["", ":", "65536", "127.0.0.1", "::1", "127.0.0.1:x", "9464x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
