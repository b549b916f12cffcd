//! Recorded responses, byte for byte, over plain TCP: what a real server said is what the program
//! reads. Each answer is given once, to the first request that it fits.

use super::exchange::Recording;
use super::runtime::{self, Port, Runtime};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The way in which a response crosses the wire.
#[derive(Clone, Debug)]
pub enum Pace {
    /// The answer goes in one write.
    Whole,
    /// One byte at a time.
    Drip(Duration),
    /// Cut at these offsets, a pause at each.
    Split(Vec<usize>, Duration),
}

/// A response, and the request that it is for.
pub struct Served {
    fits: Box<dyn Fn(&str) -> bool + Send>,
    raw: Vec<u8>,
    pace: Pace,
    times: usize,
    close: bool,
}

impl Served {
    /// Returns the response of a recording, to a request whose head (`GET /path?query HTTP/1.1`,
    /// headers) fits.
    pub fn recording(name: &str, fits: impl Fn(&str) -> bool + Send + 'static) -> Served {
        Served::raw(Recording::read(name).raw, fits)
    }

    /// Returns an answer of these bytes.
    pub fn raw(raw: impl Into<Vec<u8>>, fits: impl Fn(&str) -> bool + Send + 'static) -> Served {
        Served {
            fits: Box::new(fits),
            raw: raw.into(),
            pace: Pace::Whole,
            times: 1,
            close: false,
        }
    }

    /// Returns the answer with this pace.
    pub fn paced(mut self, pace: Pace) -> Served {
        self.pace = pace;
        self
    }

    /// Serves it to so many requests.
    pub fn times(mut self, times: usize) -> Served {
        self.times = times;
        self
    }

    /// Has the connection closed after the answer. Otherwise it stays open.
    pub fn then_close(mut self) -> Served {
        self.close = true;
        self
    }
}

/// A server that says what was recorded.
pub struct Replay {
    script: Arc<Mutex<Script>>,
    port: Port,
    _runtime: Runtime,
}

struct Script {
    left: Vec<Served>,
    heads: Vec<String>,
    /// The time at which each request came.
    times: Vec<Instant>,
    unexpected: Vec<String>,
}

impl Replay {
    /// Starts a server with these answers.
    pub fn start(answers: Vec<Served>) -> Replay {
        let script = Script {
            left: answers,
            heads: Vec::new(),
            times: Vec::new(),
            unexpected: Vec::new(),
        };
        let script = Arc::new(Mutex::new(script));
        let runtime = Runtime::start();
        let shared = script.clone();
        let port = Port::open(&runtime, 0, move |socket| converse(shared.clone(), socket));
        Replay {
            script,
            port,
            _runtime: runtime,
        }
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns the heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.script.lock().expect("no panic").heads.clone()
    }

    /// Returns the time at which request `number` came, before it was answered; 0 is the first.
    pub fn asked_at(&self, number: usize) -> Instant {
        self.script.lock().expect("no panic").times[number]
    }

    /// Returns the heads of requests that no answer was left for; their connections were closed.
    pub fn unexpected(&self) -> Vec<String> {
        self.script.lock().expect("no panic").unexpected.clone()
    }
}

async fn converse(script: Arc<Mutex<Script>>, mut socket: TcpStream) {
    while let Some(head) = read_request(&mut socket).await {
        let answer = {
            let mut script = script.lock().expect("no panic");
            script.heads.push(head.clone());
            script.times.push(Instant::now());
            let answer = script.answer(&head);
            if answer.is_none() {
                script.unexpected.push(head);
            }
            answer
        };
        let Some((raw, pace, close)) = answer else {
            return;
        };
        if send(&mut socket, &raw, pace).await.is_err() || close {
            return;
        }
    }
}

impl Script {
    fn answer(&mut self, head: &str) -> Option<(Vec<u8>, Pace, bool)> {
        let served = self
            .left
            .iter_mut()
            .find(|s| s.times > 0 && (s.fits)(head))?;
        served.times -= 1;
        Some((served.raw.clone(), served.pace.clone(), served.close))
    }
}

async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().ok())?
    });
    socket
        .read_exact(&mut vec![0; length.unwrap_or(0)])
        .await
        .ok()?;
    Some(head)
}

async fn send(socket: &mut TcpStream, raw: &[u8], pace: Pace) -> std::io::Result<()> {
    let (cuts, pause) = match pace {
        Pace::Whole => (Vec::new(), Duration::ZERO),
        Pace::Drip(pause) => ((1..raw.len()).collect(), pause),
        Pace::Split(cuts, pause) => (cuts, pause),
    };
    let mut from = 0;
    for cut in cuts {
        socket.write_all(&raw[from..cut]).await?;
        runtime::pause(pause).await;
        from = cut;
    }
    socket.write_all(&raw[from..]).await
}
