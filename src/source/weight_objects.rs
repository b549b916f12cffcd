//! All objects of one kind that hold weights and that the command line asks for: TrafficSplits, or
//! HTTPRoutes. Owns: the version of their group, their list-watches, and when they are known.

use std::fmt::Display;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use log::info;

use crate::backoff::Backoff;
use crate::error::{Chain, Error, Kind, Target, Verb};
use crate::kube::api;
use crate::kube::client::{Call, Method};
use crate::kube::discovery::{Discovery, GroupAnswer, RETRY_IN_USE};
use crate::kube::health::ApiServer;
use crate::kube::hint::{self, Purpose};
use crate::kube::list_watch::SyncMode;
use crate::kube::object::{ObjectKind, Projection};
use crate::kube::reflector::{Event, Reflector};
use crate::logging::WarnOnce;
use crate::net::response::{Progress, Response};
use crate::poll::{Changed, Requested};
use crate::snapshot::ObjectName;
use crate::source::weight_store::WeightStore;
use crate::xds::weights::HostWeights;

/// The objects of one kind whose weights are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightChoice {
    None,
    /// These, each once, in the order given.
    Named(Vec<ObjectName>),
    /// All of a namespace.
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
    /// Makes the reflectors; returns `None` if no object is asked for. An HTTPRoute that is not named
    /// counts if it is attached to one of the `configmaps`, or to a Service.
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
        let mut all: Vec<(&str, &HostWeights)> = all.collect();
        if self.kind == ObjectKind::HttpRoute {
            all.sort_by_key(|(created, weights)| (*created, &weights.source.name));
        }
        all.into_iter().map(|(_, weights)| weights).collect()
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

    /// Returns when each object that is not known yet will have been asked for again. Requests may go
    /// out from `permitted` on.
    pub fn asked(&self, permitted: Option<Instant>) -> Option<Instant> {
        let unknown = self.parts.iter().filter(|part| !part.store.is_known());
        let parts = unknown.filter_map(|part| part.reflector.deadline(permitted));
        parts.chain(self.group_deadline(permitted)).max()
    }

    /// Returns when to ask for the group, or when its answer is late.
    fn group_deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        match &self.group {
            Some(response) => response.deadline,
            None => self
                .group_due()
                .map(|at| permitted.map_or(at, |permitted| at.max(permitted))),
        }
    }

    /// Returns when to ask for the group.
    fn group_due(&self) -> Option<Instant> {
        let is_in_use = |part: &Part| part.store.has_objects() && !part.reflector.is_streaming();
        let due = self.discovery.due(self.parts.iter().any(is_in_use));
        due.filter(|_| self.group.is_none())
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

    /// Handles a 404 to a request of this part.
    fn on_resource_missing(&mut self, part: usize, now: Instant) {
        let is_unserved = self.discovery.on_resource_missing(now);
        if !self.discovery.is_fixed() {
            if is_unserved {
                self.vanish(now);
            }
            return self.set_api_version(now);
        }
        let Part { reflector, store } = &mut self.parts[part];
        if !reflector.is_streaming() {
            let believed = store.on_resource_missing(now);
            if store.has_objects() {
                reflector.relist(now + RETRY_IN_USE);
            }
            if believed {
                self.report_unserved(now);
            }
        }
    }

    /// Handles that no server serves the group. A part whose stream is open is kept, as another server
    /// serves it; the others are taken as deleted, and listed anew if the group comes back.
    fn vanish(&mut self, now: Instant) {
        let mut believed = true;
        for Part { reflector, store } in &mut self.parts {
            if !reflector.is_streaming() {
                reflector.relist(now);
                believed &= store.on_resource_missing(now);
            }
        }
        if believed {
            self.report_unserved(now);
        }
    }

    fn report_unserved(&mut self, now: Instant) {
        let message = match self.kind {
            ObjectKind::HttpRoute => {
                "the API server does not serve HTTPRoutes; using the weights in the ConfigMaps"
            }
            ObjectKind::ConfigMap | ObjectKind::TrafficSplit => {
                "the API server does not serve TrafficSplits; using the weights in the ConfigMaps"
            }
        };
        if self.unserved.is_news(message, "", now) {
            info!(group = self.target.group; "{message}");
        }
    }

    fn report_served(&mut self, now: Instant) {
        let subject = ("group", &self.target.group as &dyn Display);
        let message = match self.kind {
            ObjectKind::HttpRoute => "the API server serves HTTPRoutes now",
            ObjectKind::ConfigMap | ObjectKind::TrafficSplit => {
                "the API server serves TrafficSplits now"
            }
        };
        self.unserved.clear(subject, message, now);
    }

    /// Reads the answer for the group. Returns whether the weights that count may have changed.
    fn read_group(&mut self, server: &mut ApiServer) -> Changed {
        let Some(mut response) = self.group.take_if(|response| response.readable) else {
            return Changed::No;
        };
        let now = Instant::now();
        let body = match response.read(&mut Vec::new()) {
            Progress::Waiting | Progress::More => {
                self.group = Some(response);
                return Changed::No;
            }
            Progress::Broken(error) => {
                self.broken(error, now);
                return Changed::No;
            }
            Progress::Ended(body) => body,
        };
        let code = response.status;
        if matches!(code, 401 | 429 | 500..=599) {
            let retry_after = response.retry_after;
            let error = hint::refusal(Purpose::Read, &self.target, code, &body, retry_after);
            match code {
                401 => server.failed(error, now),
                _ => self.put_off(&error, now),
            }
            return Changed::No;
        }
        let subject = ("request", &self.target as &dyn Display);
        self.failing.clear(subject, "requests succeed again", now);
        let versions = match code {
            200 => api::group(&body).ok(),
            404 => Some(Vec::new()),
            _ => None,
        };
        match versions.map(|versions| self.discovery.on_group(&versions, now)) {
            // That the group has a version says nothing of the kind until it has been listed.
            Some(GroupAnswer::Served | GroupAnswer::Unclear) => {}
            Some(GroupAnswer::Missing) => self.vanish(now),
            None => self.discovery.on_group_forbidden(),
        }
        self.set_api_version(now);
        Changed::Yes
    }

    /// Puts off the next request for the group, which failed for a reason of its own. Requests for
    /// objects go on.
    fn put_off(&mut self, error: &Error, now: Instant) {
        let wait = self.backoff.failed(now);
        let wish = error.retry_after().unwrap_or_default();
        self.discovery.on_busy(now + wait.max(wish));
        let subject = ("request", &self.target as &dyn Display);
        let message = "the API server cannot answer now; retrying";
        let error = Chain(error).to_string();
        self.failing.warn(subject, message, &error, now);
    }

    /// Handles an answer for the group that did not arrive whole.
    fn broken(&mut self, error: io::Error, now: Instant) {
        let target = Box::new(self.target.clone());
        let source = error.into();
        self.put_off(&Error::Request { target, source }, now);
    }

    /// Tells the list-watches what discovery has found.
    fn set_api_version(&mut self, now: Instant) {
        let version = self.discovery.version();
        for part in &mut self.parts {
            part.reflector.set_api_version(version, now);
        }
    }
}
