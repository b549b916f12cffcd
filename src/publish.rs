//! Puts a set of files where Envoy finds it: staged aside, switched by one rename, then announced.
//! Owns: the output directory, everything in it (`publish/layout.rs` draws it), its lock. Must not:
//! decide what a set holds, look into a file, log, wait, or write anywhere else.
//!
//! The order is the promise. Whoever opens files through `current/`, at any moment, gets them out of
//! one set: all links lead through `.sets/active`, and one rename moves that. A set that was written
//! to its end and then synced is named by `.sets/done`; no other is ever carried over, or announced
//! to a running Envoy before it is rewritten.

mod adopt;
mod disk;
mod layout;
mod sources;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use crate::error::Error;
use crate::resource::{Bytes, File, FileName, FileSet};
use disk::{Disk, failed, reason};
use layout::{CURRENT, Layout, rank, target};
use sources::{Source, Sources};

/// Sets kept beside the active one: an Envoy may still be reading the last two.
const OLDER: usize = 3;
/// New files that stay open until they are synced; beyond that each is opened again.
const OPEN: usize = 16;

/// The only writer of an output directory.
#[derive(Debug)]
pub struct Publisher {
    disk: Disk,
    at: Layout,
    held: Held,
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
    /// An error left things undone, so look again before the next publish.
    suspect: bool,
    next_set: u64,
    next_link: u64,
}

/// The lock, which file it is, and the directory to sync.
#[derive(Debug)]
struct Held {
    _lock: fs::File,
    inode: (u64, u64),
    sets: fs::File,
}

/// A set that this life has written, or found whole.
#[derive(Debug)]
struct Active {
    number: u64,
    files: Sources,
    /// All of it is on stable storage: its files may be carried over.
    done: bool,
    /// Committed, but not announced.
    owed: BTreeSet<FileName>,
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
}

/// What a publish has made so far.
#[derive(Default)]
struct Staged {
    number: u64,
    files: Sources,
    /// To be synced.
    written: Vec<(PathBuf, Option<fs::File>)>,
    /// Links made for new keys.
    links: Vec<PathBuf>,
    /// Temporary links and what each replaces: `active`, the changed keys, `current`, `done`.
    renames: VecDeque<(PathBuf, PathBuf)>,
}

impl Publisher {
    /// Takes over `dir`: makes it and what is missing of the layout's directories, takes the lock
    /// for life, removes what a killed publish left. Envoy sees none of it. `Error::Held` if
    /// another publisher is there, `Error::Disk` for the rest.
    pub fn open(dir: &Path) -> Result<Publisher, Error> {
        Publisher::open_on(Disk::default(), dir)
    }

    /// The last set that was published to its end, by this life or an earlier one, read from disk;
    /// files that were there before any of ours have an origin without a name. `None` if there is
    /// no such set, or another program has written to `current` since.
    pub fn whole_set(&self) -> Result<Option<FileSet>, Error> {
        let Some(number) = self.whole.filter(|_| !self.foreign) else {
            return Ok(None);
        };
        let Some(files) = self.sources_of(number)? else {
            return Ok(None);
        };
        let dir = self.at.set(number);
        let mut set = FileSet::new();
        for (name, Source { origin, size }) in files {
            let Some(bytes) = self.content(&dir.join(name.as_str()), size)? else {
                return Ok(None);
            };
            set.insert(name, File { bytes, origin });
        }
        Ok(Some(set))
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
    /// 7. Sync what is new, then rename onto `done`.
    /// 8. Sweep old sets.
    pub fn publish(&mut self, desired: &FileSet) -> Result<Option<Published>, Error> {
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
        self.suspect = true;
        let was_done = self.active.as_ref().is_some_and(|active| active.done);
        let held = self.is_held()?;
        if !held {
            self.held = survey::hold(&self.disk, &self.at)?;
        }
        let made = self.furnish()?;
        self.survey()?;
        self.suspect = false;
        let is_done = self.active.as_ref().is_some_and(|active| active.done);
        Ok(!held || made || (was_done && !is_done))
    }

    // Step 1.
    fn compare(&self, desired: &FileSet) -> Option<Plan> {
        let Some(active) = &self.active else {
            let changed = desired.keys().cloned().collect();
            let removed = Vec::new();
            return Some(Plan { changed, removed });
        };
        let dir = self.at.set(active.number);
        let mut changed = Vec::new();
        let mut moved = false;
        for (name, file) in desired {
            match active.files.get(name) {
                Some(source)
                    if !active.owed.contains(name)
                        && self.disk.same(&dir.join(name.as_str()), &file.bytes) =>
                {
                    moved |= source.origin.object != file.origin.object;
                }
                _ => changed.push(name.clone()),
            }
        }
        let gone = |name: &&FileName| !desired.contains_key(*name);
        let removed: Vec<_> = active.files.keys().filter(gone).cloned().collect();
        let differs = moved || !active.done || !changed.is_empty() || !removed.is_empty();
        differs.then_some(Plan { changed, removed })
    }

    // Steps 2 to 8.
    fn replace(&mut self, desired: &FileSet, plan: Plan) -> Result<Published, Error> {
        let mut staged = match self.commit(desired, &plan) {
            Err(error) if is_full(&error) => {
                self.sweep(0)?;
                self.commit(desired, &plan)?
            }
            result => result?,
        };
        let committed = Instant::now();
        let (number, files) = (staged.number, std::mem::take(&mut staged.files));
        // What can be carried over from a set is known once it is done, not before.
        let old = self.active.replace(Active {
            number,
            files,
            done: false,
            owed: plan.changed.iter().cloned().collect(),
        });
        let trusted = old.as_ref().is_some_and(|old| old.done);
        if let Some(old) = old {
            self.older
                .insert(old.number, old.files.into_keys().collect());
        }
        self.visible = Some(number);

        if let Err(error) = self.announce(&plan, trusted, &mut staged) {
            self.unlink_all(&staged);
            return Err(error);
        }

        // 8.
        let unswept = self.sweep(OLDER).err();
        let Plan { changed, removed } = plan;
        Ok(Published {
            number,
            changed,
            removed,
            committed,
            unswept,
        })
    }

    // Steps 2 to 4, or nothing.
    fn commit(&mut self, desired: &FileSet, plan: &Plan) -> Result<Staged, Error> {
        let mut staged = Staged {
            number: self.next_set,
            ..Staged::default()
        };
        self.next_set += 1;
        let committed = self
            .stage(desired, plan, &mut staged)
            .and_then(|()| self.step(&mut staged));
        if let Err(error) = committed {
            self.undo(&staged);
            return Err(error);
        }
        Ok(staged)
    }

    // Steps 2 and 3.
    fn stage(&mut self, desired: &FileSet, plan: &Plan, staged: &mut Staged) -> Result<(), Error> {
        // 2. A copy is made where linking fails: of the desired bytes, which are the same.
        let dir = self.at.set(staged.number);
        let done = self.active.as_ref().filter(|active| active.done);
        let old = done.map(|active| self.at.set(active.number));
        self.disk.create_dir(&dir)?;
        for (name, File { bytes, origin }) in desired {
            let path = dir.join(name.as_str());
            let kept = old
                .as_ref()
                .filter(|_| plan.changed.binary_search(name).is_err());
            let linked =
                kept.is_some_and(|old| self.disk.link(&old.join(name.as_str()), &path).is_ok());
            if !linked {
                self.write(staged, path, bytes)?;
            }
            let (origin, size) = (origin.clone(), bytes.len() as u64);
            staged.files.insert(name.clone(), Source { origin, size });
        }
        self.write_sources(staged)?;

        // 3.
        for name in &plan.changed {
            let known = self
                .active
                .as_ref()
                .is_some_and(|old| old.files.contains_key(name));
            if known {
                continue;
            }
            let link = self.at.link(name.as_str());
            match self.disk.symlink(&target(name.as_str()), &link) {
                Ok(()) => staged.links.push(link),
                // Ours, or foreign and replaced in step 5.
                Err(error) if reason(&error) == Some(ErrorKind::AlreadyExists) => {}
                Err(error) => return Err(error),
            }
        }
        let number = staged.number.to_string();
        self.plan_rename(staged, &number, self.at.active.clone())?;
        for name in ordered(&plan.changed) {
            let onto = self.at.link(name.as_str());
            self.plan_rename(staged, &target(name.as_str()), onto)?;
        }
        self.plan_rename(staged, CURRENT, self.at.current.clone())?;
        self.plan_rename(staged, &number, self.at.done.clone())
    }

    fn write(&self, staged: &mut Staged, path: PathBuf, bytes: &[u8]) -> Result<(), Error> {
        let file = self.disk.create(&path)?;
        self.disk.write(&file, &path, bytes)?;
        let open = (staged.written.len() < OPEN).then_some(file);
        staged.written.push((path, open));
        Ok(())
    }

    fn write_sources(&self, staged: &mut Staged) -> Result<(), Error> {
        let path = self.at.sources(staged.number);
        match sources::encode(&staged.files) {
            Ok(text) => self.write(staged, path, &text),
            Err(error) => Err(failed("write", &path, error.into())),
        }
    }

    fn plan_rename(
        &mut self,
        staged: &mut Staged,
        target: &str,
        onto: PathBuf,
    ) -> Result<(), Error> {
        let link = self.temporary(target)?;
        staged.renames.push_back((link, onto));
        Ok(())
    }

    fn temporary(&mut self, target: &str) -> Result<PathBuf, Error> {
        self.next_link += 1;
        let link = self.at.links.join(self.next_link.to_string());
        self.disk.symlink(target, &link)?;
        Ok(link)
    }

    // The next of the renames.
    fn step(&self, staged: &mut Staged) -> Result<(), Error> {
        if let Some((link, onto)) = staged.renames.front() {
            self.disk.rename(link, onto)?;
            staged.renames.pop_front();
        }
        Ok(())
    }

    // Takes back what was staged, as far as the disk lets us; the next survey does the rest.
    fn undo(&self, staged: &Staged) {
        self.unlink_all(staged);
        for link in &staged.links {
            let _ = self.disk.unlink(link);
        }
        // A rename that failed may have happened, on a network's disk.
        if let Ok(visible) = self.numbered(&self.at.active)
            && visible != Some(staged.number)
        {
            let names: Vec<_> = staged.files.keys().cloned().collect();
            let _ = self.remove_set(staged.number, &names);
        }
    }

    // The temporary links that were not used.
    fn unlink_all(&self, staged: &Staged) {
        for (link, _) in &staged.renames {
            let _ = self.disk.unlink(link);
        }
    }

    // Steps 5 to 7.
    fn announce(&mut self, plan: &Plan, trusted: bool, staged: &mut Staged) -> Result<(), Error> {
        // 5. The order is that of `stage`.
        for name in ordered(&plan.changed) {
            self.step(staged)?;
            if let Some(active) = &mut self.active {
                active.owed.remove(name);
            }
        }
        self.step(staged)?;

        // 6. After an error, or another life, there may be more than the plan knows of.
        for name in &plan.removed {
            self.disk.unlink(&self.at.link(name.as_str()))?;
        }
        if !trusted {
            self.unlink_strays()?;
        }

        // 7.
        for (path, file) in &staged.written {
            match file {
                Some(file) => self.disk.sync(file, path)?,
                None => self.disk.sync(&self.disk.open(path)?, path)?,
            }
        }
        let dir = self.at.set(staged.number);
        self.disk.sync(&self.disk.open(&dir)?, &dir)?;
        self.disk.sync(&self.held.sets, &self.at.sets)?;
        self.step(staged)?;
        self.disk.sync(&self.held.sets, &self.at.sets)?;
        self.whole = Some(staged.number);
        if let Some(active) = &mut self.active {
            active.done = true;
        }
        Ok(())
    }

    // Step 8, or making room. What `active` or `done` names is never removed.
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

// As they are announced.
fn ordered<'a>(names: impl IntoIterator<Item = &'a FileName>) -> Vec<&'a FileName> {
    let mut order: Vec<_> = names.into_iter().collect();
    order.sort_by_key(|name| rank(name));
    order
}

fn is_full(error: &Error) -> bool {
    use ErrorKind::{QuotaExceeded, StorageFull};
    matches!(reason(error), Some(StorageFull | QuotaExceeded))
}
