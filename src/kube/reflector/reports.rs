//! The log messages about a reflector: each failure once, and once that it is over. Owns: the
//! messages.

use std::fmt::Display;
use std::time::Instant;

use log::{info, warn};

use crate::backoff::Repeats;
use crate::error::Target;
use crate::logging::WarnOnce;

/// The reports about one reflector's requests.
#[derive(Default)]
pub struct Reports {
    failing: WarnOnce,
    /// Reports what a watch should not have sent.
    skipping: WarnOnce,
    /// Counts ends of streams.
    cuts: Repeats,
}

impl Reports {
    /// Reports that the API server refuses a request.
    pub fn refused(&mut self, request: &Target, error: &dyn Display, now: Instant) {
        let message = "the API server refuses a request; retrying";
        self.failed(request, message, error, now);
    }

    /// Reports that the API server cannot answer, or does not do so in time.
    pub fn busy(&mut self, request: &Target, error: &dyn Display, now: Instant) {
        let message = "the API server cannot answer now; retrying";
        self.failed(request, message, error, now);
    }

    /// Reports an answer that cannot be understood.
    pub fn unusable(&mut self, request: &Target, error: &dyn Display, now: Instant) {
        let message = "the API server's answer cannot be used; retrying";
        self.failed(request, message, error, now);
    }

    /// Reports an error that the watch has sent.
    pub fn ended(&mut self, request: &Target, error: &dyn Display, now: Instant) {
        let message = "the API server ended the watch; listing again";
        self.failed(request, message, error, now);
    }

    fn failed(
        &mut self,
        request: &Target,
        message: &'static str,
        error: &dyn Display,
        now: Instant,
    ) {
        let error = error.to_string();
        self.failing
            .warn(("request", request), message, &error, now);
    }

    /// Gives the all-clear of whatever failed before.
    pub fn succeeded(&mut self, request: &Target, now: Instant) {
        let message = "requests succeed again";
        self.failing.clear(("request", request), message, now);
    }

    /// Reports an end of the watch, if it ends again and again.
    pub fn cut(&mut self, request: &Target, error: &str, now: Instant) {
        if self.cuts.count(now) {
            info!(request:%, error;
                "the watch is cut again and again; resuming it where it was");
        }
    }

    /// Reports an event about an object that the watch does not cover.
    pub fn skipped_object(&mut self, request: &Target, name: &str, now: Instant) {
        let message = "the watch sent another object; skipping it";
        if self.skipping.is_news(message, name, now) {
            warn!(request:%, name; "{message}");
        }
    }

    /// Reports an event of a type that is not known.
    pub fn skipped_event(&mut self, request: &Target, kind: &str, now: Instant) {
        let message = "the watch sent an event of unknown type; skipping it";
        if self.skipping.is_news(message, kind, now) {
            warn!(request:%, event = kind; "{message}");
        }
    }
}
