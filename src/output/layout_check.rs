//! The times at which the layout of the output directory is checked, and what they mean for
//! liveness. Pure.

use std::time::{Duration, Instant};

/// A loop that has not turned for this long, or for three layout checks if that is longer, is dead.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(120);

/// The interval between two checks, and the time of the next.
pub struct LayoutCheck {
    every: Duration,
    next: Instant,
}

impl LayoutCheck {
    pub fn new(every: Duration, now: Instant) -> LayoutCheck {
        let next = now + every;
        LayoutCheck { every, next }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    /// Returns true if a check is due, and sets the time of the one after it.
    #[must_use]
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.next = now + self.every;
        }
        is_due
    }

    /// Returns the longest time that a turn of a live loop takes.
    pub fn liveness_timeout(&self) -> Duration {
        LIVENESS_TIMEOUT.max(3 * self.every)
    }
}
