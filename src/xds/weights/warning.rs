//! Warnings about the objects that hold weights. Owns: the words of each. Must not: decide
//! anything, or log.

use std::fmt;

use super::host_weights::WeightSource;

/// A warning about an object. The caller adds the name of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A cluster that had traffic gets none, as the object does not list it.
    Unlisted {
        source: WeightSource,
        virtual_host: String,
        /// The cluster: `cluster NAME`, or `cluster_header NAME`.
        cluster: String,
    },
    /// A route keeps the ConfigMap's weights.
    KeepsOwn {
        /// The object that it would follow.
        source: WeightSource,
        virtual_host: String,
        /// The reason why it does not.
        why: Obstacle,
    },
    /// A route follows another object, which comes first.
    Overruled {
        source: WeightSource,
        /// The object that it follows.
        by: WeightSource,
        virtual_host: String,
    },
    /// A route could follow either of two rules that differ.
    Tied {
        /// The object of the rule that it follows, and the rule's index.
        source: (WeightSource, usize),
        /// The other object, and its rule's index.
        other: (WeightSource, usize),
        virtual_host: String,
    },
    /// No route in any file follows it.
    NoRoute {
        source: WeightSource,
        /// The virtual hosts that have clusters of its backends.
        hosts_beside: Vec<String>,
        /// A backend, if it is known that none of them has a cluster anywhere.
        backend: Option<String>,
    },
    /// No route in any file has a cluster for this backend.
    NoCluster {
        source: WeightSource,
        /// The backend without a cluster.
        backend: String,
    },
    /// No route in any file has the conditions of this rule.
    NoConditions {
        source: WeightSource,
        /// The rule's index.
        rule: usize,
    },
    /// Its cookies are not set.
    NoAffinity { source: WeightSource },
    /// Requests are not mirrored.
    NotMirrored {
        source: WeightSource,
        /// The backend that should get a copy.
        backend: String,
    },
}

/// The reason why a route keeps the ConfigMap's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The weights add up to 0, or to more than Envoy takes.
    Sum {
        /// The sum of the weights in this route.
        sum: u64,
        /// The backends that have no cluster in it.
        without_cluster: Vec<String>,
    },
    /// Every rule has conditions that the route does not have.
    Conditions,
    /// The rules differ, and none has a path that covers the route's.
    Paths,
    /// Two backends go by the name of this cluster.
    OneName(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Unlisted {
                source,
                virtual_host,
                cluster,
            } => write!(
                f,
                "{cluster} of virtual host {virtual_host} gets no more traffic: {source} does not \
                 list it"
            ),
            Warning::KeepsOwn {
                source,
                virtual_host,
                why,
            } => write!(
                f,
                "a route of virtual host {virtual_host} keeps its own weights: those of {source} \
                 {why}"
            ),
            Warning::Overruled {
                source,
                by,
                virtual_host,
            } => write!(
                f,
                "{source} is not applied to virtual host {virtual_host}: {by} comes first"
            ),
            Warning::Tied {
                source: (source, rule),
                other: (other, other_rule),
                virtual_host,
            } => write!(
                f,
                "rule {other_rule} of {other} is not applied to virtual host {virtual_host}: rule \
                 {rule} of {source} comes first, and they differ"
            ),
            Warning::NoRoute {
                source,
                hosts_beside,
                backend,
            } => {
                write!(f, "{source} applies to no route")?;
                if let Some(backend) = backend {
                    write!(
                        f,
                        "; no weighted cluster has the name of one of its backends, as {backend}"
                    )?;
                }
                if !hosts_beside.is_empty() {
                    let hosts = hosts_beside.join(", ");
                    write!(
                        f,
                        "; its backends are in virtual host {hosts}, whose name and domains are not \
                         the HTTPRoute's"
                    )?;
                }
                Ok(())
            }
            Warning::NoCluster { source, backend } => {
                write!(f, "{source}: no route has a cluster for {backend}")
            }
            Warning::NoConditions { source, rule } => write!(
                f,
                "rule {rule} of {source} is not applied: it holds for some requests only, and no \
                 route matches the same headers, query and method"
            ),
            Warning::NoAffinity { source } => write!(
                f,
                "{source} sets a cookie for session affinity, which is not done: in the ConfigMap, \
                 a hash_policy and use_hash_policy in weighted_clusters keep clients on one side"
            ),
            Warning::NotMirrored { source, backend } => write!(
                f,
                "{source} mirrors requests to {backend}, which is not done: the ConfigMap's route \
                 can do it by request_mirror_policies"
            ),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Sum {
                sum,
                without_cluster,
            } => {
                write!(f, "add up to {sum}")?;
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
            Obstacle::Conditions => f.write_str("are for other requests only"),
            Obstacle::Paths => f.write_str("differ by path, and no path of a rule covers it"),
            Obstacle::OneName(cluster) => {
                write!(f, "are of two backends by the one name {cluster}")
            }
        }
    }
}
