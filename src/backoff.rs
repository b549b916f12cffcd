//! The delay before a failed request is made again: exponential with full jitter, reset after a
//! while without failures. Pure: the time comes in as a value.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// The first wait is drawn from zero to this (client-go's value).
pub const INITIAL_DELAY: Duration = Duration::from_millis(800);
/// The longest span that a wait is drawn from (client-go's value).
const MAX_DELAY: Duration = Duration::from_secs(30);
/// A failure this long after the last one counts as the first again.
const RESET_AFTER: Duration = Duration::from_secs(120);

/// Draws a duration from zero to `span`, evenly.
pub fn jitter(rng: &mut Rng, span: Duration) -> Duration {
    span.mul_f64(rng.f64())
}

/// The waits of one thing that can fail.
#[derive(Debug)]
pub struct Backoff {
    rng: Rng,
    longest: Duration,
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// Makes the back-off of one object.
    pub fn new(rng: Rng) -> Backoff {
        Backoff::up_to(MAX_DELAY, rng)
    }

    /// Makes a back-off whose waits are no longer than `longest`.
    pub fn up_to(longest: Duration, rng: Rng) -> Backoff {
        Backoff {
            rng,
            longest,
            failures: 0,
            last: None,
        }
    }

    /// Counts the next failure as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.last = None;
    }

    /// Retries the first failure immediately; repeated failures back off.
    pub fn immediate_retry_once(&mut self, now: Instant) -> Duration {
        if self.failures > 0 && !self.is_quiet(now) {
            return self.failed(now);
        }
        self.failures = 1;
        self.last = Some(now);
        Duration::ZERO
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) > RESET_AFTER)
    }

    /// Counts a failure at `now`. Returns the wait before the next try.
    pub fn failed(&mut self, now: Instant) -> Duration {
        if self.is_quiet(now) {
            self.failures = 0;
        }
        let span = self
            .longest
            .min(INITIAL_DELAY * 2u32.saturating_pow(self.failures.min(10)));
        self.failures += 1;
        let wait = jitter(&mut self.rng, span);
        // The quiet time begins when the wait ends, or a long wait would count as quiet.
        self.last = Some(now + wait);
        wait
    }
}

/// The time an answer may take, which grows with each that took too long, so that a slow server can
/// be used.
#[derive(Debug, Default)]
pub struct Patience {
    late: u32,
    last: Option<Instant>,
}

impl Patience {
    /// Counts an answer that took too long.
    pub fn late(&mut self, now: Instant) {
        self.late = self.doublings(now) + 1;
        self.last = Some(now);
    }

    /// Returns the time for what usually takes `least`.
    pub fn within(&self, least: Duration, now: Instant) -> Duration {
        MAX_DELAY.min(least * 2u32.pow(self.doublings(now)))
    }

    fn doublings(&self, now: Instant) -> u32 {
        let slow = |at: &Instant| now.saturating_duration_since(*at) <= SLOW_FOR;
        self.last.filter(slow).map_or(0, |_| self.late.min(5))
    }
}

/// The time for which a late answer counts.
const SLOW_FOR: Duration = Duration::from_secs(600);

/// Finds out whether something happens again and again, which is three times in a minute.
#[derive(Debug, Default)]
pub struct Repeats {
    last: Option<Instant>,
    before: Option<Instant>,
    reported: bool,
}

impl Repeats {
    /// Counts it. Returns true if it should be reported, which is once until it happens less often.
    pub fn count(&mut self, now: Instant) -> bool {
        let often = self
            .before
            .is_some_and(|at| now.saturating_duration_since(at) <= REPEATS_WITHIN);
        self.before = self.last.replace(now);
        let reported = std::mem::replace(&mut self.reported, often);
        often && !reported
    }
}

/// The window in which three occurrences count as "again and again".
const REPEATS_WITHIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_thirty_seconds_and_forgets_after_two_quiet_minutes() {
        let start = Instant::now();
        let mut longest = [Duration::ZERO; 9];
        for seed in 0..1000 {
            let (mut backoff, mut now) = (Backoff::new(Rng::with_seed(seed)), start);
            for most in &mut longest {
                let wait = backoff.failed(now);
                *most = wait.max(*most);
                now += wait;
            }
            assert!(backoff.failed(now + RESET_AFTER + Duration::from_millis(1)) <= INITIAL_DELAY);
        }
        for (i, most) in longest.iter().enumerate() {
            let span = MAX_DELAY.min(INITIAL_DELAY * 2u32.pow(i as u32));
            assert!(
                *most <= span && *most > span.mul_f64(0.97),
                "{i}: {most:?} of {span:?}"
            );
        }
    }
    #[test]
    fn a_stumble_is_free_unless_it_comes_again() {
        let now = Instant::now();
        let mut backoff = Backoff::new(Rng::with_seed(1));
        assert_eq!(backoff.immediate_retry_once(now), Duration::ZERO);
        let wait = backoff.immediate_retry_once(now);
        assert!(wait > Duration::ZERO);
        let later = now + wait + RESET_AFTER + Duration::from_secs(1);
        assert_eq!(backoff.immediate_retry_once(later), Duration::ZERO);
    }

    #[test]
    fn an_answer_has_twice_as_long_after_one_that_was_late_up_to_half_a_minute() {
        let start = Instant::now();
        let mut patience = Patience::default();
        let seconds = |patience: &Patience, now| {
            let within = |least| patience.within(Duration::from_secs(least), now);
            [within(5).as_secs(), within(10).as_secs()]
        };
        for want in [[5, 10], [10, 20], [20, 30], [30, 30], [30, 30]] {
            assert_eq!(seconds(&patience, start), want);
            patience.late(start);
        }
        let later = start + SLOW_FOR + Duration::from_secs(1);
        assert_eq!(seconds(&patience, later), [5, 10]);
        patience.late(later);
        assert_eq!(seconds(&patience, later), [10, 20]);
    }

    #[test]
    fn the_third_time_in_a_minute_is_reported_once() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        let told = [0, 20, 60, 80, 100, 300, 310, 371, 380, 385].map(|second| {
            let tell = repeats.count(start + Duration::from_secs(second));
            tell.then_some(second)
        });
        let told: Vec<u64> = told.into_iter().flatten().collect();
        assert_eq!(told, [60, 385]);
    }
}
