//! Describes the set that Envoy finds, as far as it may be compared with.

use super::provenance::Sources;
use crate::snapshot::FileName;
use crate::sorted::SortedSet;

/// The set that the link `active` names.
#[derive(Debug)]
pub enum Visible {
    /// It may be compared with.
    Trusted(ActiveSet),
    /// The next publish writes and announces everything.
    Untrusted(Untrusted),
}

/// A visible set that may not be compared with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untrusted {
    /// Its number; `None` if there is no such link.
    pub number: Option<u64>,
    /// True if there are files where our links should be. They become a set before anything is
    /// published.
    pub has_foreign_files: bool,
    /// True if it replaces a newer set that was torn. This was not announced to Envoy.
    pub is_rolled_back: bool,
}

impl Visible {
    pub fn number(&self) -> Option<u64> {
        match self {
            Visible::Trusted(active) => Some(active.number),
            Visible::Untrusted(found) => found.number,
        }
    }

    pub fn active(&self) -> Option<&ActiveSet> {
        match self {
            Visible::Trusted(active) => Some(active),
            Visible::Untrusted(_) => None,
        }
    }

    pub fn active_mut(&mut self) -> Option<&mut ActiveSet> {
        match self {
            Visible::Trusted(active) => Some(active),
            Visible::Untrusted(_) => None,
        }
    }

    /// Returns what is known of the set where it may not be compared with.
    pub fn doubts(&self) -> Untrusted {
        match self {
            Visible::Trusted(active) => Untrusted {
                number: Some(active.number),
                ..Untrusted::default()
            },
            Visible::Untrusted(found) => *found,
        }
    }

    /// Returns the set, if it is trusted.
    pub fn into_active(self) -> Option<ActiveSet> {
        match self {
            Visible::Trusted(active) => Some(active),
            Visible::Untrusted(_) => None,
        }
    }

    /// Replaces the set. Returns the one before, if that was trusted.
    pub fn replace(&mut self, with: Visible) -> Option<ActiveSet> {
        std::mem::replace(self, with).into_active()
    }

    pub fn has_foreign_files(&self) -> bool {
        self.doubts().has_foreign_files
    }
}

/// A set that this run has committed, or found whole.
#[derive(Debug)]
pub struct ActiveSet {
    pub number: u64,
    pub files: Sources,
    /// The files that are not what was written any more. They are written and announced again.
    pub spoiled: SortedSet<FileName>,
    pub state: State,
}

/// The progress of the publish of a set.
#[derive(Debug)]
pub enum State {
    /// It is committed; Envoy has yet to be told of these files, and of `current` itself.
    Announcing {
        left: SortedSet<FileName>,
        current: bool,
    },
    /// Envoy was told of all of it; these files are yet to be synced. They may be carried over into
    /// the next set, and are synced where they stand then.
    Announced { unsynced: SortedSet<FileName> },
    /// All of it is on stable storage.
    Durable,
}

impl ActiveSet {
    /// Returns a set that was found to be done, or was just made so.
    pub fn durable(number: u64, files: Sources, spoiled: SortedSet<FileName>) -> ActiveSet {
        ActiveSet {
            number,
            files,
            spoiled,
            state: State::Durable,
        }
    }

    /// Returns a set that an earlier run has written, and perhaps not announced.
    pub fn unannounced(number: u64, files: Sources) -> ActiveSet {
        let left = files.keys().cloned().collect();
        ActiveSet {
            number,
            files,
            spoiled: SortedSet::new(),
            state: State::Announcing {
                left,
                current: true,
            },
        }
    }

    /// Returns whether its files may be carried over into the next set, as long as the machine
    /// runs.
    pub fn is_announced(&self) -> bool {
        !matches!(self.state, State::Announcing { .. })
    }

    pub fn is_durable(&self) -> bool {
        matches!(self.state, State::Durable)
    }

    /// Returns whether it has `name`, as it was written.
    pub fn is_intact(&self, name: &FileName) -> bool {
        self.files.contains_key(name) && !self.spoiled.contains(name)
    }

    /// Returns whether Envoy has yet to be told of `name`.
    pub fn is_untold(&self, name: &FileName) -> bool {
        matches!(&self.state, State::Announcing { left, .. } if left.contains(name))
    }

    /// Returns the files that have to be written or announced even if their content is not new.
    pub fn owed(&self) -> SortedSet<FileName> {
        let mut owed = self.spoiled.clone();
        if let State::Announcing { left, .. } = &self.state {
            owed.extend(left.iter().cloned());
        }
        owed
    }

    /// Returns whether `current` has to be announced even if no file is new.
    pub fn owes_current(&self) -> bool {
        matches!(self.state, State::Announcing { current: true, .. })
    }

    /// Returns the files that were carried over or written, and never synced.
    pub fn unsynced(&self) -> Option<&SortedSet<FileName>> {
        match &self.state {
            State::Announced { unsynced } => Some(unsynced),
            State::Announcing { .. } | State::Durable => None,
        }
    }
}
