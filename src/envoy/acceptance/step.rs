//! The values that go into the acceptance, and those that come out of it.

use std::time::Instant;

use super::held::Content;
use crate::envoy::verdict::{Holdings, Subscription};
use crate::snapshot::{FileName, ObjectName};

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

/// The thing to do now, before anything else is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing: the next set may be published.
    Nothing,
    /// Waiting: no other set may be published yet.
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
