//! Recovers from what an earlier run, a failed publish, or another program left in the output
//! directory. Owns: taking the lock, making directories, finding out what may be trusted, clearing
//! leftovers. Must not: change what Envoy sees, unless that is torn.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use super::active::{ActiveSet, Untrusted, Visible};
use super::layout::{CURRENT, Layout, number, target};
use super::sets::FoundSet;
use super::sweep::OlderSets;
use super::{Held, OutputDirectory};
use crate::error::Error;
use crate::gather;
use crate::output::disk::{Fs, inode_of};
use crate::output::heartbeat::Heartbeat;
use crate::snapshot::FileName;

/// The contents of `.live`.
pub struct Links {
    /// The keys that our links stand for.
    pub ours: BTreeSet<String>,
    /// Whether files stand where links should.
    pub foreign: bool,
    /// Links that are not ours and lead nowhere.
    pub dangling: Vec<String>,
}

/// Makes DIR and `.sets` if they are missing, and takes the lock.
pub fn hold(disk: &Fs, at: &Layout) -> Result<Held, Error> {
    disk.ensure_dirs(&at.dir)?;
    disk.ensure_dir(&at.sets)?;
    let lock = disk.lock(&at.lock)?;
    let found = disk.stat(&lock, &at.lock)?;
    let sets = disk.open(&at.sets)?;
    Ok(Held {
        _lock: lock,
        inode: inode_of(&found),
        sets,
    })
}

impl OutputDirectory {
    pub(super) fn open_on(disk: Fs, dir: &Path) -> Result<OutputDirectory, Error> {
        let at = Layout::new(dir);
        let held = hold(&disk, &at)?;
        let mut publisher = OutputDirectory {
            disk,
            at,
            held,
            heartbeat: Heartbeat::new(dir),
            visible: Visible::Untrusted(Untrusted::default()),
            last_durable: None,
            older: OlderSets::default(),
            reads: None,
            watched: None,
            lost_watch: false,
            needs_recheck: false,
            next_set: 1,
            next_link: 0,
            last_changed: Vec::new(),
            prepared_set: None,
            prepared_links: Vec::new(),
        };
        publisher.ensure_layout()?;
        publisher.scan()?;
        // If either fails, the next publish repairs what is left.
        let _ = publisher.roll_back_torn_set();
        let _ = publisher.end_takeover();
        publisher.watch()?;
        publisher.sweep_leftovers();
        Ok(publisher)
    }

    /// Makes the last whole set visible again if a power loss has torn one that was committed and
    /// never done. Envoy is not notified, and the next publish trusts neither set.
    fn roll_back_torn_set(&mut self) -> Result<(), Error> {
        let (Some(visible), Some(whole)) = (self.visible.number(), self.last_durable) else {
            return Ok(());
        };
        let is_whole = |found: &FoundSet| found.is_whole();
        if visible <= whole || self.files_of(visible, None)?.as_ref().is_some_and(is_whole) {
            return Ok(());
        }
        if let Some(found) = self.files_of(whole, None)?.filter(is_whole) {
            for name in found.files.keys() {
                self.link_key(name)?;
            }
            let active = self.at.active.clone();
            self.replace_with_link(&whole.to_string(), &active)?;
            self.visible = Visible::Untrusted(Untrusted {
                number: Some(whole),
                is_rolled_back: true,
                ..self.visible.doubts()
            });
        }
        Ok(())
    }

    /// Returns whether the lock we hold is the one that others would find.
    pub(super) fn is_held(&self) -> Result<bool, Error> {
        self.disk.is_same_file(&self.at.lock, self.held.inode)
    }

    /// Makes directories that are missing. Returns whether any was.
    pub(super) fn ensure_layout(&mut self) -> Result<bool, Error> {
        self.disk.share(&self.at.dir)?;
        let mut made = self.disk.ensure_dir(&self.at.sets)?;
        made |= self.disk.ensure_dir(&self.at.links)?;
        // A directory `current` becomes `.live`.
        if !self.is_dir(&self.at.current)? {
            made |= self.disk.ensure_dir(&self.at.live)?;
        }
        Ok(made)
    }

    /// Notes which directory a running Envoy watches, and whether it is another one than before.
    pub(super) fn watch(&mut self) -> Result<(), Error> {
        let found = self.disk.lstat(&self.at.live)?;
        let now = found.filter(Metadata::is_dir).map(|found| inode_of(&found));
        self.lost_watch |= self.watched.is_some() && now != self.watched;
        self.watched = now;
        Ok(())
    }

    pub(super) fn is_dir(&self, path: &Path) -> Result<bool, Error> {
        Ok(self.disk.lstat(path)?.is_some_and(|found| found.is_dir()))
    }

    /// Finds out what is there. Afterwards, everything of ours that neither `active` nor `done`
    /// leads to is gone, older sets aside.
    pub(super) fn scan(&mut self) -> Result<(), Error> {
        let doubts = self.visible.doubts();
        let before = self.visible.replace(Visible::Untrusted(doubts));
        // 1. Temporary links.
        let found = self.disk.list(&self.at.links)?.unwrap_or_default();
        let is_there = |link: &PathBuf| found.iter().any(|name| link.ends_with(name));
        self.prepared_links.retain(|(_, link)| is_there(link));
        for name in &found {
            let link = self.at.links.join(name);
            if !self
                .prepared_links
                .iter()
                .any(|(_, prepared_links)| *prepared_links == link)
            {
                self.disk.remove_all(&link)?;
            }
        }
        // 2. Sets that were not committed.
        let visible = self.numbered(&self.at.active)?;
        self.last_durable = self.numbered(&self.at.done)?;
        let names = self.disk.list(&self.at.sets)?.unwrap_or_default();
        let stem = |name: &String| number(name.strip_suffix(".sources").unwrap_or(name));
        let numbers: BTreeSet<u64> = gather(names.iter().filter_map(stem));
        let mut known = std::mem::take(&mut self.older);
        self.prepared_set = self
            .prepared_set
            .filter(|prepared_set| numbers.contains(prepared_set));
        for number in numbers {
            if Some(number) == self.prepared_set {
                continue;
            }
            if Some(number) > visible.max(self.last_durable) {
                self.remove_set(number, [])?;
            } else {
                self.older.add(number, &mut known);
            }
            self.next_set = self.next_set.max(number + 1);
        }
        let last = visible.max(self.last_durable).unwrap_or(0);
        self.next_set = self.next_set.max(last + 1);
        // 3. Links that Envoy follows.
        let Links {
            ours: links,
            foreign,
            dangling,
        } = self.links()?;
        for name in dangling {
            self.disk.unlink(&self.at.link(&name))?;
        }
        let linked = self.disk.read_link(&self.at.current)?.as_deref() == Some(Path::new(CURRENT));
        let is_dir = self.is_dir(&self.at.current)?;
        // A set that was committed and never done may be torn: not to be kept for the sake of a
        // foreign file. `adopt` makes a set done before it is active.
        self.visible = Visible::Untrusted(Untrusted {
            number: visible,
            has_foreign_files: is_dir || (linked && foreign && visible <= self.last_durable),
            ..doubts
        });
        // 4. What may be compared with.
        let active = self.visible_set(before)?;
        let right = |active: &ActiveSet| {
            active
                .files
                .keys()
                .all(|name| links.contains(name.as_str()))
        };
        let Some(active) = active.filter(|active| linked && !foreign && right(active)) else {
            return Ok(());
        };
        // 5. Links of a set that was never committed lead nowhere.
        if active.is_durable() {
            for name in links {
                let known =
                    FileName::new(&name).is_some_and(|name| active.files.contains_key(&name));
                if !known {
                    self.disk.unlink(&self.at.link(&name))?;
                }
            }
        }
        self.older.remove(active.number);
        self.visible = Visible::Trusted(active);
        Ok(())
    }

    /// Lists `.live`, if that is a directory: an interrupted takeover leaves a link.
    pub(super) fn names_in_live(&self) -> Result<Vec<String>, Error> {
        if !self.is_dir(&self.at.live)? {
            return Ok(Vec::new());
        }
        Ok(self.disk.list(&self.at.live)?.unwrap_or_default())
    }

    /// Sorts the contents of `.live`.
    pub(super) fn links(&self) -> Result<Links, Error> {
        let mut links = Links {
            ours: BTreeSet::new(),
            foreign: false,
            dangling: Vec::new(),
        };
        for name in self.names_in_live()? {
            let key = FileName::new(&name).is_some();
            let path = self.at.link(&name);
            if self.is_ours(&self.at.live, &name)? {
                links.ours.insert(name);
            } else if let Some(found) = self.disk.stat_followed(&path)? {
                links.foreign |= key && found.is_file();
            } else if self.disk.read_link(&path)?.is_some() {
                links.dangling.push(name);
            }
        }
        Ok(links)
    }

    /// Returns whether `name` in `dir` is a link into the active set.
    pub(super) fn is_ours(&self, dir: &Path, name: &str) -> Result<bool, Error> {
        let found = self.disk.read_link(&dir.join(name))?;
        Ok(found.as_deref() == Some(Path::new(&target(name))))
    }

    /// Returns the active set, if it is done, or this run published it (then it was `before`), or its
    /// hashes vouch for it. Files of it that are not what was written are owed.
    pub(super) fn visible_set(
        &self,
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
        let Some(FoundSet { files, spoiled }) = self.files_of(number, before.as_ref())? else {
            return Ok(None);
        };
        Ok(match before {
            Some(mut active) if !active.is_durable() => {
                active.files = files;
                active.spoiled.extend(spoiled);
                Some(active)
            }
            _ if visible == self.last_durable => Some(ActiveSet::durable(number, files, spoiled)),
            // It was killed before it was synced. Envoy may have read it, and may not.
            _ if spoiled.is_empty() && files.values().all(|source| source.hash.is_some()) => {
                Some(ActiveSet::unannounced(number, files))
            }
            _ => None,
        })
    }

    /// Reads the number of the set that `link` leads to.
    pub(super) fn numbered(&self, link: &Path) -> Result<Option<u64>, Error> {
        let found = self.disk.read_link(link)?;
        Ok(found.as_deref().and_then(Path::to_str).and_then(number))
    }

    /// Removes the links in `.live` for which the active set has no file. Returns their names.
    pub(super) fn unlink_strays(&self) -> Result<Vec<FileName>, Error> {
        let mut strays = Vec::new();
        for name in self.links()?.ours {
            let active = self.visible.active();
            if let Some(stray) = FileName::new(&name)
                && active.is_none_or(|active| !active.files.contains_key(&stray))
            {
                self.disk.unlink(&self.at.link(&name))?;
                strays.push(stray);
            }
        }
        Ok(strays)
    }
}
