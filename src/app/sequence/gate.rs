//! Holds the routes until Envoy has read the clusters that are published for them. Pure.
//!
//! | state | ends | then |
//! |---|---|---|
//! | reading | each file is read, or after a second without more of them | warming, or open |
//! | warming | after two more seconds, less if more and more clusters come; with a verdict, once Envoy says that they are | open |
//! | open | the routes are published | - |

use std::time::{Duration, Instant};

use crate::snapshot::{FileName, Snapshot};
use crate::sorted::SortedSet;

/// The longest wait until what is published is read.
pub const READING_MAX: Duration = Duration::from_secs(1);
/// The wait for a new cluster that has to look up names or check health first.
const WARMING: Duration = Duration::from_secs(2);
/// The longest time that routes are held back while nothing is read, however many more clusters
/// come.
const HELD_MAX: Duration = Duration::from_secs(3);
/// The wait for such a cluster where routes have been held back for longer than that: most are of
/// use within some milliseconds, and more may come.
const WARMING_SHORT: Duration = Duration::from_millis(500);
/// After this time no cluster is waited for but until it is read.
const WARMING_MAX: Duration = Duration::from_secs(10);
/// The longest time that routes are held back where files are read, and more come each time before
/// all of them are.
const OVERTAKEN_MAX: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading { until: Instant },
    Warming { until: Instant },
    Open,
}

/// A gate before routes.
#[derive(Debug)]
pub struct Gate {
    state: State,
    /// Files that were published and not read since.
    unread: SortedSet<FileName>,
    /// The new clusters among them.
    pub clusters: SortedSet<String>,
    /// The clusters may not all be new: an earlier run has begun to wait.
    pub is_resumed: bool,
    warms: bool,
    /// The texts that wait.
    pub held: Snapshot,
    /// The time at which a file was read last, or the gate was closed.
    heard: Instant,
    /// The time at which routes first had to wait.
    since: Instant,
}

/// The contents of a step that the routes wait for.
pub struct Arrivals {
    /// True if an earlier run has begun to wait for them.
    pub is_resumed: bool,
    /// The files that somebody should read.
    pub unread: SortedSet<FileName>,
    pub clusters: SortedSet<String>,
    pub warms: bool,
}

impl Gate {
    /// Closes a gate, or leaves one closed that was so `before`.
    pub fn close(before: Option<Gate>, new: Arrivals, now: Instant) -> Gate {
        let mut gate = Gate {
            state: State::Reading {
                until: now + READING_MAX,
            },
            warms: new.warms && !new.unread.is_empty(),
            unread: new.unread,
            clusters: new.clusters,
            is_resumed: new.is_resumed,
            held: Snapshot::new(),
            heard: now,
            since: now,
        };
        if let Some(before) = before {
            if !before.held.is_empty() {
                gate.since = before.since;
                if before.state != State::Open {
                    gate.heard = before.heard;
                }
            }
            // A step that brings nothing new leaves it as it was.
            if gate.unread.is_empty() {
                gate.state = before.state;
            }
            if before.state != State::Open {
                gate.unread.extend(before.unread);
                gate.clusters.extend(before.clusters);
                gate.warms |= before.warms;
                gate.is_resumed |= before.is_resumed;
            }
        }
        gate.advance(now);
        gate
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Returns whether a file is yet to be read.
    pub fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading { .. })
    }

    /// Returns whether it is open and no routes wait.
    pub fn is_done(&self) -> bool {
        self.is_open() && self.held.is_empty()
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Reading { until } => Some(until.min(self.latest())),
            State::Warming { until } => Some(until),
            State::Open => None,
        }
    }

    /// Returns when it opens though files are unread of which more may come.
    fn latest(&self) -> Instant {
        (self.heard + HELD_MAX).min(self.since + OVERTAKEN_MAX)
    }

    /// Notes that a file was read. Returns whether that has opened the gate.
    pub fn on_read(&mut self, name: &FileName, now: Instant) -> bool {
        let is_news = self.unread.remove(name);
        if is_news {
            self.heard = now;
        }
        is_news && self.advance(now)
    }

    /// Closes it for some time, as Envoy says that clusters are not warm.
    pub fn on_cold(&mut self, now: Instant) {
        let until = now + WARMING;
        self.state = State::Warming { until };
        self.unread.clear();
    }

    /// Opens it. Returns whether it was closed.
    pub fn open(&mut self) -> bool {
        let was_closed = !self.is_open();
        self.state = State::Open;
        self.unread.clear();
        was_closed
    }

    /// Ends a wait that has lasted long enough. Returns whether that has opened the gate, and the
    /// files that nobody has read.
    pub fn tick(&mut self, now: Instant) -> (bool, SortedSet<FileName>) {
        let is_over = self.deadline().is_some_and(|at| at <= now);
        if !is_over {
            return (false, SortedSet::new());
        }
        let missed = std::mem::take(&mut self.unread);
        match self.state {
            State::Reading { .. } if now < self.latest() => (self.advance(now), missed),
            _ => {
                self.state = State::Open;
                (true, missed)
            }
        }
    }

    /// Goes on to the next state if nothing is left to be read. Returns whether the gate is open
    /// now.
    fn advance(&mut self, now: Instant) -> bool {
        if let State::Reading { .. } = self.state
            && self.unread.is_empty()
        {
            let least = (now + WARMING_SHORT).max(self.since + HELD_MAX);
            let until = (now + WARMING).min(least).min(self.since + WARMING_MAX);
            self.state = match self.warms && now < until {
                true => State::Warming { until },
                false => State::Open,
            };
        }
        self.is_open()
    }
}
