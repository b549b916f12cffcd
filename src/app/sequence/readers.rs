//! The published files that somebody reads. Pure.

use crate::snapshot::FileName;
use crate::sorted::SortedMap;

/// A file that was not read in so many steps in a row is not waited for any more.
const MISSES_MAX: u8 = 2;

/// The files that were not read when they should have been. Of any other file it is assumed that
/// somebody reads it: what was there before this run may well have a reader.
#[derive(Debug, Default)]
pub struct Readers {
    misses: SortedMap<FileName, u8>,
}

impl Readers {
    /// Returns whether to wait until `name` is read.
    pub fn expects(&self, name: &FileName) -> bool {
        self.misses
            .get(name)
            .is_none_or(|misses| *misses < MISSES_MAX)
    }

    /// Notes that somebody has read `name`.
    pub fn on_read(&mut self, name: &FileName) {
        self.misses.remove(name);
    }

    /// Notes that nobody has read `name` in a step. Returns whether it is not waited for from now
    /// on.
    pub fn on_missed(&mut self, name: &FileName) -> bool {
        let misses = self.misses.get_or_insert_with(name.clone(), || 0);
        *misses = misses.saturating_add(1);
        *misses == MISSES_MAX
    }

    /// Forgets files that are not in the set any more.
    pub fn retain(&mut self, is_published: impl Fn(&FileName) -> bool) {
        self.misses.retain(|name, _| is_published(name));
    }
}
