//! Objects of one kind, followed: joins a list-watch (pure) to its requests and their answers. Owns:
//! what is under way for it, and what the operator hears of the way. Must not: know what an object
//! means.

use std::io;
use std::time::Instant;

use fastrand::Rng;
use log::{debug, info, warn};

use crate::backoff::Repeats;
use crate::error::{Chain, Error, Kind, Target, Verb};
use crate::gather;
use crate::kube::api::{self, WatchEvent};
use crate::kube::health::ApiServer;
use crate::kube::hint;
use crate::kube::list_watch::{Failure, Input, ListWatch, ObjectVersions, Request, SyncMode};
use crate::kube::object::{Object, ObjectKind, Projection};
use crate::kube::pages::Pages;
use crate::kube::{list_path, watch_path};
use crate::net::response::{Progress, Response};

/// What the cluster says.
#[derive(Debug)]
pub enum Event {
    /// These objects are there, and no others.
    Replaced(Vec<Object>),
    /// This object is there, in this state.
    Applied(Object),
    /// The object of this name is gone.
    Deleted(String),
    /// It will not say, for a reason of these objects' own.
    Unavailable(Error),
    /// What it says is of no use: too long, or nothing that can be read.
    Unusable,
}

/// What an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A list of whole objects.
    List,
    /// A watch: lines, as they come.
    Watch,
    /// A list of metadata.
    Check,
}

/// A list-watch and everything that is under way for it.
pub struct Reflector {
    kind: ObjectKind,
    /// What it covers; the verb is the last request's.
    target: Target,
    /// Of its API group; `None`: not known, so nothing can be asked.
    version: Option<String>,
    watch: ListWatch,
    /// A list or a watch that is being answered.
    answer: Option<(Purpose, Response)>,
    /// A look that is being answered.
    check: Option<Response>,
    /// What has come of each.
    listed: Pages,
    looked: Pages,
    /// Why the last request has to be made again, if for a reason of its own.
    trouble: Option<Error>,
    /// How often its streams end.
    cuts: Repeats,
    /// The last warning: none is given twice in a row.
    said: String,
    /// What a watch told last that was skipped.
    skipped: String,
}

impl Reflector {
    /// Nothing asked yet. `name`: of the one object; `None`: all of the kind in the namespace.
    pub fn new(
        kind: ObjectKind,
        namespace: String,
        name: Option<String>,
        manner: SyncMode,
        rng: Rng,
        now: Instant,
    ) -> Reflector {
        let (resource, group) = (kind.plural(), kind.group());
        Reflector {
            kind,
            target: Target {
                verb: Verb::List,
                resource,
                group,
                namespace,
                name,
            },
            version: (kind == ObjectKind::ConfigMap).then(|| "v1".to_owned()),
            watch: ListWatch::new(manner, rng, now),
            answer: None,
            check: None,
            listed: Pages::default(),
            looked: Pages::default(),
            trouble: None,
            cuts: Repeats::default(),
            said: String::new(),
            skipped: String::new(),
        }
    }

    /// Asks in this version of the API group from now on, if at all.
    pub fn set_api_version(&mut self, version: Option<&str>, now: Instant) {
        if self.version.as_deref() != version {
            self.version = version.map(str::to_owned);
            // An open stream of another version goes on telling the same objects.
            if !self.watch.is_settled() {
                self.relist(now);
            }
        }
    }

    /// Whether a stream tells of every change.
    pub fn is_streaming(&self) -> bool {
        self.watch.is_streaming()
    }

    /// Asks what is there by then, whatever was under way.
    pub fn relist(&mut self, due: Instant) {
        self.answer = None;
        self.listed.restart();
        self.watch.relist(due);
    }

    /// Why its last request has to be made again, if that is neither the whole server's fault nor a
    /// refusal.
    pub fn trouble(&self) -> Option<&Error> {
        self.trouble.as_ref()
    }

    /// The same, for good.
    pub fn take_trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }

    /// What is being answered, for poll(2).
    pub fn responses(&self) -> impl Iterator<Item = &Response> {
        self.answer
            .iter()
            .map(|(_, response)| response)
            .chain(&self.check)
    }

    /// The same, to be marked as readable.
    pub fn responses_mut(&mut self) -> impl Iterator<Item = &mut Response> {
        self.answer
            .iter_mut()
            .map(|(_, response)| response)
            .chain(&mut self.check)
    }

    /// Whether something has arrived that is not read yet.
    pub fn has_input(&self) -> bool {
        self.responses().any(Response::has_input)
    }

    /// When something is to be done without input. `permitted`: when requests may go out.
    pub fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let patience = self.responses().filter_map(|response| response.deadline);
        let asks = self.version.is_some() && !self.is_asking();
        let at_once = self.looks_on().then(Instant::now);
        let own = at_once.or(self.watch.deadline()).filter(|_| asks);
        // What is due waits for the server; what times out does not.
        let own = own.map(|at| permitted.map_or(at, |permitted| at.max(permitted)));
        patience.chain(own).chain(self.watch.expires()).min()
    }

    /// Whether the answer to what the list-watch wants is on its way.
    fn is_asking(&self) -> bool {
        match self.watch.is_settled() {
            true => self.check.is_some(),
            false => self.answer.is_some(),
        }
    }

    /// Whether a look's next page is wanted.
    fn looks_on(&self) -> bool {
        self.watch.is_settled() && self.looked.goes_on()
    }

    fn pages(&mut self, purpose: Purpose) -> &mut Pages {
        match purpose {
            Purpose::List | Purpose::Watch => &mut self.listed,
            Purpose::Check => &mut self.looked,
        }
    }

    /// Makes the request that is due, if any. True: one was made.
    pub fn request(&mut self, server: &mut ApiServer, now: Instant) -> bool {
        if self.is_asking() {
            return false;
        }
        let Some(version) = &self.version else {
            return false;
        };
        let request = match self.looks_on() {
            true => Some(Request::Check),
            false => self.watch.next_request(now),
        };
        let Some(request) = request else {
            return false;
        };
        let (purpose, extent, path) = match &request {
            Request::List => (
                Purpose::List,
                Projection::Full,
                list_path(&self.target, version, &self.listed),
            ),
            Request::Check => (
                Purpose::Check,
                Projection::MetadataOnly,
                list_path(&self.target, version, &self.looked),
            ),
            Request::Watch(from, lasts) => (
                Purpose::Watch,
                Projection::Full,
                watch_path(&self.target, version, from, *lasts),
            ),
        };
        self.target.verb = match purpose {
            Purpose::List | Purpose::Check => Verb::List,
            Purpose::Watch => Verb::Watch,
        };
        let answer = server.ask(&self.target, &path, extent);
        let now = Instant::now();
        match answer {
            Ok(Some(answer)) => {
                if let (Request::Watch(_, lasts), 200) = (request, answer.status) {
                    self.trouble = None;
                    self.step(Input::Opened(lasts), now);
                }
                let response = Response::new(answer, purpose == Purpose::Watch, now);
                match purpose {
                    Purpose::List | Purpose::Watch => self.answer = Some((purpose, response)),
                    Purpose::Check => self.check = Some(response),
                }
            }
            Ok(None) => self.fail(purpose, Failure::Server, now),
            Err(what) => self.take_nonsense(purpose, what, now),
        }
        true
    }

    /// A request has failed.
    fn fail(&mut self, purpose: Purpose, failure: Failure, now: Instant) {
        self.pages(purpose).restart();
        let input = match purpose {
            Purpose::List | Purpose::Watch => Input::Failed(failure),
            Purpose::Check => Input::CheckFailed(failure),
        };
        self.step(input, now);
    }

    /// Reads what has arrived, and says what it tells.
    pub fn read(&mut self, server: &mut ApiServer, observations: &mut Vec<Event>) {
        if let Some((purpose, mut response)) =
            self.answer.take_if(|(_, response)| response.readable)
            && self.read_answer(purpose, &mut response, server, observations)
        {
            self.answer = Some((purpose, response));
        }
        if let Some(mut response) = self.check.take_if(|response| response.readable)
            && self.read_answer(Purpose::Check, &mut response, server, observations)
        {
            self.check = Some(response);
        }
    }

    /// True: the answer goes on.
    fn read_answer(
        &mut self,
        purpose: Purpose,
        response: &mut Response,
        server: &mut ApiServer,
        observations: &mut Vec<Event>,
    ) -> bool {
        let mut lines = Vec::new();
        let progress = response.read(&mut lines);
        let now = Instant::now();
        for line in lines {
            if self.take_event(&line, now, observations) {
                return false;
            }
        }
        match progress {
            Progress::Waiting | Progress::More => return true,
            Progress::Ended(body) if response.status != 200 => {
                let refusal = self.take_refusal(purpose, response, &body, server, now);
                observations.extend(refusal.map(Event::Unavailable));
            }
            Progress::Ended(body) => match purpose {
                Purpose::Watch => self.take_cut("it was ended on the way or by the server", now),
                Purpose::List | Purpose::Check => {
                    let list = self.take_list(purpose, &body, now);
                    observations.extend(list.map(Event::Replaced));
                }
            },
            Progress::Broken(error) => {
                self.take_break(purpose, response.status, error, now);
            }
        }
        let is_bad = |error: &Error| error.kind() == Kind::Bad;
        if purpose == Purpose::List && self.trouble.as_ref().is_some_and(is_bad) {
            observations.push(Event::Unusable);
        }
        false
    }

    /// A page of a list or a look has arrived. A list's objects are given back once it is whole.
    fn take_list(&mut self, purpose: Purpose, body: &[u8], now: Instant) -> Option<Vec<Object>> {
        let extent = match purpose {
            Purpose::List | Purpose::Watch => Projection::Full,
            Purpose::Check => Projection::MetadataOnly,
        };
        let page = api::list(body, self.kind, extent);
        let (at, mut items) = match page.and_then(|page| self.pages(purpose).take(page)) {
            Ok(Some(whole)) => whole,
            Ok(None) => return None,
            Err(what) => {
                self.take_nonsense(purpose, what, now);
                return None;
            }
        };
        self.trouble = None;
        items.retain(|item| self.covers(&item.name));
        let versions = items
            .iter()
            .map(|item| (item.name.clone(), item.version.clone()));
        let found: ObjectVersions = gather(versions);
        if purpose == Purpose::Check {
            self.step(Input::Checked(found), now);
        } else {
            // A look that has begun before tells of an older state.
            self.looked.restart();
            self.step(Input::Listed(at, found), now);
        }
        // A list that works is no news where the watch that follows it does not.
        if self.watch.is_settled() {
            self.said.clear();
        }
        (purpose == Purpose::List).then_some(items)
    }

    fn covers(&self, name: &str) -> bool {
        self.target.name.as_deref().is_none_or(|mine| mine == name)
    }

    /// A line of the watch. True: the watch is over.
    fn take_event(&mut self, line: &[u8], now: Instant, observations: &mut Vec<Event>) -> bool {
        let event = match api::event(line, self.kind) {
            Ok(event) => event,
            Err(what) => {
                self.take_nonsense(Purpose::Watch, what, now);
                return true;
            }
        };
        match event {
            WatchEvent::Changed(Object { name, .. }) | WatchEvent::Deleted(name, _)
                if !self.covers(&name) =>
            {
                self.skip("the watch tells of another object: skipped", name);
            }
            WatchEvent::Changed(object) => {
                self.said.clear();
                let (name, version) = (object.name.clone(), object.version.clone());
                self.step(Input::Changed(name, version), now);
                observations.push(Event::Applied(object));
            }
            WatchEvent::Deleted(name, at) => {
                self.said.clear();
                self.step(Input::Deleted(name.clone(), at), now);
                observations.push(Event::Deleted(name));
            }
            WatchEvent::Bookmark(at) => {
                self.said.clear();
                self.step(Input::Bookmark(at), now);
            }
            WatchEvent::Unknown(kind) => {
                self.skip("the watch tells of an event of unknown type: skipped", kind);
            }
            WatchEvent::Failed(status) if status.code == 410 => {
                return self.step(Input::Failed(Failure::Gone), now);
            }
            WatchEvent::Failed(status) => {
                self.say(
                    "the API server ended the watch: listing again",
                    &status.message,
                );
                return self.step(Input::Failed(Failure::Object), now);
            }
        }
        false
    }

    /// An answer that is no success has arrived, whole. Given back if it is about these objects.
    fn take_refusal(
        &mut self,
        purpose: Purpose,
        response: &Response,
        body: &[u8],
        server: &mut ApiServer,
        now: Instant,
    ) -> Option<Error> {
        let (code, retry_after) = (response.status, response.retry_after);
        let error = hint::refusal(hint::Purpose::Read, &self.target, code, body, retry_after);
        if error.kind() == Kind::Transient {
            self.put_off(purpose, error, now);
            return None;
        }
        self.trouble = None;
        let (failure, refusal) = match error.kind() {
            Kind::Unauthorized => {
                server.failed(error, now);
                (Failure::Server, None)
            }
            Kind::Gone if self.pages(purpose).expire() => return None,
            Kind::Gone => (Failure::Gone, None),
            // A kind that nobody serves is no fault: a CRD comes and goes.
            Kind::NotFound if self.kind == ObjectKind::TrafficSplit => {
                (Failure::Object, Some(error))
            }
            _ => {
                self.say("the API server refuses", &error.to_string());
                (Failure::Object, Some(error))
            }
        };
        let refusal = match purpose {
            // An open stream knows better, unless nobody serves its kind.
            Purpose::Check if self.is_streaming() => {
                refusal.filter(|error| error.kind() == Kind::NotFound)
            }
            Purpose::List | Purpose::Watch | Purpose::Check => refusal,
        };
        self.fail(purpose, failure, now);
        refusal
    }

    /// The server is there, and cannot answer now: that is this request's own.
    fn put_off(&mut self, purpose: Purpose, error: Error, now: Instant) {
        let message = "the API server cannot answer now: published files stay, trying again";
        self.say(message, &Chain(&error).to_string());
        let wish = error.retry_after().unwrap_or_default();
        self.trouble = Some(error);
        self.fail(purpose, Failure::Busy(wish), now);
    }

    /// The connection broke, or its bytes were no HTTP.
    fn take_break(&mut self, purpose: Purpose, status: u16, error: io::Error, now: Instant) {
        debug!(target:% = self.target, error:% = error; "an answer broke");
        let too_large = error.kind() == io::ErrorKind::FileTooLarge;
        let pages = purpose != Purpose::Watch && self.target.name.is_none();
        if too_large && pages && self.pages(purpose).shrink() {
            // Asked again at once, for less.
        } else if too_large || error.kind() == io::ErrorKind::InvalidData {
            self.take_nonsense(purpose, error.to_string(), now);
        } else if purpose == Purpose::Watch && status == 200 {
            self.take_cut(&error.to_string(), now);
        } else {
            let (target, source) = (Box::new(self.target.clone()), error.into());
            self.put_off(purpose, Error::Request { target, source }, now);
        }
    }

    /// The stream has ended, for this reason.
    fn take_cut(&mut self, reason: &str, now: Instant) {
        if self.cuts.count(now) {
            info!(of:% = self.target, reason;
                "the watch is cut again and again: it goes on where it was each time");
        }
        self.step(Input::Ended, now);
    }

    /// The answer cannot be understood: nothing of it is used, and a list will tell.
    fn take_nonsense(&mut self, purpose: Purpose, what: String, now: Instant) {
        let error = Error::Answer {
            target: Box::new(self.target.clone()),
            what,
        };
        self.say(
            "the API server's answer cannot be used: asking again",
            &error.to_string(),
        );
        self.trouble = Some(error);
        self.fail(purpose, Failure::Object, now);
    }

    /// Lets time pass: answers that take too long are given up.
    pub fn tick(&mut self, server: &mut ApiServer, now: Instant) {
        let late = |response: &Response| response.deadline.is_some_and(|at| at <= now);
        let answer = self.answer.take_if(|(_, response)| late(response));
        let check = self.check.take_if(|response| late(response));
        let check = check.map(|response| (Purpose::Check, response));
        for (purpose, response) in answer.into_iter().chain(check) {
            server.late(now);
            let late = io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
            self.take_break(purpose, response.status, late, now);
        }
        self.step(Input::Tick, now);
    }

    /// Feeds the list-watch. True: it has given up its stream.
    fn step(&mut self, input: Input, now: Instant) -> bool {
        let closes = self.watch.step(input, now);
        if closes {
            self.answer = None;
        }
        closes
    }

    /// A line of the watch is nothing to us.
    fn skip(&mut self, message: &'static str, what: String) {
        if self.skipped != what {
            warn!(of:% = self.target, what; "{message}");
            self.skipped = what;
        }
    }

    fn say(&mut self, message: &'static str, reason: &str) {
        if self.said != reason {
            warn!(of:% = self.target, reason; "{message}");
            self.said = reason.to_owned();
        }
    }
}
