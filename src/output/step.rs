//! One whole set of a sequence: what it holds beyond its target, and how it differs from the set
//! that is visible. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::directory::Plan;
use crate::snapshot::{FileName, Snapshot};

const NO_FILES: &BTreeSet<FileName> = &BTreeSet::new();

/// A set to be made visible.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Its files, but for those in `standing`.
    pub files: &'a Snapshot,
    /// Files of the visible set that stay as they are.
    pub standing: &'a BTreeSet<FileName>,
    /// What it holds beyond its target; `None` for the target itself.
    pub transient: Option<&'a Transient>,
    /// Whether to watch who reads the files that change.
    pub watch: bool,
}

impl<'a> Step<'a> {
    /// The target, made visible at once.
    pub fn target(files: &'a Snapshot) -> Step<'a> {
        Step {
            files,
            standing: NO_FILES,
            transient: None,
            watch: false,
        }
    }
}

/// What tells the set of an unfinished sequence from its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transient {
    pub stage: Stage,
    /// Where each union holds the clusters that vanish: without these bytes it is the target's file.
    pub inserted: BTreeMap<FileName, Range<u64>>,
    /// The files that the target does not have.
    pub vanishing: BTreeSet<FileName>,
}

/// How far a sequence has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// New and changed clusters are visible; routes and listeners are still the old ones.
    Clusters,
    /// The target is visible, beside what vanishes.
    Routes,
}

/// A step, compared with the visible set.
#[must_use]
#[derive(Debug)]
pub struct Compared<'a> {
    pub(super) step: Step<'a>,
    pub(super) found: Found,
}

/// The outcome of a comparison.
#[derive(Debug)]
pub enum Found {
    /// Nothing is visible that could be compared with, as far as is known.
    Nothing,
    /// The step's set is visible already, and announced.
    Equal,
    /// There is something to write or to announce.
    Different(Plan),
}

impl Compared<'_> {
    /// Returns how the step's files differ from the visible ones. `None` if nothing may be compared
    /// with: the target is to be published as one set then.
    pub fn difference(&self) -> Option<Difference> {
        match &self.found {
            Found::Nothing => None,
            Found::Equal => Some(Difference::default()),
            Found::Different(plan) => plan.difference(),
        }
    }
}

/// How the files of a step differ from the visible ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Those that are new.
    pub added: BTreeSet<FileName>,
    /// Those that are visible with other bytes.
    pub changed: BTreeSet<FileName>,
    /// Those that are visible, and not in the step.
    pub removed: BTreeSet<FileName>,
}
