//! Connections that go on with an older listener. Owns: since when and until when they may. What is
//! kept for them goes early where Envoy says that none do.

use std::time::Instant;

use super::{Due, Kept};

impl Kept {
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
        let clusters = self.clusters.iter_mut().map(|kept| &mut kept.due);
        let files = self.files.values_mut().map(|kept| &mut kept.due);
        for due in clusters.chain(files) {
            if *due == Due::At(until) && until > now {
                *due = Due::At(now);
            }
        }
    }

    /// Notes that a listener changes: connections of the older one may go on for a long time.
    pub fn listener_moves(&mut self) {
        self.listener_moves = true;
    }
}
