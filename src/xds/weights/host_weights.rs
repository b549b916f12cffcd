//! The weights that an object of the cluster gives to the routes of virtual hosts: the one model
//! under TrafficSplits and HTTPRoutes. Owns: which virtual hosts an object applies to, and which
//! cluster is which backend's. Must not: read a configuration.

use std::fmt;

use super::matching::Match;
use super::service;
use crate::snapshot::ObjectName;

/// The kinds of objects that hold weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightKind {
    /// TrafficSplit of SMI: one rule for a service.
    TrafficSplit,
    /// HTTPRoute of the Gateway API: several rules for several hosts.
    HttpRoute,
}

/// An object that holds weights.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeightSource {
    /// The kind of the object.
    pub kind: WeightKind,
    /// Its name.
    pub name: ObjectName,
}

impl fmt::Display for WeightKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WeightKind::TrafficSplit => "TrafficSplit",
            WeightKind::HttpRoute => "HTTPRoute",
        })
    }
}

impl fmt::Display for WeightSource {
    /// `TrafficSplit default/podinfo`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The weights of one object, in whole numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWeights {
    /// The object that they come from.
    pub source: WeightSource,
    /// The hosts whose routes they are for.
    pub hosts: Vec<HostName>,
    /// The rules, of which a route follows one.
    pub rules: Vec<Rule>,
    /// True if the object overrides a TrafficSplit even where it names a single cluster of a route,
    /// as the command line names it.
    pub is_named: bool,
    /// The other things that the object asks for, which Envoy's own configuration would have to do.
    pub unmet: Unmet,
}

/// The parts of an HTTPRoute that are not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmet {
    /// True if a response sets a cookie, as session affinity needs it.
    pub sets_cookie: bool,
    /// The backends that get a copy of the requests.
    pub mirrors_to: Vec<String>,
}

/// The host that clients name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// A service or a host name; it may begin with `*`.
    pub name: String,
    /// The service's namespace, if it is not that of the object: then the host has to say it.
    pub namespace: Option<String>,
}

/// One division of the traffic, for the requests that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The requests that it is for, in alternatives; empty for all requests.
    pub matches: Vec<Match>,
    /// The backends in the order of the object.
    pub backends: Vec<Backend>,
}

/// One of a rule's backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service that gets a share.
    pub service: String,
    /// The ways in which a cluster may be named after it.
    pub naming: Naming,
    /// The weight, times 1000 for all backends if one of them has a fraction. It may be more than
    /// Envoy takes.
    pub weight: u64,
    /// True if the object has another backend of this name, whose port or kind differs, so that
    /// nothing can tell whose a cluster of that name is.
    pub is_ambiguous: bool,
}

/// The ways in which a cluster may be named after a backend. In each, `_` may stand for every `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By its name alone.
    Bare,
    /// By its name, also with the namespace of the object behind it.
    Own,
    /// By its name with this namespace behind it.
    In(String),
}

impl HostWeights {
    /// Makes the weights of a TrafficSplit for this `service`.
    pub fn of_split(name: ObjectName, service: String, backends: Vec<Backend>) -> HostWeights {
        HostWeights {
            source: WeightSource {
                kind: WeightKind::TrafficSplit,
                name,
            },
            hosts: vec![HostName {
                name: service,
                namespace: None,
            }],
            rules: vec![Rule {
                matches: Vec::new(),
                backends,
            }],
            is_named: true,
            unmet: Unmet::default(),
        }
    }

    pub(super) fn is_split(&self) -> bool {
        self.source.kind == WeightKind::TrafficSplit
    }

    /// Returns each host by its own name, as short as it could have been written.
    pub(super) fn roots<'h>(&'h self, domain: &'h str) -> impl Iterator<Item = &'h str> {
        let namespace = &self.source.name.namespace;
        let root = move |host: &'h HostName| host.root(namespace, domain);
        self.hosts.iter().map(root)
    }

    /// Returns whether one of a virtual host's `domains` is one of the hosts.
    pub(super) fn has_host(&self, host: &str, domain: &str) -> bool {
        let namespace = &self.source.name.namespace;
        self.hosts
            .iter()
            .any(|name| name.is(host, namespace, domain))
    }

    /// Returns whether a virtual host's name is that of one of the hosts.
    pub(super) fn has_name(&self, name: &str, domain: &str) -> bool {
        match self.source.kind {
            WeightKind::TrafficSplit => self.hosts.iter().any(|host| {
                name == host.name || name == host.root(&self.source.name.namespace, domain)
            }),
            WeightKind::HttpRoute => self.has_host(service::bare(name), domain),
        }
    }

    /// Returns the index of the backend of one of its rules that a cluster stands for.
    pub(super) fn backend_of(&self, rule: usize, cluster: &str, domain: &str) -> Option<usize> {
        self.rules[rule].backend_of(cluster, &self.source.name.namespace, domain)
    }
}

impl HostName {
    fn root<'h>(&'h self, namespace: &str, domain: &str) -> &'h str {
        match self.namespace {
            None if !self.name.starts_with('*') => {
                service::of(service::bare(&self.name), namespace, domain)
            }
            _ => &self.name,
        }
    }

    /// Returns whether `host`, which is bare, is this one.
    fn is(&self, host: &str, namespace: &str, domain: &str) -> bool {
        let root = self.root(namespace, domain);
        if !service::begins(host, root) {
            return false;
        }
        let found = match &self.namespace {
            // A wildcard says the same only as a text.
            None if root.starts_with('*') => host,
            None => service::of(host, namespace, domain),
            Some(other) => service::of(host, other, domain),
        };
        let says_namespace = found.len() < host.len();
        (self.namespace.is_none() || says_namespace) && found.eq_ignore_ascii_case(root)
    }
}

impl Rule {
    /// Returns whether the rule is for all requests to some path.
    pub(super) fn is_general(&self) -> bool {
        self.matches.is_empty() || self.matches.iter().any(Match::is_general)
    }

    /// Returns the index of the backend that a cluster stands for: the one of its name, else the
    /// one whose name it is with "_" for ".". `namespace` is that of the object.
    fn backend_of(&self, cluster: &str, namespace: &str, domain: &str) -> Option<usize> {
        let is_exact = |b: &Backend| b.is_named(cluster, '.', namespace, domain);
        let is_flat = |b: &Backend| b.is_named(cluster, '_', namespace, domain);
        let exact = self.backends.iter().position(is_exact);
        exact.or_else(|| self.backends.iter().position(is_flat))
    }
}

impl Backend {
    /// Makes a backend whose clusters have its name alone, as those of a TrafficSplit.
    pub fn bare(service: String, weight: u64) -> Backend {
        Backend {
            service,
            naming: Naming::Bare,
            weight,
            is_ambiguous: false,
        }
    }

    /// Returns whether a cluster is named after this backend, with `dot` in place of each ".".
    fn is_named(&self, cluster: &str, dot: char, namespace: &str, domain: &str) -> bool {
        if self.naming == Naming::Bare && cluster.len() != self.service.len() {
            return false;
        }
        let Some(rest) = strip(cluster, &self.service, dot) else {
            return false;
        };
        let namespace = match &self.naming {
            Naming::Bare => return rest.is_empty(),
            Naming::Own if rest.is_empty() => return true,
            Naming::Own => namespace,
            Naming::In(other) => other,
        };
        let behind = |rest, label| strip(strip(rest, ".", dot)?, label, dot);
        let Some(rest) = behind(rest, namespace) else {
            return false;
        };
        let Some(rest) = behind(rest, "svc") else {
            return rest.is_empty();
        };
        rest.is_empty() || behind(rest, domain) == Some("")
    }

    /// Returns what the backend is called in messages.
    pub(super) fn label(&self) -> String {
        match &self.naming {
            Naming::Bare | Naming::Own => self.service.clone(),
            Naming::In(namespace) => format!("{}.{namespace}", self.service),
        }
    }
}

/// Returns what follows `prefix`, in which `dot` stands for each ".", at the beginning of `text`.
fn strip<'t>(text: &'t str, prefix: &str, dot: char) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    let same = |(b, c): (u8, u8)| c == if b == b'.' { dot as u8 } else { b };
    let same = prefix.bytes().zip(start.bytes()).all(same);
    same.then_some(rest)
}

/// Decides that of several TrafficSplits for one service the first counts: returns the inputs that
/// count, and pairs of indexes (one that does not, the one that does instead of it) for a warning.
/// Several HTTPRoutes may share a host, so that all of them do. `domain`: the cluster's.
pub fn resolve_conflicts<'s>(
    inputs: &[&'s HostWeights],
    domain: &str,
) -> (Vec<&'s HostWeights>, Vec<(usize, usize)>) {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for (index, input) in inputs.iter().enumerate() {
        let root = input.roots(domain).next().unwrap_or("");
        let same = |other: &&HostWeights| {
            other.is_split()
                && other.source.name.namespace == input.source.name.namespace
                && other
                    .roots(domain)
                    .any(|host| host.eq_ignore_ascii_case(root))
        };
        let winner = inputs[..index].iter().position(same);
        match winner.filter(|_| input.is_split()) {
            Some(winner) => later.push((index, winner)),
            None => first.push(*input),
        }
    }
    (first, later)
}
