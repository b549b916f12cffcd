//! All TrafficSplits that are asked for: which version of their group is spoken, their list-watches,
//! and what has become of them. Owns: when they are known.

use std::io;
use std::time::{Duration, Instant};

use log::info;

use crate::args::SplitChoice;
use crate::decode;
use crate::discovery::Discovery;
use crate::error::{Error, Kind, Target};
use crate::follow::{Followed, Observation};
use crate::kube::exchange::{Exchange, Progress};
use crate::resource::{Extent, ObjectKind, ObjectName};
use crate::route::Split;
use crate::server::Server;
use crate::splits::Splits;
use crate::watch::Manner;

/// The TrafficSplits, in the order of the command line.
pub struct Smi {
    discovery: Discovery,
    /// The group's answer to which versions it serves.
    group: Option<Exchange>,
    /// One list-watch for each named split, or one for all of the namespace.
    parts: Vec<(Followed, Splits)>,
    target: Target,
    /// It has been said that nobody serves the group.
    said_absent: bool,
}

impl Smi {
    /// Nothing asked yet; `None` where no TrafficSplit is asked for.
    pub fn new(
        choice: SplitChoice,
        version: Option<String>,
        every: Duration,
        manner: Manner,
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
            let splits = Splits::new(namespace.clone(), name.clone());
            let mut followed = Followed::new(kind, namespace, name, manner, now);
            followed.speak(discovery.version(), now);
            parts.push((followed, splits));
        }
        let (resource, group) = (kind.plural(), kind.group());
        let target = Target {
            verb: "find the version of",
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

    /// What is being answered, for poll(2).
    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.parts
            .iter()
            .flat_map(|(followed, _)| followed.exchanges())
            .chain(&self.group)
    }

    /// The same, to be marked as readable.
    pub fn exchanges_mut(&mut self) -> impl Iterator<Item = &mut Exchange> {
        let parts = self
            .parts
            .iter_mut()
            .flat_map(|(followed, _)| followed.exchanges_mut());
        parts.chain(&mut self.group)
    }

    /// When something is to be done without input. `permitted`: when requests may go out.
    pub fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let asks = self.discovery.due().filter(|_| self.group.is_none());
        let asks = asks.map(|at| permitted.map_or(at, |permitted| at.max(permitted)));
        let late = self.group.as_ref().and_then(|exchange| exchange.deadline);
        let parts = self.parts.iter().flat_map(|(followed, splits)| {
            [followed.deadline(permitted), splits.deadline()]
                .into_iter()
                .flatten()
        });
        parts.chain(asks).chain(late).min()
    }

    /// Lets time pass. True: what counts has changed.
    pub fn tick(&mut self, server: &mut Server, now: Instant) -> bool {
        let late = |exchange: &mut Exchange| exchange.deadline.is_some_and(|at| at <= now);
        if self.group.take_if(late).is_some() {
            let late = io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
            self.broken(late, server, now);
        }
        let mut changed = false;
        for (followed, splits) in &mut self.parts {
            followed.tick(server, now);
            changed |= splits.tick(now);
        }
        changed
    }

    /// Makes a request that is due, if any. True: one was made.
    pub fn request(&mut self, server: &mut Server, now: Instant) -> bool {
        if self.group.is_none() && self.discovery.due().is_some_and(|at| at <= now) {
            let path = format!("/apis/{}", self.target.group);
            let answer = server.ask(&self.target, &path, Extent::Objects);
            self.group = answer.map(|answer| Exchange::new(answer, false, Instant::now()));
            return true;
        }
        self.parts
            .iter_mut()
            .any(|(followed, _)| followed.request(server, now))
    }

    /// Reads what has arrived. True: what counts may have changed.
    pub fn read(&mut self, server: &mut Server) -> bool {
        let mut changed = self.read_group(server);
        let mut observations = Vec::new();
        for i in 0..self.parts.len() {
            self.parts[i].0.read(server, &mut observations);
            for observation in observations.drain(..) {
                let now = Instant::now();
                changed = true;
                let splits = &mut self.parts[i].1;
                match observation {
                    Observation::Refused(error) if error.kind() == Kind::NotFound => {
                        let holding = splits.is_holding();
                        let absent = self.discovery.unserved(holding, now);
                        self.speak(absent, now);
                    }
                    Observation::Refused(_) => {}
                    observation => {
                        splits.take(observation, now);
                        self.discovery.works();
                    }
                }
            }
        }
        changed
    }

    /// True: the group is known to be absent.
    fn read_group(&mut self, server: &mut Server) -> bool {
        let Some(mut exchange) = self.group.take_if(|exchange| exchange.more) else {
            return false;
        };
        let now = Instant::now();
        let body = match exchange.read(&mut Vec::new()) {
            Progress::Waiting | Progress::More => {
                self.group = Some(exchange);
                return false;
            }
            Progress::Broken(error) => {
                self.broken(error, server, now);
                return false;
            }
            Progress::Ended(body) => body,
        };
        let holding = self.parts.iter().any(|(_, splits)| splits.is_holding());
        let (code, retry_after) = (exchange.status, exchange.retry_after);
        let absent = match code {
            200 => match decode::group(&body) {
                Ok(versions) => self.discovery.served(&versions, holding, now),
                Err(_) => {
                    self.discovery.refused();
                    false
                }
            },
            404 => self.discovery.not_served(holding, now),
            401 | 429 | 500..=599 => {
                let message = decode::status(&body).message;
                let target = Box::new(self.target.clone());
                let error = Error::Status {
                    target,
                    code,
                    message,
                    retry_after,
                };
                server.failed(error, now);
                return false;
            }
            _ => {
                self.discovery.refused();
                false
            }
        };
        server.answered(now);
        self.speak(absent, now);
        absent
    }

    /// The group's answer did not arrive: it is asked again when the server is.
    fn broken(&self, error: io::Error, server: &mut Server, now: Instant) {
        let target = Box::new(self.target.clone());
        let source = error.into();
        server.failed(Error::Request { target, source }, now);
    }

    /// Tells the list-watches what discovery has found.
    fn speak(&mut self, absent: bool, now: Instant) {
        let version = self.discovery.version();
        for (followed, splits) in &mut self.parts {
            followed.speak(version, now);
            if absent {
                splits.take(Observation::Listed(Vec::new()), now);
            }
        }
        if absent && !self.said_absent {
            info!(group = self.target.group;
                "no TrafficSplits are served here: the ConfigMaps' own weights stand");
        }
        self.said_absent = absent || self.said_absent && version.is_none();
    }
}
