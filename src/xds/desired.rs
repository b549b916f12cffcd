//! From what the cluster says to what Envoy should find. Pure. Owns: when a ConfigMap is fit to be
//! published, what stands in for one that is not, and who wins where two have the same file.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use crate::gather;
use crate::snapshot::{Bytes, File, FileName, FileSet, ObjectName, Origin, Version};
use crate::xds::validate::{self, Form, Verdict};

/// A ConfigMap all of whose files are fit to be published.
#[derive(Clone, Debug)]
pub struct Content {
    /// Which state of which object.
    pub origin: Rc<Origin>,
    /// At least one.
    pub files: BTreeMap<FileName, Bytes>,
}

/// What the cluster said last of a ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latest {
    /// Nothing yet.
    Unknown,
    /// It does not exist.
    Absent,
    /// It is not fit to be published.
    Refused,
    /// It is fit, and followed.
    Fit,
}

/// Something about one file of a ConfigMap that its author should know.
#[derive(Debug, PartialEq, Eq)]
pub struct Remark {
    /// The ConfigMap's key.
    pub key: String,
    /// What is wrong, and where.
    pub what: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// What became of a ConfigMap on the way in.
#[derive(Debug)]
pub struct Examined {
    /// Its content, or everything that speaks against it.
    pub content: Result<Content, Vec<Remark>>,
    /// What does not speak against it, but should be known.
    pub doubts: Vec<Remark>,
    /// Files that were found good, and that nobody was asked about twice.
    pub unasked: Vec<FileName>,
}

/// Whether a ConfigMap's `raw` files are fit to be published. Those equal to files `before` are not
/// read again. `None`: it was left off, as `is_outdated` said so.
pub fn examine(
    object: &ObjectName,
    version: &Version,
    raw: &Result<BTreeMap<String, Bytes>, String>,
    before: Option<&Content>,
    is_outdated: &mut dyn FnMut() -> bool,
) -> Option<Examined> {
    let (mut refusals, mut doubts, mut unasked) = (Vec::new(), Vec::new(), Vec::new());
    let remark = |key: &str, what: &str| Remark {
        key: key.to_owned(),
        what: what.to_owned(),
    };
    if let Err(what) = raw {
        refusals.push(remark("binaryData", what));
    }
    let mut files = BTreeMap::new();
    for (key, bytes) in raw.iter().flatten() {
        let Some(name) = FileName::new(key) else {
            refusals.push(remark(key, "it is no plain file name"));
            continue;
        };
        let known = before.and_then(|content| content.files.get(&name));
        if known.is_none_or(|known| known != bytes) {
            match validate::check(&name, bytes, is_outdated)? {
                Verdict::Good => unasked.push(name.clone()),
                Verdict::Doubtful(fault) => doubts.push(remark(key, &fault.to_string())),
                Verdict::Bad(fault) => refusals.push(remark(key, &fault.to_string())),
                Verdict::Foreign(fault) => {
                    if known.is_some_and(|known| validate::is_configuration(&name, known)) {
                        refusals.push(remark(key, &fault.to_string()));
                    } else if Form::of(&name).is_named() {
                        doubts.push(remark(key, &fault.to_string()));
                    }
                }
            }
        }
        files.insert(name, bytes.clone());
    }
    if files.is_empty() && refusals.is_empty() {
        refusals.push(remark("data", "there is no key in it"));
    }
    let origin = Rc::new(Origin {
        object: object.clone(),
        uid: version.uid.clone(),
        resource_version: version.resource_version.clone(),
    });
    let content = if refusals.is_empty() {
        Ok(Content { origin, files })
    } else {
        Err(refusals)
    };
    Some(Examined {
        content,
        doubts,
        unasked,
    })
}

/// A file that two ConfigMaps have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Its name.
    pub file: FileName,
    /// Whose is published.
    pub winner: ObjectName,
    /// Whose is not.
    pub loser: ObjectName,
}

/// What is known of one ConfigMap.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Which.
    pub object: &'a ObjectName,
    /// What the cluster said last.
    pub latest: Latest,
    /// Its last fit state.
    pub content: Option<&'a Content>,
}

/// What should stand on disk, before weights.
#[derive(Debug)]
pub struct Desired {
    /// The files.
    pub set: FileSet,
    /// Which are hidden by others.
    pub overrides: Vec<Override>,
}

impl Known<'_> {
    /// Whether nothing can be published for want of this one. `stands`: a whole set does; then what
    /// is absent or refused, and has no files there, is as good as empty.
    pub fn holds_up(&self, stands: bool) -> bool {
        match self.latest {
            Latest::Unknown => true,
            Latest::Absent | Latest::Refused | Latest::Fit => self.content.is_none() && !stands,
        }
    }
}

/// What Envoy should find, from what is known of each ConfigMap in order; `None` while one of them
/// holds it up.
pub fn desired(sources: &[Known], stands: bool) -> Option<Desired> {
    if sources.iter().any(|known| known.holds_up(stands)) {
        return None;
    }
    let (mut set, mut overrides) = (FileSet::new(), Vec::new());
    for Known {
        object, content, ..
    } in sources
    {
        let Some(content) = content else { continue };
        for (name, bytes) in &content.files {
            let file = File {
                bytes: bytes.clone(),
                origin: content.origin.clone(),
            };
            if let Some(hidden) = set.insert(name.clone(), file) {
                let (winner, loser) = ((*object).clone(), hidden.origin.object.clone());
                overrides.push(Override {
                    file: name.clone(),
                    winner,
                    loser,
                });
            }
        }
    }
    Some(Desired { set, overrides })
}

/// What an earlier life published of `object`.
pub fn from_earlier_life(object: &ObjectName, set: &FileSet) -> Option<Content> {
    let mine = || set.iter().filter(|(_, file)| file.origin.object == *object);
    let origin = mine().next()?.1.origin.clone();
    let files = gather(mine().map(|(name, file)| (name.clone(), file.bytes.clone())));
    Some(Content { origin, files })
}
