//! One publish, step by step. Owns: the order of its steps, and when the disk is synced.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use super::active::{ActiveSet, State};
use super::provenance::Source;
use super::stage::{Plan, Staged, ordered};
use super::{OLDER, OutputDirectory, Published};
use crate::error::Error;
use crate::gather;
use crate::output::disk::{Fs, hash_of, stamp_of};
use crate::output::step::{Compared, Found, Step};
use crate::snapshot::{Bytes, FileName, Snapshot};

/// Larger texts are not kept in memory just for the next comparison.
const MAX_KEPT_BYTES: usize = 64 << 10;

impl OutputDirectory {
    /// Makes the set of a step what Envoy finds, at once; the only other outcome is what was there
    /// before. Returns `None` if that is so already, and nothing was written. After an error both
    /// calls may be made again at any time: they find out what is left to do.
    ///
    /// 1. In [`OutputDirectory::compare`]: compare with the active set, on disk.
    /// 2. Write the new set aside: unchanged files as hard links, if the active set was announced.
    /// 3. Link new keys (dangling yet) and make all temporary links: only renames follow.
    /// 4. Commit: rename onto `active`.
    /// 5. Notify: rename a fresh link over each changed key, then `current`.
    /// 6. Prune: unlink keys that are gone.
    /// 7. Sweep old sets.
    /// 8. Later, in [`OutputDirectory::make_durable`]: sync what is new, then rename onto `done`.
    /// 9. Later still, in [`OutputDirectory::prepare`]: make what the next one would make in 2 and 3.
    pub fn write(&mut self, compared: Compared) -> Result<Option<Published>, Error> {
        let Compared { step, found } = compared;
        let Found::Different(plan) = found else {
            return Ok(None);
        };
        self.needs_recheck = true;
        let mut staged = self.staged(|directory, staged| {
            directory.write_set(step.files, &plan, staged)?; // 2.
            directory.make_links(&plan, staged)?; // 3.
            directory.commit(staged) // 4.
        })?;
        let (number, committed) = (staged.number, Instant::now());
        self.activate(&mut staged, &plan);
        self.notify(&plan, &mut staged)?; // 5.
        let removed = self.prune(&plan)?; // 6.
        self.announced(staged);
        let unswept = self.sweep(OLDER).err(); // 7.
        self.needs_recheck = unswept.is_some();
        Ok(Some(Published {
            number,
            changed: plan.changed,
            removed,
            committed,
            unwatched: None,
            unswept,
        }))
    }

    /// Compares a step with the set that is visible (step 1).
    pub fn compare<'a>(&mut self, step: Step<'a>) -> Result<Compared<'a>, Error> {
        self.make_good()?;
        let plan = self.plan(step.files);
        let found = plan.map_or(Found::Equal, Found::Different);
        Ok(Compared { step, found })
    }

    /// Looks again at a directory that an error has left half done, and makes files of other programs
    /// a set.
    fn make_good(&mut self) -> Result<(), Error> {
        if self.needs_recheck || !self.is_held()? {
            self.check()?;
        }
        if self.has_foreign_files {
            self.needs_recheck = true;
            self.adopt()?;
            self.needs_recheck = false;
        }
        Ok(())
    }

    fn plan(&mut self, desired: &Snapshot) -> Option<Plan> {
        let Some(active) = &mut self.active else {
            return Some(Plan {
                is_compared: false,
                changed: desired.keys().cloned().collect(),
                added: Vec::new(),
                removed: Vec::new(),
                strays: true,
                current: true,
            });
        };
        let dir = self.at.set(active.number);
        let (mut changed, mut added) = (Vec::new(), Vec::new());
        let mut moved = false;
        for (name, file) in desired {
            let owed = active.owes(name);
            if let Some(source) = active.files.get_mut(name)
                && !owed
                && source.is_same(&self.disk, &dir.join(name.as_str()), &file.bytes)
            {
                moved |= source.origin.object != file.origin.object;
            } else {
                if !active.files.contains_key(name) {
                    added.push(name.clone());
                }
                changed.push(name.clone());
            }
        }
        let gone = |name: &&FileName| !desired.contains_key(*name);
        let removed: Vec<_> = active.files.keys().filter(gone).cloned().collect();
        let current = active.owes_current() || !changed.is_empty() || !removed.is_empty();
        let strays = !active.is_announced();
        (current || moved || strays).then_some(Plan {
            is_compared: true,
            changed,
            added,
            removed,
            strays,
            current,
        })
    }

    fn commit(&mut self, staged: &mut Staged) -> Result<(), Error> {
        self.rename_next(staged)
    }

    /// Takes note that what was staged is what Envoy finds. What can be carried over from it is known
    /// once it is announced, not before.
    fn activate(&mut self, staged: &mut Staged, plan: &Plan) {
        let old = self.active.replace(ActiveSet {
            number: staged.number,
            files: std::mem::take(&mut staged.files),
            spoiled: Default::default(),
            state: State::Announcing {
                left: gather(plan.changed.iter().cloned()),
                current: plan.current,
            },
        });
        if let Some(old) = old {
            self.older
                .insert(old.number, old.files.into_keys().collect());
        }
        (self.visible, self.rolled_back) = (Some(staged.number), false);
        self.last_changed.clone_from(&plan.changed);
    }

    fn notify(&mut self, plan: &Plan, staged: &mut Staged) -> Result<(), Error> {
        // The renames were planned in this order.
        for name in ordered(&plan.changed) {
            self.rename_next_or_discard(staged)?;
            if let Some(State::Announcing { left, .. }) = self.state() {
                left.remove(name);
            }
        }
        if plan.current {
            self.rename_next_or_discard(staged)?;
        }
        if let Some(State::Announcing { current, .. }) = self.state() {
            *current = false;
        }
        Ok(())
    }

    fn rename_next_or_discard(&self, staged: &mut Staged) -> Result<(), Error> {
        let renamed = self.rename_next(staged);
        if renamed.is_err() {
            self.unlink_unused(staged);
        }
        renamed
    }

    /// Returns the names of all files that are gone.
    fn prune(&self, plan: &Plan) -> Result<Vec<FileName>, Error> {
        let mut removed = plan.removed.clone();
        for name in &removed {
            self.disk.unlink(&self.at.link(name.as_str()))?;
        }
        if plan.strays {
            removed.extend(self.unlink_strays()?);
        }
        Ok(removed)
    }

    fn announced(&mut self, staged: Staged) {
        if let Some(state) = self.state() {
            let unsynced = staged.unsynced;
            *state = State::Announced { unsynced };
        }
    }

    fn state(&mut self) -> Option<&mut State> {
        self.active.as_mut().map(|active| &mut active.state)
    }

    /// Removes all but `keep` older sets. What `active` or `done` names stays.
    pub(super) fn sweep(&mut self, keep: usize) -> Result<(), Error> {
        let mut numbers: Vec<_> = self.older.keys().copied().collect();
        numbers.truncate(numbers.len().saturating_sub(keep));
        for number in numbers {
            if Some(number) != self.visible && Some(number) != self.last_durable {
                self.remove_set(number, self.older.get(&number).map_or(&[], Vec::as_slice))?;
                self.older.remove(&number);
            }
        }
        Ok(())
    }

    /// Puts on stable storage what was published since the last call; nothing, if nothing was (step 8).
    /// This takes longer than all else, and Envoy does not wait for it. After a power loss before its
    /// end, the set does not count as whole.
    pub fn make_durable(&mut self) -> Result<(), Error> {
        let Some((number, unsynced)) = self
            .active
            .as_ref()
            .and_then(|active| Some((active.number, active.unsynced()?)))
        else {
            return Ok(());
        };
        let dir = self.at.set(number);
        let files = unsynced
            .iter()
            .map(|name: &FileName| dir.join(name.as_str()));
        for path in files.chain([self.at.sources(number), dir.clone()]) {
            self.disk.sync(&self.disk.open(&path)?, &path)?;
        }
        self.disk.sync(&self.held.sets, &self.at.sets)?;
        let done = self.at.done.clone();
        self.replace_with_link(&number.to_string(), &done)?;
        self.last_durable = Some(number);
        self.disk.sync(&self.held.sets, &self.at.sets)?;
        if let Some(state) = self.state() {
            *state = State::Durable;
        }
        // The set that was done before may go now; if it does not, the next publish tells of it.
        let _ = self.sweep(OLDER);
        Ok(())
    }

    /// Makes what the next publish will need, while Envoy does not wait for it: a busy disk takes
    /// its time for each new name (step 9). What fails here is made, or reported, by the next publish.
    pub fn prepare(&mut self) {
        if self.active.as_ref().is_some_and(ActiveSet::is_durable) && !self.needs_recheck {
            self.needs_recheck = self.make_ahead().is_err();
        }
    }
}

impl Source {
    /// Returns whether the file is exactly `bytes`. It is read, unless it is what it was when it was
    /// read last.
    fn is_same(&mut self, disk: &Fs, path: &Path, bytes: &Bytes) -> bool {
        // The stamp is taken before the file is read, so that a write in between shows the next time.
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
        // A buffer with no other owner is merge output: it is rebuilt on every publish, so keeping it
        // is pointless.
        let kept = same && bytes.len() <= MAX_KEPT_BYTES && Rc::strong_count(bytes) > 1;
        self.seen = stamp.filter(|_| kept).map(|stamp| (bytes.clone(), stamp));
        same
    }
}
