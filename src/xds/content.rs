//! A ConfigMap's files, judged as a whole. Owns: when a ConfigMap is fit to be published, and what its
//! author should know of one that is. Must not: decide what stands in for one that is not.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use crate::gather;
use crate::snapshot::{Bytes, FileName, ObjectName, Origin, Snapshot, Version};
use crate::xds::validate::{self, Verdict};
use crate::xds::yaml::Form;

/// A ConfigMap all of whose files are fit to be published.
#[derive(Clone, Debug)]
pub struct ConfigMapFiles {
    /// Which state of which object.
    pub origin: Rc<Origin>,
    /// At least one.
    pub files: BTreeMap<FileName, Bytes>,
}

/// Something about one file of a ConfigMap that its author should know.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The ConfigMap's key.
    pub key: String,
    /// What is wrong, and where.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// What became of a ConfigMap on the way in.
#[derive(Debug)]
pub struct Examined {
    /// Its content, or everything that speaks against it.
    pub content: Result<ConfigMapFiles, Vec<Finding>>,
    /// What does not speak against it, but should be known.
    pub doubts: Vec<Finding>,
    /// Files that were found good, and that nobody was asked about twice.
    pub unchecked: Vec<FileName>,
}

/// Whether a ConfigMap's `raw` files are fit to be published. Those equal to files `before` are not
/// read again. `None`: it was left off, as `is_outdated` said so.
pub fn examine(
    object: &ObjectName,
    version: &Version,
    raw: &Result<BTreeMap<String, Bytes>, String>,
    before: Option<&ConfigMapFiles>,
    is_outdated: &mut dyn FnMut() -> bool,
) -> Option<Examined> {
    let (mut refusals, mut doubts, mut unchecked) = (Vec::new(), Vec::new(), Vec::new());
    let remark = |key: &str, what: &str| Finding {
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
                Verdict::Valid => unchecked.push(name.clone()),
                Verdict::Suspect(fault) => doubts.push(remark(key, &fault.to_string())),
                Verdict::Invalid(fault) => refusals.push(remark(key, &fault.to_string())),
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
        Ok(ConfigMapFiles { origin, files })
    } else {
        Err(refusals)
    };
    Some(Examined {
        content,
        doubts,
        unchecked,
    })
}

/// What an earlier life published of `object`.
pub fn from_last_run(object: &ObjectName, set: &Snapshot) -> Option<ConfigMapFiles> {
    let mine = || set.iter().filter(|(_, file)| file.origin.object == *object);
    let origin = mine().next()?.1.origin.clone();
    let files = gather(mine().map(|(name, file)| (name.clone(), file.bytes.clone())));
    Some(ConfigMapFiles { origin, files })
}
