//! Decides from the state of each ConfigMap what Envoy should find. Owns: whether there is enough
//! to publish, and whose file is published where two ConfigMaps have the same one.

use crate::snapshot::{File, FileName, ObjectName, Snapshot};
use crate::xds::content::ConfigMapFiles;

/// The last answer of the cluster about a ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The cluster has not answered yet.
    Pending,
    /// It does not exist.
    Missing,
    /// It is not fit to be published.
    Invalid,
    /// It is fit, and followed.
    Valid,
}

/// A file that two ConfigMaps have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// Its name.
    pub file: FileName,
    /// The ConfigMap whose file is published.
    pub published: ObjectName,
    /// The ConfigMap whose file is not.
    pub shadowed: ObjectName,
}

/// The state of one ConfigMap.
#[derive(Clone, Copy, Debug)]
pub struct SourceView<'a> {
    /// The ConfigMap.
    pub object: &'a ObjectName,
    /// The last answer of the cluster.
    pub observed: Observed,
    /// Its last fit state.
    pub content: Option<&'a ConfigMapFiles>,
}

/// The files that should stand on disk, before weights.
#[derive(Debug)]
pub struct Desired {
    /// The files.
    pub set: Snapshot,
    /// The files that two ConfigMaps have.
    pub overrides: Vec<Collision>,
}

impl SourceView<'_> {
    /// Returns whether nothing can be published without this ConfigMap. `stands` says that a whole
    /// set is on disk: then one that is missing or invalid, and has no files there, counts as
    /// empty.
    pub fn holds_up(&self, stands: bool) -> bool {
        match self.observed {
            Observed::Pending => true,
            Observed::Missing | Observed::Invalid | Observed::Valid => {
                self.content.is_none() && !stands
            }
        }
    }
}

/// Assembles what Envoy should find from what is known of each ConfigMap, in order. Returns `None`
/// while one of them holds it up.
pub fn desired(sources: &[SourceView], stands: bool) -> Option<Desired> {
    if sources.iter().any(|known| known.holds_up(stands)) {
        return None;
    }
    let (mut set, mut overrides) = (Snapshot::new(), Vec::new());
    for SourceView {
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
                let (published, shadowed) = ((*object).clone(), hidden.origin.object.clone());
                overrides.push(Collision {
                    file: name.clone(),
                    published,
                    shadowed,
                });
            }
        }
    }
    Some(Desired { set, overrides })
}
