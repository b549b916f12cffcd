//! Tells what a change of files means to a running Envoy. Owns: which files it has to read before
//! the routes, and which clusters appear and vanish. Must not: know the time, or what is kept
//! already.

use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;

use super::clusters::{Cluster, clusters_of};
use super::kind::{Kind, kind_of};
use crate::snapshot::{Bytes, File, FileName, Snapshot};
use crate::sorted::{SortedMap, SortedSet};

/// The files that differ between the visible set and the one that should follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Files of the new set that the visible one does not have.
    pub added: Vec<FileName>,
    /// Files of both, with other contents.
    pub changed: Vec<FileName>,
    /// Files of the visible set that the new one does not have.
    pub removed: Vec<FileName>,
}

/// A cluster that a file had and has not any more.
#[derive(Clone, Debug)]
pub struct Vanished {
    /// The file.
    pub file: FileName,
    /// The cluster's name.
    pub cluster: String,
    /// Its configuration as one line of flow style.
    pub line: Rc<str>,
}

/// The contents that Envoy had before the last change, which it can take again at once. They are
/// known by their hashes, as secrets may be among them.
#[derive(Clone, Debug, Default)]
pub struct Former {
    files: SortedMap<FileName, u64>,
    clusters: Vec<u64>,
}

/// A change, as far as its order matters.
#[derive(Debug, Default)]
pub struct Changes {
    /// Files that Envoy has to know before the routes and listeners.
    pub first: SortedSet<FileName>,
    /// Routes and listeners that it has already, with other contents.
    pub rest: SortedSet<FileName>,
    /// Clusters that are not in their files any more.
    pub vanished: Vec<Vanished>,
    /// The names of clusters that are new.
    pub appeared: SortedSet<String>,
    /// True if a new cluster has to look up names or check health before it takes requests.
    pub warms: bool,
    /// True if `first` brings something that Envoy has not had.
    pub is_new: bool,
    /// The files with listeners that change: connections may go on with the older ones.
    pub moved_listeners: SortedSet<FileName>,
    /// The contents that this change replaces.
    pub former: Former,
    /// Files whose clusters cannot be told, and why.
    pub declined: Vec<(FileName, String)>,
}

/// A change at first sight.
#[derive(Debug, Default)]
pub struct Outline {
    /// The files whose visible texts [`Changes::new`] wants to see.
    pub wanted: Vec<FileName>,
    /// True if it is one of routes and listeners alone, which has no order.
    pub is_plain: bool,
    /// True if connections may go on with an older listener.
    pub moves_listener: bool,
}

impl Outline {
    /// Finds out what kinds of files change.
    pub fn new(target: &Snapshot, difference: &Difference) -> Outline {
        let mut outline = Outline {
            wanted: difference.removed.clone(),
            ..Outline::default()
        };
        for name in &difference.changed {
            let kind = target.get(name).map(|file| kind_of(name, &file.bytes));
            outline.moves_listener |= kind == Some(Kind::Listeners);
            // What refers to a file that is removed may have changed with it.
            if kind.is_some_and(Kind::goes_first) || !difference.removed.is_empty() {
                outline.wanted.push(name.clone());
            }
        }
        outline.is_plain = outline.wanted.is_empty() && difference.added.is_empty();
        outline
    }
}

impl Changes {
    /// Finds out what the change from the `visible` texts to `target` means. `former` is what Envoy
    /// has had before.
    pub fn new(
        target: &Snapshot,
        difference: &Difference,
        visible: &Snapshot,
        former: &Former,
    ) -> Changes {
        let mut changes = Changes::default();
        for name in &difference.added {
            changes.first.insert(name.clone());
            changes.is_new = true;
            if let Some(File { bytes, .. }) = target.get(name)
                && kind_of(name, bytes) == Kind::Clusters
            {
                changes.compare(name, bytes, None, former);
            }
        }
        for name in &difference.changed {
            let Some(File { bytes, .. }) = target.get(name) else {
                continue;
            };
            let before = visible.get(name).map(|file| &file.bytes);
            // A list that is empty now is of the kind that it was.
            let kind = match (kind_of(name, bytes), before) {
                (Kind::Untyped, Some(before)) => kind_of(name, before),
                (kind, _) => kind,
            };
            if kind == Kind::Listeners {
                changes.moved_listeners.insert(name.clone());
            }
            if !kind.goes_first() {
                changes.rest.insert(name.clone());
                continue;
            }
            changes.first.insert(name.clone());
            if kind == Kind::Clusters {
                changes.compare(name, bytes, before, former);
                continue;
            }
            changes.is_new |= former.files.get(name) != Some(&hash_of(bytes));
            if let Some(before) = before {
                let files = &mut changes.former.files;
                files.insert(name.clone(), hash_of(before));
            }
        }
        for name in &difference.removed {
            let is_listener = |file: &File| kind_of(name, &file.bytes) == Kind::Listeners;
            if visible.get(name).is_some_and(is_listener) {
                changes.moved_listeners.insert(name.clone());
            }
        }
        changes
    }

    /// Compares the clusters of a file's new text with those that it had.
    fn compare(&mut self, name: &FileName, text: &[u8], before: Option<&Bytes>, former: &Former) {
        let read = |bytes: &[u8]| clusters_of(name, bytes);
        let (new, old) = match (
            read(text),
            before.map_or(Ok(Vec::new()), |bytes| read(bytes)),
        ) {
            (Ok(new), Ok(old)) => (new, old),
            (Err(declined), _) | (_, Err(declined)) => {
                self.declined.push((name.clone(), declined.0));
                self.is_new = true;
                return;
            }
        };
        for cluster in &new {
            match old.iter().find(|known| known.name == cluster.name) {
                None => {
                    self.appeared.insert(cluster.name.clone());
                    self.warms |= cluster.warms;
                    self.is_new = true;
                }
                Some(known) if known.hash == cluster.hash => {}
                Some(known) => {
                    self.former.clusters.push(known.hash);
                    self.is_new |= !former.clusters.contains(&cluster.hash);
                }
            }
        }
        let has = |known: &Cluster| new.iter().any(|cluster| cluster.name == known.name);
        for gone in old.iter().filter(|known| !has(known)) {
            match &gone.line {
                Ok(line) => self.vanished.push(Vanished {
                    file: name.clone(),
                    cluster: gone.name.clone(),
                    line: line.clone(),
                }),
                Err(declined) => self.declined.push((name.clone(), declined.0.clone())),
            }
        }
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
