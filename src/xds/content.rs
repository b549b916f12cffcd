//! A ConfigMap's files, judged as a whole. Owns: when a ConfigMap is fit to be published, and what
//! its author should know of one that is. Must not: decide what stands in for one that is not.
//!
//! An [`Examination`] names the texts that have to be checked. Its caller runs each check, in as
//! many steps as it likes, and may drop the whole in favour of a newer state.

use std::fmt;
use std::rc::Rc;

use crate::snapshot::{Bytes, FileName, ObjectName, Origin, Snapshot};
use crate::sorted::SortedMap;
use crate::xds::validate::{self, Verdict};

/// A ConfigMap all of whose files are fit to be published.
#[derive(Clone, Debug)]
pub struct ConfigMapFiles {
    /// The object, and the state of it that the files are from.
    pub origin: Rc<Origin>,
    /// Its files, of which there is at least one.
    pub files: SortedMap<FileName, Bytes>,
}

impl ConfigMapFiles {
    /// Returns what `set`, published by a previous run, has of `object`.
    pub fn from_last_run(object: &ObjectName, set: &Snapshot) -> Option<ConfigMapFiles> {
        let mine = || set.iter().filter(|(_, file)| file.origin.object == *object);
        let origin = mine().next()?.1.origin.clone();
        let mut files = SortedMap::new();
        files.extend(mine().map(|(name, file)| (name.clone(), file.bytes.clone())));
        Some(ConfigMapFiles { origin, files })
    }
}

/// Something about one file of a ConfigMap that its author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The ConfigMap's key.
    pub key: String,
    /// The fault, and its place.
    pub what: String,
}

impl Finding {
    fn new(key: &str, what: impl fmt::Display) -> Finding {
        Finding {
            key: key.to_owned(),
            what: what.to_string(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// A ConfigMap whose files are being judged.
pub struct Examination<'a> {
    before: Option<&'a ConfigMapFiles>,
    files: SortedMap<FileName, Bytes>,
    unread: Vec<FileName>,
    refusals: Vec<Finding>,
    warnings: Vec<Finding>,
    unchecked: Vec<FileName>,
    foreign: Vec<(FileName, Finding)>,
}

/// The result of an examination.
pub struct Examined {
    /// Its files, or everything that speaks against them.
    pub content: Result<SortedMap<FileName, Bytes>, Vec<Finding>>,
    /// The findings that do not make it invalid.
    pub warnings: Vec<Finding>,
    /// The files that are valid, and of which [`validate::cross_check`] may know more.
    pub unchecked: Vec<FileName>,
    /// The files that are not a configuration, and what they are instead. They must not take the
    /// place of a configuration that a previous run published.
    pub foreign: Vec<(FileName, Finding)>,
}

impl<'a> Examination<'a> {
    /// Begins with a ConfigMap's `raw` files. Those equal to files `before`, its last valid state,
    /// are not read again.
    pub fn new(
        raw: &Result<SortedMap<String, Bytes>, String>,
        before: Option<&'a ConfigMapFiles>,
    ) -> Examination<'a> {
        let mut examination = Examination {
            before,
            files: SortedMap::new(),
            unread: Vec::new(),
            refusals: Vec::new(),
            warnings: Vec::new(),
            unchecked: Vec::new(),
            foreign: Vec::new(),
        };
        if let Err(what) = raw {
            examination.refuse("binaryData", what);
        }
        for (key, bytes) in raw.iter().flatten() {
            let Some(name) = FileName::new(key) else {
                examination.refuse(key, "not a plain file name");
                continue;
            };
            if examination.last_valid(&name) != Some(bytes) {
                examination.unread.push(name.clone());
            }
            examination.files.insert(name, bytes.clone());
        }
        // They are taken from the end.
        examination.unread.reverse();
        if examination.files.is_empty() && examination.refusals.is_empty() {
            examination.refuse("data", "it has no keys");
        }
        examination
    }

    fn refuse(&mut self, key: &str, what: impl fmt::Display) {
        self.refusals.push(Finding::new(key, what));
    }

    fn last_valid(&self, name: &FileName) -> Option<&'a Bytes> {
        self.before?.files.get(name)
    }

    /// Returns the next file that has to be checked.
    pub fn next_unread(&mut self) -> Option<(FileName, Bytes)> {
        let name = self.unread.pop()?;
        let bytes = self.files.get(&name)?.clone();
        Some((name, bytes))
    }

    /// Takes in the verdict on a file.
    pub fn judge(&mut self, name: FileName, verdict: Verdict) {
        let finding = |fault| Finding::new(name.as_str(), fault);
        match verdict {
            Verdict::Valid => self.unchecked.push(name),
            Verdict::Suspect(fault) => self.warnings.push(finding(fault)),
            Verdict::Invalid(fault) => self.refusals.push(finding(fault)),
            Verdict::Foreign(fault) => {
                let before = self.last_valid(&name);
                if before.is_some_and(|before| validate::is_configuration(&name, before)) {
                    self.refusals.push(finding(fault));
                } else {
                    let finding = finding(fault);
                    self.foreign.push((name, finding));
                }
            }
        }
    }

    /// Ends the examination, when every file has been judged.
    pub fn finish(self) -> Examined {
        Examined {
            content: if self.refusals.is_empty() {
                Ok(self.files)
            } else {
                Err(self.refusals)
            },
            warnings: self.warnings,
            unchecked: self.unchecked,
            foreign: self.foreign,
        }
    }
}
