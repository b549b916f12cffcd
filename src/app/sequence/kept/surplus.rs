//! The most that is kept. Owns: what goes early. With what it allows, three sets of a target and
//! all that is kept are within the space that the output directory may take.

use std::fmt;

use super::{Dropped, Due, Kept, KeptCluster, KeptFile};
use crate::snapshot::{FileName, Snapshot};
use crate::sorted::SortedSet;
use crate::xds::sequence::Vanished;

/// The number of clusters, and of files, that are kept even where the target has fewer.
const ITEMS_MIN: usize = 20;
/// The bytes that are kept beyond as many as the target has.
const SPARE: u64 = 256 << 10;

/// As much as may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    clusters: usize,
    files: usize,
    bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            clusters: ITEMS_MIN,
            files: ITEMS_MIN,
            bytes: SPARE,
        }
    }
}

/// The limit that is passed.
#[derive(Clone, Copy, Debug)]
enum Excess {
    Clusters(usize),
    Files(usize),
    Bytes(u64),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::Clusters(limit) => write!(f, "{limit} clusters"),
            Excess::Files(limit) => write!(f, "{limit} files"),
            Excess::Bytes(limit) => write!(f, "{} KiB", limit >> 10),
        }
    }
}

/// The item to go.
enum Oldest {
    Cluster(usize),
    File(FileName),
}

impl Kept {
    /// Allows to keep as many clusters as the target has.
    pub fn allow_clusters(&mut self, in_target: usize) {
        self.limits.clusters = in_target.max(ITEMS_MIN);
    }

    /// Allows to keep as many files and bytes as the target has.
    pub fn allow_files(&mut self, target: &Snapshot) {
        let bytes: usize = target.values().map(|file| file.bytes.len()).sum();
        self.limits.files = target.len().max(ITEMS_MIN);
        self.limits.bytes = bytes as u64 + SPARE;
    }

    fn excess(&self) -> Option<Excess> {
        let Limits {
            clusters,
            files,
            bytes,
        } = self.limits;
        let of_clusters = self.clusters.iter().map(|kept| kept.item.line.len() as u64);
        let of_files = self.files.values().map(|kept| kept.item.size);
        if self.clusters.len() > clusters {
            Some(Excess::Clusters(clusters))
        } else if self.files.len() > files {
            Some(Excess::Files(files))
        } else if of_clusters.chain(of_files).sum::<u64>() > bytes {
            Some(Excess::Bytes(bytes))
        } else {
            None
        }
    }

    /// Returns the oldest item that can go: Envoy has read the routes that do without it.
    fn oldest(&self, excess: Excess) -> Option<Oldest> {
        let at = |due: Due| match due {
            Due::Unsettled => None,
            Due::At(at) => Some(at),
        };
        let is_free = |(name, kept): &(&FileName, &KeptFile)| {
            kept.named_by.is_none() && !self.is_referred_to(name)
        };
        let files = self.files.iter().filter(is_free);
        let files = files.filter_map(|(name, kept)| Some((at(kept.due)?, name)));
        let file = files
            .min()
            .filter(|_| !matches!(excess, Excess::Clusters(_)));
        let is_settled = |kept: &KeptCluster| at(kept.due).is_some();
        let cluster = self.clusters.iter().position(is_settled);
        // Where a file is too much that a cluster refers to, both have to go.
        match (cluster, file) {
            (_, Some((_, name))) => Some(Oldest::File(name.clone())),
            (Some(index), None) => Some(Oldest::Cluster(index)),
            (None, None) => None,
        }
    }

    /// Returns whether there is too much, and something can go.
    pub(super) fn has_surplus(&self) -> bool {
        let excess = self.excess();
        excess.is_some_and(|excess| self.oldest(excess).is_some())
    }

    /// Takes the oldest items beyond as many as are allowed, but none that the routes may lead to
    /// which Envoy has.
    pub fn take_surplus(&mut self, events: &mut SortedSet<String>) -> Dropped {
        let mut taken = Dropped::default();
        self.surplus_since = None;
        while let Some(excess) = self.excess() {
            match self.oldest(excess) {
                Some(Oldest::Cluster(index)) => {
                    let Vanished { file, cluster, .. } = self.clusters.remove(index).item;
                    events.insert(format!(
                        "{file}: cluster {cluster} is removed early, as more than {excess} would be kept \
                         for requests under way; change clusters less often"
                    ));
                    taken.clusters.push((file, cluster));
                }
                Some(Oldest::File(file)) => {
                    self.files.remove(&file);
                    events.insert(format!(
                        "{file}: this file is removed early, as more than {excess} would be kept for \
                         requests under way; change clusters less often"
                    ));
                    taken.files.insert(file);
                }
                None => break,
            }
        }
        taken
    }
}
