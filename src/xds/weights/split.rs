//! A split of traffic, ready to be applied. Owns: which virtual hosts one applies to, and which
//! cluster is which backend's. Must not: read a configuration.

use super::service;
use crate::snapshot::ObjectName;

/// The weights of one service's backends, in whole numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The TrafficSplit.
    pub name: ObjectName,
    /// The service that clients name: `spec.service`.
    pub service: String,
    /// The backends in the order of `spec.backends`.
    pub backends: Vec<Backend>,
}

/// One of a split's backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service that gets a share.
    pub service: String,
    /// The weight, times 1000 for all backends if one of them has a fraction. It may be more than
    /// Envoy takes.
    pub weight: u64,
}

impl Split {
    /// Returns the service by its own name, as short as `spec.service` could have been.
    pub(super) fn root(&self, domain: &str) -> &str {
        service::of(&self.service, &self.name.namespace, domain)
    }

    /// Returns whether one of a virtual host's `domains` is this split's service.
    pub(super) fn has_host(&self, host: &str, domain: &str) -> bool {
        let root = self.root(domain);
        service::begins(host, root)
            && service::of(host, &self.name.namespace, domain).eq_ignore_ascii_case(root)
    }

    /// Returns the backend that a cluster stands for: the one of its name, else the one whose name it
    /// is with "_" for ".".
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

/// Decides that of several splits for one service the first counts: returns those that count, and
/// pairs of indexes (one that does not, the one that does instead of it) for a warning. `domain`
/// is the cluster's.
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
