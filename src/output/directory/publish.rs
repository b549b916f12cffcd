//! One publish, step by step. Owns: the order of its steps, and when the disk is synced.

use std::time::Instant;

use super::active::{ActiveSet, State, Visible};
use super::compare::{Compared, Found, Plan};
use super::stage::{Staged, ordered};
use super::sweep::OLDER;
use super::{OutputDirectory, Published};
use crate::error::Error;
use crate::output::step::Step;
use crate::snapshot::FileName;

/// The answer to whether what was published is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synced {
    Done,
    /// It is not; call again.
    Failed,
    /// It is yet to be synced, once the readers of its files are not watched any more.
    AfterWatch,
}

impl OutputDirectory {
    /// Makes the set of a step what Envoy finds, at once; the only other outcome is what was there
    /// before. Returns `None` if that is so already, and nothing was written. After an error both
    /// calls may be made again at any time: they find out what is left to do.
    ///
    /// 1. In [`OutputDirectory::compare`]: compare with the active set, on disk.
    /// 2. Write the new set aside: unchanged files as hard links, if the active set was announced.
    /// 3. Link new keys (dangling yet) and make all temporary links: only renames follow.
    /// 4. Watch who reads the changed files, if the step asks for that.
    /// 5. Note that a listener changes, if the step says so.
    /// 6. Commit: rename onto `active`.
    /// 7. Notify: rename a fresh link over each changed key, then `current`.
    /// 8. Prune: unlink keys that are gone.
    /// 9. Sweep old sets.
    /// 10. Later, in [`OutputDirectory::make_durable`]: sync what is new, then rename onto `done`.
    /// 11. Later still, in [`OutputDirectory::prepare`]: make what the next one would make in 2 and 3.
    pub fn write(&mut self, compared: Compared) -> Result<Option<Published>, Error> {
        let Compared { step, found } = compared;
        let Found::Different(plan) = found else {
            return Ok(None);
        };
        let published = self.whole_or_recheck(|directory| directory.make_visible(&step, plan))?;
        self.needs_recheck = published.unswept.is_some();
        Ok(Some(published))
    }

    fn make_visible(&mut self, step: &Step, plan: Plan) -> Result<Published, Error> {
        let mut staged = self.staged(|directory, staged| {
            directory.write_set(step, &plan, staged)?; // 2.
            directory.make_links(&plan, staged)?; // 3.
            directory.watch_reads(step, &plan, staged); // 4.
            directory.note_move(step, staged); // 5.
            directory.commit(staged) // 6.
        })?;
        let (number, committed) = (staged.number, Instant::now());
        self.activate(&mut staged, &plan);
        self.notify(&plan, &mut staged)?; // 7.
        let removed = self.prune(&plan)?; // 8.
        let unwatched = staged.unwatched.take();
        self.announced(staged);
        let unswept = self.sweep(OLDER).err(); // 9.
        Ok(Published {
            number,
            changed: plan.changed,
            removed,
            committed,
            unwatched,
            unswept,
        })
    }

    fn commit(&mut self, staged: &mut Staged) -> Result<(), Error> {
        self.rename_next(staged)
    }

    /// Takes note that what was staged is what Envoy finds. What can be carried over from it is
    /// known once it is announced, not before.
    fn activate(&mut self, staged: &mut Staged, plan: &Plan) {
        let old = self.inventory.visible.replace(Visible::Trusted(ActiveSet {
            number: staged.number,
            files: std::mem::take(&mut staged.files),
            spoiled: Default::default(),
            state: State::Announcing {
                left: plan.changed.iter().cloned().collect(),
                current: plan.current,
            },
        }));
        if let Some(old) = old {
            self.inventory.older.insert(old.number, &old.files);
        }
        self.forget_replaced();
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
        self.inventory
            .visible
            .active_mut()
            .map(|active| &mut active.state)
    }

    /// Puts on stable storage what was published since the last call; nothing, if nothing was (step
    /// 10). This takes longer than all else, and Envoy does not wait for it. After a power loss
    /// before its end, the set does not count as whole. A sync opens files, which their watch would
    /// take for Envoy's reading: it waits for the end.
    pub fn make_durable(&mut self) -> Result<Synced, Error> {
        if self.reads.is_some() {
            return Ok(Synced::AfterWatch);
        }
        let Some((number, unsynced)) = self
            .inventory
            .visible
            .active()
            .and_then(|active| Some((active.number, active.unsynced()?)))
        else {
            return Ok(Synced::Done);
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
        self.inventory.last_durable = Some(number);
        self.disk.sync(&self.held.sets, &self.at.sets)?;
        if let Some(state) = self.state() {
            *state = State::Durable;
        }
        // The set that was done before may go now; if it does not, the next publish tells of it.
        let _ = self.sweep(OLDER);
        Ok(Synced::Done)
    }

    /// Makes what the next publish will need, while Envoy does not wait for it: a busy disk takes
    /// its time for each new name (step 11). What fails here is made, or reported, by the next
    /// publish.
    pub fn prepare(&mut self) {
        if self
            .inventory
            .visible
            .active()
            .is_some_and(ActiveSet::is_durable)
            && !self.needs_recheck
        {
            self.needs_recheck = self.make_ahead().is_err();
        }
    }
}
