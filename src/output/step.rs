//! One whole set of a sequence, as a value: what it holds, and what of it the target does not have.

use std::ops::Range;

use crate::snapshot::{FileName, Snapshot};
use crate::sorted::{SortedMap, SortedSet};

const NO_FILES: &SortedSet<FileName> = &SortedSet::new();

/// A set to be made visible.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Its files, but for those in `standing`.
    pub files: &'a Snapshot,
    /// Files of the visible set that stay as they are.
    pub standing: &'a SortedSet<FileName>,
    /// The things that it holds beyond its target; `None` for the target itself.
    pub transient: Option<&'a Transient>,
    /// True if the readers of the changed files are watched.
    pub watch: bool,
    /// True if a listener changes with it, so that connections may go on with an older one.
    pub moves_listener: bool,
}

impl<'a> Step<'a> {
    /// Returns the step that makes the target visible at once.
    pub fn target(files: &'a Snapshot) -> Step<'a> {
        Step {
            files,
            standing: NO_FILES,
            transient: None,
            watch: false,
            moves_listener: false,
        }
    }
}

/// All that is in a set on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFiles {
    pub files: Snapshot,
    /// The things that it holds beyond its target.
    pub transient: Option<Transient>,
}

impl SetFiles {
    /// Returns the step that makes the same set visible again.
    pub fn step(&self) -> Step<'_> {
        Step {
            files: &self.files,
            standing: NO_FILES,
            transient: self.transient.as_ref(),
            watch: true,
            moves_listener: false,
        }
    }
}

/// The difference between the set of an unfinished sequence and its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transient {
    pub stage: Stage,
    /// The bytes of each union that hold the clusters that vanish: without them it is the target's
    /// file.
    pub inserted: SortedMap<FileName, Range<u64>>,
    /// The files that the target does not have.
    pub vanishing: SortedSet<FileName>,
}

/// The progress of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// New and changed clusters are visible; routes and listeners are still the old ones.
    Clusters,
    /// The target is visible, beside what vanishes.
    Routes,
}

/// The difference between the files of a step and the visible ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Those that are new.
    pub added: SortedSet<FileName>,
    /// Those that are visible with other bytes.
    pub changed: SortedSet<FileName>,
    /// Those that are visible, and not in the step.
    pub removed: SortedSet<FileName>,
}
