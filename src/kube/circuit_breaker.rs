//! The circuit breaker, which decides for all requests whether the API server may be asked now, and
//! the schedule of reminders of a lasting state. Pure: events and the time come in as values.
//!
//! | what has happened        | whose it is  | the next request goes out                        |
//! |--------------------------|--------------|--------------------------------------------------|
//! | no answer, or a 401      | the server's | after the breaker's wait, 10 s at most; it is    |
//! |                          |              | the only one until it is answered                |
//! | an answer of 429 or 5xx  | the object's | after its [`Backoff`]'s wait, 30 s at most, and  |
//! |                          |              | not before its Retry-After; any other's a second |
//! |                          |              | later, unless a better answer comes before       |
//! | any other answer         | none         | at once: the breaker closes                      |

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::backoff::{Backoff, jitter};

/// The longest wait for a server that does not answer, which is probed once for all objects: what
/// has changed arrives no later than this after its return. A thousand clients then make 200 tries
/// a second.
const MAX_PROBE_DELAY: Duration = Duration::from_secs(10);
/// The time without any request after an answer that says "not now"; up to half as much again is
/// added, so that many sidecars do not go on together.
const PACE: Duration = Duration::from_secs(1);
/// The times of the first reminders; later ones come hourly.
const REMIND_AFTER: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
];

/// A circuit breaker for all requests together: while the server does not answer, it lets one at a
/// time through as a probe.
#[derive(Debug)]
pub struct CircuitBreaker {
    rng: Rng,
    backoff: Backoff,
    down: Option<Down>,
    /// The end of the pause after an answer of "not now".
    paced: Option<Instant>,
}

/// An outage.
#[derive(Debug)]
struct Down {
    next_try: Instant,
    reminders: ReminderSchedule,
}

/// A stage of an outage that the operator should hear of.
#[derive(Debug, PartialEq, Eq)]
pub enum OutageEvent {
    /// It has begun.
    Began,
    /// It has gone on for this long, and a reminder is due.
    Continues(Duration),
    /// It is over after this long.
    Ended(Duration),
}

impl CircuitBreaker {
    /// Makes a closed breaker: every request may go out.
    pub fn new(mut rng: Rng) -> CircuitBreaker {
        CircuitBreaker {
            backoff: Backoff::up_to(MAX_PROBE_DELAY, rng.fork()),
            rng,
            down: None,
            paced: None,
        }
    }

    /// Returns whether a request may go out.
    pub fn allows(&self, now: Instant) -> bool {
        self.next_try().is_none_or(|at| at <= now)
    }

    /// Returns whether the server does not answer.
    pub fn is_open(&self) -> bool {
        self.down.is_some()
    }

    /// Returns the time before which no request may go out.
    pub fn next_try(&self) -> Option<Instant> {
        self.down.as_ref().map(|down| down.next_try).max(self.paced)
    }

    /// Returns the time of the next reminder.
    pub fn next_reminder(&self) -> Option<Instant> {
        self.down.as_ref().map(|down| down.reminders.next)
    }

    /// Counts a request that had no answer, or one that holds for all.
    pub fn on_failure(&mut self, now: Instant) -> Option<OutageEvent> {
        let next_try = now + self.backoff.failed(now);
        self.paced = None;
        match &mut self.down {
            Some(down) => {
                down.next_try = next_try;
                None
            }
            None => {
                self.down = Some(Down {
                    next_try,
                    reminders: ReminderSchedule::new(now, REMIND_AFTER[0]),
                });
                Some(OutageEvent::Began)
            }
        }
    }

    /// Lets a request out by then, however long the wait is that was drawn.
    pub fn retry_by(&mut self, by: Instant) {
        if let Some(down) = &mut self.down {
            down.next_try = down.next_try.min(by);
        }
    }

    /// Closes the breaker, as a request was answered.
    pub fn on_success(&mut self, now: Instant) -> Option<OutageEvent> {
        self.paced = None;
        let down = self.down.take()?;
        self.backoff.reset();
        Some(OutageEvent::Ended(
            now.saturating_duration_since(down.reminders.since),
        ))
    }

    /// Pauses before the next request, as an answer shows that the server is in trouble, or cannot
    /// be understood before its end.
    pub fn pace(&mut self, now: Instant) {
        self.paced = Some(now + PACE + jitter(&mut self.rng, PACE / 2));
    }

    /// Returns the reminder that is due, if any.
    pub fn reminder(&mut self, now: Instant) -> Option<OutageEvent> {
        self.down
            .as_mut()?
            .reminders
            .due(now)
            .map(OutageEvent::Continues)
    }
}

/// The schedule of reminders that something lasts: after 1, 5 and 15 minutes, then hourly.
#[derive(Debug)]
pub struct ReminderSchedule {
    since: Instant,
    /// The time of the next one.
    pub next: Instant,
}

impl ReminderSchedule {
    /// Makes the schedule of a state that began at `since`; the first reminder comes `first` later.
    pub fn new(since: Instant, first: Duration) -> ReminderSchedule {
        ReminderSchedule {
            since,
            next: since + first,
        }
    }

    /// Returns how long the state has lasted, if a reminder is due.
    pub fn due(&mut self, now: Instant) -> Option<Duration> {
        if now < self.next {
            return None;
        }
        let lasts = now.saturating_duration_since(self.since);
        let next = REMIND_AFTER.into_iter().find(|after| *after > lasts);
        let hours = (lasts.as_secs() / 3600 + 1) * 3600;
        self.next = self.since + next.unwrap_or(Duration::from_secs(hours));
        Some(lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::INITIAL_DELAY;

    #[test]
    fn an_outage_is_reported_when_it_begins_then_less_and_less_often_then_when_it_ends() {
        let start = Instant::now();
        let mut breaker = CircuitBreaker::new(Rng::with_seed(1));
        assert_eq!(breaker.on_failure(start), Some(OutageEvent::Began));
        let mut reported = Vec::new();
        for second in 0..3 * 3600 {
            let now = start + Duration::from_secs(second);
            if breaker.allows(now) {
                assert_eq!(breaker.on_failure(now), None);
            }
            if let Some(OutageEvent::Continues(lasts)) = breaker.reminder(now) {
                reported.push(lasts.as_secs());
            }
        }
        assert_eq!(reported, [60, 300, 900, 3600, 7200]);
        let end = start + Duration::from_secs(3 * 3600);
        assert_eq!(
            breaker.on_success(end),
            Some(OutageEvent::Ended(end - start))
        );
        assert!(breaker.allows(end) && breaker.next_reminder().is_none());
    }

    #[test]
    fn a_server_that_does_not_answer_is_asked_again_within_ten_seconds_and_at_first_within_one() {
        let start = Instant::now();
        let mut longest = Duration::ZERO;
        for seed in 0..100 {
            let (mut breaker, mut now) = (CircuitBreaker::new(Rng::with_seed(seed)), start);
            for failures in 0..20 {
                breaker.on_failure(now);
                let next = breaker.next_try().unwrap();
                assert!(
                    failures > 0 || next - now <= INITIAL_DELAY,
                    "{:?}",
                    next - now
                );
                longest = longest.max(next - now);
                now = next;
            }
            // The next breaker is another one.
            breaker.on_success(now);
            breaker.on_failure(now);
            assert!(breaker.allows(now + INITIAL_DELAY));
        }
        assert!((9..=10).contains(&longest.as_secs()), "{longest:?}");
    }

    #[test]
    fn an_answer_of_not_now_leaves_a_second_and_any_other_lets_all_ask() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::new(Rng::with_seed(1));
        breaker.pace(now);
        assert!(!breaker.allows(now + Duration::from_millis(999)) && !breaker.is_open());
        assert!(breaker.allows(now + PACE + PACE / 2));
        assert_eq!(breaker.on_success(now), None);
        assert!(breaker.allows(now));
        // What is not answered at all has its own time.
        breaker.pace(now);
        breaker.on_failure(now);
        assert!(breaker.allows(now + INITIAL_DELAY));
    }
}
