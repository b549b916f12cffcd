//! One publish, from the plan to the sync: steps 2 to 8 of `OutputDirectory::publish_now`. Owns: their
//! order, and taking back what was not committed. Must not: decide whether to publish.

use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::layout::{CURRENT, LAST_RANK, rank, target};
use super::provenance::{self, Source, Sources};
use super::{Active, OLDER, OutputDirectory, Plan, Published};
use crate::error::Error;
use crate::gather;
use crate::output::disk::{failed, hash_of, reason};
use crate::snapshot::{File, FileName, Snapshot};

/// So many keys get a link ahead: a first set has them all, later ones change few.
const LIKELY: usize = 4;

/// What a publish has made so far.
#[derive(Default)]
pub struct Staged {
    pub number: u64,
    pub files: Sources,
    /// To be synced: what was written, and what was carried over before it was.
    pub unsynced: BTreeSet<FileName>,
    /// Links made for new keys.
    links: Vec<PathBuf>,
    /// Temporary links and what each replaces: `active`, the changed keys, `current`.
    renames: VecDeque<(PathBuf, PathBuf)>,
}

impl OutputDirectory {
    /// Steps 2 to 7.
    pub(super) fn replace(
        &mut self,
        desired: &Snapshot,
        mut plan: Plan,
    ) -> Result<Published, Error> {
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
            unsynced: None,
            owed: gather(plan.changed.iter().cloned()),
            current_owed: plan.current,
        });
        let trusted = old.as_ref().is_some_and(Active::is_intact);
        if let Some(old) = old {
            self.older
                .insert(old.number, old.files.into_keys().collect());
        }
        (self.visible, self.retreated) = (Some(number), false);
        self.last_changed.clone_from(&plan.changed);

        if let Err(error) = self.notify(&mut plan, trusted, &mut staged) {
            self.unlink_all(&staged);
            return Err(error);
        }

        // 7.
        let unswept = self.sweep(OLDER).err();
        Ok(Published {
            number,
            changed: plan.changed,
            removed: plan.removed,
            committed,
            unswept,
        })
    }

    /// Nothing yet, under a number that was never used.
    pub(super) fn begin(&mut self) -> Staged {
        let number = self.next_set;
        self.next_set += 1;
        Staged {
            number,
            ..Staged::default()
        }
    }

    /// The directory of a new set.
    pub(super) fn make_set(&mut self, number: u64) -> Result<PathBuf, Error> {
        let dir = self.at.set(number);
        if self.prepared_set.take() != Some(number) {
            self.disk.create_dir(&dir)?;
        }
        Ok(dir)
    }

    // Steps 2 to 4, or nothing.
    fn commit(&mut self, desired: &Snapshot, plan: &Plan) -> Result<Staged, Error> {
        let mut staged = self.begin();
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
    fn stage(&mut self, desired: &Snapshot, plan: &Plan, staged: &mut Staged) -> Result<(), Error> {
        // 2. A copy is made where linking fails: of the desired bytes, which are the same.
        let dir = self.make_set(staged.number)?;
        let active = self.active.as_ref().filter(|active| active.is_intact());
        let old = active.map(|active| self.at.set(active.number));
        let unsynced = active
            .and_then(|active| active.unsynced.clone())
            .unwrap_or_default();
        for (name, File { bytes, origin }) in desired {
            let path = dir.join(name.as_str());
            let kept = old
                .as_ref()
                .filter(|_| plan.changed.binary_search(name).is_err());
            let linked =
                kept.is_some_and(|old| self.disk.link(&old.join(name.as_str()), &path).is_ok());
            if !linked {
                self.write(&path, bytes)?;
            }
            if !linked || unsynced.contains(name) {
                staged.unsynced.insert(name.clone());
            }
            let carried = active.and_then(|active| active.files.get(name));
            let carried = carried.filter(|_| linked);
            let source = Source {
                origin: origin.clone(),
                size: bytes.len() as u64,
                hash: carried.map_or_else(|| Some(hash_of(bytes)), |source| source.hash),
                seen: carried.and_then(|source| source.seen.clone()),
                // The new link has changed the file's ctime.
                intact: None,
            };
            staged.files.insert(name.clone(), source);
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
            staged.links.extend(self.link_key(name)?);
        }
        let number = staged.number.to_string();
        self.plan_rename(staged, &number, self.at.active.clone())?;
        for name in ordered(&plan.changed) {
            let onto = self.at.link(name.as_str());
            self.plan_rename(staged, &target(name.as_str()), onto)?;
        }
        if plan.current {
            self.plan_rename(staged, CURRENT, self.at.current.clone())?;
        }
        Ok(())
    }

    /// The link of a key; `None` where something stands already: ours, or foreign and replaced in
    /// step 5.
    pub(super) fn link_key(&self, name: &FileName) -> Result<Option<PathBuf>, Error> {
        let link = self.at.link(name.as_str());
        match self.disk.symlink(&target(name.as_str()), &link) {
            Ok(()) => Ok(Some(link)),
            Err(error) if reason(&error) == Some(ErrorKind::AlreadyExists) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let file = self.disk.create(path)?;
        self.disk.write(&file, path, bytes)
    }

    /// `N.sources` of what is staged.
    pub(super) fn write_sources(&self, staged: &Staged) -> Result<(), Error> {
        let path = self.at.sources(staged.number);
        match provenance::encode(&staged.files) {
            Ok(text) => self.write(&path, &text),
            Err(error) => Err(failed("write", &path, error.into())),
        }
    }

    /// A temporary link to `target`, for a later step.
    pub(super) fn plan_rename(
        &mut self,
        staged: &mut Staged,
        target: &str,
        onto: PathBuf,
    ) -> Result<(), Error> {
        let link = self.temporary(target)?;
        staged.renames.push_back((link, onto));
        Ok(())
    }

    /// A link to `target` under a name of its own.
    pub(super) fn temporary(&mut self, target: &str) -> Result<PathBuf, Error> {
        if let Some(at) = self.prepared_links.iter().position(|(to, _)| to == target) {
            return Ok(self.prepared_links.swap_remove(at).1);
        }
        self.next_link += 1;
        let link = self.at.links.join(self.next_link.to_string());
        self.disk.symlink(target, &link)?;
        Ok(link)
    }

    /// The next of the renames.
    pub(super) fn step(&self, staged: &mut Staged) -> Result<(), Error> {
        if let Some((link, onto)) = staged.renames.front() {
            self.disk.rename(link, onto)?;
            staged.renames.pop_front();
        }
        Ok(())
    }

    /// Takes back what was staged, as far as the disk lets us; the next survey does the rest.
    pub(super) fn undo(&self, staged: &Staged) {
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

    /// The temporary links that were not used.
    pub(super) fn unlink_all(&self, staged: &Staged) {
        for (link, _) in &staged.renames {
            let _ = self.disk.unlink(link);
        }
    }

    // Steps 5 and 6.
    fn notify(&mut self, plan: &mut Plan, trusted: bool, staged: &mut Staged) -> Result<(), Error> {
        // 5. The order is that of `stage`.
        for name in ordered(&plan.changed) {
            self.step(staged)?;
            if let Some(active) = &mut self.active {
                active.owed.remove(name);
            }
        }
        if plan.current {
            self.step(staged)?;
        }
        if let Some(active) = &mut self.active {
            active.current_owed = false;
        }

        // 6. After an error, or another life, there may be more than the plan knew of.
        for name in &plan.removed {
            self.disk.unlink(&self.at.link(name.as_str()))?;
        }
        if !trusted {
            plan.removed.extend(self.unlink_strays()?);
        }

        if let Some(active) = &mut self.active {
            active.unsynced = Some(std::mem::take(&mut staged.unsynced));
        }
        Ok(())
    }

    // Step 8.
    /// Puts on stable storage what was published since the last call; nothing, if nothing was. It
    /// takes longer than all else, and Envoy does not wait for it. After a power loss before its
    /// end, the set does not count as whole.
    pub fn make_durable(&mut self) -> Result<(), Error> {
        let Some((number, unsynced)) = self
            .active
            .as_ref()
            .and_then(|active| Some((active.number, active.unsynced.as_ref()?)))
        else {
            return Ok(());
        };
        let dir = self.at.set(number);
        let files = unsynced.iter().map(|name| dir.join(name.as_str()));
        for path in files.chain([self.at.sources(number), dir.clone()]) {
            self.disk.sync(&self.disk.open(&path)?, &path)?;
        }
        self.disk.sync(&self.held.sets, &self.at.sets)?;
        let done = self.at.done.clone();
        self.put(&number.to_string(), &done)?;
        self.whole = Some(number);
        self.disk.sync(&self.held.sets, &self.at.sets)?;
        if let Some(active) = &mut self.active {
            (active.done, active.unsynced) = (true, None);
        }
        // The set that was done before may go now; if it does not, the next publish tells of it.
        let _ = self.sweep(OLDER);
        Ok(())
    }

    // Step 9.
    /// Makes what the next publish will need, while Envoy does not wait for it: a busy disk takes
    /// its time for each new name. What fails here is made, or told, by the next publish.
    pub fn prepare(&mut self) {
        if self.active.as_ref().is_some_and(|active| active.done) && !self.suspect {
            self.suspect = self.make_ahead().is_err();
        }
    }

    fn make_ahead(&mut self) -> Result<(), Error> {
        let number = self.next_set;
        self.make_set(number)?;
        self.prepared_set = Some(number);
        let last_changed = self.last_changed.iter().take(LIKELY);
        let mut targets: Vec<_> = last_changed.map(|name| target(name.as_str())).collect();
        targets.extend([number.to_string(), CURRENT.to_owned()]);
        let mut prepared_links = Vec::new();
        for (target, link) in std::mem::take(&mut self.prepared_links) {
            match targets.iter().position(|wanted| *wanted == target) {
                Some(at) => {
                    targets.swap_remove(at);
                    prepared_links.push((target, link));
                }
                None => self.disk.unlink(&link)?,
            }
        }
        for target in targets {
            let link = self.temporary(&target)?;
            prepared_links.push((target, link));
        }
        self.prepared_links = prepared_links;
        Ok(())
    }
}

/// As they are announced.
pub fn ordered<'a>(names: impl IntoIterator<Item = &'a FileName>) -> Vec<&'a FileName> {
    let names: Vec<_> = names.into_iter().collect();
    let ranked = |at| names.iter().copied().filter(move |name| rank(name) == at);
    (0..=LAST_RANK).flat_map(ranked).collect()
}

/// No space, or none for us.
pub fn is_full(error: &Error) -> bool {
    use ErrorKind::{QuotaExceeded, StorageFull};
    matches!(reason(error), Some(StorageFull | QuotaExceeded))
}
