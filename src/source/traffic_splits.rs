//! The TrafficSplits of one list-watch: a named one, or all of a namespace. Owns: which of them
//! count, for how long one that is gone still does, and what the operator hears of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::gather;
use crate::kube::object::{BackendSpec, Body, Object, TrafficSplitSpec};
use crate::kube::reflector::Event;
use crate::snapshot::{ObjectName, Version};
use crate::xds::weights::{Backend, Split};

/// A split that is gone counts this much longer: who replaces one deletes it first.
const DELETION_GRACE: Duration = Duration::from_secs(10);
/// That nobody serves splits which count is believed once it has been so for this long.
const BELIEVED_AFTER: Duration = Duration::from_secs(2);

/// What the cluster says of one list-watch's TrafficSplits.
#[derive(Debug)]
pub struct TrafficSplitStore {
    namespace: String,
    /// The one that is meant; `None`: all of the namespace.
    name: Option<String>,
    /// They have been read, or are known to be absent.
    known: bool,
    held: BTreeMap<String, Entry>,
    /// Since when nobody has served them.
    on_resource_missing: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    version: Version,
    /// As RFC 3339 has it: to be compared as text.
    created: String,
    /// What can be applied of it.
    split: Option<Split>,
    /// It is gone, and counts until then.
    expires_at: Option<Instant>,
}

impl TrafficSplitStore {
    /// Nothing is known yet.
    pub fn new(namespace: String, name: Option<String>) -> TrafficSplitStore {
        TrafficSplitStore {
            namespace,
            name,
            known: false,
            held: BTreeMap::new(),
            on_resource_missing: None,
        }
    }

    /// Whether they have been read, or are known to be absent.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Whether there is one that counts.
    pub fn has_splits(&self) -> bool {
        !self.held.is_empty()
    }

    /// Those that can be applied, the oldest first.
    pub fn usable(&self) -> Vec<&Split> {
        // Of equally old ones the first by name.
        let aged = self
            .held
            .iter()
            .map(|(name, held)| ((&held.created, name), held));
        let by_age: BTreeMap<_, _> = gather(aged);
        by_age
            .into_values()
            .filter_map(|held| held.split.as_ref())
            .collect()
    }

    /// Takes in what the cluster says.
    pub fn take(&mut self, observation: Event, now: Instant) {
        match observation {
            Event::Applied(object) => self.apply(object),
            Event::Deleted(name) => self.mark_deleted(|held| held == name, now),
            Event::Replaced(objects) => {
                if let (false, true, Some(name)) = (self.known, objects.is_empty(), &self.name) {
                    info!(trafficsplit = format!("{}/{name}", self.namespace);
                        "TrafficSplit not found; using the weights in the ConfigMaps");
                }
                self.known = true;
                let listed: Vec<String> = objects.iter().map(|o| o.name.clone()).collect();
                objects.into_iter().for_each(|object| self.apply(object));
                self.mark_deleted(|held| listed.iter().all(|name| name != held), now);
            }
            // Unknown is not absent.
            Event::Unavailable(_) | Event::Unusable => {}
        }
    }

    /// Somebody serves them.
    pub fn served(&mut self) {
        self.on_resource_missing = None;
    }

    /// Nobody serves them, as one answer has it. True: that is believed, so they are gone.
    pub fn on_resource_missing(&mut self, now: Instant) -> bool {
        let since = *self.on_resource_missing.get_or_insert(now);
        let believed = !self.has_splits() || now >= since + BELIEVED_AFTER;
        if believed {
            self.take(Event::Replaced(Vec::new()), now);
        }
        believed
    }

    fn apply(&mut self, object: Object) {
        let Body::TrafficSplit { created, spec } = object.body else {
            return;
        };
        let name = ObjectName {
            namespace: self.namespace.clone(),
            name: object.name.clone(),
        };
        let split = spec.and_then(|spec| {
            to_split(name.clone(), &spec).map_err(|unusable| unusable.to_string())
        });
        // A list tells again what is known.
        let known = self.held.get(&object.name);
        let known = known.is_some_and(|held| held.version == object.version);
        if let (Err(error), false) = (&split, known) {
            warn!(trafficsplit:% = name, resource_version:% = object.version.resource_version, error;
                "TrafficSplit cannot be applied; using the weights in the ConfigMaps");
        }
        self.held.insert(
            object.name,
            Entry {
                version: object.version,
                created,
                split: split.ok(),
                expires_at: None,
            },
        );
    }

    fn mark_deleted(&mut self, gone: impl Fn(&str) -> bool, now: Instant) {
        for (name, held) in &mut self.held {
            if gone(name) && held.expires_at.is_none() {
                info!(trafficsplit = format!("{}/{name}", self.namespace);
                    "TrafficSplit deleted; keeping its weights for 10 s");
                held.expires_at = Some(now + DELETION_GRACE);
            }
        }
    }

    /// When one that is gone no longer counts.
    pub fn deadline(&self) -> Option<Instant> {
        self.held.values().filter_map(|held| held.expires_at).min()
    }

    /// Lets go of what has been gone for long enough. True: there was something.
    pub fn tick(&mut self, now: Instant) -> bool {
        let count = self.held.len();
        self.held.retain(|name, held| {
            let stays = held.expires_at.is_none_or(|at| now < at);
            if !stays {
                warn!(trafficsplit = format!("{}/{name}", self.namespace);
                    "TrafficSplit still deleted; restoring the weights in the ConfigMaps");
            }
            stays
        });
        self.held.len() < count
    }
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

/// Checks a split and brings its weights to whole numbers.
pub fn to_split(name: ObjectName, spec: &TrafficSplitSpec) -> Result<Split, Unusable> {
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
