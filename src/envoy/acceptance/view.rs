//! Answers questions to the acceptance: of the plan, of a probe, of the drop, and of the next run.

use std::time::{Duration, Instant};

use super::envoys::{Envoy, Presence};
use super::{Acceptance, Content, DropGate, Hold, Phase, SetId, Status};

/// The least time between the switch of the routes and the drop: requests that are held in a filter
/// choose their cluster before, and need it after. Envoy's own default for a request is the same.
const DROPS_AFTER: Duration = Duration::from_secs(15);
/// The time between looks at connections that drain, and after which they are not waited for: a
/// listener drains for 600 s by default.
const LOOKS_AT_DRAIN: Duration = Duration::from_secs(5);
const DRAINS_WITHIN: Duration = Duration::from_secs(615);
/// The beginning of the line of a content that is being tried.
pub const TRYING: &str = "trying ";

impl Acceptance {
    /// Returns what must outlive the program, as lines. It is to be on disk before a step is
    /// committed.
    pub fn memory(&self) -> String {
        let mut text = self.held.to_text();
        let sequence = self.sequence.iter().filter(|_| self.restores);
        for content in sequence.flat_map(|sequence| &sequence.contents) {
            text += &format!("{TRYING}{content}\n");
        }
        text
    }

    /// Returns the same for a program that ends while Envoy lives: what is being tried has killed
    /// nobody.
    pub fn memory_at_end(&self) -> String {
        self.held.to_text()
    }

    /// Returns the last accepted set.
    #[cfg(test)]
    pub fn good(&self) -> Option<SetId> {
        self.good
    }

    /// Returns the sets that must stay on disk.
    pub fn keeps(&self) -> [Option<SetId>; 2] {
        let standing = self
            .sequence
            .as_ref()
            .and_then(|sequence| sequence.standing);
        [self.good, standing]
    }

    /// Returns whether a content may be published.
    pub fn holds(&self, content: &Content, now: Instant) -> Hold {
        if self.restores {
            self.held.holds(content, now)
        } else {
            Hold::No
        }
    }

    /// Takes note of the contents of all ConfigMaps where nothing is to be published: those that
    /// are not held are on disk.
    pub fn in_sync(&mut self, contents: &[Content], now: Instant) {
        let idle = matches!(self.phase, Phase::Idle) && self.sequence.is_none();
        if idle {
            self.was_back = false;
        }
        if idle && !self.held.is_empty() {
            let standing = contents.iter().filter(|it| self.holds(it, now) == Hold::No);
            let standing: Vec<Content> = standing.cloned().collect();
            self.held.forget(&standing);
        }
    }

    /// Returns whether no Envoy can be given anything yet.
    pub(super) fn is_down(&self) -> bool {
        !self.envoys.is_empty() && self.envoys.iter().all(Envoy::is_away)
    }

    /// Returns whether no Envoy runs, so that a target is published as one set. One that cannot be
    /// asked may still read the files.
    pub fn is_alone(&self) -> bool {
        let is_gone = |envoy: &Envoy| match envoy.presence {
            Presence::Away => envoy.is_gone,
            Presence::Starting(_) => true,
            Presence::Unknown | Presence::Up => false,
        };
        !self.envoys.is_empty() && self.envoys.iter().all(is_gone)
    }

    /// Returns whether an Envoy has taken a whole set since it started.
    pub fn has_taken(&self, envoy: usize) -> bool {
        self.envoys.get(envoy).is_some_and(|envoy| envoy.taken)
    }

    /// Notes that an earlier run has seen this very Envoy take a whole set.
    pub fn recall_taken(&mut self, envoy: usize, now: Instant) {
        if let Some(envoy) = self.envoys.get_mut(envoy) {
            envoy.taken = true;
            // It has not started anew.
            self.came_up = false;
        }
        if self.envoys.iter().all(|envoy| envoy.taken) {
            let suspects = std::mem::take(&mut self.suspects);
            self.held.spare(&suspects, now);
        }
    }

    /// Returns whether what has vanished may be dropped, where the routes were switched then.
    pub fn may_drop(&mut self, switched: Instant, now: Instant) -> DropGate {
        if !self.held.is_empty() {
            return DropGate::Closed(None);
        }
        let (from, until) = (switched + DROPS_AFTER, switched + DRAINS_WITHIN);
        if now < from {
            return DropGate::Closed(Some(from));
        }
        let mut known = self
            .envoys
            .iter_mut()
            .filter(|envoy| envoy.baseline.is_some())
            .peekable();
        if known.peek().is_none() {
            return DropGate::ByTime;
        }
        let mut next = None;
        for envoy in known.filter(|_| now < until) {
            let due = match envoy.calm {
                Some((at, true)) if at >= from => continue,
                Some((at, false)) if at >= from => at + LOOKS_AT_DRAIN,
                _ => now,
            };
            if envoy.ask_at.is_none() && envoy.asked.is_none() {
                envoy.ask_at = Some(due);
            }
            next = Some(next.map_or(due, |at: Instant| at.min(due)));
        }
        next.map_or(DropGate::Open, |at| DropGate::Closed(Some(at.max(now))))
    }

    /// Returns what a probe is told.
    pub fn status(&self) -> Status {
        let mut status = Status::Taken;
        for envoy in &self.envoys {
            match (&envoy.unclear, envoy.presence) {
                (Some((why, _)), Presence::Away) => return Status::Away(why.clone()),
                (None, Presence::Away) => return Status::Away("it does not answer".into()),
                _ if envoy.taken => {}
                (Some((why, since)), _) if self.refused.is_empty() => {
                    status = Status::Unknown(why.clone(), *since);
                }
                _ => status = Status::NothingTaken,
            }
        }
        match self.refused.first() {
            Some((file, counter)) if status != Status::Taken => {
                Status::Refused(file.clone(), counter.clone())
            }
            _ => status,
        }
    }
}
