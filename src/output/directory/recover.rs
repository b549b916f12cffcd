//! Recovers from what an earlier run, a failed publish, or another program left in the output
//! directory. Owns: taking the lock, opening the directory, rolling back a set that is torn. Must
//! not: change what Envoy sees otherwise.

use std::fs::Metadata;
use std::path::Path;

use super::active::{Untrusted, Visible};
use super::inventory::Inventory;
use super::layout::Layout;
use super::on_disk::OnDisk;
use super::prepared::Prepared;
use super::sets::FoundSet;
use super::{Held, Keep, LiveDir, OutputDirectory};
use crate::error::Error;
use crate::output::disk::{Fs, inode_of};
use crate::output::heartbeat::Heartbeat;
use crate::snapshot::FileName;

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
    pub(super) fn open_on(disk: Fs, dir: &Path, verdicts: Keep) -> Result<OutputDirectory, Error> {
        let at = Layout::new(dir);
        let held = hold(&disk, &at)?;
        let on_disk = OnDisk {
            disk: &disk,
            at: &at,
            reads: None,
        };
        on_disk.ensure_layout()?;
        let mut prepared = Prepared::default();
        let inventory = Inventory::find(on_disk, Inventory::unknown(), &mut prepared)?;
        let mut directory = OutputDirectory {
            disk,
            at,
            held,
            heartbeat: Heartbeat::new(dir),
            inventory,
            reads: None,
            live: LiveDir::default(),
            needs_recheck: false,
            next_link: 0,
            last_changed: Vec::new(),
            prepared,
            verdicts: None,
        };
        // If either fails, the next publish repairs what is left.
        let _ = directory.roll_back_torn_set();
        let _ = directory.end_takeover();
        directory.note_live()?;
        if verdicts == Keep::Verdicts {
            directory.find_verdicts();
        }
        directory.sweep_leftovers();
        Ok(directory)
    }

    /// Makes the last whole set visible again if a power loss has torn one that was committed and
    /// never done. Envoy is not notified, and the next publish trusts neither set.
    fn roll_back_torn_set(&mut self) -> Result<(), Error> {
        let (Some(visible), Some(whole)) =
            (self.inventory.visible.number(), self.inventory.last_durable)
        else {
            return Ok(());
        };
        let whole_set = |number| {
            let found = self.on_disk().files_of(number, None)?;
            Ok(found.filter(FoundSet::is_whole))
        };
        if visible <= whole || whole_set(visible)?.is_some() {
            return Ok(());
        }
        if let Some(found) = whole_set(whole)? {
            for name in found.files.keys() {
                self.link_key(name)?;
            }
            let active = self.at.active.clone();
            self.replace_with_link(&whole.to_string(), &active)?;
            self.inventory.visible = Visible::Untrusted(Untrusted {
                number: Some(whole),
                is_rolled_back: true,
                ..self.inventory.visible.doubts()
            });
        }
        Ok(())
    }

    /// Returns whether the lock we hold is the one that others would find.
    pub(super) fn is_held(&self) -> Result<bool, Error> {
        self.disk.is_same_file(&self.at.lock, self.held.inode)
    }

    /// Takes note of the directory that a running Envoy watches.
    pub(super) fn note_live(&mut self) -> Result<(), Error> {
        let found = self.disk.lstat(&self.at.live)?;
        let found = found.filter(Metadata::is_dir);
        self.live.found(found.map(|found| inode_of(&found)));
        Ok(())
    }

    /// Takes stock of the sets again.
    pub(super) fn take_stock(&mut self) -> Result<(), Error> {
        let known = self.inventory.take();
        let on_disk = OnDisk {
            disk: &self.disk,
            at: &self.at,
            reads: self.reads.as_ref(),
        };
        self.inventory = Inventory::find(on_disk, known, &mut self.prepared)?;
        Ok(())
    }

    /// Removes the links in `.live` for which the active set has no file. Returns their names.
    pub(super) fn unlink_strays(&self) -> Result<Vec<FileName>, Error> {
        let mut strays = Vec::new();
        for name in self.on_disk().links()?.ours {
            let active = self.inventory.visible.active();
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
