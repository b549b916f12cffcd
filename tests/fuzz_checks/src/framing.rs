//! An answer's bytes: through a real socket, the real client and its transport, to events. However
//! the bytes are cut on their way, the same must come out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossover::Signals;
use crossover::testing::{
    Call, Client, Method, ObjectKind, Progress, Projection, Response, Roots, Target, Verb, api,
    poll,
};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};

/// Far above what an answer takes whose bytes are all there.
const HANG: Duration = Duration::from_secs(4);
/// The time for which a busy machine may keep the server's thread from its end.
const BUSY: Duration = Duration::from_secs(60);
/// While the client waits for the headers, nothing tells that it has read all there is: the next
/// piece comes after this.
const HEAD_PAUSE: Duration = Duration::from_micros(20);
/// More would only take time.
const PIECES_MAX: usize = 12;

/// The kind of answer that the client expects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Whole,
    Streamed,
}

/// Checks an answer. Four bytes are before it: whether it is to a watch (1) and of TrafficSplits
/// (2), where the first cut is (two bytes, the low one first), and how far apart all others.
pub fn check(bytes: &[u8]) {
    let Some((&[flags, low, high, apart], answer)) = bytes.split_first_chunk() else {
        return;
    };
    let expected = if flags & 1 == 0 {
        Expected::Whole
    } else {
        Expected::Streamed
    };
    let kind = match flags & 2 {
        0 => ObjectKind::ConfigMap,
        _ => ObjectKind::TrafficSplit,
    };
    let first = usize::from(u16::from_le_bytes([low, high]));
    let pieces = cut(answer, first.min(answer.len()), usize::from(apart));

    let mut wire = WIRE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut client = wire.client();
    let whole = wire.response(&mut client, vec![answer.to_vec()], expected);
    if pieces.len() > 1 {
        let torn = wire.response(&mut client, pieces, expected);
        assert_same(whole.as_ref(), torn.as_ref());
    }
    drop(wire);
    let Some(read) = whole else { return };
    let is_line = |line: &[u8]| line.iter().position(|byte| *byte == b'\n') == Some(line.len() - 1);
    assert!(read.lines.iter().all(|line| is_line(line)), "{read:?}");
    assert!(
        expected == Expected::Streamed || read.lines.is_empty(),
        "{read:?}"
    );
    if let Some(want) = plain_body(answer) {
        let mut found = read.lines.concat();
        found.extend(read.rest.as_deref().expect("the whole body"));
        assert_eq!(found, want);
    }
    for line in &read.lines {
        let _ = api::event(line, kind);
    }
    let rest = read.rest.unwrap_or_default();
    let _ = api::list(&rest, kind, Projection::Full);
    api::status(&rest);
}

/// Asserts that both say the same. An answer that breaks may do so before the bytes that came with
/// the break are handed out: the watch is opened again from what was handed out, so nothing is
/// lost.
fn assert_same(whole: Option<&Answered>, torn: Option<&Answered>) {
    if let (Some(whole), Some(torn)) = (whole, torn)
        && (&whole.rest, &torn.rest) == (&None, &None)
    {
        let (a, b) = (&whole.lines, &torn.lines);
        assert!(a.starts_with(b) || b.starts_with(a), "{whole:?}\n{torn:?}");
        assert_eq!(
            (whole.status, whole.retry_after),
            (torn.status, torn.retry_after)
        );
    } else {
        assert_eq!(whole, torn);
    }
}

fn cut(answer: &[u8], first: usize, apart: usize) -> Vec<Vec<u8>> {
    let (head, mut rest) = answer.split_at(first);
    let mut pieces = vec![head.to_vec()];
    while apart > 0 && rest.len() > apart && pieces.len() + 1 < PIECES_MAX {
        let (piece, behind) = rest.split_at(apart);
        pieces.push(piece.to_vec());
        rest = behind;
    }
    pieces.push(rest.to_vec());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The part that was read of an answer whose headers came.
#[derive(Debug, PartialEq, Eq)]
struct Answered {
    status: u16,
    retry_after: Option<Duration>,
    lines: Vec<Vec<u8>>,
    /// The bytes after the last line, or `None` if the answer broke.
    rest: Option<Vec<u8>>,
}

static WIRE: LazyLock<Mutex<Wire>> = LazyLock::new(|| Mutex::new(Wire::open()));

/// A server that gives one answer to a connection, and clients of it.
struct Wire {
    address: SocketAddr,
    signals: Signals,
    jobs: Sender<Job>,
    done: Receiver<()>,
}

/// An answer's pieces: the next for each word, until nobody is left to say one.
struct Job {
    pieces: Vec<Vec<u8>>,
    words: Receiver<()>,
}

impl Wire {
    fn open() -> Wire {
        let signals = Signals::install(false, None).unwrap();
        // A signal ends this program as if nobody had asked for it.
        SigSet::all().thread_unblock().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (jobs, taken) = channel::<Job>();
        let (end, done) = channel();
        thread::spawn(move || {
            for job in taken {
                serve(&listener, job);
                if end.send(()).is_err() {
                    return;
                }
            }
        });
        Wire {
            address,
            signals,
            jobs,
            done,
        }
    }

    fn client(&self) -> Client {
        // By name, so that no connection is begun before there is a request: where that breaks, it
        // is made again. The resolver takes this one for an address, whatever is in /etc/hosts.
        let url = format!("http://127.1:{}", self.address.port());
        Client::new(&url, None, Roots::Insecure, self.signals.clone()).unwrap()
    }

    /// Asks, and reads the answer as the loop does; `None`: it had no headers to speak of.
    fn response(
        &mut self,
        client: &mut Client,
        pieces: Vec<Vec<u8>>,
        expected: Expected,
    ) -> Option<Answered> {
        let (word, words) = channel();
        self.jobs.send(Job { pieces, words }).unwrap();
        let target = Target {
            verb: Verb::List,
            resource: "configmaps",
            group: "",
            namespace: "test".to_owned(),
            name: None,
        };
        let began = Instant::now();
        let asked = client.ask(&Call {
            method: Method::Get,
            target: &target,
            path: "/",
            projection: Projection::Full,
        });
        assert!(began.elapsed() < HANG, "no headers in time");
        let answered = asked.ok().map(|answer| {
            let response = match expected {
                Expected::Whole => Response::whole(answer, began),
                Expected::Streamed => Response::streamed(answer, began),
            };
            read(response, || {
                // Whoever has sent everything is gone.
                let _ = word.send(());
            })
        });
        drop(word);
        self.done.recv_timeout(BUSY).expect("the server is done");
        answered
    }
}

fn read(mut response: Response, next: impl Fn()) -> Answered {
    let mut lines = Vec::new();
    let rest = loop {
        match response.read(&mut lines) {
            Progress::More => {}
            Progress::Waiting => {
                next();
                let mut fds = [PollFd::new(&response, PollFlags::IN)];
                poll::wait(&mut fds, Some(Instant::now() + HANG)).unwrap();
                assert!(!fds[0].revents().is_empty(), "the answer hangs");
            }
            Progress::Ended(rest) => break Some(rest),
            Progress::Broken(_) => break None,
        }
    };
    Answered {
        status: response.status,
        retry_after: response.retry_after,
        lines,
        rest,
    }
}

/// Gives an answer to the next connection, and ends it: whoever reads comes to an end.
fn serve(listener: &TcpListener, Job { pieces, words }: Job) {
    let (mut socket, _) = listener.accept().unwrap();
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    // Unread bytes would make the end a reset.
    while !request.ends_with(b"\r\n\r\n") {
        match socket.read(&mut buffer) {
            Ok(count @ 1..) => request.extend(&buffer[..count]),
            Ok(0) | Err(_) => return,
        }
    }
    let mut asked_for = false;
    for (sent, piece) in pieces.iter().enumerate() {
        let pause = if asked_for { HANG } else { HEAD_PAUSE };
        if sent > 0 {
            match words.recv_timeout(pause) {
                Ok(()) => asked_for = true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        if socket.write_all(piece).is_err() {
            return;
        }
    }
}

/// The body of an answer that is plainly right: 200, one header that says how long it is, and all
/// of it there.
fn plain_body(answer: &[u8]) -> Option<Vec<u8>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut body = &answer[end + 4..];
    let head = head.strip_prefix("HTTP/1.1 200 OK\r\n")?;
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    let (mut length, mut chunked) = (None, false);
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(": ")?;
        let token = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(token) || !value.chars().all(plain) {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "content-length" if length.is_none() && !chunked => {
                let digits = value.len() < 6 && value.bytes().all(|b| b.is_ascii_digit());
                length = Some(value.parse::<usize>().ok().filter(|_| digits)?);
            }
            "transfer-encoding" if length.is_none() && !chunked && value == "chunked" => {
                chunked = true;
            }
            "content-length" | "transfer-encoding" => return None,
            _ => {}
        }
    }
    if !chunked {
        return body.get(..length?).map(<[u8]>::to_vec);
    }
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?;
        let hex = (1..6).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16).ok().filter(|_| hex)?;
        let chunk = body.get(end + 2..end + 2 + size)?;
        body = body.get(end + 2 + size..)?.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend(chunk);
    }
}
