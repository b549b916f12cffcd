//! Keeps what has vanished from the target published for a while, as requests may still need it.
//! Pure. Owns: when each item may go.

mod drain;
mod merged;
mod surplus;

use std::time::{Duration, Instant};

use crate::snapshot::{FileName, Snapshot};
use crate::sorted::{SortedMap, SortedSet};
use crate::xds::sequence::{Vanished, clusters_of, mentions};
use merged::Merged;
use surplus::Limits;

/// The time that a request may take by Envoy's default route timeout. One that a filter holds needs
/// the cluster that it chose before.
pub const GRACE: Duration = Duration::from_secs(15);

/// The time at which an item may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The time begins once the routes without it are acknowledged.
    Unsettled,
    /// It may go from this time on.
    At(Instant),
}

impl Due {
    fn is_over(self, now: Instant) -> bool {
        matches!(self, Due::At(at) if at <= now)
    }
}

#[derive(Debug)]
struct KeptCluster {
    item: Vanished,
    due: Due,
    /// True if it is due, and something still needs it.
    blocked: bool,
    /// The name of another published file that names it. Its time begins once none does.
    named_by: Option<FileName>,
}

#[derive(Debug)]
struct KeptFile {
    item: VanishedFile,
    due: Due,
    /// True if it is due, and another published file names a cluster of it.
    blocked: bool,
    /// One of its clusters, and another published file that names it. Its time begins once none
    /// does.
    named_by: Option<(String, FileName)>,
}

/// A file that the target has no more.
#[derive(Debug, Default)]
pub struct VanishedFile {
    /// The names of the clusters in it.
    pub clusters: Vec<String>,
    pub size: u64,
    /// The file that referred to it went with it, so that no bootstrap has to refer to it.
    pub went_along: bool,
}

/// The items that are kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// The oldest first.
    clusters: Vec<KeptCluster>,
    files: SortedMap<FileName, KeptFile>,
    /// Those of them that no set is without yet.
    leaving: SortedSet<FileName>,
    /// True if a due file has to wait.
    holds_back: bool,
    /// True if a listener changes with the routes that are not acknowledged yet.
    listener_moves: bool,
    /// Connections may go on with an older listener until then, and with the clusters of its
    /// routes: also of routes that had moved before the listener did.
    drains_until: Option<Instant>,
    /// The time at which the last of them was switched, if that may last longer than a request.
    drains_since: Option<Instant>,
    /// The time of the last item began then.
    settled_at: Option<Instant>,
    limits: Limits,
    /// There is more than that since then.
    surplus_since: Option<Instant>,
    merged: SortedMap<FileName, Merged>,
}

/// The items that are due.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Clusters, by file and name.
    pub clusters: Vec<(FileName, String)>,
    /// Whole files.
    pub files: SortedSet<FileName>,
}

impl Dropped {
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.files.is_empty()
    }

    pub fn extend(&mut self, more: Dropped) {
        self.clusters.extend(more.clusters);
        self.files.extend(more.files);
    }
}

impl Kept {
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.files.is_empty()
    }

    /// Returns the files that stay published though the target does not have them.
    pub fn files(&self) -> SortedSet<FileName> {
        let mut files = SortedSet::new();
        files.extend(self.files.iter().map(|(name, _)| name.clone()));
        files
    }

    /// Returns when the next item is due that nothing needs, as far as is known.
    pub fn deadline(&self) -> Option<Instant> {
        let clusters = self.clusters.iter().filter(|kept| !kept.blocked);
        let files = self.files.iter().filter(|_| !self.holds_back);
        let free = files.filter(|(name, kept)| !kept.blocked && !self.is_referred_to(name));
        let dues = clusters
            .map(|kept| &kept.due)
            .chain(free.map(|(_, kept)| &kept.due));
        let at = |due: &Due| match due {
            Due::Unsettled => None,
            Due::At(at) => Some(*at),
        };
        dues.filter_map(at).chain(self.surplus_since).min()
    }

    /// Returns whether an item waits for the routes to be acknowledged.
    pub fn is_unsettled(&self) -> bool {
        let mut dues = self.clusters.iter().map(|kept| &kept.due);
        let waits = |due: &Due| matches!(due, Due::Unsettled);
        dues.any(waits) || self.files.values().any(|kept| waits(&kept.due))
    }

    /// Notes that Envoy has the routes that do without the items.
    pub fn settle(&mut self, drain_time: Duration, now: Instant) {
        if std::mem::take(&mut self.listener_moves) {
            self.drains_until = self.drains_until.max(Some(now + drain_time));
            self.drains_since = Some(now);
        }
        let at = self.drains_until.max(Some(now + GRACE));
        let clusters = self.clusters.iter_mut().map(|kept| &mut kept.due);
        let files = self.files.values_mut().map(|kept| &mut kept.due);
        for due in clusters.chain(files) {
            if let (Due::Unsettled, Some(at)) = (*due, at) {
                *due = Due::At(at);
                self.settled_at = Some(now);
            }
        }
        self.surplus_since = self.has_surplus().then_some(now);
    }

    /// Returns whether a kept cluster may refer to this file.
    fn is_referred_to(&self, file: &FileName) -> bool {
        let mut lines = self.clusters.iter().map(|kept| &kept.item.line);
        lines.any(|line| line.contains(file.as_str()))
    }

    /// Keeps a cluster, unless it is kept already. Returns whether it is new.
    pub fn keep_cluster(&mut self, item: Vanished) -> bool {
        let is_same = |kept: &KeptCluster| {
            (&kept.item.file, &kept.item.cluster) == (&item.file, &item.cluster)
        };
        if self.clusters.iter().any(is_same) {
            return false;
        }
        self.clusters.push(KeptCluster {
            item,
            due: Due::Unsettled,
            blocked: false,
            named_by: None,
        });
        true
    }

    /// Keeps a file, unless it is kept already. Returns whether it is new.
    pub fn keep_file(&mut self, name: FileName, item: VanishedFile) -> bool {
        // Its clusters stand in its own text.
        self.clusters.retain(|kept| kept.item.file != name);
        let is_new = self.files.get(&name).is_none();
        if is_new {
            self.leaving.insert(name.clone());
        }
        self.files.get_or_insert_with(name, || KeptFile {
            item,
            due: Due::Unsettled,
            blocked: false,
            named_by: None,
        });
        is_new
    }

    /// Returns whether what referred to a kept file went with it.
    pub fn went_along(&self, file: &FileName) -> bool {
        let kept = self.files.get(file);
        kept.is_some_and(|kept| kept.item.went_along)
    }

    /// Returns the kept files that the set on disk may still have for its own.
    pub fn leaving(&self) -> Vec<FileName> {
        self.leaving.iter().cloned().collect()
    }

    /// Notes that the planned set is on disk.
    pub fn on_committed(&mut self) {
        self.leaving.clear();
    }

    /// Forgets everything that is kept.
    pub fn clear(&mut self) {
        *self = Kept::default();
    }

    /// Forgets the clusters that are kept in one file.
    pub fn forget(&mut self, file: &FileName) {
        self.clusters.retain(|kept| kept.item.file != *file);
        self.merged.remove(file);
    }

    /// Forgets the items that the target has again.
    pub fn reconcile(&mut self, target: &Snapshot) {
        self.files.retain(|name, _| !target.contains_key(name));
        self.leaving.retain(|name| !target.contains_key(name));
        let mut changed: Vec<FileName> = Vec::new();
        for KeptCluster { item, .. } in &self.clusters {
            let merged = self.merged.get(&item.file);
            let bytes = target.get(&item.file).map(|file| &file.bytes);
            let is_known = merged.is_some_and(|merged| Some(&merged.target) == bytes);
            if !is_known && !changed.contains(&item.file) {
                changed.push(item.file.clone());
            }
        }
        for name in changed {
            // Where the file is gone, it is kept as a whole.
            let has = target
                .get(&name)
                .and_then(|file| clusters_of(&name, &file.bytes).ok());
            let Some(has) = has.filter(|_| target.contains_key(&name)) else {
                continue;
            };
            self.clusters.retain(|kept| {
                kept.item.file != name || !has.iter().any(|new| new.name == kept.item.cluster)
            });
        }
    }

    /// Notes which clusters other files name. One that none names any more was needed until now:
    /// its time begins anew, when the files that do without it are acknowledged.
    pub fn note_names(&mut self, target: &Snapshot) {
        for KeptFile {
            item,
            due,
            blocked,
            named_by,
        } in self.files.values_mut()
        {
            let asked: Vec<&str> = item.clusters.iter().map(String::as_str).collect();
            let by = target.iter().find_map(|(name, file)| {
                let found = mentions(name, &file.bytes, &asked).into_iter().next();
                found.map(|cluster| (cluster.to_owned(), name.clone()))
            });
            if std::mem::replace(named_by, by).is_some() && named_by.is_none() {
                (*due, *blocked) = (Due::Unsettled, false);
            }
        }
        let named = self.named(target);
        for (kept, by) in self.clusters.iter_mut().zip(named) {
            let KeptCluster {
                due,
                blocked,
                named_by,
                ..
            } = kept;
            if std::mem::replace(named_by, by).is_some() && named_by.is_none() {
                (*due, *blocked) = (Due::Unsettled, false);
            }
        }
    }

    /// Takes the items that are due and that nothing needs. Says what is kept for what otherwise.
    /// `is_held_back`: a ConfigMap is, so that what stands in for it may need them.
    pub fn take_due(
        &mut self,
        is_held_back: bool,
        now: Instant,
        warnings: &mut SortedSet<String>,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        let is_over = |kept: &KeptCluster| kept.due.is_over(now);
        let any_due = self.clusters.iter().any(is_over)
            || self.files.values().any(|kept| kept.due.is_over(now));
        self.holds_back = false;
        if !any_due {
            return dropped;
        }
        if is_held_back {
            self.hold_back(now, warnings);
            return dropped;
        }
        self.clusters.retain_mut(|kept| {
            if !kept.due.is_over(now) {
                return true;
            }
            let Vanished { file, cluster, .. } = &kept.item;
            if let Some(by) = &kept.named_by {
                kept.blocked = true;
                warnings.insert(format!(
                    "{file}: cluster {cluster} is not in the ConfigMap any more; it is kept, as {by} \
                     names it"
                ));
                return true;
            }
            dropped.clusters.push((file.clone(), cluster.clone()));
            false
        });
        for (file, kept) in self.files.iter_mut() {
            if let Some((cluster, by)) = &kept.named_by
                && kept.due.is_over(now)
            {
                kept.blocked = true;
                warnings.insert(format!(
                    "{file}: no ConfigMap has this file any more; it is kept, as {by} names its cluster \
                     {cluster}"
                ));
            }
        }
        let over = self
            .files
            .iter()
            .filter(|(_, kept)| kept.due.is_over(now) && !kept.blocked);
        let free = over.filter(|(name, _)| !self.is_referred_to(name));
        dropped.files.extend(free.map(|(name, _)| name.clone()));
        self.files.retain(|name, _| !dropped.files.contains(name));
        dropped
    }

    /// Keeps what is due for as long as a ConfigMap is held back.
    fn hold_back(&mut self, now: Instant, warnings: &mut SortedSet<String>) {
        self.holds_back = true;
        for kept in self
            .clusters
            .iter_mut()
            .filter(|kept| kept.due.is_over(now))
        {
            kept.blocked = true;
            let Vanished { file, cluster, .. } = &kept.item;
            warnings.insert(format!(
                "{file}: cluster {cluster} is not in the ConfigMap any more; it is kept while a \
                 ConfigMap is invalid or refused"
            ));
        }
        for (file, _) in self.files.iter().filter(|(_, kept)| kept.due.is_over(now)) {
            warnings.insert(format!(
                "{file}: no ConfigMap has this file any more; it is kept while one is invalid or refused"
            ));
        }
    }

    /// Returns for each cluster another published file that names it.
    fn named(&self, target: &Snapshot) -> Vec<Option<FileName>> {
        let mut named = vec![None; self.clusters.len()];
        for (name, file) in target {
            let others = self.clusters.iter().filter(|kept| kept.item.file != *name);
            let asked: Vec<&str> = others.map(|kept| kept.item.cluster.as_str()).collect();
            let found = mentions(name, &file.bytes, &asked);
            for (KeptCluster { item, .. }, by) in self.clusters.iter().zip(&mut named) {
                if item.file != *name && found.contains(&item.cluster.as_str()) {
                    *by = Some(name.clone());
                }
            }
        }
        named
    }
}
