//! Decides which of the sets beside the active one stay, by how much of the disk they take. Must
//! not: remove what `active`, `done` or `good` names.

use std::fs::Metadata;

use super::OutputDirectory;
use super::provenance::{Source, Sources};
use super::verdicts::Verdicts;
use crate::error::Error;
use crate::output::disk::{Inode, inode_of};
use crate::snapshot::FileName;
use crate::sorted::{SortedMap, SortedSet};

/// Sets kept beside the active one: an Envoy may still be reading the last two.
pub const OLDER: usize = 3;
/// All sets together take less than so many times the space of the target, and `SPARE` bytes more:
/// the chart's emptyDir is that large.
const TIMES: u64 = 8;
const SPARE: u64 = 1 << 20;
/// The least that a file system reserves for a file or a directory.
const BLOCK: u64 = 4 << 10;

/// A file of a set.
#[derive(Clone, Debug)]
pub struct Occupant {
    name: FileName,
    /// Sets share a file that is linked; one of which this is not known counts for itself.
    inode: Option<Inode>,
    size: u64,
}

/// The sets on disk beside the active one, by number, and their files as far as they are known.
#[derive(Debug, Default)]
pub struct OlderSets(SortedMap<u64, Option<Vec<Occupant>>>);

impl OlderSets {
    /// Adds a set of this run.
    pub fn insert(&mut self, number: u64, files: &Sources) {
        self.0.insert(number, Some(occupants(files)));
    }

    /// Adds a set that was found, with what is known of it from before.
    pub fn add(&mut self, number: u64, known: &mut OlderSets) {
        self.0.insert(number, known.0.remove(&number).flatten());
    }

    pub fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }

    /// Returns the sets whose files are not known.
    fn unmeasured(&self) -> Vec<u64> {
        let unmeasured = self.0.iter().filter(|(_, files)| files.is_none());
        unmeasured.map(|(number, _)| *number).collect()
    }

    /// Returns the names of the files that are known to be in a set.
    fn names(&self, number: u64) -> impl Iterator<Item = &FileName> {
        let files = self.0.get(&number).into_iter().flatten().flatten();
        files.map(|file| &file.name)
    }

    /// Returns which sets go: all but the last `keep`, and of those the oldest, if together with
    /// the active set and a next one of its size they take too much space. Those in `needed` stay.
    fn surplus(&self, keep: usize, active: Option<&Sources>, needed: &SortedSet<u64>) -> Vec<u64> {
        let mut used = Usage::default();
        let limit = active.map_or(u64::MAX, |active| {
            used.add(&occupants(active));
            let target: u64 = active.values().map(|file| blocks(file.target_size())).sum();
            (TIMES * target + SPARE).saturating_sub(used.bytes)
        });
        for files in needed.iter().filter_map(|number| self.0.get(number)) {
            used.add(files.as_deref().unwrap_or_default());
        }
        let mut surplus = Vec::new();
        for (age, (number, files)) in self.0.iter().rev().enumerate() {
            if needed.contains(number) {
                continue;
            }
            if surplus.is_empty() {
                used.add(files.as_deref().unwrap_or_default());
            }
            if age >= keep || used.bytes > limit {
                surplus.push(*number);
            }
        }
        surplus.reverse();
        surplus
    }
}

/// The space that sets take.
#[derive(Default)]
struct Usage {
    seen: SortedSet<Inode>,
    bytes: u64,
}

impl Usage {
    /// Adds a set: its files that no other has, its directory and its `N.sources`.
    fn add(&mut self, files: &[Occupant]) {
        self.bytes += 2 * BLOCK;
        for Occupant { inode, size, .. } in files {
            if inode.is_none_or(|inode| self.seen.insert(inode)) {
                self.bytes += blocks(*size);
            }
        }
    }
}

fn blocks(size: u64) -> u64 {
    size.next_multiple_of(BLOCK)
}

fn occupants(files: &Sources) -> Vec<Occupant> {
    let occupant = |(name, source): (&FileName, &Source)| Occupant {
        name: name.clone(),
        inode: source.inode,
        size: source.size,
    };
    files.iter().map(occupant).collect()
}

impl OutputDirectory {
    /// Finds out what is in a set of an earlier run, without opening it.
    fn measure(&self, number: u64) -> Result<Vec<Occupant>, Error> {
        let dir = self.at.set(number);
        let mut files = Vec::new();
        if !self.on_disk().is_dir(&dir)? {
            return Ok(files);
        }
        for name in self.disk.list(&dir)?.unwrap_or_default() {
            let found = self.disk.lstat(&dir.join(&name))?.filter(Metadata::is_file);
            if let (Some(name), Some(found)) = (FileName::new(&name), found) {
                files.push(Occupant {
                    name,
                    inode: Some(inode_of(&found)),
                    size: found.len(),
                });
            }
        }
        Ok(files)
    }

    /// Removes older sets of which a failed publish may each have left one more. What cannot go
    /// now, a publish will report.
    pub(super) fn sweep_leftovers(&mut self) {
        let measured = self.measure_all();
        let _ = measured.and_then(|()| self.sweep(OLDER));
    }

    fn measure_all(&mut self) -> Result<(), Error> {
        for number in self.inventory.older.unmeasured() {
            let files = self.measure(number)?;
            self.inventory.older.0.insert(number, Some(files));
        }
        Ok(())
    }

    /// Removes older sets, but for the last `keep`, as far as there is space for them. What
    /// `active` or `done` names stays, and what Envoy's verdict may bring back.
    pub(super) fn sweep(&mut self, keep: usize) -> Result<(), Error> {
        let active = self.inventory.visible.active().map(|active| &active.files);
        let kept = self.verdicts.as_ref().into_iter().flat_map(Verdicts::kept);
        let needed: SortedSet<u64> = self.inventory.named().chain(kept).collect();
        for number in self.inventory.older.surplus(keep, active, &needed) {
            let names = self.inventory.older.names(number);
            self.on_disk().remove_set(number, names)?;
            self.inventory.older.remove(number);
        }
        Ok(())
    }
}
