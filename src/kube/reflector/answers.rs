//! The answers to a reflector's requests: what each means for the list-watch, for the objects, and
//! for the operator.

use std::io;
use std::time::Instant;

use log::debug;

use super::pending::Purpose;
use super::{Answer, Event, Reflector};
use crate::error::{Chain, Error, Kind};
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
        let taken = page.and_then(|page| self.requests.pages_mut(purpose).take(page));
        let (at, mut items) = match taken {
            Ok(Some(whole)) => whole,
            Ok(None) => return None,
            Err(what) => {
                self.take_nonsense(purpose, what, now);
                return None;
            }
        };
        self.trouble = None;
        items.retain(|item| self.requests.cover(&item.name));
        let versions = items
            .iter()
            .map(|item| (item.name.clone(), item.version.clone()));
        let found: ObjectVersions = versions.collect();
        if purpose == Purpose::Check {
            self.step(Input::Checked(found), now);
        } else {
            // The answer to a check that was sent before would be older.
            self.requests.pages_mut(Purpose::Check).restart();
            self.step(Input::Listed(at, found), now);
        }
        // The list before a watch that fails does not end a failure.
        if self.watch.is_settled() {
            self.reports.succeeded(self.requests.objects(), now);
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
                if !self.requests.cover(&name) =>
            {
                let request = self.requests.target(Purpose::Watch);
                self.reports.skipped_object(&request, &name, now);
            }
            WatchEvent::Changed(object) => {
                self.reports.succeeded(self.requests.objects(), now);
                let (name, version) = (object.name.clone(), object.version.clone());
                self.step(Input::Changed(name, version), now);
                events.push(Event::Applied(object));
            }
            WatchEvent::Deleted(name, at) => {
                self.reports.succeeded(self.requests.objects(), now);
                self.step(Input::Deleted(name.clone(), at), now);
                events.push(Event::Deleted(name));
            }
            WatchEvent::Bookmark(at) => {
                self.reports.succeeded(self.requests.objects(), now);
                self.step(Input::Bookmark(at), now);
            }
            WatchEvent::Unknown(kind) => {
                let request = self.requests.target(Purpose::Watch);
                self.reports.skipped_event(&request, &kind, now);
            }
            WatchEvent::Failed(status) => {
                let failure = if status.code == 410 {
                    Failure::Gone
                } else {
                    let request = self.requests.target(Purpose::Watch);
                    self.reports.ended(&request, &status.message, now);
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
        let target = self.requests.target(purpose);
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
            Kind::Gone if self.requests.pages_mut(purpose).expire() => return None,
            Kind::Gone => (Failure::Gone, None),
            // A CRD comes and goes: a kind that is not served is not a fault.
            Kind::NotFound if self.kind != ObjectKind::ConfigMap => (Failure::Object, Some(error)),
            _ => {
                self.reports.refused(&target, &error, now);
                (Failure::Object, Some(error))
            }
        };
        let refusal = match purpose {
            // An open stream is proof that the objects can be read, unless their kind is not
            // served.
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
        let request = self.requests.target(purpose);
        self.reports.busy(&request, &Chain(&error), now);
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
        debug!(request:% = self.requests.target(purpose), error:% = error; "an answer broke");
        let too_large = error.kind() == io::ErrorKind::FileTooLarge;
        let pages = purpose != Purpose::Watch && !self.requests.is_single();
        if too_large && pages && self.requests.pages_mut(purpose).shrink() {
            // The page is asked for again at once, with fewer objects.
        } else if too_large || error.kind() == io::ErrorKind::InvalidData {
            self.take_nonsense(purpose, error.to_string(), now);
        } else if purpose == Purpose::Watch && status == 200 {
            self.take_cut(&error.to_string(), now);
        } else {
            let error = Error::Request {
                target: Box::new(self.requests.target(purpose)),
                source: error.into(),
            };
            self.put_off(purpose, error, now);
        }
    }

    /// Takes in the end of the stream.
    pub(super) fn take_cut(&mut self, reason: &str, now: Instant) {
        let request = self.requests.target(Purpose::Watch);
        self.reports.cut(&request, reason, now);
        self.step(Input::Ended, now);
    }

    /// Takes in an answer that cannot be understood: nothing of it is used, and a list follows.
    pub(super) fn take_nonsense(&mut self, purpose: Purpose, what: String, now: Instant) {
        let target = self.requests.target(purpose);
        let error = Error::Answer {
            target: Box::new(target.clone()),
            what,
        };
        self.reports.unusable(&target, &error, now);
        self.trouble = Some(error);
        self.fail(purpose, Failure::Object, now);
    }
}
