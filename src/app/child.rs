//! The wrapped command, as the loop drives it. Owns: when it is started, and how its Envoy is drained.

use std::mem;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::App;
use crate::envoy::admin;
use crate::error::Error;
use crate::kube::circuit_breaker::ReminderSchedule;
use crate::process::child::{ChildSpec, Drain};
use crate::process::signals::Signals;

/// How long the API server has before the command starts on files of a previous run.
const CHILD_FRESHNESS_WAIT: Duration = Duration::from_secs(5);

/// The state of the wrapped command. It only ever goes from `Waiting` to `Started`; when it exits,
/// crossover does.
pub enum ChildState {
    /// No command is wrapped, or it cannot be started.
    None,
    /// The command waits for files that its Envoy can start with.
    Waiting {
        spec: ChildSpec,
        /// The schedule of warnings about the wait.
        reminders: ReminderSchedule,
    },
    /// The command was started. Its Envoy is drained before it gets SIGTERM, if there is a `drain`.
    Started { drain: Option<Drain> },
}

impl ChildState {
    pub fn new(wrapped: Option<ChildSpec>, now: Instant) -> ChildState {
        wrapped.map_or(ChildState::None, |spec| ChildState::Waiting {
            spec,
            reminders: ReminderSchedule::new(now, CHILD_FRESHNESS_WAIT),
        })
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self, ChildState::Waiting { .. })
    }

    /// Returns when to warn next that the command waits.
    pub fn next_reminder(&self) -> Option<Instant> {
        match self {
            ChildState::Waiting { reminders, .. } => Some(reminders.next),
            ChildState::None | ChildState::Started { .. } => None,
        }
    }

    /// Returns how long the command has waited, if a warning about that is due.
    fn reminder_due(&mut self, now: Instant) -> Option<Duration> {
        match self {
            ChildState::Waiting { reminders, .. } => reminders.due(now),
            ChildState::None | ChildState::Started { .. } => None,
        }
    }

    /// Starts the command if it waits.
    fn start(&mut self, signals: &Signals) -> Result<(), Error> {
        if let ChildState::Waiting { spec, .. } = mem::replace(self, ChildState::None) {
            let ChildSpec { argv, drain } = spec;
            signals.start(&argv, drain.as_ref())?;
            info!(command:% = argv[0].to_string_lossy(); "command started");
            *self = ChildState::Started { drain };
        }
        Ok(())
    }
}

impl App {
    /// Starts the command once its Envoy finds all files that it needs.
    pub(super) fn start_child(&mut self, now: Instant) -> Result<(), Error> {
        if !self.child.is_waiting() {
            return Ok(());
        }
        let in_sync = self.readiness.is_in_sync();
        let is_late = now >= self.started + CHILD_FRESHNESS_WAIT;
        let may_start = in_sync || is_late && self.can_start();
        if !may_start {
            if let Some(lasts) = self.child.reminder_due(now) {
                let (lasts_s, error) = (lasts.as_secs(), self.obstacle());
                warn!(lasts_s, error; "the command is not started yet; waiting for the first files");
            }
            return Ok(());
        }
        // A signal that came before the start ends crossover, and the command is never started.
        if self.signals.dispatch().is_some() {
            return Ok(());
        }
        if !in_sync {
            let error = self.obstacle();
            warn!(error; "the cluster's state is not known yet; starting the command with files of a previous run");
        }
        self.child.start(&self.signals)
    }

    /// Handles SIGTERM: drains the command's Envoy, and forwards the signal when that has had its time.
    pub(super) fn drain(&mut self) {
        let ChildState::Started {
            drain: Some(Drain { drain_time, admin }),
        } = &self.child
        else {
            return;
        };
        // The request below would otherwise be interrupted by this very signal.
        let now = Instant::now();
        self.signals
            .forward_sigterm_at(now + admin::ANSWERS_WITHIN + *drain_time);
        let drain_ms = u64::try_from(drain_time.as_millis()).unwrap_or(u64::MAX);
        match admin::drain(admin, self.signals.clone()) {
            Ok(()) => {
                info!(drain_ms; "Envoy is draining; waiting before SIGTERM is forwarded")
            }
            Err(error) => {
                let message = "Envoy cannot be told to drain; waiting all the same";
                warn!(error:% = error, drain_ms; "{message}");
            }
        }
        self.signals
            .forward_sigterm_at(Instant::now() + *drain_time);
    }
}
