//! The times at which a mirror is looked at: after a change of the published files, and after a
//! failure. Pure.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::backoff::{Backoff, jitter};

/// The longest of the random delays before a mirror is looked at. All replicas write the same: the
/// first one writes, and the others find it done.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
/// The least time between two writes of a mirror, which only people read.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The time of the next look, and what it depends on.
pub struct Schedule {
    due: Option<Instant>,
    written: Option<Instant>,
    pace: Pace,
}

/// The way in which a mirror keeps up with the published files.
enum Pace {
    /// Every change is followed by a look, after a while, and every failure by another one.
    Continuous { rng: Rng, backoff: Backoff },
    /// The program ends with one publish: it is followed by one look, at once.
    Once,
}

impl Schedule {
    /// Makes the schedule of a program that goes on.
    pub fn continuous(mut rng: Rng) -> Schedule {
        let backoff = Backoff::new(rng.fork());
        Schedule::new(Pace::Continuous { rng, backoff })
    }

    /// Makes the schedule of a program that ends with one publish.
    pub fn once() -> Schedule {
        Schedule::new(Pace::Once)
    }

    fn new(pace: Pace) -> Schedule {
        Schedule {
            due: None,
            written: None,
            pace,
        }
    }

    /// Returns the time of the next look.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Notes that the look has begun.
    pub fn began(&mut self) {
        self.due = None;
    }

    /// Plans a look, as the published files may have changed.
    pub fn changed(&mut self, now: Instant) {
        let delay = match &mut self.pace {
            Pace::Continuous { rng, .. } => jitter(rng, SETTLE_WITHIN),
            Pace::Once => Duration::ZERO,
        };
        let earliest = self.earliest(now);
        self.due.get_or_insert((now + delay).max(earliest));
    }

    /// Plans a look at once, as what was read is not to be written now.
    pub fn again(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Plans a look as soon as a write is possible, as a signal has interrupted the last one.
    pub fn interrupted(&mut self, now: Instant) {
        self.due = Some(self.earliest(now));
    }

    /// Plans a look after a failure, not before the API server's `wish`; none if the program ends.
    /// Every failure may pass: rights and tokens take a while to spread.
    pub fn failed(&mut self, wish: Duration, now: Instant) {
        let earliest = self.earliest(now);
        if let Pace::Continuous { backoff, .. } = &mut self.pace {
            let wait = backoff.failed(now).max(wish);
            self.due = Some((now + wait).max(earliest));
        }
    }

    /// Notes that the mirror is as it should be.
    pub fn succeeded(&mut self) {
        if let Pace::Continuous { backoff, .. } = &mut self.pace {
            backoff.reset();
        }
    }

    /// Notes a write. A look that became due during it has to wait, too.
    pub fn wrote(&mut self, at: Instant) {
        self.written = Some(at);
        self.due = self.due.map(|due| due.max(at + WRITE_EVERY));
    }

    fn earliest(&self, now: Instant) -> Instant {
        self.written.map_or(now, |written| written + WRITE_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_due_during_a_check_waits_for_a_second_after_its_write() {
        let now = Instant::now();
        let mut schedule = Schedule::continuous(Rng::with_seed(1));
        schedule.changed(now);
        assert!(schedule.due().is_some_and(|at| at <= now + SETTLE_WITHIN));
        let written = now + SETTLE_WITHIN;
        schedule.wrote(written);
        assert_eq!(schedule.due(), Some(written + WRITE_EVERY));
    }

    #[test]
    fn a_program_that_ends_with_one_publish_checks_once_and_at_once() {
        let now = Instant::now();
        let mut schedule = Schedule::once();
        schedule.changed(now);
        assert_eq!(schedule.due(), Some(now));
        schedule.began();
        schedule.failed(Duration::ZERO, now);
        assert_eq!(schedule.due(), None);
    }
}
