//! Puts a set of files where Envoy finds it: staged aside, switched by one rename, then announced.
//! Owns: the output directory, everything in it (`directory/layout.rs` draws it), its lock. Must
//! not: decide what a set holds, look into a file, log, wait, or write anywhere else.
//!
//! The order is the promise. Whoever opens files through `current/`, at any moment, gets them out
//! of one set: all links lead through `.sets/active`, and one rename moves that. A set that was
//! written to its end and then synced is named by `.sets/done`; no other is ever carried over, or
//! announced to a running Envoy before it is rewritten.

mod active;
mod compare;
mod inventory;
mod layout;
mod migrate;
mod moved;
mod on_disk;
mod prepared;
mod provenance;
mod publish;
mod recover;
mod sets;
mod stage;
mod standing;
mod sweep;
#[cfg(test)]
mod tests;
mod verdicts;
mod watch;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::output::disk::{Fs, Inode};
use crate::output::heartbeat::{Accepted, Beaten, Heartbeat};
use crate::output::reads::Reads;
use crate::snapshot::FileName;
use active::ActiveSet;
pub use compare::{Compared, Found};
use inventory::Inventory;
use layout::Layout;
use on_disk::OnDisk;
use prepared::Prepared;
pub use publish::Synced;
pub use standing::Standing;
use verdicts::Verdicts;
pub use verdicts::{Keep, Recalled};

/// The only writer of an output directory.
#[derive(Debug)]
pub struct OutputDirectory {
    disk: Fs,
    at: Layout,
    held: Held,
    heartbeat: Heartbeat,
    inventory: Inventory,
    /// The watch of who reads the last step's files. Nothing here opens those until it has ended.
    reads: Option<Reads>,
    live: LiveDir,
    /// An error left things undone, so look again before the next publish.
    needs_recheck: bool,
    next_link: u64,
    /// The files that the last publish changed: the next one may well change the same.
    last_changed: Vec<FileName>,
    prepared: Prepared,
    /// Envoy's verdicts; `None` if nobody asks for them.
    verdicts: Option<Verdicts>,
}

/// The lock, which file it is, and the directory to sync.
#[derive(Debug)]
struct Held {
    _lock: fs::File,
    inode: Inode,
    sets: fs::File,
}

/// The directory `.live` that a running Envoy watches.
#[derive(Debug, Default)]
struct LiveDir {
    inode: Option<Inode>,
    /// True if another directory has taken its place, so that Envoy notices no further change.
    is_lost: bool,
}

impl LiveDir {
    fn found(&mut self, inode: Option<Inode>) {
        self.is_lost |= self.inode.is_some() && inode != self.inode;
        self.inode = inode;
    }
}

/// A publish, as it was done.
#[derive(Debug)]
pub struct Published {
    /// The set's number.
    pub number: u64,
    /// Files whose content is new to Envoy, by name; none when only their origin changed.
    pub changed: Vec<FileName>,
    /// Files that are gone.
    pub removed: Vec<FileName>,
    /// The time at which the set became visible.
    pub committed: Instant,
    /// The reason why the changed files are not watched, though they were to be. The set is
    /// published all the same.
    pub unwatched: Option<Error>,
    /// Old sets could not be removed. The set is published all the same, and the next call tries
    /// again.
    pub unswept: Option<Error>,
}

impl OutputDirectory {
    /// Takes over `dir`: makes it and what is missing of the layout's directories, takes the lock
    /// until it is dropped, and removes what a killed publish left. Envoy sees none of it. Fails
    /// with `Error::Held` if another crossover holds the lock, and with `Error::Disk` otherwise.
    pub fn open(dir: &Path, verdicts: Keep) -> Result<OutputDirectory, Error> {
        OutputDirectory::open_on(Fs::default(), dir, verdicts)
    }

    /// Looks whether the layout is as it was left. Makes missing directories again (and takes the
    /// lock again, if that went with them); what else is missing or foreign, the next publish
    /// makes again, so call it after this. Returns whether there was anything of the kind.
    pub fn check(&mut self) -> Result<bool, Error> {
        // Where it cannot be synced, it is still to be seen whether it is all there.
        let _ = self.make_durable();
        let was_announced = self.is_announced();
        let owed = self.inventory.visible.active().map(ActiveSet::owed);
        let is_whole = self.whole_or_recheck(OutputDirectory::make_whole)?;
        let owed = owed.unwrap_or_default();
        let is_news = |active: &ActiveSet| !active.spoiled.is_subset(&owed);
        let spoiled = self.inventory.visible.active().is_some_and(is_news);
        Ok(!is_whole || spoiled || (was_announced && !self.is_announced()))
    }

    /// Makes what is missing again, and takes stock of the rest. Returns whether nothing was
    /// missing.
    fn make_whole(&mut self) -> Result<bool, Error> {
        let held = self.is_held()?;
        if !held {
            self.held = recover::hold(&self.disk, &self.at)?;
        }
        self.heartbeat.check(&self.disk)?;
        let made = self.on_disk().ensure_layout()?;
        self.take_stock()?;
        self.note_live()?;
        self.sweep_leftovers();
        self.check_verdicts();
        Ok(held && !made)
    }

    /// Runs steps that leave the directory half done if one fails: it is looked at again then,
    /// before the next publish.
    fn whole_or_recheck<T>(
        &mut self,
        steps: impl FnOnce(&mut OutputDirectory) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.needs_recheck = true;
        let done = steps(self)?;
        self.needs_recheck = false;
        Ok(done)
    }

    fn on_disk(&self) -> OnDisk<'_> {
        OnDisk {
            disk: &self.disk,
            at: &self.at,
            reads: self.reads.as_ref(),
        }
    }

    fn is_announced(&self) -> bool {
        self.inventory
            .visible
            .active()
            .is_some_and(ActiveSet::is_announced)
    }

    /// Returns whether a directory that a running Envoy watches was removed since the last call:
    /// that Envoy hears of no further change.
    pub fn take_lost_watch(&mut self) -> bool {
        std::mem::take(&mut self.live.is_lost)
    }

    /// Writes for probes that the loop has turned, which state it is in, and what Envoy made of the
    /// files, if that is asked.
    pub fn beat(
        &mut self,
        state: &str,
        accepted: Option<&Accepted>,
        limit: Duration,
    ) -> Result<Beaten, Error> {
        self.heartbeat.beat(&self.disk, state, accepted, limit)
    }
}
