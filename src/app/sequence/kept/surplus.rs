//! The most that is kept. Owns: what goes early.

use super::{Due, Kept, KeptCluster};
use crate::snapshot::FileName;
use crate::sorted::SortedSet;
use crate::xds::sequence::Vanished;

/// The number of clusters that are kept even where the target has fewer.
const CLUSTERS_MIN: usize = 20;

impl Kept {
    /// Allows to keep as many clusters as the target has.
    pub fn allow(&mut self, in_target: usize) {
        self.limit = in_target.max(CLUSTERS_MIN);
    }

    /// Returns whether there are too many clusters, and one of them can go.
    pub(super) fn has_surplus(&self) -> bool {
        let is_settled = |kept: &KeptCluster| kept.due != Due::Unsettled;
        self.clusters.len() > self.limit.max(CLUSTERS_MIN) && self.clusters.iter().any(is_settled)
    }

    /// Takes the oldest clusters beyond as many as are allowed, but none that the routes may lead to which
    /// Envoy has.
    pub fn take_surplus(&mut self, events: &mut SortedSet<String>) -> Vec<(FileName, String)> {
        let mut taken = Vec::new();
        self.surplus_since = None;
        while self.has_surplus() {
            let is_settled = |kept: &KeptCluster| kept.due != Due::Unsettled;
            let Some(oldest) = self.clusters.iter().position(is_settled) else {
                break;
            };
            let Vanished { file, cluster, .. } = self.clusters.remove(oldest).item;
            let limit = self.limit.max(CLUSTERS_MIN);
            events.insert(format!(
                "{file}: cluster {cluster} is removed early, as more than {limit} clusters would be kept \
                 for requests under way; change clusters less often"
            ));
            taken.push((file, cluster));
        }
        taken
    }
}
