//! The consistency checks of a list-watch: when the next one is due, and which changes the stream
//! has missed. Pure.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::interface::{ObjectVersions, SyncMode};
use crate::backoff::jitter;
use crate::sorted::SortedSet;

/// The time that a stream has to deliver what a check has found.
const CHECK_GRACE: Duration = Duration::from_secs(2);
/// The interval at which a real API server sends bookmarks, and a bound for it: 62 seconds were
/// seen.
const BOOKMARKS_EVERY: Duration = Duration::from_secs(60);
pub(super) const BOOKMARKED_WITHIN: Duration = Duration::from_secs(65);

/// The schedule of checks, and what the last one has found.
#[derive(Debug)]
pub struct Checks {
    rng: Rng,
    mode: SyncMode,
    next: Instant,
    /// The middle of a stream's time, the latest time of a check whatever streams report; `None`
    /// once that check is made.
    middle: Option<Instant>,
    /// True if the last stream has sent nothing.
    mute: bool,
    /// True if bookmarks arrive, as far as is known, so that a live stream is never silent for
    /// long.
    bookmarks_expected: bool,
    /// True if the last check failed.
    failed: bool,
    /// Objects that the stream reported after the last check was sent. The check's answer may be
    /// older, so it proves nothing about them.
    changed_since: SortedSet<String>,
    /// Objects in which a check differs from the stream, and the time by which it must report them.
    missed: Option<(Instant, SortedSet<String>)>,
}

impl Checks {
    /// Makes the schedule of a list-watch that has not listed yet.
    pub fn new(mode: SyncMode, rng: Rng, now: Instant) -> Checks {
        Checks {
            rng,
            mode,
            next: match mode {
                // A stream sets its own time.
                SyncMode::Once | SyncMode::Watch(_) => now,
                SyncMode::Poll(interval) => now + interval,
            },
            middle: None,
            mute: false,
            bookmarks_expected: true,
            failed: false,
            changed_since: SortedSet::new(),
            missed: None,
        }
    }

    /// Returns the time of the next check if the stream sends nothing more. There is none while
    /// changes are missed, which has a deadline of its own.
    pub fn due(&self) -> Option<Instant> {
        let is_made = self.mode != SyncMode::Once && self.missed.is_none();
        is_made.then_some(self.next)
    }

    /// Returns whether a check is due, and if so sets the time of the next one.
    pub fn take_due(&mut self, now: Instant) -> bool {
        if self.due().is_none_or(|at| now < at) {
            return false;
        }
        self.failed = false;
        self.changed_since.clear();
        match self.mode {
            SyncMode::Poll(interval) => {
                // Checks keep their phase, however late one is.
                let late = now.saturating_duration_since(self.next).as_nanos();
                let missed = late / interval.as_nanos().max(1);
                self.next += interval * (1 + u32::try_from(missed).unwrap_or(0));
                self.next = self.next.max(now);
            }
            SyncMode::Watch(interval) => {
                // This is the middle, or the bookmarks have stopped.
                self.bookmarks_expected &= self.middle.is_some_and(|at| at <= now);
                // A check shortly before the middle replaces that in the middle.
                let _ = self.middle.take_if(|at| *at <= now + interval);
                self.put_off(now);
            }
            SyncMode::Once => {}
        }
        true
    }

    /// Returns whether a list is to be made instead of a check, as no stream can be opened, and if
    /// so sets the time of the next one.
    pub fn take_list_instead(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            // If this list fails, too, the next one is made when a check would have been.
            self.failed = false;
            self.put_off(now);
        }
        is_due
    }

    /// Puts off the next check after a list, a check or an event of the stream.
    fn put_off(&mut self, now: Instant) {
        if let (SyncMode::Watch(interval), false) = (self.mode, self.failed) {
            // Pods that have heard the same do not check together. What a check finds is fetched
            // within an interval of half a minute or more.
            let mut silent = interval - interval / 16 - jitter(&mut self.rng, interval / 16 * 3);
            if self.bookmarks_expected && interval >= BOOKMARKS_EVERY {
                silent = silent.max(BOOKMARKED_WITHIN);
            }
            self.next = self.middle.map_or(now + silent, |at| at.min(now + silent));
        }
    }

    /// Notes a whole list, which a check made now could only repeat.
    pub fn on_listed(&mut self, now: Instant) {
        self.failed = false;
        self.missed = None;
        self.middle = None;
        self.put_off(now);
    }

    /// Notes that a stream is open, which ends after `lasts`.
    pub fn on_opened(&mut self, lasts: Duration, now: Instant) {
        self.middle.get_or_insert(now + lasts / 2);
        if !std::mem::replace(&mut self.mute, true) {
            self.put_off(now);
        }
    }

    /// Notes that the stream has sent something.
    pub fn on_event(&mut self, now: Instant) {
        self.mute = false;
        self.put_off(now);
    }

    /// Notes that the stream sends bookmarks. A bookmark names no object, so it does not clear a
    /// suspicion.
    pub fn on_bookmark(&mut self) {
        self.bookmarks_expected = true;
    }

    /// Notes that the stream has reported an object.
    pub fn on_reported(&mut self, name: &str) {
        self.changed_since.insert(name.to_owned());
        self.missed.take_if(|(_, names)| {
            names.remove(name);
            names.is_empty()
        });
    }

    /// Returns the objects in which a check that has `found` these differs from what is `known`.
    pub fn differing(&self, known: &ObjectVersions, found: &ObjectVersions) -> SortedSet<String> {
        let names = known.keys().chain(found.keys());
        let differs = |name: &&String| {
            !self.changed_since.contains(*name) && known.get(*name) != found.get(*name)
        };
        names.filter(differs).cloned().collect()
    }

    /// Gives the stream time to report these objects, if there are any.
    pub fn expect(&mut self, missed: SortedSet<String>, now: Instant) {
        self.missed = (!missed.is_empty()).then(|| (now + CHECK_GRACE, missed));
    }

    /// Returns the time by which the stream must report what it has missed.
    pub fn missed_by(&self) -> Option<Instant> {
        self.missed.as_ref().map(|(by, _)| *by)
    }

    /// Forgets what the stream has missed, as a list will bring it.
    pub fn forget_missed(&mut self) {
        self.missed = None;
    }

    /// Notes a failed check, which is made again at `next` whatever the stream reports.
    pub fn on_failed(&mut self, next: Instant) {
        self.next = next;
        self.failed = true;
    }
}
