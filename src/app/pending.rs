//! Two kinds of waiting: changes wait for others that come with them, and work that Envoy does not
//! need waits for a quiet moment.

use std::time::{Duration, Instant};

/// The debounce window is the duration of the last publish, clamped to this range.
const DEBOUNCE_MIN: Duration = Duration::from_millis(10);
const DEBOUNCE_MAX: Duration = Duration::from_millis(100);
/// The time for which a steady stream of input may hold back work that waits for a moment without
/// it.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// The time without a change after which work that Envoy does not need is done.
const DEFERRED_FOR: Duration = Duration::from_millis(200);
/// The shortest time between two syncs that follow a publish at once.
const SYNC_EVERY: Duration = Duration::from_millis(250);
/// The delay before a failed sync is tried again.
const RESYNC_AFTER: Duration = Duration::from_secs(10);

/// Changes that have not been published.
pub struct Pending {
    dirty_since: Option<Instant>,
    debounce: Duration,
    /// True if the last wait found nothing to read, so that no change is known to wait.
    input_drained: bool,
    drained_at: Instant,
}

impl Pending {
    pub fn new(now: Instant) -> Pending {
        Pending {
            dirty_since: None,
            debounce: DEBOUNCE_MIN,
            input_drained: true,
            drained_at: now,
        }
    }

    /// Notes that there is something to publish, since `now` if there was nothing before.
    pub fn mark(&mut self, now: Instant) {
        self.dirty_since.get_or_insert(now);
    }

    pub fn is_dirty(&self) -> bool {
        self.dirty_since.is_some()
    }

    /// Takes the changes, once no more of them are to come. Returns since when they have waited.
    pub fn take_due(&mut self, now: Instant) -> Option<Instant> {
        let (is_drained, debounce) = (self.input_drained, self.debounce);
        self.dirty_since
            .take_if(|since| is_drained || now > *since + debounce)
    }

    /// Sets the next debounce by how long a publish `took`.
    pub fn published(&mut self, took: Duration) {
        self.debounce = took.clamp(DEBOUNCE_MIN, DEBOUNCE_MAX);
    }

    /// Notes whether a wait found nothing to read.
    pub fn waited(&mut self, input_drained: bool) {
        self.input_drained = input_drained;
        if input_drained {
            self.drained_at = Instant::now();
        }
    }

    /// Notes that input may have come since the last wait.
    pub fn doubt_input(&mut self) {
        self.input_drained = false;
    }

    /// Returns whether events may wait to be read, unless that has been so for too long.
    pub fn is_busy(&self, now: Instant) -> bool {
        !self.input_drained && now < self.drained_at + BUSY_MAX
    }
}

/// The work that a publish puts off: fsync, and checks by the second reader.
#[derive(Default)]
pub struct Deferred {
    at: Option<Instant>,
    last_fsync: Option<Instant>,
}

impl Deferred {
    pub fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// Puts work off until some time after a publish. Returns whether to sync at once.
    #[must_use]
    pub fn published(&mut self, now: Instant) -> bool {
        self.at = Some(now + DEFERRED_FOR);
        self.last_fsync.is_none_or(|at| now > at + SYNC_EVERY)
    }

    /// Returns whether the work is due, once.
    #[must_use]
    pub fn take_due(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// Notes an fsync, and plans the next one if it failed.
    pub fn synced(&mut self, is_durable: bool, now: Instant) {
        self.last_fsync = Some(now);
        if !is_durable {
            self.at = Some(now + RESYNC_AFTER);
        }
    }
}
