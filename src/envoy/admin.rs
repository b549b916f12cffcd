//! Requests to Envoy's admin port.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::Request;

use crate::net;
use crate::net::connections::Connections;
use crate::process::signals::Signals;

/// The time that an answer may take, which comes from the same machine.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Makes Envoy drain its listeners: it keeps serving, and tells its clients to close their
/// connections.
pub fn drain(admin: &str, signals: Signals) -> Result<(), ureq::Error> {
    let connections = Arc::new(Connections::new(signals));
    connections
        .waiter
        .set_deadline(Instant::now() + ANSWERS_WITHIN, Duration::ZERO);
    let request = Request::post(format!("{admin}/drain_listeners?graceful"));
    let answer = net::agent(&connections).run(request.body(())?)?;
    match answer.status().as_u16() {
        200 => Ok(()),
        code => Err(ureq::Error::StatusCode(code)),
    }
}
