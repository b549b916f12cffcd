//! Misbehaviour by script: which requests are answered wrongly, and how. The network's own faults
//! are the proxy's.

use super::request::Request;
use std::time::Duration;

/// A fault of the server.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another answer.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Headers besides the usual ones; one of them may be Content-Type.
        headers: Vec<(String, String)>,
        /// The body, as it is.
        body: Vec<u8>,
    },
    /// These bytes instead of an answer, then the connection is closed.
    Raw(Vec<u8>),
    /// The request is never answered; the connection stays open.
    Freeze,
    /// The right answer, late.
    Delay(Duration),
    /// The right answer up to so many bytes of its body as they cross the wire (chunk sizes count).
    After {
        /// 0: the headers alone.
        body_bytes: usize,
        /// The way in which the connection goes on instead of the rest.
        then: Then,
    },
    /// A watch is opened, and ends cleanly without a word.
    EndAtOnce,
}

/// The way in which a connection goes on after a part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays open and sends nothing more.
    Stall,
    /// It is closed (FIN; no close_notify on TLS).
    Close,
    /// It is reset (RST).
    Reset,
}

impl Fault {
    /// Returns a status with an empty body.
    pub fn status(status: u16) -> Fault {
        Fault::Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Returns an answer of 429 or 503 with this `Retry-After`.
    pub fn retry_after(status: u16, value: &str) -> Fault {
        let headers = vec![("Retry-After".to_string(), value.to_string())];
        Fault::Answer {
            status,
            headers,
            body: b"try again later\n".to_vec(),
        }
    }

    /// 200 and this JSON, whatever it is.
    pub fn json(body: impl Into<Vec<u8>>) -> Fault {
        let headers = vec![("Content-Type".to_string(), "application/json".to_string())];
        Fault::Answer {
            status: 200,
            headers,
            body: body.into(),
        }
    }
}

/// A fault and the requests that it strikes.
pub struct Misbehaviour {
    matches: Box<dyn Fn(&Request) -> bool + Send>,
    fault: Fault,
    skip: usize,
    times: usize,
}

impl Misbehaviour {
    /// Strikes every request that matches, for ever.
    pub fn new(fault: Fault, matches: impl Fn(&Request) -> bool + Send + 'static) -> Misbehaviour {
        Misbehaviour {
            matches: Box::new(matches),
            fault,
            skip: 0,
            times: usize::MAX,
        }
    }

    /// Lets the first `count` matching requests pass.
    pub fn skip(mut self, count: usize) -> Misbehaviour {
        self.skip = count;
        self
    }

    /// Strikes `count` times only.
    pub fn times(mut self, count: usize) -> Misbehaviour {
        self.times = count;
        self
    }

    fn strike(&mut self, request: &Request) -> Option<Fault> {
        if self.times == 0 || !(self.matches)(request) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        Some(self.fault.clone())
    }
}

/// Returns the first misbehaviour that strikes this request.
pub fn strike(script: &mut [Misbehaviour], request: &Request) -> Option<Fault> {
    script
        .iter_mut()
        .find_map(|misbehaviour| misbehaviour.strike(request))
}
