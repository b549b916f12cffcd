//! All objects of one kind that hold weights and that the command line asks for: TrafficSplits, or
//! HTTPRoutes. Owns: the version of their group, their list-watches, and when they are known.

mod group;

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::error::{Error, Kind, Target, Verb};
use crate::kube::client::{Call, Method};
use crate::kube::discovery::Discovery;
use crate::kube::health::ApiServer;
use crate::kube::list_watch::SyncMode;
use crate::kube::object::{ObjectKind, Projection};
use crate::kube::reflector::{Event, Reflector};
use crate::logging::WarnOnce;
use crate::net::response::Response;
use crate::poll::{Changed, Requested};
use crate::snapshot::ObjectName;
use crate::sorted::SortedMap;
use crate::source::weight_store::WeightStore;
use crate::xds::weights::HostWeights;
use fastrand::Rng;

/// The objects of one kind whose weights are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightChoice {
    None,
    /// The objects of these names, each once, in the order given.
    Named(Vec<ObjectName>),
    /// All objects of a namespace.
    All(String),
}

/// The way in which changes are found.
#[derive(Clone, Copy, Debug)]
pub struct Sync {
    pub mode: SyncMode,
    /// The interval at which to ask for a group that is not served.
    pub interval: Duration,
}

/// A reflector, and the objects that it has reported.
struct Part {
    reflector: Reflector,
    store: WeightStore,
}

/// The objects, in the order of the command line.
pub struct WeightObjects {
    kind: ObjectKind,
    discovery: Discovery,
    /// The group's answer to which versions it serves.
    group: Option<Response>,
    /// One for each named object, or one for all of the namespace.
    parts: Vec<Part>,
    target: Target,
    /// Reports that no server serves the group.
    unserved: WarnOnce,
    /// Spaces requests for the group while they fail.
    backoff: Backoff,
    /// Reports that requests for the group fail.
    failing: WarnOnce,
    /// The refusal of what is not known yet, if it is forbidden, and since when it has been.
    denied: Option<(Instant, Error)>,
    /// The index of the part that may ask first next time, so that none is starved.
    first: usize,
}

impl WeightObjects {
    /// Makes the reflectors; returns `None` if no object is asked for. An HTTPRoute that is not
    /// named counts if it is attached to one of the `configmaps`, or to a Service.
    pub fn new(
        kind: ObjectKind,
        choice: WeightChoice,
        version: Option<String>,
        configmaps: &[ObjectName],
        sync: Sync,
        mut rng: Rng,
        now: Instant,
    ) -> Option<WeightObjects> {
        let (namespace, names) = match choice {
            WeightChoice::None => return None,
            WeightChoice::All(namespace) => (namespace.clone(), vec![(namespace, None)]),
            WeightChoice::Named(objects) => {
                let namespace = objects
                    .first()
                    .map(|o| o.namespace.clone())
                    .unwrap_or_default();
                let name = |o: ObjectName| (o.namespace, Some(o.name));
                (namespace, objects.into_iter().map(name).collect())
            }
        };
        let configmaps = Rc::from(configmaps);
        let discovery = Discovery::new(kind.versions(), version, sync.interval, now);
        let mut parts = Vec::new();
        for (namespace, name) in names {
            let (of, named) = (namespace.clone(), name.clone());
            let store = WeightStore::new(kind, of, named, Rc::clone(&configmaps));
            let mut reflector = Reflector::new(kind, namespace, name, sync.mode, rng.fork(), now);
            reflector.set_api_version(discovery.version(), now);
            parts.push(Part { reflector, store });
        }
        let (resource, group) = (kind.plural(), kind.group());
        let target = Target {
            verb: Verb::Discover,
            resource,
            group,
            namespace,
            name: None,
        };
        Some(WeightObjects {
            kind,
            discovery,
            group: None,
            parts,
            target,
            unserved: WarnOnce::default(),
            backoff: Backoff::new(rng),
            failing: WarnOnce::default(),
            denied: None,
            first: 0,
        })
    }

    /// Returns the kind of the objects.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// Returns what one of the objects is called in a message.
    pub fn label(&self) -> &'static str {
        match self.kind {
            ObjectKind::HttpRoute => "an HTTPRoute",
            ObjectKind::ConfigMap | ObjectKind::TrafficSplit => "a TrafficSplit",
        }
    }

    /// Returns since when and why HTTPRoutes that are not known yet cannot be read, if they are
    /// forbidden.
    pub fn denied(&self) -> Option<&(Instant, Error)> {
        let waits = self.kind == ObjectKind::HttpRoute && !self.is_known();
        self.denied.as_ref().filter(|_| waits)
    }

    /// Returns whether every object has been read, or is known to be absent.
    pub fn is_known(&self) -> bool {
        self.parts.iter().all(|part| part.store.is_known())
    }

    /// Returns the weights that can be applied, in the order in which they count: TrafficSplits as
    /// they are named, and HTTPRoutes by age.
    pub fn usable(&self) -> Vec<&HostWeights> {
        let all = self.parts.iter().flat_map(|part| part.store.usable());
        if self.kind != ObjectKind::HttpRoute {
            return all.map(|(_, weights)| weights).collect();
        }
        let by_age = all.map(|(created, weights)| ((created, &weights.source.name), weights));
        let by_age: SortedMap<_, _> = by_age.collect();
        by_age.into_values().collect()
    }

    /// Returns the answers that are on their way, for poll(2).
    pub fn responses_mut(&mut self) -> impl Iterator<Item = &mut Response> {
        let parts = self
            .parts
            .iter_mut()
            .flat_map(|part| part.reflector.responses_mut());
        parts.chain(&mut self.group)
    }

    /// Returns when something is due without input. Requests may go out from `permitted` on.
    pub fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let parts = self.parts.iter().flat_map(|part| {
            [part.reflector.deadline(permitted), part.store.deadline()]
                .into_iter()
                .flatten()
        });
        parts.chain(self.group_deadline(permitted)).min()
    }

    /// Returns when each object that is not known yet will have been asked for again. Requests may
    /// go out from `permitted` on.
    pub fn asked(&self, permitted: Option<Instant>) -> Option<Instant> {
        let unknown = self.parts.iter().filter(|part| !part.store.is_known());
        let parts = unknown.filter_map(|part| part.reflector.deadline(permitted));
        parts.chain(self.group_deadline(permitted)).max()
    }

    /// Does what is due without input. Returns whether the weights that count have changed.
    pub fn tick(&mut self, server: &mut ApiServer, now: Instant) -> Changed {
        let late = |response: &mut Response| response.deadline.is_some_and(|at| at <= now);
        if self.group.take_if(late).is_some() {
            server.late(now);
            let late = io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
            self.broken(late, now);
        }
        let mut changed = Changed::No;
        for Part { reflector, store } in &mut self.parts {
            reflector.tick(server, now);
            changed |= store.tick(now);
        }
        changed
    }

    /// Makes the request that is due, if any.
    pub fn request(&mut self, server: &mut ApiServer, now: Instant) -> Requested {
        if self.group_due().is_some_and(|at| at <= now) {
            let path = format!("/apis/{}", self.target.group);
            let call = Call {
                method: Method::Get,
                target: &self.target,
                path: &path,
                projection: Projection::Full,
            };
            match server.ask(&call) {
                Ok(answer) => {
                    let response = |answer| Response::whole(answer, Instant::now());
                    self.group = answer.map(response);
                }
                Err(what) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, what);
                    self.broken(error, Instant::now());
                }
            }
            return Requested::One;
        }
        let (first, count) = (self.first, self.parts.len());
        let mut order = (first..first + count).map(|i| i % count);
        let asked = order.find(|i| self.parts[*i].reflector.request(server, now) == Requested::One);
        match asked {
            Some(part) => {
                self.first = part + 1;
                Requested::One
            }
            None => Requested::Nothing,
        }
    }

    /// Reads what has arrived. Returns whether the weights that count may have changed.
    pub fn read(&mut self, server: &mut ApiServer) -> Changed {
        let mut changed = self.read_group(server);
        let mut events = Vec::new();
        for i in 0..self.parts.len() {
            self.parts[i].reflector.read(server, &mut events);
            for event in events.drain(..) {
                let now = Instant::now();
                match event {
                    Event::Unavailable(error) if error.kind() == Kind::NotFound => {
                        changed = Changed::Yes;
                        self.on_resource_missing(i, now);
                    }
                    Event::Unavailable(error) => {
                        changed = Changed::Yes;
                        let since = self.denied.take().map_or(now, |(since, _)| since);
                        let is_denied = error.kind() == Kind::Forbidden;
                        self.denied = is_denied.then_some((since, error));
                    }
                    Event::Unusable => changed = Changed::Yes,
                    event => {
                        let store = &mut self.parts[i].store;
                        store.served();
                        changed |= store.take(event, now);
                        self.discovery.on_list_ok();
                        self.report_served(now);
                    }
                }
            }
        }
        changed
    }
}
