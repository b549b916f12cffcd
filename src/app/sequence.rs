//! The order in which a change reaches Envoy, as far as time matters. Pure: sets, the time and what
//! Envoy has read go in; the next set comes out. Owns: what is published in which step, and when
//! the next step is due.
//!
//! Each turn plans anew from what is on disk. What is remembered is small: the [`Gate`] before
//! routes that wait, the items that are [`Kept`], and which files have [`Readers`].
//!
//! | step | is published | then waits for |
//! |---|---|---|
//! | clusters | new files and those that routes need, with vanished clusters kept | the gate |
//! | routes | the target, with vanished clusters and files kept | Envoy's reading, then the grace |
//! | drop | the target | - |

mod gate;
mod kept;
mod plan;
mod readers;
mod removed;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::snapshot::{File, FileName};
use crate::sorted::SortedSet;
use crate::xds::sequence::{Former, kind_of};
use gate::{Arrivals, Gate, READING_MAX};
pub use kept::Dropped;
use kept::Kept;
pub use plan::{Overlay, Planned, Stage};
use readers::Readers;

/// The result of asking what is due by now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// True if another set is due.
    pub publish: bool,
    /// The files that are not waited for any more, as nobody reads them.
    pub unread: Vec<FileName>,
}

/// The routes that were published last, until Envoy has read them.
struct Settling {
    unread: SortedSet<FileName>,
    until: Instant,
}

/// The state of the sequence.
pub struct Sequence {
    kept: Kept,
    gate: Option<Gate>,
    settling: Option<Settling>,
    /// A file that is not waited for may find a reader again until then.
    listens_until: Option<Instant>,
    readers: Readers,
    former: Former,
    drain_time: Duration,
    /// The last set was written by another run, or not to its end.
    is_unsure: bool,
}

impl Sequence {
    /// Begins with nothing kept. `drain_time` is Envoy's.
    pub fn new(drain_time: Duration) -> Sequence {
        Sequence {
            kept: Kept::default(),
            gate: None,
            settling: None,
            listens_until: None,
            readers: Readers::default(),
            former: Former::default(),
            drain_time,
            is_unsure: true,
        }
    }

    /// Returns whether it counts who reads what is published, so that nobody else may.
    pub fn is_listening(&self) -> bool {
        self.is_waiting() || self.listens_until.is_some()
    }

    /// Returns whether Envoy has yet to read something.
    fn is_waiting(&self) -> bool {
        self.settling.is_some() || self.gate.as_ref().is_some_and(Gate::is_reading)
    }

    /// Returns whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.kept.is_empty() && self.gate.is_none() && self.settling.is_none()
    }

    /// Returns whether new clusters may be visible that nobody waits for.
    pub fn may_resume(&self) -> bool {
        self.is_unsure && self.gate.is_none()
    }

    /// Takes note that a set could not be written, or not to its end.
    pub fn on_failed(&mut self) {
        self.is_unsure = true;
    }

    /// Returns whether routes that have waited can be published.
    pub fn has_opened(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::is_open)
    }

    /// Returns whether routes wait to be published.
    pub fn holds_routes(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| !gate.held.is_empty())
    }

    pub fn deadline(&self) -> Option<Instant> {
        let gate = self.gate.as_ref().and_then(Gate::deadline);
        let settling = self.settling.as_ref().map(|settling| settling.until);
        let dues = gate.into_iter().chain(settling).chain(self.listens_until);
        dues.chain(self.kept.deadline()).min()
    }

    /// Takes note that a planned set is visible, or was already. `changed` are the files of it that
    /// Envoy has had with other contents.
    pub fn on_committed(&mut self, planned: &Planned, changed: &[FileName], now: Instant) {
        self.is_unsure = false;
        self.kept.on_committed();
        if let Some(former) = &planned.former {
            self.former = former.clone();
        }
        let is_expected = |name: &&FileName| self.readers.expects(name);
        let mut unread = SortedSet::new();
        unread.extend(changed.iter().filter(is_expected).cloned());
        if planned.is_watched && unread.len() < changed.len() {
            self.listens_until = Some(now + READING_MAX);
        }
        if planned.is_new {
            let all = planned.files.keys().filter(is_expected);
            let changed = unread.iter().chain(all.filter(|_| planned.resumes));
            let of_first = changed.filter(|name| is_first(planned, name));
            let arrivals = Arrivals {
                is_resumed: planned.resumes,
                unread: of_first.cloned().collect(),
                clusters: planned.clusters.clone(),
                warms: planned.warms,
            };
            self.gate = Some(Gate::close(self.gate.take(), arrivals, now));
        }
        if let Some(gate) = &mut self.gate {
            gate.held.clone_from(&planned.held);
        }
        self.gate.take_if(|gate| gate.is_done());
        if planned.stage == Stage::Clusters {
            return;
        }
        let files = &planned.files;
        self.readers
            .retain(|name| files.contains_key(name) || planned.standing.contains(name));
        if !self.kept.is_unsettled() {
            // A listener that changes alone drains once it is read.
            self.kept.settle(self.drain_time, now + READING_MAX);
            return;
        }
        let before = self.settling.take();
        let until = before.as_ref().map_or(now + READING_MAX, |s| s.until);
        unread.extend(before.into_iter().flat_map(|settling| settling.unread));
        if unread.is_empty() {
            self.kept.settle(self.drain_time, now);
        } else {
            self.settling = Some(Settling { unread, until });
        }
    }

    /// Takes note of a listener that has changed while nothing was under way.
    pub fn on_listener_moved(&mut self, now: Instant) {
        self.is_unsure = false;
        self.kept.listener_moves();
        // It drains once it is read.
        self.kept.settle(self.drain_time, now + READING_MAX);
    }

    /// Returns whether what referred to a kept file went with it.
    pub fn went_along(&self, file: &FileName) -> bool {
        self.kept.went_along(file)
    }

    /// Takes note of a listener that has changed so long ago, in an earlier run.
    pub fn recall_listener(&mut self, ago: Duration, now: Instant) {
        let lasts = self.drain_time + READING_MAX;
        self.kept.drains_for(lasts.saturating_sub(ago), now);
    }

    /// Notes that somebody has read these files.
    pub fn on_read(&mut self, names: &[FileName], now: Instant) -> Turn {
        let mut turn = Turn::default();
        for name in names {
            self.readers.on_read(name);
            if let Some(gate) = &mut self.gate {
                turn.publish |= gate.on_read(name, now) && !gate.held.is_empty();
            }
            if let Some(settling) = &mut self.settling {
                settling.unread.remove(name);
            }
        }
        self.gate.take_if(|gate| gate.is_done());
        if self.settling.as_ref().is_some_and(|s| s.unread.is_empty()) {
            self.settle(now);
        }
        turn
    }

    /// Does what is due. `watched`: readers are seen, so that a file without one is known to have
    /// none.
    pub fn tick(&mut self, watched: bool, now: Instant) -> Turn {
        let mut turn = Turn::default();
        let mut missed = SortedSet::new();
        self.listens_until.take_if(|until| *until <= now);
        if let Some(gate) = &mut self.gate {
            let (is_open, unread) = gate.tick(now);
            turn.publish |= is_open && !gate.held.is_empty();
            missed.extend(unread);
        }
        self.gate.take_if(|gate| gate.is_done());
        if let Some(settling) = self.settling.take_if(|settling| settling.until <= now) {
            missed.extend(settling.unread);
            self.kept.settle(self.drain_time, now);
        }
        if watched {
            let readers = &mut self.readers;
            turn.unread
                .extend(missed.into_iter().filter(|name| readers.on_missed(name)));
        }
        turn.publish |= self.kept.deadline().is_some_and(|at| at <= now);
        turn
    }

    /// Notes that Envoy has read the clusters that routes wait for, and that they are not warm by
    /// now. This is to be said again while it is so.
    pub fn on_cold(&mut self, now: Instant) {
        if let Some(gate) = &mut self.gate {
            gate.on_cold(now);
        }
    }

    /// Notes that Envoy has accepted the clusters that routes wait for, and that they are warm.
    pub fn on_accepted(&mut self) -> Turn {
        let mut turn = Turn::default();
        if let Some(gate) = &mut self.gate {
            turn.publish = gate.open() && !gate.held.is_empty();
        }
        self.gate.take_if(|gate| gate.is_done());
        turn
    }

    /// Returns since when connections may go on with an older listener.
    pub fn drains_since(&self) -> Option<Instant> {
        self.kept.drains_since()
    }

    /// Notes that no connection goes on with an older listener any more.
    pub fn on_drained(&mut self, now: Instant) {
        self.kept.on_drained(now);
    }

    fn settle(&mut self, now: Instant) {
        self.settling = None;
        self.kept.settle(self.drain_time, now);
    }

    /// Forgets everything, as the target is published as one set.
    pub fn reset(&mut self) {
        self.kept.clear();
        self.is_unsure = false;
        (self.gate, self.settling, self.listens_until) = (None, None, None);
    }
}

fn is_first(planned: &Planned, name: &FileName) -> bool {
    let file = planned.files.get(name);
    file.is_some_and(|File { bytes, .. }| kind_of(name, bytes).goes_first())
}
