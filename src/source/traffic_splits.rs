//! A store holds the TrafficSplits of one list-watch: a named one, or all of a namespace. Owns: which
//! of them count, for how long a deleted one still does, and what the operator hears of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::gather;
use crate::kube::object::{BackendSpec, Body, Object, TrafficSplitSpec};
use crate::kube::reflector::Event;
use crate::logging::WarnOnce;
use crate::snapshot::ObjectName;
use crate::xds::weights::{Backend, HostWeights};

/// The time for which a deleted split still counts: a tool that replaces one deletes it first.
const DELETION_GRACE: Duration = Duration::from_secs(10);
/// The time after which splits that no server serves any more are taken as deleted.
const BELIEVED_AFTER: Duration = Duration::from_secs(2);

const NOT_FOUND: &str = "TrafficSplit not found; using the weights in the ConfigMaps";
const INVALID: &str = "TrafficSplit cannot be applied; using the weights in the ConfigMaps";
const DELETED: &str = "TrafficSplit still deleted; restoring the weights in the ConfigMaps";

/// The TrafficSplits of one list-watch, as the cluster said last.
#[derive(Debug)]
pub struct TrafficSplitStore {
    namespace: String,
    /// The one to follow; `None` for all of the namespace.
    name: Option<String>,
    /// True if they have been read, or are known to be absent.
    known: bool,
    entries: BTreeMap<String, Entry>,
    /// The time since which no server has served them.
    unserved_since: Option<Instant>,
    /// The reports of a split, by name, until it is valid.
    warned: BTreeMap<String, WarnOnce>,
}

#[derive(Debug)]
struct Entry {
    /// The time of creation in RFC 3339, which sorts as text.
    created: String,
    /// The weights to merge; `None` for a split that cannot be applied.
    split: Option<HostWeights>,
    /// The time at which the split stops counting, if it has been deleted.
    expires_at: Option<Instant>,
}

impl TrafficSplitStore {
    /// Makes a store that has not read anything yet.
    pub fn new(namespace: String, name: Option<String>) -> TrafficSplitStore {
        TrafficSplitStore {
            namespace,
            name,
            known: false,
            entries: BTreeMap::new(),
            unserved_since: None,
            warned: BTreeMap::new(),
        }
    }

    /// Returns whether the splits have been read, or are known to be absent.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Returns whether there is a split that counts.
    pub fn has_splits(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Returns the splits that can be applied, the oldest first.
    pub fn usable(&self) -> Vec<&HostWeights> {
        // Equally old ones are sorted by name.
        let aged = self
            .entries
            .iter()
            .map(|(name, entry)| ((&entry.created, name), entry));
        let by_age: BTreeMap<_, _> = gather(aged);
        by_age
            .into_values()
            .filter_map(|entry| entry.split.as_ref())
            .collect()
    }

    /// Takes in an event of the reflector.
    pub fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Applied(object) => self.apply(object, now),
            Event::Deleted(name) => self.mark_deleted(|known| known == name, now),
            Event::Replaced(objects) => {
                let is_absent = !self.known && objects.is_empty();
                let named = self.name.as_ref().filter(|_| is_absent);
                if let Some(name) = named
                    && news(&mut self.warned, name, NOT_FOUND, "", now)
                {
                    info!(trafficsplit = format!("{}/{name}", self.namespace); "{NOT_FOUND}");
                }
                self.known = true;
                let listed: Vec<String> = objects.iter().map(|o| o.name.clone()).collect();
                for object in objects {
                    self.apply(object, now);
                }
                self.mark_deleted(|known| listed.iter().all(|name| name != known), now);
            }
            // Unknown is not absent.
            Event::Unavailable(_) | Event::Unusable => {}
        }
    }

    /// Notes that a server serves TrafficSplits.
    pub fn served(&mut self) {
        self.unserved_since = None;
    }

    /// Notes an answer that TrafficSplits are not served. Returns whether that is believed, in which
    /// case they are taken as deleted.
    pub fn on_resource_missing(&mut self, now: Instant) -> bool {
        let since = *self.unserved_since.get_or_insert(now);
        let believed = !self.has_splits() || now >= since + BELIEVED_AFTER;
        if believed {
            self.take(Event::Replaced(Vec::new()), now);
        }
        believed
    }

    fn apply(&mut self, object: Object, now: Instant) {
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
        match &split {
            Ok(_) => {
                if let Some(mut warned) = self.warned.remove(&object.name) {
                    warned.clear(("trafficsplit", &name), "TrafficSplit is valid now", now);
                }
            }
            Err(error) => {
                let resource_version = &object.version.resource_version;
                // Another version is news even if it has the same fault.
                let reason = format!("{resource_version}: {error}");
                if news(&mut self.warned, &object.name, INVALID, &reason, now) {
                    warn!(trafficsplit:% = name, resource_version:%, error; "{INVALID}");
                }
            }
        }
        self.entries.insert(
            object.name,
            Entry {
                created,
                split: split.ok(),
                expires_at: None,
            },
        );
    }

    fn mark_deleted(&mut self, gone: impl Fn(&str) -> bool, now: Instant) {
        for (name, entry) in &mut self.entries {
            if gone(name) && entry.expires_at.is_none() {
                info!(trafficsplit = format!("{}/{name}", self.namespace);
                    "TrafficSplit deleted; keeping its weights for 10 s");
                entry.expires_at = Some(now + DELETION_GRACE);
            }
        }
    }

    /// Returns when the next deleted split stops counting.
    pub fn deadline(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| entry.expires_at)
            .min()
    }

    /// Forgets the splits that were deleted long enough ago. Returns whether there was one.
    pub fn tick(&mut self, now: Instant) -> bool {
        let count = self.entries.len();
        self.entries.retain(|name, entry| {
            let stays = entry.expires_at.is_none_or(|at| now < at);
            if !stays {
                warn!(trafficsplit = format!("{}/{name}", self.namespace); "{DELETED}");
                if self.name.is_some() {
                    let _ = news(&mut self.warned, name, DELETED, "", now);
                } else {
                    // A name may never come back, so that what is kept of names would only grow.
                    self.warned.remove(name);
                }
            }
            stays
        });
        self.entries.len() < count
    }
}

/// Notes a report about the split of this name. Returns whether it is not the one given last.
#[must_use]
fn news(
    warned: &mut BTreeMap<String, WarnOnce>,
    name: &str,
    message: &'static str,
    reason: &str,
    now: Instant,
) -> bool {
    let warned = warned.entry(name.to_owned()).or_default();
    warned.is_news(message, reason, now)
}

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
pub fn to_split(name: ObjectName, spec: &TrafficSplitSpec) -> Result<HostWeights, Unusable> {
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
