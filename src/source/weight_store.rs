//! A store holds the objects with weights of one list-watch: a named one, or all of a namespace.
//! Owns: which of them count, for how long a deleted one still does, and what the operator hears of
//! them.

mod messages;

use std::rc::Rc;
use std::time::{Duration, Instant};

use log::Level;
use log::kv::Value;

use super::{http_route, traffic_split};
use crate::kube::object::{Body, Object, ObjectKind};
use crate::kube::reflector::Event;
use crate::logging::{self, WarnOnce};
use crate::poll::Changed;
use crate::snapshot::ObjectName;
use crate::sorted::SortedMap;
use crate::xds::weights::HostWeights;
use messages::Messages;

/// The time for which a deleted object still counts, or the weights that one has lost: a tool that
/// replaces an object deletes it first, and one that applies a manifest without weights is followed
/// by the tool that owns them.
const DELETION_GRACE: Duration = Duration::from_secs(10);
/// The time after which objects that no server serves any more are taken as deleted.
const BELIEVED_AFTER: Duration = Duration::from_secs(2);

/// The consequence of an answer that the kind of the objects is not served.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is not trusted yet, and the objects still count.
    Doubted,
    /// The objects are taken as deleted.
    Believed,
}

/// The objects of one list-watch, as the cluster said last.
pub struct WeightStore {
    kind: ObjectKind,
    namespace: String,
    /// The one to follow; `None` for all of the namespace.
    name: Option<String>,
    /// The ConfigMaps that an HTTPRoute may be attached to.
    configmaps: Rc<[ObjectName]>,
    /// True if they have been read, or are known to be absent.
    known: bool,
    entries: SortedMap<String, Entry>,
    /// The time since which no server has served them.
    unserved_since: Option<Instant>,
    /// The reports of an object, by name, until it is valid.
    warned: SortedMap<String, WarnOnce>,
}

#[derive(Debug)]
struct Entry {
    /// The time of creation in RFC 3339, which sorts as text.
    created: String,
    /// The weights to merge; `None` for an object that cannot be applied.
    weights: Option<HostWeights>,
    /// The time at which the object stops counting, if it has been deleted.
    expires_at: Option<Instant>,
    /// The weights that the object has been reset to, and when they count.
    reset: Option<(HostWeights, Instant)>,
}

impl WeightStore {
    /// Makes a store that has not read anything yet. An HTTPRoute that is not named counts if it is
    /// attached to a Service or to one of the `configmaps`.
    pub fn new(
        kind: ObjectKind,
        namespace: String,
        name: Option<String>,
        configmaps: Rc<[ObjectName]>,
    ) -> WeightStore {
        WeightStore {
            kind,
            namespace,
            name,
            configmaps,
            known: false,
            entries: SortedMap::new(),
            unserved_since: None,
            warned: SortedMap::new(),
        }
    }

    /// Returns whether the objects have been read, or are known to be absent.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Returns whether there is an object that counts.
    pub fn has_objects(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Returns the weights that can be applied with the time at which their object was created, the
    /// oldest first.
    pub fn usable(&self) -> Vec<(&str, &HostWeights)> {
        // Equally old ones are sorted by name.
        let aged = self
            .entries
            .iter()
            .map(|(name, entry)| ((&entry.created, name), entry));
        let by_age: SortedMap<_, _> = aged.collect();
        by_age
            .into_values()
            .filter_map(|entry| Some((entry.created.as_str(), entry.weights.as_ref()?)))
            .collect()
    }

    /// Takes in an event of the reflector. Returns whether what can be applied may have changed.
    pub fn take(&mut self, event: Event, now: Instant) -> Changed {
        match event {
            Event::Applied(object) => self.apply(object, now),
            Event::Deleted(name) => {
                self.mark_deleted(|known| known == name, now);
                Changed::No
            }
            Event::Replaced(objects) => {
                let is_absent = !self.known && objects.is_empty();
                let named = self.name.clone().filter(|_| is_absent);
                if let Some(name) = named {
                    let message = self.messages().not_found;
                    if self.is_news(&name, message, "", now) {
                        self.log(Level::Info, message, &name);
                    }
                }
                let mut changed = Changed::when(!self.known);
                self.known = true;
                let listed: Vec<String> = objects.iter().map(|o| o.name.clone()).collect();
                for object in objects {
                    changed |= self.apply(object, now);
                }
                self.mark_deleted(|known| listed.iter().all(|name| name != known), now);
                changed
            }
            // Unknown is not absent.
            Event::Unavailable(_) | Event::Unusable => Changed::No,
        }
    }

    /// Notes that a server serves objects of this kind.
    pub fn served(&mut self) {
        self.unserved_since = None;
    }

    /// Notes an answer that the kind is not served.
    pub fn on_resource_missing(&mut self, now: Instant) -> Absence {
        let since = *self.unserved_since.get_or_insert(now);
        if self.has_objects() && now < since + BELIEVED_AFTER {
            return Absence::Doubted;
        }
        let _ = self.take(Event::Replaced(Vec::new()), now);
        Absence::Believed
    }

    /// Reads the weights of an object; `None` if it is none of ours.
    fn read(&self, body: Body, name: &ObjectName) -> Option<(String, Result<HostWeights, String>)> {
        match body {
            Body::ConfigMap(_) => None,
            Body::TrafficSplit { created, spec } => {
                let read = spec.and_then(|spec| {
                    let weights = traffic_split::to_weights(name.clone(), &spec);
                    weights.map_err(|unusable| unusable.to_string())
                });
                Some((created, read))
            }
            Body::HttpRoute { created, spec } => {
                let is_named = self.name.is_some();
                let is_ours = match &spec {
                    Ok(spec) => http_route::is_ours(spec, &self.namespace, &self.configmaps),
                    Err(_) => self.entries.contains_key(&name.name),
                };
                (is_named || is_ours).then(|| {
                    let weights = |spec| http_route::to_weights(name.clone(), &spec, is_named);
                    (created, spec.and_then(weights))
                })
            }
        }
    }

    fn apply(&mut self, object: Object, now: Instant) -> Changed {
        let name = ObjectName {
            namespace: self.namespace.clone(),
            name: object.name.clone(),
        };
        let Some((created, read)) = self.read(object.body, &name) else {
            self.mark_deleted(|known| known == object.name, now);
            return Changed::No;
        };
        if let Err(error) = &read {
            self.report_invalid(&object.name, &object.version.resource_version, error, now);
        }
        let is_valid = read.is_ok();
        let mut entry = Entry {
            created,
            weights: read.ok(),
            expires_at: None,
            reset: None,
        };
        let messages = self.messages();
        let known = self.entries.remove(&object.name);
        if let Some(old) = known.as_ref().and_then(|known| known.weights.as_ref())
            && let Some(new) = entry.weights.take_if(|new| {
                self.kind == ObjectKind::HttpRoute && http_route::has_lost_weights(old, new)
            })
        {
            let pending = known.as_ref().and_then(|known| known.reset.as_ref());
            let at = pending.map_or(now + DELETION_GRACE, |(_, at)| *at);
            entry.weights = Some(old.clone());
            entry.reset = Some((new, at));
            if self.is_news(&object.name, messages.reset, "", now) {
                self.log(Level::Warn, messages.reset, &object.name);
            }
        } else if is_valid && let Some(mut warned) = self.warned.remove(&object.name) {
            warned.clear((messages.key, &name), messages.valid, now);
        }
        let changed = known.is_none_or(|known| {
            (known.weights, known.created) != (entry.weights.clone(), entry.created.clone())
        });
        self.entries.insert(object.name, entry);
        Changed::when(changed)
    }

    fn report_invalid(
        &mut self,
        name: &str,
        version: &dyn std::fmt::Display,
        error: &str,
        now: Instant,
    ) {
        let message = self.messages().invalid;
        // Another version is news even if it has the same fault, unless others write a status.
        let reason = match self.kind {
            ObjectKind::HttpRoute => error.to_owned(),
            ObjectKind::ConfigMap | ObjectKind::TrafficSplit => format!("{version}: {error}"),
        };
        if self.is_news(name, message, &reason, now) {
            let object = format!("{}/{name}", self.namespace);
            let fields = [
                (self.messages().key, object.as_str().into()),
                ("resource_version", Value::from_dyn_display(&version)),
                ("error", error.into()),
            ];
            logging::event(Level::Warn, message, &fields);
        }
    }

    fn mark_deleted(&mut self, is_gone: impl Fn(&str) -> bool, now: Instant) {
        let mut gone = Vec::new();
        for (name, entry) in self.entries.iter_mut() {
            if is_gone(name) && entry.expires_at.is_none() {
                entry.expires_at = Some(now + DELETION_GRACE);
                // It goes with the weights that counted last.
                entry.reset = None;
                gone.push(name.clone());
            }
        }
        for name in gone {
            self.log(Level::Info, self.messages().deleted, &name);
        }
    }

    /// Returns when the next object stops counting, or counts with the weights that it was reset
    /// to.
    pub fn deadline(&self) -> Option<Instant> {
        let due = |entry: &Entry| {
            let reset = entry.reset.as_ref().map(|(_, at)| *at);
            entry.expires_at.into_iter().chain(reset).min()
        };
        self.entries.values().filter_map(due).min()
    }

    /// Forgets the objects that were deleted long enough ago, and believes the weights that others
    /// were reset to.
    pub fn tick(&mut self, now: Instant) -> Changed {
        if self.deadline().is_none_or(|at| now < at) {
            return Changed::No;
        }
        let messages = self.messages();
        for (name, mut entry) in std::mem::take(&mut self.entries) {
            if entry.expires_at.is_some_and(|at| at <= now) {
                self.log(Level::Warn, messages.still_deleted, &name);
                if self.name.is_some() {
                    let _ = self.is_news(&name, messages.still_deleted, "", now);
                } else {
                    // A name may never come back, so that what is kept of names would only grow.
                    self.warned.remove(&name);
                }
                continue;
            }
            if let Some((weights, _)) = entry.reset.take_if(|(_, at)| *at <= now) {
                self.log(Level::Warn, messages.still_reset, &name);
                self.warned.remove(&name);
                entry.weights = Some(weights);
            }
            self.entries.insert(name, entry);
        }
        Changed::Yes
    }

    fn messages(&self) -> &'static Messages {
        Messages::of(self.kind)
    }

    fn log(&self, level: Level, message: &'static str, name: &str) {
        let object = format!("{}/{name}", self.namespace);
        let fields = [(self.messages().key, object.as_str().into())];
        logging::event(level, message, &fields);
    }

    /// Notes a report about the object of this name. Returns whether it is not the one given last.
    #[must_use]
    fn is_news(&mut self, name: &str, message: &'static str, reason: &str, now: Instant) -> bool {
        let warned = self.warned.get_or_insert_default(name.to_owned());
        warned.is_news(message, reason, now)
    }
}

#[cfg(test)]
mod tests;
