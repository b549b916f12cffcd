//! A reflector makes the requests of a list-watch, reads their answers, and hands on what they say
//! about its objects. Owns: what is under way, and what the operator hears of it. Must not: know
//! what an object means.

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
use crate::kube::list_watch::{
    Failure, Input, ListWatch, ObjectVersions, Request, Stream, SyncMode,
};
use crate::kube::object::{Object, ObjectKind};
use crate::kube::pending::{Pending, Purpose, Track};
use crate::kube::{list_path, watch_path};
use crate::logging::WarnOnce;
use crate::net::response::{Progress, Response};

/// A change of the objects, or of what is known of them.
#[derive(Debug)]
pub enum Event {
    /// These objects exist, and no others.
    Replaced(Vec<Object>),
    /// This object exists, in this state.
    Applied(Object),
    /// The object of this name is gone.
    Deleted(String),
    /// The API server refuses to tell, for a reason that concerns these objects alone.
    Unavailable(Error),
    /// Its answer cannot be used, as it is too long or cannot be read.
    Unusable,
}

/// Says whether more of an answer is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Continues,
    Over,
}

/// A list-watch and everything that is under way for it.
pub struct Reflector {
    kind: ObjectKind,
    /// The objects that it covers.
    target: Target,
    /// The version of the API group, without which nothing can be asked.
    version: Option<String>,
    watch: ListWatch,
    /// The requests that are under way; see [`Purpose::track`].
    tracks: [Track; 2],
    /// The reason why the last request has to be made again, if that concerns these objects alone.
    trouble: Option<Error>,
    /// Ends of streams.
    cuts: Repeats,
    failing: WarnOnce,
    skipping: WarnOnce,
}

impl Reflector {
    /// Makes a reflector of one object, or without a `name` of all of its kind in the namespace.
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
            tracks: Default::default(),
            trouble: None,
            cuts: Repeats::default(),
            failing: WarnOnce::default(),
            skipping: WarnOnce::default(),
        }
    }

    /// Sets the version of the API group for requests from now on; without one none are made.
    pub fn set_api_version(&mut self, version: Option<&str>, now: Instant) {
        if self.version.as_deref() != version {
            self.version = version.map(str::to_owned);
            // An open stream of another version goes on reporting the same objects.
            if !self.watch.is_settled() {
                self.relist(now);
            }
        }
    }

    /// Returns whether a stream reports every change.
    pub fn is_streaming(&self) -> bool {
        self.watch.is_streaming()
    }

    /// Lists by then, whatever is under way.
    pub fn relist(&mut self, due: Instant) {
        let track = self.track(Purpose::List);
        track.pending = None;
        track.pages.restart();
        self.watch.relist(due);
    }

    /// Returns why the last request has to be made again, if that neither concerns all requests nor
    /// is a refusal.
    pub fn trouble(&self) -> Option<&Error> {
        self.trouble.as_ref()
    }

    /// Takes the same.
    pub fn take_trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }

    /// Returns the answers that are under way, for poll(2).
    pub fn responses(&self) -> impl Iterator<Item = &Response> {
        let pending = self
            .tracks
            .iter()
            .filter_map(|track| track.pending.as_ref());
        pending.map(|pending| &pending.response)
    }

    /// Returns the same, to be marked as readable.
    pub fn responses_mut(&mut self) -> impl Iterator<Item = &mut Response> {
        let pending = self
            .tracks
            .iter_mut()
            .filter_map(|track| track.pending.as_mut());
        pending.map(|pending| &mut pending.response)
    }

    /// Returns whether something has arrived that is not read yet.
    pub fn has_input(&self) -> bool {
        self.responses().any(Response::has_input)
    }

    /// Returns when something is to be done without input. Requests may go out from `permitted` on.
    pub fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let patience = self.responses().filter_map(|response| response.deadline);
        let asks = self.version.is_some() && !self.is_asking();
        let at_once = self.check_goes_on().then(Instant::now);
        let own = at_once.or(self.watch.deadline()).filter(|_| asks);
        // What is due waits for the server; what times out does not.
        let own = own.map(|at| permitted.map_or(at, |permitted| at.max(permitted)));
        patience.chain(own).chain(self.watch.expires()).min()
    }

    /// Returns whether the answer to the list-watch's last request is under way.
    fn is_asking(&self) -> bool {
        let purpose = if self.watch.is_settled() {
            Purpose::Check
        } else {
            Purpose::List
        };
        self.tracks[purpose.track()].pending.is_some()
    }

    /// Returns whether the next page of a consistency check is to be asked for.
    fn check_goes_on(&self) -> bool {
        self.watch.is_settled() && self.tracks[Purpose::Check.track()].pages.goes_on()
    }

    fn track(&mut self, purpose: Purpose) -> &mut Track {
        &mut self.tracks[purpose.track()]
    }

    /// Names a request in errors and logs.
    fn target(&self, purpose: Purpose) -> Target {
        Target {
            verb: purpose.verb(),
            ..self.target.clone()
        }
    }

    /// Makes the request that is due, if any. Returns whether one was made.
    pub fn request(&mut self, server: &mut ApiServer, now: Instant) -> bool {
        if self.is_asking() {
            return false;
        }
        let Some(version) = &self.version else {
            return false;
        };
        let request = if self.check_goes_on() {
            Request::Check
        } else if let Some(request) = self.watch.next_request(now) {
            request
        } else {
            return false;
        };
        let purpose = Purpose::of(&request);
        let path = match &request {
            Request::List | Request::Check => {
                list_path(&self.target, version, &self.tracks[purpose.track()].pages)
            }
            Request::Watch(from, lasts) => watch_path(&self.target, version, from, *lasts),
        };
        let answer = server.ask(&self.target(purpose), &path, purpose.projection());
        let now = Instant::now();
        match answer {
            Ok(Some(answer)) => {
                if let (Request::Watch(_, lasts), 200) = (request, answer.status) {
                    self.trouble = None;
                    self.step(Input::Opened(lasts), now);
                }
                let response = match purpose {
                    Purpose::Watch => Response::streamed(answer, now),
                    Purpose::List | Purpose::Check => Response::whole(answer, now),
                };
                self.track(purpose).pending = Some(Pending { purpose, response });
            }
            Ok(None) => self.fail(purpose, Failure::Server, now),
            Err(what) => self.take_nonsense(purpose, what, now),
        }
        true
    }

    /// Passes a failed request on to the list-watch.
    fn fail(&mut self, purpose: Purpose, failure: Failure, now: Instant) {
        self.track(purpose).pages.restart();
        self.step(purpose.failed(failure), now);
    }

    /// Reads what has arrived into `events`.
    pub fn read(&mut self, server: &mut ApiServer, events: &mut Vec<Event>) {
        for i in 0..self.tracks.len() {
            let readable = |pending: &mut Pending| pending.response.readable;
            let Some(mut pending) = self.tracks[i].pending.take_if(readable) else {
                continue;
            };
            if self.read_answer(&mut pending, server, events) == Answer::Continues {
                self.tracks[i].pending = Some(pending);
            }
        }
    }

    fn read_answer(
        &mut self,
        pending: &mut Pending,
        server: &mut ApiServer,
        events: &mut Vec<Event>,
    ) -> Answer {
        let (purpose, response) = (pending.purpose, &mut pending.response);
        let mut lines = Vec::new();
        let progress = response.read(&mut lines);
        let now = Instant::now();
        for line in lines {
            if self.take_event(&line, now, events) == Answer::Over {
                return Answer::Over;
            }
        }
        match progress {
            Progress::Waiting | Progress::More => return Answer::Continues,
            Progress::Ended(body) if response.status != 200 => {
                let refusal = self.take_refusal(purpose, response, &body, server, now);
                events.extend(refusal.map(Event::Unavailable));
            }
            Progress::Ended(body) => match purpose {
                Purpose::Watch => self.take_cut("it was ended on the way or by the server", now),
                Purpose::List | Purpose::Check => {
                    let list = self.take_list(purpose, &body, now);
                    events.extend(list.map(Event::Replaced));
                }
            },
            Progress::Broken(error) => self.take_break(purpose, response.status, error, now),
        }
        let is_bad = |error: &Error| error.kind() == Kind::Bad;
        if purpose == Purpose::List && self.trouble.as_ref().is_some_and(is_bad) {
            events.push(Event::Unusable);
        }
        Answer::Over
    }

    /// Takes in a page of a list or of a check. Returns the objects of a list once it is whole.
    fn take_list(&mut self, purpose: Purpose, body: &[u8], now: Instant) -> Option<Vec<Object>> {
        let page = api::list(body, self.kind, purpose.projection());
        let taken = page.and_then(|page| self.track(purpose).pages.take(page));
        let (at, mut items) = match taken {
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
            // A check that began before tells of an older state.
            self.track(Purpose::Check).pages.restart();
            self.step(Input::Listed(at, found), now);
        }
        // The list before a watch that fails does not end a failure.
        if self.watch.is_settled() {
            self.clear(now);
        }
        (purpose == Purpose::List).then_some(items)
    }

    fn covers(&self, name: &str) -> bool {
        self.target.name.as_deref().is_none_or(|mine| mine == name)
    }

    /// Takes in a line of the watch.
    fn take_event(&mut self, line: &[u8], now: Instant, events: &mut Vec<Event>) -> Answer {
        let event = match api::event(line, self.kind) {
            Ok(event) => event,
            Err(what) => {
                self.take_nonsense(Purpose::Watch, what, now);
                return Answer::Over;
            }
        };
        match event {
            WatchEvent::Changed(Object { name, .. }) | WatchEvent::Deleted(name, _)
                if !self.covers(&name) =>
            {
                self.skip("the watch sent another object; skipping it", &name, now);
            }
            WatchEvent::Changed(object) => {
                self.clear(now);
                let (name, version) = (object.name.clone(), object.version.clone());
                self.step(Input::Changed(name, version), now);
                events.push(Event::Applied(object));
            }
            WatchEvent::Deleted(name, at) => {
                self.clear(now);
                self.step(Input::Deleted(name.clone(), at), now);
                events.push(Event::Deleted(name));
            }
            WatchEvent::Bookmark(at) => {
                self.clear(now);
                self.step(Input::Bookmark(at), now);
            }
            WatchEvent::Unknown(kind) => {
                self.skip(
                    "the watch sent an event of unknown type; skipping it",
                    &kind,
                    now,
                );
            }
            WatchEvent::Failed(status) => {
                let failure = if status.code == 410 {
                    Failure::Gone
                } else {
                    let message = "the API server ended the watch; listing again";
                    self.warn(Purpose::Watch, message, &status.message, now);
                    Failure::Object
                };
                return self.step(Input::Failed(failure), now);
            }
        }
        Answer::Continues
    }

    /// Takes in an answer with an error code. Returns the error if it concerns these objects.
    fn take_refusal(
        &mut self,
        purpose: Purpose,
        response: &Response,
        body: &[u8],
        server: &mut ApiServer,
        now: Instant,
    ) -> Option<Error> {
        let (code, retry_after) = (response.status, response.retry_after);
        let target = self.target(purpose);
        let error = hint::refusal(hint::Purpose::Read, &target, code, body, retry_after);
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
            Kind::Gone if self.track(purpose).pages.expire() => return None,
            Kind::Gone => (Failure::Gone, None),
            // A CRD comes and goes: a kind that is not served is not a fault.
            Kind::NotFound if self.kind == ObjectKind::TrafficSplit => {
                (Failure::Object, Some(error))
            }
            _ => {
                let message = "the API server refuses a request; asking again";
                self.warn(purpose, message, &error.to_string(), now);
                (Failure::Object, Some(error))
            }
        };
        let refusal = match purpose {
            // An open stream knows better, unless its kind is not served.
            Purpose::Check if self.is_streaming() => {
                refusal.filter(|error| error.kind() == Kind::NotFound)
            }
            Purpose::List | Purpose::Watch | Purpose::Check => refusal,
        };
        self.fail(purpose, failure, now);
        refusal
    }

    /// Puts a request off that the server cannot answer now; others go on.
    fn put_off(&mut self, purpose: Purpose, error: Error, now: Instant) {
        let message = "the API server cannot answer now; trying again";
        self.warn(purpose, message, &Chain(&error).to_string(), now);
        let wish = error.retry_after().unwrap_or_default();
        self.trouble = Some(error);
        self.fail(purpose, Failure::Busy(wish), now);
    }

    /// Takes in that the connection broke, or that its bytes were not HTTP.
    fn take_break(&mut self, purpose: Purpose, status: u16, error: io::Error, now: Instant) {
        debug!(request:% = self.target(purpose), error:% = error; "an answer broke");
        let too_large = error.kind() == io::ErrorKind::FileTooLarge;
        let pages = purpose != Purpose::Watch && self.target.name.is_none();
        if too_large && pages && self.track(purpose).pages.shrink() {
            // Asked again at once, for less.
        } else if too_large || error.kind() == io::ErrorKind::InvalidData {
            self.take_nonsense(purpose, error.to_string(), now);
        } else if purpose == Purpose::Watch && status == 200 {
            self.take_cut(&error.to_string(), now);
        } else {
            let error = Error::Request {
                target: Box::new(self.target(purpose)),
                source: error.into(),
            };
            self.put_off(purpose, error, now);
        }
    }

    /// Takes in the end of the stream.
    fn take_cut(&mut self, reason: &str, now: Instant) {
        if self.cuts.count(now) {
            info!(request:% = self.target(Purpose::Watch), error = reason;
                "the watch is cut again and again; resuming it where it was");
        }
        self.step(Input::Ended, now);
    }

    /// Takes in an answer that cannot be understood: nothing of it is used, and a list follows.
    fn take_nonsense(&mut self, purpose: Purpose, what: String, now: Instant) {
        let error = Error::Answer {
            target: Box::new(self.target(purpose)),
            what,
        };
        let message = "the API server's answer cannot be used; asking again";
        self.warn(purpose, message, &error.to_string(), now);
        self.trouble = Some(error);
        self.fail(purpose, Failure::Object, now);
    }

    /// Lets time pass, and gives up answers that take too long.
    pub fn tick(&mut self, server: &mut ApiServer, now: Instant) {
        for i in 0..self.tracks.len() {
            let is_late = |pending: &mut Pending| {
                let deadline = pending.response.deadline;
                deadline.is_some_and(|at| at <= now)
            };
            if let Some(Pending { purpose, response }) = self.tracks[i].pending.take_if(is_late) {
                server.late(now);
                let error = io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
                self.take_break(purpose, response.status, error, now);
            }
        }
        self.step(Input::Tick, now);
    }

    /// Feeds the list-watch. Returns whether its stream goes on.
    fn step(&mut self, input: Input, now: Instant) -> Answer {
        match self.watch.step(input, now) {
            Stream::Stays => Answer::Continues,
            Stream::Closes => {
                self.track(Purpose::Watch).pending = None;
                Answer::Over
            }
        }
    }

    fn warn(&mut self, purpose: Purpose, message: &'static str, error: &str, now: Instant) {
        let target = self.target(purpose);
        self.failing.warn(("request", &target), message, error, now);
    }

    /// Gives the all-clear of whatever failed before.
    fn clear(&mut self, now: Instant) {
        let message = "requests succeed again";
        self.failing.clear(("request", &self.target), message, now);
    }

    /// Reports what the watch should not have sent.
    fn skip(&mut self, message: &'static str, what: &str, now: Instant) {
        if self.skipping.is_news(message, what, now) {
            warn!(request:% = self.target(Purpose::Watch), what; "{message}");
        }
    }
}
