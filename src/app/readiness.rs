//! Who rests on the output: probes, and the command. Owns: when it can be rested on, what is said
//! until then, and how the command's Envoy is drained.

use std::ffi::CString;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::App;
use crate::envoy::admin;
use crate::error::{Chain, Error};
use crate::kube::circuit_breaker::ReminderSchedule;
use crate::output::heartbeat::READY;
use crate::process::child::{ChildSpec, Drain};
use crate::source::config_map::ConfigMapSource;
use crate::xds::desired::Observed;

/// How long the API server has before the command starts on what an earlier life published.
const CHILD_FRESHNESS_WAIT: Duration = Duration::from_secs(5);

/// A command that has yet to start.
pub struct PendingChild {
    argv: Vec<CString>,
    /// Of the wait, from its fifth second on.
    pub notices: ReminderSchedule,
}

impl PendingChild {
    /// Nothing is there yet.
    pub fn new(wrapped: Option<ChildSpec>, now: Instant) -> (Option<PendingChild>, Option<Drain>) {
        let Some(ChildSpec { argv, drain }) = wrapped else {
            return (None, None);
        };
        let notices = ReminderSchedule::new(now, CHILD_FRESHNESS_WAIT);
        (Some(PendingChild { argv, notices }), drain)
    }
}

impl App {
    /// Starts the command once Envoy finds all that it needs.
    pub(super) fn start_command(&mut self, now: Instant) -> Result<(), Error> {
        let Some(PendingChild { argv, mut notices }) = self.waiting.take() else {
            return Ok(());
        };
        let late = now >= self.started + CHILD_FRESHNESS_WAIT;
        let earlier = !self.in_sync && late && self.can_start();
        if self.in_sync || earlier {
            // What has come until now is not for the command.
            if self.signals.dispatch().is_some() {
                return Ok(());
            }
            if earlier {
                let error = self.obstacle();
                warn!(error; "the cluster's state is not known yet; starting the command with files of a previous run");
            }
            self.signals.start(&argv, self.drain.as_ref())?;
            info!(command:% = argv[0].to_string_lossy(); "command started");
            return Ok(());
        }
        if let Some(lasts) = notices.due(now) {
            let (lasts_s, error) = (lasts.as_secs(), self.obstacle());
            warn!(lasts_s, error; "the command is not started yet; waiting for the first files");
        }
        self.waiting = Some(PendingChild { argv, notices });
        Ok(())
    }

    /// SIGTERM has come: the command gets it once its Envoy has had time to drain.
    pub(super) fn drain(&mut self) {
        let Some(Drain { drain_time, admin }) = &self.drain else {
            return;
        };
        // So that what is waited for below is not called away by this very signal.
        let now = Instant::now();
        self.signals
            .forward_sigterm_at(now + admin::ANSWERS_WITHIN + *drain_time);
        match admin::drain(admin, self.signals.clone()) {
            Ok(()) => {
                info!(drain_ms = milliseconds(*drain_time); "Envoy is draining; waiting before SIGTERM is forwarded")
            }
            Err(error) => {
                let message = "Envoy cannot be told to drain; waiting all the same";
                warn!(error:% = error, drain_ms = milliseconds(*drain_time); "{message}");
            }
        }
        self.signals
            .forward_sigterm_at(Instant::now() + *drain_time);
    }

    /// Tells probes how far it is.
    pub(super) fn tell(&mut self) {
        if self.once {
            return;
        }
        self.ready = self.ready || self.is_ready();
        if self.ready {
            self.output.beat(READY);
        } else {
            self.output.beat(&self.obstacle());
        }
    }

    /// Whether an Envoy can start on what is published: it is what the cluster says, or else a
    /// whole set of an earlier life where the cluster says nothing better.
    fn is_ready(&mut self) -> bool {
        let silent = self.api_grace_until.is_none() && self.unread().is_some();
        self.in_sync || (silent || self.has_lost_any()) && self.can_start()
    }

    /// Whether a ConfigMap is absent or refused.
    pub(super) fn has_lost_any(&self) -> bool {
        let lost = |source: &ConfigMapSource| {
            matches!(source.observed, Observed::Missing | Observed::Invalid)
        };
        self.tasks.sources().any(lost)
    }

    /// Whether an Envoy can start on what an earlier life has left.
    pub(super) fn can_start(&mut self) -> bool {
        let standing = self.output.standing();
        standing.is_some_and(|standing| standing.complete)
    }

    /// What the cluster has not spoken of yet.
    pub(super) fn unread(&self) -> Option<String> {
        let unread = |source: &&ConfigMapSource| source.observed == Observed::Pending;
        let source = self.tasks.sources().find(unread);
        let source = source.map(|source| format!("ConfigMap {}", source.object));
        let unknown = !self.tasks.are_splits_known();
        source.or_else(|| unknown.then(|| "a TrafficSplit".to_owned()))
    }

    /// Why nothing is published yet: the first that holds it up, and how many more do.
    pub(super) fn obstacle(&self) -> String {
        let error = |error: &Error| Chain(error).to_string();
        let holds_up = |source: &&ConfigMapSource| source.known().holds_up(self.stands);
        let holding: Vec<&ConfigMapSource> = self.tasks.sources().filter(holds_up).collect();
        // What is known of one comes before what is not known of others.
        let own = holding.iter().find_map(|source| source.trouble());
        let failure = self.server.failure().or(self.output.failure());
        let trouble = self
            .tasks
            .inputs()
            .find_map(|input| input.reflector.trouble());
        let failure = failure.or(trouble).map(error);
        let unread = || Some(format!("{} has not been read yet", self.unread()?));
        let obstacle = own.or(failure).or_else(unread);
        let obstacle = obstacle.unwrap_or_else(|| "what was read is being published".to_owned());
        match holding.len() {
            0 | 1 => obstacle,
            count => format!("{obstacle} (and {} more)", count - 1),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
