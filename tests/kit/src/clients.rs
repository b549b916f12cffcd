//! Keep-alive clients in an open loop: each asks at its own moments, whatever became of the request
//! before, and every answer counts by its status.

use super::envoy_config::VERSION_HEADER;
use super::{PATIENCE, nap};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A connection or an answer that takes longer than this has failed.
const TOO_LONG: Duration = Duration::from_secs(5);
/// A client that is behind does not catch up more than this: a stalled Envoy is not a reason for a
/// burst that lasts.
const BEHIND: Duration = Duration::from_secs(1);

/// The number of requests and of the clients that make them.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The requests of all clients together in a second.
    pub per_second: u32,
    /// The number of clients, each with one connection.
    pub clients: usize,
}

/// 300 requests a second over 6 connections.
pub const STEADY: Rate = Rate {
    per_second: 300,
    clients: 6,
};

/// A request that was not answered with a 200.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The time at which it was sent.
    pub sent: Instant,
    /// The time at which the failure was known.
    pub ended: Instant,
    /// The status and the beginning of the body, or the error.
    pub what: String,
}

/// The answers so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The answers by status. A failure without an answer is not among them.
    pub statuses: BTreeMap<u16, u64>,
    /// In the order in which they were known.
    pub failures: Vec<Failure>,
    /// The version of the routes in each client's latest answer.
    pub latest: Vec<String>,
    /// The time of the first answer by each version.
    pub versions: BTreeMap<String, Instant>,
}

impl Tally {
    /// Requests that were answered with a 200.
    pub fn ok(&self) -> u64 {
        self.statuses.get(&200).copied().unwrap_or_default()
    }

    /// Returns how often each kind of failure occurred.
    pub fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for failure in &self.failures {
            *kinds.entry(failure.what.clone()).or_default() += 1;
        }
        kinds
    }
}

struct Shared {
    stop: AtomicBool,
    target: Mutex<SocketAddr>,
    tally: Mutex<Tally>,
    changed: Condvar,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no panic")
    }
}

/// Clients that ask until this is dropped.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts them.
    pub fn start(target: SocketAddr, rate: Rate) -> Clients {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            target: Mutex::new(target),
            tally: Mutex::new(Tally {
                latest: vec![String::new(); rate.clients],
                ..Tally::default()
            }),
            changed: Condvar::new(),
        });
        let interval = Duration::from_secs(1) / rate.per_second;
        let began = Instant::now();
        let threads = (0..rate.clients).map(|number| {
            let (shared, first) = (shared.clone(), began + interval * number as u32);
            let interval = interval * rate.clients as u32;
            thread::spawn(move || run(&shared, number, first, interval))
        });
        Clients {
            threads: threads.collect(),
            shared,
        }
    }

    /// Has new connections go elsewhere: to an Envoy that took another one's place.
    pub fn aim(&self, target: SocketAddr) {
        *self.shared.target.lock().expect("no panic") = target;
    }

    /// Returns the answers so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// Returns how many requests were answered with a 200 so far.
    pub fn ok(&self) -> u64 {
        self.shared.tally().ok()
    }

    /// Waits until something holds of the tally; `false`: it did not within that time.
    pub fn holds_within(&self, time: Duration, want: impl Fn(&Tally) -> bool) -> bool {
        let deadline = Instant::now() + time;
        let mut tally = self.shared.tally();
        loop {
            if want(&tally) {
                return true;
            }
            let Some(nap) = nap(deadline) else {
                return false;
            };
            let waited = self.shared.changed.wait_timeout(tally, nap);
            tally = waited.expect("no panic").0;
        }
    }

    /// Waits until every client's latest answer is by this version of the routes.
    #[track_caller]
    pub fn wait_for_all(&self, version: &str) {
        let all = |tally: &Tally| tally.latest.iter().all(|latest| latest == version);
        if !self.holds_within(PATIENCE, all) {
            let tally = self.tally();
            panic!(
                "waited for {version}; the clients see {:?}, {:?}",
                tally.latest,
                tally.kinds()
            );
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, number: usize, first: Instant, interval: Duration) {
    let (mut connection, mut due) = (None, first);
    while !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        due = (due + interval).max(sent.checked_sub(BEHIND).unwrap_or(sent));
        let is_reused = connection.is_some();
        let mut answer = ask(&mut connection, shared);
        if is_reused && answer.as_ref().is_err_and(is_closed) {
            // A server may close a connection that it has kept alive at any moment, as Envoy does
            // at the end of a drain: a client sends the request again (RFC 9112, 9.3.1).
            connection = None;
            answer = ask(&mut connection, shared);
        }
        let mut tally = shared.tally();
        let failure = match answer {
            Ok(answer) => {
                *tally.statuses.entry(answer.status).or_default() += 1;
                let failed = answer.status != 200;
                if !failed {
                    let version = answer.version;
                    if tally.latest[number] != version {
                        let at = tally.versions.entry(version.clone());
                        at.or_insert_with(Instant::now);
                        tally.latest[number] = version;
                    }
                }
                failed.then(|| format!("{} {}", answer.status, answer.body))
            }
            Err(error) => {
                connection = None;
                Some(format!("{:?}: {error}", error.kind()))
            }
        };
        tally.failures.extend(failure.map(|what| Failure {
            sent,
            ended: Instant::now(),
            what,
        }));
        drop(tally);
        shared.changed.notify_all();
    }
}

struct Answer {
    status: u16,
    version: String,
    body: String,
}

/// Returns whether the connection has ended in place of an answer.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn ask(connection: &mut Option<BufReader<TcpStream>>, shared: &Shared) -> io::Result<Answer> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let target = *shared.target.lock().expect("no panic");
            let stream = TcpStream::connect_timeout(&target, TOO_LONG)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TOO_LONG))?;
            connection.insert(BufReader::new(stream))
        }
    };
    stream
        .get_mut()
        .write_all(b"GET / HTTP/1.1\r\nhost: world.test\r\n\r\n")?;
    let mut head = Vec::new();
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let of = |name: &str| {
        let named = head.iter().filter_map(|line| line.split_once(':'));
        let mut named = named.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim().to_string())
    };
    let status = head[0].split(' ').nth(1).and_then(|word| word.parse().ok());
    let length = of("content-length").and_then(|length| length.parse().ok());
    let body = match length {
        Some(length) => bytes(stream, length)?,
        None => chunks(stream)?,
    };
    let answer = Answer {
        status: status.ok_or(io::ErrorKind::InvalidData)?,
        version: of(VERSION_HEADER).unwrap_or_default(),
        body: String::from_utf8_lossy(&body).chars().take(60).collect(),
    };
    if of("connection").is_some_and(|value| value == "close") {
        *connection = None;
    }
    Ok(answer)
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_string()),
    }
}

fn bytes(stream: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let length = line(stream)?;
        let length = usize::from_str_radix(&length, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        body.extend(bytes(stream, length)?);
        line(stream)?;
        if length == 0 {
            return Ok(body);
        }
    }
}
