//! The outcomes of a mirror's requests. Owns: what the operator hears of them, and whether another
//! attempt follows.

use std::io;
use std::time::Instant;

use log::warn;

use super::Mirror;
use crate::error::{Chain, Error, Target, Verb};
use crate::kube::hint::{self, Purpose};
use crate::net::response::Response;
use crate::net::wait::is_interrupted;
use crate::output::manifest;

/// The number of conflicts in a row that do not count as a failure: another replica was faster.
/// After more, something is wrong.
const RACES: u32 = 3;

const NOT_OURS: &str =
    "ConfigMap with the mirror's name is not managed by crossover; leaving it as it is";
const FAILED: &str = "mirror cannot be written; publishing files all the same";

impl Mirror {
    pub(super) fn report_not_ours(&mut self) {
        let mirror = manifest::mirror_of(&self.source);
        if self.warnings.is_news(NOT_OURS, "", Instant::now()) {
            warn!(configmap:% = mirror; "{NOT_OURS}");
        }
    }

    /// Notes that the mirror is as it should be.
    pub(super) fn succeeded(&mut self) {
        self.races = 0;
        self.schedule.succeeded();
        let mirror = manifest::mirror_of(&self.source);
        let message = "mirror is up to date again";
        self.warnings
            .clear(("configmap", &mirror), message, Instant::now());
    }

    pub(super) fn refused(&mut self, response: &Response, body: &[u8], now: Instant) {
        let (code, retry_after) = (response.status, response.retry_after);
        let error = hint::refusal(Purpose::Mirror, &self.target, code, body, retry_after);
        let overtaken = code == 409 || code == 404 && self.target.verb == Verb::Update;
        if overtaken && self.races < RACES {
            // Somebody was faster: look again what is there.
            self.races += 1;
            self.changed(now);
            return;
        }
        self.fail(&error, now);
    }

    pub(super) fn broken(&mut self, error: io::Error, now: Instant) {
        let error = Error::Request {
            target: self.boxed_target(),
            source: error.into(),
        };
        self.fail(&error, now);
    }

    /// Warns, and plans another attempt if one follows.
    pub(super) fn fail(&mut self, error: &Error, now: Instant) {
        if is_interrupted(error) {
            // The next wait ends the program, or Envoy is drained and all goes on.
            return self.schedule.interrupted(now);
        }
        let wish = error.retry_after().unwrap_or_default();
        self.schedule.failed(wish, now);
        let error = Chain(error).to_string();
        self.warnings
            .warn(("request", &self.target), FAILED, &error, now);
    }

    pub(super) fn boxed_target(&self) -> Box<Target> {
        Box::new(self.target.clone())
    }
}
