//! A reflector makes the requests of a list-watch, reads their answers, and hands on what they say
//! about its objects. Must not: know what an object means.

mod answers;
mod pending;
mod reports;

use std::io;
use std::time::Instant;

use fastrand::Rng;

use crate::error::{Error, Kind};
use crate::kube::client::{Call, Method};
use crate::kube::health::ApiServer;
use crate::kube::list_watch::{Failure, Input, ListWatch, Request, Stream, SyncMode};
use crate::kube::object::{Object, ObjectKind};
use crate::net::response::{Progress, Response};
use crate::poll::{Changed, Requested};
use pending::{Pending, Purpose, Requests};
use reports::Reports;

/// A change of the objects, or of what is known of them.
#[derive(Debug)]
pub enum Event {
    /// These objects exist, and no others.
    Replaced(Vec<Object>),
    /// This object exists, in this state.
    Applied(Object),
    /// The object of this name is gone.
    Deleted(String),
    /// The API server refuses the request, for a reason that concerns these objects alone.
    Unavailable(Error),
    /// The API server's answer cannot be used, as it is too long or cannot be read.
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
    watch: ListWatch,
    requests: Requests,
    /// The reason why the last request has to be made again, if that concerns these objects alone.
    trouble: Option<Error>,
    reports: Reports,
}

impl Reflector {
    /// Makes a reflector of one object, or without a `name` of all of its kind in the namespace.
    pub fn new(
        kind: ObjectKind,
        namespace: String,
        name: Option<String>,
        mode: SyncMode,
        rng: Rng,
        now: Instant,
    ) -> Reflector {
        Reflector {
            kind,
            watch: ListWatch::new(mode, rng, now),
            requests: Requests::new(kind, namespace, name),
            trouble: None,
            reports: Reports::default(),
        }
    }

    /// Sets the version of the API group for requests from now on; without one none are made.
    pub fn set_api_version(&mut self, version: Option<&str>, now: Instant) {
        // An open stream of another version goes on reporting the same objects.
        if self.requests.set_version(version) == Changed::Yes && !self.watch.is_settled() {
            self.relist(now);
        }
    }

    /// Returns whether a stream reports every change.
    pub fn is_streaming(&self) -> bool {
        self.watch.is_streaming()
    }

    /// Lists by `due`, whatever is under way.
    pub fn relist(&mut self, due: Instant) {
        self.requests.cancel(Purpose::List);
        self.requests.pages_mut(Purpose::List).restart();
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
    pub fn responses_mut(&mut self) -> impl Iterator<Item = &mut Response> {
        self.requests.responses_mut()
    }

    /// Returns whether something has arrived that is not read yet.
    pub fn has_input(&self) -> bool {
        self.requests.responses().any(Response::has_input)
    }

    /// Returns when something is to be done without input. Requests may go out from `permitted` on.
    pub fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let responses = self.requests.responses();
        let late = responses.filter_map(|response| response.deadline);
        let asks = self.requests.are_possible() && !self.is_asking();
        let at_once = self.check_goes_on().then(Instant::now);
        let own = at_once.or(self.watch.deadline()).filter(|_| asks);
        // What is due waits for the server; what times out does not.
        let own = own.map(|at| permitted.map_or(at, |permitted| at.max(permitted)));
        late.chain(own).chain(self.watch.expires()).min()
    }

    /// Returns whether the answer to the list-watch's last request is under way.
    fn is_asking(&self) -> bool {
        let purpose = if self.watch.is_settled() {
            Purpose::Check
        } else {
            Purpose::List
        };
        self.requests.is_pending(purpose)
    }

    /// Returns whether the next page of a consistency check is to be asked for.
    fn check_goes_on(&self) -> bool {
        self.watch.is_settled() && self.requests.pages(Purpose::Check).goes_on()
    }

    /// Makes the request that is due, if any.
    pub fn request(&mut self, server: &mut ApiServer, now: Instant) -> Requested {
        if self.is_asking() || !self.requests.are_possible() {
            return Requested::Nothing;
        }
        let request = if self.check_goes_on() {
            Some(Request::Check)
        } else {
            self.watch.next_request(now)
        };
        let Some(request) = request else {
            return Requested::Nothing;
        };
        let Some(path) = self.requests.path(&request) else {
            return Requested::Nothing;
        };
        let purpose = Purpose::of(&request);
        let answer = server.ask(&Call {
            method: Method::Get,
            target: &self.requests.target(purpose),
            path: &path,
            projection: purpose.projection(),
        });
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
                self.requests.add(Pending { purpose, response });
            }
            Ok(None) => self.fail(purpose, Failure::Server, now),
            Err(what) => self.take_nonsense(purpose, what, now),
        }
        Requested::One
    }

    /// Passes a failed request on to the list-watch.
    fn fail(&mut self, purpose: Purpose, failure: Failure, now: Instant) {
        self.requests.pages_mut(purpose).restart();
        self.step(purpose.failed(failure), now);
    }

    /// Reads what has arrived into `events`.
    pub fn read(&mut self, server: &mut ApiServer, events: &mut Vec<Event>) {
        for mut pending in self.requests.take_readable() {
            if self.read_answer(&mut pending, server, events) == Answer::Continues {
                self.requests.add(pending);
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

    /// Lets time pass, and gives up answers that take too long.
    pub fn tick(&mut self, server: &mut ApiServer, now: Instant) {
        for Pending { purpose, response } in self.requests.take_late(now) {
            server.late(now);
            let error = io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
            self.take_break(purpose, response.status, error, now);
        }
        self.step(Input::Tick, now);
    }

    /// Feeds the list-watch. Returns whether its stream goes on.
    fn step(&mut self, input: Input, now: Instant) -> Answer {
        match self.watch.step(input, now) {
            Stream::Stays => Answer::Continues,
            Stream::Closes => {
                self.requests.cancel(Purpose::Watch);
                Answer::Over
            }
        }
    }
}
