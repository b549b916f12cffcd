//! The last failure at the destination, and the time of the next attempt. Pure.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::backoff::Backoff;
use crate::error::{Error, Kind};

/// The delay between attempts to lock a directory that another crossover holds.
const LOCK_RETRY: Duration = Duration::from_secs(1);

/// A failure, and when the next attempt is.
pub struct Retry {
    /// The time of the next attempt; `None` once that is due, or if nothing has failed.
    at: Option<Instant>,
    backoff: Backoff,
    /// The reason why the last attempt failed, until one succeeds.
    error: Option<Error>,
}

impl Retry {
    pub fn new(rng: Rng) -> Retry {
        Retry {
            at: None,
            backoff: Backoff::new(rng),
            error: None,
        }
    }

    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    pub fn is_waiting(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now < at)
    }

    /// Takes the time of the next attempt if it has come.
    pub fn take_due(&mut self, now: Instant) -> Option<Instant> {
        self.at.take_if(|at| *at <= now)
    }

    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    pub fn failed(&mut self, error: Error, now: Instant) {
        let wait = match error.kind() {
            Kind::Held => LOCK_RETRY,
            _ => self.backoff.failed(now),
        };
        (self.at, self.error) = (Some(now + wait), Some(error));
    }

    /// Forgets the failure. The back-off stays: it forgets by itself, after a quiet while.
    pub fn succeeded(&mut self) {
        (self.at, self.error) = (None, None);
    }
}
