//! Puts a set of files where Envoy finds it: staged aside, switched by one rename, then announced.
//! Owns: the output directory, everything in it (`directory/layout.rs` draws it), its lock. Must not:
//! decide what a set holds, look into a file, log, wait, or write anywhere else.
//!
//! The order is the promise. Whoever opens files through `current/`, at any moment, gets them out of
//! one set: all links lead through `.sets/active`, and one rename moves that. A set that was written
//! to its end and then synced is named by `.sets/done`; no other is ever carried over, or announced
//! to a running Envoy before it is rewritten.

mod layout;
mod migrate;
mod provenance;
mod publish;
mod recover;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::output::disk::{Fs, Inode, hash_of, stamp_of};
use crate::output::heartbeat::Heartbeat;
use crate::snapshot::{Bytes, File, FileName, Snapshot};
use layout::Layout;
use provenance::{Source, Sources};
pub use standing::Standing;

/// Sets kept beside the active one: an Envoy may still be reading the last two.
const OLDER: usize = 3;

/// No longer text is held for what it is compared with alone: the next one may need the memory.
const HELD: usize = 64 << 10;

/// The only writer of an output directory.
#[derive(Debug)]
pub struct OutputDirectory {
    disk: Fs,
    at: Layout,
    held: Held,
    heartbeat: Heartbeat,
    /// What `active` names, as far as it may be compared with; else the next publish writes and
    /// announces everything.
    active: Option<Active>,
    /// Where the link `active` leads, trusted or not.
    visible: Option<u64>,
    /// Where the link `done` leads.
    whole: Option<u64>,
    /// The other sets on disk, and what is known to be in them.
    older: BTreeMap<u64, Vec<FileName>>,
    /// Files stand where our links should: they become a set before anything is published.
    foreign: bool,
    /// The set that is visible gave way to an older one, and Envoy was not told: nothing may be
    /// compared with it.
    retreated: bool,
    /// The directory `.live` that an Envoy watches, and whether it has lost one.
    watched: Option<Inode>,
    lost: bool,
    /// An error left things undone, so look again before the next publish.
    suspect: bool,
    next_set: u64,
    next_link: u64,
    /// The files that the last publish changed: the next one may well change the same.
    last_changed: Vec<FileName>,
    /// Made ahead for the next publish: its set's empty directory, and links after their targets.
    prepared_set: Option<u64>,
    prepared_links: Vec<(String, PathBuf)>,
}

/// The lock, which file it is, and the directory to sync.
#[derive(Debug)]
struct Held {
    _lock: fs::File,
    inode: Inode,
    sets: fs::File,
}

/// A set that this life has written, or found whole.
#[derive(Debug)]
struct Active {
    number: u64,
    files: Sources,
    /// All of it is on stable storage: its files may be carried over.
    done: bool,
    /// This life has written and announced it, and has yet to sync these files of it. They may be
    /// carried over too, and are synced where they stand then.
    unsynced: Option<BTreeSet<FileName>>,
    /// Committed, but not announced yet; or not what was written any more.
    owed: BTreeSet<FileName>,
    /// `current` was not announced yet either.
    current_owed: bool,
}

/// What a publish did.
#[derive(Debug)]
pub struct Published {
    /// The set's number.
    pub number: u64,
    /// Files whose content is new to Envoy, by name; none when only their origin changed.
    pub changed: Vec<FileName>,
    /// Files that are gone.
    pub removed: Vec<FileName>,
    /// When the set became visible.
    pub committed: Instant,
    /// Old sets could not be removed. The set is published all the same, and the next call tries
    /// again.
    pub unswept: Option<Error>,
}

/// What is to be done.
struct Plan {
    /// To be written and announced, by name.
    changed: Vec<FileName>,
    removed: Vec<FileName>,
    /// Whether `current` is announced: not when the same contents only came from elsewhere.
    current: bool,
}

impl OutputDirectory {
    /// Takes over `dir`: makes it and what is missing of the layout's directories, takes the lock
    /// for life, removes what a killed publish left. Envoy sees none of it. `Error::Held` if
    /// another publisher is there, `Error::Disk` for the rest.
    pub fn open(dir: &Path) -> Result<OutputDirectory, Error> {
        OutputDirectory::open_on(Fs::default(), dir)
    }

    /// The last set that was published to its end, by this life or an earlier one, read from disk;
    /// files that were there before any of ours have an origin without a name. `None` if there is
    /// no such set, or another program has written to `current` since.
    pub fn last_good(&self) -> Result<Option<Snapshot>, Error> {
        if self.foreign {
            return Ok(None);
        }
        // A kill may have come between commit and sync. What its files' hashes vouch for is newer
        // than the set that is done, and is what Envoy sees.
        if self.visible > self.whole
            && let Some(number) = self.visible
            && let Some(set) = self.read_set(number)?
        {
            return Ok(Some(set));
        }
        match self.whole {
            Some(number) => self.read_set(number),
            None => Ok(None),
        }
    }

    // The files of a set, if they are what was written.
    fn read_set(&self, number: u64) -> Result<Option<Snapshot>, Error> {
        let Some(files) = self.sources_of(number)? else {
            return Ok(None);
        };
        let mut set = Snapshot::new();
        for (name, source) in files {
            let Some(bytes) = self.intact(number, &name, &source)? else {
                return Ok(None);
            };
            let origin = source.origin;
            set.insert(name, File { bytes, origin });
        }
        Ok(Some(set))
    }

    // A file of a set, if it is what was written.
    fn intact(
        &self,
        number: u64,
        name: &FileName,
        source: &Source,
    ) -> Result<Option<Bytes>, Error> {
        let path = self.at.set(number).join(name.as_str());
        let fresh = self.active.as_ref();
        let fresh = fresh.is_some_and(|active| active.number == number && active.is_intact());
        let hash = source.hash;
        // Without a hash, only having been synced tells that all of it is there.
        let known = hash.is_some() || fresh || Some(number) == self.whole;
        let bytes = self.content(&path, source.size)?;
        Ok(bytes.filter(|bytes| known && hash.is_none_or(|hash| hash == hash_of(bytes))))
    }

    /// As [`OutputDirectory::publish_now`], and synced.
    pub fn publish(&mut self, desired: &Snapshot) -> Result<Option<Published>, Error> {
        let published = self.publish_now(desired)?;
        self.make_durable()?;
        Ok(published)
    }

    /// Makes `desired` what Envoy finds, in one step; the only other outcome is what was there
    /// before. `None`: that is so already, and nothing was written. After an error the same call
    /// may be made again at any time: it finds out what is left to do.
    ///
    /// 1. Compare with the active set, on disk; stop if nothing differs.
    /// 2. Write the new set aside: unchanged files as hard links, if the active set is done.
    /// 3. Link new keys (dangling yet) and make all temporary links: only renames follow.
    /// 4. Commit: rename onto `active`.
    /// 5. Announce: rename a fresh link over each changed key, then `current`.
    /// 6. Unlink keys that are gone.
    /// 7. Sweep old sets.
    /// 8. Later, in [`OutputDirectory::settle`]: sync what is new, then rename onto `done`.
    /// 9. Later still, in [`OutputDirectory::prepare`]: make what the next one would make in 2 and 3.
    pub fn publish_now(&mut self, desired: &Snapshot) -> Result<Option<Published>, Error> {
        if self.suspect || !self.is_held()? {
            self.check()?;
        }
        self.suspect = true;
        if self.foreign {
            self.adopt()?;
        }
        let published = match self.compare(desired) {
            Some(plan) => Some(self.replace(desired, plan)?),
            None => None,
        };
        self.suspect = published
            .as_ref()
            .is_some_and(|published| published.unswept.is_some());
        Ok(published)
    }

    /// Looks whether the layout is as it was left. Makes missing directories again (and takes the
    /// lock again, if that went with them); what else is missing or foreign, the next publish
    /// makes again, so call it after this. True if there was anything of the kind.
    pub fn check(&mut self) -> Result<bool, Error> {
        // Where it cannot be synced, it is still to be seen whether it is all there.
        let _ = self.make_durable();
        self.suspect = true;
        let is_intact = |active: &Option<Active>| active.as_ref().is_some_and(Active::is_intact);
        let was_intact = is_intact(&self.active);
        let owed = self.active.as_ref().map(|active| active.owed.clone());
        let held = self.is_held()?;
        if !held {
            self.held = recover::hold(&self.disk, &self.at)?;
        }
        self.heartbeat.check(&self.disk)?;
        let made = self.ensure_layout()?;
        self.scan()?;
        self.watch()?;
        self.suspect = false;
        let owes = |active: &Active| !active.owed.is_subset(&owed.unwrap_or_default());
        let spoiled = self.active.as_ref().is_some_and(owes);
        Ok(!held || made || spoiled || (was_intact && !is_intact(&self.active)))
    }

    /// Whether the directory that a running Envoy watches is gone since the last call: it hears of
    /// no change any more.
    pub fn has_lost_watch(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Writes for probes that the loop has turned, and which state it is in.
    pub fn beat(&mut self, state: &str, limit: Duration) -> Result<(), Error> {
        self.heartbeat.beat(&self.disk, state, limit)
    }

    // Step 1.
    fn compare(&mut self, desired: &Snapshot) -> Option<Plan> {
        let Some(active) = &mut self.active else {
            return Some(Plan {
                changed: desired.keys().cloned().collect(),
                removed: Vec::new(),
                current: true,
            });
        };
        let dir = self.at.set(active.number);
        let mut changed = Vec::new();
        let mut moved = false;
        for (name, file) in desired {
            if let Some(source) = active.files.get_mut(name)
                && !active.owed.contains(name)
                && source.is_same(&self.disk, &dir.join(name.as_str()), &file.bytes)
            {
                moved |= source.origin.object != file.origin.object;
            } else {
                changed.push(name.clone());
            }
        }
        let gone = |name: &&FileName| !desired.contains_key(*name);
        let removed: Vec<_> = active.files.keys().filter(gone).cloned().collect();
        let current = active.current_owed || !changed.is_empty() || !removed.is_empty();
        (current || moved || !active.is_intact()).then_some(Plan {
            changed,
            removed,
            current,
        })
    }

    // Step 7, or making room. What `active` or `done` names is never removed.
    fn sweep(&mut self, keep: usize) -> Result<(), Error> {
        let mut numbers: Vec<_> = self.older.keys().copied().collect();
        numbers.truncate(numbers.len().saturating_sub(keep));
        for number in numbers {
            if Some(number) != self.visible && Some(number) != self.whole {
                self.remove_set(number, self.older.get(&number).map_or(&[], Vec::as_slice))?;
                self.older.remove(&number);
            }
        }
        Ok(())
    }

    // Exactly `size` bytes, in one allocation.
    fn content(&self, path: &Path, size: u64) -> Result<Option<Bytes>, Error> {
        match self.disk.lstat(path)? {
            Some(found) if found.is_file() && found.len() == size => {}
            _ => return Ok(None),
        }
        let mut bytes: Bytes = std::iter::repeat_n(0, size as usize).collect();
        let whole = match Rc::get_mut(&mut bytes) {
            Some(into) => self.disk.read_whole(path, into)?,
            None => false,
        };
        Ok(whole.then_some(bytes))
    }
}

impl Source {
    // Whether the file is exactly `bytes`. It is read, unless it is what it was when it was read.
    fn is_same(&mut self, disk: &Fs, path: &Path, bytes: &Bytes) -> bool {
        // Before it is read: what is written meanwhile shows the next time.
        let found = disk.lstat(path).ok().flatten();
        let stamp = found.as_ref().map(stamp_of);
        if let (Some(now), Some((read, then))) = (&stamp, &self.seen)
            && now == then
            && Rc::ptr_eq(read, bytes)
        {
            return true;
        }
        let same = disk.same(path, bytes);
        if same && self.hash.is_none() {
            self.hash = Some(hash_of(bytes));
        }
        // What nobody else holds, weights were merged into: it is made anew each time.
        let kept = same && bytes.len() <= HELD && Rc::strong_count(bytes) > 1;
        self.seen = stamp.filter(|_| kept).map(|stamp| (bytes.clone(), stamp));
        same
    }
}

impl Active {
    /// Whether its files can be relied on, as long as the machine runs.
    fn is_intact(&self) -> bool {
        self.done || self.unsynced.is_some()
    }
}
