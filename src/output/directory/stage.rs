//! Makes what a publish needs before its commit: the set, links for new keys, and temporary links.
//! Owns: taking back what was not committed. Must not: change what Envoy sees.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::OutputDirectory;
use super::compare::Plan;
use super::layout::{CURRENT, LAST_RANK, rank, target};
use super::provenance::{self, Mark, Source, Sources};
use crate::error::Error;
use crate::output::disk::{Inode, failed, hash_of, reason};
use crate::output::step::Step;
use crate::snapshot::{File, FileName};
use crate::sorted::SortedSet;

/// The files and links that a publish has made so far.
#[derive(Default)]
pub struct Staged {
    pub number: u64,
    pub files: Sources,
    /// The files to be synced: what was written, and what was carried over before it was synced.
    pub unsynced: SortedSet<FileName>,
    /// The links made for new keys.
    links: Vec<PathBuf>,
    /// The reason why the changed files are not watched, though they were to be.
    pub unwatched: Option<Error>,
    /// Temporary links and what each replaces: `active`, the changed keys, `current`.
    renames: VecDeque<(PathBuf, PathBuf)>,
}

impl OutputDirectory {
    /// Runs the steps that stage and commit a set, and takes back what they made if one fails. On a
    /// full disk the older sets make room for a second try.
    pub(super) fn staged(
        &mut self,
        steps: impl Fn(&mut OutputDirectory, &mut Staged) -> Result<(), Error>,
    ) -> Result<Staged, Error> {
        let attempt = |directory: &mut OutputDirectory| {
            let mut staged = directory.begin();
            let committed = steps(directory, &mut staged);
            if committed.is_err() {
                directory.discard_staged(&staged);
                directory.forget_replaced();
            }
            committed.map(|()| staged)
        };
        match attempt(self) {
            Err(error) if is_full(&error) => {
                self.sweep(0)?;
                attempt(self)
            }
            result => result,
        }
    }

    /// Begins a set under a number that was never used.
    pub(super) fn begin(&mut self) -> Staged {
        let number = self.inventory.next_set;
        self.inventory.next_set += 1;
        Staged {
            number,
            ..Staged::default()
        }
    }

    /// Writes the files of a set, and where they came from. Unchanged ones are linked; where
    /// linking fails, the same bytes are written.
    pub(super) fn write_set(
        &mut self,
        step: &Step,
        plan: &Plan,
        staged: &mut Staged,
    ) -> Result<(), Error> {
        let dir = self.make_set(staged.number)?;
        let given = step.files.iter().map(|(name, file)| (name, Some(file)));
        let standing = step.standing.iter().map(|name| (name, None));
        for (name, file) in given.chain(standing) {
            let path = dir.join(name.as_str());
            let carried = self.carry_over(name, &path, plan);
            let is_synced = carried.as_ref().is_some_and(|(_, is_synced)| *is_synced);
            let mut source = match (carried, file) {
                (Some((source, _)), _) => source,
                (None, Some(file)) => self.write_new(&path, file)?,
                (None, None) => self.write_new(&path, &self.standing_file(name)?)?,
            };
            if let Some(file) = file {
                source.origin = file.origin.clone();
            }
            source.mark = Mark::of(name, step.transient);
            if !is_synced {
                staged.unsynced.insert(name.clone());
            }
            staged.files.insert(name.clone(), source);
        }
        self.write_sources(staged)
    }

    /// Links an unchanged file of the active set to `path`. Returns what is known of it, and
    /// whether it is synced; `None` if it has to be written.
    fn carry_over(&self, name: &FileName, path: &Path, plan: &Plan) -> Option<(Source, bool)> {
        let active = self
            .inventory
            .visible
            .active()
            .filter(|active| active.is_announced())?;
        if plan.changed.binary_search(name).is_ok() && !plan.owed.contains(name) {
            return None;
        }
        let source = active.files.get(name)?;
        let old = self.at.set(active.number).join(name.as_str());
        self.disk.link(&old, path).ok()?;
        let is_synced = active
            .unsynced()
            .is_none_or(|unsynced| !unsynced.contains(name));
        // The new link has changed the file's ctime.
        let intact = None;
        Some((
            Source {
                intact,
                ..source.clone()
            },
            is_synced,
        ))
    }

    fn write_new(&self, path: &Path, file: &File) -> Result<Source, Error> {
        let File { bytes, origin } = file;
        Ok(Source {
            origin: origin.clone(),
            size: bytes.len() as u64,
            hash: Some(hash_of(bytes)),
            seen: None,
            intact: None,
            inode: Some(self.write_file(path, bytes)?),
            mark: None,
        })
    }

    /// Reads a file that stands, where it cannot be linked.
    fn standing_file(&self, name: &FileName) -> Result<File, Error> {
        let edited = || {
            let path = self.at.active.join(name.as_str());
            failed(
                "carry over",
                &path,
                io::Error::other("it is not what was written"),
            )
        };
        self.visible_file(name)?.ok_or_else(edited)
    }

    /// Makes the links of new keys, which lead nowhere yet, and the temporary ones of all renames.
    pub(super) fn make_links(&mut self, plan: &Plan, staged: &mut Staged) -> Result<(), Error> {
        for name in &plan.changed {
            let known = self
                .inventory
                .visible
                .active()
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

    /// Makes the link of a key. Returns `None` if something stands there already: ours, or foreign
    /// and replaced by the notification.
    pub(super) fn link_key(&self, name: &FileName) -> Result<Option<PathBuf>, Error> {
        let link = self.at.link(name.as_str());
        match self.disk.symlink(&target(name.as_str()), &link) {
            Ok(()) => Ok(Some(link)),
            Err(error) if reason(&error) == Some(ErrorKind::AlreadyExists) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a new file. Returns which one it is.
    pub(super) fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<Inode, Error> {
        let (file, inode) = self.disk.create(path)?;
        self.disk.write(&file, path, bytes)?;
        Ok(inode)
    }

    /// Writes `N.sources` of what is staged.
    pub(super) fn write_sources(&self, staged: &Staged) -> Result<(), Error> {
        let path = self.at.sources(staged.number);
        match provenance::encode(&staged.files) {
            Ok(text) => self.write_file(&path, &text).map(drop),
            Err(error) => Err(failed("write", &path, error.into())),
        }
    }

    /// Makes a temporary link to `target`, to be renamed onto `onto` in its turn.
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

    /// Makes the next of the planned renames.
    pub(super) fn rename_next(&self, staged: &mut Staged) -> Result<(), Error> {
        if let Some((link, onto)) = staged.renames.front() {
            self.disk.rename(link, onto)?;
            staged.renames.pop_front();
        }
        Ok(())
    }

    /// Takes back what was staged, as far as the disk lets us; the next scan does the rest.
    pub(super) fn discard_staged(&self, staged: &Staged) {
        self.unlink_unused(staged);
        for link in &staged.links {
            let _ = self.disk.unlink(link);
        }
        // A rename that failed may have happened, on a network's disk.
        if let Ok(visible) = self.on_disk().numbered(&self.at.active)
            && visible != Some(staged.number)
        {
            let names: Vec<_> = staged.files.keys().cloned().collect();
            let _ = self.on_disk().remove_set(staged.number, &names);
        }
    }

    /// Removes the temporary links that were not used.
    pub(super) fn unlink_unused(&self, staged: &Staged) {
        for (link, _) in &staged.renames {
            let _ = self.disk.unlink(link);
        }
    }
}

/// Returns the names in the order in which they are announced.
pub fn ordered<'a>(names: impl IntoIterator<Item = &'a FileName>) -> Vec<&'a FileName> {
    let names: Vec<_> = names.into_iter().collect();
    let ranked = |at| names.iter().copied().filter(move |name| rank(name) == at);
    (0..=LAST_RANK).flat_map(ranked).collect()
}

/// Returns whether there is no space, or none for us.
pub fn is_full(error: &Error) -> bool {
    use ErrorKind::{QuotaExceeded, StorageFull};
    matches!(reason(error), Some(StorageFull | QuotaExceeded))
}
