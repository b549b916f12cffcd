//! Writes `<configmap>-gen` in the cluster: the files on disk that came from one ConfigMap, for
//! people to read. It is never an input. Owns: its requests. Its troubles are its own: they hold up
//! neither files nor watches.

mod existing;
mod outcome;
mod schedule;
mod step;

use std::io;
use std::time::Instant;

use log::info;

use crate::error::{Error, Target, Verb};
use crate::kube::api::{self, Mirrored};
use crate::kube::client::{Call, Method};
use crate::kube::collection_path;
use crate::kube::health::ApiServer;
use crate::kube::object::{ObjectKind, Projection};
use crate::logging::WarnOnce;
use crate::net::response::{Progress, Response};
use crate::output::manifest;
use crate::poll::Requested;
use crate::snapshot::{ObjectName, Snapshot};
use existing::Existing;
pub use schedule::Schedule;
use step::Step;

/// The mirror of one ConfigMap.
pub struct Mirror {
    source: ObjectName,
    target: Target,
    schedule: Schedule,
    step: Step,
    /// The number of writes in a row that failed because of a conflict.
    races: u32,
    /// True if the published files are those of the cluster's current state; others are not shown.
    allowed: bool,
    warnings: WarnOnce,
}

impl Mirror {
    /// Makes a mirror of `source` that is idle until [`Mirror::changed`] is called.
    pub fn new(source: ObjectName, schedule: Schedule) -> Mirror {
        let ObjectName { namespace, name } = manifest::mirror_of(&source);
        let kind = ObjectKind::ConfigMap;
        let (resource, group) = (kind.plural(), kind.group());
        let target = Target {
            verb: Verb::Get,
            resource,
            group,
            namespace,
            name: Some(name),
        };
        Mirror {
            source,
            target,
            schedule,
            step: Step::Idle,
            races: 0,
            allowed: false,
            warnings: WarnOnce::default(),
        }
    }

    /// Schedules a look at the mirror, as the published files may have changed.
    pub fn changed(&mut self, now: Instant) {
        self.schedule.changed(now);
    }

    /// Sets whether the published files are shown; if not, the mirror stays as it is.
    pub fn allow(&mut self, allowed: bool) {
        self.allowed = allowed;
    }

    /// Returns whether there is nothing to do.
    pub fn is_settled(&self) -> bool {
        self.next_look().is_none() && matches!(self.step, Step::Idle)
    }

    /// Returns the time of the next look, if the files may be shown.
    fn next_look(&self) -> Option<Instant> {
        self.schedule.due().filter(|_| self.allowed)
    }

    /// Returns the response under way, for poll(2).
    pub fn response_mut(&mut self) -> Option<&mut Response> {
        self.step.response_mut()
    }

    /// Returns when something is to be done without input.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Step::Idle => self.next_look(),
            Step::Read(_) => Some(Instant::now()),
            Step::Reading(response) | Step::Refused(response) => response.deadline,
        }
    }

    /// Makes the request that is due, if any. `published` reads what is on disk.
    pub fn request(
        &mut self,
        server: &mut ApiServer,
        published: impl FnOnce() -> Option<Snapshot>,
        now: Instant,
    ) -> Requested {
        match self.step.take() {
            Step::Idle if self.next_look().is_some_and(|at| at <= now) => {
                self.schedule.began();
                self.look(server);
                Requested::One
            }
            // What is published is no longer what the cluster says.
            Step::Read(_) if !self.allowed => {
                self.schedule.again(now);
                Requested::Nothing
            }
            Step::Read(existing) => {
                let result = match published() {
                    Some(set) => self.write(existing, &set, server),
                    // Nothing whole is on disk: the next publish asks again.
                    None => Ok(Requested::Nothing),
                };
                result.unwrap_or_else(|error| {
                    self.fail(&error, Instant::now());
                    Requested::One
                })
            }
            step @ (Step::Idle | Step::Reading(_) | Step::Refused(_)) => {
                self.step = step;
                Requested::Nothing
            }
        }
    }

    fn look(&mut self, server: &mut ApiServer) {
        self.target.verb = Verb::Get;
        let path = self.path();
        let call = Call {
            method: Method::Get,
            target: &self.target,
            path: &path,
            projection: Projection::Full,
        };
        match server.try_ask(&call) {
            Ok(answer) => {
                self.step = Step::Reading(Response::whole(answer, Instant::now()));
            }
            Err(error) => self.fail(&error, Instant::now()),
        }
    }

    fn path(&self) -> String {
        let name = self.target.name.as_deref().unwrap_or_default();
        format!("{}/{name}", collection_path(&self.target, "v1"))
    }

    /// Writes the mirror, if it differs from `existing`.
    fn write(
        &mut self,
        existing: Option<Mirrored>,
        set: &Snapshot,
        server: &mut ApiServer,
    ) -> Result<Requested, Error> {
        let found = existing
            .as_ref()
            .map(|existing| existing::compare(existing, set, &self.source));
        match found {
            Some(Existing::UpToDate) => {
                self.succeeded();
                return Ok(Requested::Nothing);
            }
            Some(Existing::NotOurs) => {
                self.report_not_ours();
                return Ok(Requested::Nothing);
            }
            Some(Existing::Outdated) | None => {}
        }
        let exists = existing.is_some();
        let over = existing.map(|existing| existing.metadata);
        let body = manifest::mirror(&self.source, set, over).map_err(|e| Error::System {
            what: "write a manifest",
            source: e.into(),
        })?;
        let (verb, method, path) = match exists {
            true => (Verb::Update, Method::Put(&body), self.path()),
            false => (
                Verb::Create,
                Method::Post(&body),
                collection_path(&self.target, "v1"),
            ),
        };
        self.target.verb = verb;
        // One that seems to fail may have arrived.
        self.schedule.wrote(Instant::now());
        let answer = server.try_ask(&Call {
            method,
            target: &self.target,
            path: &path,
            projection: Projection::Full,
        })?;
        let now = Instant::now();
        if matches!(answer.status, 200 | 201) {
            // The rest of the answer repeats what we sent.
            info!(configmap:% = manifest::mirror_of(&self.source); "mirrored");
            self.schedule.wrote(now);
            self.succeeded();
        } else {
            self.step = Step::Refused(Response::whole(answer, now));
        }
        Ok(Requested::One)
    }

    /// Reads what has arrived.
    pub fn read(&mut self) {
        let readable = self
            .step
            .response()
            .is_some_and(|response| response.readable);
        if !readable {
            return;
        }
        let now = Instant::now();
        match self.step.take() {
            Step::Reading(mut response) => match response.read(&mut Vec::new()) {
                Progress::Waiting | Progress::More => self.step = Step::Reading(response),
                Progress::Ended(body) => match response.status {
                    200 => match api::mirrored(&body) {
                        Ok(existing) => self.step = Step::Read(Some(existing)),
                        Err(what) => {
                            let error = Error::Answer {
                                target: self.boxed_target(),
                                what,
                            };
                            self.fail(&error, now);
                        }
                    },
                    404 => self.step = Step::Read(None),
                    _ => self.refused(&response, &body, now),
                },
                Progress::Broken(error) => self.broken(error, now),
            },
            Step::Refused(mut response) => match response.read(&mut Vec::new()) {
                Progress::Waiting | Progress::More => self.step = Step::Refused(response),
                Progress::Ended(body) => self.refused(&response, &body, now),
                Progress::Broken(error) => self.broken(error, now),
            },
            step @ (Step::Idle | Step::Read(_)) => self.step = step,
        }
    }

    /// Gives up an answer that takes too long.
    pub fn tick(&mut self, server: &mut ApiServer, now: Instant) {
        let late = self.step.response().and_then(|response| response.deadline);
        if late.is_some_and(|at| at <= now) {
            server.late(now);
            self.step = Step::Idle;
            self.broken(
                io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
                now,
            );
        }
    }
}
