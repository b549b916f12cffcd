//! `-onetime`: decides when all is done, and when to give up.

use std::io;
use std::time::{Duration, Instant};

use log::warn;

use super::App;
use super::split_gate::SplitGate;
use super::task::ConfigMapInput;
use crate::cli::Patience;
use crate::error::Error;
use crate::snapshot::File;
use crate::source::config_map::ConfigMapSource;
use crate::xds::desired::Observed;

/// The time to try in all, unless `-onetime-timeout` says.
const ONETIME_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for which a missing ConfigMap, a 401 or a 403 may last, while it is what the API server
/// says: RBAC takes a moment to spread.
const ONETIME_ACCESS_GRACE: Duration = Duration::from_secs(5);

impl App {
    /// Returns when to give up; `None` for never, as without `-onetime`.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        let Patience { timeout, stale_ok } = self.once?;
        let ends = match timeout {
            Some(Duration::ZERO) => return None,
            Some(timeout) => self.started + timeout,
            None => {
                let denied = self.tasks.sources();
                let denied = denied.filter_map(|s| Some(s.denied.as_ref()?.0));
                let denied = denied.chain(self.server.unauthorized());
                let denied = denied.map(|since| since + ONETIME_ACCESS_GRACE).min();
                let in_all = self.started + ONETIME_TIMEOUT;
                denied.map_or(in_all, |denied| denied.min(in_all))
            }
        };
        // Until then files of a previous run may come to be accepted.
        Some(stale_ok.map_or(ends, |lasts| ends.max(self.started + lasts)))
    }

    /// Finishes if all is done. Returns whether it is, or an error if it cannot be done or has
    /// taken too long.
    pub(super) fn try_finish(&mut self, now: Instant) -> Result<bool, Error> {
        let Patience { timeout, stale_ok } = self.once.unwrap_or_default();
        self.excuse_denied(now);
        let patience_ended = self.patience_ends().is_some_and(|at| now >= at);
        // An unusable answer may be followed by a usable one.
        let unusable = |ConfigMapInput { reflector, source }: &ConfigMapInput| {
            source.observed == Observed::Invalid && reflector.trouble().is_some()
        };
        let denied = self.tasks.sources().any(|source| source.denied.is_some())
            || self.tasks.inputs().any(unusable);
        // Without the splits, a complete set on disk is enough to start an Envoy with.
        let stays = matches!(self.split_gate, SplitGate::KeepPublished(_));
        if (self.readiness.is_in_sync() || stays) && !denied && self.bad().is_none() {
            self.run_deferred_checks(now);
            // Mirrors only inform people, so that the wait for them has an end.
            let late = patience_ended || now >= self.started + ONETIME_TIMEOUT;
            return Ok(self.tasks.are_mirrors_settled() || late);
        }
        let is_accepted = stale_ok.is_some() && self.readiness.accepts_last_run();
        if is_accepted && let Some(age) = self.read_age_of_last_run() {
            self.accept_last_run(age, now);
            return Ok(true);
        }
        if let Some(bad) = self.bad().filter(|_| timeout.is_none() || patience_ended) {
            return Err(bad);
        }
        if !patience_ended {
            return Ok(false);
        }
        let away = self.server.is_away().then(|| self.server.take_failure());
        let trouble = self
            .tasks
            .inputs_mut()
            .find_map(|input| input.reflector.take_trouble());
        let denied = self.tasks.sources_mut().find_map(|s| s.denied.take());
        let failure = away
            .flatten()
            .or(trouble)
            .or_else(|| Some(denied?.1))
            .or_else(|| self.output.take_failure());
        Err(failure.unwrap_or_else(|| Error::System {
            what: "publish in time",
            source: io::Error::new(io::ErrorKind::TimedOut, self.obstacle()),
        }))
    }

    /// Restarts the grace of missing and forbidden ConfigMaps while another failure is in the way.
    fn excuse_denied(&mut self, now: Instant) {
        let away = self.server.is_away() && self.server.unauthorized().is_none();
        for ConfigMapInput { reflector, source } in self.tasks.inputs_mut() {
            if let (Some((since, _)), true) =
                (&mut source.denied, away || reflector.trouble().is_some())
            {
                *since = now;
            }
        }
    }

    /// Returns the error of an invalid ConfigMap that has no valid version to publish.
    fn bad(&self) -> Option<Error> {
        // Once the output is open, files of a previous run have been restored.
        let lacking = |source: &&ConfigMapSource| source.content.is_none() && self.output.is_open();
        let bad = |source: &ConfigMapSource| {
            Some(Error::Refused {
                object: source.object.clone(),
                why: source.refused.clone()?,
            })
        };
        self.tasks.sources().filter(lacking).find_map(bad)
    }

    /// Reads from disk how old the files of a previous run are, if they are to do: the cluster's
    /// state cannot be published, and the set on disk is complete and has files of exactly the
    /// named ConfigMaps.
    fn read_age_of_last_run(&mut self) -> Option<Duration> {
        if !self.has_lost_any() && self.unread().is_none() {
            return None;
        }
        let standing = self.output.standing().filter(|found| found.complete)?;
        let of = |file: &File, source: &ConfigMapSource| file.origin.object == source.object;
        let files = || standing.set.values();
        let sources = || self.tasks.sources();
        let exactly = files().all(|file| sources().any(|source| of(file, source)))
            && sources().all(|source| files().any(|file| of(file, source)));
        exactly.then_some(standing.age)
    }

    fn accept_last_run(&mut self, age: Duration, now: Instant) {
        let own = self.tasks.sources().find_map(ConfigMapSource::trouble);
        let age_s = age.as_secs();
        let error = own.unwrap_or_else(|| self.obstacle());
        warn!(age_s, error; "the cluster's state cannot be published; exiting with files of a previous run");
        self.run_deferred_checks(now);
    }
}
