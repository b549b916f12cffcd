//! How long to wait after a failure, for one object or for the whole API server: exponential with
//! full jitter, forgotten after a quiet while. Pure: time and randomness come in as values.

use std::time::{Duration, Instant};

/// The first wait is drawn from zero to this (client-go's value).
const FIRST: Duration = Duration::from_millis(800);
/// No wait is drawn from a longer span (client-go's value).
const LONGEST: Duration = Duration::from_secs(30);
/// A failure this long after the last one counts as the first again.
const QUIET: Duration = Duration::from_secs(120);

/// A small random generator (SplitMix64) for jitter; not for secrets.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same sequence.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A duration from zero to `span`, evenly.
    pub fn up_to(&mut self, span: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        // 32 bits of fraction are plenty for a wait.
        span.mul_f64((bits >> 32) as f64 / f64::from(u32::MAX))
    }
}

/// The waits of one thing that can fail.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// Counts a failure that deserves one more try at once, unless it comes again and again.
    pub fn stumbled(&mut self, now: Instant, random: &mut Random) -> Duration {
        if self.failures > 0 && !self.is_quiet(now) {
            return self.failed(now, random);
        }
        (self.failures, self.last) = (1, Some(now));
        Duration::ZERO
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) > QUIET)
    }

    /// Counts a failure at `now`; the wait before the next try.
    pub fn failed(&mut self, now: Instant, random: &mut Random) -> Duration {
        if self.is_quiet(now) {
            self.failures = 0;
        }
        let span = LONGEST.min(FIRST * 2u32.saturating_pow(self.failures.min(10)));
        self.failures += 1;
        let wait = random.up_to(span);
        // The quiet time begins when the wait ends, or a long wait would count as quiet.
        self.last = Some(now + wait);
        wait
    }
}

/// Whether the API server answers, for all requests together: while it does not, one request at a
/// time goes out as a probe.
#[derive(Debug, Default)]
pub struct Outage {
    backoff: Backoff,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    next_try: Instant,
    notices: Notices,
}

/// What the operator should be told of an outage.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// It begins.
    Began,
    /// It has gone on for this long.
    GoesOn(Duration),
    /// It is over, after this long.
    Over(Duration),
}

impl Outage {
    /// Whether a request may go out.
    pub fn permits(&self, now: Instant) -> bool {
        self.down.as_ref().is_none_or(|down| down.next_try <= now)
    }

    /// How long it has lasted; `None`: there is none.
    pub fn lasts(&self, now: Instant) -> Option<Duration> {
        self.down
            .as_ref()
            .map(|down| now.saturating_duration_since(down.notices.since))
    }

    /// No request may go out before this.
    pub fn next_try(&self) -> Option<Instant> {
        self.down.as_ref().map(|down| down.next_try)
    }

    /// When something is to be said.
    pub fn next_notice(&self) -> Option<Instant> {
        self.down.as_ref().map(|down| down.notices.next)
    }

    /// A request failed for a reason that holds for all. `retry_after`: the server's own wish.
    pub fn failed(
        &mut self,
        now: Instant,
        retry_after: Option<Duration>,
        random: &mut Random,
    ) -> Option<Notice> {
        let wait = self
            .backoff
            .failed(now, random)
            .max(retry_after.unwrap_or_default());
        let next_try = now + wait;
        match &mut self.down {
            Some(down) => {
                down.next_try = next_try;
                None
            }
            None => {
                self.down = Some(Down {
                    next_try,
                    notices: Notices::new(now, NOTICES[0]),
                });
                Some(Notice::Began)
            }
        }
    }

    /// A request may go out by then, whatever was drawn.
    pub fn hasten(&mut self, by: Instant) {
        if let Some(down) = &mut self.down {
            down.next_try = down.next_try.min(by);
        }
    }

    /// A request was answered.
    pub fn answered(&mut self, now: Instant) -> Option<Notice> {
        let down = self.down.take()?;
        Some(Notice::Over(
            now.saturating_duration_since(down.notices.since),
        ))
    }

    /// What is to be said by now.
    pub fn notice(&mut self, now: Instant) -> Option<Notice> {
        self.down.as_mut()?.notices.due(now).map(Notice::GoesOn)
    }
}

/// When to say again that something goes on: after 1, 5 and 15 minutes, then hourly.
#[derive(Debug)]
pub struct Notices {
    since: Instant,
    /// The next time.
    pub next: Instant,
}

impl Notices {
    /// Of something that goes on since then, and is said for the first time `first` later.
    pub fn new(since: Instant, first: Duration) -> Notices {
        let next = since + first;
        Notices { since, next }
    }

    /// How long it has gone on, when that is to be said.
    pub fn due(&mut self, now: Instant) -> Option<Duration> {
        if now < self.next {
            return None;
        }
        let lasts = now.saturating_duration_since(self.since);
        let next = NOTICES.into_iter().find(|after| *after > lasts);
        let hours = (lasts.as_secs() / 3600 + 1) * 3600;
        self.next = self.since + next.unwrap_or(Duration::from_secs(hours));
        Some(lasts)
    }
}

const NOTICES: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_thirty_seconds_and_forgets_after_two_quiet_minutes() {
        let (start, mut random) = (Instant::now(), Random::new(7));
        let mut longest = [Duration::ZERO; 9];
        for _ in 0..1000 {
            let (mut backoff, mut now) = (Backoff::default(), start);
            for most in &mut longest {
                let wait = backoff.failed(now, &mut random);
                *most = wait.max(*most);
                now += wait;
            }
            assert!(backoff.failed(now + QUIET + Duration::from_millis(1), &mut random) <= FIRST);
        }
        for (i, most) in longest.iter().enumerate() {
            let span = LONGEST.min(FIRST * 2u32.pow(i as u32));
            assert!(
                *most <= span && *most > span.mul_f64(0.97),
                "{i}: {most:?} of {span:?}"
            );
        }
    }
    #[test]
    fn a_stumble_is_free_unless_it_comes_again() {
        let (now, mut random) = (Instant::now(), Random::new(1));
        let mut backoff = Backoff::default();
        assert_eq!(backoff.stumbled(now, &mut random), Duration::ZERO);
        let wait = backoff.stumbled(now, &mut random);
        assert!(wait > Duration::ZERO);
        let later = now + wait + QUIET + Duration::from_secs(1);
        assert_eq!(backoff.stumbled(later, &mut random), Duration::ZERO);
    }

    #[test]
    fn an_outage_is_told_of_at_its_begin_then_less_and_less_often_then_at_its_end() {
        let (start, mut random) = (Instant::now(), Random::new(1));
        let mut outage = Outage::default();
        assert_eq!(outage.failed(start, None, &mut random), Some(Notice::Began));
        let mut told = Vec::new();
        for second in 0..3 * 3600 {
            let now = start + Duration::from_secs(second);
            if outage.permits(now) {
                assert_eq!(outage.failed(now, None, &mut random), None);
            }
            if let Some(Notice::GoesOn(lasts)) = outage.notice(now) {
                told.push(lasts.as_secs());
            }
        }
        assert_eq!(told, [60, 300, 900, 3600, 7200]);
        let end = start + Duration::from_secs(3 * 3600);
        assert_eq!(outage.answered(end), Some(Notice::Over(end - start)));
        assert!(outage.permits(end) && outage.next_notice().is_none());
    }

    #[test]
    fn the_server_s_wish_is_a_lower_bound() {
        let (now, mut random) = (Instant::now(), Random::new(1));
        let mut outage = Outage::default();
        outage.failed(now, Some(Duration::from_secs(40)), &mut random);
        assert!(!outage.permits(now + Duration::from_secs(39)));
        assert!(outage.permits(now + Duration::from_secs(40)));
    }
}
