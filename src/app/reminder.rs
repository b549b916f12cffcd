//! Reports of a state that keeps something from going on: after a while, less and less often from
//! then on, and once when it is over.

use std::time::{Duration, Instant};

use crate::kube::circuit_breaker::ReminderSchedule;

/// The reports of one such state, from its beginning to its end.
pub struct Reminder {
    since: Instant,
    schedule: ReminderSchedule,
    /// True if there was a warning, so that the end is worth a line.
    was_given: bool,
}

impl Reminder {
    /// Makes the reports of a state that begins `now`; the first may come after `first`.
    pub fn new(now: Instant, first: Duration) -> Reminder {
        Reminder {
            since: now,
            schedule: ReminderSchedule::new(now, first),
            was_given: false,
        }
    }

    /// Returns when the next warning is due.
    pub fn next(&self) -> Instant {
        self.schedule.next
    }

    /// Returns for how many seconds the state has lasted, if a warning about it is due now. None is
    /// given if the operator `hears_elsewhere` what is wrong.
    #[must_use]
    pub fn due(&mut self, now: Instant, hears_elsewhere: bool) -> Option<u64> {
        let lasts = self.schedule.due(now)?;
        if hears_elsewhere {
            return None;
        }
        self.was_given = true;
        Some(lasts.as_secs())
    }

    /// Ends the state. Returns for how many seconds it lasted, if there was a warning about it.
    #[must_use]
    pub fn ended(self, now: Instant) -> Option<u64> {
        let lasted = now.saturating_duration_since(self.since);
        self.was_given.then_some(lasted.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(10);

    #[test]
    fn the_end_is_reported_only_of_a_state_that_was_warned_of() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut short = Reminder::new(start, FIRST);
        assert_eq!(short.due(after(9), false), None);
        assert_eq!(short.ended(after(9)), None);
        let mut long = Reminder::new(start, FIRST);
        assert_eq!(long.due(after(11), false), Some(11));
        assert_eq!(long.due(after(12), false), None);
        assert_eq!(long.ended(after(20)), Some(20));
    }

    #[test]
    fn a_warning_that_is_left_to_others_is_put_off_and_has_no_end_to_report() {
        let start = Instant::now();
        let mut reminder = Reminder::new(start, FIRST);
        assert_eq!(reminder.due(start + FIRST, true), None);
        assert!(
            reminder.next() > start + FIRST,
            "it would be due all the time"
        );
        assert_eq!(reminder.ended(start + 2 * FIRST), None);
    }
}
