//! The outcome of a merge, for the caller. Owns: what is said of an object that found nothing. Must
//! not: decide anything, or log.

use std::borrow::Cow;
use std::fmt;

use super::host_weights::{Backend, HostWeights, Rule, Unmet, WeightSource};
use super::matching::Match;
use super::warning::Warning;

/// The number of routes described in full in [`Merged::changes`]; a log line holds no more.
pub const CHANGES_KEPT: usize = 16;

/// The number of warnings kept for one file. A file of thousands of routes repeats itself.
pub const WARNINGS_KEPT: usize = 32;

/// The number of virtual hosts that are named where none follows an HTTPRoute: enough to see what
/// they have in common.
const HOSTS_BESIDE_KEPT: usize = 4;

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
    /// The matches of each object, in the order given.
    pub applied: Vec<Matches>,
    /// The first routes that follow one.
    pub changes: Vec<RouteWeights>,
    /// The number of routes beyond [`CHANGES_KEPT`].
    pub more_changes: usize,
    /// The first warnings, each once.
    pub warnings: Vec<Warning>,
    /// The number of warnings beyond [`WARNINGS_KEPT`].
    pub more_warnings: usize,
    /// The routes that should follow an object and cannot be edited: they have the text's own
    /// weights.
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
    /// The weights of the clusters; `None` if one is not certain.
    pub weights: Option<Vec<u32>>,
}

/// The matches of one object in a file. Add them up over all files to see what it found nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matches {
    /// The number of routes that follow it.
    pub routes: usize,
    /// The matches of each rule.
    pub rules: Vec<RuleMatches>,
    /// The first virtual hosts that do not follow an HTTPRoute and have clusters of its backends.
    pub hosts_beside: Vec<String>,
}

/// The matches of one rule in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMatches {
    /// True if a route of its hosts has equal conditions, whatever its path.
    pub has_conditions: bool,
    /// True, for each backend, if a route of its hosts has a cluster for it.
    pub has_cluster: Vec<bool>,
}

impl Matches {
    /// Makes the matches of an object that has found nothing.
    pub fn none(weights: &HostWeights) -> Matches {
        let rule = |rule: &Rule| RuleMatches {
            has_conditions: false,
            has_cluster: vec![false; rule.backends.len()],
        };
        Matches {
            routes: 0,
            rules: weights.rules.iter().map(rule).collect(),
            hosts_beside: Vec::new(),
        }
    }

    /// Adds what the same object found in another file.
    pub fn add(&mut self, other: &Matches) {
        self.routes += other.routes;
        for (rule, other) in self.rules.iter_mut().zip(&other.rules) {
            rule.has_conditions |= other.has_conditions;
            for (has, other) in rule.has_cluster.iter_mut().zip(&other.has_cluster) {
                *has |= other;
            }
        }
        for host in &other.hosts_beside {
            self.note_beside(host);
        }
    }

    /// Notes a virtual host that has clusters of its backends and does not follow it.
    pub(super) fn note_beside(&mut self, host: &str) {
        let is_known = self.hosts_beside.iter().any(|known| known == host);
        if self.hosts_beside.len() < HOSTS_BESIDE_KEPT && !is_known {
            self.hosts_beside.push(host.to_owned());
        }
    }

    /// Returns the warnings about what was found in no file.
    pub fn warnings(&self, weights: &HostWeights) -> Vec<Warning> {
        let source = || weights.source.clone();
        let found = |rule: &RuleMatches| rule.has_cluster.iter().any(|has| *has);
        if self.routes == 0 && !self.rules.iter().any(found) {
            let hosts_beside = self.hosts_beside.clone();
            // A TrafficSplit does not look beyond its own hosts.
            let is_nowhere = hosts_beside.is_empty() && !weights.is_split();
            let mut backends = weights.rules.iter().flat_map(|rule| &rule.backends);
            return vec![Warning::NoRoute {
                source: source(),
                hosts_beside,
                backend: backends.next().filter(|_| is_nowhere).map(Backend::label),
            }];
        }
        let mut warnings = Vec::new();
        let Unmet {
            sets_cookie,
            mirrors_to,
        } = &weights.unmet;
        if *sets_cookie {
            warnings.push(Warning::NoAffinity { source: source() });
        }
        for backend in mirrors_to {
            warnings.push(Warning::NotMirrored {
                source: source(),
                backend: backend.clone(),
            });
        }
        for (index, (rule, matches)) in weights.rules.iter().zip(&self.rules).enumerate() {
            let is_missed = found(matches) && !rule.is_general() && !matches.has_conditions;
            // A value of affinity's cookie is in no configuration.
            let is_affinity = *sets_cookie && rule.matches.iter().all(Match::wants_cookie);
            if is_missed && !is_affinity {
                warnings.push(Warning::NoConditions {
                    source: source(),
                    rule: index,
                });
            }
        }
        let backends = weights.rules.iter().flat_map(|rule| &rule.backends);
        let has_cluster = self.rules.iter().flat_map(|rule| &rule.has_cluster);
        let all: Vec<(String, bool)> = backends
            .zip(has_cluster)
            .map(|(backend, has)| (backend.label(), *has))
            .collect();
        for (backend, _) in &all {
            let warning = Warning::NoCluster {
                source: source(),
                backend: backend.clone(),
            };
            let has = all.iter().any(|(other, has)| *has && other == backend);
            if !has && !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }
}

/// A route with the weights of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteWeights {
    /// The object that it follows.
    pub source: WeightSource,
    /// The name of its virtual host.
    pub virtual_host: String,
    /// All clusters of the route, in order.
    pub clusters: Vec<ClusterWeight>,
}

/// A weighted cluster of such a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterWeight {
    /// Its name.
    pub cluster: String,
    /// The ConfigMap's weight; `None` unless there is one that is a whole number.
    pub old: Option<u32>,
    /// The weight that the object gives it.
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
