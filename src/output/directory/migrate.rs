//! Takes over files that another program put where our links belong: all of `current/`, left by the
//! Go program, or single files written there since. Owns: making them a set, with the same content
//! for Envoy at every moment. Must not: publish anything new.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::OutputDirectory;
use super::active::{ActiveSet, Untrusted, Visible};
use super::layout::{CURRENT, target};
use super::provenance::{Source, unknown};
use super::stage::{Staged, ordered};
use crate::error::Error;
use crate::output::disk::{failed, is_unsupported, reason};
use crate::snapshot::FileName;

impl OutputDirectory {
    /// Makes the foreign files a set. If this is interrupted, it can start again from the
    /// beginning: until all files are replaced, `current/` shows the same set through some links
    /// and some files.
    ///
    /// 1. Copy what `current/` shows into a set.
    /// 2. Make it `done`, then `active`: our links may be among what is shown.
    /// 3. A directory `current` becomes `.live` by exchange: a running Envoy watches its inode.
    ///    Where the file system has no exchange, [`OutputDirectory::displace`] does what it can.
    /// 4. Replace file after file by a link to the same content.
    pub(super) fn adopt(&mut self) -> Result<(), Error> {
        // The files that Envoy reads may be among those that are copied.
        self.end_watch();
        let found = Untrusted {
            has_foreign_files: false,
            ..self.inventory.visible.doubts()
        };
        if self.end_takeover()? {
            self.inventory.visible = Visible::Untrusted(found);
            return self.note_live();
        }
        let is_dir = self.on_disk().is_dir(&self.at.current)?;
        let from = if is_dir {
            self.at.current.clone()
        } else {
            self.at.live.clone()
        };

        // 1.
        let mut staged = self.begin();
        let taken = self.copy_existing(&from, &mut staged);

        // 2. This order tells an interrupted takeover from an interrupted publish.
        if let Err(error) = taken.and_then(|()| self.rename_next(&mut staged)) {
            self.discard_staged(&staged);
            return Err(error);
        }
        self.inventory.last_durable = Some(staged.number);
        let mut make_durable = || {
            self.disk.sync(&self.held.sets, &self.at.sets)?;
            self.rename_next(&mut staged)?;
            self.disk.sync(&self.held.sets, &self.at.sets)
        };
        if let Err(error) = make_durable() {
            self.unlink_unused(&staged);
            return Err(error);
        }
        let number = Some(staged.number);
        self.inventory.visible = Visible::Untrusted(Untrusted {
            number,
            has_foreign_files: true,
            ..found
        });

        // 3.
        if is_dir {
            self.disk.ensure_dir(&self.at.current)?; // It may have been closed to others.
            self.retire_live()?;
            let live = self.at.live.clone();
            self.replace_with_link(CURRENT, &live)?;
            match self.disk.exchange(&self.at.live, &self.at.current) {
                Err(error) if is_unsupported(&error) => self.displace(&staged)?,
                result => result?,
            }
        }

        // 4.
        for name in ordered(staged.files.keys()) {
            if !self.on_disk().is_ours(&self.at.live, name.as_str())? {
                let link = self.at.link(name.as_str());
                self.replace_with_link(&target(name.as_str()), &link)?;
            }
        }
        for name in self.on_disk().links()?.dangling {
            self.disk.unlink(&self.at.link(&name))?;
        }
        self.note_live()?;
        self.inventory.older.remove(staged.number);
        // What Envoy has read of a set that gave way is not known.
        self.inventory.visible = if found.is_rolled_back {
            Visible::Untrusted(Untrusted { number, ..found })
        } else {
            let files = std::mem::take(&mut staged.files);
            Visible::Trusted(ActiveSet::durable(staged.number, files, Default::default()))
        };
        Ok(())
    }

    /// Does step 3 on a file system without exchange. There has to be a moment without `current`;
    /// it begins when all else is done.
    fn displace(&mut self, staged: &Staged) -> Result<(), Error> {
        let (current, live) = (self.at.current.clone(), self.at.live.clone());
        for name in ordered(staged.files.keys()) {
            if !self.on_disk().is_ours(&current, name.as_str())? {
                self.replace_with_link(&target(name.as_str()), &current.join(name.as_str()))?;
            }
        }
        let link = self.temporary(CURRENT)?;
        self.disk.unlink(&live)?;
        // An Envoy that watches the directory keeps watching it.
        match self.disk.move_dir(&current, &live) {
            Err(error) if is_unsupported(&error) => {}
            result => return result.and_then(|()| self.disk.rename(&link, &current)),
        }
        self.disk.unlink(&link)?;
        for name in self.disk.list(&current)?.unwrap_or_default() {
            if !self.gives_way(&name)? {
                let reason = format!(
                    "a part of an image layer cannot be moved, and {name} in it is not a file: remove that, or mount a volume there"
                );
                return Err(failed("replace", &current, io::Error::other(reason)));
            }
        }
        self.disk.ensure_dir(&live)?;
        for name in staged.files.keys() {
            self.link_key(name)?;
        }
        self.clear_current()
    }

    /// Completes a `displace` that was interrupted while it cleared `current`. Returns whether
    /// `current` is a link now.
    pub(super) fn end_takeover(&mut self) -> Result<bool, Error> {
        let found = self.disk.lstat(&self.at.current)?;
        if found.as_ref().is_some_and(|found| !found.is_dir()) {
            return Ok(false);
        }
        let Some(active) = self
            .inventory
            .visible_set(self.on_disk(), None)?
            .filter(|active| active.is_durable() && active.spoiled.is_empty())
        else {
            return Ok(false);
        };
        let links = self.on_disk().links()?.ours;
        let linked = |name: &FileName| links.contains(name.as_str());
        if !self.on_disk().is_dir(&self.at.live)? || !active.files.keys().all(linked) {
            return Ok(false);
        }
        for name in self.disk.list(&self.at.current)?.unwrap_or_default() {
            if !self.gives_way(&name)? {
                return Ok(false);
            }
        }
        self.clear_current().map(|()| true)
    }

    /// Returns whether `name` in a directory `current` is a link that leads into the active set or
    /// nowhere, so that it can be removed.
    fn gives_way(&self, name: &str) -> Result<bool, Error> {
        let path = self.at.current.join(name);
        let ours = self.on_disk().is_ours(&self.at.current, name)?;
        Ok(ours
            || self.disk.read_link(&path)?.is_some() && self.disk.stat_followed(&path)?.is_none())
    }

    /// Replaces a directory `current` by our link. A directory that cannot be moved belongs to the
    /// image of this container, whose Envoy has not started yet.
    fn clear_current(&mut self) -> Result<(), Error> {
        let link = self.temporary(CURRENT)?;
        let current = self.at.current.clone();
        for name in self.disk.list(&current)?.unwrap_or_default() {
            self.disk.unlink(&current.join(name))?;
        }
        self.disk.rename(&link, &current)
    }

    /// Copies the files in `from` to a new set and syncs it, but does not commit it.
    fn copy_existing(&mut self, from: &Path, staged: &mut Staged) -> Result<(), Error> {
        let dir = self.make_set(staged.number)?;
        // A file that replaces one of ours keeps its origin: the key still belongs to a ConfigMap.
        let known = match self.inventory.last_durable {
            Some(number) => self.on_disk().sources_of(number)?.unwrap_or_default(),
            None => Default::default(),
        };
        let unknown = unknown();
        for name in self.disk.list(from)?.unwrap_or_default() {
            let Some(key) = FileName::new(&name) else {
                continue;
            };
            if self.inventory.is_past_durable() && self.on_disk().is_ours(from, &name)? {
                continue;
            }
            let source = from.join(&name);
            let Some(file) = self.disk.follow(&source)? else {
                continue;
            };
            let path = dir.join(&name);
            let known = known.get(&key);
            let origin = known.map_or(&unknown, |source| &source.origin).clone();
            let (copy, size, hash) = self.disk.copy(&file, &source, &path)?;
            self.disk.sync(&copy, &path)?;
            let copied = Source {
                origin,
                size,
                hash: Some(hash),
                seen: None,
                intact: None,
                inode: None,
                mark: None,
            };
            staged.files.insert(key, copied);
        }
        self.write_sources(staged)?;
        for path in [self.at.sources(staged.number), dir] {
            self.disk.sync(&self.disk.open(&path)?, &path)?;
        }
        self.disk.sync(&self.held.sets, &self.at.sets)?;
        let number = staged.number.to_string();
        self.plan_rename(staged, &number, self.at.done.clone())?;
        self.plan_rename(staged, &number, self.at.active.clone())
    }

    /// Replaces what is at `onto` by a link to `target`.
    pub(super) fn replace_with_link(&mut self, target: &str, onto: &Path) -> Result<(), Error> {
        let link = self.temporary(target)?;
        let put = self.disk.rename(&link, onto);
        if put.is_err() {
            let _ = self.disk.unlink(&link);
        }
        put
    }

    /// Removes `.live` while `current` is a directory, so that Envoy does not see it. Links of ours
    /// are removed with it; anything else in it is an error.
    fn retire_live(&mut self) -> Result<(), Error> {
        for name in self.on_disk().names_in_live()? {
            if self.on_disk().is_ours(&self.at.live, &name)? {
                self.disk.unlink(&self.at.link(&name))?;
            }
        }
        match self.disk.remove_dir(&self.at.live) {
            Err(error) if reason(&error) == Some(ErrorKind::NotADirectory) => Ok(()),
            result => result,
        }
    }
}
