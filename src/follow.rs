//! One named ConfigMap, followed: joins its list-watch (pure) to requests and their answers. Owns:
//! what is under way for it, and what the operator hears of it.

use std::time::Instant;

use log::{debug, warn};

use crate::error::{Error, Kind, Target};
use crate::kube::client::Content;
use crate::kube::exchange::{Exchange, Progress, Purpose};
use crate::kube::{list_path, watch_path};
use crate::reconcile::{self, Examined, Latest, Remark, Source};
use crate::resource::{self, ConfigMap, ObjectName, WatchEvent};
use crate::server::Server;
use crate::watch::{Failure, Found, Input, Manner, Want, Watch};

/// A ConfigMap and everything that is under way for it.
pub struct Followed {
    /// What is known of it.
    pub source: Source,
    /// Why it cannot be had, since when: missing or forbidden.
    pub denied: Option<(Instant, Error)>,
    /// Why its last state was refused.
    pub refused: Option<String>,
    watch: Watch,
    /// A list or a watch that is being answered.
    answer: Option<Exchange>,
    /// A look that is being answered.
    look: Option<Exchange>,
    /// The last warning: none is given twice in a row.
    said: String,
}

impl Followed {
    /// Nothing asked yet.
    pub fn new(object: ObjectName, manner: Manner, now: Instant, server: &mut Server) -> Followed {
        Followed {
            source: Source {
                object,
                latest: Latest::Unknown,
                content: None,
            },
            denied: None,
            refused: None,
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
        let (purpose, content) = match &want {
            Want::List => (Purpose::List, Content::Objects),
            Want::Watch(..) => (Purpose::Watch, Content::Objects),
            Want::Look => (Purpose::Look, Content::Metadata),
        };
        let target = self.target(purpose);
        let path = match &want {
            Want::List | Want::Look => list_path(&target),
            Want::Watch(from, lasts) => watch_path(&target, from, *lasts),
        };
        let answer = server.ask(&target, &path, content);
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
            None if purpose == Purpose::Look => drop(self.step(Input::LookFailed, server, now)),
            None => drop(self.step(Input::Failed(Failure::Server), server, now)),
        }
        true
    }

    /// Reads what has arrived. True: what is known has changed.
    pub fn read(&mut self, server: &mut Server) -> bool {
        let mut changed = false;
        if let Some(exchange) = self.answer.take_if(|exchange| exchange.more) {
            self.answer = self.read_answer(exchange, server, &mut changed);
        }
        if let Some(exchange) = self.look.take_if(|exchange| exchange.more) {
            self.look = self.read_answer(exchange, server, &mut changed);
        }
        changed
    }

    /// Gives the exchange back while it goes on.
    fn read_answer(
        &mut self,
        mut exchange: Exchange,
        server: &mut Server,
        changed: &mut bool,
    ) -> Option<Exchange> {
        let mut lines = Vec::new();
        let progress = exchange.read(&mut lines);
        let now = Instant::now();
        for line in lines {
            if self.take_event(&line, server, now, changed) {
                return None;
            }
        }
        match progress {
            Progress::Waiting | Progress::More => return Some(exchange),
            Progress::Ended(body) if exchange.status != 200 => {
                self.take_refusal(&exchange, &body, server, now, changed);
            }
            Progress::Ended(body) => match exchange.purpose {
                Purpose::Watch => drop(self.step(Input::Ended, server, now)),
                Purpose::List => self.take_list(&body, server, now, changed),
                Purpose::Look => self.take_look(&body, server, now),
            },
            Progress::Broken(error) => self.take_break(exchange.purpose, error, server, now),
        }
        None
    }

    /// A list has arrived, whole.
    fn take_list(&mut self, body: &[u8], server: &mut Server, now: Instant, changed: &mut bool) {
        let list = match resource::parse_list(body) {
            Ok(list) => list,
            Err(what) => return self.take_nonsense(Purpose::List, what, server, now),
        };
        let mine = list
            .items
            .into_iter()
            .find(|item| item.name == self.source.object.name);
        let found = mine
            .iter()
            .map(|item| (item.name.clone(), item.version.clone()))
            .collect();
        self.step(Input::Listed(list.at, found), server, now);
        match mine {
            Some(configmap) => self.observe(configmap),
            None => self.miss(now),
        }
        *changed = true;
    }

    /// A look has arrived, whole.
    fn take_look(&mut self, body: &[u8], server: &mut Server, now: Instant) {
        match resource::parse_list(body) {
            Ok(list) => {
                let mine = list
                    .items
                    .into_iter()
                    .filter(|i| i.name == self.source.object.name);
                let found: Found = mine.map(|item| (item.name, item.version)).collect();
                self.step(Input::Looked(found), server, now);
            }
            Err(what) => self.say("a look was answered with something else", &what),
        }
    }

    /// A line of the watch. True: the watch is over.
    fn take_event(
        &mut self,
        line: &[u8],
        server: &mut Server,
        now: Instant,
        changed: &mut bool,
    ) -> bool {
        let event = match resource::parse_event(line) {
            Ok(event) => event,
            Err(what) => {
                self.take_nonsense(Purpose::Watch, what, server, now);
                return true;
            }
        };
        let other = match &event {
            WatchEvent::Changed(ConfigMap { name, .. }) | WatchEvent::Deleted(name, _) => {
                Some(name).filter(|name| **name != self.source.object.name)
            }
            WatchEvent::Bookmark(_) | WatchEvent::Failed(_) | WatchEvent::Unknown(_) => None,
        };
        if let Some(other) = other {
            self.say("the watch tells of another object: skipped", other);
            return false;
        }
        match event {
            WatchEvent::Changed(configmap) => {
                let version = configmap.version.clone();
                self.step(Input::Changed(configmap.name.clone(), version), server, now);
                self.observe(configmap);
                *changed = true;
            }
            WatchEvent::Deleted(name, at) => {
                self.step(Input::Deleted(name, at), server, now);
                self.miss(now);
                *changed = true;
            }
            WatchEvent::Bookmark(at) => drop(self.step(Input::Bookmark(at), server, now)),
            WatchEvent::Unknown(kind) => {
                self.say(
                    "the watch tells of an event of unknown type: skipped",
                    &kind,
                );
            }
            WatchEvent::Failed(status) => {
                let failure = if status.code == 410 {
                    Failure::Gone
                } else {
                    Failure::Object
                };
                if failure == Failure::Object {
                    self.say("the watch was ended by the API server", &status.message);
                }
                return self.step(Input::Failed(failure), server, now);
            }
        }
        false
    }

    /// An answer that is no success has arrived, whole.
    fn take_refusal(
        &mut self,
        exchange: &Exchange,
        body: &[u8],
        server: &mut Server,
        now: Instant,
        changed: &mut bool,
    ) {
        let status = resource::parse_status(body);
        let target = Box::new(self.target(exchange.purpose));
        let (code, retry_after) = (exchange.status, exchange.retry_after);
        let error = Error::Status {
            target,
            code,
            message: status.message,
            retry_after,
        };
        let failure = match error.kind() {
            Kind::Transient | Kind::Unauthorized => {
                server.failed(error, retry_after, now);
                Failure::Server
            }
            Kind::Gone => Failure::Gone,
            _ => {
                let text = error.to_string();
                self.say("the API server refuses", &text);
                if self.source.latest == Latest::Unknown && exchange.purpose == Purpose::List {
                    // The others go on, if there is something that stands in for this one.
                    self.source.latest = Latest::Refused;
                    *changed = true;
                }
                self.deny(error, now);
                Failure::Object
            }
        };
        let input = match (exchange.purpose, failure) {
            (Purpose::List | Purpose::Watch, failure) => Input::Failed(failure),
            (Purpose::Look, Failure::Server) => Input::LookFailed,
            // The next look will tell.
            (Purpose::Look, Failure::Gone | Failure::Object) => return,
        };
        self.step(input, server, now);
    }

    /// The connection broke, or its bytes were no HTTP.
    fn take_break(
        &mut self,
        purpose: Purpose,
        error: std::io::Error,
        server: &mut Server,
        now: Instant,
    ) {
        debug!(object:% = self.source.object, error:% = error; "an answer broke");
        match purpose {
            Purpose::Look => {}
            _ if error.kind() == std::io::ErrorKind::InvalidData => {
                self.take_nonsense(purpose, error.to_string(), server, now);
            }
            Purpose::Watch => drop(self.step(Input::Ended, server, now)),
            Purpose::List => {
                let target = Box::new(self.target(purpose));
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
            target: Box::new(self.target(purpose)),
            what,
        };
        self.say(
            "the API server's answer cannot be used: listing again",
            &error.to_string(),
        );
        self.step(Input::Failed(Failure::Object), server, now);
    }

    /// Lets time pass: answers that take too long are given up.
    pub fn tick(&mut self, server: &mut Server, now: Instant) {
        let late = |exchange: &mut Exchange| exchange.deadline.is_some_and(|at| at <= now);
        if let Some(exchange) = self.answer.take_if(late) {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "no whole answer in time");
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

    /// The object is there, in this state.
    fn observe(&mut self, configmap: ConfigMap) {
        (self.denied, self.refused) = (None, None);
        let (object, version) = (
            &self.source.object,
            configmap.version.resource_version.clone(),
        );
        let Examined { content, doubts } =
            reconcile::examine(object, configmap, self.source.content.as_ref());
        for Remark { key, what } in doubts {
            warn!(configmap:% = object, resource_version:% = version, key, reason = what;
                "published, though not every parser reads it");
        }
        match content {
            Ok(content) => {
                debug!(configmap:% = object, resource_version:% = version; "observed");
                self.source.content = Some(content);
                self.source.latest = Latest::Fit;
                self.said.clear();
            }
            Err(remarks) => {
                let reasons: Vec<String> = remarks.iter().map(Remark::to_string).collect();
                let reasons = reasons.join("; ");
                self.source.latest = Latest::Refused;
                let text = format!("{} (resourceVersion {version})", reasons);
                self.say("refused a ConfigMap: what is published stays", &text);
                self.refused = Some(reasons);
            }
        }
    }

    /// The object is not there.
    fn miss(&mut self, now: Instant) {
        self.source.latest = Latest::Absent;
        let error = Error::Missing {
            target: Box::new(self.target(Purpose::List)),
        };
        self.say(
            "a ConfigMap is not there: what is published stays",
            &error.to_string(),
        );
        self.deny(error, now);
    }

    fn deny(&mut self, error: Error, now: Instant) {
        let since = self.denied.as_ref().map_or(now, |(since, _)| *since);
        self.denied = Some((since, error));
    }

    fn say(&mut self, message: &'static str, reason: &str) {
        if self.said != reason {
            warn!(configmap:% = self.source.object, reason; "{message}");
            self.said = reason.to_owned();
        }
    }

    fn target(&self, purpose: Purpose) -> Target {
        let verb = match purpose {
            Purpose::List | Purpose::Look => "list",
            Purpose::Watch => "watch",
        };
        Target {
            verb,
            resource: "configmaps",
            group: "",
            object: self.source.object.clone(),
        }
    }
}
