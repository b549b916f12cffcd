//! The gate of the first publish, which waits for the objects with weights. Owns: for how long, and
//! what is published without them.

use std::time::{Duration, Instant};

use log::{info, warn};

use super::App;
use crate::kube::object::ObjectKind;
use crate::source::weight_objects::WeightObjects;

/// The time for which the first publish waits for TrafficSplits to be listed.
pub const SPLITS_TIMEOUT: Duration = Duration::from_secs(10);
/// The time, from the first refusal, for which it waits for the right to read HTTPRoutes where
/// nothing has been published: a Role is rolled out beside the pods, and the ConfigMaps' weights
/// would undo what a canary has reached.
const DENIED_TIMEOUT: Duration = Duration::from_secs(60);

/// The part that TrafficSplits have in the first publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitGate {
    /// It waits for them.
    Waiting,
    /// They took too long; what a previous run published stays.
    KeepPublished,
    /// They took too long and nothing was published; the weights in the ConfigMaps are.
    PublishWithout,
    /// They are known, and stay so.
    Open,
}

impl App {
    /// Returns whether the first publish waits for TrafficSplits. The output has to be open, as what is
    /// on disk decides what is published without them.
    pub(super) fn waits_for_splits(&self) -> bool {
        let is_waiting =
            self.split_gate == SplitGate::Waiting && self.tasks.unknown_weights().is_some();
        is_waiting && self.output.is_open()
    }

    /// Ends the wait for objects with weights: files on disk stay, or else the weights in the ConfigMaps
    /// are published. For the right to read HTTPRoutes that takes longer.
    pub(super) fn give_up_splits(&mut self, now: Instant) {
        let has_files = self.output.standing().is_some();
        let mut denied = self.tasks.weights.iter().filter_map(WeightObjects::denied);
        let denied = denied.next().filter(|_| !has_files);
        let latest = denied.map(|(since, _)| {
            // The patience of `-onetime` begins at the start, and is not longer.
            let since = self.once.map_or(*since, |_| self.started);
            since + DENIED_TIMEOUT
        });
        if let Some(latest) = latest.filter(|latest| now < *latest) {
            self.splits_until = latest;
            return;
        }
        self.split_gate = match has_files {
            true => SplitGate::KeepPublished,
            false => SplitGate::PublishWithout,
        };
        let unknown = self.tasks.unknown_weights().map(WeightObjects::kind);
        match (unknown, has_files) {
            (Some(ObjectKind::HttpRoute), true) => {
                warn!("HTTPRoutes not available yet; keeping the published files");
            }
            (Some(ObjectKind::HttpRoute), false) => {
                warn!("HTTPRoutes not available yet; publishing the weights in the ConfigMaps");
            }
            (_, true) => warn!("TrafficSplits not available yet; keeping the published files"),
            (_, false) => {
                warn!("TrafficSplits not available yet; publishing the weights in the ConfigMaps");
            }
        }
    }

    /// Notes that TrafficSplits are known, and says so if there was a warning.
    pub(super) fn open_split_gate(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.split_gate, SplitGate::Open);
        if matches!(before, SplitGate::KeepPublished | SplitGate::PublishWithout) {
            let lasted_s = now.saturating_duration_since(self.started).as_secs();
            let http_routes = self.tasks.weights.first();
            if http_routes.is_some_and(|first| first.kind() == ObjectKind::HttpRoute) {
                info!(lasted_s; "HTTPRoutes are available now; merging their weights");
            } else {
                info!(lasted_s; "TrafficSplits are available now; merging their weights");
            }
        }
    }
}
