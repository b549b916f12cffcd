//! Puts a set of files where Envoy finds it: staged aside, switched by one rename, then announced.
//! Owns: the output directory, everything in it (`directory/layout.rs` draws it), its lock. Must not:
//! decide what a set holds, look into a file, log, wait, or write anywhere else.
//!
//! The order is the promise. Whoever opens files through `current/`, at any moment, gets them out of
//! one set: all links lead through `.sets/active`, and one rename moves that. A set that was written
//! to its end and then synced is named by `.sets/done`; no other is ever carried over, or announced
//! to a running Envoy before it is rewritten.

mod active;
mod compare;
mod layout;
mod migrate;
mod provenance;
mod publish;
mod recover;
mod sets;
mod stage;
mod standing;
mod sweep;
#[cfg(test)]
mod tests;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::output::disk::{Fs, Inode};
use crate::output::heartbeat::{Beaten, Heartbeat};
use crate::output::reads::Reads;
use crate::snapshot::FileName;
use active::{ActiveSet, Visible};
pub use compare::{Compared, Found};
use layout::Layout;
pub use publish::Synced;
pub use standing::Standing;
use sweep::OlderSets;

/// The only writer of an output directory.
#[derive(Debug)]
pub struct OutputDirectory {
    disk: Fs,
    at: Layout,
    held: Held,
    heartbeat: Heartbeat,
    visible: Visible,
    /// The number of the set that the link `done` leads to.
    last_durable: Option<u64>,
    /// The other sets on disk.
    older: OlderSets,
    /// The watch of who reads the last step's files. Nothing here opens those until it has ended.
    reads: Option<Reads>,
    /// The directory `.live` that an Envoy watches, and whether it has lost one.
    watched: Option<Inode>,
    lost_watch: bool,
    /// An error left things undone, so look again before the next publish.
    needs_recheck: bool,
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
    pub fn open(dir: &Path) -> Result<OutputDirectory, Error> {
        OutputDirectory::open_on(Fs::default(), dir)
    }

    /// Looks whether the layout is as it was left. Makes missing directories again (and takes the
    /// lock again, if that went with them); what else is missing or foreign, the next publish
    /// makes again, so call it after this. Returns whether there was anything of the kind.
    pub fn check(&mut self) -> Result<bool, Error> {
        // Where it cannot be synced, it is still to be seen whether it is all there.
        let _ = self.make_durable();
        self.needs_recheck = true;
        let was_announced = self.is_announced();
        let owed = self.visible.active().map(ActiveSet::owed);
        let held = self.is_held()?;
        if !held {
            self.held = recover::hold(&self.disk, &self.at)?;
        }
        self.heartbeat.check(&self.disk)?;
        let made = self.ensure_layout()?;
        self.scan()?;
        self.watch()?;
        self.sweep_leftovers();
        self.needs_recheck = false;
        let owed = owed.unwrap_or_default();
        let is_news = |active: &ActiveSet| !active.spoiled.is_subset(&owed);
        let spoiled = self.visible.active().is_some_and(is_news);
        Ok(!held || made || spoiled || (was_announced && !self.is_announced()))
    }

    fn is_announced(&self) -> bool {
        self.visible.active().is_some_and(ActiveSet::is_announced)
    }

    /// Returns whether a directory that a running Envoy watches was removed since the last call:
    /// that Envoy hears of no further change.
    pub fn take_lost_watch(&mut self) -> bool {
        std::mem::take(&mut self.lost_watch)
    }

    /// Writes for probes that the loop has turned, and which state it is in.
    pub fn beat(&mut self, state: &str, limit: Duration) -> Result<Beaten, Error> {
        self.heartbeat.beat(&self.disk, state, limit)
    }
}
