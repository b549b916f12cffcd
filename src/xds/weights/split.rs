//! A TrafficSplit, ready to be applied. Owns: which splits can be applied at all, which virtual
//! hosts one applies to, and which cluster is which backend's. Must not: read a configuration.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::service;
use crate::kube::api::nullable;
use crate::kube::quantity::{self, Weight};
use crate::snapshot::ObjectName;

/// The weights of one service's backends, in whole numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The TrafficSplit.
    pub name: ObjectName,
    /// `spec.service`: the service that clients name.
    pub service: String,
    /// In the order of `spec.backends`.
    pub backends: Vec<Backend>,
}

/// One of a split's backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service that gets a share.
    pub service: String,
    /// Times 1000 for all backends where one of them has a fraction. May be over what Envoy takes.
    pub weight: u64,
}

/// `spec` of a TrafficSplit, any version, as JSON has it. What is empty is as good as missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// The root service.
    #[serde(deserialize_with = "nullable")]
    pub service: String,
    /// Who shares its traffic.
    pub backends: Option<Vec<BackendSpec>>,
    /// Only whether there are any matters.
    pub matches: Option<Vec<IgnoredAny>>,
}

/// One of `spec.backends`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BackendSpec {
    /// The service that gets a share.
    #[serde(deserialize_with = "nullable")]
    pub service: String,
    /// A number or a Quantity, 0 where it is absent; nothing where it is neither.
    #[serde(default = "quantity::absent", deserialize_with = "quantity::written")]
    pub weight: Option<Weight>,
}

/// Why a split is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Its weights hold for matching requests only.
    HasMatches,
    /// It says for no service.
    NoService,
    /// It lists no backend, or one without a name.
    NoBackend,
    /// This backend's weight is negative or no number.
    NoWeight(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::HasMatches => f.write_str("it has matches"),
            Unusable::NoService => f.write_str("it names no service"),
            Unusable::NoBackend => f.write_str("it names no backend"),
            Unusable::NoWeight(backend) => {
                write!(f, "the weight of {backend} is no number from 0 up")
            }
        }
    }
}

impl Split {
    /// Checks a split and brings its weights to whole numbers.
    pub fn new(name: ObjectName, spec: &Spec) -> Result<Split, Unusable> {
        if spec.matches.as_ref().is_some_and(|m| !m.is_empty()) {
            return Err(Unusable::HasMatches);
        }
        if spec.service.is_empty() {
            return Err(Unusable::NoService);
        }
        let listed = spec.backends.as_deref().unwrap_or_default();
        if listed.is_empty() || listed.iter().any(|b| b.service.is_empty()) {
            return Err(Unusable::NoBackend);
        }
        let mut weights = Vec::with_capacity(listed.len());
        for BackendSpec { service, weight } in listed {
            let weight = weight.ok_or_else(|| Unusable::NoWeight(service.clone()))?;
            weights.push((service, weight));
        }
        let scaled = weights.iter().any(|(_, weight)| weight.has_fraction());
        let mut backends: Vec<Backend> = Vec::with_capacity(weights.len());
        for (service, weight) in weights {
            let weight = weight.thousandths() / if scaled { 1 } else { 1000 };
            // A service that is listed twice gets both shares.
            match backends.iter_mut().find(|b| &b.service == service) {
                Some(backend) => backend.weight = backend.weight.saturating_add(weight),
                None => backends.push(Backend {
                    service: service.clone(),
                    weight,
                }),
            }
        }
        Ok(Split {
            name,
            service: spec.service.clone(),
            backends,
        })
    }

    /// The service by its own name, as short as `spec.service` could have been.
    pub(super) fn root(&self, domain: &str) -> &str {
        service::of(&self.service, &self.name.namespace, domain)
    }

    /// Whether one of a virtual host's `domains` is this split's service.
    pub(super) fn has_host(&self, host: &str, domain: &str) -> bool {
        let root = self.root(domain);
        service::begins(host, root)
            && service::of(host, &self.name.namespace, domain).eq_ignore_ascii_case(root)
    }

    /// The backend that a cluster stands for: the one of its name, else the one whose name it is
    /// with "_" for ".".
    pub fn backend_of(&self, cluster: &str) -> Option<usize> {
        let exact = self.backends.iter().position(|b| b.service == cluster);
        exact.or_else(|| {
            let same = |(b, c): (u8, u8)| c == if b == b'.' { b'_' } else { b };
            self.backends.iter().position(|b| {
                b.service.len() == cluster.len() && b.service.bytes().zip(cluster.bytes()).all(same)
            })
        })
    }
}

/// Of splits for one service the first counts: gives those that count, and pairs of indexes (one
/// that does not, the one that does instead of it) for a warning. `domain`: the cluster's.
pub fn resolve_conflicts<'s>(
    splits: &[&'s Split],
    domain: &str,
) -> (Vec<&'s Split>, Vec<(usize, usize)>) {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for (index, split) in splits.iter().enumerate() {
        let root = split.root(domain);
        let same = |other: &&&Split| {
            other.name.namespace == split.name.namespace
                && other.root(domain).eq_ignore_ascii_case(root)
        };
        match splits[..index].iter().position(|other| same(&other)) {
            Some(winner) => later.push((index, winner)),
            None => first.push(*split),
        }
    }
    (first, later)
}
