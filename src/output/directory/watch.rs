//! Watches who reads the files of a step, from before its commit until the watch is ended. Owns:
//! which files are watched.

use std::os::fd::{AsFd, BorrowedFd};

use super::OutputDirectory;
use super::compare::Plan;
use super::stage::Staged;
use crate::error::Error;
use crate::output::reads::Reads;
use crate::output::step::Step;
use crate::snapshot::FileName;
use crate::sorted::SortedSet;

impl OutputDirectory {
    /// Watches who reads the files that change. Where that cannot be had, the set is published all
    /// the same.
    pub(super) fn watch_reads(&mut self, step: &Step, plan: &Plan, staged: &mut Staged) {
        if step.watch {
            staged.unwatched = self.try_watch_reads(step, plan, staged).err();
        }
        // That no one reads a file must not be believed of one that is not watched.
        if staged.unwatched.is_some() {
            self.reads = None;
        }
    }

    fn try_watch_reads(&mut self, step: &Step, plan: &Plan, staged: &Staged) -> Result<(), Error> {
        let dir = self.at.set(staged.number);
        for name in &plan.changed {
            let path = dir.join(name.as_str());
            // It is not watched yet, so one that stands may still be read.
            let bytes = match (step.files.get(name), staged.files.get(name)) {
                (Some(file), _) => Some(file.bytes.clone()),
                (None, Some(source)) => self.on_disk().content(&path, source.size)?,
                (None, None) => None,
            };
            let reads = match &mut self.reads {
                Some(reads) => reads,
                None => self.reads.insert(Reads::open(&self.disk, &dir)?),
            };
            if let Some(bytes) = bytes {
                reads.add(&self.disk, &path, name, &bytes)?;
            }
        }
        Ok(())
    }

    /// Ends the watch of files that the active set does not have.
    pub(super) fn forget_replaced(&mut self) {
        let files = self.inventory.visible.active().map(|active| &active.files);
        let is_active = |inode| {
            let mut sources = files.into_iter().flat_map(|files| files.values());
            sources.any(|source| source.inode == Some(inode))
        };
        if let Some(reads) = &mut self.reads {
            reads.retain(is_active);
        }
        self.reads.take_if(|reads| reads.is_empty());
    }

    /// Returns what becomes readable when somebody has read a watched file, if any is watched.
    pub fn reads(&self) -> Option<BorrowedFd<'_>> {
        self.reads.as_ref().map(AsFd::as_fd)
    }

    /// Takes the names of the watched files that somebody has read since the last call.
    pub fn take_read(&mut self) -> SortedSet<FileName> {
        self.reads.as_mut().map(Reads::take).unwrap_or_default()
    }

    /// Ends the watch of who reads the last step's files.
    pub fn end_watch(&mut self) {
        self.reads = None;
    }
}
