//! Requests to Envoy's admin port, each on a connection of its own. Owns: one exchange, which never
//! waits: the loop polls its descriptor. Must not: know what is asked.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use ureq::http::Request;
use ureq_proto::BodyMode;
use ureq_proto::client::state::{RecvBody, RecvResponse};
use ureq_proto::client::{Call, RecvResponseResult, SendRequestResult};

use super::address::{Address, Remote};
use super::connect::{connect_any, is_connected};
use super::error::{AdminError, away};
use crate::process::signals::Signals;

/// The time that a connection may take, which stays on the machine.
const CONNECTS_WITHIN: Duration = Duration::from_millis(500);
/// The time that an answer may take: Envoy loads 20,000 routes in a second, and longer where its
/// CPU is limited, and answers nobody meanwhile.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The length of the longest head of a request or an answer.
pub(super) const MAX_HEAD: usize = 8 << 10;
/// The bytes that are read before others have their turn.
const READ_AT_ONCE: usize = 256 << 10;
const BUFFER: usize = 16 << 10;

fn malformed(error: ureq_proto::Error) -> AdminError {
    AdminError::Malformed(error.to_string())
}

/// A request on its way, or its answer.
#[derive(Debug)]
pub struct Exchange {
    socket: OwnedFd,
    /// The places that are tried if this one cannot be connected to, the next one last.
    others: Vec<Remote>,
    state: State,
    deadline: Instant,
    within: Duration,
    /// The length of the longest body that is taken.
    limit: usize,
    /// The bytes that were received and are not understood yet.
    input: Vec<u8>,
    body: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Connecting {
        request: Vec<u8>,
        call: Call<RecvResponse>,
    },
    Sending {
        request: Vec<u8>,
        sent: usize,
        call: Call<RecvResponse>,
    },
    Head(Call<RecvResponse>),
    Body(Call<RecvBody>),
    Ended,
}

impl Exchange {
    /// Starts a GET of what follows the address, whose body has at most `limit` bytes.
    pub fn get(
        address: &mut Address,
        path: &str,
        limit: usize,
        signals: &Signals,
        now: Instant,
    ) -> Result<Exchange, AdminError> {
        let request = Request::get(address.url(path));
        Exchange::start(address, request.body(()), limit, signals, now)
    }

    pub(super) fn start(
        address: &mut Address,
        request: Result<Request<()>, ureq::http::Error>,
        limit: usize,
        signals: &Signals,
        now: Instant,
    ) -> Result<Exchange, AdminError> {
        let request = request.map_err(|error| AdminError::Away(error.to_string()))?;
        let (request, call) = write(request).map_err(malformed)?;
        let mut others = address.remotes(signals, now)?.to_vec();
        others.reverse();
        let started = connect_any(&mut others);
        let socket = started.inspect_err(|_| address.failed())?;
        Ok(Exchange {
            socket,
            others,
            state: State::Connecting { request, call },
            deadline: now + CONNECTS_WITHIN,
            within: CONNECTS_WITHIN,
            limit,
            input: Vec::new(),
            body: Vec::new(),
        })
    }

    /// Returns what to poll the descriptor for.
    pub fn interest(&self) -> PollFlags {
        match self.state {
            State::Connecting { .. } | State::Sending { .. } => PollFlags::OUT,
            State::Head(_) | State::Body(_) | State::Ended => PollFlags::IN,
        }
    }

    /// Returns when to call [`Exchange::on_ready`] though the descriptor is not ready.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes as far as possible without waiting. Returns the answer's body, or why there is none;
    /// then the exchange is over.
    pub fn on_ready(&mut self, now: Instant) -> Option<Result<Vec<u8>, AdminError>> {
        match self.advance(now) {
            Ok(false) if now < self.deadline => None,
            Ok(false) => Some(Err(match self.state {
                State::Connecting { .. } => {
                    AdminError::Away(format!("no connection in {} ms", self.within.as_millis()))
                }
                _ => AdminError::NoAnswer(self.within),
            })),
            Ok(true) => Some(Ok(std::mem::take(&mut self.body))),
            Err(error) => Some(Err(error)),
        }
    }

    /// Returns whether the answer is complete.
    fn advance(&mut self, now: Instant) -> Result<bool, AdminError> {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Ended) {
                State::Connecting { request, call } => match is_connected(&self.socket) {
                    Ok(true) => {
                        (self.deadline, self.within) = (now + ANSWERS_WITHIN, ANSWERS_WITHIN);
                        State::Sending {
                            request,
                            sent: 0,
                            call,
                        }
                    }
                    Ok(false) => {
                        self.state = State::Connecting { request, call };
                        return Ok(false);
                    }
                    Err(errno) if self.others.is_empty() => return Err(away(errno)),
                    Err(_) => {
                        self.socket = connect_any(&mut self.others)?;
                        State::Connecting { request, call }
                    }
                },
                State::Sending {
                    request,
                    sent,
                    call,
                } => match net::send(&self.socket, &request[sent..], SendFlags::NOSIGNAL) {
                    Ok(more) if sent + more == request.len() => State::Head(call),
                    Ok(more) => State::Sending {
                        request,
                        sent: sent + more,
                        call,
                    },
                    Err(Errno::INTR) => State::Sending {
                        request,
                        sent,
                        call,
                    },
                    Err(Errno::AGAIN) => {
                        self.state = State::Sending {
                            request,
                            sent,
                            call,
                        };
                        return Ok(false);
                    }
                    Err(errno) => return Err(away(errno)),
                },
                receiving => {
                    self.state = receiving;
                    return self.receive();
                }
            }
        }
    }

    /// Reads what is there, up to a limit. Returns whether the answer is complete.
    fn receive(&mut self) -> Result<bool, AdminError> {
        let mut buffer = vec![0; BUFFER];
        for _ in 0..READ_AT_ONCE / BUFFER {
            match net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((_, 0)) => return self.ended(),
                Ok((_, count)) => {
                    self.input
                        .extend_from_slice(buffer.get(..count).unwrap_or_default());
                    if self.understand(&mut buffer)? {
                        return Ok(true);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(away(errno)),
            }
        }
        Ok(false)
    }

    /// Judges the end of the connection, which is also the end of some bodies.
    fn ended(&mut self) -> Result<bool, AdminError> {
        match &self.state {
            State::Body(call) if call.body_mode() == BodyMode::CloseDelimited => Ok(true),
            _ => Err(AdminError::Away(
                "it closed the connection before it had answered".into(),
            )),
        }
    }

    /// Takes in what has been received. Returns whether the answer is complete.
    fn understand(&mut self, buffer: &mut [u8]) -> Result<bool, AdminError> {
        if let State::Head(call) = &mut self.state {
            let answer = loop {
                let (used, answer) = call.try_response(&self.input, false).map_err(malformed)?;
                self.input.drain(..used);
                match answer {
                    Some(answer) => break answer,
                    // An interim answer, which another follows.
                    None if used > 0 => {}
                    None if self.input.len() > MAX_HEAD => return Err(AdminError::TooLong),
                    None => return Ok(false),
                }
            };
            if answer.status().as_u16() != 200 {
                return Err(AdminError::Status(answer.status().as_u16()));
            }
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Head(call) => match call.proceed() {
                    Some(RecvResponseResult::RecvBody(call)) => self.state = State::Body(call),
                    _ => return Ok(true),
                },
                other => self.state = other,
            }
        }
        let State::Body(call) = &mut self.state else {
            return Ok(false);
        };
        let mut used = 0;
        loop {
            let rest = self.input.get(used..).unwrap_or_default();
            let (taken, written) = call.read(rest, buffer).map_err(malformed)?;
            used += taken;
            self.body
                .extend_from_slice(buffer.get(..written).unwrap_or_default());
            if self.body.len() > self.limit {
                return Err(AdminError::TooLong);
            }
            if taken == 0 && written == 0 {
                break;
            }
        }
        self.input.drain(..used);
        Ok(call.can_proceed() && call.body_mode() != BodyMode::CloseDelimited)
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Writes a request, and returns what reads its answer.
fn write(request: Request<()>) -> Result<(Vec<u8>, Call<RecvResponse>), ureq_proto::Error> {
    let mut call = Call::new(request)?;
    call.header(
        "user-agent",
        concat!("crossover/", env!("CARGO_PKG_VERSION")),
    )?;
    call.header("connection", "close")?;
    let mut call = call.proceed();
    let mut text = vec![0; MAX_HEAD];
    let length = call.write(&mut text)?;
    text.truncate(length);
    match call.proceed()? {
        Some(SendRequestResult::RecvResponse(call)) => Ok((text, call)),
        _ => Err(ureq_proto::Error::OutputOverflow),
    }
}

#[cfg(test)]
mod tests;
