//! One reader of metrics: what it asks, and what it is told. Nothing that it sends or does not send matters to any other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::exposition::Form;

/// So long a reader may take, from the connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// So long we wait for a reader to have read the answer, lest the connection be reset before.
const FAREWELL: Duration = Duration::from_secs(1);

/// The longest request; those of real readers have a tenth.
const REQUEST: usize = 16 << 10;
const HEADERS: usize = 64;

/// What a reader wants.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// The metrics.
    Metrics {
        form: Form,
        /// The head of the answer only.
        head: bool,
    },
    /// Where they are.
    Root { head: bool },
    /// Nothing that is here.
    Elsewhere,
    /// Something else than to read.
    OtherMethod,
    /// What it sends is no request.
    Garbage,
}

/// An answer: status, content type and body.
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// One in words.
    pub(super) fn text(status: &'static str, body: impl Into<String>) -> Answer {
        Answer { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Reads a request and answers it; `metrics` makes the page.
///
/// # Errors
/// If the reader is gone or too slow.
pub(super) fn serve(stream: &mut TcpStream, metrics: impl FnOnce(Form) -> Answer) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let Some(request) = read(stream, until)? else { return Ok(()) };
    let (answer, head) = match request {
        Request::Metrics { form, head } => (metrics(form), head),
        Request::Root { head } => (Answer::text("200 OK", "memleax: the metrics are at /metrics\n"), head),
        Request::Elsewhere => (Answer::text("404 Not Found", "the metrics are at /metrics\n"), false),
        Request::OtherMethod => (Answer::text("405 Method Not Allowed", "use GET\n"), false),
        Request::Garbage => (Answer::text("400 Bad Request", "this is no request\n"), false),
    };
    // Making the page is our time, not the reader's.
    let until = Instant::now() + PATIENCE;
    let Answer { status, content_type, body } = answer;
    let length = body.len();
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n");
    text +=
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n";
    if !head {
        text += &body;
    }
    write(stream, text.as_bytes(), until)?;
    stream.shutdown(Shutdown::Write)?;
    drain(stream, Instant::now() + FAREWELL)
}

/// The request; `None` if the reader left without one.
fn read(stream: &mut TcpStream, until: Instant) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((!bytes.is_empty()).then_some(Request::Garbage)),
            Ok(length) => bytes.extend(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(request) = parse(&bytes) {
            return Ok(Some(request));
        }
    }
}

/// `None` if more is to come.
fn parse(bytes: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST => return None,
        Ok(httparse::Status::Partial) | Err(_) => return Some(Request::Garbage),
    }
    let head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Some(Request::OtherMethod),
    };
    let path = request.path.unwrap_or_default();
    let accept = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("accept"));
    let accept: Vec<_> = accept.map(|header| String::from_utf8_lossy(header.value)).collect();
    Some(match path.split('?').next().unwrap_or_default() {
        "/metrics" => Request::Metrics { form: Form::preferred(&accept.join(",")), head },
        "/" => Request::Root { head },
        _ => Request::Elsewhere,
    })
}

fn write(stream: &mut TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes what the reader still sends until it closes its end.
fn drain(stream: &mut TcpStream, until: Instant) -> io::Result<()> {
    let mut buffer = [0; 4096];
    for _ in 0..REQUEST {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let open = Form::OpenMetrics;
        for (bytes, request) in [
            (
                "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n",
                Request::Metrics { form: open, head: false },
            ),
            ("GET /metrics?name=x HTTP/1.0\r\n\r\n", Request::Metrics { form: Form::Prometheus, head: false }),
            ("HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n", Request::Metrics { form: Form::Prometheus, head: true }),
            ("GET / HTTP/1.1\r\n\r\n", Request::Root { head: false }),
            ("GET /../etc/passwd HTTP/1.1\r\n\r\n", Request::Elsewhere),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", Request::OtherMethod),
            ("\x16\x03\x01\x02 TLS", Request::Garbage),
            ("GET /metrics\r\n\r\n", Request::Garbage),
            ("GET /metrics HTTP/1.1\r\nno header\r\n\r\n", Request::Garbage),
        ] {
            assert_eq!(parse(bytes.as_bytes()), Some(request), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_whole_is_waited_for_but_not_without_end() {
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"), None);
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "y".repeat(REQUEST));
        assert_eq!(parse(long.as_bytes()), Some(Request::Garbage));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(HEADERS + 1));
        assert_eq!(parse(many.as_bytes()), Some(Request::Garbage));
    }
}
