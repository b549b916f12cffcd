//! Plans the next set on the way to the target. Owns: which files wait for others, and which
//! clusters and files are kept.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Instant;

use super::Sequence;
use super::kept::Dropped;
use super::removed::vanished_file;
use crate::snapshot::{File, FileName, Snapshot};
use crate::sorted::{SortedMap, SortedSet};
use crate::xds::sequence::{
    Changes, Cluster, Difference, Former, Kind, clusters_of, kind_of, mentions,
};

/// The target with what is kept for requests under way.
pub struct Overlay<'t> {
    pub files: Cow<'t, Snapshot>,
    pub standing: SortedSet<FileName>,
    pub inserted: SortedMap<FileName, Range<u64>>,
    /// True if new clusters are visible of which it is not known that Envoy has read them.
    pub resumes: bool,
    /// The items that are not in it any more since the last turn.
    dropped: Dropped,
    /// The states that are to be put right.
    warnings: SortedSet<String>,
    /// Warnings about changes that cannot be made in order, each given once.
    events: SortedSet<String>,
}

/// The place of a set in its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Routes are yet to follow.
    Clusters,
    /// The target, with items that are kept.
    Routes,
    /// The target.
    Target,
}

/// The next set.
pub struct Planned<'t> {
    pub stage: Stage,
    pub files: Cow<'t, Snapshot>,
    /// Files that stay as they are.
    pub standing: SortedSet<FileName>,
    /// The bytes of kept clusters in the texts.
    pub inserted: SortedMap<FileName, Range<u64>>,
    /// Files that the target does not have.
    pub vanishing: SortedSet<FileName>,
    /// The routes that wait, as they will be.
    pub held: Snapshot,
    /// The states that are to be put right.
    pub warnings: SortedSet<String>,
    /// Warnings about changes that cannot be made in order, each given once.
    pub events: SortedSet<String>,
    /// The items that are not in it any more.
    pub dropped: Dropped,
    /// Files that the target has no more since this change.
    pub removed: Vec<FileName>,
    /// True if the readers of the changed files are watched.
    pub is_watched: bool,
    /// True if a listener changes with it.
    pub moves_listener: bool,
    /// True if Envoy gets something that it has not had.
    pub(super) is_new: bool,
    /// True if that was visible before, and may not have been read.
    pub(super) resumes: bool,
    pub(super) clusters: SortedSet<String>,
    pub(super) warms: bool,
    pub(super) former: Option<Former>,
}

impl Overlay<'_> {
    #[cfg(test)]
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(String::as_str)
    }

    /// Returns whether nothing is kept.
    pub fn is_target(&self) -> bool {
        self.standing.is_empty() && self.inserted.is_empty() && self.dropped.is_empty()
    }
}

impl<'t> Planned<'t> {
    /// Plans the target as one set.
    pub fn target(set: &'t Snapshot) -> Planned<'t> {
        Planned {
            stage: Stage::Target,
            files: Cow::Borrowed(set),
            standing: SortedSet::new(),
            inserted: SortedMap::new(),
            vanishing: SortedSet::new(),
            held: Snapshot::new(),
            warnings: SortedSet::new(),
            events: SortedSet::new(),
            dropped: Dropped::default(),
            removed: Vec::new(),
            is_watched: false,
            moves_listener: false,
            is_new: false,
            resumes: false,
            clusters: SortedSet::new(),
            warms: false,
            former: None,
        }
    }
}

impl Sequence {
    /// Returns the target with what is kept. `is_held_back`: a ConfigMap is, so nothing is dropped.
    pub fn overlay<'t>(
        &mut self,
        target: &'t Snapshot,
        is_held_back: bool,
        now: Instant,
    ) -> Overlay<'t> {
        let mut overlay = Overlay {
            files: Cow::Borrowed(target),
            standing: SortedSet::new(),
            inserted: SortedMap::new(),
            resumes: false,
            dropped: Dropped::default(),
            warnings: SortedSet::new(),
            events: SortedSet::new(),
        };
        if self.kept.is_empty() {
            return overlay;
        }
        self.kept.reconcile(target);
        self.kept.note_names(target);
        self.kept.allow_files(target);
        let warnings = &mut overlay.warnings;
        overlay.dropped = self.kept.take_due(is_held_back, now, warnings);
        let capped = self.kept.take_surplus(&mut overlay.events);
        overlay.dropped.extend(capped);
        self.merge(target, &mut overlay);
        overlay
    }

    /// Puts what is kept into the overlay. Returns whether all of it could be.
    fn merge(&mut self, target: &Snapshot, overlay: &mut Overlay) -> bool {
        let mut is_whole = true;
        loop {
            let mut set = target.clone();
            match self.kept.merge_into(target, &mut set) {
                Ok(inserted) => {
                    overlay.files = Cow::Owned(set);
                    overlay.inserted = inserted;
                    break;
                }
                Err((name, why)) => {
                    overlay.events.insert(cannot_be_kept(&name, &why));
                    self.kept.forget(&name);
                    is_whole = false;
                }
            }
        }
        overlay.standing = self.kept.files();
        is_whole
    }

    /// Plans the next set on the way from the `visible` one to `target`. `difference` is the
    /// overlay's, `visible` has the files that `Outline::wanted` names, and `interim` the texts of
    /// routes that wait, with today's weights.
    pub fn plan<'t>(
        &mut self,
        mut overlay: Overlay<'t>,
        target: &'t Snapshot,
        difference: &Difference,
        visible: &Snapshot,
        interim: &Snapshot,
    ) -> Planned<'t> {
        let changes = Changes::new(target, difference, visible, &self.former);
        let Changes {
            mut first,
            rest,
            vanished,
            appeared,
            warms,
            mut is_new,
            moved_listeners,
            former,
            declined,
        } = changes;
        for (name, why) in &declined {
            overlay.events.insert(cannot_be_kept(name, why));
            self.kept.forget(name);
        }
        let mut is_whole = declined.is_empty();
        let mut is_longer = !is_whole;
        for item in vanished {
            let is_declined = declined.iter().any(|(name, _)| *name == item.file);
            let key = (item.file.clone(), item.cluster.clone());
            let is_over = overlay.dropped.clusters.contains(&key) || self.is_unused(&item.cluster);
            if !is_declined && !is_over {
                is_longer |= self.kept.keep_cluster(item);
            }
        }
        for name in &difference.removed {
            if !overlay.dropped.files.contains(name) {
                let item = vanished_file(name, visible, target);
                is_longer |= self.kept.keep_file(name.clone(), item);
            }
        }
        if is_longer {
            self.kept.note_names(target);
            self.kept.allow_clusters(clusters_in(target).len());
            self.kept.allow_files(target);
            let capped = self.kept.take_surplus(&mut overlay.events);
            overlay.dropped.extend(capped);
            is_whole &= self.merge(target, &mut overlay);
        }
        // A file whose text is what it was is not part of the change.
        first.retain(|name| {
            let text = |set: &Snapshot| set.get(name).map(|file| file.bytes.clone());
            text(&overlay.files) != text(visible) || !difference.changed.contains(name)
        });
        let is_replaced = !first.is_empty();
        let resumes = overlay.resumes && !rest.is_empty();
        is_new = is_new && is_replaced || resumes;
        let held = if is_whole {
            self.held(target, is_new.then_some(&first), &rest, &appeared)
        } else {
            Snapshot::new()
        };
        let moves_listener = moved_listeners.iter().any(|name| !held.contains_key(name));
        if moves_listener {
            self.kept.listener_moves();
        }
        let stage = match (held.is_empty(), self.kept.is_empty()) {
            (false, _) => Stage::Clusters,
            (true, false) => Stage::Routes,
            (true, true) => Stage::Target,
        };
        // Which of them are new, only the run before knew.
        let all = if resumes {
            clusters_in(target)
        } else {
            Vec::new()
        };
        let vanishing = overlay.standing.clone();
        let mut standing = overlay.standing;
        if !held.is_empty() {
            let files = overlay.files.to_mut();
            for name in held.keys() {
                files.remove(name);
                match interim.get(name) {
                    Some(file) => drop(files.insert(name.clone(), file.clone())),
                    None => drop(standing.insert(name.clone())),
                }
            }
        }
        Planned {
            stage,
            files: overlay.files,
            standing,
            inserted: overlay.inserted,
            vanishing,
            held,
            warnings: overlay.warnings,
            events: overlay.events,
            dropped: overlay.dropped,
            removed: self.kept.leaving(),
            moves_listener,
            is_watched: is_new || self.is_listening() || self.kept.is_unsettled(),
            is_new,
            resumes,
            warms: warms || all.iter().any(|cluster| cluster.warms),
            clusters: appeared
                .into_iter()
                .chain(all.into_iter().map(|it| it.name))
                .collect(),
            former: is_replaced.then_some(former),
        }
    }

    /// Returns whether a cluster has come while routes wait, so that none to it has been visible:
    /// no request needs it. After a failure the routes may be visible all the same.
    fn is_unused(&self, cluster: &str) -> bool {
        let gate = self.gate.as_ref().filter(|gate| !gate.held.is_empty());
        let gate = gate.filter(|gate| !self.is_unsure && !gate.is_resumed);
        gate.is_some_and(|gate| gate.clusters.contains(cluster))
    }

    /// Returns the routes and listeners that have to wait, of those in `rest`. A change that comes
    /// while others wait does not, unless it brings something new itself, or a file of it names a
    /// cluster that Envoy may not have or is one of those that wait: the files of a ConfigMap that
    /// change together may need each other. `new` are the files that Envoy has to know first, if
    /// there is something new.
    fn held(
        &self,
        target: &Snapshot,
        new: Option<&SortedSet<FileName>>,
        rest: &SortedSet<FileName>,
        appeared: &SortedSet<String>,
    ) -> Snapshot {
        let closed = self.gate.iter().filter(|gate| !gate.is_open());
        let pending = closed.flat_map(|gate| &gate.clusters);
        let names: Vec<&str> = pending.chain(appeared).map(String::as_str).collect();
        let ahead = routes_ahead(target, rest, &names);
        let waits = |name: &FileName, bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            let leads_there = ahead.iter().any(|file| text.contains(file.as_str()));
            leads_there || !mentions(name, bytes, &names).is_empty()
        };
        let object = |name: &FileName| target.get(name).map(|file| &file.origin.object);
        // What comes from another ConfigMap is a change of its own.
        let belongs = |name: &FileName| {
            let mut objects = new.into_iter().flatten().map(object);
            new.is_some_and(SortedSet::is_empty) || objects.any(|of_new| of_new == object(name))
        };
        let must_wait =
            |(name, file): &(&FileName, &File)| belongs(name) || waits(name, &file.bytes);
        let changed = target.iter().filter(|(name, _)| rest.contains(*name));
        let all: Vec<(&FileName, &File)> = changed.collect();
        let owned = |(name, file): (&FileName, &File)| (name.clone(), file.clone());
        if new.is_some() && !self.holds_routes() {
            return all.into_iter().filter(must_wait).map(owned).collect();
        }
        let Some(gate) = &self.gate else {
            return Snapshot::new();
        };
        let is_held = |(name, file): &(&FileName, &File)| {
            let known = gate.held.get(*name).filter(|_| !gate.is_open());
            known.is_some_and(|known| known.bytes == file.bytes)
        };
        let is_linked =
            |found: &(&FileName, &File)| !is_held(found) && gate.held.contains_key(found.0);
        let is_linked = all.iter().any(is_linked);
        let is_change = |found: &(&FileName, &File)| is_linked || !is_held(found);
        let change = || all.iter().copied().filter(is_change);
        let waiting: Vec<_> = change()
            .filter(must_wait)
            .map(|(name, _)| object(name))
            .collect();
        let still_held = all.iter().copied().filter(is_held);
        let mut held = Snapshot::new();
        if !waiting.is_empty() {
            let related = change().filter(|(name, _)| waiting.contains(&object(name)));
            held.extend(still_held.chain(related).map(owned));
        } else if !is_linked {
            held.extend(still_held.map(owned));
        }
        held
    }
}

/// Returns the files of routes to these clusters that are visible already, as new files are: a
/// listener that refers to one has to wait as the routes would.
fn routes_ahead<'t>(
    target: &'t Snapshot,
    rest: &SortedSet<FileName>,
    clusters: &[&str],
) -> Vec<&'t FileName> {
    if clusters.is_empty() {
        return Vec::new();
    }
    let files = target.iter().filter(|(name, _)| !rest.contains(*name));
    let routes = files.filter(|(name, file)| kind_of(name, &file.bytes) == Kind::Routes);
    let ahead = routes.filter(|(name, file)| !mentions(name, &file.bytes, clusters).is_empty());
    ahead.map(|(name, _)| name).collect()
}

fn cannot_be_kept(name: &FileName, why: &str) -> String {
    format!("{name}: clusters that are removed cannot be kept for requests under way: {why}")
}

/// Returns the clusters of a set.
fn clusters_in(target: &Snapshot) -> Vec<Cluster> {
    let files = target
        .iter()
        .filter(|(name, file)| kind_of(name, &file.bytes) == Kind::Clusters);
    let clusters = files.filter_map(|(name, file)| clusters_of(name, &file.bytes).ok());
    clusters.flatten().collect()
}
