//! Encodes and decodes `N.sources`: which ConfigMap, and which state of it, each file of a set came
//! from, and a hash of the file. It is JSON with one file on each line, so that people can read it
//! with `cat`. Owns: that format. Must not: touch the disk.
//!
//! Other versions of crossover read and write the same directory: an unknown field is ignored, and
//! a field that a later version added may be missing.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::output::disk::{FullStamp, Stamp};
use crate::snapshot::{Bytes, FileName, ObjectName, Origin, ResourceVersion};

/// A published file. Its content is on disk, and in memory only if something else holds it anyway.
#[derive(Clone, Debug)]
pub struct Source {
    pub origin: Rc<Origin>,
    pub size: u64,
    /// The hash of its content; `None` if an earlier version wrote the set.
    pub hash: Option<u64>,
    /// The bytes that the file was last found equal to, and its stamp at that time.
    pub seen: Option<(Bytes, Stamp)>,
    /// The stamp of the file when its content was last found to have that hash.
    pub intact: Option<FullStamp>,
}

impl Source {
    /// Takes over what is known of the same file.
    pub fn recall(&mut self, known: &Source) {
        if self.size == known.size && self.hash.is_none_or(|hash| known.hash == Some(hash)) {
            *self = Source {
                origin: self.origin.clone(),
                ..known.clone()
            };
        }
    }
}

/// A whole set, without contents.
pub type Sources = BTreeMap<FileName, Source>;

/// The most bytes that a line can have: key, namespace and name of at most 253 each, and a uid and
/// a resourceVersion of the server's choice.
pub const LONGEST_LINE: u64 = 4 << 10;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<u64>,
}

/// Returns the text of `N.sources`.
pub fn encode(sources: &Sources) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(32 + 224 * sources.len());
    let mut before = "{\n  ";
    for (name, source) in sources {
        let Source {
            origin, size, hash, ..
        } = source;
        out.extend(before.bytes());
        serde_json::to_writer(&mut out, name.as_str())?;
        out.extend(b": ");
        let line = Line {
            namespace: origin.object.namespace.clone(),
            name: origin.object.name.clone(),
            uid: origin.uid.clone(),
            resource_version: origin.resource_version.0.clone(),
            size: *size,
            hash: *hash,
        };
        serde_json::to_writer(&mut out, &line)?;
        before = ",\n  ";
    }
    out.extend(if sources.is_empty() { "{}\n" } else { "\n}\n" }.bytes());
    Ok(out)
}

/// Reads the text of `N.sources`. Returns `None` if any of it is not in our format.
pub fn decode(text: &[u8]) -> Option<Sources> {
    let lines: BTreeMap<String, Line> = serde_json::from_slice(text).ok()?;
    let mut sources = Sources::new();
    let mut last: Option<Rc<Origin>> = None;
    for (name, line) in lines {
        let origin = Origin {
            object: ObjectName {
                namespace: line.namespace,
                name: line.name,
            },
            uid: line.uid,
            resource_version: ResourceVersion(line.resource_version),
        };
        // Files of one ConfigMap share one origin.
        let origin = match last {
            Some(same) if *same == origin => same,
            _ => Rc::new(origin),
        };
        last = Some(origin.clone());
        let source = Source {
            origin,
            size: line.size,
            hash: line.hash,
            seen: None,
            intact: None,
        };
        sources.insert(FileName::new(&name)?, source);
    }
    Some(sources)
}

/// Returns the origin of files that were there before crossover.
pub fn unknown() -> Rc<Origin> {
    Rc::new(Origin {
        object: ObjectName {
            namespace: String::new(),
            name: String::new(),
        },
        uid: String::new(),
        resource_version: ResourceVersion(String::new()),
    })
}
