//! Readiness: whether an Envoy can be started on what stands on disk, and if not, why. Owns: what
//! probes are told, and the reports that nothing can be published.

use std::time::{Duration, Instant};

use log::{info, warn};

use super::App;
use super::reminder::Reminder;
use crate::cli::Patience;
use crate::error::{Chain, Error};
use crate::output::heartbeat::READY;
use crate::source::config_map::ConfigMapSource;
use crate::source::weight_objects::WeightObjects;
use crate::xds::desired::Observed;

/// The time that the API server may take before files of a previous run are accepted.
const API_SILENCE_GRACE: Duration = Duration::from_secs(10);
/// The time for which nothing can be published before that is reported: at a start, answers come
/// one after another.
const BLOCKED_FOR: Duration = Duration::from_secs(10);

/// The knowledge of this run about the files, and the verdict whether an Envoy may rely on them.
pub struct Readiness {
    files: Files,
    verdict: Verdict,
    /// The warnings that nothing can be published, while that is so.
    blocked: Option<Reminder>,
}

/// The files on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// No complete set is known to be on disk.
    Unknown,
    /// A complete set is on disk, of this run or a previous one; the cluster may have said more
    /// since.
    Complete,
    /// The set on disk is what the cluster said last.
    InSync,
}

/// The verdict whether an Envoy can be started. It goes from the first to the last and never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The API server may take its time until then.
    ApiGrace(Instant),
    /// The API server has had its time; files of a previous run are accepted.
    AcceptsLastRun,
    /// An Envoy can start, or once could.
    Ready,
}

impl Readiness {
    /// Makes the readiness of a start, `once` for `-onetime`.
    pub fn new(once: Option<&Patience>, now: Instant) -> Readiness {
        let grace = match once {
            // Without a time for it, `is_finished` never accepts files of a previous run.
            Some(patience) => patience.stale_ok.unwrap_or_default(),
            None => API_SILENCE_GRACE,
        };
        Readiness {
            files: Files::Unknown,
            verdict: Verdict::ApiGrace(now + grace),
            blocked: None,
        }
    }

    /// Returns whether the files on disk are what the cluster said last.
    pub fn is_in_sync(&self) -> bool {
        self.files == Files::InSync
    }

    /// Returns whether a complete set is known to be on disk.
    pub fn has_files(&self) -> bool {
        self.files != Files::Unknown
    }

    /// Returns whether the API server has had its time, so that files of a previous run will do.
    pub fn accepts_last_run(&self) -> bool {
        self.verdict == Verdict::AcceptsLastRun
    }

    fn is_ready(&self) -> bool {
        self.verdict == Verdict::Ready
    }

    pub fn deadline(&self) -> Option<Instant> {
        let grace = match self.verdict {
            Verdict::ApiGrace(until) => Some(until),
            Verdict::AcceptsLastRun | Verdict::Ready => None,
        };
        let reminder = self.blocked.as_ref().map(Reminder::next);
        grace.into_iter().chain(reminder).min()
    }

    /// Ends the API server's grace when it is over.
    pub fn tick(&mut self, now: Instant) {
        if matches!(self.verdict, Verdict::ApiGrace(until) if until <= now) {
            self.verdict = Verdict::AcceptsLastRun;
        }
    }

    /// Notes that a complete set of a previous run is on disk.
    pub fn on_files_found(&mut self) {
        if self.files == Files::Unknown {
            self.files = Files::Complete;
        }
    }

    /// Notes that the set on disk is what the cluster said last.
    pub fn on_published(&mut self) {
        self.files = Files::InSync;
    }

    /// Notes that a newer set could not be written.
    pub fn on_write_failed(&mut self) {
        if self.files == Files::InSync {
            self.files = Files::Complete;
        }
    }

    /// Notes that a ConfigMap keeps anything from being published.
    pub fn on_blocked(&mut self, now: Instant) {
        let reminder = || Reminder::new(now, BLOCKED_FOR);
        self.blocked.get_or_insert_with(reminder);
    }

    /// Notes that there is something to publish, and says so if there was a warning.
    pub fn on_unblocked(&mut self, now: Instant) {
        let blocked = self.blocked.take();
        if let Some(lasted_s) = blocked.and_then(|blocked| blocked.ended(now)) {
            info!(lasted_s; "nothing keeps files from being published any more; publishing them");
        }
    }
}

impl App {
    /// Writes the heartbeat, which tells probes whether an Envoy can be started.
    pub(super) fn write_heartbeat(&mut self) {
        if self.once.is_some() {
            return;
        }
        if !self.readiness.is_ready() {
            self.update_verdict();
        }
        let accepted = self.verdicts.as_ref().map(|verdicts| verdicts.accepted());
        if self.readiness.is_ready() {
            self.output.beat(READY, accepted.as_ref());
        } else {
            self.output.beat(&self.obstacle(), accepted.as_ref());
        }
    }

    /// Lets an Envoy start if what is published will do: what the cluster said last, or a complete
    /// set of a previous run while the cluster gives nothing better.
    fn update_verdict(&mut self) {
        let is_silent = self.readiness.accepts_last_run() && self.unread().is_some();
        let is_lacking = is_silent || self.has_lost_any();
        if self.readiness.is_in_sync() || is_lacking && self.read_completeness() {
            self.readiness.verdict = Verdict::Ready;
        }
    }

    /// Warns that nothing can be published, once that has lasted for a while.
    pub(super) fn report_blocked(&mut self, now: Instant) {
        // An outage, and a command that waits, have warnings of their own.
        let hears_elsewhere = self.server.failure().is_some() || self.child.is_waiting();
        let blocked = self.readiness.blocked.as_mut();
        if let Some(lasts_s) = blocked.and_then(|blocked| blocked.due(now, hears_elsewhere)) {
            let error = self.obstacle();
            warn!(lasts_s, error; "nothing can be published; waiting");
        }
    }

    /// Returns whether a ConfigMap is missing or invalid.
    pub(super) fn has_lost_any(&self) -> bool {
        let lost = |source: &ConfigMapSource| {
            matches!(source.observed, Observed::Missing | Observed::Invalid)
        };
        self.tasks.sources().any(lost)
    }

    /// Reads from disk whether an Envoy can start on files of a previous run.
    pub(super) fn read_completeness(&mut self) -> bool {
        let standing = self.output.standing();
        standing.is_some_and(|standing| standing.complete)
    }

    /// Names an object that has not been read yet, if there is one.
    pub(super) fn unread(&self) -> Option<String> {
        let unread = |source: &&ConfigMapSource| source.observed == Observed::Pending;
        let source = self.tasks.sources().find(unread);
        let source = source.map(|source| format!("ConfigMap {}", source.object));
        let unknown = self.tasks.unknown_weights();
        source.or_else(|| Some(unknown?.label().to_owned()))
    }

    /// Says why nothing is published yet: the first obstacle, and how many more there are.
    pub(super) fn obstacle(&self) -> String {
        let error = |error: &Error| Chain(error).to_string();
        let holds_up =
            |source: &&ConfigMapSource| source.known().holds_up(self.readiness.has_files());
        let holding: Vec<&ConfigMapSource> = self.tasks.sources().filter(holds_up).collect();
        // The trouble of one ConfigMap comes before others that have not been read.
        let own = holding.iter().find_map(|source| source.trouble());
        let failure = self.server.failure().or(self.output.failure());
        let trouble = self
            .tasks
            .inputs()
            .find_map(|input| input.reflector.trouble());
        // The first publish waits for the right to read HTTPRoutes.
        let denied = self.tasks.weights.iter().find_map(WeightObjects::denied);
        let denied = denied.filter(|_| !self.readiness.has_files());
        let denied = denied.map(|(_, denied)| denied);
        let failure = failure.or(trouble).or(denied).map(error);
        let unread = || Some(format!("{} has not been read yet", self.unread()?));
        let obstacle = own.or(failure).or_else(unread);
        let obstacle = obstacle.unwrap_or_else(|| "what was read is being published".to_owned());
        match holding.len() {
            0 | 1 => obstacle,
            count => format!("{obstacle} (and {} more)", count - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_known_when_a_newer_set_cannot_be_written() {
        let mut readiness = Readiness::new(None, Instant::now());
        readiness.on_write_failed();
        assert!(!readiness.has_files() && !readiness.is_in_sync());
        readiness.on_files_found();
        assert!(readiness.has_files() && !readiness.is_in_sync());
        readiness.on_published();
        readiness.on_files_found();
        assert!(readiness.has_files() && readiness.is_in_sync());
        readiness.on_write_failed();
        assert!(readiness.has_files() && !readiness.is_in_sync());
    }

    #[test]
    fn the_grace_of_the_api_server_ends_once_and_ready_stays() {
        let now = Instant::now();
        let mut readiness = Readiness::new(None, now);
        let until = now + API_SILENCE_GRACE;
        assert_eq!(readiness.deadline(), Some(until));
        readiness.tick(until - Duration::from_millis(1));
        assert!(!readiness.accepts_last_run());
        readiness.tick(until);
        assert!(readiness.accepts_last_run() && !readiness.is_ready());
        assert_eq!(readiness.deadline(), None);
        readiness.verdict = Verdict::Ready;
        readiness.tick(until + API_SILENCE_GRACE);
        assert!(readiness.is_ready() && !readiness.accepts_last_run());
    }

    #[test]
    fn a_blocked_publish_is_reported_from_its_own_beginning() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut readiness = Readiness::new(None, now);
        readiness.verdict = Verdict::Ready;
        readiness.on_blocked(now);
        readiness.on_blocked(after(5));
        assert_eq!(readiness.deadline(), Some(now + BLOCKED_FOR));
        let mut due = |seconds| {
            let blocked = readiness.blocked.as_mut();
            blocked.unwrap().due(after(seconds), false)
        };
        assert_eq!(due(11), Some(11));
        readiness.on_unblocked(after(12));
        assert_eq!(readiness.deadline(), None);
        readiness.on_blocked(after(20));
        assert_eq!(readiness.deadline(), Some(after(20) + BLOCKED_FOR));
    }
}
