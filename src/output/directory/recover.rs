//! What an earlier life, a failed publish, or somebody else left in the output directory. Owns:
//! taking the lock, making directories, finding out what may be trusted, clearing leftovers. Must
//! not: change what Envoy sees, but where that is torn.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::disk::{Disk, inode_of, is_open, reason};
use super::layout::{CURRENT, Layout, number, target};
use super::provenance::{self, Sources};
use super::{Active, Held, Inode, OLDER, Publisher};
use crate::error::Error;
use crate::gather;
use crate::snapshot::FileName;

/// `N.sources` takes some 200 bytes for each of a few thousand keys at most.
const SOURCES_BYTES: u64 = 4 << 20;

/// DIR, `.sets`, and the lock in it.
pub fn hold(disk: &Disk, at: &Layout) -> Result<Held, Error> {
    make_dirs(disk, &at.dir)?;
    make_dir(disk, &at.sets)?;
    let lock = disk.lock(&at.lock)?;
    let found = disk.stat(&lock, &at.lock)?;
    let sets = disk.open(&at.sets)?;
    Ok(Held {
        _lock: lock,
        inode: inode_of(&found),
        sets,
    })
}

// `path` and what is missing above it; what exists is not ours to change.
fn make_dirs(disk: &Disk, path: &Path) -> Result<(), Error> {
    if path.as_os_str().is_empty() || disk.lstat(path)?.is_some() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_dirs(disk, above)?;
    }
    make_dir(disk, path).map(drop)
}

/// A directory that everybody can enter. True if it was not as it should be.
pub fn make_dir(disk: &Disk, path: &Path) -> Result<bool, Error> {
    match disk.lstat(path)? {
        Some(found) if found.is_dir() => {
            let open = is_open(&found);
            if !open {
                disk.open_up(path)?;
            }
            return Ok(!open);
        }
        Some(_) => disk.unlink(path)?,
        None => {}
    }
    match disk.create_dir(path) {
        // Two of us start at once; the lock decides.
        Err(error) if reason(&error) == Some(ErrorKind::AlreadyExists) => Ok(true),
        result => result.map(|()| true),
    }
}

impl Publisher {
    pub(super) fn open_on(disk: Disk, dir: &Path) -> Result<Publisher, Error> {
        let at = Layout::new(dir);
        let held = hold(&disk, &at)?;
        let mut publisher = Publisher {
            disk,
            at,
            held,
            life: None,
            active: None,
            visible: None,
            whole: None,
            older: Default::default(),
            foreign: false,
            suspect: false,
            next_set: 1,
            next_link: 0,
            likely: Vec::new(),
            ahead: None,
            spare: Vec::new(),
        };
        publisher.furnish()?;
        publisher.survey()?;
        // Where that cannot be done, the next publish makes it good.
        let _ = publisher.retreat();
        Ok(publisher)
    }

    // A power loss may have torn the set that was committed and never done. Where that shows, the
    // last one that is whole is visible until there is another; nobody is told, and the next publish
    // trusts neither.
    fn retreat(&mut self) -> Result<(), Error> {
        let (Some(visible), Some(whole)) = (self.visible, self.whole) else {
            return Ok(());
        };
        if visible <= whole || self.files_of(visible)?.is_some() {
            return Ok(());
        }
        if let Some(files) = self.files_of(whole)? {
            for name in files.keys() {
                self.link_key(name)?;
            }
            let active = self.at.active.clone();
            self.put(&whole.to_string(), &active)?;
            self.visible = Some(whole);
        }
        Ok(())
    }

    /// Whether the lock we hold is the one that others would find.
    pub(super) fn is_held(&self) -> Result<bool, Error> {
        self.stands(&self.at.lock, self.held.inode)
    }

    /// Whether this very file is at `path`.
    pub(super) fn stands(&self, path: &Path, inode: Inode) -> Result<bool, Error> {
        let found = self.disk.lstat(path)?;
        Ok(found.is_some_and(|found| inode_of(&found) == inode))
    }

    /// Makes directories that are missing; true if any was.
    pub(super) fn furnish(&mut self) -> Result<bool, Error> {
        let mut made = make_dir(&self.disk, &self.at.sets)?;
        made |= make_dir(&self.disk, &self.at.links)?;
        // A directory `current` becomes `.live`.
        if !self.is_dir(&self.at.current)? {
            made |= make_dir(&self.disk, &self.at.live)?;
        }
        Ok(made)
    }

    fn is_dir(&self, path: &Path) -> Result<bool, Error> {
        Ok(self.disk.lstat(path)?.is_some_and(|found| found.is_dir()))
    }

    /// Finds out what is there. Afterwards, everything of ours that neither `active` nor `done`
    /// leads to is gone, older sets aside.
    pub(super) fn survey(&mut self) -> Result<(), Error> {
        let before = self.active.take();
        // 1. Temporary links.
        let found = self.disk.list(&self.at.links)?.unwrap_or_default();
        let is_there = |link: &PathBuf| found.iter().any(|name| link.ends_with(name));
        self.spare.retain(|(_, link)| is_there(link));
        for name in &found {
            let link = self.at.links.join(name);
            if !self.spare.iter().any(|(_, spare)| *spare == link) {
                self.disk.remove_all(&link)?;
            }
        }
        // 2. Sets that were not committed.
        self.visible = self.numbered(&self.at.active)?;
        self.whole = self.numbered(&self.at.done)?;
        let names = self.disk.list(&self.at.sets)?.unwrap_or_default();
        let stem = |name: &String| number(name.strip_suffix(".sources").unwrap_or(name));
        let numbers: BTreeSet<u64> = gather(names.iter().filter_map(stem));
        let mut known = std::mem::take(&mut self.older);
        self.ahead = self.ahead.filter(|ahead| numbers.contains(ahead));
        for number in numbers {
            if Some(number) == self.ahead {
                continue;
            }
            if Some(number) > self.visible.max(self.whole) {
                self.remove_set(number, &[])?;
            } else {
                let names = known.remove(&number).unwrap_or_default();
                self.older.insert(number, names);
            }
            self.next_set = self.next_set.max(number + 1);
        }
        let last = self.visible.max(self.whole).unwrap_or(0);
        self.next_set = self.next_set.max(last + 1);
        // Every failed publish may have left one more. What cannot go now, a publish will report.
        let _ = self.sweep(OLDER);
        // 3. Links that Envoy follows.
        let (links, foreign) = self.links()?;
        let linked = self.disk.read_link(&self.at.current)?.as_deref() == Some(Path::new(CURRENT));
        let is_dir = self.is_dir(&self.at.current)?;
        // A set that was committed and never done may be torn: not to be kept for the sake of a
        // foreign file. `adopt` makes a set done before it is active.
        self.foreign = is_dir || (linked && foreign && self.visible <= self.whole);
        // 4. What may be compared with.
        let active = match before {
            Some(active) if !active.done && self.visible == Some(active.number) => {
                self.files_of(active.number)?.map(|_| active)
            }
            _ => self.done_set()?,
        };
        let right = |active: &Active| {
            active
                .files
                .keys()
                .all(|name| links.contains(name.as_str()))
        };
        let Some(active) = active.filter(|active| linked && !foreign && right(active)) else {
            return Ok(());
        };
        // 5. Links of a set that was never committed lead nowhere.
        if active.done {
            for name in links {
                let known =
                    FileName::new(&name).is_some_and(|name| active.files.contains_key(&name));
                if !known {
                    self.disk.unlink(&self.at.link(&name))?;
                }
            }
        }
        self.older.remove(&active.number);
        self.active = Some(active);
        Ok(())
    }

    /// What is in `.live`, if that is a directory: a migration cut short leaves a link.
    pub(super) fn names_in_live(&self) -> Result<Vec<String>, Error> {
        if !self.is_dir(&self.at.live)? {
            return Ok(Vec::new());
        }
        Ok(self.disk.list(&self.at.live)?.unwrap_or_default())
    }

    // The keys that our links stand for, and whether files stand where links should.
    fn links(&self) -> Result<(BTreeSet<String>, bool), Error> {
        let mut links = BTreeSet::new();
        let mut foreign = false;
        for name in self.names_in_live()? {
            if FileName::new(&name).is_none() {
                continue;
            }
            if self.is_ours(&self.at.live, &name)? {
                links.insert(name);
            } else if let Some(file) = self.disk.follow(&self.at.link(&name))? {
                foreign |= self.disk.stat(&file, &self.at.link(&name))?.is_file();
            }
        }
        Ok((links, foreign))
    }

    /// Whether `name` in `dir` is a link into the active set.
    pub(super) fn is_ours(&self, dir: &Path, name: &str) -> Result<bool, Error> {
        let found = self.disk.read_link(&dir.join(name))?;
        Ok(found.as_deref() == Some(Path::new(&target(name))))
    }

    // The active set, if it is done and nothing of it is missing.
    fn done_set(&self) -> Result<Option<Active>, Error> {
        let Some(number) = self.visible.filter(|_| self.visible == self.whole) else {
            return Ok(None);
        };
        let files = self.files_of(number)?;
        Ok(files.map(|files| Active {
            number,
            files,
            done: true,
            unsynced: None,
            owed: BTreeSet::new(),
            current_owed: false,
        }))
    }

    // What is in a set, if nothing of it is missing.
    fn files_of(&self, number: u64) -> Result<Option<Sources>, Error> {
        let Some(files) = self.sources_of(number)? else {
            return Ok(None);
        };
        let dir = self.at.set(number);
        if !self.is_dir(&dir)? {
            return Ok(None);
        }
        for (name, source) in &files {
            match self.disk.lstat(&dir.join(name.as_str()))? {
                Some(found) if found.is_file() && found.len() == source.size && is_open(&found) => {
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(files))
    }

    /// `N.sources`, if it is as we write it.
    pub(super) fn sources_of(&self, number: u64) -> Result<Option<Sources>, Error> {
        let path = self.at.sources(number);
        let Some(found) = self.disk.lstat(&path)? else {
            return Ok(None);
        };
        if !found.is_file() || found.len() > SOURCES_BYTES {
            return Ok(None);
        }
        let text = self.content(&path, found.len())?;
        Ok(text.and_then(|text| provenance::decode(&text)))
    }

    /// The set that a link names.
    pub(super) fn numbered(&self, link: &Path) -> Result<Option<u64>, Error> {
        let found = self.disk.read_link(link)?;
        Ok(found.as_deref().and_then(Path::to_str).and_then(number))
    }

    /// Removes the links in `.live` that the active set has nothing for; gives their names.
    pub(super) fn unlink_strays(&self) -> Result<Vec<FileName>, Error> {
        let mut strays = Vec::new();
        for name in self.links()?.0 {
            let active = self.active.as_ref();
            if let Some(stray) = FileName::new(&name)
                && active.is_none_or(|active| !active.files.contains_key(&stray))
            {
                self.disk.unlink(&self.at.link(&name))?;
                strays.push(stray);
            }
        }
        Ok(strays)
    }

    /// Removes a set; `names` are the files known to be in it.
    pub(super) fn remove_set(&self, number: u64, names: &[FileName]) -> Result<(), Error> {
        let dir = self.at.set(number);
        // What a foreign link leads to is not ours.
        if !self.is_dir(&dir)? {
            self.disk.unlink(&dir)?;
            return self.disk.unlink(&self.at.sources(number));
        }
        for name in names {
            self.disk.unlink(&dir.join(name.as_str()))?;
        }
        match self.disk.remove_dir(&dir) {
            Err(error) if reason(&error) == Some(ErrorKind::DirectoryNotEmpty) => {
                for name in self.disk.list(&dir)?.unwrap_or_default() {
                    self.disk.remove_all(&dir.join(name))?;
                }
                self.disk.remove_dir(&dir)?;
            }
            result => result?,
        }
        self.disk.unlink(&self.at.sources(number))
    }
}
