//! The gate of the first publish, which waits for the objects with weights. Owns: for how long, and
//! what is published without them.

use std::time::{Duration, Instant};

use log::{info, warn};

use super::App;
use crate::kube::object::ObjectKind;
use crate::source::weight_objects::WeightObjects;

/// The time for which the first publish waits for TrafficSplits to be listed, from when nothing
/// else holds it up.
pub const SPLITS_TIMEOUT: Duration = Duration::from_secs(10);
/// The time, from the first refusal, for which it waits for the right to read HTTPRoutes where
/// nothing has been published: a Role is rolled out beside the pods, and the ConfigMaps' weights
/// would undo what a canary has reached.
const DENIED_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time for which it waits until objects with weights are asked for again at all, once
/// nothing else holds it up: no back-off is longer, but a `Retry-After` may be.
const ASKED_WITHIN: Duration = Duration::from_secs(30);

/// The part that TrafficSplits have in the first publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitGate {
    /// It waits for them.
    Waiting,
    /// The objects of this kind took too long; the files of a previous run stay.
    KeepPublished(ObjectKind),
    /// Those of this kind took too long and nothing was published; the weights in the ConfigMaps
    /// are.
    PublishWithout(ObjectKind),
    /// They are known, and stay so.
    Open,
}

impl App {
    /// Returns whether the first publish waits for TrafficSplits. The output has to be open, as
    /// what is on disk decides what is published without them.
    pub(super) fn waits_for_splits(&self) -> bool {
        let is_waiting =
            self.split_gate == SplitGate::Waiting && self.tasks.unknown_weights().is_some();
        is_waiting && self.output.is_open()
    }

    /// Returns whether a ConfigMap would hold up a first publish anyway.
    fn is_held_up(&self) -> bool {
        self.tasks.sources().any(|s| s.known().holds_up(false))
    }

    /// Lets the time pass for which the first publish waits for objects with weights.
    pub(super) fn tick_split_gate(&mut self, now: Instant) {
        if !self.waits_for_splits() {
            return;
        }
        if self.is_held_up() {
            // Once the ConfigMaps are known, what is not known yet is asked for again, too.
            let asked = self.tasks.weights_asked(self.server.next_try());
            let asked = asked.map_or(now, |at| at.min(now + ASKED_WITHIN).max(now));
            self.splits_since = asked;
        }
        if now >= self.splits_until {
            self.give_up_splits(now);
        }
    }

    /// Ends the wait for objects with weights: files on disk stay, or else the weights in the
    /// ConfigMaps are published. For the right to read HTTPRoutes that takes longer.
    fn give_up_splits(&mut self, now: Instant) {
        let has_files = self.output.standing().is_some();
        let latest = (!has_files).then(|| self.latest_without_files(now));
        if let Some(latest) = latest.filter(|latest| now < *latest) {
            self.splits_until = latest;
            if self.is_held_up() {
                self.readiness.on_blocked(now);
            }
            return;
        }
        let unknown = self.tasks.unknown_weights().map(WeightObjects::kind);
        let kind = unknown.unwrap_or(ObjectKind::TrafficSplit);
        self.pending.mark(now);
        self.split_gate = match has_files {
            true => SplitGate::KeepPublished(kind),
            false => SplitGate::PublishWithout(kind),
        };
        match (kind, has_files) {
            (ObjectKind::HttpRoute, true) => {
                warn!("HTTPRoutes not available yet; keeping the published files");
            }
            (ObjectKind::HttpRoute, false) => {
                warn!("HTTPRoutes not available yet; publishing the weights in the ConfigMaps");
            }
            (_, true) => warn!("TrafficSplits not available yet; keeping the published files"),
            (_, false) => {
                warn!("TrafficSplits not available yet; publishing the weights in the ConfigMaps");
            }
        }
    }

    /// Returns until when the wait lasts at the most if there are no files on disk.
    fn latest_without_files(&self, now: Instant) -> Instant {
        let mut denied = self.tasks.weights.iter().filter_map(WeightObjects::denied);
        let denied = denied.next().map(|(since, _)| {
            // The patience of `-onetime` begins at the start, and is not longer.
            let since = self.once.map_or(*since, |_| self.started);
            since + DENIED_TIMEOUT
        });
        if self.is_held_up() {
            return now + SPLITS_TIMEOUT;
        }
        let latest = self.splits_since + SPLITS_TIMEOUT;
        let latest = self.patience_ends().map_or(latest, |ends| ends.min(latest));
        denied.map_or(latest, |denied| denied.max(latest))
    }

    /// Notes that TrafficSplits are known, and says so if there was a warning.
    pub(super) fn open_split_gate(&mut self, now: Instant) {
        let lasted_s = now.saturating_duration_since(self.started).as_secs();
        match std::mem::replace(&mut self.split_gate, SplitGate::Open) {
            SplitGate::Waiting | SplitGate::Open => {}
            SplitGate::KeepPublished(ObjectKind::HttpRoute)
            | SplitGate::PublishWithout(ObjectKind::HttpRoute) => {
                info!(lasted_s; "HTTPRoutes are available now; merging their weights");
            }
            SplitGate::KeepPublished(_) | SplitGate::PublishWithout(_) => {
                info!(lasted_s; "TrafficSplits are available now; merging their weights");
            }
        }
    }
}
