//! The list-watch of one object, or of one kind in a namespace, as a state machine: it decides what
//! to ask the API server next, and what its answers mean. Pure: the time and answers come in as
//! values, requests go out as values.
//!
//! ```text
//!             +-------- 410, error, lie, check differs ---------+
//!             v                                                 |
//!  start --> List --found--> Open(at) --headers--> Streaming ---+
//!             |  ^             ^                    |
//!      found, |  | check       +------- ended ------+
//!     polling v  | differs
//!            Resting
//! ```
//!
//! | state     | what holds                                    | leaves on                         |
//! |-----------|-----------------------------------------------|-----------------------------------|
//! | List      | what we know, if anything, may be old         | a list's answer                   |
//! | Open      | known as of `at`; later changes wait there    | a watch's headers, or its refusal |
//! | Streaming | changes arrive as they happen                 | the stream's end, in any form     |
//! | Resting   | known as of the last check (no `-watch`)      | a check that differs              |
//!
//! "Not now" (429, 5xx) leaves no state: the same request is made again, after a back-off of the
//! object's own; with no answer at all, when the outage says so.
//!
//! Beside it runs the consistency check, which lists metadata no later than a sync interval after
//! the stream's last event (five seconds more where bookmarks come as often as that). If it differs
//! from what the stream has reported, and still does two seconds later, the stream is closed.
//! Bookmarks put the check off, but not past the middle of the stream's time: a stream that sends
//! nothing else may have lost something. The time of the check outlives the stream: a new stream
//! puts it off only if the last one sent something, and where no stream can be opened, or none
//! lives, a list replaces it.

mod checks;
#[cfg(test)]
mod herd;
mod interface;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use checks::Checks;
pub use interface::{Failure, Input, ObjectVersions, Request, Stream, SyncMode};

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::backoff::{Backoff, jitter};
use crate::snapshot::ResourceVersion;

/// The time after which a watch is asked to end; up to half as much again is added, so that the
/// watches of many pods do not reopen together. Half of it, with a check in the middle, is the
/// shortest time between two requests while bookmarks arrive.
const WATCH_TIMEOUT: Duration = Duration::from_secs(480);
const WATCH_TIMEOUT_JITTER: Duration = Duration::from_secs(240);
/// The time past its end after which a stream is taken for dead.
const WATCH_GRACE: Duration = Duration::from_secs(10);
/// The age below which the end of a stream is a failure.
const MIN_WATCH_LIFETIME: Duration = Duration::from_secs(5);
/// The longest wait after such a stream: the next one brings what has changed within five seconds.
const REOPENED_WITHIN: Duration = Duration::from_secs(4);
/// The retry interval of `-onetime` for objects that are missing or forbidden: it has five seconds
/// for them, and the third wait of a back-off may be as long.
pub const RETRY_DENIED: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum State {
    /// The state is not known, or may be outdated. A list that arrives leads to `Open`, or to
    /// `Resting` without a watch; one that fails is made again.
    List {
        /// The time of the request.
        due: Instant,
    },
    /// Everything is known as of `at`, and later changes wait there for a watch. A watch that is
    /// granted leads to `Streaming`; a 410 or a refusal leads back to `List`.
    Open {
        at: ResourceVersion,
        /// The time of the request.
        due: Instant,
        /// True if the last watch could not be opened, or ended at once.
        failed: bool,
    },
    /// Changes arrive as they happen. The end of the stream leads to `Open`, as what was reported
    /// still holds; an error, or a check that finds missed changes, leads to `List`.
    Streaming {
        at: ResourceVersion,
        since: Instant,
        /// The time at which the stream is taken for dead.
        until: Instant,
    },
    /// Everything is known as of the last check, and nothing is watched. A check that differs leads
    /// to `List`.
    Resting,
}

/// A list-watch: its state, and what is known.
#[derive(Debug)]
pub struct ListWatch {
    rng: Rng,
    mode: SyncMode,
    state: State,
    /// The objects that are known to exist; empty before the first list.
    found: ObjectVersions,
    backoff: Backoff,
    /// The back-off of streams that end at once.
    reopens: Backoff,
    checks: Checks,
}

impl ListWatch {
    /// Makes a list-watch that wants a list at once.
    pub fn new(mode: SyncMode, mut rng: Rng, now: Instant) -> ListWatch {
        ListWatch {
            mode,
            state: State::List { due: now },
            found: ObjectVersions::new(),
            backoff: Backoff::new(rng.fork()),
            reopens: Backoff::up_to(REOPENED_WITHIN, rng.fork()),
            checks: Checks::new(mode, rng.fork(), now),
            rng,
        }
    }

    /// Returns the request to make now, if any. A check is returned once: the next one is due
    /// later.
    pub fn next_request(&mut self, now: Instant) -> Option<Request> {
        match &self.state {
            State::List { due } if *due <= now => Some(Request::List),
            State::Open { at, due, failed } if *due <= now => {
                if *failed && self.checks.take_list_instead(now) {
                    return Some(Request::List);
                }
                let lasts = WATCH_TIMEOUT + jitter(&mut self.rng, WATCH_TIMEOUT_JITTER);
                Some(Request::Watch(at.clone(), lasts))
            }
            State::List { .. } | State::Open { .. } => None,
            State::Streaming { .. } | State::Resting => {
                self.checks.take_due(now).then_some(Request::Check)
            }
        }
    }

    /// Returns whether only checks are wanted, as a stream is open or none is needed.
    pub fn is_settled(&self) -> bool {
        matches!(self.state, State::Streaming { .. } | State::Resting)
    }

    /// Returns whether a stream is open.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// Returns when `next_request` may return something new if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::List { due } | State::Open { due, .. } => Some(*due),
            State::Streaming { .. } | State::Resting => self.checks.due(),
        }
    }

    /// Returns when a `Tick` may close the stream if nothing else happens.
    pub fn expires(&self) -> Option<Instant> {
        match &self.state {
            State::Streaming { until, .. } => {
                let by = self.checks.missed_by();
                Some(by.map_or(*until, |by| by.min(*until)))
            }
            State::List { .. } | State::Open { .. } | State::Resting => None,
        }
    }

    /// Reacts to an event. Returns what becomes of the stream.
    pub fn step(&mut self, input: Input, now: Instant) -> Stream {
        match input {
            Input::Listed(at, found) => self.listed(at, found, now),
            Input::Opened(lasts) => self.opened(lasts, now),
            Input::Changed(name, version) => {
                let at = version.resource_version.clone();
                self.checks.on_reported(&name);
                self.found.insert(name, version);
                self.advance_to(at, now);
            }
            Input::Deleted(name, at) => {
                self.checks.on_reported(&name);
                self.found.remove(&name);
                self.advance_to(at, now);
            }
            Input::Bookmark(at) => {
                self.checks.on_bookmark();
                self.advance_to(at, now);
            }
            Input::Checked(found) => self.on_checked(found, now),
            Input::CheckFailed(failure) => self.on_check_failed(failure, now),
            Input::Ended => self.ended(now),
            Input::Failed(failure) => return self.failed(failure, now),
            Input::Tick => return self.tick(now),
        }
        Stream::Stays
    }

    fn listed(&mut self, at: ResourceVersion, found: ObjectVersions, now: Instant) {
        self.found = found;
        self.checks.on_listed(now);
        self.state = match self.mode {
            SyncMode::Watch(_) => State::Open {
                at,
                due: now,
                failed: false,
            },
            SyncMode::Once if self.found.is_empty() => State::List {
                due: now + RETRY_DENIED,
            },
            SyncMode::Once | SyncMode::Poll(_) => State::Resting,
        };
    }

    fn opened(&mut self, lasts: Duration, now: Instant) {
        if let State::Open { at, .. } = &self.state {
            self.state = State::Streaming {
                at: at.clone(),
                since: now,
                until: now + lasts + WATCH_GRACE,
            };
            self.checks.on_opened(lasts, now);
        }
    }

    /// Notes that the stream is alive and has come as far as `to`.
    fn advance_to(&mut self, to: ResourceVersion, now: Instant) {
        if let State::Streaming { at, .. } = &mut self.state {
            *at = to;
        }
        self.checks.on_event(now);
    }

    fn on_checked(&mut self, found: ObjectVersions, now: Instant) {
        let differ = self.checks.differing(&self.found, &found);
        match self.state {
            State::Streaming { .. } => self.checks.expect(differ, now),
            // No stream may live for long enough to be suspected.
            State::Resting | State::Open { .. } if !differ.is_empty() => self.relist(now),
            State::Resting | State::List { .. } | State::Open { .. } => {}
        }
    }

    fn on_check_failed(&mut self, failure: Failure, now: Instant) {
        let wait = match failure {
            // It is the probe that ends the outage, so it is made whatever the stream reports.
            Failure::Server => Duration::ZERO,
            Failure::Busy(wish) => self.backoff.failed(now).max(wish),
            // A list is refused, too, or finds what is there.
            Failure::Object if matches!(self.state, State::Open { .. } | State::Resting) => {
                let wait = self.backoff.failed(now);
                return self.relist(now + wait);
            }
            // The next check will tell.
            Failure::Gone | Failure::Object => return,
        };
        self.checks.on_failed(now + wait);
    }

    fn ended(&mut self, now: Instant) {
        let State::Streaming { at, since, .. } = &self.state else {
            return;
        };
        if self.checks.missed_by().is_some() {
            // It had no time left to deliver them.
            let wait = self.backoff.immediate_retry_once(now);
            return self.relist(now + wait);
        }
        let at = at.clone();
        let failed = now.saturating_duration_since(*since) < MIN_WATCH_LIFETIME;
        let wait = if failed {
            self.reopens.immediate_retry_once(now)
        } else {
            self.backoff.reset();
            Duration::ZERO
        };
        self.state = State::Open {
            at,
            due: now + wait,
            failed,
        };
    }

    fn failed(&mut self, failure: Failure, now: Instant) -> Stream {
        let stream = if self.is_streaming() {
            Stream::Closes
        } else {
            Stream::Stays
        };
        let wait = match failure {
            // The state wants the same request still.
            Failure::Server => {
                self.ended(now);
                self.put_off(now);
                return stream;
            }
            Failure::Busy(wish) => {
                let wait = self.backoff.failed(now).max(wish);
                self.put_off(now + wait);
                return Stream::Stays;
            }
            Failure::Gone => self.backoff.immediate_retry_once(now),
            Failure::Object => match self.mode {
                SyncMode::Once => RETRY_DENIED,
                SyncMode::Poll(_) | SyncMode::Watch(_) => self.backoff.failed(now),
            },
        };
        self.relist(now + wait);
        stream
    }

    /// Makes the request that has failed again, no sooner than this.
    fn put_off(&mut self, until: Instant) {
        match &mut self.state {
            State::List { due } => *due = until.max(*due),
            State::Open { due, failed, .. } => {
                *due = until.max(*due);
                *failed = true;
            }
            State::Streaming { .. } | State::Resting => {}
        }
    }

    /// Asks for a list by then, whatever is under way.
    pub fn relist(&mut self, due: Instant) {
        self.checks.forget_missed();
        self.state = State::List { due };
    }

    fn tick(&mut self, now: Instant) -> Stream {
        if self.checks.missed_by().is_some_and(|by| by <= now) {
            let wait = self.backoff.immediate_retry_once(now);
            self.relist(now + wait);
            return Stream::Closes;
        }
        match &self.state {
            State::Streaming { until, .. } if *until <= now => {
                self.ended(now);
                Stream::Closes
            }
            State::Streaming { .. } | State::List { .. } | State::Open { .. } | State::Resting => {
                Stream::Stays
            }
        }
    }
}
