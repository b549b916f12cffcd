//! One HTTP exchange: read from a recording, or held with a server over a plain socket. Owns the
//! taking apart of responses; nothing here judges them.

use super::PATIENCE;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

/// A request as it stands in a recording.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The lines after the first, as they are.
    pub headers: Vec<String>,
    /// Empty where there is none.
    pub body: String,
}

/// A response, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// `HTTP/1.1 200 OK`
    pub status_line: String,
    /// Names as written, in order.
    pub headers: Vec<(String, String)>,
    /// The chunks, or the one body.
    pub chunks: Vec<Vec<u8>>,
    /// The last chunk came, or the whole Content-Length.
    pub complete: bool,
}

/// A recorded exchange.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The request.
    pub asked: Asked,
    /// The response, byte for byte.
    pub raw: Vec<u8>,
}

impl Recording {
    /// Reads `tests/data/kube/NAME.http`; those of an older release are `old/NAME`.
    pub fn read(name: &str) -> Recording {
        let file = fs::read(directory().join(format!("{name}.http"))).expect("it is recorded");
        let (mut rest, mut asked) = (file.as_slice(), Vec::new());
        loop {
            let end = find(rest, b"\n").expect("a request ends with an empty line");
            let line = std::str::from_utf8(&rest[..end]).expect("a request is text");
            rest = &rest[end + 1..];
            match line.strip_prefix('>') {
                Some(text) => asked.push(text.trim_start().to_string()),
                None if line.is_empty() => break,
                None => {} // A note.
            }
        }
        let head = asked
            .iter()
            .position(String::is_empty)
            .unwrap_or(asked.len());
        let body = asked.split_off(head).concat();
        let first = asked.remove(0);
        let mut words = first.split(' ').map(str::to_string);
        let (method, target) = words.next().zip(words.next()).expect("a request line");
        Recording {
            asked: Asked {
                method,
                target,
                headers: asked,
                body,
            },
            raw: rest.to_vec(),
        }
    }

    /// Returns the names of all recordings; of an older release's below `old`.
    pub fn names(below: &str) -> Vec<String> {
        let files = fs::read_dir(directory().join(below)).expect("the recordings are in the tree");
        let mut names: Vec<String> = files
            .map(|file| file.expect("a directory entry").file_name())
            .filter_map(|name| Some(name.to_str()?.strip_suffix(".http")?.to_string()))
            .collect();
        names.sort();
        names
    }

    /// Returns the recorded response, taken apart.
    pub fn answered(&self) -> Answered {
        Answered::parse(&self.raw).expect("a recording has a whole head")
    }
}

fn directory() -> PathBuf {
    super::root().join("tests/data/kube")
}

impl Asked {
    /// Returns the request's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let headers: String = self
            .headers
            .iter()
            .map(|line| format!("{line}\r\n"))
            .collect();
        format!(
            "{} {} HTTP/1.1\r\n{headers}\r\n{}",
            self.method, self.target, self.body
        )
        .into_bytes()
    }
}

impl Answered {
    /// Takes apart as much as is there; `None` while the head is not whole.
    pub fn parse(bytes: &[u8]) -> Option<Answered> {
        let end = find(bytes, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.split("\r\n").map(str::to_string);
        let status_line = lines.next()?;
        let headers = lines.filter_map(|line| {
            line.split_once(": ")
                .map(|(name, value)| (name.to_string(), value.to_string()))
        });
        let mut answered = Answered {
            status_line,
            headers: headers.collect(),
            ..Answered::default()
        };
        let body = &bytes[end + 4..];
        if answered.header("transfer-encoding").is_some() {
            answered.read_chunks(body);
        } else if let Some(length) = answered.header("content-length") {
            let length: usize = length.parse().ok()?;
            answered.complete = body.len() >= length;
            answered
                .chunks
                .push(body[..length.min(body.len())].to_vec());
        }
        Some(answered)
    }

    fn read_chunks(&mut self, mut body: &[u8]) {
        while let Some(end) = find(body, b"\r\n") {
            let text = String::from_utf8_lossy(&body[..end]);
            let length = usize::from_str_radix(&text, 16).expect("a chunk's size");
            let Some(rest) = body.get(end + 2 + length + 2..) else {
                return;
            };
            if length == 0 {
                self.complete = true;
                return;
            }
            self.chunks.push(body[end + 2..end + 2 + length].to_vec());
            body = rest;
        }
    }

    /// Returns the chunks as text.
    pub fn texts(&self) -> Vec<String> {
        let text = |chunk: &Vec<u8>| String::from_utf8_lossy(chunk).into_owned();
        self.chunks.iter().map(text).collect()
    }

    /// Returns a header's value, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A connection of a test's own to a server.
pub struct Line {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Line {
    /// Connects and sends.
    pub fn ask(address: SocketAddr, request: &[u8]) -> Line {
        let mut stream = TcpStream::connect(address).expect("the server accepts");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        stream.write_all(request).expect("the server reads");
        Line {
            stream,
            received: Vec::new(),
        }
    }

    /// Connects and asks for a path and query, without a token.
    pub fn get(address: SocketAddr, target: &str) -> Line {
        let request = format!("GET {target} HTTP/1.1\r\nHost: kubernetes\r\n\r\n");
        Line::ask(address, request.as_bytes())
    }

    /// Reads until the answer is such as `enough` wants it, or the connection ends.
    #[track_caller]
    pub fn read_until(&mut self, enough: impl Fn(&Answered) -> bool) -> Answered {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let answered = Answered::parse(&self.received);
            if let Some(answered) = answered.filter(|a| enough(a)) {
                return answered;
            }
            let count = match self.stream.read(&mut buffer) {
                // A signal, such as of another test, ends a read that has a time limit.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the server answers in time"),
            };
            if count == 0 {
                return Answered::parse(&self.received).unwrap_or_default();
            }
            self.received.extend_from_slice(&buffer[..count]);
        }
    }

    /// Returns the connection, to be read by other means.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
