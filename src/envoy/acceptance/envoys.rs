//! One Envoy as far as it is known: what it counted last, and when it is asked next.

use std::time::{Duration, Instant};

use crate::envoy::stats::Stats;
use crate::envoy::verdict::Refusal;

/// The time between questions to an Envoy that is away.
pub const AWAY: Duration = Duration::from_secs(1);
/// The time between questions to one that has not finished its start.
pub const STARTING: Duration = Duration::from_millis(100);
/// The time for which an Envoy's state may be missing before it counts as hidden.
pub const STARTS_WITHIN: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was never asked.
    Unknown,
    /// It answers, but has not finished its start: since then.
    Starting(Instant),
    Up,
    Away,
}

/// The word of an Envoy about a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Accepted,
    Refused(Vec<Refusal>),
    NotRead,
    Unknown,
}

/// The things of a step that may take their time after Envoy has taken it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cold {
    Clusters,
    Listeners,
}

#[derive(Debug)]
pub struct Envoy {
    pub presence: Presence,
    /// Its counters at the last verdict; `None` if what it did since is not known.
    pub baseline: Option<Stats>,
    /// The time at which it is asked next.
    pub ask_at: Option<Instant>,
    /// A question is on its way; true if its answer tells nothing, as something was done meanwhile.
    pub asked: Option<bool>,
    pub told: Option<Told>,
    /// Its counters when it told of this step: the baseline of the next one.
    pub counted: Option<Stats>,
    /// It was asked about this step before.
    pub has_looked: bool,
    /// It has read this step and refused nothing so far, but these are not warm yet.
    pub cold: Option<Cold>,
    /// Nothing listens where it is asked: it has ended, or is about to start. If that lasts, it may
    /// as well run and be asked in the wrong place.
    pub is_gone: bool,
    /// The set on disk is to be announced, as it is not known whether it has taken that.
    pub needs_poke: bool,
    /// It has taken a whole set since it started.
    pub taken: bool,
    /// The reason why nothing is known.
    pub unclear: Option<(String, Instant)>,
    /// That was told.
    pub is_told: bool,
    /// The time at which its gauges of draining were read last, and whether they were 0.
    pub calm: Option<(Instant, bool)>,
}

impl Envoy {
    pub fn new(now: Instant) -> Envoy {
        Envoy {
            presence: Presence::Unknown,
            baseline: None,
            ask_at: Some(now),
            asked: None,
            told: None,
            counted: None,
            has_looked: false,
            cold: None,
            is_gone: false,
            needs_poke: false,
            taken: false,
            unclear: None,
            is_told: false,
            calm: None,
        }
    }

    /// Returns whether it cannot be given anything yet.
    pub fn is_away(&self) -> bool {
        matches!(self.presence, Presence::Away | Presence::Starting(_))
    }

    /// Returns whether it has answered, so that what follows may be its death.
    pub fn is_there(&self) -> bool {
        matches!(self.presence, Presence::Up | Presence::Starting(_))
    }

    /// Forgets what is known of a process that is gone, or may be.
    pub fn lose(&mut self) {
        (self.baseline, self.counted) = (None, None);
        (self.taken, self.cold) = (false, None);
        self.needs_poke = false;
        self.calm = None;
    }

    /// Forgets what it told of a step, as there is another one.
    pub fn begin_step(&mut self) {
        // Whether its answer is from before or after the step cannot be told.
        self.spoil();
        (self.told, self.counted) = (None, None);
        (self.has_looked, self.cold) = (false, None);
        if self.presence == Presence::Up {
            self.ask_at = None;
        }
    }

    /// Makes an answer that is on its way tell nothing.
    pub fn spoil(&mut self) {
        if let Some(spoilt) = &mut self.asked {
            *spoilt = true;
        }
    }

    /// Notes why nothing is known. Returns whether that is new.
    pub fn is_unclear(&mut self, why: &str, now: Instant) -> bool {
        let is_new = self.unclear.as_ref().is_none_or(|(known, _)| known != why);
        if is_new {
            let since = self.unclear.take().map_or(now, |(_, since)| since);
            self.unclear = Some((why.into(), since));
        }
        is_new
    }

    /// Returns for how long nothing has been known.
    pub fn unclear_for(&self, now: Instant) -> Duration {
        let since = self.unclear.as_ref().map_or(now, |(_, since)| *since);
        now.saturating_duration_since(since)
    }

    /// Notes that something is known. Returns whether it was told that nothing is.
    pub fn clear_up(&mut self) -> bool {
        self.unclear = None;
        std::mem::take(&mut self.is_told)
    }
}
