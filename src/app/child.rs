//! The wrapped command, as the loop drives it. Owns: when it is started, how its Envoy is drained,
//! and what the operator hears of the wait for the start.

use std::mem;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::App;
use super::reminder::Reminder;
use crate::envoy::drain;
use crate::error::Error;
use crate::process::child::{ChildSpec, Drain};
use crate::process::signals::Signals;

/// The time that the API server has before the command starts on files of a previous run.
const CHILD_FRESHNESS_WAIT: Duration = Duration::from_secs(5);

/// The state of the wrapped command. It only ever goes from `Waiting` to `Started`; when it exits,
/// crossover does.
pub enum ChildState {
    /// No command is wrapped, or it cannot be started.
    None,
    /// The command waits for files that its Envoy can start with.
    Waiting {
        spec: ChildSpec,
        /// The warnings about the wait.
        reminder: Reminder,
    },
    /// The command was started.
    Started {
        /// The way to drain its Envoy before it gets SIGTERM, if it is drained at all.
        drain: Option<Drain>,
        /// True while it runs on files of a previous run, which a warning has said.
        is_outdated: bool,
    },
}

impl ChildState {
    pub fn new(wrapped: Option<ChildSpec>, now: Instant) -> ChildState {
        wrapped.map_or(ChildState::None, |spec| ChildState::Waiting {
            spec,
            reminder: Reminder::new(now, CHILD_FRESHNESS_WAIT),
        })
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self, ChildState::Waiting { .. })
    }

    /// Returns when to warn next that the command waits.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            ChildState::Waiting { reminder, .. } => Some(reminder.next()),
            ChildState::None | ChildState::Started { .. } => None,
        }
    }

    /// Starts the command if it waits.
    fn start(&mut self, is_outdated: bool, signals: &Signals, now: Instant) -> Result<(), Error> {
        if let ChildState::Waiting { spec, reminder } = mem::replace(self, ChildState::None) {
            let ChildSpec { argv, drain } = spec;
            signals.start(&argv, drain.as_ref())?;
            let command = argv[0].to_string_lossy();
            match reminder.ended(now) {
                Some(lasted_s) => {
                    info!(command:%, lasted_s; "command started after a wait for its first files")
                }
                None => info!(command:%; "command started"),
            }
            *self = ChildState::Started { drain, is_outdated };
        }
        Ok(())
    }
}

impl App {
    /// Starts the command once its Envoy finds all files that it needs, and says when these are
    /// what the cluster wants.
    pub(super) fn drive_child(&mut self, now: Instant) -> Result<(), Error> {
        let in_sync = self.readiness.is_in_sync();
        match &mut self.child {
            ChildState::None => Ok(()),
            ChildState::Waiting { .. } => self.start_child(in_sync, now),
            ChildState::Started { is_outdated, .. } => {
                if in_sync && mem::take(is_outdated) {
                    let lasted_s = now.saturating_duration_since(self.started).as_secs();
                    info!(lasted_s; "the cluster's state is known now; the command's files follow it");
                }
                Ok(())
            }
        }
    }

    fn start_child(&mut self, in_sync: bool, now: Instant) -> Result<(), Error> {
        let is_late = now >= self.started + CHILD_FRESHNESS_WAIT;
        let may_start = in_sync || is_late && self.read_completeness();
        if !may_start {
            self.report_waiting_child(now);
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
        self.child.start(!in_sync, &self.signals, now)
    }

    fn report_waiting_child(&mut self, now: Instant) {
        let ChildState::Waiting { reminder, .. } = &mut self.child else {
            return;
        };
        if let Some(lasts_s) = reminder.due(now, false) {
            let error = self.obstacle();
            warn!(lasts_s, error; "the command is not started yet; waiting for the first files");
        }
    }

    /// Handles SIGTERM: drains the command's Envoy, and forwards the signal when that has had its
    /// time.
    pub(super) fn drain(&mut self) {
        let ChildState::Started {
            drain: Some(Drain { drain_time, admin }),
            ..
        } = &self.child
        else {
            return;
        };
        // The request below would otherwise be interrupted by this very signal.
        let now = Instant::now();
        self.signals
            .forward_sigterm_at(now + drain::ANSWERS_WITHIN + *drain_time);
        let drain_ms = u64::try_from(drain_time.as_millis()).unwrap_or(u64::MAX);
        match drain::drain(admin, &self.signals) {
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
