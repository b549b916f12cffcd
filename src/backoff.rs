//! How long to wait after a failure, for one object or for the whole API server: exponential with
//! full jitter, forgotten after a quiet while. Pure: time and randomness come in as values.
//!
//! | what has happened        | whose it is  | the next request goes out                        |
//! |--------------------------|--------------|--------------------------------------------------|
//! | no answer, or a 401      | the server's | after the [`Outage`]'s wait, 10 s at most; it is |
//! |                          |              | the only one until it is answered                |
//! | an answer of 429 or 5xx  | the object's | after its [`Backoff`]'s wait, 30 s at most, and  |
//! |                          |              | not before its Retry-After; any other's a second |
//! |                          |              | later, unless a better answer comes before       |
//! | any other answer         | nobody's     | at once: the outage is over                      |

use std::time::{Duration, Instant};

/// The first wait is drawn from zero to this (client-go's value).
const FIRST: Duration = Duration::from_millis(800);
/// No wait of an object's is drawn from a longer span (client-go's value).
const LONGEST: Duration = Duration::from_secs(30);
/// Nor one for a server that does not answer, which is asked once for all objects: what changes
/// counts so long after its return at the latest. A thousand clients make 200 tries a second then.
const LONGEST_AWAY: Duration = Duration::from_secs(10);
/// After an answer that says "not now" no request goes out for so long, whoever wants it, and up to
/// half as much again, so that many sidecars do not go on together.
const PACE: Duration = Duration::from_secs(1);
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
#[derive(Debug)]
pub struct Backoff {
    longest: Duration,
    failures: u32,
    last: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::up_to(LONGEST)
    }
}

impl Backoff {
    /// No wait is longer than this.
    pub fn up_to(longest: Duration) -> Backoff {
        Backoff {
            longest,
            failures: 0,
            last: None,
        }
    }

    /// It has worked for long enough: the next failure counts as the first.
    pub fn forget(&mut self) {
        (self.failures, self.last) = (0, None);
    }

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
        let span = self
            .longest
            .min(FIRST * 2u32.saturating_pow(self.failures.min(10)));
        self.failures += 1;
        let wait = random.up_to(span);
        // The quiet time begins when the wait ends, or a long wait would count as quiet.
        self.last = Some(now + wait);
        wait
    }
}

/// When requests may go out, for all of them together: while the server does not answer, one at a
/// time does, as a probe.
#[derive(Debug)]
pub struct Outage {
    backoff: Backoff,
    down: Option<Down>,
    /// It was answered "not now": no request goes out before this.
    paced: Option<Instant>,
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

impl Default for Outage {
    fn default() -> Outage {
        Outage {
            backoff: Backoff::up_to(LONGEST_AWAY),
            down: None,
            paced: None,
        }
    }
}

impl Outage {
    /// Whether a request may go out.
    pub fn permits(&self, now: Instant) -> bool {
        self.next_try().is_none_or(|at| at <= now)
    }

    /// Whether the server does not answer.
    pub fn is_on(&self) -> bool {
        self.down.is_some()
    }

    /// No request may go out before this.
    pub fn next_try(&self) -> Option<Instant> {
        self.down.as_ref().map(|down| down.next_try).max(self.paced)
    }

    /// When something is to be said.
    pub fn next_notice(&self) -> Option<Instant> {
        self.down.as_ref().map(|down| down.notices.next)
    }

    /// A request had no answer, or one that holds for all.
    pub fn failed(&mut self, now: Instant, random: &mut Random) -> Option<Notice> {
        let next_try = now + self.backoff.failed(now, random);
        self.paced = None;
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
        self.paced = None;
        let down = self.down.take()?;
        self.backoff.forget();
        Some(Notice::Over(
            now.saturating_duration_since(down.notices.since),
        ))
    }

    /// An answer tells the server's trouble, or is not understood before its end: the next request
    /// has time.
    pub fn pace(&mut self, now: Instant, random: &mut Random) {
        self.paced = Some(now + PACE + random.up_to(PACE / 2));
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

/// How long an answer may take: longer after each that took too long, so that a slow server is used.
#[derive(Debug, Default)]
pub struct Patience {
    late: u32,
    last: Option<Instant>,
}

impl Patience {
    /// An answer took too long.
    pub fn late(&mut self, now: Instant) {
        self.late = self.doublings(now) + 1;
        self.last = Some(now);
    }

    /// What takes `least` as a rule has this long now.
    pub fn within(&self, least: Duration, now: Instant) -> Duration {
        LONGEST.min(least * 2u32.pow(self.doublings(now)))
    }

    fn doublings(&self, now: Instant) -> u32 {
        let slow = |at: &Instant| now.saturating_duration_since(*at) <= SLOW_FOR;
        self.last.filter(slow).map_or(0, |_| self.late.min(5))
    }
}

/// A server that was slow this long ago may be fast again.
const SLOW_FOR: Duration = Duration::from_secs(600);

/// Whether something comes again and again: three times in a minute.
#[derive(Debug, Default)]
pub struct Repeats {
    /// When it came last, and before that.
    last: Option<Instant>,
    before: Option<Instant>,
    told: bool,
}

impl Repeats {
    /// It has come. True: that is to be said. It is said once, until it comes less often.
    pub fn count(&mut self, now: Instant) -> bool {
        let often = self
            .before
            .is_some_and(|at| now.saturating_duration_since(at) <= REPEATS_WITHIN);
        (self.before, self.last) = (self.last, Some(now));
        let told = std::mem::replace(&mut self.told, often);
        often && !told
    }
}

/// What comes for the third time within this comes again and again.
const REPEATS_WITHIN: Duration = Duration::from_secs(60);

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
        assert_eq!(outage.failed(start, &mut random), Some(Notice::Began));
        let mut told = Vec::new();
        for second in 0..3 * 3600 {
            let now = start + Duration::from_secs(second);
            if outage.permits(now) {
                assert_eq!(outage.failed(now, &mut random), None);
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
    fn a_server_that_does_not_answer_is_asked_again_within_ten_seconds_and_at_first_within_one() {
        let (start, mut random) = (Instant::now(), Random::new(1));
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            let (mut outage, mut now) = (Outage::default(), start);
            for failures in 0..20 {
                outage.failed(now, &mut random);
                let next = outage.next_try().unwrap();
                assert!(failures > 0 || next - now <= FIRST, "{:?}", next - now);
                longest = longest.max(next - now);
                now = next;
            }
            // The next outage is another one.
            outage.answered(now);
            outage.failed(now, &mut random);
            assert!(outage.permits(now + FIRST));
        }
        assert!((9..=10).contains(&longest.as_secs()), "{longest:?}");
    }

    #[test]
    fn an_answer_of_not_now_leaves_a_second_and_any_other_lets_all_ask() {
        let (now, mut random) = (Instant::now(), Random::new(1));
        let mut outage = Outage::default();
        outage.pace(now, &mut random);
        assert!(!outage.permits(now + Duration::from_millis(999)) && !outage.is_on());
        assert!(outage.permits(now + PACE + PACE / 2));
        assert_eq!(outage.answered(now), None);
        assert!(outage.permits(now));
        // What is not answered at all has its own time.
        outage.pace(now, &mut random);
        outage.failed(now, &mut random);
        assert!(outage.permits(now + FIRST));
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
    fn the_third_time_in_a_minute_is_told_once() {
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
