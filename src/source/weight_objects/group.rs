//! The API group of the objects with weights: which version of it is served, and what becomes of
//! the objects if none is. Owns: the answers for the group, and what the operator hears of it.

use std::fmt::Display;
use std::io;
use std::time::Instant;

use log::info;

use super::{Part, WeightObjects};
use crate::error::{Chain, Error};
use crate::kube::api;
use crate::kube::discovery::{GroupAnswer, RETRY_IN_USE};
use crate::kube::health::ApiServer;
use crate::kube::hint::{self, Purpose};
use crate::kube::object::ObjectKind;
use crate::net::response::Progress;
use crate::poll::Changed;
use crate::source::weight_store::Absence;

impl WeightObjects {
    /// Returns when to ask for the group, or when its answer is late.
    pub(super) fn group_deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        match &self.group {
            Some(response) => response.deadline,
            None => self
                .group_due()
                .map(|at| permitted.map_or(at, |permitted| at.max(permitted))),
        }
    }

    /// Returns when to ask for the group.
    pub(super) fn group_due(&self) -> Option<Instant> {
        let is_in_use = |part: &Part| part.store.has_objects() && !part.reflector.is_streaming();
        let due = self.discovery.due(self.parts.iter().any(is_in_use));
        due.filter(|_| self.group.is_none())
    }

    /// Handles a 404 to a request of this part.
    pub(super) fn on_resource_missing(&mut self, part: usize, now: Instant) {
        let is_unserved = self.discovery.on_resource_missing(now);
        if !self.discovery.is_fixed() {
            if is_unserved {
                self.vanish(now);
            }
            return self.set_api_version(now);
        }
        let Part { reflector, store } = &mut self.parts[part];
        if !reflector.is_streaming() {
            let absence = store.on_resource_missing(now);
            if store.has_objects() {
                reflector.relist(now + RETRY_IN_USE);
            }
            if absence == Absence::Believed {
                self.report_unserved(now);
            }
        }
    }

    /// Handles that no server serves the group. A part whose stream is open is kept, as another
    /// server serves it; the others are taken as deleted, and listed anew if the group comes back.
    fn vanish(&mut self, now: Instant) {
        let mut is_doubted = false;
        for Part { reflector, store } in &mut self.parts {
            if !reflector.is_streaming() {
                reflector.relist(now);
                is_doubted |= store.on_resource_missing(now) == Absence::Doubted;
            }
        }
        if !is_doubted {
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

    pub(super) fn report_served(&mut self, now: Instant) {
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
    pub(super) fn read_group(&mut self, server: &mut ApiServer) -> Changed {
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
    pub(super) fn broken(&mut self, error: io::Error, now: Instant) {
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
