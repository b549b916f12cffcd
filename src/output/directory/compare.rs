//! Compares a step with the set that is visible. Owns: what a publish has to do. Must not: change
//! what Envoy sees, but for files of other programs, which become a set with the same content.

use std::path::Path;
use std::rc::Rc;

use super::OutputDirectory;
use super::provenance::{Mark, Source};
use crate::error::Error;
use crate::output::disk::{Fs, hash_of, stamp_of};
use crate::output::reads::{Reads, Recalled};
use crate::output::step::{Difference, Step};
use crate::snapshot::{Bytes, FileName};
use crate::sorted::SortedSet;

/// Larger texts are not kept in memory just for the next comparison.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// A step, compared with the visible set.
#[must_use]
#[derive(Debug)]
pub struct Compared<'a> {
    pub step: Step<'a>,
    pub found: Found,
}

/// The outcome of a comparison.
#[derive(Debug)]
pub enum Found {
    /// Nothing may be compared with, or the files that should stay as they are do not.
    Nothing,
    /// The step's set is visible already, and announced.
    Equal,
    /// There is something to write or to announce.
    Different(Plan),
}

/// The work that a publish has to do.
#[derive(Debug)]
pub struct Plan {
    /// True if there is a set to compare with.
    pub is_compared: bool,
    /// The files to be written and announced, by name.
    pub changed: Vec<FileName>,
    /// Those of them that the set to compare with does not have.
    pub added: Vec<FileName>,
    /// Those of them that are what was written: Envoy was not told of them, or is told once more.
    pub owed: SortedSet<FileName>,
    /// The files to be removed.
    pub removed: Vec<FileName>,
    /// True if `.live` may have links that the active set does not account for, as it does after an
    /// error or in the run after a kill.
    pub strays: bool,
    /// True if `current` is announced. It is not if only the origin of the contents has changed.
    pub current: bool,
}

impl Compared<'_> {
    /// Returns how the step's files differ from the visible ones. `None` if nothing may be compared
    /// with: the target is to be published as one set then.
    pub fn difference(&self) -> Option<Difference> {
        match &self.found {
            Found::Nothing => None,
            Found::Equal => Some(Difference::default()),
            Found::Different(plan) => plan.is_compared.then(|| plan.difference()),
        }
    }

    /// Returns whether there is something to write or to announce.
    pub fn is_different(&self) -> bool {
        matches!(self.found, Found::Different(_))
    }

    /// Returns the files that Envoy will be told of.
    pub fn changed(&self) -> impl Iterator<Item = &FileName> {
        let plan = match &self.found {
            Found::Different(plan) => Some(plan),
            Found::Nothing | Found::Equal => None,
        };
        plan.into_iter().flat_map(|plan| &plan.changed)
    }

    /// Has Envoy told of all of the step's files, and not only of those that differ.
    pub fn announce_all(&mut self) {
        let plan = match &mut self.found {
            Found::Nothing => return,
            Found::Different(plan) => plan,
            Found::Equal => {
                self.found = Found::Different(Plan {
                    is_compared: true,
                    changed: Vec::new(),
                    added: Vec::new(),
                    owed: SortedSet::new(),
                    removed: Vec::new(),
                    strays: false,
                    current: true,
                });
                return self.announce_all();
            }
        };
        let is_equal = |name: &&FileName| plan.changed.binary_search(*name).is_err();
        plan.owed
            .extend(self.step.files.keys().filter(is_equal).cloned());
        plan.changed = self.step.files.keys().cloned().collect();
        plan.current = true;
    }

    /// Returns the files of the visible set that Envoy will be told of, as they are written again.
    pub fn announced(&self) -> impl Iterator<Item = &FileName> {
        let plan = match &self.found {
            Found::Different(plan) => Some(plan),
            Found::Nothing | Found::Equal => None,
        };
        plan.into_iter().flat_map(|plan| {
            let is_known = |name: &&FileName| !plan.added.contains(*name);
            plan.changed.iter().filter(is_known)
        })
    }
}

impl Plan {
    fn difference(&self) -> Difference {
        let is_changed =
            |name: &&FileName| !self.owed.contains(*name) && !self.added.contains(*name);
        Difference {
            added: self.added.iter().cloned().collect(),
            changed: self.changed.iter().filter(is_changed).cloned().collect(),
            removed: self.removed.iter().cloned().collect(),
        }
    }
}

impl OutputDirectory {
    /// Compares a step with the set that is visible (step 1 of a publish).
    pub fn compare<'a>(&mut self, step: Step<'a>) -> Result<Compared<'a>, Error> {
        self.make_good()?;
        let found = self.plan(&step);
        Ok(Compared { step, found })
    }

    /// Looks again at a directory that an error has left half done, and makes files of other
    /// programs a set.
    fn make_good(&mut self) -> Result<(), Error> {
        if self.needs_recheck || !self.is_held()? {
            self.check()?;
        }
        if self.inventory.visible.has_foreign_files() {
            self.whole_or_recheck(OutputDirectory::adopt)?;
        }
        Ok(())
    }

    fn plan(&mut self, step: &Step) -> Found {
        let Some(active) = self.inventory.visible.active_mut() else {
            if !step.standing.is_empty() {
                return Found::Nothing;
            }
            return Found::Different(Plan {
                is_compared: false,
                changed: step.files.keys().cloned().collect(),
                added: Vec::new(),
                owed: SortedSet::new(),
                removed: Vec::new(),
                strays: true,
                current: true,
            });
        };
        if !step.standing.iter().all(|name| active.is_intact(name)) {
            return Found::Nothing;
        }
        let dir = self.at.set(active.number);
        let reads = self.reads.as_ref();
        let (mut changed, mut added) = (Vec::new(), Vec::new());
        let mut owed = SortedSet::new();
        let mut is_moved = false;
        for (name, file) in step.files {
            let path = dir.join(name.as_str());
            let is_spoiled = active.spoiled.contains(name);
            let is_untold = active.is_untold(name);
            if !is_spoiled
                && let Some(source) = active.files.get_mut(name)
                && source.is_same(&self.disk, &path, &file.bytes, reads)
            {
                is_moved |= source.origin.object != file.origin.object
                    || source.mark != Mark::of(name, step.transient);
                if is_untold {
                    owed.insert(name.clone());
                }
            } else {
                if !active.files.contains_key(name) {
                    added.push(name.clone());
                }
                changed.push(name.clone());
            }
        }
        for name in step.standing {
            let mark = Mark::of(name, step.transient);
            is_moved |= active
                .files
                .get(name)
                .is_some_and(|source| source.mark != mark);
            if active.is_untold(name) {
                owed.insert(name.clone());
            }
        }
        if !owed.is_empty() {
            let all: SortedSet<FileName> =
                changed.into_iter().chain(owed.iter().cloned()).collect();
            changed = all.into_iter().collect();
        }
        let gone =
            |name: &&FileName| !step.files.contains_key(*name) && !step.standing.contains(*name);
        let removed: Vec<_> = active.files.keys().filter(gone).cloned().collect();
        let current = active.owes_current() || !changed.is_empty() || !removed.is_empty();
        let strays = !active.is_announced();
        if !current && !is_moved && !strays {
            return Found::Equal;
        }
        Found::Different(Plan {
            is_compared: true,
            changed,
            added,
            owed,
            removed,
            strays,
            current,
        })
    }
}

impl Source {
    /// Returns whether the file is exactly `bytes`. It is read, unless it is what it was when it
    /// was read last, or its readers are watched.
    fn is_same(&mut self, disk: &Fs, path: &Path, bytes: &Bytes, reads: Option<&Reads>) -> bool {
        // The stamp is taken before the file is read, so that a write in between shows the next
        // time.
        let found = disk.lstat(path).ok().flatten();
        let stamp = found.as_ref().map(stamp_of);
        if let (Some(now), Some((read, then))) = (&stamp, &self.seen)
            && now == then
            && Rc::ptr_eq(read, bytes)
        {
            return true;
        }
        if let (Some(found), Some(reads)) = (&found, reads)
            && let Some(recalled) = reads.recall(found)
        {
            return matches!(recalled, Recalled::Content(content) if content == bytes);
        }
        let same = disk.same(path, bytes);
        if same && self.hash.is_none() {
            self.hash = Some(hash_of(bytes));
        }
        // A buffer with no other owner is merge output: it is rebuilt on every publish, so keeping
        // it is pointless.
        let kept = same && bytes.len() <= MAX_KEPT_BYTES && Rc::strong_count(bytes) > 1;
        self.seen = stamp.filter(|_| kept).map(|stamp| (bytes.clone(), stamp));
        same
    }
}
