//! Reads, checks and removes one set on disk. Must not: know which set is active, but for what is
//! known of it.

use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;

use super::OutputDirectory;
use super::active::ActiveSet;
use super::on_disk::OnDisk;
use super::provenance::{self, LONGEST_LINE, Source, Sources};
use crate::error::Error;
use crate::output::disk::{full_stamp_of, hash_of, inode_of, is_world_readable, reason};
use crate::output::reads::Recalled;
use crate::output::step::{SetFiles, Stage};
use crate::snapshot::{Bytes, File, FileName, Snapshot};
use crate::sorted::SortedSet;

/// A set as it is found.
pub struct FoundSet {
    pub files: Sources,
    /// The files that are not what was written.
    pub spoiled: SortedSet<FileName>,
}

impl FoundSet {
    pub fn is_whole(&self) -> bool {
        self.spoiled.is_empty()
    }
}

impl OutputDirectory {
    /// Reads the target of the last set that was published to its end, by this run or an earlier
    /// one. Files that were there before any of ours have an origin without a name. Returns `None`
    /// if there is no such set, or another program has written to `current` since.
    pub fn last_good(&self) -> Result<Option<Snapshot>, Error> {
        if self.inventory.visible.has_foreign_files() {
            return Ok(None);
        }
        // A kill may have come between commit and sync. What its files' hashes vouch for is newer
        // than the set that is done, and is what Envoy sees.
        if self.inventory.is_past_durable()
            && let Some(number) = self.inventory.visible.number()
            && let Some(set) = self.read_set(number)?
        {
            return Ok(Some(set));
        }
        match self.inventory.last_durable {
            Some(number) => self.read_set(number),
            None => Ok(None),
        }
    }

    /// Reads a file of the visible set, all of it, if it is what was written.
    pub fn visible_file(&self, name: &FileName) -> Result<Option<File>, Error> {
        let Some(active) = self.inventory.visible.active() else {
            return Ok(None);
        };
        let Some(source) = active.files.get(name) else {
            return Ok(None);
        };
        let bytes = self.intact(active.number, name, source)?;
        let origin = source.origin.clone();
        Ok(bytes.map(|bytes| File { bytes, origin }))
    }

    /// Returns whether the visible set is of this stage of a sequence.
    pub fn is_at(&self, stage: Stage) -> bool {
        let files = self
            .inventory
            .visible
            .active()
            .map(|active| active.files.values());
        let mut marks = files
            .into_iter()
            .flatten()
            .filter_map(|it| it.mark.as_ref());
        marks.any(|mark| mark.stage == stage)
    }

    /// Returns what the visible set holds beyond its target.
    #[cfg(test)]
    pub fn visible_transient(&self) -> Option<crate::output::step::Transient> {
        provenance::transient(&self.inventory.visible.active()?.files)
    }

    /// Reads all that is in a set, if it is what was written.
    pub fn set_files(&self, number: u64) -> Result<Option<SetFiles>, Error> {
        let Some(sources) = self.on_disk().sources_of(number)? else {
            return Ok(None);
        };
        let mut files = Snapshot::new();
        for (name, source) in &sources {
            let Some(bytes) = self.intact(number, name, source)? else {
                return Ok(None);
            };
            let origin = source.origin.clone();
            files.insert(name.clone(), File { bytes, origin });
        }
        let transient = provenance::transient(&sources);
        Ok(Some(SetFiles { files, transient }))
    }

    /// Reads the target of a set, if its files are what was written.
    pub fn read_set(&self, number: u64) -> Result<Option<Snapshot>, Error> {
        let Some(files) = self.on_disk().sources_of(number)? else {
            return Ok(None);
        };
        let mut set = Snapshot::new();
        for (name, source) in files {
            if source.is_extra() {
                continue;
            }
            let bytes = self.intact(number, &name, &source)?;
            let Some(bytes) = bytes.and_then(|bytes| source.cut(bytes)) else {
                return Ok(None);
            };
            let origin = source.origin;
            set.insert(name, File { bytes, origin });
        }
        Ok(Some(set))
    }

    /// Reads a file of a set, if it is what was written.
    pub(super) fn intact(
        &self,
        number: u64,
        name: &FileName,
        source: &Source,
    ) -> Result<Option<Bytes>, Error> {
        let path = self.at.set(number).join(name.as_str());
        let fresh = self.inventory.visible.active();
        let fresh = fresh.is_some_and(|active| active.number == number && active.is_announced());
        let hash = source.hash;
        // Without a hash, only having been synced tells that all of it is there.
        let known = hash.is_some() || fresh || self.inventory.is_durable(number);
        let bytes = self.on_disk().content(&path, source.size)?;
        Ok(bytes.filter(|bytes| known && hash.is_none_or(|hash| hash == hash_of(bytes))))
    }
}

impl OnDisk<'_> {
    /// Finds out what is in a set. A file that was checked before is read again only if it has
    /// changed.
    pub fn files_of(
        &self,
        number: u64,
        before: Option<&ActiveSet>,
    ) -> Result<Option<FoundSet>, Error> {
        let Some(mut files) = self.sources_of(number)? else {
            return Ok(None);
        };
        let dir = self.at.set(number);
        if !self.is_dir(&dir)? {
            return Ok(None);
        }
        let before = before.filter(|active| active.number == number);
        let mut spoiled = SortedSet::new();
        for (name, source) in files.iter_mut() {
            if let Some(known) = before.and_then(|active| active.files.get(name)) {
                source.recall(known);
            }
            if !self.is_as_written(&dir.join(name.as_str()), source)? {
                spoiled.insert(name.clone());
            }
        }
        Ok(Some(FoundSet { files, spoiled }))
    }

    /// Returns whether the file has the size, the mode and the bytes that were written.
    /// Relabelling, fsGroup and our own links change its ctime and no byte.
    fn is_as_written(&self, path: &Path, source: &mut Source) -> Result<bool, Error> {
        let found = match self.disk.lstat(path)? {
            Some(found)
                if found.is_file() && found.len() == source.size && is_world_readable(&found) =>
            {
                found
            }
            _ => return Ok(false),
        };
        source.inode = Some(inode_of(&found));
        let now = full_stamp_of(&found);
        let recalled = self.reads.and_then(|reads| reads.recall(&found));
        let same = match recalled {
            Some(recalled) => matches!(recalled, Recalled::Content(_)),
            None if source.intact == Some(now) => true,
            None => match source.hash {
                Some(hash) => self.disk.hash(path) == Some(hash),
                None => true,
            },
        };
        source.intact = same.then_some(now);
        Ok(same)
    }

    /// Reads `N.sources`, if it is as we write it.
    pub fn sources_of(&self, number: u64) -> Result<Option<Sources>, Error> {
        let path = self.at.sources(number);
        let Some(found) = self.disk.lstat(&path)? else {
            return Ok(None);
        };
        // As long as its set's files can make it, however many they are: what is longer is not
        // ours, and may not fit in memory.
        let files = self.disk.list(&self.at.set(number))?.unwrap_or_default();
        if !found.is_file() || found.len() > LONGEST_LINE * (1 + files.len() as u64) {
            return Ok(None);
        }
        let text = self.content(&path, found.len())?;
        Ok(text.and_then(|text| provenance::decode(&text)))
    }

    /// Reads a file of exactly `size` bytes, in one allocation. A file whose readers are watched is
    /// known already.
    pub fn content(&self, path: &Path, size: u64) -> Result<Option<Bytes>, Error> {
        let found = match self.disk.lstat(path)? {
            Some(found) if found.is_file() && found.len() == size => found,
            _ => return Ok(None),
        };
        match self.reads.and_then(|reads| reads.recall(&found)) {
            Some(Recalled::Content(bytes)) => return Ok(Some(bytes.clone())),
            Some(Recalled::Edited) => return Ok(None),
            None => {}
        }
        let mut bytes: Bytes = std::iter::repeat_n(0, size as usize).collect();
        let whole = match Rc::get_mut(&mut bytes) {
            Some(into) => self.disk.read_whole(path, into)?,
            None => false,
        };
        Ok(whole.then_some(bytes))
    }

    /// Removes a set; `names` are the files known to be in it.
    pub fn remove_set<'n>(
        &self,
        number: u64,
        names: impl IntoIterator<Item = &'n FileName>,
    ) -> Result<(), Error> {
        let dir = self.at.set(number);
        // What a foreign link leads to is not ours.
        if !self.is_dir(&dir)? {
            self.disk.unlink(&dir)?;
            return self.disk.unlink(&self.at.sources(number));
        }
        for name in names {
            self.disk.remove_all(&dir.join(name.as_str()))?;
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
