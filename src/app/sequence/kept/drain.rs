//! Connections that go on with an older listener. Owns: since when and until when they may. What is
//! kept for them goes early where Envoy says that none do.

use std::time::{Duration, Instant};

use super::{Due, GRACE, Kept};

impl Kept {
    /// Notes that connections may go on with an older listener for so long, from an earlier run.
    pub fn drains_for(&mut self, left: Duration, now: Instant) {
        if !left.is_zero() {
            (self.drains_until, self.drains_since) = (Some(now + left), Some(now));
        }
    }

    /// Returns since when connections may go on with an older listener, if anything is kept for
    /// them.
    pub fn drains_since(&self) -> Option<Instant> {
        self.drains_since.filter(|_| !self.is_empty())
    }

    /// Notes that no connection goes on with an older listener any more.
    pub fn on_drained(&mut self, now: Instant) {
        self.drains_since = None;
        let Some(until) = self.drains_until.take() else {
            return;
        };
        // Requests on other connections may need what has vanished only now.
        let from = self.settled_at.map_or(now, |at| now.max(at + GRACE));
        let clusters = self.clusters.iter_mut().map(|kept| &mut kept.due);
        let files = self.files.values_mut().map(|kept| &mut kept.due);
        for due in clusters.chain(files) {
            if *due == Due::At(until) && until > from {
                *due = Due::At(from);
            }
        }
    }

    /// Notes that a listener changes: connections of the older one may go on for a long time.
    pub fn listener_moves(&mut self) {
        self.listener_moves = true;
    }
}
