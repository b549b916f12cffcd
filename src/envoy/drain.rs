//! The request that makes Envoy drain, before its command is ended.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use ureq::http::Request;

use super::address::Address;
use super::admin::{Exchange, MAX_HEAD};
use super::error::AdminError;
use crate::poll;
use crate::process::signals::Signals;

/// The time that the answer may take, as the command's end waits for it.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Makes Envoy drain its listeners: it keeps serving, and tells its clients to close their
/// connections. Waits for the answer, and for signals.
pub fn drain(admin: &str, signals: &Signals) -> Result<(), AdminError> {
    let mut address = Address::new(admin)?;
    let started = Instant::now();
    let request = Request::post(address.url("/drain_listeners?graceful"));
    let request = request.header("content-length", "0").body(());
    let mut exchange = Exchange::start(&mut address, request, MAX_HEAD, signals, started)?;
    let end = started + ANSWERS_WITHIN;
    loop {
        let until = exchange.deadline().min(end);
        let until = signals.deadline().map_or(until, |at| at.min(until));
        let mut fds = [
            PollFd::new(&exchange, exchange.interest()),
            PollFd::new(signals, PollFlags::IN),
        ];
        poll::wait(&mut fds, Some(until)).map_err(|error| AdminError::Away(error.to_string()))?;
        if signals.dispatch().is_some() {
            return Err(AdminError::Interrupted);
        }
        let now = Instant::now();
        if let Some(answer) = exchange.on_ready(now) {
            return answer.map(drop);
        }
        if now >= end {
            return Err(AdminError::NoAnswer(ANSWERS_WITHIN));
        }
    }
}
