//! The values that go into the acceptance, and those that come out of it.

use std::time::{Duration, Instant};

use super::held::Content;
use crate::envoy::verdict::{Holdings, Subscription};
use crate::snapshot::{FileName, ObjectName};

/// The time that new clusters and listeners have to become warm before the next set follows anyway.
const WARMS_WITHIN: Duration = Duration::from_secs(15);
/// The least time that those have which come while others of the kind are waited for, unless these
/// have been for twice the time above.
const WARMS_AT_LEAST: Duration = Duration::from_secs(2);

/// The number of a set on disk.
pub type SetId = u64;

/// The place of a set in its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// New clusters, with those that vanish.
    Clusters,
    /// The target, with the clusters that vanish; or the target itself, if it is one set.
    Routes,
    /// The target, without what has vanished.
    Drop,
    /// The set that stood before the sequence, again.
    Back,
    /// The set that is there, announced again file by file.
    Poke,
}

/// A file that a step changes or announces.
#[derive(Clone, Debug)]
pub struct Changed {
    pub file: FileName,
    /// The ConfigMap that it is from, with the hash of all that this holds.
    pub content: Content,
    /// The content is another than the one that was accepted last, and does not stand in for one
    /// that is held.
    pub is_new: bool,
    pub holdings: Holdings,
}

/// A set that is about to be committed, or to be announced again.
#[derive(Clone, Debug)]
pub struct Step {
    pub stage: Stage,
    pub set: SetId,
    /// It is announced again as an earlier run has left it: with new clusters, and the routes of
    /// before.
    pub is_half: bool,
    pub changed: Vec<Changed>,
}

impl Step {
    /// Returns whether routes follow once its clusters are warm.
    pub fn brings_clusters(&self) -> bool {
        self.stage == Stage::Clusters || self.is_half
    }

    /// Adds the files of an earlier step that is not judged yet, as both are judged as one.
    pub fn join(&mut self, earlier: Step) {
        for known in earlier.changed {
            let mut changed = self.changed.iter_mut();
            match changed.find(|it| it.file == known.file) {
                Some(it) => it.holdings.before.extend(known.holdings.before),
                None => self.changed.push(known),
            }
        }
    }
}

/// The time for which a step is judged.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub since: Instant,
    /// What is not warm is not waited for any longer.
    pub until: Instant,
    /// All clusters are waited for, as it is not known which were cold before.
    pub for_all_clusters: bool,
    /// Listeners are waited for, as they may not have asked for their routes yet.
    pub for_listeners: bool,
    /// Other steps were joined, so that counters that have moved may be those of the first.
    pub is_joined: bool,
}

impl Patience {
    pub fn new(step: &Step, now: Instant) -> Patience {
        Patience {
            since: now,
            until: now + WARMS_WITHIN,
            for_all_clusters: step.is_half,
            for_listeners: step.stage == Stage::Routes,
            is_joined: false,
        }
    }

    /// Returns the wait before an Envoy is asked again whether all is warm: most are within
    /// milliseconds.
    pub fn next_look(&self, now: Instant) -> Duration {
        Duration::from_millis(
            match now.saturating_duration_since(self.since).as_millis() {
                0..50 => 5,
                50..1000 => 50,
                _ => 500,
            },
        )
    }

    /// Waits for what a step brings that is judged with the ones before, too.
    pub fn join(&mut self, step: &Step, earlier: &Step, now: Instant) {
        self.is_joined = true;
        self.for_all_clusters |= step.is_half;
        self.for_listeners |= step.stage == Stage::Routes;
        let warms =
            |it: &Subscription| matches!(it, Subscription::Clusters | Subscription::Listeners);
        let mut holdings = step.changed.iter().flat_map(|it| &it.holdings.now);
        let time = if step.brings_clusters() && !earlier.brings_clusters() {
            WARMS_WITHIN
        } else if holdings.any(warms) {
            WARMS_AT_LEAST
        } else {
            return;
        };
        let latest = self.since + 2 * WARMS_WITHIN;
        self.until = self.until.max(latest.min(now + time));
    }
}

/// The thing to do now, before anything else is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    Nothing,
    /// Waiting for an answer, or for what is new to become warm.
    Wait,
    /// The set on disk is to be announced again, file by file, as a [`Stage::Poke`].
    Poke,
    /// This Envoy is to be asked why it has refused what these subscriptions hold.
    Reason(usize, Vec<Subscription>),
    /// This set is to be published again, as a [`Stage::Back`].
    Back(SetId),
}

/// Something that Envoy has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFile {
    pub files: Vec<FileName>,
    pub objects: Vec<ObjectName>,
    pub subscription: Subscription,
    /// The counter that says so.
    pub counter: String,
}

/// Something that the log should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Envoy has taken this set.
    Accepted(SetId),
    /// Envoy has taken what a set changes. What it had refused before is still there.
    AcceptedInPart,
    /// Envoy has taken what it had refused of these ConfigMaps.
    AcceptedAgain(Vec<ObjectName>),
    /// Envoy has refused this. If there is a set to go back to, that follows at once.
    Refused {
        what: Vec<RefusedFile>,
        /// Envoy's own words, cut.
        reason: Option<String>,
        restores: Option<SetId>,
        /// It has been refused before, and was tried again.
        again: bool,
    },
    /// The set before was refused, too: the configuration is not the cause.
    NotTheCause,
    /// These contents killed Envoy; if there is a set to go back to, that follows at once.
    Killed {
        objects: Vec<ObjectName>,
        restores: Option<SetId>,
    },
    /// It cannot be known whether this Envoy takes its files.
    Unknown { envoy: usize, why: String },
    /// That is over.
    KnownAgain { envoy: usize },
    /// No subscription of Envoy reads these files.
    NotRead(Vec<FileName>),
    /// Some clusters of this set are not warm yet.
    StillWarming(SetId),
    /// Some listeners of this set are not warm yet.
    ListenersStillWarming(SetId),
    /// Envoy has ignored so many unknown fields in these files.
    UnknownFields { count: u64, files: Vec<FileName> },
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Each Envoy has taken a whole set since it started.
    Taken,
    /// This file of the set on disk is refused, as this counter says.
    Refused(FileName, String),
    /// No set has been taken yet.
    NothingTaken,
    /// An Envoy does not answer.
    Away(String),
    /// Nothing is known since then, for this reason.
    Unknown(String, Instant),
}

/// The answer to whether the things that have vanished may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropGate {
    Open,
    /// Not yet; it is to be asked again then, or after the next answer.
    Closed(Option<Instant>),
    /// Envoy cannot be asked: time alone decides.
    ByTime,
}
