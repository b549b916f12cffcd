//! The outcome of a merge, for the log and for the caller. Owns: the words of each warning. Must
//! not: decide anything, or log.

use std::borrow::Cow;
use std::fmt;

use super::split::{Backend, Split};
use crate::snapshot::ObjectName;

/// The number of routes described in full in [`Merged::changes`]; a log line holds no more.
pub const CHANGES_KEPT: usize = 16;

/// The number of warnings kept for one file. A file of thousands of routes repeats itself.
pub const WARNINGS_KEPT: usize = 32;

/// The place and the reason of a weight that cannot be edited without risk to what else the file
/// says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The line, from 1; 0 where it cannot be told.
    pub line: usize,
    /// The reason, without a full stop; never a value of the file.
    pub reason: Cow<'static, str>,
}

impl Refused {
    pub(super) fn new(line: u32, reason: impl Into<Cow<'static, str>>) -> Refused {
        Refused {
            line: line as usize,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.reason)
    }
}

/// The outcome for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file with its new weights; `None` where no byte changes.
    pub text: Option<String>,
    /// The matches of each split, in the order given.
    pub applied: Vec<SplitMatches>,
    /// The first routes that follow a split.
    pub changes: Vec<RouteWeights>,
    /// The number of routes beyond [`CHANGES_KEPT`].
    pub more_changes: usize,
    /// The first warnings, each once.
    pub warnings: Vec<Warning>,
    /// The number of warnings beyond [`WARNINGS_KEPT`].
    pub more_warnings: usize,
    /// The routes that should follow a split and cannot be edited: they have the text's own weights.
    pub left_out: Vec<LeftOut>,
}

/// A route that cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its index into [`super::weights`] of the same text; `None` if it was not even found.
    pub route: Option<usize>,
    pub why: Refused,
}

/// A route with weighted clusters, as it stands in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weighted {
    /// The name of its virtual host.
    pub virtual_host: String,
    /// The names of its clusters, in order.
    pub clusters: Vec<String>,
    /// Their weights; `None` if one is not certain.
    pub weights: Option<Vec<u32>>,
}

/// The matches of one split in a file. Add them up over all files to see what it found nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitMatches {
    /// The number of routes that follow it.
    pub routes: usize,
    /// True, for each backend, if a route that follows the split has a cluster for it.
    pub has_cluster: Vec<bool>,
}

impl SplitMatches {
    /// Makes the matches of a split that has found nothing.
    pub fn none(split: &Split) -> SplitMatches {
        SplitMatches {
            routes: 0,
            has_cluster: vec![false; split.backends.len()],
        }
    }

    /// Adds what the same split found in another file.
    pub fn add(&mut self, other: &SplitMatches) {
        self.routes += other.routes;
        for (has, other) in self.has_cluster.iter_mut().zip(&other.has_cluster) {
            *has |= other;
        }
    }

    /// Returns the warnings about what was found in no file.
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

/// A route with a split's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteWeights {
    /// The split that it follows.
    pub split: ObjectName,
    /// The name of its virtual host.
    pub virtual_host: String,
    /// All its clusters, in order.
    pub clusters: Vec<ClusterWeight>,
}

/// A weighted cluster of such a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterWeight {
    /// Its name.
    pub cluster: String,
    /// The ConfigMap's weight; `None` unless there is one that is a whole number.
    pub old: Option<u32>,
    /// The weight that the split gives it.
    pub new: u32,
}

impl fmt::Display for RouteWeights {
    /// Writes `podinfo: podinfo-primary 100->75 podinfo-canary 0->25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.virtual_host)?;
        for ClusterWeight { cluster, old, new } in &self.clusters {
            match old {
                Some(old) => write!(f, " {cluster} {old}->{new}")?,
                None => write!(f, " {cluster} ?->{new}")?,
            }
        }
        Ok(())
    }
}

/// A warning about a split. The caller adds the name of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A cluster that had traffic gets none, as the split does not list it.
    Unlisted {
        split: ObjectName,
        virtual_host: String,
        /// The cluster: `cluster NAME`, or `cluster_header NAME`.
        cluster: String,
    },
    /// A route keeps the ConfigMap's weights: the split's add up to 0, or to more than Envoy takes.
    KeepsOwn {
        split: ObjectName,
        virtual_host: String,
        /// The sum of the split's weights there.
        sum: u64,
        /// The backends that have no cluster in that route.
        without_cluster: Vec<String>,
    },
    /// A route follows another split, which was named before this one.
    Overruled {
        split: ObjectName,
        /// The split that it follows.
        by: ObjectName,
        virtual_host: String,
    },
    /// No route in any file follows the split.
    NoRoute { split: ObjectName },
    /// No route in any file has a cluster for this backend.
    NoCluster {
        split: ObjectName,
        /// The backend without a cluster.
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
                "{cluster} of virtual host {virtual_host} gets no more traffic: split \
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
