//! All TrafficSplits that are asked for: which version of their group is spoken, their list-watches,
//! and what has become of them. Owns: when they are known.

use std::io;
use std::time::{Duration, Instant};

use fastrand::Rng;
use log::{info, warn};

use crate::backoff::Backoff;
use crate::error::{Chain, Error, Kind, Target, Verb};
use crate::kube::api;
use crate::kube::discovery::{Discovery, WHILE_HOLDING};
use crate::kube::health::ApiServer;
use crate::kube::hint::{self, Purpose};
use crate::kube::list_watch::SyncMode;
use crate::kube::object::{ObjectKind, Projection};
use crate::kube::reflector::{Event, Reflector};
use crate::net::response::{Progress, Response};
use crate::snapshot::ObjectName;
use crate::source::traffic_splits::TrafficSplitStore;
use crate::xds::weights::Split;

/// The TrafficSplits whose weights are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitChoice {
    /// No TrafficSplit is read.
    None,
    /// These are, each once, in the order given.
    Named(Vec<ObjectName>),
    /// All of a namespace are.
    All(String),
}

/// The TrafficSplits, in the order of the command line.
pub struct Smi {
    discovery: Discovery,
    /// The group's answer to which versions it serves.
    group: Option<Response>,
    /// One list-watch for each named split, or one for all of the namespace.
    parts: Vec<(Reflector, TrafficSplitStore)>,
    target: Target,
    /// It has been said that nobody serves the group.
    said_absent: bool,
    /// Of the group, where it answers but does not tell; and what was said of that.
    backoff: Backoff,
    said: String,
    /// Who may ask first next time: nobody is starved.
    first: usize,
}

impl Smi {
    /// Nothing asked yet; `None` where no TrafficSplit is asked for.
    pub fn new(
        choice: SplitChoice,
        version: Option<String>,
        every: Duration,
        manner: SyncMode,
        mut rng: Rng,
        now: Instant,
    ) -> Option<Smi> {
        let (namespace, names) = match choice {
            SplitChoice::None => return None,
            SplitChoice::All(namespace) => (namespace.clone(), vec![(namespace, None)]),
            SplitChoice::Named(objects) => {
                let namespace = objects
                    .first()
                    .map(|o| o.namespace.clone())
                    .unwrap_or_default();
                let name = |o: ObjectName| (o.namespace, Some(o.name));
                (namespace, objects.into_iter().map(name).collect())
            }
        };
        let kind = ObjectKind::TrafficSplit;
        let discovery = Discovery::new(version, every, now);
        let mut parts = Vec::new();
        for (namespace, name) in names {
            let splits = TrafficSplitStore::new(namespace.clone(), name.clone());
            let mut followed = Reflector::new(kind, namespace, name, manner, rng.fork(), now);
            followed.set_api_version(discovery.version(), now);
            parts.push((followed, splits));
        }
        let (resource, group) = (kind.plural(), kind.group());
        let target = Target {
            verb: Verb::Discover,
            resource,
            group,
            namespace,
            name: None,
        };
        Some(Smi {
            discovery,
            group: None,
            parts,
            target,
            said_absent: false,
            backoff: Backoff::new(rng),
            said: String::new(),
            first: 0,
        })
    }

    /// Whether every split has been read, or is known to be absent.
    pub fn is_known(&self) -> bool {
        self.parts.iter().all(|(_, splits)| splits.is_known())
    }

    /// Those that can be applied, the first to count first.
    pub fn usable(&self) -> Vec<&Split> {
        self.parts
            .iter()
            .flat_map(|(_, splits)| splits.usable())
            .collect()
    }

    /// The answers on their way, for poll(2).
    pub fn responses_mut(&mut self) -> impl Iterator<Item = &mut Response> {
        let parts = self
            .parts
            .iter_mut()
            .flat_map(|(followed, _)| followed.responses_mut());
        parts.chain(&mut self.group)
    }

    /// When something is to be done without input. `permitted`: when requests may go out.
    pub fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let asks = self.asks();
        let asks = asks.map(|at| permitted.map_or(at, |permitted| at.max(permitted)));
        let late = self.group.as_ref().and_then(|response| response.deadline);
        let parts = self.parts.iter().flat_map(|(followed, splits)| {
            [followed.deadline(permitted), splits.deadline()]
                .into_iter()
                .flatten()
        });
        parts.chain(asks).chain(late).min()
    }

    /// When to ask the group.
    fn asks(&self) -> Option<Instant> {
        let lasts = |(followed, splits): &(Reflector, TrafficSplitStore)| {
            splits.has_splits() && !followed.is_streaming()
        };
        let due = self.discovery.due(self.parts.iter().any(lasts));
        due.filter(|_| self.group.is_none())
    }

    /// Lets time pass. True: what counts has changed.
    pub fn tick(&mut self, server: &mut ApiServer, now: Instant) -> bool {
        let late = |response: &mut Response| response.deadline.is_some_and(|at| at <= now);
        if self.group.take_if(late).is_some() {
            server.late(now);
            let late = io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
            self.broken(late, now);
        }
        let mut changed = false;
        for (followed, splits) in &mut self.parts {
            followed.tick(server, now);
            changed |= splits.tick(now);
        }
        changed
    }

    /// Makes a request that is due, if any. True: one was made.
    pub fn request(&mut self, server: &mut ApiServer, now: Instant) -> bool {
        if self.asks().is_some_and(|at| at <= now) {
            let path = format!("/apis/{}", self.target.group);
            match server.ask(&self.target, &path, Projection::Full) {
                Ok(answer) => {
                    let response = |answer| Response::new(answer, false, Instant::now());
                    self.group = answer.map(response);
                }
                Err(what) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, what);
                    self.broken(error, Instant::now());
                }
            }
            return true;
        }
        let (first, count) = (self.first, self.parts.len());
        let mut order = (first..first + count).map(|i| i % count);
        let asked = order.find(|i| self.parts[*i].0.request(server, now));
        self.first = asked.map_or(first, |i| i + 1);
        asked.is_some()
    }

    /// Reads what has arrived. True: what counts may have changed.
    pub fn read(&mut self, server: &mut ApiServer) -> bool {
        let mut changed = self.read_group(server);
        let mut observations = Vec::new();
        for i in 0..self.parts.len() {
            self.parts[i].0.read(server, &mut observations);
            for observation in observations.drain(..) {
                let now = Instant::now();
                changed = true;
                match observation {
                    Event::Unavailable(error) if error.kind() == Kind::NotFound => {
                        self.on_resource_missing(i, now);
                    }
                    Event::Unavailable(_) | Event::Unusable => {}
                    observation => {
                        let splits = &mut self.parts[i].1;
                        splits.served();
                        splits.take(observation, now);
                        self.discovery.on_list_ok();
                        self.said_absent = false;
                    }
                }
            }
        }
        changed
    }

    /// A request of this part was answered by 404.
    fn on_resource_missing(&mut self, part: usize, now: Instant) {
        let nobody = self.discovery.on_resource_missing(now);
        if !self.discovery.is_fixed() {
            if nobody {
                self.vanish(now);
            }
            return self.set_api_version(now);
        }
        let (followed, splits) = &mut self.parts[part];
        if !followed.is_streaming() {
            let believed = splits.on_resource_missing(now);
            if splits.has_splits() {
                followed.relist(now + WHILE_HOLDING);
            }
            self.say_absent(believed);
        }
    }

    /// Nobody serves the group. An open stream knows better: another server does. All else is gone,
    /// and to be listed anew if it comes back.
    fn vanish(&mut self, now: Instant) {
        let mut absent = true;
        for (followed, splits) in &mut self.parts {
            if !followed.is_streaming() {
                followed.relist(now);
                absent &= splits.on_resource_missing(now);
            }
        }
        self.say_absent(absent);
    }

    fn say_absent(&mut self, absent: bool) {
        if absent && !self.said_absent {
            info!(group = self.target.group;
                "the API server does not serve TrafficSplits; using the weights in the ConfigMaps");
        }
        self.said_absent |= absent;
    }

    /// True: what counts may have changed.
    fn read_group(&mut self, server: &mut ApiServer) -> bool {
        let Some(mut response) = self.group.take_if(|response| response.readable) else {
            return false;
        };
        let now = Instant::now();
        let body = match response.read(&mut Vec::new()) {
            Progress::Waiting | Progress::More => {
                self.group = Some(response);
                return false;
            }
            Progress::Broken(error) => {
                self.broken(error, now);
                return false;
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
            return false;
        }
        self.said.clear();
        let versions = match code {
            200 => api::group(&body).ok(),
            404 => Some(Vec::new()),
            _ => None,
        };
        match versions {
            Some(versions) if self.discovery.on_group(&versions, now) => {
                self.parts
                    .iter_mut()
                    .for_each(|(_, splits)| splits.served());
                self.said_absent = false;
            }
            Some(_) => self.vanish(now),
            None => self.discovery.refused(),
        }
        self.set_api_version(now);
        true
    }

    /// The group cannot be asked now, for a reason of its own: all others go on.
    fn put_off(&mut self, error: &Error, now: Instant) {
        let wait = self.backoff.failed(now);
        let wish = error.retry_after().unwrap_or_default();
        self.discovery.put_off(now + wait.max(wish));
        let reason = Chain(error).to_string();
        if self.said != reason {
            warn!(of:% = self.target, reason; "the API server refuses");
            self.said = reason;
        }
    }

    /// The group's answer did not arrive whole.
    fn broken(&mut self, error: io::Error, now: Instant) {
        let target = Box::new(self.target.clone());
        let source = error.into();
        self.put_off(&Error::Request { target, source }, now);
    }

    /// Tells the list-watches what discovery has found.
    fn set_api_version(&mut self, now: Instant) {
        let version = self.discovery.version();
        for (followed, _) in &mut self.parts {
            followed.set_api_version(version, now);
        }
    }
}
