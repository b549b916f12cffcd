//! TrafficSplits as weights. Owns: which of them cannot be applied. Pure.

use std::fmt;

use crate::kube::object::{BackendSpec, TrafficSplitSpec};
use crate::snapshot::ObjectName;
use crate::xds::weights::{Backend, HostWeights};

/// The reason why a split cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The weights apply to matching requests only.
    HasMatches,
    /// The service is empty.
    NoService,
    /// There is not a backend, or one has no name.
    NoBackend,
    /// The weight of this backend is negative or not a number.
    NoWeight(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::HasMatches => f.write_str("it has matches"),
            Unusable::NoService => f.write_str("it names no service"),
            Unusable::NoBackend => f.write_str("it names no backend"),
            Unusable::NoWeight(backend) => {
                write!(f, "the weight of {backend} is not a number from 0 up")
            }
        }
    }
}

/// Checks a split and brings its weights to whole numbers.
pub fn to_weights(name: ObjectName, spec: &TrafficSplitSpec) -> Result<HostWeights, Unusable> {
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
            None => backends.push(Backend::bare(service.clone(), weight)),
        }
    }
    Ok(HostWeights::of_split(name, spec.service.clone(), backends))
}
