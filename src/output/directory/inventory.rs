//! Takes stock of the sets on disk: which of them Envoy sees, and which is known to be whole. Owns:
//! finding out what may be trusted, and clearing what an earlier run, a failed publish or another
//! program left. Must not: change what Envoy sees.

use std::path::{Path, PathBuf};

use super::active::{ActiveSet, Untrusted, Visible};
use super::layout::{CURRENT, number};
use super::on_disk::{Links, OnDisk};
use super::prepared::Prepared;
use super::sets::FoundSet;
use super::sweep::OlderSets;
use crate::error::Error;
use crate::snapshot::FileName;
use crate::sorted::SortedSet;

/// The sets on disk, as far as they are known.
#[derive(Debug)]
pub struct Inventory {
    pub visible: Visible,
    /// The number of the set that the link `done` leads to.
    pub last_durable: Option<u64>,
    /// The other sets on disk.
    pub older: OlderSets,
    /// A number that no set has had.
    pub next_set: u64,
}

impl Inventory {
    /// Returns what is known of a directory before it was looked at.
    pub fn unknown() -> Inventory {
        Inventory {
            visible: Visible::Untrusted(Untrusted::default()),
            last_durable: None,
            older: OlderSets::default(),
            next_set: 1,
        }
    }

    /// Takes what is known, and leaves what may be said of the directory if it cannot be looked at.
    pub fn take(&mut self) -> Inventory {
        let doubted = Inventory {
            visible: Visible::Untrusted(self.visible.doubts()),
            last_durable: self.last_durable,
            next_set: self.next_set,
            ..Inventory::unknown()
        };
        std::mem::replace(self, doubted)
    }

    /// Finds out what is there, given what was known before. Afterwards, everything of ours that
    /// neither `active` nor `done` leads to is gone, older sets and what is prepared aside.
    ///
    /// 1. Remove temporary links, but for those that were made ahead.
    /// 2. Remove sets that were not committed.
    /// 3. Sort the links that Envoy follows.
    /// 4. Find out what may be compared with.
    /// 5. Remove links of a set that was never committed: they lead nowhere.
    pub fn find(
        on_disk: OnDisk,
        known: Inventory,
        prepared: &mut Prepared,
    ) -> Result<Inventory, Error> {
        let OnDisk { disk, at, .. } = on_disk;
        let doubts = known.visible.doubts();
        clear_links(on_disk, prepared)?; // 1.
        let visible = on_disk.numbered(&at.active)?;
        let mut found = Inventory {
            visible: Visible::Untrusted(Untrusted {
                number: visible,
                ..doubts
            }),
            last_durable: on_disk.numbered(&at.done)?,
            older: OlderSets::default(),
            next_set: known.next_set,
        };
        found.find_sets(on_disk, known.older, prepared)?; // 2.
        let Links {
            ours: links,
            foreign,
            dangling,
        } = on_disk.links()?; // 3.
        for name in dangling {
            disk.unlink(&at.link(&name))?;
        }
        let linked = disk.read_link(&at.current)?.as_deref() == Some(Path::new(CURRENT));
        let is_dir = on_disk.is_dir(&at.current)?;
        // A set that was committed and never done may be torn: not to be kept for the sake of a
        // foreign file. `adopt` makes a set done before it is active.
        found.visible = Visible::Untrusted(Untrusted {
            number: visible,
            has_foreign_files: is_dir || (linked && foreign && !found.is_past_durable()),
            ..doubts
        });
        let active = found.visible_set(on_disk, known.visible.into_active())?; // 4.
        let has_link = |name: &FileName| links.contains(name.as_str());
        let is_linked = |active: &ActiveSet| active.files.keys().all(has_link);
        let Some(active) = active.filter(|active| linked && !foreign && is_linked(active)) else {
            return Ok(found);
        };
        if active.is_durable() {
            clear_strays(on_disk, &links, &active)?; // 5.
        }
        found.older.remove(active.number);
        found.visible = Visible::Trusted(active);
        Ok(found)
    }

    /// Removes the sets that were not committed, and takes note of the others.
    fn find_sets(
        &mut self,
        on_disk: OnDisk,
        mut known: OlderSets,
        prepared: &mut Prepared,
    ) -> Result<(), Error> {
        let names = on_disk.disk.list(&on_disk.at.sets)?.unwrap_or_default();
        let stem = |name: &String| number(name.strip_suffix(".sources").unwrap_or(name));
        let numbers: SortedSet<u64> = names.iter().filter_map(stem).collect();
        prepared.retain_set(|number| numbers.contains(number));
        let last = self.visible.number().max(self.last_durable);
        for number in numbers {
            if Some(number) == prepared.set() {
                continue;
            }
            if Some(number) > last {
                on_disk.remove_set(number, [])?;
            } else {
                self.older.add(number, &mut known);
            }
            self.next_set = self.next_set.max(number + 1);
        }
        self.next_set = self.next_set.max(last.unwrap_or(0) + 1);
        Ok(())
    }

    /// Returns the active set, if it is done, or this run published it (then it was `before`), or
    /// its hashes vouch for it. Files of it that are not what was written are owed.
    pub fn visible_set(
        &self,
        on_disk: OnDisk,
        before: Option<ActiveSet>,
    ) -> Result<Option<ActiveSet>, Error> {
        let Untrusted {
            number: visible,
            is_rolled_back,
            ..
        } = self.visible.doubts();
        let ours = |active: &ActiveSet| visible == Some(active.number);
        let before = before.filter(ours);
        let Some(number) = visible.filter(|_| !is_rolled_back) else {
            return Ok(None);
        };
        let Some(FoundSet { files, spoiled }) = on_disk.files_of(number, before.as_ref())? else {
            return Ok(None);
        };
        Ok(match before {
            Some(mut active) if !active.is_durable() => {
                active.files = files;
                active.spoiled.extend(spoiled);
                Some(active)
            }
            _ if self.is_durable(number) => Some(ActiveSet::durable(number, files, spoiled)),
            // It was killed before it was synced. Envoy may have read it, and may not.
            _ if spoiled.is_empty() && files.values().all(|source| source.hash.is_some()) => {
                Some(ActiveSet::unannounced(number, files))
            }
            _ => None,
        })
    }

    /// Returns whether this is the set that is known to be whole.
    pub fn is_durable(&self, number: u64) -> bool {
        self.last_durable == Some(number)
    }

    /// Returns whether the visible set is newer than the one that is known to be whole.
    pub fn is_past_durable(&self) -> bool {
        self.visible.number() > self.last_durable
    }

    /// Returns the sets that `active` and `done` lead to.
    pub fn named(&self) -> impl Iterator<Item = u64> {
        [self.visible.number(), self.last_durable]
            .into_iter()
            .flatten()
    }
}

/// Removes temporary links that were not made ahead, and forgets those that are gone.
fn clear_links(on_disk: OnDisk, prepared: &mut Prepared) -> Result<(), Error> {
    let links = &on_disk.at.links;
    let found = on_disk.disk.list(links)?.unwrap_or_default();
    let is_there = |link: &PathBuf| found.iter().any(|name| link.ends_with(name));
    prepared.retain_links(is_there);
    for name in &found {
        let link = links.join(name);
        if !prepared.has_link(&link) {
            on_disk.disk.remove_all(&link)?;
        }
    }
    Ok(())
}

/// Removes links for which the active set has no file.
fn clear_strays(
    on_disk: OnDisk,
    links: &SortedSet<String>,
    active: &ActiveSet,
) -> Result<(), Error> {
    for name in links {
        let is_known = FileName::new(name).is_some_and(|name| active.files.contains_key(&name));
        if !is_known {
            on_disk.disk.unlink(&on_disk.at.link(name))?;
        }
    }
    Ok(())
}
