//! TrafficSplits into route configurations: the weights of the routes that a split applies to are
//! replaced in the text's own bytes. Owns: which routes those are and what each text becomes. Must
//! not: do I/O or log; every warning is handed back.
//!
//! 1. A text that cannot concern any split is let through unread.
//! 2. `walk` reads the events once and gathers each virtual host's weighted clusters (`role` says
//!    where those stand); at its end `plan` decides its weights.
//! 3. `edit` writes them, and reads old and new in step to prove that nothing else changed.

mod edit;
mod plan;
mod role;
mod split;
mod walk;
mod weight;

use std::borrow::Cow;
use std::fmt;

pub use split::{Backend, BackendSpec, Spec, Split, Unusable, first_for_each_service};
pub use weight::{NoWeight, Weight};

use crate::resource::{FileName, ObjectName};
use plan::Plan;
use walk::{Stop, Walk};

/// Routes described in full in [`Merged::changes`]; a log line holds no more.
pub const CHANGES_KEPT: usize = 16;

/// Warnings kept for one file. A file of thousands of routes repeats itself.
pub const WARNINGS_KEPT: usize = 32;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file with its new weights; nothing where no byte changes.
    pub text: Option<String>,
    /// For each split, in the order given.
    pub applied: Vec<Applied>,
    /// The first routes that changed.
    pub changes: Vec<Change>,
    /// Different ones, the first of them.
    pub warnings: Vec<Warning>,
    /// Warnings beyond [`WARNINGS_KEPT`].
    pub more_warnings: usize,
}

/// What one split found in a file. Add them up over all files to see what it found nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Routes that follow it.
    pub routes: usize,
    /// Those of them that other weights stood in.
    pub changed: usize,
    /// For each backend, whether a route that follows the split has a cluster for it.
    pub has_cluster: Vec<bool>,
}

impl Applied {
    /// A split that has found nothing.
    pub fn none(split: &Split) -> Applied {
        Applied {
            routes: 0,
            changed: 0,
            has_cluster: vec![false; split.backends.len()],
        }
    }

    /// Adds what the same split found in another file.
    pub fn add(&mut self, other: &Applied) {
        self.routes += other.routes;
        self.changed += other.changed;
        for (has, other) in self.has_cluster.iter_mut().zip(&other.has_cluster) {
            *has |= other;
        }
    }

    /// The warnings about what was found in no file.
    pub fn warnings(&self, split: &Split) -> Vec<Warning> {
        let name = || split.name.clone();
        if self.routes == 0 {
            return vec![Warning::NoRoute { split: name() }];
        }
        let backends = split.backends.iter().zip(&self.has_cluster);
        let missing = backends.filter(|(_, has)| !**has);
        let warning = |(backend, _): (&Backend, _)| Warning::NoCluster {
            split: name(),
            backend: backend.service.clone(),
        };
        missing.map(warning).collect()
    }
}

/// A route that got other weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The split it follows.
    pub split: ObjectName,
    /// The virtual host it is in.
    pub virtual_host: String,
    /// All its clusters, in order.
    pub clusters: Vec<ClusterChange>,
}

/// A weighted cluster of a route that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterChange {
    /// Its name.
    pub cluster: String,
    /// The ConfigMap's weight; nothing where there is none, or none that is a whole number.
    pub old: Option<u32>,
    /// The split's.
    pub new: u64,
}

impl fmt::Display for Change {
    /// `podinfo: podinfo-primary 100->75 podinfo-canary 0->25`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.virtual_host)?;
        for ClusterChange { cluster, old, new } in &self.clusters {
            match old {
                Some(old) => write!(f, " {cluster} {old}->{new}")?,
                None => write!(f, " {cluster} ?->{new}")?,
            }
        }
        Ok(())
    }
}

/// What an operator should know about a split. The file is the caller's to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A cluster that had traffic gets none, as the split does not list it.
    Unlisted {
        /// The split.
        split: ObjectName,
        /// Where.
        virtual_host: String,
        /// Which.
        cluster: String,
    },
    /// A route keeps the ConfigMap's weights: the split's add up to 0, or to more than Envoy takes.
    KeepsOwn {
        /// The split.
        split: ObjectName,
        /// Where.
        virtual_host: String,
        /// Of the split's weights there.
        sum: u64,
        /// Backends that have no cluster in that route.
        without_cluster: Vec<String>,
    },
    /// A route follows another split, which was named before this one.
    Overruled {
        /// The split.
        split: ObjectName,
        /// The split that it follows.
        by: ObjectName,
        /// Where.
        virtual_host: String,
    },
    /// No route in any file follows it.
    NoRoute {
        /// The split.
        split: ObjectName,
    },
    /// No route in any file has a cluster for this backend.
    NoCluster {
        /// The split.
        split: ObjectName,
        /// Which.
        backend: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Unlisted {
                split,
                virtual_host,
                cluster,
            } => write!(
                f,
                "cluster {cluster} of virtual host {virtual_host} gets no more traffic: split \
                 {split} does not list it"
            ),
            Warning::KeepsOwn {
                split,
                virtual_host,
                sum,
                without_cluster,
            } => {
                write!(
                    f,
                    "a route of virtual host {virtual_host} keeps its own weights: those of split \
                     {split} add up to {sum}"
                )?;
                for (i, backend) in without_cluster.iter().enumerate() {
                    let lead = if i == 0 {
                        "; no cluster there for"
                    } else {
                        ","
                    };
                    write!(f, "{lead} {backend}")?;
                }
                Ok(())
            }
            Warning::Overruled {
                split,
                by,
                virtual_host,
            } => write!(
                f,
                "split {split} is not applied to virtual host {virtual_host}: split {by} comes \
                 first"
            ),
            Warning::NoRoute { split } => write!(f, "split {split} applies to no route"),
            Warning::NoCluster { split, backend } => {
                write!(f, "split {split}: no route has a cluster for {backend}")
            }
        }
    }
}

/// A split applies to this file, but not without risk to what else it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// From 1; 0 where it cannot be told.
    pub line: usize,
    /// Lower case, no full stop, no value of the file.
    pub reason: Cow<'static, str>,
}

impl Refused {
    fn new(line: u32, reason: impl Into<Cow<'static, str>>) -> Refused {
        Refused {
            line: line as usize,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// Merges `splits` into the text of file `name`; of two that want a route the earlier gets it.
/// Merging the result again changes nothing.
pub fn merge(name: &FileName, text: &str, splits: &[&Split]) -> Result<Merged, Refused> {
    if !matches!(name.extension(), "yaml" | "yml" | "json") || !may_concern(text, splits) {
        return Ok(Merged::untouched(Plan::new(splits)));
    }
    let mut plan = match Walk::new(text, Plan::new(splits)).run() {
        Ok(plan) => plan,
        Err(Stop::Refused(refused)) => return Err(refused),
        Err(Stop::Unreadable(refused)) if names_all_of_any(text, splits) => return Err(refused),
        Err(Stop::Unreadable(_)) => return Ok(Merged::untouched(Plan::new(splits))),
    };
    if plan.edits.is_empty() {
        return Ok(Merged::untouched(plan));
    }
    plan.edits.sort_unstable_by_key(|edit| edit.at);
    let merged = edit::apply(text, &plan.edits);
    edit::verify(text, &merged, &plan.edits)?;
    Ok(Merged {
        text: Some(merged),
        ..Merged::untouched(plan)
    })
}

impl Merged {
    fn untouched(plan: Plan<'_>) -> Merged {
        Merged {
            text: None,
            applied: plan.applied,
            changes: plan.changes,
            warnings: plan.warnings,
            more_warnings: plan.more_warnings,
        }
    }
}

/// Whether the words that a split needs are there at all, or could be, behind escapes.
fn may_concern(text: &str, splits: &[&Split]) -> bool {
    if splits.is_empty() {
        return false;
    }
    let escaped = text
        .as_bytes()
        .windows(2)
        .any(|pair| matches!(pair, [b'\\', b'x' | b'u' | b'U' | b'\n' | b'\r']));
    escaped
        // `weighted_clusters` or `weightedClusters`
        || text.contains("weighted") && splits.iter().any(|split| text.contains(&split.service))
}

/// Whether a text that cannot be read looks as if a split applied to it: the words stand there.
fn names_all_of_any(text: &str, splits: &[&Split]) -> bool {
    text.contains("weighted")
        && splits.iter().any(|split| {
            has_word(text, &split.service)
                && split.backends.iter().any(|backend| {
                    has_word(text, &backend.service)
                        || has_word(text, &backend.service.replace('.', "_"))
                })
        })
}

/// Whether `word` stands in `text`, and not only as part of a longer name.
fn has_word(text: &str, word: &str) -> bool {
    let in_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    text.match_indices(word).any(|(at, _)| {
        let before = text.as_bytes()[..at].last();
        let after = text.as_bytes().get(at + word.len());
        !before.is_some_and(in_name) && !after.is_some_and(in_name)
    })
}

#[cfg(test)]
mod tests;
