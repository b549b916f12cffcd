//! List-watch as a state machine: what to ask the API server next, and what its answers mean.
//! Pure: time, randomness and answers come in as values, requests go out as values.
//!
//! ```text
//!             +--------- 410, error, lie, look differs ---------+
//!             v                                                 |
//!  start --> List --found--> Open(at) --headers--> Streaming ---+
//!             |  ^             ^                    |
//!      found, |  | look        +------- ended ------+
//!     polling v  | differs
//!            Resting
//! ```
//!
//! | state     | what holds                                    | leaves on                         |
//! |-----------|-----------------------------------------------|-----------------------------------|
//! | List      | what we know, if anything, may be old         | a list's answer                   |
//! | Open      | known as of `at`; later changes wait there    | a watch's headers, or its refusal |
//! | Streaming | changes arrive as they happen                 | the stream's end, in any form     |
//! | Resting   | known as of the last look (no `-watch`)       | a look that differs               |
//!
//! "Not now" (429, 5xx) leaves no state: the same request is made again, after a back-off of the
//! object's own; with no answer at all, when the outage says so.
//!
//! Beside it runs the safety look: metadata only, and no later than a sync interval after the stream
//! spoke last (five seconds more where bookmarks come as often as that). One that differs from what
//! a stream has told, and still does two seconds later, condemns that stream. Bookmarks that keep
//! coming put it off, but not past the middle of the stream's time: a stream that says nothing else
//! may have lost something. The time of the look outlives the stream: one that opens puts it off
//! only if the last one spoke, and where none can be opened, or none lives, a list takes its place.

#[cfg(test)]
mod herd;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::backoff::{Backoff, jitter};
use crate::gather;
use crate::snapshot::{ResourceVersion, Version};

/// A watch is asked to end after this and up to half as much again, so that the watches of many
/// pods do not reopen together. Half of it, with a look in the middle, is the least time between
/// two requests while bookmarks come.
const WATCH_TIMEOUT: Duration = Duration::from_secs(480);
const WATCH_TIMEOUT_JITTER: Duration = Duration::from_secs(240);
/// A stream this much older than it was asked to be is dead.
const WATCH_GRACE: Duration = Duration::from_secs(10);
/// A stream that ends younger than this has failed.
const MIN_WATCH_LIFETIME: Duration = Duration::from_secs(5);
/// The longest wait after such a stream: the next one brings what has changed within five seconds.
const REOPENED_WITHIN: Duration = Duration::from_secs(4);
/// How long a stream has to bring what a look has seen.
const CHECK_GRACE: Duration = Duration::from_secs(2);
/// How often a real API server sends bookmarks, and what it has been seen to stay below: 62 seconds.
const BOOKMARKS_EVERY: Duration = Duration::from_secs(60);
const BOOKMARKED_WITHIN: Duration = Duration::from_secs(65);
/// With `-onetime`, what is not there or not granted is asked for this often: there are five seconds
/// for it, and the back-off's third wait may be as long.
pub const RETRY_DENIED: Duration = Duration::from_millis(500);

/// The objects that a list-watch covers, by name: none or one, where it is for a single object.
pub type ObjectVersions = BTreeMap<String, Version>;

/// How changes are learned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Not at all; but what is absent is asked for again.
    Once,
    /// By a look every so often.
    Poll(Duration),
    /// By a watch, with a look every so often.
    Watch(Duration),
}

/// A request to make.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// List whole objects.
    List,
    /// Watch from here for so long.
    Watch(ResourceVersion, Duration),
    /// List metadata.
    Check,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A list has arrived, whole.
    Listed(ResourceVersion, ObjectVersions),
    /// A watch has been granted for so long.
    Opened(Duration),
    /// The stream tells of an object.
    Changed(String, Version),
    /// The stream tells that an object is gone, as of this resourceVersion.
    Deleted(String, ResourceVersion),
    /// The stream tells how far it has come.
    Bookmark(ResourceVersion),
    /// A look has arrived, whole.
    Checked(ObjectVersions),
    /// A look failed; how.
    CheckFailed(Failure),
    /// The stream ended, by rule or not.
    Ended,
    /// A request or a stream failed.
    Failed(Failure),
    /// Time passes.
    Tick,
}

/// How a request or a stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// For a reason that holds for all: the outage says when to go on.
    Server,
    /// Not now, says the server, and not before so long.
    Busy(Duration),
    /// The resourceVersion is too old.
    Gone,
    /// For a reason of this object's, or its answer was of no use.
    Object,
}

#[derive(Debug)]
enum State {
    List {
        due: Instant,
    },
    Open {
        at: ResourceVersion,
        due: Instant,
        /// It did not work the last time: it could not be opened, or it did not live.
        failed: bool,
    },
    Streaming {
        at: ResourceVersion,
        since: Instant,
        until: Instant,
    },
    Resting,
}

/// The list-watch of one object, or of one kind in a namespace.
#[derive(Debug)]
pub struct ListWatch {
    rng: Rng,
    manner: SyncMode,
    state: State,
    /// What we know to be there; meaningless before the first list.
    found: ObjectVersions,
    backoff: Backoff,
    /// Of streams that end at once.
    reopens: Backoff,
    next_check: Instant,
    /// The middle of a stream's time, by which to look at the latest whatever streams say; `None`:
    /// that is done.
    middle: Option<Instant>,
    /// The last stream has said nothing.
    mute: bool,
    /// Bookmarks come, as far as is known, so that a stream without news is not silent.
    bookmarks_expected: bool,
    /// The last look failed.
    check_failed: bool,
    /// The stream has told of these objects since the last look was asked for, whose answer may be
    /// older: what that says of them is no word against the stream.
    changed_since_check: BTreeSet<String>,
    /// A look differs from the stream: by then it must have told of these objects.
    missed_changes: Option<(Instant, BTreeSet<String>)>,
}

impl ListWatch {
    /// Wants a list at once.
    pub fn new(manner: SyncMode, mut rng: Rng, now: Instant) -> ListWatch {
        let next_check = match manner {
            // A stream sets its own time.
            SyncMode::Once | SyncMode::Watch(_) => now,
            SyncMode::Poll(interval) => now + interval,
        };
        ListWatch {
            manner,
            state: State::List { due: now },
            found: ObjectVersions::new(),
            backoff: Backoff::new(rng.fork()),
            reopens: Backoff::up_to(REOPENED_WITHIN, rng.fork()),
            rng,
            next_check,
            middle: None,
            mute: false,
            bookmarks_expected: true,
            check_failed: false,
            changed_since_check: BTreeSet::new(),
            missed_changes: None,
        }
    }

    /// The request to make now, if any.
    pub fn next_request(&mut self, now: Instant) -> Option<Request> {
        match &self.state {
            State::List { due } if *due <= now => Some(Request::List),
            // A list that fails, too, has its next turn when a look would have.
            State::Open { due, failed, .. } if *failed && *due <= now && self.next_check <= now => {
                self.check_failed = false;
                self.put_off_check(now);
                Some(Request::List)
            }
            State::Open { at, due, .. } if *due <= now => Some(Request::Watch(
                at.clone(),
                WATCH_TIMEOUT + jitter(&mut self.rng, WATCH_TIMEOUT_JITTER),
            )),
            State::List { .. } | State::Open { .. } => None,
            State::Streaming { .. } | State::Resting => {
                self.check_is_due(now).then_some(Request::Check)
            }
        }
    }

    /// Whether a look is due; the next one's time is set then.
    fn check_is_due(&mut self, now: Instant) -> bool {
        if self.check_due().is_none_or(|at| now < at) {
            return false;
        }
        self.check_failed = false;
        self.changed_since_check.clear();
        match self.manner {
            SyncMode::Poll(interval) => {
                // Looks keep their phase, however late one comes.
                let late = now.saturating_duration_since(self.next_check).as_nanos();
                let missed = late / interval.as_nanos().max(1);
                self.next_check += interval * (1 + u32::try_from(missed).unwrap_or(0));
                self.next_check = self.next_check.max(now);
            }
            SyncMode::Watch(interval) => {
                // It is the middle, or the bookmarks have stopped coming.
                self.bookmarks_expected &= self.middle.is_some_and(|at| at <= now);
                // One shortly before the middle serves for it.
                let _ = self.middle.take_if(|at| *at <= now + interval);
                self.put_off_check(now);
            }
            SyncMode::Once => {}
        }
        true
    }

    /// When to look, if a stream says nothing more. While one is suspected, it has its own time.
    fn check_due(&self) -> Option<Instant> {
        let looks = self.manner != SyncMode::Once && self.missed_changes.is_none();
        looks.then_some(self.next_check)
    }

    /// It has just been listed or looked at, or a stream has spoken.
    fn put_off_check(&mut self, now: Instant) {
        if let (SyncMode::Watch(interval), false) = (self.manner, self.check_failed) {
            // Many who have heard the same do not look together. What a look finds is fetched within
            // an interval of half a minute or more.
            let mut silent = interval - interval / 16 - jitter(&mut self.rng, interval / 16 * 3);
            if self.bookmarks_expected && interval >= BOOKMARKS_EVERY {
                silent = silent.max(BOOKMARKED_WITHIN);
            }
            self.next_check = self.middle.map_or(now + silent, |at| at.min(now + silent));
        }
    }

    /// Whether nothing but looks is wanted: a stream is open, or none is needed.
    pub fn is_settled(&self) -> bool {
        matches!(self.state, State::Streaming { .. } | State::Resting)
    }

    /// Whether a stream is open.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// When `wants` may have something new, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::List { due } | State::Open { due, .. } => Some(*due),
            State::Streaming { .. } | State::Resting => self.check_due(),
        }
    }

    /// When `Tick` may close the stream, if nothing else happens.
    pub fn expires(&self) -> Option<Instant> {
        match &self.state {
            State::Streaming { until, .. } => {
                let by = self.missed_changes.as_ref().map(|(by, _)| *by);
                Some(by.map_or(*until, |by| by.min(*until)))
            }
            State::List { .. } | State::Open { .. } | State::Resting => None,
        }
    }

    /// Takes in what happened. True: the stream, if there is one, is to be closed.
    pub fn step(&mut self, input: Input, now: Instant) -> bool {
        match input {
            Input::Listed(at, found) => self.listed(at, found, now),
            Input::Opened(lasts) => self.opened(lasts, now),
            Input::Changed(name, version) => {
                let at = version.resource_version.clone();
                self.mark_reported(&name);
                self.found.insert(name, version);
                self.advance_to(at, now);
            }
            Input::Deleted(name, at) => {
                self.mark_reported(&name);
                self.found.remove(&name);
                self.advance_to(at, now);
            }
            Input::Bookmark(at) => {
                self.bookmarks_expected = true;
                self.advance_to(at, now);
            }
            Input::Checked(found) => self.looked(found, now),
            Input::CheckFailed(failure) => self.look_failed(failure, now),
            Input::Ended => self.ended(now),
            Input::Failed(failure) => return self.failed(failure, now),
            Input::Tick => return self.tick(now),
        }
        false
    }

    fn listed(&mut self, at: ResourceVersion, found: ObjectVersions, now: Instant) {
        self.found = found;
        (self.check_failed, self.missed_changes, self.middle) = (false, None, None);
        self.put_off_check(now);
        self.state = match self.manner {
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
            self.middle.get_or_insert(now + lasts / 2);
            if !std::mem::replace(&mut self.mute, true) {
                self.put_off_check(now);
            }
        }
    }

    /// The stream is alive and has come as far as `to`.
    fn advance_to(&mut self, to: ResourceVersion, now: Instant) {
        if let State::Streaming { at, .. } = &mut self.state {
            *at = to;
        }
        self.mute = false;
        self.put_off_check(now);
    }

    /// The stream has told of an object. A bookmark tells of none: one that came past a change
    /// which a look has seen was a lie.
    fn mark_reported(&mut self, name: &str) {
        self.changed_since_check.insert(name.to_owned());
        self.missed_changes.take_if(|(_, names)| {
            names.remove(name);
            names.is_empty()
        });
    }

    fn looked(&mut self, found: ObjectVersions, now: Instant) {
        let names = self.found.keys().chain(found.keys());
        let differs = |name: &&String| {
            !self.changed_since_check.contains(*name) && self.found.get(*name) != found.get(*name)
        };
        let differ: BTreeSet<String> = gather(names.filter(differs).cloned());
        match self.state {
            State::Streaming { .. } => {
                self.missed_changes = (!differ.is_empty()).then(|| (now + CHECK_GRACE, differ));
            }
            // There may be no stream that lives for long enough to be suspected.
            State::Resting | State::Open { .. } if !differ.is_empty() => self.relist(now),
            State::Resting | State::List { .. } | State::Open { .. } => {}
        }
    }

    fn look_failed(&mut self, failure: Failure, now: Instant) {
        let wait = match failure {
            // It is the probe that ends the outage, so it is wanted whatever the stream says.
            Failure::Server => Duration::ZERO,
            Failure::Busy(wish) => self.backoff.failed(now).max(wish),
            // A list is refused, too, or tells what is there.
            Failure::Object if matches!(self.state, State::Open { .. } | State::Resting) => {
                let wait = self.backoff.failed(now);
                return self.relist(now + wait);
            }
            // The next look will tell.
            Failure::Gone | Failure::Object => return,
        };
        (self.next_check, self.check_failed) = (now + wait, true);
    }

    fn ended(&mut self, now: Instant) {
        let State::Streaming { at, since, .. } = &self.state else {
            return;
        };
        if self.missed_changes.is_some() {
            // There was no time left to clear it.
            let wait = self.backoff.immediate_retry_once(now);
            return self.relist(now + wait);
        }
        let (at, failed) = (
            at.clone(),
            now.saturating_duration_since(*since) < MIN_WATCH_LIFETIME,
        );
        let wait = match failed {
            true => self.reopens.immediate_retry_once(now),
            false => Duration::ZERO,
        };
        if !failed {
            self.backoff.reset();
        }
        self.state = State::Open {
            at,
            due: now + wait,
            failed,
        };
    }

    fn failed(&mut self, failure: Failure, now: Instant) -> bool {
        let streaming = matches!(self.state, State::Streaming { .. });
        let wait = match failure {
            // Whatever state wants the request wants it still.
            Failure::Server => {
                self.ended(now);
                self.put_off(now);
                return streaming;
            }
            Failure::Busy(wish) => {
                let wait = self.backoff.failed(now).max(wish);
                self.put_off(now + wait);
                return false;
            }
            Failure::Gone => self.backoff.immediate_retry_once(now),
            Failure::Object => match self.manner {
                SyncMode::Once => RETRY_DENIED,
                SyncMode::Poll(_) | SyncMode::Watch(_) => self.backoff.failed(now),
            },
        };
        self.relist(now + wait);
        streaming
    }

    /// The request that has failed is made again, no sooner than this.
    fn put_off(&mut self, until: Instant) {
        match &mut self.state {
            State::List { due } => *due = until.max(*due),
            State::Open { due, failed, .. } => (*due, *failed) = (until.max(*due), true),
            State::Streaming { .. } | State::Resting => {}
        }
    }

    /// Wants a list by then, whatever was under way.
    pub fn relist(&mut self, due: Instant) {
        self.missed_changes = None;
        self.state = State::List { due };
    }

    fn tick(&mut self, now: Instant) -> bool {
        if self
            .missed_changes
            .as_ref()
            .is_some_and(|(by, _)| *by <= now)
        {
            let wait = self.backoff.immediate_retry_once(now);
            self.relist(now + wait);
            return true;
        }
        match &self.state {
            State::Streaming { until, .. } if *until <= now => {
                self.ended(now);
                true
            }
            State::Streaming { .. } | State::List { .. } | State::Open { .. } | State::Resting => {
                false
            }
        }
    }
}
