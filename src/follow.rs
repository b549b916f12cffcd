//! Objects of one kind, followed: joins a list-watch (pure) to its requests and their answers. Owns:
//! what is under way for it, and what the operator hears of the way. Must not: know what an object
//! means.

use std::io;
use std::time::Instant;

use log::{debug, warn};

use crate::decode::{self, WatchEvent};
use crate::error::{Error, Kind, Target};
use crate::kube::client::Content;
use crate::kube::exchange::{Exchange, Progress, Purpose};
use crate::kube::{list_path, watch_path};
use crate::resource::{Object, ObjectKind};
use crate::server::Server;
use crate::watch::{Failure, Found, Input, Manner, Want, Watch};

/// What the cluster says.
#[derive(Debug)]
pub enum Observation {
    /// These objects are there, and no others.
    Listed(Vec<Object>),
    /// This object is there, in this state.
    Changed(Object),
    /// The object of this name is gone.
    Deleted(String),
    /// It will not say, for a reason of these objects' own.
    Refused(Error),
}

/// A list-watch and everything that is under way for it.
pub struct Followed {
    kind: ObjectKind,
    /// What it covers; the verb is the last request's.
    target: Target,
    watch: Watch,
    /// A list or a watch that is being answered.
    answer: Option<Exchange>,
    /// A look that is being answered.
    look: Option<Exchange>,
    /// The last warning: none is given twice in a row.
    said: String,
}

impl Followed {
    /// Nothing asked yet. `name`: of the one object; `None`: all of the kind in the namespace.
    pub fn new(
        kind: ObjectKind,
        namespace: String,
        name: Option<String>,
        manner: Manner,
        now: Instant,
        server: &mut Server,
    ) -> Followed {
        let (resource, group) = (kind.plural(), kind.group());
        Followed {
            kind,
            target: Target {
                verb: "list",
                resource,
                group,
                namespace,
                name,
            },
            watch: Watch::new(manner, now, &mut server.random),
            answer: None,
            look: None,
            said: String::new(),
        }
    }

    /// What is being answered, for poll(2).
    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.answer.iter().chain(&self.look)
    }

    /// The same, to be marked as readable.
    pub fn exchanges_mut(&mut self) -> impl Iterator<Item = &mut Exchange> {
        self.answer.iter_mut().chain(&mut self.look)
    }

    /// When something is to be done without input. `permitted`: when requests may go out.
    pub fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let patience = self.exchanges().filter_map(|exchange| exchange.deadline);
        let own = self.watch.deadline().filter(|_| !self.is_asking());
        // What is due waits for the server; what times out does not.
        let own = own.map(|at| permitted.map_or(at, |permitted| at.max(permitted)));
        patience.chain(own).chain(self.watch.expires()).min()
    }

    /// Whether the answer to what the list-watch wants is on its way.
    fn is_asking(&self) -> bool {
        match self.watch.is_settled() {
            true => self.look.is_some(),
            false => self.answer.is_some(),
        }
    }

    /// Makes the request that is due, if any. True: one was made.
    pub fn request(&mut self, server: &mut Server, now: Instant) -> bool {
        if self.is_asking() {
            return false;
        }
        let Some(want) = self.watch.wants(now, &mut server.random) else {
            return false;
        };
        let (purpose, content, path) = match &want {
            Want::List => (Purpose::List, Content::Objects, list_path(&self.target)),
            Want::Look => (Purpose::Look, Content::Metadata, list_path(&self.target)),
            Want::Watch(from, lasts) => (
                Purpose::Watch,
                Content::Objects,
                watch_path(&self.target, from, *lasts),
            ),
        };
        self.target.verb = match purpose {
            Purpose::List | Purpose::Look => "list",
            Purpose::Watch => "watch",
        };
        let answer = server.ask(&self.target, &path, content);
        let now = Instant::now();
        match answer {
            Some(answer) => {
                if let (Want::Watch(_, lasts), 200) = (want, answer.status) {
                    self.step(Input::Opened(lasts), server, now);
                }
                let slot = match purpose {
                    Purpose::List | Purpose::Watch => &mut self.answer,
                    Purpose::Look => &mut self.look,
                };
                *slot = Some(Exchange::new(purpose, answer, now));
            }
            None if purpose == Purpose::Look => {}
            None => drop(self.step(Input::Failed(Failure::Server), server, now)),
        }
        true
    }

    /// Reads what has arrived, and says what it tells.
    pub fn read(&mut self, server: &mut Server, observations: &mut Vec<Observation>) {
        if let Some(exchange) = self.answer.take_if(|exchange| exchange.more) {
            self.answer = self.read_answer(exchange, server, observations);
        }
        if let Some(exchange) = self.look.take_if(|exchange| exchange.more) {
            self.look = self.read_answer(exchange, server, observations);
        }
    }

    /// Gives the exchange back while it goes on.
    fn read_answer(
        &mut self,
        mut exchange: Exchange,
        server: &mut Server,
        observations: &mut Vec<Observation>,
    ) -> Option<Exchange> {
        let mut lines = Vec::new();
        let progress = exchange.read(&mut lines);
        let now = Instant::now();
        for line in lines {
            if self.take_event(&line, server, now, observations) {
                return None;
            }
        }
        match progress {
            Progress::Waiting | Progress::More => return Some(exchange),
            Progress::Ended(body) if exchange.status != 200 => {
                let refusal = self.take_refusal(&exchange, &body, server, now);
                observations.extend(refusal.map(Observation::Refused));
            }
            Progress::Ended(body) => match exchange.purpose {
                Purpose::Watch => drop(self.step(Input::Ended, server, now)),
                Purpose::List | Purpose::Look => {
                    let list = self.take_list(exchange.purpose, &body, server, now);
                    observations.extend(list.map(Observation::Listed));
                }
            },
            Progress::Broken(error) => self.take_break(exchange.purpose, error, server, now),
        }
        None
    }

    /// A list or a look has arrived, whole. A list's objects are given back.
    fn take_list(
        &mut self,
        purpose: Purpose,
        body: &[u8],
        server: &mut Server,
        now: Instant,
    ) -> Option<Vec<Object>> {
        let mut list = match decode::list(body, self.kind) {
            Ok(list) => list,
            Err(what) => {
                self.take_nonsense(purpose, what, server, now);
                return None;
            }
        };
        list.items.retain(|item| self.covers(&item.name));
        let versions = list
            .items
            .iter()
            .map(|item| (item.name.clone(), item.version.clone()));
        let found: Found = versions.collect();
        if purpose == Purpose::Look {
            self.step(Input::Looked(found), server, now);
            return None;
        }
        self.step(Input::Listed(list.at, found), server, now);
        self.said.clear();
        Some(list.items)
    }

    fn covers(&self, name: &str) -> bool {
        self.target.name.as_deref().is_none_or(|mine| mine == name)
    }

    /// A line of the watch. True: the watch is over.
    fn take_event(
        &mut self,
        line: &[u8],
        server: &mut Server,
        now: Instant,
        observations: &mut Vec<Observation>,
    ) -> bool {
        let event = match decode::event(line, self.kind) {
            Ok(event) => event,
            Err(what) => {
                self.take_nonsense(Purpose::Watch, what, server, now);
                return true;
            }
        };
        match event {
            WatchEvent::Changed(Object { name, .. }) | WatchEvent::Deleted(name, _)
                if !self.covers(&name) =>
            {
                self.say("the watch tells of another object: skipped", &name);
            }
            WatchEvent::Changed(object) => {
                let (name, version) = (object.name.clone(), object.version.clone());
                self.step(Input::Changed(name, version), server, now);
                observations.push(Observation::Changed(object));
            }
            WatchEvent::Deleted(name, at) => {
                self.step(Input::Deleted(name.clone(), at), server, now);
                observations.push(Observation::Deleted(name));
            }
            WatchEvent::Bookmark(at) => drop(self.step(Input::Bookmark(at), server, now)),
            WatchEvent::Unknown(kind) => {
                self.say(
                    "the watch tells of an event of unknown type: skipped",
                    &kind,
                );
            }
            WatchEvent::Failed(status) if status.code == 410 => {
                return self.step(Input::Failed(Failure::Gone), server, now);
            }
            WatchEvent::Failed(status) => {
                self.say(
                    "the API server ended the watch: listing again",
                    &status.message,
                );
                return self.step(Input::Failed(Failure::Object), server, now);
            }
        }
        false
    }

    /// An answer that is no success has arrived, whole. Given back if it is about these objects.
    fn take_refusal(
        &mut self,
        exchange: &Exchange,
        body: &[u8],
        server: &mut Server,
        now: Instant,
    ) -> Option<Error> {
        let (code, retry_after) = (exchange.status, exchange.retry_after);
        let (target, message) = (Box::new(self.target.clone()), decode::status(body).message);
        let error = Error::Status {
            target,
            code,
            message,
            retry_after,
        };
        let (failure, refusal) = match error.kind() {
            Kind::Transient | Kind::Unauthorized => {
                server.failed(error, retry_after, now);
                (Failure::Server, None)
            }
            Kind::Gone => (Failure::Gone, None),
            _ => {
                self.say("the API server refuses", &error.to_string());
                (Failure::Object, Some(error))
            }
        };
        if exchange.purpose == Purpose::Look {
            return None;
        }
        self.step(Input::Failed(failure), server, now);
        refusal
    }

    /// The connection broke, or its bytes were no HTTP.
    fn take_break(
        &mut self,
        purpose: Purpose,
        error: io::Error,
        server: &mut Server,
        now: Instant,
    ) {
        debug!(target:% = self.target, error:% = error; "an answer broke");
        match purpose {
            Purpose::Look => {}
            _ if error.kind() == io::ErrorKind::InvalidData => {
                self.take_nonsense(purpose, error.to_string(), server, now);
            }
            Purpose::Watch => drop(self.step(Input::Ended, server, now)),
            Purpose::List => {
                let target = Box::new(self.target.clone());
                server.failed(
                    Error::Request {
                        target,
                        source: error.into(),
                    },
                    None,
                    now,
                );
                self.step(Input::Failed(Failure::Server), server, now);
            }
        }
    }

    /// The answer cannot be understood: nothing of it is used, and a list will tell.
    fn take_nonsense(&mut self, purpose: Purpose, what: String, server: &mut Server, now: Instant) {
        let error = Error::Answer {
            target: Box::new(self.target.clone()),
            what,
        };
        self.say(
            "the API server's answer cannot be used: asking again",
            &error.to_string(),
        );
        if purpose != Purpose::Look {
            self.step(Input::Failed(Failure::Object), server, now);
        }
    }

    /// Lets time pass: answers that take too long are given up.
    pub fn tick(&mut self, server: &mut Server, now: Instant) {
        let late = |exchange: &mut Exchange| exchange.deadline.is_some_and(|at| at <= now);
        if let Some(exchange) = self.answer.take_if(late) {
            let late = io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
            self.take_break(exchange.purpose, late, server, now);
        }
        drop(self.look.take_if(late));
        self.step(Input::Tick, server, now);
    }

    /// Feeds the list-watch. True: it has given up its stream.
    fn step(&mut self, input: Input, server: &mut Server, now: Instant) -> bool {
        let closes = self.watch.step(input, now, &mut server.random);
        if closes {
            self.answer = None;
        }
        closes
    }

    fn say(&mut self, message: &'static str, reason: &str) {
        if self.said != reason {
            warn!(of:% = self.target, reason; "{message}");
            self.said = reason.to_owned();
        }
    }
}
