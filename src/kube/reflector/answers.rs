//! The answers to a reflector's requests: what each means for the list-watch, for the objects, and
//! for the operator.

use std::io;
use std::time::Instant;

use log::{debug, info};

use super::pending::Purpose;
use super::{Answer, Event, Reflector};
use crate::error::{Chain, Error, Kind};
use crate::gather;
use crate::kube::api::{self, WatchEvent};
use crate::kube::health::ApiServer;
use crate::kube::hint;
use crate::kube::list_watch::{Failure, Input, ObjectVersions};
use crate::kube::object::{Object, ObjectKind};
use crate::net::response::Response;

impl Reflector {
    /// Takes in a page of a list or of a check. Returns the objects of a list once it is whole.
    pub(super) fn take_list(
        &mut self,
        purpose: Purpose,
        body: &[u8],
        now: Instant,
    ) -> Option<Vec<Object>> {
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

    /// Takes in a line of the watch.
    pub(super) fn take_event(
        &mut self,
        line: &[u8],
        now: Instant,
        events: &mut Vec<Event>,
    ) -> Answer {
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
    pub(super) fn take_refusal(
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
    pub(super) fn put_off(&mut self, purpose: Purpose, error: Error, now: Instant) {
        let message = "the API server cannot answer now; trying again";
        self.warn(purpose, message, &Chain(&error).to_string(), now);
        let wish = error.retry_after().unwrap_or_default();
        self.trouble = Some(error);
        self.fail(purpose, Failure::Busy(wish), now);
    }

    /// Takes in that the connection broke, or that its bytes were not HTTP.
    pub(super) fn take_break(
        &mut self,
        purpose: Purpose,
        status: u16,
        error: io::Error,
        now: Instant,
    ) {
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
    pub(super) fn take_cut(&mut self, reason: &str, now: Instant) {
        if self.cuts.count(now) {
            info!(request:% = self.target(Purpose::Watch), error = reason;
                "the watch is cut again and again; resuming it where it was");
        }
        self.step(Input::Ended, now);
    }

    /// Takes in an answer that cannot be understood: nothing of it is used, and a list follows.
    pub(super) fn take_nonsense(&mut self, purpose: Purpose, what: String, now: Instant) {
        let error = Error::Answer {
            target: Box::new(self.target(purpose)),
            what,
        };
        let message = "the API server's answer cannot be used; asking again";
        self.warn(purpose, message, &error.to_string(), now);
        self.trouble = Some(error);
        self.fail(purpose, Failure::Object, now);
    }
}
